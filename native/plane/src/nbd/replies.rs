//! A growing buffer of replies whose memory is reused: bytes that will be overwritten by a read are not zeroed first, as a
//! `Vec` would do on each `resize` (40 µs of a 1 MiB read).

use super::buffer::Buffer;

const SMALL_BYTES: usize = 4096;

#[derive(Default)]
pub struct Replies {
    /// All of it initialised; `used` of it is meant.
    buffer: Buffer,
    used: usize,
}

impl Replies {
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.used
    }

    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
    }

    /// The next `count` bytes, with whatever was there before.
    pub fn space(&mut self, count: usize) -> &mut [u8] {
        let start = self.used;
        self.used += count;
        if self.buffer.len() < self.used {
            self.grow(start);
        }
        self.buffer.get_mut(start..self.used).unwrap_or_default()
    }

    /// By half at least, so that what a slow client has not read is not copied for each reply that joins it; but a 32 MiB read
    /// takes 32 MiB. The first reply is often the only one (a flush's), and small.
    fn grow(&mut self, kept: usize) {
        let steps = self.buffer.len() + self.buffer.len() / 2;
        let size = match self.used.max(steps) {
            few @ 0..SMALL_BYTES => few.next_power_of_two().max(64),
            more => more.next_multiple_of(SMALL_BYTES),
        };
        let old = std::mem::replace(&mut self.buffer, Buffer::zeroed(size));
        if let (Some(target), Some(source)) = (self.buffer.get_mut(..kept), old.get(..kept)) {
            target.copy_from_slice(source);
        }
    }

    pub fn truncate(&mut self, length: usize) {
        self.used = self.used.min(length);
    }

    pub fn clear(&mut self) {
        self.used = 0;
    }
}
