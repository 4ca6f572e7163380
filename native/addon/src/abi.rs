//! Events as they cross the border: u32 words, little-endian, one record after the other.
//!
//! | word | meaning |
//! | --- | --- |
//! | 0 | kind, below |
//! | 1 | number of words that follow |
//! | 2… | payload |
//!
//! | kind | payload |
//! | --- | --- |
//! | 1 fault | handle, leaf |
//! | 2 want-grant | handle, wanted |
//! | 3 captured | handle, token, frozen (bit 0) and last (bit 1), then per change: index, extent, present + base mask << 16, base |
//! | 4 released | handle, then per run: first address, count |
//! | 5 failed | handle, file number, errno |
//! | 6 done | id, errno |
//! | 7 question | id, handle, then the snapshot's id as four words, its first digits first; or nothing, for a list |
//! | 8 summed | id, then a sum per extent |
//! | 9 bytes-wanted | handle, entry |

use plane::link::Event;

pub fn encode(events: &[Event]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(events.iter().map(size_of_event).sum());
    for event in events {
        record(&mut bytes, event);
    }
    bytes
}

fn size_of_event(event: &Event) -> usize {
    match event {
        Event::Captured { changes, .. } => 20 + changes.len() * 16,
        Event::Released { runs, .. } => 12 + runs.len() * 8,
        Event::Question { .. } => 32,
        Event::Summed { sums, .. } => 12 + sums.len() * 4,
        _ => 20,
    }
}

fn record(bytes: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Fault { handle, leaf } => words(bytes, 1, [*handle, *leaf]),
        Event::WantGrant { handle, wanted } => words(bytes, 2, [*handle, *wanted]),
        Event::Captured {
            handle,
            token,
            frozen,
            last,
            changes,
        } => {
            let flags = u32::from(*frozen) | u32::from(*last) << 1;
            let changes = changes.iter().flat_map(|change| {
                [
                    change.index,
                    change.extent,
                    u32::from(change.present) | u32::from(change.base_mask) << 16,
                    change.base,
                ]
            });
            words(
                bytes,
                3,
                [*handle, *token, flags].into_iter().chain(changes),
            );
        }
        Event::Released { handle, runs } => {
            words(
                bytes,
                4,
                [*handle]
                    .into_iter()
                    .chain(runs.iter().flat_map(|(first, count)| [*first, *count])),
            );
        }
        Event::Failed {
            handle,
            file,
            errno,
        } => words(bytes, 5, [*handle, *file, errno.cast_unsigned()]),
        Event::Question {
            id,
            handle,
            snapshot,
        } => {
            let halves = snapshot
                .iter()
                .flat_map(|snapshot| [96, 64, 32, 0].map(|shift| (*snapshot >> shift) as u32));
            words(bytes, 7, [*id, *handle].into_iter().chain(halves));
        }
        Event::Summed { id, sums } => {
            words(bytes, 8, [*id].into_iter().chain(sums.iter().copied()));
        }
        Event::BytesWanted { handle, index } => words(bytes, 9, [*handle, *index]),
        Event::Done { id, errno } => words(bytes, 6, [*id, errno.cast_unsigned()]),
    }
}

fn words(bytes: &mut Vec<u8>, kind: u32, payload: impl IntoIterator<Item = u32>) {
    bytes.extend_from_slice(&kind.to_le_bytes());
    let length_at = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    let start = bytes.len();
    for word in payload {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let count = ((bytes.len() - start) / 4) as u32;
    if let Some(length) = bytes.get_mut(length_at..start) {
        length.copy_from_slice(&count.to_le_bytes());
    }
}
