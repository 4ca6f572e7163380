//! systemd's notify protocol (sd_notify(3)): a datagram with `NAME=VALUE` lines. Knows nothing of what is announced.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// `socket` is the value of NOTIFY_SOCKET: a path, or `@name` in the abstract namespace.
pub fn send(socket: &str, state: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(state.as_bytes(), &address)
        .map(|_| ())
}
