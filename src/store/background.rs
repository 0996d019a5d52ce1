//! Work beside the callers: syncing at an interval, compacting in the background.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Durability;
use super::engine::Engine;
use crate::disk::Disk;
use crate::error::{Error, Result};

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
}

impl Background {
    pub(crate) fn new() -> Background {
        Background {
            signal: Arc::default(),
            threads: Mutex::default(),
        }
    }

    /// Asks for a compaction soon.
    pub(crate) fn want_compaction(&self) {
        self.signal
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .compaction_wanted = true;
        self.signal.changed.notify_all();
    }

    /// Ends the threads and waits for them.
    pub(crate) fn stop(&self) {
        self.signal
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stopping = true;
        self.signal.changed.notify_all();
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
    /// Waits until `due`, or until it is told to stop (`None`) or to compact (`true`).
    fn wait(&self, due: Option<Instant>) -> Option<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.stopping {
                return None;
            }
            if due.is_none() && std::mem::take(&mut state.compaction_wanted) {
                return Some(true);
            }
            let left = match due {
                Some(due) => match due.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => left,
                    _ => return Some(false),
                },
                None => Duration::MAX,
            };
            state = if due.is_none() {
                self.changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner)
            } else {
                self.changed
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            };
        }
    }
}

impl<D: Disk> Engine<D> {
    /// Starts the threads that the settings ask for.
    pub(crate) fn start_background(self: &Arc<Engine<D>>) -> Result<()> {
        if let Durability::Interval(interval) = self.settings.durability {
            self.spawn(
                "crabkv-sync",
                move |engine: &Weak<Engine<D>>, signal: &Signal| {
                    // A time beyond the end of the clock is never due.
                    let due = Instant::now().checked_add(interval);
                    let due =
                        due.or_else(|| Instant::now().checked_add(Duration::from_secs(1 << 30)));
                    signal.wait(due)?;
                    // A failure poisons the store, which tells the next writer.
                    let _ = engine.upgrade()?.sync();
                    Some(())
                },
            )?;
        }
        if self.settings.async_compaction {
            self.spawn(
                "crabkv-compact",
                |engine: &Weak<Engine<D>>, signal: &Signal| {
                    signal.wait(None)?;
                    // A failure leaves everything as it was; the next rotation asks again.
                    let _ = engine.upgrade()?.compact_if_worth();
                    Some(())
                },
            )?;
        }
        Ok(())
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
