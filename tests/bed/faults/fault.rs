//! What can go wrong, where, and which error a caller then has to see.

use crabkv::Error;
use crabkv::disk::{FailKind, OpKind, SimDisk};

/// What the caller of an operation of the store learns from an error of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// The disk is full.
    Full,
    /// A limit of the process.
    Limit,
    Other,
}

/// An error's number on Unix and on Windows.
const fn errno(unix: i32, windows: i32) -> i32 {
    if cfg!(windows) { windows } else { unix }
}

const EINTR: i32 = errno(4, 995);
const EIO: i32 = errno(5, 1117);
const ENOMEM: i32 = errno(12, 8);
const EACCES: i32 = errno(13, 5);
const EXDEV: i32 = errno(18, 17);
const EMFILE: i32 = errno(24, 4);
const EFBIG: i32 = errno(27, 223);
const ENOSPC: i32 = errno(28, 112);
const EROFS: i32 = errno(30, 19);

/// One failure that is laid on the disk before a workload begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// An operation that changes something fails.
    Change { at: u64, kind: FailKind, once: bool },
    /// An operation that only reads fails.
    Read { at: u64, kind: FailKind, once: bool },
    /// The disk has room for so many bytes.
    Room { bytes: u64 },
}

impl Fault {
    pub(super) fn lay_on(self, disk: &SimDisk) {
        match self {
            Fault::Change { at, kind, once } => disk.fail_at(at, kind, once),
            Fault::Read { at, kind, once } => disk.fail_reads_with(at, kind, once),
            Fault::Room { bytes } => disk.set_capacity(Some(bytes)),
        }
    }

    pub(super) fn lift_from(disk: &SimDisk) {
        disk.heal();
        disk.set_capacity(None);
    }

    /// Whether it may have struck.
    pub(super) fn has_struck(self, disk: &SimDisk) -> bool {
        match self {
            Fault::Change { at, .. } => disk.ops() > at,
            Fault::Read { at, .. } => disk.reads() > at,
            Fault::Room { .. } => true,
        }
    }

    /// Whether only one operation fails, at once.
    pub(super) fn passes(self) -> bool {
        match self {
            Fault::Change { kind, once, .. } => once && kind != FailKind::FsyncLate,
            Fault::Read { once, .. } => once,
            Fault::Room { .. } => false,
        }
    }

    pub(super) fn is_of_reads(self) -> bool {
        matches!(self, Fault::Read { .. })
    }

    pub(super) fn is(self, fail: FailKind) -> bool {
        matches!(self, Fault::Change { kind, .. } if kind == fail)
    }

    /// The number of the system's error.
    fn number(self) -> i32 {
        let kind = match self {
            Fault::Change { kind, .. } | Fault::Read { kind, .. } => kind,
            Fault::Room { .. } => FailKind::Enospc,
        };
        match kind {
            FailKind::Enospc | FailKind::ShortWrite => ENOSPC,
            FailKind::Os(number) => number,
            FailKind::Eio | FailKind::FsyncKeep | FailKind::FsyncRevert | FailKind::FsyncLate => {
                EIO
            }
        }
    }

    fn class(self) -> Class {
        match self.number() {
            ENOSPC => Class::Full,
            EMFILE | EFBIG | ENOMEM => Class::Limit,
            _ => Class::Other,
        }
    }

    /// What is wrong with an error that this is said to have caused; nothing if it is right.
    pub(super) fn complaint(self, error: &Error) -> Option<&'static str> {
        let (source, path, class) = match error {
            // What it is caused by, has been reported as an I/O error, whatever it was.
            Error::Poisoned { cause } => return self.complaint(cause),
            Error::Io { source, path, .. } => (source, path, None),
            Error::DiskFull { source, path } => (source, path, Some(Class::Full)),
            Error::ResourceLimit { source, path, .. } => (source, path, Some(Class::Limit)),
            _ => return Some("an error of another kind"),
        };
        // What the store has found out by itself, by asking for room, has no number.
        let is_asked = source.raw_os_error().is_none()
            && source.kind() == std::io::ErrorKind::StorageFull
            && self.class() == Class::Full;
        if source.raw_os_error() != Some(self.number()) && !is_asked {
            return Some("what the system said is lost");
        }
        if path.as_os_str().is_empty() {
            return Some("it names no file");
        }
        // A full disk or a limit that leaves the store in an unknown state is told as any error.
        (class.is_some_and(|class| class != self.class())).then_some("of the wrong kind")
    }
}

/// How an operation of this kind can fail.
pub(super) fn ways(op: OpKind) -> Vec<FailKind> {
    use FailKind::{Eio, Enospc, FsyncKeep, FsyncLate, FsyncRevert, Os, ShortWrite};
    let full = [Enospc, Os(EFBIG)];
    let name = [Enospc, Os(EROFS), Os(EACCES)];
    let mut ways = vec![Eio];
    ways.extend(match op {
        OpKind::Write => [&full[..], &[ShortWrite, Os(EROFS), Os(EINTR)]].concat(),
        OpKind::SetLen => [&full[..], &[Os(EROFS), Os(EINTR)]].concat(),
        OpKind::Preallocate => [&full[..], &[Os(EINTR)]].concat(),
        OpKind::SyncData => {
            vec![
                Enospc,
                Os(EROFS),
                Os(EINTR),
                FsyncKeep,
                FsyncRevert,
                FsyncLate,
            ]
        }
        // Opens the directory first.
        OpKind::SyncDir => vec![Enospc, Os(EROFS), Os(EMFILE), Os(EINTR)],
        OpKind::Create => [&name[..], &[Os(EMFILE)]].concat(),
        OpKind::CreateDir | OpKind::Rename | OpKind::Unlink => name.to_vec(),
        OpKind::Link => [&name[..], &[Os(EXDEV)]].concat(),
        OpKind::Open | OpKind::List => vec![Os(EMFILE), Os(EACCES)],
        OpKind::Map => vec![Os(ENOMEM), Os(EACCES)],
        OpKind::Read => vec![Os(EINTR)],
        _ => Vec::new(),
    });
    ways
}
