//! How long something takes: how often it took up to so long, and how long in sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) struct Histogram {
    bounds: &'static [Duration],
    /// One for each bound, and one for what is above them all.
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

/// What a histogram had counted at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// How often it took up to so long, shorter times included, for each bound.
    pub(crate) up_to: Vec<(Duration, u64)>,
    pub(crate) count: u64,
    pub(crate) sum: Duration,
}

impl Histogram {
    /// With the longest time of each bucket, in ascending order.
    pub(crate) fn new(bounds: &'static [Duration]) -> Histogram {
        Histogram {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_nanos: AtomicU64::new(0),
        }
    }

    pub(crate) fn note(&self, took: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < took);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn distribution(&self) -> Distribution {
        let mut count = 0;
        let mut below = self.counts.iter().map(|in_bucket| {
            count += in_bucket.load(Ordering::Relaxed);
            count
        });
        let up_to = self.bounds.iter().copied().zip(&mut below).collect();
        below.for_each(drop);
        Distribution {
            up_to,
            count,
            sum: Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_times_up_to_it() {
        const BOUNDS: &[Duration] = &[Duration::from_millis(1), Duration::from_millis(10)];
        let histogram = Histogram::new(BOUNDS);
        for micros in [0, 1000, 1001, 10_000, 20_000] {
            histogram.note(Duration::from_micros(micros));
        }
        let expected = Distribution {
            up_to: vec![(BOUNDS[0], 2), (BOUNDS[1], 4)],
            count: 5,
            sum: Duration::from_micros(32_001),
        };
        assert_eq!(histogram.distribution(), expected);
    }
}
