//! Where the bytes are, and why those that are not needed are still there.

use std::fmt;

use super::engine::Engine;
use crate::compaction::pick::{self, Conditions, Pick};
use crate::disk::Disk;
use crate::format::SegmentId;
use crate::format::segment::HEADER_LEN;
use crate::log::Usage;

/// Where the bytes of a store are and why each is not yet free, from
/// [`Store::explain_compaction`](crate::Store::explain_compaction). Its `Display` is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceExplanation {
    /// Bytes of records that hold values that can be read.
    pub live_bytes: u64,
    /// Bytes of records that were overwritten or deleted.
    pub stale_bytes: u64,
    /// Bytes of tombstones.
    pub tombstone_bytes: u64,
    /// About how many bytes of values have expired.
    pub expired_bytes: u64,
    /// Bytes of segments that have been merged, but that somebody still reads.
    pub pinned_bytes: u64,
    /// What is reserved for the active segment and not written yet.
    pub unwritten_bytes: u64,
    /// About how many bytes a full compaction would give back.
    pub reclaimable_bytes: u64,
    /// What automatic compaction does next, and why not more.
    pub next: NextCompaction,
    /// Each segment, in the order of their ids.
    pub segments: Vec<SegmentExplanation>,
}

/// Where the bytes of a segment are, and why they are not yet free.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentExplanation {
    /// Its number.
    pub id: SegmentId,
    /// Bytes of its header and records.
    pub data_bytes: u64,
    /// Bytes of records that hold values that can be read.
    pub live_bytes: u64,
    /// Bytes of records that were overwritten or deleted.
    pub stale_bytes: u64,
    /// Bytes of its tombstones.
    pub tombstone_bytes: u64,
    /// About how many bytes of its values have expired.
    pub expired_bytes: u64,
    /// Why what it could give is not yet free.
    pub reason: NotYetFree,
}

/// Why a segment's stale bytes are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotYetFree {
    /// It has nothing to give.
    AllLive,
    /// It is being written to; it can be merged once it is sealed.
    Active,
    /// Its tombstones hide older values in segments that have not been merged yet.
    TombstonesHideOlderValues,
    /// Automatic compaction takes it next.
    Next,
    /// Others have more to give, or all together have too little to be worth it.
    NotWorthItYet,
}

/// What automatic compaction does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextCompaction {
    /// Less than a third of the log could be given back, or the log is shorter than 1 MiB.
    NotWorthIt,
    /// It merges the segments that are marked so.
    Merge,
    /// It seals the active segment first, which holds the space.
    SealActive,
    /// It cannot: the disk has no room for what must be kept for a while.
    NoRoom {
        /// How many bytes it needs.
        needed_bytes: u64,
    },
    /// It is [paused](crate::Store::pause_compaction).
    Paused,
    /// It is switched off; [`Store::compact`](crate::Store::compact) does it.
    Off,
    /// None: the store is open [read-only](crate::Store::open_read_only), and whoever writes to it
    /// compacts it.
    ReadOnly,
}

impl<D: Disk> Engine<D> {
    pub(crate) fn explain_compaction(&self) -> SpaceExplanation {
        let (segments, at) = self.figures();
        let picked = pick::pick(&segments, at);
        let next = if self.settings.read_only {
            NextCompaction::ReadOnly
        } else if !self.settings.auto_compaction {
            NextCompaction::Off
        } else if self.background.is_paused() {
            NextCompaction::Paused
        } else {
            match &picked {
                Pick::Nothing => NextCompaction::NotWorthIt,
                Pick::SealActive => NextCompaction::SealActive,
                Pick::Merge(_) => NextCompaction::Merge,
                Pick::NoRoom { needed } => NextCompaction::NoRoom {
                    needed_bytes: *needed,
                },
            }
        };
        let takes = |slot| matches!(&picked, Pick::Merge(slots) if slots.contains(&slot));
        let usages = segments.iter().map(|(_, usage)| usage);
        let reclaimable_bytes = usages.map(|usage| usage.reclaimable_bytes(at.now_ms)).sum();
        let mut explained: Vec<_> = segments
            .iter()
            .map(|(slot, usage)| explain(usage, takes(*slot), at))
            .collect();
        explained.sort_unstable_by_key(|segment| segment.id);
        let sum = |figure: fn(&SegmentExplanation) -> u64| explained.iter().map(figure).sum();
        SpaceExplanation {
            live_bytes: sum(|s| s.live_bytes),
            stale_bytes: sum(|s| s.stale_bytes),
            tombstone_bytes: sum(|s| s.tombstone_bytes),
            expired_bytes: sum(|s| s.expired_bytes),
            pinned_bytes: self.leaving.bytes(),
            unwritten_bytes: self.lock_writer().log.unwritten_bytes(),
            reclaimable_bytes,
            next,
            segments: explained,
        }
    }
}

