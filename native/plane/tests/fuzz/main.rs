//! What clients say, changed at random: recorded sessions are cut, spliced and overwritten, and requests made up are put behind them. Runs
//! the corpus and some hundred inputs with every test run, and until the time is up when QUARRY_FUZZ_SECONDS says so. No input may make the
//! server panic, hang, touch what it was not allowed to, or answer out of protocol (see oracle.rs). One that does is written beside the test's binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the tests of the protocol need more of it")]
mod support;

mod inputs;
mod oracle;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime};

use plane::backing::{Backing, Patience, SnapshotId};
use plane::limits::Limits;
use support::client::{Fixture, fixture_with};
use support::memory::Memory;

const VOLUME_BYTES: u64 = 1 << 20;
const INPUTS: u64 = 300;
const SNAPSHOT: SnapshotId = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

fn server() -> Fixture {
    let fixture = fixture_with(Limits::default(), VOLUME_BYTES);
    fixture.memory.script(|script| {
        // Scripted, the backing checks that every range was validated; and some reads have to be done elsewhere.
        script.cold_data = Some(256 << 10..320 << 10);
        script.snapshots = vec![(SNAPSHOT, vec![0..4096, 65536..131_072])];
    });
    fixture
}

/// Data everywhere: holes cost nothing, and long reads of them come in one piece.
fn fill(memory: &Memory) {
    let data = vec![0x5a; VOLUME_BYTES as usize];
    assert!(memory.enter(Patience::Wait));
    assert_eq!(memory.write(0, &data, Patience::Wait), Ok(()));
    memory.leave();
}

/// Says all of it, hangs up its half, and hears the server out.
fn converse(fixture: &Fixture, input: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(&fixture.path).unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream.set_write_timeout(limit).unwrap();
    let mut speaking = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The server may have hung up on it.
            let _ = speaking.write_all(input);
            let _ = speaking.shutdown(Shutdown::Write);
        });
        let mut output = Vec::new();
        if let Err(error) = stream.read_to_end(&mut output) {
            assert_eq!(
                error.kind(),
                ErrorKind::ConnectionReset,
                "the server neither answers nor hangs up"
            );
        }
        output
    })
}

fn attempt(fixture: &Fixture, input: &[u8]) {
    fill(&fixture.memory);
    let output = converse(fixture, input);
    oracle::check(input, &output, VOLUME_BYTES);
    assert_eq!(fixture.server.stats().panics, 0, "a thread panicked");
}

/// Keeps what made it fail.
fn run(fixture: &Fixture, input: &[u8]) {
    let Err(failure) = catch_unwind(AssertUnwindSafe(|| attempt(fixture, input))) else {
        return;
    };
    let mut path = std::env::current_exe().unwrap();
    path.set_file_name(format!("fuzz-found-{}.bin", std::process::id()));
    std::fs::write(&path, input).unwrap();
    eprintln!(
        "the input is in {}; it becomes a file of tests/fuzz/corpus",
        path.display()
    );
    resume_unwind(failure);
}

#[test]
fn recorded_sessions_are_answered_in_protocol() {
    let fixture = server();
    let corpus = inputs::corpus();
    assert!(corpus.len() >= 4);
    for (name, input) in corpus {
        eprintln!("{name}");
        run(&fixture, &input);
    }
}

#[test]
fn no_input_makes_the_server_panic_hang_or_answer_out_of_protocol() {
    let fixture = server();
    let corpus = inputs::corpus();
    let seconds = std::env::var("QUARRY_FUZZ_SECONDS").ok();
    let end = seconds.map(|text| {
        let seconds = text.parse().expect("a number of seconds");
        Instant::now() + Duration::from_secs(seconds)
    });
    // With a time, other inputs each time; else always the same.
    let mut seed = match end {
        None => 1,
        Some(_) => SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    let mut count = 0;
    while end.map_or(count < INPUTS, |end| Instant::now() < end) {
        run(&fixture, &inputs::mutated(&corpus, seed));
        (seed, count) = (seed.wrapping_add(1), count + 1);
    }
    eprintln!("{count} inputs");
}
