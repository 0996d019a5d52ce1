//! The seam between the store and the files under it.
//!
//! Everything the store does to a file system, a clock or a source of random numbers goes through
//! [`Disk`] and [`DiskFile`], resolved at compile time. [`OsDisk`] is the operating system; the
//! simulated disk of the `sim` feature keeps what is durable and what is not apart, loses,
//! reorders and tears what was never synced, and fails the operation it is told to fail.
//!
//! Differences between operating systems (positioned I/O, preallocation, syncing a directory,
//! deleting a mapped file, what a lock allows) are settled in this room and nowhere else.
//!
//! Owns: files, maps, append buffers, the directory lock. Knows nothing of segments or records.

mod os;
mod region;
mod resident;
#[cfg(any(test, feature = "sim"))]
mod sim;

use std::io;
use std::path::{Path, PathBuf};

pub use os::{OsDisk, OsFile, OsLock};
pub use region::Region;
pub(crate) use region::{AppendBuffer, Spare};
#[cfg(any(test, feature = "sim"))]
pub use sim::{CrashPlan, FailKind, OpKind, SimDisk, SimFile, SimLock};

/// How [`Disk::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist; it is only read.
    Read,
    /// The file must exist; it is read and written.
    Write,
    /// The file must not exist; it is made, then read and written.
    CreateNew,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The file's name, without its directory. Not valid Unicode: replaced lossily.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Why [`Disk::lock`] gave no lock.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else holds it; the text is what the holder wrote about itself, if it can be read.
    Held {
        /// What the holder wrote into the lock file, or an empty string.
        holder: String,
    },
    /// The lock file could not be made, opened or locked.
    Io(io::Error),
}

/// A file system, a clock and a source of random numbers.
///
/// Operations on names are volatile until [`sync_dir`](Disk::sync_dir), operations on bytes until
/// [`DiskFile::sync_data`].
#[allow(
    clippy::missing_errors_doc,
    reason = "all fail as the system does; only what is special is said"
)]
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// A held lock; dropping it releases it.
    type Lock: Send + Sync + 'static;

    /// Makes a directory and its missing parents, durably; not an error if it exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;
    /// Renames a file, replacing `to` if it exists.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file at `from` a second name, `to`, which must not exist.
    ///
    /// # Errors
    ///
    /// Whatever the system says where it cannot: another file system, or one without hard links.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The path by which a directory is told from others: absolute, without symbolic links. What
    /// does not exist of it yet is taken as it is.
    fn canonical(&self, dir: &Path) -> io::Result<PathBuf>;
    /// How many more bytes the file system that `dir` is on has room for, for this user.
    fn available_space(&self, dir: &Path) -> io::Result<u64>;
    /// Removes a file's name. On Windows this fails while the file is mapped.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable. Does nothing on Windows, where
    /// they are journalled and a directory cannot be synced.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock that the file at `path` stands for, without waiting, and writes
    /// `holder` into it for others to read. The lock ends with the process, however it ends.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] when another handle, in this process or another one, has it.
    fn lock(&self, path: &Path, holder: &str) -> Result<Self::Lock, LockError>;
    /// What the holder of the lock at `path` says of itself; `None` if nobody holds it. Makes and
    /// changes nothing, and does not wait; a [`lock`](Disk::lock) that is being taken meanwhile is
    /// not refused because of it.
    ///
    /// # Errors
    ///
    /// When it cannot be told. That there is no lock file is no error: nobody holds it then.
    fn lock_holder(&self, path: &Path) -> io::Result<Option<String>>;
    /// The wall clock, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// A random number, for identities, salts and seeds.
    fn random_u64(&self) -> u64;
}

/// An open file, read and written at given positions.
#[allow(
    clippy::len_without_is_empty,
    reason = "asking for the length is a system call"
)]
#[allow(
    clippy::missing_errors_doc,
    reason = "all fail as the system does; only what is special is said"
)]
pub trait DiskFile: Send + Sync + 'static {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the file ends before `buf` is full.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`. A failure may leave any part of them written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves room for the first `len` bytes and makes the file at least that long, so that
    /// later writes there cannot meet a full disk. Where the file system cannot reserve, does
    /// nothing and succeeds.
    fn preallocate(&self, len: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable. Must not be tried again after a failure: the
    /// kernel may have dropped what it could not write.
    fn sync_data(&self) -> io::Result<()>;
    /// Maps the first `len` bytes for reading. They must never change afterwards.
    fn map(&self, len: usize) -> io::Result<Region>;
}
