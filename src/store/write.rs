//! The write path: from an operation to a published record.
//!
//! With every-write sync a record is appended under the writer lock and published by the leader
//! of its group once it is durable ([`super::commit`]). With an interval it is written into the
//! file and published at once, under the same lock.

use super::batch::{self, Ttl, WriteBatch};
use super::engine::{Engine, Writer};
use super::pending::Appended;
use super::read::Hit;
use super::reader::OVERLAPPED;
use super::value::Value;
use crate::bugs::{Bug, is_planted};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::batch::FRAME_OVERHEAD;
use crate::format::record::{self, Kind};
use crate::format::{KeyHash, MAX_BATCH_BYTES, SeqNo, value as codec};
use crate::log::{Entry, LogError, Room};
use crate::reclaim::Pin;
use crate::sync::MutexGuard;

/// A write, its value compressed already if that is worth it.
struct Op<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
    compressed: Option<Vec<u8>>,
    expires_at_ms: Option<u64>,
}

impl AsRef<[u8]> for Op<'_> {
    fn as_ref(&self) -> &[u8] {
        self.key
    }
}

impl Op<'_> {
    /// The value as it is stored.
    fn stored(&self) -> &[u8] {
        let stored = self.compressed.as_deref().or(self.value);
        stored.unwrap_or_default()
    }

    fn entry(&self, hash: KeyHash, collides: bool) -> Entry<'_> {
        Entry {
            kind: if self.value.is_some() {
                Kind::Put
            } else {
                Kind::Tombstone
            },
            key: self.key,
            hash,
            value: self.stored(),
            compressed: self.compressed.is_some(),
            expires_at_ms: self.expires_at_ms,
            collides,
        }
    }

    fn len(&self) -> usize {
        let expires = self.expires_at_ms.is_some();
        record::encoded_len(self.key.len(), self.stored().len(), expires)
    }

    fn room(&self) -> Room {
        Room {
            len: self.len(),
            is_for_deletes: self.value.is_none(),
        }
    }
}

/// What a write that depends on what is there decides to do.
pub(crate) enum Change {
    Nothing,
    Put {
        value: Vec<u8>,
        expires_at_ms: Option<u64>,
    },
    Delete,
}

/// What the writer sees of a key, pending records included.
pub(crate) struct Current<'p, D: Disk> {
    pub(crate) live: Option<Hit<'p, D>>,
    /// Another key with the same hash is live.
    collides: bool,
    /// What is seen is not durable yet: readers do not see it, and it may never have happened.
    is_pending: bool,
}

impl<D: Disk> Engine<D> {
    /// Puts a value, whatever was there.
    pub(crate) fn put(&self, key: &[u8], value: &[u8], ttl: Ttl) -> Result<()> {
        batch::check_key(key)?;
        batch::check_value(value)?;
        if self.is_over(ttl) {
            return self.delete(key).map(drop);
        }
        let expires_at_ms = self.expiry(ttl);
        if let Some(buffer) = &self.write_back {
            self.check_poison()?;
            self.buffer_writes(buffer, std::iter::once((key, Some(value), expires_at_ms)))?;
            return self.flush_if_full(buffer);
        }
        self.write_one(&self.op(key, Some(value), expires_at_ms))
    }

