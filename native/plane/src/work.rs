//! Threads for work that waits for a disk: started when there is something to do, gone when idle for a while. A job must
//! not panic while it holds shared state: one that panics ends the process, since a plane in an unknown state must
//! stop serving blocks (docs/architecture.md).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

pub struct Workers {
    name: &'static str,
    threads_max: usize,
    state: Mutex<State>,
    ready: Condvar,
}

const IDLE_MAX: Duration = Duration::from_secs(5);

impl Workers {
    pub fn new(name: &'static str, threads_max: usize) -> Arc<Workers> {
        Arc::new(Workers {
            name,
            threads_max,
            state: Mutex::default(),
            ready: Condvar::new(),
        })
    }

    pub fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            self.ready.notify_one();
            return;
        }
        if state.threads >= self.threads_max {
            return;
        }
        state.threads += 1;
        let number = state.threads;
        drop(state);
        let workers = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name(format!("{}-{number}", self.name))
            .stack_size(256 << 10)
            .spawn(move || workers.run());
        if started.is_err() {
            let mut state = self.state.lock();
            state.threads -= 1;
            // Without any thread the job would wait for ever: do it here, late rather than never.
            let job = if state.threads == 0 {
                state.jobs.pop_back()
            } else {
                None
            };
            drop(state);
            if let Some(job) = job {
                job();
            }
        }
    }

    fn run(&self) {
        let guard = AbortOnPanic;
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let timed_out = self.ready.wait_for(&mut state, IDLE_MAX).timed_out();
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() {
                state.threads -= 1;
                break;
            }
        }
        drop(state);
        std::mem::forget(guard);
    }
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}
