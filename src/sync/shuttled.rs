//! What shuttle lacks: time, and a cell that is filled once.
//!
//! Shuttle knows no time, and its waits have no end. Here time passes by being looked at, and all
//! at once when somebody waits for it: a wait with a timeout lets all others go on, then its time
//! is over. Any real machine could be as slow as that, so whatever must not go wrong must not go
//! wrong here.

use std::cell::Cell;
use std::ops::Add;
use std::sync::PoisonError;
use std::time::Duration;

use shuttle::sync::{Condvar, Mutex, MutexGuard};
use shuttle::thread;

thread_local! {
    /// Shuttle runs all threads of a test on one thread of the system, which this belongs to.
    static NOW: Cell<Duration> = const { Cell::new(Duration::from_secs(1)) };
}

fn pass(time: Duration) -> Duration {
    NOW.with(|now| {
        now.set(now.get().saturating_add(time));
        now.get()
    })
}

/// A moment, a microsecond after the one that was looked at before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Instant {
        Instant(pass(Duration::from_micros(1)))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(*self)
    }

    pub(crate) fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) fn checked_add(&self, duration: Duration) -> Option<Instant> {
        self.0.checked_add(duration).map(Instant)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0 + duration)
    }
}

/// As the standard library's wait, but that nobody's notification ends it early.
pub(crate) fn wait_timeout<'m, T>(
    _condvar: &Condvar,
    mutex: &'m Mutex<T>,
    guard: MutexGuard<'m, T>,
    timeout: Duration,
) -> MutexGuard<'m, T> {
    drop(guard);
    thread::yield_now();
    pass(timeout);
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cell that is filled once, as the standard library's. Whoever fills it holds a lock that
/// shuttle knows, so that those who come meanwhile wait.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    filling: Mutex<()>,
    value: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) const fn new() -> OnceLock<T> {
        OnceLock {
            filling: Mutex::new(()),
            value: std::sync::OnceLock::new(),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        thread::sleep(Duration::ZERO);
        self.value.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        self.value.set(value)
    }

    pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody else fills it meanwhile: that takes the lock.
        if self.value.get().is_none() {
            let value = init();
            return self.value.get_or_init(|| value);
        }
        self.value.get_or_init(|| unreachable!("it is filled"))
    }

    pub(crate) fn take(&mut self) -> Option<T> {
        self.value.take()
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> OnceLock<T> {
        OnceLock::new()
    }
}

/// Begins a thread that ends within the scope; shuttle refuses none.
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<thread::ScopedJoinHandle<'scope, T>> {
    Ok(scope.spawn(work))
}
