//! The way back: a store made from a checkpoint, by copies that share nothing with it.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::copy;
use super::directory::{check_apart, look, mark_unfinished, refuse};
use crate::disk::{Disk, OpenMode, OsDisk};
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::names::{self, FileName};
use crate::format::segment::FOOTER_LEN;
use crate::format::{SegmentId, SeqNo, StoreId};
use crate::log::manifest_file::{self, CommitError};
use crate::progress::{CopyProgress, Figures, Meter};
use crate::recovery::Source;
use crate::recovery::directory::{check_named, lock, unfinished_checkpoint};
use crate::segment::ReadMode;
use crate::sync::Instant;

/// What a restore did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreReport {
    /// How many segments were copied.
    pub segments: usize,
    /// How many bytes were copied and verified, without hint files.
    pub bytes: u64,
    /// Every write up to this sequence number is in the store, and none after it.
    pub last: SeqNo,
    /// How long it took.
    pub elapsed: Duration,
}

/// Makes a store in `dir`, which is missing or empty, from the checkpoint in `checkpoint`.
///
/// Everything is copied, so that damage to one of them is none to the other, and verified on the
/// way: the header and footer of each segment, and the checksum over all its data. Takes time in
/// proportion to the data, and 1 MiB of memory. The checkpoint is only read, and can lie on
/// read-only media; if it can be locked, it is, so that nobody changes it meanwhile.
///
/// A store that was closed in good order can be restored from as well.
///
/// If it fails or is interrupted, `dir` cannot be opened as a store; running it again, from a
/// checkpoint of the same store, begins anew.
///
/// # Errors
///
/// [`Error::Corrupt`], naming file and offset, when the checkpoint is damaged;
/// [`Error::NotFound`] when there is none; [`Error::Locked`] when either of the two is open;
/// [`Error::ForeignFile`] or [`Error::Checkpoint`] when `dir` is not empty, or the checkpoint is
/// not finished; [`Error::DiskFull`], [`Error::Io`].
///
/// ```
/// use crabkv::Store;
///
/// # let parent = tempfile::tempdir()?;
/// # let (data, backup, again) = (parent.path().join("a"), parent.path().join("b"), parent.path().join("c"));
/// let store = Store::open(&data)?;
/// store.put("key", "value")?;
/// store.checkpoint(&backup)?;
/// store.put("key", "a mistake")?;
///
/// let report = crabkv::restore(&backup, &again)?;
/// assert_eq!(report.segments, 1);
/// assert_eq!(Store::open(&again)?.get("key")?.unwrap(), "value");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn restore(checkpoint: impl AsRef<Path>, dir: impl AsRef<Path>) -> Result<RestoreReport> {
    restore_on(&OsDisk, checkpoint, dir, |_| ControlFlow::Continue(()))
}

/// As [`restore`], on another [`Disk`] than the operating system's, telling `progress` after each
/// segment, and within them after every 1 MiB that was copied. It stops when that says
/// [`ControlFlow::Break`], with `dir` as a failure leaves it: not to be opened as a store, and to be used
/// for another restore from a checkpoint of the same store, which begins anew.
///
/// # Errors
///
/// As [`restore`]; [`Error::Cancelled`] if it was stopped.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use crabkv::disk::OsDisk;
///
/// # let parent = tempfile::tempdir()?;
/// # let (data, backup, again) = (parent.path().join("a"), parent.path().join("b"), parent.path().join("c"));
/// let store = crabkv::Store::open(&data)?;
/// store.put("key", "value")?;
/// store.checkpoint(&backup)?;
///
/// let stopped = crabkv::restore_on(&OsDisk, &backup, &again, |_| ControlFlow::Break(()));
/// assert!(matches!(stopped, Err(crabkv::Error::Cancelled)));
/// assert!(crabkv::Store::open(&again).is_err());
///
/// crabkv::restore_on(&OsDisk, &backup, &again, |progress| {
///     eprintln!("{} of {} bytes", progress.bytes_done, progress.bytes);
///     ControlFlow::Continue(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn restore_on<D: Disk>(
    disk: &D,
    checkpoint: impl AsRef<Path>,
    dir: impl AsRef<Path>,
    mut progress: impl FnMut(&CopyProgress) -> ControlFlow<()>,
) -> Result<RestoreReport> {
    let mut tell = |figures: Figures| progress(&figures.into());
    let mut meter = Meter::new(&mut tell);
    let started = Instant::now();
    let (checkpoint, dir) = (checkpoint.as_ref(), dir.as_ref());
    check_named("checkpoint", checkpoint)?;
    check_named("dir", dir)?;
    check_apart(disk, checkpoint, dir)?;
    let (_kept, manifest) = open_checkpoint(disk, checkpoint)?;
    check_empty(disk, dir, manifest.store)?;
    disk.create_dir(dir)
        .map_err(|e| Error::io("create", dir, e))?;
    let _lock = lock(disk, dir)?;
    let left_over = check_empty(disk, dir, manifest.store)?;
    mark_unfinished(disk, dir, manifest.store)?;
    remove(disk, dir, left_over.iter().map(String::as_str))?;
    let bytes = match copy_all(disk, checkpoint, dir, &manifest, &mut meter) {
        Ok(bytes) => bytes,
        Err(error) => {
            // Room for nothing. What says that the directory is no store stays.
            let _ = remove(disk, dir, names_of(&manifest).iter().map(String::as_str));
            return Err(error);
        }
    };
    manifest_file::commit(disk, dir, &manifest).map_err(|error| match error {
        CommitError::Unchanged(error) | CommitError::Unknown(error) => error,
    })?;
    // With a manifest beside it, it says nothing: a crash before this leaves a whole store.
    remove(disk, dir, [names::CHECKPOINT])?;
    disk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
    Ok(RestoreReport {
        segments: manifest.segments.len(),
        bytes,
        last: SeqNo(manifest.next_seq.0.saturating_sub(1)),
        elapsed: started.elapsed(),
    })
}

