//! Work beside the callers: syncing at an interval, compacting in the background.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::Durability;
use super::engine::Engine;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::sync::{
    Condvar, Instant, Mutex, MutexGuard,
    thread::{self, JoinHandle},
    wait_timeout,
};

/// How often the compaction thread looks whether values have expired, if nobody calls it before.
const EXPIRY_CHECK: Duration = Duration::from_secs(5);

/// How long a writer waits for compaction before it looks again.
const WRITER_WAIT: Duration = Duration::from_millis(20);

/// The threads of a store, and how to reach them.
pub(crate) struct Background {
    signal: Arc<Signal>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    compaction_wanted: bool,
    /// Whether the compaction thread is at work.
    compacting: bool,
    /// How many times compaction was paused and not resumed.
    paused: u32,
    /// How many threads wait for a change. Waking is a system call, also where nobody sleeps.
    waiting: u32,
}

impl Background {
    pub(crate) fn new() -> Background {
        Background {
            signal: Arc::default(),
            threads: Mutex::default(),
        }
    }

    /// Changes the state and tells everybody who waits.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.signal.lock();
        change(&mut state);
        self.signal.notify(state);
    }

    /// Asks for a compaction soon.
    pub(crate) fn want_compaction(&self) {
        self.change(|state| state.compaction_wanted = true);
    }

    pub(crate) fn pause(&self) {
        self.change(|state| state.paused += 1);
    }

    pub(crate) fn resume(&self) {
        self.change(|state| {
            state.paused = state.paused.saturating_sub(1);
            state.compaction_wanted = true;
        });
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.signal.lock().paused > 0
    }

    pub(crate) fn is_compacting(&self) -> bool {
        self.signal.lock().compacting
    }

    /// Waits as long as compaction is paused; `None` when the thread is to end.
    pub(crate) fn wait_while_paused(&self) -> Option<()> {
        let mut state = self.signal.lock();
        while state.paused > 0 && !state.stopping {
            state = self.signal.wait(state, None);
        }
        (!state.stopping).then_some(())
    }

    /// Waits as long as the compaction thread is at work and `is_overdue`.
    pub(crate) fn wait_while_compacting(&self, is_overdue: impl Fn() -> bool) {
        loop {
            let state = self.signal.lock();
            let at_work = state.compacting || state.compaction_wanted;
            if !at_work || state.paused > 0 || state.stopping {
                return;
            }
            drop(self.signal.wait(state, Some(WRITER_WAIT)));
            // Asked without the lock: it takes the writer lock.
            if !is_overdue() {
                return;
            }
        }
    }

    /// Tells writers that wait for compaction that it has come further.
    pub(crate) fn note_progress(&self) {
        self.signal.notify(self.signal.lock());
    }

    /// Rests for a while; `None` when the thread is to end.
    pub(crate) fn rest(&self, duration: Duration) -> Option<()> {
        self.signal.rest(duration)
    }

    /// Ends the threads and waits for them.
    pub(crate) fn stop(&self) {
        self.change(|state| state.stopping = true);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for handle in threads.drain(..) {
            // The last handle of a store may be dropped by one of its own threads.
            if handle.thread().id() != thread::current().id() {
                let _ = handle.join();
            }
        }
    }
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everybody who waits.
    fn notify(&self, state: MutexGuard<'_, State>) {
        let has_waiters = state.waiting > 0;
        drop(state);
        if has_waiters {
            self.changed.notify_all();
        }
    }

    fn wait<'g>(
        &'g self,
        mut state: MutexGuard<'g, State>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'g, State> {
        state.waiting += 1;
        let mut state = if let Some(timeout) = timeout {
            wait_timeout(&self.changed, &self.state, state, timeout)
        } else {
            let woken = self.changed.wait(state);
            woken.unwrap_or_else(PoisonError::into_inner)
        };
        state.waiting -= 1;
        state
    }

    /// Waits for so long; `None` when the thread is to end.
    fn rest(&self, duration: Duration) -> Option<()> {
        let begun = Instant::now();
        let mut state = self.lock();
        while !state.stopping {
            let left = duration.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Some(());
            }
            state = self.wait(state, Some(left));
        }
        None
    }

    /// Waits until compaction is wanted, or for a while; `None` when the thread is to end.
    fn wait_for_compaction(&self) -> Option<()> {
        let begun = Instant::now();
        let mut state = self.lock();
        state.compacting = false;
        self.changed.notify_all();
        loop {
            if state.stopping {
                return None;
            }
            let left = EXPIRY_CHECK.saturating_sub(begun.elapsed());
            if std::mem::take(&mut state.compaction_wanted) || left.is_zero() {
                state.compacting = true;
                return Some(());
            }
            state = self.wait(state, Some(left));
        }
    }
}

impl<D: Disk> Engine<D> {
    /// Starts the threads that the settings ask for.
    pub(crate) fn start_background(self: &Arc<Engine<D>>) -> Result<()> {
        if self.settings.read_only {
            return self.start_refreshing();
        }
        if let Durability::Interval(interval) = self.settings.durability {
            self.spawn(
                "crabkv-sync",
                move |engine: &Weak<Engine<D>>, signal: &Signal| {
                    signal.rest(interval)?;
                    // A failure poisons the store, which tells the next writer.
                    let _ = engine.upgrade()?.sync();
                    Some(())
                },
            )?;
        }
        if self.settings.async_compaction && self.settings.auto_compaction {
            self.spawn(
                "crabkv-compact",
                |engine: &Weak<Engine<D>>, signal: &Signal| {
                    signal.wait_for_compaction()?;
                    engine.upgrade()?.compact_in_background()
                },
            )?;
        }
        Ok(())
    }

    /// Lets a read-only store catch up at its interval, if it has one.
    fn start_refreshing(self: &Arc<Engine<D>>) -> Result<()> {
        let Some(interval) = self.settings.refresh_interval else {
            return Ok(());
        };
        self.spawn(
            "crabkv-refresh",
            move |engine: &Weak<Engine<D>>, signal: &Signal| {
                signal.rest(interval)?;
                // A failure is in the stats, and leaves everything as it was; the next time may do
                // better.
                let _ = engine.upgrade()?.refresh();
                Some(())
            },
        )
    }

    /// Runs `work` over and over until it says `None`.
    fn spawn(
        self: &Arc<Engine<D>>,
        name: &'static str,
        work: impl Fn(&Weak<Engine<D>>, &Signal) -> Option<()> + Send + 'static,
    ) -> Result<()> {
        let engine = Arc::downgrade(self);
        let signal = Arc::clone(&self.background.signal);
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || while work(&engine, &signal).is_some() {})
            .map_err(|e| Error::io("start a thread for", &self.settings.dir, e))?;
        self.background
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(handle);
        Ok(())
    }
}
