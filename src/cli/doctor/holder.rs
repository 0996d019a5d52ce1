//! Who has the store open, and whether that is somebody.

use std::path::Path;

use crabkv::{Error, Result};

use super::finding::Findings;

const CHECK: &str = "lock";

/// The holder, if the store is open for writing.
pub(super) fn check(dir: &Path, findings: &mut Findings) -> Result<Option<String>> {
    let holder = match crabkv::lock_holder(dir) {
        Ok(holder) => holder,
        Err(error @ Error::NotFound { .. }) => return Err(error),
        Err(error) => {
            findings.warn(
                CHECK,
                format!("cannot be looked at: {error}"),
                "run this as the user that the store belongs to",
            );
            return Ok(None);
        }
    };
    match holder.as_deref() {
        None => findings.ok(CHECK, "free: nobody has the store open for writing"),
        Some("") => findings.warn(
            CHECK,
            "held, and it cannot be read by whom",
            "find out with lsof or fuser on the directory",
        ),
        Some(holder) => named(holder, findings),
    }
    Ok(holder)
}

fn named(holder: &str, findings: &mut Findings) {
    match pid_of(holder).map(command_of) {
        Some(Command::Known(command)) => {
            findings.ok(CHECK, format!("held by {holder}, alive: {command}"));
        }
        // The lock goes with its process, so that somebody is there.
        Some(Command::Absent) => findings.warn(
            CHECK,
            format!("held by {holder}, but there is no such process here"),
            "it runs in another container or on another machine, or has handed the lock to a child",
        ),
        Some(Command::Unknown) | None => findings.ok(CHECK, format!("held by {holder}")),
    }
}

/// What is known of a process.
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "only Linux says it in files")
)]
enum Command {
    Known(String),
    Absent,
    Unknown,
}

/// The process that a holder's name for itself means.
pub(super) fn pid_of(holder: &str) -> Option<u32> {
    holder.strip_prefix("process ")?.parse().ok()
}

#[cfg(target_os = "linux")]
fn command_of(pid: u32) -> Command {
    use crate::cli::text;

    let proc = Path::new("/proc").join(pid.to_string());
    if !Path::new("/proc/self").exists() {
        return Command::Unknown;
    }
    if !proc.exists() {
        return Command::Absent;
    }
    // Arguments are separated by zeros; a process that ends has none any more.
    let line = std::fs::read(proc.join("cmdline")).unwrap_or_default();
    let arguments = line.split(|byte| *byte == 0);
    let words: Vec<_> = arguments.filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Command::Unknown;
    }
    let command = text::escaped(&words.join(&b' '));
    let short: String = command.chars().take(26).collect();
    let dots = if short.len() < command.len() {
        "..."
    } else {
        ""
    };
    Command::Known(short + dots)
}

#[cfg(not(target_os = "linux"))]
fn command_of(_: u32) -> Command {
    Command::Unknown
}
