//! One volume as the plane works on it. Reading, writing and unmapping through its map are in files of their own; captures, freezes
//! and flushes are in `capture.rs`. Knows nothing of sockets, names, snapshots as such, or what is on disk besides extents.
//!
//! Locks, in order: gate, stripe, then one of `dirty`, `released`, grants, faults. No stripe lock is held while waiting for the
//! engine. Invariants of the map are in `map.rs`.

mod arrive;
mod fill;
mod read;
mod unmap;
mod write;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::backing::{Backing, Completion, IoError, Patience, Run, SnapshotId, ZeroOptions};
use crate::capture::SyncState;
use crate::damage::Damaged;
use crate::file::{FileTable, SLOTS_PER_FILE, Touched, offset_of};
use crate::fill::{Again, Fill};
use crate::gate::Gate;
use crate::grant::{Grants, Taken};
use crate::link::{Event, Link};
use crate::map::{EXTENT_BYTES, Entry, LEAF_ENTRIES, LEAF_RANGE_BYTES, Leaf, Map};
use crate::quiesce::Quiesce;
use crate::throttle::Throttle;
use crate::work::Workers;

const STRIPES: usize = 1024;
/// Hint to the engine when a grant runs low; it knows better how much to give.
const WANTED_EXTENTS: u32 = 64;

/// What all volumes of a plane share.
pub struct Shared {
    pub files: FileTable,
    pub damaged: Damaged,
    pub quiesce: Quiesce,
    pub link: Link,
    pub sync_workers: Arc<Workers>,
    pub house_workers: Arc<Workers>,
    pub fill_workers: Arc<Workers>,
    /// Copied from bases into extents.
    pub filled_bytes: AtomicU64,
    pub commits: crate::capture::Commits,
    /// Held while a group is queued on its volumes: every volume sees two groups in the same order.
    pub(crate) together: Mutex<()>,
    pub questions: crate::question::Questions,
    stripes: Box<[Stripe]>,
}

#[derive(Default)]
#[repr(align(64))]
struct Stripe(Mutex<()>);

impl Shared {
    pub fn new(link: Link) -> Shared {
        Shared {
            files: FileTable::default(),
            damaged: Damaged::default(),
            quiesce: Quiesce::default(),
            link,
            sync_workers: Workers::new("sync", 8),
            house_workers: Workers::new("house", 2),
            fill_workers: Workers::new("fill", 1),
            filled_bytes: AtomicU64::new(0),
            commits: crate::capture::Commits::default(),
            together: Mutex::default(),
            questions: crate::question::Questions::default(),
            stripes: (0..STRIPES).map(|_| Stripe::default()).collect(),
        }
    }
}

pub use arrive::FillDoor;

pub struct Volume {
    pub handle: u32,
    /// For rounds of capture, which outlive the call that starts them.
    pub(crate) me: Weak<Volume>,
    pub(crate) shared: Arc<Shared>,
    size: AtomicU64,
    read_only: bool,
    /// Raised by each freeze, under the fence. A leaf with another generation holds no own entries.
    pub(crate) generation: AtomicU32,
    pub(crate) map: ArcSwap<Map>,
    /// Held while the map is replaced: by growth or by dropping its leaves.
    pub(crate) map_lock: Mutex<()>,
    pub(crate) gate: Gate,
    /// Entries changed since the last capture; each at most once (the entry's DIRTY flag).
    pub(crate) dirty: Mutex<Vec<u32>>,
    /// Extents taken and unmapped again between two captures: the engine never learned of them.
    pub(crate) released: Mutex<Vec<u32>>,
    pub(crate) touched: Touched,
    is_filling: AtomicBool,
    /// Raised before the last capture.
    pub(crate) is_closing: AtomicBool,
    pub grants: Grants,
    pub(crate) sync: Mutex<SyncState>,
    faults: Mutex<Faults>,
    fault_answered: Condvar,
    /// errno of the sync that failed, or 0. Final.
    pub(crate) failed: AtomicI32,
    pub throttle: Throttle,
    pub(crate) fill: Fill,
}

#[derive(Default)]
struct Faults {
    asked: HashSet<u32>,
    failed: HashSet<u32>,
}

/// Why an attempt stopped; the first two are cured by waiting (with `Patience::Wait`) and trying again.
#[derive(Debug)]
enum Stop {
    NeedLeaf(u32),
    NeedExtent,
    /// A block of this entry that is still to come.
    NeedBytes(u64),
    Error(IoError),
}

impl From<IoError> for Stop {
    fn from(error: IoError) -> Stop {
        Stop::Error(error)
    }
}

