//! Recovery: from a directory to a log, an index and a report of what was found.
//!
//! Everything that is read comes before anything that is changed: a store that cannot be opened
//! is left as it was. Recovery may itself be interrupted at any point, and started again.

pub(crate) mod directory;
mod follow;
mod load;
mod report;
mod sealed;
mod tail;

use std::path::Path;
use std::sync::{Arc, PoisonError};

pub use directory::{lock_holder, lock_holder_on};
pub(crate) use follow::{Follower, follow};
pub use report::{RecoveryProgress, RecoveryReport, ScannedSegment, TornTail};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::manifest::{History, Manifest, SegmentState};
use crate::format::segment::FOOTER_LEN;
use crate::format::{KeyHasher, SegmentId, SeqNo, StoreId, names};
use crate::index::{Index, IndexWriter};
use crate::log::manifest_file::{self, CommitError};
use crate::log::{Active, Expiries, LogOptions, LogParts, SegmentTable, Usage};
use crate::reclaim::Collector;
use crate::segment::writer::write_hint;
use crate::sync::{AtomicUsize, Instant, Mutex, Ordering, spawn_scoped, thread};
use load::Loaded;
use sealed::Opened;
pub(crate) use sealed::Source;

/// Called as segments are read.
pub(crate) type ProgressFn = dyn Fn(&RecoveryProgress) + Send + Sync;

/// How to open a directory.
pub(crate) struct RecoveryOptions<'a> {
    pub(crate) log: LogOptions,
    pub(crate) create: bool,
    pub(crate) threads: usize,
    /// How many bits of a key's hash a store made now uses.
    pub(crate) hash_bits: u8,
    pub(crate) progress: Option<&'a ProgressFn>,
}

impl RecoveryOptions<'_> {
    /// What tells how far the index is filled, once all segments have been read.
    fn filling(&self, read: RecoveryProgress, records: u64) -> impl Fn(u64) + Sync {
        let read = RecoveryProgress { records, ..read };
        let progress = self.progress;
        move |records_done| {
            if let Some(tell) = progress {
                tell(&RecoveryProgress {
                    records_done,
                    ..read
                });
            }
        }
    }
}

/// An open store's parts.
pub(crate) struct Recovered<D: Disk> {
    /// None of a store that is only read.
    pub(crate) lock: Option<D::Lock>,
    pub(crate) collector: Arc<Collector>,
    pub(crate) index: Arc<Index>,
    pub(crate) index_writer: IndexWriter,
    pub(crate) log: LogParts<D>,
    pub(crate) report: RecoveryReport,
    /// Of a store that is only read: what it goes on from.
    pub(crate) follower: Option<Follower<D>>,
}

/// A segment in the state that recovery leaves it in.
struct Ready<D: Disk> {
    id: SegmentId,
    opened: Opened<D>,
    /// The writer of a segment that is continued.
    continued: Option<crate::segment::SegmentWriter<D>>,
}

/// What the manifest's segments turned out to be, before anything was changed.
enum Found<D: Disk> {
    Sealed(Opened<D>),
    Continued(tail::Continued<D>),
    Interrupted(tail::Interrupted<D>),
}

