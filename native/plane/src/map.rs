//! The working map of one volume: leaves of 512 packed entries, loaded on demand, read without locks. Does no I/O and
//! takes no decision; `volume.rs` says when an entry may change (docs/architecture.md, "Life of a write").
//!
//! Invariants: an entry changes only under its stripe lock; a base is stored before the entry that refers to it; a
//! leaf's generation changes only under `own_lock` and after every OWN flag in it was cleared.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

pub const EXTENT_BYTES: u64 = 65536;
pub const BLOCK_BYTES: u64 = 4096;
pub const BLOCKS_PER_EXTENT: u32 = 16;
pub const LEAF_ENTRIES: usize = 512;
/// Bytes of a leaf without and with bases as it crosses the border (layout: src/native/plane.ts).
pub const LEAF_BASES_OFFSET: usize = LEAF_ENTRIES * 8;
pub const LEAF_MASKS_OFFSET: usize = LEAF_BASES_OFFSET + LEAF_ENTRIES * 4;
pub const LEAF_BYTES: usize = LEAF_MASKS_OFFSET + LEAF_ENTRIES * 2;
/// Of a volume, that one leaf maps.
pub const LEAF_RANGE_BYTES: u64 = EXTENT_BYTES * LEAF_ENTRIES as u64;
const LEAVES_PER_BRANCH: usize = 1024;

pub const ALL_BLOCKS: u16 = 0xffff;

/// One map entry: extent address (bits 0-31), present bits (32-47), flags (48-63). Address 0 is a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub u64);

impl Entry {
    pub const HOLE: Entry = Entry(0);
    /// Referenced by this head alone (valid while the leaf carries the volume's generation).
    pub const OWN: u64 = 1 << 48;
    /// In the dirty list: changed since the last capture.
    pub const DIRTY: u64 = 1 << 49;
    /// The extent came out of a grant after the last capture: the engine does not know that it is used.
    pub const FRESH: u64 = 1 << 50;
    /// The base array has a base for this entry.
    pub const BASED: u64 = 1 << 51;

    pub fn new(extent: u32, present: u16, flags: u64) -> Self {
        Entry(u64::from(extent) | u64::from(present) << 32 | flags)
    }
    pub fn extent(self) -> u32 {
        self.0 as u32
    }
    pub fn present(self) -> u16 {
        (self.0 >> 32) as u16
    }
    pub fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
    pub fn is_hole(self) -> bool {
        self.extent() == 0
    }
}

/// The base of an entry: extent address (bits 0-31) and the blocks it answers for (32-47).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base(pub u64);

impl Base {
    pub const NONE: Base = Base(0);
    pub fn new(extent: u32, mask: u16) -> Self {
        Base(u64::from(extent) | u64::from(mask) << 32)
    }
    pub fn extent(self) -> u32 {
        self.0 as u32
    }
    pub fn mask(self) -> u16 {
        (self.0 >> 32) as u16
    }
}

/// What one entry shows: the blocks in its extent, the blocks in its base, the rest zeros.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub entry: Entry,
    pub base: Base,
}

impl View {
    /// Blocks that hold data, wherever they are.
    pub fn visible(self) -> u16 {
        self.entry.present() | self.base.mask()
    }
}

pub struct Leaf {
    /// Made by the first entry that is not a hole: a TRIM or a look at a range goes through leaves of a thin volume by the million
    /// (64 TiB in one request with extended headers), and most of them hold nothing.
    entries: OnceLock<Box<[AtomicU64]>>,
    bases: OnceLock<Box<[AtomicU64]>>,
    generation: AtomicU32,
    own_lock: Mutex<()>,
}

impl Leaf {
    /// Of nothing but holes.
    pub fn unused(generation: u32) -> Leaf {
        Leaf {
            entries: OnceLock::new(),
            bases: OnceLock::new(),
            generation: AtomicU32::new(generation),
            own_lock: Mutex::new(()),
        }
    }

