//! Every version of a key that is still on the disk.

use super::record::{self, RecordInfo, RecordKind};
use super::records;
use super::source::{Fault, MISSING, Source, damage};
use super::view::{self, Seen, View};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::manifest::SegmentState;
use crate::format::record::Record;
use crate::format::{KeyHasher, SegmentId, SeqNo};
use crate::segment::{ReadMode, Segment};
use crate::verify::{Damage, DamageKind};

/// What is still on the disk of a key, from [`Inspector::history`](super::Inspector::history).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// The versions, newest first. A merge drops those that nobody needs, so there may be gaps.
    pub versions: Vec<Version>,
    /// Damage that may hide further versions, also newer ones: of records that may be of this key,
    /// and of segments that had to be read in full.
    pub damage: Vec<Damage>,
    /// How many segments were asked through their hint files.
    pub segments_by_hint: usize,
    /// How many were read in full.
    pub segments_read: usize,
}

/// One version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Version {
    /// The segment that it lies in.
    pub segment: SegmentId,
    /// What its record says. [`Inspector::record`](super::Inspector::record) has the value.
    pub record: RecordInfo,
    /// What has become of it.
    pub state: VersionState,
}

/// What has become of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VersionState {
    /// It is the newest, and the key's value.
    Live,
    /// It is the newest, and has expired: the key is absent.
    Expired,
    /// It is the newest, and a tombstone: the key is absent.
    Deleted,
    /// There is a newer one.
    Stale,
}

impl std::fmt::Display for VersionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            VersionState::Live => "live",
            VersionState::Expired => "expired",
            VersionState::Deleted => "deleted",
            VersionState::Stale => "stale",
        })
    }
}

/// What one segment has of the key.
#[derive(Default)]
struct Part {
    records: Vec<RecordInfo>,
    damage: Vec<Damage>,
    by_hint: bool,
}

pub(super) fn of<D: Disk>(source: &Source<D>, key: &[u8]) -> Result<History> {
    let (view, parts) = view::survey(source, |view, id, state| {
        let part = match part(source, view, id, state, key) {
            Ok(part) => part,
            Err(Fault::Missing) if state.is_none() => return Ok(None),
            Err(fault) => Part {
                damage: vec![as_damage(source, id, fault)?],
                ..Part::default()
            },
        };
        Ok(Some(Seen {
            is_whole: part.damage.is_empty(),
            what: part,
        }))
    })?;
    let clock_ms = view.manifest.as_ref().map_or(0, |m| m.clock_ms);
    let now_ms = source.disk.now_ms().max(clock_ms);
    let mut history = History {
        versions: Vec::new(),
        damage: Vec::new(),
        segments_by_hint: 0,
        segments_read: 0,
    };
    for (segment, part) in parts {
        let versions = part.records.into_iter().map(|record| Version {
            segment,
            record,
            state: VersionState::Stale,
        });
        history.versions.extend(versions);
        history.damage.extend(part.damage);
        if part.by_hint {
            history.segments_by_hint += 1;
        } else {
            history.segments_read += 1;
        }
    }
    // Of a record and a copy of it, which only a damaged manifest leaves, the copy comes first.
    let age = |version: &Version| (version.record.seq, version.segment);
    history
        .versions
        .sort_unstable_by_key(|version| std::cmp::Reverse(age(version)));
    if let Some(newest) = history.versions.first_mut() {
        newest.state = state_of_newest(&newest.record, now_ms);
    }
    Ok(history)
}

fn state_of_newest(record: &RecordInfo, now_ms: u64) -> VersionState {
    match (record.kind, record.expires_at_ms) {
        (RecordKind::Tombstone, _) => VersionState::Deleted,
        (RecordKind::Put, Some(expiry)) if expiry <= now_ms => VersionState::Expired,
        (RecordKind::Put, _) => VersionState::Live,
    }
}

