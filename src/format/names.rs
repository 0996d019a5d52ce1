//! File names: id to name and name to id, side by side.

use super::SegmentId;

/// The lock file.
pub(crate) const LOCK: &str = "LOCK";
/// The manifest.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// The next manifest, before it is renamed to [`MANIFEST`].
pub(crate) const MANIFEST_TMP: &str = "MANIFEST.tmp";
/// What makes the directory a checkpoint.
pub(crate) const CHECKPOINT: &str = "CHECKPOINT";
/// A file on its way into a checkpoint, before it is renamed.
pub(crate) const CHECKPOINT_TMP: &str = "CHECKPOINT.tmp";

/// Room kept back for a full disk.
pub(crate) const RESERVE: &str = "RESERVE";

/// Digits of a segment id in a file name, so that names sort as ids do.
const ID_DIGITS: usize = 12;

/// What a file name in a data directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    Lock,
    Manifest,
    ManifestTmp,
    Reserve,
    Checkpoint,
    CheckpointTmp,
    Segment(SegmentId),
    Hint(SegmentId),
    /// The bytes that recovery cut off a torn tail.
    Torn(SegmentId),
    /// Not a name that the store gives.
    Foreign,
}

pub(crate) fn segment(id: SegmentId) -> String {
    format!("{:0ID_DIGITS$}.seg", id.0)
}

pub(crate) fn hint(id: SegmentId) -> String {
    format!("{:0ID_DIGITS$}.hint", id.0)
}

pub(crate) fn torn(id: SegmentId) -> String {
    format!("{:0ID_DIGITS$}.torn", id.0)
}

/// The inverse of the functions above.
pub(crate) fn parse(name: &str) -> FileName {
    match name {
        LOCK | "LOCK.holder" => return FileName::Lock,
        MANIFEST => return FileName::Manifest,
        MANIFEST_TMP => return FileName::ManifestTmp,
        RESERVE => return FileName::Reserve,
        CHECKPOINT => return FileName::Checkpoint,
        CHECKPOINT_TMP => return FileName::CheckpointTmp,
        _ => {}
    }
    let Some((stem, extension)) = name.split_once('.') else {
        return FileName::Foreign;
    };
    let Some(id) = parse_id(stem) else {
        return FileName::Foreign;
    };
    match extension {
        "seg" => FileName::Segment(id),
        "hint" => FileName::Hint(id),
        "torn" => FileName::Torn(id),
        _ => FileName::Foreign,
    }
}

/// Accepts exactly what the formatting writes: at least [`ID_DIGITS`] digits, no other padding.
fn parse_id(stem: &str) -> Option<SegmentId> {
    let digits = stem.len() >= ID_DIGITS && stem.bytes().all(|b| b.is_ascii_digit());
    let canonical = stem.len() == ID_DIGITS || !stem.starts_with('0');
    let id = stem.parse().ok().filter(|_| digits && canonical)?;
    (id != 0).then_some(SegmentId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        assert_eq!(segment(SegmentId(1)), "000000000001.seg");
        assert_eq!(hint(SegmentId(42)), "000000000042.hint");
        assert_eq!(torn(SegmentId(42)), "000000000042.torn");
        assert_eq!(segment(SegmentId(1_234_567_890_123)), "1234567890123.seg");
    }

    #[test]
    fn every_name_that_is_written_is_read_back() {
        for id in [1, 999_999_999_999, 1_000_000_000_000, u64::MAX].map(SegmentId) {
            assert_eq!(parse(&segment(id)), FileName::Segment(id));
            assert_eq!(parse(&hint(id)), FileName::Hint(id));
            assert_eq!(parse(&torn(id)), FileName::Torn(id));
        }
    }

    #[test]
    fn other_names_are_foreign() {
        for name in [
            "1.seg",
            "0000000000001.seg",
            "000000000000.seg",
            "00000000000x.seg",
            "+00000000001.seg",
            "000000000001.seg.bak",
            "000000000001",
            "notes.txt",
            ".hidden",
            "",
        ] {
            assert_eq!(parse(name), FileName::Foreign, "{name}");
        }
    }
}