/// Reads a checkpoint's manifest, and keeps others from changing it if that is possible.
fn open_checkpoint<D: Disk>(disk: &D, dir: &Path) -> Result<(Option<D::Lock>, Manifest)> {
    // Where there is no lock file none is made, and where it cannot be written, nobody can open
    // the checkpoint as a store.
    let locked = match disk.open(&dir.join(names::LOCK), OpenMode::Read) {
        Ok(_) => match lock(disk, dir) {
            Ok(lock) => Some(lock),
            Err(error @ Error::Locked { .. }) => return Err(error),
            Err(_) => None,
        },
        Err(_) => None,
    };
    let Some(manifest) = manifest_file::read(disk, dir)? else {
        return Err(
            match disk.open(&dir.join(names::CHECKPOINT), OpenMode::Read) {
                Ok(_) => unfinished_checkpoint(disk, dir),
                Err(_) => Error::NotFound {
                    dir: dir.to_path_buf(),
                },
            },
        );
    };
    let is_active = |state: &SegmentState| matches!(state, SegmentState::Active);
    if manifest.segments.iter().any(|(_, state)| is_active(state)) {
        let reason = "it was opened as a store and not closed in good order; open it once, then \
                      restore";
        return Err(refuse(dir, reason));
    }
    Ok((locked, manifest))
}

/// Checks that a directory is empty, or that what is in it was left by a restore, or checkpoint,
/// of this store that was not finished; gives the names of that.
fn check_empty<D: Disk>(disk: &D, dir: &Path, store: StoreId) -> Result<Vec<String>> {
    let found = look(disk, dir, store)?;
    if found.manifest.is_some() {
        let reason = "there is a store already; choose a directory that is empty";
        return Err(refuse(dir, reason));
    }
    // A restore that is interrupted leaves one that names none. This was a checkpoint, or about to be
    // one, and may have been used as a store since.
    if found.mark.is_some_and(|mark| mark.names_any()) {
        let reason = "it was a checkpoint, but its manifest is missing; choose a directory that is \
                      empty";
        return Err(refuse(dir, reason));
    }
    let is_left_over = |name: &String| {
        matches!(
            names::parse(name),
            FileName::Segment(_)
                | FileName::Hint(_)
                | FileName::Torn(_)
                | FileName::ManifestTmp
                | FileName::CheckpointTmp
        )
    };
    Ok(found.names.into_iter().filter(is_left_over).collect())
}

fn copy_all<D: Disk>(
    disk: &D,
    from: &Path,
    to: &Path,
    manifest: &Manifest,
    meter: &mut Meter<'_>,
) -> Result<u64> {
    let source = Source {
        disk,
        dir: from,
        store: manifest.store,
        hasher: manifest.hasher,
        read_mode: ReadMode::Pread,
    };
    let len_of = |state: &SegmentState| match *state {
        SegmentState::Sealed { data_len } => data_len + FOOTER_LEN as u64,
        SegmentState::Closed { data_len } => data_len,
        SegmentState::Active => 0,
    };
    let segments = &manifest.segments;
    let bytes = segments.iter().map(|(_, state)| len_of(state)).sum();
    meter.begin(segments.len(), bytes);
    for (id, state) in segments {
        meter.ask()?;
        match *state {
            SegmentState::Sealed { data_len } => {
                copy::sealed(&source, *id, data_len, to, meter)?;
                // Without its hint file a segment only takes longer to open.
                let _ = copy::hint(disk, from, to, *id);
            }
            SegmentState::Closed { data_len } => {
                copy::closed(&source, *id, data_len, to)?;
            }
            SegmentState::Active => {}
        }
        meter.finish(len_of(state), len_of(state))?;
    }
    Ok(bytes)
}

fn names_of(manifest: &Manifest) -> Vec<String> {
    let of = |id: SegmentId| [names::segment(id), names::hint(id)];
    let segments = manifest.segments.iter();
    segments.flat_map(|(id, _)| of(*id)).collect()
}

/// Removes files that may be there.
fn remove<'n, D: Disk>(
    disk: &D,
    dir: &Path,
    names: impl IntoIterator<Item = &'n str>,
) -> Result<()> {
    for name in names {
        let path = dir.join(name);
        match disk.unlink(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path, e));
            }
            _ => {}
        }
    }
    Ok(())
}
