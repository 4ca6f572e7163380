//! Syncs of data beside each other: a flush that finds no changed entry needs no capture, only that what was written is on
//! disk, and several such flushes of one volume overlap, as those of several clients do. How that stays true to law 5:
//!
//! - Each claims what it syncs at one moment, in a queue: the files touched since the last claim and those that others in the queue
//!   are still syncing. Waiters are answered in the order of the queue, and with success only while the volume has not failed.
//! - Each uses descriptors of its own, opened at the latest when it claims. The kernel reports a write error once per descriptor. So an
//!   error that concerns a sync is told to itself, or to one before it in the queue, whose failure it then shares.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use crate::backing::{Completion, IoError};
use crate::file::SYNCS_MAX;
use crate::volume::Volume;

#[derive(Default)]
pub struct Syncs {
    is_taken: [bool; SYNCS_MAX],
    /// In the order of their claims.
    queue: VecDeque<Sync>,
}

struct Sync {
    slot: usize,
    files: Vec<u32>,
    /// Empty while it runs.
    done: Option<Vec<Completion>>,
}

impl Syncs {
    pub fn is_empty(&self) -> bool {
        self.is_taken == [false; SYNCS_MAX]
    }

    /// A place for one more, if there is any.
    pub fn take_slot(&mut self) -> Option<usize> {
        let slot = self.is_taken.iter().position(|is_taken| !is_taken)?;
        *self.is_taken.get_mut(slot)? = true;
        Some(slot)
    }

    fn claim(&mut self, slot: usize, touched: Vec<u32>) -> Vec<u32> {
        let mut files = touched;
        let running = self.queue.iter().filter(|sync| sync.done.is_none());
        files.extend(running.flat_map(|sync| &sync.files));
        files.sort_unstable();
        files.dedup();
        self.queue.push_back(Sync {
            slot,
            files: files.clone(),
            done: None,
        });
        files
    }

    /// Who can be answered now: its waiters, and those of syncs behind it that ended before.
    fn end(&mut self, slot: usize, waiters: Vec<Completion>) -> Vec<Completion> {
        let mut running = self.queue.iter_mut().filter(|sync| sync.done.is_none());
        if let Some(sync) = running.find(|sync| sync.slot == slot) {
            sync.done = Some(waiters);
        }
        if let Some(is_taken) = self.is_taken.get_mut(slot) {
            *is_taken = false;
        }
        let mut answered = Vec::new();
        while let Some(waiters) = self.queue.front_mut().and_then(|sync| sync.done.take()) {
            answered.extend(waiters);
            self.queue.pop_front();
        }
        answered
    }
}

impl Volume {
    /// On a sync thread, with a slot taken: what the waiters wrote before they came has no entry that is not committed.
    pub(crate) fn sync_data(&self, slot: usize, mut waiters: Vec<Completion>) {
        let files = {
            let mut state = self.sync.lock();
            let numbers = state.syncs.claim(slot, self.touched.take());
            let mut files = Vec::with_capacity(numbers.len());
            for number in &numbers {
                files.extend(self.shared.files.get(*number));
            }
            if !files.iter().all(|file| file.is_open_for_sync(slot)) {
                // No descriptor to be had. A capture needs none.
                numbers
                    .iter()
                    .for_each(|number| self.touched.add_file(*number));
                state.capture_for(std::mem::take(&mut waiters));
                files.clear();
            }
            files
        };
        for file in files {
            if self.failed.load(Ordering::SeqCst) != 0 {
                break;
            }
            if let Err(error) = file.sync_in(slot) {
                self.fail(file.number(), error.raw_os_error());
            }
        }
        // Under the lock, so that no sync behind this one can be answered between its failure and its end.
        let answered = self.sync.lock().syncs.end(slot, waiters);
        let result = match self.failed.load(Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(IoError::Failed),
        };
        for waiter in answered {
            waiter(result);
        }
        self.advance();
    }
}

#[cfg(test)]
mod tests;
