//! Filling a volume that is in use already: what comes goes only where nothing is yet, because what a client wrote meanwhile is newer.
//! What clients unmap meanwhile becomes zeros that are written: a hole would be filled again (see fill.rs).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Piece, Stop, Volume, pieces};
use crate::backing::{Backing, Completion, IoError, Patience, Run, SnapshotId, ZeroOptions};
use crate::fill::{Again, Expected};
use crate::link::Event;
use crate::map::{
    ALL_BLOCKS, BLOCK_BYTES, EXTENT_BYTES, LEAF_ENTRIES, Leaf, blocks_covered, blocks_touched,
};

static ZEROS: [u8; EXTENT_BYTES as usize] = [0; EXTENT_BYTES as usize];

impl Volume {
    /// Before it is published.
    pub fn begin_fill(&self, runs: &[(u32, u32)]) {
        self.fill.begin(Expected::of(runs));
    }

    pub fn narrow_fill(&self, runs: &[(u32, u32)]) {
        for (first, count) in runs {
            self.fill.narrow(*first, *count);
        }
    }

    /// Who waits for this entry is told that it does not come.
    pub fn fail_fill(&self, index: u32) {
        self.fill.wake(u64::from(index), Err(IoError::Failed));
    }

    pub fn end_fill(&self) {
        self.fill.end();
    }

    fn is_missing(&self, index: u64) -> bool {
        // Before the entry: the fill may end in between.
        if !self.fill.is_expected(index) {
            return false;
        }
        let inside = self
            .size()
            .saturating_sub(index * EXTENT_BYTES)
            .min(EXTENT_BYTES);
        let map = self.map.load();
        map.leaf((index / LEAF_ENTRIES as u64) as u32)
            .is_none_or(|leaf| {
                let visible = leaf.view(index as usize % LEAF_ENTRIES).visible();
                blocks_touched(0, inside) & !visible != 0
            })
    }

    pub(super) fn park(&self, index: u64, again: Again) {
        if self.fill.park(index, again, || self.is_missing(index)) {
            self.shared.link.push(Event::BytesWanted {
                handle: self.handle,
                index: index as u32,
            });
        }
    }

    /// Whether a block that is covered in part is still to come: its other part has to be known first.
    pub(super) fn needs_fill(&self, piece: Piece, visible: u16) -> bool {
        let partial =
            blocks_touched(piece.start, piece.end) & !blocks_covered(piece.start, piece.end);
        partial & !visible != 0
    }

    pub(super) fn expects_any(&self, offset: u64, length: u64) -> bool {
        let expected = self.fill.expected.load();
        (expected.as_ref())
            .is_some_and(|expected| pieces(offset, length).any(|piece| expected.has(piece.index)))
    }

    /// In place of an unmap.
    pub(super) fn write_zeros(
        &self,
        leaf: &Leaf,
        generation: u32,
        piece: Piece,
        edges: bool,
        patience: Patience,
    ) -> Result<(), Stop> {
        if patience == Patience::Inline {
            return Err(IoError::WouldBlock.into());
        }
        let piece = if edges {
            piece
        } else {
            Piece {
                start: piece.start.next_multiple_of(BLOCK_BYTES),
                end: piece.end / BLOCK_BYTES * BLOCK_BYTES,
                ..piece
            }
        };
        if piece.start >= piece.end {
            return Ok(());
        }
        let zeros = ZEROS
            .get(..(piece.end - piece.start) as usize)
            .unwrap_or_default();
        self.write_first(leaf, generation, piece, zeros, patience)
    }

