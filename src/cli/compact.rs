//! `compact`: gives back what can be given back, and says how much that was.

use crabkv::CompactionReport;

use super::args::StoreArgs;
use super::exit::{Failure, Outcome};
use super::open::{IfMissing, with_store};
use super::output;

pub(crate) fn run(store: &StoreArgs) -> Result<Outcome, Failure> {
    with_store(store, IfMissing::Fail, |store| {
        output::write_text(&summary(&store.compact()?))?;
        Ok(Outcome::Done)
    })
}

fn summary(report: &CompactionReport) -> String {
    if report.segments_merged == 0 {
        return "nothing to compact\n".to_owned();
    }
    format!(
        "merged {} into {}: {} bytes before, {} after; {} kept, {} dropped; {} ms\n",
        counted(report.segments_merged as u64, "segment"),
        report.segments_written,
        report.bytes_before,
        report.bytes_after,
        counted(report.records_kept, "record"),
        report.records_dropped,
        report.elapsed.as_millis(),
    )
}

fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
