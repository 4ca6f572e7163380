//! One connection after its handshake: receive what is there, execute every complete request, answer them with one write.
//! Knows sockets and buffers, not extents. What would block goes to the io pool; flushes never run here.
//!
//! The thread owns the receive buffer and waits only for its client (receive, or room to send), for a fence of the volume,
//! for its turn when the volume's speed is limited, or, when too much is outstanding, for completions. Closing the socket
//! stops it.

mod end;
mod pace;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::time::Timespec;

use self::pace::Pace;
use super::buffer::Buffer;
use super::elsewhere::{Elsewhere, flush};
use super::execute::{Executed, Executor, memory_of};
use super::replies::Replies;
use super::wire::{self, Request, command};
use crate::backing::{Entered, Patience};
use crate::error;
use crate::limits::{
    BATCH_REQUESTS_MAX, IDLE_BUFFERS, OUTSTANDING_BYTES_MAX, OUTSTANDING_MAX, RECEIVE_BYTES,
    REPLIES_BYTES, REQUEST_BYTES_MAX, SKIPPED_BYTES_MAX,
};
use crate::work::Workers;

pub struct Connection {
    executor: Executor,
    io: Arc<Workers>,
    panics: Arc<AtomicU64>,
    /// The server is closing: what was received is done, nothing more is taken on.
    is_closing: Arc<AtomicBool>,
    /// Empty while idle.
    buffer: Buffer,
    /// Received and not yet executed: buffer[start..end].
    start: usize,
    end: usize,
    replies: Replies,
    /// What is left of a READ whose first pieces are answered.
    rest: Option<Request>,
    is_ending: bool,
    /// The first request in the buffer has to wait for its turn.
    is_held: bool,
    /// It has had it.
    is_admitted: bool,
}

/// The connection is over.
struct Closed;

impl From<Errno> for Closed {
    fn from(_: Errno) -> Closed {
        Closed
    }
}

enum Next {
    /// A request of this many bytes in the buffer, and where its payload is.
    Whole(Request, std::ops::Range<usize>),
    /// Up to this buffer position at least has to be received.
    Needs(usize),
    /// A request with an oversized payload, to be skipped.
    Skip(Request),
}

impl Connection {
    pub fn new(
        executor: Executor,
        io: Arc<Workers>,
        panics: Arc<AtomicU64>,
        is_closing: Arc<AtomicBool>,
    ) -> Connection {
        Connection {
            executor,
            io,
            panics,
            is_closing,
            buffer: Buffer::default(),
            start: 0,
            end: 0,
            replies: Replies::default(),
            rest: None,
            is_ending: false,
            is_held: false,
            is_admitted: false,
        }
    }

    /// Until the client leaves, misbehaves or is shut out.
    pub fn run(&mut self) {
        while self.turn().is_ok() && !self.is_ending {}
        self.finish();
        self.account();
    }

    fn turn(&mut self) -> Result<(), Closed> {
        if self.rest.is_some() {
            return self.answer();
        }
        let wanted = match self.next()? {
            Next::Needs(wanted) => wanted,
            Next::Skip(request) => return self.skip(&request),
            Next::Whole(..) => return self.answer(),
        };
        if self.is_closing.load(Ordering::SeqCst) {
            return Err(Closed);
        }
        self.receive(wanted)
    }

    fn answer(&mut self) -> Result<(), Closed> {
        self.execute_batch()?;
        self.account();
        self.send()?;
        self.wait_for_turn()
    }

    fn account(&mut self) {
        self.executor
            .outgoing
            .lease
            .export
            .counters
            .add(&std::mem::take(&mut self.executor.stats));
    }

    /// What the buffer holds next.
    fn next(&self) -> Result<Next, Closed> {
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        let style = self.executor.outgoing.style;
        let payload_start = self.start + style.request_bytes();
        let request = match wire::parse_request(bytes, style) {
            Err(wire::BadMagic) => return Err(Closed),
            Ok(None) => return Ok(Next::Needs(payload_start)),
            Ok(Some(request)) => request,
        };
        let payload_bytes = request.payload_bytes(style);
        if payload_bytes > u64::from(REQUEST_BYTES_MAX) {
            return Ok(Next::Skip(request));
        }
        let payload_end = payload_start + payload_bytes as usize;
        Ok(if payload_end <= self.end {
            Next::Whole(request, payload_start..payload_end)
        } else {
            Next::Needs(payload_end)
        })
    }

