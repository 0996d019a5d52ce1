//! A segment's records from front to back, and what is damaged in between.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::record::{BatchFrame, DamagedRange, Item, Memory, Record, RecordInfo};
use super::source::{Fault, Source};
use super::view::View;
use crate::disk::Disk;
use crate::error::Error;
use crate::format::SegmentId;
use crate::format::manifest::SegmentState;
use crate::format::record;
use crate::format::segment::SegmentHeader;
use crate::segment::salvage::{Damaged, Step, Tail, Walk, Walker};
use crate::verify::Damage;
use crate::verify::bytes::{self, FileBytes, Unreadable};

/// How often the end of a segment is read again that seems damaged, while it is always another
/// place: then somebody is writing there.
const MAX_READS: usize = 16;

/// A segment in memory.
pub(super) struct Loaded {
    id: SegmentId,
    state: Option<SegmentState>,
    pub(super) header: Result<SegmentHeader, Damage>,
    memory: Arc<Memory>,
    /// Where the system could not read.
    unreadable: Vec<Unreadable>,
    /// Where the records end, or should.
    end: u64,
    /// Where a segment that is being written to is damaged indeed, once that has been found out.
    lasting: Option<Vec<u64>>,
}

/// Reads a segment into memory, up to where its records end.
pub(super) fn load<D: Disk>(
    source: &Source<D>,
    view: &View,
    id: SegmentId,
    state: Option<SegmentState>,
) -> Result<Loaded, Fault> {
    let file = source.open(view, id)?;
    let (path, header) = (file.path, file.header);
    let by_files = || {
        let header = header.as_ref().ok()?;
        source.state_by_files(id, header)
    };
    let state = state.or_else(by_files);
    let data_len = state.and_then(SegmentState::data_len);
    let read = bytes::read(&source.disk, &path, data_len.unwrap_or(u64::MAX));
    let FileBytes {
        bytes, unreadable, ..
    } = match read {
        Ok(Some(file)) => file,
        Ok(None) => return Err(Fault::Missing),
        Err(e) => return Err(Fault::Failed(Error::io("read", &path, e))),
    };
    Ok(Loaded {
        id,
        state,
        header,
        end: data_len.unwrap_or(bytes.len() as u64),
        memory: Arc::new(Memory { path, bytes }),
        unreadable,
        lasting: None,
    })
}

impl Loaded {
    pub(super) fn path(&self) -> &Path {
        &self.memory.path
    }

    fn bytes(&self) -> &[u8] {
        &self.memory.bytes
    }

    fn walk_mode(&self) -> Walk {
        let walk = match self.state {
            Some(SegmentState::Sealed { .. }) => Walk::SEALED,
            Some(SegmentState::Closed { .. }) => Walk::CLOSED,
            Some(SegmentState::Active) | None => Walk::ACTIVE,
        };
        Walk {
            takes_partial_batches: true,
            ..walk
        }
    }

