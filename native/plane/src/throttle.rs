//! How fast a volume may be used: six leaky buckets (operations and bytes, of reads, of writes and of both) that all its connections
//! share. Decides when a request may begin and who is next; knows neither sockets nor clocks: the time is given to it, and whoever
//! waits brings something that wakes him.
//!
//! A bucket leaks at its average rate; a request may begin while the level is not above the bucket's size, and then adds what it
//! costs. So a request larger than the bucket goes through and leaves a debt that later ones wait for. Without a burst the size
//! is a tenth of a second's worth. With one it is `burst * burst_seconds`, and when a burst may last longer than a second, a second level
//! that leaks at the burst rate bounds the burst itself. (The semantics of qemu's throttle groups.)
//!
//! Requests that have to wait stand in line by direction, first come first served; only the first of a line looks at the levels, so
//! that a thousand waiting connections do not wake for one request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Size of a bucket without a burst, in seconds of its average: without any, every other request would wait.
const SLACK_SECONDS: f64 = 0.1;
/// Nobody sleeps longer without looking again; also bounds what a tiny rate would make of a duration.
const WAIT_MAX_SECONDS: f64 = 3600.0;

/// Per second. An average of 0 is no limit; a burst of 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    pub average: f64,
    pub burst: f64,
    /// How long a burst may last; at least 1.
    pub burst_seconds: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SpeedLimits {
    pub total_ops: Rate,
    pub read_ops: Rate,
    pub write_ops: Rate,
    pub total_bytes: Rate,
    pub read_bytes: Rate,
    pub write_bytes: Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Read,
    Write,
}

/// What a request takes: one operation and these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub direction: Direction,
    pub bytes: u64,
}

/// How a thread that waits for its turn learns that it should look again.
pub trait Wake: Send + Sync {
    fn wake(&self);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The request has been charged and may begin.
    Pass,
    /// Not yet: look again after this time, or (`None`, and whenever that happens) when woken.
    Wait(Option<Duration>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    rate: Rate,
    level: f64,
    burst_level: f64,
}

impl Bucket {
    fn is_limited(&self) -> bool {
        self.rate.average > 0.0
    }

    /// Only then is the burst itself bounded: a shorter one may come as fast as it can.
    fn has_long_burst(&self) -> bool {
        self.rate.burst > 0.0 && self.rate.burst_seconds > 1.0
    }

    fn leak(&mut self, seconds: f64) {
        self.level = (self.level - self.rate.average * seconds).max(0.0);
        self.burst_level = (self.burst_level - self.rate.burst * seconds).max(0.0);
    }

    fn wait_seconds(&self) -> f64 {
        if !self.is_limited() {
            return 0.0;
        }
        let size = if self.rate.burst > 0.0 {
            self.rate.burst * self.rate.burst_seconds
        } else {
            self.rate.average * SLACK_SECONDS
        };
        let wait = (self.level - size) / self.rate.average;
        let burst_wait = if self.has_long_burst() {
            (self.burst_level - self.rate.burst * SLACK_SECONDS) / self.rate.burst
        } else {
            0.0
        };
        wait.max(burst_wait).max(0.0)
    }

    fn add(&mut self, units: f64) {
        if !self.is_limited() {
            return;
        }
        self.level += units;
        if self.has_long_burst() {
            self.burst_level += units;
        }
    }

