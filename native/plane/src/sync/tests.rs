//! The queue of syncs by itself, and with a volume whose disk fails when the test says so.

use super::*;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::backing::{Backing, Patience};
use crate::file::SLOTS_PER_FILE;
use crate::link::{Event, Link};
use crate::map::{EXTENT_BYTES, LEAF_BASES_OFFSET};
use crate::volume::Shared;

fn waiter(count: &Arc<AtomicUsize>) -> Vec<Completion> {
    let count = Arc::clone(count);
    vec![Box::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    })]
}

#[test]
fn syncs_are_answered_in_the_order_of_their_claims_and_share_what_is_not_synced_yet() {
    let count = Arc::default();
    let mut syncs = Syncs::default();
    let (first, second) = (syncs.take_slot().unwrap(), syncs.take_slot().unwrap());
    assert_eq!(syncs.claim(second, vec![7, 3]), [3, 7]);
    assert_eq!(syncs.claim(first, vec![9]), [3, 7, 9]);
    assert!(syncs.end(first, waiter(&count)).is_empty());
    // The slot is free for the next while the answer waits.
    let third = syncs.take_slot().unwrap();
    assert_eq!(third, first);
    assert_eq!(syncs.claim(third, vec![]), [3, 7]);
    assert_eq!(syncs.end(second, waiter(&count)).len(), 2);
    assert!(!syncs.is_empty());
    assert_eq!(syncs.end(third, waiter(&count)).len(), 1);
    assert!(syncs.is_empty());
}