/// Opens the directory, making a store in it if there is none and `create` says so.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    dir: &Path,
    options: &RecoveryOptions<'_>,
) -> Result<Recovered<D>> {
    let started = Instant::now();
    let (lock, manifest) = directory::enter(disk, dir, options.create)?;
    let mut report = RecoveryReport {
        clean: true,
        ..RecoveryReport::default()
    };
    report.created = manifest.is_none();
    let mut manifest = match manifest {
        Some(manifest) => manifest,
        None => found_store(disk, dir, options.hash_bits)?,
    };
    // What an older program dropped nobody knows, but that its manifest named a higher sequence
    // number afterwards.
    manifest.history = Some(manifest.history());
    let leftovers = directory::leftovers(disk, dir, &manifest)?;
    let source = Source {
        disk,
        dir,
        store: manifest.store,
        hasher: manifest.hasher,
        read_mode: options.log.read_mode,
    };
    let (found, read) = read_segments(&source, &manifest, options)?;
    // From here on things are changed. First what was read is made durable: a process that died
    // between renaming the manifest and syncing the directory leaves one that a power cut takes
    // back, while the removal of what it does not name could stay.
    disk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
    let mut ready = Vec::with_capacity(found.len());
    let mut changed = false;
    let mut interrupted = None;
    for ((id, _), found) in manifest.segments.iter().zip(found) {
        let (opened, continued) = match found {
            Found::Sealed(opened) => {
                report.hints_used += usize::from(opened.rebuilt.is_none());
                (opened, None)
            }
            Found::Continued(continued) => (continued.opened, Some(continued.writer)),
            Found::Interrupted(found) => {
                interrupted = Some((*id, found));
                continue;
            }
        };
        ready.push(Ready {
            id: *id,
            opened,
            continued,
        });
    }
    // Names that a failed removal left behind are passed over.
    if let Some(highest) = leftovers.highest_id {
        manifest.next_segment = manifest.next_segment.max(highest.next());
    }
    let mut ending = None;
    if let Some((id, found)) = interrupted {
        report.clean = false;
        changed = true;
        let next_seq = found.next_seq(options.log.segment_size);
        manifest.next_seq = manifest.next_seq.max(next_seq);
        report.torn_tail = source.save_torn_tail(&found)?;
        manifest.segments.retain(|(other, _)| *other != id);
        let mut seal = |id, opened: Opened<D>| {
            let data_len = opened.data_len;
            let state = SegmentState::Sealed { data_len };
            ready.push(Ready {
                id,
                opened,
                continued: None,
            });
            (id, state)
        };
        let mut sealed = Vec::new();
        if found.is_unproven() {
            let copy = reserve(&source, &mut manifest, id)?;
            sealed.push(seal(copy, source.copy_unproven(&found, copy)?));
        }
        if let Some((opened, end)) = source.keep_proven(found)? {
            sealed.push(seal(id, opened));
            ending = Some(end);
        }
        manifest.segments.append(&mut sealed);
        manifest.segments.sort_unstable_by_key(|(id, _)| *id);
    }
    mend(&source, &mut ready, &mut report)?;
    if changed {
        manifest.generation = manifest.generation.wrapping_add(1);
        commit(disk, dir, &manifest)?;
    }
    if let Some(ending) = ending {
        source.finish(&ending);
    }
    let leftovers = if changed {
        directory::leftovers(disk, dir, &manifest)?
    } else {
        leftovers
    };
    for name in leftovers.orphans {
        // One that cannot be removed (mapped, on Windows) stays an orphan for the next open.
        if disk.unlink(&dir.join(&name)).is_ok() {
            report.orphans_removed.push(name);
        }
    }
    report.foreign_files = leftovers.foreign;
    let mut recovered = build(disk, dir, options, lock, manifest, (ready, read), report)?;
    recovered.report.elapsed = started.elapsed();
    Ok(recovered)
}

/// Sets an id aside for a copy of the end of the interrupted segment `id`, and tells the manifest
/// the next sequence number: a copy that a crash leaves behind must not look newer than it.
fn reserve<D: Disk>(
    source: &Source<'_, D>,
    manifest: &mut Manifest,
    id: SegmentId,
) -> Result<SegmentId> {
    let what = "segment ids";
    let copy = manifest.take_id().ok_or(Error::Exhausted { what })?;
    manifest.generation = manifest.generation.wrapping_add(1);
    let mut reserved = manifest.clone();
    reserved.segments.push((id, SegmentState::Active));
    reserved.segments.sort_unstable_by_key(|(id, _)| *id);
    commit(source.disk, source.dir, &reserved)?;
    Ok(copy)
}

/// Makes an empty store: a manifest that names no segment.
fn found_store<D: Disk>(disk: &D, dir: &Path, hash_bits: u8) -> Result<Manifest> {
    let mut store = [0; 16];
    let (low, high) = store.split_at_mut(8);
    low.copy_from_slice(&disk.random_u64().to_le_bytes());
    high.copy_from_slice(&disk.random_u64().to_le_bytes());
    let manifest = Manifest {
        store: StoreId(store),
        hasher: KeyHasher::new(disk.random_u64(), hash_bits),
        generation: 1,
        next_segment: SegmentId(1),
        next_seq: SeqNo::FIRST,
        clock_ms: disk.now_ms(),
        history: Some(History::WHOLE),
        segments: Vec::new(),
    };
    commit(disk, dir, &manifest)?;
    Ok(manifest)
}

fn commit<D: Disk>(disk: &D, dir: &Path, manifest: &Manifest) -> Result<()> {
    manifest_file::commit(disk, dir, manifest).map_err(|error| match error {
        CommitError::Unchanged(error) | CommitError::Unknown(error) => error,
    })
}

