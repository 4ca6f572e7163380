//! Extended headers: 32 bytes each way, lengths of 64 bits, and a payload for whoever says so.

use plane::limits::Limits;

use super::support::client::*;
use super::*;

const EXTENDED_HEADERS: u32 = 11;
const PAYLOAD_LEN: u16 = 32;
const TIB: u64 = 1 << 40;

fn ready(fixture: &Fixture, contexts: &[&str]) -> Client {
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(client.ask(EXTENDED_HEADERS, &[])[0].kind, ACK);
    if !contexts.is_empty() {
        client.ask(10, &context_data("disk", contexts));
    }
    let replies = client.ask(7, &info_data("disk", &[]));
    assert_eq!(replies.last().unwrap().kind, ACK);
    client
}

fn write(client: &mut Client, offset: u64, data: &[u8]) -> u32 {
    let header = extended(PAYLOAD_LEN, WRITE, 5, offset, data.len() as u64);
    client.say(&[header, data.to_vec()].concat());
    client.extended_result(5, offset)
}

/// Context id and descriptors of one status chunk.
fn status(payload: &[u8]) -> (u32, Vec<(u64, u64)>) {
    let word = |at: usize| u64::from_be_bytes(payload[at..at + 8].try_into().unwrap());
    let found: Vec<_> = (8..payload.len())
        .step_by(16)
        .map(|at| (word(at), word(at + 8)))
        .collect();
    assert_eq!(payload[4..8], be32(found.len() as u32));
    (u32::from_be_bytes(payload[..4].try_into().unwrap()), found)
}

#[test]
fn the_option_takes_precedence_and_cannot_be_taken_back() {
    let fixture = fixture();
    let mut client = Client::greeted(&fixture.path);
    let flags = |client: &mut Client| {
        let data = &client.ask(6, &info_data("disk", &[]))[0].data;
        u16::from_be_bytes(data[10..12].try_into().unwrap())
    };
    assert_eq!(client.ask(8, &[])[0].kind, ACK);
    assert_eq!(client.ask(EXTENDED_HEADERS, b"x")[0].kind, ERR | 3);
    assert_eq!(client.ask(EXTENDED_HEADERS, &[])[0].kind, ACK);
    assert_eq!(client.ask(8, &[])[0].kind, ERR | 10);
    // DF, and a payload for block status only once there is something to choose from.
    assert_eq!(flags(&mut client) & (1 << 7 | 1 << 12), 1 << 7);
    client.ask(10, &context_data("disk", &["base:allocation"]));
    assert_eq!(flags(&mut client) & 1 << 12, 1 << 12);
    client.say(&option(1, b"disk"));
    client.assert_closed();
    let mut client = ready(&fixture, &[]);
    client.say(&request(0, READ, 1, 0, 1));
    client.say(&[0; 4]);
    client.assert_closed();
}

#[test]
fn every_reply_is_an_extended_one() {
    let fixture = fixture();
    let mut client = ready(&fixture, &[]);
    assert_eq!(write(&mut client, 65536 + 10, b"hello"), 0);
    client.say(&extended(0, READ, 7, 65530, 24));
    let (flags, kind, payload) = client.extended_chunk(7, 65530);
    assert_eq!(
        (flags, kind, &payload[..]),
        (0, 2, &[be64(65530), be32(6)].concat()[..])
    );
    let (flags, kind, payload) = client.extended_chunk(7, 65530);
    assert_eq!((flags, kind, &payload[..8]), (1, 1, &be64(65536)[..]));
    assert_eq!(&payload[18..23], b"hello");
    client.say(&extended(DF, READ, 8, 65530, 24));
    let (flags, kind, payload) = client.extended_chunk(8, 65530);
    assert_eq!((flags, kind, payload.len()), (1, 1, 32));
    assert_eq!(client.extended_errno(0, FLUSH, 0, 0), 0);
    assert_eq!(client.extended_errno(FUA, TRIM, 0, 4096), 0);
    assert_eq!(client.extended_errno(0, READ, 1 << 20, 1), EINVAL);
    assert_eq!(client.extended_errno(0, READ, 0, (32 << 20) + 1), EINVAL);
    assert_eq!(client.extended_errno(0, 99, 3, 4), EINVAL);
    assert_eq!(client.extended_errno(0, ZERO, u64::MAX, u64::MAX), ENOSPC);
}

#[test]
fn a_payload_is_what_the_flag_says_and_unwanted_ones_are_swallowed() {
    let fixture = fixture();
    let mut client = ready(&fixture, &[]);
    // A write that has none, then commands that may have none.
    assert_eq!(client.extended_errno(0, WRITE, 0, 4096), EINVAL);
    for command in [READ, FLUSH, TRIM, CACHE, ZERO, 99] {
        client.say(&extended(PAYLOAD_LEN, command, 1, 0, 5));
        client.say(b"bytes");
        assert_eq!(client.extended_result(1, 0), EINVAL);
    }
    // Too long: skipped up to 64 MiB, and the end of the connection beyond.
    client.say(&extended(PAYLOAD_LEN, WRITE, 2, 0, (32 << 20) + 1));
    client.say(&vec![1; (32 << 20) + 1]);
    assert_eq!(client.extended_result(2, 0), EINVAL);
    assert_eq!(write(&mut client, 0, b"in step"), 0);
    client.say(&extended(PAYLOAD_LEN, WRITE, 3, 0, u64::MAX));
    client.assert_closed();
}

