//! The read path: key to record, and record to value.
//!
//! Hash, one line of the index, one record. No lock is taken; without expiry, compression and
//! `pread` nothing is computed, copied or counted beyond a checksum the first time.

use std::sync::Arc;

use super::Verify;
use super::engine::Engine;
use super::value::Value;
use super::write_back::Buffered;
use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, Region};
use crate::error::Result;
use crate::format::record::{self, Record};
use crate::format::{KeyHash, SeqNo, value as codec};
use crate::index::{Candidate, Location};
use crate::reclaim::{Held, Pin};
use crate::segment::Segment;

/// A record that was looked for, where it was found.
pub(crate) struct Hit<'p, D: Disk> {
    pub(crate) segment: &'p Segment<D>,
    pub(crate) offset: u64,
    pub(crate) bytes: HitBytes<'p>,
}

pub(crate) enum HitBytes<'p> {
    InPlace {
        region: &'p Arc<Region>,
        record: Record<'p>,
    },
    Copied(Vec<u8>),
}

/// What a look along the straight path gave.
pub(crate) enum Straight<R> {
    Found(R),
    Absent,
    /// Something on the way needs more than that: ask [`Engine::find_hashed`].
    Detour,
}

impl<'p, D: Disk> Hit<'p, D> {
    /// The record; its lengths were checked when it was found.
    pub(crate) fn record(&self) -> Result<Record<'_>> {
        match &self.bytes {
            HitBytes::InPlace { record, .. } => Ok(*record),
            HitBytes::Copied(bytes) => {
                Record::parse(bytes).map_err(|e| self.segment.damage(self.offset, &e))
            }
        }
    }

    /// The value, if it can be borrowed as it lies.
    #[inline]
    pub(crate) fn borrowed(&self) -> Option<&'p [u8]> {
        match &self.bytes {
            HitBytes::InPlace { record, .. } if !record.is_compressed() => Some(record.value()),
            _ => None,
        }
    }
}

impl<D: Disk> Engine<D> {
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        self.hasher.hash(key)
    }

    /// Looks for a key whose record is as most are: in place, verified, neither compressed nor
    /// about to expire. `give` makes the result of it.
    ///
    /// What it comes across otherwise is a detour, in a function of its own: how many lookups the
    /// processor has under way at a time is decided by how little there is to do for each.
    #[inline]
    pub(crate) fn find_straight<'p, R>(
        &'p self,
        pin: &'p Pin<'_>,
        hash: KeyHash,
        key: &[u8],
        give: impl Fn(Held<'p, Region>, Location, &'p [u8]) -> R,
    ) -> Straight<R> {
        let Some(candidate) = self.index.first(pin, hash.into()) else {
            return Straight::Absent;
        };
        let location = candidate.location();
        let region = self.table.region(pin, location.segment_slot());
        let (Some(region), true) = (region, candidate.is_trusted(self.straight)) else {
            return Straight::Detour;
        };
        let value_at = record::plain_value_offset(key.len());
        let bytes = region
            .get()
            .tail_at_hand(location.offset() as usize, value_at);
        match bytes.and_then(|bytes| record::plain_value(key, bytes)) {
            Some(value) => Straight::Found(give(region, location, value)),
            None => Straight::Detour,
        }
    }

    #[inline(never)]
    pub(crate) fn find_hashed<'p>(
        &'p self,
        pin: &'p Pin<'_>,
        hash: KeyHash,
        key: &[u8],
    ) -> Result<Option<Hit<'p, D>>> {
        let found = self.index.find(pin, hash.into(), |candidate| {
            self.read_candidate(pin, &candidate, key).transpose()
        });
        match found.transpose()? {
            Some(hit) if self.has_expired(&hit)? => Ok(None),
            found => Ok(found),
        }
    }

    /// The candidate's record, if it has this key.
    #[inline]
    fn read_candidate<'p>(
        &'p self,
        pin: &'p Pin<'_>,
        candidate: &Candidate<'_>,
        key: &[u8],
    ) -> Result<Option<Hit<'p, D>>> {
        let verify = !candidate.is_trusted(self.trust) && !is_planted(Bug::SkipFirstVerification);
        // Before the keys are compared: a damaged key must not pass for another one.
        let hit = self.read(pin, candidate.location(), verify)?;
        if verify && self.verify == Verify::FirstRead {
            candidate.mark_verified();
        }
        let same = match &hit.bytes {
            HitBytes::InPlace { record, .. } => record.key() == key,
            HitBytes::Copied(_) => hit.record()?.key() == key,
        };
        Ok(same.then_some(hit))
    }

    /// The record at a location that the index gave under this pin.
    #[inline]
    pub(crate) fn read<'p>(
        &'p self,
        pin: &'p Pin<'_>,
        location: Location,
        verify: bool,
    ) -> Result<Hit<'p, D>> {
        let segment = self.table.get(pin, location.segment_slot());
        let segment =
            segment.unwrap_or_else(|| unreachable!("the index names a segment of the table"));
        record_at(segment, location.offset(), verify)
    }

    #[inline]
    fn has_expired(&self, hit: &Hit<'_, D>) -> Result<bool> {
        let expiry = match &hit.bytes {
            HitBytes::InPlace { record, .. } => record.expires_at_ms(),
            HitBytes::Copied(_) => hit.record()?.expires_at_ms(),
        };
        Ok(expiry.is_some_and(|expiry| self.clock.has_passed(expiry)))
    }

    /// The value of a hit, as a guard of its own.
    #[inline]
    pub(crate) fn value(&self, hit: &Hit<'_, D>) -> Result<Value> {
        if let HitBytes::InPlace { region, record } = &hit.bytes {
            if !record.is_compressed() {
                return Ok(value_in_place(region, hit.offset, record));
            }
        }
        let record = hit.record()?;
        let version = record.seq(hit.segment.header().base_seq);
        let bytes = self.owned_value(hit)?;
        Ok(Value::owned(bytes, Some(version), record.expires_at_ms()))
    }

    /// The live value of a key in the log.
    pub(crate) fn get_in_log(&self, key: &[u8]) -> Result<Option<Value>> {
        let pin = self.collector.pin();
        let hit = self.find_hashed(&pin, self.hash(key), key)?;
        hit.map(|hit| self.value(&hit)).transpose()
    }

    /// The live value of a key, in the write-back buffer or else in the log.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        let hash = self.hash(key);
        // A detour pins for itself: a pin that no other function is told of stays in registers.
        match self.look_straight(&self.collector.pin(), hash, key) {
            Straight::Found(value) => Ok(Some(value)),
            Straight::Absent if self.write_back.is_none() => Ok(None),
            _ => self.get_by_detour(hash, key),
        }
    }

    /// As [`get`](Engine::get), where there is a pin already.
    #[inline]
    pub(crate) fn get_hashed(
        &self,
        pin: &Pin<'_>,
        hash: KeyHash,
        key: &[u8],
    ) -> Result<Option<Value>> {
        match self.look_straight(pin, hash, key) {
            Straight::Found(value) => Ok(Some(value)),
            Straight::Absent if self.write_back.is_none() => Ok(None),
            _ => self.get_by_detour(hash, key),
        }
    }

    #[inline]
    fn look_straight(&self, pin: &Pin<'_>, hash: KeyHash, key: &[u8]) -> Straight<Value> {
        self.find_straight(pin, hash, key, |region, location, value| {
            let value_at = record::plain_value_offset(key.len());
            Value::in_place(region.share(), location.offset(), value_at, value.len())
        })
    }

    #[inline(never)]
    fn get_by_detour(&self, hash: KeyHash, key: &[u8]) -> Result<Option<Value>> {
        if let Some(write) = self.buffered(key) {
            return Ok(self.buffered_value(write));
        }
        let pin = self.collector.pin();
        let hit = self.find_hashed(&pin, hash, key)?;
        hit.map(|hit| self.value(&hit)).transpose()
    }

    /// What waits in the write-back buffer for this key.
    pub(crate) fn buffered(&self, key: &[u8]) -> Option<Buffered> {
        self.write_back.as_ref().and_then(|buffer| buffer.get(key))
    }

    /// The value of a hit in memory of its own, through the cache if there is one.
    pub(crate) fn owned_value(&self, hit: &Hit<'_, D>) -> Result<Arc<[u8]>> {
        match &self.cache {
            Some(cache) => {
                let record = hit.record()?;
                let seq = if is_planted(Bug::CacheByKey) {
                    SeqNo(self.hash(record.key()).get())
                } else {
                    record.seq(hit.segment.header().base_seq)
                };
                cache.get_or_make(seq, || make_value(hit))
            }
            None => make_value(hit),
        }
    }
}

