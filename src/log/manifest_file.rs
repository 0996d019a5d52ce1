//! The manifest's file: read whole, replaced atomically.

use std::io;
use std::path::Path;

use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::names;

/// Reads the manifest; `None` where there is none.
pub(crate) fn read<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Manifest>> {
    let path = dir.join(names::MANIFEST);
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", &path, e)),
    };
    let read = || {
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().map_err(|e| Error::io("read", &path, e))?;
    Manifest::decode(&bytes)
        .map(Some)
        .map_err(|reason| Error::invalid(&path, 0, "manifest", &reason))
}

/// How a commit failed.
pub(crate) enum CommitError {
    /// The manifest before it is still the one, for certain.
    Unchanged(Error),
    /// Either of the two may be there after a crash.
    Unknown(Error),
}

/// Replaces the manifest. The files that it names are durable already, but for their names.
pub(crate) fn commit<D: Disk>(
    disk: &D,
    dir: &Path,
    manifest: &Manifest,
) -> Result<(), CommitError> {
    let tmp = dir.join(names::MANIFEST_TMP);
    let path = dir.join(names::MANIFEST);
    let bytes = manifest.encode();
    let write = || {
        let file = match disk.open(&tmp, OpenMode::CreateNew) {
            Ok(file) => file,
            // Left behind by a commit that was interrupted.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                disk.open(&tmp, OpenMode::Write)?
            }
            Err(e) => return Err(e),
        };
        file.set_len(bytes.len() as u64)?;
        file.write_at(&bytes, 0)?;
        // A crash up to here leaves the old manifest and a temporary file.
        if !is_planted(Bug::RenameUnsyncedManifest) {
            file.sync_data()?;
        }
        // The new segments' names must be durable before a manifest that names them is.
        if !is_planted(Bug::NameManifestBeforeItsFiles) {
            disk.sync_dir(dir)?;
        }
        Ok(())
    };
    if let Err(e) = write() {
        let _ = disk.unlink(&tmp);
        return Err(CommitError::Unchanged(Error::io("write", &tmp, e)));
    }
    // A crash between the rename and the sync leaves either manifest, both complete.
    disk.rename(&tmp, &path)
        .map_err(|e| CommitError::Unchanged(Error::io("replace", &path, e)))?;
    if is_planted(Bug::SkipDirectorySync) {
        return Ok(());
    }
    disk.sync_dir(dir)
        .map_err(|e| CommitError::Unknown(Error::io("sync", dir, e)))
}
