//! `stats`: a store's figures as a table. All sizes are in bytes.

use std::fmt::Write;

use crabkv::{SegmentStats, Stats};

use super::context::Context;
use super::exit::{Failure, Outcome};
use super::output;

const COLUMNS: [&str; 7] = [
    "segment",
    "state",
    "data bytes",
    "live records",
    "live bytes",
    "stale bytes",
    "tombstone bytes",
];

#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {}

pub(crate) fn run(context: &Context, _: &StatsArgs) -> Result<Outcome, Failure> {
    let stats = context.read(|store| Ok(store.stats()))?;
    output::write_text(&(totals(&stats) + &segments(&stats.segments)))?;
    Ok(Outcome::Done)
}

fn totals(stats: &Stats) -> String {
    let figures = [
        ("keys", stats.keys.to_string()),
        ("index bytes", stats.index_bytes.to_string()),
        (
            "index bytes per key",
            format!("{:.1}", stats.index_bytes_per_key()),
        ),
        ("segments", stats.segments.len().to_string()),
        ("data bytes", stats.data_bytes.to_string()),
        ("live bytes", stats.live_bytes.to_string()),
        ("stale bytes", stats.stale_bytes.to_string()),
        ("tombstone bytes", stats.tombstone_bytes.to_string()),
    ];
    let mut text = String::new();
    for (name, figure) in figures {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<20} {figure:>16}");
    }
    text
}

fn segments(segments: &[SegmentStats]) -> String {
    if segments.is_empty() {
        return String::new();
    }
    let row = |segment: &SegmentStats| {
        let state = if segment.sealed { "sealed" } else { "active" };
        [
            segment.id.to_string(),
            state.to_owned(),
            segment.data_bytes.to_string(),
            segment.live_records.to_string(),
            segment.live_bytes.to_string(),
            segment.stale_bytes.to_string(),
            segment.tombstone_bytes.to_string(),
        ]
    };
    let mut text = String::from("\n");
    for row in std::iter::once(COLUMNS.map(str::to_owned)).chain(segments.iter().map(row)) {
        for (cell, column) in row.iter().zip(COLUMNS) {
            let width = column.len().max(11) + 2;
            let _ = write!(text, "{cell:>width$}");
        }
        text.push('\n');
    }
    text
}
