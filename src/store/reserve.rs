//! Room for when the disk is full: a file that is given back so that deletes and compaction, which
//! make room, still work when ordinary writes no longer do.
//!
//! It holds a sixteenth of a segment, and at least a few pages. Whoever finds the disk full for lack
//! of it gives it back; it is made again after the next rotation or merge that finds room.

use std::io::ErrorKind;

use super::engine::Engine;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::names;
use crate::log::LogError;
use crate::sync::{AtomicBool, Ordering};

/// The reserve is one part in so many of a segment.
const PART_OF_SEGMENT: u64 = 16;

/// Segments so short that this part would be less than a page, which only tests have, are not worth
/// a reserve.
const MIN_PART: u64 = 4096;

/// A reserve is no less than this: a manifest, a small segment and its hint file take a page each,
/// however short they are.
const MIN_LEN: u64 = 16 << 10;

/// Whether there is a reserve, and whether the disk was full when somebody last asked it for room.
#[derive(Default)]
pub(crate) struct Reserve {
    is_there: AtomicBool,
    was_full: AtomicBool,
}

impl Reserve {
    /// Notes that the disk was full, or that there was room again.
    pub(crate) fn note_full(&self, full: bool) {
        self.was_full.store(full, Ordering::Relaxed);
    }

    pub(crate) fn was_full(&self) -> bool {
        self.was_full.load(Ordering::Relaxed)
    }
}

impl<D: Disk> Engine<D> {
    /// How long the reserve is; 0 for none.
    fn reserve_len(&self) -> u64 {
        match self.settings.segment_size / PART_OF_SEGMENT {
            0..MIN_PART => 0,
            part => part.max(MIN_LEN),
        }
    }

    /// Makes the reserve if it is not there and the disk has room for it and more.
    pub(crate) fn ensure_reserve(&self) {
        let len = self.reserve_len();
        let is_there = self.reserve.is_there.load(Ordering::Relaxed);
        // A disk that was full until now is left alone until a segment has found room there.
        if len == 0 || is_there || self.reserve.was_full() {
            return;
        }
        let path = self.settings.dir.join(names::RESERVE);
        let made = match self.disk.open(&path, OpenMode::CreateNew) {
            Ok(file) => file.preallocate(len),
            // An earlier process left it, which may have ended before it was whole, or have had
            // smaller segments.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => self
                .disk
                .open(&path, OpenMode::Write)
                .and_then(|file| file.preallocate(len)),
            Err(e) => Err(e),
        };
        if made.is_ok() {
            self.reserve.is_there.store(true, Ordering::Relaxed);
        } else {
            let _ = self.disk.unlink(&path);
        }
    }

    /// Gives the reserve back to the disk; `false` if there is none.
    pub(crate) fn release_reserve(&self) -> bool {
        let path = self.settings.dir.join(names::RESERVE);
        let released = self.disk.unlink(&path).is_ok();
        self.reserve.is_there.store(false, Ordering::Relaxed);
        released
    }

    /// Runs a step of a compaction that takes a manifest's worth of room; should the disk not even
    /// have that, again with what the reserve gives back.
    pub(crate) fn with_reserve(
        &self,
        mut step: impl FnMut() -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        match step() {
            Err(LogError::Unchanged(Error::DiskFull { .. })) if self.release_reserve() => step(),
            done => done,
        }
    }

    /// How many bytes of records a merge may copy.
    pub(crate) fn room_for_merge(&self) -> u64 {
        let reserve = if self.reserve.is_there.load(Ordering::Relaxed) {
            self.reserve_len()
        } else {
            0
        };
        // Who cannot be asked is tried.
        let available = self.disk.available_space(&self.settings.dir);
        let available = available.unwrap_or(u64::MAX).saturating_add(reserve);
        // The rest is for hint files, as in `check_room_for_merge`.
        available / 9 * 8
    }

    /// Fails, before anything is written, if the disk has no room for outputs of `len` bytes and
    /// their hint files. Gives the reserve back if that is what it takes.
    pub(crate) fn check_room_for_merge(&self, len: u64) -> Result<()> {
        let needed = len + len / 8;
        let has_room = || {
            // Who cannot be asked is tried.
            let available = self.disk.available_space(&self.settings.dir);
            available.map_or(true, |available| available >= needed)
        };
        if has_room() || (self.release_reserve() && has_room()) {
            return Ok(());
        }
        let reason = format!("compaction needs {needed} bytes of room for a while");
        let full = std::io::Error::new(ErrorKind::StorageFull, reason);
        Err(Error::io("make room in", &self.settings.dir, full))
    }
}
