//! A simulated disk, for tests: it knows what is durable and what is not, and fails on command.
//!
//! # The model
//!
//! 1. A file's bytes and length, and a directory's names, each have a durable state and an ordered
//!    list of changes since. Readers see both together.
//! 2. `sync_data` makes the changes of one file durable, but not its name; `sync_dir` makes the
//!    changes of one directory's names durable, but no file's bytes. Closing makes nothing
//!    durable. So a file that was synced is gone after a power cut if its directory was not.
//! 3. A power cut keeps any subset of the changes, over all files and directories, and may tear
//!    the writes among them. See [`CrashPlan`].
//! 4. Each change of names is about one file. After a power cut, a removal that survived removes
//!    the name only if it still stands for that file. A rename that survived gives the file its
//!    new name and takes away any older one, also when the creation of the file was lost. A
//!    creation that survived replaces whatever has the name.
//! 5. A file can be read and written through its open handles after its name is gone.
//! 6. A damaged or interrupted operation is chosen by number: [`SimDisk::ops`] counts creations,
//!    writes, changes of length, preallocations, syncs, links, renames and removals; [`SimDisk::reads`]
//!    counts opens of existing files, reads, maps, lists and questions for a length or for room.
//!
//! Stricter than some file systems on purpose: nothing is durable that POSIX does not promise.
//! Renames from one directory to another are refused. Paths need no root: `db` and `/db` are the
//! same directory, and the root always exists.
//!
//! A lock belongs to a path, whatever becomes of the file there. Its file is there at once, and
//! durably, without counting as an operation: it is of no interest to a crash test.

mod crash;
mod damage;
mod directory;
mod fault;
mod file;
mod fingerprint;
mod rng;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::directory::{DirId, DirOp, Directory, Target};
use self::file::FileState;
use self::state::{ROOT, State, components, lock_state};
use super::{DirEntry, Disk, LockError, OpenMode};

pub use self::crash::CrashPlan;
pub use self::fault::{FailKind, OpKind};
pub use self::file::SimFile;
use crate::sync::{Mutex, MutexGuard};

