//! Which segments are read, and as what: by the manifest, or without one by the directory.

use std::collections::HashMap;
use std::path::Path;

use super::report::ManifestUse;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::hint::HintOwner;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::names::{self, FileName};
use crate::format::segment::{HEADER_LEN, SegmentHeader};
use crate::format::{Invalid, KeyHasher, SegmentId, SeqNo, StoreId};
use crate::log::checkpoint_file;
use crate::progress::Meter;
use crate::segment::salvage;
use crate::verify::{self, Found, Note, NoteKind, bytes};

/// A segment to read.
pub(super) struct Input {
    pub(super) id: SegmentId,
    /// As the manifest says, if it can be believed.
    pub(super) state: Option<SegmentState>,
    /// How long its file is; 0 if it is missing.
    pub(super) file_len: u64,
}

/// What there is to save.
pub(super) struct Plan {
    pub(super) inputs: Vec<Input>,
    pub(super) store: StoreId,
    /// Without the manifest nobody knows what the store's hashes are seeded with.
    pub(super) hasher: Option<KeyHasher>,
    pub(super) next_seq: SeqNo,
    pub(super) clock_ms: u64,
    pub(super) manifest: ManifestUse,
    pub(super) notes: Vec<Note>,
}

/// A segment's file, as far as its first bytes tell.
struct Listed {
    id: SegmentId,
    name: String,
    header: Option<SegmentHeader>,
    /// What its hint file says whose it is.
    hint: Option<HintOwner>,
    file_len: u64,
}

/// Looks at everything but the records; where there is a manifest, at those too, for whether they are
/// newer than it.
pub(super) fn make<D: Disk>(disk: &D, dir: &Path, meter: &mut Meter<'_>) -> Result<Plan> {
    let found = match verify::find_manifest(disk, dir) {
        Err(error @ Error::UnsupportedVersion { .. }) => Err(error),
        found => Ok(found?),
    };
    let (segments, mut notes) = list(disk, dir, meter)?;
    let damaged = match found {
        Ok(Found::Manifest(manifest)) => {
            return by_manifest(disk, dir, &manifest, &segments, notes, meter);
        }
        Ok(Found::Damaged(damage)) => damage.reason,
        // Damage, if it is a store of this version that says so; else it is to be left alone.
        Err(error) => {
            let is_old = segments.iter().any(|segment| segment.header.is_some());
            let path = dir.join(names::MANIFEST);
            if !is_old || is_intact(disk, &path) {
                return Err(error);
            }
            "the format version is damaged".to_owned()
        }
    };
    let store = most_named(&segments);
    let is_ours = |segment: &&Listed| {
        let header = segment.header.as_ref();
        header.is_none_or(|header| header.store == store)
    };
    for segment in segments.iter().filter(|segment| !is_ours(segment)) {
        notes.push(foreign(dir, &segment.name));
    }
    // Newest first: of a record and its copy by a merge, the copy knows more.
    let mut inputs: Vec<_> = segments.iter().filter(is_ours).map(input).collect();
    inputs.reverse();
    Ok(Plan {
        inputs,
        store,
        hasher: None,
        next_seq: SeqNo(1),
        clock_ms: 0,
        manifest: ManifestUse::Rebuilt { reason: damaged },
        notes,
    })
}

fn input(segment: &Listed) -> Input {
    Input {
        id: segment.id,
        state: None,
        file_len: segment.file_len,
    }
}

fn foreign(dir: &Path, name: &str) -> Note {
    Note {
        file: dir.join(name),
        kind: NoteKind::ForeignFile,
        text: "a segment of another store; not read".to_owned(),
    }
}

/// Whether a manifest's checksum fits, whatever its version.
fn is_intact<D: Disk>(disk: &D, path: &Path) -> bool {
    let Ok(Some(file)) = bytes::read(disk, path, u64::MAX) else {
        return false;
    };
    match file.bytes.split_last_chunk::<4>() {
        Some((covered, checksum)) => crc32fast::hash(covered).to_le_bytes() == *checksum,
        None => false,
    }
}

fn by_manifest<D: Disk>(
    disk: &D,
    dir: &Path,
    manifest: &Manifest,
    segments: &[Listed],
    mut notes: Vec<Note>,
    meter: &mut Meter<'_>,
) -> Result<Plan> {
    // Once here, twice for saving, and the new store once, which is hardly longer.
    let bytes: u64 = segments.iter().map(|segment| segment.file_len).sum();
    meter.expect(4 * segments.len(), bytes.saturating_mul(4));
    let len_of = |id| {
        let found = segments.binary_search_by_key(&id, |segment| segment.id);
        found.map_or(0, |at| segments[at].file_len)
    };
    let named = |id: SegmentId| manifest.segments.iter().any(|(other, _)| *other == id);
    let (ours, others): (Vec<_>, Vec<_>) = segments
        .iter()
        .filter(|segment| !named(segment.id))
        .partition(|segment| {
            let header = segment.header.as_ref();
            header.is_none_or(|header| header.store == manifest.store)
        });
    notes.extend(others.iter().map(|other| foreign(dir, &other.name)));
    let outdated = why_outdated(disk, dir, manifest, &ours, meter)?;
    let mut inputs: Vec<_> = manifest
        .segments
        .iter()
        .map(|&(id, state)| Input {
            id,
            // What is sealed stays so, however old the manifest.
            state: Some(state)
                .filter(|state| outdated.is_none() || matches!(state, SegmentState::Sealed { .. })),
            file_len: len_of(id),
        })
        .collect();
    let manifest_use = if let Some(reason) = outdated {
        inputs.extend(ours.iter().copied().map(input));
        inputs.sort_unstable_by_key(|input| input.id);
        inputs.reverse();
        ManifestUse::Outdated { reason }
    } else {
        notes.extend(ours.iter().map(|orphan| Note {
            file: dir.join(&orphan.name),
            kind: NoteKind::Orphan,
            text: "a segment that is no part of the store; not read".to_owned(),
        }));
        ManifestUse::Sound
    };
    Ok(Plan {
        inputs,
        store: manifest.store,
        hasher: Some(manifest.hasher),
        next_seq: manifest.next_seq,
        clock_ms: manifest.clock_ms,
        manifest: manifest_use,
        notes,
    })
}

