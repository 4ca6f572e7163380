//! Volumes that are filled while clients use them, against a model: whatever the order of fills, writes, trims and zeroes, clients see
//! what they wrote last, and elsewhere what comes. A crash may come at any time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/engine.rs"]
mod engine;

use std::sync::{Arc, mpsc};

use engine::*;
use plane::backing::{Backing, IoError, Patience, Run, ZeroOptions};
use plane::capture::Rounds;
use plane::file::SLOTS_PER_FILE;
use plane::volume::{FillDoor, Volume};

const ENTRIES: u32 = 48;
const SIZE: u64 = ENTRIES as u64 * EXTENT - 3 * 4096;

fn source_bytes() -> Arc<Vec<u8>> {
    Arc::new(
        (0..SIZE)
            .map(|at| (at / 4096 % 251) as u8 + 1)
            .collect::<Vec<u8>>(),
    )
}

/// Repeats what waits for bytes, as a connection does.
fn patiently<T>(volume: &Arc<Volume>, work: impl Fn() -> Result<T, IoError>) -> Result<T, IoError> {
    loop {
        match with_entered(volume, &work) {
            Err(IoError::NotYet(entry)) => {
                let (sender, receiver) = mpsc::channel();
                volume.when_there(entry, Box::new(move |result| sender.send(result).unwrap()));
                receiver.recv().unwrap()?;
            }
            result => return result,
        }
    }
}

fn fill(volume: &Arc<Volume>, source: &Source, entry: u32) {
    source.answer(volume, entry);
}

/// Every entry but each fifth is expected; the others are zeros.
fn expected_runs() -> Vec<(u32, u32)> {
    (0..ENTRIES)
        .filter(|entry| entry % 5 != 4)
        .map(|entry| (entry, 1))
        .collect()
}

fn run(seed: u64, steps: usize) {
    let (engine, thread) = Engine::new(SLOTS_PER_FILE);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let bytes = source_bytes();
    let source = Source::of(Arc::clone(&bytes));
    let runs = expected_runs();
    let mut model = vec![0u8; SIZE as usize];
    for (entry, _) in &runs {
        let start = *entry as usize * EXTENT as usize;
        let end = (start + EXTENT as usize).min(SIZE as usize);
        model[start..end].copy_from_slice(&bytes[start..end]);
    }
    let mut handle = 1;
    engine.put_source(handle, source.clone());
    let mut volume = engine.open(handle, SIZE);
    volume.begin_fill(&runs);
    for step in 0..steps {
        let (offset, length) = range(&mut random, SIZE);
        let span = offset as usize..(offset + length) as usize;
        match random.below(100) {
            0..35 => {
                let written: Vec<u8> = (0..length).map(|_| random.0 as u8 | 1).collect();
                random.next();
                patiently(&volume, || volume.write(offset, &written, Patience::Wait)).unwrap();
                model[span].copy_from_slice(&written);
            }
            35..50 => {
                let options = ZeroOptions::default();
                patiently(&volume, || {
                    volume.zero(offset, length, options, Patience::Wait)
                })
                .unwrap();
                model[span].fill(0);
            }
            50..60 => {
                patiently(&volume, || volume.trim(offset, length, Patience::Wait)).unwrap();
                trim_model(&mut model, offset, length, SIZE);
            }
            60..75 => {
                let found = patiently(&volume, || {
                    let mut found = vec![0x55; length as usize];
                    volume.read(offset, &mut found, Patience::Wait)?;
                    Ok(found)
                })
                .unwrap();
                assert_same(seed, &format!("read of step {step}"), &found, &model[span]);
            }
            75..90 => fill(&volume, &source, random.below(u64::from(ENTRIES)) as u32),
            90..96 => engine.flush(&volume),
            96..98 => volume.request_drop_leaves(),
            _ => {
                // A crash: what is committed is what there is, and the fill begins again with all it began with.
                engine.flush(&volume);
                let table = engine.state.lock().unwrap().tables[&handle].clone();
                handle += 1;
                engine.state.lock().unwrap().tables.insert(handle, table);
                engine.put_source(handle, source.clone());
                volume = engine.open(handle, SIZE);
                volume.begin_fill(&runs);
            }
        }
    }
    for entry in 0..ENTRIES {
        fill(&volume, &source, entry);
    }
    volume.end_fill();
    assert_same(seed, "the volume at the end", &read_all(&volume), &model);
    engine.finish(thread);
}

