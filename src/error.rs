//! The error type: few variants, cut by what a caller can do about them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::{FORMAT_VERSION, Invalid, SeqNo};

/// A result whose error is [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what can be done about it.
///
/// Every variant says what happened, where, and in its message what to do next. [`Error`] turns
/// into a [`std::io::Error`] of a fitting kind, so that it can be passed on by functions that
/// speak `io::Result`.
///
/// ```
/// use crabkv::{Error, Store};
///
/// let file = tempfile::NamedTempFile::new()?;
/// match Store::open(file.path()) {
///     Err(Error::Io { path, .. }) => assert_eq!(path, file.path()),
///     other => panic!("a file is not a data directory: {other:?}"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// An operation of the operating system failed.
    Io {
        /// What was being done, as in "sync".
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The disk, or the user's quota on it, is full. Nothing was written; writes work again as
    /// soon as there is room.
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A limit of this process was reached: open files, the size of a file, or memory.
    ResourceLimit {
        /// Which limit.
        limit: &'static str,
        /// The file that was being opened or written.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A file does not hold what was written to it.
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Another process, or another handle in this one, has the directory open for writing.
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// What the holder says of itself, such as its process id; empty if it cannot be read.
        holder: String,
    },
    /// The directory holds something that does not belong to this store. Nothing was changed.
    ForeignFile {
        /// The file.
        path: PathBuf,
        /// Why it does not belong here.
        reason: String,
    },
    /// The directory cannot be what it is asked to be: the target of a checkpoint or a restore,
    /// the checkpoint to restore, or a store, if one of the former was interrupted there. Nothing
    /// was changed.
    Checkpoint {
        /// The directory.
        dir: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// There is no store here, and none may be made.
    NotFound {
        /// The data directory.
        dir: PathBuf,
    },
    /// The key is longer than [`MAX_KEY_LEN`](crate::MAX_KEY_LEN).
    KeyTooLarge {
        /// The key's length in bytes.
        len: usize,
        /// The longest a key can be, in bytes.
        max: usize,
    },
    /// The value is longer than [`MAX_VALUE_LEN`](crate::MAX_VALUE_LEN).
    ValueTooLarge {
        /// The value's length in bytes.
        len: usize,
        /// The longest a value can be, in bytes.
        max: usize,
    },
    /// The batch is larger than [`MAX_BATCH_BYTES`](crate::MAX_BATCH_BYTES).
    BatchTooLarge {
        /// The batch's encoded length in bytes.
        len: u64,
        /// The most a batch can take, in bytes.
        max: u64,
    },
    /// The store was written by a newer version of CrabKv. Nothing was changed.
    UnsupportedVersion {
        /// The file that says so.
        file: PathBuf,
        /// The format version it has.
        found: u32,
        /// The newest version this program reads.
        supported: u32,
    },
    /// The store uses features of a newer version of CrabKv. Nothing was changed.
    UnsupportedFeatures {
        /// The file that says so.
        file: PathBuf,
        /// The feature flags that are not known.
        flags: u32,
    },
    /// A write or sync failed earlier, so writes are refused until the store is opened again;
    /// reads go on.
    Poisoned {
        /// The first failure.
        cause: Arc<Error>,
    },
    /// The store is open read-only; nothing can be written through this handle.
    ReadOnly,
    /// A thread panicked in the middle of a write, so that memory and log may not fit together.
    Panicked,
    /// The value's version is not the one expected.
    Conflict {
        /// The version the caller expected; none: the key was to be absent.
        expected: Option<SeqNo>,
        /// The version that is there; none: the key is absent.
        found: Option<SeqNo>,
    },
    /// The value is not a decimal integer of 64 bits, or would leave that range.
    NotAnInteger {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The value is not valid UTF-8; the text facade reads only text.
    NotText {
        /// How many bytes from its start are.
        valid_up_to: usize,
    },
    /// Compaction has dropped deletions that were not read yet, so that the changes alone no
    /// longer lead to the store's state. [`Store::changes`](crate::Store::changes) says how to go
    /// on.
    HistoryCompacted {
        /// The sequence number that was asked for.
        since: SeqNo,
        /// The lowest that could still be asked for.
        oldest: SeqNo,
    },
    /// An option has a value that cannot work.
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What is wrong and what to choose instead.
        reason: String,
    },
    /// A limit of the store itself was reached.
    Exhausted {
        /// What there is no more of.
        what: &'static str,
    },
    /// The caller stopped the work, by what its progress function returned.
    Cancelled,
}

impl Error {
    /// Wraps what the system said about `op` on `path`, telling full disks and limits apart.
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_path_buf();
        match limit_of(&source) {
            Some(Limit::Disk) => Error::DiskFull {
                path,
                source: Arc::new(source),
            },
            Some(Limit::Resource(limit)) => Error::ResourceLimit {
                limit,
                path,
                source: Arc::new(source),
            },
            None => Error::Io {
                op,
                path,
                source: Arc::new(source),
            },
        }
    }

    pub(crate) fn corrupt(file: &Path, offset: u64, reason: impl Into<String>) -> Error {
        Error::Corrupt {
            file: file.to_path_buf(),
            offset,
            reason: reason.into(),
        }
    }

    /// The same failure, where it left the disk in an unknown state: no longer one that passes
    /// by itself, with nothing written.
    pub(crate) fn into_lasting(self) -> Error {
        match self {
            Error::DiskFull { path, source } | Error::ResourceLimit { path, source, .. } => {
                let op = "write";
                Error::Io { op, path, source }
            }
            other => other,
        }
    }

    /// The error for a file that is not what it should be: newer, or damaged.
    pub(crate) fn invalid(file: &Path, offset: u64, what: &str, reason: &Invalid) -> Error {
        let file = file.to_path_buf();
        match *reason {
            Invalid::Version(found) => Error::UnsupportedVersion {
                file,
                found,
                supported: FORMAT_VERSION,
            },
            Invalid::Features(flags) => Error::UnsupportedFeatures { file, flags },
            _ => Error::corrupt(&file, offset, format!("{what}: {reason}")),
        }
    }

    /// Whether this is damage in a file: [`Error::Corrupt`].
    pub fn is_corruption(&self) -> bool {
        matches!(self, Error::Corrupt { .. })
    }
}

