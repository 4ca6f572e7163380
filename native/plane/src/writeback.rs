//! What a busy volume of which snapshots are taken has written goes to the disk early, in the background: left to the kernel it
//! gathers for many seconds in the page cache, and the sync that the next snapshot waits for has to write all of it. Begins
//! writes and waits for none; whether they succeed is told to the syncs (sync.rs). There is no timer: who does not write, or has no
//! snapshots taken, pays nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fd::AsRawFd;

use crate::backing::IoError;
use crate::file::ExtentFile;
use crate::volume::Volume;

/// Written between two beginnings. With a snapshot every quarter of a second beside random writes of 4 KiB these took half as
/// long as without, on a busy machine with a virtual disk; other steps were not tried.
const STEP_BYTES: u64 = 8 << 20;

/// After a snapshot; who takes one a minute has it all the time. Always, it would cost every writer: a third more CPU per
/// random write of 4 KiB, since the writing is done in this process and not by the kernel's own threads.
const AFTER_FREEZE: Duration = Duration::from_secs(120);

pub struct Writeback {
    written: AtomicU64,
    is_under_way: AtomicBool,
    opened: Instant,
    /// Until when, in milliseconds since it was opened.
    until_ms: AtomicU64,
}

impl Default for Writeback {
    fn default() -> Writeback {
        Writeback {
            written: AtomicU64::new(0),
            is_under_way: AtomicBool::new(false),
            opened: Instant::now(),
            until_ms: AtomicU64::new(0),
        }
    }
}

impl Writeback {
    pub fn frozen(&self) {
        let until = self.opened.elapsed() + AFTER_FREEZE;
        self.until_ms
            .store(until.as_millis() as u64, Ordering::Relaxed);
    }

    fn is_wanted(&self) -> bool {
        self.opened.elapsed().as_millis() < u128::from(self.until_ms.load(Ordering::Relaxed))
    }
}

impl Volume {
    /// After a write was answered or will be: its bytes are in the page cache.
    pub(crate) fn note_written(&self, bytes: u64) {
        let before = self.writeback.written.fetch_add(bytes, Ordering::Relaxed);
        if before / STEP_BYTES == before.wrapping_add(bytes) / STEP_BYTES
            || !self.writeback.is_wanted()
            || self.writeback.is_under_way.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let Some(volume) = self.me.upgrade() else {
            return;
        };
        self.shared.writeback_workers.submit(
            u64::from(self.handle),
            Box::new(move || volume.begin_writeback()),
        );
    }

    fn begin_writeback(&self) {
        for number in self.touched.numbers() {
            if let Some(file) = self.shared.files.get(number) {
                // A hint: a file that cannot be opened fails whoever needs it.
                let _ = file.begin_writeback();
            }
        }
        self.writeback.is_under_way.store(false, Ordering::Release);
    }
}

impl ExtentFile {
    fn begin_writeback(&self) -> Result<(), IoError> {
        let file = self.opened()?;
        // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
        unsafe {
            libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
        }
        Ok(())
    }
}
