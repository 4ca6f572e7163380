//! The protocol layer from the outside, byte by byte, over a backing in memory that can be held up, fenced and failed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support {
    pub mod client;
    pub mod memory;
}

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use plane::backing::IoError;
use plane::export::ExportSpec;
use plane::limits::Limits;
use plane::server::Server;
use support::client::*;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const CACHE: u16 = 5;
const ZERO: u16 = 6;
const STATUS: u16 = 7;

const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const DF: u16 = 4;
const REQ_ONE: u16 = 8;
const FAST_ZERO: u16 = 16;

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOTSUP: u32 = 95;
const ESHUTDOWN: u32 = 108;

const ACK: u32 = 1;
const ERR: u32 = 1 << 31;

fn publish_more(fixture: &Fixture) {
    let spec = |read_only| ExportSpec {
        backing: fixture.memory.clone(),
        read_only,
        description: String::new(),
    };
    fixture.server.publish("a-copy".into(), spec(true));
}

/// Counters are written after the reply that they count, so a test may have to wait a moment.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

// ---- handshake

#[test]
fn export_name_answers_size_and_flags_with_or_without_zeroes() {
    let fixture = fixture();
    for (flags, zeroes) in [(3, 0), (1, 124)] {
        let mut client = Client::connect(&fixture.path);
        client.take(18);
        client.say(&be32(flags));
        client.say(&option(1, b"disk"));
        assert_eq!(client.take(8), be64(1 << 20));
        let transmission = u16::from_be_bytes(client.take(2).try_into().unwrap());
        // No DF: structured replies were not negotiated.
        assert_eq!(
            transmission,
            1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
        );
        assert_eq!(client.take(zeroes), vec![0; zeroes]);
        assert_eq!(client.write(0, 0, b"abc"), 0);
        assert_eq!(client.read(0, 3), b"abc");
    }
}

#[test]
fn export_name_of_an_unknown_export_closes() {
    let fixture = fixture();
    for name in [&b"nothing"[..], b"", b"\xff\xfe", &[b'x'; 5000]] {
        let mut client = Client::greeted(&fixture.path);
        client.say(&option(1, name));
        client.assert_closed();
    }
    eventually("failed handshakes are counted", || {
        fixture.server.stats().handshakes_failed == 4
    });
}

#[test]
fn unknown_client_flags_and_a_wrong_option_magic_close() {
    let fixture = fixture();
    let mut client = Client::connect(&fixture.path);
    client.take(18);
    client.say(&be32(7));
    client.assert_closed();
    let mut client = Client::greeted(&fixture.path);
    client.say(&[0x55; 16]);
    client.assert_closed();
}

#[test]
fn list_names_every_export_with_its_description() {
    let fixture = fixture();
    publish_more(&fixture);
    let mut client = Client::greeted(&fixture.path);
    let replies = client.ask(3, &[]);
    let entry = |name: &[u8], text: &[u8]| [counted(name), text.to_vec()].concat();
    assert_eq!(
        replies
            .iter()
            .map(|reply| (reply.kind, reply.data.clone()))
            .collect::<Vec<_>>(),
        [
            (2, entry(b"a-copy", b"")),
            (2, entry(b"disk", b"the first disk")),
            (ACK, vec![]),
        ]
    );
    assert_eq!(client.ask(3, b"x")[0].kind, ERR | 3);
    assert_eq!(client.ask(2, &[])[0].kind, ACK);
    client.assert_closed();
}

#[test]
fn info_tells_what_was_asked_and_go_begins_transmission() {
    let fixture = fixture();
    publish_more(&fixture);
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(client.ask(8, &[])[0].kind, ACK);
    let replies = client.ask(6, &info_data("disk", &[1, 2, 3]));
    let find = |kind: u16| {
        replies
            .iter()
            .find(|reply| reply.kind == 3 && reply.data[..2] == be16(kind))
            .map(|reply| reply.data[2..].to_vec())
    };
    assert_eq!(find(0).unwrap(), [be64(1 << 20), be16(0xded)].concat());
    assert_eq!(find(1).unwrap(), b"disk");
    assert_eq!(find(2).unwrap(), b"the first disk");
    assert_eq!(
        find(3).unwrap(),
        [be32(1), be32(4096), be32(32 << 20)].concat()
    );
    let read_only = client.ask(6, &info_data("a-copy", &[]));
    let flags = u16::from_be_bytes(read_only[0].data[10..12].try_into().unwrap());
    assert_eq!(flags & 2, 2);
    for name in ["", "nope"] {
        let unknown = client.ask(7, &info_data(name, &[]));
        assert_eq!((unknown.len(), unknown[0].kind), (1, ERR | 6));
        assert!(
            String::from_utf8(unknown[0].data.clone())
                .unwrap()
                .contains("no export")
        );
    }
    assert_eq!(
        client.ask(7, &info_data("disk", &[3])).last().unwrap().kind,
        ACK
    );
    assert_eq!(client.errno(0, FLUSH, 0, 0), 0);
}

