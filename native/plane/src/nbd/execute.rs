//! One request against a backing, and its reply. The same code runs on a connection's thread, where nothing may block, and on an
//! io thread, where everything may. Knows no socket.

use std::sync::Arc;

use super::contexts::Context;
use super::outgoing::Outgoing;
use super::replies::Replies;
use super::status::{DESCRIPTOR_BYTES, Status, chosen, descriptors_max, unfold};
use super::wire::{self, EXTENDED_CHUNK_BYTES, Request, Style, chunk, command, command_flag};
use crate::backing::{Backing, IoError, Patience, Run, ZeroOptions};
use crate::error::{self, Refusal};
use crate::limits::{
    CACHE_BYTES_MAX, INLINE_BYTES_MAX, INLINE_UNMAP_BYTES_MAX, PIECE_BYTES, READ_PIECE_BYTES,
    REQUEST_BYTES_MAX,
};
use crate::map::EXTENT_BYTES;
use crate::stats::ExportStats;

pub struct Executor {
    pub outgoing: Arc<Outgoing>,
    pub contexts: Arc<[Context]>,
    /// Since the last time somebody took them.
    pub stats: ExportStats,
    runs: Vec<Run>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Executed {
    /// The reply is in the buffer.
    Replied,
    /// Done; the reply comes after a flush of the backing.
    ReplyAfterFlush,
    /// The first so many bytes of a READ are in the buffer; the rest is a request of its own with the same cookie.
    Partly(u64),
    /// Nothing was replied: again on an io thread.
    WouldBlock,
    /// Nothing was replied: again when the bytes of this entry are there. On an io thread only.
    NotYet(u64),
}

pub enum Stop {
    WouldBlock,
    NotYet(u64),
    Refused(Refusal),
}

impl From<IoError> for Stop {
    fn from(error: IoError) -> Stop {
        match error {
            IoError::WouldBlock => Stop::WouldBlock,
            IoError::NotYet(entry) => Stop::NotYet(entry),
            error => Stop::Refused(error.into()),
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl Executor {
    pub fn new(outgoing: Arc<Outgoing>, contexts: Arc<[Context]>) -> Executor {
        Executor {
            outgoing,
            contexts,
            stats: ExportStats::default(),
            runs: Vec::new(),
        }
    }

    /// Caller has entered the backing. `payload` is a WRITE's, whole.
    pub fn execute(
        &mut self,
        request: &Request,
        payload: &[u8],
        patience: Patience,
        out: &mut Replies,
    ) -> Executed {
        let start = out.len();
        match self.attempt(request, payload, patience, out) {
            Ok(Executed::Partly(done)) => {
                self.stats.read_bytes += done;
                Executed::Partly(done)
            }
            Ok(executed) => {
                self.count(request);
                executed
            }
            Err(Stop::WouldBlock) if patience == Patience::Inline => {
                out.truncate(start);
                Executed::WouldBlock
            }
            Err(Stop::NotYet(entry)) if patience == Patience::Wait => {
                out.truncate(start);
                Executed::NotYet(entry)
            }
            Err(stop) => {
                let refusal = match stop {
                    Stop::Refused(refusal) => refusal,
                    Stop::WouldBlock | Stop::NotYet(_) => Refusal::from(IoError::WouldBlock),
                };
                self.stats.errors += 1;
                out.truncate(start);
                self.outgoing.put_refusal(out, request.tag(), refusal);
                Executed::Replied
            }
        }
    }

    fn count(&mut self, request: &Request) {
        let length = request.length;
        match request.command {
            command::READ => {
                self.stats.read_ops += 1;
                self.stats.read_bytes += length;
            }
            command::WRITE => {
                self.stats.write_ops += 1;
                self.stats.write_bytes += length;
            }
            command::FLUSH => self.stats.flush_ops += 1,
            command::TRIM | command::WRITE_ZEROES => {
                self.stats.trim_ops += 1;
                self.stats.trim_bytes += length;
            }
            _ => {}
        }
    }

    fn attempt(
        &mut self,
        request: &Request,
        payload: &[u8],
        patience: Patience,
        out: &mut Replies,
    ) -> Result<Executed, Stop> {
        // Borrowed, not cloned: a count that every connection of the export changes twice per request would be felt.
        let Executor {
            outgoing,
            contexts,
            runs,
            ..
        } = self;
        let export = &*outgoing.lease.export;
        let backing = &*export.backing;
        let has_payload = !payload.is_empty() && request.command == command::BLOCK_STATUS;
        let unfolded = if has_payload {
            Some(unfold(request, payload)?)
        } else {
            None
        };
        let request = unfolded.as_ref().unwrap_or(request);
        validate(request, backing.size(), export.read_only, outgoing.style)?;
        let (offset, length) = (request.offset, request.length);
        match request.command {
            command::READ => {
                return read(request, outgoing, runs, patience, out);
            }
            command::BLOCK_STATUS => {
                let status = Status {
                    request,
                    outgoing,
                    contexts: chosen(contexts, payload)?,
                    patience,
                };
                status.put(out)?;
                return Ok(Executed::Replied);
            }
            command::FLUSH => return Ok(Executed::ReplyAfterFlush),
            command::WRITE if length > 0 => backing.write(offset, payload, patience)?,
            command::TRIM | command::CACHE | command::WRITE_ZEROES if length > 0 => {
                in_pieces(request, outgoing, patience)?;
            }
            _ => {}
        }
        if request.flags & command_flag::FUA != 0 && !export.read_only {
            return Ok(Executed::ReplyAfterFlush);
        }
        outgoing.put_done(out, request.tag());
        Ok(Executed::Replied)
    }
}

/// The commands that take a range of any length in one request. Some of them write zeros for seconds, and a freeze must not wait for all
/// of that while every other request waits for the freeze: on an io thread the backing is left between pieces.
fn in_pieces(request: &Request, outgoing: &Outgoing, patience: Patience) -> Result<(), IoError> {
    let backing = &*outgoing.lease.export.backing;
    let options = ZeroOptions {
        keep_allocated: request.flags & command_flag::NO_HOLE != 0,
        only_fast: request.flags & command_flag::FAST_ZERO != 0,
    };
    let act = |offset, length| match request.command {
        command::TRIM => backing.trim(offset, length, patience),
        command::CACHE => backing.cache(offset, length, patience),
        _ => backing.zero(offset, length, options, patience),
    };
    let mut offset = request.offset;
    let length = match request.command {
        command::CACHE => request.length.min(CACHE_BYTES_MAX),
        _ => request.length,
    };
    // What only changes the map is quick; zeros that are written and pages that are asked for are not.
    let is_slow =
        request.command == command::CACHE || (options.keep_allocated && !options.only_fast);
    let inline_max = if is_slow {
        INLINE_BYTES_MAX
    } else {
        INLINE_UNMAP_BYTES_MAX
    };
    if patience == Patience::Inline {
        return if length > inline_max {
            Err(IoError::WouldBlock)
        } else {
            act(offset, length)
        };
    }
    let end = offset + length;
    loop {
        let piece = PIECE_BYTES.min(end - offset);
        act(offset, piece)?;
        offset += piece;
        if !options.keep_allocated {
            // Most of a thin volume is nothing: terabytes of it cost no pieces.
            offset += backing.hole_at(offset, end - offset);
        }
        if offset == end {
            return Ok(());
        }
        // Zeroing terabytes for nobody would keep the thread from others.
        if outgoing.is_over() {
            return Err(IoError::ShuttingDown);
        }
        backing.leave();
        // With this patience it always enters.
        backing.enter(Patience::Wait);
    }
}

fn read(
    request: &Request,
    outgoing: &Outgoing,
    found: &mut Vec<Run>,
    patience: Patience,
    out: &mut Replies,
) -> Result<Executed, Stop> {
    let backing = &*outgoing.lease.export.backing;
    if !outgoing.style.has_chunks() {
        out.put(&wire::simple_reply(request.cookie, 0));
        backing.read(request.offset, out.space(request.length as usize), patience)?;
        return Ok(Executed::Replied);
    }
    if request.length == 0 {
        outgoing.put_done(out, request.tag());
        return Ok(Executed::Replied);
    }
    if request.length <= EXTENT_BYTES && read_data(request, outgoing, patience, out)? {
        return Ok(Executed::Replied);
    }
    let length = if request.flags & command_flag::DF != 0 {
        found.clear();
        found.push(Run {
            length: request.length,
            is_hole: false,
        });
        request.length
    } else {
        next_runs(request, backing, patience, found)?
    };
    let is_last = length == request.length;
    let mut offset = request.offset;
    for (position, run) in found.iter().enumerate() {
        let flags = if is_last && position + 1 == found.len() {
            chunk::DONE
        } else {
            0
        };
        // A run is never longer than the request.
        let run_length = run.length as u32;
        if run.is_hole {
            outgoing.put_chunk(out, flags, chunk::OFFSET_HOLE, request.tag(), 12);
            out.put(&offset.to_be_bytes());
            out.put(&run_length.to_be_bytes());
        } else {
            put_data_chunk(request, flags, offset, run_length, outgoing, out);
            backing.read(offset, out.space(run_length as usize), patience)?;
        }
        offset += run.length;
    }
    Ok(if is_last {
        Executed::Replied
    } else {
        Executed::Partly(length)
    })
}

/// A short READ of nothing but data: one look at the map, one chunk.
fn read_data(
    request: &Request,
    outgoing: &Outgoing,
    patience: Patience,
    out: &mut Replies,
) -> Result<bool, IoError> {
    let start = out.len();
    // Not longer than an extent.
    let length = request.length as u32;
    put_data_chunk(request, chunk::DONE, request.offset, length, outgoing, out);
    let target = out.space(length as usize);
    let backing = &*outgoing.lease.export.backing;
    let is_read = backing.read_data(request.offset, target, patience)?;
    if !is_read {
        out.truncate(start);
    }
    Ok(is_read)
}

/// The head of a chunk with data; they follow.
fn put_data_chunk(
    request: &Request,
    flags: u16,
    offset: u64,
    length: u32,
    outgoing: &Outgoing,
    out: &mut Replies,
) {
    outgoing.put_chunk(out, flags, chunk::OFFSET_DATA, request.tag(), 8 + length);
    out.put(&offset.to_be_bytes());
}

/// The runs of a READ that are answered at once, and how long they are together: on a connection's thread as many as hold one
/// piece of data. Holes cost nothing. A piece ends where an extent does, so that none is fetched twice.
fn next_runs(
    request: &Request,
    backing: &dyn Backing,
    patience: Patience,
    found: &mut Vec<Run>,
) -> Result<u64, Stop> {
    found.clear();
    let mut room = match patience {
        Patience::Inline => READ_PIECE_BYTES,
        Patience::Wait => u64::MAX,
    };
    let mut end = request.offset;
    backing.runs(request.offset, request.length, patience, &mut |mut run| {
        if !run.is_hole && run.length > room {
            let cut = (end + room) / EXTENT_BYTES * EXTENT_BYTES;
            if cut <= end {
                return false;
            }
            run.length = cut - end;
            room = 0;
        } else if !run.is_hole {
            room -= run.length;
        }
        end += run.length;
        found.push(run);
        room > 0
    })?;
    Ok(end - request.offset)
}

fn validate(request: &Request, size: u64, read_only: bool, style: Style) -> Result<(), Refusal> {
    use command_flag::{DF, FAST_ZERO, FUA, NO_HOLE, PAYLOAD_LEN, REQ_ONE};
    let flags = match request.command {
        command::READ if style.has_chunks() => DF | FUA,
        command::READ => FUA,
        command::WRITE if style == Style::Extended => FUA | PAYLOAD_LEN,
        command::WRITE | command::TRIM | command::FLUSH | command::CACHE => FUA,
        command::WRITE_ZEROES => FUA | NO_HOLE | FAST_ZERO,
        command::BLOCK_STATUS => REQ_ONE | FUA,
        _ => return Err(error::UNKNOWN_COMMAND),
    };
    if request.flags & !flags != 0 {
        return Err(error::UNKNOWN_FLAGS);
    }
    let has_no_payload = request.flags & PAYLOAD_LEN == 0;
    if style == Style::Extended && request.command == command::WRITE && has_no_payload {
        return Err(error::NO_PAYLOAD);
    }
    if request.command == command::FLUSH {
        return if request.offset == 0 && request.length == 0 {
            Ok(())
        } else {
            Err(error::FLUSH_OF_RANGE)
        };
    }
    let is_write = matches!(
        request.command,
        command::WRITE | command::TRIM | command::WRITE_ZEROES
    );
    if is_write && read_only {
        return Err(error::READ_ONLY);
    }
    if matches!(request.command, command::READ | command::WRITE)
        && request.length > u64::from(REQUEST_BYTES_MAX)
    {
        return Err(error::TOO_LONG);
    }
    let is_inside = request
        .offset
        .checked_add(request.length)
        .is_some_and(|end| end <= size);
    match (is_inside, request.command) {
        (true, _) => Ok(()),
        (false, command::WRITE | command::WRITE_ZEROES) => Err(error::WRITE_OUT_OF_RANGE),
        (false, _) => Err(error::OUT_OF_RANGE),
    }
}

/// What a reply of this request takes in memory at most while it is done elsewhere.
pub fn memory_of(request: &Request, contexts: usize) -> usize {
    let replied = match request.command {
        command::READ | command::WRITE => request.length.min(u64::from(REQUEST_BYTES_MAX)) as usize,
        command::BLOCK_STATUS => contexts * descriptors_max(request) * DESCRIPTOR_BYTES,
        _ => 0,
    };
    replied + EXTENDED_CHUNK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DESCRIPTORS_MAX;

    /// 256 of them, for a client that reads nothing, once took a gigabyte: they were counted as 32 bytes each.
    #[test]
    fn a_block_status_done_elsewhere_counts_as_much_as_its_reply_may_take() {
        let status = |flags, length| Request {
            flags,
            command: command::BLOCK_STATUS,
            cookie: 1,
            offset: 0,
            length,
            asked_offset: 0,
        };
        let whole = DESCRIPTORS_MAX * DESCRIPTOR_BYTES;
        let header = EXTENDED_CHUNK_BYTES;
        assert_eq!(memory_of(&status(0, 1 << 40), 1), whole + header);
        assert_eq!(memory_of(&status(0, 1 << 40), 9), 9 * whole + header);
        assert_eq!(memory_of(&status(0, 4096), 2), 2 * 3 * 16 + header);
        let one = status(command_flag::REQ_ONE, 1 << 40);
        assert_eq!(memory_of(&one, 2), 2 * 16 + header);
        let chosen = status(command_flag::PAYLOAD_LEN, 12);
        assert_eq!(memory_of(&chosen, 1), whole + header);
    }
}