/// Part of a request that lies in one extent.
#[derive(Clone, Copy)]
struct Piece {
    /// Entry of the volume.
    index: u64,
    /// Bytes inside the extent.
    start: u64,
    end: u64,
}

fn pieces(offset: u64, length: u64) -> impl Iterator<Item = Piece> {
    let past = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < past).then(|| {
            let index = at / EXTENT_BYTES;
            let start = at % EXTENT_BYTES;
            let end = (start + (past - at)).min(EXTENT_BYTES);
            at += end - start;
            Piece { index, start, end }
        })
    })
}

/// Consecutive bytes of one extent file that one call moves.
struct Pending {
    extent: u32,
    /// Byte offset in the file.
    offset: u64,
    /// Range of the request's buffer.
    from: usize,
    to: usize,
}

impl Pending {
    /// Whether the request's bytes from `at` on, which lie at `offset` of the extent's file, continue this run.
    fn goes_on(&self, extent: u32, offset: u64, at: usize) -> bool {
        self.to == at
            && self.extent / SLOTS_PER_FILE == extent / SLOTS_PER_FILE
            && self.offset + (self.to - self.from) as u64 == offset
    }
}

impl Volume {
    pub fn new(shared: Arc<Shared>, handle: u32, size: u64, read_only: bool) -> Arc<Volume> {
        Arc::new_cyclic(|me| Volume {
            handle,
            me: Weak::clone(me),
            shared,
            size: AtomicU64::new(size),
            read_only,
            generation: AtomicU32::new(1),
            map: ArcSwap::from_pointee(Map::new(0)),
            map_lock: Mutex::default(),
            gate: Gate::default(),
            dirty: Mutex::default(),
            released: Mutex::default(),
            touched: Touched::default(),
            is_filling: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            grants: Grants::default(),
            sync: Mutex::default(),
            faults: Mutex::default(),
            fault_answered: Condvar::new(),
            failed: AtomicI32::new(0),
            throttle: Throttle::default(),
            fill: Fill::default(),
        })
    }

    /// Grow only; called by the engine's thread, which alone installs leaves.
    pub fn resize(&self, size: u64) {
        let _one = self.map_lock.lock();
        if size > self.size() {
            self.grow_map(size);
            self.size.store(size, Ordering::SeqCst);
        }
    }

    fn grow_map(&self, size: u64) {
        // Leaves are shared by both maps, and a branch is only ever created by the caller's thread: no request loses one.
        self.map.store(Arc::new(self.map.load().grown(size)));
    }

    /// Answers a fault. Called by the engine's thread only.
    pub fn load_leaf(&self, index: u32, page: &[u8]) -> bool {
        let Some(leaf) = Leaf::decode(page, self.generation.load(Ordering::SeqCst)) else {
            return false;
        };
        {
            // Under the lock: a leaf installed in a map that is being replaced would be lost.
            let _one = self.map_lock.lock();
            if self.map.load().is_empty() {
                self.grow_map(self.size());
            }
            self.map.load().install(index, leaf);
        }
        self.answer_fault(index, false);
        true
    }

    /// Answers a fault: the engine has no such leaf, and none of the `count` from it on. The one that was asked for may be wanted for
    /// writing, and is resident from now on; whoever wants to write in another asks for that.
    pub fn load_holes(&self, first: u32, count: u32) {
        {
            let _one = self.map_lock.lock();
            if self.map.load().is_empty() {
                self.grow_map(self.size());
            }
            let map = self.map.load();
            map.note_absent(first, count);
            map.install(first, Leaf::unused(self.generation.load(Ordering::SeqCst)));
        }
        self.answer_fault(first, false);
    }

    pub fn fail_leaf(&self, index: u32) {
        self.answer_fault(index, true);
    }

    fn answer_fault(&self, index: u32, failed: bool) {
        let mut faults = self.faults.lock();
        faults.asked.remove(&index);
        if failed {
            faults.failed.insert(index);
        }
        self.fault_answered.notify_all();
    }

    fn ask_leaf(&self, faults: &mut Faults, index: u32) {
        faults.failed.remove(&index);
        if faults.asked.insert(index) {
            self.shared.link.push(Event::Fault {
                handle: self.handle,
                leaf: index,
            });
        }
    }

    fn wait_leaf(&self, index: u32) -> Result<(), IoError> {
        let mut faults = self.faults.lock();
        if self.map.load().leaf(index).is_some() {
            return Ok(());
        }
        self.ask_leaf(&mut faults, index);
        loop {
            if self.map.load().leaf(index).is_some() {
                return Ok(());
            }
            if faults.failed.contains(&index) {
                return Err(IoError::Failed);
            }
            // A leaf can be dropped again between its arrival and our look: then ask once more.
            self.ask_leaf(&mut faults, index);
            self.fault_answered.wait(&mut faults);
        }
    }

