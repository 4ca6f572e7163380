//! What a server may answer to what a client has said, written down a second time and from the other end: both streams are read side by
//! side, and every byte of the answer has to be accounted for.

use std::collections::HashMap;

use crate::support::client::{be16, be64};

struct Stream<'a>(&'a [u8]);

impl<'a> Stream<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, count: usize) -> Option<u64> {
        let bytes = self.take(count)?.iter();
        Some(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Simple,
    Structured,
    Extended,
}

struct Request {
    flags: u64,
    command: u64,
    offset: u64,
    length: u64,
    /// Of a READ: what its chunks have shown so far.
    shown: u64,
}

pub fn check(input: &[u8], output: &[u8], volume_bytes: u64) {
    let (mut said, mut heard) = (Stream(input), Stream(output));
    let greeting = [
        be64(0x4e42_444d_4147_4943),
        be64(0x4948_4156_454f_5054),
        be16(3),
    ]
    .concat();
    assert_eq!(heard.take(18), Some(&greeting[..]));
    if let Some(style) = handshake(&mut said, &mut heard, volume_bytes) {
        let Some(mut requests) = requests(&mut said, style) else {
            return;
        };
        while !heard.0.is_empty() {
            reply(&mut heard, style, &mut requests);
        }
        let left = requests.len();
        assert_eq!(left, 0, "{left} requests were not answered");
    }
    assert!(heard.0.is_empty(), "{} bytes too many", heard.0.len());
}

/// Up to the transmission phase, if it is reached.
fn handshake(said: &mut Stream, heard: &mut Stream, volume_bytes: u64) -> Option<Style> {
    let flags = said.number(4)?;
    if flags & !3 != 0 {
        return None;
    }
    let mut style = Style::Simple;
    loop {
        if said.number(8)? != 0x4948_4156_454f_5054 {
            return None;
        }
        let (kind, length) = (said.number(4)?, said.number(4)?);
        if flags & 1 == 0 && kind != 1 {
            return None;
        }
        said.take(length as usize)?;
        if kind == 1 {
            if heard.0.is_empty() {
                return None;
            }
            assert_eq!(heard.number(8), Some(volume_bytes));
            heard.take(2).expect("transmission flags");
            let zeroes = if flags & 2 == 0 { 124 } else { 0 };
            assert!(
                heard
                    .take(zeroes)
                    .expect("padding")
                    .iter()
                    .all(|byte| *byte == 0)
            );
            return Some(style);
        }
        let last = option_replies(heard, kind)?;
        match (kind, last) {
            (2, 1) => return None,
            (7, 1) => return Some(style),
            (8, 1) => style = Style::Structured,
            (11, 1) => style = Style::Extended,
            _ => {}
        }
    }
}

/// All replies to one option; the kind of the last. `None`: the client had left before it could be answered.
fn option_replies(heard: &mut Stream, option: u64) -> Option<u64> {
    loop {
        if heard.0.is_empty() && option == 2 {
            return None;
        }
        assert_eq!(heard.number(8), Some(0x0003_e889_0455_65a9));
        assert_eq!(heard.number(4), Some(option));
        let kind = heard.number(4).expect("a kind of reply");
        let length = heard.number(4).expect("a length");
        let data = heard.take(length as usize).expect("its data");
        if kind == 1 || kind >> 31 == 1 {
            assert!(kind != 1 || data.is_empty());
            return Some(kind);
        }
        assert!(matches!((option, kind), (3, 2) | (6 | 7, 3) | (9 | 10, 4)));
    }
}

/// The complete ones that have to be answered, by cookie. `None`: one was given twice, which a client must not do, and nobody can tell
/// which of the two is answered.
fn requests(said: &mut Stream, style: Style) -> Option<HashMap<u64, Request>> {
    let mut found = HashMap::new();
    while let Some((cookie, request)) = next_request(said, style) {
        if found.insert(cookie, request).is_some() {
            return None;
        }
    }
    Some(found)
}

