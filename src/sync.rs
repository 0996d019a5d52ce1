//! What threads are made of, as the build wants it: the standard library's; under `cfg(loom)`
//! loom's atomics, which try every order; under `cfg(shuttle)` shuttle's of everything, which runs
//! one thread at a time and chooses, at each use of any of these, who goes on.
//!
//! The store, and what it stands on, takes atomics, locks, threads and the clock of waits from here
//! and from nowhere else: at what came from elsewhere shuttle could not let another thread go on,
//! or would wait for ever. `Arc`, `Weak` and the errors of locks are the standard library's in every
//! build.

#[cfg(shuttle)]
mod shuttled;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockWriteGuard},
    thread,
};
#[cfg(shuttle)]
pub(crate) use shuttled::{Instant, OnceLock, spawn_scoped, wait_timeout};
#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, OnceLock, RwLock, RwLockWriteGuard},
    thread,
    time::Instant,
};

/// Waits for a notification, but no longer than `timeout`; `guard` is of `mutex`. May end for no
/// reason.
#[cfg(not(shuttle))]
pub(crate) fn wait_timeout<'m, T>(
    condvar: &Condvar,
    _mutex: &'m Mutex<T>,
    guard: MutexGuard<'m, T>,
    timeout: std::time::Duration,
) -> MutexGuard<'m, T> {
    let waited = condvar.wait_timeout(guard, timeout);
    waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
}

/// Locks what is held for a microsecond or two at a time: looks for about ten whether it is free,
/// before it has the thread put to sleep and woken, which takes as long and the holder's time too.
/// Poisoned or not.
pub(crate) fn lock_briefly<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(not(any(loom, shuttle)))]
    for _ in 0..LOOKS {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => {}
        }
        (0..PAUSES).for_each(|_| std::hint::spin_loop());
    }
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How often a lock is looked at before its holder is waited for, and the pauses in between, of
/// about 15 ns.
#[cfg(not(any(loom, shuttle)))]
const LOOKS: u32 = 64;
#[cfg(not(any(loom, shuttle)))]
const PAUSES: u32 = 10;

/// Begins a thread that ends within the scope.
///
/// # Errors
///
/// When the system refuses another thread.
#[cfg(not(shuttle))]
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<thread::ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().spawn_scoped(scope, work)
}
