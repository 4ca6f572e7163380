//! TRIM and WRITE_ZEROES: bits of entries are cleared, also of shared ones, since the masks are the entry's; zeros are written only
//! into blocks that are covered in part.

use super::{Piece, Stop, Volume, pieces};
use crate::backing::{Backing, Patience};
use crate::map::{
    BLOCK_BYTES, BLOCKS_PER_EXTENT, Base, EXTENT_BYTES, Entry, LEAF_ENTRIES, LEAF_RANGE_BYTES,
    Leaf, blocks_covered, blocks_touched,
};
use std::sync::atomic::Ordering;

/// Where a piece ends that may reach the end of the volume: the rest of the last block belongs to what is before it. Not the blocks
/// behind: the volume may grow meanwhile, and somebody write there.
fn end_of(piece: Piece, size: u64) -> u64 {
    if piece.index * EXTENT_BYTES + piece.end >= size {
        piece.end.next_multiple_of(BLOCK_BYTES)
    } else {
        piece.end
    }
}

impl Volume {
    /// Makes blocks of a range holes. With `edges`, bytes in partial blocks become zeros too.
    pub(super) fn try_unmap(
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
        let expected = self.fill.expected.load();
        while *done < length {
            let at = offset + *done;
            let hole = match &*expected {
                Some(_) => 0,
                None => map.hole_at(at, length - *done),
            };
            if hole > 0 {
                *done += hole;
                continue;
            }
            let leaf_index = (at / LEAF_RANGE_BYTES) as u32;
            let leaf = map.leaf(leaf_index).ok_or(Stop::NeedLeaf(leaf_index))?;
            let here = (LEAF_RANGE_BYTES - at % LEAF_RANGE_BYTES).min(length - *done);
            for piece in pieces(at, here) {
                let end = end_of(piece, size);
                let whole = Piece { end, ..piece };
                if (expected.as_ref()).is_some_and(|expected| expected.has(piece.index)) {
                    self.write_zeros(leaf, generation, whole, edges, patience)?;
                } else {
                    self.unmap_piece(leaf, generation, whole, edges, patience)?;
                }
                *done += piece.end - piece.start;
            }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TRIM of the last block once took everything up to the end of the extent. With the size from before a growth, that was what
    /// another connection had written behind the old end and been told was there.
    #[test]
    fn an_unmap_at_the_end_takes_the_rest_of_its_block_and_no_further_block() {
        let piece = |start, end| Piece {
            index: 3,
            start,
            end,
        };
        let size = 3 * EXTENT_BYTES + 2 * BLOCK_BYTES;
        assert_eq!(end_of(piece(0, 2 * BLOCK_BYTES), size), 2 * BLOCK_BYTES);
        assert_eq!(end_of(piece(0, 5000), size - 3192), 2 * BLOCK_BYTES);
        assert_eq!(end_of(piece(0, 5000), size), 5000);
        assert_eq!(end_of(piece(0, EXTENT_BYTES), size), EXTENT_BYTES);
    }
}