    /// Deletes a key; says whether it was there.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<bool> {
        self.modify(key, |current| match current {
            Some(_) => Ok((Change::Delete, true)),
            None => Ok((Change::Nothing, false)),
        })
    }

    fn write_one(&self, op: &Op<'_>) -> Result<()> {
        let hash = self.hash(op.key);
        // Before the lock, which others wait for. Not pinned while room is made: what compaction
        // gives back would wait for it.
        self.prefetch_record(&self.collector.pin(), hash);
        let mut writer = self.lock_with_room(op.room())?;
        let pin = self.collector.pin();
        let collides = self.current(&pin, &writer, hash, op.key)?.collides;
        drop(pin);
        // On its way from memory while the record goes to the file.
        writer.index.prefetch(hash.into());
        writer.changing = true;
        self.append_one(writer, &op.entry(hash, collides))
    }

    /// Changes a key as `decide` says, which is shown the live value and may be asked again.
    /// Nobody else writes in between.
    pub(crate) fn modify<T>(
        &self,
        key: &[u8],
        mut decide: impl FnMut(Option<&Value>) -> Result<(Change, T)>,
    ) -> Result<T> {
        batch::check_key(key)?;
        if let Some(buffer) = &self.write_back {
            self.check_poison()?;
            return self.modify_buffered(buffer, key, decide);
        }
        let hash = self.hash(key);
        // Room for a tombstone; more is asked for when needed.
        let mut room = Room {
            len: record::encoded_len(key.len(), 0, true),
            is_for_deletes: true,
        };
        loop {
            let mut writer = self.lock_with_room(room)?;
            let pin = self.collector.pin();
            let current = self.current(&pin, &writer, hash, key)?;
            let live = current
                .live
                .as_ref()
                .map(|hit| self.value(hit))
                .transpose()?;
            let (collides, is_pending) = (current.collides, current.is_pending);
            drop(pin);
            let decided = decide(live.as_ref());
            if is_pending && !matches!(&decided, Ok((Change::Put { .. } | Change::Delete, _))) {
                // Nobody may learn of what could still be lost, not by being told that nothing was
                // written because of it either.
                match self.wait_for_pending(writer) {
                    // It has not happened. What is to be done without it?
                    Err(Error::DiskFull { .. }) => continue,
                    settled => settled?,
                }
                return decided.map(|(_, result)| result);
            }
            let (change, result) = decided?;
            let op = match &change {
                Change::Nothing => return Ok(result),
                Change::Put {
                    value,
                    expires_at_ms,
                } => {
                    batch::check_value(value)?;
                    self.op(key, Some(value), *expires_at_ms)
                }
                Change::Delete => self.op(key, None, None),
            };
            if !writer.log.has_room(op.room()) {
                room = op.room();
                continue;
            }
            writer.changing = true;
            self.append_one(writer, &op.entry(hash, collides))?;
            return Ok(result);
        }
    }

    /// Waits until everything that is pending is durable and published.
    fn wait_for_pending(&self, writer: MutexGuard<'_, Writer<D>>) -> Result<()> {
        // Groups are led one after the other: whatever is pending belongs to this one, or to one
        // that is settled before it.
        let group = writer.group.join();
        drop(writer);
        self.wait_for(&group)
    }

    /// Applies a batch: all of it or nothing.
    pub(crate) fn write(&self, batch: &WriteBatch) -> Result<()> {
        if batch.is_empty() {
            return self.check_not_read_only();
        }
        let ops = batch.iter().map(|(key, value, ttl)| {
            let value = value.filter(|_| !self.is_over(ttl));
            (key, value, value.and_then(|_| self.expiry(ttl)))
        });
        if let Some(buffer) = &self.write_back {
            self.check_poison()?;
            self.buffer_writes(buffer, ops)?;
            return self.flush_if_full(buffer);
        }
        self.write_ops(ops)
    }

    /// Writes operations as one frame; a single one needs none.
    pub(crate) fn write_ops<'a>(
        &self,
        ops: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>, Option<u64>)>,
    ) -> Result<()> {
        let ops: Vec<_> = ops
            .map(|(key, value, expiry)| self.op(key, value, expiry))
            .collect();
        if let [op] = &ops[..] {
            return self.write_one(op);
        }
        if is_planted(Bug::SplitBatch) {
            return ops.iter().try_for_each(|op| self.write_one(op));
        }
        let len: usize = ops.iter().map(Op::len).sum();
        if (len + FRAME_OVERHEAD) as u64 > MAX_BATCH_BYTES {
            let len = (len + FRAME_OVERHEAD) as u64;
            return Err(Error::BatchTooLarge {
                len,
                max: MAX_BATCH_BYTES,
            });
        }
        let mut writer = self.lock_with_room(Room {
            len: len + FRAME_OVERHEAD,
            is_for_deletes: ops.iter().all(|op| op.value.is_none()),
        })?;
        let pin = self.collector.pin();
        let mut entries = Vec::with_capacity(ops.len());
        for ops in ops.chunks(OVERLAPPED) {
            let mut chunk = [KeyHash::new(0); OVERLAPPED];
            self.prefetch(&pin, ops, &mut chunk);
            for (op, &hash) in ops.iter().zip(&chunk) {
                let collides = self.current(&pin, &writer, hash, op.key)?.collides;
                entries.push(op.entry(hash, collides));
            }
        }
        if !is_planted(Bug::MissCollisionInBatch) {
            mark_collisions_within(&mut entries);
        }
        drop(pin);
        writer.changing = true;
        let mut records = Vec::with_capacity(entries.len());
        let done = writer.log.append_frame(&entries, len, |entry, placed| {
            records.push(Appended {
                hash: entry.hash,
                placed,
                kind: entry.kind,
            });
        });
        debug_assert!(done.is_some(), "room was made");
        self.finish(writer, &records)
    }

    fn op<'a>(&self, key: &'a [u8], value: Option<&'a [u8]>, expires_at_ms: Option<u64>) -> Op<'a> {
        let compressed = if self.settings.compression {
            value.and_then(codec::compress)
        } else {
            None
        };
        Op {
            key,
            value,
            compressed,
            expires_at_ms,
        }
    }

    /// The writer lock, with room in the active segment.
    fn lock_with_room(&self, room: Room) -> Result<MutexGuard<'_, Writer<D>>> {
        loop {
            let writer = self.lock_writer();
            // Under the lock, so that nothing is appended after a failure.
            self.check_poison()?;
            if writer.log.next_seq() >= SeqNo::END {
                let what = "sequence numbers";
                return Err(Error::Exhausted { what });
            }
            if writer.log.has_room(room) {
                return Ok(writer);
            }
            drop(writer);
            match self.make_room(room) {
                // Once more, but only if compaction has made room.
                Err(Error::DiskFull { .. }) if self.compact_on_full_disk() => {}
                made => made?,
            }
            self.ensure_reserve();
        }
    }

    /// Makes room for a write in the active segment, or in a new one.
    fn make_room(&self, room: Room) -> Result<()> {
        let _lead = self.turn.lead();
        let mut writer = self.lock_writer();
        if writer.log.has_room(room) {
            return Ok(());
        }
        self.check_poison()?;
        writer.changing = true;
        let now_ms = self.clock.now_ms();
        let mut made = writer.log.make_room(room, now_ms);
        let is_full = matches!(&made, Err(LogError::Unchanged(Error::DiskFull { .. })));
        self.reserve.note_full(is_full);
        // Deletes are what makes room: they may have what is kept back for them, and what is left
        // of it, should an earlier delete or a merge have given it back already.
        if is_full && room.is_for_deletes {
            self.release_reserve();
            made = writer.log.make_small_room(room, now_ms);
        }
        writer.changing = false;
        made.map_err(|error| self.log_failed(&mut writer, error))?;
        // Sealing has made everything before durable.
        self.publish_all(&mut writer)
    }

    fn append_one(&self, mut writer: MutexGuard<'_, Writer<D>>, entry: &Entry<'_>) -> Result<()> {
        let placed = writer.log.append(entry);
        debug_assert!(placed.is_some(), "room was made");
        let record = placed.map(|placed| Appended {
            hash: entry.hash,
            placed,
            kind: entry.kind,
        });
        self.finish(writer, record.as_slice())
    }

    /// Brings what was just appended to where the durability asked for is reached.
    fn finish(&self, mut writer: MutexGuard<'_, Writer<D>>, records: &[Appended]) -> Result<()> {
        let compaction_due = writer.log.take_check_due();
        if self.is_interval() {
            let wrote = writer.log.write();
            writer.changing = false;
            match wrote {
                Ok(()) => self.publish_records(&mut writer, records)?,
                Err(error @ Error::DiskFull { .. }) => {
                    return Err(self.take_back(&mut writer, error));
                }
                Err(error) => return Err(self.break_down(&mut writer, error)),
            }
            drop(writer);
        } else {
            for record in records {
                writer.pending.push(*record);
            }
            writer.changing = false;
            let group = writer.group.join();
            drop(writer);
            self.wait_for(&group)?;
        }
        if compaction_due {
            self.compact_soon();
        }
        Ok(())
    }

    /// What the writer sees of a key: the pending records, then the index.
    pub(crate) fn current<'p>(
        &'p self,
        pin: &'p Pin<'_>,
        writer: &Writer<D>,
        hash: KeyHash,
        key: &[u8],
    ) -> Result<Current<'p, D>> {
        let mut collides = false;
        let mut settled = None;
        let mut is_pending = false;
        for pending in writer.pending.of(hash) {
            let hit = self.read(pin, pending.placed.location, false)?;
            if hit.record()?.key() != key {
                collides = true;
            } else if settled.is_none() {
                is_pending = true;
                settled = Some((pending.kind == Kind::Put).then_some(hit));
            }
        }
        let found = writer
            .index
            .find(hash.into(), |candidate| -> Option<Result<()>> {
                let hit = match self.read(pin, candidate.location(), false) {
                    Ok(hit) => hit,
                    Err(error) => return Some(Err(error)),
                };
                let its_key = match hit.record() {
                    Ok(record) => record.key(),
                    Err(error) => return Some(Err(error)),
                };
                let (same, same_hash) = (its_key == key, self.hash(its_key) == hash);
                if same && settled.is_none() {
                    settled = Some(Some(hit));
                }
                collides |= same_hash && !same;
                None
            });
        if let Some(Err(error)) = found {
            return Err(error);
        }
        let live = match settled.flatten() {
            Some(hit) => {
                let expiry = hit.record()?.expires_at_ms();
                (!expiry.is_some_and(|expiry| self.clock.has_passed(expiry))).then_some(hit)
            }
            None => None,
        };
        Ok(Current {
            live,
            collides,
            is_pending,
        })
    }

    /// Points the index at a record, and moves the bytes of the one before from live to stale.
    pub(crate) fn publish_one(
        &self,
        pin: &Pin<'_>,
        writer: &mut Writer<D>,
        &Appended { hash, placed, kind }: &Appended,
    ) -> Result<()> {
        let mut old_len = 0;
        let is_same_key = |location| -> Result<bool> {
            let new = self.read(pin, placed.location, false)?;
            let old = self.read(pin, location, false)?;
            let record = old.record()?;
            old_len = record.len();
            Ok(record.key() == new.record()?.key() || is_planted(Bug::CompareTagsOnly))
        };
        let old = match kind {
            Kind::Put => writer
                .index
                .upsert(hash.into(), placed.location, false, is_same_key)?,
            _ => writer.index.remove(hash.into(), is_same_key)?,
        };
        if let Some(usage) = old.and_then(|old| writer.log.usage_mut(old.segment_slot())) {
            usage.remove_live(old_len);
        }
        if let Some(usage) = writer.log.usage_mut(placed.location.segment_slot()) {
            match kind {
                Kind::Put => usage.add_live(placed.len),
                _ => usage.tombstone_bytes += placed.len as u64,
            }
        }
        Ok(())
    }
}

