//! Ctrl-C: ends the program at once with 130, or, where work is to be ended in good order, asks
//! that work to stop. A second Ctrl-C always ends it at once; the store is good either way.
//!
//! In the shell the first one only ends the command ([`stay`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::exit::INTERRUPTED;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static STAYS: AtomicBool = AtomicBool::new(false);
static WORK: Mutex<Option<Box<dyn FnMut() + Send>>> = Mutex::new(None);

fn work() -> MutexGuard<'static, Option<Box<dyn FnMut() + Send>>> {
    WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on Ctrl-C is handled here.
pub(crate) fn install() {
    // Where the system does not allow it, Ctrl-C does what it does by itself.
    let _ = ctrlc::set_handler(|| {
        let again = REQUESTED.swap(true, Ordering::SeqCst);
        match work().as_mut() {
            Some(stop) if !again => stop(),
            None if !again && STAYS.load(Ordering::SeqCst) => {}
            _ => std::process::exit(i32::from(INTERRUPTED)),
        }
    });
}

/// While it lives, Ctrl-C asks the work to stop instead of ending the program.
#[must_use = "Ctrl-C ends the program again when it is dropped"]
pub(crate) struct Graceful(());

/// Work that looks at [`is_requested`] now and then.
pub(crate) fn graceful() -> Graceful {
    graceful_with(|| ())
}

/// Work that has to be told: `stop` is called on another thread.
pub(crate) fn graceful_with(stop: impl FnMut() + Send + 'static) -> Graceful {
    *work() = Some(Box::new(stop));
    Graceful(())
}

impl Drop for Graceful {
    fn drop(&mut self) {
        *work() = None;
    }
}

/// Whether to stop.
pub(crate) fn is_requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// From now on a first Ctrl-C does not end the program, whatever it is at.
pub(crate) fn stay() {
    STAYS.store(true, Ordering::SeqCst);
}

/// Whether what a command writes is wanted no more, in a program that stays.
pub(crate) fn ends_output() -> bool {
    is_requested() && STAYS.load(Ordering::SeqCst)
}

/// Forgets a request that was followed: for the shell, which goes on.
pub(crate) fn reset() {
    REQUESTED.store(false, Ordering::SeqCst);
}
