//! The commands that took long, the last ones first: `SLOWLOG`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::clients::Client;

/// How many words of a command are kept, and how much of each.
const MAX_WORDS: usize = 32;
const MAX_WORD_BYTES: usize = 128;

pub(crate) struct Slowlog {
    /// Microseconds from which a command is slow; none is if negative.
    threshold_us: AtomicI64,
    max_len: AtomicUsize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    latest: VecDeque<(u64, Entry)>,
    next_id: u64,
}

/// A command that took long.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Seconds since 1970.
    pub(crate) at: u64,
    pub(crate) took: Duration,
    pub(crate) words: Vec<Vec<u8>>,
    pub(crate) addr: String,
    pub(crate) client: String,
}

impl Entry {
    pub(crate) fn new(words: &[&[u8]], client: &Client, took: Duration) -> Entry {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Entry {
            at: now.map_or(0, |since| since.as_secs()),
            took,
            words: shortened(words),
            addr: client.addr.to_string(),
            client: client.names().name.clone(),
        }
    }
}

/// The words, but not more of them than an entry keeps.
fn shortened(words: &[&[u8]]) -> Vec<Vec<u8>> {
    let is_too_long = words.len() > MAX_WORDS;
    let kept = if is_too_long {
        MAX_WORDS - 1
    } else {
        words.len()
    };
    let mut short: Vec<_> = words[..kept]
        .iter()
        .map(|word| match word.len().checked_sub(MAX_WORD_BYTES) {
            None | Some(0) => word.to_vec(),
            Some(more) => {
                let mut cut = word[..MAX_WORD_BYTES].to_vec();
                cut.extend(format!("... ({more} more bytes)").bytes());
                cut
            }
        })
        .collect();
    if is_too_long {
        let more = words.len() - kept;
        short.push(format!("... ({more} more arguments)").into_bytes());
    }
    short
}

impl Default for Slowlog {
    fn default() -> Slowlog {
        Slowlog {
            threshold_us: AtomicI64::new(10_000),
            max_len: AtomicUsize::new(128),
            entries: Mutex::default(),
        }
    }
}

impl Slowlog {
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        let threshold_us = u64::try_from(self.threshold_us.load(Ordering::Relaxed));
        threshold_us.is_ok_and(|threshold| took >= Duration::from_micros(threshold))
    }

    pub(crate) fn add(&self, entry: Entry) {
        let mut entries = self.lock();
        let id = entries.next_id;
        entries.next_id += 1;
        entries.latest.push_front((id, entry));
        entries.latest.truncate(self.max_len());
    }

    /// At most `count` of them, with their ids, the last first.
    pub(crate) fn latest(&self, count: usize) -> Vec<(u64, Entry)> {
        self.lock().latest.iter().take(count).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().latest.len()
    }

    pub(crate) fn clear(&self) {
        self.lock().latest.clear();
    }

    pub(crate) fn threshold_us(&self) -> i64 {
        self.threshold_us.load(Ordering::Relaxed)
    }

    pub(crate) fn set_threshold_us(&self, threshold_us: i64) {
        self.threshold_us.store(threshold_us, Ordering::Relaxed);
    }

    pub(crate) fn max_len(&self) -> usize {
        self.max_len.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max_len(&self, max_len: usize) {
        self.max_len.store(max_len, Ordering::Relaxed);
        self.lock().latest.truncate(max_len);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(word: &str) -> Entry {
        Entry {
            at: 0,
            took: Duration::ZERO,
            words: vec![word.as_bytes().to_vec()],
            addr: String::new(),
            client: String::new(),
        }
    }

    #[test]
    fn the_last_entries_are_kept_with_their_ids() {
        let log = Slowlog::default();
        log.set_max_len(2);
        for word in ["a", "b", "c"] {
            log.add(entry(word));
        }
        let ids = |log: &Slowlog| log.latest(10).iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(&log), [2, 1]);
        log.clear();
        log.add(entry("d"));
        assert_eq!(ids(&log), [3]);
    }

    #[test]
    fn a_threshold_that_is_negative_lets_nothing_be_slow() {
        let log = Slowlog::default();
        assert!(!log.is_slow(Duration::from_micros(9_999)));
        assert!(log.is_slow(Duration::from_millis(10)));
        log.set_threshold_us(0);
        assert!(log.is_slow(Duration::ZERO));
        log.set_threshold_us(-1);
        assert!(!log.is_slow(Duration::from_secs(3600)));
    }

    #[test]
    fn long_commands_are_shortened_and_say_by_how_much() {
        let long = vec![b'x'; 130];
        let short = shortened(&[b"SET", &long]);
        assert_eq!(short[1].len(), 128 + "... (2 more bytes)".len());
        let many = vec![&b"a"[..]; 40];
        let short = shortened(&many);
        assert_eq!(short.len(), 32);
        assert_eq!(short[31], b"... (9 more arguments)");
    }
}
