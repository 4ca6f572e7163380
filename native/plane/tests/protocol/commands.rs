//! Commands, one by one: replies, errors, and the shapes of replies.

use std::io::Write;

use plane::backing::IoError;
use plane::limits::Limits;

use super::support::client::*;
use super::*;

#[test]
fn simple_replies_serve_every_command() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    let data: Vec<u8> = (0..200_000u32).map(|byte| byte as u8).collect();
    assert_eq!(client.write(0, 1001, &data), 0);
    assert_eq!(client.read(1001, 200_000), data);
    assert_eq!(client.read(0, 1001), vec![0; 1001]);
    assert_eq!(client.errno(0, ZERO, 1001, 9), 0);
    assert_eq!(client.read(1001, 10), [&[0; 9][..], &data[9..10]].concat());
    assert_eq!(client.errno(FUA, TRIM, 65536, 65536), 0);
    assert_eq!(client.read(65536, 65536), vec![0; 65536]);
    assert_eq!(client.errno(0, CACHE, 0, 1 << 20), 0);
    assert_eq!(client.errno(0, FLUSH, 0, 0), 0);
    assert_eq!(client.write(FUA, 0, b"durable"), 0);
    // Without payload, no status without structured replies.
    assert_eq!(client.errno(0, STATUS, 0, 4096), EINVAL);
    assert_eq!(client.errno(DF, READ, 0, 4096), EINVAL);
}

#[test]
fn zero_length_requests_succeed_and_do_nothing() {
    let fixture = fixture();
    for is_structured in [false, true] {
        let mut client = Client::ready(&fixture.path, is_structured);
        for command in [READ, WRITE, TRIM, CACHE, ZERO] {
            for offset in [0, 5, 1 << 20] {
                assert_eq!(
                    client.errno(0, command, offset, 0),
                    0,
                    "command {command} at {offset}"
                );
            }
        }
        assert_eq!(client.errno(0, STATUS, 0, 0), EINVAL);
    }
}

#[test]
fn structured_reads_send_holes_without_their_bytes() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, true);
    assert_eq!(client.write(0, 65536, &[7; 65536]), 0);
    client.say(&request(0, READ, 5, 0, 1 << 20));
    let hole = |flags, offset, length| Reply::Chunk {
        cookie: 5,
        flags,
        kind: 2,
        payload: [be64(offset), be32(length)].concat(),
    };
    assert_eq!(client.reply(), hole(0, 0, 65536));
    let data = [be64(65536), vec![7; 65536]].concat();
    assert_eq!(
        client.reply(),
        Reply::Chunk {
            cookie: 5,
            flags: 0,
            kind: 1,
            payload: data
        }
    );
    assert_eq!(client.reply(), hole(1, 131072, (1 << 20) - 131072));
    // DF: one chunk, zeros and all.
    client.say(&request(DF, READ, 6, 65000, 1000));
    let data = [be64(65000), vec![0; 536], vec![7; 464]].concat();
    assert_eq!(
        client.reply(),
        Reply::Chunk {
            cookie: 6,
            flags: 1,
            kind: 1,
            payload: data
        }
    );
}

/// Puts the chunks of one read together, and says how long each piece of data was.
fn assembled(client: &mut Client, offset: u64, length: usize) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = vec![0xee; length];
    let mut pieces = Vec::new();
    let mut at = offset;
    loop {
        let Reply::Chunk {
            flags,
            kind,
            payload,
            ..
        } = client.reply()
        else {
            panic!("a simple reply");
        };
        assert_eq!(payload[..8], be64(at), "chunks follow each other");
        let start = (at - offset) as usize;
        let part = if kind == 1 {
            let data = &payload[8..];
            bytes[start..start + data.len()].copy_from_slice(data);
            pieces.push(data.len());
            data.len()
        } else {
            assert_eq!(kind, 2);
            let part = u32::from_be_bytes(payload[8..].try_into().unwrap()) as usize;
            bytes[start..start + part].fill(0);
            part
        };
        at += part as u64;
        if flags == 1 {
            assert_eq!(at, offset + length as u64);
            return (bytes, pieces);
        }
    }
}

