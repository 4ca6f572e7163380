//! A client that says exactly the bytes a test wants said.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plane::export::{Door, ExportSpec};
use plane::limits::Limits;
use plane::server::Server;

use super::memory::Memory;

pub struct Fixture {
    pub server: Server,
    pub memory: Arc<Memory>,
    pub path: PathBuf,
    _folder: tempfile::TempDir,
}

/// A server with one export, "disk", of 1 MiB.
pub fn fixture() -> Fixture {
    fixture_with(Limits::default(), 1 << 20)
}

pub fn fixture_with(limits: Limits, size: u64) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nbd.sock");
    let server = Server::new(limits);
    let memory = Arc::new(Memory::new(size));
    server.publish(
        "disk".into(),
        ExportSpec {
            door: Door::Clients,
            backing: memory.clone(),
            read_only: false,
            is_listed: true,
            description: "the first disk".into(),
        },
    );
    server.listen(&format!("unix:{}", path.display())).unwrap();
    Fixture {
        server,
        memory,
        path,
        _folder: folder,
    }
}

pub struct Client {
    pub stream: UnixStream,
    tls: Option<rustls::ClientConnection>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct OptionReply {
    pub option: u32,
    pub kind: u32,
    pub data: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Simple {
        cookie: u64,
        errno: u32,
    },
    Chunk {
        cookie: u64,
        flags: u16,
        kind: u16,
        payload: Vec<u8>,
    },
}

impl Reply {
    pub fn cookie(&self) -> u64 {
        match self {
            Reply::Simple { cookie, .. } | Reply::Chunk { cookie, .. } => *cookie,
        }
    }
    /// 0 for a success without data.
    pub fn errno(&self) -> u32 {
        match self {
            Reply::Simple { errno, .. } => *errno,
            Reply::Chunk { kind: 0, .. } => 0,
            Reply::Chunk {
                kind: 0x8001,
                payload,
                ..
            } => u32::from_be_bytes(payload[..4].try_into().unwrap()),
            other => panic!("a chunk with content: {other:?}"),
        }
    }
}

pub fn be16(value: u16) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}
pub fn be32(value: u32) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}
pub fn be64(value: u64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

pub fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    [
        be32(0x2560_9513),
        be16(flags),
        be16(command),
        be64(cookie),
        be64(offset),
        be32(length),
    ]
    .concat()
}

/// With extended headers.
#[allow(dead_code)]
pub fn extended(flags: u16, command: u16, cookie: u64, offset: u64, length: u64) -> Vec<u8> {
    [
        be32(0x21e4_1c71),
        be16(flags),
        be16(command),
        be64(cookie),
        be64(offset),
        be64(length),
    ]
    .concat()
}

pub fn option(kind: u32, data: &[u8]) -> Vec<u8> {
    [
        be64(0x4948_4156_454f_5054),
        be32(kind),
        be32(data.len() as u32),
        data.to_vec(),
    ]
    .concat()
}

pub fn counted(text: &[u8]) -> Vec<u8> {
    [be32(text.len() as u32), text.to_vec()].concat()
}

pub fn info_data(name: &str, wanted: &[u16]) -> Vec<u8> {
    [
        counted(name.as_bytes()),
        be16(wanted.len() as u16),
        wanted.iter().flat_map(|kind| kind.to_be_bytes()).collect(),
    ]
    .concat()
}

pub fn context_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let listed: Vec<u8> = queries
        .iter()
        .flat_map(|query| counted(query.as_bytes()))
        .collect();
    [counted(name.as_bytes()), be32(queries.len() as u32), listed].concat()
}

impl Client {
    /// Connected, nothing said.
    pub fn connect(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Client { stream, tls: None }
    }

    /// Greeting exchanged, fixed newstyle without zeroes.
    pub fn greeted(path: &Path) -> Client {
        let mut client = Client::connect(path);
        assert_eq!(
            client.take(18),
            [
                be64(0x4e42_444d_4147_4943),
                be64(0x4948_4156_454f_5054),
                be16(3)
            ]
            .concat()
        );
        client.say(&be32(3));
        client
    }

    /// In transmission on "disk", with or without structured replies (then with base:allocation).
    pub fn ready(path: &Path, is_structured: bool) -> Client {
        let mut client = Client::greeted(path);
        if is_structured {
            assert_eq!(client.ask(8, &[]).last().unwrap().kind, 1);
            assert_eq!(
                client
                    .ask(10, &context_data("disk", &["base:allocation"]))
                    .len(),
                2
            );
        }
        assert_eq!(
            client.ask(7, &info_data("disk", &[])).last().unwrap().kind,
            1
        );
        client
    }

    /// STARTTLS was acknowledged: from here on everything is encrypted.
    #[allow(dead_code)]
    pub fn shake(&mut self, config: &Arc<rustls::ClientConfig>) -> std::io::Result<()> {
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut session = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
        session.set_buffer_limit(None);
        while session.is_handshaking() {
            session.complete_io(&mut self.stream)?;
        }
        self.tls = Some(session);
        Ok(())
    }

