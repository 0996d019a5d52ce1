//! One sealed segment: its header, footer and hint file, or a full scan where one of them fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, DiskFile, OpenMode, Region};
use crate::error::{Error, Result};
use crate::format::hint::{self, Hint};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{Invalid, KeyHasher, SegmentId, StoreId, names};
use crate::segment::hint::Summary;
use crate::segment::scanner::Check;
use crate::segment::writer::hint_owner;
use crate::segment::{ReadMode, Segment};

/// Where and how a store's files are read.
pub(crate) struct Source<'a, D> {
    pub(crate) disk: &'a D,
    pub(crate) dir: &'a Path,
    pub(crate) store: StoreId,
    pub(crate) hasher: KeyHasher,
    pub(crate) read_mode: ReadMode,
}

/// A segment ready to be read, and what the index needs to know of it.
pub(crate) struct Opened<D: Disk> {
    pub(crate) segment: Segment<D>,
    pub(crate) hint: Hint<Region>,
    pub(crate) data_len: u64,
    /// Set when the segment was scanned.
    pub(crate) rebuilt: Option<Rebuilt>,
}

/// What a scan made anew, to be written once all segments have proved sound.
pub(crate) struct Rebuilt {
    pub(crate) reason: String,
    pub(crate) summary: Summary,
    pub(crate) footer: SegmentFooter,
    pub(crate) footer_was_missing: bool,
}

impl<D: Disk> Source<'_, D> {
    /// Opens a file that the manifest names and reads its header.
    pub(crate) fn open(
        &self,
        id: SegmentId,
        mode: OpenMode,
    ) -> Result<(PathBuf, D::File, SegmentHeader)> {
        let path = self.dir.join(names::segment(id));
        let file = self.disk.open(&path, mode).map_err(|e| {
            if e.kind() == std::io::ErrorKind::NotFound {
                Error::corrupt(
                    &path,
                    0,
                    "the manifest names this segment, but it is missing",
                )
            } else {
                Error::io("open", &path, e)
            }
        })?;
        let mut bytes = [0; HEADER_LEN];
        let header = match file.read_at(&mut bytes, 0) {
            Ok(()) => SegmentHeader::decode(&bytes),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(Invalid::Short),
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        let header =
            header.map_err(|reason| Error::invalid(&path, 0, "segment header", &reason))?;
        if header.store != self.store || header.id != id {
            let reason = format!("this is segment {} of store {}", header.id, header.store);
            return Err(Error::corrupt(&path, 0, reason));
        }
        Ok((path, file, header))
    }

    /// Opens a sealed segment, from its hint file if that is sound.
    pub(crate) fn sealed(&self, id: SegmentId, data_len: u64) -> Result<Opened<D>> {
        let (path, file, header) = self.open(id, OpenMode::Read)?;
        let file_len = file.len().map_err(|e| Error::io("read", &path, e))?;
        let data_len = if is_planted(Bug::TakeShortFileAsWhole) {
            data_len.min(file_len)
        } else {
            data_len
        };
        if file_len < data_len || data_len < HEADER_LEN as u64 {
            let reason = format!("the file has {file_len} bytes, its records end at {data_len}");
            return Err(Error::corrupt(&path, file_len.min(data_len), reason));
        }
        let mut bytes = [0; FOOTER_LEN];
        let footer = match file.read_at(&mut bytes, data_len) {
            Ok(()) => SegmentFooter::decode(&bytes, data_len),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(Invalid::Short),
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        drop(file);
        let disk = self.disk.clone();
        let segment = Segment::sealed(disk, path, header, data_len, self.read_mode)?;
        let hint = match &footer {
            Ok(footer) => self.hint(&header, footer),
            Err(reason) => Err(format!("segment footer: {reason}")),
        };
        match hint {
            Ok(hint) => Ok(Opened {
                segment,
                hint,
                data_len,
                rebuilt: None,
            }),
            Err(reason) => self.rescan(segment, data_len, footer.ok(), reason),
        }
    }

    /// Reads and checks a hint file; why it cannot be used otherwise.
    fn hint(&self, header: &SegmentHeader, footer: &SegmentFooter) -> Result<Hint<Region>, String> {
        let path = self.dir.join(names::hint(header.id));
        let read = || {
            let file = self.disk.open(&path, OpenMode::Read)?;
            let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
            if self.read_mode == ReadMode::Mmap {
                // Where the system refuses, as with too many maps, reading does as well.
                if let Ok(map) = file.map(len) {
                    return Ok(map);
                }
            }
            let mut bytes = vec![0; len];
            file.read_at(&mut bytes, 0)?;
            Ok(Region::from_vec(bytes))
        };
        let bytes = read().map_err(|e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => "there is no hint file".to_owned(),
            _ => format!("hint file: {e}"),
        })?;
        Hint::decode(bytes, &hint_owner(header, footer)).map_err(|e| format!("hint file: {e}"))
    }

    fn rescan(
        &self,
        segment: Segment<D>,
        data_len: u64,
        footer: Option<SegmentFooter>,
        reason: String,
    ) -> Result<Opened<D>> {
        let bytes = self.data_of(&segment, data_len)?;
        let (summary, end) = Summary::of(
            bytes.as_ref().as_ref(),
            segment.header(),
            self.hasher,
            Check::Sealed,
        );
        if let Some(problem) = end.problem {
            return Err(segment.damage(end.end, &problem));
        }
        let scanned = summary.footer_of(bytes.as_ref().as_ref());
        if footer.is_some_and(|footer| footer != scanned) && !is_planted(Bug::TrustFooter) {
            return Err(Error::corrupt(
                segment.path(),
                data_len,
                "the footer does not fit the records before it",
            ));
        }
        let owner = hint_owner(segment.header(), &scanned);
        let hint = encode_hint(&summary, &owner, &segment)?;
        let rebuilt = Rebuilt {
            reason,
            summary,
            footer: scanned,
            footer_was_missing: footer.is_none(),
        };
        Ok(Opened {
            segment,
            hint,
            data_len,
            rebuilt: Some(rebuilt),
        })
    }

    /// A segment's header and records, mapped or read.
    pub(crate) fn data_of(&self, segment: &Segment<D>, data_len: u64) -> Result<Arc<Region>> {
        if let Some(region) = segment.region() {
            return Ok(Arc::clone(region));
        }
        let read = || {
            let file = self.disk.open(segment.path(), OpenMode::Read)?;
            let mut bytes = vec![0; usize::try_from(data_len).unwrap_or(usize::MAX)];
            file.read_at(&mut bytes, 0)?;
            Ok(Arc::new(Region::from_vec(bytes)))
        };
        read().map_err(|e| Error::io("read", segment.path(), e))
    }
}

/// A hint file's content in memory, as if it had been read.
pub(crate) fn encode_hint<D: Disk>(
    summary: &Summary,
    owner: &hint::HintOwner,
    segment: &Segment<D>,
) -> Result<Hint<Region>> {
    let bytes = Region::from_vec(hint::encode(owner, summary.entries()));
    Hint::decode(bytes, owner).map_err(|reason| segment.damage(HEADER_LEN as u64, &reason))
}