    fn ask_grant(&self) {
        self.shared.link.push(Event::WantGrant {
            handle: self.handle,
            wanted: WANTED_EXTENTS,
        });
    }

    fn take_extent(&self) -> Result<u32, Stop> {
        let (result, ask) = match self.grants.take() {
            Taken::Extent { address, ask } => (Ok(address), ask),
            Taken::Empty { ask } => (Err(Stop::NeedExtent), ask),
        };
        if ask {
            self.ask_grant();
        }
        result
    }

    /// Repeats an attempt until nothing is missing. Nothing is held while waiting: the request leaves the gate and comes back,
    /// so that a freeze or the reuse of extents never waits for the engine through us.
    fn until_done(
        &self,
        patience: Patience,
        mut attempt: impl FnMut() -> Result<(), Stop>,
    ) -> Result<(), IoError> {
        if self.failed.load(Ordering::Relaxed) != 0 {
            return Err(IoError::Failed);
        }
        loop {
            let stop = match attempt() {
                Ok(()) => return Ok(()),
                Err(stop) => stop,
            };
            match (stop, patience) {
                (Stop::Error(error), _) => return Err(error),
                (Stop::NeedLeaf(index), Patience::Inline) => {
                    self.ask_leaf(&mut self.faults.lock(), index);
                    return Err(IoError::WouldBlock);
                }
                (Stop::NeedExtent | Stop::NeedBytes(_), Patience::Inline) => {
                    return Err(IoError::WouldBlock);
                }
                // Not on this thread: it may take long, and writes need the threads meanwhile.
                (Stop::NeedBytes(index), Patience::Wait) => return Err(IoError::NotYet(index)),
                (Stop::NeedLeaf(index), Patience::Wait) => {
                    self.outside(|| self.wait_leaf(index))?
                }
                (Stop::NeedExtent, Patience::Wait) => {
                    self.outside(|| self.grants.wait(|| self.ask_grant()))?
                }
            }
        }
    }

    fn outside<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.leave();
        let result = wait();
        self.enter(Patience::Wait);
        result
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "taken modulo the number of stripes"
    )]
    pub(crate) fn stripe(&self, index: u64) -> MutexGuard<'_, ()> {
        let hash = (u64::from(self.handle) << 32 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        self.shared.stripes[hash as usize % STRIPES].0.lock()
    }

    /// Notes a changed entry. Caller holds its stripe lock and stores the entry with DIRTY after this.
    fn note_dirty(&self, old: Entry, index: u64) {
        if old.has(Entry::DIRTY) {
            return;
        }
        let mut dirty = self.dirty.lock();
        dirty.push(index as u32);
        let count = dirty.len();
        drop(dirty);
        if Volume::is_long(count) {
            self.capture_soon();
        }
    }

    fn read_extent(
        &self,
        extent: u32,
        start: u64,
        target: &mut [u8],
        patience: Patience,
    ) -> Result<(), IoError> {
        if self.shared.damaged.has(extent) {
            return Err(IoError::Failed);
        }
        self.shared.files.with(extent, |file| {
            file.read(
                offset_of(extent) + start,
                target,
                patience,
                &self.shared.files,
            )
        })
    }

    fn write_extent(&self, extent: u32, start: u64, source: &[u8]) -> Result<(), IoError> {
        let result = self
            .shared
            .files
            .with(extent, |file| file.write(offset_of(extent) + start, source));
        // Also when it failed: part of it may be there, and has to be on the disk before the extent counts as unchanging.
        self.touched.add(extent);
        result
    }
}

impl Backing for Volume {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn throttle(&self) -> Option<&Throttle> {
        Some(&self.throttle)
    }

    fn enter(&self, patience: Patience) -> bool {
        match patience {
            Patience::Wait => self.gate.enter(),
            Patience::Inline => {
                if !self.gate.try_enter() {
                    return false;
                }
            }
        }
        self.shared.quiesce.enter();
        true
    }

    fn leave(&self) {
        self.shared.quiesce.leave();
        self.gate.leave();
    }

    fn read(&self, offset: u64, target: &mut [u8], patience: Patience) -> Result<(), IoError> {
        self.until_done(patience, || self.try_read(offset, target, patience))
    }

    fn read_data(
        &self,
        offset: u64,
        target: &mut [u8],
        patience: Patience,
    ) -> Result<bool, IoError> {
        let mut is_read = false;
        self.until_done(patience, || {
            is_read = self.try_read_data(offset, target, patience)?;
            Ok(())
        })?;
        Ok(is_read)
    }

