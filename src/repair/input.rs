//! One damaged segment: what of it can be read, and what its hint file knows of the rest.

use std::path::{Path, PathBuf};

use super::header;
use super::plan::Input;
use super::report::LostRange;
use crate::disk::Disk;
use crate::error::{Error, Result, is_refusal};
use crate::format::hint::{Hint, HintEntry, HintOwner};
use crate::format::manifest::SegmentState;
use crate::format::record::Record;
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{SegmentId, StoreId, names};
use crate::progress::Meter;
use crate::segment::salvage::{Damaged, Tail, Walk};
use crate::segment::writer::hint_owner;
use crate::verify::bytes::{self, FileBytes};
use crate::verify::state_by_files;

/// How segments are read.
pub(super) struct Reader<'a, D> {
    pub(super) disk: &'a D,
    pub(super) dir: &'a Path,
    pub(super) store: StoreId,
    pub(super) takes_partial_batches: bool,
}

/// A segment as far as it could be read.
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    /// `None` if its records cannot be decoded.
    content: Option<Content>,
    /// Lists all records that the segment had, if it is there and sound.
    hint: Option<Hint<Vec<u8>>>,
    /// What is lost whatever the records are like.
    lost: Vec<(u64, u64, String)>,
    pub(super) header_was_rebuilt: bool,
    pub(super) file_len: u64,
}

struct Content {
    header: SegmentHeader,
    bytes: Vec<u8>,
    walk: Walk,
}

/// What a walk over a loaded segment found beside its records.
pub(super) struct Rest {
    pub(super) lost: Vec<LostRange>,
    /// The records that were lost, if a hint file lists them all.
    pub(super) entries: Option<Vec<HintEntry>>,
    /// Where an unfinished write begins, how long it is and why it is none.
    pub(super) torn: Option<String>,
}

impl<D: Disk> Reader<'_, D> {
    /// # Errors
    ///
    /// When it is cancelled, and when the system refuses to read what is there.
    pub(super) fn load(&self, input: &Input, meter: &mut Meter<'_>) -> Result<Loaded> {
        let path = self.dir.join(names::segment(input.id));
        let mut loaded = Loaded {
            path,
            content: None,
            hint: None,
            lost: Vec::new(),
            header_was_rebuilt: false,
            file_len: 0,
        };
        let hint = read_hint(self.disk, self.dir, input.id)
            .filter(|(_, owner)| (owner.store, owner.segment) == (self.store, input.id));
        let read =
            bytes::read_telling(self.disk, &loaded.path, u64::MAX, |upto| meter.reach(upto))?;
        let refused = |error| Err(Error::io("read", &loaded.path, error));
        let file = match read {
            Ok(Some(FileBytes {
                refused: Some(error),
                ..
            })) => return refused(error),
            // Nothing is lost that can be read the next time.
            Err(error) if is_refusal(&error) => return refused(error),
            Ok(Some(file)) => file,
            other => {
                let reason = match other {
                    Err(e) => e.to_string(),
                    Ok(_) => "the segment is missing".to_owned(),
                };
                let end = hint.as_ref().map_or(0, |(_, owner)| owner.data_len);
                loaded.lost.push((0, end, reason));
                loaded.hint = hint
                    .map(|(hint, _)| hint)
                    .filter(|_| is_sealed(input.state));
                return Ok(loaded);
            }
        };
        loaded.file_len = file.file_len;
        let (hint, owner) = hint.unzip();
        let header = self.header(&file, input, owner.as_ref(), &mut loaded);
        let state = input.state.or_else(|| {
            let hint = hint.as_ref().map(Hint::bytes);
            header.map(|header| state_by_files(&file.bytes, &header, hint))
        });
        let fits = owner.is_some_and(|owner| match state {
            Some(SegmentState::Sealed { data_len }) => fits(&file, header, owner, data_len),
            _ => false,
        });
        loaded.hint = hint.filter(|_| fits);
        loaded.take(file, header, state);
        Ok(loaded)
    }

    fn header(
        &self,
        file: &FileBytes,
        input: &Input,
        hint: Option<&HintOwner>,
        loaded: &mut Loaded,
    ) -> Option<SegmentHeader> {
        let damaged = match SegmentHeader::decode(&file.bytes) {
            // Without a manifest the header says which segment it is: the name may be wrong.
            Ok(header)
                if header.store == self.store
                    && (header.id == input.id || input.state.is_none()) =>
            {
                return Some(header);
            }
            Ok(header) => format!("this is segment {} of store {}", header.id, header.store),
            Err(damaged) => {
                let rebuilt = header::rebuild(&file.bytes, self.store, input.id, hint);
                if rebuilt.is_some() {
                    loaded.header_was_rebuilt = true;
                    return rebuilt;
                }
                format!("segment header: {damaged}")
            }
        };
        let end = match input.state {
            Some(SegmentState::Sealed { data_len } | SegmentState::Closed { data_len }) => data_len,
            _ => file.file_len,
        };
        loaded.lost.push((0, end, damaged));
        None
    }
}

