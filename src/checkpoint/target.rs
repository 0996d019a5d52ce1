//! A checkpoint's directory, from looking at it to the commit.

use std::io;
use std::path::{Path, PathBuf};

use super::copy;
use super::directory::{self, Found, check_apart, refuse};
use super::snapshot::{Part, Snapshot};
use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::checkpoint::{CheckpointMark, ManifestMark};
use crate::format::hash::HASH_BITS;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::names::{self, FileName};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{KeyHasher, SegmentId, StoreId};
use crate::log::checkpoint_file;
use crate::log::manifest_file::{self, CommitError};
use crate::progress::Meter;
use crate::recovery::directory::check_named;
use crate::recovery::{self, Source};
use crate::segment::writer::write_hint;
use crate::segment::{ReadMode, SegmentWriter};

/// How far beyond the store's own ids those of its checkpoints begin: a store that fills a segment
/// every millisecond comes there in 50 days, and by then the numbers in use are drawn at random
/// from as many.
const BEYOND: u64 = 1 << 32;

/// A directory that is, or becomes, a checkpoint of one store; locked.
pub(crate) struct Target<'a, D: Disk> {
    disk: &'a D,
    source: &'a Path,
    dir: &'a Path,
    store: StoreId,
    found: Found,
    _lock: D::Lock,
}

/// What was added to a checkpoint.
#[derive(Clone, Copy, Default)]
pub(crate) struct Added {
    pub(crate) linked: usize,
    pub(crate) copied: usize,
    pub(crate) present: usize,
    pub(crate) bytes_copied: u64,
}

/// Why a checkpoint was not made.
pub(crate) enum Failure {
    /// A file of the snapshot is gone, which happens only if another process is the one that
    /// writes to the store: take another snapshot.
    Gone(PathBuf),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

/// What is to be done for a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Keep,
    Bring,
    /// A file of the same name, which the manifest there does not name, is in the way.
    Replace,
}

/// The bytes that tell a sealed segment from others: its header and its footer.
#[derive(PartialEq, Eq)]
struct Ends {
    header: [u8; HEADER_LEN],
    footer: [u8; FOOTER_LEN],
}