/// The record at an offset of a segment.
#[inline]
pub(crate) fn record_at<D: Disk>(
    segment: &Segment<D>,
    offset: u64,
    verify: bool,
) -> Result<Hit<'_, D>> {
    let bytes = match segment.region() {
        Some(region) => {
            let record = segment.record_in(region, offset)?;
            HitBytes::InPlace { region, record }
        }
        None => HitBytes::Copied(segment.copy_record(offset)?),
    };
    let hit = Hit {
        segment,
        offset,
        bytes,
    };
    if verify && !hit.record()?.is_valid(segment.checksum_seed(), offset) {
        return Err(segment.damage(offset, &crate::format::Invalid::Checksum));
    }
    Ok(hit)
}

/// The value of a hit, made anew if it cannot be lent: for those who read everything once, and
/// would only drive out of the cache what is worth keeping there.
pub(crate) fn value_of<D: Disk>(hit: &Hit<'_, D>) -> Result<Value> {
    match &hit.bytes {
        HitBytes::InPlace { region, record } if !record.is_compressed() => {
            Ok(value_in_place(region, hit.offset, record))
        }
        _ => {
            let record = hit.record()?;
            let version = record.seq(hit.segment.header().base_seq);
            let bytes = make_value(hit)?;
            Ok(Value::owned(bytes, Some(version), record.expires_at_ms()))
        }
    }
}

/// The value of a hit in memory of its own.
pub(crate) fn make_value<D: Disk>(hit: &Hit<'_, D>) -> Result<Arc<[u8]>> {
    let record = hit.record()?;
    if !record.is_compressed() {
        return Ok(record.value().into());
    }
    codec::decompress(record.value())
        .map(Arc::from)
        .map_err(|reason| hit.segment.damage(hit.offset, &reason))
}

/// The value of an uncompressed record, as a guard of its own.
#[inline]
fn value_in_place(region: &Arc<Region>, offset: u64, record: &Record<'_>) -> Value {
    let (value_at, len) = (record.value_offset(), record.value().len());
    Value::in_place(Arc::clone(region), offset, value_at, len)
}
