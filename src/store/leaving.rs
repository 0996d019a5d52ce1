//! Segments that have left the store and are still read.

use std::sync::{Arc, PoisonError, Weak};

use crate::disk::Disk;
use crate::segment::Segment;
use crate::sync::{Mutex, MutexGuard};

/// Segments that have been merged but are still read: their files go with their last reader, or if
/// that outlives the store, with the next open. Without the directory's lock nothing may be removed:
/// somebody may have put another store in its place, restored from a checkpoint that has these very
/// segments.
pub(crate) struct Leaving<D: Disk> {
    segments: Mutex<Vec<(Weak<Segment<D>>, u64)>>,
}

impl<D: Disk> Leaving<D> {
    pub(crate) fn new() -> Leaving<D> {
        Leaving {
            segments: Mutex::default(),
        }
    }

    pub(crate) fn add(&self, segment: &Arc<Segment<D>>, data_len: u64) {
        let segment = Arc::downgrade(segment);
        let mut segments = self.lock();
        segments.retain(|(segment, _)| segment.strong_count() > 0);
        segments.push((segment, data_len));
    }

    /// How many bytes their files have.
    pub(crate) fn bytes(&self) -> u64 {
        let mut segments = self.lock();
        segments.retain(|(segment, _)| segment.strong_count() > 0);
        segments.iter().map(|(_, data_len)| data_len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Weak<Segment<D>>, u64)>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Disk> Drop for Leaving<D> {
    fn drop(&mut self) {
        let segments = self.lock();
        let still_read = segments.iter().filter_map(|(segment, _)| segment.upgrade());
        still_read.for_each(|segment| segment.spare());
    }
}
