//! Threads for work that waits for a disk: started when there is something to do, gone when idle for a while, all but the last: whoever
//! submits a job may not be able to start one later (a container's limit, with thousands of connections). Fair by owner:
//! owners with work take turns, and none has more than its share of the threads, so that one whose jobs are slow does not hold up
//! the others. Knows nothing of what the jobs do.
//!
//! A job must not panic while it holds shared state: one that does ends the process, with a word of why, since a plane in an unknown
//! state must stop serving blocks (docs/architecture.md). A job whose panic harms nobody else catches it itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub type Job = Box<dyn FnOnce() + Send>;

/// Of jobs that are nobody's in particular.
pub const NOBODY: u64 = 0;

#[derive(Default)]
struct Owner {
    jobs: VecDeque<Job>,
    running: usize,
}

#[derive(Default)]
struct State {
    /// Those with jobs that wait or run.
    owners: HashMap<u64, Owner>,
    /// Those whose next job may be taken, each once, in turns.
    ring: VecDeque<u64>,
    threads: usize,
    idle: usize,
    /// Nobody can submit any more.
    is_over: bool,
}

impl State {
    /// False while its owner's share of the threads is busy.
    fn push(&mut self, owner: u64, job: Job, share: usize) -> bool {
        let entry = self.owners.entry(owner).or_default();
        entry.jobs.push_back(job);
        let may_be_taken = entry.running < share;
        if may_be_taken && entry.jobs.len() == 1 {
            self.ring.push_back(owner);
        }
        may_be_taken
    }

    fn take(&mut self, share: usize) -> Option<(u64, Job)> {
        let owner = self.ring.pop_front()?;
        let entry = self.owners.get_mut(&owner)?;
        let job = entry.jobs.pop_front()?;
        entry.running += 1;
        if !entry.jobs.is_empty() && entry.running < share {
            self.ring.push_back(owner);
        }
        Some((owner, job))
    }

    fn end(&mut self, owner: u64, share: usize) {
        let Some(entry) = self.owners.get_mut(&owner) else {
            return;
        };
        let was_full = entry.running == share;
        entry.running -= 1;
        if !entry.jobs.is_empty() {
            if was_full {
                self.ring.push_back(owner);
            }
        } else if entry.running == 0 {
            self.owners.remove(&owner);
        }
    }
}

pub struct Workers(Arc<Pool>);

struct Pool {
    name: &'static str,
    threads_max: usize,
    /// Threads that one owner's jobs have at most.
    share: usize,
    idle_max: Duration,
    state: Mutex<State>,
    ready: Condvar,
}

const IDLE_MAX: Duration = Duration::from_secs(5);

impl Workers {
    pub fn new(name: &'static str, threads_max: usize) -> Arc<Workers> {
        Workers::with_share(name, threads_max, threads_max)
    }

    pub fn with_share(name: &'static str, threads_max: usize, share: usize) -> Arc<Workers> {
        Workers::with_idle(name, threads_max, share, IDLE_MAX)
    }

    fn with_idle(
        name: &'static str,
        threads_max: usize,
        share: usize,
        idle_max: Duration,
    ) -> Arc<Workers> {
        Arc::new(Workers(Arc::new(Pool {
            name,
            threads_max,
            share: share.clamp(1, threads_max),
            idle_max,
            state: Mutex::default(),
            ready: Condvar::new(),
        })))
    }

    pub fn submit(&self, owner: u64, job: Job) {
        self.0.submit(owner, job);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.state.lock().is_over = true;
        self.0.ready.notify_all();
    }
}

impl Pool {
    fn submit(self: &Arc<Self>, owner: u64, job: Job) {
        let mut state = self.state.lock();
        if !state.push(owner, job, self.share) {
            // Its share is busy: whichever of its jobs ends first makes room.
            return;
        }
        self.ready.notify_one();
        if state.threads >= self.threads_max {
            return;
        }
        let waiting: usize = state
            .ring
            .iter()
            .filter_map(|owner| state.owners.get(owner))
            .map(|owner| owner.jobs.len().min(self.share - owner.running))
            .sum();
        if state.idle >= waiting {
            return;
        }
        state.threads += 1;
        let number = state.threads;
        drop(state);
        let pool = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name(format!("{}-{number}", self.name))
            .stack_size(256 << 10)
            .spawn(move || pool.run());
        if started.is_err() {
            self.do_without();
        }
    }

    /// No thread could be started. Without any the job would wait for ever: it is done here, late rather than never. Only a pool
    /// that never had one comes to this: a job may wait for its caller to leave the volume.
    fn do_without(&self) {
        let mut state = self.state.lock();
        state.threads -= 1;
        if state.threads > 0 {
            return;
        }
        let Some((owner, job)) = state.take(self.share) else {
            return;
        };
        drop(state);
        job();
        self.state.lock().end(owner, self.share);
    }

