//! What Unix systems do in their own way.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::{DirLock, is_locked, try_lock};

/// How much of a lock file is read for a message: more cannot be ours.
const MAX_HOLDER_LEN: u64 = 4096;

pub(super) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buf, offset)
}

pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

pub(super) fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    options.open(path)
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

pub(super) fn sync_dir_if_readable(dir: &Path) -> io::Result<()> {
    match File::open(dir) {
        Ok(dir) => dir.sync_all(),
        Err(_) => Ok(()),
    }
}

pub(super) fn open_lock_file(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// Whether `path` names `file`, and not another file or none.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok(named.dev() == opened.dev() && named.ino() == opened.ino()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn lock_dir(dir: &Path) -> DirLock {
    let Ok(dir) = File::open(dir) else {
        return DirLock::Unavailable;
    };
    match try_lock(&dir) {
        Ok(true) => DirLock::Taken(dir),
        Ok(false) => DirLock::Held,
        // Network file systems refuse an exclusive lock on what is open for reading only.
        Err(_) => DirLock::Unavailable,
    }
}

/// Whether somebody has locked a directory itself; `false` where that cannot be told, as
/// [`lock_dir`] cannot take it there.
pub(super) fn is_dir_locked(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|dir| is_locked(&dir).unwrap_or(false))
}

/// Says who has the lock. The text is only for messages: a failure does not matter.
pub(super) fn write_holder(file: &File, _path: &Path, holder: &str) {
    if file.set_len(0).is_ok() {
        let _ = file.write_all_at(holder.as_bytes(), 0);
    }
}

pub(super) fn read_holder(path: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(MAX_HOLDER_LEN).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