enum Limit {
    Disk,
    Resource(&'static str),
}

/// Tells a full disk and a process limit by the error's kind and number, never by its text.
fn limit_of(error: &io::Error) -> Option<Limit> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return Some(Limit::Disk),
        io::ErrorKind::FileTooLarge => return Some(Limit::Resource("file size")),
        io::ErrorKind::OutOfMemory => return Some(Limit::Resource("memory")),
        _ => {}
    }
    // EMFILE and ENFILE have no stable kind; their numbers are the same on Linux and macOS.
    match error.raw_os_error() {
        Some(23 | 24) if cfg!(unix) => Some(Limit::Resource("open files")),
        Some(4) if cfg!(windows) => Some(Limit::Resource("open files")),
        _ => None,
    }
}

/// Whether the system refused something that it may allow the next time, or to somebody else: not
/// what a damaged disk says.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied || limit_of(error).is_some()
}

impl fmt::Display for Error {
    #[expect(clippy::too_many_lines, reason = "a message for each variant")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { op, path, source } => {
                write!(f, "cannot {op} {}: {source}", path.display())
            }
            Error::DiskFull { path, source } => write!(
                f,
                "disk full: {} cannot grow: {source}; nothing was written, free some space and \
                 try again",
                path.display()
            ),
            Error::ResourceLimit {
                limit,
                path,
                source,
            } => write!(
                f,
                "the limit on {limit} was reached at {}: {source}; raise it (ulimit) and try again",
                path.display()
            ),
            Error::Corrupt {
                file,
                offset,
                reason,
            } => write!(
                f,
                "damage in {} at offset {offset}: {reason}; restore the file from a copy, or \
                 salvage what is sound into a new directory",
                file.display()
            ),
            Error::Locked { dir, holder } if holder.is_empty() => write!(
                f,
                "{} is open for writing elsewhere; close the other program first",
                dir.display()
            ),
            Error::Locked { dir, holder } => write!(
                f,
                "{} is open for writing elsewhere, by {holder}; close that program first",
                dir.display()
            ),
            Error::ForeignFile { path, reason } => write!(
                f,
                "{} does not belong to this store: {reason}; move it away or choose another \
                 directory",
                path.display()
            ),
            Error::Checkpoint { dir, reason } => write!(f, "{}: {reason}", dir.display()),
            Error::NotFound { dir } => {
                write!(
                    f,
                    "no store in {}; check the directory's name",
                    dir.display()
                )
            }
            Error::KeyTooLarge { len, max } => {
                write!(f, "a key of {len} bytes is too long: at most {max} bytes")
            }
            Error::ValueTooLarge { len, max } => {
                write!(f, "a value of {len} bytes is too long: at most {max} bytes")
            }
            Error::BatchTooLarge { len, max } => write!(
                f,
                "a batch of {len} bytes is too large: at most {max} bytes; split it"
            ),
            Error::UnsupportedVersion {
                file,
                found,
                supported,
            } => write!(
                f,
                "{} has format version {found}, this program reads up to {supported}; use a newer \
                 crabkv",
                file.display()
            ),
            Error::UnsupportedFeatures { file, flags } => write!(
                f,
                "{} uses features ({flags:#x}) that this program does not know; use a newer crabkv",
                file.display()
            ),
            Error::Poisoned { cause } => write!(
                f,
                "writes are refused since an earlier failure ({cause}); reads go on, reopen the \
                 store to write again"
            ),
            Error::ReadOnly => f.write_str(
                "the store is open read-only; open it for writing, in one process at a time",
            ),
            Error::Panicked => f.write_str("a thread panicked in the middle of a write"),
            Error::Conflict { expected, found } => {
                f.write_str("version conflict: expected ")?;
                write_version(f, *expected)?;
                f.write_str(", found ")?;
                write_version(f, *found)
            }
            Error::NotAnInteger { reason } => {
                write!(f, "the value cannot be incremented: {reason}")
            }
            Error::NotText { valid_up_to } => write!(
                f,
                "the value is not UTF-8 text after byte {valid_up_to}; read it as bytes"
            ),
            Error::HistoryCompacted { since, oldest } => write!(
                f,
                "the changes since {since} are no longer all there: compaction has dropped \
                 deletions before {oldest}; forget what was read, and read everything again"
            ),
            Error::InvalidOption { option, reason } => write!(f, "option {option}: {reason}"),
            Error::Cancelled => f.write_str("cancelled before it was done"),
            Error::Exhausted { what } => write!(
                f,
                "no more {what} in this store; compact it, or copy its data into a new one"
            ),
        }
    }
}

