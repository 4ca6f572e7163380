//! A small engine in memory, which answers faults, grants and captures of volumes, and what tests of the map share.
#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};

use plane::backing::{Backing, Patience};
use plane::capture::{Rounds, freeze_together};
use plane::file::SLOTS_PER_FILE;
use plane::link::{Change, Event, Link};
use plane::map::{LEAF_BASES_OFFSET, LEAF_BYTES, LEAF_ENTRIES, LEAF_MASKS_OFFSET};
use plane::volume::{FillDoor, Shared, Volume};

pub const EXTENT: u64 = 65536;

#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Row {
    pub extent: u32,
    pub present: u16,
    pub mask: u16,
    pub base: u32,
}

/// One committed map. `own`: extents written since the last freeze.
#[derive(Clone, Default)]
pub struct Table(pub HashMap<u32, Row>);

pub struct Engine {
    pub shared: Arc<Shared>,
    pub state: Mutex<State>,
    pub answered: Condvar,
    pub stop: AtomicBool,
    pub fail_commits: AtomicBool,
    pub tokens: AtomicU32,
    _folder: tempfile::TempDir,
}

#[derive(Default)]
pub struct State {
    pub tables: HashMap<u32, Table>,
    pub volumes: HashMap<u32, Arc<Volume>>,
    /// How many tables name an extent, as main or base.
    pub next_extent: u32,
    pub end_extent: u32,
    pub committed: HashMap<u32, bool>,
    pub frozen: HashMap<u32, Vec<u32>>,
    pub refuse: bool,
    pub faults: u32,
    /// What volumes that are being filled are filled from.
    pub sources: HashMap<u32, Source>,
}