#[test]
fn malformed_and_unknown_options_are_refused_and_haggling_goes_on() {
    let fixture = fixture();
    let mut client = Client::greeted(&fixture.path);
    let good = info_data("disk", &[1, 2]);
    for cut in 0..good.len() {
        assert_eq!(client.ask(6, &good[..cut])[0].kind, ERR | 3, "cut at {cut}");
    }
    assert_eq!(client.ask(6, &[&good[..], b"x"].concat())[0].kind, ERR | 3);
    assert_eq!(
        client.ask(6, &[be32(u32::MAX), vec![0; 20]].concat())[0].kind,
        ERR | 3
    );
    // PEEK, STARTTLS, EXTENDED_HEADERS, and one nobody knows.
    for kind in [4, 5, 11, 0xdead] {
        assert_eq!(client.ask(kind, b"some data")[0].kind, ERR | 1);
    }
    assert_eq!(client.ask(0xdead, &vec![1; 64 << 10])[0].kind, ERR | 1);
    assert_eq!(
        client.ask(0xdead, &vec![1; (64 << 10) + 1])[0].kind,
        ERR | 9
    );
    assert_eq!(client.ask(8, b"x")[0].kind, ERR | 3);
    assert_eq!(
        client.ask(7, &info_data("disk", &[])).last().unwrap().kind,
        ACK
    );
}

#[test]
fn a_name_of_4096_bytes_is_served_and_a_longer_one_refused() {
    let fixture = fixture();
    let name = "n".repeat(4096);
    fixture.server.publish(
        name.clone(),
        ExportSpec {
            backing: fixture.memory.clone(),
            read_only: false,
            description: String::new(),
        },
    );
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(
        client.ask(6, &info_data(&format!("{name}n"), &[]))[0].kind,
        ERR | 3
    );
    assert_eq!(
        client.ask(7, &info_data(&name, &[])).last().unwrap().kind,
        ACK
    );
}

#[test]
fn meta_contexts_need_structured_replies_and_match_by_namespace_or_name() {
    let fixture = fixture();
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(
        client.ask(10, &context_data("disk", &["base:allocation"]))[0].kind,
        ERR | 3
    );
    client.ask(8, &[]);
    let names = |replies: Vec<OptionReply>| -> Vec<String> {
        assert_eq!(replies.last().unwrap().kind, ACK);
        replies
            .iter()
            .filter(|reply| reply.kind == 4)
            .map(|reply| String::from_utf8(reply.data[4..].to_vec()).unwrap())
            .collect()
    };
    for queries in [
        &[][..],
        &["base:"],
        &["base:allocation"],
        &["qemu:", "base:allocation", "base:"],
    ] {
        assert_eq!(
            names(client.ask(9, &context_data("disk", queries))),
            ["base:allocation"]
        );
    }
    assert!(
        names(client.ask(
            9,
            &context_data("disk", &["qemu:dirty-bitmap:x", "base:other"])
        ))
        .is_empty()
    );
    // SET selects by full name only; none is fine.
    for queries in [&[][..], &["base:"], &["x-y:z"]] {
        assert!(names(client.ask(10, &context_data("disk", queries))).is_empty());
    }
    assert_eq!(
        names(client.ask(
            10,
            &context_data("disk", &["base:allocation", "base:allocation"])
        )),
        ["base:allocation"]
    );
    assert_eq!(
        client.ask(10, &context_data("nope", &["base:allocation"]))[0].kind,
        ERR | 6
    );
    let good = context_data("disk", &["base:allocation"]);
    for cut in 0..good.len() {
        assert_eq!(client.ask(9, &good[..cut])[0].kind, ERR | 3, "cut at {cut}");
    }
    // The failed SET above voided the selection.
    client.ask(7, &info_data("disk", &[]));
    assert_eq!(client.errno(0, STATUS, 0, 4096), EINVAL);
}

