//! Checkpoints of a store that is in use: the moment that one is of.

use std::ops::ControlFlow;
use std::path::Path;

use super::Store;
use super::commit::Lead;
use super::engine::Engine;
use crate::checkpoint::{CheckpointReport, Failure, Part, Snapshot, Target};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::progress::{CopyProgress, Figures, Meter};
use crate::sync::Instant;

impl<D: Disk> Store<D> {
    /// Makes a consistent copy of the store in `dir`, which can be opened as a store of its own,
    /// while reads, writes and compaction go on.
    ///
    /// It holds everything that was written before the call, what waits in a write-back buffer
    /// included, and of what is written meanwhile a part that ends somewhere: every write up to
    /// [`CheckpointReport::last`] and none after it, batches whole or not at all. Everything in it
    /// is durable.
    ///
    /// Sealed segments are hard-linked, so it takes hardly more time or room for much data than
    /// for little: at most one segment is copied, the one that is being written to. Where hard
    /// links are impossible, on another file system, segments are copied and verified. While it
    /// runs, the files of segments that compaction replaces are kept.
    ///
    /// `dir` is missing, empty, or a checkpoint of the same store that nobody has written to. Such
    /// a one is brought up to date: only segments that are new since are linked or copied, and
    /// files that are no longer needed are removed. Until that is done it is the checkpoint that
    /// it was, whatever happens. If the first one into a directory fails or is interrupted, the
    /// directory is no store until this is called again and succeeds.
    ///
    /// A [read-only](crate::CrabKvBuilder::read_only) store makes one, too, of what it sees after
    /// a [`refresh`](Store::refresh), beside the process that writes.
    ///
    /// Segments that are linked share their bytes on the disk with the store: a checkpoint on the
    /// same disk is no protection against the disk's damage. Copy it elsewhere, or have the
    /// checkpoint made on another disk. [`restore`](crate::restore()) is the way back.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] when `dir` is within the store's own directory, or a store, or a
    /// checkpoint of another store, or has been written to, or holds later writes than this store;
    /// [`Error::ForeignFile`] when there are other files in it; [`Error::Locked`] when it is open;
    /// nothing has been changed then. [`Error::Corrupt`] when a segment's header or footer is
    /// damaged, or, where it is copied, its data; [`Error::DiskFull`], [`Error::Io`];
    /// [`Error::Poisoned`] after a failed write, since it is not known what is durable.
    ///
    /// ```
    /// use crabkv::Store;
    ///
    /// # let parent = tempfile::tempdir()?;
    /// # let (data, backup) = (parent.path().join("data"), parent.path().join("backup"));
    /// let store = Store::open(&data)?;
    /// store.put("key", "value")?;
    /// let report = store.checkpoint(&backup)?;
    /// assert_eq!(Some(report.last), store.get("key")?.and_then(|value| value.version()));
    ///
    /// store.put("key", "later")?;
    /// assert_eq!(Store::open(&backup)?.get("key")?.unwrap(), "value");
    ///
    /// // Brings it up to date.
    /// store.checkpoint(&backup)?;
    /// assert_eq!(Store::open(&backup)?.get("key")?.unwrap(), "later");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpoint(&self, dir: impl AsRef<Path>) -> Result<CheckpointReport> {
        self.checkpoint_with(dir, |_| ControlFlow::Continue(()))
    }

    /// As [`checkpoint`](Store::checkpoint), telling `progress` after each segment, and within those
    /// that are copied after every 1 MiB. It stops when that says [`ControlFlow::Break`], and leaves
    /// `dir` as an interruption does: the checkpoint that it was, or no store. Calling this again goes
    /// on from there, and does not link or copy again what it had come to.
    ///
    /// `progress` is called without any lock; it may use the store. In a read-only store it may begin
    /// anew, when the process that writes has compacted something away.
    ///
    /// # Errors
    ///
    /// As [`checkpoint`](Store::checkpoint); [`Error::Cancelled`] if it was stopped.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// # let parent = tempfile::tempdir()?;
    /// # let (data, backup) = (parent.path().join("data"), parent.path().join("backup"));
    /// let store = crabkv::Store::open(&data)?;
    /// store.put("key", "value")?;
    /// let stopped = store.checkpoint_with(&backup, |_| ControlFlow::Break(()));
    /// assert!(matches!(stopped, Err(crabkv::Error::Cancelled)));
    ///
    /// store.checkpoint_with(&backup, |progress| {
    ///     eprintln!("{} of {} segments", progress.segments_done, progress.segments);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpoint_with(
        &self,
        dir: impl AsRef<Path>,
        mut progress: impl FnMut(&CopyProgress) -> ControlFlow<()>,
    ) -> Result<CheckpointReport> {
        let mut tell = |figures: Figures| progress(&figures.into());
        self.engine
            .checkpoint(dir.as_ref(), &mut Meter::new(&mut tell))
    }
}