#[test]
fn long_structured_reads_come_in_pieces_that_end_where_extents_do() {
    let fixture = fixture_with(Limits::default(), 64 << 20);
    let mut client = Client::ready(&fixture.path, true);
    let data: Vec<u8> = (0..1_500_000u32).map(|byte| (byte / 7) as u8).collect();
    assert_eq!(client.write(0, 70_000, &data), 0);
    client.say(&request(0, READ, 5, 65_000, 2_000_000));
    let (bytes, pieces) = assembled(&mut client, 65_000, 2_000_000);
    assert_eq!(bytes[5000..1_505_000], data);
    assert!(bytes[..5000].iter().all(|byte| *byte == 0));
    assert!(pieces.len() > 4, "{pieces:?}");
    assert!(pieces.iter().all(|piece| *piece <= 256 << 10), "{pieces:?}");
    // Whole when the client says so; and a hole is one chunk however long it is.
    client.say(&request(DF, READ, 6, 65_000, 2_000_000));
    assert_eq!(assembled(&mut client, 65_000, 2_000_000).1, [2_000_000]);
    client.say(&request(0, READ, 7, 32 << 20, 32 << 20));
    let hole = Reply::Chunk {
        cookie: 7,
        flags: 1,
        kind: 2,
        payload: [be64(32 << 20), be32(32 << 20)].concat(),
    };
    assert_eq!(client.reply(), hole);
}

#[test]
fn block_status_tells_holes_from_data() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, true);
    assert_eq!(client.write(0, 65536, &[7; 65536]), 0);
    let status = |runs: &[(u32, u32)]| -> Vec<u8> {
        [
            be32(1),
            runs.iter()
                .flat_map(|(length, flags)| [be32(*length), be32(*flags)].concat())
                .collect(),
        ]
        .concat()
    };
    client.say(&request(0, STATUS, 5, 100, (1 << 20) - 100));
    let all = status(&[(65436, 3), (65536, 0), ((1 << 20) - 131072, 3)]);
    assert_eq!(
        client.reply(),
        Reply::Chunk {
            cookie: 5,
            flags: 1,
            kind: 5,
            payload: all
        }
    );
    client.say(&request(REQ_ONE, STATUS, 6, 65536, 131072));
    assert_eq!(
        client.reply(),
        Reply::Chunk {
            cookie: 6,
            flags: 1,
            kind: 5,
            payload: status(&[(65536, 0)])
        }
    );
}

#[test]
fn errors_carry_their_number_and_a_message() {
    let fixture = fixture();
    publish_more(&fixture);
    for is_structured in [false, true] {
        let mut client = Client::ready(&fixture.path, is_structured);
        let end = 1 << 20;
        assert_eq!(client.errno(0, READ, end, 1), EINVAL);
        assert_eq!(client.errno(0, READ, u64::MAX, 4096), EINVAL);
        assert_eq!(client.errno(0, READ, 0, (32 << 20) + 1), EINVAL);
        assert_eq!(client.errno(0, TRIM, end - 1, 2), EINVAL);
        assert_eq!(client.errno(0, CACHE, end - 1, 2), EINVAL);
        assert_eq!(client.errno(0, ZERO, end - 1, 2), ENOSPC);
        assert_eq!(client.write(0, end - 1, b"ab"), ENOSPC);
        assert_eq!(client.errno(0, 9, 0, 0), EINVAL);
        assert_eq!(client.errno(0, FLUSH, 0, 1), EINVAL);
        for (flag, command) in [
            (NO_HOLE, READ),
            (REQ_ONE, READ),
            (DF, TRIM),
            (FAST_ZERO, TRIM),
            (NO_HOLE, CACHE),
            (1 << 15, ZERO),
        ] {
            assert_eq!(
                client.errno(flag, command, 0, 1),
                EINVAL,
                "flag {flag} of {command}"
            );
        }
        assert_eq!(client.write(DF, 0, b"ab"), EINVAL);
        assert_eq!(client.errno(NO_HOLE | FAST_ZERO, ZERO, 0, 4096), ENOTSUP);
        for command in [READ, FLUSH, TRIM] {
            assert_eq!(client.errno(FUA, command, 0, 0), 0);
        }
        for (failure, errno) in [
            (IoError::NoSpace, ENOSPC),
            (IoError::Failed, EIO),
            (IoError::ShuttingDown, ESHUTDOWN),
        ] {
            fixture
                .memory
                .script(|script| script.failure = Some(failure));
            assert_eq!(client.write(0, 0, b"ab"), errno);
            assert_eq!(client.errno(0, READ, 0, 2), errno);
            assert_eq!(client.errno(0, FLUSH, 0, 0), errno);
            fixture.memory.script(|script| script.failure = None);
        }
        assert_eq!(client.write(0, 0, b"ab"), 0);
    }
    let mut client = Client::ready(&fixture.path, true);
    client.say(&request(0, READ, 3, 1 << 20, 1));
    let Reply::Chunk {
        kind: 0x8001,
        payload,
        ..
    } = client.reply()
    else {
        panic!("no error chunk")
    };
    assert_eq!(
        u16::from_be_bytes([payload[4], payload[5]]) as usize,
        payload.len() - 6
    );
    assert!(
        String::from_utf8(payload[6..].to_vec())
            .unwrap()
            .contains("past the end")
    );
}

