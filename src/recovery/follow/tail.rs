//! The segment that a live writer appends to, as a follower reads it: by `pread`, into a buffer of
//! its own, never through a map.
//!
//! What makes that safe beside a writer who takes no notice:
//!
//! 1. Only sound records are taken over. A write that is seen in part fails its checksum, and is
//!    read again the next time.
//! 2. A write that fails on a full disk is taken back: the writer cuts its file and puts other
//!    records in the place, under higher sequence numbers. So after every read it is looked whether
//!    the last record taken over is still in the file, and a gap in the sequence numbers makes
//!    the bytes be read twice: records behind one that was taken back begin with a gap, since at
//!    least one other stands in its place.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{AppendBuffer, Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::record::{self, Kind, RECORD_HEADER_LEN, Record};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{Invalid, KeyHasher, SegmentId, SeqNo};
use crate::log::Expiries;
use crate::recovery::Source;
use crate::segment::Segment;
use crate::segment::hint::Summary;
use crate::segment::scanner::{self, Behind, Check, ScanEnd};
use crate::sync::thread;

/// How much is read at first: beyond the end of the records there are zeros, which cost a little.
const FIRST_READ: u64 = 64 << 10;
/// How much is read at a time at most, but for a longer record.
const LONGEST_READ: u64 = 8 << 20;
/// How often bytes are read again that should have been sound, before that is damage.
const PATIENCE: u32 = 8;

pub(crate) struct Tail<D: Disk> {
    disk: D,
    path: PathBuf,
    file: D::File,
    header: SegmentHeader,
    buffer: AppendBuffer,
    /// Where the last record begins.
    last_record: Option<u64>,
    last_seq: Option<SeqNo>,
    /// All records, and how many bytes of them are tombstones.
    records: u64,
    tombstone_bytes: u64,
    expiries: Expiries,
    /// The records that the index was not told of yet.
    fresh: Summary,
    /// Set when the bytes were moved to a larger buffer.
    moved: bool,
}

/// Whether what was read before is still what the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// It is, and everything new has been taken over.
    Everything,
    /// The writer took records back that had been read.
    TakenBack,
}

/// What to do after a piece was taken over.
enum Next {
    Done,
    /// Read on, this much at least.
    Read(u64),
}

impl<D: Disk> Tail<D> {
    /// Opens the segment and reads all of it: up to `limit`, where the manifest says that its
    /// records end, or as far as there are sound ones.
    pub(super) fn open(
        source: &Source<'_, D>,
        id: SegmentId,
        limit: Option<u64>,
        segment_size: u64,
    ) -> Result<Tail<D>> {
        loop {
            let (path, file, header) = source.open(id, OpenMode::Read)?;
            let fail = |op| {
                let path = &path;
                move |e| Error::io(op, path, e)
            };
            let file_len = file.len().map_err(fail("read"))?;
            let capacity = usize::try_from(file_len.max(segment_size)).unwrap_or(usize::MAX);
            let mut buffer = AppendBuffer::new(capacity.max(HEADER_LEN)).map_err(fail("buffer"))?;
            let encoded = header.encode();
            buffer.append(HEADER_LEN, |out| out.copy_from_slice(&encoded));
            let mut tail = Tail {
                disk: source.disk.clone(),
                path,
                file,
                header,
                buffer,
                last_record: None,
                last_seq: None,
                records: 0,
                tombstone_bytes: 0,
                expiries: Expiries::default(),
                fresh: Summary::new(header.base_seq),
                moved: false,
            };
            if tail.read_on(source.hasher, limit)? == Read::Everything {
                return Ok(tail);
            }
        }
    }

    pub(super) fn id(&self) -> SegmentId {
        self.header.id
    }

    /// All its records have this sequence number or a higher one, all of other segments a lower one.
    pub(super) fn base_seq(&self) -> SeqNo {
        self.header.base_seq
    }

