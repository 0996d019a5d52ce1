//! Who makes writes durable before they are answered: one thread, for all connections.
//!
//! Each write takes the next number before anybody can see it. A sync that begins after it was
//! applied covers it. Answers
//! are held until the number of the last write before them is covered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use std::time::{Duration, Instant};

use crabkv::{Error, Store};

use super::Mailbox;
use super::histogram::{Distribution, Histogram};

/// How syncs are told apart by the time they take.
const TIMES: &[Duration] = &[
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

pub(crate) struct Syncer {
    /// Otherwise nothing waits, and the store syncs when it does by itself.
    is_wanted: bool,
    /// How many writes have begun. Those that are being applied hold the gate.
    begun: AtomicU64,
    gate: RwLock<()>,
    /// How many of them are durable.
    durable: AtomicU64,
    /// Held by whoever syncs.
    syncing: Mutex<()>,
    /// How long a sync takes, lately; 0 before the first.
    typical_ns: AtomicU64,
    wanted: Mutex<Wanted>,
    changed: Condvar,
    /// Why nothing can be made durable any more.
    failure: OnceLock<Error>,
    times: Histogram,
    /// Whom to tell.
    mailboxes: Vec<Arc<Mailbox>>,
}

#[derive(Default)]
struct Wanted {
    upto: u64,
    stop: bool,
}

/// A sync that takes no longer is quicker done than handed over: that takes two wake-ups.
const QUICK_NS: u64 = 200_000;

impl Syncer {
    pub(crate) fn new(is_wanted: bool, mailboxes: Vec<Arc<Mailbox>>) -> Syncer {
        Syncer {
            is_wanted,
            begun: AtomicU64::new(0),
            gate: RwLock::new(()),
            durable: AtomicU64::new(0),
            syncing: Mutex::new(()),
            typical_ns: AtomicU64::new(0),
            wanted: Mutex::default(),
            changed: Condvar::new(),
            failure: OnceLock::new(),
            times: Histogram::new(TIMES),
            mailboxes,
        }
    }

    /// Does a write. From before anybody can see it until it is durable, answers are held.
    pub(crate) fn write<T>(&self, apply: impl FnOnce() -> T) -> T {
        if !self.is_wanted {
            return apply();
        }
        let _passage = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.begun.fetch_add(1, Ordering::SeqCst);
        apply()
    }

    /// What an answer that is made now must wait for: the number of the last write, unless all of
    /// them are durable.
    pub(crate) fn hold(&self) -> Option<u64> {
        let begun = self.begun.load(Ordering::SeqCst);
        (begun > self.durable()).then_some(begun)
    }

    /// Up to which number writes are durable.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }

    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    /// How long the syncs took.
    pub(crate) fn times(&self) -> Distribution {
        self.times.distribution()
    }

    /// Asks for a sync of every write so far, and does not wait for it, unless waiting is quicker
    /// than handing it over. Says whether it is done.
    pub(crate) fn request(&self, store: &Store) -> bool {
        let upto = self.begun.load(Ordering::SeqCst);
        // After a failure nothing can be made durable: it is not tried again.
        if upto <= self.durable() || self.failure().is_some() {
            return false;
        }
        if self.is_quick() {
            if let Ok(_turn) = self.syncing.try_lock() {
                self.sync(store);
                return true;
            }
        }
        let mut wanted = self.lock();
        wanted.upto = wanted.upto.max(upto);
        self.changed.notify_one();
        false
    }

    /// Whether a loop syncs by itself: where no other loop waits for it, and the disk takes no longer
    /// than two threads take to wake each other.
    fn is_quick(&self) -> bool {
        let typical = self.typical_ns.load(Ordering::Relaxed);
        self.mailboxes.len() == 1 && (1..=QUICK_NS).contains(&typical)
    }

    /// Ends [`run`](Syncer::run) after what was asked for.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_one();
    }

    /// Syncs as asked, on a thread of its own.
    pub(crate) fn run(&self, store: &Store) {
        while self.wait() {
            let turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
            self.sync(store);
            drop(turn);
            for mailbox in &self.mailboxes {
                mailbox.wake();
            }
            if self.failure.get().is_some() {
                return;
            }
        }
    }

    /// Syncs once. Whoever does holds `syncing`.
    fn sync(&self, store: &Store) {
        // Everything that was applied before the sync begins is covered by it; what has begun is
        // applied when the gate is free.
        let gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let covered = self.begun.load(Ordering::SeqCst);
        drop(gate);
        let begun = Instant::now();
        let synced = store.sync();
        let took = begun.elapsed();
        self.times.note(took);
        self.note_typical(took);
        match synced {
            Ok(()) => self.durable.store(covered, Ordering::SeqCst),
            Err(error) => {
                // The first one counts: after it, nothing can be made durable.
                let _ = self.failure.set(error);
                // The thread that syncs has nothing more to do, if this is another one.
                let _wanted = self.lock();
                self.changed.notify_one();
            }
        }
    }

    /// A mean in which the latest syncs count most.
    fn note_typical(&self, took: Duration) {
        let took_ns = took.as_nanos() as u64;
        let before = self.typical_ns.load(Ordering::Relaxed);
        let typical = if before == 0 {
            took_ns
        } else {
            before - before / 8 + took_ns / 8
        };
        self.typical_ns.store(typical.max(1), Ordering::Relaxed);
    }

    /// Waits for something to do; `false` when it is all done, or a sync has failed.
    fn wait(&self) -> bool {
        let mut wanted = self.lock();
        loop {
            if self.failure().is_some() {
                return false;
            }
            if wanted.upto > self.durable() {
                return true;
            }
            if wanted.stop {
                return false;
            }
            wanted = self
                .changed
                .wait(wanted)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
