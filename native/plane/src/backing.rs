//! The border inside the plane: what the NBD layer may ask of whatever is behind an export. `volume.rs` implements it
//! over extent files; tests implement it over memory. The protocol layer has validated every range (inside the size,
//! no overflow, not larger than the limits) before it calls; implementations assert that.

use std::ops::Range;
use std::time::Instant;

use crate::fill::Again;
use crate::throttle::Throttle;

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// On a connection's own thread: no disk reads, no waiting for the engine. Such a call fails with
    /// [`IoError::WouldBlock`] and is repeated, whole, on an io thread with [`Patience::Wait`].
    Inline,
    /// On an io thread: may wait.
    Wait,
}

/// Why an operation failed; `WouldBlock` and `NotYet` never reach a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    WouldBlock,
    /// The bytes of this entry are still to come, from far away: again, whole, when [`Backing::when_there`] says so. No thread waits.
    NotYet(u64),
    /// The pool is full, or the host filesystem is.
    NoSpace,
    /// The disk failed, a map page was damaged, or the volume refuses I/O after a failed sync.
    Failed,
    /// The volume is going away.
    ShuttingDown,
    /// The fast path that the client insisted on does not exist for this range (WRITE_ZEROES with FAST_ZERO).
    NotFast,
}

/// One run of a volume as block status and sparse replies see it. A hole here reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub length: u64,
    pub is_hole: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ZeroOptions {
    /// The client asked that the range stay allocated (NO_HOLE).
    pub keep_allocated: bool,
    /// Fail with `NotFast` rather than write zeros (FAST_ZERO).
    pub only_fast: bool,
}

/// Called exactly once, on any thread; must not block.
pub type Completion = Box<dyn FnOnce(Result<(), IoError>) + Send>;

/// A UUID.
pub type SnapshotId = u128;

pub trait Backing: Send + Sync + 'static {
    /// Bytes. Can grow while connections are open.
    fn size(&self) -> u64;

    /// How fast it may be used, by all its connections together; asked before a request begins, outside of `enter`.
    fn throttle(&self) -> Option<&Throttle> {
        None
    }

    /// Marks the calling thread as executing requests: between `enter` and `leave` a freeze or a swap waits. Taken once
    /// per batch, never held while the thread waits for a client. With `Inline` it returns false while a fence is up
    /// (then use an io thread, or wait with `Wait`, which always returns true).
    fn enter(&self, patience: Patience) -> bool;
    fn leave(&self);

    /// Fills `target` from `offset`. Blocks never written read as zeros.
    fn read(&self, offset: u64, target: &mut [u8], patience: Patience) -> Result<(), IoError>;
    /// The same with one look at the map, where data fill the whole range and lie together. Otherwise false, and nothing is read:
    /// `runs` says what is there.
    fn read_data(
        &self,
        _offset: u64,
        _target: &mut [u8],
        _patience: Patience,
    ) -> Result<bool, IoError> {
        Ok(false)
    }
    /// On an error any part of the range may have been written.
    fn write(&self, offset: u64, source: &[u8], patience: Patience) -> Result<(), IoError>;
    fn trim(&self, offset: u64, length: u64, patience: Patience) -> Result<(), IoError>;
    fn zero(
        &self,
        offset: u64,
        length: u64,
        options: ZeroOptions,
        patience: Patience,
    ) -> Result<(), IoError>;
    /// Calls `each` with adjacent runs that together cover the range, merged, until it returns false.
    fn runs(
        &self,
        offset: u64,
        length: u64,
        patience: Patience,
        each: &mut dyn FnMut(Run) -> bool,
    ) -> Result<(), IoError>;
    /// How many bytes from the offset on, `length` at most, are known to be holes without looking at what is mapped one by one: cheap
    /// for any length. 0 says nothing.
    fn hole_at(&self, _offset: u64, _length: u64) -> u64 {
        0
    }
    /// Asks the kernel to read the range ahead; a hint, never an error for data that is not there.
    fn cache(&self, offset: u64, length: u64, patience: Patience) -> Result<(), IoError>;
    /// Everything that completed before this call is durable when `done` runs with `Ok`. Never blocks.
    fn flush(&self, done: Completion);

    /// Snapshots that `changed_since` knows. Waits until the deadline at most, never while requests run.
    fn snapshots(&self, deadline: Instant) -> Vec<SnapshotId>;
    /// What differs from the snapshot, with everything written before this call. `None`: no snapshot of this volume, or no
    /// answer in time.
    fn changed_since(&self, snapshot: SnapshotId, deadline: Instant) -> Option<Vec<Range<u64>>>;

    /// After [`IoError::NotYet`]: `again` is called when the entry's bytes are there, do not come, or it is time to look again.
    fn when_there(&self, _entry: u64, again: Again) {
        again(Ok(()));
    }
    /// A connection is over: requests that wait for bytes look whether it was theirs.
    fn nudge(&self) {}
}

/// `enter` as a guard.
pub struct Entered<'a>(&'a dyn Backing);

impl<'a> Entered<'a> {
    pub fn new(backing: &'a dyn Backing, patience: Patience) -> Option<Self> {
        backing.enter(patience).then(|| Self(backing))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI32, Ordering};

    #[derive(Default)]
    struct Fenced(AtomicI32);

    impl Backing for Fenced {
        fn size(&self) -> u64 {
            0
        }
        fn enter(&self, patience: Patience) -> bool {
            let enters = patience == Patience::Wait;
            self.0.fetch_add(i32::from(enters), Ordering::SeqCst);
            enters
        }
        fn leave(&self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
        fn read(&self, _: u64, _: &mut [u8], _: Patience) -> Result<(), IoError> {
            Ok(())
        }
        fn write(&self, _: u64, _: &[u8], _: Patience) -> Result<(), IoError> {
            Ok(())
        }
        fn trim(&self, _: u64, _: u64, _: Patience) -> Result<(), IoError> {
            Ok(())
        }
        fn zero(&self, _: u64, _: u64, _: ZeroOptions, _: Patience) -> Result<(), IoError> {
            Ok(())
        }
        fn runs(
            &self,
            _: u64,
            _: u64,
            _: Patience,
            _: &mut dyn FnMut(Run) -> bool,
        ) -> Result<(), IoError> {
            Ok(())
        }
        fn cache(&self, _: u64, _: u64, _: Patience) -> Result<(), IoError> {
            Ok(())
        }
        fn flush(&self, done: Completion) {
            done(Ok(()));
        }
        fn snapshots(&self, _: Instant) -> Vec<SnapshotId> {
            Vec::new()
        }
        fn changed_since(&self, _: SnapshotId, _: Instant) -> Option<Vec<Range<u64>>> {
            None
        }
    }

    /// The guard was once made before the answer was known and dropped when it was no: a request that had not entered
    /// left, the count went below zero, and the next fence of the volume waited for ever (a snapshot while fio wrote).
    #[test]
    fn a_refused_entry_does_not_leave() {
        let backing = Fenced::default();
        assert!(Entered::new(&backing, Patience::Inline).is_none());
        assert_eq!(backing.0.load(Ordering::SeqCst), 0);
        drop(Entered::new(&backing, Patience::Wait));
        assert_eq!(backing.0.load(Ordering::SeqCst), 0);
    }
}
