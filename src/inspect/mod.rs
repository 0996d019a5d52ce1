//! Inspection: what is in a data directory, as it is on the disk. Takes no lock, changes nothing and
//! builds no index, so it works beside a writer, on a store that nobody has open, and on a damaged
//! one: damage is part of what there is to see.
//!
//! [`Inspector`] is where to begin: the manifest, the segments, the records of one of them, a hint
//! file, and every version of a key that is still there.
//!
//! ```
//! use crabkv::inspect::{Inspector, Item};
//!
//! # let dir = tempfile::tempdir()?;
//! let store = crabkv::Store::open(dir.path())?;
//! store.put("key", "value")?;
//!
//! let inspector = Inspector::open(dir.path())?;
//! for segment in inspector.segments()? {
//!     for item in inspector.records(segment.id)?.into_iter().flatten() {
//!         match item {
//!             Item::Record(record) => assert_eq!(record.key(), b"key"),
//!             other => println!("{other:?}"),
//!         }
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a write-back buffer holds is in the memory of the program that wrote it, and not seen here.

mod hint;
mod history;
mod manifest;
mod record;
mod records;
mod segment;
mod source;
mod view;

use std::path::{Path, PathBuf};

pub use hint::{HintEntry, HintInfo};
pub use history::{History, Version, VersionState};
pub use manifest::{HistoryMarks, ListedSegment, ManifestInfo};
pub use record::{BatchFrame, DamagedRange, Item, Record, RecordInfo, RecordKind};
pub use records::Records;
pub use segment::{FooterInfo, HeaderInfo, HintFile, SegmentInfo};

pub use crate::format::StoreId;
pub use crate::format::manifest::SegmentState;

use crate::disk::{Disk, OsDisk};
use crate::error::{Error, Result};
use crate::format::SegmentId;
use crate::verify::Damage;
use source::{Fault, Source};
use view::View;

/// Looks inside a data directory, without opening the store in it.
///
/// [`manifest`](Inspector::manifest) is what the manifest said when this was opened or
/// [refreshed](Inspector::refresh). All else reads the manifest anew at each call; a segment that a
/// merge replaces meanwhile is no error, the call goes on with what replaced it.
///
/// ```
/// use crabkv::inspect::Inspector;
///
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::Store::open(dir.path())?;
/// store.put("key", "a")?;
/// store.put("key", "b")?;
///
/// let inspector = Inspector::open(dir.path())?;
/// let manifest = inspector.manifest().expect("it is sound");
/// println!("store {}, commit {}", manifest.store, manifest.generation);
///
/// assert_eq!(inspector.segments()?.len(), 1);
/// assert_eq!(inspector.history("key")?.versions.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Inspector<D: Disk = OsDisk> {
    source: Source<D>,
    manifest: Result<ManifestInfo, Damage>,
}

impl Inspector {
    /// Reads the manifest of the store in `dir`.
    ///
    /// Where the manifest is damaged or missing but there are segments, this succeeds:
    /// [`manifest`](Inspector::manifest) says what is wrong, and everything else goes by the segment
    /// files that are there.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] where there is no store; [`Error::Checkpoint`] where a checkpoint was not
    /// finished, which is none; [`Error::UnsupportedVersion`] and [`Error::UnsupportedFeatures`] for
    /// a store of a newer version; [`Error::Io`] when the directory cannot be read.
    ///
    /// ```
    /// use crabkv::{Error, inspect::Inspector};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// assert!(matches!(Inspector::open(dir.path()), Err(Error::NotFound { .. })));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn open(dir: impl AsRef<Path>) -> Result<Inspector> {
        Inspector::open_on(OsDisk, dir)
    }
}

