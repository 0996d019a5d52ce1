//! The operating system's disk, on which a process comes to a halt at a chosen operation: so that
//! whoever watches it can kill it there, and not just somewhere.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crabkv::disk::{DirEntry, Disk, DiskFile, LockError, OpenMode, OsDisk, OsFile, OsLock, Region};

/// Counts the operations that change something.
#[derive(Clone)]
pub(crate) struct HaltingDisk {
    left: Arc<AtomicU64>,
    halt: Arc<dyn Fn() + Send + Sync>,
}

/// That it does not count at present.
const AT_REST: u64 = u64::MAX;

impl HaltingDisk {
    /// A disk that calls `halt` where it comes to a halt; that should not return.
    pub(crate) fn new(halt: impl Fn() + Send + Sync + 'static) -> HaltingDisk {
        HaltingDisk {
            left: Arc::new(AtomicU64::new(AT_REST)),
            halt: Arc::new(halt),
        }
    }

    /// Halts at the operation of this number from now on, unless it is told to rest before.
    pub(crate) fn halt_at(&self, number: u64) {
        self.left.store(number, Ordering::SeqCst);
    }

    pub(crate) fn rest(&self) {
        self.left.store(AT_REST, Ordering::SeqCst);
    }

    /// Whether the next operation is the one.
    fn is_over(&self) -> bool {
        let count = |left: u64| (left != AT_REST).then(|| left.saturating_sub(1));
        let counted = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, count);
        counted == Ok(0)
    }

    fn pass(&self) {
        if self.is_over() {
            (self.halt)();
        }
    }
}

pub(crate) struct HaltingFile {
    inner: OsFile,
    disk: HaltingDisk,
}

impl DiskFile for HaltingFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buf, offset)
    }

    /// Where it halts, half of the bytes are written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.disk.is_over() {
            self.inner.write_at(&bytes[..bytes.len() / 2], offset)?;
            (self.disk.halt)();
        }
        self.inner.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.pass();
        self.inner.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.disk.pass();
        self.inner.preallocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.pass();
        self.inner.sync_data()
    }

    fn map(&self, len: usize) -> io::Result<Region> {
        self.inner.map(len)
    }
}

impl Disk for HaltingDisk {
    type File = HaltingFile;
    type Lock = OsLock;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.pass();
        OsDisk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        OsDisk.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<HaltingFile> {
        if mode == OpenMode::CreateNew {
            self.pass();
        }
        Ok(HaltingFile {
            inner: OsDisk.open(path, mode)?,
            disk: self.clone(),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass();
        OsDisk.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass();
        OsDisk.hard_link(from, to)
    }

    fn canonical(&self, dir: &Path) -> io::Result<PathBuf> {
        OsDisk.canonical(dir)
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        OsDisk.available_space(dir)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.pass();
        OsDisk.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.pass();
        OsDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<OsLock, LockError> {
        self.pass();
        OsDisk.lock(path, holder)
    }

    fn lock_holder(&self, path: &Path) -> io::Result<Option<String>> {
        OsDisk.lock_holder(path)
    }

    fn now_ms(&self) -> u64 {
        OsDisk.now_ms()
    }

    fn random_u64(&self) -> u64 {
        OsDisk.random_u64()
    }
}
