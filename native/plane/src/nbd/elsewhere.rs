//! A request that is not done on its connection's thread: by the io pool, where everything may be waited for, and after that by the
//! flush it asked for. One whose bytes are still to come is kept without a thread and tried again, whole. Knows no socket beyond
//! ending its connection after a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::Shutdown;

use super::buffer::Buffer;
use super::contexts::Context;
use super::execute::{Executed, Executor};
use super::outgoing::Outgoing;
use super::replies::Replies;
use super::wire::{Request, Tag};
use crate::backing::{Entered, IoError, Patience};
use crate::export::identity;
use crate::stats::ExportStats;
use crate::work::Workers;

pub struct Elsewhere {
    pub outgoing: Arc<Outgoing>,
    pub contexts: Arc<[Context]>,
    pub request: Request,
    pub payload: Buffer,
    /// As `Outgoing::begin` was told.
    pub memory: usize,
    pub io: Arc<Workers>,
    pub panics: Arc<AtomicU64>,
}

impl Elsewhere {
    pub fn submit(self) {
        let owner = identity(&self.outgoing.lease.export.backing);
        let io = Arc::clone(&self.io);
        io.submit(owner as u64, Box::new(move || self.run()));
    }

    fn run(self) {
        let mut replies = Replies::default();
        let execute = || self.execute(&mut replies);
        // As on the connection's own thread: a panic ends this connection, and nobody else's.
        let Ok(executed) = catch_unwind(AssertUnwindSafe(execute)) else {
            self.panics.fetch_add(1, Ordering::Relaxed);
            // Fails only if the client is gone already.
            let _ = rustix::net::shutdown(self.outgoing.stream.socket(), Shutdown::Both);
            return self.outgoing.complete(&[], self.memory);
        };
        match executed {
            Executed::NotYet(entry) => return self.park(entry),
            Executed::ReplyAfterFlush => flush(&self.outgoing, self.request.tag()),
            _ => {}
        }
        self.outgoing.complete(replies.bytes(), self.memory);
    }

    fn execute(&self, replies: &mut Replies) -> Executed {
        let export = &self.outgoing.lease.export;
        let mut executor = Executor::new(Arc::clone(&self.outgoing), Arc::clone(&self.contexts));
        let executed = {
            let _entered = Entered::new(&*export.backing, Patience::Wait);
            executor.execute(&self.request, &self.payload, Patience::Wait, replies)
        };
        export.counters.add(&executor.stats);
        executed
    }

    fn park(self, entry: u64) {
        let backing = Arc::clone(&self.outgoing.lease.export.backing);
        let again = move |result: Result<(), IoError>| match result {
            // Nobody waits for the answer, and what has not begun need not be done.
            Ok(()) if self.outgoing.is_over() => self.outgoing.complete(&[], self.memory),
            Ok(()) => self.submit(),
            Err(error) => {
                let reply = refused(&self.outgoing, self.request.tag(), error);
                self.outgoing.complete(reply.bytes(), self.memory);
            }
        };
        backing.when_there(entry, Box::new(again));
    }
}

fn refused(outgoing: &Outgoing, tag: Tag, error: IoError) -> Replies {
    let mut replies = Replies::default();
    outgoing.lease.export.counters.add(&ExportStats {
        errors: 1,
        ..ExportStats::default()
    });
    outgoing.put_refusal(&mut replies, tag, error.into());
    replies
}

pub fn flush(outgoing: &Arc<Outgoing>, tag: Tag) {
    outgoing.begin(0);
    let completing = Arc::clone(outgoing);
    outgoing.lease.export.backing.flush(Box::new(move |result| {
        let replies = match result {
            Ok(()) => {
                let mut replies = Replies::default();
                completing.put_done(&mut replies, tag);
                replies
            }
            Err(error) => refused(&completing, tag, error),
        };
        completing.complete(replies.bytes(), 0);
    }));
}
