//! Read-only followers: a directory as seen beside the live writer that changes it. Nothing is
//! made, changed or removed here, and no lock is taken.
//!
//! Why what is seen is consistent: the manifest is read first, the tail of the active segment
//! last. A merge, before its manifest is committed, writes everything into the log's file that
//! made records of its inputs stale; a segment is complete before the manifest names the next. So
//! whatever the segments of a manifest lack, because it was overwritten or deleted, the tail read
//! after it has. What is seen is the store as it was at the end of that tail: a prefix of the log.
//!
//! Files may be gone that a manifest names, if another one has come since; then it is begun anew
//! with that one. As long as the manifest stays the same, a missing file is damage.
//!
//! Catching up:
//!
//! 1. [`look`](Follower::look) reads the manifest, hint files of segments that are new in it, and
//!    the tail from where it had come to.
//! 2. [`catch_up`](Follower::catch_up) puts new segments into the table and moves the index, see
//!    [`changes`]; then segments that left the manifest leave the table. Their files are the
//!    writer's business.

mod changes;
mod sources;
mod tail;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::directory;
use super::load::{self, Loaded};
use super::sealed::{Opened, Source, encode_hint};
use super::{
    Recovered, RecoveryOptions, RecoveryProgress, RecoveryReport, ScannedSegment, in_parallel,
};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::{SegmentId, SeqNo, names};
use crate::index::{Index, IndexWriter};
use crate::log::{Log, LogOptions, LogParts, SegmentTable, Slot, Usage};
use crate::reclaim::Collector;
use crate::segment::writer::hint_owner;
use crate::sync::{AtomicUsize, Instant, Mutex, Ordering};
use changes::Changes;
use sources::{Known, Sources};
use tail::{Read, Tail};

/// What a follower knows of the directory.
pub(crate) struct Follower<D: Disk> {
    disk: D,
    dir: PathBuf,
    options: LogOptions,
    threads: usize,
    manifest: Manifest,
    sources: Sources<D>,
    /// Every write with a lower sequence number has been applied to the index.
    applied: SeqNo,
    /// Changes of which a part may have been made: they are made again first, should making them
    /// have failed.
    unfinished: Option<Changes>,
}

/// What a look at the directory found.
pub(crate) struct News<D: Disk> {
    manifest: Manifest,
    /// Segments that are sealed and new, or were not sealed before.
    sealed: BTreeMap<SegmentId, Opened<D>>,
    /// The tail, where it is another one than before.
    tail: Option<Tail<D>>,
}

impl<D: Disk> News<D> {
    /// The latest time that the writer has seen.
    pub(crate) fn clock_ms(&self) -> u64 {
        self.manifest.clock_ms
    }
}

/// The segment that is not sealed, and where the manifest says that it ends, if it says so.
fn tail_of(manifest: &Manifest) -> Option<(SegmentId, Option<u64>)> {
    manifest
        .segments
        .iter()
        .find_map(|(id, state)| match *state {
            SegmentState::Active => Some((*id, None)),
            SegmentState::Closed { data_len } => Some((*id, Some(data_len))),
            SegmentState::Sealed { .. } => None,
        })
}

/// A number below which every write is in what the manifest names, or was compacted away. The
/// records alone do not tell: the last ones may be deletions that nobody needs any more.
///
/// While a segment is appended to, the manifest's own number may count what is still in the writer's
/// memory; but all before the segment's base was there when it was begun.
fn given_before<D: Disk>(manifest: &Manifest, tail: Option<&Tail<D>>) -> SeqNo {
    match (tail_of(manifest), tail) {
        (Some((_, None)), Some(tail)) => tail.base_seq(),
        (Some((_, None)), None) => SeqNo(0),
        _ => manifest.next_seq,
    }
}

/// Opens the directory read-only, whether or not somebody writes to it.
pub(crate) fn follow<D: Disk>(
    disk: &D,
    dir: &Path,
    options: &RecoveryOptions<'_>,
) -> Result<Recovered<D>> {
    let started = Instant::now();
    let manifest = directory::enter_read_only(disk, dir)?;
    let mut follower = Follower {
        disk: disk.clone(),
        dir: dir.to_path_buf(),
        options: options.log,
        threads: options.threads,
        manifest: Manifest {
            generation: 0,
            segments: Vec::new(),
            ..manifest
        },
        sources: Sources::default(),
        applied: SeqNo(0),
        unfinished: None,
    };
    let Some(news) = follower.look_with(&|progress| {
        if let Some(tell) = options.progress {
            tell(progress);
        }
    })?
    else {
        unreachable!("every manifest is newer than none");
    };
    let mut recovered = follower.load(news, options)?;
    recovered.report.elapsed = started.elapsed();
    Ok(recovered)
}