    fn write(&self, offset: u64, source: &[u8], patience: Patience) -> Result<(), IoError> {
        assert!(
            !self.read_only,
            "the protocol layer refuses writes to read-only exports"
        );
        let mut done = 0;
        self.until_done(patience, || {
            self.try_write(offset, source, patience, &mut done)
        })
    }

    fn trim(&self, offset: u64, length: u64, patience: Patience) -> Result<(), IoError> {
        let mut done = 0;
        self.until_done(patience, || {
            self.try_unmap(offset, length, false, patience, &mut done)
        })
    }

    fn zero(
        &self,
        offset: u64,
        length: u64,
        options: ZeroOptions,
        patience: Patience,
    ) -> Result<(), IoError> {
        if options.only_fast && self.expects_any(offset, length) {
            return Err(IoError::NotFast);
        }
        if !options.keep_allocated {
            let mut done = 0;
            return self.until_done(patience, || {
                self.try_unmap(offset, length, true, patience, &mut done)
            });
        }
        if options.only_fast {
            return Err(IoError::NotFast);
        }
        static ZEROS: [u8; EXTENT_BYTES as usize] = [0; EXTENT_BYTES as usize];
        for piece in pieces(offset, length) {
            let zeros = ZEROS
                .get(..(piece.end - piece.start) as usize)
                .unwrap_or_default();
            self.write(piece.index * EXTENT_BYTES + piece.start, zeros, patience)?;
        }
        Ok(())
    }

    fn runs(
        &self,
        offset: u64,
        length: u64,
        patience: Patience,
        each: &mut dyn FnMut(Run) -> bool,
    ) -> Result<(), IoError> {
        let mut done = 0;
        let mut current = Run {
            length: 0,
            is_hole: true,
        };
        if patience == Patience::Inline {
            // A repetition from the start must not report a run twice: look for missing leaves first.
            self.until_done(patience, || {
                let map = self.map.load();
                let end = offset + length;
                let mut at = offset;
                while at < end {
                    let index = (at / LEAF_RANGE_BYTES) as u32;
                    at = match map.hole_at(at, end - at) {
                        0 => {
                            map.leaf(index).ok_or(Stop::NeedLeaf(index))?;
                            (u64::from(index) + 1) * LEAF_RANGE_BYTES
                        }
                        hole => at + hole,
                    };
                }
                Ok(())
            })?;
        }
        self.until_done(patience, || {
            self.try_runs(offset, length, each, &mut done, &mut current)
        })
    }

    fn hole_at(&self, offset: u64, length: u64) -> u64 {
        // What is still to come is no hole.
        if self.fill.expected.load().is_some() {
            return 0;
        }
        self.map.load().hole_at(offset, length)
    }

    fn cache(&self, offset: u64, length: u64, patience: Patience) -> Result<(), IoError> {
        self.until_done(patience, || {
            let map = self.map.load();
            for piece in pieces(offset, length) {
                let leaf_index = (piece.index / LEAF_ENTRIES as u64) as u32;
                let leaf = map.leaf(leaf_index).ok_or(Stop::NeedLeaf(leaf_index))?;
                let view = leaf.view(piece.index as usize % LEAF_ENTRIES);
                for extent in [view.entry.extent(), view.base.extent()]
                    .into_iter()
                    .filter(|extent| *extent != 0)
                {
                    self.shared.files.with(extent, |file| {
                        file.will_need(offset_of(extent) + piece.start, piece.end - piece.start);
                        Ok(())
                    })?;
                }
            }
            Ok(())
        })
    }

    fn flush(&self, done: Completion) {
        self.flush_for(done);
    }

    fn snapshots(&self, deadline: Instant) -> Vec<SnapshotId> {
        let Shared {
            questions, link, ..
        } = &*self.shared;
        let words = questions.ask(link, self.handle, None, deadline);
        let (pairs, _) = words.as_deref().unwrap_or_default().as_chunks();
        pairs
            .iter()
            .map(|[high, low]| u128::from(*high) << 64 | u128::from(*low))
            .collect()
    }

    fn changed_since(&self, snapshot: SnapshotId, deadline: Instant) -> Option<Vec<Range<u64>>> {
        let Shared {
            questions, link, ..
        } = &*self.shared;
        let words = questions.ask(link, self.handle, Some(snapshot), deadline)?;
        let (pairs, _) = words.as_chunks();
        Some(pairs.iter().map(|[start, end]| *start..*end).collect())
    }

    fn when_there(&self, entry: u64, again: Again) {
        self.park(entry, again);
    }

    fn nudge(&self) {
        self.fill.nudge();
    }
}
