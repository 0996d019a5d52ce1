//! A walk over the log in the order of sequence numbers.
//!
//! A segment that was appended to has its records in that order; the output of a merge need not,
//! and its numbers may lie among those of any other segment. So a walk merges the segments: each
//! is opened when the walk reaches the lowest number that it can hold, its records are listed by
//! number (eight bytes each, from its hint file) or met one after the other, and the segment is
//! let go of behind its last one.
//!
//! What is walked is a snapshot: the segments of one moment, held so that no compaction can take
//! them away, up to the sequence number that was settled at that moment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::changes::{Change, ChangeKind};
use super::feed::{Feed, LANDMARK_EVERY_BYTES, Origin};
use super::read;
use crate::disk::Disk;
use crate::error::Result;
use crate::format::batch::FRAME_OVERHEAD;
use crate::format::manifest::History;
use crate::format::record::Kind;
use crate::format::segment::HEADER_LEN;
use crate::format::{ALIGNMENT, Invalid, SeqNo};
use crate::segment::Segment;
use crate::segment::scanner::{self, Check};

/// A segment of a snapshot.
#[derive(Clone)]
pub(crate) struct Part<D: Disk> {
    pub(crate) segment: Arc<Segment<D>>,
    /// Where its records end, if it is sealed.
    pub(crate) data_len: u64,
    /// All its records have lower sequence numbers.
    pub(crate) next_seq: SeqNo,
    pub(crate) sealed: bool,
}

/// The log at one moment, as far as it may hold what somebody has not seen yet.
#[derive(Clone)]
pub(crate) struct Snapshot<D: Disk> {
    pub(crate) parts: Vec<Part<D>>,
    /// The first sequence number that was not settled.
    pub(crate) end: SeqNo,
    pub(crate) history: History,
}

/// The records of a snapshot from some sequence number on, each once, in ascending order.
pub(crate) struct Walk<D: Disk> {
    feed: Arc<Feed<D>>,
    /// Not reached yet; the one that can hold the lowest number comes last.
    waiting: Vec<Part<D>>,
    /// Under way; `None` in the place of those that are done.
    open: Vec<Option<Open<D>>>,
    /// The next number of each that is under way, and its place in `open`.
    heads: BinaryHeap<Reverse<(SeqNo, usize)>>,
    next_seq: SeqNo,
    end: SeqNo,
}

/// A segment under way.
struct Open<D: Disk> {
    part: Part<D>,
    ahead: Ahead,
    /// Where its next record is.
    head: u64,
    /// From which offset on the next landmark is to be noted.
    landmark_due: u64,
}

/// The records of a segment that are still to come, after its head.
enum Ahead {
    /// Those from this offset on, one after the other.
    Appended(u64),
    /// These, the next one last; packed by [`pack`].
    Listed(Vec<u64>),
}

/// A record's place in its segment's order, and its offset, in eight bytes.
fn pack(seq_delta: u64, offset: u64) -> u64 {
    (seq_delta << u32::BITS) | (offset / ALIGNMENT as u64)
}

impl<D: Disk> Walk<D> {
    pub(crate) fn new(feed: &Arc<Feed<D>>, snapshot: Snapshot<D>, since: SeqNo) -> Walk<D> {
        let mut waiting = snapshot.parts;
        waiting.retain(|part| part.next_seq > since);
        waiting.sort_unstable_by_key(|part| Reverse(part.segment.header().base_seq));
        Walk {
            feed: Arc::clone(feed),
            waiting,
            open: Vec::new(),
            heads: BinaryHeap::new(),
            next_seq: since,
            end: snapshot.end,
        }
    }

    /// The sequence number after all that the walk has come past.
    pub(crate) fn next_seq(&self) -> SeqNo {
        self.next_seq
    }

    /// The next record whose key begins with `prefix`.
    pub(crate) fn next(&mut self, prefix: &[u8]) -> Result<Option<Change>> {
        loop {
            self.open_due()?;
            let Some(Reverse((seq, index))) = self.heads.pop() else {
                self.next_seq = self.next_seq.max(self.end);
                return Ok(None);
            };
            let Some(open) = &mut self.open[index] else {
                continue;
            };
            // A copy of what was met already is passed over.
            let change = if seq < self.next_seq {
                None
            } else {
                open.read(&self.feed.origin, seq, prefix)?
            };
            match open.advance(&self.feed, self.next_seq, self.end)? {
                Some(next) => self.heads.push(Reverse((next, index))),
                None => self.open[index] = None,
            }
            self.next_seq = self.next_seq.max(seq.next());
            if change.is_some() {
                return Ok(change);
            }
        }
    }

    /// Opens the segments that can hold the next record.
    fn open_due(&mut self) -> Result<()> {
        while let Some(part) = self.waiting.last() {
            let base = part.segment.header().base_seq;
            if self.heads.peek().is_some_and(|head| base > head.0.0) {
                break;
            }
            let mut open = Open::new(part.clone(), &self.feed, self.next_seq, self.end)?;
            if let Some(first) = open.advance(&self.feed, self.next_seq, self.end)? {
                self.heads.push(Reverse((first, self.open.len())));
                self.open.push(Some(open));
            }
            self.waiting.pop();
        }
        Ok(())
    }
}

