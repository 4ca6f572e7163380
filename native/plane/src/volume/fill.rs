//! Filling: blocks that an own entry lacks are copied from its base into its extent, and the base is let go. The engine says which
//! entries (those that alone keep their base alive) and at what rate; this does it in the background, under the entry's stripe lock
//! like a write of these blocks, and no client notices. Bytes first, then the entry, then the next capture.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Stop, Volume};
use crate::backing::{Entered, Patience};
use crate::map::{Base, Entry, LEAF_ENTRIES};

impl Volume {
    /// False while the entries of an earlier call are being filled: ask again later.
    pub fn fill(&self, indices: Vec<u32>) -> bool {
        let Some(volume) = self.me.upgrade() else {
            return true;
        };
        if self.read_only || self.is_filling.swap(true, Ordering::AcqRel) {
            return self.read_only;
        }
        self.shared.fill_workers.submit(
            u64::from(self.handle),
            Box::new(move || {
                for index in indices {
                    volume.fill_one(index);
                }
                volume.is_filling.store(false, Ordering::Release);
            }),
        );
        true
    }

    fn fill_one(self: &Arc<Self>, index: u32) {
        // Each in a batch of its own: a freeze waits for one entry at most.
        let Some(_entered) = Entered::new(&**self, Patience::Wait) else {
            return;
        };
        // Once it is closed its extents may become somebody else's, as soon as nobody is inside who came before.
        if self.is_closing.load(Ordering::SeqCst) || self.failed.load(Ordering::SeqCst) != 0 {
            return;
        }
        match self.try_fill(index) {
            Ok(bytes) => {
                if bytes > 0 {
                    self.shared.filled_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
            }
            // It comes, and the engine asks again.
            Err(Stop::NeedLeaf(leaf)) => self.ask_leaf(&mut self.faults.lock(), leaf),
            // A disk that cannot be read keeps the base where it is: whoever reads the block will be told.
            Err(Stop::NeedExtent | Stop::NeedBytes(_) | Stop::Error(_)) => {}
        }
    }

    /// Bytes that were copied; 0 where there is nothing to do any more.
    fn try_fill(&self, index: u32) -> Result<u64, Stop> {
        let map = self.map.load();
        let leaf_index = index / LEAF_ENTRIES as u32;
        let leaf = map.leaf(leaf_index).ok_or(Stop::NeedLeaf(leaf_index))?;
        let position = index as usize % LEAF_ENTRIES;
        let _stripe = self.stripe(u64::from(index));
        leaf.adopt(self.generation.load(Ordering::Acquire));
        let view = leaf.view(position);
        if !view.entry.has(Entry::OWN) || view.entry.is_hole() || view.base.mask() == 0 {
            return Ok(0);
        }
        let (extent, present) = (view.entry.extent(), view.entry.present());
        let absent = view.base.mask() & !present;
        self.copy_blocks(view.base.extent(), extent, absent, Patience::Wait)?;
        self.note_dirty(view.entry, u64::from(index));
        let flags = Entry::OWN | Entry::DIRTY | (view.entry.0 & Entry::FRESH);
        leaf.store(
            position,
            Entry::new(extent, present | absent, flags),
            Base::NONE,
        );
        Ok(u64::from(absent.count_ones()) * crate::map::BLOCK_BYTES)
    }
}
