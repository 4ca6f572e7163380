//! Requests that are done elsewhere: flushes, what would block, what a fence holds up.

use plane::backing::IoError;
use plane::limits::Limits;

use super::support::client::*;
use super::*;

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

#[test]
fn a_fence_gets_between_the_pieces_of_a_long_zeroing() {
    const MIB: u64 = 1 << 20;
    let fixture = fixture_with(Limits::default(), 64 * MIB);
    let mut client = Client::ready(&fixture.path, false);
    assert_eq!(client.write(0, 20 * MIB, &[1; 4096]), 0);
    fixture
        .memory
        .script(|script| script.slow = Some(16 * MIB..17 * MIB));
    client.say(&request(NO_HOLE, ZERO, 1, 0, 64 << 20));
    fixture
        .memory
        .wait_until(|script| (script.waiting, script.entered) == (1, 1));
    fixture.memory.script(|script| {
        script.is_fenced = true;
        script.slow = None;
    });
    // The piece under way is finished, and the rest waits outside.
    fixture
        .memory
        .wait_until(|script| (script.waiting, script.entered) == (1, 0));
    fixture.memory.script(|script| script.is_fenced = false);
    assert_eq!(client.reply().errno(), 0);
    assert_eq!(client.read(20 * MIB, 4096), vec![0; 4096]);
    fixture.memory.wait_until(|script| script.entered == 0);
    let stats = fixture.server.export_stats(&(fixture.memory.clone() as _));
    assert_eq!((stats.trim_ops, stats.trim_bytes), (1, 64 * MIB));
}

#[test]
fn requests_of_the_longest_range_are_done_off_the_connections_thread_and_counted_once() {
    let fixture = fixture_with(Limits::default(), 8 << 30);
    let mut client = Client::ready(&fixture.path, true);
    for command in [CACHE, TRIM, ZERO] {
        client.say(
            &[
                request(0, command, 1, 4096, u32::MAX),
                request(0, CACHE, 2, 0, 1),
            ]
            .concat(),
        );
        let mut seen = [client.reply(), client.reply()].map(|reply| {
            assert_eq!(reply.errno(), 0);
            reply.cookie()
        });
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    }
    eventually("counted", || {
        fixture
            .server
            .export_stats(&(fixture.memory.clone() as _))
            .trim_ops
            == 2
    });
    fixture
        .memory
        .script(|script| script.failure = Some(IoError::Failed));
    assert_eq!(client.errno(0, TRIM, 0, u32::MAX), EIO);
}

/// Without a wake-up the rest of such a reply waited for the next request, or for a time-out of five seconds.
#[test]
fn replies_from_elsewhere_that_do_not_fit_the_socket_follow_each_other_whole_and_at_once() {
    const LENGTH: u32 = 3 << 19;
    let fixture = fixture_with(Limits::default(), 16 << 20);
    let mut client = Client::ready(&fixture.path, false);
    let data: Vec<u8> = (0..LENGTH).map(|at| (at / 4093) as u8).collect();
    for number in 0..8 {
        assert_eq!(client.write(0, number * u64::from(LENGTH), &data), 0);
    }
    let begin = Instant::now();
    for _ in 0..8 {
        fixture
            .memory
            .script(|script| script.slow = Some(0..16 << 20));
        let requests: Vec<u8> = (0..8)
            .flat_map(|number| request(0, READ, number, number * u64::from(LENGTH), LENGTH))
            .collect();
        client.say(&requests);
        fixture.memory.wait_until(|script| script.waiting == 8);
        fixture.memory.script(|script| script.slow = None);
        let mut seen: Vec<u64> = (0..8)
            .map(|_| {
                let reply = client.reply();
                assert_eq!(reply.errno(), 0);
                assert!(client.take(LENGTH as usize) == data);
                reply.cookie()
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..8).collect::<Vec<u64>>());
    }
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_rest_of_a_long_read_whose_data_are_slow_comes_later_and_holds_nobody_up() {
    const KIB: u64 = 1 << 10;
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, true);
    assert_eq!(client.write(0, 0, &[5; 1 << 20]), 0);
    for failure in [None, Some(IoError::Failed)] {
        fixture
            .memory
            .script(|script| script.slow_data = Some(600 * KIB..601 * KIB));
        client.say(&[request(0, READ, 1, 0, 1 << 20), request(0, READ, 2, 0, 512)].concat());
        let mut first = 0;
        while first < 576 * KIB {
            let Reply::Chunk {
                cookie: 1,
                flags: 0,
                kind: 1,
                payload,
            } = client.reply()
            else {
                panic!("not a piece of the first read");
            };
            assert_eq!(payload[..8], be64(first));
            first += payload.len() as u64 - 8;
        }
        assert_eq!(client.reply().cookie(), 2);
        fixture.memory.script(|script| {
            script.failure = failure;
            script.slow_data = None;
        });
        let last = client.reply();
        fixture.memory.script(|script| script.failure = None);
        if failure.is_some() {
            assert_eq!(last.errno(), EIO);
            continue;
        }
        let Reply::Chunk {
            cookie: 1,
            flags: 1,
            kind: 1,
            payload,
        } = last
        else {
            panic!("not the rest");
        };
        assert_eq!(payload[..8], be64(first));
        assert_eq!(payload.len() as u64, 8 + (1 << 20) - first);
    }
}

