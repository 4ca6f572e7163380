//! Connections of a volume whose speed is limited: what a request that has to wait holds up, and what it does not.

use std::sync::{Arc, mpsc};

use plane::throttle::{Rate, SpeedLimits};

use super::support::client::*;
use super::support::memory::Memory;
use super::*;

/// Once used, nothing more for longer than any test runs.
fn one_write() -> SpeedLimits {
    let average = 1e-6;
    SpeedLimits {
        write_ops: Rate {
            average,
            ..Rate::default()
        },
        ..SpeedLimits::default()
    }
}

fn write_request(cookie: u64) -> Vec<u8> {
    [request(0, WRITE, cookie, 0, 2), b"ab".to_vec()].concat()
}

/// A client whose only write is used up and whose next one, with cookie 1, waits for its turn.
fn waiting_client(fixture: &Fixture) -> Client {
    fixture.memory.throttle.set(one_write());
    let mut client = Client::ready(&fixture.path, false);
    assert_eq!(client.write(0, 0, b"ab"), 0);
    client.say(&write_request(1));
    eventually("in line", || fixture.memory.throttle.waiting() == 1);
    client
}

const DONE: Reply = Reply::Simple {
    cookie: 1,
    errno: 0,
};

#[test]
fn a_request_that_waits_for_its_turn_goes_on_when_the_limit_changes() {
    let fixture = fixture();
    let mut client = waiting_client(&fixture);
    fixture
        .memory
        .script(|script| assert!(script.writes.is_empty()));
    fixture.memory.throttle.set(SpeedLimits {
        write_ops: Rate {
            average: 1e6,
            ..Rate::default()
        },
        ..SpeedLimits::default()
    });
    assert_eq!(client.reply(), DONE);
    eventually("counted", || !fixture.memory.throttle.waited().is_zero());
    assert_eq!(fixture.memory.throttle.waiting(), 0);
    fixture.memory.throttle.set(one_write());
    assert_eq!(client.write(0, 0, b"ab"), 0);
    client.say(&write_request(1));
    eventually("in line", || fixture.memory.throttle.waiting() == 1);
    fixture.memory.throttle.set(SpeedLimits::default());
    assert_eq!(client.reply(), DONE);
}

#[test]
fn what_is_not_limited_is_served_beside_it() {
    let fixture = fixture();
    let _waiting = waiting_client(&fixture);
    let mut reader = Client::ready(&fixture.path, false);
    assert_eq!(reader.read(0, 2), b"ab");
    assert_eq!(reader.errno(0, FLUSH, 0, 0), 0);
    let neighbour = Arc::new(Memory::new(1 << 20));
    let spec = ExportSpec {
        door: Door::Clients,
        backing: neighbour,
        read_only: false,
        is_listed: true,
        description: String::new(),
    };
    fixture.server.publish("disk".into(), spec);
    let mut other = Client::ready(&fixture.path, false);
    assert_eq!(other.write(0, 0, b"cd"), 0);
}

#[test]
fn trims_and_zeroes_are_one_write_without_bytes_and_flushes_are_free() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    fixture.memory.throttle.set(SpeedLimits {
        write_bytes: Rate {
            average: 1e-6,
            ..Rate::default()
        },
        ..SpeedLimits::default()
    });
    for _ in 0..10 {
        assert_eq!(client.errno(0, TRIM, 0, 65536), 0);
        assert_eq!(client.errno(0, ZERO, 0, 65536), 0);
    }
    fixture.memory.throttle.set(one_write());
    assert_eq!(client.errno(0, TRIM, 0, 65536), 0);
    for _ in 0..10 {
        assert_eq!(client.errno(0, FLUSH, 0, 0), 0);
    }
    client.say(&request(0, ZERO, 1, 0, 65536));
    eventually("in line", || fixture.memory.throttle.waiting() == 1);
}

/// It waited inside at first, and a freeze would have waited with it.
#[test]
fn a_fence_does_not_wait_for_a_request_that_waits_for_its_turn() {
    let fixture = fixture();
    fixture.memory.script(|script| script.is_fenced = false);
    let mut client = waiting_client(&fixture);
    fixture.memory.wait_until(|script| script.entered == 0);
    fixture.memory.script(|script| script.is_fenced = true);
    fixture.memory.throttle.set(SpeedLimits::default());
    fixture.memory.wait_until(|script| script.waiting == 1);
    fixture.memory.script(|script| script.is_fenced = false);
    assert_eq!(client.reply(), DONE);
}

#[test]
fn completions_from_elsewhere_are_sent_while_a_request_waits() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    assert_eq!(client.write(0, 0, &[7; 4096]), 0);
    fixture.memory.script(|script| script.slow = Some(0..4096));
    fixture.memory.throttle.set(one_write());
    let slow_read = request(0, READ, 9, 0, 4096);
    let passing = [request(0, WRITE, 8, 8192, 2), b"ab".to_vec()].concat();
    client.say(&[slow_read, passing, write_request(1)].concat());
    assert_eq!(client.reply().cookie(), 8);
    eventually("in line", || fixture.memory.throttle.waiting() == 1);
    fixture.memory.script(|script| script.slow = None);
    assert_eq!(client.reply().cookie(), 9);
    assert_eq!(client.take(4096), [7; 4096]);
    assert_eq!(fixture.memory.throttle.waiting(), 1);
}

#[test]
fn a_client_that_hangs_up_leaves_the_line() {
    let fixture = fixture();
    let first = waiting_client(&fixture);
    let mut second = Client::ready(&fixture.path, false);
    second.say(&write_request(1));
    eventually("in line", || fixture.memory.throttle.waiting() == 2);
    drop(first);
    eventually("left", || fixture.memory.throttle.waiting() == 1);
    eventually("ended", || fixture.server.stats().connections == 1);
    fixture.memory.throttle.set(SpeedLimits::default());
    assert_eq!(second.reply(), DONE);
}

#[test]
fn withdrawing_an_export_does_not_wait_for_the_turn_of_its_requests() {
    let fixture = fixture();
    let mut client = waiting_client(&fixture);
    let (done, is_done) = mpsc::channel();
    fixture
        .server
        .unpublish("disk", Box::new(move || done.send(()).unwrap()));
    is_done.recv_timeout(Duration::from_secs(20)).unwrap();
    client.assert_closed();
    assert_eq!(fixture.memory.throttle.waiting(), 0);
}

#[test]
fn a_server_that_closes_does_what_it_has_received_without_waiting() {
    let fixture = fixture();
    let mut client = waiting_client(&fixture);
    client.say(&[write_request(2), write_request(3)].concat());
    let begin = Instant::now();
    fixture.server.close(Duration::from_secs(60));
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(client.reply(), DONE);
}

#[test]
fn many_connections_at_a_limit_get_through_together_no_faster_than_it() {
    const CLIENTS: usize = 8;
    const EACH: usize = 25;
    let fixture = fixture();
    fixture.memory.throttle.set(SpeedLimits {
        total_ops: Rate {
            average: 200.0,
            ..Rate::default()
        },
        ..SpeedLimits::default()
    });
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::ready(&fixture.path, false))
        .collect();
    let begin = Instant::now();
    for client in &mut clients {
        client.say(&write_request(1).repeat(EACH));
    }
    for client in &mut clients {
        for _ in 0..EACH {
            assert_eq!(client.reply(), DONE);
        }
    }
    // 200 requests, of which a tenth of a second's worth comes at once.
    let seconds = begin.elapsed().as_secs_f64();
    assert!(seconds > 0.85, "{seconds} s");
    assert!(seconds < 10.0, "{seconds} s");
}
