//! Verification: is everything as it was written? Reads all of a store's files, changes nothing,
//! takes no lock, and goes on after damage to report all of it.
//!
//! Works beside a writer. What was sealed never changes; a segment may be replaced by a merge,
//! which the manifest then says, and the end of the active one may be in the middle of a write.
//! So what seems damaged is looked at again where another manifest explains it.
//!
//! Files are read into memory one at a time, not mapped: a disk that cannot read some of them is
//! what this is for.

pub(crate) mod bytes;
mod report;
mod segment;

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

pub use report::{Damage, DamageKind, Note, NoteKind, VerifyReport};
pub(crate) use segment::state_by_files;

use crate::disk::{DirEntry, Disk, DiskFile, OpenMode, OsDisk};
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::names::{self, FileName};
use crate::format::segment::{FOOTER_LEN, SegmentHeader};
use crate::format::{Invalid, SegmentId, SeqNo};
use crate::log::{checkpoint_file, manifest_file};
use crate::progress::{Figures, Meter, ScanProgress};
use crate::recovery::directory::{check_named, unfinished_checkpoint};
use crate::segment::salvage::Walk;
use segment::{Checker, Findings};

/// Checks every byte of a store: the checksum of each record, each segment's header and footer, the
/// hint files against their segments, the manifest against the files. Reads the store in full.
///
/// Takes no lock and changes nothing, so a writer may be at work on the same directory; what it
/// writes meanwhile is checked in part. It needs memory for one segment at a time, and 48 bytes for
/// each of its records.
///
/// Damage is in the report, not an error, and does not end the verification. What cannot be told
/// from the outside is said in `docs/RELIABILITY.md`.
///
/// # Errors
///
/// [`Error::NotFound`] where there is no store; [`Error::Checkpoint`] where a checkpoint was not
/// finished, which is none; [`Error::UnsupportedVersion`] and
/// [`Error::UnsupportedFeatures`] for a store of a newer version; [`Error::Io`] when the directory
/// itself cannot be read.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::Store::open(dir.path())?;
/// store.put("key", "value")?;
///
/// let report = crabkv::verify(dir.path())?;
/// assert!(report.is_sound());
/// assert_eq!(report.records, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify(dir: impl AsRef<Path>) -> Result<VerifyReport> {
    verify_on(&OsDisk, dir, |_| ControlFlow::Continue(()))
}

/// As [`verify`], on another disk, telling `progress` after each segment, and within them after every
/// 4 MiB that were read. It stops when that says [`ControlFlow::Break`].
///
/// # Errors
///
/// As [`verify`]; [`Error::Cancelled`] if it was stopped.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # crabkv::Store::open(dir.path())?.put("key", "value")?;
/// use std::ops::ControlFlow;
///
/// use crabkv::disk::OsDisk;
///
/// let mut done = 0;
/// crabkv::verify_on(&OsDisk, dir.path(), |progress| {
///     eprintln!("{} of {} bytes", progress.bytes_done, progress.bytes);
///     done = progress.segments_done;
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(done, 1);
///
/// let stopped = crabkv::verify_on(&OsDisk, dir.path(), |_| ControlFlow::Break(()));
/// assert!(matches!(stopped, Err(crabkv::Error::Cancelled)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify_on<D: Disk>(
    disk: &D,
    dir: impl AsRef<Path>,
    mut progress: impl FnMut(&ScanProgress) -> ControlFlow<()>,
) -> Result<VerifyReport> {
    let mut tell = |figures: Figures| progress(&figures.into());
    verify_telling(disk, dir.as_ref(), &mut Meter::new(&mut tell))
}

pub(crate) fn verify_telling<D: Disk>(
    disk: &D,
    dir: &Path,
    meter: &mut Meter<'_>,
) -> Result<VerifyReport> {
    let started = Instant::now();
    check_named("dir", dir)?;
    let mut verification = Verification {
        disk,
        dir,
        meter,
        report: VerifyReport::default(),
    };
    match find_manifest(disk, dir)? {
        Found::Manifest(manifest) => verification.with(manifest)?,
        Found::Damaged(reason) => verification.without(reason)?,
    }
    let mut report = verification.report;
    report.elapsed = started.elapsed();
    Ok(report)
}

/// What a directory has for a manifest.
pub(crate) enum Found {
    Manifest(Manifest),
    /// It is damaged or missing, but there are segments.
    Damaged(Damage),
}

