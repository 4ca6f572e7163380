//! Parse and encode: bytes in, values out, no I/O. Numbers are the protocol's (doc/proto.md); all are big-endian.

pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Handshake flags, of server and client.
pub const FIXED_NEWSTYLE: u16 = 1;
pub const NO_ZEROES: u16 = 2;

pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
    pub const EXTENDED_HEADERS: u32 = 11;
}

pub mod reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    const ERROR: u32 = 1 << 31;
    pub const ERR_UNSUP: u32 = ERROR | 1;
    pub const ERR_POLICY: u32 = ERROR | 2;
    pub const ERR_INVALID: u32 = ERROR | 3;
    pub const ERR_TLS_REQD: u32 = ERROR | 5;
    pub const ERR_UNKNOWN: u32 = ERROR | 6;
    pub const ERR_SHUTDOWN: u32 = ERROR | 7;
    pub const ERR_TOO_BIG: u32 = ERROR | 9;
    pub const ERR_EXT_HEADER_REQD: u32 = ERROR | 10;
}

pub mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub mod export_flag {
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const SEND_DF: u16 = 1 << 7;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    pub const SEND_CACHE: u16 = 1 << 10;
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
    pub const BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;
}

pub mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

pub mod command_flag {
    pub const FUA: u16 = 1;
    pub const NO_HOLE: u16 = 2;
    pub const DF: u16 = 4;
    pub const REQ_ONE: u16 = 8;
    pub const FAST_ZERO: u16 = 16;
    /// Of extended headers: the length is that of a payload.
    pub const PAYLOAD_LEN: u16 = 32;
}

pub mod chunk {
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const BLOCK_STATUS_EXT: u16 = 6;
    pub const ERROR: u16 = 1 << 15 | 1;
    /// Flag of the last chunk of a reply.
    pub const DONE: u16 = 1;
}

/// States of base:allocation.
pub const STATE_HOLE: u32 = 1;
pub const STATE_ZERO: u32 = 2;
/// A hole that reads as zeros, as all do here.
pub const STATE_EMPTY: u32 = STATE_HOLE | STATE_ZERO;
/// State of contexts of changes, as qemu has it.
pub const STATE_DIRTY: u32 = 1;

pub const COMPACT_REQUEST_BYTES: usize = 28;
pub const EXTENDED_REQUEST_BYTES: usize = 32;
pub const SIMPLE_REPLY_BYTES: usize = 16;
pub const CHUNK_BYTES: usize = 20;
pub const EXTENDED_CHUNK_BYTES: usize = 32;

/// Which headers a connection uses, from the option that the client chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Compact requests, simple replies.
    #[default]
    Simple,
    /// Compact requests, replies in chunks.
    Structured,
    /// Requests and chunks of 32 bytes, with lengths of 64 bits.
    Extended,
}

impl Style {
    pub fn request_bytes(self) -> usize {
        if self == Style::Extended {
            EXTENDED_REQUEST_BYTES
        } else {
            COMPACT_REQUEST_BYTES
        }
    }

    pub fn has_chunks(self) -> bool {
        self != Style::Simple
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    /// As the header says it: of the payload or of the effect.
    pub length: u64,
    /// Replies repeat the offset that was asked for, also when only a rest of the request is left to do.
    pub asked_offset: u64,
}

impl Request {
    /// Bytes that follow the header.
    pub fn payload_bytes(&self, style: Style) -> u64 {
        let has_payload = match style {
            Style::Extended => self.flags & command_flag::PAYLOAD_LEN != 0,
            _ => self.command == command::WRITE,
        };
        if has_payload { self.length } else { 0 }
    }

    pub fn tag(&self) -> Tag {
        Tag {
            cookie: self.cookie,
            offset: self.asked_offset,
        }
    }
}

/// What every reply repeats of its request.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    pub cookie: u64,
    pub offset: u64,
}

/// The client speaks something else: nothing that follows can be understood.
#[derive(Debug, PartialEq, Eq)]
pub struct BadMagic;

/// `None`: not all of it has arrived.
pub fn parse_request(bytes: &[u8], style: Style) -> Result<Option<Request>, BadMagic> {
    let Some(header) = bytes.get(..style.request_bytes()) else {
        return Ok(None);
    };
    let mut fields = Fields(header);
    let magic = match style {
        Style::Extended => EXTENDED_REQUEST_MAGIC,
        _ => REQUEST_MAGIC,
    };
    if fields.u32() != Some(magic) {
        return Err(BadMagic);
    }
    Ok(request_fields(fields, style))
}

fn request_fields(mut fields: Fields<'_>, style: Style) -> Option<Request> {
    let (flags, command) = (fields.u16()?, fields.u16()?);
    let (cookie, offset) = (fields.u64()?, fields.u64()?);
    let length = match style {
        Style::Extended => fields.u64()?,
        _ => u64::from(fields.u32()?),
    };
    Some(Request {
        flags,
        command,
        cookie,
        offset,
        length,
        asked_offset: offset,
    })
}

