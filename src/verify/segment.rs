//! One segment against itself, its hint file and what the manifest says of it.

use std::path::{Path, PathBuf};

use super::bytes::{self, FileBytes};
use super::report::{Damage, DamageKind, Note, NoteKind};
use crate::bugs::{Bug, is_planted};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::hint::{self, Hint, HintEntry, HintOwner};
use crate::format::manifest::SegmentState;
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{Invalid, KeyHasher, SegmentId, SeqNo, StoreId, names};
use crate::progress::Meter;
use crate::segment::hint::Summary;
use crate::segment::salvage::{self, Damaged, Tail, Walk, Walked};
use crate::segment::writer::hint_owner;

/// How often the end of a segment is read again that seems damaged, while it is always another
/// place: then somebody is writing there.
const MAX_READS: usize = 16;

/// What a segment must fit. Without a manifest, only itself.
pub(super) struct Checker<'a, D> {
    pub(super) disk: &'a D,
    pub(super) dir: &'a Path,
    pub(super) store: Option<StoreId>,
    pub(super) hasher: Option<KeyHasher>,
    pub(super) next_seq: Option<SeqNo>,
}

/// What was found in one segment.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) damage: Vec<Damage>,
    pub(super) notes: Vec<Note>,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) hints: usize,
}

impl Findings {
    fn damage(&mut self, file: &Path, offset: u64, kind: DamageKind, reason: impl Into<String>) {
        self.damage.push(Damage {
            file: file.to_path_buf(),
            offset,
            kind,
            reason: reason.into(),
        });
    }

    fn note(&mut self, file: &Path, kind: NoteKind, text: impl Into<String>) {
        self.notes.push(Note {
            file: file.to_path_buf(),
            kind,
            text: text.into(),
        });
    }
}

/// The records of a segment and where they are not sound.
struct Content {
    path: PathBuf,
    file: FileBytes,
    summary: Summary,
    walked: Walked,
}

