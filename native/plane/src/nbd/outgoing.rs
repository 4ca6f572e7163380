//! The way back to the client, shared by a connection's thread and whoever completes its requests elsewhere. Nobody but the
//! connection's own thread ever waits for the client: others leave what the socket does not take, and wake that thread.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::error::Refusal;
use crate::export::Lease;

use super::replies::Replies;
use super::stream::Stream;
use super::wire::{self, Style, Tag, chunk};

pub struct Outgoing {
    pub stream: Stream,
    /// While anybody holds this, the connection counts as one of its export.
    pub lease: Lease,
    pub style: Style,
    queue: Mutex<Queue>,
    outstanding: AtomicUsize,
    outstanding_bytes: AtomicUsize,
    /// The connection's thread waits for completions as such, not only for replies that it has to send.
    is_watched: AtomicBool,
    /// Nobody waits for replies any more: long requests may stop.
    is_over: AtomicBool,
    wake: OwnedFd,
}

#[derive(Default)]
struct Queue {
    replies: Replies,
    sent: usize,
    /// The client is gone; replies go nowhere.
    is_broken: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.sent == self.replies.bytes().len()
    }
}

impl Outgoing {
    pub fn new(stream: Stream, lease: Lease, style: Style) -> rustix::io::Result<Outgoing> {
        Ok(Outgoing {
            stream,
            lease,
            style,
            queue: Mutex::default(),
            outstanding: AtomicUsize::new(0),
            outstanding_bytes: AtomicUsize::new(0),
            is_watched: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// Becomes readable when something changed that the connection's thread waits for.
    pub fn wake_fd(&self) -> &OwnedFd {
        &self.wake
    }

    pub fn clear_wake(&self) {
        // Not readable means that nobody woke us, which is fine.
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
    }

    pub fn wake(&self) {
        // Fails only at 2^64 wake-ups nobody looked at.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::SeqCst)
    }

    pub fn outstanding_bytes(&self) -> usize {
        self.outstanding_bytes.load(Ordering::SeqCst)
    }

    /// Set before looking at what is outstanding and waiting for it to change: then every completion wakes.
    pub fn watch(&self, is_watched: bool) {
        self.is_watched.store(is_watched, Ordering::SeqCst);
    }

    /// A request goes elsewhere and will be completed there.
    pub fn begin(&self, bytes: usize) {
        self.outstanding.fetch_add(1, Ordering::SeqCst);
        self.outstanding_bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Any thread; never blocks. `bytes` as given to `begin`; no reply if another completion brings it.
    pub fn complete(&self, reply: &[u8], bytes: usize) {
        let mut queue = self.queue.lock();
        let mut done = 0;
        if !queue.is_broken && queue.is_empty() && !reply.is_empty() {
            done = match self.stream.send(reply) {
                Ok(count) => count,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(_) => {
                    queue.is_broken = true;
                    0
                }
            };
        }
        let rest = reply
            .get(done..)
            .filter(|rest| !rest.is_empty() && !queue.is_broken);
        if let Some(rest) = rest {
            queue.replies.put(rest);
        }
        // A broken stream wakes too: the connection's thread finds out when it pushes.
        let has_left_something = rest.is_some() || !self.stream.flush().unwrap_or(false);
        // Under the lock: the connection's thread must not find nothing outstanding before this reply is queued.
        self.outstanding_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.outstanding.fetch_sub(1, Ordering::SeqCst);
        drop(queue);
        if has_left_something || self.is_watched.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// The connection's thread only. Takes the batch (leaving an empty buffer) and sends what the socket takes; true when all is
    /// sent. Then the batch keeps its buffer: two in turns would cost twice the cache.
    pub fn send(&self, batch: &mut Replies) -> Result<bool, Errno> {
        self.send_by(batch, Stream::send)
    }

    /// As `send`, but waits for the client where that keeps nobody else from sending: with nothing outstanding the thread would
    /// only poll for room, and the kernel does that in one call (long reads gained a third).
    pub fn send_waiting(&self, batch: &mut Replies) -> Result<bool, Errno> {
        if self.outstanding() > 0 {
            return self.send(batch);
        }
        self.send_by(batch, Stream::send_waiting)
    }

    fn send_by(
        &self,
        batch: &mut Replies,
        send: impl FnOnce(&Stream, &[u8]) -> Result<usize, Errno>,
    ) -> Result<bool, Errno> {
        let mut queue = self.queue.lock();
        if !queue.is_empty() {
            queue.replies.put(batch.bytes());
            batch.clear();
            return self.push(&mut queue);
        }
        if queue.is_broken {
            return Err(Errno::PIPE);
        }
        let sent = match send(&self.stream, batch.bytes()) {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => 0,
            Err(error) => {
                queue.is_broken = true;
                return Err(error);
            }
        };
        if sent < batch.len() {
            std::mem::swap(&mut queue.replies, batch);
            queue.sent = sent;
        }
        batch.clear();
        Ok(queue.is_empty() && self.flush_stream(&mut queue)?)
    }

    /// The connection's thread only: tries again with what is queued.
    pub fn send_queued(&self) -> Result<bool, Errno> {
        self.push(&mut self.queue.lock())
    }

    fn push(&self, queue: &mut Queue) -> Result<bool, Errno> {
        if queue.is_broken {
            return Err(Errno::PIPE);
        }
        while let Some(rest) = queue
            .replies
            .bytes()
            .get(queue.sent..)
            .filter(|rest| !rest.is_empty())
        {
            match self.stream.send(rest) {
                Ok(count) => queue.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => {
                    queue.is_broken = true;
                    return Err(error);
                }
            }
        }
        queue.replies.clear();
        queue.sent = 0;
        self.flush_stream(queue)
    }

    /// Queued is what the stream has not taken; it may hold some of what it took.
    fn flush_stream(&self, queue: &mut Queue) -> Result<bool, Errno> {
        self.stream.flush().inspect_err(|_| queue.is_broken = true)
    }

    /// Buffers of replies are given back while the connection is idle.
    pub fn release_buffers(&self) {
        let mut queue = self.queue.lock();
        if queue.is_empty() {
            queue.replies = Replies::default();
            queue.sent = 0;
        }
        self.stream.release_buffers();
    }

    /// Header of one chunk; `length` bytes follow.
    pub fn put_chunk(&self, out: &mut Replies, flags: u16, kind: u16, tag: Tag, length: u32) {
        match self.style {
            Style::Extended => out.put(&wire::extended_chunk_header(flags, kind, tag, length)),
            _ => out.put(&wire::chunk_header(flags, kind, tag.cookie, length)),
        }
    }

    /// Success without data.
    pub fn put_done(&self, out: &mut Replies, tag: Tag) {
        if self.style.has_chunks() {
            self.put_chunk(out, chunk::DONE, chunk::NONE, tag, 0);
        } else {
            out.put(&wire::simple_reply(tag.cookie, 0));
        }
    }

    pub fn put_refusal(&self, out: &mut Replies, tag: Tag, refusal: Refusal) {
        if !self.style.has_chunks() {
            return out.put(&wire::simple_reply(tag.cookie, refusal.errno as u32));
        }
        let length = 6 + refusal.message.len() as u32;
        self.put_chunk(out, chunk::DONE, chunk::ERROR, tag, length);
        out.put(&(refusal.errno as u32).to_be_bytes());
        out.put(&(refusal.message.len() as u16).to_be_bytes());
        out.put(refusal.message.as_bytes());
    }
}
