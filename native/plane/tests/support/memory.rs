//! A backing in memory: chunks of 64 KiB, absent ones are holes. Its script lets a test hold it up, fence it or fail it, and
//! wait for what it sees; with no script set it costs one relaxed load per call.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use plane::backing::{Backing, Completion, IoError, Patience, Run, SnapshotId, ZeroOptions};
use plane::throttle::Throttle;

pub const CHUNK: usize = 65536;

type Chunk = RwLock<Option<Box<[u8]>>>;

pub struct Memory {
    size: u64,
    chunks: Vec<Chunk>,
    is_scripted: AtomicBool,
    script: Mutex<Script>,
    changed: Condvar,
    pub throttle: Throttle,
}

/// What a test asks for, and what it can wait for.
#[derive(Default)]
pub struct Script {
    /// Reads and writes inside this range block: `WouldBlock` inline, held up with patience until it is cleared.
    pub slow: Option<Range<u64>>,
    /// As `slow`, for the bytes of a read alone: its map is at hand, its data are not.
    pub slow_data: Option<Range<u64>>,
    /// Reads here are refused to who cannot wait, and done at once for who can.
    pub cold_data: Option<Range<u64>>,
    pub is_fenced: bool,
    pub holds_flushes: bool,
    pub failure: Option<IoError>,
    pub panics: bool,
    /// Only what was held up by `slow`, once it goes on.
    pub panics_elsewhere: bool,
    pub held_flushes: Vec<Completion>,
    /// Threads between enter and leave.
    pub entered: usize,
    /// Threads that wait for `slow` or for the fence.
    pub waiting: usize,
    /// With what changed since each.
    pub snapshots: Vec<(SnapshotId, Vec<Range<u64>>)>,
    pub writes: Vec<(u64, usize)>,
    pub flushes: usize,
    /// Bytes that were asked to be fetched.
    pub cached: u64,
}

impl Script {
    fn slow_reads(&self) -> Option<Range<u64>> {
        self.slow.clone().or_else(|| self.slow_data.clone())
    }
}

impl Memory {
    pub fn new(size: u64) -> Memory {
        let chunks = (0..size.div_ceil(CHUNK as u64))
            .map(|_| Chunk::default())
            .collect();
        Memory {
            size,
            chunks,
            is_scripted: AtomicBool::new(false),
            script: Mutex::default(),
            changed: Condvar::new(),
            throttle: Throttle::default(),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes or reads the script; from then on the backing follows it.
    #[allow(dead_code)]
    pub fn script<R>(&self, change: impl FnOnce(&mut Script) -> R) -> R {
        let mut script = self.locked();
        self.is_scripted.store(true, Ordering::SeqCst);
        let result = change(&mut script);
        self.changed.notify_all();
        result
    }

    #[allow(dead_code)]
    pub fn held_bytes(&self) -> usize {
        let is_held = |chunk: &&Chunk| {
            chunk
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some()
        };
        self.chunks.iter().filter(is_held).count() * CHUNK
    }

    #[allow(dead_code)]
    pub fn wait_until(&self, mut condition: impl FnMut(&Script) -> bool) {
        let limit = std::time::Duration::from_secs(20);
        let (_script, result) = self
            .changed
            .wait_timeout_while(self.locked(), limit, |script| !condition(script))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            !result.timed_out(),
            "the backing did not come to the expected state"
        );
    }

    fn note(&self, note: impl FnOnce(&mut Script)) {
        if self.is_scripted.load(Ordering::Relaxed) {
            note(&mut self.locked());
            self.changed.notify_all();
        }
    }

    fn is_cold(&self, offset: u64, length: u64) -> bool {
        self.is_scripted.load(Ordering::Relaxed)
            && self
                .locked()
                .cold_data
                .as_ref()
                .is_some_and(|cold| offset < cold.end && offset + length > cold.start)
    }

    fn pass(&self, offset: u64, length: u64, patience: Patience) -> Result<(), IoError> {
        self.pass_if(|script| script.slow.clone(), offset, length, patience)
    }

    fn pass_if(
        &self,
        slow: fn(&Script) -> Option<Range<u64>>,
        offset: u64,
        length: u64,
        patience: Patience,
    ) -> Result<(), IoError> {
        if !self.is_scripted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut script = self.locked();
        assert!(!script.panics, "asked to panic");
        assert!(script.entered > 0, "I/O outside enter and leave");
        assert!(offset + length <= self.size, "an unvalidated range");
        let is_slow = |script: &Script| {
            slow(script).is_some_and(|slow| offset < slow.end && offset + length > slow.start)
        };
        while is_slow(&script) {
            if patience == Patience::Inline {
                return Err(IoError::WouldBlock);
            }
            script = self.park(script);
            assert!(!script.panics_elsewhere, "asked to panic");
        }
        script.failure.map_or(Ok(()), Err)
    }

    fn park<'a>(&self, mut script: MutexGuard<'a, Script>) -> MutexGuard<'a, Script> {
        script.waiting += 1;
        self.changed.notify_all();
        script = self
            .changed
            .wait(script)
            .unwrap_or_else(PoisonError::into_inner);
        script.waiting -= 1;
        script
    }

    /// Parts of a range by chunk: chunk, offset in it, length.
    fn parts(&self, offset: u64, length: u64) -> impl Iterator<Item = (&Chunk, usize, usize)> {
        let (mut at, end) = (offset, offset + length);
        std::iter::from_fn(move || {
            let inside = (at % CHUNK as u64) as usize;
            let part = ((end - at) as usize).min(CHUNK - inside);
            let chunk = self
                .chunks
                .get((at / CHUNK as u64) as usize)
                .filter(|_| part > 0)?;
            at += part as u64;
            Some((chunk, inside, part))
        })
    }

    fn clear(&self, offset: u64, length: u64) {
        for (chunk, inside, part) in self.parts(offset, length) {
            let mut chunk = chunk.write().unwrap_or_else(PoisonError::into_inner);
            if part == CHUNK {
                *chunk = None;
            } else if let Some(bytes) = chunk.as_mut() {
                bytes[inside..inside + part].fill(0);
            }
        }
    }
}