    /// From the bytes of the engine; `None` if the length is not one of the two allowed.
    pub fn decode(page: &[u8], generation: u32) -> Option<Leaf> {
        if page.len() != LEAF_BYTES && page.len() != LEAF_BASES_OFFSET {
            return None;
        }
        let (entries_bytes, rest) = page.split_at(LEAF_BASES_OFFSET);
        let entries = OnceLock::new();
        if entries_bytes.iter().any(|byte| *byte != 0) {
            let decoded = entries_bytes.as_chunks::<8>().0.iter().map(|chunk| {
                // The only flag that comes from the engine is OWN, bit 0 of the flags word.
                AtomicU64::new(u64::from_le_bytes(*chunk) & (Entry::OWN | (Entry::OWN - 1)))
            });
            // Cannot be set already: it is new.
            let _ = entries.set(decoded.collect());
        }
        let leaf = Leaf {
            entries,
            ..Leaf::unused(generation)
        };
        if !rest.is_empty() {
            let (addresses, masks) = rest.split_at(LEAF_MASKS_OFFSET - LEAF_BASES_OFFSET);
            for (position, (address, mask)) in addresses
                .as_chunks::<4>()
                .0
                .iter()
                .zip(masks.as_chunks::<2>().0)
                .enumerate()
            {
                let base = Base::new(u32::from_le_bytes(*address), u16::from_le_bytes(*mask));
                if base.extent() != 0 && base.mask() != 0 {
                    leaf.set_base(position, base);
                    leaf.slot(position)
                        .fetch_or(Entry::BASED, Ordering::Relaxed);
                }
            }
        }
        Some(leaf)
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "position is an index modulo LEAF_ENTRIES, the slice's length"
    )]
    fn slot(&self, position: usize) -> &AtomicU64 {
        let entries = self.entries.get_or_init(holes);
        &entries[position % LEAF_ENTRIES]
    }

    /// No entry was ever stored in it.
    fn is_unused(&self) -> bool {
        self.entries.get().is_none()
    }

    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "position is taken modulo LEAF_ENTRIES, the slice's length"
    )]
    pub fn entry(&self, position: usize) -> Entry {
        match self.entries.get() {
            Some(entries) => Entry(entries[position % LEAF_ENTRIES].load(Ordering::Acquire)),
            None => Entry::HOLE,
        }
    }

    /// Entry and base that belong together, without a lock: the entry is read again after the base.
    pub fn view(&self, position: usize) -> View {
        loop {
            let entry = self.entry(position);
            if !entry.has(Entry::BASED) {
                return View {
                    entry,
                    base: Base::NONE,
                };
            }
            let base = self.base(position);
            if self.entry(position) == entry {
                return View { entry, base };
            }
        }
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "position is taken modulo LEAF_ENTRIES, the slice's length"
    )]
    fn base(&self, position: usize) -> Base {
        match self.bases.get() {
            Some(bases) => Base(bases[position % LEAF_ENTRIES].load(Ordering::Acquire)),
            None => Base::NONE,
        }
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "position is taken modulo LEAF_ENTRIES, the slice's length"
    )]
    fn set_base(&self, position: usize, base: Base) {
        let bases = self.bases.get_or_init(holes);
        bases[position % LEAF_ENTRIES].store(base.0, Ordering::Release);
    }

    /// Stores an entry with its base. Caller holds the entry's stripe lock.
    pub fn store(&self, position: usize, entry: Entry, base: Base) {
        let entry = if base.mask() == 0 {
            Entry(entry.0 & !Entry::BASED)
        } else {
            self.set_base(position, base);
            Entry(entry.0 | Entry::BASED)
        };
        self.slot(position).store(entry.0, Ordering::Release);
    }

    /// Clears flags of an entry. Caller holds the entry's stripe lock.
    pub fn clear(&self, position: usize, flags: u64) {
        self.slot(position).fetch_and(!flags, Ordering::AcqRel);
    }

    /// Brings the leaf to the volume's generation: after a freeze every entry in it is shared.
    pub fn adopt(&self, generation: u32) {
        if self.generation() == generation {
            return;
        }
        let _guard = self.own_lock.lock();
        if self.generation() == generation {
            return;
        }
        for entry in self.entries.get().into_iter().flatten() {
            entry.fetch_and(!Entry::OWN, Ordering::Relaxed);
        }
        self.generation.store(generation, Ordering::Release);
    }
}

fn holes() -> Box<[AtomicU64]> {
    (0..LEAF_ENTRIES).map(|_| AtomicU64::new(0)).collect()
}

struct Branch {
    leaves: Box<[OnceLock<Arc<Leaf>>]>,
}

/// 32 GiB of a volume.
#[derive(Default)]
struct Limb {
    branch: OnceLock<Arc<Branch>>,
    /// Leaves of which the engine said that it has none. It gets one only from here, from a leaf that is resident and then counts
    /// instead: so what it said holds as long as this map.
    absent: [AtomicU64; LEAVES_PER_BRANCH / 64],
}

/// Two levels of leaves. Replaced as a whole when leaves are dropped or the volume grows.
pub struct Map {
    branches: Box<[Limb]>,
}

impl Map {
    pub fn new(size_bytes: u64) -> Map {
        let leaves = size_bytes.div_ceil(LEAF_RANGE_BYTES);
        let branches =
            usize::try_from(leaves.div_ceil(LEAVES_PER_BRANCH as u64)).unwrap_or(usize::MAX);
        Map {
            branches: (0..branches).map(|_| Limb::default()).collect(),
        }
    }

