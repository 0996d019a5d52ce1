//! What a repair saved and what it could not.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::verify::Note;

/// What [`repair`](crate::repair) saved, and what is lost.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let (damaged, fresh) = (dir.path().join("damaged"), dir.path().join("fresh"));
/// # crabkv::Store::open(&damaged)?.put("key", "value")?;
/// let report = crabkv::repair(&damaged, &fresh)?;
/// for lost in &report.lost {
///     eprintln!("{lost}");
/// }
/// for warning in &report.warnings {
///     eprintln!("{warning}");
/// }
/// assert!(report.is_complete());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// What became of the manifest.
    pub manifest: ManifestUse,
    /// How many segments there were to read.
    pub segments: usize,
    /// How many records were saved, stale ones and tombstones included.
    pub records: u64,
    /// How many keys the new store has, expired ones included.
    pub keys: u64,
    /// How many bytes of records were saved.
    pub bytes: u64,
    /// Bytes of segments that hold records no more. What a crash left of an unfinished write is
    /// not lost and not in here, but in `notes`.
    pub lost: Vec<LostRange>,
    /// How many keys have an older value than they had, as far as hint files tell: the newer one
    /// is lost. Where they do not tell, there may be more.
    pub older_values: u64,
    /// Whether keys may be back that had been deleted, or had expired: a record that said so is
    /// lost, or may be, and an older value of its key is not.
    pub deletions_may_be_lost: bool,
    /// What a person should know, in sentences.
    pub warnings: Vec<String>,
    /// Files that were not read, or not to their end, and why.
    pub notes: Vec<Note>,
    /// How long it took.
    pub elapsed: Duration,
}

impl RepairReport {
    /// Whether the new store is known to have everything that the damaged one had.
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty() && !self.deletions_may_be_lost
    }
}

/// What became of the manifest in a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestUse {
    /// It was sound, and said which segments are the store.
    Sound,
    /// It was sound, but older than the segments: all segments of the directory were read.
    Outdated {
        /// What shows it.
        reason: String,
    },
    /// It was missing or damaged: all segments of the directory were read.
    Rebuilt {
        /// What was wrong with it.
        reason: String,
    },
}

/// Bytes that hold records no more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRange {
    /// The segment's file.
    pub file: PathBuf,
    /// Where in it they begin, in bytes.
    pub offset: u64,
    /// How many bytes; 0 where nobody knows, as when the file is missing.
    pub len: u64,
    /// How many records they held, if the hint file tells; tombstones and stale ones included.
    pub records: Option<u64>,
    /// What is wrong with them.
    pub reason: String,
}

impl fmt::Display for LostRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, offset, len) = (self.file.display(), self.offset, self.len);
        write!(f, "{file} at offset {offset}: {len} bytes lost")?;
        if let Some(records) = self.records {
            write!(f, ", {records} records")?;
        }
        write!(f, ": {}", self.reason)
    }
}
