//! Says when no request that began before a moment is still running, so that a freed extent can be reused (law 3).
//! Two counters in turns, as sleepable RCU has them: requests count themselves in under the current epoch's parity; the
//! epoch moves on only when the other parity's counter is zero.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[derive(Default)]
pub struct Quiesce {
    epoch: AtomicU32,
    wanted: AtomicU32,
    running: [Counter; 2],
}

/// A cache line of its own: both are changed by every batch of every connection.
#[derive(Default)]
#[repr(align(64))]
struct Counter(AtomicU64);

thread_local! {
    /// Parity under which this thread counted itself in. A thread executes for one volume at a time.
    static PARITY: Cell<usize> = const { Cell::new(0) };
}

impl Quiesce {
    fn counter(&self, parity: usize) -> &AtomicU64 {
        let [even, odd] = &self.running;
        if parity & 1 == 0 { &even.0 } else { &odd.0 }
    }

    pub fn enter(&self) {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            let parity = (epoch & 1) as usize;
            self.counter(parity).fetch_add(1, Ordering::SeqCst);
            if self.epoch.load(Ordering::SeqCst) == epoch {
                PARITY.set(parity);
                return;
            }
            self.counter(parity).fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub fn leave(&self) {
        self.counter(PARITY.get()).fetch_sub(1, Ordering::SeqCst);
    }

    /// A tag: when `quiesced` has reached it, every request that ran at this call has ended. Called by one thread.
    pub fn advance(&self) -> u32 {
        // Requests of this moment run in the current epoch or the one before; two steps outlast both.
        let tag = self.epoch.load(Ordering::SeqCst) + 2;
        self.wanted.fetch_max(tag, Ordering::SeqCst);
        tag
    }

    /// Moves on as far as was asked and the running requests allow. Called by the same one thread.
    pub fn quiesced(&self) -> u32 {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            // The next epoch has the parity of the previous one: nobody may be left in it.
            if epoch >= self.wanted.load(Ordering::SeqCst)
                || self
                    .counter((epoch as usize & 1) ^ 1)
                    .load(Ordering::SeqCst)
                    != 0
            {
                return epoch;
            }
            self.epoch.store(epoch + 1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_reached_only_after_every_earlier_request_ended() {
        let quiesce = Quiesce::default();
        quiesce.enter();
        let tag = quiesce.advance();
        assert!(quiesce.quiesced() < tag);
        quiesce.leave();
        assert!(quiesce.quiesced() >= tag);
    }

    #[test]
    fn a_later_request_does_not_hold_an_earlier_tag_for_ever() {
        let quiesce = std::sync::Arc::new(Quiesce::default());
        let tag = quiesce.advance();
        assert!(quiesce.quiesced() >= tag);
        quiesce.enter();
        assert!(quiesce.quiesced() >= tag);
        quiesce.leave();
    }
}
