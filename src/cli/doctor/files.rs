//! The files in the directory: whose they are, who may use them, what is left over.

use std::fs::{self, Metadata};
use std::path::Path;

use super::Patient;
use super::finding::Findings;
use crate::cli::units::{counted, size};

const ACCESS: &str = "permissions";

/// A file of the directory.
pub(super) struct StoreFile {
    pub(super) name: String,
    pub(super) len: u64,
    #[cfg_attr(
        not(unix),
        allow(dead_code, reason = "owners are numbers on Unix only")
    )]
    metadata: Metadata,
}

pub(super) fn list(dir: &Path, findings: &mut Findings) -> Vec<StoreFile> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            findings.fail(
                ACCESS,
                format!("{} cannot be listed: {error}", dir.display()),
                "its owner can give you the right to read it",
            );
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        // A file that goes while this looks is none any more.
        if let Ok(metadata) = entry.metadata() {
            files.push(StoreFile {
                name: entry.file_name().to_string_lossy().into_owned(),
                len: metadata.len(),
                metadata,
            });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    access(patient, findings);
    owners(patient, findings);
    leftovers(patient, findings);
}

/// What kind of file a name says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A segment or hint file, with its number.
    Data(u64),
    TornCopy,
    Unfinished,
    Other,
    Foreign,
}

fn kind_of(name: &str) -> Kind {
    match name {
        "LOCK" | "LOCK.holder" | "MANIFEST" | "RESERVE" | "CHECKPOINT" => return Kind::Other,
        "MANIFEST.tmp" | "CHECKPOINT.tmp" => return Kind::Unfinished,
        _ => {}
    }
    let is_number = |stem: &str| stem.len() >= 12 && stem.bytes().all(|b| b.is_ascii_digit());
    match name.split_once('.') {
        Some((stem, "torn")) if is_number(stem) => Kind::TornCopy,
        Some((stem, "seg" | "hint")) if is_number(stem) => {
            stem.parse().map_or(Kind::Foreign, Kind::Data)
        }
        _ => Kind::Foreign,
    }
}

fn access(patient: &Patient<'_>, findings: &mut Findings) {
    let mut names = Vec::new();
    let store_files = patient.files.iter();
    let store_files = store_files.filter(|file| kind_of(&file.name) != Kind::Foreign);
    for file in store_files {
        if !may_read(&patient.dir.join(&file.name)) {
            names.push(file.name.as_str());
        }
    }
    if let Some(first) = names.first() {
        let message = format!("{} cannot be read, such as {first}", files(names.len()));
        let advice = "its owner can give you the right to read it";
        findings.fail(ACCESS, message, advice);
        return;
    }
    let is_written_to = |file: &&StoreFile| matches!(file.name.as_str(), "LOCK" | "MANIFEST");
    let written_to = patient.files.iter().filter(is_written_to);
    let mut paths = written_to.map(|file| patient.dir.join(&file.name));
    let is_writable = may_write(patient.dir) && paths.all(|path| may_write(&path));
    if is_writable {
        findings.ok(ACCESS, "you may read and write the directory and its files");
    } else {
        findings.warn(
            ACCESS,
            "you may read the store, but not write to it",
            "for commands that write, become the user that it belongs to",
        );
    }
}

fn files(count: usize) -> String {
    counted(count as u64, "file")
}

#[cfg(target_os = "linux")]
fn may_read(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn may_read(path: &Path) -> bool {
    fs::File::open(path).is_ok()
}

#[cfg(target_os = "linux")]
fn may_write(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn may_write(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.permissions().readonly())
}

/// Files of several owners are what is left when a command was run as root once.
#[cfg(unix)]
fn owners(patient: &Patient<'_>, findings: &mut Findings) {
    use std::collections::BTreeSet;
    use std::os::unix::fs::MetadataExt as _;

    let store_files = patient.files.iter();
    let store_files = store_files.filter(|file| kind_of(&file.name) != Kind::Foreign);
    let owners: BTreeSet<_> = store_files.map(|file| file.metadata.uid()).collect();
    if owners.len() > 1 {
        let owners: Vec<_> = owners.iter().map(u32::to_string).collect();
        findings.warn(
            "owners",
            format!("the files belong to several users: {}", owners.join(", ")),
            "give all of them to the one that writes, with chown -R",
        );
    }
}

#[cfg(not(unix))]
fn owners(_: &Patient<'_>, _: &mut Findings) {}

fn leftovers(patient: &Patient<'_>, findings: &mut Findings) {
    const CHECK: &str = "leftovers";
    let of = |wanted: &dyn Fn(&StoreFile) -> bool| -> Vec<&StoreFile> {
        let files = patient.files.iter();
        files.filter(|file| wanted(file)).collect()
    };
    let summed = |files: &[&StoreFile]| {
        let bytes = files.iter().map(|file| file.len).sum();
        let first = files.first().map_or("", |file| file.name.as_str());
        let others = if files.len() > 1 { ", ..." } else { "" };
        let count = self::files(files.len());
        format!("{count} of {} ({first}{others})", size(bytes))
    };
    let torn = of(&|file| kind_of(&file.name) == Kind::TornCopy);
    if !torn.is_empty() {
        findings.ok(
            CHECK,
            format!("torn tails, {}: delete at will", summed(&torn)),
        );
    }
    // Without a manifest nobody can tell what belongs to the store.
    let orphans = of(&|file| match (kind_of(&file.name), patient.manifest) {
        (Kind::Unfinished, _) => true,
        (Kind::Data(id), Ok(manifest)) => {
            !manifest.segments.iter().any(|listed| listed.id.get() == id)
        }
        _ => false,
    });
    if !orphans.is_empty() {
        let message = format!("unfinished steps, {}", summed(&orphans));
        if patient.holder.is_some() {
            findings.ok(CHECK, message + ": whoever writes may be at it just now");
        } else {
            let advice = "the next open for writing removes it";
            findings.warn(CHECK, message, advice);
        }
    }
    let is_hidden = |name: &str| name.starts_with('.') || name == "lost+found";
    let foreign = of(&|file| kind_of(&file.name) == Kind::Foreign && !is_hidden(&file.name));
    if !foreign.is_empty() {
        findings.ok(CHECK, format!("not the store's, {}", summed(&foreign)));
    }
    if torn.is_empty() && orphans.is_empty() && foreign.is_empty() {
        findings.ok(CHECK, "none");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (name, kind) in [
            ("000000000012.seg", Kind::Data(12)),
            ("000000000012.hint", Kind::Data(12)),
            ("000000000012.torn", Kind::TornCopy),
            ("MANIFEST", Kind::Other),
            ("MANIFEST.tmp", Kind::Unfinished),
            ("12.seg", Kind::Foreign),
            ("000000000012.seg.bak", Kind::Foreign),
            ("letter.txt", Kind::Foreign),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
        }
    }
}
