//! The checkpoint file: read whole, replaced atomically.

use std::io;
use std::path::Path;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::checkpoint::{CHECKPOINT_LEN, CheckpointMark};
use crate::format::manifest::Manifest;
use crate::format::names;

/// Reads the checkpoint file; `None` where there is none.
pub(crate) fn read<D: Disk>(disk: &D, dir: &Path) -> Result<Option<CheckpointMark>> {
    let path = dir.join(names::CHECKPOINT);
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", &path, e)),
    };
    let read = || {
        let len = file.len()?.min(CHECKPOINT_LEN as u64);
        let mut bytes = vec![0; len as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().map_err(|e| Error::io("read", &path, e))?;
    CheckpointMark::decode(&bytes)
        .map(Some)
        .map_err(|reason| Error::invalid(&path, 0, "checkpoint file", &reason))
}

/// Whether the directory with this manifest is a checkpoint that nobody has written to.
pub(crate) fn is_untouched<D: Disk>(disk: &D, dir: &Path, manifest: &Manifest) -> bool {
    matches!(read(disk, dir), Ok(Some(mark)) if mark.names(manifest))
}

/// Replaces the checkpoint file. The next sync of the directory makes it durable.
pub(crate) fn replace<D: Disk>(disk: &D, dir: &Path, mark: &CheckpointMark) -> Result<()> {
    let tmp = dir.join(names::CHECKPOINT_TMP);
    let path = dir.join(names::CHECKPOINT);
    let write = || {
        let file = create_tmp(disk, dir)?;
        file.write_at(&mark.encode(), 0)?;
        file.sync_data()?;
        drop(file);
        disk.rename(&tmp, &path)
    };
    write().map_err(|e| {
        let _ = disk.unlink(&tmp);
        Error::io("write", &path, e)
    })
}

/// Makes the temporary file that files of a checkpoint are written as, before they get their
/// names: a name stands for a whole file only.
pub(crate) fn create_tmp<D: Disk>(disk: &D, dir: &Path) -> io::Result<D::File> {
    let tmp = dir.join(names::CHECKPOINT_TMP);
    match disk.open(&tmp, OpenMode::CreateNew) {
        // Left behind by a checkpoint that was interrupted.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            disk.unlink(&tmp)?;
            disk.open(&tmp, OpenMode::CreateNew)
        }
        opened => opened,
    }
}