    /// The same leaves in a map for a larger size.
    pub fn grown(&self, size_bytes: u64) -> Map {
        let larger = Map::new(size_bytes);
        for (target, source) in larger.branches.iter().zip(&self.branches) {
            if let Some(branch) = source.branch.get() {
                // Cannot be set already: `larger` is not shared yet.
                let _ = target.branch.set(Arc::clone(branch));
            }
            for (target, source) in target.absent.iter().zip(&source.absent) {
                target.store(source.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        larger
    }

    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    pub fn leaf(&self, index: u32) -> Option<&Arc<Leaf>> {
        let index = index as usize;
        self.branches
            .get(index / LEAVES_PER_BRANCH)?
            .branch
            .get()?
            .leaves
            .get(index % LEAVES_PER_BRANCH)?
            .get()
    }

    /// The first one wins: a leaf that is there may already carry changes.
    pub fn install(&self, index: u32, leaf: Leaf) {
        let index = index as usize;
        if let Some(limb) = self.branches.get(index / LEAVES_PER_BRANCH) {
            let branch = limb.branch.get_or_init(|| {
                Arc::new(Branch {
                    leaves: (0..LEAVES_PER_BRANCH).map(|_| OnceLock::new()).collect(),
                })
            });
            if let Some(cell) = branch.leaves.get(index % LEAVES_PER_BRANCH) {
                let _ = cell.set(Arc::new(leaf));
            }
        }
    }

    /// The engine has none of `count` leaves from `first` on. Kept unless both ends are known: who writes here and there in a large volume
    /// is told of the same terabytes again and again, and what is not kept costs a question at most.
    pub fn note_absent(&self, first: u32, count: u32) {
        let past = first as usize + count as usize;
        let mut index = first as usize;
        if count > 1 && self.is_absent(index + 1) && self.is_absent(past - 1) {
            return;
        }
        while index < past {
            let Some(limb) = self.branches.get(index / LEAVES_PER_BRANCH) else {
                return;
            };
            let width = (64 - index % 64).min(past - index);
            let bits = (u64::MAX >> (64 - width)) << (index % 64);
            if let Some(word) = limb.absent.get(index % LEAVES_PER_BRANCH / 64) {
                word.fetch_or(bits, Ordering::Release);
            }
            index += width;
        }
    }

    fn is_absent(&self, index: usize) -> bool {
        let limb = self.branches.get(index / LEAVES_PER_BRANCH);
        let word = limb.and_then(|limb| limb.absent.get(index % LEAVES_PER_BRANCH / 64));
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (index % 64) & 1 != 0)
    }

    /// How many bytes from the offset on, `length` at most, are holes for certain, by the leaves alone: none of them has an entry.
    pub fn hole_at(&self, offset: u64, length: u64) -> u64 {
        let first = (offset / LEAF_RANGE_BYTES) as usize;
        let past = (offset + length).div_ceil(LEAF_RANGE_BYTES) as usize;
        let mut index = first;
        while index < past {
            let count = self.holes_from(index);
            if count == 0 {
                break;
            }
            index += count;
        }
        (index as u64 * LEAF_RANGE_BYTES)
            .min(offset + length)
            .saturating_sub(offset)
    }

    /// Leaves from `index` on that hold nothing; not necessarily all of them, but none only if that one does or may.
    fn holes_from(&self, index: usize) -> usize {
        let Some(limb) = self.branches.get(index / LEAVES_PER_BRANCH) else {
            return 0;
        };
        let position = index % LEAVES_PER_BRANCH;
        let leaves = limb.branch.get().map(|branch| &branch.leaves);
        // The leaf before the bit: whoever finds none there and the bit set began before that leaf was of use to anybody.
        let resident = leaves.and_then(|leaves| leaves.get(position)?.get());
        if let Some(leaf) = resident {
            return usize::from(leaf.is_unused());
        }
        let absent = (limb.absent.get(position / 64))
            .map_or(0, |word| word.load(Ordering::Acquire) >> (position % 64));
        match leaves {
            Some(_) => (absent & 1) as usize,
            None => absent.trailing_ones() as usize,
        }
    }
}

/// The blocks that the bytes [start, end) of an extent touch.
pub fn blocks_touched(start: u64, end: u64) -> u16 {
    mask_between(start / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES))
}

/// The blocks that lie wholly inside the bytes [start, end) of an extent.
pub fn blocks_covered(start: u64, end: u64) -> u16 {
    mask_between(start.div_ceil(BLOCK_BYTES), end / BLOCK_BYTES)
}

fn mask_between(first: u64, past: u64) -> u16 {
    if first >= past {
        return 0;
    }
    let width = (past - first).min(16);
    (((1u32 << width) - 1) << first.min(16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_say_which_blocks_a_byte_range_touches_and_covers() {
        assert_eq!(blocks_touched(0, 65536), 0xffff);
        assert_eq!(blocks_touched(0, 1), 1);
        assert_eq!(blocks_touched(4095, 4097), 3);
        assert_eq!(blocks_touched(61440, 65536), 0x8000);
        assert_eq!(blocks_covered(0, 4095), 0);
        assert_eq!(blocks_covered(1, 8192), 2);
        assert_eq!(blocks_covered(0, 65536), 0xffff);
        assert_eq!(blocks_covered(100, 200), 0);
    }

    #[test]
    fn a_leaf_of_the_engine_keeps_addresses_masks_bases_and_own_flags() {
        let mut page = vec![0u8; LEAF_BYTES];
        page[8..12].copy_from_slice(&77u32.to_le_bytes());
        page[12..14].copy_from_slice(&0x00ffu16.to_le_bytes());
        page[14..16].copy_from_slice(&1u16.to_le_bytes());
        page[LEAF_BASES_OFFSET + 4..LEAF_BASES_OFFSET + 8].copy_from_slice(&99u32.to_le_bytes());
        page[LEAF_MASKS_OFFSET + 2..LEAF_MASKS_OFFSET + 4]
            .copy_from_slice(&0xff00u16.to_le_bytes());
        let leaf = Leaf::decode(&page, 5).expect("two valid lengths");
        let view = leaf.view(1);
        assert_eq!(
            (
                view.entry.extent(),
                view.entry.present(),
                view.base.extent(),
                view.base.mask()
            ),
            (77, 0xff, 99, 0xff00)
        );
        assert!(view.entry.has(Entry::OWN));
        assert!(leaf.view(0).entry.is_hole());
        leaf.adopt(6);
        assert!(!leaf.view(1).entry.has(Entry::OWN));
        assert!(Leaf::decode(&page[1..], 5).is_none());
    }

    #[test]
    fn leaves_that_the_engine_lacks_are_holes_until_one_of_them_is_resident_and_has_an_entry() {
        const SIZE: u64 = 3000 * LEAF_RANGE_BYTES - 5;
        let map = Map::new(SIZE);
        assert_eq!(map.hole_at(0, SIZE), 0);
        // Over the borders of words and branches, and beyond the end.
        map.note_absent(60, 4000);
        assert_eq!(
            map.hole_at(59 * LEAF_RANGE_BYTES, SIZE - 59 * LEAF_RANGE_BYTES),
            0
        );
        let start = 60 * LEAF_RANGE_BYTES + 7;
        assert_eq!(map.hole_at(start, SIZE - start), SIZE - start);
        assert_eq!(map.hole_at(start, 9), 9);

        // Said again of a part: nothing changes.
        map.note_absent(70, 2000);
        assert_eq!(map.hole_at(start, SIZE - start), SIZE - start);

        let leaf = || Leaf::decode(&[0; LEAF_BASES_OFFSET], 1).expect("a valid length");
        map.install(2000, leaf());
        assert_eq!(
            map.hole_at(start, SIZE - start),
            SIZE - start,
            "nothing is in it"
        );
        map.leaf(2000).expect("it was installed").store(
            3,
            Entry::new(9, 1, Entry::OWN),
            Base::NONE,
        );
        let until = 2000 * LEAF_RANGE_BYTES - start;
        assert_eq!(map.hole_at(start, SIZE - start), until);
        assert_eq!(map.hole_at(2000 * LEAF_RANGE_BYTES, 1), 0);
        let behind = 2001 * LEAF_RANGE_BYTES;
        assert_eq!(map.hole_at(behind, SIZE - behind), SIZE - behind);
        let grown = map.grown(2 * SIZE);
        assert_eq!(grown.hole_at(start, 2 * SIZE - start), until);
        assert_eq!(grown.hole_at(3072 * LEAF_RANGE_BYTES, 1), 0);
    }

    /// One TRIM of 64 TiB once took 8 GiB of memory for entries that are all holes.
    #[test]
    fn a_leaf_of_holes_takes_memory_for_its_entries_only_when_one_is_stored() {
        for page in [vec![0u8; LEAF_BASES_OFFSET], vec![0u8; LEAF_BYTES]] {
            let leaf = Leaf::decode(&page, 5).expect("a valid length");
            leaf.adopt(6);
            assert!((0..LEAF_ENTRIES).all(|position| leaf.entry(position).is_hole()));
            assert_eq!(leaf.view(7).visible(), 0);
            assert!(leaf.entries.get().is_none());
            leaf.store(7, Entry::new(9, 1, Entry::OWN), Base::NONE);
            assert_eq!(leaf.entry(7), Entry::new(9, 1, Entry::OWN));
            assert!(leaf.entry(6).is_hole() && leaf.entry(8).is_hole());
            leaf.adopt(7);
            assert!(!leaf.entry(7).has(Entry::OWN));
        }
        assert!(std::mem::size_of::<Leaf>() <= 64);
    }
}
