//! The plane as its owner sees it: volumes by handle, files by number, exports by name. Holds no rule of its own; every
//! method finds its object and passes the call on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::RwLock;
use rustix::io::Errno;

use crate::backing::Backing;
use crate::capture::Rounds;
use crate::export::{Door, ExportSpec};
use crate::file::{SLOTS_PER_FILE, offset_of};
use crate::limits::Limits;
use crate::link::{Event, Link};
use crate::map::EXTENT_BYTES;
use crate::server::Server;
use crate::throttle::SpeedLimits;
use crate::volume::{FillDoor, Shared, Volume};
use crate::work::NOBODY;

pub struct Plane {
    shared: Arc<Shared>,
    volumes: RwLock<HashMap<u32, Arc<Volume>>>,
    pub server: Server,
}

/// How an export is shown to clients.
pub struct ExportMode {
    pub read_only: bool,
    pub is_listed: bool,
    /// Found through the process's own door alone.
    pub is_internal: bool,
    pub description: String,
}

impl Plane {
    /// `wake` is called, from any thread, when the queue of events was empty and no longer is.
    pub fn new(limits: Limits, wake: Box<dyn Fn() + Send + Sync>) -> Plane {
        raise_file_limit();
        Plane {
            shared: Arc::new(Shared::new(Link::new(wake))),
            volumes: RwLock::default(),
            server: Server::new(limits),
        }
    }

    fn volume(&self, handle: u32) -> Option<Arc<Volume>> {
        self.volumes.read().get(&handle).cloned()
    }

    pub fn register_file(&self, number: u32, path: PathBuf) -> bool {
        self.shared.files.register(number, path)
    }

    pub fn forget_file(&self, number: u32) {
        self.shared.files.forget(number);
    }

    /// False if the handle is taken.
    pub fn open_volume(&self, handle: u32, size: u64, read_only: bool) -> bool {
        let mut volumes = self.volumes.write();
        if volumes.contains_key(&handle) {
            return false;
        }
        volumes.insert(
            handle,
            Volume::new(Arc::clone(&self.shared), handle, size, read_only),
        );
        true
    }

    /// `Done` with this id follows its last capture. The handle is free at once for nobody else: choose a new one.
    pub fn close_volume(&self, handle: u32, id: u32) {
        match self.volumes.write().remove(&handle) {
            Some(volume) => volume.request_close(id),
            None => self.shared.link.push(Event::Done { id, errno: 0 }),
        }
    }

    pub fn resize_volume(&self, handle: u32, size: u64) -> bool {
        self.volume(handle)
            .map(|volume| volume.resize(size))
            .is_some()
    }

    pub fn set_limits(&self, handle: u32, limits: SpeedLimits) -> bool {
        self.volume(handle)
            .map(|volume| volume.throttle.set(limits))
            .is_some()
    }

    pub fn publish(&self, name: String, handle: u32, mode: ExportMode) -> bool {
        let Some(backing) = self.volume(handle) else {
            return false;
        };
        self.server.publish(
            name,
            ExportSpec {
                backing,
                door: if mode.is_internal {
                    Door::Internal
                } else {
                    Door::Clients
                },
                read_only: mode.read_only,
                is_listed: mode.is_listed,
                description: mode.description,
            },
        );
        true
    }

    /// An export for who fills the volume, through the process's own door.
    pub fn publish_fill(&self, name: String, handle: u32) -> bool {
        let Some(volume) = self.volume(handle) else {
            return false;
        };
        self.server.publish(
            name,
            ExportSpec {
                backing: Arc::new(FillDoor(volume)),
                read_only: false,
                door: Door::Internal,
                is_listed: false,
                description: String::new(),
            },
        );
        true
    }

    /// Runs of entries (first and count) whose absent blocks are still to come. Before the volume is published.
    pub fn begin_fill(&self, handle: u32, runs: &[(u32, u32)]) -> bool {
        self.volume(handle)
            .map(|volume| volume.begin_fill(runs))
            .is_some()
    }

    /// Nothing comes for these.
    pub fn narrow_fill(&self, handle: u32, runs: &[(u32, u32)]) {
        if let Some(volume) = self.volume(handle) {
            volume.narrow_fill(runs);
        }
    }

    pub fn fail_fill(&self, handle: u32, entry: u32) {
        if let Some(volume) = self.volume(handle) {
            volume.fail_fill(entry);
        }
    }

    pub fn end_fill(&self, handle: u32) {
        if let Some(volume) = self.volume(handle) {
            volume.end_fill();
        }
    }

    pub fn unpublish(&self, name: &str, id: u32) {
        let shared = Arc::clone(&self.shared);
        self.server.unpublish(
            name,
            Box::new(move || shared.link.push(Event::Done { id, errno: 0 })),
        );
    }

    /// False if handle or page are not valid; the request that waits for the leaf is then failed.
    pub fn load_leaf(&self, handle: u32, leaf: u32, page: &[u8]) -> bool {
        let Some(volume) = self.volume(handle) else {
            return false;
        };
        let is_valid = volume.load_leaf(leaf, page);
        if !is_valid {
            volume.fail_leaf(leaf);
        }
        is_valid
    }

    pub fn load_holes(&self, handle: u32, first: u32, count: u32) {
        if let Some(volume) = self.volume(handle) {
            volume.load_holes(first, count);
        }
    }

    pub fn fail_leaf(&self, handle: u32, leaf: u32) {
        if let Some(volume) = self.volume(handle) {
            volume.fail_leaf(leaf);
        }
    }

