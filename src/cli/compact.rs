//! `compact`: gives back what can be given back, and says how much that was.

use std::sync::{Mutex, PoisonError};

use crabkv::{CompactionProgress, CompactionReport};
use serde_json::json;

use super::context::{Context, IfMissing};
use super::exit::{Failure, Outcome};
use super::interrupt;
use super::progress::Progress;
use super::units::{counted, duration, size};

#[derive(Debug, clap::Args)]
pub(crate) struct CompactArgs {}

pub(crate) fn run(context: &Context, _: &CompactArgs) -> Result<Outcome, Failure> {
    let bar = Bar::new(context);
    let configure = |builder: crabkv::CrabKvBuilder| {
        builder
            .auto_compaction(false)
            .on_compaction_progress(move |progress| bar.update(progress))
    };
    let report = context.write_with(IfMissing::Fail, configure, |store| {
        let cancelled = store.clone();
        let _graceful = interrupt::graceful_with(move || cancelled.cancel_compaction());
        Ok(store.compact()?)
    })?;
    context.report(|| summary(&report), || json(&report))?;
    if report.cancelled && interrupt::is_requested() {
        return Ok(Outcome::Interrupted(
            "what was merged stays merged".to_owned(),
        ));
    }
    Ok(Outcome::Done)
}

/// A bar over many merges, each of which counts from 0.
struct Bar {
    progress: Progress,
    /// Bytes of finished merges, and the total that the bar knows.
    finished: Mutex<u64>,
}

impl Bar {
    fn new(context: &Context) -> Bar {
        Bar {
            progress: Progress::of_bytes(context, "compacting", 0),
            finished: Mutex::new(0),
        }
    }

    fn update(&self, merge: &CompactionProgress) {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        self.progress.set(*finished + merge.bytes_done);
        if merge.finished {
            *finished += merge.bytes_done;
        }
    }
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
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "records_kept": report.records_kept,
        "records_dropped": report.records_dropped,
        "cancelled": report.cancelled,
        "elapsed_ms": report.elapsed.as_millis() as u64,
    })
}
