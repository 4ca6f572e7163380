//! Extents that the engine gave a volume ahead of need. Records nothing: what was taken and not captured is free again
//! after a crash. Asks for more before it runs out; a writer waits only when it did.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use crate::backing::IoError;

/// Runs of { first address, count }.
pub type Run = (u32, u32);

#[derive(Default)]
struct State {
    runs: VecDeque<Run>,
    remaining: u32,
    /// Size of the last grant; half of it is the mark below which more is wanted.
    last: u32,
    is_asked: bool,
    refusals: u64,
}

#[derive(Default)]
pub struct Grants {
    state: Mutex<State>,
    changed: Condvar,
}

/// What `take` found.
pub enum Taken {
    /// An extent, and whether the caller has to ask the engine for more.
    Extent {
        address: u32,
        ask: bool,
    },
    Empty {
        ask: bool,
    },
}

impl Grants {
    pub fn take(&self) -> Taken {
        let mut state = self.state.lock();
        let Some((first, count)) = state.runs.pop_front() else {
            return Taken::Empty {
                ask: !std::mem::replace(&mut state.is_asked, true),
            };
        };
        if count > 1 {
            state.runs.push_front((first + 1, count - 1));
        }
        state.remaining -= 1;
        let is_low = state.remaining <= state.last / 2;
        let ask = is_low && !std::mem::replace(&mut state.is_asked, true);
        Taken::Extent {
            address: first,
            ask,
        }
    }

    /// An extent that was taken and then not used.
    pub fn put_back(&self, address: u32) {
        let mut state = self.state.lock();
        state.runs.push_front((address, 1));
        state.remaining += 1;
        self.changed.notify_all();
    }

    pub fn add(&self, first: u32, count: u32) {
        let mut state = self.state.lock();
        state.runs.push_back((first, count));
        state.remaining += count;
        state.last = count;
        state.is_asked = false;
        self.changed.notify_all();
    }

    pub fn refuse(&self) {
        let mut state = self.state.lock();
        state.is_asked = false;
        state.refusals += 1;
        self.changed.notify_all();
    }

    /// Waits until there is an extent to take. `ask` is called when the engine has to be asked.
    pub fn wait(&self, ask: impl Fn()) -> Result<(), IoError> {
        let mut state = self.state.lock();
        let refusals = state.refusals;
        loop {
            if state.remaining > 0 {
                return Ok(());
            }
            if state.refusals != refusals {
                return Err(IoError::NoSpace);
            }
            if !std::mem::replace(&mut state.is_asked, true) {
                ask();
            }
            self.changed.wait(&mut state);
        }
    }

    pub fn take_all(&self) -> Vec<Run> {
        let mut state = self.state.lock();
        state.remaining = 0;
        state.runs.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_asked_for_once_when_half_is_used() {
        let grants = Grants::default();
        grants.add(100, 4);
        let asked: Vec<bool> = (0..4)
            .map(|_| match grants.take() {
                Taken::Extent { ask, .. } => ask,
                Taken::Empty { .. } => panic!("four were granted"),
            })
            .collect();
        assert_eq!(asked, [false, true, false, false]);
        assert!(matches!(grants.take(), Taken::Empty { ask: false }));
        grants.add(200, 1);
        assert!(matches!(
            grants.take(),
            Taken::Extent {
                address: 200,
                ask: true
            }
        ));
    }

    #[test]
    fn a_refusal_ends_the_wait_and_the_next_writer_asks_again() {
        let grants = std::sync::Arc::new(Grants::default());
        for _ in 0..2 {
            let asking = std::sync::Arc::clone(&grants);
            let waiter = std::thread::spawn({
                let grants = std::sync::Arc::clone(&grants);
                move || {
                    grants.wait(|| {
                        let asking = std::sync::Arc::clone(&asking);
                        std::thread::spawn(move || asking.refuse());
                    })
                }
            });
            assert_eq!(waiter.join().expect("the wait ends"), Err(IoError::NoSpace));
        }
    }
}
