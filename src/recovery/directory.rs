//! The directory itself: is it a store, is it ours, what in it is left over.

use std::io;
use std::path::Path;

use crate::disk::{DirEntry, Disk, DiskFile, LockError, OpenMode, OsDisk};
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::names::{self, FileName};
use crate::format::segment::{HEADER_LEN, SegmentHeader};
use crate::format::{Invalid, SegmentId};
use crate::log::{checkpoint_file, manifest_file};
use crate::segment::scanner::{self, Check};

/// The files in the directory that are not segments of the manifest.
#[derive(Default)]
pub(crate) struct Leftovers {
    /// Files of interrupted steps: to be removed.
    pub(crate) orphans: Vec<String>,
    /// Files that are not the store's: to be left alone.
    pub(crate) foreign: Vec<String>,
    /// The highest segment id that any file's name has.
    pub(crate) highest_id: Option<SegmentId>,
}

/// Checks that the directory is a store or can become one, changing nothing but that a missing
/// directory is made if `create`; takes the lock; reads the manifest.
pub(crate) fn enter<D: Disk>(
    disk: &D,
    dir: &Path,
    create: bool,
) -> Result<(D::Lock, Option<Manifest>)> {
    match disk.list(dir) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound && create => {
            disk.create_dir(dir)
                .map_err(|e| Error::io("create", dir, e))?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NotFound {
                dir: dir.to_path_buf(),
            });
        }
        Err(e) => return Err(Error::io("open the data directory", dir, e)),
    }
    // Before the lock file is made, so that a directory that is no store is not touched.
    if manifest_file::read(disk, dir)?.is_none() {
        check_free(disk, dir, create)?;
        // Also where it exists: whoever made it may have died before its name was durable, and a
        // power cut would take the whole store.
        disk.create_dir(dir)
            .map_err(|e| Error::io("create", dir, e))?;
    }
    let lock = lock(disk, dir)?;
    // Again, since it may have changed before the lock was taken.
    let manifest = manifest_file::read(disk, dir)?;
    if manifest.is_none() {
        check_free(disk, dir, create)?;
    }
    Ok((lock, manifest))
}

/// Refuses an empty path, which systems take for no directory, or for the current one, and never say
/// which. `option` is what the caller calls it.
pub(crate) fn check_named(option: &'static str, dir: &Path) -> Result<()> {
    if dir.as_os_str().is_empty() {
        return Err(Error::InvalidOption {
            option,
            reason: "the path is empty; name a directory, such as \"data\", or \".\" for the \
                     current one"
                .to_owned(),
        });
    }
    Ok(())
}

/// Takes the directory's lock, without waiting.
pub(crate) fn lock<D: Disk>(disk: &D, dir: &Path) -> Result<D::Lock> {
    let path = dir.join(names::LOCK);
    let holder = format!("process {}", std::process::id());
    disk.lock(&path, &holder).map_err(|e| match e {
        LockError::Held { holder } => Error::Locked {
            dir: dir.to_path_buf(),
            holder,
        },
        LockError::Io(e) => Error::io("lock", &path, e),
    })
}

/// Says who has the store in `dir` open for writing, in the words of [`Error::Locked`]: such as
/// `process 4711`, or an empty text where that cannot be read. `None`: nobody has.
///
/// It is as a moment ago, and may have changed. Nothing is made or changed in the directory, nothing
/// is waited for, and nobody who opens the store meanwhile is refused because of this: to find out,
/// the lock is shared for the time of two system calls, and whoever opens the store waits that long.
///
/// Read-only stores hold no lock, and are not seen. A checkpoint or restore holds the one of the
/// directory that it writes to, a [`repair`](crate::repair()) that of the store that it reads.
///
/// # Errors
///
/// [`Error::NotFound`] when there is no store, not even a damaged one, and nobody is making one;
/// [`Error::Io`] when the directory or the lock cannot be looked at.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::Store::open(dir.path())?;
/// let holder = crabkv::lock_holder(dir.path())?;
/// assert_eq!(holder, Some(format!("process {}", std::process::id())));
/// drop(store);
/// assert_eq!(crabkv::lock_holder(dir.path())?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lock_holder(dir: impl AsRef<Path>) -> Result<Option<String>> {
    lock_holder_on(&OsDisk, dir)
}

/// As [`lock_holder`], on another [`Disk`] than the operating system's: a simulated one, in tests.
///
/// # Errors
///
/// As [`lock_holder`].
pub fn lock_holder_on<D: Disk>(disk: &D, dir: impl AsRef<Path>) -> Result<Option<String>> {
    let dir = dir.as_ref();
    check_named("dir", dir)?;
    let entries = disk.list(dir).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::NotFound {
            dir: dir.to_path_buf(),
        },
        _ => Error::io("open the data directory", dir, e),
    })?;
    let path = dir.join(names::LOCK);
    let holder = disk
        .lock_holder(&path)
        .map_err(|e| Error::io("look at the lock", &path, e))?;
    let is_store = |entry: &DirEntry| {
        let name = names::parse(&entry.name);
        !matches!(name, FileName::Lock | FileName::Foreign)
    };
    if holder.is_none() && !entries.iter().any(is_store) {
        return Err(Error::NotFound {
            dir: dir.to_path_buf(),
        });
    }
    Ok(holder)
}

/// Reads the manifest of a store that may be open elsewhere, touching nothing.
pub(crate) fn enter_read_only<D: Disk>(disk: &D, dir: &Path) -> Result<Manifest> {
    if let Some(manifest) = manifest_file::read(disk, dir)? {
        return Ok(manifest);
    }
    let not_found = Error::NotFound {
        dir: dir.to_path_buf(),
    };
    match disk.list(dir) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(not_found),
        Err(e) => return Err(Error::io("open the data directory", dir, e)),
    }
    check_free(disk, dir, false)?;
    // One that came since it was looked for.
    manifest_file::read(disk, dir)?.ok_or(not_found)
}

