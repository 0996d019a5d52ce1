//! A file: its durable bytes, the changes that no sync has made durable yet, and what both
//! together show to a reader.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::{fmt, mem};

use super::fault::{FailKind, OpKind, Verdict, power_cut};
use super::rng::Rng;
use super::state::{State, lock_state};
use crate::disk::{DiskFile, Region};
use crate::sync::{Mutex, MutexGuard};

/// No test needs more, and an offset gone wrong must not take all memory.
const MAX_FILE_LEN: u64 = 1 << 36;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub(super) u64);

/// A change of a file's bytes or length.
#[derive(Clone, Debug)]
pub(super) enum FileOp {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLen { len: u64 },
    Preallocate { len: u64 },
}

impl FileOp {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            FileOp::Write { offset, bytes } => {
                let start = *offset as usize;
                let end = start + bytes.len();
                if !bytes.is_empty() {
                    grow(content, end);
                    content[start..end].copy_from_slice(bytes);
                }
            }
            FileOp::SetLen { len } => content.resize(*len as usize, 0),
            FileOp::Preallocate { len } => grow(content, *len as usize),
        }
    }

    fn kind(&self) -> OpKind {
        match self {
            FileOp::Write { .. } => OpKind::Write,
            FileOp::SetLen { .. } => OpKind::SetLen,
            FileOp::Preallocate { .. } => OpKind::Preallocate,
        }
    }

    /// The least length that a file has afterwards. `None`: there is no such length.
    fn end(&self) -> Option<u64> {
        match self {
            FileOp::Write { bytes, .. } if bytes.is_empty() => Some(0),
            FileOp::Write { offset, bytes } => offset.checked_add(bytes.len() as u64),
            FileOp::SetLen { len } | FileOp::Preallocate { len } => Some(*len),
        }
    }

    /// The same write, without the bytes after the first `len`; nothing for other changes.
    fn cut(self, len: u64) -> Option<FileOp> {
        match self {
            FileOp::Write { offset, bytes } if len > 0 => {
                let bytes = bytes[..len as usize].into();
                Some(FileOp::Write { offset, bytes })
            }
            _ => None,
        }
    }
}

/// Makes `content` at least `len` long, with zeros.
pub(super) fn grow(content: &mut Vec<u8>, len: usize) {
    if content.len() < len {
        content.resize(len, 0);
    }
}

/// Contents are shared between copies of a disk until one of them changes.
#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    pub(super) durable: Arc<Vec<u8>>,
    pub(super) volatile: Arc<Vec<u8>>,
    /// What a sync will apply to `durable`, each with its place in the order of all changes.
    pub(super) unsynced: Vec<(u64, FileOp)>,
    /// A sync has to report an error that an earlier one should have reported.
    pub(super) owes_error: bool,
    pub(super) handle_count: usize,
    /// Whether it stands for a lock; then it says who has it.
    pub(super) is_lock: bool,
    /// What the medium cannot read any more.
    pub(super) unreadable: Vec<Range<usize>>,
}