/// Marks the entries of a batch that share a hash with another key of the same batch.
fn mark_collisions_within(entries: &mut [Entry<'_>]) {
    // Hardly ever are there two the same, and numbers are sorted faster than what they belong to.
    let mut hashes: Vec<_> = entries.iter().map(|entry| entry.hash).collect();
    hashes.sort_unstable();
    if hashes.windows(2).all(|pair| pair[0] != pair[1]) {
        return;
    }
    let mut order: Vec<_> = (0..entries.len()).collect();
    order.sort_unstable_by_key(|&i| entries[i].hash);
    let same_hash = |&a: &usize, &b: &usize| entries[a].hash == entries[b].hash;
    let groups: Vec<_> = order.chunk_by(same_hash).collect();
    for group in groups {
        let first = entries[group[0]].key;
        if group.iter().any(|&i| entries[i].key != first) {
            for &i in group {
                entries[i].collides = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::disk::{FailKind, SimDisk};
    use crate::error::Error;
    use crate::store::Store;

    /// Shuttle found it: told of a conflict with a write that was not durable, a client still got
    /// the value before it; and had that write failed, there would never have been a conflict.
    #[test]
    fn a_write_that_changes_nothing_waits_until_what_it_saw_is_durable() {
        for fails in [false, true] {
            let disk = SimDisk::new(1);
            let store = Store::builder("/db").build_store_on(disk.clone()).unwrap();
            store.put("other", "1").unwrap();
            let engine = &store.engine;
            std::thread::scope(|scope| {
                let lead = engine.turn.lead();
                let first = scope.spawn(|| store.put("key", "first"));
                while engine.lock_writer().pending.len() == 0 {
                    std::thread::yield_now();
                }
                let second = scope.spawn(|| store.put_if_absent("key", "second"));
                while engine.lock_writer().group.writers() < 2 {
                    assert!(!second.is_finished(), "told of what is not durable");
                    std::thread::yield_now();
                }
                if fails {
                    disk.fail_at(0, FailKind::Enospc, true);
                }
                drop(lead);
                let first = first.join().unwrap();
                assert_eq!(matches!(first, Err(Error::DiskFull { .. })), fails);
                assert_eq!(second.join().unwrap().unwrap(), fails);
            });
            let expected = if fails { "second" } else { "first" };
            assert_eq!(store.get("key").unwrap().unwrap(), expected);
        }
    }
}
