//! One thread for requests that take long, such as compaction, so that no loop waits for them.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::event_loop::Shared;

type Job = Box<dyn FnOnce(&Shared) + Send>;

#[derive(Default)]
pub(crate) struct Worker {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    stop: bool,
}

impl Worker {
    pub(crate) fn new() -> Worker {
        Worker::default()
    }

    /// Does `job` when those before it are done.
    pub(crate) fn submit(&self, job: impl FnOnce(&Shared) + Send + 'static) {
        self.lock().queue.push_back(Box::new(job));
        self.changed.notify_one();
    }

    /// Ends [`run`](Worker::run) after the jobs that were submitted.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_one();
    }

    pub(crate) fn run(&self, shared: &Shared) {
        while let Some(job) = self.next() {
            job(shared);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = self.lock();
        loop {
            if let Some(job) = jobs.queue.pop_front() {
                return Some(job);
            }
            if jobs.stop {
                return None;
            }
            jobs = self
                .changed
                .wait(jobs)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
