//! The data of options that have more than a name in them: bytes in, borrowed values out, `None` for what is malformed. Counts and lengths
//! that a client states are believed only as far as there are bytes.

use super::wire::Fields;
use crate::limits::NAME_BYTES_MAX;

/// Name and wanted information of INFO and GO.
pub fn info_request(data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let mut fields = Fields(data);
    let name = counted_string(&mut fields)?;
    let count = fields.u16()?;
    let requests = (0..count)
        .map(|_| fields.u16())
        .collect::<Option<Vec<u16>>>()?;
    fields.0.is_empty().then_some((name, requests))
}

/// Name and queries of the meta context options.
pub fn context_request(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut fields = Fields(data);
    let name = counted_string(&mut fields)?;
    let count = fields.u32()?;
    // As many as the data hold: the count itself is not to be believed.
    let queries = (0..count)
        .map(|_| counted_string(&mut fields))
        .collect::<Option<Vec<&[u8]>>>()?;
    fields.0.is_empty().then_some((name, queries))
}

fn counted_string<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    let length = fields.u32()? as usize;
    if length > NAME_BYTES_MAX {
        return None;
    }
    fields.bytes(length)
}