impl<'a, D: Disk> Target<'a, D> {
    /// Makes the directory if it is missing, locks it and looks at what is there.
    ///
    /// # Errors
    ///
    /// When it cannot be a checkpoint of this store, whose directory is `source`; nothing has been
    /// changed then.
    pub(crate) fn enter(
        disk: &'a D,
        source: &'a Path,
        dir: &'a Path,
        store: StoreId,
    ) -> Result<Target<'a, D>> {
        check_named("dir", dir)?;
        check_apart(disk, source, dir)?;
        // Before the lock file is made, so that what cannot be used is not touched.
        check(dir, &directory::look(disk, dir, store)?)?;
        disk.create_dir(dir)
            .map_err(|e| Error::io("create", dir, e))?;
        let lock = recovery::directory::lock(disk, dir)?;
        let found = directory::look(disk, dir, store)?;
        check(dir, &found)?;
        // What was read is made durable before anything is built on it: a manifest that a power
        // cut took back would name files that are removed now.
        disk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
        Ok(Target {
            disk,
            source,
            dir,
            store,
            found,
            _lock: lock,
        })
    }

    /// Makes the directory a checkpoint of this snapshot.
    ///
    /// Cancelled, it leaves what a crash would.
    pub(crate) fn add(
        &self,
        snapshot: &Snapshot<D>,
        meter: &mut Meter<'_>,
    ) -> Result<Added, Failure> {
        let parts = snapshot.sealed.iter().chain(&snapshot.tail);
        meter.begin(parts.clone().count(), parts.map(len_of).sum());
        let old = self.found.manifest.as_ref();
        if old.is_some_and(|old| old.next_seq > snapshot.manifest.next_seq) {
            let reason = "it holds later writes than this store; choose another directory";
            return Err(refuse(self.dir, reason).into());
        }
        let steps = snapshot.sealed.iter().map(|part| {
            meter.ask()?;
            self.step(part)
        });
        let steps: Vec<Step> = steps.collect::<Result<_, Failure>>()?;
        if self.found.mark.is_none() {
            directory::mark_unfinished(self.disk, self.dir, self.store)?;
        }
        let mut added = Added::default();
        for (part, step) in snapshot.sealed.iter().zip(steps) {
            self.bring(&snapshot.manifest, part, step, &mut added, meter)?;
            meter.finish(len_of(part), len_of(part))?;
        }
        let manifest = self.manifest(snapshot, &mut added)?;
        if let Some(tail) = &snapshot.tail {
            meter.finish(len_of(tail), len_of(tail))?;
        }
        if is_planted(Bug::RemoveOldCheckpointFirst) {
            self.remove_unnamed(&manifest);
        }
        self.commit(&manifest)?;
        self.remove_unnamed(&manifest);
        Ok(added)
    }

    /// What is to be done for a sealed segment; changes nothing.
    fn step(&self, part: &Part<D>) -> Result<Step, Failure> {
        let ours = match self.ends(part.path(), part.data_len) {
            Ok(Some(ends)) => ends,
            Ok(None) => return Err(gone(part)),
            Err(error) => return Err(error.into()),
        };
        let damage = |offset, what, reason| Error::invalid(part.path(), offset, what, &reason);
        match SegmentHeader::decode(&ours.header) {
            Ok(header) if header == *part.segment.header() => {}
            Ok(_) => {
                let reason = "this is another segment's header";
                return Err(Error::corrupt(part.path(), 0, reason).into());
            }
            Err(reason) => return Err(damage(0, "segment header", reason).into()),
        }
        // Whoever opens the checkpoint makes a missing footer anew, in the file that is also ours:
        // the same bytes, but it shall not come to that.
        SegmentFooter::decode(&ours.footer, part.data_len)
            .map_err(|reason| damage(part.data_len, "segment footer", reason))?;
        let id = part.segment.id();
        let name = names::segment(id);
        if !self.found.names.contains(&name) {
            return Ok(Step::Bring);
        }
        let path = self.dir.join(name);
        let theirs = self.ends(&path, part.data_len)?;
        if theirs.as_ref() == Some(&ours) {
            return Ok(Step::Keep);
        }
        let is_named = |old: &Manifest| old.segments.iter().any(|(other, _)| *other == id);
        if !self.found.manifest.as_ref().is_some_and(is_named) {
            return Ok(Step::Replace);
        }
        Err(match theirs {
            Some(theirs)
                if SegmentHeader::decode(&theirs.header)
                    .is_ok_and(|header| header.id == id && theirs.header != ours.header) =>
            {
                let reason = format!(
                    "its segment {id} is not the one of this store, they have gone different \
                     ways; choose another directory"
                );
                refuse(self.dir, reason)
            }
            _ => Error::corrupt(
                &path,
                0,
                "its header or footer is not the one that was put there",
            ),
        }
        .into())
    }

    /// The header and footer of the segment at `path`; `None` if there is no such file. What is
    /// beyond the end of the file is zeros, which are no footer.
    fn ends(&self, path: &Path, data_len: u64) -> Result<Option<Ends>> {
        let file = match self.disk.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", path, e)),
        };
        let mut ends = Ends {
            header: [0; HEADER_LEN],
            footer: [0; FOOTER_LEN],
        };
        let read = file
            .read_at(&mut ends.header, 0)
            .and_then(|()| file.read_at(&mut ends.footer, data_len));
        match read {
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(Error::io("read", path, e)),
            _ => Ok(Some(ends)),
        }
    }

    fn bring(
        &self,
        manifest: &Manifest,
        part: &Part<D>,
        step: Step,
        added: &mut Added,
        meter: &mut Meter<'_>,
    ) -> Result<(), Failure> {
        let id = part.segment.id();
        let hint = names::hint(id);
        if step == Step::Replace {
            for name in [&names::segment(id), &hint] {
                let path = self.dir.join(name);
                match self.disk.unlink(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", &path, e).into());
                    }
                    _ => {}
                }
            }
        }
        match step {
            Step::Keep => added.present += 1,
            Step::Bring | Step::Replace => self.bring_segment(manifest, part, added, meter)?,
        }
        if step == Step::Replace || !self.found.names.contains(&hint) {
            self.bring_hint(id);
        }
        Ok(())
    }

    fn bring_segment(
        &self,
        manifest: &Manifest,
        part: &Part<D>,
        added: &mut Added,
        meter: &mut Meter<'_>,
    ) -> Result<(), Failure> {
        let id = part.segment.id();
        let to = self.dir.join(names::segment(id));
        let error = match self.disk.hard_link(part.path(), &to) {
            Ok(()) => {
                added.linked += 1;
                return Ok(());
            }
            Err(e) => e,
        };
        match Error::io("link", &to, error) {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                return Err(gone(part));
            }
            Error::Io { source, .. } if source.kind() != io::ErrorKind::AlreadyExists => {}
            error => return Err(error.into()),
        }
        // Another file system, one without hard links, or too many links already.
        let source = Source {
            disk: self.disk,
            dir: self.source,
            store: self.store,
            hasher: manifest.hasher,
            read_mode: ReadMode::Pread,
        };
        let footer = match copy::sealed(&source, id, part.data_len, self.dir, meter) {
            Ok(footer) => footer,
            Err(error) => {
                let is_there = self.disk.open(part.path(), OpenMode::Read).is_ok();
                return Err(if is_there || !error.is_corruption() {
                    error.into()
                } else {
                    gone(part)
                });
            }
        };
        added.copied += 1;
        added.bytes_copied += footer.data_len + FOOTER_LEN as u64;
        Ok(())
    }

    /// Without its hint file a segment only takes longer to open: what fails here is no failure.
    fn bring_hint(&self, id: SegmentId) {
        let name = names::hint(id);
        let (from, to) = (self.source.join(&name), self.dir.join(&name));
        match self.disk.hard_link(&from, &to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                let _ = copy::hint(self.disk, self.source, self.dir, id);
            }
            _ => {}
        }
    }

    /// The checkpoint's manifest, its tail copied.
    fn manifest(&self, snapshot: &Snapshot<D>, added: &mut Added) -> Result<Manifest> {
        let mut next = snapshot.manifest.clone();
        if let Some(old) = &self.found.manifest {
            next.generation = next.generation.max(old.generation.wrapping_add(1));
            next.clock_ms = next.clock_ms.max(old.clock_ms);
        }
        let beyond = self.beyond(next.next_segment)?;
        next.next_segment = beyond;
        if let Some(tail) = &snapshot.tail {
            let copied = if let Some(copied) = self.tail_there(snapshot, tail)? {
                added.present += 1;
                // A store that is opened here goes on behind it.
                next.next_segment = beyond.max(copied.0.next());
                copied
            } else {
                next.next_segment = beyond.next();
                self.copy_tail(snapshot, tail, beyond, added)?
            };
            next.segments.push(copied);
        }
        next.segments.sort_unstable_by_key(|(id, _)| *id);
        Ok(next)
    }

    /// An id that no file here has, and that the store never comes to: its own segments keep
    /// their ids in all its checkpoints.
    fn beyond(&self, next: SegmentId) -> Result<SegmentId> {
        let what = "segment ids";
        loop {
            let distance = BEYOND + self.disk.random_u64() % BEYOND;
            let id = next.0.checked_add(distance);
            // One more must be possible, too.
            let id = id
                .filter(|id| *id < u64::MAX)
                .ok_or(Error::Exhausted { what })?;
            let id = SegmentId(id);
            if !self.found.names.contains(&names::segment(id)) {
                return Ok(id);
            }
        }
    }

    /// The copy of the tail that the last checkpoint made, if nothing was written since.
    fn tail_there(
        &self,
        snapshot: &Snapshot<D>,
        tail: &Part<D>,
    ) -> Result<Option<(SegmentId, SegmentState)>> {
        let Some(old) = &self.found.manifest else {
            return Ok(None);
        };
        if old.next_seq != snapshot.manifest.next_seq {
            return Ok(None);
        }
        let sealed = &snapshot.manifest.segments;
        for (id, state) in &old.segments {
            let SegmentState::Sealed { data_len } = *state else {
                continue;
            };
            if sealed.iter().any(|(other, _)| other == id) {
                continue;
            }
            let path = self.dir.join(names::segment(*id));
            let ends = self.ends(&path, data_len)?;
            let header = ends.and_then(|ends| SegmentHeader::decode(&ends.header).ok());
            if header.is_some_and(|header| header == header_of_copy(tail, *id)) {
                return Ok(Some((*id, *state)));
            }
        }
        Ok(None)
    }

    /// Copies the durable part of the active segment into a sealed one.
    fn copy_tail(
        &self,
        snapshot: &Snapshot<D>,
        tail: &Part<D>,
        id: SegmentId,
        added: &mut Added,
    ) -> Result<(SegmentId, SegmentState)> {
        let other = tail.segment.header();
        let header = header_of_copy(tail, id);
        let bytes = tail.bytes().unwrap_or_default();
        let from = (other, bytes, HEADER_LEN as u64);
        let mut writer = SegmentWriter::create_copy(self.disk, self.dir, header, from)?;
        let (summary, footer) = writer.seal(snapshot.manifest.hasher)?;
        let _ = write_hint(self.disk, self.dir, &header, &summary, &footer);
        added.copied += 1;
        added.bytes_copied += footer.data_len + FOOTER_LEN as u64;
        let data_len = footer.data_len;
        Ok((id, SegmentState::Sealed { data_len }))
    }

    /// Makes `manifest` the one of the checkpoint.
    fn commit(&self, manifest: &Manifest) -> Result<()> {
        let mark = CheckpointMark {
            store: self.store,
            manifests: [
                self.found.manifest.as_ref().map(ManifestMark::of),
                Some(ManifestMark::of(manifest)),
            ],
        };
        // The commit's first sync of the directory makes its name durable, before the manifest is
        // renamed. Until then the checkpoint file before it names the old manifest.
        checkpoint_file::replace(self.disk, self.dir, &mark)?;
        manifest_file::commit(self.disk, self.dir, manifest).map_err(|error| match error {
            CommitError::Unchanged(error) | CommitError::Unknown(error) => error,
        })
    }

    /// Removes the files that were left behind, or that only the old manifest named. One that
    /// cannot be removed is an orphan: the next checkpoint, or whoever opens this one, removes it.
    fn remove_unnamed(&self, manifest: &Manifest) {
        let is_named = |id: SegmentId| manifest.segments.iter().any(|(other, _)| *other == id);
        for name in &self.found.names {
            let is_left_over = match names::parse(name) {
                FileName::Segment(id) | FileName::Hint(id) => !is_named(id),
                FileName::CheckpointTmp => true,
                _ => false,
            };
            if is_left_over {
                let _ = self.disk.unlink(&self.dir.join(name));
            }
        }
    }
}