/// How often a read-only store begins again because a segment was compacted away meanwhile.
const MAX_TRIES: u32 = 100;

/// How often it does because a segment seems damaged.
const MAX_TRIES_IF_DAMAGED: u32 = 3;

impl<D: Disk> Engine<D> {
    fn checkpoint(&self, dir: &Path, meter: &mut Meter<'_>) -> Result<CheckpointReport> {
        let started = Instant::now();
        let store = self.lock_writer().log.manifest().store;
        let target = Target::enter(&self.disk, &self.settings.dir, dir, store)?;
        if !self.settings.read_only {
            self.flush_write_back()?;
        }
        let mut tries = 0;
        let (snapshot, added) = loop {
            let snapshot = self.checkpoint_snapshot()?;
            tries += 1;
            match target.add(&snapshot, meter) {
                Ok(added) => break (snapshot, added),
                // The process that writes has compacted it away; there is a newer manifest.
                Err(Failure::Gone(_)) if self.settings.read_only && tries < MAX_TRIES => {}
                // It may be ending what a crash before it has left.
                Err(Failure::Error(Error::Corrupt { .. }))
                    if self.settings.read_only && tries < MAX_TRIES_IF_DAMAGED => {}
                Err(Failure::Error(error)) => return Err(error),
                // What this process holds, nobody but a stranger removes.
                Err(Failure::Gone(path)) => {
                    let reason = "the manifest names this segment, but it is missing";
                    return Err(Error::corrupt(&path, 0, reason));
                }
            }
        };
        Ok(CheckpointReport {
            segments_linked: added.linked,
            segments_copied: added.copied,
            segments_present: added.present,
            bytes_copied: added.bytes_copied,
            last: snapshot.last(),
            elapsed: started.elapsed(),
        })
    }

    /// The store at this moment. Writers wait for a sync and for as long as it takes to look at
    /// the list of segments.
    fn checkpoint_snapshot(&self) -> Result<Snapshot<D>> {
        let (manifest, sealed, tail) = {
            if self.settings.read_only {
                // What was followed so far is copied, and made durable there.
                self.refresh()?;
            }
            let lead = self.turn.lead();
            if !self.settings.read_only {
                self.commit(&lead)?;
            }
            self.durable_parts(&lead)
        };
        Snapshot::new(manifest, sealed, tail)
    }

    /// Everything that is durable, and visible: with the lead, nobody seals or syncs a segment.
    /// Records that were appended since the last commit are left out: they may yet be taken back,
    /// or lost.
    fn durable_parts(&self, _lead: &Lead<'_>) -> (Manifest, Vec<Part<D>>, Option<Part<D>>) {
        let writer = self.lock_writer();
        let manifest = writer.log.next_manifest(self.clock.now_ms());
        let durable_end = writer.log.durable_end();
        let pin = self.collector.pin();
        let mut sealed = Vec::with_capacity(manifest.segments.len());
        let mut tail = None;
        // What the manifest no longer names is still there while its index entries are moved.
        let is_named = |id| manifest.segments.binary_search_by_key(&id, |named| named.0);
        let usages = writer.log.usages();
        for (slot, usage) in usages.filter(|(_, usage)| is_named(usage.id).is_ok()) {
            let Some(segment) = self.table.get_arc(&pin, slot) else {
                continue;
            };
            if usage.sealed {
                let data_len = usage.data_len;
                sealed.push(Part { segment, data_len });
            } else {
                let data_len = durable_end.unwrap_or(usage.data_len);
                tail = Some(Part { segment, data_len });
            }
        }
        (manifest, sealed, tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;

    #[test]
    fn what_is_appended_and_not_durable_is_not_in_a_snapshot() {
        let disk = SimDisk::new(1);
        let store = Store::builder("/db").build_store_on(disk).unwrap();
        store.put("a", "1").unwrap();
        let engine = &store.engine;
        std::thread::scope(|scope| {
            let lead = engine.turn.lead();
            engine.commit(&lead).unwrap();
            scope.spawn(|| store.put("a", "2").unwrap());
            while engine.lock_writer().pending.len() == 0 {
                std::thread::yield_now();
            }
            let (manifest, sealed, tail) = engine.durable_parts(&lead);
            let snapshot = Snapshot::new(manifest, sealed, tail).unwrap();
            assert_eq!(snapshot.last().get(), 1);
            let tail = snapshot.tail.unwrap();
            // The header, and one record of 16 + 8 + 8 bytes.
            assert_eq!(tail.bytes().unwrap().len(), 64 + 32);
            drop(lead);
        });
        assert_eq!(store.get("a").unwrap().unwrap(), "2");
        assert_eq!(engine.checkpoint_snapshot().unwrap().last().get(), 2);
    }
}
