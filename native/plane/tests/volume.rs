//! The working map against a model: a small engine in memory answers faults, grants and captures, and a volume is a
//! `Vec<u8>`. Random writes, trims, zeroes, flushes, freezes and leaf drops; snapshots and clones stay as they were.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/engine.rs"]
mod engine;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use plane::backing::{Backing, IoError, Patience, Run, ZeroOptions};
use plane::capture::Rounds;
use plane::file::SLOTS_PER_FILE;
use plane::volume::Volume;

use engine::*;

fn run(seed: u64, steps: usize) {
    let (engine, thread) = Engine::new(SLOTS_PER_FILE);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let size = 33 * 1024 * 1024 + 4096 * random.below(40);
    let mut live: Vec<(Arc<Volume>, Vec<u8>)> =
        vec![(engine.open(1, size), vec![0; size as usize])];
    let mut snapshots: Vec<(Arc<Volume>, Vec<u8>)> = Vec::new();
    let mut next_handle = 2;
    for step in 0..steps {
        let which = random.below(live.len() as u64) as usize;
        let (live_count, snapshot_count) = (live.len(), snapshots.len());
        let (volume, model) = &mut live[which];
        // Most of the work in a few extents around a leaf border, so that operations meet.
        let hot = 2 * 1024 * 1024;
        let (offset, length) = range(&mut random, hot);
        let offset = offset + (32 * 1024 * 1024 - hot / 2);
        let length = length.min(size - offset);
        let span = offset as usize..(offset + length) as usize;
        match random.below(100) {
            0..55 => {
                let bytes: Vec<u8> = (0..length)
                    .map(|at| (random.0 as u8).wrapping_add((at / 512) as u8) | 1)
                    .collect();
                random.next();
                with_entered(volume, || volume.write(offset, &bytes, Patience::Wait)).unwrap();
                model[span].copy_from_slice(&bytes);
            }
            55..70 => {
                let keep_allocated = random.below(4) == 0;
                let options = ZeroOptions {
                    keep_allocated,
                    only_fast: false,
                };
                with_entered(volume, || {
                    volume.zero(offset, length, options, Patience::Wait)
                })
                .unwrap();
                model[span].fill(0);
            }
            70..76 => {
                with_entered(volume, || volume.trim(offset, length, Patience::Wait)).unwrap();
                trim_model(model, offset, length, size);
            }
            76..84 => {
                let mut bytes = vec![0x55; length as usize];
                with_entered(volume, || volume.read(offset, &mut bytes, Patience::Wait)).unwrap();
                assert_same(seed, &format!("read of step {step}"), &bytes, &model[span]);
            }
            84..88 => engine.flush(volume),
            // Beside everything that comes next.
            88..90 => {
                let first = (offset / EXTENT) as u32;
                volume.fill((first..first + 8).collect());
            }
            90..93 => volume.request_drop_leaves(),
            93..97 if snapshot_count < 6 => {
                let handle = next_handle;
                next_handle += 1;
                engine.freeze(volume, &[handle]);
                let model = model.clone();
                snapshots.push((engine.open(handle, size), model));
            }
            97..99 if live_count < 4 => {
                let handle = next_handle;
                next_handle += 1;
                engine.freeze(volume, &[handle]);
                let model = model.clone();
                live.push((engine.open(handle, size), model));
            }
            _ => {
                let mut total = 0;
                with_entered(volume, || {
                    volume.runs(
                        offset,
                        length,
                        Patience::Wait,
                        &mut |Run { length, is_hole }| {
                            let start = (offset + total) as usize;
                            total += length;
                            assert!(
                                !is_hole
                                    || model[start..start + length as usize]
                                        .iter()
                                        .all(|byte| *byte == 0),
                                "seed {seed}: a hole with data at {start}"
                            );
                            true
                        },
                    )
                })
                .unwrap();
                assert_eq!(total, length, "seed {seed}: runs cover the range");
            }
        }
    }
    for (volume, model) in live.iter().chain(&snapshots) {
        assert_same(
            seed,
            &format!("volume {} at the end", volume.handle),
            &read_all(volume),
            model,
        );
    }
    // What the engine committed is enough to serve everything again.
    for (volume, model) in &live {
        engine.flush(volume);
        let table = engine.state.lock().unwrap().tables[&volume.handle].clone();
        let handle = 1000 + volume.handle;
        engine.state.lock().unwrap().tables.insert(handle, table);
        let again = engine.open(handle, size);
        assert_same(
            seed,
            &format!("volume {} rebuilt from commits", volume.handle),
            &read_all(&again),
            model,
        );
    }
    engine.finish(thread);
}

