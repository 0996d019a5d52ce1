//! One look at a store: its figures at a moment, and how fast they have moved since the last.

use std::time::{Duration, SystemTime};

use crabkv::{NextCompaction, NotYetFree, SegmentId, SpaceExplanation, Stats, Store};
use serde_json::{Value, json};

use super::bar::Shares;
use crate::cli::exit::Failure;
use crate::cli::units::epoch_ms;

/// The figures of a store at a moment.
pub(crate) struct Look {
    pub(crate) stats: Stats,
    pub(crate) space: SpaceExplanation,
    /// How many of the mapped bytes are in memory, where the system says.
    pub(crate) resident_bytes: Option<u64>,
    /// Who has the store open for writing.
    pub(crate) holder: Option<String>,
    pub(crate) at: SystemTime,
    pub(crate) segments: Vec<Segment>,
}

/// A segment's figures.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) sealed: bool,
    pub(crate) data_bytes: u64,
    pub(crate) shares: Shares,
    /// About how much merging it would give back.
    pub(crate) to_give: u64,
    pub(crate) reason: NotYetFree,
}

/// How fast figures move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) elapsed: Duration,
    pub(crate) writes_per_s: f64,
    /// Negative while keys get fewer.
    pub(crate) keys_per_s: f64,
    /// By writes and by compaction.
    pub(crate) bytes_per_s: f64,
}

impl Look {
    pub(crate) fn take(store: &Store) -> Result<Look, Failure> {
        let space = store.explain_compaction();
        let stats = store.stats();
        let segments = segments(&stats, &space);
        Ok(Look {
            resident_bytes: store.resident_bytes(),
            holder: crabkv::lock_holder(store.dir())?,
            at: SystemTime::now(),
            stats,
            space,
            segments,
        })
    }

    /// How fast it went since an earlier look, `elapsed` ago.
    #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
    pub(crate) fn rates_since(&self, earlier: &Look, elapsed: Duration) -> Rates {
        let per_s = |difference: f64| difference / elapsed.as_secs_f64().max(0.001);
        // Fewer, if another store was put in the place of this one.
        let writes = self.stats.next_seq.get();
        let writes = writes.saturating_sub(earlier.stats.next_seq.get());
        let keys = self.stats.keys as f64 - earlier.stats.keys as f64;
        Rates {
            elapsed,
            writes_per_s: per_s(writes as f64),
            keys_per_s: per_s(keys),
            bytes_per_s: per_s(self.bytes_written_since(earlier) as f64),
        }
    }

    /// What segments have grown by, new ones included. A store that is read only knows no other
    /// count of what its writer writes.
    fn bytes_written_since(&self, earlier: &Look) -> u64 {
        let before = |id| {
            let found = earlier.segments.binary_search_by_key(&id, |s| s.id);
            found.map_or(0, |at| earlier.segments[at].data_bytes)
        };
        let grown = self.segments.iter();
        grown
            .map(|segment| segment.data_bytes.saturating_sub(before(segment.id)))
            .sum()
    }

