//! The fence of one volume: requests count themselves in and out; a fence makes new ones wait until those in flight
//! are out. This is the primitive under freeze, leaf drop and resize.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

const FENCED: u64 = 1 << 63;

#[derive(Default)]
pub struct Gate {
    /// Requests inside, plus `FENCED` while a fence is up or going up.
    state: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
    /// One fence at a time.
    fences: Mutex<()>,
}

impl Gate {
    /// False while a fence is up.
    pub fn try_enter(&self) -> bool {
        if self.state.fetch_add(1, Ordering::SeqCst) & FENCED == 0 {
            return true;
        }
        self.leave();
        false
    }

    pub fn enter(&self) {
        while !self.try_enter() {
            let mut guard = self.lock.lock();
            if self.state.load(Ordering::SeqCst) & FENCED != 0 {
                self.changed.wait(&mut guard);
            }
        }
    }

    pub fn leave(&self) {
        if self.state.fetch_sub(1, Ordering::SeqCst) == (FENCED | 1) {
            // Under the lock, so that the fence cannot miss it between its look and its wait.
            let _guard = self.lock.lock();
            self.changed.notify_all();
        }
    }

    /// Runs `inside` while no request is in. Must not be called from inside.
    pub fn fenced<T>(&self, inside: impl FnOnce() -> T) -> T {
        let fence = self.raise();
        fence.settle();
        inside()
    }

    /// From now on no request comes in; those inside may still run. Must not be called from inside.
    pub fn raise(&self) -> Fence<'_> {
        let one = self.fences.lock();
        self.state.fetch_or(FENCED, Ordering::SeqCst);
        Fence {
            gate: self,
            _one: one,
        }
    }
}

/// Up until it is dropped.
pub struct Fence<'a> {
    gate: &'a Gate,
    _one: MutexGuard<'a, ()>,
}

impl Fence<'_> {
    /// Returns when no request is inside any more.
    pub fn settle(&self) {
        let mut guard = self.gate.lock.lock();
        while self.gate.state.load(Ordering::SeqCst) != FENCED {
            self.gate.changed.wait(&mut guard);
        }
    }
}

impl Drop for Fence<'_> {
    fn drop(&mut self) {
        self.gate.state.fetch_and(!FENCED, Ordering::SeqCst);
        let _guard = self.gate.lock.lock();
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_fence_waits_for_requests_inside_and_holds_new_ones() {
        let gate = Arc::new(Gate::default());
        gate.enter();
        let ran = Arc::new(AtomicBool::new(false));
        let fencing = std::thread::spawn({
            let (gate, ran) = (Arc::clone(&gate), Arc::clone(&ran));
            move || gate.fenced(|| ran.store(true, Ordering::SeqCst))
        });
        while gate.try_enter() {
            gate.leave();
            std::thread::yield_now();
        }
        assert!(!ran.load(Ordering::SeqCst));
        gate.leave();
        fencing.join().expect("the fence ends");
        assert!(ran.load(Ordering::SeqCst));
        assert!(gate.try_enter());
    }
}