#[test]
fn random_operations_agree_with_the_model() {
    let seeds: Vec<u64> = match std::env::var("QUARRY_SEED") {
        Ok(seed) => vec![seed.parse().expect("QUARRY_SEED is a number")],
        Err(_) => (1..=std::env::var("QUARRY_SEEDS")
            .ok()
            .and_then(|count| count.parse().ok())
            .unwrap_or(6))
            .collect(),
    };
    for seed in seeds {
        println!("seed {seed}");
        run(seed, 400);
    }
}

/// Entries 0 to 3 with one block of their own each, before a freeze that shared everything else.
fn partly_filled(engine: &Engine) -> (Arc<Volume>, Vec<u8>) {
    let volume = engine.open(1, 8 * EXTENT);
    let mut model = vec![7u8; 8 * EXTENT as usize];
    with_entered(&volume, || volume.write(0, &model, Patience::Wait)).unwrap();
    engine.freeze(&volume, &[2]);
    for index in 0..4 {
        let at = index * EXTENT + 4096;
        with_entered(&volume, || volume.write(at, &[9; 4096], Patience::Wait)).unwrap();
        model[at as usize..at as usize + 4096].fill(9);
    }
    (volume, model)
}

/// Returns when what was asked for before has been filled.
fn wait_filled(volume: &Volume) {
    while !volume.fill(Vec::new()) {
        std::thread::yield_now();
    }
}

#[test]
fn filled_entries_let_their_base_go_and_show_the_same() {
    let (engine, thread) = Engine::new(SLOTS_PER_FILE);
    let (volume, model) = partly_filled(&engine);
    // The last ones are shared, or holes, and stay as they are.
    assert!(volume.fill(vec![0, 1, 2, 6, 511]));
    wait_filled(&volume);
    assert_eq!(
        engine.shared.filled_bytes.load(Ordering::SeqCst),
        3 * 15 * 4096
    );
    assert_same(0, "what was filled", &read_all(&volume), &model);
    engine.flush(&volume);
    let table = engine.state.lock().unwrap().tables[&1].clone();
    for index in 0..3 {
        let row = table.0[&index];
        assert_eq!((row.present, row.base, row.mask), (0xffff, 0, 0));
    }
    assert_eq!(
        (table.0[&3].present, table.0[&3].mask),
        (0b10, !0b10),
        "nobody asked for this one"
    );
    engine.finish(thread);
}

/// Its extents may be another volume's by the time the thread gets to it.
#[test]
fn a_volume_that_was_closed_is_not_filled_any_more() {
    let (engine, thread) = Engine::new(SLOTS_PER_FILE);
    let (volume, _) = partly_filled(&engine);
    volume.request_close(77);
    volume.fill(vec![0, 1, 2, 3]);
    wait_filled(&volume);
    assert_eq!(engine.shared.filled_bytes.load(Ordering::SeqCst), 0);
    engine.finish(thread);
}

#[test]
fn writers_on_several_threads_to_shared_extents_lose_nothing() {
    let (engine, thread) = Engine::new(SLOTS_PER_FILE);
    let size = 4 * 1024 * 1024;
    let volume = engine.open(1, size);
    let mut expected = vec![0u8; size as usize];
    for round in 1..=6u8 {
        // Each thread owns every fourth 1 KiB: blocks, extents and copy-on-write are shared, bytes are not.
        std::thread::scope(|scope| {
            for lane in 0..4u64 {
                let volume = &volume;
                scope.spawn(move || {
                    for at in (lane * 1024..size).step_by(4096) {
                        with_entered(volume, || {
                            volume.write(at, &[round * 8 + lane as u8; 1024], Patience::Wait)
                        })
                        .unwrap();
                    }
                });
            }
            let (engine, volume) = (&engine, &volume);
            scope.spawn(move || engine.flush(volume));
            scope.spawn(move || engine.freeze(volume, &[100 + u32::from(round)]));
        });
        for (at, byte) in expected.iter_mut().enumerate() {
            *byte = round * 8 + (at as u64 / 1024 % 4) as u8;
        }
        assert_same(
            u64::from(round),
            "the volume after a round",
            &read_all(&volume),
            &expected,
        );
    }
    engine.finish(thread);
}

