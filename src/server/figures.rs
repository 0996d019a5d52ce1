//! What is counted of the server as a whole: bytes on the network, and what went wrong when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::stream::Traffic;

pub(crate) struct Figures {
    started_at: SystemTime,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    troubles: [Troubles; Trouble::ALL.len()],
}

/// Something that went wrong, by what an operator would look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No connection could be accepted, such as without file descriptors.
    Accept,
    /// A client sent what is no request.
    Protocol,
    /// An encrypted connection failed, such as when keys were to be agreed on.
    Tls,
    /// A wrong password.
    Password,
    /// What was written could not be made durable.
    Sync,
    /// A merge failed.
    Compaction,
    /// The store has begun to refuse writes.
    Store,
}

impl Trouble {
    pub(crate) const ALL: [Trouble; 7] = [
        Trouble::Accept,
        Trouble::Protocol,
        Trouble::Tls,
        Trouble::Password,
        Trouble::Sync,
        Trouble::Compaction,
        Trouble::Store,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Trouble::Accept => "accept",
            Trouble::Protocol => "protocol",
            Trouble::Tls => "tls",
            Trouble::Password => "password",
            Trouble::Sync => "sync",
            Trouble::Compaction => "compaction",
            Trouble::Store => "store",
        }
    }
}

#[derive(Default)]
struct Troubles {
    count: AtomicU64,
    last_ms: AtomicU64,
}

impl Figures {
    pub(crate) fn new() -> Figures {
        Figures {
            started_at: SystemTime::now(),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            troubles: Default::default(),
        }
    }

    /// When the server began, since 1970.
    pub(crate) fn started_at(&self) -> Duration {
        let since_1970 = self.started_at.duration_since(UNIX_EPOCH);
        since_1970.unwrap_or_default()
    }

    pub(crate) fn note_traffic(&self, traffic: Traffic) {
        let add = |counter: &AtomicU64, bytes| {
            if bytes > 0 {
                counter.fetch_add(bytes, Ordering::Relaxed);
            }
        };
        add(&self.received_bytes, traffic.received);
        add(&self.sent_bytes, traffic.sent);
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            received: self.received_bytes.load(Ordering::Relaxed),
            sent: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn note(&self, trouble: Trouble) {
        let troubles = &self.troubles[trouble as usize];
        troubles.count.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.unwrap_or_default().as_millis() as u64;
        troubles.last_ms.store(now_ms, Ordering::Relaxed);
    }

    /// How often it happened.
    pub(crate) fn count(&self, trouble: Trouble) -> u64 {
        self.troubles[trouble as usize]
            .count
            .load(Ordering::Relaxed)
    }

    /// When it happened last, in milliseconds since 1970; 0 for never.
    pub(crate) fn last_ms(&self, trouble: Trouble) -> u64 {
        self.troubles[trouble as usize]
            .last_ms
            .load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_is_counted_for_itself_and_has_a_time() {
        let figures = Figures::new();
        for trouble in Trouble::ALL {
            assert_eq!((figures.count(trouble), figures.last_ms(trouble)), (0, 0));
        }
        figures.note(Trouble::Store);
        figures.note(Trouble::Store);
        let counts = Trouble::ALL.map(|trouble| figures.count(trouble));
        assert_eq!(counts, [0, 0, 0, 0, 0, 0, 2]);
        // After this was written.
        assert!(figures.last_ms(Trouble::Store) > 1_700_000_000_000);
    }
}
