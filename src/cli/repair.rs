//! `repair`: everything that is sound, in a new store, and what is lost. The damaged store stays as
//! it is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crabkv::disk::OsDisk;
use crabkv::{Error, LostRange, ManifestUse, RepairOptions, RepairReport, repair_on};
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Failure, Outcome};
use super::units::{counted, duration, size};
use super::verify::note_json;
use super::watched::Watched;

#[derive(Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// Where to make the new store: a directory that is missing or empty
    #[arg(value_name = "OUT_DIR", value_hint = clap::ValueHint::DirPath)]
    out: PathBuf,
    /// Save sound records of a batch also where others of it are damaged, instead of none
    #[arg(long)]
    partial_batches: bool,
}

pub(crate) fn run(context: &Context, args: &RepairArgs) -> Result<Outcome, Failure> {
    let dir = &context.options.data_dir;
    // The lock of what is repaired is taken.
    context.let_go();
    let options = RepairOptions::new().partial_batches(args.partial_batches);
    let watched = Watched::new(context, "repairing");
    let repaired = repair_on(&OsDisk, dir, &args.out, &options, |progress| {
        watched.reach(progress.bytes_done, progress.bytes)
    });
    drop(watched);
    let report = match repaired {
        Err(Error::Cancelled) => {
            let message = format!(
                "nothing was saved; {} can be used again",
                args.out.display()
            );
            return Ok(Outcome::Interrupted(message));
        }
        Err(Error::InvalidOption { option: "out", .. }) => {
            return Err(Failure::Usage(format!(
                "{} is in the damaged store, {}; name a directory outside of it",
                args.out.display(),
                dir.display()
            )));
        }
        repaired => repaired?,
    };
    context.report(
        || text(&report, &args.out, context.options.verbose),
        || json(&report, &args.out),
    )?;
    context.note(format_args!(
        "{} is as it was; use {} in its place once you have looked at it",
        dir.display(),
        args.out.display()
    ));
    if report.is_complete() {
        Ok(Outcome::Done)
    } else {
        Ok(Outcome::Damaged)
    }
}

fn text(report: &RepairReport, out: &Path, with_notes: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for lost in &report.lost {
        let _ = writeln!(text, "lost: {lost}");
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    if with_notes {
        for note in &report.notes {
            let _ = writeln!(text, "note: {note}");
        }
    }
    let _ = write!(
        text,
        "saved {} in {} to {}: {} from {}; {}",
        counted(report.keys, "key"),
        counted(report.records, "record"),
        out.display(),
        size(report.bytes),
        counted(report.segments as u64, "segment"),
        duration(report.elapsed),
    );
    let lost: u64 = report.lost.iter().map(|lost| lost.len).sum();
    let _ = match report.lost.len() as u64 {
        0 if report.is_complete() => write!(text, "; nothing is lost"),
        0 => Ok(()),
        places => {
            let places = counted(places, "place");
            write!(text, "; {} lost, in {places}", size(lost))
        }
    };
    if !with_notes && !report.notes.is_empty() {
        let notes = counted(report.notes.len() as u64, "note");
        let _ = write!(text, "; {notes}, to be seen with -v");
    }
    text.push('\n');
    text
}

fn json(report: &RepairReport, out: &Path) -> Value {
    let (manifest, reason) = match &report.manifest {
        ManifestUse::Outdated { reason } => ("outdated", Some(reason)),
        ManifestUse::Rebuilt { reason } => ("rebuilt", Some(reason)),
        _ => ("sound", None),
    };
    json!({
        "complete": report.is_complete(),
        "out_dir": out.display().to_string(),
        "manifest": manifest,
        "manifest_reason": reason,
        "segments": report.segments,
        "records": report.records,
        "keys": report.keys,
        "bytes": report.bytes,
        "lost": report.lost.iter().map(lost_json).collect::<Vec<_>>(),
        "older_values": report.older_values,
        "deletions_may_be_lost": report.deletions_may_be_lost,
        "warnings": report.warnings,
        "notes": report.notes.iter().map(note_json).collect::<Vec<_>>(),
        "elapsed_ms": report.elapsed.as_millis() as u64,
    })
}

fn lost_json(lost: &LostRange) -> Value {
    json!({
        "file": lost.file.display().to_string(),
        "offset": lost.offset,
        "len": lost.len,
        "records": lost.records,
        "reason": lost.reason,
    })
}
