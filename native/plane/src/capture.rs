//! Captures: what changed in a volume's map since the last one, synced, handed to the engine, and who waits for it. One
//! capture per volume is under way at a time, so they reach the journal in order; everybody who waits when one begins
//! shares it. A flush that finds nothing changed is none of these: see sync.rs.
//!
//! Order inside a capture (laws 1 and 2): waiters are taken, then the dirty list, then the entries under their stripe locks, then the
//! touched files, which are synced; only then does the engine learn of the changes; only after its commit do waiters.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::backing::{Backing, Completion, IoError};
use crate::link::{CHANGES_PER_EVENT, Change, Event};
use crate::map::{Entry, LEAF_ENTRIES, Map};
use crate::sync::Syncs;
use crate::together::{Group, Member};
use crate::volume::{Shared, Volume};
use crate::work::NOBODY;

/// Dirty entries after which a capture is made without anybody asking: bounds memory and the length of a commit.
pub const DIRTY_MAX: usize = 1 << 17;
/// Tokens chosen here, not by the engine.
const PLANE_TOKEN: u32 = 1 << 31;
const DROP_TRIES: u32 = 3;

enum Job {
    /// For the engine, with its token.
    Flush(u32),
    Freeze(u32),
    /// At one instant with other volumes.
    FreezeTogether(u32, Arc<Group>),
    /// Forget all leaves, if nothing is dirty.
    DropLeaves {
        tries: u32,
    },
    /// The last capture; then grants go back and the operation with this id is done.
    Close(u32),
}

#[derive(Default)]
pub struct SyncState {
    waiting: Vec<Completion>,
    jobs: VecDeque<Job>,
    /// A round runs or waits for its commit.
    is_capturing: bool,
    /// The next round is a capture, before any job and even if nothing seems to have changed.
    is_capture_due: bool,
    pub syncs: Syncs,
}

impl SyncState {
    /// They wait for a capture, whatever there is to capture.
    pub fn capture_for(&mut self, waiters: Vec<Completion>) {
        self.waiting.extend(waiters);
        self.is_capture_due = true;
    }
}

/// Captures that wait for the engine, by token.
#[derive(Default)]
pub struct Commits {
    last_token: AtomicU32,
    pending: Mutex<HashMap<u32, Pending>>,
}

struct Pending {
    volume: Arc<Volume>,
    waiters: Vec<Completion>,
    closing: Option<u32>,
}

/// What one round is for.
struct Round {
    waiters: Vec<Completion>,
    /// The engine asked for it by this token; it is answered even when nothing changed.
    token: Option<u32>,
    is_frozen: bool,
    /// The operation that ends with it, and with the volume.
    closing: Option<u32>,
}

/// Freezes these volumes at one instant, each with its own token.
pub fn freeze_together(shared: &Shared, members: Vec<(Arc<Volume>, u32)>) {
    let group = Group::of(members.len());
    let _one = shared.together.lock();
    for (volume, token) in members {
        volume.request(Some(Job::FreezeTogether(token, Arc::clone(&group))), None);
    }
}

/// Each member of a group goes on by itself: their syncs run beside each other.
fn hand_in_all(frozen: Option<Vec<(Member, Vec<Change>)>>) {
    for (member, changes) in frozen.into_iter().flatten() {
        let Member {
            volume,
            token,
            waiters,
        } = member;
        let round = Round {
            waiters,
            token: Some(token),
            is_frozen: true,
            closing: None,
        };
        let workers = Arc::clone(&volume.shared.sync_workers);
        workers.submit(NOBODY, Box::new(move || volume.hand_in(round, &changes)));
    }
}

impl Commits {
    fn next_token(&self) -> u32 {
        PLANE_TOKEN | self.last_token.fetch_add(1, Ordering::Relaxed) & !PLANE_TOKEN
    }

    /// The engine's answer to a capture.
    pub fn committed(&self, token: u32, errno: i32) {
        let Some(pending) = self.pending.lock().remove(&token) else {
            return;
        };
        let result = if errno == 0 {
            Ok(())
        } else {
            // What was captured is lost to the engine and no longer marked dirty: a later flush that finds nothing to do
            // must not promise it. So the volume is done for, as after a failed sync.
            pending.volume.failed.store(errno, Ordering::SeqCst);
            Err(IoError::Failed)
        };
        pending
            .volume
            .end_round(pending.waiters, pending.closing, result);
    }
}

/// Volumes are reached through an Arc: a round goes on after the call that began it.
pub trait Rounds {
    fn request_flush(&self, token: u32);
    fn request_freeze(&self, token: u32);
    fn request_drop_leaves(&self);
    fn request_close(&self, id: u32);
}