impl<D: Disk> Inspector<D> {
    /// As [`open`](Inspector::open), on another disk.
    ///
    /// # Errors
    ///
    /// As [`open`](Inspector::open).
    ///
    /// ```
    /// use crabkv::{disk::OsDisk, inspect::Inspector};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # drop(crabkv::Store::open(dir.path())?);
    /// let inspector = Inspector::open_on(OsDisk, dir.path())?;
    /// assert_eq!(inspector.dir(), dir.path());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_on(disk: D, dir: impl AsRef<Path>) -> Result<Inspector<D>> {
        let dir = dir.as_ref().to_path_buf();
        let source = Source { disk, dir };
        let manifest = manifest(&source)?;
        Ok(Inspector { source, manifest })
    }

    /// Reads the manifest again, for [`manifest`](Inspector::manifest).
    ///
    /// # Errors
    ///
    /// As [`open`](Inspector::open); what was read before is kept then.
    ///
    /// ```
    /// use crabkv::inspect::Inspector;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("key", "value")?;
    /// let mut inspector = Inspector::open(dir.path())?;
    /// let before = inspector.manifest().expect("it is sound").generation;
    /// store.close()?;
    /// inspector.refresh()?;
    /// assert!(inspector.manifest().expect("it is sound").generation > before);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refresh(&mut self) -> Result<()> {
        self.manifest = manifest(&self.source)?;
        Ok(())
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.source.dir
    }

    /// What the manifest says.
    ///
    /// # Errors
    ///
    /// What is wrong with it, where it is damaged or missing.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # drop(crabkv::Store::open(dir.path())?);
    /// std::fs::write(dir.path().join("000000000001.seg"), "")?;
    /// std::fs::remove_file(dir.path().join("MANIFEST"))?;
    /// let inspector = crabkv::inspect::Inspector::open(dir.path())?;
    /// let damage = inspector.manifest().expect_err("it is missing");
    /// assert!(damage.to_string().contains("MANIFEST at offset 0"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn manifest(&self) -> Result<&ManifestInfo, &Damage> {
        self.manifest.as_ref()
    }

    /// The segments that are the store, in the order of their ids, with their headers, footers and
    /// hint files; without a manifest, the segments that are there.
    ///
    /// Reads a few hundred bytes of each; only without a manifest, each in full. What is damaged in
    /// what it reads is in [`SegmentInfo::damage`]; for the rest there is [`verify`](crate::verify()).
    ///
    /// # Errors
    ///
    /// As [`open`](Inspector::open).
    ///
    /// ```
    /// use crabkv::inspect::{Inspector, SegmentState};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("key", "value")?;
    /// let segments = Inspector::open(dir.path())?.segments()?;
    /// assert_eq!(segments[0].state, Some(SegmentState::Active));
    /// assert!(segments[0].footer.is_none() && segments[0].damage.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn segments(&self) -> Result<Vec<SegmentInfo>> {
        let (_, segments) = view::survey(&self.source, |view, id, state| {
            segment::look(&self.source, view, id, state)
        })?;
        Ok(segments.into_values().collect())
    }

    /// What a segment holds, from front to back: every record, and what is damaged in between.
    /// `None` where there is no such segment. One that the manifest does not name is read as what
    /// its files say it is.
    ///
    /// Reads the segment into memory, in full; it is kept there as long as this or any of the
    /// records lives. A segment has 64 MiB unless the store's options say otherwise.
    ///
    /// # Errors
    ///
    /// As [`open`](Inspector::open); [`Error::Corrupt`] where the manifest names the segment but it
    /// is missing, [`Error::Io`] where its file cannot be opened.
    ///
    /// ```
    /// use crabkv::inspect::{Inspector, Item};
    /// use crabkv::SegmentId;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("key", "value")?;
    /// store.delete("key")?;
    ///
    /// let inspector = Inspector::open(dir.path())?;
    /// let records = inspector.records(SegmentId::new(1))?.expect("the first segment");
    /// let offsets: Vec<_> = records.map(|item| item.offset()).collect();
    /// assert_eq!(offsets, [64, 96]); // the header, and a record of 32 bytes
    /// assert!(inspector.records(SegmentId::new(7))?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn records(&self, id: SegmentId) -> Result<Option<Records>> {
        self.one(id, |view, state| {
            records::load(&self.source, view, id, state)
                .map(|loaded| Records::new(loaded, &self.source.disk))
        })
    }

    /// The record at an offset, as [`records`](Inspector::records) and [`history`](Inspector::history)
    /// give it. `None` where there is no such segment, or not any more. Reads no more than the record.
    ///
    /// # Errors
    ///
    /// As [`records`](Inspector::records); [`Error::Corrupt`] where no sound record begins there.
    ///
    /// ```
    /// use crabkv::inspect::Inspector;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("key", "value")?;
    /// let inspector = Inspector::open(dir.path())?;
    /// let newest = inspector.history("key")?.versions[0];
    /// let record = inspector.record(newest.segment, newest.record.offset)?;
    /// let record = record.expect("nothing has merged it");
    /// assert_eq!(record.value()?.as_deref(), Some(&b"value"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn record(&self, id: SegmentId, offset: u64) -> Result<Option<Record>> {
        self.one(id, |view, state| {
            record::read(&self.source, view, id, state, offset)
        })
    }

    /// A segment's hint file; `None` where it has none, or a writer is about to make it. Reads it into
    /// memory, in full.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where it is damaged, or belongs to another segment or another state of
    /// this one; [`Error::UnsupportedVersion`]; [`Error::Io`].
    ///
    /// ```
    /// use crabkv::inspect::Inspector;
    /// use crabkv::SegmentId;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("key", "value")?;
    /// store.compact()?; // seals the segment
    /// drop(store);
    ///
    /// let inspector = Inspector::open(dir.path())?;
    /// let hint = inspector.hint(SegmentId::new(1))?.expect("it is sealed");
    /// assert_eq!(hint.entries().next().map(|entry| entry.offset), Some(64));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hint(&self, id: SegmentId) -> Result<Option<HintInfo>> {
        hint::read(&self.source, id)
    }

    /// Every version of a key that is still on the disk, newest first: puts and tombstones, those of
    /// batches among them, with where each is and what has become of it.
    ///
    /// Sealed segments are asked through their hint files, and only the records that may be of the
    /// key are read; this takes about 20 ms for each million of records. Segments without a sound
    /// hint file, the active one, and all without a manifest, are read in full, one at a time.
    ///
    /// # Errors
    ///
    /// As [`open`](Inspector::open). Damage that may hide a version is in [`History::damage`].
    ///
    /// ```
    /// use crabkv::inspect::{Inspector, VersionState};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("key", "a")?;
    /// store.put("key", "b")?;
    /// store.delete("key")?;
    ///
    /// let history = Inspector::open(dir.path())?.history("key")?;
    /// let states: Vec<_> = history.versions.iter().map(|version| version.state).collect();
    /// assert_eq!(
    ///     states,
    ///     [VersionState::Deleted, VersionState::Stale, VersionState::Stale]
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn history(&self, key: impl AsRef<[u8]>) -> Result<History> {
        history::of(&self.source, key.as_ref())
    }

    /// Reads of one segment, again where another manifest says that it is another one by now.
    fn one<T>(
        &self,
        id: SegmentId,
        mut read: impl FnMut(&View, Option<SegmentState>) -> Result<T, Fault>,
    ) -> Result<Option<T>> {
        let mut view = View::read(&self.source)?;
        loop {
            let (is_named, state) = view.find(id);
            let fault = match read(&view, state) {
                Ok(read) => return Ok(Some(read)),
                Err(fault) => fault,
            };
            let path: PathBuf = self.source.segment_path(id);
            match fault {
                Fault::Missing => match view.newer(&self.source) {
                    Some(newer) => view = newer,
                    None if !is_named => return Ok(None),
                    None => return Err(Error::corrupt(&path, 0, source::MISSING)),
                },
                Fault::Damaged(damage) => {
                    return Err(Error::corrupt(&path, damage.offset, damage.reason));
                }
                Fault::Failed(error) => return Err(error),
            }
        }
    }
}

fn manifest<D: Disk>(source: &Source<D>) -> Result<Result<ManifestInfo, Damage>> {
    let view = View::read(source)?;
    Ok(view
        .manifest
        .map(|manifest| ManifestInfo::of(&manifest, source.manifest_path())))
}
