//! The operating system's files, clock and random numbers.
//!
//! What differs between systems is in `os/unix.rs` and `os/windows.rs`, two files with the same
//! functions. Preallocation differs between Linux and the rest and is here.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, process, thread};

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{DirEntry, Disk, DiskFile, LockError, OpenMode, Region};
use crate::bugs::{Bug, is_planted};

/// The operating system's file system, clock and random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    type File = OsFile;
    type Lock = OsLock;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if is_dir(dir)? {
            // Whoever made it may have died before it was durable. Only the last directory can be
            // in that state: each parent is synced before anything is made in it. A parent that
            // may not be read is left to its owner.
            return system::sync_dir_if_readable(parent_of(dir));
        }
        let parent = parent_of(dir);
        if parent != dir && parent != Path::new(".") {
            self.create_dir(parent)?;
        }
        match fs::create_dir(dir) {
            // Somebody else made it first; it is durable only when we have seen to it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && is_dir(dir)? => {}
            made => made?,
        }
        system::sync_dir(parent)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let entries = match uninterrupted(|| fs::read_dir(dir)) {
            Ok(entries) => entries,
            Err(error) => {
                // Windows has several ways to say that this is no directory; not all have a kind.
                is_dir(dir)?;
                return Err(error);
            }
        };
        entries
            .map(|entry| {
                let entry = entry?;
                Ok(DirEntry {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    is_dir: entry.file_type()?.is_dir(),
                })
            })
            .collect()
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<OsFile> {
        let mut options = File::options();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = system::open(&options, path)?;
        Ok(OsFile { file })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        system::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn canonical(&self, dir: &Path) -> io::Result<PathBuf> {
        match fs::canonicalize(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
        let parent = parent_of(dir);
        match dir.file_name() {
            Some(name) if parent != dir => Ok(self.canonical(parent)?.join(name)),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        fs2::available_space(dir)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        system::sync_dir(dir)
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<OsLock, LockError> {
        // The text in the lock file is for messages, and decides nothing.
        let is_left_over = || is_planted(Bug::LockByText) && system::read_holder(path) == holder;
        // The directory first, always: of two lockers that took the two locks in different
        // orders, neither might win.
        let directory = match system::lock_dir(parent_of(path)) {
            DirLock::Taken(directory) => Some(directory),
            DirLock::Unavailable => None,
            DirLock::Held if is_left_over() => None,
            DirLock::Held => return Err(held(path)),
        };
        loop {
            let file = system::open_lock_file(path).map_err(LockError::Io)?;
            match try_lock(&file) {
                Ok(true) => {}
                Ok(false) if is_left_over() => {}
                Ok(false) => return Err(held(path)),
                Err(error) => return Err(LockError::Io(error)),
            }
            // Between the open and the lock the file may have been removed, and another one made
            // and locked by somebody else: a lock on a file without a name protects nothing.
            if system::is_at(&file, path).map_err(LockError::Io)? {
                system::write_holder(&file, path, holder);
                return Ok(OsLock {
                    file,
                    directory,
                    owner_pid: process::id(),
                });
            }
        }
    }

    fn lock_holder(&self, path: &Path) -> io::Result<Option<String>> {
        // As `lock` does, the directory first: it stays locked when the lock file is removed.
        let is_held = system::is_dir_locked(parent_of(path))
            || match File::open(path) {
                Ok(file) => is_locked(&file)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // A directory that is not there is another thing than one that nobody has.
                    fs::metadata(parent_of(path))?;
                    false
                }
                Err(error) => return Err(error),
            };
        Ok(is_held.then(|| system::read_holder(path)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
    }

    fn random_u64(&self) -> u64 {
        getrandom::u64().unwrap_or_else(|_| unlikely_u64())
    }
}

/// A file of the operating system.
#[derive(Debug)]
pub struct OsFile {
    file: File,
}

impl DiskFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        system::read_exact_at(&self.file, buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        system::write_all_at(&self.file, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let before = self.len()?;
        let reserved = reserve(&self.file, len);
        if reserved.is_err() {
            // Some file systems grow the file as far as there is room before they give up. The
            // error to report is the one that stopped the reservation.
            let _ = self.file.set_len(before);
        }
        reserved?;
        if self.len()? < len {
            self.file.set_len(len)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn map(&self, len: usize) -> io::Result<Region> {
        if self.len()? < len as u64 {
            // Reading a map beyond the end of its file kills the process.
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: `DiskFile::map` is for bytes that never change afterwards. The log keeps that
        // promise within the process: it maps sealed segments only, which nobody writes or cuts
        // again, and removes them by name only. Against other processes it is kept by the
        // directory's lock, and by asking users to leave the store's files alone.
        unsafe { Region::map_file(&self.file, len) }
    }
}

/// Reserves room for the first `len` bytes, where the file system can; may or may not make the
/// file as long.
#[cfg(target_os = "linux")]
fn reserve(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

    loop {
        match fallocate(file, FallocateFlags::empty(), 0, len) {
            Err(Errno::INTR) => {}
            // Not on this file system, not in this kernel, or nothing to reserve (`len` is 0).
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(()),
            result => return result.map_err(io::Error::from),
        }
    }
}

/// Other systems have no call that both reserves and is as widely supported.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "its Linux twin can fail")]
fn reserve(_file: &File, _len: u64) -> io::Result<()> {
    Ok(())
}

/// A held lock on a store's directory. Dropping it, or the end of the process, releases it.
pub struct OsLock {
    file: File,
    /// The directory itself, locked too where that is possible: unlike the lock file it cannot be
    /// removed and made anew while the store is open.
    directory: Option<File>,
    owner_pid: u32,
}

impl Drop for OsLock {
    fn drop(&mut self) {
        // Closing releases it too, but only with the last copy of the handle: a child between
        // fork and exec has one. The child itself must not release its parent's lock.
        if process::id() == self.owner_pid {
            let _ = fs2::FileExt::unlock(&self.file);
            if let Some(directory) = &self.directory {
                let _ = fs2::FileExt::unlock(directory);
            }
        }
    }
}

impl fmt::Debug for OsLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsLock").finish_non_exhaustive()
    }
}

/// What came of locking a directory itself.
#[cfg_attr(
    windows,
    expect(dead_code, reason = "directories cannot be locked there")
)]
enum DirLock {
    Taken(File),
    Held,
    /// Not on this system or file system, or the directory cannot be opened: the lock file has to
    /// do, and says what is wrong with the directory.
    Unavailable,
}

/// How often a lock is tried again that somebody is only looking at, and how long to wait before:
/// a look takes two system calls, one after the other.
const LOOKED_AT_TRIES: u32 = 100;
const LOOKED_AT_WAIT: Duration = Duration::from_millis(1);

/// Locks `file` if nobody has it; `false` when somebody has.
///
/// Whoever looks whether a lock is held shares it for a moment ([`is_locked`]), and must not keep
/// others from taking it. That a lock can be shared tells that it is not held for good.
fn try_lock(file: &File) -> io::Result<bool> {
    for _ in 0..LOOKED_AT_TRIES {
        // By path: newer standard libraries have methods of the same name, and other errors.
        if is_taken(fs2::FileExt::try_lock_exclusive(file))? {
            return Ok(true);
        }
        if is_locked(file)? {
            return Ok(false);
        }
        thread::sleep(LOOKED_AT_WAIT);
    }
    Ok(false)
}

/// Whether somebody has locked `file`. Shares the lock for a moment to find out: there is no other
/// way that works for every kind of lock, on every file system and across containers.
fn is_locked(file: &File) -> io::Result<bool> {
    let shared = is_taken(fs2::FileExt::try_lock_shared(file))?;
    if shared {
        fs2::FileExt::unlock(file)?;
    }
    Ok(!shared)
}

fn is_taken(locked: io::Result<()>) -> io::Result<bool> {
    match locked {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn held(path: &Path) -> LockError {
    LockError::Held {
        holder: system::read_holder(path),
    }
}

/// The directory that has the name of `path`.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        // The root, which is its own parent, or an empty path.
        None => path,
    }
}

/// Calls again what a signal interrupted. The standard library does so for files, but not for
/// directories.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Whether there is a directory at `path`; an error when there is something else.
fn is_dir(path: &Path) -> io::Result<bool> {
    match uninterrupted(|| fs::metadata(path)) {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
}

/// A number that hardly anybody else has: for when the system's random numbers fail, which must
/// not keep a store from opening.
fn unlikely_u64() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    // Where the stack is differs from process to process on most systems.
    let address = &raw const call as usize as u64;
    let seed = address ^ (u64::from(process::id()) << 32) ^ call;
    xxh3_64_with_seed(&since_epoch().as_nanos().to_le_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn temp_dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn create(dir: &Path, name: &str, bytes: &[u8]) -> OsFile {
        let file = OsDisk.open(&dir.join(name), OpenMode::CreateNew).unwrap();
        file.write_at(bytes, 0).unwrap();
        file
    }

    fn names(dir: &Path) -> BTreeSet<String> {
        let entries = OsDisk.list(dir).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    fn holder_of(result: Result<OsLock, LockError>) -> String {
        match result {
            Err(LockError::Held { holder }) => holder,
            other => panic!("not held by somebody else: {other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read_back_at_its_place() {
        let dir = temp_dir();
        let file = create(dir.path(), "a", b"hello world");
        file.write_at(b"W", 6).unwrap();
        file.sync_data().unwrap();
        let mut bytes = [0; 5];
        file.read_at(&mut bytes, 6).unwrap();
        assert_eq!(&bytes, b"World");
        assert_eq!(file.len().unwrap(), 11);

        let again = OsDisk.open(&dir.path().join("a"), OpenMode::Read).unwrap();
        again.read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"hello");
        assert!(again.write_at(b"x", 0).is_err());
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let dir = temp_dir();
        let file = create(dir.path(), "a", b"abc");
        for offset in [2, 3, 4, 1 << 40] {
            let error = file.read_at(&mut [0; 2], offset).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }
        file.read_at(&mut [], 3).unwrap();
    }

    #[test]
    fn a_new_file_must_be_new_and_the_others_must_exist() {
        let dir = temp_dir();
        create(dir.path(), "a", b"");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let exists = OsDisk.open(&a, OpenMode::CreateNew).unwrap_err();
        assert_eq!(exists.kind(), ErrorKind::AlreadyExists);
        for mode in [OpenMode::Read, OpenMode::Write] {
            let missing = OsDisk.open(&b, mode).unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::NotFound);
        }
        assert!(!b.exists());
    }

    #[test]
    fn preallocating_grows_the_file_and_keeps_its_bytes() {
        let dir = temp_dir();
        let file = create(dir.path(), "a", b"abc");
        file.preallocate(10_000).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        let mut bytes = [9; 6];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"abc\0\0\0");

        file.preallocate(0).unwrap();
        file.preallocate(5).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
    }

    #[cfg(target_os = "linux")] // elsewhere nothing is reserved
    #[test]
    fn a_refused_preallocation_leaves_the_length() {
        let dir = temp_dir();
        let file = create(dir.path(), "a", b"abc");
        match file.preallocate(1 << 62) {
            Err(_) => assert_eq!(file.len().unwrap(), 3),
            Ok(()) => eprintln!("skipped: this file system refuses no length"),
        }
    }

    #[test]
    fn a_map_shows_the_bytes_and_never_goes_beyond_the_file() {
        let dir = temp_dir();
        let file = create(dir.path(), "a", b"abcdef");
        let region = file.map(4).unwrap();
        drop(file);
        assert_eq!(region.slice(0, 4), Some(&b"abcd"[..]));
        assert_eq!(region.slice(0, 5), None);

        let file = OsDisk.open(&dir.path().join("a"), OpenMode::Read).unwrap();
        assert!(file.map(0).unwrap().is_empty());
        let error = file.map(7).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_can_be_cut_and_extended_with_zeros() {
        let dir = temp_dir();
        let file = create(dir.path(), "a", b"abcdef");
        file.set_len(2).unwrap();
        file.set_len(4).unwrap();
        let mut bytes = [9; 4];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"ab\0\0");
    }

    #[test]
    fn names_can_be_listed_renamed_and_removed() {
        let dir = temp_dir();
        create(dir.path(), "a", b"new");
        create(dir.path(), "b", b"old");
        fs::create_dir(dir.path().join("c")).unwrap();
        let entries = OsDisk.list(dir.path()).unwrap();
        let dirs: Vec<_> = entries.iter().filter(|entry| entry.is_dir).collect();
        assert_eq!(dirs.len(), 1);
        assert_eq!(dirs[0].name, "c");

        OsDisk
            .rename(&dir.path().join("a"), &dir.path().join("b"))
            .unwrap();
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"new");
        OsDisk.unlink(&dir.path().join("b")).unwrap();
        OsDisk.sync_dir(dir.path()).unwrap();
        assert_eq!(names(dir.path()), BTreeSet::from(["c".to_owned()]));
    }

    #[test]
    fn a_file_is_replaced_while_others_read_it() {
        let dir = temp_dir();
        let (path, tmp) = (dir.path().join("a"), dir.path().join("a.tmp"));
        let replace = |round: u8| {
            create(dir.path(), "a.tmp", &[round; 100]);
            OsDisk.rename(&tmp, &path).unwrap();
        };
        replace(0);
        std::thread::scope(|scope| {
            let replacer = scope.spawn(|| (0..100).for_each(replace));
            while !replacer.is_finished() {
                let file = OsDisk.open(&path, OpenMode::Read).unwrap();
                let mut bytes = [0; 100];
                file.read_at(&mut bytes, 0).unwrap();
                assert_eq!(bytes, [bytes[0]; 100]);
                // Where a file that is open cannot be replaced, waiting helps only if it is closed
                // now and then.
                drop(file);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }

    #[test]
    fn missing_directories_are_made_with_their_parents() {
        let dir = temp_dir();
        let deep = dir.path().join("a/b/c");
        OsDisk.create_dir(&deep).unwrap();
        OsDisk.create_dir(&deep).unwrap();
        assert!(deep.is_dir());
        OsDisk.create_dir(Path::new(".")).unwrap();
        assert!(OsDisk.create_dir(Path::new("")).is_err());
    }

    #[test]
    fn listing_what_is_no_directory_says_so() {
        let dir = temp_dir();
        create(dir.path(), "a", b"abc");
        let list = |name: &str| OsDisk.list(&dir.path().join(name)).unwrap_err().kind();
        assert_eq!(list("a"), ErrorKind::NotADirectory);
        assert_eq!(list("b"), ErrorKind::NotFound);
    }

    #[test]
    fn a_directory_is_not_made_over_or_under_a_file() {
        let dir = temp_dir();
        create(dir.path(), "a", b"abc");
        for path in ["a", "a/b", "a/b/c"] {
            let error = OsDisk.create_dir(&dir.path().join(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotADirectory, "{path}");
        }
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"abc");
    }

    #[test]
    fn a_second_locker_in_the_same_process_learns_who_has_the_lock() {
        let dir = temp_dir();
        let path = dir.path().join("LOCK");
        fs::write(&path, "a longer text that a dead process left behind").unwrap();
        let _lock = OsDisk.lock(&path, "pid 1 since noon").unwrap();
        assert_eq!(holder_of(OsDisk.lock(&path, "pid 2")), "pid 1 since noon");
        assert_eq!(holder_of(OsDisk.lock(&path, "pid 3")), "pid 1 since noon");
    }

    #[test]
    fn dropping_a_lock_releases_it() {
        let dir = temp_dir();
        let path = dir.path().join("LOCK");
        for holder in ["first", "second"] {
            let lock = OsDisk.lock(&path, holder).unwrap();
            assert_eq!(holder_of(OsDisk.lock(&path, "other")), holder);
            drop(lock);
        }
    }

    #[test]
    fn a_look_says_who_has_the_lock_and_makes_nothing() {
        let dir = temp_dir();
        let path = dir.path().join("LOCK");
        assert_eq!(OsDisk.lock_holder(&path).unwrap(), None);
        assert!(names(dir.path()).is_empty());
        let lock = OsDisk.lock(&path, "pid 1").unwrap();
        assert_eq!(OsDisk.lock_holder(&path).unwrap().unwrap(), "pid 1");
        drop(lock);
        assert_eq!(OsDisk.lock_holder(&path).unwrap(), None);
        let missing = OsDisk.lock_holder(&dir.path().join("missing/LOCK"));
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[cfg(unix)] // Windows does not remove a file that is open
    #[test]
    fn a_look_sees_a_lock_whose_file_was_removed() {
        let dir = temp_dir();
        let path = dir.path().join("LOCK");
        let _lock = OsDisk.lock(&path, "pid 1").unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(OsDisk.lock_holder(&path).unwrap().unwrap(), "");
    }

    #[test]
    fn those_who_look_never_keep_anybody_from_the_lock() {
        use std::sync::atomic::AtomicBool;

        let dir = temp_dir();
        let path = dir.path().join("LOCK");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        OsDisk.lock_holder(&path).unwrap();
                    }
                });
            }
            let taken: Vec<_> = (0..200)
                .map(|_| OsDisk.lock(&path, "pid 1").is_ok())
                .collect();
            done.store(true, Ordering::Relaxed);
            assert_eq!(taken, [true; 200]);
        });
    }

    /// On Windows a lock file cannot be removed while it is held.
    #[cfg(unix)] // Windows does not remove a file that is open
    #[test]
    fn removing_the_lock_file_does_not_give_the_lock_away() {
        let dir = temp_dir();
        let path = dir.path().join("LOCK");
        let lock = OsDisk.lock(&path, "first").unwrap();
        fs::remove_file(&path).unwrap();
        holder_of(OsDisk.lock(&path, "second"));
        drop(lock);

        let _lock = OsDisk.lock(&path, "third").unwrap();
        assert_eq!(holder_of(OsDisk.lock(&path, "fourth")), "third");
    }

    /// What a file system without locks on directories relies on.
    #[cfg(unix)] // Windows does not remove a file that is open
    #[test]
    fn a_lock_file_removed_before_it_was_locked_is_noticed() {
        let dir = temp_dir();
        let path = dir.path().join("LOCK");
        let file = system::open_lock_file(&path).unwrap();
        assert!(system::is_at(&file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!system::is_at(&file, &path).unwrap());
        let _other = system::open_lock_file(&path).unwrap();
        assert!(!system::is_at(&file, &path).unwrap());
    }

    #[test]
    fn locking_in_a_missing_directory_is_an_error() {
        let dir = temp_dir();
        match OsDisk.lock(&dir.path().join("missing/LOCK"), "") {
            Err(LockError::Io(error)) => assert_eq!(error.kind(), ErrorKind::NotFound),
            other => panic!("{other:?}"),
        }
    }

    #[cfg(unix)] // Windows has no directories that are read-only
    #[test]
    fn locking_in_a_read_only_directory_fails_and_makes_nothing() {
        use std::os::unix::fs::PermissionsExt;

        let dir = temp_dir();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
        if File::create(dir.path().join("probe")).is_ok() {
            eprintln!("skipped: permissions do not bind this user");
            return;
        }
        match OsDisk.lock(&dir.path().join("LOCK"), "") {
            Err(LockError::Io(error)) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
            other => panic!("{other:?}"),
        }
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn the_clock_is_in_milliseconds_and_random_numbers_differ() {
        let in_2020_ms = 1_577_836_800_000;
        let in_2100_ms = 4_102_444_800_000;
        assert!((in_2020_ms..in_2100_ms).contains(&OsDisk.now_ms()));

        let random: BTreeSet<u64> = (0..100).map(|_| OsDisk.random_u64()).collect();
        assert_eq!(random.len(), 100);
        let unlikely: BTreeSet<u64> = (0..100).map(|_| unlikely_u64()).collect();
        assert_eq!(unlikely.len(), 100);
    }
}
