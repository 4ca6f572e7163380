//! A client's socket, plain or under TLS: one enum, so that a plain connection pays a branch per system call and nothing per byte.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::tls::Tls;

pub enum Stream {
    Plain(Arc<OwnedFd>),
    Tls(Box<Tls>),
}

impl Stream {
    /// For polling and shutting down; bytes go through the stream alone.
    pub fn socket(&self) -> &Arc<OwnedFd> {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => tls.socket(),
        }
    }

    /// As recv(2): 0 at the end.
    pub fn receive(&self, target: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
        match self {
            Stream::Plain(socket) => {
                rustix::net::recv(socket, target, flags).map(|(count, _)| count)
            }
            Stream::Tls(tls) => tls.receive(target, flags),
        }
    }

    /// As send(2), never waiting. What is taken may still have to be pushed out by `flush`.
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Stream::Plain(socket) => {
                rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
            }
            Stream::Tls(tls) => tls.send(bytes),
        }
    }

    /// As `send`, but a plain socket waits for room until all is taken; shutting the socket down ends the wait.
    pub fn send_waiting(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Stream::Plain(socket) => rustix::net::send(socket, bytes, SendFlags::NOSIGNAL),
            Stream::Tls(tls) => tls.send(bytes),
        }
    }

    /// Whether everything that was taken is with the kernel.
    pub fn flush(&self) -> Result<bool, Errno> {
        match self {
            Stream::Plain(_) => Ok(true),
            Stream::Tls(tls) => tls.flush(),
        }
    }

    /// There may be bytes to receive although the socket is not readable.
    pub fn has_received(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(tls) => tls.has_received(),
        }
    }

    pub fn release_buffers(&self) {
        if let Stream::Tls(tls) = self {
            tls.release_buffers();
        }
    }

    /// The orderly end of the session, before the socket's.
    pub fn close(&self) {
        if let Stream::Tls(tls) = self {
            tls.close();
        }
    }
}
