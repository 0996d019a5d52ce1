//! The waiting, for loom: every job runs at the earliest moment at which it may.

use std::marker::PhantomData;

use loom::sync::Mutex;

use super::Job;

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

    pub(super) fn enter(&self) -> Guard<'_> {
        Guard {
            engine: self,
            pin: self.add_pin(),
            _stays_on_its_thread: PhantomData,
        }
    }

    pub(super) fn retire(&self, job: Job) {
        let mut state = self.state.lock().unwrap();
        if state.pins.is_empty() {
            drop(state);
            job();
        } else {
            let pins = state.pins.clone();
            state.waiting.push(Waiting { pins, job });
        }
    }

    fn add_pin(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        let pin = state.next_pin;
        state.next_pin += 1;
        state.pins.push(pin);
        pin
    }

    fn remove_pin(&self, pin: u64) {
        let mut state = self.state.lock().unwrap();
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
        let waiting = std::mem::take(&mut self.state.lock().unwrap().waiting);
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
