//! Repair: everything that is sound of a damaged store, in a new one.
//!
//! The damaged store is only read. Its records are copied as they are, with their sequence numbers
//! and expiries, stale ones too: so the newest of each key that is left is the one that counts, as in
//! any store. What a walk over a segment cannot use is passed over and reported.
//!
//! Two passes: the first finds what is lost, and by the hint files which deletions are among it; the
//! second copies. A disk that gives other bytes the second time loses records, and never a
//! record's integrity: each is verified when it is copied.

mod deletions;
mod header;
mod input;
mod output;
mod plan;
mod report;

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

pub use report::{LostRange, ManifestUse, RepairReport};

use crate::disk::{Disk, DiskFile, LockError, OpenMode, OsDisk};
use crate::error::{Error, Result};
use crate::format::SeqNo;
use crate::format::names::{self, FileName};
use crate::format::record::{Kind, RECORD_HEADER_LEN};
use crate::log::LogOptions;
use crate::log::manifest_file::CommitError;
use crate::progress::{Figures, Meter, ScanProgress};
use crate::recovery::directory::{check_named, is_harmless, lock};
use crate::recovery::{RecoveryOptions, recover};
use crate::segment::ReadMode;
use crate::verify::{Note, NoteKind, verify_telling};
use deletions::Deletions;
use input::{Loaded, Reader};
use output::Output;
use plan::Plan;

/// What is to be saved, where it is a question.
#[derive(Clone, Debug, Default)]
pub struct RepairOptions {
    partial_batches: bool,
}

impl RepairOptions {
    /// The defaults.
    pub fn new() -> RepairOptions {
        RepairOptions::default()
    }

    /// Saves the sound records of a batch of which others are damaged. By default such a batch is
    /// lost as a whole, so that nothing is seen that was never there by itself.
    ///
    /// A flush of the write-back buffer is one batch of up to 8 MiB, whose records have nothing to do
    /// with each other: for a store that was written like that, this saves the most. Records that a
    /// merge has copied belong to no batch any more, and are saved one by one in any case.
    #[must_use]
    pub fn partial_batches(mut self, yes: bool) -> RepairOptions {
        self.partial_batches = yes;
        self
    }
}

/// Saves everything that is sound of the store in `source` into a new one in `out`, which must be
/// missing or empty.
///
/// Nothing in `source` is changed. If it has a lock file, its lock is held for the time, so that
/// nobody writes there. The new store is one of its own: it has another identity; keys, values,
/// expiries and versions (sequence numbers) are as they were. It is verified before this returns.
/// Interrupted, it leaves files that are no store, for the manifest comes last.
///
/// With a sound manifest the segments that it names are read, else all that the directory has.
/// After damage in the middle of a segment, its next sound record is searched, and everything from
/// there on saved. A damaged segment header is made again where the segment's hint file or footer
/// tells enough.
///
/// What is lost is in the report. **A lost deletion can bring back an older value**, where no hint
/// file knows of it: [`RepairReport::deletions_may_be_lost`].
///
/// Needs memory for two segments at a time; the index of the new store; and without a sound
/// manifest about 50 bytes for each record.
///
/// # Errors
///
/// [`Error::NotFound`] if there is nothing to save; [`Error::Checkpoint`] if `source` is a checkpoint
/// or restore that was not finished; [`Error::Locked`] while `source` is open for
/// writing; [`Error::ForeignFile`] if `out` is not empty; [`Error::InvalidOption`] if it is inside
/// `source`; [`Error::UnsupportedVersion`] for a store of a newer version; whatever writing the new
/// store meets, such as [`Error::DiskFull`]: then its files are removed again.
///
/// ```
/// use crabkv::Store;
///
/// # let dir = tempfile::tempdir()?;
/// # let (damaged, fresh) = (dir.path().join("damaged"), dir.path().join("fresh"));
/// # Store::open(&damaged)?.put("key", "value")?;
/// std::fs::remove_file(damaged.join("MANIFEST"))?;
/// assert!(Store::open(&damaged).is_err());
///
/// let report = crabkv::repair(&damaged, &fresh)?;
/// assert_eq!(report.keys, 1);
/// let store = Store::open(&fresh)?;
/// assert_eq!(store.get("key")?.expect("it was saved"), "value");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn repair(source: impl AsRef<Path>, out: impl AsRef<Path>) -> Result<RepairReport> {
    repair_on(&OsDisk, source, out, &RepairOptions::new(), |_| {
        ControlFlow::Continue(())
    })
}