    pub(crate) fn json(&self, rates: Option<Rates>) -> Value {
        let stats = &self.stats;
        let mut object = json!({
            "at_ms": epoch_ms(self.at),
            "holder": self.holder,
            "keys": stats.keys,
            "may_have_expired": stats.may_have_expired,
            "next_seq": stats.next_seq.get(),
            "index_bytes": stats.index_bytes,
            "index_bytes_per_key": stats.index_bytes_per_key(),
            "mapped_bytes": stats.mapped_bytes,
            "resident_bytes": self.resident_bytes,
            "append_buffer_bytes": stats.append_buffer_bytes,
            "buffered_keys": stats.buffered_keys,
            "buffered_bytes": stats.buffered_bytes,
            "cached_values": stats.cached_values,
            "data_bytes": stats.data_bytes,
            "live_bytes": self.space.live_bytes,
            "stale_bytes": self.space.stale_bytes,
            "expired_bytes": self.space.expired_bytes,
            "tombstone_bytes": self.space.tombstone_bytes,
            "unwritten_bytes": self.space.unwritten_bytes,
            "pinned_bytes": self.space.pinned_bytes,
            "reclaimable_bytes": self.space.reclaimable_bytes,
            "next_compaction": next_name(self.space.next),
        });
        if let NextCompaction::NoRoom { needed_bytes } = self.space.next {
            object["needed_bytes"] = json!(needed_bytes);
        }
        object["compacting"] = json!(stats.compacting);
        object["compaction_paused"] = json!(stats.compaction_paused);
        object["compaction_failure"] = json!(stats.compaction_failure);
        object["refresh_failure"] = json!(stats.refresh_failure);
        object["poisoned"] = json!(stats.poisoned);
        object["appended_bytes"] = json!(stats.appended_bytes);
        object["syncs"] = json!(stats.syncs);
        object["merges"] = json!(stats.merges);
        object["merged_bytes"] = json!(stats.merged_bytes);
        if let Some(rates) = rates {
            object["rates"] = json!({
                "elapsed_ms": rates.elapsed.as_millis() as u64,
                "writes_per_s": rates.writes_per_s,
                "keys_per_s": rates.keys_per_s,
                "bytes_per_s": rates.bytes_per_s,
            });
        }
        object["segments"] = self.segments_json();
        object
    }

    fn segments_json(&self) -> Value {
        let explained = |id| self.space.segments.iter().find(|segment| segment.id == id);
        let segments = self.stats.segments.iter().map(|segment| {
            let explained = explained(segment.id);
            json!({
                "id": segment.id.get(),
                "sealed": segment.sealed,
                "data_bytes": segment.data_bytes,
                "records": segment.records,
                "live_records": segment.live_records,
                "live_bytes": explained.map(|e| e.live_bytes),
                "stale_bytes": explained.map(|e| e.stale_bytes),
                "expired_bytes": explained.map(|e| e.expired_bytes),
                "tombstone_bytes": explained.map(|e| e.tombstone_bytes),
                "retained_bytes": segment.retained_bytes,
                "reason": explained.map(|e| reason_name(e.reason)),
            })
        });
        Value::Array(segments.collect())
    }
}

/// What both accounts of a store know. A segment that came or went between them is left out.
fn segments(stats: &Stats, space: &SpaceExplanation) -> Vec<Segment> {
    let mut explained = space.segments.iter().peekable();
    let mut segments = Vec::with_capacity(stats.segments.len());
    for segment in &stats.segments {
        while explained.next_if(|other| other.id < segment.id).is_some() {}
        let Some(why) = explained.next_if(|other| other.id == segment.id) else {
            continue;
        };
        let mut shares = Shares([
            why.live_bytes,
            why.stale_bytes,
            why.expired_bytes,
            why.tombstone_bytes,
        ]);
        let mut to_give = why.stale_bytes
            + why.expired_bytes
            + why.tombstone_bytes.saturating_sub(segment.retained_bytes);
        if why.reason == NotYetFree::AllLive {
            // The frames around batches are no records, and go with their members.
            shares = Shares([shares.total(), 0, 0, 0]);
            to_give = 0;
        }
        segments.push(Segment {
            id: segment.id,
            sealed: segment.sealed,
            data_bytes: segment.data_bytes,
            shares,
            to_give,
            reason: why.reason,
        });
    }
    segments
}

fn reason_name(reason: NotYetFree) -> &'static str {
    match reason {
        NotYetFree::AllLive => "all_live",
        NotYetFree::Active => "active",
        NotYetFree::TombstonesHideOlderValues => "tombstones_hide_older_values",
        NotYetFree::Next => "next",
        NotYetFree::NotWorthItYet => "not_worth_it_yet",
        _ => "other",
    }
}

fn next_name(next: NextCompaction) -> &'static str {
    match next {
        NextCompaction::NotWorthIt => "not_worth_it",
        NextCompaction::Merge => "merge",
        NextCompaction::SealActive => "seal_active",
        NextCompaction::NoRoom { .. } => "no_room",
        NextCompaction::Paused => "paused",
        NextCompaction::Off => "off",
        NextCompaction::ReadOnly => "read_only",
        _ => "other",
    }
}
