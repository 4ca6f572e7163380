//! Fixed newstyle negotiation: from the first byte to the export a connection is about, or to its end. Answers from the
//! export table, and asks the backing for its snapshots; does no request.
//!
//! ```text
//!   greeting ─▶ options ─┬─ STARTTLS ─▶ TLS handshake ─▶ options anew, everything agreed before forgotten
//!                        ├─ GO / EXPORT_NAME of a published export ─▶ transmission
//!                        └─ ABORT, nonsense, time-out, too many options ─▶ end
//! ```

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::contexts::{self, ALLOCATION, Changes, Context, ContextKind};
use super::options::{context_request, info_request};
use super::stream::Stream;
use super::tls::{Tls, TlsMode};
use super::wire::{self, Fields, Style, export_flag, info, option, reply};
use crate::export::{Door, Export, ExportTable};
use crate::limits::{
    BLOCK_BYTES_MIN, BLOCK_BYTES_PREFERRED, CHANGED_CONTEXTS_MAX, Limits, NAME_BYTES_MAX,
    OPTION_BYTES_MAX, OPTIONS_MAX, QUERIES_MAX, REQUEST_BYTES_MAX,
};

/// What was agreed, and the stream to go on with.
pub struct Session {
    pub stream: Stream,
    pub export: Arc<Export>,
    pub style: Style,
    pub contexts: Vec<Context>,
}

/// Why there is no session.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The client said so, or left before it said anything.
    Left,
    /// It was too slow, spoke nonsense, or asked for what closes the connection.
    Dropped,
}

struct Handshake<'a> {
    stream: Stream,
    deadline: Instant,
    table: &'a ExportTable,
    door: Door,
    tls: &'a TlsMode,
    connections_max: usize,
    style: Style,
    /// The client understands replies to options; else EXPORT_NAME, which has none, is all it may send.
    is_fixed: bool,
    no_zeroes: bool,
    /// From the last SET_META_CONTEXT, with the export's name it was for.
    contexts: Option<(String, Vec<Context>)>,
}

pub fn negotiate(
    socket: &Arc<OwnedFd>,
    table: &ExportTable,
    door: Door,
    limits: &Limits,
    tls: &TlsMode,
) -> Result<Session, End> {
    let mut handshake = Handshake {
        stream: Stream::Plain(Arc::clone(socket)),
        deadline: Instant::now() + limits.handshake,
        table,
        door,
        tls,
        connections_max: limits.export_connections_max,
        style: Style::Simple,
        is_fixed: false,
        no_zeroes: false,
        contexts: None,
    };
    handshake.greet()?;
    for _ in 0..OPTIONS_MAX {
        if let Some(export) = handshake.option()? {
            return Ok(handshake.session(export));
        }
    }
    Err(End::Dropped)
}