/// It took the whole process with it, and every other volume's clients.
#[test]
fn a_panic_on_an_io_thread_ends_that_connection_and_is_counted() {
    let fixture = fixture();
    fixture.memory.script(|script| script.slow = Some(0..4096));
    let mut client = Client::ready(&fixture.path, false);
    client.say(&request(0, READ, 1, 0, 100));
    fixture.memory.wait_until(|script| script.waiting == 1);
    let mut other = Client::ready(&fixture.path, false);
    fixture.memory.script(|script| {
        script.panics_elsewhere = true;
        script.slow = None;
    });
    client.assert_closed();
    eventually("counted", || fixture.server.stats().panics == 1);
    fixture
        .memory
        .script(|script| script.panics_elsewhere = false);
    assert_eq!(other.read(0, 10), vec![0; 10]);
    fixture.memory.wait_until(|script| script.entered == 0);
}

#[test]
fn the_rest_of_a_read_from_another_thread_never_overtakes_its_first_piece() {
    const KIB: u64 = 1 << 10;
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, true);
    assert_eq!(client.write(0, 0, &[5; 1 << 20]), 0);
    fixture
        .memory
        .script(|script| script.cold_data = Some(448 * KIB..1024 * KIB));
    for _ in 0..20 {
        // The first piece is short, so that it waits in the batch for the replies behind it.
        let mut batch = request(0, READ, 1, 200 * KIB, 400 << 10);
        for _ in 0..32 {
            batch.extend(request(0, READ, 2, 0, 4096));
        }
        client.say(&batch);
        let mut at = 200 * KIB;
        let mut others = 0;
        while at < 600 * KIB || others < 32 {
            let Reply::Chunk {
                cookie,
                flags,
                payload,
                ..
            } = client.reply()
            else {
                panic!("a simple reply");
            };
            if cookie == 2 {
                others += 1;
                continue;
            }
            assert_eq!(payload[..8], be64(at), "pieces in their order");
            at += payload.len() as u64 - 8;
            assert_eq!(flags == 1, at == 600 * KIB, "the last one says so");
        }
    }
}

/// Each reply that came from elsewhere was taken for the time-out of a client that does not read: the connection ended in the middle of
/// what was not sent yet. The fuzzer found it.
#[test]
fn after_disc_replies_that_do_not_fit_the_socket_are_sent_whatever_else_is_completed_meanwhile() {
    const LENGTH: u32 = 12 << 20;
    const FLUSHES: u64 = 100;
    let fixture = fixture_with(Limits::default(), 16 << 20);
    fixture.memory.script(|script| {
        script.slow = Some(0..4096);
        script.holds_flushes = true;
    });
    let mut client = Client::ready(&fixture.path, false);
    let flushes = (1..=FLUSHES).flat_map(|number| request(0, FLUSH, number, 0, 0));
    client.say(&request(0, READ, 0, 0, LENGTH));
    client.say(&flushes.collect::<Vec<u8>>());
    client.say(&request(0, DISC, 0, 0, 0));
    fixture
        .memory
        .wait_until(|script| script.waiting == 1 && script.held_flushes.len() == FLUSHES as usize);
    fixture.memory.script(|script| script.slow = None);
    eventually("the reply is under way", || {
        rustix::io::ioctl_fionread(&client.stream).unwrap() > 0
    });
    let held = (fixture.memory).script(|script| std::mem::take(&mut script.held_flushes));
    for flush in held {
        flush(Ok(()));
        // Each wakes the connection's thread by itself, or all but a few do.
        for _ in 0..100 {
            std::thread::yield_now();
        }
    }
    assert_eq!(client.reply().cookie(), 0);
    client.take(LENGTH as usize);
    for number in 1..=FLUSHES {
        assert_eq!(client.reply().cookie(), number);
    }
    client.assert_closed();
}
