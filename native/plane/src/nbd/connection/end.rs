//! The end of a connection whose client has said all it wanted to say: what is under way is completed and answered, as long as
//! the client reads. Takes no request.

use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::time::Timespec;

use super::{Connection, is_gone};

/// For a client that has said all it wants to say and does not read its replies.
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

impl Connection {
    /// Requests that are done elsewhere are still answered, if the client reads.
    pub(super) fn finish(&mut self) {
        let outgoing = Arc::clone(&self.executor.outgoing);
        if !self.replies.is_empty() && outgoing.send(&mut self.replies).is_err() {
            return;
        }
        outgoing.watch(true);
        // When the client took something last, as far as there was anything to take.
        let mut took_at = Instant::now();
        while let Ok(is_sent) = outgoing.send_queued() {
            if is_sent && outgoing.outstanding() == 0 {
                return;
            }
            let (wanted, timeout) = if is_sent {
                (PollFlags::empty(), None)
            } else {
                (PollFlags::OUT, Some(&PATIENCE))
            };
            let Ok(ready) = self.wait(wanted, timeout) else {
                return;
            };
            if is_gone(ready) {
                return;
            }
            // Neither may have come about: completions wake us too.
            if is_sent || ready.contains(PollFlags::OUT) {
                took_at = Instant::now();
            } else if took_at.elapsed().as_secs() >= PATIENCE.tv_sec as u64 {
                return;
            }
        }
    }
}
