//! The directory that a checkpoint or a restore writes to: what is there, and may it be used.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::StoreId;
use crate::format::checkpoint::CheckpointMark;
use crate::format::manifest::Manifest;
use crate::format::names::{self, FileName};
use crate::format::segment::{HEADER_LEN, SegmentHeader};
use crate::log::{checkpoint_file, manifest_file};
use crate::recovery::directory::is_harmless;

/// What is in a directory.
pub(crate) struct Found {
    pub(crate) names: BTreeSet<String>,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) mark: Option<CheckpointMark>,
}

pub(crate) fn refuse(dir: &Path, reason: impl Into<String>) -> Error {
    Error::Checkpoint {
        dir: dir.to_path_buf(),
        reason: reason.into(),
    }
}

/// Checks that `target` is neither `source` nor in it.
pub(crate) fn check_apart<D: Disk>(disk: &D, source: &Path, target: &Path) -> Result<()> {
    let canonical = |dir: &Path| {
        disk.canonical(dir)
            .map_err(|e| Error::io("find the directory", dir, e))
    };
    if canonical(target)?.starts_with(canonical(source)?) {
        let reason = format!(
            "it is in the directory that is to be copied, {}; choose another one",
            source.display()
        );
        return Err(refuse(target, reason));
    }
    Ok(())
}

/// Looks at a directory that is to hold a copy of this store; changes nothing. A missing one is
/// an empty one.
///
/// # Errors
///
/// When there is something in it that no checkpoint or restore of this store left there.
pub(crate) fn look<D: Disk>(disk: &D, dir: &Path, store: StoreId) -> Result<Found> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(Error::io("list", dir, e)),
    };
    let manifest = manifest_file::read(disk, dir)?;
    let mark = checkpoint_file::read(disk, dir)?;
    let stores = [
        manifest.as_ref().map(|manifest| manifest.store),
        mark.map(|mark| mark.store),
    ];
    if let Some(other) = stores.into_iter().flatten().find(|other| *other != store) {
        let reason = format!("it belongs to another store, {other}; choose another directory");
        return Err(refuse(dir, reason));
    }
    let is_ours = manifest.is_some() || mark.is_some();
    for entry in &entries {
        let path = dir.join(&entry.name);
        let reason = match names::parse(&entry.name) {
            FileName::Segment(_) | FileName::Hint(_) | FileName::Torn(_) if !is_ours => {
                let reason = "there are segments, but the manifest is missing";
                return Err(Error::corrupt(&dir.join(names::MANIFEST), 0, reason));
            }
            FileName::Segment(_) => match store_of(disk, &path)? {
                Some(other) if other != store => format!("it is a segment of the store {other}"),
                _ => continue,
            },
            FileName::Foreign if !is_ours && !is_harmless(&entry.name) => {
                "a copy of a store needs an empty directory".to_owned()
            }
            _ => continue,
        };
        return Err(Error::ForeignFile { path, reason });
    }
    Ok(Found {
        names: entries.into_iter().map(|entry| entry.name).collect(),
        manifest,
        mark,
    })
}

/// Which store a segment says it belongs to; none if its header is not sound.
fn store_of<D: Disk>(disk: &D, path: &Path) -> Result<Option<StoreId>> {
    let mut bytes = [0; HEADER_LEN];
    let read = disk
        .open(path, OpenMode::Read)
        .and_then(|file| file.read_at(&mut bytes, 0));
    match read {
        Ok(()) => Ok(SegmentHeader::decode(&bytes)
            .ok()
            .map(|header| header.store)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

/// Says that there is something unfinished in the directory, durably, before anything else is put
/// there.
pub(crate) fn mark_unfinished<D: Disk>(disk: &D, dir: &Path, store: StoreId) -> Result<()> {
    let mark = CheckpointMark {
        store,
        manifests: [None, None],
    };
    checkpoint_file::replace(disk, dir, &mark)?;
    disk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))
}
