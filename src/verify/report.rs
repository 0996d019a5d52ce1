//! What a verification found: data to be printed or counted, nothing of it an error.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What [`verify`](crate::verify) found.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # crabkv::Store::open(dir.path())?.put("key", "value")?;
/// let report = crabkv::verify(dir.path())?;
/// for damage in &report.damage {
///     eprintln!("{damage}");
/// }
/// assert!(report.is_sound());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// How many segments were read.
    pub segments: usize,
    /// How many sound records they hold, stale ones and tombstones included.
    pub records: u64,
    /// How many bytes of segments were read.
    pub bytes: u64,
    /// How many hint files were compared with their segments, and fit.
    pub hints: usize,
    /// Everything that is not as it was written, in the order in which it was found.
    pub damage: Vec<Damage>,
    /// What is no damage, but may be of interest.
    pub notes: Vec<Note>,
    /// How long it took.
    pub elapsed: Duration,
}

impl VerifyReport {
    /// Whether nothing is damaged, not even what opening the store makes again.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    /// Whether opening the store mends all the damage there is, and nothing is lost.
    pub fn heals(&self) -> bool {
        self.damage.iter().all(|damage| damage.kind.heals())
    }
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes from its beginning.
    pub offset: u64,
    /// What is damaged.
    pub kind: DamageKind,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, offset, reason) = (self.file.display(), self.offset, &self.reason);
        write!(f, "{file} at offset {offset}: {}: {reason}", self.kind)
    }
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DamageKind {
    /// The manifest cannot be read, is missing, or is older than the segments. Opening is refused.
    Manifest,
    /// A segment that the manifest names is not there. Opening is refused.
    MissingSegment,
    /// A segment's header, or the segment as a whole: it is another one. Opening is refused.
    SegmentHeader,
    /// A segment ends before its records do. Opening is refused.
    SegmentLength,
    /// Records of a segment. Reading them gives an error.
    Record,
    /// A segment's footer cannot be read. If its records are sound, opening makes it again.
    Footer,
    /// A sound footer says something else than the records before it.
    FooterFigures,
    /// A hint file. If the records of its segment are sound, opening makes it again.
    HintFile,
    /// A segment of another store that does not belong here. Opening is refused.
    ForeignSegment,
    /// The system failed to read it.
    Unreadable,
}

impl DamageKind {
    /// Whether opening the store makes again what is damaged: nothing is lost by it.
    pub fn heals(self) -> bool {
        matches!(self, DamageKind::Footer | DamageKind::HintFile)
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DamageKind::Manifest => "manifest",
            DamageKind::MissingSegment => "missing segment",
            DamageKind::SegmentHeader => "segment header",
            DamageKind::SegmentLength => "segment length",
            DamageKind::Record => "record",
            DamageKind::Footer => "footer",
            DamageKind::FooterFigures => "footer figures",
            DamageKind::HintFile => "hint file",
            DamageKind::ForeignSegment => "foreign segment",
            DamageKind::Unreadable => "unreadable",
        })
    }
}

/// Something that is no damage, but may be of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// The file.
    pub file: PathBuf,
    /// What it is.
    pub kind: NoteKind,
    /// In words.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.text)
    }
}

/// What a [`Note`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoteKind {
    /// A sealed segment without a hint file: it takes longer to open, and then gets one.
    NoHintFile,
    /// The end of a write that a crash interrupted, or that is being made right now.
    TornTail,
    /// Bytes behind the end of a segment, which nothing reads.
    BytesBehindEnd,
    /// A file of an interrupted step, or of one that is under way: the next open removes it.
    Orphan,
    /// A copy of a torn tail that recovery cut off. It can be deleted.
    TornCopy,
    /// A file that is not the store's.
    ForeignFile,
}
