//! What the manifest says.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use crabkv::Damage;
use crabkv::inspect::{Inspector, ManifestInfo, SegmentState};
use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::units::{moment, size, thousands};

const ALARM: Style = AnsiColor::Red.on_default().bold();

pub(super) fn run(context: &Context, inspector: &Inspector) -> Result<Outcome, Failure> {
    let with_list = || {
        let mut text = text(inspector);
        if let Ok(manifest) = inspector.manifest() {
            for segment in &manifest.segments {
                let id = segment.id.get();
                let _ = write!(text, "segment {id} {}", segment.state);
                if let Some(data_len) = segment.state.data_len() {
                    let _ = write!(text, ", its records end at {data_len}");
                }
                text.push('\n');
            }
        }
        text
    };
    context.report(with_list, || json(inspector))?;
    Ok(match inspector.manifest() {
        Ok(_) => Outcome::Done,
        Err(_) => Outcome::Damaged,
    })
}

pub(super) fn text(inspector: &Inspector) -> String {
    let manifest = match inspector.manifest() {
        Ok(manifest) => manifest,
        Err(damage) => return damaged(damage),
    };
    let mut text = String::new();
    let mut line = |name: &str, figure: String| {
        let _ = writeln!(text, "{name:<22}{figure}");
    };
    line("store", manifest.store.to_string());
    let marks = if manifest.flags == 0 {
        String::new()
    } else {
        format!(", flags {:#x}", manifest.flags)
    };
    line("format version", format!("{}{marks}", manifest.version));
    line(
        "hashes",
        format!(
            "{} bits, seed {:016x}",
            manifest.hash_bits, manifest.hash_seed
        ),
    );
    line("commit", thousands(manifest.generation));
    line("segments", sealed(manifest));
    line("next segment", manifest.next_segment.to_string());
    line("next sequence number", thousands(manifest.next_seq.get()));
    line("clock", moment(manifest.clock_ms));
    if let Some(history) = manifest.history {
        line(
            "complete from",
            format!("sequence number {}", thousands(history.complete_from.get())),
        );
        line(
            "deletions from",
            format!(
                "sequence number {}",
                thousands(history.deletions_from.get())
            ),
        );
    }
    text
}

fn sealed(manifest: &ManifestInfo) -> String {
    let states = manifest.segments.iter().map(|listed| listed.state);
    let is_sealed = |state: &SegmentState| matches!(state, SegmentState::Sealed { .. });
    let sealed: Vec<_> = states.clone().filter(is_sealed).collect();
    let bytes = sealed.iter().filter_map(|state| state.data_len()).sum();
    let mut text = format!("{} sealed with {}", sealed.len(), size(bytes));
    for state in states.filter(|state| !is_sealed(state)) {
        let _ = write!(text, ", 1 {state}");
    }
    text
}

pub(super) fn damaged(damage: &Damage) -> String {
    format!("{ALARM}damaged{ALARM:#}: {damage}\n")
}

pub(super) fn damage_json(damage: &Damage) -> Value {
    json!({
        "file": damage.file.display().to_string(),
        "offset": damage.offset,
        "kind": damage.kind.to_string().replace(' ', "_"),
        "reason": damage.reason,
    })
}

pub(super) fn json(inspector: &Inspector) -> Value {
    let manifest = match inspector.manifest() {
        Ok(manifest) => manifest,
        Err(damage) => return json!({ "damage": damage_json(damage) }),
    };
    let segments = manifest.segments.iter().map(|listed| {
        json!({
            "id": listed.id.get(),
            "state": state_name(Some(listed.state)),
            "data_len": listed.state.data_len(),
        })
    });
    json!({
        "file": manifest.path.display().to_string(),
        "version": manifest.version,
        "flags": manifest.flags,
        "store": manifest.store.to_string(),
        "hash_seed": format!("{:016x}", manifest.hash_seed),
        "hash_bits": manifest.hash_bits,
        "generation": manifest.generation,
        "next_segment": manifest.next_segment.get(),
        "next_seq": manifest.next_seq.get(),
        "clock_ms": manifest.clock_ms,
        "complete_from": manifest.history.map(|history| history.complete_from.get()),
        "deletions_from": manifest.history.map(|history| history.deletions_from.get()),
        "segments": segments.collect::<Vec<_>>(),
    })
}

pub(super) fn state_name(state: Option<SegmentState>) -> String {
    state.map_or("unknown".to_owned(), |state| state.to_string())
}