#[test]
fn whatever_comes_first_clients_see_what_they_wrote_last_and_elsewhere_what_comes() {
    for seed in 1..=12 {
        run(seed, 400);
    }
}

fn begun(source: Source) -> (Arc<Engine>, std::thread::JoinHandle<()>, Arc<Volume>) {
    let (engine, thread) = Engine::new(SLOTS_PER_FILE);
    engine.put_source(1, source);
    let volume = engine.open(1, SIZE);
    volume.begin_fill(&expected_runs());
    (engine, thread, volume)
}

#[test]
fn writes_of_whole_blocks_need_nothing_that_is_still_to_come() {
    let (engine, thread, volume) = begun(Source::absent());
    let block = vec![7u8; 8192];
    with_entered(&volume, || volume.write(4096, &block, Patience::Wait)).unwrap();
    let options = ZeroOptions::default();
    with_entered(&volume, || {
        volume.zero(EXTENT, 4096, options, Patience::Wait)
    })
    .unwrap();
    engine.flush(&volume);
    let mut found = vec![0u8; 8192];
    with_entered(&volume, || volume.read(4096, &mut found, Patience::Wait)).unwrap();
    assert_eq!(found, block);
    with_entered(&volume, || {
        volume.read(EXTENT, &mut found[..4096], Patience::Wait)
    })
    .unwrap();
    assert_eq!(found[..4096], [0; 4096]);
    // What is still to come is asked for, and its failure is the request's.
    let mut read = || with_entered(&volume, || volume.read(0, &mut found, Patience::Wait));
    assert_eq!(read(), Err(IoError::NotYet(0)));
    let part = || with_entered(&volume, || volume.write(100, &[1; 5], Patience::Wait));
    assert_eq!(part(), Err(IoError::NotYet(0)));
    let waited = patiently(&volume, || volume.write(100, &[1; 5], Patience::Wait));
    assert_eq!(waited, Err(IoError::Failed));
    engine.finish(thread);
}

#[test]
fn what_is_still_to_come_is_shown_as_data_and_never_as_quickly_zeroed() {
    let (engine, thread, volume) = begun(Source::absent());
    let mut runs = Vec::new();
    with_entered(&volume, || {
        volume.runs(0, 6 * EXTENT, Patience::Wait, &mut |run| {
            runs.push(run);
            true
        })
    })
    .unwrap();
    let run = |extents: u64, is_hole| Run {
        length: extents * EXTENT,
        is_hole,
    };
    assert_eq!(runs, [run(4, false), run(1, true), run(1, false)]);
    let fast = ZeroOptions {
        only_fast: true,
        keep_allocated: false,
    };
    let zero = |offset| {
        with_entered(&volume, || {
            volume.zero(offset, EXTENT, fast, Patience::Wait)
        })
    };
    assert_eq!(zero(0), Err(IoError::NotFast));
    assert_eq!(zero(4 * EXTENT), Ok(()));
    engine.finish(thread);
}

#[test]
fn the_door_for_filling_takes_nothing_away_and_only_whole_blocks() {
    let (engine, thread, volume) = begun(Source::of(source_bytes()));
    with_entered(&volume, || volume.write(0, &[9; 4096], Patience::Wait)).unwrap();
    let door = FillDoor(Arc::clone(&volume));
    with_entered(&volume, || {
        assert_eq!(door.trim(0, 4096, Patience::Wait), Err(IoError::Failed));
        let options = ZeroOptions::default();
        let zeroed = door.zero(0, 4096, options, Patience::Wait);
        assert_eq!(zeroed, Err(IoError::Failed));
        assert_eq!(
            door.write(1, &[1; 4096], Patience::Wait),
            Err(IoError::Failed)
        );
        assert_eq!(door.write(0, &[1; 8192], Patience::Wait), Ok(()));
        // Nothing is expected there.
        let unexpected = door.write(4 * EXTENT, &[1; 4096], Patience::Wait);
        assert_eq!(unexpected, Ok(()));
    });
    let mut found = vec![0u8; 8192];
    with_entered(&volume, || volume.read(0, &mut found, Patience::Wait)).unwrap();
    assert_eq!(found[..4096], [9; 4096]);
    assert_eq!(found[4096..], [1; 4096]);
    with_entered(&volume, || {
        volume.read(4 * EXTENT, &mut found, Patience::Wait)
    })
    .unwrap();
    assert_eq!(found, [0; 8192]);
    engine.finish(thread);
}
