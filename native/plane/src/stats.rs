//! Counters of the protocol layer. Written once per batch, read whenever somebody asks.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Of the whole server; monotonic but for `connections`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerStats {
    pub connections: u32,
    pub connections_total: u64,
    pub handshakes_failed: u64,
    pub panics: u64,
}

/// Of one backing, over all names it is published under.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportStats {
    pub connections: u32,
    pub read_ops: u64,
    pub read_bytes: u64,
    pub write_ops: u64,
    pub write_bytes: u64,
    pub flush_ops: u64,
    pub trim_ops: u64,
    pub trim_bytes: u64,
    pub errors: u64,
}

#[derive(Default)]
pub struct Counters {
    pub connections: AtomicU32,
    read_ops: AtomicU64,
    read_bytes: AtomicU64,
    write_ops: AtomicU64,
    write_bytes: AtomicU64,
    flush_ops: AtomicU64,
    trim_ops: AtomicU64,
    trim_bytes: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    /// Adds a batch's counts (`connections` in it is ignored).
    pub fn add(&self, batch: &ExportStats) {
        let add = |counter: &AtomicU64, count: u64| {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        };
        add(&self.read_ops, batch.read_ops);
        add(&self.read_bytes, batch.read_bytes);
        add(&self.write_ops, batch.write_ops);
        add(&self.write_bytes, batch.write_bytes);
        add(&self.flush_ops, batch.flush_ops);
        add(&self.trim_ops, batch.trim_ops);
        add(&self.trim_bytes, batch.trim_bytes);
        add(&self.errors, batch.errors);
    }

    pub fn read(&self) -> ExportStats {
        ExportStats {
            connections: self.connections.load(Ordering::Relaxed),
            read_ops: self.read_ops.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            write_ops: self.write_ops.load(Ordering::Relaxed),
            write_bytes: self.write_bytes.load(Ordering::Relaxed),
            flush_ops: self.flush_ops.load(Ordering::Relaxed),
            trim_ops: self.trim_ops.load(Ordering::Relaxed),
            trim_bytes: self.trim_bytes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}