    /// Where the records end.
    pub(super) fn end(&self) -> u64 {
        self.buffer.len() as u64
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn tombstone_bytes(&self) -> u64 {
        self.tombstone_bytes
    }

    pub(super) fn expiries(&self) -> Expiries {
        self.expiries
    }

    /// The records that the index was not told of yet, in the order of their hashes.
    pub(super) fn fresh(&self) -> &Summary {
        &self.fresh
    }

    /// The index has been told of them.
    pub(super) fn settle(&mut self) {
        self.fresh = Summary::new(self.header.base_seq);
    }

    /// Everything that was read, summed up again.
    pub(super) fn summary(&self, hasher: KeyHasher) -> Summary {
        Summary::of(self.bytes(), &self.header, hasher, Check::Trusted).0
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.region().tail(0).unwrap_or_default()
    }

    /// A reader of everything read so far and later.
    pub(super) fn reader(&self) -> Segment<D> {
        let region = Arc::clone(self.buffer.region());
        Segment::mapped(self.disk.clone(), self.path.clone(), self.header, region)
    }

    /// A reader of the larger buffer, if the bytes were moved to one since this was last asked.
    pub(super) fn take_moved(&mut self) -> Option<Segment<D>> {
        std::mem::take(&mut self.moved).then(|| self.reader())
    }

    /// Whether a sealed segment begins with everything that was read here.
    pub(super) fn is_continued_by(&self, sealed: &Segment<D>, data_len: u64) -> bool {
        if data_len < self.end() || *sealed.header() != self.header {
            return false;
        }
        let Some(offset) = self.last_record else {
            return true;
        };
        let head = match sealed.region() {
            Some(region) => region
                .slice(offset as usize, RECORD_HEADER_LEN)
                .map(<[u8]>::to_vec),
            None => sealed.copy_record(offset).ok(),
        };
        head.is_some_and(|head| head.starts_with(self.head_of(offset)))
    }

    /// Reads what has been appended since.
    pub(super) fn read_on(&mut self, hasher: KeyHasher, limit: Option<u64>) -> Result<Read> {
        let read = self.read_pieces(hasher, limit);
        self.fresh.sort();
        read
    }

    fn read_pieces(&mut self, hasher: KeyHasher, limit: Option<u64>) -> Result<Read> {
        let mut want = FIRST_READ;
        let mut part = Vec::new();
        // How often the bytes at one place were no record, though they should have been one.
        let (mut stuck_at, mut tries) = (0, 0);
        loop {
            let at = self.end();
            let file_len = self.file.len().map_err(|e| self.failed(e))?;
            let end = limit.map_or(file_len, |limit| limit.min(file_len));
            if end < at {
                return Ok(Read::TakenBack);
            }
            let is_read = self.read_part(&mut part, at, want.min(end - at))?;
            // Looked at after the piece was read: so the piece was behind it.
            if !self.is_still_there()? {
                return Ok(Read::TakenBack);
            }
            let next = if is_read {
                self.take(&mut part, end, limit, hasher)?
            } else {
                None
            };
            match next {
                Some(Next::Done) => return Ok(Read::Everything),
                Some(Next::Read(len)) => {
                    (want, tries) = (len, 0);
                }
                // Seen in the middle of a write, most likely, which is over when it is read again.
                None => {
                    tries = if stuck_at == self.end() { tries + 1 } else { 1 };
                    stuck_at = self.end();
                    if tries > PATIENCE {
                        let reason = "what is behind this was written after it was durable, so \
                                      this is no write in progress";
                        return Err(Error::corrupt(&self.path, self.end(), reason));
                    }
                    if tries > 1 {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        }
    }

    /// Reads `len` bytes at `at`; `false` where the file has become shorter meanwhile.
    fn read_part(&self, part: &mut Vec<u8>, at: u64, len: u64) -> Result<bool> {
        part.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        match self.file.read_at(part, at) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Whether the last record is still in the file. Its header is enough: no other write has its
    /// sequence number.
    fn is_still_there(&self) -> Result<bool> {
        let Some(offset) = self.last_record else {
            return Ok(true);
        };
        let mut head = [0; RECORD_HEADER_LEN];
        match self.file.read_at(&mut head, offset) {
            Ok(()) => Ok(head == *self.head_of(offset)),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(self.failed(e)),
        }
    }

    fn head_of(&self, offset: u64) -> &[u8] {
        let head = self
            .buffer
            .region()
            .slice(offset as usize, RECORD_HEADER_LEN);
        head.unwrap_or_default()
    }

    /// Takes the sound records that a piece begins with over. `None` where it is to be read again.
    fn take(
        &mut self,
        part: &mut Vec<u8>,
        end: u64,
        limit: Option<u64>,
        hasher: KeyHasher,
    ) -> Result<Option<Next>> {
        let at = self.end();
        let mut last_seq = self.last_seq;
        let mut found = Vec::new();
        let mut gap = false;
        let base = self.header.base_seq;
        let scan = scanner::scan_part(
            part,
            at,
            &self.header,
            Check::Appended,
            &mut last_seq,
            |offset, record| {
                let before = found.last().map(|&(_, seq)| seq).or(self.last_seq);
                let seq = record.seq(base);
                gap |= before.is_some_and(|before: SeqNo| before.next() != seq);
                found.push((offset, seq));
            },
        );
        let sound = (scan.end - at) as usize;
        if gap {
            // Between two of these records one may have been taken back while they were read. If
            // they are there together now, none was.
            let mut again = Vec::new();
            if !self.read_part(&mut again, at, sound as u64)? || again[..] != part[..sound] {
                return Ok(None);
            }
        }
        self.append(&part[..sound])?;
        for &(offset, _) in &found {
            let bytes = &part[(offset - at) as usize..sound];
            if let Ok(record) = Record::parse(bytes) {
                self.add(offset, &record, hasher);
            }
        }
        if let Some(&(offset, seq)) = found.last() {
            self.last_record = Some(offset);
            self.last_seq = Some(seq);
        }
        self.after(part, sound, &scan, end, limit)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > self.buffer.remaining() {
            let old = self.buffer.region();
            let capacity = (2 * old.capacity()).max(old.len() + bytes.len() + FOOTER_LEN);
            let mut larger =
                AppendBuffer::new(capacity).map_err(|e| Error::io("buffer", &self.path, e))?;
            let kept = old.tail(0).unwrap_or_default();
            larger.append(kept.len(), |out| out.copy_from_slice(kept));
            self.buffer = larger;
            self.moved = true;
        }
        self.buffer
            .append(bytes.len(), |out| out.copy_from_slice(bytes));
        Ok(())
    }

    fn add(&mut self, offset: u64, record: &Record<'_>, hasher: KeyHasher) {
        self.records += 1;
        match record.kind() {
            Kind::Put => self.expiries.add(record.expires_at_ms()),
            _ => self.tombstone_bytes += record.len() as u64,
        }
        self.fresh.add(offset, record, hasher);
    }

    /// Decides what the first bytes that are no record mean.
    fn after(
        &self,
        part: &mut Vec<u8>,
        sound: usize,
        scan: &ScanEnd,
        end: u64,
        limit: Option<u64>,
    ) -> Result<Option<Next>> {
        let at = scan.end;
        let rest = &part[sound..];
        let is_all = at + rest.len() as u64 == end;
        let Some(problem) = &scan.problem else {
            let is_short = limit.filter(|limit| at < *limit && is_all);
            return match is_short {
                Some(limit) => {
                    let reason = format!("the file ends before its records do, at {limit}");
                    Err(Error::corrupt(&self.path, at, reason))
                }
                None if is_all => Ok(Some(Next::Done)),
                None => Ok(Some(Next::Read(longer(part.len())))),
            };
        };
        // A record that is only not there in full yet, in this piece.
        if *problem == Invalid::Short && !is_all {
            let needed = match rest.first_chunk::<RECORD_HEADER_LEN>() {
                Some(head) => record::announced_len(head).unwrap_or(0) as u64,
                None => RECORD_HEADER_LEN as u64,
            };
            if needed > rest.len() as u64 && at + needed <= end {
                return Ok(Some(Next::Read(needed.max(longer(part.len())))));
            }
        }
        if limit.is_some() {
            return Err(Error::corrupt(&self.path, at, problem.to_string()));
        }
        let is_end = rest.iter().all(|&byte| byte == 0) || SegmentFooter::decode(rest, at).is_ok();
        if is_end || self.is_torn(part, sound, at, end)? {
            return Ok(Some(Next::Done));
        }
        Ok(None)
    }

    /// Whether nothing behind the bad record says that it had been durable: then it is a write in
    /// progress, or one that a crash tore. Looks as far as there is anything but zeros.
    fn is_torn(&self, part: &mut Vec<u8>, sound: usize, at: u64, end: u64) -> Result<bool> {
        part.drain(..sound);
        let mut more = Vec::new();
        loop {
            let last = part.len().saturating_sub(FIRST_READ as usize);
            let have = at + part.len() as u64;
            if have >= end || part[last..].iter().all(|&byte| byte == 0) {
                break;
            }
            if !self.read_part(&mut more, have, LONGEST_READ.min(end - have))? {
                break;
            }
            part.append(&mut more);
        }
        let behind = scanner::look_ahead_in(part, at + part.len() as u64, &self.header, at);
        Ok(behind == Behind::TornTail)
    }

    fn failed(&self, e: std::io::Error) -> Error {
        Error::io("read", &self.path, e)
    }
}

/// How much to read after a piece that was all records.
fn longer(len: usize) -> u64 {
    (2 * len as u64).clamp(FIRST_READ, LONGEST_READ)
}