fn write_version(f: &mut fmt::Formatter<'_>, version: Option<SeqNo>) -> fmt::Result {
    match version {
        Some(version) => write!(f, "version {version}"),
        None => f.write_str("no value"),
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. }
            | Error::DiskFull { source, .. }
            | Error::ResourceLimit { source, .. } => Some(source.as_ref()),
            Error::Poisoned { cause } => Some(cause.as_ref()),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    /// Keeps the whole error as the source, with the nearest kind.
    fn from(error: Error) -> io::Error {
        let kind = match &error {
            Error::Io { source, .. } | Error::ResourceLimit { source, .. } => source.kind(),
            Error::DiskFull { .. } => io::ErrorKind::StorageFull,
            Error::Corrupt { .. } | Error::NotText { .. } => io::ErrorKind::InvalidData,
            Error::Locked { .. } => io::ErrorKind::WouldBlock,
            Error::NotFound { .. } => io::ErrorKind::NotFound,
            Error::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            Error::Cancelled => io::ErrorKind::Interrupted,
            Error::KeyTooLarge { .. }
            | Error::ValueTooLarge { .. }
            | Error::BatchTooLarge { .. }
            | Error::NotAnInteger { .. }
            | Error::InvalidOption { .. } => io::ErrorKind::InvalidInput,
            Error::UnsupportedVersion { .. } | Error::UnsupportedFeatures { .. } => {
                io::ErrorKind::Unsupported
            }
            Error::ForeignFile { .. }
            | Error::Checkpoint { .. }
            | Error::Poisoned { .. }
            | Error::Panicked
            | Error::Conflict { .. }
            | Error::HistoryCompacted { .. }
            | Error::Exhausted { .. } => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_by_its_kind() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(
            Error::io("write", Path::new("x"), full),
            Error::DiskFull { .. }
        ));
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(matches!(
            Error::io("write", Path::new("x"), denied),
            Error::Io { .. }
        ));
    }

    #[cfg(unix)] // the numbers of its errors
    #[test]
    fn too_many_open_files_or_too_little_memory_is_a_limit_and_not_io() {
        for (number, name) in [(24, "open files"), (12, "memory")] {
            let error = Error::io("open", Path::new("x"), io::Error::from_raw_os_error(number));
            match error {
                Error::ResourceLimit { limit, .. } => assert_eq!(limit, name),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn the_whole_error_can_be_found_again_behind_an_io_error() {
        let error = io::Error::from(Error::KeyTooLarge {
            len: 70_000,
            max: 65_535,
        });
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
        assert!(matches!(
            inner,
            Some(Error::KeyTooLarge { len: 70_000, .. })
        ));
    }
}
