//! A simulated disk that calls back at every operation that changes it, also in the middle of
//! writes, and dies on command: for watching a store from beside it at every moment.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crabkv::disk::{DirEntry, Disk, DiskFile, LockError, OpenMode, Region, SimDisk, SimFile};

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// One that changes a name, a length, or what is durable is about to be done.
    Before(&'static str),
    /// Some of a write's bytes are in the file.
    HalfWritten,
    /// All of a write's bytes are, and it is about to return.
    Written,
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Go,
    /// It fails, with the disk full.
    Full,
    /// The process dies: it and everything after it fails.
    Die,
}

type Hook = dyn FnMut(Event) -> Fate + Send;

#[derive(Clone)]
pub(crate) struct FatedDisk {
    pub(crate) inner: SimDisk,
    shared: Arc<Shared>,
}

struct Shared {
    hook: Mutex<Box<Hook>>,
    /// 1 when dead; the rest chooses where writes are split.
    state: AtomicU64,
    /// What the next read of a piece sees in a file before this offset: it begins before something
    /// is changed, and ends after that.
    stale: Mutex<Option<(u64, Vec<u8>)>>,
}

impl FatedDisk {
    pub(crate) fn new(inner: SimDisk, hook: impl FnMut(Event) -> Fate + Send + 'static) -> Self {
        let shared = Shared {
            hook: Mutex::new(Box::new(hook)),
            state: AtomicU64::new(0),
            stale: Mutex::default(),
        };
        FatedDisk {
            inner,
            shared: Arc::new(shared),
        }
    }

    /// Lets the next read of more than a record's header, from anywhere but a file's beginning, see
    /// what the file was before, up to an offset.
    pub(crate) fn see_stale(&self, upto: u64, file: Vec<u8>) {
        *self.shared.stale.lock().unwrap() = Some((upto, file));
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.shared.state.load(Ordering::Relaxed) & 1 == 1
    }
}

impl Shared {
    fn alive(&self) -> io::Result<()> {
        if self.state.load(Ordering::Relaxed) & 1 == 1 {
            return Err(io::Error::other("the process is dead"));
        }
        Ok(())
    }

    fn pass(&self, event: Event) -> io::Result<()> {
        self.alive()?;
        if std::thread::panicking() {
            return Ok(());
        }
        match (self.hook.lock().unwrap())(event) {
            Fate::Go => Ok(()),
            Fate::Full => Err(io::ErrorKind::StorageFull.into()),
            Fate::Die => {
                self.state.fetch_or(1, Ordering::Relaxed);
                self.alive()
            }
        }
    }
}

pub(crate) struct FatedFile {
    inner: SimFile,
    shared: Arc<Shared>,
}

impl DiskFile for FatedFile {
    fn len(&self) -> io::Result<u64> {
        self.shared.alive()?;
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.shared.alive()?;
        self.inner.read_at(buf, offset)?;
        let mut stale = self.shared.stale.lock().unwrap();
        if let Some((upto, file)) =
            stale.take_if(|(upto, _)| buf.len() > 16 && (1..*upto).contains(&offset))
        {
            let len = ((upto - offset) as usize).min(buf.len());
            buf[..len].copy_from_slice(&file[offset as usize..offset as usize + len]);
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.shared.pass(Event::Before("write"))?;
        let count = self.shared.state.fetch_add(2, Ordering::Relaxed);
        let split = (count * 7919) as usize % (bytes.len() + 1);
        // Every other write, the end of it comes first.
        let parts = if count & 2 == 0 {
            [0..split, split..bytes.len()]
        } else {
            [split..bytes.len(), 0..split]
        };
        for (part, event) in parts.into_iter().zip([Event::HalfWritten, Event::Written]) {
            self.inner
                .write_at(&bytes[part.clone()], offset + part.start as u64)?;
            self.shared.pass(event)?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.shared.pass(Event::Before("set_len"))?;
        self.inner.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.shared.pass(Event::Before("preallocate"))?;
        self.inner.preallocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shared.pass(Event::Before("sync"))?;
        self.inner.sync_data()
    }

    fn map(&self, len: usize) -> io::Result<Region> {
        self.shared.alive()?;
        self.inner.map(len)
    }
}

impl Disk for FatedDisk {
    type File = FatedFile;
    /// None: a process that died is followed by another one on the same disk.
    type Lock = ();

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.shared.alive()?;
        self.inner.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.shared.alive()?;
        self.inner.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<FatedFile> {
        self.shared.alive()?;
        if mode == OpenMode::CreateNew {
            self.shared.pass(Event::Before("create"))?;
        }
        Ok(FatedFile {
            inner: self.inner.open(path, mode)?,
            shared: Arc::clone(&self.shared),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.pass(Event::Before("rename"))?;
        self.inner.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.pass(Event::Before("link"))?;
        self.inner.hard_link(from, to)
    }

    fn canonical(&self, dir: &Path) -> io::Result<PathBuf> {
        self.inner.canonical(dir)
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        self.shared.alive()?;
        self.inner.available_space(dir)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.shared.pass(Event::Before("unlink"))?;
        self.inner.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.shared.pass(Event::Before("sync_dir"))?;
        self.inner.sync_dir(dir)
    }

    fn lock(&self, _path: &Path, _holder: &str) -> Result<(), LockError> {
        self.shared.alive().map_err(LockError::Io)
    }

    fn lock_holder(&self, _path: &Path) -> io::Result<Option<String>> {
        self.shared.alive()?;
        Ok(None)
    }

    fn now_ms(&self) -> u64 {
        self.inner.now_ms()
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }
}
