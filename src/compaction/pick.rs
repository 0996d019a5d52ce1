//! Which segments to merge, and when: decided from figures alone.

use crate::log::{Slot, Usage};

/// A log of less than this is left alone: 1 MiB.
const MIN_LOG_BYTES: u64 = 1 << 20;

/// Whether a third of the log is stale, and the log is worth the work.
pub(crate) fn is_worth<'a>(segments: impl Iterator<Item = &'a Usage>) -> bool {
    let (total, stale) = segments.fold((0, 0), |(total, stale), usage| {
        let given_back = if usage.has_stale_records() {
            usage.stale_bytes()
        } else {
            0
        };
        (total + usage.data_len, stale + given_back)
    });
    total > MIN_LOG_BYTES && stale.saturating_mul(3) >= total
}

/// The sealed segments with something to give: any record that is not live, or has expired.
pub(crate) fn pick<'a>(
    segments: impl Iterator<Item = (Slot, &'a Usage)>,
    now_ms: u64,
) -> Vec<Slot> {
    segments
        .filter(|(_, usage)| usage.sealed)
        .filter(|(_, usage)| usage.has_stale_records() || usage.earliest_expiry_ms <= now_ms)
        .map(|(slot, _)| slot)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SegmentId;

    fn usage(data_len: u64, live_bytes: u64) -> Usage {
        let live_records = live_bytes / 100;
        let records = data_len / 100;
        let sealed = true;
        Usage {
            data_len,
            records,
            live_records,
            live_bytes,
            sealed,
            ..Usage::new(SegmentId(1))
        }
    }

    #[test]
    fn a_third_of_the_bytes_beyond_one_mebibyte_is_worth_it() {
        let mib = 1 << 20;
        let third = usage(3 * mib, 2 * mib - 64);
        assert!(is_worth([third].iter()));
        assert!(!is_worth([usage(3 * mib, 2 * mib + 1)].iter()));
        assert!(!is_worth([usage(mib, 0)].iter()));
        assert!(is_worth(
            [usage(mib, mib), usage(mib + 128, 0), usage(mib, mib - 64)].iter()
        ));
        assert!(!is_worth([].iter()));
    }

    #[test]
    fn frames_around_live_records_are_not_worth_it() {
        let small = usage(3 << 20, 1 << 20);
        let live_records = small.records;
        assert!(!is_worth(
            [Usage {
                live_records,
                ..small
            }]
            .iter()
        ));
    }

    #[test]
    fn only_sealed_segments_with_something_to_give_are_picked() {
        let whole = usage(1000, 1000);
        let stale = usage(1000, 900);
        let active = Usage {
            sealed: false,
            ..stale
        };
        let expiring = Usage {
            earliest_expiry_ms: 50,
            ..whole
        };
        let segments = [(1, &whole), (2, &stale), (3, &active), (4, &expiring)];
        assert_eq!(pick(segments.into_iter(), 49), [2]);
        assert_eq!(pick(segments.into_iter(), 50), [2, 4]);
    }
}
