//! Meta contexts: what block status can report about, and the names they are chosen by. `base:allocation` comes from the map at the
//! time of each request; what changed since a snapshot is a list, drawn up when the context is negotiated and fixed from then on.

use std::ops::Range;
use std::sync::Arc;

use crate::backing::SnapshotId;

pub const ALLOCATION: &str = "base:allocation";
/// Both mean the same: ours, and the one that qemu and its tools know how to read.
const CHANGED: [&str; 2] = ["quarry:changed:", "qemu:dirty-bitmap:"];

#[derive(Clone)]
pub struct Context {
    /// By which replies name it.
    pub id: u32,
    pub kind: ContextKind,
}

#[derive(Clone)]
pub enum ContextKind {
    Allocation,
    Changed(Arc<Changes>),
}

/// The snapshot that a context's name names.
pub fn snapshot_of(name: &[u8]) -> Option<SnapshotId> {
    let name = std::str::from_utf8(name).ok()?;
    CHANGED
        .iter()
        .find_map(|prefix| parse_uuid(name.strip_prefix(prefix)?))
}

pub fn names_of(snapshot: SnapshotId) -> [String; 2] {
    CHANGED.map(|prefix| format!("{prefix}{}", format_uuid(snapshot)))
}

/// Whether a query may be about snapshots: only then they are asked for.
pub fn is_about_snapshots(query: &[u8]) -> bool {
    [&b"quarry:"[..], b"qemu:"]
        .iter()
        .any(|namespace| query.starts_with(namespace))
}

/// Only as it is always written: 8-4-4-4-12 hexadecimal digits.
fn parse_uuid(text: &str) -> Option<SnapshotId> {
    let is_formed = text.len() == 36
        && text.bytes().enumerate().all(|(at, letter)| match at {
            8 | 13 | 18 | 23 => letter == b'-',
            _ => letter.is_ascii_hexdigit(),
        });
    is_formed
        .then(|| u128::from_str_radix(&text.replace('-', ""), 16).ok())
        .flatten()
}

fn format_uuid(id: SnapshotId) -> String {
    let part = |shift: u32, digits: u32| id >> shift & ((1 << (digits * 4)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    )
}

/// Ranges that changed, ascending, each ending before the next begins.
#[derive(Default)]
pub struct Changes(Vec<Range<u64>>);

impl Changes {
    pub fn new(mut ranges: Vec<Range<u64>>) -> Changes {
        ranges.retain(|range| range.start < range.end);
        ranges.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut().filter(|last| last.end >= range.start) {
                Some(last) => last.end = last.end.max(range.end),
                None => joined.push(range),
            }
        }
        Changes(joined)
    }

    /// Adjacent runs that together cover the range, each with whether it changed, until `each` returns false.
    pub fn runs(&self, offset: u64, length: u64, each: &mut dyn FnMut(u64, bool) -> bool) {
        let end = offset.saturating_add(length);
        let mut at = offset;
        let first = self.0.partition_point(|range| range.end <= offset);
        for range in self.0.get(first..).unwrap_or_default() {
            if range.start >= end {
                break;
            }
            if range.start > at {
                if !each(range.start - at, false) {
                    return;
                }
                at = range.start;
            }
            let past = range.end.min(end);
            if !each(past - at, true) {
                return;
            }
            at = past;
        }
        if at < end {
            each(end - at, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_as_it_is_written_and_nothing_else_is_taken_for_one() {
        let id = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
        for name in names_of(id) {
            assert_eq!(snapshot_of(name.as_bytes()), Some(id));
            assert_eq!(snapshot_of(&name.as_bytes()[..name.len() - 1]), None);
            assert!(is_about_snapshots(name.as_bytes()));
        }
        assert_eq!(
            names_of(id)[0],
            "quarry:changed:01234567-89ab-cdef-0011-223344556677"
        );
        for name in [
            "quarry:changed:",
            "qemu:dirty-bitmap:x",
            "qemu:allocation-depth",
            "base:allocation",
            "quarry:changed:0123456789abcdef00112233445566770000",
            "quarry:changed:+1234567-89ab-cdef-0011-223344556677",
        ] {
            assert_eq!(snapshot_of(name.as_bytes()), None, "{name}");
        }
        assert_eq!(snapshot_of(b"\xff"), None);
    }

    #[test]
    fn runs_cover_exactly_what_was_asked_for() {
        let changes = Changes::new(vec![40..50, 10..20, 20..30, 5..5]);
        let runs = |offset, length, most: usize| {
            let mut found = Vec::new();
            changes.runs(offset, length, &mut |run, is_changed| {
                found.push((run, is_changed));
                found.len() < most
            });
            found
        };
        let all = [
            (10, false),
            (20, true),
            (10, false),
            (10, true),
            (50, false),
        ];
        assert_eq!(runs(0, 100, 9), all);
        assert_eq!(runs(0, 100, 2), all[..2]);
        assert_eq!(runs(15, 3, 9), [(3, true)]);
        assert_eq!(runs(30, 10, 9), [(10, false)]);
        assert_eq!(runs(29, 12, 9), [(1, true), (10, false), (1, true)]);
        assert_eq!(runs(50, 1, 9), [(1, false)]);
    }
}