impl Engine {
    pub fn new(extents: u32) -> (Arc<Engine>, std::thread::JoinHandle<()>) {
        let (wake, woken) = mpsc::channel::<()>();
        let wake = Mutex::new(wake);
        let link = Link::new(Box::new(move || {
            let _ = wake.lock().unwrap().send(());
        }));
        let folder = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared::new(link));
        let path = folder.path().join("1.dat");
        std::fs::File::create(&path)
            .unwrap()
            .set_len(u64::from(SLOTS_PER_FILE) * EXTENT)
            .unwrap();
        shared.files.register(1, path);
        let engine = Arc::new(Engine {
            shared,
            state: Mutex::new(State {
                next_extent: SLOTS_PER_FILE,
                end_extent: SLOTS_PER_FILE + extents,
                ..State::default()
            }),
            answered: Condvar::new(),
            stop: AtomicBool::new(false),
            fail_commits: AtomicBool::new(false),
            tokens: AtomicU32::new(1),
            _folder: folder,
        });
        let serving = Arc::clone(&engine);
        let serve = move || {
            while woken.recv().is_ok() && !serving.stop.load(Ordering::SeqCst) {
                for event in serving.shared.link.drain() {
                    serving.serve(event);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(serve)
            .unwrap();
        (engine, thread)
    }

    pub fn serve(&self, event: Event) {
        let mut state = self.state.lock().unwrap();
        match event {
            Event::Fault { handle, leaf } => {
                state.faults += 1;
                let volume = Arc::clone(&state.volumes[&handle]);
                let absent = state.absent(handle, leaf);
                let page = state.page(handle, leaf);
                drop(state);
                if absent > 0 {
                    volume.load_holes(leaf, absent);
                } else {
                    assert!(volume.load_leaf(leaf, &page));
                }
            }
            Event::WantGrant { handle, .. } => {
                let volume = Arc::clone(&state.volumes[&handle]);
                let count = 7.min(state.end_extent - state.next_extent);
                if state.refuse || count == 0 {
                    return volume.grants.refuse();
                }
                let first = state.next_extent;
                state.next_extent += count;
                volume.grants.add(first, count);
            }
            Event::Captured {
                handle,
                token,
                frozen,
                last,
                changes,
            } => {
                let table = state.tables.get_mut(&handle).unwrap();
                for Change {
                    index,
                    extent,
                    present,
                    base_mask,
                    base,
                } in changes
                {
                    table.0.insert(
                        index,
                        Row {
                            extent,
                            present,
                            mask: base_mask,
                            base,
                        },
                    );
                }
                if last {
                    if frozen {
                        let copy = table.clone();
                        let snapshots: Vec<u32> = state.frozen.remove(&token).unwrap();
                        for snapshot in snapshots {
                            state.tables.insert(snapshot, copy.clone());
                        }
                    }
                    state.committed.insert(token, true);
                    self.answered.notify_all();
                    drop(state);
                    let errno = if self.fail_commits.load(Ordering::SeqCst) {
                        5
                    } else {
                        0
                    };
                    self.shared.commits.committed(token, errno);
                }
            }
            Event::Released { .. } | Event::Done { .. } | Event::Summed { .. } => {}
            Event::BytesWanted { handle, index } => {
                let volume = Arc::clone(&state.volumes[&handle]);
                let source = state.sources[&handle].clone();
                drop(state);
                source.answer(&volume, index);
            }
            Event::Question { .. } => unreachable!("no client negotiates here"),
            Event::Failed { errno, .. } => panic!("sync failed with {errno}"),
        }
    }

    pub fn open(&self, handle: u32, size: u64) -> Arc<Volume> {
        let volume = Volume::new(Arc::clone(&self.shared), handle, size, false);
        let mut state = self.state.lock().unwrap();
        state.volumes.insert(handle, Arc::clone(&volume));
        state.tables.entry(handle).or_default();
        volume
    }

    pub fn put_source(&self, handle: u32, source: Source) {
        self.state.lock().unwrap().sources.insert(handle, source);
    }

    pub fn wait_for(&self, token: u32) {
        let mut state = self.state.lock().unwrap();
        while state.committed.remove(&token).is_none() {
            state = self.answered.wait(state).unwrap();
        }
    }

    pub fn freeze(&self, volume: &Arc<Volume>, snapshots: &[u32]) {
        let token = self.tokens.fetch_add(1, Ordering::SeqCst);
        self.state
            .lock()
            .unwrap()
            .frozen
            .insert(token, snapshots.to_vec());
        volume.request_freeze(token);
        self.wait_for(token);
    }

    /// A snapshot of each volume, all at one instant.
    pub fn freeze_together(&self, wanted: &[(&Arc<Volume>, u32)]) {
        let members: Vec<(Arc<Volume>, u32)> = wanted
            .iter()
            .map(|(volume, snapshot)| {
                let token = self.tokens.fetch_add(1, Ordering::SeqCst);
                self.state
                    .lock()
                    .unwrap()
                    .frozen
                    .insert(token, vec![*snapshot]);
                (Arc::clone(volume), token)
            })
            .collect();
        let tokens: Vec<u32> = members.iter().map(|(_, token)| *token).collect();
        freeze_together(&self.shared, members);
        for token in tokens {
            self.wait_for(token);
        }
    }

    pub fn flush(&self, volume: &Arc<Volume>) {
        let (sender, receiver) = mpsc::channel();
        volume.flush(Box::new(move |result| sender.send(result).unwrap()));
        assert_eq!(receiver.recv().unwrap(), Ok(()));
    }

    pub fn finish(&self, thread: std::thread::JoinHandle<()>) {
        self.stop.store(true, Ordering::SeqCst);
        self.shared.link.push(Event::Done { id: 0, errno: 0 });
        thread.join().expect("the engine's thread did not fail");
    }
}

impl State {
    /// A leaf with OWN where no other table names the extents of the entry.
    /// How many leaves from one on the map does not have.
    pub fn absent(&self, handle: u32, leaf: u32) -> u32 {
        let rows = self.tables[&handle].0.keys();
        let next = rows
            .map(|index| index / LEAF_ENTRIES as u32)
            .filter(|found| *found >= leaf)
            .min();
        next.unwrap_or(u32::MAX / LEAF_ENTRIES as u32) - leaf
    }

    pub fn page(&self, handle: u32, leaf: u32) -> Vec<u8> {
        let mut names: HashMap<u32, u32> = HashMap::new();
        for row in self.tables.values().flat_map(|table| table.0.values()) {
            *names.entry(row.extent).or_default() += 1;
            *names.entry(row.base).or_default() += 1;
        }
        let freezing = !self.frozen.is_empty();
        let mut page = vec![0u8; LEAF_BYTES];
        for position in 0..LEAF_ENTRIES {
            let Some(row) = self.tables[&handle]
                .0
                .get(&(leaf * LEAF_ENTRIES as u32 + position as u32))
            else {
                continue;
            };
            let own = u16::from(row.extent != 0 && names[&row.extent] == 1 && !freezing);
            page[position * 8..position * 8 + 4].copy_from_slice(&row.extent.to_le_bytes());
            page[position * 8 + 4..position * 8 + 6].copy_from_slice(&row.present.to_le_bytes());
            page[position * 8 + 6..position * 8 + 8].copy_from_slice(&own.to_le_bytes());
            page[LEAF_BASES_OFFSET + position * 4..][..4].copy_from_slice(&row.base.to_le_bytes());
            page[LEAF_MASKS_OFFSET + position * 2..][..2].copy_from_slice(&row.mask.to_le_bytes());
        }
        page
    }
}

/// xorshift64*: a seed says everything about a run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

pub fn with_entered<T>(volume: &Volume, work: impl FnOnce() -> T) -> T {
    assert!(volume.enter(Patience::Wait));
    let result = work();
    volume.leave();
    result
}

pub fn read_all(volume: &Volume) -> Vec<u8> {
    let mut bytes = vec![0xaa; volume.size() as usize];
    with_entered(volume, || volume.read(0, &mut bytes, Patience::Wait)).unwrap();
    bytes
}

pub fn assert_same(seed: u64, what: &str, actual: &[u8], expected: &[u8]) {
    if let Some(at) = actual.iter().zip(expected).position(|(a, b)| a != b) {
        panic!(
            "seed {seed}: {what} differs first at byte {at} (extent {}, block {})",
            at as u64 / EXTENT,
            at as u64 % EXTENT / 4096
        );
    }
}

/// What a TRIM leaves of a volume of `size` bytes: whole blocks become zeros; edges stay.
pub fn trim_model(model: &mut [u8], offset: u64, length: u64, size: u64) {
    let first = offset.next_multiple_of(4096);
    let past = if offset + length == size {
        size
    } else {
        (offset + length) / 4096 * 4096
    };
    if first < past {
        model[first as usize..past as usize].fill(0);
    }
}

pub fn range(random: &mut Random, size: u64) -> (u64, u64) {
    // Half aligned to blocks, half to anything; mostly small.
    let length_max = if random.below(4) == 0 {
        300_000
    } else {
        20_000
    };
    let (mut offset, mut length) = (random.below(size), 1 + random.below(length_max));
    if random.below(2) == 0 {
        offset -= offset % 4096;
        length = length.next_multiple_of(4096);
    }
    (offset, length.min(size - offset))
}

/// Where the bytes of a volume that is being filled come from; or nothing comes.
#[derive(Clone)]
pub struct Source(Option<Arc<Vec<u8>>>);

impl Source {
    pub fn of(bytes: Arc<Vec<u8>>) -> Source {
        Source(Some(bytes))
    }

    pub fn absent() -> Source {
        Source(None)
    }

    /// On a thread of its own where the engine's is needed meanwhile.
    pub fn answer(&self, volume: &Arc<Volume>, entry: u32) {
        let Some(bytes) = self.0.clone() else {
            return volume.fail_fill(entry);
        };
        let volume = Arc::clone(volume);
        let filling = std::thread::spawn(move || {
            let start = entry as usize * EXTENT as usize;
            let end = (start + EXTENT as usize).min(bytes.len());
            let door = FillDoor(volume);
            assert!(door.enter(Patience::Wait));
            let result = door.write(start as u64, &bytes[start..end], Patience::Wait);
            door.leave();
            result.unwrap();
        });
        if std::thread::current().name() != Some("engine") {
            filling.join().unwrap();
        }
    }
}
