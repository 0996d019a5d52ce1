//! Which segments to merge, and when: decided from figures alone.

use crate::log::Usage;

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

/// Whether any record is not live, or has expired.
pub(crate) fn has_something_to_give(usage: &Usage, now_ms: u64) -> bool {
    usage.has_stale_records() || usage.earliest_expiry_ms <= now_ms
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
}
