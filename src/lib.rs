//! CrabKv: a key-value store for read-heavy work.

mod compaction;
mod crabkv;
pub mod disk;
mod error;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod log;
mod reclaim;
mod recovery;
mod segment;
mod store;
mod sync;

pub use compaction::CompactionReport;
pub use crabkv::CrabKv;
pub use error::{Error, Result};
pub use format::{MAX_BATCH_BYTES, MAX_KEY_LEN, MAX_VALUE_LEN, SegmentId, SeqNo};
pub use recovery::{RecoveryProgress, RecoveryReport, ScannedSegment, TornTail};
pub use segment::ReadMode;
pub use store::{
    CrabKvBuilder, Cursor, Durability, Iter, Reader, SegmentStats, Stats, Store, Value, Verify,
    WriteBatch,
};