/// What is wrong with a segment of which nothing can be read.
fn as_damage<D: Disk>(source: &Source<D>, id: SegmentId, fault: Fault) -> Result<Damage> {
    let path = source.segment_path(id);
    match fault {
        Fault::Missing => Ok(damage(&path, 0, DamageKind::MissingSegment, MISSING)),
        Fault::Damaged(damage) => Ok(damage),
        Fault::Failed(Error::Io { source, .. }) => {
            let reason = source.to_string();
            Ok(damage(&path, 0, DamageKind::Unreadable, &reason))
        }
        Fault::Failed(error) => Err(error),
    }
}

fn part<D: Disk>(
    source: &Source<D>,
    view: &View,
    id: SegmentId,
    state: Option<SegmentState>,
    key: &[u8],
) -> Result<Part, Fault> {
    if let (Some(SegmentState::Sealed { data_len }), Some(hasher)) = (state, view.hasher()) {
        if let Some(part) = by_hint(source, view, id, data_len, hasher, key)? {
            return Ok(part);
        }
    }
    let mut segment = records::load(source, view, id, state)?;
    let base_seq = segment.header.as_ref().map_or(SeqNo(0), |h| h.base_seq);
    let (records, damaged) = segment.walk(
        &source.disk,
        |records: &mut Vec<RecordInfo>, offset, record| {
            if record.key() == key {
                records.push(RecordInfo::of(record, offset, base_seq));
            }
        },
    );
    let kind = segment.header.as_ref().err().map(|damage| damage.kind);
    let kind = kind.unwrap_or(DamageKind::Record);
    let damaged = damaged.iter();
    Ok(Part {
        records,
        damage: damaged
            .map(|range| damage(segment.path(), range.offset, kind, &range.reason))
            .collect(),
        by_hint: false,
    })
}

/// What a sealed segment has of the key, by its hint file; nothing if that cannot be used.
fn by_hint<D: Disk>(
    source: &Source<D>,
    view: &View,
    id: SegmentId,
    data_len: u64,
    hasher: KeyHasher,
    key: &[u8],
) -> Result<Option<Part>, Fault> {
    let file = source.open(view, id)?;
    let (Ok(header), Ok(footer)) = (&file.header, file.footer(data_len)) else {
        return Ok(None);
    };
    let Some(hint) = source.hint(header, &footer) else {
        return Ok(None);
    };
    let mut part = Part {
        by_hint: true,
        ..Part::default()
    };
    let mut candidates = hint.find(hasher.hash(key)).peekable();
    if candidates.peek().is_none() {
        return Ok(Some(part));
    }
    let (disk, path) = (source.disk.clone(), file.path.clone());
    let segment = Segment::sealed(disk, path, *header, data_len, ReadMode::Pread);
    let segment = segment.map_err(record::fault)?;
    for candidate in candidates {
        match record::read_from(&segment, candidate.offset) {
            Ok((info, bytes)) => {
                let is_it = Record::parse(&bytes).is_ok_and(|record| record.key() == key);
                part.records.extend(is_it.then_some(info));
            }
            Err(Fault::Damaged(damage)) => part.damage.push(damage),
            Err(fault) => return Err(fault),
        }
    }
    Ok(Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: RecordKind, expires_at_ms: Option<u64>) -> RecordInfo {
        RecordInfo {
            offset: 64,
            len: 32,
            kind,
            seq: SeqNo(1),
            key_len: 1,
            stored_len: 0,
            value_len: Some(0),
            compressed: false,
            expires_at_ms,
            collides: false,
            batched: false,
            durable_upto: None,
        }
    }

    #[test]
    fn a_value_expires_at_its_very_millisecond_and_a_tombstone_never() {
        let state = |kind, expiry| state_of_newest(&record(kind, expiry), 1000);
        assert_eq!(state(RecordKind::Put, None), VersionState::Live);
        assert_eq!(state(RecordKind::Put, Some(1001)), VersionState::Live);
        assert_eq!(state(RecordKind::Put, Some(1000)), VersionState::Expired);
        assert_eq!(state(RecordKind::Tombstone, None), VersionState::Deleted);
    }

    #[test]
    fn states_are_padded_as_a_table_wants_it() {
        assert_eq!(format!("{:<8}|", VersionState::Live), "live    |");
        assert_eq!(format!("{:>9}", RecordKind::Put), "      put");
    }
}
