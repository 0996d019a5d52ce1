//! Checkpoints: an openable copy of a store as it is at one moment, and the way back.
//!
//! A checkpoint is a directory with a manifest of its own, in which every segment is sealed. The
//! store's sealed segments are there by hard link, under their own ids; where links are
//! impossible, by copy. Of the segment that is being written to, the durable part is copied into
//! a sealed segment of its own, under an id that the store never comes to. So no file of a
//! checkpoint ever changes: a later checkpoint into the same directory adds files, commits a new
//! manifest and then removes what only the old one named. At every moment of that, a crash leaves
//! the old checkpoint or the new one.
//!
//! | step | a crash after it leaves |
//! | --- | --- |
//! | 1. the directory is made and locked, what is in it looked at | nothing new, or an empty directory |
//! | 2. without a manifest there: the checkpoint file, naming none | a directory that says it is unfinished |
//! | 3. segments and hint files are linked or copied | the same, or the old checkpoint, and files that its manifest does not name |
//! | 4. the checkpoint file names the old manifest and the new one | the same |
//! | 5. the new manifest is committed | the old checkpoint or the new one, in full |
//! | 6. files that it does not name are removed | the new checkpoint |
//!
//! A file that is copied is synced before it gets its name, so that a name always stands for a
//! whole file: what an interrupted run has brought, the next one need not bring again.
//!
//! **Hard links and writing.** A segment's bytes are the same file in the store and in the
//! checkpoint, so neither may write to it. Neither does: sealed segments are never written to by
//! the store; a store that is opened in the checkpoint begins a new segment, since none in its
//! manifest can be appended to; hint files are removed and made anew, never rewritten. A footer
//! that is damaged is written again by whoever opens the store, but it is a function of the
//! records, so its bytes are those that were there; and only segments with a sound footer are
//! linked. What damages the file, though, damages it in both places: [`restore`] copies and
//! verifies.
//!
//! Owns what a checkpoint's directory looks like. Knows nothing of the store's locks and threads,
//! which take the [`Snapshot`].

mod copy;
mod directory;
mod restore;
mod snapshot;
mod target;

use std::time::Duration;

pub use restore::{RestoreReport, restore, restore_on};
pub(crate) use snapshot::{Part, Snapshot};
pub(crate) use target::{Failure, Target};

use crate::format::SeqNo;

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// Segments that became part of it by a hard link, at no cost.
    pub segments_linked: usize,
    /// Segments that were copied: the durable part of the active one, and all where hard links are
    /// impossible.
    pub segments_copied: usize,
    /// Segments that an earlier checkpoint in the same directory had brought.
    pub segments_present: usize,
    /// How many bytes were copied, without hint files.
    pub bytes_copied: u64,
    /// Every write up to this sequence number is in the checkpoint, and none after it; 0 where
    /// nothing has ever been written.
    pub last: SeqNo,
    /// How long it took.
    pub elapsed: Duration,
}
