//! What the tests of the protocol layer share.

pub mod client;
pub mod memory;
