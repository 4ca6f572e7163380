//! Writing: in place without a lock where no entry changes; else by the table in docs/architecture.md ("Life of a write") under
//! the entry's stripe lock. Data first, then the entry.

use super::read::source_at;
use super::{Pending, Piece, Stop, Volume, pieces};
use crate::backing::{IoError, Patience};
use crate::file::offset_of;
use crate::map::{
    ALL_BLOCKS, BLOCK_BYTES, BLOCKS_PER_EXTENT, Base, Entry, LEAF_ENTRIES, Leaf, View,
    blocks_covered, blocks_touched,
};
use std::sync::atomic::Ordering;

impl Volume {
    pub(super) fn try_write(
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
                    if run.goes_on(extent, offset_of(extent) + piece.start, at) =>
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
        let result = self
            .shared
            .files
            .with(run.extent, |file| file.write(run.offset, bytes));
        // As in `write_extent`.
        self.touched.add(run.extent);
        result?;
        *done = run.to;
        Ok(())
    }

    /// A write that changes its entry: first touch of a block, or copy-on-write.
    pub(super) fn write_first(
        &self,
        leaf: &Leaf,
        generation: u32,
        piece: Piece,
        source: &[u8],
        patience: Patience,
    ) -> Result<(), Stop> {
        let is_expected = self.fill.is_expected(piece.index);
        let position = piece.index as usize % LEAF_ENTRIES;
        let _stripe = self.stripe(piece.index);
        leaf.adopt(generation);
        let view = leaf.view(position);
        if is_expected && self.needs_fill(piece, view.visible()) {
            return Err(Stop::NeedBytes(piece.index));
        }
        self.write_changing(leaf, view, piece, source, patience)
    }

    /// Caller holds the entry's stripe lock, under which it got the view of a leaf of this generation.
    pub(super) fn write_changing(
        &self,
        leaf: &Leaf,
        view: View,
        piece: Piece,
        source: &[u8],
        patience: Patience,
    ) -> Result<(), Stop> {
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
        let result = self
            .shared
            .files
            .with(target, |file| file.write_parts(at, &[head, source, tail]));
        self.touched.add(target);
        result
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

    pub(super) fn copy_blocks(
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