    /// Whole blocks, into those that are absent and expected.
    fn try_arrive(
        &self,
        offset: u64,
        source: &[u8],
        patience: Patience,
        done: &mut usize,
    ) -> Result<(), Stop> {
        let map = self.map.load();
        let generation = self.generation.load(Ordering::Acquire);
        for piece in pieces(offset + *done as u64, (source.len() - *done) as u64) {
            let leaf_index = (piece.index / LEAF_ENTRIES as u64) as u32;
            let leaf = map.leaf(leaf_index).ok_or(Stop::NeedLeaf(leaf_index))?;
            let to = *done + (piece.end - piece.start) as usize;
            let bytes = source.get(*done..to).unwrap_or_default();
            self.arrive_piece(leaf, generation, piece, bytes, patience)?;
            *done = to;
            self.fill.wake(piece.index, Ok(()));
        }
        Ok(())
    }

    fn arrive_piece(
        &self,
        leaf: &Leaf,
        generation: u32,
        piece: Piece,
        source: &[u8],
        patience: Patience,
    ) -> Result<(), Stop> {
        let _stripe = self.stripe(piece.index);
        if !self.fill.is_expected(piece.index) {
            return Ok(());
        }
        leaf.adopt(generation);
        let covered = blocks_covered(piece.start, piece.end);
        loop {
            let view = leaf.view(piece.index as usize % LEAF_ENTRIES);
            let missing = covered & !view.visible();
            if missing == 0 {
                return Ok(());
            }
            let first = u64::from(missing.trailing_zeros());
            let width = u64::from((missing >> first).trailing_ones());
            let part = Piece {
                start: first * BLOCK_BYTES,
                end: (first + width) * BLOCK_BYTES,
                ..piece
            };
            let from = (part.start - piece.start) as usize;
            let bytes = source.get(from..from + (part.end - part.start) as usize);
            self.write_changing(leaf, view, part, bytes.unwrap_or_default(), patience)?;
        }
    }
}

/// The same volume for who fills it: a write goes only where nothing is yet. Without limits of speed, and counted apart from clients.
pub struct FillDoor(pub Arc<Volume>);

impl Backing for FillDoor {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn enter(&self, patience: Patience) -> bool {
        self.0.enter(patience)
    }

    fn leave(&self) {
        self.0.leave();
    }

    fn read(&self, offset: u64, target: &mut [u8], patience: Patience) -> Result<(), IoError> {
        self.0.read(offset, target, patience)
    }

    fn write(&self, offset: u64, source: &[u8], patience: Patience) -> Result<(), IoError> {
        let is_whole = |bytes: u64| bytes.is_multiple_of(BLOCK_BYTES);
        if !is_whole(offset) || !is_whole(source.len() as u64) {
            return Err(IoError::Failed);
        }
        let mut done = 0;
        self.0.until_done(patience, || {
            self.0.try_arrive(offset, source, patience, &mut done)
        })
    }

    /// Nothing of what a client wrote is ever taken away through here.
    fn trim(&self, _: u64, _: u64, _: Patience) -> Result<(), IoError> {
        Err(IoError::Failed)
    }

    fn zero(&self, _: u64, _: u64, _: ZeroOptions, _: Patience) -> Result<(), IoError> {
        Err(IoError::Failed)
    }

    fn runs(
        &self,
        offset: u64,
        length: u64,
        patience: Patience,
        each: &mut dyn FnMut(Run) -> bool,
    ) -> Result<(), IoError> {
        self.0.runs(offset, length, patience, each)
    }

    fn cache(&self, offset: u64, length: u64, patience: Patience) -> Result<(), IoError> {
        self.0.cache(offset, length, patience)
    }

    fn flush(&self, done: Completion) {
        self.0.flush(done);
    }

    fn snapshots(&self, _: Instant) -> Vec<SnapshotId> {
        Vec::new()
    }

    fn changed_since(&self, _: SnapshotId, _: Instant) -> Option<Vec<Range<u64>>> {
        None
    }

    fn when_there(&self, entry: u64, again: Again) {
        self.0.when_there(entry, again);
    }

    fn nudge(&self) {
        self.0.nudge();
    }
}

/// All blocks of an entry that is expected, as clients are told: there is data.
pub(super) fn shown(visible: u16, is_expected: bool) -> u16 {
    if is_expected { ALL_BLOCKS } else { visible }
}