impl Handshake<'_> {
    fn wait(&self, flags: PollFlags) -> Result<(), End> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(End::Dropped);
            }
            let timeout = rustix::time::Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match poll(
                &mut [PollFd::new(&**self.stream.socket(), flags)],
                Some(&timeout),
            ) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(_) => return Err(End::Dropped),
            }
        }
    }

    fn receive(&self, target: &mut [u8]) -> Result<(), End> {
        let mut done = 0;
        while let Some(rest) = target.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.stream.receive(rest, RecvFlags::DONTWAIT) {
                Ok(0) => return Err(End::Left),
                Ok(count) => done += count,
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(_) => return Err(End::Left),
            }
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), End> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.stream.send(rest) {
                Ok(count) => done += count,
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(_) => return Err(End::Left),
            }
        }
        while !self.stream.flush().map_err(|_| End::Left)? {
            self.wait(PollFlags::OUT)?;
        }
        Ok(())
    }

    fn skip(&self, mut length: u64) -> Result<(), End> {
        let mut scratch = [0; 4096];
        while length > 0 {
            let part = scratch
                .get_mut(..length.min(4096) as usize)
                .unwrap_or_default();
            self.receive(part)?;
            length -= part.len() as u64;
        }
        Ok(())
    }

    fn greet(&mut self) -> Result<(), End> {
        let mut greeting = Vec::with_capacity(18);
        greeting.extend_from_slice(&wire::INIT_MAGIC.to_be_bytes());
        greeting.extend_from_slice(&wire::OPTION_MAGIC.to_be_bytes());
        greeting.extend_from_slice(&(wire::FIXED_NEWSTYLE | wire::NO_ZEROES).to_be_bytes());
        self.send(&greeting)?;
        let mut flags = [0; 4];
        self.receive(&mut flags)?;
        let flags = u32::from_be_bytes(flags);
        self.no_zeroes = flags & u32::from(wire::NO_ZEROES) != 0;
        self.is_fixed = flags & u32::from(wire::FIXED_NEWSTYLE) != 0;
        let known = u32::from(wire::FIXED_NEWSTYLE | wire::NO_ZEROES);
        if flags & !known != 0 {
            return Err(End::Dropped);
        }
        Ok(())
    }

    fn answer(&self, option: u32, kind: u32, data: &[u8]) -> Result<(), End> {
        let mut out = Vec::with_capacity(20 + data.len());
        wire::put_option_reply(&mut out, option, kind, data);
        self.send(&out)
    }

    /// One option; the export once the client has chosen it.
    fn option(&mut self) -> Result<Option<Arc<Export>>, End> {
        let mut header = [0; 16];
        self.receive(&mut header)?;
        let mut fields = Fields(&header);
        let (Some(wire::OPTION_MAGIC), Some(kind), Some(length)) =
            (fields.u64(), fields.u32(), fields.u32())
        else {
            return Err(End::Dropped);
        };
        if !self.is_fixed && kind != option::EXPORT_NAME {
            return Err(End::Dropped);
        }
        let is_open_to_all = matches!(kind, option::STARTTLS | option::ABORT);
        if self.must_encrypt() && !is_open_to_all {
            self.skip(u64::from(length))?;
            if kind == option::EXPORT_NAME {
                return Err(End::Dropped);
            }
            self.answer(kind, reply::ERR_TLS_REQD, b"this server requires TLS")?;
            return Ok(None);
        }
        if length > OPTION_BYTES_MAX {
            // The data have to be skipped to stay in step; a client that sends without end runs into the deadline.
            self.skip(u64::from(length))?;
            if kind == option::EXPORT_NAME {
                return Err(End::Dropped);
            }
            self.answer(kind, reply::ERR_TOO_BIG, b"option data of more than 64 KiB")?;
            return Ok(None);
        }
        let mut data = vec![0; length as usize];
        self.receive(&mut data)?;
        match kind {
            option::EXPORT_NAME => return self.export_name(&data).map(Some),
            option::ABORT => {
                // The client may be gone already; either way this is the end.
                let _ = self.answer(kind, reply::ACK, &[]);
                return Err(End::Left);
            }
            option::STARTTLS => self.start_tls(&data)?,
            option::LIST => self.list(&data)?,
            option::INFO | option::GO => return self.info(kind, &data),
            option::STRUCTURED_REPLY | option::EXTENDED_HEADERS => self.choose(kind, &data)?,
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.meta_context(kind, &data)?
            }
            _ => self.answer(kind, reply::ERR_UNSUP, b"option not supported")?,
        }
        Ok(None)
    }

    fn choose(&mut self, kind: u32, data: &[u8]) -> Result<(), End> {
        if !data.is_empty() {
            return self.answer(kind, reply::ERR_INVALID, b"this option takes no data");
        }
        self.style = match (kind, self.style) {
            (option::EXTENDED_HEADERS, _) => Style::Extended,
            (_, Style::Extended) => {
                let message = b"extended headers are in use already";
                return self.answer(kind, reply::ERR_EXT_HEADER_REQD, message);
            }
            _ => Style::Structured,
        };
        self.answer(kind, reply::ACK, &[])
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    fn must_encrypt(&self) -> bool {
        matches!(self.tls, TlsMode::Require(_)) && !self.is_encrypted()
    }

    /// Whatever came in plain text is worth nothing afterwards: somebody between us and the client may have said it. Bytes behind the
    /// option are part of the TLS handshake, which fails if they are not: none is kept on this side of it.
    fn start_tls(&mut self, data: &[u8]) -> Result<(), End> {
        let kind = option::STARTTLS;
        let Some(config) = self.tls.config() else {
            return self.answer(kind, reply::ERR_POLICY, b"TLS is not configured");
        };
        if self.is_encrypted() {
            return self.answer(kind, reply::ERR_INVALID, b"TLS is in use already");
        }
        if !data.is_empty() {
            return self.answer(kind, reply::ERR_INVALID, b"this option takes no data");
        }
        self.answer(kind, reply::ACK, &[])?;
        let socket = Arc::clone(self.stream.socket());
        let tls = Tls::new(socket, config).map_err(|_| End::Dropped)?;
        while let Some(wanted) = tls.shake().map_err(|_| End::Dropped)? {
            self.wait(wanted)?;
        }
        self.stream = Stream::Tls(Box::new(tls));
        self.style = Style::Simple;
        self.contexts = None;
        Ok(())
    }

    fn contexts_for(&self, export: &Export) -> &[Context] {
        match &self.contexts {
            Some((name, contexts)) if *name == export.name => contexts,
            _ => &[],
        }
    }

    fn transmission_flags(&self, export: &Export) -> u16 {
        use export_flag::*;
        let mut flags = HAS_FLAGS | SEND_FLUSH | CAN_MULTI_CONN | SEND_CACHE;
        if self.style.has_chunks() {
            flags |= SEND_DF;
        }
        if self.style == Style::Extended && !self.contexts_for(export).is_empty() {
            flags |= BLOCK_STATUS_PAYLOAD;
        }
        if export.read_only {
            flags | READ_ONLY
        } else {
            flags | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO
        }
    }

    fn list(&self, data: &[u8]) -> Result<(), End> {
        if !data.is_empty() {
            return self.answer(
                option::LIST,
                reply::ERR_INVALID,
                b"this option takes no data",
            );
        }
        let mut out = Vec::new();
        for export in self.table.list(self.door) {
            let mut entry = Vec::with_capacity(4 + export.name.len() + export.description.len());
            entry.extend_from_slice(&(export.name.len() as u32).to_be_bytes());
            entry.extend_from_slice(export.name.as_bytes());
            entry.extend_from_slice(export.description.as_bytes());
            wire::put_option_reply(&mut out, option::LIST, reply::SERVER, &entry);
        }
        wire::put_option_reply(&mut out, option::LIST, reply::ACK, &[]);
        self.send(&out)
    }

    fn export_name(&self, data: &[u8]) -> Result<Arc<Export>, End> {
        // This option has no error reply: an unknown name closes the connection, and so does what the protocol forbids.
        if self.style == Style::Extended {
            return Err(End::Dropped);
        }
        let export = std::str::from_utf8(data)
            .ok()
            .filter(|name| name.len() <= NAME_BYTES_MAX)
            .and_then(|name| self.table.get(name, self.door));
        let export = export.ok_or(End::Dropped)?;
        let mut out = Vec::with_capacity(134);
        out.extend_from_slice(&export.backing.size().to_be_bytes());
        out.extend_from_slice(&self.transmission_flags(&export).to_be_bytes());
        if !self.no_zeroes {
            out.extend_from_slice(&[0; 124]);
        }
        self.send(&out)?;
        Ok(export)
    }

    fn session(self, export: Arc<Export>) -> Session {
        let contexts = match self.contexts {
            Some((name, contexts)) if name == export.name => contexts,
            _ => Vec::new(),
        };
        Session {
            stream: self.stream,
            export,
            style: self.style,
            contexts,
        }
    }

    fn info(&self, kind: u32, data: &[u8]) -> Result<Option<Arc<Export>>, End> {
        let Some((name, requests)) = info_request(data) else {
            self.answer(kind, reply::ERR_INVALID, b"malformed option")?;
            return Ok(None);
        };
        let Some(export) = std::str::from_utf8(name)
            .ok()
            .and_then(|name| self.table.get(name, self.door))
        else {
            let message = format!(
                "no export named '{}'",
                String::from_utf8_lossy(name)
                    .chars()
                    // NUL is forbidden in messages, and the others would write on somebody's terminal.
                    .map(|letter| if letter.is_control() { '?' } else { letter })
                    .take(256)
                    .collect::<String>()
            );
            self.answer(kind, reply::ERR_UNKNOWN, message.as_bytes())?;
            return Ok(None);
        };
        if kind == option::GO && export.is_full(self.connections_max) {
            let message = b"this export has as many connections as it may";
            self.answer(kind, reply::ERR_POLICY, message)?;
            return Ok(None);
        }
        let mut out = Vec::new();
        let mut put = |information: u16, payload: &[u8]| {
            let mut data = information.to_be_bytes().to_vec();
            data.extend_from_slice(payload);
            wire::put_option_reply(&mut out, kind, reply::INFO, &data);
        };
        let mut sized = export.backing.size().to_be_bytes().to_vec();
        sized.extend_from_slice(&self.transmission_flags(&export).to_be_bytes());
        put(info::EXPORT, &sized);
        if requests.contains(&info::NAME) {
            put(info::NAME, export.name.as_bytes());
        }
        if requests.contains(&info::DESCRIPTION) {
            put(info::DESCRIPTION, export.description.as_bytes());
        }
        // Sent unasked too: it only helps a client that knows it, and others must ignore it.
        let sizes: Vec<u8> = [BLOCK_BYTES_MIN, BLOCK_BYTES_PREFERRED, REQUEST_BYTES_MAX]
            .into_iter()
            .flat_map(u32::to_be_bytes)
            .collect();
        put(info::BLOCK_SIZE, &sizes);
        wire::put_option_reply(&mut out, kind, reply::ACK, &[]);
        self.send(&out)?;
        Ok((kind == option::GO).then_some(export))
    }

    fn meta_context(&mut self, kind: u32, data: &[u8]) -> Result<(), End> {
        if !self.style.has_chunks() {
            return self.answer(
                kind,
                reply::ERR_INVALID,
                b"structured replies or extended headers have to be negotiated first",
            );
        }
        if kind == option::SET_META_CONTEXT {
            // Whatever comes of it, an earlier selection is void.
            self.contexts = None;
        }
        let Some((name, queries)) = context_request(data) else {
            return self.answer(kind, reply::ERR_INVALID, b"malformed option");
        };
        if queries.len() > QUERIES_MAX {
            return self.answer(kind, reply::ERR_TOO_BIG, b"more than 64 queries");
        }
        let Some(export) = std::str::from_utf8(name)
            .ok()
            .and_then(|name| self.table.get(name, self.door))
        else {
            return self.answer(kind, reply::ERR_UNKNOWN, b"no export by this name");
        };
        if kind == option::LIST_META_CONTEXT {
            return self.list_contexts(&export, &queries);
        }
        let Some(chosen) = self.choose_contexts(&export, &queries) else {
            return self.answer(kind, reply::ERR_TOO_BIG, b"more than 8 contexts of changes");
        };
        let mut out = Vec::new();
        for (context, name) in &chosen {
            put_context(&mut out, kind, context.id, name);
        }
        wire::put_option_reply(&mut out, kind, reply::ACK, &[]);
        let contexts = chosen.into_iter().map(|(context, _)| context).collect();
        self.contexts = Some((export.name.clone(), contexts));
        self.send(&out)
    }

    /// By full name only, in a fixed order of ids. What is not there is left out, as the protocol wants it.
    fn choose_contexts<'q>(
        &self,
        export: &Export,
        queries: &[&'q [u8]],
    ) -> Option<Vec<(Context, &'q [u8])>> {
        let mut chosen: Vec<(Context, &[u8])> = Vec::new();
        let mut changed = 0;
        for (position, query) in queries.iter().enumerate() {
            if queries.get(..position).unwrap_or_default().contains(query) {
                continue;
            }
            let kind = if *query == ALLOCATION.as_bytes() {
                Some(ContextKind::Allocation)
            } else if let Some(snapshot) = contexts::snapshot_of(query) {
                changed += 1;
                if changed > CHANGED_CONTEXTS_MAX {
                    return None;
                }
                let changes = export.backing.changed_since(snapshot, self.deadline);
                changes.map(|ranges| ContextKind::Changed(Arc::new(Changes::new(ranges))))
            } else {
                None
            };
            if let Some(kind) = kind {
                let id = chosen.len() as u32 + 1;
                chosen.push((Context { id, kind }, query));
            }
        }
        Some(chosen)
    }

    fn list_contexts(&self, export: &Export, queries: &[&[u8]]) -> Result<(), End> {
        let kind = option::LIST_META_CONTEXT;
        let is_wanted = |name: &str| {
            let is_asked = |query: &&[u8]| {
                *query == name.as_bytes()
                    || (query.ends_with(b":") && name.as_bytes().starts_with(query))
            };
            queries.is_empty() || queries.iter().any(is_asked)
        };
        let mut names = vec![ALLOCATION.to_string()];
        if queries.is_empty()
            || queries
                .iter()
                .any(|query| contexts::is_about_snapshots(query))
        {
            let snapshots = export.backing.snapshots(self.deadline);
            names.extend(snapshots.into_iter().flat_map(contexts::names_of));
        }
        let mut out = Vec::new();
        for name in names.iter().filter(|name| is_wanted(name)) {
            put_context(&mut out, kind, 0, name.as_bytes());
        }
        wire::put_option_reply(&mut out, kind, reply::ACK, &[]);
        self.send(&out)
    }
}

fn put_context(out: &mut Vec<u8>, option: u32, id: u32, name: &[u8]) {
    let entry = [&id.to_be_bytes(), name].concat();
    wire::put_option_reply(out, option, reply::META_CONTEXT, &entry);
}
