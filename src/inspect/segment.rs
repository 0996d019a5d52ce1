//! One segment from the outside: its files, header and footer, without its records.

use std::path::PathBuf;

use super::source::{Fault, MISSING, SegmentFile, Source, damage};
use super::view::{Seen, View};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::hint::HintOwner;
use crate::format::manifest::SegmentState;
use crate::format::segment::{HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{FORMAT_VERSION, SegmentId, SeqNo, StoreId};
use crate::segment::writer::hint_owner;
use crate::verify::{Damage, DamageKind};

/// As much of a hint file as says whose it is, in bytes.
const HINT_HEAD_LEN: usize = 64;

/// A segment, from [`Inspector::segments`](super::Inspector::segments).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its number.
    pub id: SegmentId,
    /// Its file.
    pub path: PathBuf,
    /// As the manifest says, or else the segment's files. `None` where neither does.
    pub state: Option<SegmentState>,
    /// How long the file is, in bytes; an active segment's is as long as the room that was reserved.
    /// `None` where it is missing or cannot be read.
    pub file_len: Option<u64>,
    /// Its header, if that is sound.
    pub header: Option<HeaderInfo>,
    /// Its footer, if it is sealed and that is sound.
    pub footer: Option<FooterInfo>,
    /// Its hint file, if it has one.
    pub hint: Option<HintFile>,
    /// What is wrong with file, header, footer and hint file, as far as can be told without reading
    /// them in full.
    pub damage: Vec<Damage>,
}

impl SegmentInfo {
    /// Where its records end, in bytes from its beginning; `None` of an active one, or if unknown.
    pub fn data_len(&self) -> Option<u64> {
        self.state.and_then(SegmentState::data_len)
    }
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderInfo {
    /// The format's version.
    pub version: u32,
    /// The store that it belongs to.
    pub store: StoreId,
    /// Records say their sequence numbers as distances from this.
    pub base_seq: SeqNo,
    /// A random number, drawn for each segment, that its records' checksums are seeded with.
    pub salt: u64,
}

/// A sealed segment's footer: figures of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FooterInfo {
    /// The length of header and records in bytes: where the footer begins.
    pub data_len: u64,
    /// How many records, tombstones included; batch frames are not counted beside their members.
    pub records: u64,
    /// The lowest sequence number; the header's base where there is no record.
    pub lowest_seq: SeqNo,
    /// The highest sequence number; the header's base where there is no record.
    pub highest_seq: SeqNo,
    /// When the first put expires, in milliseconds since the epoch; `None` if none does.
    pub earliest_expiry_ms: Option<u64>,
    /// When the last put has expired, in milliseconds since the epoch; `None` if one never does, or
    /// there is no put.
    pub latest_expiry_ms: Option<u64>,
    /// CRC-32 of header and records; binds the hint file to this very content.
    pub data_checksum: u32,
}

/// That there is a hint file. [`Inspector::hint`](super::Inspector::hint) reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HintFile {
    /// The file.
    pub path: PathBuf,
    /// How long it is, in bytes.
    pub file_len: u64,
}

impl HeaderInfo {
    fn of(header: &SegmentHeader) -> HeaderInfo {
        HeaderInfo {
            version: FORMAT_VERSION,
            store: header.store,
            base_seq: header.base_seq,
            salt: header.salt,
        }
    }
}

impl FooterInfo {
    fn of(footer: &SegmentFooter) -> FooterInfo {
        let time = |ms: u64| (ms != u64::MAX).then_some(ms);
        FooterInfo {
            data_len: footer.data_len,
            records: footer.records,
            lowest_seq: footer.lowest_seq,
            highest_seq: footer.highest_seq,
            earliest_expiry_ms: time(footer.earliest_expiry_ms),
            latest_expiry_ms: time(footer.latest_expiry_ms),
            data_checksum: footer.data_checksum,
        }
    }
}

/// Looks at a segment; nothing where no manifest names it and it is gone.
pub(super) fn look<D: Disk>(
    source: &Source<D>,
    view: &View,
    id: SegmentId,
    state: Option<SegmentState>,
) -> Result<Option<Seen<SegmentInfo>>> {
    let mut info = SegmentInfo {
        id,
        path: source.segment_path(id),
        state,
        file_len: None,
        header: None,
        footer: None,
        hint: None,
        damage: Vec::new(),
    };
    match source.open(view, id) {
        Ok(file) => info.read(source, &file),
        Err(Fault::Missing) if state.is_none() => return Ok(None),
        Err(Fault::Missing) => {
            let missing = damage(&info.path, 0, DamageKind::MissingSegment, MISSING);
            info.damage.push(missing);
        }
        Err(Fault::Damaged(damage)) => info.damage.push(damage),
        Err(Fault::Failed(Error::Io { source, .. })) => {
            let reason = source.to_string();
            let unreadable = damage(&info.path, 0, DamageKind::Unreadable, &reason);
            info.damage.push(unreadable);
        }
        Err(Fault::Failed(error)) => return Err(error),
    }
    Ok(Some(Seen {
        is_whole: info.damage.is_empty(),
        what: info,
    }))
}

impl SegmentInfo {
    fn read<D: Disk>(&mut self, source: &Source<D>, file: &SegmentFile<D::File>) {
        self.file_len = Some(file.len);
        let header = match &file.header {
            Ok(header) => Some(header),
            Err(damage) => {
                self.damage.push(damage.clone());
                None
            }
        };
        self.header = header.map(HeaderInfo::of);
        if self.state.is_none() {
            self.state = header.and_then(|header| source.state_by_files(self.id, header));
        }
        if let Some(data_len) = self.data_len() {
            if file.len < data_len || data_len < HEADER_LEN as u64 {
                let len = file.len;
                let reason = format!("the file has {len} bytes, its records end at {data_len}");
                let at = len.min(data_len);
                let short = damage(&self.path, at, DamageKind::SegmentLength, &reason);
                self.damage.push(short);
            }
        }
        let mut owner = None;
        if let Some(SegmentState::Sealed { data_len }) = self.state {
            match file.footer(data_len) {
                Ok(footer) => {
                    self.footer = Some(FooterInfo::of(&footer));
                    owner = header.map(|header| hint_owner(header, &footer));
                }
                Err(damage) => self.damage.push(damage),
            }
        }
        self.look_at_hint(source, owner);
    }

    /// Whether there is a hint file, and as far as its head tells, of this segment.
    fn look_at_hint<D: Disk>(&mut self, source: &Source<D>, owner: Option<HintOwner>) {
        let path = source.hint_path(self.id);
        let opened = source
            .disk
            .open(&path, OpenMode::Read)
            .and_then(|file| Ok((file.len()?, file)));
        let (file_len, file) = match opened {
            Ok(opened) => opened,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => {
                let reason = e.to_string();
                self.damage
                    .push(damage(&path, 0, DamageKind::HintFile, &reason));
                return;
            }
        };
        self.hint = Some(HintFile {
            path: path.clone(),
            file_len,
        });
        // It is written before the manifest says that its segment is sealed.
        if !matches!(self.state, Some(SegmentState::Sealed { .. })) {
            return;
        }
        let mut head = [0; HINT_HEAD_LEN];
        let problem = match file.read_at(&mut head, 0) {
            Ok(()) => {
                let named = HintOwner::read(&head).ok();
                let is_other = owner.is_some_and(|owner| named != Some(owner));
                is_other.then(|| "it belongs to another segment".to_owned())
            }
            Err(e) => Some(e.to_string()),
        };
        if let Some(reason) = problem {
            self.damage
                .push(damage(&path, 0, DamageKind::HintFile, &reason));
        }
    }
}