#[test]
fn contexts_selected_for_another_export_do_not_count() {
    let fixture = fixture();
    publish_more(&fixture);
    let mut client = Client::greeted(&fixture.path);
    client.ask(8, &[]);
    client.ask(10, &context_data("a-copy", &["base:allocation"]));
    client.ask(7, &info_data("disk", &[]));
    assert_eq!(client.errno(0, STATUS, 0, 4096), EINVAL);
}

#[test]
fn a_client_gets_a_thousand_options_and_no_more() {
    let fixture = fixture();
    let mut client = Client::greeted(&fixture.path);
    for _ in 0..1000 {
        assert_eq!(client.ask(4, &[])[0].kind, ERR | 1);
    }
    client.assert_closed();
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let fixture = fixture_with(
        Limits {
            handshake: Duration::from_millis(50),
            ..Limits::default()
        },
        1 << 20,
    );
    for said in [
        &b""[..],
        &be32(3),
        &[be32(3), option(3, &[])[..9].to_vec()].concat(),
    ] {
        let mut client = Client::connect(&fixture.path);
        client.take(18);
        client.say(said);
        client.assert_closed();
    }
    eventually("counted", || fixture.server.stats().handshakes_failed == 3);
}

// ---- commands

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

#[test]
fn a_flush_is_answered_when_it_is_done_while_other_requests_go_on() {
    let fixture = fixture();
    fixture.memory.script(|script| script.holds_flushes = true);
    let mut client = Client::ready(&fixture.path, false);
    client.say(
        &[
            request(0, WRITE, 1, 0, 2),
            b"ab".to_vec(),
            request(0, FLUSH, 2, 0, 0),
            request(0, READ, 3, 0, 2),
        ]
        .concat(),
    );
    assert_eq!(
        client.reply(),
        Reply::Simple {
            cookie: 1,
            errno: 0
        }
    );
    assert_eq!(
        client.reply(),
        Reply::Simple {
            cookie: 3,
            errno: 0
        }
    );
    assert_eq!(client.take(2), b"ab");
    let held = fixture.memory.script(|script| {
        assert_eq!(
            script.writes,
            [(0, 2)],
            "the write of the same batch came first"
        );
        script.held_flushes.pop().unwrap()
    });
    // The connection's thread sits in a receive; the reply comes all the same.
    held(Ok(()));
    assert_eq!(
        client.reply(),
        Reply::Simple {
            cookie: 2,
            errno: 0
        }
    );
}

#[test]
fn a_write_with_fua_is_answered_after_its_flush_and_fails_with_it() {
    let fixture = fixture();
    fixture.memory.script(|script| script.holds_flushes = true);
    let mut client = Client::ready(&fixture.path, true);
    for (command, payload) in [(WRITE, &b"ab"[..]), (TRIM, b""), (ZERO, b"")] {
        for (result, errno) in [(Ok(()), 0), (Err(IoError::Failed), EIO)] {
            client.say(
                &[
                    request(FUA, command, 1, 0, 2),
                    payload.to_vec(),
                    request(0, CACHE, 2, 0, 2),
                ]
                .concat(),
            );
            assert_eq!(client.reply().cookie(), 2);
            fixture
                .memory
                .script(|script| script.held_flushes.pop().unwrap())(result);
            let reply = client.reply();
            assert_eq!((reply.cookie(), reply.errno()), (1, errno));
        }
    }
    assert_eq!(client.write(0, 0, b"no flush without FUA"), 0);
    fixture
        .memory
        .script(|script| assert_eq!(script.flushes, 6));
}

#[test]
fn a_request_that_would_block_is_overtaken_and_answered_later() {
    let fixture = fixture();
    for is_structured in [false, true] {
        let mut client = Client::ready(&fixture.path, is_structured);
        fixture.memory.script(|script| script.slow = Some(0..4096));
        let slow_write = [request(FUA, WRITE, 1, 0, 4096), vec![9; 4096]].concat();
        client.say(
            &[
                slow_write,
                request(0, CACHE, 2, 8192, 10),
                request(0, READ, 3, 0, 100),
            ]
            .concat(),
        );
        assert_eq!(client.reply().cookie(), 2);
        fixture.memory.wait_until(|script| script.waiting == 2);
        assert_eq!(client.write(0, 65536, b"others go on"), 0);
        fixture.memory.script(|script| script.slow = None);
        let mut seen = Vec::new();
        for _ in 0..2 {
            let reply = client.reply();
            seen.push(reply.cookie());
            if reply
                == (Reply::Simple {
                    cookie: 3,
                    errno: 0,
                })
            {
                client.take(100);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 3]);
    }
    let mut client = Client::ready(&fixture.path, false);
    assert_eq!(client.read(0, 4096), vec![9; 4096], "the payload was kept");
}

