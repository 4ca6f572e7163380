//! Extents whose bytes are known to be wrong, and the sums that tell: a client that reads one gets an error, never what stands there.
//! Which extents have a sum, and what a wrong one means, the engine knows.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::map::EXTENT_BYTES;
use crate::nbd::buffer::Buffer;

#[derive(Default)]
pub struct Damaged {
    /// How many there are, so that a pool without any pays one relaxed load per read.
    count: AtomicUsize,
    addresses: RwLock<HashSet<u32>>,
}

impl Damaged {
    pub fn has(&self, extent: u32) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.addresses.read().contains(&extent)
    }

    /// Holds for reads that look after this returns.
    pub fn set(&self, extents: &[u32], is_damaged: bool) {
        let mut addresses = self.addresses.write();
        for extent in extents {
            if is_damaged {
                addresses.insert(*extent);
            } else {
                addresses.remove(extent);
            }
        }
        self.count.store(addresses.len(), Ordering::Relaxed);
    }
}

/// The CRC-32 (ISO-HDLC) of each of `count` extents from a byte offset on, as they are on the disk and not as the page cache has them; a
/// sum of 0 stands as 1. 0: the disk could not read it.
pub fn sums(path: &Path, offset: u64, count: u32) -> Result<Vec<u32>, Errno> {
    let (direct, cached) = (open(path, OFlags::DIRECT), open(path, OFlags::empty())?);
    let mut buffer = Buffer::zeroed(EXTENT_BYTES as usize);
    let sum = |index: u32| {
        let at = offset + u64::from(index) * EXTENT_BYTES;
        let direct = direct.as_ref().map_err(|errno| *errno);
        let result = match direct.and_then(|file| fill(file, at, &mut buffer)) {
            // Filesystems without it refuse at one place or the other.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => fill(&cached, at, &mut buffer),
            result => result,
        };
        match result {
            Ok(()) => crc32fast::hash(&buffer).max(1),
            Err(_) => 0,
        }
    };
    Ok((0..count).map(sum).collect())
}

fn open(path: &Path, flags: OFlags) -> Result<File, Errno> {
    File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Bytes behind the end of the file are zeros.
fn fill(file: &File, offset: u64, target: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = target.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, &mut *rest, offset + done as u64) {
            Ok(0) => {
                rest.fill(0);
                return Ok(());
            }
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_marked_is_damaged() {
        let damaged = Damaged::default();
        assert!(!damaged.has(7));
        damaged.set(&[7, 9], true);
        damaged.set(&[9], false);
        assert!(damaged.has(7) && !damaged.has(9) && !damaged.has(8));
    }

    #[test]
    fn a_sum_is_of_the_bytes_of_an_extent_and_never_zero_for_one_that_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..EXTENT_BYTES + 4096).map(|at| (at / 7) as u8).collect();
        std::fs::write(&path, &bytes).expect("written");
        let (first, second) = bytes.split_at(EXTENT_BYTES as usize);
        let mut second = second.to_vec();
        second.resize(EXTENT_BYTES as usize, 0);
        assert_eq!(
            sums(&path, 0, 2).expect("sums"),
            [crc32fast::hash(first), crc32fast::hash(&second)]
        );
        assert!(sums(&folder.path().join("none"), 0, 1).is_err());
    }
}
