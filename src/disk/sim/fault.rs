//! Which operation fails, and how.
//!
//! Owns the counters of operations and the plans laid on them. Knows nothing of files.

use std::io;

#[cfg(not(windows))]
const EIO: i32 = 5;
#[cfg(not(windows))]
const ENOSPC: i32 = 28;
/// `ERROR_IO_DEVICE`.
#[cfg(windows)]
const EIO: i32 = 1117;
/// `ERROR_DISK_FULL`.
#[cfg(windows)]
const ENOSPC: i32 = 112;

/// How an operation fails that [`SimDisk::fail_at`](super::SimDisk::fail_at) chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailKind {
    /// An I/O error (EIO); nothing is done. What a failed sync should have made durable stays
    /// unsynced, and another sync would do it.
    Eio,
    /// The disk is full (ENOSPC); nothing is done.
    Enospc,
    /// The system's error of this number; nothing is done.
    Os(i32),
    /// A write stores only its first bytes, how many is chosen at random, then the disk is full.
    /// Other operations, and later writes, fail like [`Enospc`](FailKind::Enospc).
    ShortWrite,
    /// A sync of a file fails, and its unsynced changes are marked clean: they can be read, but no
    /// later sync makes them durable, unless they are written again (ext4, XFS). As the kernel
    /// does not tell, neither a read nor a second sync shows it.
    ///
    /// Like the two below it hits only [`sync_data`](crate::disk::DiskFile::sync_data): the first
    /// one from the chosen operation on.
    FsyncKeep,
    /// A sync of a file fails, and what can be read is again what was last durable (Btrfs).
    FsyncRevert,
    /// A sync of a file succeeds without making anything durable, ever, as with
    /// [`FsyncKeep`](FailKind::FsyncKeep); the next sync of the same file does its work and
    /// reports the error (ext4 with `data=journal`).
    FsyncLate,
}

impl FailKind {
    pub(super) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            FailKind::Enospc | FailKind::ShortWrite => ENOSPC,
            FailKind::Os(number) => number,
            FailKind::Eio | FailKind::FsyncKeep | FailKind::FsyncRevert | FailKind::FsyncLate => {
                EIO
            }
        })
    }

    fn is_for_syncs_only(self) -> bool {
        matches!(
            self,
            FailKind::FsyncKeep | FailKind::FsyncRevert | FailKind::FsyncLate
        )
    }
}

/// What an operation does, for tests that choose which to fail by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OpKind {
    /// Making a directory.
    CreateDir,
    /// Making a file.
    Create,
    /// Writing into a file.
    Write,
    /// Cutting or extending a file.
    SetLen,
    /// Reserving room for a file.
    Preallocate,
    /// Syncing a file.
    SyncData,
    /// Syncing a directory.
    SyncDir,
    /// Renaming a file.
    Rename,
    /// Giving a file a second name.
    Link,
    /// Removing a file's name.
    Unlink,
    /// Opening a file that exists.
    Open,
    /// Reading from a file.
    Read,
    /// Mapping a file.
    Map,
    /// Listing a directory.
    List,
    /// Asking for a file's length.
    Len,
    /// Asking how much room is left.
    Space,
}

/// What an operation is told to do.
#[derive(Debug)]
pub(super) enum Verdict {
    Go,
    /// The power fails during this operation.
    Stop,
    /// It fails in this way.
    Fail(FailKind),
    /// It fails with this error and does nothing.
    Refuse(io::Error),
}

#[derive(Debug)]
struct Plan {
    at: u64,
    kind: FailKind,
    once: bool,
    has_hit: bool,
}

/// The gate that every operation passes.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Every operation that was tried, in order: those that change something, and those that read.
    ops: Vec<OpKind>,
    reads: Vec<OpKind>,
    stop_at: Option<u64>,
    is_stopped: bool,
    fail: Option<Plan>,
    fail_reads: Option<(u64, FailKind, bool)>,
}

impl Faults {
    pub(super) fn ops(&self) -> &[OpKind] {
        &self.ops
    }

    pub(super) fn reads(&self) -> &[OpKind] {
        &self.reads
    }

    pub(super) fn stop_at(&mut self, op: u64) {
        self.stop_at = Some((self.ops.len() as u64).saturating_add(op));
    }

    /// Fails everything from now on.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    pub(super) fn fail_at(&mut self, op: u64, kind: FailKind, once: bool) {
        self.fail = Some(Plan {
            at: (self.ops.len() as u64).saturating_add(op),
            kind,
            once,
            has_hit: false,
        });
    }

    pub(super) fn fail_reads_at(&mut self, read: u64, kind: FailKind, once: bool) {
        let at = (self.reads.len() as u64).saturating_add(read);
        self.fail_reads = Some((at, kind, once));
    }

    /// Takes all plans back, and the power cut.
    pub(super) fn heal(&mut self) {
        *self = Faults {
            ops: std::mem::take(&mut self.ops),
            reads: std::mem::take(&mut self.reads),
            ..Faults::default()
        };
    }

    /// Fails once the power is cut.
    pub(super) fn alive(&self) -> io::Result<()> {
        if self.is_stopped {
            return Err(power_cut());
        }
        Ok(())
    }

    pub(super) fn read(&mut self, op: OpKind) -> io::Result<()> {
        self.alive()?;
        let number = self.reads.len() as u64;
        self.reads.push(op);
        match self.fail_reads {
            Some((at, kind, once)) if number >= at => {
                if once {
                    self.fail_reads = None;
                }
                Err(kind.error())
            }
            _ => Ok(()),
        }
    }

    /// The gate of operations that change something and can only happen or not.
    pub(super) fn change(&mut self, op: OpKind) -> io::Result<()> {
        match self.pass(op) {
            Verdict::Go => Ok(()),
            Verdict::Stop => Err(power_cut()),
            Verdict::Fail(kind) => Err(kind.error()),
            Verdict::Refuse(error) => Err(error),
        }
    }

    /// The gate of operations that change something and can happen in part.
    pub(super) fn pass(&mut self, op: OpKind) -> Verdict {
        if let Err(error) = self.alive() {
            return Verdict::Refuse(error);
        }
        let number = self.ops.len() as u64;
        self.ops.push(op);
        if self.stop_at == Some(number) {
            self.is_stopped = true;
            return Verdict::Stop;
        }
        let Some(plan) = &mut self.fail else {
            return Verdict::Go;
        };
        if number < plan.at {
            return Verdict::Go;
        }
        if plan.has_hit {
            // The fault was met; what comes after it fails plainly.
            return Verdict::Refuse(plan.kind.error());
        }
        let kind = plan.kind;
        if kind.is_for_syncs_only() && op != OpKind::SyncData {
            return Verdict::Go;
        }
        plan.has_hit = true;
        if plan.once {
            self.fail = None;
        }
        Verdict::Fail(kind)
    }
}

pub(super) fn power_cut() -> io::Error {
    io::Error::other("simulated power cut")
}