#[test]
fn behind_a_fence_requests_wait_and_then_go_on() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    fixture.memory.script(|script| script.is_fenced = true);
    client.say(&[request(0, WRITE, 1, 0, 2), b"ab".to_vec()].concat());
    fixture.memory.wait_until(|script| script.waiting == 1);
    fixture.memory.script(|script| {
        assert_eq!((script.entered, script.writes.len()), (0, 0));
        script.is_fenced = false;
    });
    assert_eq!(client.reply().errno(), 0);
    fixture.memory.wait_until(|script| script.entered == 0);
}

// ---- hostile and unlucky clients

#[test]
fn a_write_cut_off_by_the_client_is_not_executed() {
    let fixture = fixture();
    fixture.memory.script(|_| ());
    for cut in [1, 27, 28, 28 + 50_000] {
        let mut client = Client::ready(&fixture.path, false);
        let whole = [request(0, WRITE, 1, 0, 100_000), vec![1; 100_000]].concat();
        client.say(&whole[..cut]);
        client.stream.shutdown(Shutdown::Write).unwrap();
        client.assert_closed();
    }
    fixture
        .memory
        .script(|script| assert!(script.writes.is_empty()));
}

#[test]
fn a_half_closed_client_still_gets_its_replies() {
    let fixture = fixture();
    fixture.memory.script(|script| script.holds_flushes = true);
    let mut client = Client::ready(&fixture.path, false);
    client.say(
        &[
            request(0, WRITE, 1, 0, 2),
            b"ab".to_vec(),
            request(0, FLUSH, 2, 0, 0),
        ]
        .concat(),
    );
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.reply().cookie(), 1);
    fixture
        .memory
        .script(|script| script.held_flushes.pop().unwrap())(Ok(()));
    assert_eq!(client.reply().cookie(), 2);
    client.assert_closed();
}

#[test]
fn after_disc_what_came_before_is_answered_and_what_follows_ignored() {
    let fixture = fixture();
    fixture.memory.script(|script| script.holds_flushes = true);
    let mut client = Client::ready(&fixture.path, false);
    let after = [request(0, WRITE, 3, 0, 2), b"xx".to_vec()].concat();
    client.say(
        &[
            request(0, FLUSH, 1, 0, 0),
            request(0, CACHE, 2, 0, 1),
            request(0, DISC, 0, 0, 0),
            after,
        ]
        .concat(),
    );
    assert_eq!(client.reply().cookie(), 2);
    fixture
        .memory
        .script(|script| script.held_flushes.pop().unwrap())(Ok(()));
    assert_eq!(client.reply().cookie(), 1);
    client.assert_closed();
    fixture
        .memory
        .script(|script| assert!(script.writes.is_empty()));
}

#[test]
fn a_client_gone_while_a_flush_is_under_way_leaves_no_thread_behind() {
    let fixture = fixture();
    fixture.memory.script(|script| script.holds_flushes = true);
    let mut client = Client::ready(&fixture.path, false);
    client.say(&request(0, FLUSH, 1, 0, 0));
    fixture
        .memory
        .wait_until(|script| script.held_flushes.len() == 1);
    drop(client);
    // It does not wait (nor spin) for the flush.
    eventually("the connection ended", || {
        fixture.server.stats().connections == 0
    });
    fixture
        .memory
        .script(|script| script.held_flushes.pop().unwrap())(Ok(()));
}

#[test]
fn a_wrong_request_magic_ends_the_connection_after_the_replies_before_it() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    client.say(&[request(0, CACHE, 1, 0, 1), vec![0xee; 28]].concat());
    assert_eq!(client.reply().cookie(), 1);
    client.assert_closed();
}

