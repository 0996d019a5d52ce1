//! What Windows does in its own way.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::DirLock;

/// `FILE_SHARE_READ | FILE_SHARE_WRITE`: without `FILE_SHARE_DELETE`, nobody can remove or rename
/// the file while it is open.
const SHARE_ALL_BUT_DELETE: u32 = 1 | 2;

const ERROR_ACCESS_DENIED: i32 = 5;
const ERROR_SHARING_VIOLATION: i32 = 32;

/// How long to wait before each new try to open or replace a file; half a second in all.
const RETRY_DELAYS_MS: [u64; 9] = [1, 2, 5, 10, 20, 50, 100, 150, 200];

/// How often that is done before a file that cannot be replaced is given up: followers read the
/// manifest again and again, and where the system does not replace a file that is open, a gap
/// between two of their looks must be met. A writer that gave up would refuse all writes.
const REPLACE_ROUNDS: u32 = 20;

pub(super) fn read_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.seek_read(buf, offset) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buf = &mut buf[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.seek_write(bytes, offset) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Tries again for a little while as long as a file cannot be opened or replaced because of what
/// somebody else is doing to it just now: a virus scanner has it open, or another process is
/// replacing the manifest or looking at it.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for delay_ms in RETRY_DELAYS_MS {
        match attempt() {
            Err(error) if is_in_use(&error) => thread::sleep(Duration::from_millis(delay_ms)),
            result => return result,
        }
    }
    attempt()
}

pub(super) fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    patiently(|| options.open(path))
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let mut replaced = Ok(());
    for _ in 0..REPLACE_ROUNDS {
        replaced = patiently(|| fs::rename(from, to));
        if !matches!(&replaced, Err(error) if is_in_use(error)) {
            break;
        }
    }
    replaced?;
    // Names are journalled in order, and flushing a file flushes the journal up to its own new
    // name. There is no way back from a rename, so a failure cannot be one of the rename.
    if let Ok(file) = File::options().write(true).open(to) {
        let _ = file.sync_all();
    }
    Ok(())
}

fn is_in_use(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(ERROR_ACCESS_DENIED | ERROR_SHARING_VIOLATION)
    )
}

/// Names are journalled, and a directory cannot be synced.
#[allow(clippy::unnecessary_wraps, reason = "its Unix twin can fail")]
pub(super) fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

#[allow(clippy::unnecessary_wraps, reason = "its Unix twin can fail")]
pub(super) fn sync_dir_if_readable(_dir: &Path) -> io::Result<()> {
    Ok(())
}

pub(super) fn open_lock_file(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .share_mode(SHARE_ALL_BUT_DELETE)
        .open(path)
}

/// Always: the file cannot be removed while it is open.
#[allow(clippy::unnecessary_wraps, reason = "its Unix twin can fail")]
pub(super) fn is_at(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

pub(super) fn lock_dir(_dir: &Path) -> DirLock {
    DirLock::Unavailable
}

/// Never: see [`lock_dir`].
pub(super) fn is_dir_locked(_dir: &Path) -> bool {
    false
}

/// Says who has the lock, in a file beside it: nobody else can read a locked file. The text is
/// only for messages: a failure does not matter.
pub(super) fn write_holder(_file: &File, path: &Path, holder: &str) {
    let _ = fs::write(holder_path(path), holder);
}

pub(super) fn read_holder(path: &Path) -> String {
    let text = fs::read(holder_path(path)).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

fn holder_path(path: &Path) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(".holder");
    PathBuf::from(path)
}
