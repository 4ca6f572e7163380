//! Every bound of the protocol layer, with a name. Each is tested on both sides where a client can reach it.

use std::time::Duration;

/// Largest payload of one READ or WRITE, announced to clients as the maximum block size.
pub const REQUEST_BYTES_MAX: u32 = 32 << 20;
/// An oversized WRITE up to here is skipped and answered with an error; beyond it the connection is dropped.
pub const SKIPPED_BYTES_MAX: u32 = 64 << 20;
/// Block sizes announced to clients.
pub const BLOCK_BYTES_MIN: u32 = 1;
pub const BLOCK_BYTES_PREFERRED: u32 = 4096;
/// Data of one option in the handshake.
pub const OPTION_BYTES_MAX: u32 = 64 << 10;
/// From the protocol: names and strings are at most this long.
pub const NAME_BYTES_MAX: usize = 4096;
pub const OPTIONS_MAX: u32 = 1000;
/// Queries in one meta context option.
pub const QUERIES_MAX: usize = 64;

/// One receive; found on a 2-core machine with fio at depth 32: 128 KiB cost 3% more per request, 1 MiB no less.
pub const RECEIVE_BYTES: usize = 256 << 10;
/// A batch is answered when its replies reach this size.
pub const REPLIES_BYTES: usize = 512 << 10;
/// A longer READ is answered in pieces where the client takes them (structured replies): what is sent is still in the core's
/// cache, and the client gives buffers back while the next piece is read. An extent each: 256 KiB cost a fifth more per MiB.
pub const READ_PIECE_BYTES: u64 = 64 << 10;
/// A unix socket's send buffer: with the default of 208 KiB a batch of large reads is sent in many small rounds. fio on a 2-core
/// machine: 64 KiB reads at depth 32 went from 45k/s to 55k/s, 4 KiB ones gained 5%. Taken only by what a client does not read.
pub const SEND_BUFFER_BYTES: usize = 1 << 20;
/// Requests in one batch: what a freeze has to wait for at most, per connection.
pub const BATCH_REQUESTS_MAX: usize = 512;
/// Buffers of a connection that was idle this long are given back.
pub const IDLE_BUFFERS: Duration = Duration::from_secs(5);
/// Requests of one connection that are being done elsewhere (io pool, flushes), and the payload bytes they hold.
pub const OUTSTANDING_MAX: usize = 256;
pub const OUTSTANDING_BYTES_MAX: usize = 96 << 20;
/// Contexts of changes that one connection may choose; each holds its list.
pub const CHANGED_CONTEXTS_MAX: usize = 8;
/// Of a range that a block status asks about, so much is looked at (a hole behind it is known without): with extended headers it may
/// be the whole volume, and looking means having the map in memory (8 KiB per 32 MiB).
pub const STATUS_BYTES_MAX: u64 = 64 << 30;
/// As much of a range is fetched for a CACHE, which is advice: no more than requests with compact headers can ask for.
pub const CACHE_BYTES_MAX: u64 = 4 << 30;
/// Beyond this on an io thread: a millisecond's work when the map is resident.
pub const INLINE_STATUS_BYTES_MAX: u64 = 4 << 30;
/// Descriptors in one block status reply; the client asks again for the rest.
pub const DESCRIPTORS_MAX: usize = 32 << 10;
/// Beyond these sizes a request without payload is not done on the connection's thread: CACHE and WRITE_ZEROES that has to write
/// its zeros; TRIM and WRITE_ZEROES that make holes (some 4,000 map entries, less than a millisecond).
pub const INLINE_BYTES_MAX: u64 = 1 << 20;
pub const INLINE_UNMAP_BYTES_MAX: u64 = 256 << 20;
/// Of such a request on an io thread: what a freeze has to wait for at most.
pub const PIECE_BYTES: u64 = 8 << 20;
/// Of a TLS connection: one receive from its socket, and what is encrypted ahead of a client that does not read. Records are of
/// 16 KiB; a batch of replies fits.
pub const TLS_PIECE_BYTES: usize = 256 << 10;
pub const STACK_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Through one name.
    pub export_connections_max: usize,
    pub handshake: Duration,
    pub io_threads_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 8192,
            export_connections_max: 1024,
            handshake: Duration::from_secs(30),
            io_threads_max: 16,
        }
    }
}
