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
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting: for `#[global_allocator]`.
pub(crate) struct Counting;

fn count(bytes: isize) {
    // At the end of a thread there is nothing left to count in.
    let _ = LIVE.try_with(|live| {
        let now = live.get() + bytes;
        live.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

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
    let before = LIVE.get();
    PEAK.set(before);
    oracle();
    let peak = (PEAK.get() - before).max(0) as usize;
    assert!(
        peak <= most,
        "{peak} bytes of memory at once, of at most {most}"
    );
}
