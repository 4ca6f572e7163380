//! What a connection asks the engine in its handshake: which snapshots there are, and what changed since one. The asker waits, with a
//! time limit, on its own thread; the engine answers when it has the answer. No request ever comes here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use parking_lot::Mutex;

use crate::backing::SnapshotId;
use crate::link::{Event, Link};

type Words = Vec<u64>;

#[derive(Default)]
pub struct Questions {
    last_id: AtomicU32,
    waiting: Mutex<HashMap<u32, SyncSender<Option<Words>>>>,
}

impl Questions {
    /// The changes since a snapshot (pairs of start and end), or without one the snapshots (pairs of the halves of an id).
    /// `None`: it is none of this volume's, or there was no answer in time.
    pub fn ask(
        &self,
        link: &Link,
        handle: u32,
        snapshot: Option<SnapshotId>,
        deadline: Instant,
    ) -> Option<Words> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = sync_channel(1);
        self.waiting.lock().insert(id, sender);
        link.push(Event::Question {
            id,
            handle,
            snapshot,
        });
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = receiver.recv_timeout(left).ok().flatten();
        self.waiting.lock().remove(&id);
        answer
    }

    /// Nobody may be waiting any more.
    pub fn answer(&self, id: u32, words: Option<Words>) {
        if let Some(sender) = self.waiting.lock().remove(&id) {
            // There is room for one, and one is all that comes.
            let _ = sender.try_send(words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn an_answer_reaches_its_asker_and_a_late_one_nobody() {
        let questions = Arc::new(Questions::default());
        let link = Arc::new(Link::new(Box::new(|| {})));
        assert_eq!(questions.ask(&link, 1, None, Instant::now()), None);
        questions.answer(0, Some(vec![1]));
        let asker = {
            let (questions, link) = (Arc::clone(&questions), Arc::clone(&link));
            let deadline = Instant::now() + Duration::from_secs(20);
            std::thread::spawn(move || questions.ask(&link, 2, Some(7), deadline))
        };
        let id = loop {
            let found = link.drain().into_iter().find_map(|event| match event {
                Event::Question {
                    id,
                    handle: 2,
                    snapshot: Some(7),
                } => Some(id),
                _ => None,
            });
            match found {
                Some(id) => break id,
                None => std::thread::yield_now(),
            }
        };
        questions.answer(id, Some(vec![4096, 8192]));
        assert_eq!(asker.join().unwrap(), Some(vec![4096, 8192]));
        assert!(questions.waiting.lock().is_empty());
    }
}