    /// A new rate begins with an empty bucket: what was used at the old one is no measure for it. The same rate goes on.
    fn set(&mut self, rate: Rate) {
        if self.rate != rate {
            *self = Bucket {
                rate,
                ..Bucket::default()
            };
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    ops: Bucket,
    bytes: Bucket,
}

impl Pair {
    fn leak(&mut self, seconds: f64) {
        self.ops.leak(seconds);
        self.bytes.leak(seconds);
    }

    fn wait_seconds(&self) -> f64 {
        self.ops.wait_seconds().max(self.bytes.wait_seconds())
    }

    fn add(&mut self, cost: Cost) {
        self.ops.add(1.0);
        self.bytes.add(cost.bytes as f64);
    }

    fn set(&mut self, ops: Rate, bytes: Rate) {
        self.ops.set(ops);
        self.bytes.set(bytes);
    }
}

struct Waiting {
    ticket: u64,
    waker: Arc<dyn Wake>,
}

#[derive(Default)]
struct State {
    total: Pair,
    read: Pair,
    write: Pair,
    /// When the buckets leaked last.
    leaked_at: Option<Instant>,
    readers: VecDeque<Waiting>,
    writers: VecDeque<Waiting>,
    last_ticket: u64,
}

impl State {
    fn line(&mut self, direction: Direction) -> &mut VecDeque<Waiting> {
        match direction {
            Direction::Read => &mut self.readers,
            Direction::Write => &mut self.writers,
        }
    }

    fn pair(&mut self, direction: Direction) -> &mut Pair {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    /// Charges the request if it may begin now; else how long it has to wait.
    fn charge(&mut self, cost: Cost, now: Instant) -> Result<(), Duration> {
        // Threads read the clock before they take the lock: one that was overtaken lets nothing leak.
        let leaked_at = self.leaked_at.unwrap_or(now).min(now);
        if self.leaked_at.is_none_or(|at| at < now) {
            self.leaked_at = Some(now);
            let seconds = now.duration_since(leaked_at).as_secs_f64();
            for pair in [&mut self.total, &mut self.read, &mut self.write] {
                pair.leak(seconds);
            }
        }
        let own = self.pair(cost.direction).wait_seconds();
        let wait = self.total.wait_seconds().max(own);
        if wait > 0.0 {
            let nanoseconds = (wait.min(WAIT_MAX_SECONDS) * 1e9).ceil();
            return Err(Duration::from_nanos(nanoseconds as u64));
        }
        self.total.add(cost);
        self.pair(cost.direction).add(cost);
        Ok(())
    }

    fn first_of(&mut self, direction: Direction) -> Option<Arc<dyn Wake>> {
        let first = self.line(direction).front()?;
        Some(Arc::clone(&first.waker))
    }
}

#[derive(Default)]
pub struct Throttle {
    is_limited: AtomicBool,
    state: Mutex<State>,
    waited_ns: AtomicU64,
}

impl Throttle {
    /// All that a volume without limits pays, once per batch.
    pub fn is_limited(&self) -> bool {
        self.is_limited.load(Ordering::Relaxed)
    }

    /// In force for every request that begins after this; who waits looks again.
    pub fn set(&self, limits: SpeedLimits) {
        let mut state = self.state.lock();
        state.total.set(limits.total_ops, limits.total_bytes);
        state.read.set(limits.read_ops, limits.read_bytes);
        state.write.set(limits.write_ops, limits.write_bytes);
        self.is_limited
            .store(limits != SpeedLimits::default(), Ordering::SeqCst);
        let wakers: Vec<_> = state
            .readers
            .iter()
            .chain(&state.writers)
            .map(|waiting| Arc::clone(&waiting.waker))
            .collect();
        drop(state);
        for waker in wakers {
            waker.wake();
        }
    }

    /// True, and charged, if the request may begin at once. Never jumps the line.
    pub fn try_pass(&self, cost: Cost, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.line(cost.direction).is_empty() && state.charge(cost, now).is_ok()
    }

    /// A place at the end of the line for one request; given up when it is dropped.
    pub fn join(&self, cost: Cost, waker: Arc<dyn Wake>) -> Place<'_> {
        let mut state = self.state.lock();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        state
            .line(cost.direction)
            .push_back(Waiting { ticket, waker });
        Place {
            throttle: self,
            cost,
            ticket,
        }
    }

    /// Requests in line now.
    pub fn waiting(&self) -> usize {
        let state = self.state.lock();
        state.readers.len() + state.writers.len()
    }

    /// Time that connections have waited here, all of them together.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed))
    }

    pub fn add_waited(&self, time: Duration) {
        self.waited_ns
            .fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

pub struct Place<'a> {
    throttle: &'a Throttle,
    cost: Cost,
    ticket: u64,
}

impl Place<'_> {
    /// After `Pass` the place is to be dropped.
    pub fn turn(&self, now: Instant) -> Turn {
        let mut state = self.throttle.state.lock();
        if !self.throttle.is_limited() {
            return Turn::Pass;
        }
        let front = state.line(self.cost.direction).front();
        if front.is_some_and(|first| first.ticket != self.ticket) {
            return Turn::Wait(None);
        }
        match state.charge(self.cost, now) {
            Ok(()) => Turn::Pass,
            Err(wait) => Turn::Wait(Some(wait)),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.throttle.state.lock();
        let line = state.line(self.cost.direction);
        let was_first = line
            .front()
            .is_some_and(|first| first.ticket == self.ticket);
        line.retain(|waiting| waiting.ticket != self.ticket);
        let next = if was_first {
            state.first_of(self.cost.direction)
        } else {
            None
        };
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