impl<D: Disk> Follower<D> {
    /// Reads what is new in the directory; `None` where nothing is.
    ///
    /// # Errors
    ///
    /// When another store, an older copy of it, or none, has taken its place; when a file is
    /// damaged or cannot be read. What was known stays.
    pub(crate) fn look(&mut self) -> Result<Option<News<D>>> {
        self.look_with(&|_| ())
    }

    fn look_with(
        &mut self,
        progress: &(dyn Fn(&RecoveryProgress) + Sync),
    ) -> Result<Option<News<D>>> {
        let mut sealed = BTreeMap::new();
        let mut failed: Option<(u64, Error)> = None;
        loop {
            let manifest = self.read_manifest()?;
            if let Some((generation, error)) = failed.take() {
                if generation == manifest.generation {
                    return Err(error);
                }
            }
            let read = self
                .read_sealed(&manifest, &mut sealed, progress)
                // The tail last: see the head of this file.
                .and_then(|()| self.read_tail(&manifest));
            match read {
                Ok(tail) => {
                    let is_new = manifest.generation != self.manifest.generation;
                    let has_grown = |tail: &Tail<D>| !tail.fresh().is_empty();
                    let has_grown = self.sources.tail().is_some_and(has_grown);
                    let is_new = is_new || tail.is_some() || has_grown;
                    return Ok(is_new.then_some(News {
                        manifest,
                        sealed,
                        tail,
                    }));
                }
                // A merge may have been committed meanwhile, and its inputs removed.
                Err(error) => failed = Some((manifest.generation, error)),
            }
        }
    }

    fn read_manifest(&self) -> Result<Manifest> {
        let manifest = directory::enter_read_only(&self.disk, &self.dir)?;
        let path = self.dir.join(names::MANIFEST);
        if manifest.store != self.manifest.store {
            let reason = format!(
                "the store {} was here when this one was opened",
                self.manifest.store
            );
            return Err(Error::ForeignFile { path, reason });
        }
        if manifest.generation < self.manifest.generation {
            let (now, then) = (manifest.generation, self.manifest.generation);
            let reason = format!("it is older than before: {now} commits, it had been {then}");
            return Err(Error::corrupt(&path, 0, reason));
        }
        Ok(manifest)
    }