/// The header of the copy of a tail. Its salt is made of the tail's own, which is random, and how much
/// of it is copied: so a copy is known again, and never taken for that of another segment. Nothing
/// else would tell, where two stores that were made of one checkpoint have come to the same numbers.
fn header_of_copy<D: Disk>(tail: &Part<D>, id: SegmentId) -> SegmentHeader {
    let other = tail.segment.header();
    SegmentHeader {
        id,
        salt: KeyHasher::new(other.salt, HASH_BITS as u8)
            .hash(&tail.data_len.to_le_bytes())
            .get()
            .wrapping_add(other.salt),
        ..*other
    }
}

/// How many bytes a part takes in a checkpoint.
fn len_of<D: Disk>(part: &Part<D>) -> u64 {
    part.data_len + FOOTER_LEN as u64
}

fn gone<D: Disk>(part: &Part<D>) -> Failure {
    Failure::Gone(part.path().to_path_buf())
}

/// Checks that what is in a directory is a checkpoint, or an unfinished one.
fn check(dir: &Path, found: &Found) -> Result<()> {
    let reason = match (&found.manifest, &found.mark) {
        (Some(_), None) => "it is a store, and not one that a checkpoint made",
        (Some(manifest), Some(mark)) if !mark.names(manifest) => {
            "it has been written to since it was a checkpoint"
        }
        // An update that is interrupted leaves the old manifest. This may have been used as a store.
        (None, Some(mark)) if mark.names_old() => {
            "it was a checkpoint, but its manifest is lost; what is in it can be repaired"
        }
        _ => return Ok(()),
    };
    Err(refuse(dir, format!("{reason}; choose another directory")))
}