/// As [`repair`], on another disk, with options, telling `progress` after each segment, and within them
/// after every 4 MiB that were read. It stops when that says [`ControlFlow::Break`], and removes what it
/// has written, so that `out` can be used again.
///
/// # Errors
///
/// As [`repair`]; [`Error::Cancelled`] if it was stopped.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use crabkv::RepairOptions;
/// use crabkv::disk::OsDisk;
///
/// # let dir = tempfile::tempdir()?;
/// # let (damaged, fresh) = (dir.path().join("damaged"), dir.path().join("fresh"));
/// # crabkv::Store::open(&damaged)?.put("key", "value")?;
/// let options = RepairOptions::new().partial_batches(true);
/// crabkv::repair_on(&OsDisk, &damaged, &fresh, &options, |progress| {
///     eprintln!("{} of {} bytes", progress.bytes_done, progress.bytes);
///     ControlFlow::Continue(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn repair_on<D: Disk>(
    disk: &D,
    source: impl AsRef<Path>,
    out: impl AsRef<Path>,
    options: &RepairOptions,
    mut progress: impl FnMut(&ScanProgress) -> ControlFlow<()>,
) -> Result<RepairReport> {
    let started = Instant::now();
    let (source, out) = (source.as_ref(), out.as_ref());
    check_named("source", source)?;
    check_named("out", out)?;
    let canonical = |dir: &Path| {
        disk.canonical(dir)
            .map_err(|e| Error::io("find the directory", dir, e))
    };
    if canonical(out)?.starts_with(canonical(source)?) {
        return Err(Error::InvalidOption {
            option: "out",
            reason: "the new store must be outside the damaged one".to_owned(),
        });
    }
    let _source_lock = lock_source(disk, source)?;
    let mut tell = |figures: Figures| progress(&figures.into());
    let mut meter = Meter::new(&mut tell);
    let plan = plan::make(disk, source, &mut meter)?;
    check_empty(disk, out)?;
    let out_lock = lock(disk, out)?;
    let reader = Reader {
        disk,
        dir: source,
        store: plan.store,
        takes_partial_batches: options.partial_batches,
    };
    let has_copies = plan.manifest != ManifestUse::Sound;
    let mut output = Output::new(disk, out, plan.hasher, has_copies);
    let clock_ms = plan.clock_ms.max(disk.now_ms());
    let saved = save(&reader, plan, clock_ms, &mut output, &mut meter);
    // A crash up to here leaves segments without a manifest, which are no store.
    let committed = saved.map_err(CommitError::Unchanged).and_then(|report| {
        output.commit(clock_ms)?;
        Ok(report)
    });
    let mut report = match committed {
        Ok(report) => report,
        Err(CommitError::Unchanged(error)) => {
            output.discard();
            return Err(error);
        }
        // The manifest may be there and name the segments.
        Err(CommitError::Unknown(error)) => return Err(error),
    };
    drop(out_lock);
    let proved = prove(disk, out, &mut report, &mut meter);
    if matches!(proved, Err(Error::Cancelled)) {
        output.withdraw();
    }
    proved?;
    report.elapsed = started.elapsed();
    Ok(report)
}

/// Copies everything that is sound.
fn save<D: Disk>(
    reader: &Reader<'_, D>,
    plan: Plan,
    clock_ms: u64,
    output: &mut Output<'_, D>,
    meter: &mut Meter<'_>,
) -> Result<RepairReport> {
    let mut deletions = Deletions::new(clock_ms);
    let mut lost_before = 0;
    // Twice here, and what is written once.
    let bytes: u64 = plan.inputs.iter().map(|input| input.file_len).sum();
    meter.expect(3 * plan.inputs.len(), bytes.saturating_mul(3));
    for input in &plan.inputs {
        let loaded = reader.load(input, meter)?;
        meter.finish(input.file_len, loaded.file_len)?;
        let rest = loaded.walk(reader.takes_partial_batches, |_, _| ());
        deletions.add(&rest);
        lost_before += rest.lost.len();
    }
    let knows_deletions = plan.hasher.is_some() && plan.manifest == ManifestUse::Sound;
    let mut report = RepairReport {
        manifest: plan.manifest,
        segments: plan.inputs.len(),
        records: 0,
        keys: 0,
        bytes: 0,
        lost: Vec::new(),
        older_values: 0,
        deletions_may_be_lost: !knows_deletions,
        warnings: Vec::new(),
        notes: plan.notes,
        elapsed: std::time::Duration::ZERO,
    };
    let mut most_unknown = 0;
    for input in &plan.inputs {
        let loaded = reader.load(input, meter)?;
        let kept = plan.hasher.is_some().then_some(&mut deletions);
        copy(reader, &loaded, output, kept, &mut report)?;
        most_unknown = most_unknown.max(loaded.file_len);
        meter.finish(input.file_len, loaded.file_len)?;
    }
    // A disk that reads otherwise the second time has lost what nobody has looked at.
    report.deletions_may_be_lost |= deletions.may_be_lost || report.lost.len() != lost_before;
    report.older_values = if plan.hasher.is_some() {
        deletions.older_values()
    } else {
        0
    };
    report.records = output.records;
    report.bytes = output.bytes;
    // Versions of lost writes, which somebody may have seen, are not given again.
    let lost_bytes: u64 = report.lost.iter().map(|lost| lost.len).sum();
    let unknown = lost_bytes.saturating_add(most_unknown) / RECORD_HEADER_LEN as u64;
    let next_seq = output.next_seq.max(plan.next_seq);
    output.next_seq = SeqNo(next_seq.0.saturating_add(unknown));
    warn(&mut report);
    Ok(report)
}

