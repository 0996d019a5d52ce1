//! How much memory a call had at once: an allocator that counts, and a bound to hold it to.
//!
//! Counted for each thread, so that tests that run beside each other do not count each other's. What a
//! thread frees that another one made is taken off its own count: right for code of one thread, which is
//! all that is measured here. The allocator never refuses and never panics; the bound is looked at when
//! the call has returned, so an allocation that is too large is made, but as a rule not touched.

#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "no allocation is longer than isize::MAX"
)]

use std::alloc::{GlobalAlloc, Layout, System};

/// What threads have, each by itself.
#[cfg(not(windows))] // has variables of threads that need no allocator
mod counter {
    use std::cell::Cell;

    thread_local! {
        static LIVE: Cell<isize> = const { Cell::new(0) };
        static PEAK: Cell<isize> = const { Cell::new(0) };
    }

    pub(super) fn count(bytes: isize) {
        // At the end of a thread there is nothing left to count in.
        let _ = LIVE.try_with(|live| {
            let now = live.get() + bytes;
            live.set(now);
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
        });
    }

    /// The most that `work` had at once.
    pub(super) fn peak_of(work: impl FnOnce()) -> isize {
        let before = LIVE.get();
        PEAK.set(before);
        work();
        PEAK.get() - before
    }
}

/// What the one thread has that is measured. A variable of a thread would be made when it is first
/// used, by the allocator that is counting.
#[cfg(windows)] // may have no other variables of threads
mod counter {
    use std::sync::atomic::{AtomicIsize, AtomicU32, Ordering};
    use std::sync::{Mutex, PoisonError};

    #[link(name = "kernel32")]
    unsafe extern "system" {
        safe fn GetCurrentThreadId() -> u32;
    }

    /// No thread has this number.
    const NOBODY: u32 = 0;

    static MEASURED: AtomicU32 = AtomicU32::new(NOBODY);
    static LIVE: AtomicIsize = AtomicIsize::new(0);
    static PEAK: AtomicIsize = AtomicIsize::new(0);
    static TURN: Mutex<()> = Mutex::new(());

    pub(super) fn count(bytes: isize) {
        if MEASURED.load(Ordering::Relaxed) == GetCurrentThreadId() {
            let now = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
            PEAK.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// The most that `work` had at once. One is measured after the other.
    pub(super) fn peak_of(work: impl FnOnce()) -> isize {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        LIVE.store(0, Ordering::Relaxed);
        PEAK.store(0, Ordering::Relaxed);
        MEASURED.store(GetCurrentThreadId(), Ordering::Relaxed);
        work();
        MEASURED.store(NOBODY, Ordering::Relaxed);
        PEAK.load(Ordering::Relaxed)
    }
}

use counter::{count, peak_of};

/// The system's allocator, counting: for `#[global_allocator]`.
pub(crate) struct Counting;

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps what `alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps what `alloc_zeroed` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps what `dealloc` asks for.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps what `realloc` asks for.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// How much a call may have at once: a fixed number of bytes, and some for each byte of its input.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    fixed: usize,
    per_byte: usize,
}

/// Decoders, with what the oracle itself keeps: the input again with its checksum made right, the
/// entries of a hint file (40 bytes of memory for 14 of a file), and the bytes that they encode to.
#[allow(dead_code, reason = "each target has one of them")]
pub(crate) const DECODER: Bound = Bound {
    fixed: 4 << 10,
    per_byte: 24,
};

/// Where values are decompressed, too: Snappy makes at most 64 bytes of three, and a value is only
/// believed up to 32 bytes for each that is stored. The oracle compresses it again.
#[allow(dead_code, reason = "each target has one of them")]
pub(crate) const SEGMENT: Bound = Bound {
    fixed: 64 << 10,
    per_byte: 160,
};

/// A stream's place to read to, 64 KiB, and what is found in it, twice.
#[allow(dead_code, reason = "each target has one of them")]
pub(crate) const STREAM: Bound = Bound {
    fixed: 160 << 10,
    per_byte: 128,
};

/// A simulated disk, and stores on it.
#[allow(dead_code, reason = "each target has one of them")]
pub(crate) const STORE: Bound = Bound {
    fixed: 4 << 20,
    per_byte: 256,
};

impl Bound {
    pub(crate) fn most(self, len: usize) -> usize {
        self.fixed + self.per_byte * len
    }
}

/// Calls `oracle`, and fails if it had more than `most` bytes at once. Counts nothing where
/// [`Counting`] is not the allocator.
pub(crate) fn bounded(most: usize, oracle: impl FnOnce()) {
    let peak = peak_of(oracle).max(0) as usize;
    assert!(
        peak <= most,
        "{peak} bytes of memory at once, of at most {most}"
    );
}
