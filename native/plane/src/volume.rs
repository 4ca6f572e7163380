//! One volume as the plane works on it: reads and writes through its map, copy-on-write, TRIM and zeroes. Captures, freezes
//! and flushes are in `capture.rs`. Knows nothing of sockets, names, snapshots as such, or what is on disk besides extents.
//!
//! Locks, in order: gate, stripe, then one of `dirty`, `released`, grants, faults. No stripe lock is held while waiting for the
//! engine. Invariants of the map are in `map.rs`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::backing::{Backing, Completion, IoError, Patience, Run, ZeroOptions};
use crate::capture::SyncState;
use crate::file::{FileTable, Touched, offset_of};
use crate::gate::Gate;
use crate::grant::{Grants, Taken};
use crate::link::{Event, Link};
use crate::map::{
    ALL_BLOCKS, BLOCK_BYTES, BLOCKS_PER_EXTENT, Base, EXTENT_BYTES, Entry, LEAF_ENTRIES, Leaf, Map,
    View, blocks_covered, blocks_touched,
};
use crate::quiesce::Quiesce;
use crate::work::Workers;

const STRIPES: usize = 1024;
/// Hint to the engine when a grant runs low; it knows better how much to give.
const WANTED_EXTENTS: u32 = 64;

/// What all volumes of a plane share.
pub struct Shared {
    pub files: FileTable,
    pub quiesce: Quiesce,
    pub link: Link,
    pub sync_workers: Arc<Workers>,
    pub house_workers: Arc<Workers>,
    pub commits: crate::capture::Commits,
    stripes: Box<[Stripe]>,
}

#[derive(Default)]
#[repr(align(64))]
struct Stripe(Mutex<()>);

impl Shared {
    pub fn new(link: Link) -> Shared {
        Shared {
            files: FileTable::default(),
            quiesce: Quiesce::default(),
            link,
            sync_workers: Workers::new("sync", 8),
            house_workers: Workers::new("house", 2),
            commits: crate::capture::Commits::default(),
            stripes: (0..STRIPES).map(|_| Stripe::default()).collect(),
        }
    }
}

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
    pub grants: Grants,
    pub(crate) sync: Mutex<SyncState>,
    faults: Mutex<Faults>,
    fault_answered: Condvar,
    /// errno of the sync that failed, or 0. Final.
    pub(crate) failed: AtomicI32,
}

#[derive(Default)]
struct Faults {
    asked: HashSet<u32>,
    failed: HashSet<u32>,
}

