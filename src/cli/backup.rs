//! `backup`: a consistent copy of the store, also while a program writes to it; only what the
//! target lacks.

use std::path::{Path, PathBuf};

use crabkv::{CheckpointReport, Error};
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Failure, Outcome};
use super::units::{counted, duration, size, thousands};
use super::watched::Watched;

#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// Where to: a directory that is missing or empty, or an earlier backup of the same store,
    /// which is brought up to date
    #[arg(value_name = "BACKUP_DIR", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
}

pub(crate) fn run(context: &Context, args: &BackupArgs) -> Result<Outcome, Failure> {
    let made = context.read(|store| {
        let watched = Watched::new(context, "backing up");
        Ok(store.checkpoint_with(&args.dir, |progress| {
            watched.reach(progress.bytes_done, progress.bytes)
        }))
    })?;
    let report = match made {
        Err(Error::Cancelled) => {
            let message = format!(
                "{} is what it was before; the next backup goes on from here",
                args.dir.display()
            );
            return Ok(Outcome::Interrupted(message));
        }
        made => made?,
    };
    context.summarize(|| text(&report, &args.dir), || json(&report, &args.dir))?;
    if report.segments_linked > 0 && context.options.verbose {
        context.note(
            "linked segments are the same bytes on the disk: against the disk's damage, back up \
             to another one",
        );
    }
    Ok(Outcome::Done)
}

fn text(report: &CheckpointReport, dir: &Path) -> String {
    format!(
        "{} has every write up to number {}: {} linked, {} copied, {} there already; {} copied; {}\n",
        dir.display(),
        thousands(report.last.get()),
        counted(report.segments_linked as u64, "segment"),
        report.segments_copied,
        report.segments_present,
        size(report.bytes_copied),
        duration(report.elapsed),
    )
}

fn json(report: &CheckpointReport, dir: &Path) -> Value {
    json!({
        "backup_dir": dir.display().to_string(),
        "segments_linked": report.segments_linked,
        "segments_copied": report.segments_copied,
        "segments_present": report.segments_present,
        "copied_bytes": report.bytes_copied,
        "last_seq": report.last.get(),
        "elapsed_ms": report.elapsed.as_millis() as u64,
    })
}