    fn run(&self) {
        let guard = AbortOnPanic(self.name);
        let mut state = self.state.lock();
        loop {
            if let Some((owner, job)) = state.take(self.share) {
                drop(state);
                job();
                state = self.state.lock();
                state.end(owner, self.share);
                continue;
            }
            state.idle += 1;
            let mut has_waited_enough = state.is_over;
            if !has_waited_enough && state.threads > 1 {
                has_waited_enough = self.ready.wait_for(&mut state, self.idle_max).timed_out();
            } else if !has_waited_enough {
                self.ready.wait(&mut state);
            }
            state.idle -= 1;
            let is_needed = state.threads == 1 && !state.is_over;
            if has_waited_enough && state.ring.is_empty() && !is_needed {
                state.threads -= 1;
                break;
            }
        }
        drop(state);
        std::mem::forget(guard);
    }
}

struct AbortOnPanic(&'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        eprintln!(
            "quarry: a job of the {} threads panicked (see above) and may have left shared state half changed: the process ends, \
             recovery at the next start is the way back",
            self.0
        );
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A job that says that it runs, and runs until it is told to end.
    fn held(begun: &Sender<u64>, owner: u64) -> (Job, Sender<()>) {
        let (end, ended) = channel();
        let begun = begun.clone();
        let job = Box::new(move || {
            begun.send(owner).expect("the test listens");
            let _ = ended.recv();
        });
        (job, end)
    }

    fn eventually(mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < end, "it never came about");
            std::thread::yield_now();
        }
    }

    fn next(begun: &Receiver<u64>) -> u64 {
        begun.recv_timeout(PATIENCE).expect("a job begins")
    }

    #[test]
    fn an_owner_with_many_slow_jobs_leaves_threads_to_the_others() {
        let workers = Workers::with_share("test", 4, 3);
        let (begins, begun) = channel();
        let ends: Vec<_> = (0..20)
            .map(|_| {
                let (job, end) = held(&begins, 1);
                workers.submit(1, job);
                end
            })
            .collect();
        assert_eq!([next(&begun), next(&begun), next(&begun)], [1, 1, 1]);
        let (job, end) = held(&begins, 2);
        workers.submit(2, job);
        assert_eq!(next(&begun), 2);
        // Not a fourth one of the first, though a thread is free again.
        drop(end);
        let (job, _end) = held(&begins, 3);
        workers.submit(3, job);
        assert_eq!(next(&begun), 3);
        drop(ends);
        for _ in 3..20 {
            assert_eq!(next(&begun), 1);
        }
    }

    #[test]
    fn owners_that_wait_take_turns() {
        let workers = Workers::with_share("test", 1, 1);
        let (begins, begun) = channel();
        let (job, end) = held(&begins, 9);
        workers.submit(9, job);
        assert_eq!(next(&begun), 9);
        for owner in [1, 1, 1, 1, 2, 2, 3] {
            let (job, _) = held(&begins, owner);
            workers.submit(owner, job);
        }
        drop(end);
        let order: Vec<u64> = (0..7).map(|_| next(&begun)).collect();
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 1]);
    }

    #[test]
    fn one_owner_alone_uses_its_whole_share_and_every_job_is_done() {
        let workers = Workers::with_share("test", 8, 6);
        let (begins, begun) = channel();
        for round in 0..50 {
            let ends: Vec<_> = (0..6)
                .map(|_| {
                    let (job, end) = held(&begins, round);
                    workers.submit(1, job);
                    end
                })
                .collect();
            // All six run beside each other: none of them has been told to end.
            for _ in 0..6 {
                assert_eq!(next(&begun), round);
            }
            drop(ends);
        }
    }

    /// Jobs were once done by their submitter when no thread could be started: inside of a volume, by a connection's thread that
    /// the job's fence then waited for.
    #[test]
    fn the_last_thread_stays_for_later_jobs_and_ends_when_none_can_come() {
        let workers = Workers::with_idle("test", 3, 3, Duration::from_millis(1));
        let pool = Arc::downgrade(&workers.0);
        let (begins, begun) = channel();
        let ends = [0; 3].map(|_| {
            let (job, end) = held(&begins, 1);
            workers.submit(1, job);
            end
        });
        for _ in &ends {
            next(&begun);
        }
        drop(ends);
        eventually(|| {
            let state = workers.0.state.lock();
            state.threads == 1 && state.idle == 1
        });
        let (job, _) = held(&begins, 2);
        workers.submit(2, job);
        assert_eq!(next(&begun), 2);
        drop(workers);
        eventually(|| pool.strong_count() == 0);
    }
}
