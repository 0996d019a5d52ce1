//! CrabKv: a key-value store for read-heavy work.

#[cfg(any(test, feature = "sim"))]
pub mod disk;
#[cfg(not(any(test, feature = "sim")))]
mod disk;
mod error;
mod format;
mod index;
mod reclaim;

mod sync;

pub use error::{Error, Result};
pub use format::{MAX_BATCH_BYTES, MAX_KEY_LEN, MAX_VALUE_LEN, SegmentId, SeqNo};

