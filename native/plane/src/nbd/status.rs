//! BLOCK_STATUS: which contexts a request is about, and their descriptors. Knows no socket, and of a map only its runs.

use super::contexts::{Context, ContextKind};
use super::execute::Stop;
use super::outgoing::Outgoing;
use super::replies::Replies;
use super::wire::{self, Fields, Request, Style, chunk, command_flag};
use crate::backing::{Patience, Run};
use crate::error::{self, Refusal};
use crate::limits::{DESCRIPTORS_MAX, INLINE_STATUS_BYTES_MAX, STATUS_BYTES_MAX};
use crate::map::BLOCK_BYTES;

/// A BLOCK_STATUS with a payload as one without: the length is in there, before the contexts that are wanted.
pub fn unfold(request: &Request, payload: &[u8]) -> Result<Request, Refusal> {
    let length = Fields(payload).u64().ok_or(error::BAD_STATUS_PAYLOAD)?;
    let flags = request.flags & !command_flag::PAYLOAD_LEN;
    Ok(Request {
        flags,
        length,
        ..*request
    })
}

/// The contexts that are wanted: all, or those whose ids follow the length in the payload.
pub fn chosen<'a>(contexts: &'a [Context], payload: &[u8]) -> Result<Vec<&'a Context>, Refusal> {
    if payload.is_empty() {
        return Ok(contexts.iter().collect());
    }
    let (ids, rest) = payload.get(8..).unwrap_or_default().as_chunks::<4>();
    // Each at most once, so more than there are cannot be right; and the check below stays short.
    if !rest.is_empty() || ids.is_empty() || ids.len() > contexts.len() {
        return Err(error::BAD_STATUS_PAYLOAD);
    }
    let mut found: Vec<&Context> = Vec::with_capacity(ids.len());
    for id in ids {
        let id = u32::from_be_bytes(*id);
        let context = contexts.iter().find(|context| context.id == id);
        match context.filter(|_| found.iter().all(|other| other.id != id)) {
            Some(context) => found.push(context),
            None => return Err(error::BAD_STATUS_PAYLOAD),
        }
    }
    Ok(found)
}

/// One status chunk per context.
pub struct Status<'a> {
    pub request: &'a Request,
    pub outgoing: &'a Outgoing,
    pub contexts: Vec<&'a Context>,
    pub patience: Patience,
}

impl Status<'_> {
    pub fn put(&self, out: &mut Replies) -> Result<(), Stop> {
        let request = self.request;
        if request.length == 0 {
            return Err(error::EMPTY_STATUS.into());
        }
        let Some((last, _)) = self.contexts.split_last() else {
            return Err(error::NO_CONTEXT.into());
        };
        for context in &self.contexts {
            let flags = if context.id == last.id {
                chunk::DONE
            } else {
                0
            };
            let found = self.descriptors(context)?;
            let is_extended = self.outgoing.style == Style::Extended;
            let (kind, length) = match (is_extended, found.len() as u32) {
                (true, count) => (chunk::BLOCK_STATUS_EXT, 8 + 16 * count),
                (false, count) => (chunk::BLOCK_STATUS, 4 + 8 * count),
            };
            self.outgoing
                .put_chunk(out, flags, kind, request.tag(), length);
            out.put(&context.id.to_be_bytes());
            if is_extended {
                out.put(&(found.len() as u32).to_be_bytes());
            }
            for (length, state) in found {
                if is_extended {
                    out.put(&length.to_be_bytes());
                    out.put(&u64::from(state).to_be_bytes());
                } else {
                    // A run is never longer than the request.
                    out.put(&(length as u32).to_be_bytes());
                    out.put(&state.to_be_bytes());
                }
            }
        }
        Ok(())
    }

    /// Lengths and states, from the request's offset on.
    fn descriptors(&self, context: &Context) -> Result<Vec<(u64, u32)>, Stop> {
        let Request {
            flags,
            offset,
            length,
            ..
        } = *self.request;
        let count_max = if flags & command_flag::REQ_ONE != 0 {
            1
        } else {
            DESCRIPTORS_MAX
        };
        let mut found = Vec::new();
        match &context.kind {
            ContextKind::Changed(changes) => {
                changes.runs(offset, length, &mut |run, is_changed| {
                    let state = if is_changed { wire::STATE_DIRTY } else { 0 };
                    found.push((run, state));
                    found.len() < count_max
                })
            }
            ContextKind::Allocation => {
                if self.patience == Patience::Inline && length > INLINE_STATUS_BYTES_MAX {
                    return Err(Stop::WouldBlock);
                }
                let backing = &*self.outgoing.lease.export.backing;
                let looked_at = length.min(STATUS_BYTES_MAX);
                backing.runs(offset, looked_at, self.patience, &mut |run| {
                    found.push((run.length, state_of(run)));
                    found.len() < count_max
                })?;
                let reached: u64 = found.iter().map(|(length, _)| length).sum();
                let hole = backing.hole_at(offset + reached, length - reached);
                if let Some((last, wire::STATE_EMPTY)) = found.last_mut() {
                    *last += hole;
                }
            }
        }
        Ok(found)
    }
}

fn state_of(run: Run) -> u32 {
    if run.is_hole { wire::STATE_EMPTY } else { 0 }
}

pub fn descriptors_max(request: &Request) -> usize {
    if request.flags & command_flag::REQ_ONE != 0 {
        return 1;
    }
    if request.flags & command_flag::PAYLOAD_LEN != 0 {
        // The length that counts is in the payload.
        return DESCRIPTORS_MAX;
    }
    // Both ends may lie inside of a block.
    let blocks = request.length / BLOCK_BYTES + 2;
    blocks.min(DESCRIPTORS_MAX as u64) as usize
}

/// The wider ones, of extended replies.
pub const DESCRIPTOR_BYTES: usize = 16;
