//! The waiting, done by the `seize` crate: Hyaline, with barriers that cost readers nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use seize::Guard as _;

use super::Job;

/// Seize tries to retire a batch on every addition beyond this many; below it, when told to.
const BATCH_SIZE: usize = 128;

pub(super) struct Engine {
    collector: seize::Collector,
    /// One more than the highest number of a thread that ever pinned; seize gives the numbers of
    /// ended threads out again, so this is about how many threads can be pinned at a time.
    threads: AtomicUsize,
}

pub(super) struct Guard<'c>(seize::LocalGuard<'c>);

impl Engine {
    pub(super) fn new() -> Engine {
        Engine {
            collector: seize::Collector::new().batch_size(BATCH_SIZE),
            threads: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(super) fn enter(&self) -> Guard<'_> {
        let guard = self.collector.enter();
        if guard.thread_id() >= self.threads.load(Ordering::Relaxed) {
            self.count_thread(guard.thread_id());
        }
        Guard(guard)
    }

    #[cold]
    fn count_thread(&self, id: usize) {
        self.threads.fetch_max(id + 1, Ordering::Relaxed);
    }

    pub(super) fn retire(&self, job: Job) {
        // Twice boxed: seize takes a thin pointer.
        let job = Box::into_raw(Box::new(job));
        let guard = self.enter();
        // SAFETY: `run` takes the pointer back as it was made, and it is known to nobody else.
        unsafe { guard.0.defer_retire(job, run) };
        // A batch waits in as many lists as there are pinned threads, one entry for each, and is
        // held back while it has fewer entries. So it is filled up: a job must not wait for the
        // next one, which may never come.
        for _ in 0..self.threads.load(Ordering::Relaxed) {
            let padding = std::ptr::NonNull::<u8>::dangling().as_ptr();
            // SAFETY: `skip` never looks at the pointer.
            unsafe { guard.0.defer_retire(padding, skip) };
        }
        guard.0.flush();
    }
}

impl Guard<'_> {
    #[inline]
    pub(super) fn refresh(&mut self) {
        self.0.refresh();
    }
}

/// # Safety
///
/// `job` is a box's pointer that nobody else frees.
unsafe fn run(job: *mut Job, _: &seize::Collector) {
    // SAFETY: promised by the caller; `retire` made it so, and seize reclaims each entry once.
    let job = unsafe { Box::from_raw(job) };
    job();
}

/// # Safety
///
/// None needed; seize asks for an unsafe function.
unsafe fn skip(_: *mut u8, _: &seize::Collector) {}
