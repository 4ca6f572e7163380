//! Extent files: the only place in the plane that touches a disk. Knows numbers, paths and byte ranges; not what lies in
//! them. A file whose sync failed stays refused (law 5): the kernel reports such an error once and then forgets it.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::backing::{IoError, Patience};
use crate::map::EXTENT_BYTES;

pub const SLOTS_PER_FILE: u32 = 16384;
/// Syncs of one file beside each other, each on a descriptor of its own (see sync.rs).
pub const SYNCS_MAX: usize = 4;
const FILES_PER_SHELF: usize = 1024;
const SHELVES: usize = 256;

pub struct ExtentFile {
    number: u32,
    path: PathBuf,
    file: OnceLock<File>,
    /// For syncs beside the first.
    others: [OnceLock<File>; SYNCS_MAX - 1],
    poisoned: AtomicBool,
    #[cfg(test)]
    pub(crate) before_sync: OnceLock<BeforeSync>,
}

/// What a test does in place of a disk that fails: called with the slot of each sync, which it can hold up and give an error.
#[cfg(test)]
pub(crate) type BeforeSync = Box<dyn Fn(usize) -> Result<(), Errno> + Send + Sync>;

/// Where an extent lies.
pub fn offset_of(extent: u32) -> u64 {
    u64::from(extent % SLOTS_PER_FILE) * EXTENT_BYTES
}

impl ExtentFile {
    fn opened(&self) -> Result<&File, IoError> {
        if self.poisoned.load(Ordering::Relaxed) {
            return Err(IoError::Failed);
        }
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = self.open().map_err(|_| IoError::Failed)?;
        // Two threads may open it at once; the loser's descriptor is closed.
        Ok(self.file.get_or_init(|| file))
    }

    fn open(&self) -> std::io::Result<File> {
        File::options().read(true).write(true).open(&self.path)
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn read(
        &self,
        offset: u64,
        target: &mut [u8],
        patience: Patience,
        files: &FileTable,
    ) -> Result<(), IoError> {
        let file = self.opened()?;
        let mut done = 0;
        while let Some(rest) = target.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let result = if patience == Patience::Inline && files.nowait.load(Ordering::Relaxed) {
                rustix::io::preadv2(
                    file,
                    &mut [IoSliceMut::new(rest)],
                    at,
                    ReadWriteFlags::NOWAIT,
                )
            } else {
                rustix::io::pread(file, &mut *rest, at)
            };
            match result {
                // Behind the end of the file, which is never shorter than its slots unless somebody cut it.
                Ok(0) => return Err(IoError::Failed),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(IoError::WouldBlock),
                Err(Errno::OPNOTSUPP) if files.nowait.load(Ordering::Relaxed) => {
                    files.nowait.store(false, Ordering::Relaxed)
                }
                Err(_) => return Err(IoError::Failed),
            }
        }
        Ok(())
    }

