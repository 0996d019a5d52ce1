//! `restore`: a store from a backup, by copies that are verified on the way.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use crabkv::disk::OsDisk;
use crabkv::{Error, RestoreReport, VerifyReport, restore_on};
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Failure, Outcome};
use super::units::{counted, duration, size, thousands};
use super::verify::{damage_json, verify};
use super::watched::Watched;

#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "BACKUP_DIR", value_hint = clap::ValueHint::DirPath)]
    backup: PathBuf,
    /// Only verify the backup, and say what would be restored
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) fn run(context: &Context, args: &RestoreArgs) -> Result<Outcome, Failure> {
    let dir = &context.options.data_dir;
    if has_store(dir) {
        return Err(Failure::Usage(format!(
            "there is a store in {} already; restore into another directory with --data-dir, or \
             move it away",
            dir.display()
        )));
    }
    if args.dry_run {
        return rehearse(context, &args.backup);
    }
    let watched = Watched::new(context, "restoring");
    let restored = restore_on(&OsDisk, &args.backup, dir, |progress| {
        watched.reach(progress.bytes_done, progress.bytes)
    });
    drop(watched);
    let report = match restored {
        Err(Error::Cancelled) => {
            let message = format!("{} is no store yet; restore again", dir.display());
            return Ok(Outcome::Interrupted(message));
        }
        restored => restored.map_err(|error| in_words(error, &args.backup))?,
    };
    context.summarize(|| text(&report, dir), || json(&report, dir))?;
    Ok(Outcome::Done)
}

/// Whether there is what a store begins with. The library refuses it too, when it is locked.
fn has_store(dir: &Path) -> bool {
    dir.join("MANIFEST").exists()
}

/// What is missing is the backup, not the store.
fn in_words(error: Error, backup: &Path) -> Failure {
    match error {
        Error::NotFound { dir } if dir == backup => {
            let reason = io::Error::new(io::ErrorKind::NotFound, "there is none");
            Failure::file("find a backup in", backup, reason)
        }
        error => Failure::Store(error),
    }
}

fn rehearse(context: &Context, backup: &Path) -> Result<Outcome, Failure> {
    let report = match verify(context, backup) {
        Err(Error::Cancelled) => {
            let message = "not all of the backup was looked at; nothing was changed";
            return Ok(Outcome::Interrupted(message.to_owned()));
        }
        verified => verified.map_err(|error| in_words(error, backup))?,
    };
    let dir = &context.options.data_dir;
    context.report(
        || rehearsed(&report, backup, dir),
        || rehearsed_json(&report, dir),
    )?;
    if report.is_sound() {
        Ok(Outcome::Done)
    } else {
        Ok(Outcome::Damaged)
    }
}

fn rehearsed(report: &VerifyReport, backup: &Path, dir: &Path) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for damage in &report.damage {
        let _ = writeln!(text, "{damage}");
    }
    let (backup, dir) = (backup.display(), dir.display());
    let _ = if report.is_sound() {
        writeln!(
            text,
            "{backup} is sound; would restore {} with {}, {}, to {dir}",
            counted(report.segments as u64, "segment"),
            counted(report.records, "record"),
            size(report.bytes),
        )
    } else {
        writeln!(
            text,
            "{backup} is damaged; crabkv repair -d {backup} {dir} saves what is sound"
        )
    };
    text
}

fn rehearsed_json(report: &VerifyReport, dir: &Path) -> Value {
    json!({
        "dry_run": true,
        "sound": report.is_sound(),
        "data_dir": dir.display().to_string(),
        "segments": report.segments,
        "records": report.records,
        "bytes": report.bytes,
        "damage": report.damage.iter().map(damage_json).collect::<Vec<_>>(),
    })
}

fn text(report: &RestoreReport, dir: &Path) -> String {
    format!(
        "restored {}, {}, to {}: every write up to number {}; {}\n",
        counted(report.segments as u64, "segment"),
        size(report.bytes),
        dir.display(),
        thousands(report.last.get()),
        duration(report.elapsed),
    )
}

fn json(report: &RestoreReport, dir: &Path) -> Value {
    json!({
        "data_dir": dir.display().to_string(),
        "segments": report.segments,
        "bytes": report.bytes,
        "last_seq": report.last.get(),
        "elapsed_ms": report.elapsed.as_millis() as u64,
    })
}