impl Backing for Memory {
    fn snapshots(&self, _: Instant) -> Vec<SnapshotId> {
        self.locked().snapshots.iter().map(|(id, _)| *id).collect()
    }

    fn changed_since(&self, snapshot: SnapshotId, _: Instant) -> Option<Vec<Range<u64>>> {
        let script = self.locked();
        let found = script.snapshots.iter().find(|(id, _)| *id == snapshot);
        found.map(|(_, changed)| changed.clone())
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn throttle(&self) -> Option<&Throttle> {
        Some(&self.throttle)
    }

    fn enter(&self, patience: Patience) -> bool {
        if self.is_scripted.load(Ordering::Relaxed) {
            let mut script = self.locked();
            while script.is_fenced {
                if patience == Patience::Inline {
                    return false;
                }
                script = self.park(script);
            }
            script.entered += 1;
            self.changed.notify_all();
        }
        true
    }

    fn leave(&self) {
        self.note(|script| script.entered = script.entered.saturating_sub(1));
    }

    fn read(&self, offset: u64, target: &mut [u8], patience: Patience) -> Result<(), IoError> {
        if patience == Patience::Inline && self.is_cold(offset, target.len() as u64) {
            return Err(IoError::WouldBlock);
        }
        self.pass_if(Script::slow_reads, offset, target.len() as u64, patience)?;
        let mut rest = target;
        for (chunk, inside, part) in self.parts(offset, rest.len() as u64) {
            let (here, later) = rest.split_at_mut(part);
            match &*chunk.read().unwrap_or_else(PoisonError::into_inner) {
                Some(bytes) => here.copy_from_slice(&bytes[inside..inside + part]),
                None => here.fill(0),
            }
            rest = later;
        }
        Ok(())
    }

    fn write(&self, offset: u64, source: &[u8], patience: Patience) -> Result<(), IoError> {
        self.pass(offset, source.len() as u64, patience)?;
        let mut rest = source;
        for (chunk, inside, part) in self.parts(offset, source.len() as u64) {
            let (here, later) = rest.split_at(part);
            let mut chunk = chunk.write().unwrap_or_else(PoisonError::into_inner);
            chunk.get_or_insert_with(|| vec![0; CHUNK].into())[inside..inside + part]
                .copy_from_slice(here);
            rest = later;
        }
        self.note(|script| script.writes.push((offset, source.len())));
        Ok(())
    }

    fn trim(&self, offset: u64, length: u64, patience: Patience) -> Result<(), IoError> {
        self.pass(offset, length, patience)?;
        self.clear(offset, length);
        Ok(())
    }

    fn zero(
        &self,
        offset: u64,
        length: u64,
        options: ZeroOptions,
        patience: Patience,
    ) -> Result<(), IoError> {
        self.pass(offset, length, patience)?;
        if options.keep_allocated && options.only_fast {
            return Err(IoError::NotFast);
        }
        if !options.keep_allocated {
            self.clear(offset, length);
            return Ok(());
        }
        for (chunk, inside, part) in self.parts(offset, length) {
            let mut chunk = chunk.write().unwrap_or_else(PoisonError::into_inner);
            chunk.get_or_insert_with(|| vec![0; CHUNK].into())[inside..inside + part].fill(0);
        }
        Ok(())
    }

    fn runs(
        &self,
        offset: u64,
        length: u64,
        patience: Patience,
        each: &mut dyn FnMut(Run) -> bool,
    ) -> Result<(), IoError> {
        self.pass(offset, length, patience)?;
        let mut current: Option<Run> = None;
        for (chunk, _, part) in self.parts(offset, length) {
            let is_hole = chunk
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .is_none();
            match &mut current {
                Some(run) if run.is_hole == is_hole => run.length += part as u64,
                _ => {
                    if current
                        .replace(Run {
                            length: part as u64,
                            is_hole,
                        })
                        .is_some_and(|run| !each(run))
                    {
                        return Ok(());
                    }
                }
            }
        }
        if let Some(run) = current {
            each(run);
        }
        Ok(())
    }

    fn cache(&self, offset: u64, length: u64, patience: Patience) -> Result<(), IoError> {
        self.pass(offset, length, patience)?;
        self.note(|script| script.cached += length);
        Ok(())
    }

    fn flush(&self, done: Completion) {
        if self.is_scripted.load(Ordering::Relaxed) {
            let mut script = self.locked();
            script.flushes += 1;
            if script.holds_flushes {
                script.held_flushes.push(done);
                self.changed.notify_all();
                return;
            }
            let result = script.failure.map_or(Ok(()), Err);
            drop(script);
            self.changed.notify_all();
            return done(result);
        }
        done(Ok(()));
    }
}
