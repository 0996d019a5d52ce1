//! The store's clock: the wall clock, but never behind a time that it has been seen at.
//!
//! What was seen expired stays expired when the wall clock jumps back, in this process at once
//! and in later ones from the next manifest commit on (every rotation, compaction and close).

use std::time::{Duration, SystemTime};

use crate::bugs::{Bug, is_planted};
use crate::disk::Disk;
use crate::sync::{AtomicU64, Ordering};

pub(crate) struct Clock<D> {
    disk: D,
    high_water_ms: AtomicU64,
}

impl<D: Disk> Clock<D> {
    pub(crate) fn new(disk: D, high_water_ms: u64) -> Clock<D> {
        let is_forgotten = is_planted(Bug::ForgetClock);
        let high_water_ms = if is_forgotten { 0 } else { high_water_ms };
        Clock {
            disk,
            high_water_ms: AtomicU64::new(high_water_ms),
        }
    }

    /// The time, remembered: it never goes back behind what this has returned.
    pub(crate) fn now_ms(&self) -> u64 {
        let now = self.disk.now_ms();
        self.high_water_ms
            .fetch_max(now, Ordering::Relaxed)
            .max(now)
    }

    /// Takes notice of a time that somebody else has seen.
    pub(crate) fn note(&self, seen_ms: u64) {
        self.high_water_ms.fetch_max(seen_ms, Ordering::Relaxed);
    }

    /// Whether something that expires at `expires_at_ms` has. Writes shared memory only where
    /// the answer is yes and new, which must then stay yes.
    #[inline]
    pub(crate) fn has_passed(&self, expires_at_ms: u64) -> bool {
        let expires_at_ms = expires_at_ms.saturating_add(is_planted(Bug::ExpireLate).into());
        if expires_at_ms <= self.high_water_ms.load(Ordering::Relaxed) {
            return true;
        }
        expires_at_ms <= self.disk.now_ms() && expires_at_ms <= self.now_ms()
    }
}

/// A duration in whole milliseconds, rounded up so that nothing expires early.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The system's time in milliseconds since the epoch, rounded up so that nothing expires early. What
/// is before the epoch is at it: both have passed.
pub(crate) fn ms_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, whole_ms)
}

/// A time in milliseconds since the epoch as the system's type.
pub(crate) fn system_time(ms: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_whole_milliseconds_and_never_too_early() {
        let after = |ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns);
        for (ns, ms) in [
            (0, 0),
            (1, 1),
            (999_999, 1),
            (1_000_000, 1),
            (1_000_001, 2),
            (1_700_000_000_123_000_000, 1_700_000_000_123),
        ] {
            // Windows counts in steps of 100 ns.
            assert!(cfg!(windows) || ms_of(after(ns)) == ms, "{ns}");
        }
        assert_eq!(ms_of(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