/// A simulated disk. A clone is another handle to the same disk.
///
/// ```
/// use std::path::Path;
///
/// use crabkv::disk::{CrashPlan, Disk, DiskFile, OpenMode, SimDisk};
///
/// # fn main() -> std::io::Result<()> {
/// let disk = SimDisk::new(7);
/// let file = disk.open(Path::new("/a"), OpenMode::CreateNew)?;
/// disk.sync_dir(Path::new("/"))?;
/// file.write_at(b"synced", 0)?;
/// file.sync_data()?;
/// file.write_at(b", or not", 6)?;
///
/// let after = disk.crash(&CrashPlan::LoseAll);
/// assert_eq!(after.read_raw(Path::new("/a")).unwrap(), b"synced");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk. The seed is for [`random_u64`](Disk::random_u64).
    pub fn new(seed: u64) -> SimDisk {
        SimDisk {
            state: Arc::new(Mutex::new(State::new(seed))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock_state(&self.state)
    }

    /// How many operations that change the disk have been tried, failed ones included; those
    /// after a power cut are not.
    pub fn ops(&self) -> u64 {
        self.state().faults.ops().len() as u64
    }

    /// What each of the operations that [`ops`](SimDisk::ops) counts was to do, in order.
    pub fn op_kinds(&self) -> Vec<OpKind> {
        self.state().faults.ops().to_vec()
    }

    /// How many operations that only read have been tried.
    pub fn reads(&self) -> u64 {
        self.state().faults.reads().len() as u64
    }

    /// What each of the operations that [`reads`](SimDisk::reads) counts was to do, in order.
    pub fn read_kinds(&self) -> Vec<OpKind> {
        self.state().faults.reads().to_vec()
    }

    /// Cuts the power during the operation that changes the disk as number `op` from now on,
    /// counted from 0: it and everything after it, reads too, fails and has no effect. Only a
    /// write that is hit may survive, whole or in part: [`crash`](SimDisk::crash) decides.
    pub fn stop_at(&self, op: u64) {
        self.state().faults.stop_at(op);
    }

    /// Keeps, from now on, the moment of each operation that changes the disk, for
    /// [`take_moments`](SimDisk::take_moments). Forgets those that were kept before.
    pub fn keep_moments(&self) {
        self.state().moments = Some(Vec::new());
    }

    /// The moments that were kept, in order, and keeps no more: for each operation a disk on which
    /// [`crash_plans`](SimDisk::crash_plans) and [`crash`](SimDisk::crash) say what a power cut
    /// during that operation may leave, as after [`stop_at`](SimDisk::stop_at). So one run shows
    /// what otherwise takes as many runs as there are operations.
    pub fn take_moments(&self) -> Vec<SimDisk> {
        let moments = self.state().moments.take().unwrap_or_default();
        let disk = |state| SimDisk {
            state: Arc::new(Mutex::new(state)),
        };
        moments.into_iter().map(disk).collect()
    }

    /// Makes the operation fail that changes the disk as number `op` from now on, counted from
    /// 0; and unless it is only `once`, all that follow. Replaces an earlier call.
    pub fn fail_at(&self, op: u64, kind: FailKind, once: bool) {
        self.state().faults.fail_at(op, kind, once);
    }

    /// Makes reading operation number `read` from now on, counted from 0, fail with an I/O error;
    /// and unless it is only `once`, all that follow. Replaces an earlier call.
    pub fn fail_reads_at(&self, read: u64, once: bool) {
        self.fail_reads_with(read, FailKind::Eio, once);
    }

    /// As [`fail_reads_at`](SimDisk::fail_reads_at), with this error.
    pub fn fail_reads_with(&self, read: u64, kind: FailKind, once: bool) {
        self.state().faults.fail_reads_at(read, kind, once);
    }

    /// Takes back `stop_at`, `fail_at` and `fail_reads_at`, whether they have struck or not. What
    /// failed has failed: a write that a power cut interrupted is gone.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.heal();
        state.in_flight = None;
    }

    /// Sets the clock, in milliseconds since the Unix epoch.
    pub fn set_clock(&self, now_ms: u64) {
        self.state().clock_ms = now_ms;
    }

    /// Moves the clock on.
    pub fn advance(&self, by_ms: u64) {
        let mut state = self.state();
        state.clock_ms = state.clock_ms.saturating_add(by_ms);
    }

    /// Limits how many bytes the files may have together, holes included. A write beyond it
    /// stores what there is room for and fails like the others. Files without a name count until
    /// they are closed.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Whether a file can have a second name; otherwise the disk refuses as if it were on another
    /// file system.
    pub fn set_hard_links(&self, possible: bool) {
        self.state().refuses_hard_links = !possible;
    }

    /// How many bytes the files have together, as the capacity counts them.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.faults.alive()?;
        let mut at = ROOT;
        for name in components(dir) {
            let parent = &state.directories[at.0];
            let (next, is_durable) = match parent.volatile.get(&name) {
                Some(Target::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                Some(Target::Directory(id)) => (*id, parent.durable.contains_key(&name)),
                None => {
                    state.change(OpKind::CreateDir)?;
                    let id = DirId(state.directories.len());
                    state.directories.push(Directory::default());
                    let target = Target::Directory(id);
                    state.change_dir(at, DirOp::Link { name, target });
                    (id, false)
                }
            };
            if !is_durable {
                state.change(OpKind::SyncDir)?;
                state.directories[at.0].sync();
            }
            at = next;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state();
        state.faults.read(OpKind::List)?;
        let dir = state.directory(dir)?;
        let entries = state.directories[dir.0].volatile.iter();
        Ok(entries
            .map(|(name, target)| DirEntry {
                name: name.clone(),
                is_dir: matches!(target, Target::Directory(_)),
            })
            .collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let mut state = self.state();
        let id = if mode == OpenMode::CreateNew {
            state.change(OpKind::Create)?;
            let (dir, name) = state.split(path)?;
            if state.directories[dir.0].volatile.contains_key(&name) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let id = state.new_file(FileState::default());
            let target = Target::File(id);
            state.change_dir(dir, DirOp::Link { name, target });
            id
        } else {
            state.faults.read(OpKind::Open)?;
            state.file_at(path)?
        };
        state.file_mut(id).handle_count += 1;
        Ok(SimFile::open(&self.state, id, mode != OpenMode::Read))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(OpKind::Rename)?;
        let target = Target::File(state.file_at(from)?);
        let (from, _) = state.split(from)?;
        let (dir, to) = state.split(to)?;
        if dir != from {
            return Err(io::Error::new(
                ErrorKind::Unsupported,
                "the simulated disk renames within one directory only",
            ));
        }
        match state.directories[dir.0].volatile.get(&to) {
            Some(Target::Directory(_)) => Err(ErrorKind::IsADirectory.into()),
            Some(existing) if *existing == target => Ok(()),
            _ => {
                state.change_dir(dir, DirOp::Rename { to, target });
                Ok(())
            }
        }
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(OpKind::Link)?;
        if state.refuses_hard_links {
            return Err(ErrorKind::CrossesDevices.into());
        }
        let target = Target::File(state.file_at(from)?);
        let (dir, name) = state.split(to)?;
        if state.directories[dir.0].volatile.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.change_dir(dir, DirOp::Link { name, target });
        Ok(())
    }

    fn canonical(&self, dir: &Path) -> io::Result<PathBuf> {
        self.state().faults.alive()?;
        Ok(Path::new("/").join(components(dir).join("/")))
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        let mut state = self.state();
        state.faults.read(OpKind::Space)?;
        state.directory(dir)?;
        Ok(state.room())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(OpKind::Unlink)?;
        let target = Target::File(state.file_at(path)?);
        let (dir, name) = state.split(path)?;
        state.change_dir(dir, DirOp::Unlink { name, target });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(OpKind::SyncDir)?;
        let dir = state.directory(dir)?;
        state.directories[dir.0].sync();
        state.forget_all_unreachable();
        Ok(())
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<SimLock, LockError> {
        let mut state = self.state();
        state.faults.alive().map_err(LockError::Io)?;
        let name = components(path).join("/");
        if let Some(holder) = state.locks.get(&name) {
            return Err(LockError::Held {
                holder: holder.clone(),
            });
        }
        state
            .place(path, holder.as_bytes().to_vec())
            .map_err(LockError::Io)?;
        let id = state.file_at(path).map_err(LockError::Io)?;
        state.file_mut(id).is_lock = true;
        state.locks.insert(name.clone(), holder.to_owned());
        Ok(SimLock {
            disk: self.clone(),
            name,
        })
    }

    fn lock_holder(&self, path: &Path) -> io::Result<Option<String>> {
        let state = self.state();
        state.faults.alive()?;
        Ok(state.locks.get(&components(path).join("/")).cloned())
    }

    fn now_ms(&self) -> u64 {
        self.state().clock_ms
    }

    fn random_u64(&self) -> u64 {
        self.state().random.next()
    }
}

/// A held lock on a path of a [`SimDisk`]. Dropping it releases it.
pub struct SimLock {
    disk: SimDisk,
    name: String,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.name);
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimDisk")
            .field("ops", &state.faults.ops().len())
            .field("reads", &state.faults.reads().len())
            .field("files", &state.files.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLock")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
