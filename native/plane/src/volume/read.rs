//! Reading: where each byte comes from (an extent, its base, or nowhere), neighbours fetched together, and which runs hold data.

use super::arrive::shown;
use super::{Pending, Stop, Volume, pieces};
use crate::backing::{IoError, Patience, Run};
use crate::file::offset_of;
use crate::map::{
    BLOCK_BYTES, BLOCKS_PER_EXTENT, EXTENT_BYTES, LEAF_ENTRIES, LEAF_RANGE_BYTES, View,
};

impl Volume {
    pub(super) fn try_read(
        &self,
        offset: u64,
        target: &mut [u8],
        patience: Patience,
    ) -> Result<(), Stop> {
        // Before any entry: the fill may end in between.
        let expected = self.fill.expected.load();
        let is_expected = |index| (expected.as_ref()).is_some_and(|expected| expected.has(index));
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
                    (0, _) if is_expected(piece.index) => {
                        return Err(Stop::NeedBytes(piece.index));
                    }
                    (0, _) => target.get_mut(at..to).unwrap_or_default().fill(0),
                    (extent, _) if self.shared.damaged.has(extent) => {
                        return Err(IoError::Failed.into());
                    }
                    (extent, Some(run)) if run.goes_on(extent, offset_of(extent) + start, at) => {
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

    /// False if the range is not one piece of one extent.
    pub(super) fn try_read_data(
        &self,
        offset: u64,
        target: &mut [u8],
        patience: Patience,
    ) -> Result<bool, Stop> {
        let start = offset % EXTENT_BYTES;
        let end = start + target.len() as u64;
        if end > EXTENT_BYTES {
            return Ok(false);
        }
        let index = offset / EXTENT_BYTES;
        let leaf_index = (index / LEAF_ENTRIES as u64) as u32;
        let map = self.map.load();
        let leaf = map.leaf(leaf_index).ok_or(Stop::NeedLeaf(leaf_index))?;
        match source_at(leaf.view(index as usize % LEAF_ENTRIES), start, end) {
            (0, _) => Ok(false),
            (extent, reached) if reached == end => {
                self.read_extent(extent, start, target, patience)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn fetch(&self, run: &Pending, target: &mut [u8], patience: Patience) -> Result<(), IoError> {
        let target = target.get_mut(run.from..run.to).unwrap_or_default();
        self.shared.files.with(run.extent, |file| {
            file.read(run.offset, target, patience, &self.shared.files)
        })
    }

    pub(super) fn try_runs(
        &self,
        offset: u64,
        length: u64,
        each: &mut dyn FnMut(Run) -> bool,
        done: &mut u64,
        current: &mut Run,
    ) -> Result<(), Stop> {
        let expected = self.fill.expected.load();
        let map = self.map.load();
        let mut add = |is_hole, length, done: &mut u64, current: &mut Run| {
            let goes_on = if is_hole != current.is_hole && current.length > 0 {
                each(std::mem::replace(current, Run { length: 0, is_hole }))
            } else {
                true
            };
            current.is_hole = is_hole;
            current.length += length;
            *done += length;
            goes_on
        };
        while *done < length {
            let at = offset + *done;
            // A leaf without entries may have some that are still to come.
            let hole = match &*expected {
                Some(_) => 0,
                None => map.hole_at(at, length - *done),
            };
            if hole > 0 {
                if !add(true, hole, done, current) {
                    return Ok(());
                }
                continue;
            }
            let leaf_index = (at / LEAF_RANGE_BYTES) as u32;
            let leaf = map.leaf(leaf_index).ok_or(Stop::NeedLeaf(leaf_index))?;
            let here = (LEAF_RANGE_BYTES - at % LEAF_RANGE_BYTES).min(length - *done);
            for piece in pieces(at, here) {
                let is_expected =
                    (expected.as_ref()).is_some_and(|expected| expected.has(piece.index));
                let visible = leaf.view(piece.index as usize % LEAF_ENTRIES).visible();
                let visible = shown(visible, is_expected);
                let mut start = piece.start;
                while start < piece.end {
                    let (is_hole, end) = run_of_blocks(!visible, start, piece.end);
                    if !add(is_hole, end - start, done, current) {
                        return Ok(());
                    }
                    start = end;
                }
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

/// Where the bytes from `start` on come from (0: zeros), and how far (at most `end`) they all come from there.
pub(super) fn source_at(view: View, start: u64, end: u64) -> (u32, u64) {
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