    pub fn drop_leaves(&self, handle: u32) {
        if let Some(volume) = self.volume(handle) {
            volume.request_drop_leaves();
        }
    }

    /// Copies what these entries show of their bases into their extents; false: not now.
    pub fn fill(&self, handle: u32, indices: Vec<u32>) -> bool {
        self.volume(handle)
            .is_none_or(|volume| volume.fill(indices))
    }

    pub fn filled_bytes(&self) -> u64 {
        self.shared.filled_bytes.load(Ordering::Relaxed)
    }

    /// False if the volume is gone: the engine keeps the extents.
    pub fn grant(&self, handle: u32, first: u32, count: u32) -> bool {
        self.volume(handle)
            .map(|volume| volume.grants.add(first, count))
            .is_some()
    }

    /// What the volume has not used comes back as `Released`.
    pub fn return_grants(&self, handle: u32) {
        if let Some(volume) = self.volume(handle) {
            let runs = volume.grants.take_all();
            if !runs.is_empty() {
                self.shared.link.push(Event::Released { handle, runs });
            }
        }
    }

    pub fn refuse(&self, handle: u32) {
        if let Some(volume) = self.volume(handle) {
            volume.grants.refuse();
        }
    }

    pub fn flush(&self, handle: u32, token: u32) -> bool {
        self.volume(handle)
            .map(|volume| volume.request_flush(token))
            .is_some()
    }

    pub fn freeze(&self, handle: u32, token: u32) -> bool {
        self.volume(handle)
            .map(|volume| volume.request_freeze(token))
            .is_some()
    }

    /// Those known among these pairs of handle and token, at one instant; the tokens of the others come back.
    pub fn freeze_together(&self, members: &[(u32, u32)]) -> Vec<u32> {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for (handle, token) in members {
            match self.volume(*handle) {
                Some(volume) => known.push((volume, *token)),
                None => unknown.push(*token),
            }
        }
        crate::capture::freeze_together(&self.shared, known);
        unknown
    }

    pub fn committed(&self, token: u32, errno: i32) {
        self.shared.commits.committed(token, errno);
    }

    /// To an `Event::Question`.
    pub fn answer(&self, id: u32, words: Option<Vec<u64>>) {
        self.shared.questions.answer(id, words);
    }

    pub fn advance_epoch(&self) -> u32 {
        self.shared.quiesce.advance()
    }

    pub fn quiesced_epoch(&self) -> u32 {
        self.shared.quiesce.quiesced()
    }

    /// Reserves space for a run of slots; `Done` with errno 0 or why not.
    pub fn allocate_run(&self, file: u32, first_slot: u32, count: u32, id: u32) {
        self.on_run(file, first_slot, count, id, |file, offset, length| {
            file.allocate(offset, length)
        });
    }

    /// Gives the space of a run of slots back to the filesystem.
    pub fn punch_run(&self, file: u32, first_slot: u32, count: u32, id: u32) {
        self.on_run(file, first_slot, count, id, |file, offset, length| {
            file.punch(offset, length)
        });
    }

    /// The sums of a run of slots (damage.rs), as an event.
    pub fn sum_run(&self, file: u32, first_slot: u32, count: u32, id: u32) {
        let shared = Arc::clone(&self.shared);
        let work = move || {
            let is_inside = first_slot
                .checked_add(count)
                .is_some_and(|past| past <= SLOTS_PER_FILE);
            let sums = match shared.files.get(file) {
                Some(file) if is_inside => file.sums(offset_of(first_slot), count),
                _ => Err(Errno::NOENT),
            };
            // The engine takes what is missing for unreadable.
            let sums = sums.unwrap_or_default();
            shared.link.push(Event::Summed { id, sums });
        };
        self.shared.house_workers.submit(NOBODY, Box::new(work));
    }

    /// Reads of these extents fail, or no longer.
    pub fn set_damaged(&self, extents: &[u32], is_damaged: bool) {
        self.shared.damaged.set(extents, is_damaged);
    }

    fn on_run(
        &self,
        file: u32,
        first_slot: u32,
        count: u32,
        id: u32,
        work: fn(&crate::file::ExtentFile, u64, u64) -> Result<(), Errno>,
    ) {
        let shared = Arc::clone(&self.shared);
        self.shared.house_workers.submit(
            NOBODY,
            Box::new(move || {
                let is_inside = first_slot
                    .checked_add(count)
                    .is_some_and(|past| past <= SLOTS_PER_FILE)
                    && count > 0;
                let result = match shared.files.get(file) {
                    Some(file) if is_inside => work(
                        &file,
                        offset_of(first_slot),
                        u64::from(count) * EXTENT_BYTES,
                    ),
                    Some(_) => Err(Errno::INVAL),
                    None => Err(Errno::NOENT),
                };
                shared.link.push(Event::Done {
                    id,
                    errno: result.err().map_or(0, Errno::raw_os_error),
                });
            }),
        );
    }

    pub fn drain(&self) -> Vec<Event> {
        self.shared.link.drain()
    }

    pub fn backing(&self, handle: u32) -> Option<Arc<dyn Backing>> {
        self.volume(handle).map(|volume| volume as Arc<dyn Backing>)
    }

    /// Blocks for at most `grace`.
    pub fn close(&self, grace: Duration) {
        self.server.close(grace);
    }
}

/// Extent files and connections stay open: as many descriptors as the system lets us have.
fn raise_file_limit() {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = rustix::process::Rlimit {
        current: limits.maximum,
        maximum: limits.maximum,
    };
    // Without it the default limit holds, and says so when it is reached.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted);
}