    /// Everything complete in the buffer, up to the bound on replies, inside one `enter`.
    fn execute_batch(&mut self) -> Result<(), Closed> {
        let export = Arc::clone(&self.executor.outgoing.lease.export);
        let backing = &*export.backing;
        let entered = Entered::new(backing, Patience::Inline)
            .or_else(|| Entered::new(backing, Patience::Wait));
        let Some(_entered) = entered else {
            return Err(Closed);
        };
        let pace = Pace::of(backing);
        for _ in 0..BATCH_REQUESTS_MAX {
            if self.replies.len() >= REPLIES_BYTES || !self.has_room() {
                break;
            }
            let rest = self.rest.take();
            let is_rest = rest.is_some();
            let (request, payload) = match rest {
                Some(rest) => (rest, self.start..self.start),
                None => {
                    let Next::Whole(request, payload) = self.next()? else {
                        break;
                    };
                    if !std::mem::take(&mut self.is_admitted) && !pace.may_begin(&request) {
                        self.is_held = true;
                        break;
                    }
                    self.start = payload.end;
                    (request, payload)
                }
            };
            if request.command == command::DISC {
                self.is_ending = true;
                break;
            }
            let bytes = self.buffer.get(payload).unwrap_or_default();
            match self
                .executor
                .execute(&request, bytes, Patience::Inline, &mut self.replies)
            {
                Executed::Replied => {}
                Executed::ReplyAfterFlush => flush(&self.executor.outgoing, request.tag()),
                Executed::Partly(done) => {
                    self.rest = Some(Request {
                        offset: request.offset + done,
                        length: request.length - done,
                        ..request
                    });
                }
                // Its first pieces have to be on their way before anybody else can answer the rest.
                Executed::WouldBlock if is_rest && !self.replies.is_empty() => {
                    self.rest = Some(request);
                    break;
                }
                // `NotYet` is an io thread's: here it is a request that would block.
                Executed::WouldBlock | Executed::NotYet(_) => {
                    let payload = Buffer::copy_of(bytes);
                    self.hand_over(request, payload);
                }
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let outgoing = &self.executor.outgoing;
        outgoing.outstanding() < OUTSTANDING_MAX
            && outgoing.outstanding_bytes() < OUTSTANDING_BYTES_MAX
    }

    fn hand_over(&self, request: Request, payload: Buffer) {
        let outgoing = Arc::clone(&self.executor.outgoing);
        let contexts = Arc::clone(&self.executor.contexts);
        let memory = memory_of(&request, contexts.len());
        outgoing.begin(memory);
        let elsewhere = Elsewhere {
            outgoing,
            contexts,
            request,
            payload,
            memory,
            io: Arc::clone(&self.io),
            panics: Arc::clone(&self.panics),
        };
        elsewhere.submit();
    }

    /// An oversized payload is read and thrown away, then refused. Beyond all reason: the connection ends.
    fn skip(&mut self, request: &Request) -> Result<(), Closed> {
        if request.length > u64::from(SKIPPED_BYTES_MAX) {
            return Err(Closed);
        }
        let mut left = request.length as usize;
        self.start += self.executor.outgoing.style.request_bytes();
        loop {
            let here = left.min(self.end - self.start);
            self.start += here;
            left -= here;
            if left == 0 {
                break;
            }
            self.receive(self.start + 1)?;
        }
        self.executor.stats.errors += 1;
        self.executor
            .outgoing
            .put_refusal(&mut self.replies, request.tag(), error::TOO_LONG);
        self.send()
    }

    fn send(&mut self) -> Result<(), Closed> {
        let outgoing = Arc::clone(&self.executor.outgoing);
        let mut is_sent = if self.replies.is_empty() {
            true
        } else {
            outgoing.send_waiting(&mut self.replies)?
        };
        if is_sent && self.has_room() {
            return Ok(());
        }
        outgoing.watch(true);
        while !is_sent || !self.has_room() {
            let wanted = if is_sent {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            if is_gone(self.wait(wanted, None)?) {
                // Waiting on would spin: a hang-up is always ready.
                return Err(Closed);
            }
            is_sent = outgoing.send_queued()?;
        }
        outgoing.watch(false);
        Ok(())
    }

    /// Makes room for and receives bytes up to buffer position `wanted` or somewhat more; returns after the first that come.
    fn receive(&mut self, mut wanted: usize) -> Result<(), Closed> {
        if self.start == self.end {
            wanted -= self.start;
            self.start = 0;
            self.end = 0;
        }
        if self.buffer.is_empty() {
            self.wait_idle()?;
            // Fresh pages from the kernel, touched only as far as they are used.
            self.buffer = Buffer::zeroed(RECEIVE_BYTES);
        }
        // To the front when the rest would be a short receive; what is moved is less than one request.
        if self.start > 0 && self.start + RECEIVE_BYTES / 2 > self.buffer.len().min(RECEIVE_BYTES) {
            self.buffer.copy_within(self.start..self.end, 0);
            wanted -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
        if wanted > self.buffer.len() {
            let old = std::mem::replace(&mut self.buffer, Buffer::zeroed(wanted));
            if let (Some(target), Some(source)) =
                (self.buffer.get_mut(..self.end), old.get(..self.end))
            {
                target.copy_from_slice(source);
            }
        }
        // A long payload is received to its end and no further: what follows then starts at the front, without a move.
        let limit = if wanted - self.start > RECEIVE_BYTES / 2 {
            wanted
        } else {
            self.buffer.len().min(self.start + RECEIVE_BYTES)
        };
        let mut is_waiting = false;
        loop {
            let outgoing = &self.executor.outgoing;
            let is_busy = outgoing.outstanding() > 0;
            if is_waiting || !outgoing.send_queued()? {
                self.wait_busy()?;
                is_waiting = false;
            }
            let flags = if is_busy {
                RecvFlags::DONTWAIT
            } else {
                RecvFlags::empty()
            };
            let room = self.buffer.get_mut(self.end..limit).unwrap_or_default();
            match self.executor.outgoing.stream.receive(room, flags) {
                Ok(0) => return Err(Closed),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                // Only then: most of the time the next requests are there already.
                Err(Errno::AGAIN) if is_busy => is_waiting = true,
                // The socket's receive timeout: idle.
                Err(Errno::AGAIN) => {
                    if self.start == self.end {
                        self.buffer = Buffer::default();
                        self.replies = Replies::default();
                        self.executor.outgoing.release_buffers();
                        return Ok(());
                    }
                }
                Err(_) => return Err(Closed),
            }
        }
    }

    /// Until the client sends something, while replies are still to come or to be sent.
    fn wait_busy(&self) -> Result<(), Closed> {
        loop {
            let is_sent = self.executor.outgoing.send_queued()?;
            // With much unsent nothing more is taken on, and input must not be waited for: a client that sends and does not
            // read would keep this thread spinning.
            let wanted = if is_sent {
                PollFlags::IN
            } else {
                PollFlags::OUT
            };
            // With a time-out, so that a connection that goes idle after a flush comes to give its buffers back.
            let ready = self.wait(
                wanted,
                Some(&Timespec {
                    tv_sec: IDLE_BUFFERS.as_secs() as i64,
                    tv_nsec: 0,
                }),
            )?;
            if is_sent
                && (ready.contains(PollFlags::IN)
                    || is_gone(ready)
                    || self.executor.outgoing.outstanding() == 0)
            {
                return Ok(());
            }
            if !is_sent && is_gone(ready) {
                return Err(Closed);
            }
        }
    }

    fn wait_idle(&self) -> Result<(), Closed> {
        self.wait(PollFlags::IN, None).map(|_| ())
    }

    /// Until the socket is ready or a completion woke us.
    fn wait(&self, wanted: PollFlags, timeout: Option<&Timespec>) -> Result<PollFlags, Closed> {
        let outgoing = &self.executor.outgoing;
        if wanted.contains(PollFlags::IN) && outgoing.stream.has_received() {
            return Ok(PollFlags::IN);
        }
        let mut fds = [
            PollFd::new(&**outgoing.stream.socket(), wanted),
            PollFd::new(outgoing.wake_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Err(Closed),
        }
        let [socket, wake] = &fds;
        if wake.revents().contains(PollFlags::IN) {
            outgoing.clear_wake();
        }
        Ok(socket.revents())
    }
}

fn is_gone(ready: PollFlags) -> bool {
    ready.intersects(PollFlags::HUP | PollFlags::ERR)
}

/// The receive timeout after which an idle connection gives its buffers back.
pub fn set_idle_timeout(socket: &OwnedFd) -> rustix::io::Result<()> {
    rustix::net::sockopt::set_socket_timeout(
        socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(IDLE_BUFFERS),
    )
}
