//! Segments from the outside, and their hint files.

use std::fmt::Write as _;

use crabkv::SegmentId;
use crabkv::inspect::{HintInfo, Inspector, SegmentInfo};
use serde_json::{Value, json};

use super::manifest::{damage_json, damaged, state_name};
use super::no_segment;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::output::Output;
use crate::cli::units::{moment, size, thousands};

pub(super) fn run(context: &Context, inspector: &Inspector) -> Result<Outcome, Failure> {
    let segments = inspector.segments()?;
    if context.options.json {
        let mut output = Output::new();
        for segment in &segments {
            output.write_json_line(&json(segment))?;
        }
        output.finish()?;
    } else {
        crate::cli::output::write_text(&text(&segments))?;
    }
    Ok(if segments.iter().all(is_sound) {
        Outcome::Done
    } else {
        Outcome::Damaged
    })
}

pub(super) fn is_sound(segment: &SegmentInfo) -> bool {
    segment.damage.is_empty()
}

pub(super) fn text(segments: &[SegmentInfo]) -> String {
    let mut text = format!(
        "{:>8} {:<7} {:>9} {:>11} {:>23} {:>9}\n",
        "segment", "state", "data", "records", "sequence numbers", "hint"
    );
    for segment in segments {
        let footer = segment.footer.as_ref();
        let seqs = match (footer, &segment.header) {
            (Some(footer), _) => {
                let (lowest, highest) = (footer.lowest_seq.get(), footer.highest_seq.get());
                format!("{lowest}-{highest}")
            }
            (None, Some(header)) => format!("{}-", header.base_seq.get()),
            (None, None) => "?".to_owned(),
        };
        let records = footer.map_or("?".to_owned(), |footer| thousands(footer.records));
        // An active segment's file has the room that is reserved for it.
        let data = segment.data_len().map_or("?".to_owned(), size);
        let hint = segment.hint.as_ref();
        let hint = hint.map_or("-".to_owned(), |hint| size(hint.file_len));
        let _ = writeln!(
            text,
            "{:>8} {:<7} {data:>9} {records:>11} {seqs:>23} {hint:>9}",
            segment.id.to_string(),
            state_name(segment.state),
        );
        for damage in &segment.damage {
            text += &damaged(damage);
        }
    }
    text
}

pub(super) fn json(segment: &SegmentInfo) -> Value {
    let header = segment.header.as_ref().map(|header| {
        json!({
            "version": header.version,
            "store": header.store.to_string(),
            "base_seq": header.base_seq.get(),
            "salt": format!("{:016x}", header.salt),
        })
    });
    let footer = segment.footer.as_ref().map(|footer| {
        json!({
            "data_len": footer.data_len,
            "records": footer.records,
            "lowest_seq": footer.lowest_seq.get(),
            "highest_seq": footer.highest_seq.get(),
            "earliest_expiry_ms": footer.earliest_expiry_ms,
            "latest_expiry_ms": footer.latest_expiry_ms,
            "data_checksum": format!("{:08x}", footer.data_checksum),
        })
    });
    let hint = segment.hint.as_ref().map(|hint| {
        json!({
            "file": hint.path.display().to_string(),
            "file_len": hint.file_len,
        })
    });
    json!({
        "id": segment.id.get(),
        "file": segment.path.display().to_string(),
        "state": state_name(segment.state),
        "data_len": segment.data_len(),
        "file_len": segment.file_len,
        "header": header,
        "footer": footer,
        "hint": hint,
        "damage": segment.damage.iter().map(damage_json).collect::<Vec<_>>(),
    })
}

/// A hint file, entry by entry.
pub(super) fn hint(
    context: &Context,
    inspector: &Inspector,
    id: SegmentId,
    limit: Option<usize>,
) -> Result<Outcome, Failure> {
    let Some(hint) = inspector.hint(id)? else {
        let is_there = inspector.segments()?.iter().any(|segment| segment.id == id);
        return Ok(if is_there {
            Outcome::False(format!(
                "segment {id} has no hint file; a sealed one gets it when the store is opened"
            ))
        } else {
            no_segment(id)
        });
    };
    let limit = limit.unwrap_or(usize::MAX);
    let mut output = Output::new();
    if context.options.json {
        hint_json(&mut output, &hint, limit)?;
    } else {
        hint_text(&mut output, &hint, limit)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

fn hint_text(output: &mut Output, hint: &HintInfo, limit: usize) -> Result<(), Failure> {
    output.write_line(&format!(
        "{}, {}: of segment {}, {} of data with checksum {:08x}",
        hint.path.display(),
        size(hint.file_len),
        hint.segment,
        size(hint.data_len),
        hint.data_checksum,
    ))?;
    output.write_line(&format!(
        "{:>12} {:>11} {:>9} {:>11}  {}",
        "hash", "offset", "length", "seq", "kind"
    ))?;
    for entry in hint.entries().take(limit) {
        // Of a long one only the record itself says it.
        let len = entry.len.map_or("?".to_owned(), |len| len.to_string());
        let mut line = format!(
            "{:012x} {:>11} {len:>9} {:>11}  {:<9}",
            entry.hash,
            entry.offset,
            entry.seq.get(),
            if entry.tombstone { "tombstone" } else { "put" },
        );
        if let Some(at_ms) = entry.expires_at_ms {
            let _ = write!(line, "  expires {}", moment(at_ms));
        }
        if entry.collides {
            line += "  collides";
        }
        output.write_line(line.trim_end())?;
    }
    Ok(())
}

fn hint_json(output: &mut Output, hint: &HintInfo, limit: usize) -> Result<(), Failure> {
    output.write_json_line(&json!({
        "type": "hint_file",
        "file": hint.path.display().to_string(),
        "file_len": hint.file_len,
        "version": hint.version,
        "flags": hint.flags,
        "store": hint.store.to_string(),
        "segment": hint.segment.get(),
        "data_len": hint.data_len,
        "base_seq": hint.base_seq.get(),
        "data_checksum": format!("{:08x}", hint.data_checksum),
        "prefix_bytes": hint.prefix_bytes,
        "records": hint.records,
        "earliest_expiry_ms": hint.earliest_expiry_ms,
    }))?;
    for entry in hint.entries().take(limit) {
        output.write_json_line(&json!({
            "type": "entry",
            "hash": format!("{:012x}", entry.hash),
            "offset": entry.offset,
            "len": entry.len,
            "seq": entry.seq.get(),
            "kind": if entry.tombstone { "tombstone" } else { "put" },
            "expires_at_ms": entry.expires_at_ms,
            "collides": entry.collides,
        }))?;
    }
    Ok(())
}
