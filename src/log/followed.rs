//! The log of a store that is open read-only: what another process makes of its segments is put
//! here as it is found. Nothing is written.

use super::{Log, Slot, Usage};
use crate::disk::Disk;
use crate::format::SeqNo;
use crate::format::manifest::Manifest;

impl<D: Disk> Log<D> {
    /// This is what the directory's manifest says now, and the number after the last record that
    /// was found.
    pub(crate) fn follow(&mut self, manifest: &Manifest, next_seq: SeqNo) {
        if self.manifest.generation != manifest.generation {
            self.manifest.clone_from(manifest);
        }
        self.next_seq = next_seq;
    }

    /// A segment has grown, or was sealed: what it holds, but for what is live in it, which goes
    /// on being counted.
    pub(crate) fn update_usage(&mut self, slot: Slot, new: Usage) {
        if let Some(usage) = self.usage_mut(slot) {
            *usage = Usage {
                live_records: usage.live_records,
                live_bytes: usage.live_bytes,
                ..new
            };
        }
    }

    /// Takes out a segment that the manifest no longer names, and leaves its file alone.
    pub(crate) fn let_go(&mut self, slot: Slot) {
        self.table.remove(slot);
        if let Some(usage) = self.usage.get_mut(slot as usize) {
            *usage = None;
        }
    }
}
