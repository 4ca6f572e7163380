//! What a volume that is still being filled expects: entries whose absent blocks are not zeros but bytes that are to come, and the
//! requests that wait for them, without a thread. Knows no extent and does no I/O; `volume/fill.rs` does.
//!
//! Invariant (docs/architecture.md, "A volume that is being filled"): a block of an expected entry, once present, stays present until the
//! fill has ended. So absent means not yet there, whatever happened in between, and no second map has to be kept or made durable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::backing::IoError;
use crate::map::LEAF_ENTRIES;

/// Called once, on any thread: the request may be tried again, or why not. Must not block.
pub type Again = Box<dyn FnOnce(Result<(), IoError>) + Send>;

const WORDS: usize = LEAF_ENTRIES / 64;

/// A bit per entry, kept for the leaves that have some.
#[derive(Default)]
pub struct Expected(HashMap<u64, [AtomicU64; WORDS]>);

/// The word of an entry, among those of its leaf, and its bit in there.
fn place(index: u64) -> (u64, usize, u64) {
    let position = index % LEAF_ENTRIES as u64;
    let word = (position / 64) as usize;
    (index / LEAF_ENTRIES as u64, word, 1 << (position % 64))
}

impl Expected {
    /// From runs of entries: first and count.
    pub fn of(runs: &[(u32, u32)]) -> Expected {
        let mut expected = Expected::default();
        for (first, count) in runs {
            let mut at = u64::from(*first);
            let past = at + u64::from(*count);
            // A word at a time: a volume has a billion entries at most, and the engine waits.
            while at < past {
                let (leaf, word, bit) = place(at);
                let width = (64 - at % 64).min(past - at);
                let words = expected.0.entry(leaf).or_default();
                if let Some(word) = words.get_mut(word) {
                    *word.get_mut() |= (u64::MAX >> (64 - width)) * bit;
                }
                at += width;
            }
        }
        expected
    }

    pub fn has(&self, index: u64) -> bool {
        let (leaf, word, bit) = place(index);
        (self.0.get(&leaf).and_then(|words| words.get(word)))
            .is_some_and(|word| word.load(Ordering::Acquire) & bit != 0)
    }

    fn forget(&self, index: u64) {
        let (leaf, word, bit) = place(index);
        if let Some(word) = self.0.get(&leaf).and_then(|words| words.get(word)) {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }
}

#[derive(Default)]
pub struct Fill {
    /// Loaded before a map entry is looked at: the fill may end in between.
    pub expected: ArcSwapOption<Expected>,
    parked: Mutex<HashMap<u64, Vec<Again>>>,
}

impl Fill {
    pub fn begin(&self, expected: Expected) {
        self.expected.store(Some(expected.into()));
    }

    pub fn is_expected(&self, index: u64) -> bool {
        self.expected
            .load()
            .as_ref()
            .is_some_and(|expected| expected.has(index))
    }

    /// Nothing comes for these entries: what is absent there is zeros.
    pub fn narrow(&self, first: u32, count: u32) {
        let entries = u64::from(first)..u64::from(first) + u64::from(count);
        if let Some(expected) = &*self.expected.load() {
            for index in entries.clone() {
                expected.forget(index);
            }
        }
        self.answer(|index| entries.contains(&index), Ok(()));
    }

    /// Everything is there.
    pub fn end(&self) {
        self.expected.store(None);
        self.nudge();
    }

    /// Keeps a request until the entry is filled. False, and the request is on its way, if it need not wait; else whether it is the first.
    pub fn park(&self, index: u64, again: Again, is_missing: impl FnOnce() -> bool) -> bool {
        let mut parked = self.parked.lock();
        // Under the lock: who fills the entry wakes after it, and would find nobody.
        if !is_missing() {
            drop(parked);
            again(Ok(()));
            return false;
        }
        let waiting = parked.entry(index).or_default();
        waiting.push(again);
        waiting.len() == 1
    }

    pub fn wake(&self, index: u64, result: Result<(), IoError>) {
        let waiting = self.parked.lock().remove(&index);
        for again in waiting.into_iter().flatten() {
            again(result);
        }
    }

    /// All look again: whose connection is over finds out.
    pub fn nudge(&self) {
        self.answer(|_| true, Ok(()));
    }

    fn answer(&self, is_meant: impl Fn(u64) -> bool, result: Result<(), IoError>) {
        let mut parked = self.parked.lock();
        let meant: Vec<u64> = parked.keys().copied().filter(|i| is_meant(*i)).collect();
        let waiting: Vec<Again> = (meant.iter())
            .filter_map(|index| parked.remove(index))
            .flatten()
            .collect();
        drop(parked);
        for again in waiting {
            again(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn expected_entries_are_those_of_the_runs_until_they_are_narrowed() {
        let fill = Fill::default();
        assert!(!fill.is_expected(0));
        assert!(!Expected::of(&[(3, 0)]).has(3));
        let all = Expected::of(&[(1, 1), (60, 200), (511, 600)]);
        let found: Vec<u64> = (0..2000).filter(|i| all.has(*i)).collect();
        assert_eq!(
            found,
            [vec![1], (60..260).collect(), (511..1111).collect()].concat()
        );
        fill.begin(Expected::of(&[(510, 4), (70_000, 1)]));
        let found: Vec<u64> = (0..71_000).filter(|i| fill.is_expected(*i)).collect();
        assert_eq!(found, [510, 511, 512, 513, 70_000]);
        fill.narrow(511, 2);
        let found: Vec<u64> = (0..71_000).filter(|i| fill.is_expected(*i)).collect();
        assert_eq!(found, [510, 513, 70_000]);
        fill.end();
        assert!(!fill.is_expected(510));
    }

    #[test]
    fn a_parked_request_goes_on_when_its_entry_is_filled_fails_narrows_or_the_fill_ends() {
        let fill = Fill::default();
        fill.begin(Expected::of(&[(0, 8)]));
        let (sender, receiver) = channel();
        let park = |index: u64, name: &'static str| {
            let sender = sender.clone();
            let again: Again = Box::new(move |result| sender.send((name, result)).unwrap());
            fill.park(index, again, || true)
        };
        assert!(park(1, "first"));
        assert!(!park(1, "second"));
        assert!(park(2, "failed"));
        assert!(park(3, "narrowed"));
        assert!(park(4, "ended"));
        assert!(receiver.try_recv().is_err());
        fill.wake(1, Ok(()));
        fill.wake(2, Err(IoError::Failed));
        fill.narrow(3, 1);
        fill.end();
        let answers: Vec<_> = receiver.try_iter().collect();
        assert_eq!(
            answers,
            [
                ("first", Ok(())),
                ("second", Ok(())),
                ("failed", Err(IoError::Failed)),
                ("narrowed", Ok(())),
                ("ended", Ok(())),
            ]
        );
        let there: Again = Box::new(move |result| sender.send(("there", result)).unwrap());
        assert!(!fill.park(5, there, || false));
        assert_eq!(receiver.try_recv().unwrap(), ("there", Ok(())));
    }
}