#[test]
fn noise_never_harms_anybody_else() {
    let fixture = fixture();
    let mut bystander = Client::ready(&fixture.path, false);
    let mut state = 1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..200 {
        let mut client = if round % 2 == 0 {
            Client::greeted(&fixture.path)
        } else {
            Client::ready(&fixture.path, round % 4 == 1)
        };
        let mut bytes = Vec::new();
        for _ in 0..random() % 20 {
            if round % 2 == 0 {
                bytes.extend(option(
                    (random() % 14) as u32,
                    &vec![random() as u8; (random() % 200) as usize],
                ));
            } else {
                bytes.extend(request(
                    random() as u16 & 31,
                    (random() % 9) as u16,
                    random(),
                    random() % (1 << 21),
                    (random() % 70_000) as u32,
                ));
            }
            bytes.extend(
                random()
                    .to_be_bytes()
                    .into_iter()
                    .take((random() % 12) as usize % 8),
            );
        }
        // The server may have hung up already, and the replies are nobody's business.
        let _ = client.stream.write_all(&bytes);
    }
    assert_eq!(bystander.errno(0, CACHE, 0, 4096), 0);
    drop(bystander);
    eventually("all ended", || fixture.server.stats().connections == 0);
    assert_eq!(fixture.server.stats().panics, 0);
}

#[test]
fn a_client_that_does_not_read_is_no_longer_served_and_blocks_nobody() {
    let fixture = fixture_with(
        Limits {
            io_threads_max: 2,
            ..Limits::default()
        },
        8 << 20,
    );
    fixture.memory.script(|script| script.slow = Some(0..4096));
    let mut deaf = Client::ready(&fixture.path, false);
    deaf.stream.set_nonblocking(true).unwrap();
    // Each READ of 1 MiB also goes through the io pool, which must not get stuck on this client.
    let requests: Vec<u8> = (0..1000)
        .flat_map(|number| request(0, READ, number, 0, 1 << 20))
        .collect();
    let mut sent = 0;
    while let Ok(count) = deaf.stream.write(&requests[sent..]) {
        sent += count;
        if sent == requests.len() {
            break;
        }
    }
    fixture.memory.wait_until(|script| script.waiting == 2);
    fixture.memory.script(|script| script.slow = None);
    let mut other = Client::ready(&fixture.path, false);
    fixture
        .memory
        .script(|script| script.slow = Some(4096..8192));
    other.say(&request(0, READ, 1, 4096, 10));
    fixture.memory.wait_until(|script| script.waiting == 1);
    fixture.memory.script(|script| script.slow = None);
    assert_eq!(other.reply().errno(), 0);
    assert_eq!(other.take(10), [0; 10]);
    // 1000 MiB were asked for; what was read is bounded by what may be outstanding.
    drop(other);
    let read = fixture
        .server
        .export_stats(&(fixture.memory.clone() as _))
        .read_bytes;
    assert!(
        read <= 160 << 20,
        "{read} bytes were read for a client that reads none"
    );
    let (done, waiting) = mpsc::channel();
    fixture
        .server
        .unpublish("disk", Box::new(move || done.send(()).unwrap()));
    waiting
        .recv_timeout(Duration::from_secs(20))
        .expect("unpublish ends the deaf client's connection");
}

#[test]
fn more_requests_than_may_be_outstanding_are_all_answered() {
    let fixture = fixture();
    fixture.memory.script(|script| script.holds_flushes = true);
    let mut client = Client::ready(&fixture.path, false);
    let count = 1000;
    client.say(
        &(0..count)
            .flat_map(|number| request(0, FLUSH, number, 0, 0))
            .collect::<Vec<u8>>(),
    );
    let mut answered = 0;
    while answered < count {
        fixture
            .memory
            .wait_until(|script| !script.held_flushes.is_empty());
        let held = fixture
            .memory
            .script(|script| std::mem::take(&mut script.held_flushes));
        assert!(held.len() <= 256);
        for flush in held {
            flush(Ok(()));
            assert_eq!(client.reply().errno(), 0);
            answered += 1;
        }
    }
}

#[test]
fn a_panic_ends_its_connection_only_and_is_counted() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    fixture.memory.script(|script| script.panics = true);
    client.say(&request(0, CACHE, 1, 0, 1));
    client.assert_closed();
    fixture.memory.script(|script| script.panics = false);
    eventually("counted", || fixture.server.stats().panics == 1);
    assert_eq!(Client::ready(&fixture.path, false).errno(0, CACHE, 0, 1), 0);
}

// ---- exports and the server's life