#[test]
fn there_are_as_many_slots_as_descriptors() {
    let mut syncs = Syncs::default();
    for _ in 0..SYNCS_MAX {
        assert!(syncs.take_slot().is_some());
    }
    assert_eq!(syncs.take_slot(), None);
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A volume with one extent written and committed, on a file whose syncs wait until the test gives each its result.
struct Disk {
    volume: Arc<Volume>,
    shared: Arc<Shared>,
    /// The slot of each sync that begins.
    begun: Receiver<usize>,
    results: Vec<Sender<Result<(), Errno>>>,
    _folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Disk {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.dat");
        let bytes = u64::from(SLOTS_PER_FILE) * EXTENT_BYTES;
        std::fs::File::create(&path)
            .unwrap()
            .set_len(bytes)
            .unwrap();
        let shared = Arc::new(Shared::new(Link::new(Box::new(|| {}))));
        assert!(shared.files.register(1, path));
        let volume = Volume::new(Arc::clone(&shared), 1, 1 << 20, false);
        assert!(volume.load_leaf(0, &[0; LEAF_BASES_OFFSET]));
        volume.grants.add(SLOTS_PER_FILE, 1);
        write(&volume);
        let flushed = flush(&volume);
        while flushed.try_recv().is_err() {
            for event in shared.link.drain() {
                if let Event::Captured { token, .. } = event {
                    shared.commits.committed(token, 0);
                }
            }
            std::thread::yield_now();
        }
        // From now on: a sync says that it begins, and ends as the test says.
        let (begins, begun) = channel();
        let (results, waiting): (Vec<_>, Vec<_>) = (0..SYNCS_MAX).map(|_| channel()).unzip();
        let (begins, waiting) = (Mutex::new(begins), waiting.into_iter().map(Mutex::new));
        let waiting: Vec<Mutex<Receiver<Result<(), Errno>>>> = waiting.collect();
        let file = shared.files.get(1).unwrap();
        let hook = Box::new(move |slot: usize| {
            let _ = begins.lock().send(slot);
            // A test that failed gives no result; a panic here would end all others with it.
            waiting[slot]
                .lock()
                .recv_timeout(PATIENCE)
                .unwrap_or(Ok(()))
        });
        assert!(file.before_sync.set(hook).is_ok());
        Disk {
            volume,
            shared,
            begun,
            results,
            _folder: folder,
        }
    }

    /// A write, a flush of it that begins to sync, and the slot it does that in.
    fn begin_flush(&self) -> (Receiver<Result<(), IoError>>, usize) {
        write(&self.volume);
        let flushed = flush(&self.volume);
        (flushed, self.begun.recv_timeout(PATIENCE).unwrap())
    }

    fn end(&self, slot: usize, result: Result<(), Errno>) {
        self.results[slot].send(result).unwrap();
    }

    fn is_told_of_failures(&self) -> bool {
        let events = self.shared.link.drain();
        let is_failure = |event: &Event| {
            matches!(
                event,
                Event::Failed {
                    file: 1,
                    errno: 5,
                    ..
                }
            )
        };
        events.iter().any(is_failure)
    }
}

fn write(volume: &Volume) {
    let data = [7; 4096];
    assert!(volume.enter(Patience::Inline));
    assert_eq!(volume.write(0, &data, Patience::Inline), Ok(()));
    volume.leave();
}

fn flush(volume: &Volume) -> Receiver<Result<(), IoError>> {
    let (done, flushed) = channel();
    volume.flush(Box::new(move |result| {
        // A test that is not interested in the answer has let go of it.
        let _ = done.send(result);
    }));
    flushed
}

fn answer(flushed: &Receiver<Result<(), IoError>>) -> Result<(), IoError> {
    flushed.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn a_flush_whose_sync_fails_fails_and_so_does_everything_after_it() {
    let disk = Disk::new();
    let (flushed, slot) = disk.begin_flush();
    disk.end(slot, Err(Errno::IO));
    assert_eq!(answer(&flushed), Err(IoError::Failed));
    assert!(disk.is_told_of_failures());
    // The kernel has forgotten the error, and would say that all is well.
    assert_eq!(answer(&flush(&disk.volume)), Err(IoError::Failed));
    let volume = &disk.volume;
    assert_eq!(
        volume.write(0, &[1; 4096], Patience::Inline),
        Err(IoError::Failed)
    );
    assert_eq!(
        volume.read(0, &mut [0; 4096], Patience::Inline),
        Err(IoError::Failed)
    );
    assert!(disk.begun.try_recv().is_err(), "nothing is synced any more");
}

#[test]
fn a_sync_that_ends_well_waits_for_those_before_it_and_shares_their_failure() {
    let disk = Disk::new();
    let (first, slot) = disk.begin_flush();
    let (second, other) = disk.begin_flush();
    disk.end(other, Ok(()));
    while disk.volume.sync.lock().syncs.is_taken[other] {
        std::thread::yield_now();
    }
    // Its slot is free for the next, and it still has no answer.
    assert!(second.try_recv().is_err());
    let (third, again) = disk.begin_flush();
    assert_eq!(again, other);
    disk.end(slot, Err(Errno::IO));
    disk.end(again, Ok(()));
    for flushed in [first, second, third] {
        assert_eq!(answer(&flushed), Err(IoError::Failed));
    }
}

#[test]
fn a_flush_that_was_answered_before_a_later_one_fails_was_answered_with_success() {
    let disk = Disk::new();
    let (first, slot) = disk.begin_flush();
    let (second, other) = disk.begin_flush();
    disk.end(slot, Ok(()));
    assert_eq!(answer(&first), Ok(()));
    disk.end(other, Err(Errno::IO));
    assert_eq!(answer(&second), Err(IoError::Failed));
}

#[test]
fn a_capture_whose_sync_fails_tells_the_engine_no_change() {
    let disk = Disk::new();
    disk.volume.grants.add(SLOTS_PER_FILE + 1, 1);
    assert!(disk.volume.enter(Patience::Inline));
    let second = disk
        .volume
        .write(EXTENT_BYTES, &[1; 4096], Patience::Inline);
    assert_eq!(second, Ok(()));
    disk.volume.leave();
    let flushed = flush(&disk.volume);
    disk.end(disk.begun.recv_timeout(PATIENCE).unwrap(), Err(Errno::IO));
    assert_eq!(answer(&flushed), Err(IoError::Failed));
    let events = disk.shared.link.drain();
    let is_change = |event: &Event| matches!(event, Event::Captured { .. });
    assert!(!events.iter().any(is_change), "law 1: bytes before pointer");
}

#[test]
fn more_flushes_than_slots_are_all_answered() {
    let disk = Disk::new();
    let mut all: Vec<_> = (0..SYNCS_MAX).map(|_| disk.begin_flush()).collect();
    let (_, slot) = all[0];
    let late: Vec<_> = (0..3).map(|_| flush(&disk.volume)).collect();
    disk.end(slot, Ok(()));
    // They share the place that has become free.
    let again = disk.begun.recv_timeout(PATIENCE).unwrap();
    assert_eq!(again, slot);
    for (_, slot) in all.drain(1..) {
        disk.end(slot, Ok(()));
    }
    disk.end(again, Ok(()));
    for flushed in late {
        assert_eq!(answer(&flushed), Ok(()));
    }
}