fn is_sealed(state: Option<SegmentState>) -> bool {
    matches!(state, Some(SegmentState::Sealed { .. }))
}

/// Whether a hint file belongs to this content, as far as there is something to compare it with.
fn fits(file: &FileBytes, header: Option<SegmentHeader>, owner: HintOwner, data_len: u64) -> bool {
    let tail = file.bytes.get(data_len as usize..).unwrap_or_default();
    let footer = SegmentFooter::decode(tail, data_len);
    match (header, footer) {
        (Some(header), Ok(footer)) => owner == hint_owner(&header, &footer),
        (Some(header), Err(_)) => owner.data_len == data_len && owner.base_seq == header.base_seq,
        (None, _) => owner.data_len == data_len,
    }
}

/// A sound hint file and whose it says it is.
pub(super) fn read_hint<D: Disk>(
    disk: &D,
    dir: &Path,
    id: SegmentId,
) -> Option<(Hint<Vec<u8>>, HintOwner)> {
    let file = bytes::read(disk, &dir.join(names::hint(id)), u64::MAX);
    let bytes = file.ok()??.bytes;
    let owner = HintOwner::read(&bytes).ok()?;
    Some((Hint::decode(bytes, &owner).ok()?, owner))
}

impl Loaded {
    fn take(
        &mut self,
        file: FileBytes,
        header: Option<SegmentHeader>,
        state: Option<SegmentState>,
    ) {
        let (Some(header), Some(state)) = (header, state) else {
            return;
        };
        let mut bytes = file.bytes;
        let (walk, data_len) = match state {
            SegmentState::Active => (Walk::ACTIVE, None),
            SegmentState::Closed { data_len } => (Walk::CLOSED, Some(data_len)),
            SegmentState::Sealed { data_len } => (Walk::SEALED, Some(data_len)),
        };
        if let Some(data_len) = data_len {
            let len = bytes.len() as u64;
            if len < data_len {
                let reason = format!("the file ends at {len}, its records at {data_len}");
                self.lost.push((len, data_len, reason));
            }
            bytes.truncate(data_len as usize);
        }
        self.content = Some(Content {
            header,
            bytes,
            walk,
        });
    }

    pub(super) fn header(&self) -> Option<&SegmentHeader> {
        self.content.as_ref().map(|content| &content.header)
    }

    /// The most that a copy of its records takes, with header and footer.
    pub(super) fn capacity(&self) -> usize {
        let records = self
            .content
            .as_ref()
            .map_or(0, |content| content.bytes.len());
        HEADER_LEN + records + FOOTER_LEN
    }

    /// Calls `visit` with every sound record.
    pub(super) fn walk<'a>(
        &'a self,
        partial_batches: bool,
        visit: impl FnMut(u64, Record<'a>),
    ) -> Rest {
        let mut lost = self.lost.clone();
        let mut torn = None;
        if let Some(content) = &self.content {
            let walk = Walk {
                takes_partial_batches: partial_batches,
                ..content.walk
            };
            let walked = walk.run(&content.bytes, &content.header, visit);
            for Damaged {
                start,
                end,
                problem,
            } in walked.damage
            {
                match lost.iter_mut().find(|(other, ..)| *other == end) {
                    // The file ends in the middle of this record.
                    Some((other, ..)) => *other = start,
                    None => lost.push((start, end, problem.to_string())),
                }
            }
            if let Tail::Torn { len, problem } = walked.tail {
                let at = walked.end;
                torn = Some(format!(
                    "{len} bytes of an unfinished write at {at}, not saved: {problem}"
                ));
            }
        }
        lost.sort_unstable_by_key(|(start, ..)| *start);
        let hint = self.hint.as_ref();
        let listed = |start: u64, end: u64| {
            hint.map(|hint| {
                let inside = move |entry: &HintEntry| (start..end).contains(&entry.offset);
                hint.entries(0..hint.len()).filter(inside)
            })
        };
        let mut entries = hint.map(|_| Vec::new());
        let lost = lost
            .into_iter()
            .map(|(start, end, reason)| {
                let here: Option<Vec<_>> = listed(start, end).map(Iterator::collect);
                let records = here.as_ref().map(|here| here.len() as u64);
                if let (Some(entries), Some(here)) = (&mut entries, here) {
                    entries.extend(here);
                }
                LostRange {
                    file: self.path.clone(),
                    offset: start,
                    len: end.saturating_sub(start),
                    records,
                    reason,
                }
            })
            .collect();
        Rest {
            lost,
            entries,
            torn,
        }
    }
}
