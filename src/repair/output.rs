//! The new store: sealed segments with their hint files, and last of all the manifest.
//!
//! A crash before that leaves files that are no store. After it, the store is complete.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::manifest::{History, Manifest, SegmentState};
use crate::format::record::{self, Record};
use crate::format::segment::SegmentHeader;
use crate::format::{KeyHash, KeyHasher, SegmentId, SeqNo, StoreId, names};
use crate::log::manifest_file::{self, CommitError};
use crate::recovery::directory::lock;
use crate::segment::SegmentWriter;
use crate::segment::writer::write_hint;

const FIRST_GENERATION: u64 = 1;

/// Writes a store into an empty directory.
pub(super) struct Output<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    store: StoreId,
    hasher: KeyHasher,
    /// Set if the old store's hashes are not known: what its records say of them means nothing.
    collisions: Option<Collisions>,
    /// Set if a record may come twice: from a segment, and from one that it was merged into.
    seen: Option<HashSet<(SeqNo, KeyHash)>>,
    writing: Option<SegmentWriter<D>>,
    segments: Vec<(SegmentId, SegmentState)>,
    next_segment: SegmentId,
    pub(super) next_seq: SeqNo,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// One key of each hash: the others say that they collide with it.
struct Collisions {
    other_hasher: KeyHasher,
    keys: HashMap<KeyHash, KeyHash>,
}

impl Collisions {
    /// Whether another key with this hash came before. Of several keys with one hash, all but one
    /// say so: any two of them at least once, which is what loading an index asks.
    fn are_met(&mut self, hash: KeyHash, key: &[u8]) -> bool {
        let other = self.other_hasher.hash(key);
        *self.keys.entry(hash).or_insert(other) != other
    }
}

impl<'a, D: Disk> Output<'a, D> {
    /// `old_hasher` is what the old store hashed its keys with, if that is known.
    pub(super) fn new(
        disk: &'a D,
        dir: &'a Path,
        old_hasher: Option<KeyHasher>,
        has_copies: bool,
    ) -> Output<'a, D> {
        let mut store = [0; 16];
        let (low, high) = store.split_at_mut(8);
        low.copy_from_slice(&disk.random_u64().to_le_bytes());
        high.copy_from_slice(&disk.random_u64().to_le_bytes());
        let new_hasher = || KeyHasher::new(disk.random_u64(), crate::format::hash::HASH_BITS as u8);
        let hasher = old_hasher.unwrap_or_else(new_hasher);
        Output {
            disk,
            dir,
            store: StoreId(store),
            hasher,
            collisions: old_hasher.is_none().then(|| Collisions {
                other_hasher: new_hasher(),
                keys: HashMap::new(),
            }),
            seen: has_copies.then(HashSet::new),
            writing: None,
            segments: Vec::new(),
            next_segment: SegmentId(1),
            next_seq: SeqNo(1),
            records: 0,
            bytes: 0,
        }
    }

    pub(super) fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    /// Copies a record of the segment with this header, which takes `capacity` bytes at most.
    pub(super) fn copy(
        &mut self,
        from: &SegmentHeader,
        capacity: usize,
        record: &Record<'_>,
    ) -> Result<()> {
        let hash = self.hasher.hash(record.key());
        let seq = record.seq(from.base_seq);
        if self
            .seen
            .as_mut()
            .is_some_and(|seen| !seen.insert((seq, hash)))
        {
            return Ok(());
        }
        if self.writing.is_none() {
            let header = SegmentHeader {
                store: self.store,
                id: self.next_segment,
                base_seq: from.base_seq,
                salt: self.disk.random_u64(),
            };
            self.next_segment = header.id.next();
            self.writing = Some(SegmentWriter::create(
                self.disk, self.dir, header, capacity,
            )?);
        }
        let delta = (seq.0 - from.base_seq.0) as u32;
        let copied = self
            .writing
            .as_mut()
            .and_then(|writer| match &mut self.collisions {
                None => writer.append_copy(record.bytes(), delta),
                Some(collisions) => {
                    let mut bytes = record.bytes().to_vec();
                    record::set_collides(&mut bytes, collisions.are_met(hash, record.key()));
                    writer.append_copy(&bytes, delta)
                }
            });
        copied.ok_or(Error::Exhausted {
            what: "room in a repaired segment",
        })?;
        self.next_seq = self.next_seq.max(SeqNo(seq.0.saturating_add(1)));
        self.records += 1;
        self.bytes += record.len() as u64;
        Ok(())
    }

    /// Ends the segment that is being written, if any: it and its hint file are durable after this,
    /// but for their names.
    pub(super) fn end_segment(&mut self) -> Result<()> {
        let Some(mut writer) = self.writing.take() else {
            return Ok(());
        };
        let id = writer.header().id;
        let (summary, footer) = writer.seal(self.hasher)?;
        write_hint(self.disk, self.dir, writer.header(), &summary, &footer)?;
        let data_len = footer.data_len;
        self.segments.push((id, SegmentState::Sealed { data_len }));
        Ok(())
    }

    /// Makes it a store.
    pub(super) fn commit(&self, clock_ms: u64) -> Result<(), CommitError> {
        let manifest = Manifest {
            store: self.store,
            hasher: self.hasher,
            generation: FIRST_GENERATION,
            next_segment: self.next_segment,
            next_seq: self.next_seq,
            clock_ms,
            // Nobody knows what is lost, but all of it was before this.
            history: Some(History::unknown_below(self.next_seq)),
            segments: self.segments.clone(),
        };
        manifest_file::commit(self.disk, self.dir, &manifest)
    }

    /// Takes back what was committed, as [`discard`](Output::discard) does what was not. If somebody
    /// has the store open, or has written to it, it is theirs and stays.
    pub(super) fn withdraw(self) {
        let Ok(_lock) = lock(self.disk, self.dir) else {
            return;
        };
        let is_ours = |manifest: &Manifest| {
            (manifest.store, manifest.generation) == (self.store, FIRST_GENERATION)
        };
        match manifest_file::read(self.disk, self.dir) {
            Ok(Some(manifest)) if is_ours(&manifest) => {}
            _ => return,
        }
        // First, and durably: without it the segments are no store, whatever a crash leaves of them.
        let gone = self
            .disk
            .unlink(&self.dir.join(names::MANIFEST))
            .and_then(|()| self.disk.sync_dir(self.dir));
        if gone.is_ok() {
            self.discard();
        }
    }

    /// Removes what was written, so that the directory can be used again.
    pub(super) fn discard(mut self) {
        drop(self.writing.take());
        let end = self.next_segment.0;
        for id in (1..end).map(SegmentId) {
            // What cannot be removed is no store, and the user will see it.
            let _ = self.disk.unlink(&self.dir.join(names::segment(id)));
            let _ = self.disk.unlink(&self.dir.join(names::hint(id)));
        }
        let _ = self.disk.unlink(&self.dir.join(names::MANIFEST_TMP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_keys_that_share_a_hash_all_but_the_first_say_so() {
        let hash = KeyHash::new(7);
        let mut collisions = Collisions {
            other_hasher: KeyHasher::new(1, 48),
            keys: HashMap::new(),
        };
        let met =
            ["a", "a", "b", "c", "a", "b"].map(|key| collisions.are_met(hash, key.as_bytes()));
        assert_eq!(met, [false, false, true, true, false, true]);
        assert!(!collisions.are_met(KeyHash::new(8), b"b"));
    }
}