/// Reads all segments, several at a time; with the last that was told of it.
fn read_segments<D: Disk>(
    source: &Source<'_, D>,
    manifest: &Manifest,
    options: &RecoveryOptions<'_>,
) -> Result<(Vec<Found<D>>, RecoveryProgress)> {
    let segments = &manifest.segments;
    let file_len = |id| {
        let path = source.dir.join(names::segment(id));
        let file = source.disk.open(&path, OpenMode::Read);
        file.and_then(|file| file.len()).unwrap_or(0)
    };
    let lens = segments.iter().map(|(id, state)| match *state {
        SegmentState::Active => file_len(*id),
        SegmentState::Closed { data_len } | SegmentState::Sealed { data_len } => data_len,
    });
    let lens: Vec<u64> = lens.collect();
    let mut progress = RecoveryProgress {
        segments: segments.len(),
        bytes: lens.iter().sum(),
        ..RecoveryProgress::default()
    };
    let tell = |progress: &RecoveryProgress| {
        if let Some(tell) = options.progress {
            tell(progress);
        }
    };
    tell(&progress);
    let next = AtomicUsize::new(0);
    let mut found: Vec<_> = segments.iter().map(|_| None).collect();
    let done = Mutex::new((&mut progress, &mut found));
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((id, state)) = segments.get(number) else {
                return Ok(());
            };
            let read = match *state {
                SegmentState::Sealed { data_len } => {
                    source.sealed(*id, data_len).map(Found::Sealed)
                }
                SegmentState::Closed { data_len } => source
                    .closed(*id, data_len, options.log.segment_size)
                    .map(Found::Continued),
                SegmentState::Active => source.interrupted(*id).map(Found::Interrupted),
            }?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.1[number] = Some(read);
            done.0.segments_done += 1;
            done.0.bytes_done += lens[number];
            tell(done.0);
        }
    };
    let threads = options.threads.min(segments.len());
    in_parallel(threads, work)?;
    Ok((found.into_iter().flatten().collect(), progress))
}

/// Runs `work` on several threads at once, this one among them: where the system refuses others,
/// it does everything. The first failure counts.
fn in_parallel(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    thread::scope(|scope| {
        let spawn = |_| spawn_scoped(scope, work).ok();
        let workers: Vec<_> = (1..threads).map_while(spawn).collect();
        let here = work();
        let ended = workers.into_iter().map(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.fold(here, Result::and)
    })
}

/// Writes the footers and hint files again that a scan made anew.
fn mend<D: Disk>(
    source: &Source<'_, D>,
    ready: &mut [Ready<D>],
    report: &mut RecoveryReport,
) -> Result<()> {
    for Ready { id, opened, .. } in ready {
        let Some(rebuilt) = opened.rebuilt.take() else {
            continue;
        };
        if rebuilt.footer_was_missing {
            let path = opened.segment.path();
            let mend = || {
                let file = source.disk.open(path, OpenMode::Write)?;
                file.write_at(&rebuilt.footer.encode(), rebuilt.footer.data_len)?;
                // On Windows a mapped file cannot be cut; what is behind the footer is ignored.
                let _ = file.set_len(rebuilt.footer.data_len + FOOTER_LEN as u64);
                file.sync_data()
            };
            mend().map_err(|e| Error::io("write the footer of", path, e))?;
        }
        let header = opened.segment.header();
        let (summary, footer) = (&rebuilt.summary, &rebuilt.footer);
        // Without its hint file a segment only takes longer to open.
        let _ = write_hint(source.disk, source.dir, header, summary, footer);
        report.scanned.push(ScannedSegment {
            segment: *id,
            reason: rebuilt.reason,
        });
    }
    Ok(())
}

/// Puts the parts together: table, index, accounting.
fn build<D: Disk>(
    disk: &D,
    dir: &Path,
    options: &RecoveryOptions<'_>,
    lock: D::Lock,
    manifest: Manifest,
    (ready, read): (Vec<Ready<D>>, RecoveryProgress),
    mut report: RecoveryReport,
) -> Result<Recovered<D>> {
    let collector = Arc::new(Collector::new());
    let (index, mut index_writer) = Index::new(Arc::clone(&collector));
    let table = SegmentTable::new(Arc::clone(&collector));
    let mut usage = Vec::new();
    let mut active = None;
    let mut loaded = Vec::with_capacity(ready.len());
    let mut next_seq = manifest.next_seq;
    for Ready {
        id,
        opened,
        continued,
    } in ready
    {
        let Opened {
            segment,
            hint,
            data_len,
            ..
        } = opened;
        report.records += hint.len() as u64;
        next_seq = next_seq.max(hint.next_seq());
        let slot = table.insert(segment)?;
        usage.resize(usage.len().max(slot as usize + 1), None);
        let sealed = continued.is_none();
        usage[slot as usize] = Some(Usage {
            data_len,
            sealed,
            records: hint.len() as u64,
            expiries: Expiries::of(hint.earliest_expiry_ms(), || hint.entries(0..hint.len())),
            next_seq: hint.next_seq(),
            ..Usage::new(id)
        });
        active = active.or(continued.map(|writer| Active {
            writer,
            slot,
            announced: false,
        }));
        loaded.push(Loaded { slot, hint });
    }
    load::load(
        &mut index_writer,
        &table,
        &collector,
        &loaded,
        &mut usage,
        options.threads,
        &options.filling(read, report.records),
    )?;
    report.segments = loaded.len();
    report.keys = index.len() as u64;
    let log = LogParts {
        disk: disk.clone(),
        dir: dir.to_path_buf(),
        options: options.log,
        table,
        manifest,
        active,
        next_seq,
        usage,
    };
    Ok(Recovered {
        lock: Some(lock),
        collector,
        index,
        index_writer,
        log,
        report,
        follower: None,
    })
}