fn copy<D: Disk>(
    reader: &Reader<'_, D>,
    loaded: &Loaded,
    output: &mut Output<'_, D>,
    mut deletions: Option<&mut Deletions>,
    report: &mut RepairReport,
) -> Result<()> {
    let mut result = Ok(());
    let rest = loaded.walk(reader.takes_partial_batches, |_, record| {
        let (Ok(()), Some(header)) = (&result, loaded.header()) else {
            return;
        };
        let hash = output.hasher().hash(record.key());
        let seq = record.seq(header.base_seq);
        let is_value = record.kind() == Kind::Put;
        let keeps = match &mut deletions {
            Some(deletions) => deletions.keeps(hash, seq, is_value),
            None => true,
        };
        if keeps {
            result = output.copy(header, loaded.capacity(), &record);
        }
    });
    result?;
    output.end_segment()?;
    report.lost.extend(rest.lost);
    if let Some(text) = rest.torn {
        report.notes.push(Note {
            file: loaded.path.clone(),
            kind: NoteKind::TornTail,
            text,
        });
    }
    if loaded.header_was_rebuilt {
        let path = loaded.path.display();
        report
            .warnings
            .push(format!("the header of {path} was damaged, and made again"));
    }
    Ok(())
}

fn warn(report: &mut RepairReport) {
    let mut warn = |text: &str| report.warnings.push(text.to_owned());
    match &report.manifest {
        ManifestUse::Sound => {}
        ManifestUse::Outdated { .. } => warn(
            "the manifest was older than the segments: all segments in the directory were read, those \
             that had been replaced too",
        ),
        ManifestUse::Rebuilt { .. } => warn(
            "there was no sound manifest: all segments in the directory were read, those that had been \
             replaced too",
        ),
    }
    if report.deletions_may_be_lost {
        warn(
            "keys that had been deleted, or had expired, may be back with an older value; nothing that \
             is left says which",
        );
    }
    if report.older_values > 0 {
        let keys = report.older_values;
        warn(&format!(
            "about {keys} keys have an older value: the newer one is lost"
        ));
    }
}

/// Opens the new store, as its users will, and verifies it.
fn prove<D: Disk>(
    disk: &D,
    out: &Path,
    report: &mut RepairReport,
    meter: &mut Meter<'_>,
) -> Result<()> {
    let recovery = RecoveryOptions {
        log: LogOptions {
            // Nothing is written.
            segment_size: 0,
            read_mode: ReadMode::Mmap,
        },
        create: false,
        threads: 1,
        hash_bits: 0,
        progress: None,
    };
    report.keys = recover(disk, out, &recovery)?.report.keys;
    let verified = verify_telling(disk, out, meter)?;
    match verified.damage.into_iter().next() {
        Some(damage) => Err(Error::Corrupt {
            file: damage.file,
            offset: damage.offset,
            reason: format!("the new store is damaged: {}", damage.reason),
        }),
        None => Ok(()),
    }
}

/// Takes the lock of the store that is repaired, if it has a lock file and the file system lets us.
fn lock_source<D: Disk>(disk: &D, dir: &Path) -> Result<Option<D::Lock>> {
    let path = dir.join(names::LOCK);
    // None is made: this may be a copy for evidence, or on a disk that cannot be written.
    let Ok(file) = disk.open(&path, OpenMode::Read) else {
        return Ok(None);
    };
    let len = file.len().unwrap_or(0);
    let mut text = vec![0; usize::try_from(len).unwrap_or(0).min(4096)];
    let read = file.read_at(&mut text, 0);
    drop(file);
    // Taking it writes who has it. What stands there is written again, so nothing changes.
    let holder = match read {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    };
    match disk.lock(&path, &holder) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held { holder }) => Err(Error::Locked {
            dir: dir.to_path_buf(),
            holder,
        }),
        Err(LockError::Io(_)) => Ok(None),
    }
}

/// Makes the directory, or checks that nothing is in it.
fn check_empty<D: Disk>(disk: &D, dir: &Path) -> Result<()> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(Error::io("open the new directory", dir, e)),
    };
    for entry in entries {
        if names::parse(&entry.name) != FileName::Lock && !is_harmless(&entry.name) {
            return Err(Error::ForeignFile {
                path: dir.join(&entry.name),
                reason: "what is repaired needs an empty directory".to_owned(),
            });
        }
    }
    disk.create_dir(dir)
        .map_err(|e| Error::io("create", dir, e))
}

impl fmt::Display for ManifestUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestUse::Sound => f.write_str("sound"),
            ManifestUse::Outdated { reason } => write!(f, "outdated: {reason}"),
            ManifestUse::Rebuilt { reason } => write!(f, "rebuilt: {reason}"),
        }
    }
}
