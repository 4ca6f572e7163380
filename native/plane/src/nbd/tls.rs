//! TLS on one connection, by rustls: bytes of the protocol in and out, records on the socket. Knows no option and no request.
//!
//! Nothing here waits for the client but `receive` when it is told to: whoever completes a request elsewhere encrypts its reply
//! and leaves what the socket does not take, as on a plain connection. What is encrypted and not sent is at most
//! `TLS_PIECE_BYTES` and the records' overhead; the rest stays with the caller as plain bytes.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use rustix::time::Timespec;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::buffer::Buffer;
use crate::limits::{IDLE_BUFFERS, TLS_PIECE_BYTES};

/// Whether clients may or must speak TLS.
#[derive(Clone, Default)]
pub enum TlsMode {
    #[default]
    Off,
    Allow(Arc<ServerConfig>),
    Require(Arc<ServerConfig>),
}

impl TlsMode {
    pub fn config(&self) -> Option<&Arc<ServerConfig>> {
        match self {
            TlsMode::Off => None,
            TlsMode::Allow(config) | TlsMode::Require(config) => Some(config),
        }
    }
}

/// PEM files.
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whoever has no certificate from it is turned away; `None` asks for none.
    pub client_ca: Option<PathBuf>,
}

#[derive(Debug)]
pub enum TlsError {
    Unreadable(PathBuf, pem::Error),
    /// A certificate authority without a single certificate trusts nobody.
    Empty(PathBuf),
    Unusable(PathBuf, rustls::Error),
    ClientCa(PathBuf, rustls::server::VerifierBuilderError),
}

impl fmt::Display for TlsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Unreadable(path, error) => {
                write!(out, "{} cannot be read as PEM: {error}", path.display())
            }
            TlsError::Empty(path) => write!(out, "{} holds no certificate", path.display()),
            TlsError::Unusable(path, error) => write!(out, "{}: {error}", path.display()),
            TlsError::ClientCa(path, error) => write!(out, "{}: {error}", path.display()),
        }
    }
}

/// TLS 1.2 and 1.3, with ring's suites.
pub fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |path: &Path| {
        let path = path.to_path_buf();
        move |error| TlsError::Unusable(path, error)
    };
    let verifier = match &files.client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(path) => client_verifier(path, &provider)?,
    };
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::Unreadable(files.key.clone(), error))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable(&files.certificate))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.certificate)?, key)
        .map_err(unusable(&files.certificate))?;
    Ok(Arc::new(config))
}

