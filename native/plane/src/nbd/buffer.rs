//! Memory for a connection's bytes, zeroed and given back for certain. Large buffers are mappings of their own: the allocator keeps
//! what it once had (after 4,000 connections had been busy and idle again, half a gigabyte), and soon serves large requests from
//! what it kept, which it then has to zero. Knows nothing of what is in it.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// From here on a buffer is a mapping; below, the system calls would cost more than they give.
const MAPPED_BYTES_MIN: usize = 16 << 10;

pub enum Buffer {
    Small(Vec<u8>),
    Mapped(Mapping),
}

pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Buffer {
    pub fn zeroed(length: usize) -> Buffer {
        if length >= MAPPED_BYTES_MIN
            && let Some(mapping) = Mapping::new(length)
        {
            return Buffer::Mapped(mapping);
        }
        // If the kernel has no memory, the allocator says so in its own way.
        Buffer::Small(vec![0; length])
    }

    pub fn copy_of(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::Small(Vec::new())
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Buffer::Small(bytes) => bytes,
            // SAFETY: `start` is the start of `length` mapped, readable, initialised (zeroed by the kernel) bytes, which live as
            // long as `self`; whoever writes them has a `&mut` of it.
            Buffer::Mapped(mapping) => unsafe {
                std::slice::from_raw_parts(mapping.start.as_ptr(), mapping.length)
            },
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::Small(bytes) => bytes,
            // SAFETY: as above, writable, and borrowed by nobody else while `self` is borrowed mutably.
            Buffer::Mapped(mapping) => unsafe {
                std::slice::from_raw_parts_mut(mapping.start.as_ptr(), mapping.length)
            },
        }
    }
}

impl Mapping {
    /// `None` when the kernel has none to give.
    fn new(length: usize) -> Option<Mapping> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no memory that anybody has.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), length, access, MapFlags::PRIVATE) };
        Some(Mapping {
            start: NonNull::new(start.ok()?.cast())?,
            length,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made, which nobody borrows any more.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok());
    }
}

// SAFETY: the mapping has one owner, and its bytes are plain memory that any thread may use.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference the bytes can only be read.
unsafe impl Sync for Mapping {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_size_are_zeroed_and_hold_what_is_put_into_them() {
        for length in [0, 1, MAPPED_BYTES_MIN - 1, MAPPED_BYTES_MIN, (1 << 20) + 1] {
            let mut buffer = Buffer::zeroed(length);
            assert_eq!(
                matches!(buffer, Buffer::Mapped(_)),
                length >= MAPPED_BYTES_MIN
            );
            assert_eq!(buffer.len(), length);
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer.fill(7);
            assert!(*Buffer::copy_of(&buffer) == *vec![7; length]);
        }
    }
}