    pub fn say(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.stream.write_all(bytes).unwrap(),
            Some(session) => rustls::Stream::new(session, &mut self.stream)
                .write_all(bytes)
                .unwrap(),
        }
    }

    /// Under TLS: an option, and whether any answer came.
    #[allow(dead_code)]
    pub fn try_say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let session = self.tls.as_mut().expect("after shake");
        let mut stream = rustls::Stream::new(session, &mut self.stream);
        stream.write_all(bytes)?;
        stream.read_exact(&mut [0; 20])
    }

    /// Under TLS: whether the server still listens.
    #[allow(dead_code)]
    pub fn try_whisper(&mut self, bytes: &[u8]) -> bool {
        let session = self.tls.as_mut().expect("after shake");
        session.writer().write_all(bytes).unwrap();
        session.write_tls(&mut self.stream).is_ok()
    }

    #[allow(dead_code)]
    pub fn try_renew_keys(&mut self) -> bool {
        let session = self.tls.as_mut().expect("after shake");
        session.refresh_traffic_keys().is_ok() && session.write_tls(&mut self.stream).is_ok()
    }

    #[allow(dead_code)]
    pub fn renew_keys(&mut self) {
        assert!(self.try_renew_keys());
    }

    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        match &mut self.tls {
            None => self.stream.read_exact(&mut bytes).unwrap(),
            Some(session) => rustls::Stream::new(session, &mut self.stream)
                .read_exact(&mut bytes)
                .unwrap(),
        }
        bytes
    }

    /// All replies to one option, up to the last.
    pub fn ask(&mut self, kind: u32, data: &[u8]) -> Vec<OptionReply> {
        self.say(&option(kind, data));
        let mut replies = Vec::new();
        loop {
            let reply = self.option_reply();
            assert_eq!(reply.option, kind);
            let is_last = reply.kind == 1 || reply.kind >= 1 << 31;
            replies.push(reply);
            if is_last {
                return replies;
            }
        }
    }

    pub fn option_reply(&mut self) -> OptionReply {
        let header = self.take(20);
        assert_eq!(header[..8], be64(0x0003_e889_0455_65a9));
        let field = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let (option, kind, length) = (field(8), field(12), field(16));
        OptionReply {
            option,
            kind,
            data: self.take(length as usize),
        }
    }

    pub fn reply(&mut self) -> Reply {
        match self.take(4)[..] {
            [0x67, 0x44, 0x66, 0x98] => {
                let rest = self.take(12);
                let errno = u32::from_be_bytes(rest[..4].try_into().unwrap());
                Reply::Simple {
                    cookie: u64::from_be_bytes(rest[4..].try_into().unwrap()),
                    errno,
                }
            }
            [0x66, 0x8e, 0x33, 0xef] => {
                let rest = self.take(16);
                let length = u32::from_be_bytes(rest[12..].try_into().unwrap());
                Reply::Chunk {
                    flags: u16::from_be_bytes(rest[..2].try_into().unwrap()),
                    kind: u16::from_be_bytes(rest[2..4].try_into().unwrap()),
                    cookie: u64::from_be_bytes(rest[4..12].try_into().unwrap()),
                    payload: self.take(length as usize),
                }
            }
            ref other => panic!("not a reply: {other:?}"),
        }
    }

    /// One chunk of an extended reply, which must repeat cookie and offset: its flags, kind and payload.
    #[allow(dead_code)]
    pub fn extended_chunk(&mut self, cookie: u64, offset: u64) -> (u16, u16, Vec<u8>) {
        let header = self.take(32);
        assert_eq!(header[..4], be32(0x6e8a_278c));
        assert_eq!(header[8..24], [be64(cookie), be64(offset)].concat());
        let field = |at: usize| u16::from_be_bytes(header[at..at + 2].try_into().unwrap());
        let length = u64::from_be_bytes(header[24..].try_into().unwrap());
        (field(4), field(6), self.take(length as usize))
    }

    /// The error of an extended request without payload; 0: success without data.
    #[allow(dead_code)]
    pub fn extended_errno(&mut self, flags: u16, command: u16, offset: u64, length: u64) -> u32 {
        self.say(&extended(flags, command, 99, offset, length));
        self.extended_result(99, offset)
    }

    #[allow(dead_code)]
    pub fn extended_result(&mut self, cookie: u64, offset: u64) -> u32 {
        match self.extended_chunk(cookie, offset) {
            (1, 0, payload) if payload.is_empty() => 0,
            (1, 0x8001, payload) => u32::from_be_bytes(payload[..4].try_into().unwrap()),
            other => panic!("a chunk with content: {other:?}"),
        }
    }

    /// One request without payload and its one reply's errno.
    pub fn errno(&mut self, flags: u16, command: u16, offset: u64, length: u32) -> u32 {
        self.say(&request(flags, command, 77, offset, length));
        let reply = self.reply();
        assert_eq!(reply.cookie(), 77);
        reply.errno()
    }

    pub fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u32 {
        self.say(
            &[
                request(flags, 1, 78, offset, data.len() as u32),
                data.to_vec(),
            ]
            .concat(),
        );
        let reply = self.reply();
        assert_eq!(reply.cookie(), 78);
        reply.errno()
    }

    /// A simple READ's data.
    pub fn read(&mut self, offset: u64, length: u32) -> Vec<u8> {
        assert_eq!(self.errno(0, 0, offset, length), 0);
        self.take(length as usize)
    }

    /// The server closes the connection, with no further byte.
    pub fn assert_closed(&mut self) {
        let mut rest = Vec::new();
        let end = match &mut self.tls {
            None => self.stream.read_to_end(&mut rest),
            Some(session) => rustls::Stream::new(session, &mut self.stream).read_to_end(&mut rest),
        };
        match end {
            Ok(_) => assert_eq!(rest, Vec::<u8>::new(), "bytes before the end"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}
