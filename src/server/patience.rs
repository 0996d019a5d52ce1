//! How long a client may take: to send the rest of a request, to take its answers, to say nothing.
//!
//! What is large may take longer, as long as it moves. So a request of 64 MiB comes over a slow line,
//! and a byte a second, which keeps what it has begun in memory for ever, does not.

use std::time::{Duration, Instant};

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// To send the rest of a request.
    pub(crate) request: Duration,
    /// To take what they are answered.
    pub(crate) write: Duration,
    /// To send the next request; for ever, if `None`.
    pub(crate) idle: Option<Duration>,
}

/// Each so many bytes give a second more.
const BYTES_PER_SECOND: usize = 64 << 10;

/// Something that takes time, such as a request that is arriving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    since: Instant,
}

impl Transfer {
    pub(crate) fn begin() -> Transfer {
        Transfer {
            since: Instant::now(),
        }
    }

    /// Whether it has taken too long for as many bytes as came across.
    pub(crate) fn is_overdue(&self, timeout: Duration, bytes: usize) -> bool {
        self.since.elapsed() > time_for(timeout, bytes)
    }
}

fn time_for(timeout: Duration, bytes: usize) -> Duration {
    timeout.saturating_add(Duration::from_secs((bytes / BYTES_PER_SECOND) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_may_take_longer() {
        let second = Duration::from_secs(1);
        assert_eq!(time_for(second, 0), second);
        assert_eq!(time_for(second, 1000), second);
        assert_eq!(time_for(second, 64 << 20), Duration::from_secs(1025));
        assert_eq!(time_for(Duration::MAX, usize::MAX), Duration::MAX);
    }
}
