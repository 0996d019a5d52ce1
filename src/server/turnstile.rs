//! Lets a transaction be alone. All loops go on at once, a turn of a connection at a time; whoever
//! has to be alone waits until the others' turns are over, and they wait until it is done.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// A turn, which others may have at the same time.
pub(crate) struct Turnstile<'a> {
    lock: &'a RwLock<()>,
    /// `None` while alone.
    together: Option<RwLockReadGuard<'a, ()>>,
}

impl<'a> Turnstile<'a> {
    pub(crate) fn enter(lock: &'a RwLock<()>) -> Turnstile<'a> {
        Turnstile {
            lock,
            together: Some(lock.read().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Does `work` with nobody else having a turn. Others may have had theirs just before.
    pub(crate) fn alone<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.together = None;
        let alone = self.lock.write().unwrap_or_else(PoisonError::into_inner);
        let done = work();
        drop(alone);
        self.together = Some(self.lock.read().unwrap_or_else(PoisonError::into_inner));
        done
    }
}
