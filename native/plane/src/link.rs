//! What the plane tells the engine: a queue of events and one wake-up for however many there are. Knows no Node: the
//! waker is given by the addon.

use parking_lot::Mutex;

use crate::backing::SnapshotId;

/// One changed entry, as it goes into the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Entry of the volume: offset / 64 KiB.
    pub index: u32,
    pub extent: u32,
    pub present: u16,
    pub base_mask: u16,
    pub base: u32,
}

/// See PlaneEvent in src/native/plane.ts.
#[derive(Debug)]
pub enum Event {
    Fault {
        handle: u32,
        leaf: u32,
    },
    WantGrant {
        handle: u32,
        wanted: u32,
    },
    Captured {
        handle: u32,
        token: u32,
        frozen: bool,
        last: bool,
        changes: Vec<Change>,
    },
    Released {
        handle: u32,
        runs: Vec<(u32, u32)>,
    },
    Failed {
        handle: u32,
        file: u32,
        errno: i32,
    },
    /// A handshake waits for `Plane::answer`: the changes since a snapshot, or without one, which there are.
    Question {
        id: u32,
        handle: u32,
        snapshot: Option<SnapshotId>,
    },
    /// Sums of a run of extents that the engine asked for; empty when there is no such run.
    Summed {
        id: u32,
        sums: Vec<u32>,
    },
    /// Requests wait for the bytes of this entry of a volume that is being filled.
    BytesWanted {
        handle: u32,
        index: u32,
    },
    /// An operation that the engine started with this id ended; 0 or an errno.
    Done {
        id: u32,
        errno: i32,
    },
}

/// Changes per event: bounds how long the engine's thread is busy with one of them.
pub const CHANGES_PER_EVENT: usize = 4096;

pub struct Link {
    queue: Mutex<Vec<Event>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Link {
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Link {
        Link {
            queue: Mutex::new(Vec::new()),
            wake,
        }
    }

    pub fn push(&self, event: Event) {
        let mut queue = self.queue.lock();
        let is_first = queue.is_empty();
        queue.push(event);
        drop(queue);
        if is_first {
            (self.wake)();
        }
    }

    /// Every waiting event, oldest first.
    pub fn drain(&self) -> Vec<Event> {
        std::mem::take(&mut *self.queue.lock())
    }
}