fn next_request(said: &mut Stream, style: Style) -> Option<(u64, Request)> {
    let is_extended = style == Style::Extended;
    let magic = if is_extended {
        0x21e4_1c71
    } else {
        0x2560_9513
    };
    if said.number(4)? != magic {
        return None;
    }
    let (flags, command) = (said.number(2)?, said.number(2)?);
    let (cookie, offset) = (said.number(8)?, said.number(8)?);
    let length = said.number(if is_extended { 8 } else { 4 })?;
    let has_payload = if is_extended {
        flags & 32 != 0
    } else {
        command == 1
    };
    let payload = if has_payload {
        said.take(usize::try_from(length).ok()?)?
    } else {
        &[]
    };
    let length = match (command, payload.first_chunk()) {
        (7, Some(effect)) => u64::from_be_bytes(*effect),
        _ => length,
    };
    let request = Request {
        flags,
        command,
        offset,
        length,
        shown: 0,
    };
    (command != 2).then_some((cookie, request))
}

/// One simple reply or one chunk, of a request that waits for it.
fn reply(heard: &mut Stream, style: Style, requests: &mut HashMap<u64, Request>) {
    if style == Style::Simple {
        assert_eq!(heard.number(4), Some(0x6744_6698));
        let errno = heard.number(4).expect("an errno");
        let cookie = heard.number(8).expect("a cookie");
        let request = requests
            .remove(&cookie)
            .expect("a cookie that waits for a reply");
        if request.command == 0 && errno == 0 {
            heard.take(request.length as usize).expect("the data");
        }
        return;
    }
    let is_extended = style == Style::Extended;
    let magic = if is_extended {
        0x6e8a_278c
    } else {
        0x668e_33ef
    };
    assert_eq!(heard.number(4), Some(magic));
    let (flags, kind) = (
        heard.number(2).expect("flags"),
        heard.number(2).expect("a kind"),
    );
    let cookie = heard.number(8).expect("a cookie");
    let offset = is_extended.then(|| heard.number(8).expect("the offset"));
    let length = heard
        .number(if is_extended { 8 } else { 4 })
        .expect("a length");
    let payload = heard.take(length as usize).expect("the payload");
    assert!(flags <= 1);
    let request = requests
        .get_mut(&cookie)
        .expect("a cookie that waits for a reply");
    assert!(offset.is_none_or(|offset| offset == request.offset));
    chunk(request, kind, payload, flags == 1, is_extended);
    if flags == 1 {
        requests.remove(&cookie);
    }
}

fn chunk(request: &mut Request, kind: u64, payload: &[u8], is_last: bool, is_extended: bool) {
    let mut fields = Stream(payload);
    match (kind, request.command) {
        (0, _) => {
            assert!(is_last && payload.is_empty() && (request.command != 0 || request.length == 0))
        }
        (0x8001, _) => {
            assert!(is_last);
            assert!(matches!(
                fields.number(4),
                Some(1 | 5 | 22 | 28 | 75 | 95 | 108)
            ));
            let length = fields.number(2).expect("a message's length");
            assert!(std::str::from_utf8(fields.0).is_ok() && fields.0.len() as u64 == length);
        }
        (1 | 2, 0) => {
            let at = fields.number(8).expect("an offset");
            // Ours come in order, and so do they not overlap.
            assert_eq!(at, request.offset + request.shown);
            request.shown += if kind == 1 {
                fields.0.len() as u64
            } else {
                fields.number(4).expect("a hole's length")
            };
            assert!(request.shown <= request.length);
            assert_eq!(is_last, request.shown == request.length);
            assert!(request.flags & 4 == 0 || (kind == 1 && is_last));
        }
        (5 | 6, 7) => status(request, fields, kind == 6, is_extended),
        (kind, command) => panic!("a chunk of kind {kind} for command {command}"),
    }
}

fn status(request: &Request, mut fields: Stream, is_wide: bool, is_extended: bool) {
    assert_eq!(is_wide, is_extended);
    assert!(fields.number(4).expect("a context") > 0);
    let width = if is_wide { 16 } else { 8 };
    if is_wide {
        assert_eq!(fields.number(4), Some((fields.0.len() / width) as u64));
    }
    assert!(!fields.0.is_empty() && fields.0.len().is_multiple_of(width));
    let count = fields.0.len() / width;
    assert!(request.flags & 8 == 0 || count == 1);
    let mut sum = 0;
    while let Some(length) = fields.number(width / 2) {
        assert!(length > 0 && fields.number(width / 2).expect("a state") <= 3);
        sum += length;
    }
    // The last of ours ends where the request does at most.
    assert!(sum <= request.length);
}