#[test]
fn effects_may_be_longer_than_32_bits_can_say() {
    let fixture = fixture_with(Limits::default(), TIB / 64);
    let mut client = ready(&fixture, &["base:allocation"]);
    assert_eq!(write(&mut client, 5 << 30, b"x"), 0);
    assert_eq!(write(&mut client, 0, b"x"), 0);
    client.say(&extended(0, STATUS, 1, 4096, (8 << 30) + 4096));
    let (flags, kind, payload) = client.extended_chunk(1, 4096);
    assert_eq!((flags, kind), (1, 6));
    let descriptors = [
        (65536 - 4096, 0),
        ((5 << 30) - 65536, 3),
        (65536, 0),
        ((3 << 30) + 8192 - 65536, 3),
    ];
    assert_eq!(status(&payload), (1, descriptors.to_vec()));
    for command in [ZERO, TRIM, CACHE] {
        assert_eq!(client.extended_errno(0, command, 0, 6 << 30), 0);
    }
    client.say(&extended(REQ_ONE, STATUS, 2, 0, 6 << 30));
    let (_, _, payload) = client.extended_chunk(2, 0);
    assert_eq!(status(&payload), (1, vec![(6 << 30, 3)]));
    assert_eq!(client.extended_errno(0, TRIM, 1, TIB / 64), EINVAL);
    assert_eq!(client.extended_errno(0, STATUS, 0, 0), EINVAL);
}

#[test]
fn a_block_status_with_a_payload_is_about_the_contexts_in_it() {
    let fixture = fixture();
    let id = 7u128;
    fixture
        .memory
        .script(|script| script.snapshots = vec![(id, vec![0..4096, 9000..9001])]);
    let changed = "quarry:changed:00000000-0000-0000-0000-000000000007";
    let mut client = ready(&fixture, &["base:allocation", changed]);
    let mut ask = |payload: &[u8]| {
        client.say(&extended(PAYLOAD_LEN, STATUS, 1, 0, payload.len() as u64));
        client.say(payload);
        let (flags, kind, payload) = client.extended_chunk(1, 0);
        (flags, kind, payload)
    };
    let payload = |length: u64, ids: &[u32]| -> Vec<u8> {
        [
            be64(length),
            ids.iter().flat_map(|id| id.to_be_bytes()).collect(),
        ]
        .concat()
    };
    let (flags, kind, found) = ask(&payload(8192, &[2]));
    assert_eq!((flags, kind), (1, 6));
    assert_eq!(status(&found), (2, vec![(4096, 1), (4096, 0)]));
    // No id, one that is not there, one twice, half of one, no length, a length of none and one past the end.
    for bad in [
        payload(8192, &[]),
        payload(8192, &[3]),
        payload(8192, &[1, 1]),
        [payload(8192, &[1]), vec![0; 2]].concat(),
        vec![0; 7],
        payload(0, &[1]),
        payload(1 << 21, &[1]),
    ] {
        let (flags, kind, found) = ask(&bad);
        assert_eq!(
            (flags, kind, &found[..4]),
            (1, 0x8001, &be32(EINVAL)[..]),
            "{bad:?}"
        );
    }
    let (flags, _, found) = ask(&payload(4096, &[2, 1]));
    assert_eq!((flags, status(&found)), (0, (2, vec![(4096, 1)])));
    let (flags, _, found) = client.extended_chunk(1, 0);
    assert_eq!((flags, status(&found)), (1, (1, vec![(4096, 3)])));
}

/// Zeroing terabytes for a client that is gone would keep an io thread from everybody else.
#[test]
fn a_long_request_ends_with_its_connection() {
    let fixture = fixture_with(Limits::default(), TIB / 64);
    let mut client = ready(&fixture, &[]);
    fixture
        .memory
        .script(|script| script.slow = Some(0..1 << 20));
    client.say(&extended(NO_HOLE, ZERO, 1, 0, TIB / 64));
    fixture.memory.wait_until(|script| script.waiting == 1);
    drop(client);
    eventually("the connection is over", || {
        fixture.server.stats().connections == 0
    });
    fixture.memory.script(|script| script.slow = None);
    fixture.memory.wait_until(|script| script.entered == 0);
    assert!(fixture.memory.held_bytes() < 1 << 30);
}

/// A long read is answered in pieces, by one request's rest after the other; its reply goes on naming the offset that was asked for.
#[test]
fn a_read_in_pieces_repeats_the_offset_it_was_asked_with() {
    let fixture = fixture_with(Limits::default(), 8 << 20);
    let mut client = ready(&fixture, &[]);
    let bytes: Vec<u8> = (0..4u32 << 20).map(|index| (index % 251) as u8).collect();
    assert_eq!(write(&mut client, 10, &bytes), 0);
    client.say(&extended(0, READ, 9, 10, 4 << 20));
    let (mut found, mut chunks) = (Vec::new(), 0);
    loop {
        let (flags, kind, payload) = client.extended_chunk(9, 10);
        assert_eq!(
            (kind, &payload[..8]),
            (1, &be64(10 + found.len() as u64)[..])
        );
        found.extend_from_slice(&payload[8..]);
        chunks += 1;
        if flags == 1 {
            break;
        }
    }
    assert!(chunks > 1 && found == bytes);
}

/// It once went through all of a volume of many terabytes, and had its whole map in memory at the end.
#[test]
fn a_cache_of_a_whole_volume_fetches_no_more_than_compact_headers_could_ask_for() {
    let fixture = fixture_with(Limits::default(), 16 << 30);
    fixture.memory.script(|_| ());
    let mut client = ready(&fixture, &[]);
    assert_eq!(client.extended_errno(0, CACHE, 0, 16 << 30), 0);
    assert_eq!(fixture.memory.script(|script| script.cached), 4 << 30);
    assert_eq!(client.extended_errno(0, CACHE, 4096, 5 << 20), 0);
    let all = (4 << 30) + (5 << 20);
    assert_eq!(fixture.memory.script(|script| script.cached), all);
    assert_eq!(client.extended_errno(0, CACHE, 1, 16 << 30), EINVAL);
}
