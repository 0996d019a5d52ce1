//! CrabKv: a key-value store for read-heavy work.
//!
//! Writes are appended to a log of segment files. Sealed segments are memory-mapped and read in
//! place, without a copy; an index in memory leads from a key to its newest record and stores no
//! keys. Reads take no lock and scale with cores; writes are serialized and share their syncs. What
//! a write returned `Ok` for survives a power cut, unless an option says otherwise.
//!
//! ```
//! use crabkv::Store;
//!
//! # let dir = tempfile::tempdir()?;
//! let store = Store::open(dir.path())?;
//! store.put("hello", "world")?;
//!
//! let value = store.get("hello")?.expect("it was put");
//! assert_eq!(value, "world"); // a guard: the bytes lie in the segment
//!
//! let reader = store.reader(); // lends slices, for many reads in a row
//! assert_eq!(reader.get("hello")?, Some(&b"world"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! | --- | --- |
//! | keys and values of bytes | [`Store`] |
//! | keys and values of text, with [`std::io::Result`] | [`CrabKv`] |
//! | every option, its trade-off and its default | [`CrabKvBuilder`] |
//! | what `get` returns: a guard, zero-copy, with version and expiry | [`Value`] |
//! | the cheapest way to read: borrowed slices, many keys at once | [`Reader`] |
//! | several writes, all or nothing | [`WriteBatch`] |
//! | writes that depend on what is there | [`Store::compare_and_swap`], [`Store::update`], [`Store::modify`], [`Store::increment`], [`Store::put_if_absent`] |
//! | iteration, to be resumed at will | [`Store::iter`], [`Iter`], [`Cursor`] |
//! | keys a few at a time, with nothing to keep but a number | [`Store::scan_keys`] |
//! | what was written since, also after a restart; following as it is written | [`Store::changes`], [`Store::watch`] |
//! | reading beside a process that writes | [`Store::open_read_only`], [`Store::refresh`] |
//! | who has a directory open for writing | [`lock_holder`] |
//! | what survives what | [`Durability`] |
//! | what went wrong, by what can be done about it | [`enum@Error`] |
//! | what opening found: a torn tail, a hint file made again | [`RecoveryReport`] |
//! | where every byte is, and why it is still there | [`Stats`], [`Store::explain_compaction`] |
//! | giving space back: by itself, on a thread, now | [`CrabKvBuilder::async_compaction`], [`Store::compact`] |
//! | a copy while writing goes on, and the way back | [`Store::checkpoint`], [`restore`](restore()) |
//! | whether every byte is as it was written | [`verify`], [`VerifyReport`] |
//! | what a data directory holds: manifest, segments, records, every version of a key | [`inspect`] |
//! | saving what is sound of a damaged store | [`repair`], [`RepairReport`] |
//! | a bar for long work, and Ctrl-C | [`ScanProgress`], [`CopyProgress`], [`Error::Cancelled`], [`RecoveryProgress`] |
//! | another disk than the operating system's, for tests | [`disk`] |
//!
//! # Features
//!
//! - `cli` (default): the command line program. A library that embeds the store does without:
//!   `default-features = false`.
//! - `sim`: `disk::SimDisk`, a simulated disk that keeps what is durable and what is not apart,
//!   loses, tears and reorders the latter at a power cut, and fails the operation it is told to
//!   fail.
//! - `fuzzing`: what the repository's fuzzers call.
//! - `bug-bank`: deliberate bugs, for the repository's tests of its own tests. Not for use.
//!
//! # In the repository
//!
//! `docs/FORMAT.md` has the files byte by byte, `docs/RELIABILITY.md` the promises with their
//! assumptions and tests, `docs/ARCHITECTURE.md` the map of the code.

mod bugs;
mod checkpoint;
mod compaction;
mod crabkv;
pub mod disk;
mod error;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod index;
pub mod inspect;
mod log;
mod progress;
mod reclaim;
mod recovery;
mod repair;
mod segment;
mod store;
mod sync;
mod verify;

#[cfg(feature = "bug-bank")]
#[doc(hidden)]
pub use bugs::BUGS;
pub use checkpoint::{CheckpointReport, RestoreReport, restore, restore_on};
pub use compaction::{CompactionProgress, CompactionReport};
pub use crabkv::CrabKv;
pub use error::{Error, Result};
pub use format::{MAX_BATCH_BYTES, MAX_KEY_LEN, MAX_VALUE_LEN, SegmentId, SeqNo};
pub use progress::{CopyProgress, ScanProgress};
pub use recovery::{
    RecoveryProgress, RecoveryReport, ScannedSegment, TornTail, lock_holder, lock_holder_on,
};
pub use repair::{LostRange, ManifestUse, RepairOptions, RepairReport, repair, repair_on};
pub use segment::ReadMode;
pub use store::{
    Change, ChangeKind, Changes, CrabKvBuilder, Cursor, Durability, Iter, Modification,
    NextCompaction, NotYetFree, Reader, ScannedKeys, SegmentExplanation, SegmentStats,
    SpaceExplanation, Stats, Store, Value, Verify, Watch, WriteBatch,
};

pub use verify::{Damage, DamageKind, Note, NoteKind, VerifyReport, verify, verify_on};

/// The README's examples, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
