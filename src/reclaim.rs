//! When may what a reader could still be looking at be freed? Once every pin that was there when
//! it was taken out of reach is gone.
//!
//! Owns: [`Collector`] and [`Pin`], and two pointers over them that readers follow without a lock
//! or a reference count: [`Shared`] (one owner) and [`SharedArc`] (nullable, shared).
//!
//! The protocol, which everything here and in the index keeps:
//!
//! 1. Readers load shared pointers under a pin, and look no longer than the pin lives.
//! 2. Writers first put the pointer's replacement where readers will find it, then retire the old
//!    one: whoever pins later cannot come across it.
//!
//! The waiting is done by the `seize` crate; under `cfg(loom)` and `cfg(shuttle)` by a model that
//! frees at the earliest moment the protocol allows, so that they find who looks too long.

#[cfg(any(loom, shuttle))]
#[path = "reclaim/model.rs"]
mod engine;
#[cfg(not(any(loom, shuttle)))]
#[path = "reclaim/seized.rs"]
mod engine;

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use crate::sync::{AtomicPtr, Ordering};

/// The order of every load of a pointer that may be retired. Seize asks for this much; on the
/// common machines it costs what `Acquire` costs.
pub(crate) const PROTECT: Ordering = Ordering::SeqCst;

type Job = Box<dyn FnOnce() + Send>;

/// Runs what is retired once no pin can still be looking.
pub(crate) struct Collector {
    engine: engine::Engine,
    #[cfg(debug_assertions)]
    id: u64,
}

/// While it lives, nothing that could be reached when it was made is freed. Stays on its thread.
pub(crate) struct Pin<'c> {
    guard: engine::Guard<'c>,
    #[cfg(debug_assertions)]
    collector_id: u64,
    #[cfg(not(debug_assertions))]
    _collector: PhantomData<&'c Collector>,
}

impl Collector {
    /// A collector with nothing retired.
    pub(crate) fn new() -> Collector {
        #[cfg(debug_assertions)]
        static NEXT_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        Collector {
            engine: engine::Engine::new(),
            #[cfg(debug_assertions)]
            id: NEXT_ID.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        }
    }

    /// Keeps everything that can be reached from now on in place while the pin lives.
    #[inline]
    pub(crate) fn pin(&self) -> Pin<'_> {
        Pin {
            guard: self.engine.enter(),
            #[cfg(debug_assertions)]
            collector_id: self.id,
            #[cfg(not(debug_assertions))]
            _collector: PhantomData,
        }
    }

    /// Runs `job` once every pin of this moment is gone: at once on this thread, or later on the
    /// thread that lets go last. What is left runs when the collector is dropped.
    pub(crate) fn retire_with(&self, job: Box<dyn FnOnce() + Send>) {
        self.engine.retire(job);
    }
}

impl Pin<'_> {
    /// Lets go of everything looked at so far and pins anew, at less than the price of a new pin.
    /// A second pin of the same thread keeps what it keeps.
    #[inline]
    pub(crate) fn repin(&mut self) {
        self.guard.refresh();
    }

    #[cfg(debug_assertions)]
    fn check(&self, owner: &Owner) {
        owner.check(self.collector_id);
    }

    #[cfg(not(debug_assertions))]
    #[expect(clippy::unused_self, reason = "checks in debug builds")]
    #[inline]
    fn check(&self, _owner: &Owner) {}
}

/// In debug builds, remembers the one collector a pointer is used with. A pin of another one
/// would protect nothing.
#[derive(Default)]
struct Owner {
    #[cfg(debug_assertions)]
    id: std::sync::OnceLock<u64>,
}

impl Owner {
    #[cfg(debug_assertions)]
    fn check(&self, collector_id: u64) {
        let id = *self.id.get_or_init(|| collector_id);
        assert_eq!(id, collector_id, "a pin or collector of another store");
    }

    #[cfg_attr(
        not(debug_assertions),
        expect(clippy::unused_self, reason = "debug builds check")
    )]
    fn check_collector(&self, collector: &Collector) {
        #[cfg(debug_assertions)]
        self.check(collector.id);
        let _ = collector;
    }
}

/// A raw pointer on its way to the thread that frees it.
struct Retired<P>(P);

// SAFETY: made only in `replace` below, of pointers to values that are `Send` and `Sync`.
unsafe impl<P> Send for Retired<P> {}

impl<P> Retired<P> {
    // A method, so that a closure takes the whole wrapper along, not the bare pointer in it.
    fn into_inner(self) -> P {
        self.0
    }
}

/// A value that readers follow to and a writer replaces as a whole.
pub(crate) struct Shared<T> {
    pointer: AtomicPtr<T>,
    owner: Owner,
    _owns: PhantomData<Box<T>>,
}

impl<T> Shared<T> {
    /// Takes the first value.
    pub(crate) fn new(value: Box<T>) -> Shared<T> {
        Shared {
            pointer: AtomicPtr::new(Box::into_raw(value)),
            owner: Owner::default(),
            _owns: PhantomData,
        }
    }