impl<D: Disk> Checker<'_, D> {
    /// Checks a segment in the state that the manifest says, or else in the one that its files say.
    ///
    /// # Errors
    ///
    /// When it is of a newer format: nothing can be said about it. When it is cancelled.
    pub(super) fn check(
        &self,
        id: SegmentId,
        state: Option<SegmentState>,
        meter: &mut Meter<'_>,
    ) -> Result<Findings> {
        let mut found = Findings::default();
        let path = self.dir.join(names::segment(id));
        let most = match state {
            Some(SegmentState::Sealed { data_len }) => data_len.saturating_add(FOOTER_LEN as u64),
            _ => u64::MAX,
        };
        let Some((file, header)) = self.open(&path, id, most, &mut found, meter)? else {
            return Ok(found);
        };
        let state = state.unwrap_or_else(|| {
            let hint = bytes::read(self.disk, &self.hint_path(id), u64::MAX);
            let hint = hint.ok().flatten().map(|hint| hint.bytes);
            state_by_files(&file.bytes, &header, hint.as_deref())
        });
        match state {
            SegmentState::Active => self.active(path, file, header, &mut found, meter)?,
            SegmentState::Closed { data_len } => {
                self.closed(path, file, header, data_len, &mut found);
            }
            SegmentState::Sealed { data_len } => {
                self.sealed(path, file, header, data_len, &mut found);
            }
        }
        Ok(found)
    }

    fn hint_path(&self, id: SegmentId) -> PathBuf {
        self.dir.join(names::hint(id))
    }

    /// Reads a segment's file and header; `None` when that is all there is to say.
    fn open(
        &self,
        path: &Path,
        id: SegmentId,
        most: u64,
        found: &mut Findings,
        meter: &mut Meter<'_>,
    ) -> Result<Option<(FileBytes, SegmentHeader)>> {
        let read = bytes::read_telling(self.disk, path, most, |upto| meter.reach(upto))?;
        let file = match read {
            Ok(Some(file)) => file,
            Ok(None) => {
                let reason = "the manifest names this segment, but it is missing";
                found.damage(path, 0, DamageKind::MissingSegment, reason);
                return Ok(None);
            }
            Err(e) => {
                found.damage(path, 0, DamageKind::Unreadable, e.to_string());
                return Ok(None);
            }
        };
        for bad in &file.unreadable {
            let reason = format!("{} bytes: {}", bad.end - bad.start, bad.reason);
            found.damage(path, bad.start, DamageKind::Unreadable, reason);
        }
        found.bytes = file.bytes.len() as u64;
        let header = match SegmentHeader::decode(&file.bytes) {
            Ok(header) => header,
            Err(reason @ (Invalid::Version(_) | Invalid::Features(_)))
                if SegmentHeader::is_intact(&file.bytes) =>
            {
                return Err(Error::invalid(path, 0, "segment header", &reason));
            }
            Err(reason) => {
                if !file.is_unreadable(0, HEADER_LEN as u64) {
                    found.damage(path, 0, DamageKind::SegmentHeader, reason.to_string());
                }
                return Ok(None);
            }
        };
        if header.id != id || self.store.is_some_and(|store| store != header.store) {
            let reason = format!("this is segment {} of store {}", header.id, header.store);
            found.damage(path, 0, DamageKind::SegmentHeader, reason);
            return Ok(None);
        }
        Ok(Some((file, header)))
    }

    fn content(
        &self,
        path: PathBuf,
        file: FileBytes,
        header: SegmentHeader,
        walk: Walk,
        end: usize,
    ) -> Content {
        let mut summary = Summary::new(header.base_seq);
        let hasher = self.hasher.unwrap_or(KeyHasher::new(0, 1));
        let walked = walk.run(&file.bytes[..end], &header, |offset, record| {
            summary.add(offset, &record, hasher);
        });
        Content {
            path,
            file,
            summary,
            walked,
        }
    }

    fn sealed(
        &self,
        path: PathBuf,
        file: FileBytes,
        header: SegmentHeader,
        data_len: u64,
        found: &mut Findings,
    ) {
        let end = data_len.min(file.bytes.len() as u64);
        if end < data_len || data_len < HEADER_LEN as u64 {
            let reason = ends_early(&file, data_len);
            found.damage(&path, end, DamageKind::SegmentLength, reason);
        }
        let content = self.content(path, file, header, Walk::SEALED, end as usize);
        content.tell(found);
        let Content {
            path,
            file,
            summary,
            walked,
            ..
        } = &content;
        let is_whole = walked.damage.is_empty() && end == data_len;
        let footer = SegmentFooter::decode(&file.bytes[end as usize..], data_len);
        let scanned = is_whole.then(|| summary.footer_of(&file.bytes[..end as usize]));
        match (&footer, &scanned) {
            (Err(reason), _) if !file.is_unreadable(data_len, data_len + FOOTER_LEN as u64) => {
                found.damage(path, end, DamageKind::Footer, reason.to_string());
            }
            (Ok(footer), Some(scanned)) if footer != scanned => {
                let reason = "it does not fit the records before it";
                found.damage(path, data_len, DamageKind::FooterFigures, reason);
            }
            _ => {}
        }
        let behind = file.file_len.saturating_sub(data_len + FOOTER_LEN as u64);
        if behind > 0 {
            let text = format!("{behind} bytes behind the footer");
            found.note(path, NoteKind::BytesBehindEnd, text);
        }
        if let Some(highest) = summary.highest_seq() {
            self.check_age(&header, highest, found);
        }
        let owner = footer
            .ok()
            .or(scanned)
            .map(|footer| hint_owner(&header, &footer));
        self.hint(&header, owner, &content, found);
    }

    /// A sealed segment holds nothing that was written after the manifest.
    fn check_age(&self, header: &SegmentHeader, highest: SeqNo, found: &mut Findings) {
        if self.next_seq.is_some_and(|next| highest >= next) {
            let manifest = self.dir.join(names::MANIFEST);
            let reason = format!("it is older than segment {}, which it names", header.id);
            found.damage(&manifest, 0, DamageKind::Manifest, reason);
        }
    }

    fn closed(
        &self,
        path: PathBuf,
        file: FileBytes,
        header: SegmentHeader,
        data_len: u64,
        found: &mut Findings,
    ) {
        let end = data_len.min(file.bytes.len() as u64);
        if end < data_len || data_len < HEADER_LEN as u64 {
            let reason = ends_early(&file, data_len);
            found.damage(&path, end, DamageKind::SegmentLength, reason);
        }
        let content = self.content(path, file, header, Walk::CLOSED, end as usize);
        content.tell(found);
        let behind = &content.file.bytes[end as usize..];
        if behind.iter().all(|&byte| byte == 0) {
            return;
        }
        // Records are appended only once the manifest says so.
        let later = salvage::is_sound_at(&content.file.bytes, &header, data_len);
        if later {
            let manifest = self.dir.join(names::MANIFEST);
            let reason = format!(
                "it is older than segment {}, which goes on behind {data_len}",
                header.id
            );
            found.damage(&manifest, 0, DamageKind::Manifest, reason);
        } else {
            let text = format!(
                "{} bytes behind the records, which nothing reads",
                behind.len()
            );
            found.note(&content.path, NoteKind::BytesBehindEnd, text);
        }
    }

    /// Bytes that seem damaged are read again: what had been durable before the first read, the
    /// second sees whole, whoever is writing behind it.
    fn active(
        &self,
        path: PathBuf,
        file: FileBytes,
        header: SegmentHeader,
        found: &mut Findings,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let end = file.bytes.len();
        let id = header.id;
        let mut content = self.content(path, file, header, Walk::ACTIVE, end);
        let mut before: Vec<u64> = Vec::new();
        for _ in 0..MAX_READS {
            let seen = |damaged: &Damaged| before.contains(&damaged.start);
            if content.walked.damage.iter().all(seen) {
                break;
            }
            before = content
                .walked
                .damage
                .iter()
                .map(|damaged| damaged.start)
                .collect();
            let mut again = Findings::default();
            let path = content.path.clone();
            let Some((file, header)) = self.open(&path, id, u64::MAX, &mut again, meter)? else {
                *found = again;
                return Ok(());
            };
            *found = again;
            let end = file.bytes.len();
            content = self.content(path, file, header, Walk::ACTIVE, end);
        }
        content
            .walked
            .damage
            .retain(|damaged| before.contains(&damaged.start));
        content.tell(found);
        if let Tail::Torn { len, problem } = &content.walked.tail {
            let text = format!(
                "{len} bytes of an unfinished write at {}: {problem}",
                content.walked.end
            );
            found.note(&content.path, NoteKind::TornTail, text);
        }
        Ok(())
    }

    fn hint(
        &self,
        header: &SegmentHeader,
        owner: Option<HintOwner>,
        content: &Content,
        found: &mut Findings,
    ) {
        let path = self.hint_path(header.id);
        // A longer one cannot be sound; damaged records are counted in by the room they take.
        let records = content.summary.len() + content.file.bytes.len() / 16;
        let file = match bytes::read(self.disk, &path, hint::max_file_len(records) as u64) {
            Ok(Some(file)) => file,
            Ok(None) => {
                let text = "there is no hint file; the next open makes it";
                return found.note(&path, NoteKind::NoHintFile, text);
            }
            Err(e) => return found.damage(&path, 0, DamageKind::HintFile, e.to_string()),
        };
        if let Some(bad) = file.unreadable.first() {
            return found.damage(&path, bad.start, DamageKind::HintFile, &bad.reason[..]);
        }
        let checked = decode_hint(&file.bytes, header, owner)
            .and_then(|hint| compare(&hint, content, self.hasher.is_some()));
        match checked {
            Ok(()) => found.hints += 1,
            Err(reason) => found.damage(&path, 0, DamageKind::HintFile, reason),
        }
    }
}

