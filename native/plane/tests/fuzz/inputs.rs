//! Inputs: the corpus, and what becomes of it by choices drawn from a seed.

use arbitrary::{Result, Unstructured};

use crate::VOLUME_BYTES;
use crate::support::client::{be16, be32, be64, extended, request};

/// What a client says from its first byte on, one session a file.
pub fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    found.sort();
    found
}

/// The same for the same seed.
pub fn mutated(corpus: &[(String, Vec<u8>)], seed: u64) -> Vec<u8> {
    let choices = noise(seed, 4096);
    // Choices that have run out are all zeros, so there is always a result.
    changed(corpus, &mut Unstructured::new(&choices)).expect("choices never fail")
}

fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..count / 8).flat_map(|_| next()).collect()
}

fn changed(corpus: &[(String, Vec<u8>)], choose: &mut Unstructured) -> Result<Vec<u8>> {
    let mut input = choose.choose(corpus)?.1.clone();
    if choose.ratio(2, 3)? {
        // The session goes on with requests that were not in it.
        let is_extended: bool = choose.arbitrary()?;
        for _ in 0..choose.int_in_range(1..=20)? {
            input.extend(made_up(choose, is_extended)?);
        }
    }
    // Often none: then what is made up is understood as a whole.
    for _ in 0..choose.int_in_range(0..=6usize)?.saturating_sub(3) {
        overwrite(&mut input, corpus, choose)?;
    }
    Ok(input)
}

fn made_up(choose: &mut Unstructured, is_extended: bool) -> Result<Vec<u8>> {
    let command = choose.int_in_range(0..=8u16)?;
    let mut flags = if choose.ratio(1, 2)? {
        0
    } else {
        choose.int_in_range(0..=63u16)?
    };
    let edge = *choose.choose(&[
        0,
        1,
        4096,
        65536,
        256 << 10,
        VOLUME_BYTES,
        1 << 32,
        u64::MAX,
    ])?;
    let near = edge
        .wrapping_add(u64::from(choose.int_in_range(0..=2u8)?))
        .wrapping_sub(1);
    let offset = if choose.ratio(1, 3)? {
        near
    } else {
        choose.int_in_range(0..=VOLUME_BYTES)?
    };
    let length = match choose.int_in_range(0..=3u8)? {
        0 => near,
        1 => choose.int_in_range(0..=VOLUME_BYTES)?,
        _ => choose.int_in_range(0..=9000)?,
    };
    // A payload of the length that is stated, if it is not absurd.
    let payload = vec![0xa5; length.min(100_000) as usize];
    let has_payload = command == 1;
    let cookie = choose.arbitrary()?;
    if !is_extended {
        let header = request(flags, command, cookie, offset, length as u32);
        let payload = if has_payload { payload } else { Vec::new() };
        return Ok([header, payload].concat());
    }
    if has_payload && choose.ratio(9, 10)? {
        flags |= 32;
    }
    if command == 7 && choose.ratio(1, 2)? {
        let ids: Vec<u8> = (0..choose.int_in_range(0..=3u32)?).flat_map(be32).collect();
        let payload = [be64(length), ids].concat();
        let header = extended(flags | 32, command, cookie, offset, payload.len() as u64);
        return Ok([header, payload].concat());
    }
    let header = extended(flags, command, cookie, offset, length);
    let payload = if flags & 32 != 0 { payload } else { Vec::new() };
    Ok([header, payload].concat())
}

fn overwrite(
    input: &mut Vec<u8>,
    corpus: &[(String, Vec<u8>)],
    choose: &mut Unstructured,
) -> Result<()> {
    if input.is_empty() {
        return Ok(());
    }
    let at = choose.choose_index(input.len())?;
    match choose.int_in_range(0..=4u8)? {
        0 => input[at] ^= 1 << choose.int_in_range(0..=7u8)?,
        1 => input.truncate(at),
        2 => {
            let word: u32 = *choose.choose(&[0, 1, 255, 4097, 65537, 1 << 31, u32::MAX])?;
            input.splice(at..(at + 4).min(input.len()), be32(word));
        }
        3 => {
            let other = &choose.choose(corpus)?.1;
            let from = choose.choose_index(other.len().max(1))?;
            input.splice(at.., other[from..].iter().copied());
        }
        _ => {
            let word: u16 = choose.arbitrary()?;
            input.splice(at..at, be16(word));
        }
    }
    Ok(())
}
