//! A connection of a volume whose speed is limited: what each request costs, and waiting for its turn. The wait is outside of
//! `enter`, so that a freeze never waits for it, and ends when the client leaves, the limit changes or the server closes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::time::Timespec;

use super::{Closed, Connection, Next, is_gone};
use crate::backing::Backing;
use crate::nbd::outgoing::Outgoing;
use crate::nbd::wire::{Request, command};
use crate::throttle::{Cost, Direction, Throttle, Turn, Wake};

impl Wake for Outgoing {
    fn wake(&self) {
        Outgoing::wake(self);
    }
}

/// Only READ and WRITE move bytes. What acts on a range is one operation whatever its length; a flush is free: whoever waited for
/// his writes must not wait again to keep them.
fn cost_of(request: &Request) -> Option<Cost> {
    let (direction, bytes) = match request.command {
        command::READ => (Direction::Read, request.length),
        command::WRITE => (Direction::Write, request.length),
        command::CACHE => (Direction::Read, 0),
        command::TRIM | command::WRITE_ZEROES => (Direction::Write, 0),
        _ => return None,
    };
    Some(Cost { direction, bytes })
}

/// A batch's look at the limits: none, or those of this moment.
pub struct Pace<'a>(Option<(&'a Throttle, Instant)>);

impl<'a> Pace<'a> {
    pub fn of(backing: &'a dyn Backing) -> Pace<'a> {
        let throttle = backing.throttle().filter(|throttle| throttle.is_limited());
        Pace(throttle.map(|throttle| (throttle, Instant::now())))
    }

    /// False if the request has to wait for its turn; else it has been charged.
    pub fn may_begin(&self, request: &Request) -> bool {
        match (self.0, cost_of(request)) {
            (Some((throttle, now)), Some(cost)) => throttle.try_pass(cost, now),
            _ => true,
        }
    }
}

impl Connection {
    /// Until the request that ended the batch may begin. A client that has hung up is not served what it left behind: its
    /// requests would be taken out of everybody's rate for nobody.
    pub(super) fn wait_for_turn(&mut self) -> Result<(), Closed> {
        if !std::mem::take(&mut self.is_held) {
            return Ok(());
        }
        let Next::Whole(request, _) = self.next()? else {
            return Ok(());
        };
        let outgoing = Arc::clone(&self.executor.outgoing);
        let (Some(throttle), Some(cost)) =
            (outgoing.lease.export.backing.throttle(), cost_of(&request))
        else {
            return Ok(());
        };
        let place = throttle.join(cost, Arc::clone(&outgoing) as Arc<dyn Wake>);
        // What was received when the server closes is done, and not kept from its end by a limit.
        while !self.is_closing.load(Ordering::SeqCst) {
            let now = Instant::now();
            let Turn::Wait(time) = place.turn(now) else {
                break;
            };
            let wanted = if outgoing.send_queued()? {
                PollFlags::RDHUP
            } else {
                PollFlags::RDHUP | PollFlags::OUT
            };
            let ready = self.wait(wanted, time.map(timespec).as_ref())?;
            throttle.add_waited(now.elapsed());
            if (is_gone(ready) || ready.contains(PollFlags::RDHUP))
                && !self.is_closing.load(Ordering::SeqCst)
            {
                return Err(Closed);
            }
        }
        self.is_admitted = true;
        Ok(())
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}
