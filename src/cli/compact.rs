//! `compact`: gives back what can be given back, and says how much that was.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crabkv::{CompactionProgress, CompactionReport, SegmentExplanation, SpaceExplanation, Store};
use serde_json::json;

use super::context::{Context, IfMissing};
use super::exit::{Failure, Outcome};
use super::interrupt;
use super::progress::Progress;
use super::units::{counted, duration, size};

#[derive(Debug, clap::Args)]
pub(crate) struct CompactArgs {
    /// Only say what would be given back; works beside a program that has the store open
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) fn run(context: &Context, args: &CompactArgs) -> Result<Outcome, Failure> {
    if args.dry_run {
        let space = context.read(|store| Ok(store.explain_compaction()))?;
        context.report(|| outlook(&space), || outlook_json(&space))?;
        return Ok(Outcome::Done);
    }
    let configure = |builder: crabkv::CrabKvBuilder| {
        builder
            .auto_compaction(false)
            .on_compaction_progress(show_progress)
    };
    let report = context.write_with(IfMissing::Fail, configure, |store| {
        let _shown = Shown::new(context, store);
        let cancelled = store.clone();
        let _graceful = interrupt::graceful_with(move || cancelled.cancel_compaction());
        Ok(store.compact()?)
    })?;
    context.summarize(|| summary(&report), || json(&report))?;
    if report.cancelled && interrupt::is_requested() {
        return Ok(Outcome::Interrupted(
            "what was merged stays merged".to_owned(),
        ));
    }
    Ok(Outcome::Done)
}

/// The bar of the compaction that is under way, if somebody asked for one. A store is told whom to
/// call when it is opened, which in the shell is long before.
static BAR: Mutex<Option<Bar>> = Mutex::new(None);

fn bar() -> MutexGuard<'static, Option<Bar>> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// To be called as merges go on.
pub(crate) fn show_progress(merge: &CompactionProgress) {
    if let Some(bar) = &mut *bar() {
        bar.update(merge);
    }
}

/// While it lives, progress is shown.
struct Shown;

impl Shown {
    fn new(context: &Context, store: &Store) -> Shown {
        let space = store.explain_compaction();
        let merged = space.segments.iter().filter(|s| has_something_to_give(s));
        let total = merged.map(|segment| segment.data_bytes).sum();
        *bar() = Some(Bar {
            progress: Progress::of_bytes(context, "compacting", total),
            total,
            finished: 0,
        });
        Shown
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        *bar() = None;
    }
}

/// A bar over many merges, each of which counts from 0. It counts bytes of the segments that are
/// merged: how many of them are live, and copied, says each merge only when it begins.
struct Bar {
    progress: Progress,
    total: u64,
    /// Bytes of the segments of finished merges.
    finished: u64,
}

impl Bar {
    fn update(&mut self, merge: &CompactionProgress) {
        let before = merge.bytes_before;
        // A segment may be merged again, if that lets more go.
        self.total = self.total.max(self.finished + before);
        self.progress.set_total(self.total);
        if merge.finished {
            self.finished += before;
            self.progress.set(self.finished);
        } else {
            let done = merge.bytes_done.min(merge.bytes_to_copy);
            let share =
                u128::from(before) * u128::from(done) / u128::from(merge.bytes_to_copy.max(1));
            self.progress.set(self.finished + share as u64);
        }
    }
}

fn has_something_to_give(segment: &SegmentExplanation) -> bool {
    segment.stale_bytes + segment.tombstone_bytes + segment.expired_bytes > 0
}

fn outlook(space: &SpaceExplanation) -> String {
    let all: u64 = space
        .segments
        .iter()
        .map(|segment| segment.data_bytes)
        .sum();
    if space.reclaimable_bytes == 0 {
        return format!("nothing to compact: all of {} is needed\n", size(all));
    }
    let segments = space.segments.iter().filter(|s| has_something_to_give(s));
    format!(
        "would give back about {} of {}: {} stale, {} expired, {} in tombstones; {} would be \
         merged\n",
        size(space.reclaimable_bytes),
        size(all),
        size(space.stale_bytes),
        size(space.expired_bytes),
        size(space.tombstone_bytes),
        counted(segments.count() as u64, "segment"),
    )
}

fn outlook_json(space: &SpaceExplanation) -> serde_json::Value {
    let segments = space.segments.iter().filter(|s| has_something_to_give(s));
    json!({
        "dry_run": true,
        "reclaimable_bytes": space.reclaimable_bytes,
        "live_bytes": space.live_bytes,
        "stale_bytes": space.stale_bytes,
        "expired_bytes": space.expired_bytes,
        "tombstone_bytes": space.tombstone_bytes,
        "segments": segments.map(|segment| segment.id.get()).collect::<Vec<_>>(),
    })
}

fn summary(report: &CompactionReport) -> String {
    if report.segments_merged == 0 {
        return "nothing to compact\n".to_owned();
    }
    format!(
        "merged {} into {}: {} before, {} after; {} kept, {} dropped; {}\n",
        counted(report.segments_merged as u64, "segment"),
        report.segments_written,
        size(report.bytes_before),
        size(report.bytes_after),
        counted(report.records_kept, "record"),
        report.records_dropped,
        duration(report.elapsed),
    )
}

fn json(report: &CompactionReport) -> serde_json::Value {
    json!({
        "segments_merged": report.segments_merged,
        "segments_written": report.segments_written,
        "before_bytes": report.bytes_before,
        "after_bytes": report.bytes_after,
        "records_kept": report.records_kept,
        "records_dropped": report.records_dropped,
        "cancelled": report.cancelled,
        "elapsed_ms": report.elapsed.as_millis() as u64,
    })
}