    pub fn write(&self, offset: u64, source: &[u8]) -> Result<(), IoError> {
        let file = self.opened()?;
        let mut done = 0;
        while let Some(rest) = source.get(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(file, rest, offset + done as u64) {
                Ok(0) => return Err(IoError::Failed),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::NOSPC | Errno::DQUOT) => return Err(IoError::NoSpace),
                Err(_) => return Err(IoError::Failed),
            }
        }
        Ok(())
    }

    /// Several buffers to one place, for the edges of partial blocks around a payload.
    pub fn write_parts(&self, offset: u64, parts: &[&[u8]]) -> Result<(), IoError> {
        let file = self.opened()?;
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let total: usize = parts.iter().map(|part| part.len()).sum();
        match rustix::io::pwritev(file, &slices, offset) {
            Ok(count) if count == total => Ok(()),
            Err(Errno::NOSPC | Errno::DQUOT) => Err(IoError::NoSpace),
            Ok(_) | Err(Errno::INTR) => {
                let mut at = offset;
                for part in parts {
                    self.write(at, part)?;
                    at += part.len() as u64;
                }
                Ok(())
            }
            Err(_) => Err(IoError::Failed),
        }
    }

    pub fn sums(&self, offset: u64, count: u32) -> Result<Vec<u32>, Errno> {
        crate::damage::sums(&self.path, offset, count)
    }

    pub fn will_need(&self, offset: u64, length: u64) {
        if let Ok(file) = self.opened() {
            // Advice only: nothing depends on it.
            let _ = rustix::fs::fadvise(
                file,
                offset,
                std::num::NonZeroU64::new(length),
                Advice::WillNeed,
            );
        }
    }

    /// Law 5: an error is final for the file.
    pub fn sync(&self) -> Result<(), Errno> {
        self.sync_in(0)
    }

    /// Whether a sync in this slot has a descriptor; opens it.
    pub fn is_open_for_sync(&self, slot: usize) -> bool {
        let Some(cell) = slot.checked_sub(1).and_then(|other| self.others.get(other)) else {
            return self.opened().is_ok();
        };
        if cell.get().is_none()
            && let Ok(file) = self.open()
        {
            let _ = cell.set(file);
        }
        cell.get().is_some()
    }

    pub fn sync_in(&self, slot: usize) -> Result<(), Errno> {
        if self.poisoned.load(Ordering::SeqCst) || !self.is_open_for_sync(slot) {
            return Err(Errno::IO);
        }
        let other = slot.checked_sub(1).and_then(|other| self.others.get(other));
        let Some(file) = other.unwrap_or(&self.file).get() else {
            return Err(Errno::IO);
        };
        loop {
            match self.fdatasync(slot, file) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.poisoned.store(true, Ordering::SeqCst);
                    return Err(error);
                }
            }
        }
    }

    #[cfg(not(test))]
    fn fdatasync(&self, _slot: usize, file: &File) -> Result<(), Errno> {
        rustix::fs::fdatasync(file)
    }

    #[cfg(test)]
    fn fdatasync(&self, slot: usize, file: &File) -> Result<(), Errno> {
        if let Some(before) = self.before_sync.get() {
            before(slot)?;
        }
        rustix::fs::fdatasync(file)
    }

    pub fn allocate(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let file = self.opened().map_err(|_| Errno::IO)?;
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
            // Without it space is taken at the first write, a little slower.
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    pub fn punch(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let file = self.opened().map_err(|_| Errno::IO)?;
        match rustix::fs::fallocate(
            file,
            FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE,
            offset,
            length,
        ) {
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }
}

type Shelf = Box<[ArcSwapOption<ExtentFile>]>;

/// Extent files by number, found without a lock.
pub struct FileTable {
    shelves: Box<[OnceLock<Shelf>]>,
    /// Whether the filesystem knows reads that refuse to wait; cleared by the first one that says no.
    nowait: AtomicBool,
}

impl Default for FileTable {
    fn default() -> Self {
        FileTable {
            shelves: (0..SHELVES).map(|_| OnceLock::new()).collect(),
            nowait: AtomicBool::new(true),
        }
    }
}

impl FileTable {
    fn cell(&self, number: u32) -> Option<&ArcSwapOption<ExtentFile>> {
        let number = number as usize;
        let shelf = self.shelves.get(number / FILES_PER_SHELF)?;
        shelf
            .get_or_init(|| {
                (0..FILES_PER_SHELF)
                    .map(|_| ArcSwapOption::empty())
                    .collect()
            })
            .get(number % FILES_PER_SHELF)
    }

    pub fn register(&self, number: u32, path: PathBuf) -> bool {
        let Some(cell) = self.cell(number) else {
            return false;
        };
        cell.store(Some(Arc::new(ExtentFile {
            number,
            path,
            file: OnceLock::new(),
            others: Default::default(),
            poisoned: AtomicBool::new(false),
            #[cfg(test)]
            before_sync: OnceLock::new(),
        })));
        true
    }

    pub fn forget(&self, number: u32) {
        if let Some(cell) = self.cell(number) {
            cell.store(None);
        }
    }

    pub fn get(&self, number: u32) -> Option<Arc<ExtentFile>> {
        self.cell(number)?.load_full()
    }

    /// Runs `work` with the file of an extent; an unknown file is a damaged map.
    pub fn with<T>(
        &self,
        extent: u32,
        work: impl FnOnce(&ExtentFile) -> Result<T, IoError>,
    ) -> Result<T, IoError> {
        let Some(cell) = self.cell(extent / SLOTS_PER_FILE) else {
            return Err(IoError::Failed);
        };
        match &*cell.load() {
            Some(file) => work(file),
            None => Err(IoError::Failed),
        }
    }
}

/// The files one volume wrote to since its last capture took them: a bit per file number.
pub struct Touched {
    shelves: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

const FILES_PER_TOUCHED_SHELF: u32 = 4096;

impl Default for Touched {
    fn default() -> Self {
        Touched {
            shelves: (0..64).map(|_| OnceLock::new()).collect(),
        }
    }
}

impl Touched {
    /// After the data were written and before the reply or the entry (so that a capture which sees the entry sees this).
    pub fn add(&self, extent: u32) {
        self.add_file(extent / SLOTS_PER_FILE);
    }

    pub fn add_file(&self, number: u32) {
        if let Some(shelf) = self
            .shelves
            .get((number / FILES_PER_TOUCHED_SHELF) as usize)
        {
            let words = shelf.get_or_init(|| {
                (0..FILES_PER_TOUCHED_SHELF / 64)
                    .map(|_| AtomicU64::new(0))
                    .collect()
            });
            let within = number % FILES_PER_TOUCHED_SHELF;
            if let Some(word) = words.get((within / 64) as usize) {
                let bit = 1u64 << (within % 64);
                if word.load(Ordering::SeqCst) & bit == 0 {
                    word.fetch_or(bit, Ordering::SeqCst);
                }
            }
        }
    }

    /// Takes all of them.
    pub fn take(&self) -> Vec<u32> {
        let mut numbers = Vec::new();
        for (shelf_index, shelf) in self.shelves.iter().enumerate() {
            for (word_index, word) in shelf
                .get()
                .into_iter()
                .flat_map(|words| words.iter().enumerate())
            {
                if word.load(Ordering::SeqCst) == 0 {
                    continue;
                }
                let mut bits = word.swap(0, Ordering::SeqCst);
                while bits != 0 {
                    let bit = bits.trailing_zeros();
                    numbers.push(
                        shelf_index as u32 * FILES_PER_TOUCHED_SHELF + word_index as u32 * 64 + bit,
                    );
                    bits &= bits - 1;
                }
            }
        }
        numbers
    }

    pub fn is_empty(&self) -> bool {
        self.shelves
            .iter()
            .filter_map(OnceLock::get)
            .flatten()
            .all(|word| word.load(Ordering::SeqCst) == 0)
    }
}

impl std::fmt::Debug for ExtentFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "extent file {} at {}", self.number, self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_files_are_taken_once() {
        let touched = Touched::default();
        touched.add(SLOTS_PER_FILE);
        touched.add(SLOTS_PER_FILE + 5);
        touched.add(SLOTS_PER_FILE * 9000);
        assert!(!touched.is_empty());
        assert_eq!(touched.take(), vec![1, 9000]);
        assert!(touched.is_empty());
    }
}
