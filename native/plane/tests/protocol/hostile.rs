//! Clients that lie, babble, vanish or do not listen.

use std::io::Write;
use std::net::Shutdown;

use plane::limits::Limits;

use super::support::client::*;
use super::*;

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
fn a_client_gone_while_flushes_are_under_way_leaves_no_thread_behind() {
    let fixture = fixture();
    fixture.memory.script(|script| script.holds_flushes = true);
    // With one the thread waits for the client, with as many as there may be for the flushes.
    for count in [1, 256] {
        let mut client = Client::ready(&fixture.path, false);
        client.say(&request(0, FLUSH, 1, 0, 0).repeat(count));
        fixture
            .memory
            .wait_until(|script| script.held_flushes.len() == count);
        drop(client);
        // It does not wait (nor spin) for the flushes.
        eventually("the connection ended", || {
            fixture.server.stats().connections == 0
        });
        let held = fixture
            .memory
            .script(|script| std::mem::take(&mut script.held_flushes));
        for flush in held {
            flush(Ok(()));
        }
    }
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
    // One volume's share of the two threads.
    fixture.memory.wait_until(|script| script.waiting == 1);
    fixture.memory.script(|script| script.slow = None);
    let mut other = Client::ready(&fixture.path, false);
    fixture
        .memory
        .script(|script| script.slow = Some(4 << 20..5 << 20));
    other.say(&request(0, READ, 1, 4 << 20, 10));
    fixture.memory.wait_until(|script| script.waiting == 1);
    fixture.memory.script(|script| script.slow = None);
    assert_eq!(other.reply().errno(), 0);
    assert_eq!(other.take(10), [0; 10]);
    drop(other);
    assert_deaf_client_is_bounded(&fixture);
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

/// Of this process's thread by this name, from /proc: `R`, `S` or another letter.
fn state_of_thread(name: &str) -> Option<char> {
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else {
            continue;
        };
        if stat.contains(&format!("({name})")) {
            return stat.rsplit(") ").next()?.chars().next();
        }
    }
    None
}

/// Input was once waited for together with room to send: it was there, so the thread turned without end.
#[test]
fn a_client_that_sends_and_does_not_read_keeps_no_thread_turning() {
    let fixture = fixture_with(Limits::default(), 64 << 20);
    // Threads are named by their connection's number: one that no other test comes to.
    let number = 3333;
    for _ in 0..number {
        drop(Client::connect(&fixture.path));
    }
    eventually("all are gone", || fixture.server.stats().connections == 0);
    let mut deaf = Client::ready(&fixture.path, false);
    fixture.memory.script(|script| script.slow = Some(0..4096));
    // One large read is held up; the connection's thread goes on to wait for the next request.
    deaf.say(&request(0, READ, 1, 0, 32 << 20));
    fixture.memory.wait_until(|script| script.waiting == 1);
    // Its reply does not fit the socket, and then more requests come.
    fixture.memory.script(|script| script.slow = None);
    eventually("the reply is under way", || {
        rustix::io::ioctl_fionread(&deaf.stream).unwrap() > 0
    });
    let sleeps = || {
        let mut asleep = 0;
        eventually("the thread sleeps", || {
            let is_asleep = state_of_thread(&format!("nbd-{number}")) == Some('S');
            asleep = if is_asleep { asleep + 1 } else { 0 };
            asleep == 200
        });
    };
    // First, so that the request finds it waiting for room to send.
    sleeps();
    deaf.say(&request(0, CACHE, 2, 0, 1));
    sleeps();
    assert_eq!(deaf.reply().cookie(), 1);
    deaf.take(32 << 20);
    assert_eq!(deaf.reply().cookie(), 2);
}

#[test]
fn lengths_and_offsets_at_the_edges_of_their_types_are_refused() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, true);
    for offset in [(1 << 20) + 1, 1 << 32, 1 << 63, u64::MAX - 1, u64::MAX] {
        for command in [READ, TRIM, CACHE, STATUS] {
            for length in [0, 1, 4096, u32::MAX] {
                assert_eq!(
                    client.errno(0, command, offset, length),
                    EINVAL,
                    "command {command} of {length} at {offset}"
                );
            }
        }
        assert_eq!(client.errno(0, ZERO, offset, u32::MAX), ENOSPC);
        assert_eq!(client.write(0, offset, b"x"), ENOSPC);
    }
    for command in [8, 9, 255, u16::MAX] {
        assert_eq!(client.errno(0, command, 0, 0), EINVAL);
    }
    assert_eq!(client.errno(0, READ, 0, 0), 0);
}

#[test]
fn an_oversized_write_in_small_parts_is_skipped_and_one_cut_off_in_the_middle_ends() {
    let fixture = fixture();
    fixture.memory.script(|_| ());
    let mut client = Client::ready(&fixture.path, true);
    client.say(&request(0, CACHE, 1, 0, 1));
    client.say(&request(0, WRITE, 2, 0, 64 << 20));
    let part = vec![0x25; 1 << 20];
    for _ in 0..64 {
        client.say(&part);
    }
    client.say(&request(0, CACHE, 3, 0, 1));
    let seen: Vec<(u64, u32)> = (0..3)
        .map(|_| client.reply())
        .map(|reply| (reply.cookie(), reply.errno()))
        .collect();
    assert_eq!(seen, [(1, 0), (2, EINVAL), (3, 0)]);
    eventually("counted", || {
        fixture
            .server
            .export_stats(&(fixture.memory.clone() as _))
            .errors
            == 1
    });
    client.say(&request(0, WRITE, 2, 0, 64 << 20));
    client.say(&part);
    client.stream.shutdown(Shutdown::Write).unwrap();
    client.assert_closed();
    fixture
        .memory
        .script(|script| assert!(script.writes.is_empty()));
}