/// Reads the manifest of what must be a store.
pub(crate) fn find_manifest<D: Disk>(disk: &D, dir: &Path) -> Result<Found> {
    let damaged = |kind, reason: String| Damage {
        file: dir.join(names::MANIFEST),
        offset: 0,
        kind,
        reason,
    };
    match manifest_file::read(disk, dir) {
        Ok(Some(manifest)) => return Ok(Found::Manifest(manifest)),
        Ok(None) => {}
        Err(Error::Corrupt { reason, .. }) => {
            return Ok(Found::Damaged(damaged(DamageKind::Manifest, reason)));
        }
        Err(Error::Io { source, .. }) if source.kind() != io::ErrorKind::NotADirectory => {
            let reason = source.to_string();
            return Ok(Found::Damaged(damaged(DamageKind::Unreadable, reason)));
        }
        Err(error) => return Err(error),
    }
    let entries = disk.list(dir).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::NotFound {
            dir: dir.to_path_buf(),
        },
        _ => Error::io("open the data directory", dir, e),
    })?;
    let is_mark = |entry: &DirEntry| names::parse(&entry.name) == FileName::Checkpoint;
    if entries.iter().any(is_mark) {
        // One that was finished, perhaps, and used as a store since: there is something to save.
        let names_one =
            matches!(checkpoint_file::read(disk, dir), Ok(Some(mark)) if mark.names_any());
        if !names_one {
            return Err(unfinished_checkpoint(disk, dir));
        }
    }
    let is_ours = |name: &str| {
        let name = names::parse(name);
        matches!(
            name,
            FileName::Segment(_) | FileName::Hint(_) | FileName::Torn(_)
        )
    };
    if entries.iter().any(|entry| is_ours(&entry.name)) {
        let reason = "there are segments, but the manifest is missing".to_owned();
        return Ok(Found::Damaged(damaged(DamageKind::Manifest, reason)));
    }
    Err(Error::NotFound {
        dir: dir.to_path_buf(),
    })
}

struct Verification<'a, 'm, D> {
    disk: &'a D,
    dir: &'a Path,
    meter: &'a mut Meter<'m>,
    report: VerifyReport,
}