impl Rounds for Arc<Volume> {
    fn request_flush(&self, token: u32) {
        if self.failed.load(Ordering::SeqCst) == 0 && self.is_clean() {
            // The timer asks a thousand idle volumes: no thread is woken for them.
            return self.hand_over(token, false, &[]);
        }
        self.request(Some(Job::Flush(token)), None);
    }
    fn request_freeze(&self, token: u32) {
        self.request(Some(Job::Freeze(token)), None);
    }
    fn request_drop_leaves(&self) {
        self.request(Some(Job::DropLeaves { tries: DROP_TRIES }), None);
    }
    fn request_close(&self, id: u32) {
        self.is_closing.store(true, Ordering::SeqCst);
        self.request(Some(Job::Close(id)), None);
    }
}

impl Volume {
    /// Everything completed before this call is durable when `done` runs with `Ok`.
    pub(crate) fn flush_for(&self, done: Completion) {
        if self.failed.load(Ordering::SeqCst) != 0 {
            return done(Err(IoError::Failed));
        }
        if self.is_clean() {
            return done(Ok(()));
        }
        self.request(None, Some(done));
    }

    /// Nothing to capture or sync, and no capture under way.
    fn is_clean(&self) -> bool {
        let sync = self.sync.lock();
        !sync.is_capturing
            && sync.syncs.is_empty()
            && self.touched.is_empty()
            && self.has_no_changes()
    }

    fn has_no_changes(&self) -> bool {
        self.dirty.lock().is_empty() && self.released.lock().is_empty()
    }

    pub(crate) fn is_long(dirty: usize) -> bool {
        dirty.is_multiple_of(DIRTY_MAX)
    }

    /// A capture that nobody waits for.
    pub(crate) fn capture_soon(&self) {
        self.request(None, Some(Box::new(|_| {})));
    }

    fn request(&self, job: Option<Job>, waiter: Option<Completion>) {
        let mut sync = self.sync.lock();
        sync.jobs.extend(job);
        sync.waiting.extend(waiter);
        drop(sync);
        self.advance();
    }

    /// Starts what may start now: a capture by itself, or one more sync of data beside others.
    pub(crate) fn advance(&self) {
        let Some(volume) = self.me.upgrade() else {
            return;
        };
        let mut sync = self.sync.lock();
        if sync.is_capturing || (sync.waiting.is_empty() && sync.jobs.is_empty()) {
            return;
        }
        if sync.jobs.is_empty() && !sync.is_capture_due && self.has_no_changes() {
            let Some(slot) = sync.syncs.take_slot() else {
                return;
            };
            let waiters = std::mem::take(&mut sync.waiting);
            drop(sync);
            return self
                .shared
                .sync_workers
                .submit(NOBODY, Box::new(move || volume.sync_data(slot, waiters)));
        }
        // The last of them comes here again.
        if sync.syncs.is_empty() {
            sync.is_capturing = true;
            drop(sync);
            self.shared
                .sync_workers
                .submit(NOBODY, Box::new(move || volume.round()));
        }
    }

    /// On a sync thread. Ends the volume's turn, hands it on, or leaves it busy until the engine answers.
    fn round(self: Arc<Self>) {
        let (job, waiters) = {
            let mut sync = self.sync.lock();
            let job = if std::mem::take(&mut sync.is_capture_due) {
                None
            } else {
                sync.jobs.pop_front()
            };
            (job, std::mem::take(&mut sync.waiting))
        };
        if let Some(Job::DropLeaves { tries }) = job {
            self.drop_leaves_if_clean(tries);
            return self.end_round(waiters, None, Err(IoError::WouldBlock));
        }
        // Whoever waits now may have written what an earlier capture lost: nothing is durable any more.
        let failed = self.failed.load(Ordering::SeqCst);
        if failed != 0 {
            return self.refuse_round(job, waiters, failed);
        }
        let mut round = Round {
            waiters,
            token: None,
            is_frozen: false,
            closing: None,
        };
        match job {
            Some(Job::FreezeTogether(token, group)) => {
                let (volume, waiters) = (self, round.waiters);
                return hand_in_all(group.arrive(Some(Member {
                    volume,
                    token,
                    waiters,
                })));
            }
            Some(Job::Freeze(token)) => {
                round.token = Some(token);
                round.is_frozen = true;
                let changes = self.gate.fenced(|| self.freeze_here());
                return self.hand_in(round, &changes);
            }
            Some(Job::Flush(token)) => round.token = Some(token),
            Some(Job::Close(id)) => round.closing = Some(id),
            Some(Job::DropLeaves { .. }) | None => {}
        }
        let changes = self.take_changes();
        self.hand_in(round, &changes);
    }

    fn refuse_round(&self, job: Option<Job>, waiters: Vec<Completion>, failed: i32) {
        let closing = match job {
            Some(Job::Close(id)) => Some(id),
            Some(Job::Flush(_) | Job::Freeze(_)) => {
                self.tell_failure(0, failed);
                None
            }
            Some(Job::FreezeTogether(_, group)) => {
                self.tell_failure(0, failed);
                hand_in_all(group.arrive(None));
                None
            }
            Some(Job::DropLeaves { .. }) | None => None,
        };
        self.end_round(waiters, closing, Err(IoError::Failed));
    }

