//! What the manifest says, in public types.

use std::path::PathBuf;

use crate::format::manifest::{Manifest, SegmentState};
use crate::format::{FORMAT_VERSION, SegmentId, SeqNo, StoreId};

/// Everything that a manifest says, from [`Inspector::manifest`](super::Inspector::manifest).
/// `docs/FORMAT.md` has the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestInfo {
    /// The file.
    pub path: PathBuf,
    /// The format's version.
    pub version: u32,
    /// Which optional parts of the format are used. Bit 0: the marks of the history.
    pub flags: u32,
    /// The store's identity.
    pub store: StoreId,
    /// What keys' hashes are seeded with.
    pub hash_seed: u64,
    /// How many bits of a key's hash are used: 48, but in stores made to test collisions.
    pub hash_bits: u8,
    /// Counts the commits.
    pub generation: u64,
    /// Higher than every id in the list.
    pub next_segment: SegmentId,
    /// The next sequence number at this commit; records of the active segment may be further on.
    pub next_seq: SeqNo,
    /// The latest time that the store had seen at this commit, in milliseconds since the epoch: its
    /// clock does not go back behind it.
    pub clock_ms: u64,
    /// How far back the log tells what has happened; `None` where a program that did not keep it
    /// wrote the manifest.
    pub history: Option<HistoryMarks>,
    /// The segments that are the store, in the order of their ids.
    pub segments: Vec<ListedSegment>,
}

/// How far back the log tells what has happened; merges drop what lies before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryMarks {
    /// Every record with this sequence number or a higher one is in the log as it was written.
    pub complete_from: SeqNo,
    /// Of every key, the newest record is in the log if it has this sequence number or a higher one.
    pub deletions_from: SeqNo,
}

/// A segment as the manifest lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedSegment {
    /// Its number.
    pub id: SegmentId,
    /// Its state, and where its records end.
    pub state: SegmentState,
}

impl ManifestInfo {
    pub(super) fn of(manifest: &Manifest, path: PathBuf) -> ManifestInfo {
        ManifestInfo {
            path,
            version: FORMAT_VERSION,
            flags: manifest.flags(),
            store: manifest.store,
            hash_seed: manifest.hasher.seed(),
            hash_bits: manifest.hasher.bits(),
            generation: manifest.generation,
            next_segment: manifest.next_segment,
            next_seq: manifest.next_seq,
            clock_ms: manifest.clock_ms,
            history: manifest.history.map(|history| HistoryMarks {
                complete_from: history.complete_from,
                deletions_from: history.deletions_from,
            }),
            segments: manifest
                .segments
                .iter()
                .map(|&(id, state)| ListedSegment { id, state })
                .collect(),
        }
    }
}