impl FileState {
    pub(super) fn with_bytes(bytes: Vec<u8>) -> FileState {
        let bytes = Arc::new(bytes);
        FileState {
            durable: Arc::clone(&bytes),
            volatile: bytes,
            ..FileState::default()
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        for (_, op) in self.unsynced.drain(..) {
            op.apply(Arc::make_mut(&mut self.durable));
        }
        if mem::take(&mut self.owes_error) {
            return Err(FailKind::Eio.error());
        }
        Ok(())
    }

    fn fail_sync(&mut self, kind: FailKind) -> io::Result<()> {
        match kind {
            FailKind::FsyncKeep => self.unsynced.clear(),
            FailKind::FsyncRevert => {
                self.unsynced.clear();
                self.volatile.clone_from(&self.durable);
            }
            FailKind::FsyncLate => {
                self.unsynced.clear();
                self.owes_error = true;
                return Ok(());
            }
            FailKind::Eio | FailKind::Enospc | FailKind::Os(_) | FailKind::ShortWrite => {}
        }
        Err(kind.error())
    }
}

/// A file of a [`SimDisk`](super::SimDisk).
///
/// It can be read and written after its name is gone. Closing it makes nothing durable.
pub struct SimFile {
    state: Arc<Mutex<State>>,
    id: FileId,
    is_writable: bool,
}

impl SimFile {
    pub(super) fn open(disk: &Arc<Mutex<State>>, id: FileId, is_writable: bool) -> SimFile {
        SimFile {
            state: Arc::clone(disk),
            id,
            is_writable,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock_state(&self.state)
    }

    fn change(&self, op: FileOp) -> io::Result<()> {
        if !self.is_writable {
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                "file is open for reading only",
            ));
        }
        let Some(end) = op.end().filter(|end| *end <= MAX_FILE_LEN) else {
            return Err(ErrorKind::FileTooLarge.into());
        };
        let mut state = self.state();
        let is_write = matches!(op, FileOp::Write { .. });
        state.note_moment(|| is_write.then(|| (self.id, op.clone())));
        match state.faults.pass(op.kind()) {
            Verdict::Go => {}
            Verdict::Stop => {
                if let FileOp::Write { .. } = op {
                    state.in_flight = Some((self.id, op));
                }
                return Err(power_cut());
            }
            Verdict::Fail(kind) => {
                if let (FailKind::ShortWrite, FileOp::Write { bytes, .. }) = (kind, &op) {
                    // Not from the disk's own random numbers, which a fault must not shift.
                    let len = Rng::new(state.faults.ops().len() as u64).below(bytes.len());
                    if let Some(op) = op.cut(len as u64) {
                        state.change_file(self.id, op);
                    }
                }
                return Err(kind.error());
            }
            Verdict::Refuse(error) => return Err(error),
        }
        let len = state.file(self.id).volatile.len() as u64;
        let end_of_room = state.room().saturating_add(len);
        if end <= end_of_room {
            state.change_file(self.id, op);
            return Ok(());
        }
        // As much as there is room for.
        if let FileOp::Write { offset, .. } = op {
            if let Some(op) = op.cut(end_of_room.saturating_sub(offset)) {
                state.change_file(self.id, op);
            }
        }
        Err(FailKind::Enospc.error())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.faults.read(OpKind::Len)?;
        Ok(state.file(self.id).volatile.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        state.faults.read(OpKind::Read)?;
        let file = state.file(self.id);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buf.len());
        let is_hit = |bad: &Range<usize>| bad.start < end && start < bad.end;
        if file.unreadable.iter().any(is_hit) {
            return Err(FailKind::Eio.error());
        }
        let content = &file.volatile;
        let bytes = content.get(start..).and_then(|rest| rest.get(..buf.len()));
        match bytes {
            Some(bytes) => buf.copy_from_slice(bytes),
            None if buf.is_empty() => {}
            None => return Err(ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(FileOp::Write {
            offset,
            bytes: bytes.into(),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(FileOp::SetLen { len })
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.change(FileOp::Preallocate { len })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.note_moment(|| None);
        match state.faults.pass(OpKind::SyncData) {
            Verdict::Go => state.file_mut(self.id).sync(),
            Verdict::Stop => Err(power_cut()),
            Verdict::Fail(kind) => state.file_mut(self.id).fail_sync(kind),
            Verdict::Refuse(error) => Err(error),
        }
    }

    fn map(&self, len: usize) -> io::Result<Region> {
        let mut state = self.state();
        state.faults.read(OpKind::Map)?;
        let file = state.file(self.id);
        let bytes = file.volatile.get(..len).ok_or(ErrorKind::UnexpectedEof)?;
        if file.unreadable.is_empty() {
            return Ok(Region::from_vec(bytes.to_vec()));
        }
        let disk = Arc::clone(&self.state);
        let fault = move || {
            // Whatever else the process does, while the thread unwinds or on other threads, comes
            // to the disk no more.
            lock_state(&disk).faults.stop();
            panic!("simulated SIGBUS: a mapped byte cannot be read");
        };
        let bad = file.unreadable.clone();
        Ok(Region::faulty(bytes.to_vec(), bad, Box::new(fault)))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.state();
        state.file_mut(self.id).handle_count -= 1;
        state.forget_unreachable(self.id);
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile")
            .field("id", &self.id.0)
            .finish_non_exhaustive()
    }
}
