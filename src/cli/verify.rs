//! `verify`: is everything as it was written? Names every place that is not.

use std::fmt::Write as _;
use std::path::Path;

use clap::builder::styling::{AnsiColor, Style};
use crabkv::disk::OsDisk;
use crabkv::{Damage, Error, Note, NoteKind, VerifyReport, verify_on};
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Failure, Outcome};
use super::units::{counted, duration, size};
use super::watched::Watched;

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {}

pub(crate) fn run(context: &Context, _: &VerifyArgs) -> Result<Outcome, Failure> {
    let dir = &context.options.data_dir;
    let report = match verify(context, dir) {
        Err(Error::Cancelled) => {
            let message = "not all of it was looked at; nothing was changed";
            return Ok(Outcome::Interrupted(message.to_owned()));
        }
        verified => verified?,
    };
    context.report(|| text(&report, context.options.verbose), || json(&report))?;
    if report.is_sound() {
        return Ok(Outcome::Done);
    }
    context.note(if report.heals() {
        "nothing is lost: opening the store for writing, as with put or compact, makes again what \
         is damaged"
    } else {
        "save what is sound with crabkv repair OUT_DIR, or restore a backup"
    });
    Ok(Outcome::Damaged)
}

/// Reads all of a store, with a bar.
pub(crate) fn verify(context: &Context, dir: &Path) -> Result<VerifyReport, Error> {
    let watched = Watched::new(context, "verifying");
    verify_on(&OsDisk, dir, |progress| {
        watched.reach(progress.bytes_done, progress.bytes)
    })
}

fn text(report: &VerifyReport, with_notes: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for damage in &report.damage {
        let _ = writeln!(text, "{damage}");
    }
    if with_notes {
        for note in &report.notes {
            let _ = writeln!(text, "note: {note}");
        }
    }
    let _ = match report.damage.len() as u64 {
        0 => write!(text, "{GOOD}sound{GOOD:#}"),
        places => write!(text, "{BAD}damaged{BAD:#} in {}", counted(places, "place")),
    };
    let _ = write!(
        text,
        ": {}, {}, {}, {}; {}",
        counted(report.segments as u64, "segment"),
        counted(report.records, "sound record"),
        counted(report.hints as u64, "sound hint file"),
        size(report.bytes),
        duration(report.elapsed),
    );
    if !with_notes && !report.notes.is_empty() {
        let notes = counted(report.notes.len() as u64, "note");
        let _ = write!(text, "; {notes}, to be seen with -v");
    }
    text.push('\n');
    text
}

fn json(report: &VerifyReport) -> Value {
    json!({
        "sound": report.is_sound(),
        "heals": report.heals(),
        "segments": report.segments,
        "records": report.records,
        "bytes": report.bytes,
        "hints": report.hints,
        "damage": report.damage.iter().map(damage_json).collect::<Vec<_>>(),
        "notes": report.notes.iter().map(note_json).collect::<Vec<_>>(),
        "elapsed_ms": report.elapsed.as_millis() as u64,
    })
}

pub(crate) fn damage_json(damage: &Damage) -> Value {
    json!({
        "file": damage.file.display().to_string(),
        "offset": damage.offset,
        "kind": damage.kind.to_string().replace(' ', "_"),
        "reason": damage.reason,
        "heals": damage.kind.heals(),
    })
}

pub(crate) fn note_json(note: &Note) -> Value {
    let kind = match note.kind {
        NoteKind::NoHintFile => "no_hint_file",
        NoteKind::TornTail => "torn_tail",
        NoteKind::BytesBehindEnd => "bytes_behind_end",
        NoteKind::Orphan => "orphan",
        NoteKind::TornCopy => "torn_copy",
        NoteKind::ForeignFile => "foreign_file",
        _ => "other",
    };
    json!({ "file": note.file.display().to_string(), "kind": kind, "text": note.text })
}