#[test]
fn unpublish_ends_connections_and_reports_when_no_more_io_can_happen() {
    let fixture = fixture();
    let mut idle = Client::ready(&fixture.path, false);
    let mut slow = Client::ready(&fixture.path, false);
    fixture.memory.script(|script| script.slow = Some(0..1));
    slow.say(&request(0, READ, 1, 0, 1));
    fixture.memory.wait_until(|script| script.waiting == 1);
    let (done, waiting) = mpsc::channel();
    fixture
        .server
        .unpublish("disk", Box::new(move || done.send(()).unwrap()));
    idle.assert_closed();
    slow.assert_closed();
    assert_eq!(
        Client::greeted(&fixture.path).ask(7, &info_data("disk", &[]))[0].kind,
        ERR | 6
    );
    assert!(
        waiting.try_recv().is_err(),
        "a request is still in the io pool"
    );
    fixture.memory.script(|script| script.slow = None);
    waiting.recv_timeout(Duration::from_secs(20)).unwrap();
    let (done, waiting) = mpsc::channel();
    fixture
        .server
        .unpublish("never published", Box::new(move || done.send(()).unwrap()));
    waiting.try_recv().unwrap();
}

#[test]
fn publishing_the_same_again_keeps_connections_and_another_backing_ends_them() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    let spec = |backing| ExportSpec {
        backing,
        read_only: false,
        description: String::new(),
    };
    fixture
        .server
        .publish("disk".into(), spec(fixture.memory.clone()));
    assert_eq!(client.errno(0, CACHE, 0, 1), 0);
    fixture.server.publish(
        "disk".into(),
        spec(std::sync::Arc::new(support::memory::Memory::new(4096))),
    );
    client.assert_closed();
    let mut client = Client::ready(&fixture.path, false);
    assert_eq!(client.errno(0, CACHE, 4096, 1), EINVAL);
}

#[test]
fn close_answers_what_is_in_flight_and_then_ends_every_connection() {
    let fixture = fixture();
    fixture.memory.script(|script| script.holds_flushes = true);
    let mut busy = Client::ready(&fixture.path, false);
    let mut idle = Client::ready(&fixture.path, false);
    let mut haggling = Client::greeted(&fixture.path);
    busy.say(&request(0, FLUSH, 1, 0, 0));
    fixture
        .memory
        .wait_until(|script| script.held_flushes.len() == 1);
    let server = fixture.server.clone();
    let closing = std::thread::spawn(move || server.close(Duration::from_secs(10)));
    idle.assert_closed();
    haggling.assert_closed();
    fixture
        .memory
        .script(|script| script.held_flushes.pop().unwrap())(Ok(()));
    assert_eq!(
        busy.reply(),
        Reply::Simple {
            cookie: 1,
            errno: 0
        }
    );
    busy.assert_closed();
    closing.join().unwrap();
    assert_eq!(fixture.server.stats().connections, 0);
    assert!(!fixture.path.exists());
}

#[test]
fn a_socket_is_private_and_replaces_only_a_dead_one() {
    let fixture = fixture();
    assert_eq!(
        std::fs::metadata(&fixture.path)
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let address = format!("unix:{}", fixture.path.display());
    let second = Server::new(Limits::default());
    assert_eq!(
        second.listen(&address).unwrap_err().kind(),
        std::io::ErrorKind::AddrInUse
    );
    assert_eq!(Client::ready(&fixture.path, false).errno(0, CACHE, 0, 1), 0);
    let stale = fixture.path.with_extension("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    second.listen(&format!("unix:{}", stale.display())).unwrap();
    Client::greeted(&stale).ask(3, &[]);
    let file = fixture.path.with_extension("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(second.listen(&format!("unix:{}", file.display())).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    second.close(Duration::from_secs(5));
}

#[test]
fn tcp_gets_a_port_and_serves_on_it() {
    let fixture = fixture();
    let address = fixture.server.listen("127.0.0.1:0").unwrap();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let mut greeting = [0; 18];
    std::io::Read::read_exact(&mut stream, &mut greeting).unwrap();
    assert_eq!(greeting[..8], *b"NBDMAGIC");
    drop(stream);
    fixture.server.close(Duration::from_secs(5));
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[test]
fn connections_beyond_the_limit_are_closed_and_a_place_is_taken_again() {
    let fixture = fixture_with(
        Limits {
            connections_max: 2,
            ..Limits::default()
        },
        1 << 20,
    );
    let first = Client::ready(&fixture.path, false);
    let _second = Client::ready(&fixture.path, false);
    Client::connect(&fixture.path).assert_closed();
    drop(first);
    eventually("a place is free", || {
        fixture.server.stats().connections == 1
    });
    assert_eq!(Client::ready(&fixture.path, false).errno(0, CACHE, 0, 1), 0);
}
