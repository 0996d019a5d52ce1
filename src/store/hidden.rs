//! What retained tombstones wait for: the segments that hold what they hide.
//!
//! Known only in this process; after opening, a merge of the tombstones finds it out again.

use std::collections::{BTreeMap, HashMap};

use crate::format::SegmentId;

/// Of each segment with retained tombstones, which segments hold what they hide, with how many bytes
/// of the tombstones are retained for the sake of each.
#[derive(Default)]
pub(crate) struct Hidden {
    waiting: HashMap<SegmentId, BTreeMap<SegmentId, u64>>,
}

impl Hidden {
    pub(crate) fn is_hiding(&self, id: SegmentId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Notes that the `retained` bytes of tombstones of `id` hide something in these segments, in
    /// proportion to the figures of each.
    pub(crate) fn hide(
        &mut self,
        id: SegmentId,
        retained: u64,
        hidden_in: &BTreeMap<SegmentId, u64>,
    ) {
        let all: u128 = hidden_in.values().map(|bytes| u128::from(*bytes)).sum();
        let share = |bytes: u64| {
            // Rounded up, so that nothing is left of them once all these segments are gone.
            let share = (u128::from(bytes) * u128::from(retained)).div_ceil(all.max(1));
            u64::try_from(share).unwrap_or(retained)
        };
        let shares = hidden_in
            .iter()
            .map(|(other, bytes)| (*other, share(*bytes)));
        self.waiting.insert(id, shares.collect());
    }

    /// Notes that segments have been merged; gives how many bytes of which segments' tombstones
    /// may go now. Not all that a segment retains, as soon as anything of it is free: one that
    /// hides something in a thousand others would be merged again after each of them.
    pub(crate) fn free(&mut self, gone: &[SegmentId]) -> HashMap<SegmentId, u64> {
        let mut freed = HashMap::new();
        self.waiting.retain(|id, hidden_in| {
            let bytes: u64 = gone.iter().filter_map(|gone| hidden_in.remove(gone)).sum();
            if bytes > 0 {
                freed.insert(*id, bytes);
            }
            !hidden_in.is_empty() && !gone.contains(id)
        });
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_are_freed_as_far_as_what_they_hide_is_gone() {
        let mut hidden = Hidden::default();
        let hidden_in = [(1, 100), (2, 300), (3, 100)].map(|(id, bytes)| (SegmentId(id), bytes));
        hidden.hide(SegmentId(9), 50, &hidden_in.into());
        assert_eq!(hidden.free(&[SegmentId(4)]), HashMap::new());
        let freed = hidden.free(&[SegmentId(2), SegmentId(4)]);
        assert_eq!(freed, HashMap::from([(SegmentId(9), 30)]));
        let freed = hidden.free(&[SegmentId(1), SegmentId(3)]);
        assert_eq!(freed, HashMap::from([(SegmentId(9), 20)]));
        assert!(!hidden.is_hiding(SegmentId(9)));
    }
}
