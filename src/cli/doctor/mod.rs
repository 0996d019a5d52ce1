//! `doctor`: whether a store and the machine under it are as they should be, and what to do where
//! not. Reads a few hundred bytes of each file, takes no lock and changes nothing; `verify` is what
//! reads everything.

mod contents;
mod files;
mod finding;
mod holder;
mod place;
#[cfg(target_os = "linux")]
mod process;

use std::path::Path;

use crabkv::inspect::Inspector;
use crabkv::{Damage, Error};
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Failure, Outcome};
use finding::{Findings, Level};

/// What all checks look at.
struct Patient<'a> {
    dir: &'a Path,
    files: Vec<files::StoreFile>,
    segments: Vec<crabkv::inspect::SegmentInfo>,
    manifest: Result<&'a crabkv::inspect::ManifestInfo, &'a Damage>,
    /// Who has it open for writing; empty where that cannot be read.
    holder: Option<String>,
}

impl Patient<'_> {
    /// How large a segment grows, as far as the files tell: the reserve has a sixteenth of it.
    fn segment_size(&self) -> u64 {
        const DEFAULT: u64 = 64 << 20;
        let reserve = self.files.iter().find(|file| file.name == "RESERVE");
        let largest = self.segments.iter().filter_map(|segment| segment.file_len);
        match reserve.map(|file| file.len * 16) {
            Some(size) if size > 0 => size.max(largest.max().unwrap_or(0)),
            _ => DEFAULT,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {}

pub(crate) fn run(context: &Context, _: &DoctorArgs) -> Result<Outcome, Failure> {
    let mut findings = Findings::default();
    let dir = &context.options.data_dir;
    // What keeps anybody from looking further ends it at last, with its own exit code.
    let failure = examine(dir, &mut findings).err();
    if let Some(failure @ (Error::NotFound { .. } | Error::Checkpoint { .. })) = failure {
        return Err(failure.into());
    }
    if let Some(failure) = &failure {
        findings.fail("store", format!("cannot be looked at: {failure}"), "");
    }
    context.report(
        || findings.text(),
        || {
            json!({
                "data_dir": dir.display().to_string(),
                "program": env!("CARGO_PKG_VERSION"),
                "findings": findings.list.iter().map(finding_json).collect::<Vec<_>>(),
            })
        },
    )?;
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(findings.outcome()),
    }
}

fn examine(dir: &Path, findings: &mut Findings) -> crabkv::Result<()> {
    let holder = holder::check(dir, findings)?;
    let files = files::list(dir, findings);
    let inspector = Inspector::open(dir)?;
    let patient = Patient {
        dir,
        files,
        segments: inspector.segments()?,
        manifest: inspector.manifest(),
        holder,
    };
    files::check(&patient, findings);
    contents::check(&patient, findings);
    place::check(&patient, findings);
    #[cfg(target_os = "linux")]
    process::check(&patient, findings);
    Ok(())
}

fn finding_json(finding: &finding::Finding) -> Value {
    json!({
        "level": finding.level.name(),
        "check": finding.check,
        "message": finding.message,
        "advice": finding.advice,
        "damage": finding.level == Level::Damage,
    })
}