/// Stamps go to one volume, then to the other: no snapshot of the pair may have the second ahead, or the first by more than one.
#[test]
fn volumes_frozen_together_are_seen_at_one_instant() {
    let (engine, thread) = Engine::new(SLOTS_PER_FILE);
    let size = 1024 * 1024;
    let (first, second) = (engine.open(1, size), engine.open(2, size));
    let is_over = AtomicBool::new(false);
    let stamp_of = |volume: &Volume| {
        let mut bytes = [0; 8];
        with_entered(volume, || volume.read(4096, &mut bytes, Patience::Wait)).unwrap();
        u64::from_le_bytes(bytes)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for stamp in 1_u64.. {
                for volume in [&first, &second] {
                    let bytes = stamp.to_le_bytes();
                    with_entered(volume, || volume.write(4096, &bytes, Patience::Wait)).unwrap();
                }
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        let mut newest = 0;
        for round in 0..100 {
            let (one, two) = (100 + 2 * round, 101 + 2 * round);
            // In both orders: fences are raised in a third one.
            if round % 2 == 0 {
                engine.freeze_together(&[(&first, one), (&second, two)]);
            } else {
                engine.freeze_together(&[(&second, two), (&first, one)]);
            }
            let [ahead, behind] = [one, two].map(|handle| stamp_of(&engine.open(handle, size)));
            assert!(
                behind <= ahead && ahead <= behind + 1,
                "round {round}: {ahead} and {behind}"
            );
            assert!(ahead >= newest);
            newest = ahead;
        }
        is_over.store(true, Ordering::SeqCst);
    });
    engine.finish(thread);
}

/// Two groups that share volumes, asked for in opposite orders from two threads, beside flushes of each.
#[test]
fn groups_that_share_volumes_do_not_wait_for_each_other_for_ever() {
    let (engine, thread) = Engine::new(SLOTS_PER_FILE);
    let volumes: Vec<Arc<Volume>> = (1..=3).map(|handle| engine.open(handle, 65536)).collect();
    let volumes = &volumes;
    std::thread::scope(|scope| {
        for group in 0..3_usize {
            let engine = &engine;
            scope.spawn(move || {
                for round in 0..50 {
                    let base = 1000 * (group as u32 + 1) + 10 * round;
                    let [one, two] = [group, (group + 1) % 3].map(|at| &volumes[at]);
                    with_entered(one, || one.write(0, &[1; 512], Patience::Wait)).unwrap();
                    engine.freeze_together(&[(one, base), (two, base + 1)]);
                    engine.flush(two);
                }
            });
        }
    });
    engine.finish(thread);
}

/// One request over a large volume once asked the engine for each of its leaves: two million for 64 TiB.
#[test]
fn a_range_of_nothing_costs_what_is_mapped_in_it_and_not_its_length() {
    const TIB: u64 = 1 << 40;
    const SIZE: u64 = 64 * TIB;
    let (engine, thread) = Engine::new(1000);
    let volume = engine.open(1, SIZE);
    let faults = || std::mem::take(&mut engine.state.lock().unwrap().faults);
    let wait = Patience::Wait;
    let trim_all = || with_entered(&volume, || volume.trim(0, SIZE, wait)).unwrap();
    let runs = |patience| {
        let mut found = Vec::new();
        with_entered(&volume, || {
            volume.runs(0, SIZE, patience, &mut |run| {
                found.push(run);
                true
            })
        })
        .unwrap();
        found
    };
    let hole = |length| Run {
        length,
        is_hole: true,
    };
    trim_all();
    assert_eq!(faults(), 1);
    assert_eq!(runs(Patience::Inline), [hole(SIZE)]);
    assert_eq!(faults(), 0);

    let places = [5 * TIB + 4096, 5 * TIB + (1 << 30), 40 * TIB];
    for place in places {
        with_entered(&volume, || volume.write(place, &[7; 4096], wait)).unwrap();
    }
    assert!(faults() <= 3);
    // As after a start: what is known is what was committed.
    engine.flush(&volume);
    volume.request_drop_leaves();
    while volume.hole_at(0, SIZE) > 0 {
        std::thread::yield_now();
    }
    let data = Run {
        length: 4096,
        is_hole: false,
    };
    let mut expected = Vec::new();
    let mut end = 0;
    for place in places {
        expected.extend([hole(place - end), data]);
        end = place + 4096;
    }
    expected.push(hole(SIZE - end));
    assert_eq!(runs(wait), expected);
    // Each of the three leaves, and once for the holes before, between and behind them.
    assert!(faults() <= 7);
    trim_all();
    assert_eq!(runs(wait), [hole(SIZE)]);
    assert_eq!(faults(), 0);
    let mut read = [1; 8192];
    with_entered(&volume, || volume.read(places[0] - 4096, &mut read, wait)).unwrap();
    assert_eq!(read, [0; 8192]);
    engine.finish(thread);
}