#[test]
fn a_read_only_export_refuses_writes_and_serves_reads() {
    let fixture = fixture();
    publish_more(&fixture);
    let mut client = Client::greeted(&fixture.path);
    client.ask(7, &info_data("a-copy", &[]));
    assert_eq!(client.write(0, 0, b"ab"), EPERM);
    assert_eq!(client.write(0, 0, &vec![1; 1 << 20]), EPERM);
    assert_eq!(client.errno(0, TRIM, 0, 4096), EPERM);
    assert_eq!(client.errno(0, ZERO, 0, 4096), EPERM);
    assert_eq!(client.read(0, 2), [0, 0]);
    assert_eq!(client.errno(0, FLUSH, 0, 0), 0);
}

#[test]
fn payloads_up_to_the_limit_are_served_longer_ones_skipped_and_absurd_ones_end_the_connection() {
    let fixture = fixture_with(Limits::default(), 64 << 20);
    let mut client = Client::ready(&fixture.path, false);
    let largest: Vec<u8> = (0..32u32 << 20).map(|byte| (byte / 4096) as u8).collect();
    assert_eq!(client.write(0, 4096, &largest), 0);
    assert!(client.read(4096, 32 << 20) == largest);
    assert_eq!(client.write(0, 0, &vec![1; (32 << 20) + 1]), EINVAL);
    assert_eq!(client.read(0, 4), [0; 4], "nothing of it was written");
    client.say(&request(0, WRITE, 1, 0, (64 << 20) + 1));
    client.assert_closed();
}

#[test]
fn a_batch_is_answered_request_by_request_in_order() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    let mut batch = Vec::new();
    for number in 0..600u64 {
        batch.extend(request(0, WRITE, 2 * number, number * 1000, 1000));
        batch.extend(vec![number as u8; 1000]);
        batch.extend(request(0, READ, 2 * number + 1, number * 1000, 1000));
    }
    let mut writer = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || writer.write_all(&batch).unwrap());
    for number in 0..600u64 {
        assert_eq!(
            client.reply(),
            Reply::Simple {
                cookie: 2 * number,
                errno: 0
            }
        );
        assert_eq!(
            client.reply(),
            Reply::Simple {
                cookie: 2 * number + 1,
                errno: 0
            }
        );
        assert_eq!(client.take(1000), vec![number as u8; 1000]);
    }
    sending.join().unwrap();
    let stats = fixture.server.export_stats(&(fixture.memory.clone() as _));
    eventually("counted", || {
        fixture
            .server
            .export_stats(&(fixture.memory.clone() as _))
            .read_ops
            == 600
    });
    assert_eq!((stats.connections, stats.write_bytes), (1, 600_000));
}

#[test]
fn requests_that_arrive_byte_by_byte_are_understood() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    let bytes = [
        request(0, WRITE, 1, 10, 5),
        b"hello".to_vec(),
        request(0, READ, 2, 10, 5),
    ]
    .concat();
    for byte in bytes {
        client.say(&[byte]);
    }
    assert_eq!(client.reply().errno(), 0);
    assert_eq!(client.reply().errno(), 0);
    assert_eq!(client.take(5), b"hello");
}

// ---- flush, out of order, held up
