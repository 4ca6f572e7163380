//! The limit: about the least that a thin NBD server of this architecture can do, to measure ours against. Batched receive, a
//! flat map of 64 KiB extents, one pread or pwrite a request, one write of replies a batch. No snapshots, no durability of
//! its map, no hostile clients, simple replies only. Never shipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs::File;
use std::io::{Read, Result, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const EXTENT: u64 = 64 << 10;
const RECEIVE_BYTES: usize = 256 << 10;
const REPLIES_BYTES: usize = 256 << 10;
const SEND_BUFFER_BYTES: usize = 1 << 20;

const NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
/// HAS_FLAGS, SEND_FLUSH, CAN_MULTI_CONN.
const FLAGS: u16 = 1 | 4 | 256;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

struct Disk {
    file: File,
    size: u64,
    /// By 64 KiB of the disk: where in the file, counted from 1; 0 is a hole.
    map: Vec<AtomicU32>,
    next: AtomicU32,
}

impl Disk {
    /// Each part of a request that lies in one extent, and where; `None` is a hole.
    fn parts(
        &self,
        offset: u64,
        length: usize,
        allocates: bool,
        mut each: impl FnMut(Option<u64>, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let inside = at % EXTENT;
            let part = ((EXTENT - inside) as usize).min(length - done);
            let cell = &self.map[(at / EXTENT) as usize];
            let mut extent = cell.load(Ordering::Acquire);
            if extent == 0 && allocates {
                let fresh = self.next.fetch_add(1, Ordering::Relaxed);
                extent = match cell.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire)
                {
                    Ok(_) => fresh,
                    Err(other) => other,
                };
            }
            let place = (extent != 0).then(|| u64::from(extent - 1) * EXTENT + inside);
            each(place, done, part)?;
            done += part;
        }
        Ok(())
    }

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<()> {
        self.parts(offset, target.len(), false, |place, at, part| {
            let target = &mut target[at..at + part];
            let Some(place) = place else {
                target.fill(0);
                return Ok(());
            };
            // A first write may not have reached the end of the file yet.
            let count = self.file.read_at(target, place)?;
            target[count..].fill(0);
            Ok(())
        })
    }

    fn write(&self, offset: u64, source: &[u8]) -> Result<()> {
        self.parts(offset, source.len(), true, |place, at, part| {
            let place = place.expect("an extent was taken");
            self.file.write_all_at(&source[at..at + part], place)
        })
    }
}

fn option_reply(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> Result<()> {
    let mut reply = REPLY_MAGIC.to_be_bytes().to_vec();
    reply.extend(option.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend((data.len() as u32).to_be_bytes());
    reply.extend(data);
    stream.write_all(&reply)
}

fn take<const N: usize>(stream: &mut UnixStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn handshake(stream: &mut UnixStream, size: u64) -> Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT")?;
    stream.write_all(&(NEWSTYLE | NO_ZEROES).to_be_bytes())?;
    let skips_zeroes = u32::from_be_bytes(take(stream)?) & u32::from(NO_ZEROES) != 0;
    loop {
        let _magic: [u8; 8] = take(stream)?;
        let option = u32::from_be_bytes(take(stream)?);
        let mut data = vec![0; u32::from_be_bytes(take(stream)?) as usize];
        stream.read_exact(&mut data)?;
        match option {
            1 => {
                stream.write_all(&size.to_be_bytes())?;
                stream.write_all(&FLAGS.to_be_bytes())?;
                if !skips_zeroes {
                    stream.write_all(&[0; 124])?;
                }
                return Ok(());
            }
            2 => return option_reply(stream, option, 1, &[]),
            6 | 7 => {
                let info = [&[0, 0], &size.to_be_bytes()[..], &FLAGS.to_be_bytes()].concat();
                option_reply(stream, option, 3, &info)?;
                option_reply(stream, option, 1, &[])?;
                if option == 7 {
                    return Ok(());
                }
            }
            _ => option_reply(stream, option, (1 << 31) + 1, &[])?,
        }
    }
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes")
}

fn transmission(stream: &mut UnixStream, disk: &Disk) -> Result<()> {
    let mut buffer = vec![0; RECEIVE_BYTES];
    let (mut start, mut end) = (0, 0);
    let mut replies: Vec<u8> = Vec::new();
    loop {
        let mut used = 0;
        let mut wanted = 28;
        while end - start >= 28 && used < REPLIES_BYTES {
            let head = &buffer[start..start + 28];
            let command = u16::from_be_bytes(be(head, 6));
            let offset = u64::from_be_bytes(be(head, 16));
            let length = u32::from_be_bytes(be(head, 24)) as usize;
            let payload = if command == 1 { length } else { 0 };
            wanted = 28 + payload;
            if end - start < wanted {
                break;
            }
            let data = if command == 0 { length } else { 0 };
            if replies.len() < used + 16 + data {
                replies.resize(used + 16 + data, 0);
            }
            replies[used..used + 4].copy_from_slice(&0x6744_6698u32.to_be_bytes());
            replies[used + 4..used + 8].fill(0);
            replies[used + 8..used + 16].copy_from_slice(&head[8..16]);
            match command {
                0 => disk.read(offset, &mut replies[used + 16..used + 16 + data])?,
                1 => disk.write(offset, &buffer[start + 28..start + wanted])?,
                2 => return Ok(()),
                _ => disk.file.sync_data()?,
            }
            used += 16 + data;
            start += wanted;
            wanted = 28;
        }
        if used > 0 {
            stream.write_all(&replies[..used])?;
            continue;
        }
        if start > 0 {
            buffer.copy_within(start..end, 0);
            end -= start;
            start = 0;
        }
        if buffer.len() < wanted {
            buffer.resize(wanted, 0);
        }
        let limit = wanted.max(RECEIVE_BYTES);
        match stream.read(&mut buffer[end..limit])? {
            0 => return Ok(()),
            count => end += count,
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, path, size] = &arguments[..] else {
        panic!("limit SOCKET FILE SIZE_BYTES");
    };
    let size: u64 = size.parse().expect("a size in bytes");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .expect("the file");
    let disk = Arc::new(Disk {
        file,
        size,
        map: (0..size.div_ceil(EXTENT))
            .map(|_| AtomicU32::new(0))
            .collect(),
        next: AtomicU32::new(1),
    });
    let listener = UnixListener::bind(socket).expect("the socket");
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES)
            .expect("a larger send buffer");
        let disk = Arc::clone(&disk);
        std::thread::spawn(move || {
            // Whatever goes wrong ends the connection; this server is for measuring.
            let _ =
                handshake(&mut stream, disk.size).and_then(|()| transmission(&mut stream, &disk));
        });
    }
}