/// Why an attempt stopped; the first three are cured by waiting (with `Patience::Wait`) and trying again.
#[derive(Debug)]
enum Stop {
    NeedLeaf(u32),
    NeedExtent,
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
            grants: Grants::default(),
            sync: Mutex::default(),
            faults: Mutex::default(),
            fault_answered: Condvar::new(),
            failed: AtomicI32::new(0),
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
                (Stop::NeedExtent, Patience::Inline) => return Err(IoError::WouldBlock),
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
        self.shared
            .files
            .with(extent, |file| file.write(offset_of(extent) + start, source))?;
        self.touched.add(extent);
        Ok(())
    }

    // ---- reading -------------------------------------------------------------------------------------------------

    fn try_read(&self, offset: u64, target: &mut [u8], patience: Patience) -> Result<(), Stop> {
        let map = self.map.load();
        let mut pending: Option<Pending> = None;
        let mut at = 0usize;
        for piece in pieces(offset, target.len() as u64) {
            let leaf_index = (piece.index / LEAF_ENTRIES as u64) as u32;
            let leaf = map.leaf(leaf_index).ok_or(Stop::NeedLeaf(leaf_index))?;
            let view = leaf.view(piece.index as usize % LEAF_ENTRIES);
            let mut start = piece.start;
            while start < piece.end {
                let (source, end) = source_at(view, start, piece.end);
                let to = at + (end - start) as usize;
                match (source, &mut pending) {
                    (0, _) => target.get_mut(at..to).unwrap_or_default().fill(0),
                    (extent, Some(run))
                        if run.to == at
                            && run.extent / crate::file::SLOTS_PER_FILE
                                == extent / crate::file::SLOTS_PER_FILE
                            && run.offset + (run.to - run.from) as u64
                                == offset_of(extent) + start =>
                    {
                        run.to = to;
                    }
                    (extent, pending) => {
                        if let Some(run) = pending.take() {
                            self.fetch(&run, target, patience)?;
                        }
                        *pending = Some(Pending {
                            extent,
                            offset: offset_of(extent) + start,
                            from: at,
                            to,
                        });
                    }
                }
                at = to;
                start = end;
            }
        }
        if let Some(run) = pending {
            self.fetch(&run, target, patience)?;
        }
        Ok(())
    }

    fn fetch(&self, run: &Pending, target: &mut [u8], patience: Patience) -> Result<(), IoError> {
        let target = target.get_mut(run.from..run.to).unwrap_or_default();
        self.shared.files.with(run.extent, |file| {
            file.read(run.offset, target, patience, &self.shared.files)
        })
    }

    // ---- writing -------------------------------------------------------------------------------------------------

    fn try_write(
        &self,
        offset: u64,
        source: &[u8],
        patience: Patience,
        done: &mut usize,
    ) -> Result<(), Stop> {
        let map = self.map.load();
        let generation = self.generation.load(Ordering::Acquire);
        let mut pending: Option<Pending> = None;
        let mut at = *done;
        for piece in pieces(offset + at as u64, (source.len() - at) as u64) {
            let leaf_index = (piece.index / LEAF_ENTRIES as u64) as u32;
            let to = at + (piece.end - piece.start) as usize;
            let position = piece.index as usize % LEAF_ENTRIES;
            let in_place = match map.leaf(leaf_index) {
                Some(leaf) => match in_place_extent(leaf, generation, position, piece) {
                    Some(extent) => Ok(extent),
                    None => Err(Some(leaf)),
                },
                None => Err(None),
            };
            match (in_place, &mut pending) {
                (Ok(extent), Some(run))
                    if run.to == at
                        && run.extent / crate::file::SLOTS_PER_FILE
                            == extent / crate::file::SLOTS_PER_FILE
                        && run.offset + (run.to - run.from) as u64
                            == offset_of(extent) + piece.start =>
                {
                    run.to = to;
                }
                (Ok(extent), pending) => {
                    self.put(pending.take(), source, done)?;
                    *pending = Some(Pending {
                        extent,
                        offset: offset_of(extent) + piece.start,
                        from: at,
                        to,
                    });
                }
                (Err(leaf), pending) => {
                    self.put(pending.take(), source, done)?;
                    let leaf = leaf.ok_or(Stop::NeedLeaf(leaf_index))?;
                    self.write_first(
                        leaf,
                        generation,
                        piece,
                        source.get(at..to).unwrap_or_default(),
                        patience,
                    )?;
                    *done = to;
                }
            }
            at = to;
        }
        self.put(pending.take(), source, done)?;
        Ok(())
    }

    fn put(&self, run: Option<Pending>, source: &[u8], done: &mut usize) -> Result<(), IoError> {
        let Some(run) = run else { return Ok(()) };
        let bytes = source.get(run.from..run.to).unwrap_or_default();
        self.shared
            .files
            .with(run.extent, |file| file.write(run.offset, bytes))?;
        self.touched.add(run.extent);
        *done = run.to;
        Ok(())
    }

    /// A write that changes its entry: first touch of a block, or copy-on-write.
    fn write_first(
        &self,
        leaf: &Leaf,
        generation: u32,
        piece: Piece,
        source: &[u8],
        patience: Patience,
    ) -> Result<(), Stop> {
        let position = piece.index as usize % LEAF_ENTRIES;
        let _stripe = self.stripe(piece.index);
        leaf.adopt(generation);
        let view = leaf.view(position);
        let touched = blocks_touched(piece.start, piece.end);
        if view.entry.has(Entry::OWN) && !view.entry.is_hole() {
            return Ok(self.write_own(leaf, view, piece, source, touched, patience)?);
        }
        let target = self.take_extent()?;
        let result = self.write_beside(leaf, view, target, piece, source, touched, patience);
        if result.is_err() {
            self.grants.put_back(target);
        }
        Ok(result?)
    }

    fn write_own(
        &self,
        leaf: &Leaf,
        view: View,
        piece: Piece,
        source: &[u8],
        touched: u16,
        patience: Patience,
    ) -> Result<(), IoError> {
        let extent = view.entry.extent();
        let missing = touched & !view.entry.present();
        if missing == 0 {
            return self.write_extent(extent, piece.start, source);
        }
        self.write_blocks(view, extent, view.entry.present(), piece, source, patience)?;
        let present = view.entry.present() | missing;
        let base = if present == ALL_BLOCKS {
            Base::NONE
        } else {
            view.base
        };
        self.note_dirty(view.entry, piece.index);
        let flags = Entry::OWN | Entry::DIRTY | (view.entry.0 & Entry::FRESH);
        leaf.store(
            piece.index as usize % LEAF_ENTRIES,
            Entry::new(extent, present, flags),
            base,
        );
        Ok(())
    }

    /// Into a new extent beside a shared one, or into a hole. Never copies blocks of an extent without a base.
    #[allow(
        clippy::too_many_arguments,
        reason = "one row of the write table in docs/architecture.md"
    )]
    fn write_beside(
        &self,
        leaf: &Leaf,
        view: View,
        target: u32,
        piece: Piece,
        source: &[u8],
        touched: u16,
        patience: Patience,
    ) -> Result<(), IoError> {
        let (mut present, mut base) = (touched, Base::NONE);
        if !view.entry.is_hole() {
            let old = view.entry.present();
            if view.base.mask() == 0 {
                base = Base::new(view.entry.extent(), old & !touched);
            } else {
                self.copy_blocks(view.entry.extent(), target, old & !touched, patience)?;
                present |= old;
                base = Base::new(view.base.extent(), view.base.mask() & !present);
            }
        }
        self.write_blocks(view, target, 0, piece, source, patience)?;
        self.note_dirty(view.entry, piece.index);
        let flags = Entry::OWN | Entry::DIRTY | Entry::FRESH;
        leaf.store(
            piece.index as usize % LEAF_ENTRIES,
            Entry::new(target, present, flags),
            base,
        );
        Ok(())
    }

    /// Writes a piece, filling up its first and last block from what the entry shows unless the target has them already.
    fn write_blocks(
        &self,
        view: View,
        target: u32,
        in_target: u16,
        piece: Piece,
        source: &[u8],
        patience: Patience,
    ) -> Result<(), IoError> {
        let partial = blocks_touched(piece.start, piece.end)
            & !blocks_covered(piece.start, piece.end)
            & !in_target;
        if partial == 0 {
            return self.write_extent(target, piece.start, source);
        }
        let mut head = [0u8; BLOCK_BYTES as usize];
        let mut tail = [0u8; BLOCK_BYTES as usize];
        let first = piece.start / BLOCK_BYTES;
        let last = (piece.end - 1) / BLOCK_BYTES;
        let is_partial = |block: u64| partial >> block & 1 != 0;
        let head_length = if is_partial(first) {
            piece.start % BLOCK_BYTES
        } else {
            0
        };
        let head = head.get_mut(..head_length as usize).unwrap_or_default();
        self.show(view, first * BLOCK_BYTES, head, patience)?;
        let tail_length = if is_partial(last) {
            (last + 1) * BLOCK_BYTES - piece.end
        } else {
            0
        };
        let tail = tail.get_mut(..tail_length as usize).unwrap_or_default();
        self.show(view, piece.end, tail, patience)?;
        let at = offset_of(target) + piece.start - head_length;
        self.shared
            .files
            .with(target, |file| file.write_parts(at, &[head, source, tail]))?;
        self.touched.add(target);
        Ok(())
    }

    /// Bytes of one block as an entry shows them.
    fn show(
        &self,
        view: View,
        start: u64,
        target: &mut [u8],
        patience: Patience,
    ) -> Result<(), IoError> {
        if target.is_empty() {
            return Ok(());
        }
        match source_at(view, start, start + target.len() as u64).0 {
            0 => {
                target.fill(0);
                Ok(())
            }
            extent => self.read_extent(extent, start, target, patience),
        }
    }

    fn copy_blocks(
        &self,
        source: u32,
        target: u32,
        blocks: u16,
        patience: Patience,
    ) -> Result<(), IoError> {
        let mut buffer = [0u8; BLOCK_BYTES as usize];
        for block in (0..BLOCKS_PER_EXTENT).filter(|block| blocks >> block & 1 != 0) {
            let start = u64::from(block) * BLOCK_BYTES;
            self.read_extent(source, start, &mut buffer, patience)?;
            self.write_extent(target, start, &buffer)?;
        }
        Ok(())
    }

    // ---- trimming and zeroing ------------------------------------------------------------------------------------

    /// Makes blocks of a range holes. With `edges`, bytes in partial blocks become zeros too.
    fn try_unmap(
        &self,
        offset: u64,
        length: u64,
        edges: bool,
        patience: Patience,
        done: &mut u64,
    ) -> Result<(), Stop> {
        let map = self.map.load();
        let generation = self.generation.load(Ordering::Acquire);
        let size = self.size();
        for piece in pieces(offset + *done, length - *done) {
            let leaf_index = (piece.index / LEAF_ENTRIES as u64) as u32;
            let leaf = map.leaf(leaf_index).ok_or(Stop::NeedLeaf(leaf_index))?;
            // What lies behind the end of the volume belongs to its last block.
            let is_at_end = piece.index * EXTENT_BYTES + piece.end >= size;
            let end = if is_at_end { EXTENT_BYTES } else { piece.end };
            self.unmap_piece(leaf, generation, Piece { end, ..piece }, edges, patience)?;
            *done += piece.end - piece.start;
        }
        Ok(())
    }

    fn unmap_piece(
        &self,
        leaf: &Leaf,
        generation: u32,
        piece: Piece,
        edges: bool,
        patience: Patience,
    ) -> Result<(), Stop> {
        let position = piece.index as usize % LEAF_ENTRIES;
        if leaf.entry(position).is_hole() {
            return Ok(());
        }
        let covered = blocks_covered(piece.start, piece.end);
        if edges {
            let partial = blocks_touched(piece.start, piece.end) & !covered;
            for block in (0..BLOCKS_PER_EXTENT).filter(|block| partial >> block & 1 != 0) {
                self.zero_in_block(leaf, generation, piece, u64::from(block), patience)?;
            }
        }
        if covered == 0 {
            return Ok(());
        }
        let _stripe = self.stripe(piece.index);
        leaf.adopt(generation);
        let view = leaf.view(position);
        if view.visible() & covered == 0 {
            return Ok(());
        }
        self.note_dirty(view.entry, piece.index);
        let present = view.entry.present() & !covered;
        let base = Base::new(view.base.extent(), view.base.mask() & !covered);
        let kept = view.entry.0 & (Entry::OWN | Entry::FRESH) | Entry::DIRTY;
        if present == 0 && (base.mask() == 0 || !view.entry.has(Entry::OWN)) {
            // Nothing of the extent is shown any more: the entry is a hole, or its base alone.
            if view.entry.has(Entry::FRESH) {
                self.released.lock().push(view.entry.extent());
            }
            let entry = if base.mask() == 0 {
                Entry::new(0, 0, Entry::DIRTY)
            } else {
                Entry::new(base.extent(), base.mask(), Entry::DIRTY)
            };
            leaf.store(position, entry, Base::NONE);
        } else {
            leaf.store(
                position,
                Entry::new(view.entry.extent(), present, kept),
                base,
            );
        }
        Ok(())
    }

    /// Zeros the bytes of a piece that lie in one partial block, if anything is there.
    fn zero_in_block(
        &self,
        leaf: &Leaf,
        generation: u32,
        piece: Piece,
        block: u64,
        patience: Patience,
    ) -> Result<(), Stop> {
        if leaf.view(piece.index as usize % LEAF_ENTRIES).visible() >> block & 1 == 0 {
            return Ok(());
        }
        let start = piece.start.max(block * BLOCK_BYTES);
        let end = piece.end.min((block + 1) * BLOCK_BYTES);
        let zeros = [0u8; BLOCK_BYTES as usize];
        let zeros = zeros.get(..(end - start) as usize).unwrap_or_default();
        self.write_first(
            leaf,
            generation,
            Piece {
                start,
                end,
                ..piece
            },
            zeros,
            patience,
        )
    }

    fn try_runs(
        &self,
        offset: u64,
        length: u64,
        each: &mut dyn FnMut(Run) -> bool,
        done: &mut u64,
        current: &mut Run,
    ) -> Result<(), Stop> {
        let map = self.map.load();
        for piece in pieces(offset + *done, length - *done) {
            let leaf_index = (piece.index / LEAF_ENTRIES as u64) as u32;
            let leaf = map.leaf(leaf_index).ok_or(Stop::NeedLeaf(leaf_index))?;
            let visible = leaf.view(piece.index as usize % LEAF_ENTRIES).visible();
            let mut start = piece.start;
            while start < piece.end {
                let (is_hole, end) = run_of_blocks(!visible, start, piece.end);
                if is_hole != current.is_hole && current.length > 0 {
                    let run = std::mem::replace(current, Run { length: 0, is_hole });
                    if !each(run) {
                        return Ok(());
                    }
                }
                current.is_hole = is_hole;
                current.length += end - start;
                *done += end - start;
                start = end;
            }
        }
        if current.length > 0 {
            each(std::mem::replace(
                current,
                Run {
                    length: 0,
                    is_hole: true,
                },
            ));
        }
        Ok(())
    }
}

