//! The protocol layer from the outside, byte by byte, over a backing in memory that can be held up, fenced and failed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod contexts;
mod extended;
mod handshake;
mod hostile;
mod life;
mod limits;
mod model;
mod tls;
mod waiting;

use std::time::{Duration, Instant};

use plane::export::{Door, ExportSpec};
use support::client::Fixture;

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
        door: Door::Clients,
        backing: fixture.memory.clone(),
        read_only,
        is_listed: true,
        description: String::new(),
    };
    fixture.server.publish("a-copy".into(), spec(true));
}

fn publish_unlisted(fixture: &Fixture, name: &str, is_listed: bool) {
    let spec = ExportSpec {
        door: Door::Clients,
        backing: fixture.memory.clone(),
        read_only: false,
        is_listed,
        description: String::new(),
    };
    fixture.server.publish(name.into(), spec);
}

/// Of a client that asked for 1000 MiB and reads nothing: what was read is bounded by what may be outstanding, and it can be put out.
fn assert_deaf_client_is_bounded(fixture: &Fixture) {
    let read = fixture
        .server
        .export_stats(&(fixture.memory.clone() as _))
        .read_bytes;
    assert!(
        read <= 160 << 20,
        "{read} bytes were read for a client that reads none"
    );
    let (done, waiting) = std::sync::mpsc::channel();
    fixture
        .server
        .unpublish("disk", Box::new(move || done.send(()).unwrap()));
    waiting
        .recv_timeout(Duration::from_secs(20))
        .expect("unpublish ends the deaf client's connection");
}

/// Counters are written after the reply that they count, so a test may have to wait a moment.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}