    fn source<'a>(&'a self, manifest: &Manifest) -> Source<'a, D> {
        Source {
            disk: &self.disk,
            dir: &self.dir,
            store: manifest.store,
            hasher: manifest.hasher,
            read_mode: self.options.read_mode,
        }
    }

    /// Opens the sealed segments that are not known yet, several at a time, and adds them to
    /// `opened`, which may have some from an attempt before.
    fn read_sealed(
        &self,
        manifest: &Manifest,
        opened: &mut BTreeMap<SegmentId, Opened<D>>,
        tell: &(dyn Fn(&RecoveryProgress) + Sync),
    ) -> Result<()> {
        if manifest.generation == self.manifest.generation {
            return Ok(());
        }
        let sealed = manifest.segments.iter().filter_map(|(id, state)| {
            let SegmentState::Sealed { data_len } = *state else {
                return None;
            };
            (!self.sources.is_known(*id, data_len)).then_some((*id, data_len))
        });
        let wanted: BTreeMap<_, _> = sealed.collect();
        opened.retain(|id, opened| wanted.get(id) == Some(&opened.data_len));
        let missing: Vec<_> = wanted
            .iter()
            .filter(|(id, _)| !opened.contains_key(id))
            .collect();
        let mut progress = RecoveryProgress {
            segments: missing.len(),
            bytes: missing.iter().map(|(_, data_len)| **data_len).sum(),
            ..RecoveryProgress::default()
        };
        tell(&progress);
        let source = self.source(manifest);
        let next = AtomicUsize::new(0);
        let done = Mutex::new((opened, &mut progress));
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(&(id, data_len)) = missing.get(number) else {
                    return Ok(());
                };
                let segment = source.sealed(*id, *data_len)?;
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done.0.insert(*id, segment);
                done.1.segments_done += 1;
                done.1.bytes_done += data_len;
                tell(done.1);
            }
        };
        in_parallel(self.threads.min(missing.len()), work)
    }

    /// Reads the tail on, or another one from its beginning, which it then gives.
    fn read_tail(&mut self, manifest: &Manifest) -> Result<Option<Tail<D>>> {
        let Some((id, limit)) = tail_of(manifest) else {
            return Ok(None);
        };
        if let Some(tail) = self.sources.tail_mut().filter(|tail| tail.id() == id) {
            if tail.read_on(manifest.hasher, limit)? == Read::Everything {
                return Ok(None);
            }
        }
        let source = self.source(manifest);
        Tail::open(&source, id, limit, self.options.segment_size).map(Some)
    }

    /// Fills an empty table and index, all at once.
    fn load(mut self, news: News<D>, options: &RecoveryOptions<'_>) -> Result<Recovered<D>> {
        let News {
            manifest,
            sealed,
            tail,
        } = news;
        let collector = Arc::new(Collector::new());
        let (index, mut index_writer) = Index::new(Arc::clone(&collector));
        let table = SegmentTable::new(Arc::clone(&collector));
        let mut report = RecoveryReport {
            clean: tail_of(&manifest).is_none_or(|(_, limit)| limit.is_some()),
            segments: manifest.segments.len(),
            ..RecoveryReport::default()
        };
        let bytes = sealed.values().map(|opened| opened.data_len).sum();
        let read = RecoveryProgress {
            segments_done: sealed.len(),
            segments: sealed.len(),
            bytes_done: bytes,
            bytes,
            ..RecoveryProgress::default()
        };
        let mut usage: Vec<Option<Usage>> = Vec::new();
        let mut add_usage = |slot: Slot, of: Usage| {
            usage.resize(usage.len().max(slot as usize + 1), None);
            usage[slot as usize] = Some(of);
        };
        let mut loaded = Vec::with_capacity(sealed.len() + 1);
        for (id, opened) in sealed {
            match opened.rebuilt {
                None => report.hints_used += 1,
                Some(rebuilt) => report.scanned.push(ScannedSegment {
                    segment: id,
                    reason: rebuilt.reason,
                }),
            }
            let slot = table.insert(opened.segment)?;
            let hint = opened.hint;
            add_usage(slot, sources::usage_of(id, opened.data_len, &hint));
            loaded.push(Loaded { slot, hint });
        }
        let mut tail_slot = None;
        if let Some(tail) = &tail {
            let segment = tail.reader();
            let footer = tail.fresh().footer_of(tail.bytes());
            let owner = hint_owner(segment.header(), &footer);
            let hint = encode_hint(tail.fresh(), &owner, &segment)?;
            let slot = table.insert(segment)?;
            add_usage(slot, sources::usage_of_tail(tail));
            loaded.push(Loaded { slot, hint });
            tail_slot = Some(slot);
        }
        let applied = loaded.iter().map(|loaded| loaded.hint.next_seq()).max();
        let applied = applied.unwrap_or(SeqNo(0));
        self.applied = applied.max(given_before(&manifest, tail.as_ref()));
        report.records = loaded.iter().map(|loaded| loaded.hint.len() as u64).sum();
        load::load(
            &mut index_writer,
            &table,
            &collector,
            &loaded,
            &mut usage,
            options.threads,
            &options.filling(read, report.records),
        )?;
        report.keys = index.len() as u64;
        for Loaded { slot, hint } in loaded {
            if tail_slot != Some(slot) {
                if let Some(Some(usage)) = usage.get(slot as usize) {
                    let (id, data_len) = (usage.id, usage.data_len);
                    self.sources.add(slot, Known { id, data_len, hint });
                }
            }
        }
        if let (Some(slot), Some(mut tail)) = (tail_slot, tail) {
            tail.settle();
            self.sources.set_tail(slot, tail);
        }
        self.manifest = manifest.clone();
        let log = LogParts {
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            options: options.log,
            table,
            manifest,
            active: None,
            next_seq: self.applied,
            usage,
        };
        Ok(Recovered {
            lock: None,
            collector,
            index,
            index_writer,
            log,
            report,
            follower: Some(self),
        })
    }

    /// Makes table, index and accounting what the news say.
    ///
    /// # Errors
    ///
    /// When a record that must be compared cannot be read. What was not done then is done the
    /// next time; readers see each key in one of the two states.
    pub(crate) fn catch_up(
        &mut self,
        news: Option<News<D>>,
        index: &mut IndexWriter,
        log: &mut Log<D>,
        collector: &Collector,
    ) -> Result<()> {
        if let Some(changes) = &self.unfinished {
            changes.make(&self.sources, self.applied, index, log, collector)?;
            self.finish(log);
        }
        let Some(news) = news else {
            return Ok(());
        };
        let manifest = news.manifest.clone();
        self.unfinished = Some(self.sources.take_in(news, log)?);
        self.manifest = manifest;
        if let Some(changes) = &self.unfinished {
            changes.make(&self.sources, self.applied, index, log, collector)?;
        }
        self.finish(log);
        Ok(())
    }

    /// Whether changes were begun that could not be finished.
    pub(crate) fn is_behind(&self) -> bool {
        self.unfinished.is_some()
    }

    /// The index is what it should be.
    fn finish(&mut self, log: &mut Log<D>) {
        let Some(changes) = self.unfinished.take() else {
            return;
        };
        for slot in changes.leaving() {
            log.let_go(slot);
        }
        let known = given_before(&self.manifest, self.sources.tail());
        self.applied = self.applied.max(self.sources.next_seq(&changes)).max(known);
        self.sources.settle();
        log.follow(&self.manifest, self.applied);
    }
}
