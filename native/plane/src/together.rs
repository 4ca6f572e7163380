//! Volumes that are frozen at one instant. Each comes here in its own turn of captures and waits without a thread; the last to come
//! raises every fence, takes every list, lets all go on, and hands each its own back. Knows nothing of what a capture is.
//!
//! No deadlock: groups are queued in the same order on all their volumes (`Shared::together`), and fences are raised in the
//! order of handles by a thread that is inside no gate.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::backing::Completion;
use crate::link::Change;
use crate::volume::Volume;

pub struct Group(Mutex<Gathering>);

struct Gathering {
    missing: usize,
    here: Vec<Member>,
}

pub struct Member {
    pub volume: Arc<Volume>,
    /// The engine's, for this member's capture.
    pub token: u32,
    pub waiters: Vec<Completion>,
}

impl Group {
    pub fn of(count: usize) -> Arc<Group> {
        Arc::new(Group(Mutex::new(Gathering {
            missing: count,
            here: Vec::with_capacity(count),
        })))
    }

    /// The instant's members with what changed in each, when this was the last to come; `None` before. A member that cannot take part
    /// (its volume has failed) comes as nobody.
    pub fn arrive(&self, member: Option<Member>) -> Option<Vec<(Member, Vec<Change>)>> {
        let mut gathering = self.0.lock();
        gathering.here.extend(member);
        gathering.missing -= 1;
        if gathering.missing > 0 {
            return None;
        }
        let members = std::mem::take(&mut gathering.here);
        drop(gathering);
        Some(freeze(members))
    }
}

fn freeze(mut members: Vec<Member>) -> Vec<(Member, Vec<Change>)> {
    members.sort_by_key(|member| member.volume.handle);
    let changes: Vec<Vec<Change>> = {
        let fences: Vec<_> = members
            .iter()
            .map(|member| member.volume.gate.raise())
            .collect();
        // All are up before one is waited for: the pause is as long as the slowest volume's, not as all of theirs.
        for fence in &fences {
            fence.settle();
        }
        members
            .iter()
            .map(|member| member.volume.freeze_here())
            .collect()
    };
    members.into_iter().zip(changes).collect()
}