fn client_verifier(
    path: &Path,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Unusable(path.to_path_buf(), error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| TlsError::ClientCa(path.to_path_buf(), error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error| TlsError::Unreadable(path.to_path_buf(), error);
    let found = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    if found.is_empty() {
        return Err(TlsError::Empty(path.to_path_buf()));
    }
    Ok(found)
}

pub struct Tls {
    socket: Arc<OwnedFd>,
    /// Held while bytes are en- or decrypted, never while anybody waits for the client.
    state: Mutex<State>,
}

struct State {
    session: ServerConnection,
    /// Received and not yet given to the session: incoming[start..end]. Empty while idle.
    incoming: Buffer,
    start: usize,
    end: usize,
    /// Decrypted and not yet taken.
    plain: usize,
    is_ended: bool,
}

impl Tls {
    /// Nothing is sent or received yet: see `shake`.
    pub fn new(socket: Arc<OwnedFd>, config: &Arc<ServerConfig>) -> Result<Tls, rustls::Error> {
        let mut session = ServerConnection::new(Arc::clone(config))?;
        // `send` bounds what is waiting by itself.
        session.set_buffer_limit(None);
        Ok(Tls {
            socket,
            state: Mutex::new(State {
                session,
                incoming: Buffer::default(),
                start: 0,
                end: 0,
                plain: 0,
                is_ended: false,
            }),
        })
    }

    pub fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// One step of the handshake: what to wait for before the next, or `None` when it is done.
    pub fn shake(&self) -> Result<Option<PollFlags>, Errno> {
        let mut state = self.state.lock();
        loop {
            if !state.flush(&self.socket)? {
                return Ok(Some(PollFlags::OUT));
            }
            if !state.session.is_handshaking() {
                return Ok(None);
            }
            if !state.feed(&self.socket)? {
                match state.fill(&self.socket) {
                    Ok(0) => return Err(Errno::CONNRESET),
                    Ok(_) => {}
                    Err(Errno::AGAIN) => return Ok(Some(PollFlags::IN)),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// As recv(2) on a socket with a receive timeout.
    pub fn receive(&self, target: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
        loop {
            match self.receive_now(target) {
                Err(Errno::AGAIN) if !flags.contains(RecvFlags::DONTWAIT) => {}
                result => return result,
            }
            let timeout = Timespec {
                tv_sec: IDLE_BUFFERS.as_secs() as i64,
                tv_nsec: 0,
            };
            match poll(
                &mut [PollFd::new(&*self.socket, PollFlags::IN)],
                Some(&timeout),
            )? {
                0 => return Err(Errno::AGAIN),
                _ => continue,
            }
        }
    }

    fn receive_now(&self, target: &mut [u8]) -> Result<usize, Errno> {
        let mut state = self.state.lock();
        let mut done = 0;
        loop {
            done += state.take(target.get_mut(done..).unwrap_or_default());
            if done == target.len() {
                return Ok(done);
            }
            if state.feed(&self.socket)? {
                continue;
            }
            if done > 0 || state.is_ended {
                return Ok(done);
            }
            // Records without data can come without end: whoever completes a request must not wait for that.
            MutexGuard::bump(&mut state);
            // A client that goes without saying so has still sent only whole requests, or one that is not whole.
            if state.fill(&self.socket)? == 0 {
                return Ok(0);
            }
        }
    }

    /// How many of the bytes were taken on: encrypted, and sent but for a rest that `flush` sends. Never blocks.
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut state = self.state.lock();
        if !state.flush(&self.socket)? {
            return Err(Errno::AGAIN);
        }
        let mut done = 0;
        for piece in bytes.chunks(TLS_PIECE_BYTES) {
            done += state
                .session
                .writer()
                .write(piece)
                .map_err(|_| Errno::PIPE)?;
            if !state.flush(&self.socket)? {
                break;
            }
        }
        Ok(done)
    }

    /// Whether all that was taken on is with the kernel.
    pub fn flush(&self) -> Result<bool, Errno> {
        self.state.lock().flush(&self.socket)
    }

    /// There may be bytes to receive that no poll of the socket announces.
    pub fn has_received(&self) -> bool {
        let state = self.state.lock();
        state.plain > 0 || state.start < state.end
    }

    pub fn release_buffers(&self) {
        let mut state = self.state.lock();
        if state.start == state.end {
            state.incoming = Buffer::default();
        }
    }

    /// Says goodbye, if the client takes it.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.session.send_close_notify();
        let _ = state.flush(&self.socket);
    }
}

impl State {
    /// What is decrypted, as far as it goes.
    fn take(&mut self, target: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = target.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.session.reader().read(rest) {
                Ok(0) => {
                    self.is_ended = true;
                    break;
                }
                Ok(count) => done += count,
                // Nothing more for now.
                Err(_) => break,
            }
        }
        self.plain = self.plain.saturating_sub(done);
        done
    }

    /// Gives the session some of what was received; false when there is nothing.
    fn feed(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        let mut received = self
            .incoming
            .get(self.start..self.end)
            .filter(|received| !received.is_empty() && !self.is_ended);
        let Some(received) = received.as_mut() else {
            return Ok(false);
        };
        let count = self
            .session
            .read_tls(received)
            .map_err(|_| Errno::CONNRESET)?;
        self.start += count;
        if count == 0 {
            // Behind the client's goodbye nothing counts.
            self.start = self.end;
            self.is_ended = true;
            return Ok(true);
        }
        let result = self.session.process_new_packets();
        // An answer to a new key, or the alert that says what is wrong.
        let flushed = self.flush(socket);
        match result {
            Ok(state) => self.plain = state.plaintext_bytes_to_read(),
            Err(_) => return Err(Errno::CONNRESET),
        }
        flushed.map(|_| true)
    }

    /// One receive; 0 at the end. Caller has fed everything.
    fn fill(&mut self, socket: &OwnedFd) -> Result<usize, Errno> {
        if self.incoming.is_empty() {
            self.incoming = Buffer::zeroed(TLS_PIECE_BYTES);
        }
        loop {
            match rustix::net::recv(socket, &mut *self.incoming, RecvFlags::DONTWAIT) {
                Ok((_, count)) => {
                    (self.start, self.end) = (0, count);
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Sender(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Errno::PIPE),
            }
        }
        Ok(true)
    }
}

/// The records of a batch in one system call.
struct Sender<'a>(&'a OwnedFd);

const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

impl Write for Sender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, FLAGS)?)
    }
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut nothing = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(self.0, parts, &mut nothing, FLAGS)?)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