impl<'a, D: Disk> Verification<'a, '_, D> {
    fn with(&mut self, mut manifest: Manifest) -> Result<()> {
        // Ids ascend, and what a writer adds is higher than all before: none is passed over.
        let mut last = SegmentId(0);
        self.expect(&manifest, last);
        loop {
            let next = manifest.segments.partition_point(|(id, _)| *id <= last);
            let Some(&(id, state)) = manifest.segments.get(next) else {
                break;
            };
            let expected = self.len_of(id, state);
            let checker = self.checker(Some(&manifest));
            let found = checker.check(id, Some(state), self.meter)?;
            if !found.damage.is_empty() {
                // Another manifest may explain it: replaced by a merge, sealed, written on.
                if let Some(newer) = self.newer(&manifest) {
                    let is_as_before = newer.segments.contains(&(id, state));
                    manifest = newer;
                    self.expect(&manifest, last);
                    if !is_as_before {
                        continue;
                    }
                }
            }
            last = id;
            self.take(found, expected)?;
        }
        self.others(manifest)
    }

    /// Tells the meter of the segments after this one.
    fn expect(&mut self, manifest: &Manifest, last: SegmentId) {
        let left = manifest.segments.iter().filter(|(id, _)| *id > last);
        let (mut segments, mut bytes) = (0, 0_u64);
        for &(id, state) in left {
            segments += 1;
            bytes = bytes.saturating_add(self.len_of(id, state));
        }
        self.meter.expect(segments, bytes);
    }

    /// How much of a segment will be read.
    fn len_of(&self, id: SegmentId, state: SegmentState) -> u64 {
        match state {
            SegmentState::Sealed { data_len } => data_len.saturating_add(FOOTER_LEN as u64),
            // To the end of the file, wherever that is now.
            SegmentState::Closed { .. } | SegmentState::Active => self.file_len(id),
        }
    }

    fn file_len(&self, id: SegmentId) -> u64 {
        let path = self.dir.join(names::segment(id));
        let file = self.disk.open(&path, OpenMode::Read);
        file.and_then(|file| file.len()).unwrap_or(0)
    }

    /// The manifest that a writer has put in the place of this one.
    fn newer(&self, manifest: &Manifest) -> Option<Manifest> {
        let newer = manifest_file::read(self.disk, self.dir).ok().flatten()?;
        (newer.generation != manifest.generation).then_some(newer)
    }

    /// Every segment by itself.
    fn without(&mut self, damage: Damage) -> Result<()> {
        self.report.damage.push(damage);
        let mut segments = Vec::new();
        for (name, is_dir) in self.list()? {
            match names::parse(&name) {
                FileName::Segment(id) if !is_dir => segments.push(id),
                FileName::Foreign => self.note(&name, NoteKind::ForeignFile, "not the store's"),
                _ => {}
            }
        }
        segments.sort_unstable();
        let lens: Vec<_> = segments.iter().map(|id| self.file_len(*id)).collect();
        self.meter.expect(segments.len(), lens.iter().sum());
        for (&id, &len) in segments.iter().zip(&lens) {
            let checker = self.checker(None);
            let found = checker.check(id, None, self.meter)?;
            self.take(found, len)?;
        }
        Ok(())
    }

    fn checker(&self, manifest: Option<&Manifest>) -> Checker<'a, D> {
        Checker {
            disk: self.disk,
            dir: self.dir,
            store: manifest.map(|manifest| manifest.store),
            hasher: manifest.map(|manifest| manifest.hasher),
            next_seq: manifest.map(|manifest| manifest.next_seq),
        }
    }

    fn take(&mut self, found: Findings, expected: u64) -> Result<()> {
        let Findings {
            damage,
            notes,
            records,
            bytes,
            hints,
        } = found;
        self.report.damage.extend(damage);
        self.report.notes.extend(notes);
        self.report.records += records;
        self.report.bytes += bytes;
        self.report.hints += hints;
        self.report.segments += 1;
        self.meter.finish(expected, bytes)
    }

    fn list(&self) -> Result<Vec<(String, bool)>> {
        let entries = self.disk.list(self.dir);
        let entries = entries.map_err(|e| Error::io("list", self.dir, e))?;
        let mut entries: Vec<_> = entries
            .into_iter()
            .map(|entry| (entry.name, entry.is_dir))
            .collect();
        entries.sort_unstable();
        Ok(entries)
    }

    fn note(&mut self, name: &str, kind: NoteKind, text: &str) {
        self.report.notes.push(Note {
            file: self.dir.join(name),
            kind,
            text: text.to_owned(),
        });
    }

    /// The files that the manifest does not name.
    fn others(&mut self, manifest: Manifest) -> Result<()> {
        let mut manifest = self.newer(&manifest).unwrap_or(manifest);
        for (name, is_dir) in self.list()? {
            let named = |manifest: &Manifest, id| {
                let found = manifest
                    .segments
                    .binary_search_by_key(&id, |(other, _)| *other);
                found.is_ok()
            };
            let file = if is_dir {
                FileName::Foreign
            } else {
                names::parse(&name)
            };
            match file {
                FileName::Segment(id) if !named(&manifest, id) => {
                    let mut unnamed = self.unnamed(&name, &manifest)?;
                    if unnamed.is_some() {
                        // Begun by a writer since the manifest was read?
                        if let Some(newer) = self.newer(&manifest) {
                            manifest = newer;
                            unnamed = if named(&manifest, id) {
                                None
                            } else {
                                self.unnamed(&name, &manifest)?
                            };
                        }
                    }
                    match unnamed {
                        Some(damage) => self.report.damage.push(damage),
                        None if named(&manifest, id) => {}
                        None => self.note(
                            &name,
                            NoteKind::Orphan,
                            "a segment that is no part of the store",
                        ),
                    }
                }
                FileName::Hint(id) if !named(&manifest, id) => {
                    self.note(
                        &name,
                        NoteKind::Orphan,
                        "a hint file of no segment of the store",
                    );
                }
                FileName::ManifestTmp => {
                    self.note(&name, NoteKind::Orphan, "a manifest that never came to be");
                }
                FileName::CheckpointTmp => {
                    self.note(
                        &name,
                        NoteKind::Orphan,
                        "a copy that a checkpoint never finished",
                    );
                }
                FileName::Torn(_) => {
                    self.note(&name, NoteKind::TornCopy, "a copy of what recovery cut off");
                }
                FileName::Foreign => self.note(&name, NoteKind::ForeignFile, "not the store's"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Why a segment that the manifest does not name is no orphan, as opening sees it.
    fn unnamed(&mut self, name: &str, manifest: &Manifest) -> Result<Option<Damage>> {
        let path = self.dir.join(name);
        let damage = |file: &Path, kind, reason| Damage {
            file: file.to_path_buf(),
            offset: 0,
            kind,
            reason,
        };
        let read = bytes::read_telling(self.disk, &path, u64::MAX, |_| self.meter.ask())?;
        let file = match read {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(None),
            Err(e) => return Ok(Some(damage(&path, DamageKind::Unreadable, e.to_string()))),
        };
        let header = match SegmentHeader::decode(&file.bytes) {
            Ok(header) => header,
            Err(reason @ (Invalid::Version(_) | Invalid::Features(_)))
                if SegmentHeader::is_intact(&file.bytes) =>
            {
                return Err(Error::invalid(&path, 0, "segment header", &reason));
            }
            // A segment that never came to be.
            Err(_) => return Ok(None),
        };
        if header.store != manifest.store {
            let reason = format!("it is a segment of the store {}", header.store);
            return Ok(Some(damage(&path, DamageKind::ForeignSegment, reason)));
        }
        // In a checkpoint that nobody has written to, it is what the next one was about to bring.
        if is_newer(&file.bytes, &header, manifest.next_seq)
            && !checkpoint_file::is_untouched(self.disk, self.dir, manifest)
        {
            let reason = format!("it is older than {name}, which was written to after it");
            let manifest = self.dir.join(names::MANIFEST);
            return Ok(Some(damage(&manifest, DamageKind::Manifest, reason)));
        }
        Ok(None)
    }
}

/// Whether a segment that the manifest does not name holds what was written after the manifest.
pub(crate) fn is_newer(bytes: &[u8], header: &SegmentHeader, next_seq: SeqNo) -> bool {
    let mut is_newer = false;
    Walk::SEALED.run(bytes, header, |_, record| {
        is_newer |= record.seq(header.base_seq) >= next_seq;
    });
    is_newer
}
