//! Which segments there are to look at, and what to do when a writer changes that meanwhile.

use std::collections::BTreeMap;

use super::source::Source;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::names::{self, FileName};
use crate::format::{KeyHasher, SegmentId, StoreId};
use crate::log::manifest_file;
use crate::verify::{self, Damage, Found};

/// A store at one commit, or a directory whose manifest is damaged.
pub(super) struct View {
    pub(super) manifest: Result<Manifest, Damage>,
    /// In ascending order; in no state where no manifest says it.
    segments: Vec<(SegmentId, Option<SegmentState>)>,
}

/// What a look at a segment gave.
pub(super) struct Seen<T> {
    pub(super) what: T,
    /// Nothing about it is damaged or missing, which a newer manifest might explain.
    pub(super) is_whole: bool,
}

impl View {
    pub(super) fn read<D: Disk>(source: &Source<D>) -> Result<View> {
        match verify::find_manifest(&source.disk, &source.dir)? {
            Found::Manifest(manifest) => Ok(View::of(manifest)),
            Found::Damaged(damage) => Ok(View {
                manifest: Err(damage),
                segments: files(source)?,
            }),
        }
    }

    fn of(manifest: Manifest) -> View {
        let segments = manifest.segments.iter();
        View {
            segments: segments.map(|&(id, state)| (id, Some(state))).collect(),
            manifest: Ok(manifest),
        }
    }

    /// The store that segments must belong to.
    pub(super) fn store(&self) -> Option<StoreId> {
        self.manifest.as_ref().ok().map(|manifest| manifest.store)
    }

    pub(super) fn hasher(&self) -> Option<KeyHasher> {
        self.manifest.as_ref().ok().map(|manifest| manifest.hasher)
    }

    /// Whether it is one of the segments, and its state, if that is known.
    pub(super) fn find(&self, id: SegmentId) -> (bool, Option<SegmentState>) {
        let found = self.segments.binary_search_by_key(&id, |(other, _)| *other);
        match found {
            Ok(at) => (true, self.segments[at].1),
            Err(_) => (false, None),
        }
    }

    /// The view by the manifest that a writer has put in the place of this one's.
    pub(super) fn newer<D: Disk>(&self, source: &Source<D>) -> Option<View> {
        let generation = |manifest: &Manifest| manifest.generation;
        let newer = manifest_file::read(&source.disk, &source.dir).ok()??;
        let before = self.manifest.as_ref().ok().map(generation);
        (before != Some(newer.generation)).then(|| View::of(newer))
    }
}

/// The segment files that are there.
fn files<D: Disk>(source: &Source<D>) -> Result<Vec<(SegmentId, Option<SegmentState>)>> {
    let dir = &source.dir;
    let entries = source.disk.list(dir);
    let entries = entries.map_err(|e| Error::io("list", dir, e))?;
    let mut segments: Vec<_> = entries
        .into_iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| match names::parse(&entry.name) {
            FileName::Segment(id) => Some((id, None)),
            _ => None,
        })
        .collect();
    segments.sort_unstable_by_key(|(id, _)| *id);
    Ok(segments)
}

/// Looks at every segment. Where one is not whole and a writer has put another manifest in place
/// meanwhile, goes on by that one: what was replaced by a merge is looked at in its outputs, what
/// is in another state now is looked at again. `look` gives nothing where there is nothing.
pub(super) fn survey<D: Disk, T>(
    source: &Source<D>,
    mut look: impl FnMut(&View, SegmentId, Option<SegmentState>) -> Result<Option<Seen<T>>>,
) -> Result<(View, BTreeMap<SegmentId, T>)> {
    let mut view = View::read(source)?;
    let mut done: BTreeMap<SegmentId, (Option<SegmentState>, T)> = BTreeMap::new();
    let mut left: Vec<_> = view.segments.iter().rev().copied().collect();
    while let Some((id, state)) = left.pop() {
        let Some(Seen { what, is_whole }) = look(&view, id, state)? else {
            continue;
        };
        done.insert(id, (state, what));
        if is_whole {
            continue;
        }
        if let Some(newer) = view.newer(source) {
            // One that is still in the same state is damaged indeed, and done.
            done.retain(|id, (state, _)| newer.find(*id) == (true, *state));
            let is_left = |(id, _): &&(SegmentId, _)| !done.contains_key(id);
            left = newer
                .segments
                .iter()
                .rev()
                .filter(is_left)
                .copied()
                .collect();
            view = newer;
        }
    }
    let done = done.into_iter();
    Ok((view, done.map(|(id, (_, what))| (id, what)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;
    use crate::format::SeqNo;
    use crate::format::manifest::History;

    fn manifest(generation: u64, segments: &[(u64, SegmentState)]) -> Manifest {
        Manifest {
            store: StoreId([7; 16]),
            hasher: KeyHasher::new(1, 48),
            generation,
            next_segment: SegmentId(100),
            next_seq: SeqNo(1),
            clock_ms: 0,
            history: Some(History::WHOLE),
            segments: segments
                .iter()
                .map(|&(id, state)| (SegmentId(id), state))
                .collect(),
        }
    }

    fn source(manifest: &Manifest) -> Source<SimDisk> {
        let disk = SimDisk::new(1);
        let dir = std::path::PathBuf::from("/db");
        disk.create_dir(&dir).unwrap();
        let source = Source { disk, dir };
        commit(&source, manifest);
        source
    }

    fn commit(source: &Source<SimDisk>, manifest: &Manifest) {
        let bytes = manifest.encode();
        source.disk.write_raw(&source.manifest_path(), &bytes);
    }

    const SEALED: SegmentState = SegmentState::Sealed { data_len: 64 };

    #[test]
    fn a_survey_goes_on_by_the_manifest_that_explains_what_is_missing() {
        let source = source(&manifest(
            1,
            &[(1, SEALED), (2, SEALED), (3, SegmentState::Active)],
        ));
        // Segment 2 is merged into 4 while it is looked at, and 3 is sealed.
        let newer = manifest(2, &[(1, SEALED), (3, SEALED), (4, SEALED)]);
        let mut looks = Vec::new();
        let (view, seen) = survey(&source, |_, id, state| {
            looks.push(id.0);
            let is_whole = id != SegmentId(2);
            if !is_whole {
                commit(&source, &newer);
            }
            Ok(Some(Seen {
                what: state,
                is_whole,
            }))
        })
        .unwrap();
        assert_eq!(looks, [1, 2, 3, 4]);
        assert_eq!(view.manifest.unwrap().generation, 2);
        let seen: Vec<_> = seen.into_iter().map(|(id, state)| (id.0, state)).collect();
        assert_eq!(
            seen,
            [(1, Some(SEALED)), (3, Some(SEALED)), (4, Some(SEALED))]
        );
    }

    #[test]
    fn what_is_in_another_state_by_a_newer_manifest_is_looked_at_again() {
        let source = source(&manifest(1, &[(1, SegmentState::Active), (2, SEALED)]));
        let newer = manifest(2, &[(1, SEALED), (2, SEALED)]);
        let mut looks = Vec::new();
        survey(&source, |_, id, state| {
            looks.push((id.0, state));
            if id == SegmentId(2) {
                commit(&source, &newer);
            }
            // Segment 2 is damaged indeed: it is not looked at for ever.
            let is_whole = id != SegmentId(2);
            Ok(Some(Seen { what: (), is_whole }))
        })
        .unwrap();
        assert_eq!(
            looks,
            [
                (1, Some(SegmentState::Active)),
                (2, Some(SEALED)),
                (1, Some(SEALED))
            ]
        );
    }
}