#[test]
fn a_full_pool_fails_the_writer_and_goes_on_when_space_comes_back() {
    let (engine, thread) = Engine::new(4);
    let volume = engine.open(1, 1 << 20);
    let write = |extent: u64| {
        with_entered(&volume, || {
            volume.write(extent * EXTENT, &[7; 4096], Patience::Wait)
        })
    };
    for extent in 0..4 {
        assert_eq!(write(extent), Ok(()));
    }
    assert_eq!(write(4), Err(IoError::NoSpace));
    assert_eq!(write(3), Ok(()), "an extent that is there takes writes");
    engine.state.lock().unwrap().end_extent += 1;
    assert_eq!(write(4), Ok(()));
    engine.finish(thread);
}

#[test]
fn inline_requests_that_miss_something_would_block_and_ask_for_it() {
    let (engine, thread) = Engine::new(64);
    let volume = engine.open(1, 1 << 20);
    let mut byte = [1u8];
    with_entered(&volume, || {
        assert_eq!(
            volume.read(0, &mut byte, Patience::Inline),
            Err(IoError::WouldBlock)
        )
    });
    with_entered(&volume, || volume.read(0, &mut byte, Patience::Wait)).unwrap();
    assert_eq!(byte, [0]);
    with_entered(&volume, || {
        assert_eq!(
            volume.write(0, &byte, Patience::Inline),
            Err(IoError::WouldBlock)
        )
    });
    with_entered(&volume, || volume.write(0, &[9], Patience::Wait)).unwrap();
    with_entered(&volume, || {
        assert_eq!(volume.read(0, &mut byte, Patience::Inline), Ok(()))
    });
    assert_eq!(byte, [9]);
    engine.finish(thread);
}

#[test]
fn a_grown_volume_keeps_its_data_and_takes_writes_in_the_new_part() {
    let (engine, thread) = Engine::new(64);
    let volume = engine.open(1, 1 << 30);
    with_entered(&volume, || volume.write(100, &[5; 10], Patience::Wait)).unwrap();
    volume.resize(80 << 30);
    with_entered(&volume, || {
        volume.write((80 << 30) - 3, &[6; 3], Patience::Wait)
    })
    .unwrap();
    let mut bytes = [0; 3];
    with_entered(&volume, || {
        volume.read((80 << 30) - 3, &mut bytes, Patience::Wait)
    })
    .unwrap();
    assert_eq!(bytes, [6; 3]);
    with_entered(&volume, || volume.read(100, &mut bytes, Patience::Wait)).unwrap();
    assert_eq!(bytes, [5; 3]);
    engine.finish(thread);
}

/// The journal failed: what was captured is not marked dirty any more, and a second flush found nothing to do and said yes.
/// Found by the model on a disk with faults.
#[test]
fn a_flush_after_a_failed_commit_fails_too() {
    let (engine, thread) = Engine::new(64);
    let volume = engine.open(1, 1 << 20);
    with_entered(&volume, || volume.write(0, &[1; 4096], Patience::Wait)).unwrap();
    engine.fail_commits.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let (sender, receiver) = mpsc::channel();
        volume.flush(Box::new(move |result| sender.send(result).unwrap()));
        assert_eq!(receiver.recv().unwrap(), Err(IoError::Failed));
    }
    engine.finish(thread);
}