/// What shows that the manifest is older than the segments, if anything.
fn why_outdated<D: Disk>(
    disk: &D,
    dir: &Path,
    manifest: &Manifest,
    orphans: &[&Listed],
    meter: &mut Meter<'_>,
) -> Result<Option<String>> {
    for (segment, header) in orphans
        .iter()
        .filter_map(|&orphan| Some((orphan, orphan.header?)))
    {
        let path = dir.join(&segment.name);
        let file = bytes::read_telling(disk, &path, u64::MAX, |upto| meter.reach(upto))?;
        let Some(file) = file.map_err(|e| Error::io("read", dir, e))? else {
            continue;
        };
        meter.finish(segment.file_len, file.bytes.len() as u64)?;
        // In a checkpoint that nobody has written to, it is what the next one was about to bring.
        if verify::is_newer(&file.bytes, &header, manifest.next_seq)
            && !checkpoint_file::is_untouched(disk, dir, manifest)
        {
            let reason = format!("{} was written to after it", segment.name);
            return Ok(Some(reason));
        }
    }
    for &(id, state) in &manifest.segments {
        let name = names::segment(id);
        let is_newer = |bytes: &[u8], header: &SegmentHeader| match state {
            SegmentState::Active => false,
            SegmentState::Closed { data_len } => salvage::is_sound_at(bytes, header, data_len),
            SegmentState::Sealed { .. } => verify::is_newer(bytes, header, manifest.next_seq),
        };
        let path = dir.join(&name);
        let file = bytes::read_telling(disk, &path, u64::MAX, |upto| meter.reach(upto))?;
        let Ok(Some(file)) = file else {
            continue;
        };
        let len = file.bytes.len() as u64;
        meter.finish(len, len)?;
        let header = SegmentHeader::decode(&file.bytes).ok();
        let header = header.filter(|header| header.store == manifest.store && header.id == id);
        if header.is_some_and(|header| is_newer(&file.bytes, &header)) {
            return Ok(Some(format!("{name} was written to after it")));
        }
    }
    Ok(None)
}

/// The store that most headers and hint files name.
fn most_named(segments: &[Listed]) -> StoreId {
    let mut votes: HashMap<[u8; 16], usize> = HashMap::new();
    for segment in segments {
        let header = segment.header.map(|header| header.store);
        let hint = segment.hint.map(|hint| hint.store);
        for store in header.into_iter().chain(hint) {
            *votes.entry(store.0).or_default() += 1;
        }
    }
    let most = votes
        .into_iter()
        .max_by_key(|&(store, count)| (count, store));
    StoreId(most.map_or([0; 16], |(store, _)| store))
}

/// The directory's segments in the order of their ids, and what else is there.
fn list<D: Disk>(disk: &D, dir: &Path, meter: &mut Meter<'_>) -> Result<(Vec<Listed>, Vec<Note>)> {
    let entries = disk.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let (mut segments, mut notes) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = dir.join(&entry.name);
        let (kind, text) = match names::parse(&entry.name) {
            FileName::Segment(id) if !entry.is_dir => {
                meter.ask()?;
                segments.push(listed(disk, dir, id, entry.name)?);
                continue;
            }
            FileName::Torn(_) => (
                NoteKind::TornCopy,
                "a copy of what recovery cut off; not read",
            ),
            FileName::Foreign => (NoteKind::ForeignFile, "not the store's; not read"),
            _ => continue,
        };
        notes.push(Note {
            file: path,
            kind,
            text: text.to_owned(),
        });
    }
    segments.sort_unstable_by_key(|segment| segment.id);
    notes.sort_unstable_by(|a, b| a.file.cmp(&b.file));
    Ok((segments, notes))
}

fn listed<D: Disk>(disk: &D, dir: &Path, id: SegmentId, name: String) -> Result<Listed> {
    let path = dir.join(&name);
    // What cannot be read is dealt with where it is read for good.
    let head = bytes::read(disk, &path, HEADER_LEN as u64).ok().flatten();
    let (head, file_len) = head.map_or((Vec::new(), 0), |file| (file.bytes, file.file_len));
    let header = match SegmentHeader::decode(&head) {
        Ok(header) => Some(header),
        Err(reason @ (Invalid::Version(_) | Invalid::Features(_)))
            if SegmentHeader::is_intact(&head) =>
        {
            return Err(Error::invalid(&path, 0, "segment header", &reason));
        }
        Err(_) => None,
    };
    let hint = super::input::read_hint(disk, dir, id).map(|(_, owner)| owner);
    Ok(Listed {
        id,
        name,
        header,
        hint,
        file_len,
    })
}
