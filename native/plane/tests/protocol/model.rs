//! A long random walk of one client, checked against a plain array: whatever shape replies have, they say what was written.

use super::support::client::*;
use super::*;

const SIZE: u64 = 4 << 20;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The data of one structured READ; every byte of it exactly once.
fn read_structured(client: &mut Client, flags: u16, offset: u64, length: u32) -> Vec<u8> {
    client.say(&request(flags, READ, 9, offset, length));
    let mut data = vec![0u8; length as usize];
    let mut is_covered = vec![false; length as usize];
    let mut chunks = 0;
    loop {
        let Reply::Chunk {
            cookie: 9,
            flags: chunk_flags,
            kind,
            payload,
        } = client.reply()
        else {
            panic!("not a chunk of this read")
        };
        chunks += 1;
        if kind != 0 {
            let at = u64::from_be_bytes(payload[..8].try_into().unwrap());
            let start = (at - offset) as usize;
            let end = match kind {
                1 => {
                    assert!(payload.len() > 8);
                    data[start..start + payload.len() - 8].copy_from_slice(&payload[8..]);
                    start + payload.len() - 8
                }
                2 => start + u32::from_be_bytes(payload[8..12].try_into().unwrap()) as usize,
                other => panic!("a chunk of type {other}"),
            };
            assert!(end > start);
            for byte in &mut is_covered[start..end] {
                assert!(!std::mem::replace(byte, true), "a byte was sent twice");
            }
        }
        if chunk_flags & 1 == 1 {
            break;
        }
    }
    assert!(flags & DF == 0 || chunks == 1);
    assert!(is_covered.iter().all(|is_covered| *is_covered));
    data
}

/// Each run's length and whether it is a hole, up to the end of the range or to where the server stopped.
fn status(client: &mut Client, flags: u16, offset: u64, length: u32) -> Vec<(u32, bool)> {
    client.say(&request(flags, STATUS, 9, offset, length));
    let Reply::Chunk {
        flags: 1,
        kind: 5,
        payload,
        ..
    } = client.reply()
    else {
        panic!("not a block status")
    };
    payload[4..]
        .chunks(8)
        .map(|run| {
            let field = |at: usize| u32::from_be_bytes(run[at..at + 4].try_into().unwrap());
            assert!(matches!(field(4), 0 | 3));
            (field(0), field(4) == 3)
        })
        .collect()
}

#[test]
fn a_random_walk_reads_what_was_written() {
    let fixture = fixture_with(plane::limits::Limits::default(), SIZE);
    let mut client = Client::ready(&fixture.path, true);
    let mut model = vec![0u8; SIZE as usize];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for step in 0..3000 {
        let offset = random.below(SIZE);
        let longest = if random.below(4) == 0 { SIZE } else { 70_000 };
        let length = (1 + random.below(longest)).min(SIZE - offset);
        let range = offset as usize..(offset + length) as usize;
        match random.below(10) {
            0..4 => {
                let data = vec![step as u8 | 1; length as usize];
                assert_eq!(client.write((step % 2) as u16 * FUA, offset, &data), 0);
                model[range].copy_from_slice(&data);
            }
            4 => {
                assert_eq!(client.errno(0, TRIM, offset, length as u32), 0);
                model[range].fill(0);
            }
            5 => {
                let flags = random.below(2) as u16 * NO_HOLE;
                assert_eq!(client.errno(flags, ZERO, offset, length as u32), 0);
                model[range].fill(0);
            }
            6 => {
                let flags = random.below(2) as u16 * REQ_ONE;
                let runs = status(&mut client, flags, offset, length as u32);
                assert!(flags == 0 || runs.len() == 1);
                assert!(runs.windows(2).all(|pair| pair[0].1 != pair[1].1));
                let mut at = range.start;
                for (run, is_hole) in runs {
                    let end = at + run as usize;
                    assert!(run > 0 && end <= range.end);
                    assert!(!is_hole || model[at..end].iter().all(|byte| *byte == 0));
                    at = end;
                }
                assert!(flags != 0 || at == range.end);
            }
            _ => {
                let flags = random.below(2) as u16 * DF;
                let data = read_structured(&mut client, flags, offset, length as u32);
                assert!(data == model[range], "step {step}: {length} at {offset}");
            }
        }
    }
}
