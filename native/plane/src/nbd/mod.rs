//! The NBD protocol: bytes on the wire, the handshake, one connection's life. Knows volumes only as `Backing`.
//! Source of every number here: NetworkBlockDevice/nbd, doc/proto.md.

pub(crate) mod buffer;
pub mod connection;
pub mod contexts;
pub mod elsewhere;
pub mod execute;
pub mod handshake;
mod options;
pub mod outgoing;
pub mod replies;
pub mod status;
pub mod stream;
pub mod tls;
pub mod wire;
