//! What was saved when, for clients that ask as they would ask Redis. Here every write is in the
//! log at once; to save is to sync it, and to rewrite it is compaction.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crabkv::Store;

pub(crate) struct Saves {
    /// Seconds since 1970.
    last: AtomicU64,
    has_failed: AtomicBool,
    is_rewriting: AtomicBool,
    rewrite_has_failed: AtomicBool,
}

impl Default for Saves {
    /// What a store was opened with is saved.
    fn default() -> Saves {
        Saves {
            last: AtomicU64::new(now()),
            has_failed: AtomicBool::new(false),
            is_rewriting: AtomicBool::new(false),
            rewrite_has_failed: AtomicBool::new(false),
        }
    }
}

impl Saves {
    /// Makes everything durable.
    pub(crate) fn save(&self, store: &Store) -> crabkv::Result<()> {
        let saved = store.sync();
        self.has_failed.store(saved.is_err(), Ordering::Relaxed);
        if saved.is_ok() {
            self.last.store(now(), Ordering::Relaxed);
        }
        saved
    }

    /// Whether a rewrite may begin, which it has then.
    pub(crate) fn begin_rewrite(&self) -> bool {
        !self.is_rewriting.swap(true, Ordering::SeqCst)
    }

    /// Compacts the store. It must have [begun](Saves::begin_rewrite).
    pub(crate) fn rewrite(&self, store: &Store) {
        let rewritten = store.compact();
        self.rewrite_has_failed
            .store(rewritten.is_err(), Ordering::Relaxed);
        self.is_rewriting.store(false, Ordering::SeqCst);
    }

    /// When everything was saved last, in seconds since 1970.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    pub(crate) fn is_rewriting(&self) -> bool {
        self.is_rewriting.load(Ordering::Relaxed)
    }

    pub(crate) fn rewrite_has_failed(&self) -> bool {
        self.rewrite_has_failed.load(Ordering::Relaxed)
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