    /// The value of this moment; it stays in place while the pin lives.
    #[inline]
    pub(crate) fn load<'p>(&'p self, pin: &'p Pin<'_>) -> &'p T {
        pin.check(&self.owner);
        // SAFETY: the pointer came from a box and is freed by `replace` only after every pin that
        // could have loaded it, ours among them, is gone (`check` holds the pin to be of the right
        // collector), or by `drop`, which cannot run while `self` is borrowed.
        unsafe { &*self.pointer.load(PROTECT) }
    }

    /// The value of this moment, for the one who replaces it.
    ///
    /// # Safety
    ///
    /// Nobody replaces the value while the reference lives.
    pub(crate) unsafe fn load_unpinned(&self) -> &T {
        // SAFETY: the pointer came from a box that only `replace` and `drop` give away, and the
        // caller keeps both from happening.
        unsafe { &*self.pointer.load(PROTECT) }
    }

    /// Puts `value` in place of the old one, which is freed once no pin can be looking at it.
    pub(crate) fn replace(&self, value: Box<T>, collector: &Collector)
    where
        T: Send + Sync + 'static,
    {
        self.owner.check_collector(collector);
        let old = Retired(self.pointer.swap(Box::into_raw(value), Ordering::AcqRel));
        collector.retire_with(Box::new(move || {
            // SAFETY: the pointer came from a box, the swap took it out of reach, and the
            // collector runs this once, after every pin that may have loaded it is gone.
            drop(unsafe { Box::from_raw(old.into_inner()) });
        }));
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let pointer = self.pointer.load(Ordering::Acquire);
        // SAFETY: the pointer came from a box; `&mut self` means that no reader borrows it.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// A place for an [`Arc`] that readers look into, or take a share of, without a lock.
pub(crate) struct SharedArc<T> {
    pointer: AtomicPtr<T>,
    owner: Owner,
    _owns: PhantomData<Arc<T>>,
}

impl<T> SharedArc<T> {
    /// A place with `value` in it, or an empty one.
    pub(crate) fn new(value: Option<Arc<T>>) -> SharedArc<T> {
        SharedArc {
            pointer: AtomicPtr::new(into_raw(value)),
            owner: Owner::default(),
            _owns: PhantomData,
        }
    }

    /// What is in the place at this moment; it stays while the pin lives.
    #[inline]
    pub(crate) fn load<'p>(&'p self, pin: &'p Pin<'_>) -> Option<&'p T> {
        pin.check(&self.owner);
        // SAFETY: null, or from an `Arc` whose share `replace` gives up only after every pin that
        // could have loaded it, ours among them, is gone, and `drop` only with `self` unborrowed.
        unsafe { self.pointer.load(PROTECT).as_ref() }
    }

    /// As [`load`](SharedArc::load), where a share of it may be wanted.
    #[inline]
    pub(crate) fn hold<'p>(&'p self, pin: &'p Pin<'_>) -> Option<Held<'p, T>> {
        self.load(pin).map(Held)
    }

    /// Puts `value` in the place. The place's share of the old one is given up once no pin can be
    /// looking at it.
    pub(crate) fn replace(&self, value: Option<Arc<T>>, collector: &Collector)
    where
        T: Send + Sync + 'static,
    {
        self.owner.check_collector(collector);
        let old = self.pointer.swap(into_raw(value), Ordering::AcqRel);
        if old.is_null() {
            return;
        }
        let old = Retired(old);
        collector.retire_with(Box::new(move || {
            // SAFETY: from `Arc::into_raw`; the swap took the place's share out of reach, and the
            // collector runs this once, after every pin that may have loaded it is gone.
            drop(unsafe { Arc::from_raw(old.into_inner()) });
        }));
    }
}

/// What was in a [`SharedArc`], while the pin lives.
pub(crate) struct Held<'p, T>(&'p T);

impl<'p, T> Held<'p, T> {
    #[inline]
    pub(crate) fn get(&self) -> &'p T {
        self.0
    }

    /// A share of it, which may outlive the pin.
    #[inline]
    pub(crate) fn share(&self) -> Arc<T> {
        let pointer = ptr::from_ref(self.0);
        // SAFETY: made by `hold` alone, of a pointer from `Arc::into_raw`, and the place's own share
        // is alive under the pin, as for `load`; so the count is at least one and the new share is
        // ours.
        unsafe {
            Arc::increment_strong_count(pointer);
            Arc::from_raw(pointer)
        }
    }
}

impl<T> Default for SharedArc<T> {
    fn default() -> SharedArc<T> {
        SharedArc::new(None)
    }
}

impl<T> Drop for SharedArc<T> {
    fn drop(&mut self) {
        let pointer = self.pointer.load(Ordering::Acquire);
        if !pointer.is_null() {
            // SAFETY: from `Arc::into_raw`, and this share is the place's; `&mut self` means that
            // no reader borrows it.
            drop(unsafe { Arc::from_raw(pointer) });
        }
    }
}

fn into_raw<T>(value: Option<Arc<T>>) -> *mut T {
    value.map_or(ptr::null_mut(), |value| Arc::into_raw(value).cast_mut())
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "reclaim/tests.rs"]
mod tests;
