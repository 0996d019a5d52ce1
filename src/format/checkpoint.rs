//! The checkpoint file: says that a directory is a checkpoint, and with which manifests it is one.
//!
//! A store that is opened there and written to replaces the manifest by one that is not named
//! here: so it shows that the directory has gone its own way. Two are named, since this file and
//! the manifest cannot be replaced in one step. Without a manifest beside it, the checkpoint was
//! never finished.

use super::manifest::Manifest;
use super::{FORMAT_VERSION, Fields, Invalid, StoreId};

const MAGIC: [u8; 8] = *b"CRABCHK\n";

/// Magic 8, version 4, flags 4, store 16, two generations 8 each, two checksums 4 each, reserved
/// 4, checksum 4.
pub(crate) const CHECKPOINT_LEN: usize = 8 + 4 + 4 + 16 + 2 * 8 + 2 * 4 + 4 + 4;
const CHECKSUM_LEN: usize = 4;

const _: () = assert!(CHECKPOINT_LEN == 64);

/// What tells a manifest from all others of its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ManifestMark {
    generation: u64,
    /// The manifest's own, its last four bytes.
    checksum: u32,
}

impl ManifestMark {
    pub(crate) fn of(manifest: &Manifest) -> ManifestMark {
        let encoded = manifest.encode();
        let checksum = encoded.last_chunk().copied().unwrap_or_default();
        ManifestMark {
            generation: manifest.generation,
            checksum: u32::from_le_bytes(checksum),
        }
    }
}

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointMark {
    pub(crate) store: StoreId,
    /// The manifest that is replaced, and the one that replaces it; `None` where there is none.
    pub(crate) manifests: [Option<ManifestMark>; 2],
}

impl CheckpointMark {
    /// Whether a directory with this manifest is the checkpoint that was made, unchanged.
    pub(crate) fn names(&self, manifest: &Manifest) -> bool {
        self.store == manifest.store && self.manifests.contains(&Some(ManifestMark::of(manifest)))
    }

    /// Whether there was a manifest, or was about to be one, with everything that it names there.
    pub(crate) fn names_any(&self) -> bool {
        self.manifests.iter().any(Option::is_some)
    }

    /// Whether there was a manifest already when this one was written.
    pub(crate) fn names_old(&self) -> bool {
        self.manifests[0].is_some()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CHECKPOINT_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.store.0);
        let of = |field: fn(&ManifestMark) -> u64| {
            self.manifests.map(|mark| mark.as_ref().map_or(0, field))
        };
        // Generations are counted from 1: 0 is none.
        for generation in of(|mark| mark.generation) {
            out.extend_from_slice(&generation.to_le_bytes());
        }
        for checksum in of(|mark| mark.checksum.into()) {
            out.extend_from_slice(&(checksum as u32).to_le_bytes());
        }
        out.extend_from_slice(&[0; 4]);
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<CheckpointMark, Invalid> {
        let mut fields = Fields(bytes);
        fields.magic(MAGIC)?;
        // The version is read before the checksum: a newer format may have another checksum.
        fields.version()?;
        let bytes = bytes.get(..CHECKPOINT_LEN).ok_or(Invalid::Short)?;
        let (covered, checksum) = bytes.split_at(CHECKPOINT_LEN - CHECKSUM_LEN);
        if crc32fast::hash(covered).to_le_bytes() != checksum {
            return Err(Invalid::Checksum);
        }
        let flags = fields.u32()?;
        if flags != 0 {
            return Err(Invalid::Features(flags));
        }
        let store = StoreId(fields.bytes()?);
        let generations = [fields.u64()?, fields.u64()?];
        let checksums = [fields.u32()?, fields.u32()?];
        fields.reserved::<4>()?;
        let mark = |number: usize| {
            let (generation, checksum) = (generations[number], checksums[number]);
            let mark = ManifestMark {
                generation,
                checksum,
            };
            (generation != 0).then_some(mark)
        };
        Ok(CheckpointMark {
            store,
            manifests: [mark(0), mark(1)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{KeyHasher, SegmentId, SeqNo};

    fn manifest(generation: u64) -> Manifest {
        Manifest {
            store: StoreId(*b"0123456789abcdef"),
            hasher: KeyHasher::new(1, 48),
            generation,
            next_segment: SegmentId(1),
            next_seq: SeqNo(1),
            clock_ms: 0,
            history: None,
            segments: Vec::new(),
        }
    }

    fn mark() -> CheckpointMark {
        CheckpointMark {
            store: StoreId(*b"0123456789abcdef"),
            manifests: [
                None,
                Some(ManifestMark {
                    generation: 5,
                    checksum: 0xdead_beef,
                }),
            ],
        }
    }

    #[test]
    fn the_checkpoint_file_is_these_bytes() {
        let bytes = mark().encode();
        assert_eq!(
            &bytes[..60],
            b"CRABCHK\n\x01\0\0\0\0\0\0\x000123456789abcdef\
              \0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\xef\xbe\xad\xde\0\0\0\0"
        );
        assert_eq!(bytes.len(), 64);
        assert_eq!(CheckpointMark::decode(&bytes), Ok(mark()));
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_noticed() {
        let sound = mark().encode();
        for bit in 0..CHECKPOINT_LEN * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(CheckpointMark::decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..CHECKPOINT_LEN {
            assert!(CheckpointMark::decode(&sound[..len]).is_err(), "{len}");
        }
        let mut newer = sound;
        newer[8] = 2;
        assert_eq!(CheckpointMark::decode(&newer), Err(Invalid::Version(2)));
    }

    #[test]
    fn only_the_manifests_that_it_names_make_a_checkpoint() {
        let (old, new) = (manifest(4), manifest(5));
        let mark = CheckpointMark {
            store: old.store,
            manifests: [Some(ManifestMark::of(&old)), Some(ManifestMark::of(&new))],
        };
        assert!(mark.names(&old) && mark.names(&new));
        assert!(!mark.names(&manifest(6)));
        let mut written_to = new;
        written_to.next_seq = SeqNo(2);
        assert!(!mark.names(&written_to));
        let unfinished = CheckpointMark {
            manifests: [None, None],
            ..mark
        };
        assert!(!unfinished.names(&old));
    }
}