fn explain(usage: &Usage, is_next: bool, at: Conditions) -> SegmentExplanation {
    let expired_bytes = usage.expired_bytes(at.now_ms);
    let reason = if !pick::has_something_to_give(usage, at.now_ms) {
        NotYetFree::AllLive
    } else if !usage.sealed {
        NotYetFree::Active
    } else if is_next {
        NotYetFree::Next
    } else if usage.retained_bytes > 0 && usage.reclaimable_bytes(at.now_ms) == 0 {
        NotYetFree::TombstonesHideOlderValues
    } else {
        NotYetFree::NotWorthItYet
    };
    SegmentExplanation {
        id: usage.id,
        data_bytes: usage.data_len,
        live_bytes: usage.live_bytes - expired_bytes.min(usage.live_bytes),
        stale_bytes: usage.stale_bytes().saturating_sub(usage.tombstone_bytes),
        tombstone_bytes: usage.tombstone_bytes,
        expired_bytes,
        reason,
    }
}

impl fmt::Display for NotYetFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NotYetFree::AllLive => "all of it is live",
            NotYetFree::Active => "it is being written to",
            NotYetFree::TombstonesHideOlderValues => "its tombstones hide older values elsewhere",
            NotYetFree::Next => "it is merged next",
            NotYetFree::NotWorthItYet => "merging it is not worth it yet",
        })
    }
}

impl fmt::Display for NextCompaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextCompaction::NotWorthIt => {
                f.write_str("not worth it: less than a third of the log could be given back")
            }
            NextCompaction::Merge => f.write_str("merges the segments marked as next"),
            NextCompaction::SealActive => {
                f.write_str("seals the active segment, which holds the space, then merges it")
            }
            NextCompaction::NoRoom { needed_bytes } => {
                write!(
                    f,
                    "cannot: it needs {needed_bytes} bytes of room on the disk"
                )
            }
            NextCompaction::Paused => f.write_str("is paused"),
            NextCompaction::Off => f.write_str("is switched off"),
            NextCompaction::ReadOnly => {
                f.write_str("is up to whoever writes to the store; here it is open read-only")
            }
        }
    }
}

impl fmt::Display for SpaceExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>12} {:>14} {:>14} {:>14} {:>14}  why it is still there",
            "segment", "live", "stale", "tombstones", "expired"
        )?;
        for segment in &self.segments {
            writeln!(
                f,
                "{:>12} {:>14} {:>14} {:>14} {:>14}  {}",
                segment.id.get(),
                segment.live_bytes,
                segment.stale_bytes,
                segment.tombstone_bytes,
                segment.expired_bytes,
                segment.reason
            )?;
        }
        writeln!(
            f,
            "{:>12} {:>14} {:>14} {:>14} {:>14}",
            "all", self.live_bytes, self.stale_bytes, self.tombstone_bytes, self.expired_bytes
        )?;
        let headers = self.segments.len() * HEADER_LEN;
        writeln!(
            f,
            "headers {headers}, reserved for the active segment {}, pinned by readers {}",
            self.unwritten_bytes, self.pinned_bytes
        )?;
        writeln!(f, "automatic compaction {}", self.next)
    }
}