    /// Shows every sound record to `visit`, which collects what it wants of them.
    ///
    /// Bytes of an active segment that seem damaged are read again, and all is begun anew: what had
    /// been durable before the first read, the second sees whole, whoever is writing behind it.
    pub(super) fn walk<D: Disk, T: Default>(
        &mut self,
        disk: &D,
        visit: impl Fn(&mut T, u64, &record::Record<'_>),
    ) -> (T, Vec<DamagedRange>) {
        let header = match &self.header {
            Ok(header) => *header,
            Err(damage) => {
                return (T::default(), vec![self.without_header(damage)]);
            }
        };
        let mut before: Vec<u64> = Vec::new();
        let mut reads = 1;
        loop {
            let mut found = T::default();
            let walked = self
                .walk_mode()
                .run(self.bytes(), &header, |offset, record| {
                    visit(&mut found, offset, &record);
                });
            let starts: Vec<_> = walked.damage.iter().map(|damaged| damaged.start).collect();
            let is_written_to = self.state == Some(SegmentState::Active);
            let holds_still = starts.iter().all(|start| before.contains(start));
            if !is_written_to || holds_still || reads == MAX_READS || !self.read_again(disk) {
                if is_written_to && reads == MAX_READS {
                    self.lasting = Some(before);
                }
                let damage = walked.damage.iter();
                let damaged: Vec<_> = damage
                    .filter(|damaged| self.lasts(damaged))
                    .map(|damaged| self.range(damaged))
                    .collect();
                let rest = self.missing_end(damaged.last());
                return (found, damaged.into_iter().chain(rest).collect());
            }
            before = starts;
            reads += 1;
        }
    }

    /// Whether there was anything new to read.
    fn read_again<D: Disk>(&mut self, disk: &D) -> bool {
        let path = self.path().to_path_buf();
        let Ok(Some(file)) = bytes::read(disk, &path, u64::MAX) else {
            return false;
        };
        self.end = file.bytes.len() as u64;
        self.unreadable = file.unreadable;
        let bytes = file.bytes;
        self.memory = Arc::new(Memory { path, bytes });
        true
    }

    /// Whether something is damaged indeed, and not only in the middle of being written.
    fn lasts(&self, damaged: &Damaged) -> bool {
        let lasting = self.lasting.as_ref();
        lasting.is_none_or(|lasting| lasting.contains(&damaged.start))
    }

    /// All of it: without the header no record can be decoded.
    fn without_header(&self, damage: &Damage) -> DamagedRange {
        DamagedRange {
            offset: 0,
            len: self.end,
            reason: format!("{}: {}", damage.kind, damage.reason),
        }
    }

    fn range(&self, damaged: &Damaged) -> DamagedRange {
        let &Damaged { start, end, .. } = damaged;
        let unreadable = self.unreadable.iter();
        let reason = unreadable
            .filter(|bad| bad.start < end && start < bad.end)
            .map(|bad| bad.reason.clone())
            .next()
            .unwrap_or_else(|| damaged.problem.to_string());
        // A record that the file ends in goes on in what is missing.
        let end = if end == self.bytes().len() as u64 {
            self.end.max(end)
        } else {
            end
        };
        DamagedRange {
            offset: start,
            len: end - start,
            reason,
        }
    }

    /// What is missing at the end, unless the last damage has said it.
    fn missing_end(&self, last: Option<&DamagedRange>) -> Option<DamagedRange> {
        let len = self.bytes().len() as u64;
        let is_said = last.is_some_and(|last| last.offset + last.len >= self.end);
        (len < self.end && !is_said).then(|| DamagedRange {
            offset: len,
            len: self.end - len,
            reason: format!("the file ends at {len}, its records at {}", self.end),
        })
    }
}

/// A segment's records from front to back, and what is damaged in between; from
/// [`Inspector::records`](super::Inspector::records). Holds the segment in memory.
pub struct Records {
    segment: Loaded,
    /// `None` at the end.
    walker: Option<Walker>,
    /// Records of a batch that are to be given: where the next one begins, and where they end.
    members: (u64, u64),
    /// What is to be given at the end, last first.
    last: Vec<Item>,
    /// The last damage.
    damaged: Option<DamagedRange>,
}

impl Records {
    pub(super) fn new<D: Disk>(mut segment: Loaded, disk: &D) -> Records {
        if segment.state == Some(SegmentState::Active) {
            segment.walk::<D, ()>(disk, |(), _, _| ());
        }
        let mut last = Vec::new();
        let walker = match &segment.header {
            Ok(header) => Some(segment.walk_mode().start(segment.bytes(), header)),
            Err(damage) => {
                last.push(Item::Damaged(segment.without_header(damage)));
                None
            }
        };
        Records {
            segment,
            walker,
            members: (0, 0),
            last,
            damaged: None,
        }
    }

    /// The segment's number.
    pub fn segment(&self) -> SegmentId {
        self.segment.id
    }

    /// The segment's file.
    pub fn path(&self) -> &Path {
        self.segment.path()
    }

    /// The state in which it was read; `None` where neither the manifest nor its files say it.
    pub fn state(&self) -> Option<SegmentState> {
        self.segment.state
    }

    fn record(&self, record: &record::Record<'_>, offset: u64, header: &SegmentHeader) -> Item {
        let info = RecordInfo::of(record, offset, header.base_seq);
        let memory = Arc::clone(&self.segment.memory);
        Item::Record(Record::new(info, memory, offset as usize))
    }

    /// The next record of the batch that has begun.
    fn member(&mut self, bytes: &[u8], header: &SegmentHeader) -> Option<Item> {
        let (at, end) = self.members;
        let rest = bytes.get(at as usize..end as usize)?;
        // They were verified with their frame.
        let record = record::Record::parse(rest).ok()?;
        self.members.0 += record.len() as u64;
        Some(self.record(&record, at, header))
    }

    /// What stands behind the last record.
    fn finish(&mut self, walker: &Walker) {
        if let Tail::Torn { len, problem } = walker.tail() {
            self.last.push(Item::TornTail(DamagedRange {
                offset: walker.end(),
                len: *len,
                reason: problem.to_string(),
            }));
        }
        let missing = self.segment.missing_end(self.damaged.as_ref());
        self.last.extend(missing.map(Item::Damaged));
    }
}

impl Iterator for Records {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let (Ok(header), Some(mut walker)) = (&self.segment.header, self.walker.take()) else {
            return self.last.pop();
        };
        let (header, memory) = (*header, Arc::clone(&self.segment.memory));
        if let Some(member) = self.member(&memory.bytes, &header) {
            self.walker = Some(walker);
            return Some(member);
        }
        while let Some(step) = walker.step(&memory.bytes) {
            let item = match step {
                Step::Sound(at, sound) => match sound.members {
                    None => self.record(&sound.record, at, &header),
                    Some(members) => {
                        let records = members.len();
                        let frame = BatchFrame::of(&sound.record, records, at, header.base_seq);
                        self.members = (frame.first_member(), at + frame.len);
                        Item::BatchFrame(frame)
                    }
                },
                Step::Damaged(damaged) if self.segment.lasts(&damaged) => {
                    let range = self.segment.range(&damaged);
                    self.damaged = Some(range.clone());
                    Item::Damaged(range)
                }
                Step::Damaged(_) => continue,
            };
            self.walker = Some(walker);
            return Some(item);
        }
        self.finish(&walker);
        self.last.pop()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("path", &self.segment.path())
            .field("state", &self.segment.state)
            .finish_non_exhaustive()
    }
}
