//! The only mapping from what went wrong to the number (and words) a client sees. Numbers: NBD doc/proto.md, "Error values".

use crate::backing::IoError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    Permission = 1,
    Io = 5,
    Invalid = 22,
    NoSpace = 28,
    Overflow = 75,
    NotSupported = 95,
    Shutdown = 108,
}

/// An error reply: the number, and a sentence for clients that take structured replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub errno: Errno,
    pub message: &'static str,
}

pub const READ_ONLY: Refusal = Refusal {
    errno: Errno::Permission,
    message: "this export is read-only",
};
pub const OUT_OF_RANGE: Refusal = Refusal {
    errno: Errno::Invalid,
    message: "the request reaches past the end of the volume",
};
pub const WRITE_OUT_OF_RANGE: Refusal = Refusal {
    errno: Errno::NoSpace,
    message: "the request reaches past the end of the volume",
};
pub const TOO_LONG: Refusal = Refusal {
    errno: Errno::Invalid,
    message: "the request is longer than the maximum of 32 MiB",
};
pub const UNKNOWN_COMMAND: Refusal = Refusal {
    errno: Errno::Invalid,
    message: "unknown command",
};
pub const UNKNOWN_FLAGS: Refusal = Refusal {
    errno: Errno::Invalid,
    message: "a flag that this command does not take",
};
pub const FLUSH_OF_RANGE: Refusal = Refusal {
    errno: Errno::Invalid,
    message: "a flush takes neither offset nor length",
};
pub const EMPTY_STATUS: Refusal = Refusal {
    errno: Errno::Invalid,
    message: "block status of zero bytes",
};
pub const BAD_STATUS_PAYLOAD: Refusal = Refusal {
    errno: Errno::Invalid,
    message: "a block status payload is a length and ids of negotiated contexts, each once",
};
pub const NO_PAYLOAD: Refusal = Refusal {
    errno: Errno::Invalid,
    message: "a write without a payload",
};
pub const NO_CONTEXT: Refusal = Refusal {
    errno: Errno::Invalid,
    message: "block status without a negotiated meta context",
};

impl From<IoError> for Refusal {
    fn from(error: IoError) -> Refusal {
        match error {
            IoError::NoSpace => Refusal {
                errno: Errno::NoSpace,
                message: "the pool has no space left",
            },
            IoError::NotFast => Refusal {
                errno: Errno::NotSupported,
                message: "no fast way to zero this range",
            },
            IoError::ShuttingDown => Refusal {
                errno: Errno::Shutdown,
                message: "the server is shutting down",
            },
            // WouldBlock or NotYet here is a defect of the backing; the client must not take it for success.
            IoError::Failed | IoError::WouldBlock | IoError::NotYet(_) => Refusal {
                errno: Errno::Io,
                message: "input/output error",
            },
        }
    }
}
