//! The waiting, for loom and shuttle: every job runs at the earliest moment at which it may.

use std::marker::PhantomData;
use std::sync::PoisonError;

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};

use super::Job;
#[cfg(shuttle)]
use crate::sync::{Mutex, MutexGuard};

pub(super) struct Engine {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_pin: u64,
    pins: Vec<u64>,
    waiting: Vec<Waiting>,
}

/// A job and the pins that were there when it came.
struct Waiting {
    pins: Vec<u64>,
    job: Job,
}

pub(super) struct Guard<'c> {
    engine: &'c Engine,
    pin: u64,
    _stays_on_its_thread: PhantomData<*mut ()>,
}

impl Engine {
    pub(super) fn new() -> Engine {
        Engine {
            state: Mutex::new(State::default()),
        }
    }

    /// Poisoned or not: shuttle runs all threads on one of the system's, to which each of them
    /// seems to panic when another one does.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self) -> Guard<'_> {
        Guard {
            engine: self,
            pin: self.add_pin(),
            _stays_on_its_thread: PhantomData,
        }
    }

    pub(super) fn retire(&self, job: Job) {
        let mut state = self.lock();
        if state.pins.is_empty() {
            drop(state);
            job();
        } else {
            let pins = state.pins.clone();
            state.waiting.push(Waiting { pins, job });
        }
    }

    fn add_pin(&self) -> u64 {
        let mut state = self.lock();
        let pin = state.next_pin;
        state.next_pin += 1;
        state.pins.push(pin);
        pin
    }

    fn remove_pin(&self, pin: u64) {
        let mut state = self.lock();
        state.pins.retain(|&other| other != pin);
        for waiting in &mut state.waiting {
            waiting.pins.retain(|&other| other != pin);
        }
        let (due, waiting) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition(|w| w.pins.is_empty());
        state.waiting = waiting;
        drop(state);
        let due: Vec<Waiting> = due;
        for waiting in due {
            (waiting.job)();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        for waiting in waiting {
            (waiting.job)();
        }
    }
}

impl Guard<'_> {
    pub(super) fn refresh(&mut self) {
        self.engine.remove_pin(self.pin);
        self.pin = self.engine.add_pin();
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.engine.remove_pin(self.pin);
    }
}