impl Content {
    fn tell(&self, found: &mut Findings) {
        found.records = self.summary.len() as u64;
        for Damaged {
            start,
            end,
            problem,
        } in &self.walked.damage
        {
            // That it cannot be read has been said.
            if !self.file.is_unreadable(*start, *end) {
                let reason = format!("{problem}; {} bytes are lost", end - start);
                found.damage(&self.path, *start, DamageKind::Record, reason);
            }
        }
    }
}

fn ends_early(file: &FileBytes, data_len: u64) -> String {
    format!(
        "the file has {} bytes, its records end at {data_len}",
        file.file_len
    )
}

/// A hint file of this segment; of the state that it says itself where nothing else tells.
fn decode_hint<'a>(
    bytes: &'a [u8],
    header: &SegmentHeader,
    owner: Option<HintOwner>,
) -> Result<Hint<&'a [u8]>, String> {
    let owner = match owner {
        Some(owner) => Ok(owner),
        None => HintOwner::read(bytes).map(|owner| HintOwner {
            store: header.store,
            segment: header.id,
            base_seq: header.base_seq,
            ..owner
        }),
    };
    owner
        .and_then(|owner| Hint::decode(bytes, &owner))
        .map_err(|reason| reason.to_string())
}

/// Whether a hint lists exactly the records of its segment, but for those that are damaged.
fn compare(hint: &Hint<&[u8]>, content: &Content, knows_hashes: bool) -> Result<(), String> {
    let is_lost = |entry: &HintEntry| {
        let inside = |lost: &Damaged| (lost.start..lost.end).contains(&entry.offset);
        content.walked.damage.iter().any(inside) || entry.offset >= content.file.bytes.len() as u64
    };
    let by_offset =
        |entries: &mut Vec<HintEntry>| entries.sort_unstable_by_key(|entry| entry.offset);
    let mut listed: Vec<_> = hint
        .entries(0..hint.len())
        .filter(|entry| !is_lost(entry))
        .collect();
    let mut there: Vec<_> = content.summary.entries().collect();
    by_offset(&mut listed);
    by_offset(&mut there);
    let same = |listed: &HintEntry, there: &HintEntry| {
        let hash = if knows_hashes {
            there.hash
        } else {
            listed.hash
        };
        *listed == HintEntry { hash, ..*there }
    };
    for (listed, there) in listed.iter().zip(&there) {
        if !same(listed, there) && !is_planted(Bug::VerifyPassesHint) {
            let offset = listed.offset.min(there.offset);
            return Err(format!(
                "it does not fit the record at {offset} of its segment"
            ));
        }
    }
    if listed.len() == there.len() || is_planted(Bug::VerifyPassesHint) {
        Ok(())
    } else {
        let (listed, there) = (listed.len(), there.len());
        Err(format!("it lists {listed} records of {there}"))
    }
}

/// What a segment is by its own files, where no manifest says it: sealed if it ends in a footer, or
/// if its hint file says where its records end.
pub(crate) fn state_by_files(
    bytes: &[u8],
    header: &SegmentHeader,
    hint: Option<&[u8]>,
) -> SegmentState {
    let data_len = bytes.len().saturating_sub(FOOTER_LEN);
    let footer = SegmentFooter::decode(&bytes[data_len..], data_len as u64);
    if data_len >= HEADER_LEN && footer.is_ok() {
        let data_len = data_len as u64;
        return SegmentState::Sealed { data_len };
    }
    let hint = hint.and_then(|bytes| {
        let owner = HintOwner::read(bytes).ok()?;
        Hint::decode(bytes, &owner).ok()?;
        Some(owner)
    });
    match hint {
        Some(HintOwner {
            store,
            segment,
            base_seq,
            data_len,
            ..
        }) if (store, segment, base_seq) == (header.store, header.id, header.base_seq)
                && data_len >= HEADER_LEN as u64
                // Else the sealing failed, and the segment was written on.
                && !salvage::is_sound_at(bytes, header, data_len) =>
        {
            SegmentState::Sealed { data_len }
        }
        _ => SegmentState::Active,
    }
}
