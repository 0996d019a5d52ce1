//! Notices what goes wrong inside the store by itself, which no client is told of, and logs it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{error, info, warn};

use super::event_loop::Shared;
use super::figures::Trouble;

/// How often the store is asked.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(crate) struct Watch {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Watch {
    /// Ends [`run`](Watch::run), after a last look.
    pub(crate) fn stop(&self) {
        *self.lock() = true;
        self.changed.notify_one();
    }

    /// Looks now and then, on a thread of its own.
    pub(crate) fn run(&self, shared: &Shared) {
        let mut compaction_failure = None;
        let mut refusal = None;
        let mut is_last = false;
        while !is_last {
            let (stopped, _) = self
                .changed
                .wait_timeout_while(self.lock(), INTERVAL, |stopped| !*stopped)
                .unwrap_or_else(PoisonError::into_inner);
            is_last = *stopped;
            drop(stopped);

            let stats = shared.store.stats();
            if stats.compaction_failure != compaction_failure {
                if let Some(error) = &stats.compaction_failure {
                    shared.figures.note(Trouble::Compaction);
                    warn!(%error, "compaction failed; space is not given back until it works");
                } else {
                    info!("compaction works again");
                }
                compaction_failure = stats.compaction_failure;
            }
            if stats.poisoned != refusal {
                if let Some(error) = &stats.poisoned {
                    shared.figures.note(Trouble::Store);
                    error!(%error, "the store refuses writes until the server is started again");
                }
                refusal = stats.poisoned;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
