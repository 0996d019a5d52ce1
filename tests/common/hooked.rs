//! A disk that lets a test in between two of its operations: a simulated one that tells, before
//! each operation on a name or on a file's bytes, what is about to happen, on the thread on which
//! it happens.
//!
//! With it a test writes at each step of a merge, or holds a merge where it is, without a clock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crabkv::disk::{
    DirEntry, Disk, DiskFile, LockError, OpenMode, Region, SimDisk, SimFile, SimLock,
};
use crabkv::{Result, SegmentId, Store};

/// What is about to happen to the file, or to the directory, at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Create,
    Open,
    Read,
    Write,
    SyncData,
    Rename,
    Unlink,
    SyncDir,
}

type Hook = Arc<dyn Fn(Event, &Path) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct HookedDisk {
    pub(crate) sim: SimDisk,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl HookedDisk {
    pub(crate) fn new(sim: SimDisk) -> HookedDisk {
        HookedDisk {
            sim,
            hook: Arc::default(),
        }
    }

    /// From now on `hook` is called before each operation.
    pub(crate) fn set_hook(&self, hook: impl Fn(Event, &Path) + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub(crate) fn clear_hook(&self) {
        *self.hook.lock().unwrap() = None;
    }

    fn tell(&self, event: Event, path: &Path) {
        // The lock is not held while the hook runs: what it does may come here again.
        let hook = self.hook.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(event, path);
        }
    }
}

pub(crate) struct HookedFile {
    sim: SimFile,
    disk: HookedDisk,
    path: PathBuf,
}

impl Disk for HookedDisk {
    type File = HookedFile;
    type Lock = SimLock;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.sim.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.sim.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<HookedFile> {
        let is_new = mode == OpenMode::CreateNew;
        self.tell(if is_new { Event::Create } else { Event::Open }, path);
        Ok(HookedFile {
            sim: self.sim.open(path, mode)?,
            disk: self.clone(),
            path: path.to_path_buf(),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.tell(Event::Rename, to);
        self.sim.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.sim.hard_link(from, to)
    }

    fn canonical(&self, dir: &Path) -> io::Result<PathBuf> {
        self.sim.canonical(dir)
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        self.sim.available_space(dir)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.tell(Event::Unlink, path);
        self.sim.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.tell(Event::SyncDir, dir);
        self.sim.sync_dir(dir)
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<SimLock, LockError> {
        self.sim.lock(path, holder)
    }

    fn lock_holder(&self, path: &Path) -> io::Result<Option<String>> {
        self.sim.lock_holder(path)
    }

    fn now_ms(&self) -> u64 {
        self.sim.now_ms()
    }

    fn random_u64(&self) -> u64 {
        self.sim.random_u64()
    }
}

impl DiskFile for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.sim.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.tell(Event::Read, &self.path);
        self.sim.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.tell(Event::Write, &self.path);
        self.sim.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.sim.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.sim.preallocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.tell(Event::SyncData, &self.path);
        self.sim.sync_data()
    }

    fn map(&self, len: usize) -> io::Result<Region> {
        self.disk.tell(Event::Read, &self.path);
        self.sim.map(len)
    }
}

/// Does something on another thread, and waits until it is done.
///
/// # Panics
///
/// When it has not come to its end after a minute: it waits for what this thread holds.
pub(crate) fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    let result = result.recv_timeout(Duration::from_secs(60));
    result.expect("it waits for ever, or has failed")
}

/// Merges these segments on this thread, and calls `step` before each operation of the disk that
/// the merge makes up to its commit, with their numbers from 0. Gives how many there were.
///
/// From the commit on writers wait: a step there could not write.
pub(crate) fn merge_step_by_step(
    store: &Store<HookedDisk>,
    disk: &HookedDisk,
    ids: &[SegmentId],
    step: impl Fn(u64) + Send + Sync + 'static,
) -> Result<u64> {
    let this_thread = thread::current().id();
    let steps = Arc::new(AtomicU64::new(0));
    let is_committing = AtomicBool::new(false);
    let counted = Arc::clone(&steps);
    disk.set_hook(move |_, path| {
        if thread::current().id() != this_thread {
            return;
        }
        if path.to_string_lossy().contains("MANIFEST") {
            is_committing.store(true, Ordering::Relaxed);
        }
        if !is_committing.load(Ordering::Relaxed) {
            step(counted.fetch_add(1, Ordering::Relaxed));
        }
    });
    let merged = store.compact_segments(ids);
    disk.clear_hook();
    merged.map(|_| steps.load(Ordering::Relaxed))
}