/// Takes big-endian numbers off the front; `None` when there are not enough bytes.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
    pub fn u16(&mut self) -> Option<u16> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*taken))
    }
    pub fn u32(&mut self) -> Option<u32> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*taken))
    }
    pub fn u64(&mut self) -> Option<u64> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*taken))
    }
}

pub fn simple_reply(cookie: u64, errno: u32) -> [u8; SIMPLE_REPLY_BYTES] {
    (u128::from(SIMPLE_REPLY_MAGIC) << 96 | u128::from(errno) << 64 | u128::from(cookie))
        .to_be_bytes()
}

/// Header of one chunk of a structured reply; `length` bytes follow.
pub fn chunk_header(flags: u16, kind: u16, cookie: u64, length: u32) -> [u8; CHUNK_BYTES] {
    let fields = u128::from(STRUCTURED_REPLY_MAGIC) << 96
        | u128::from(flags) << 80
        | u128::from(kind) << 64
        | u128::from(cookie);
    let mut header = [0; CHUNK_BYTES];
    if let Some((first, last)) = header.split_first_chunk_mut() {
        *first = fields.to_be_bytes();
        last.copy_from_slice(&length.to_be_bytes());
    }
    header
}

/// The same of an extended reply.
pub fn extended_chunk_header(
    flags: u16,
    kind: u16,
    tag: Tag,
    length: u32,
) -> [u8; EXTENDED_CHUNK_BYTES] {
    let fields = u128::from(EXTENDED_REPLY_MAGIC) << 96
        | u128::from(flags) << 80
        | u128::from(kind) << 64
        | u128::from(tag.cookie);
    let mut header = [0; EXTENDED_CHUNK_BYTES];
    if let Some((first, last)) = header.split_first_chunk_mut() {
        *first = fields.to_be_bytes();
        last.copy_from_slice(&(u128::from(tag.offset) << 64 | u128::from(length)).to_be_bytes());
    }
    header
}

pub fn put_option_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    // Replies are made here and bounded: names by the protocol, messages by the source.
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_carry_each_field_in_its_place() {
        assert_eq!(
            simple_reply(0x0102_0304_0506_0708, 28),
            [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 1, 2, 3, 4, 5, 6, 7, 8]
        );
        assert_eq!(
            chunk_header(
                chunk::DONE,
                chunk::ERROR,
                0x0102_0304_0506_0708,
                0x0a0b_0c0d
            ),
            [
                0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13
            ]
        );
    }

    #[test]
    fn a_request_is_parsed_only_when_it_is_whole_and_carries_the_magic() {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&command_flag::FUA.to_be_bytes());
        bytes.extend_from_slice(&command::WRITE.to_be_bytes());
        bytes.extend_from_slice(&7u64.to_be_bytes());
        bytes.extend_from_slice(&4096u64.to_be_bytes());
        bytes.extend_from_slice(&512u32.to_be_bytes());
        let request = Request {
            flags: command_flag::FUA,
            command: command::WRITE,
            cookie: 7,
            offset: 4096,
            length: 512,
            asked_offset: 4096,
        };
        assert_eq!(parse_request(&bytes, Style::Structured), Ok(Some(request)));
        assert_eq!(request.payload_bytes(Style::Structured), 512);
        assert_eq!(parse_request(&bytes[..27], Style::Simple), Ok(None));
        bytes[0] ^= 1;
        assert_eq!(parse_request(&bytes, Style::Simple), Err(BadMagic));
    }

    #[test]
    fn an_extended_request_has_64_bits_of_length_and_says_whether_it_has_a_payload() {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&EXTENDED_REQUEST_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&[0, 32, 0, 7]);
        bytes.extend_from_slice(&7u64.to_be_bytes());
        bytes.extend_from_slice(&4096u64.to_be_bytes());
        bytes.extend_from_slice(&(1u64 << 40).to_be_bytes());
        let request = parse_request(&bytes, Style::Extended).unwrap().unwrap();
        assert_eq!((request.offset, request.length), (4096, 1 << 40));
        assert_eq!(request.payload_bytes(Style::Extended), 1 << 40);
        let tag = request.tag();
        assert_eq!(
            extended_chunk_header(chunk::DONE, chunk::ERROR, tag, 0x0a0b_0c0d),
            [
                0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0,
                16, 0, 0, 0, 0, 0, 10, 11, 12, 13
            ]
        );
        assert_eq!(parse_request(&bytes[..31], Style::Extended), Ok(None));
        assert_eq!(parse_request(&bytes, Style::Structured), Err(BadMagic));
    }
}