/// The extent to write in place, if no entry has to change for it.
fn in_place_extent(leaf: &Leaf, generation: u32, position: usize, piece: Piece) -> Option<u32> {
    if leaf.generation() != generation {
        return None;
    }
    let entry = leaf.entry(position);
    let touched = blocks_touched(piece.start, piece.end);
    (entry.has(Entry::OWN) && touched & !entry.present() == 0).then_some(entry.extent())
}

/// Where the bytes from `start` on come from (0: zeros), and how far (at most `end`) they all come from there.
fn source_at(view: View, start: u64, end: u64) -> (u32, u64) {
    let block = start / BLOCK_BYTES;
    let (extent, mask) = if view.entry.present() >> block & 1 != 0 {
        (view.entry.extent(), view.entry.present())
    } else if view.base.mask() >> block & 1 != 0 {
        (view.base.extent(), view.base.mask() & !view.entry.present())
    } else {
        (0, !view.visible())
    };
    (extent, run_of_blocks(mask, start, end).1)
}

/// Whether the block at `start` is in the mask, and up to where (at most `end`) the blocks after it are likewise.
fn run_of_blocks(mask: u16, start: u64, end: u64) -> (bool, u64) {
    let block = (start / BLOCK_BYTES) as u32;
    let rest = u32::from(mask) >> block;
    let is_in = rest & 1 != 0;
    let width = if is_in {
        rest.trailing_ones()
    } else {
        rest.trailing_zeros().min(BLOCKS_PER_EXTENT)
    };
    (is_in, (u64::from(block + width) * BLOCK_BYTES).min(end))
}

impl Backing for Volume {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
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
                let first = offset / (EXTENT_BYTES * LEAF_ENTRIES as u64);
                let last = (offset + length.max(1) - 1) / (EXTENT_BYTES * LEAF_ENTRIES as u64);
                for index in first..=last {
                    map.leaf(index as u32).ok_or(Stop::NeedLeaf(index as u32))?;
                }
                Ok(())
            })?;
        }
        self.until_done(patience, || {
            self.try_runs(offset, length, each, &mut done, &mut current)
        })
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
}