impl<D: Disk> Open<D> {
    fn new(part: Part<D>, feed: &Feed<D>, since: SeqNo, end: SeqNo) -> Result<Open<D>> {
        let in_place = part.segment.region().is_some();
        let landmark = feed.landmark_before(part.segment.id(), since);
        let ahead = match landmark {
            Some(offset) if in_place => Ahead::Appended(offset),
            None if in_place && !part.sealed => Ahead::Appended(HEADER_LEN as u64),
            _ => Ahead::Listed(list(&part, &feed.origin, since, end)?),
        };
        let landmark_due = landmark.unwrap_or(0) + LANDMARK_EVERY_BYTES;
        Ok(Open {
            part,
            ahead,
            head: 0,
            landmark_due,
        })
    }

    /// Moves the head to the next record from `since` on and before `end`; gives its number.
    fn advance(&mut self, feed: &Feed<D>, since: SeqNo, end: SeqNo) -> Result<Option<SeqNo>> {
        let base = self.part.segment.header().base_seq;
        let mut at = match &mut self.ahead {
            Ahead::Appended(offset) => *offset,
            Ahead::Listed(records) => {
                let next = records.pop();
                return Ok(next.map(|packed| {
                    self.head = (packed & u64::from(u32::MAX)) * ALIGNMENT as u64;
                    SeqNo(base.0 + (packed >> u32::BITS))
                }));
            }
        };
        let Some(region) = self.part.segment.region() else {
            return Ok(None);
        };
        let len = region.len() as u64;
        let data_len = if self.part.sealed {
            self.part.data_len
        } else {
            len
        };
        while at < data_len.min(len) {
            let record = self.part.segment.record_in(region, at)?;
            if record.kind() == Kind::Frame {
                // Its members fill it.
                at += FRAME_OVERHEAD as u64;
                continue;
            }
            let seq = record.seq(base);
            if seq >= end {
                break;
            }
            let next = at + record.len() as u64;
            self.ahead = Ahead::Appended(next);
            if at >= self.landmark_due {
                feed.note_landmark(self.part.segment.id(), seq, at);
                self.landmark_due = at + LANDMARK_EVERY_BYTES;
            }
            if seq >= since {
                self.head = at;
                return Ok(Some(seq));
            }
            at = next;
        }
        Ok(None)
    }

    /// The change at the head, if its key begins with `prefix`.
    fn read(&self, origin: &Origin<D>, seq: SeqNo, prefix: &[u8]) -> Result<Option<Change>> {
        let segment = &self.part.segment;
        // Before the keys are compared: a damaged key must not pass for another one.
        let hit = read::record_at(segment, self.head, origin.verify)?;
        let record = hit.record()?;
        if record.seq(segment.header().base_seq) != seq {
            let reason = Invalid::Field("another record than the one that was looked for");
            return Err(segment.damage(self.head, &reason));
        }
        if !record.key().starts_with(prefix) {
            return Ok(None);
        }
        let kind = match record.kind() {
            Kind::Put => ChangeKind::Put(read::value_of(&hit)?),
            Kind::Tombstone => ChangeKind::Delete,
            Kind::Frame => {
                let reason = Invalid::Field("a batch frame in the place of a record");
                return Err(segment.damage(self.head, &reason));
            }
        };
        let key = record.key().to_vec();
        Ok(Some(Change { seq, key, kind }))
    }
}

/// The records of a sealed segment, the one with the lowest number last.
fn list<D: Disk>(part: &Part<D>, origin: &Origin<D>, since: SeqNo, end: SeqNo) -> Result<Vec<u64>> {
    let segment = &*part.segment;
    let base = segment.header().base_seq;
    let mut records = Vec::new();
    let mut add = |seq: SeqNo, offset| {
        if seq >= since && seq < end {
            records.push(pack(seq.0 - base.0, offset));
        }
    };
    match origin.source().sealed(segment.id(), part.data_len) {
        Ok(opened) => {
            let hint = opened.hint;
            hint.entries(0..hint.len())
                .for_each(|entry| add(entry.seq, entry.offset));
        }
        // Its files may be gone while its bytes are still held here.
        Err(error) => {
            let Some(region) = segment.region() else {
                return Err(error);
            };
            let bytes: &[u8] = region.as_ref().as_ref();
            let header = segment.header();
            let visit = |offset, record: crate::format::record::Record<'_>| {
                add(record.seq(base), offset);
            };
            let scan = scanner::scan(bytes, header, HEADER_LEN as u64, Check::Sealed, visit);
            if let Some(problem) = scan.problem {
                return Err(segment.damage(scan.end, &problem));
            }
        }
    }
    records.sort_unstable_by_key(|&record| Reverse(record));
    Ok(records)
}