/// Checks that a directory without a manifest holds nothing, so that a store can be made in it.
/// If none may be made, it does not matter what else is there.
fn check_free<D: Disk>(disk: &D, dir: &Path, create: bool) -> Result<()> {
    let entries = disk.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let is_mark = |entry: &DirEntry| names::parse(&entry.name) == FileName::Checkpoint;
    if entries.iter().any(is_mark) && manifest_file::read(disk, dir)?.is_none() {
        return Err(unfinished_checkpoint(disk, dir));
    }
    for entry in &entries {
        let path = dir.join(&entry.name);
        match names::parse(&entry.name) {
            FileName::Lock
            | FileName::ManifestTmp
            | FileName::Reserve
            | FileName::Checkpoint
            | FileName::CheckpointTmp => {}
            FileName::Segment(_) | FileName::Hint(_) | FileName::Torn(_) => {
                let reason = "there are segments, but the manifest is missing";
                return Err(Error::corrupt(&dir.join(names::MANIFEST), 0, reason));
            }
            // A manifest that came since it was looked for.
            FileName::Manifest => return Ok(()),
            FileName::Foreign if !create || is_harmless(&entry.name) => {}
            FileName::Foreign => {
                let reason = "a new store needs an empty directory".to_owned();
                return Err(Error::ForeignFile { path, reason });
            }
        }
    }
    if create {
        Ok(())
    } else {
        Err(Error::NotFound {
            dir: dir.to_path_buf(),
        })
    }
}

/// The error for a directory with a checkpoint file and no manifest.
pub(crate) fn unfinished_checkpoint<D: Disk>(disk: &D, dir: &Path) -> Error {
    // With a manifest once named, this may be all that somebody has: a checkpoint that was finished,
    // and may have been used as a store since, whose manifest is lost.
    let reason = match checkpoint_file::read(disk, dir) {
        Ok(Some(mark)) if !mark.names_any() => {
            "a checkpoint or restore into it was not finished; run that again, or remove the \
             directory"
        }
        _ => {
            "its manifest is missing: a checkpoint or restore into it was not finished, or the file \
             was lost; run that again, or repair it into a new directory"
        }
    };
    Error::Checkpoint {
        dir: dir.to_path_buf(),
        reason: reason.to_owned(),
    }
}

/// Names that file systems and desktops put into every directory.
pub(crate) fn is_harmless(name: &str) -> bool {
    name.starts_with('.') || name == "lost+found"
}

/// Sorts out what is in the directory beside the manifest's segments.
///
/// # Errors
///
/// When there is a segment of another store, or one that the manifest is too old to know: removing
/// it as an orphan would destroy somebody's data.
pub(crate) fn leftovers<D: Disk>(disk: &D, dir: &Path, manifest: &Manifest) -> Result<Leftovers> {
    let entries = disk.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let named = |id: SegmentId| manifest.segments.iter().any(|(other, _)| *other == id);
    let mut leftovers = Leftovers::default();
    for entry in entries {
        let name = names::parse(&entry.name);
        if let FileName::Segment(id) | FileName::Hint(id) | FileName::Torn(id) = name {
            leftovers.highest_id = leftovers.highest_id.max(Some(id));
        }
        match name {
            FileName::Segment(id) if !named(id) => {
                check_orphan(disk, dir, &entry.name, manifest)?;
                leftovers.orphans.push(entry.name);
            }
            FileName::Hint(id) if !named(id) => leftovers.orphans.push(entry.name),
            FileName::ManifestTmp | FileName::CheckpointTmp => leftovers.orphans.push(entry.name),
            FileName::Foreign => leftovers.foreign.push(entry.name),
            _ => {}
        }
    }
    leftovers.orphans.sort_unstable();
    leftovers.foreign.sort_unstable();
    Ok(leftovers)
}

/// An orphan is the output of a merge or a rotation that was interrupted, or the input of one that
/// was not: it holds nothing that was written after the manifest. But in a checkpoint that nobody
/// has written to, it can be what the next checkpoint was about to bring.
fn check_orphan<D: Disk>(disk: &D, dir: &Path, name: &str, manifest: &Manifest) -> Result<()> {
    let path = dir.join(name);
    let read = || {
        let file = disk.open(&path, OpenMode::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().map_err(|e| Error::io("read", &path, e))?;
    match SegmentHeader::decode(&bytes) {
        Ok(header) if header.store != manifest.store => {
            let reason = format!("it is a segment of the store {}", header.store);
            Err(Error::ForeignFile { path, reason })
        }
        Ok(header) => {
            let mut is_newer = false;
            let from = HEADER_LEN as u64;
            scanner::scan(&bytes, &header, from, Check::Sealed, |_, record| {
                is_newer |= record.seq(header.base_seq) >= manifest.next_seq;
            });
            if is_newer && !checkpoint_file::is_untouched(disk, dir, manifest) {
                let reason = format!("it is older than {name}, which was written to after it");
                return Err(Error::corrupt(&dir.join(names::MANIFEST), 0, reason));
            }
            Ok(())
        }
        // Torn bytes may say any version.
        Err(reason @ (Invalid::Version(_) | Invalid::Features(_)))
            if SegmentHeader::is_intact(&bytes) =>
        {
            Err(Error::invalid(&path, 0, "segment header", &reason))
        }
        // Too short for a header, or a torn one: a segment that never came to be.
        _ => Ok(()),
    }
}