    /// The rest of a round whose changes have been taken: syncs what they show, then tells the engine.
    fn hand_in(self: Arc<Self>, round: Round, changes: &[Change]) {
        let released: Vec<(u32, u32)> = std::mem::take(&mut *self.released.lock())
            .into_iter()
            .map(|extent| (extent, 1))
            .collect();
        let synced = self.sync_touched();
        if !released.is_empty() {
            self.shared.link.push(Event::Released {
                handle: self.handle,
                runs: released,
            });
        }
        let Round {
            waiters,
            token,
            is_frozen,
            closing,
        } = round;
        if let Err((file, errno)) = synced {
            self.fail(file, errno);
            return self.end_round(waiters, closing, Err(IoError::Failed));
        }
        if token.is_none() && changes.is_empty() {
            return self.end_round(waiters, closing, Ok(()));
        }
        let token = token.unwrap_or_else(|| self.shared.commits.next_token());
        self.shared.commits.pending.lock().insert(
            token,
            Pending {
                volume: Arc::clone(&self),
                waiters,
                closing,
            },
        );
        self.hand_over(token, is_frozen, changes);
    }

    pub(crate) fn fail(&self, file: u32, errno: i32) {
        self.failed.store(errno, Ordering::SeqCst);
        self.tell_failure(file, errno);
    }

    fn tell_failure(&self, file: u32, errno: i32) {
        self.shared.link.push(Event::Failed {
            handle: self.handle,
            file,
            errno,
        });
    }

    /// Under the fence: what was written before belongs to the frozen state, what comes after goes beside it.
    pub(crate) fn freeze_here(&self) -> Vec<Change> {
        let changes = self.take_changes();
        self.generation.fetch_add(1, Ordering::SeqCst);
        changes
    }

    fn take_changes(&self) -> Vec<Change> {
        let mut dirty = std::mem::take(&mut *self.dirty.lock());
        dirty.sort_unstable();
        let map = self.map.load();
        let mut changes = Vec::with_capacity(dirty.len());
        for index in dirty {
            let Some(leaf) = map.leaf(index / LEAF_ENTRIES as u32) else {
                // Leaves with dirty entries are never dropped.
                unreachable!("the leaf of dirty entry {index} is resident")
            };
            let position = index as usize % LEAF_ENTRIES;
            let _stripe = self.stripe(u64::from(index));
            let view = leaf.view(position);
            leaf.clear(position, Entry::DIRTY | Entry::FRESH);
            changes.push(Change {
                index,
                extent: view.entry.extent(),
                present: view.entry.present(),
                base_mask: view.base.mask(),
                base: if view.base.mask() == 0 {
                    0
                } else {
                    view.base.extent()
                },
            });
        }
        changes
    }

    fn sync_touched(&self) -> Result<(), (u32, i32)> {
        for number in self.touched.take() {
            if let Some(file) = self.shared.files.get(number) {
                file.sync()
                    .map_err(|error| (number, error.raw_os_error()))?;
            }
        }
        Ok(())
    }

    fn hand_over(&self, token: u32, frozen: bool, changes: &[Change]) {
        let mut parts = changes.chunks(CHANGES_PER_EVENT).peekable();
        let captured = |changes: &[Change], last| Event::Captured {
            handle: self.handle,
            token,
            frozen,
            last,
            changes: changes.to_vec(),
        };
        if parts.peek().is_none() {
            self.shared.link.push(captured(&[], true));
        }
        while let Some(part) = parts.next() {
            self.shared
                .link
                .push(captured(part, parts.peek().is_none()));
        }
    }

    fn drop_leaves_if_clean(&self, tries: u32) {
        let dropped = self.gate.fenced(|| {
            let _one = self.map_lock.lock();
            if !self.dirty.lock().is_empty() {
                return false;
            }
            self.map.store(Arc::new(Map::new(self.size())));
            true
        });
        if !dropped && tries > 1 {
            // A capture first, then once more. Ownership computed a little later is the only loss if all tries fail.
            let mut sync = self.sync.lock();
            sync.is_capture_due = true;
            sync.jobs.push_back(Job::DropLeaves { tries: tries - 1 });
        }
    }

    /// Answers who waited and goes on with what came meanwhile. Waiters given with `WouldBlock` were not served: they join the next round.
    fn end_round(
        &self,
        waiters: Vec<Completion>,
        closing: Option<u32>,
        result: Result<(), IoError>,
    ) {
        if result == Err(IoError::WouldBlock) {
            self.sync.lock().waiting.extend(waiters);
        } else {
            for waiter in waiters {
                waiter(result);
            }
        }
        if let Some(id) = closing {
            let runs = self.grants.take_all();
            if !runs.is_empty() {
                self.shared.link.push(Event::Released {
                    handle: self.handle,
                    runs,
                });
            }
            self.shared.link.push(Event::Done {
                id,
                errno: self.failed.load(Ordering::SeqCst),
            });
        }
        self.sync.lock().is_capturing = false;
        self.advance();
    }
}
