//! Bytes at an address that does not move: maps of sealed segments, and the append buffer.
//!
//! Invariants:
//!
//! 1. The first `len` bytes of a region never change while the region lives; `len` only grows.
//! 2. Only the one [`AppendBuffer`] of a region writes to it, and only beyond `len`.
//!
//! So a slice that [`Region::slice`] hands out is never written while it is borrowed, and reading
//! needs neither a lock nor a reference count.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

use super::resident;
use crate::sync::{AtomicUsize, Ordering};

/// Readable bytes at a fixed address: a mapped file, an append buffer, or memory.
///
/// Aligned to a cache line, so that what every lookup reads does not share one with the reference
/// count in front of it, which guards write.
#[repr(align(64))]
pub struct Region {
    base: NonNull<u8>,
    /// How many bytes from `base` on may be read (invariant 1).
    len: AtomicUsize,
    capacity: usize,
    /// What keeps `base` valid; never read through.
    backing: Backing,
}

enum Backing {
    Map {
        _map: Mmap,
    },
    Anonymous {
        _map: MmapMut,
    },
    Memory {
        _bytes: Box<[u8]>,
    },
    /// Of an append buffer. No box, which the compiler may take for the only way to its bytes.
    Heap {
        _bytes: Vec<u8>,
    },
    /// Of a simulated map, a part of which cannot be read. The region's own `len` is 0, so that
    /// every access to it comes to [`Region::touch`], and accesses to others pay nothing.
    #[cfg(any(test, feature = "sim"))]
    Faulty(Faulty),
}

#[cfg(any(test, feature = "sim"))]
struct Faulty {
    bytes: Box<[u8]>,
    bad: Vec<Range<usize>>,
    /// What becomes of a process that touches them; it does not return.
    fault: Box<dyn Fn() + Send + Sync>,
}

// SAFETY: the bytes below `len` are never written again (invariant 1) and those above it are
// reachable only through the single `AppendBuffer` (invariant 2); the backing types are all Send.
unsafe impl Send for Region {}
// SAFETY: as above: shared access only ever reads bytes that no longer change.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the first `len` bytes of `file` for reading.
    ///
    /// # Errors
    ///
    /// When the system refuses the map.
    ///
    /// # Safety
    ///
    /// The caller promises that these bytes are not changed and the file is not cut shorter, by
    /// anybody, while the region lives.
    pub(crate) unsafe fn map_file(file: &std::fs::File, len: usize) -> io::Result<Region> {
        if len == 0 {
            return Ok(Region::from_vec(Vec::new()));
        }
        // SAFETY: promised by the caller.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(file)? };
        let base = NonNull::new(map.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
        Ok(Region {
            base,
            len: AtomicUsize::new(map.len()),
            capacity: map.len(),
            backing: Backing::Map { _map: map },
        })
    }

    /// A region over bytes in ordinary memory.
    pub fn from_vec(bytes: Vec<u8>) -> Region {
        let mut bytes = bytes.into_boxed_slice();
        let base = NonNull::new(bytes.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Region {
            base,
            len: AtomicUsize::new(bytes.len()),
            capacity: bytes.len(),
            backing: Backing::Memory { _bytes: bytes },
        }
    }

    /// A simulated map: whoever touches one of the `bad` bytes comes to `fault`.
    #[cfg(any(test, feature = "sim"))]
    pub(in crate::disk) fn faulty(
        bytes: Vec<u8>,
        bad: Vec<Range<usize>>,
        fault: Box<dyn Fn() + Send + Sync>,
    ) -> Region {
        Region {
            base: NonNull::dangling(),
            len: AtomicUsize::new(0),
            capacity: bytes.len(),
            backing: Backing::Faulty(Faulty {
                bytes: bytes.into_boxed_slice(),
                bad,
                fault,
            }),
        }
    }

    /// How many bytes can be read.
    #[inline]
    pub fn len(&self) -> usize {
        match self.published() {
            0 => self.touch(0..0).map_or(0, <[u8]>::len),
            len => len,
        }
    }

    /// How many bytes can be read from `base` on.
    #[inline]
    fn published(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// All bytes of a faulty region, of which those in the range are about to be read; `None` of
    /// any other region.
    #[cold]
    #[cfg(any(test, feature = "sim"))]
    fn touch(&self, range: Range<usize>) -> Option<&[u8]> {
        let Backing::Faulty(faulty) = &self.backing else {
            return None;
        };
        let is_hit = |bad: &Range<usize>| bad.start < range.end && range.start < bad.end;
        if faulty.bad.iter().any(is_hit) {
            (faulty.fault)();
        }
        Some(&faulty.bytes)
    }

    /// There are no faulty regions outside of tests.
    #[cfg(not(any(test, feature = "sim")))]
    #[expect(clippy::unused_self, reason = "tests look at the region")]
    #[inline]
    fn touch(&self, _: Range<usize>) -> Option<&[u8]> {
        None
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes this region can ever hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The `len` bytes from `offset` on, or `None` when they are not all there.
    #[inline]
    pub fn slice(&self, offset: usize, len: usize) -> Option<&[u8]> {
        let end = offset.checked_add(len)?;
        if end > self.published() {
            return self.touch(offset..end)?.get(offset..end);
        }
        // SAFETY: `base` is valid for `capacity` bytes while `self` lives (kept by `backing`),
        // `end <= len <= capacity`, and bytes below `len` are initialised and never written again
        // (invariant 1, kept by `AppendBuffer`).
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) })
    }

    /// How many of the bytes are in memory, so that reading them does not wait for a disk; `None` if
    /// the system does not say, or they are no map. Takes time in proportion to their number.
    pub fn resident_bytes(&self) -> Option<u64> {
        match self.backing {
            Backing::Map { .. } | Backing::Anonymous { .. } => {
                resident::resident_bytes(self.as_ref())
            }
            _ => None,
        }
    }

    /// Asks the processor to fetch the bytes around `offset`.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        #[cfg(all(target_arch = "x86_64", target_feature = "sse"))]
        if offset < self.published() {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: prefetching reads nothing, and the address is inside the region.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.base.as_ptr().add(offset).cast()) };
        }
        #[cfg(not(all(target_arch = "x86_64", target_feature = "sse")))]
        let _ = offset;
    }

    /// All bytes from `offset` on, if they are so many at least and at hand without a question: of a
    /// simulated map, a part of which cannot be read, none are.
    #[inline]
    pub(crate) fn tail_at_hand(&self, offset: usize, at_least: usize) -> Option<&[u8]> {
        let beyond = self
            .published()
            .checked_sub(offset.checked_add(at_least)?)?;
        // SAFETY: the sum is `len` less `offset`.
        let len = unsafe { beyond.unchecked_add(at_least) };
        // SAFETY: as for `slice`, with the same end: `offset + len` is what `len` was.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) })
    }

    /// All bytes from `offset` on.
    #[inline]
    pub fn tail(&self, offset: usize) -> Option<&[u8]> {
        if offset > self.published() {
            // How much of it will be read is not known; one byte at least.
            return self.touch(offset..offset.checked_add(1)?)?.get(offset..);
        }
        self.tail_at_hand(offset, 0)
    }
}

impl AsRef<[u8]> for Region {
    fn as_ref(&self) -> &[u8] {
        match self.tail(0) {
            Some([]) => self.touch(0..self.capacity).unwrap_or_default(),
            all => all.unwrap_or_default(),
        }
    }
}

/// Up to this capacity an append buffer is ordinary memory: a map takes whole pages, two system
/// calls and a page fault, which is more than a small buffer is worth.
const MAX_HEAP_CAPACITY: usize = 64 * 1024;

/// How much memory a huge page is, on the machines where asking for them pays.
#[cfg(target_os = "linux")]
const HUGE_PAGE_LEN: usize = 2 << 20;

/// Asks for huge pages behind an append buffer, which take fewer page faults; but not behind its
/// beginning, so that a small store takes no more memory than it fills. Refused, nothing is lost.
#[cfg(target_os = "linux")]
fn advise_huge_pages(map: &MmapMut) {
    if map.len() > 2 * HUGE_PAGE_LEN {
        let len = map.len() - HUGE_PAGE_LEN;
        let _ = map.advise_range(memmap2::Advice::HugePage, HUGE_PAGE_LEN, len);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_map: &MmapMut) {}

/// The writing end of a region: appends, and publishes what it appended.
///
/// One reservation of address space for a whole segment; memory is used only as far as it is
/// written to.
pub(crate) struct AppendBuffer {
    region: Arc<Region>,
}

impl AppendBuffer {
    /// Reserves room for `capacity` bytes.
    ///
    /// # Errors
    ///
    /// When the system has no address space left.
    pub(crate) fn new(capacity: usize) -> io::Result<AppendBuffer> {
        let (base, backing) = if capacity <= MAX_HEAP_CAPACITY {
            let mut bytes = vec![0; capacity];
            (bytes.as_mut_ptr(), Backing::Heap { _bytes: bytes })
        } else {
            let mut map = MmapMut::map_anon(capacity)?;
            advise_huge_pages(&map);
            (map.as_mut_ptr(), Backing::Anonymous { _map: map })
        };
        Ok(AppendBuffer {
            region: Arc::new(Region {
                base: NonNull::new(base).unwrap_or(NonNull::dangling()),
                len: AtomicUsize::new(0),
                capacity,
                backing,
            }),
        })
    }

    /// The reading end.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// How many bytes have been appended.
    pub(crate) fn len(&self) -> usize {
        // Only this handle changes it.
        self.region.len.load(Ordering::Relaxed)
    }

    /// The room left.
    pub(crate) fn remaining(&self) -> usize {
        self.region.capacity - self.len()
    }

    /// Appends `len` bytes that `fill` writes, and makes them readable. `None`, and nothing
    /// done, when there is no room.
    pub(crate) fn append<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        if len > self.remaining() {
            return None;
        }
        let start = self.len();
        // SAFETY: `start + len <= capacity`, so the range is inside the reservation; it lies
        // beyond `len`, where readers never look (invariant 1), and `&mut self` on the only
        // handle makes this the only slice over it. Maps and buffers start as zeros.
        let spare = unsafe {
            let at = self.region.base.as_ptr().add(start);
            std::slice::from_raw_parts_mut(at, len)
        };
        let result = fill(spare);
        self.region.len.store(start + len, Ordering::Release);
        Some(result)
    }
}

/// The memory of an append buffer that is full, for a later one: memory that was written to before
/// takes no page faults, and the system need not clear it. Only where it can be offered to the system
/// meanwhile; elsewhere nothing is kept.
#[derive(Default)]
pub(crate) struct Spare {
    region: Option<Arc<Region>>,
    is_offered: bool,
}

impl Spare {
    /// Keeps the memory behind `buffer`, which may still have readers.
    pub(crate) fn keep(&mut self, buffer: &AppendBuffer) {
        if cfg!(target_os = "linux") {
            self.region = Some(Arc::clone(&buffer.region));
            self.is_offered = false;
        }
    }

    /// Once nobody reads it any more, lets the system have the memory should it run short.
    pub(crate) fn offer(&mut self) {
        let region = self.region.as_mut().filter(|_| !self.is_offered);
        if let Some(region) = region.and_then(Arc::get_mut) {
            self.is_offered = true;
            offer_memory(region);
        }
    }

    /// Gives a buffer that nobody reads yet this memory instead of its own, if it fits and nobody
    /// reads it any more: what was written to most recently, before memory that never was.
    pub(crate) fn trade(&mut self, buffer: &mut AppendBuffer) {
        let is_unread = |region: &mut Arc<Region>| Arc::get_mut(region).is_some();
        if !(self.region.as_mut().is_some_and(is_unread) && is_unread(&mut buffer.region)) {
            return;
        }
        let Some(mut other) = self.take_kept(buffer.region.capacity) else {
            return;
        };
        let bytes = buffer.region.tail_at_hand(0, 0).unwrap_or_default();
        other.append(bytes.len(), |out| out.copy_from_slice(bytes));
        let fresh = std::mem::replace(buffer, other);
        self.region = Some(fresh.region);
        // It holds no memory to speak of.
        self.is_offered = true;
    }

    /// A buffer of this capacity, in this memory if it fits and nobody reads it any more.
    ///
    /// # Errors
    ///
    /// Those of [`AppendBuffer::new`].
    pub(crate) fn take(&mut self, capacity: usize) -> io::Result<AppendBuffer> {
        match self.take_kept(capacity) {
            Some(buffer) => Ok(buffer),
            None => AppendBuffer::new(capacity),
        }
    }

    fn take_kept(&mut self, capacity: usize) -> Option<AppendBuffer> {
        let region = self.region.take().and_then(Arc::into_inner)?;
        // Owned alone: nobody has a slice of it. Only maps are worth it, and the others of them
        // cannot be written to.
        let fits =
            region.capacity == capacity && matches!(region.backing, Backing::Anonymous { .. });
        fits.then(|| {
            let region = Arc::new(Region {
                len: AtomicUsize::new(0),
                ..region
            });
            AppendBuffer { region }
        })
    }
}

#[cfg(target_os = "linux")]
fn offer_memory(region: &mut Region) {
    if let Backing::Anonymous { _map: map } = &region.backing {
        // SAFETY: `region` is borrowed alone, so nobody has a slice of it. Its pages read as zeros
        // or as before until they are written to again, and a buffer's bytes are written before
        // they are read. Refused, nothing is lost.
        let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::Free) };
    }
}

#[cfg(not(target_os = "linux"))]
fn offer_memory(_region: &mut Region) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn spare_memory_is_used_again_once_nobody_reads_it() {
        let capacity = 2 * MAX_HEAP_CAPACITY;
        let mut buffer = AppendBuffer::new(capacity).unwrap();
        buffer.append(9, |b| b.fill(7)).unwrap();
        let address = |buffer: &AppendBuffer| buffer.region().base.as_ptr() as usize;
        let first = address(&buffer);
        let mut spare = Spare::default();
        spare.keep(&buffer);
        let reader = Arc::clone(buffer.region());
        drop(buffer);
        spare.offer();
        let other = spare.take(capacity).unwrap();
        assert_ne!(address(&other), first);
        assert_eq!(reader.slice(0, 9), Some(&[7; 9][..]));
        spare.keep(&other);
        let second = address(&other);
        let mut fresh = AppendBuffer::new(capacity).unwrap();
        fresh.append(2, |b| b.fill(3)).unwrap();
        let third = address(&fresh);
        // Somebody reads one of the two: both stay as they are.
        spare.trade(&mut fresh);
        assert_eq!(address(&fresh), third);
        drop(other);
        let reader = Arc::clone(fresh.region());
        spare.trade(&mut fresh);
        assert_eq!(address(&fresh), third);
        drop(reader);
        spare.trade(&mut fresh);
        assert_eq!((address(&fresh), fresh.len()), (second, 2));
        assert_eq!(fresh.region().slice(0, 2), Some(&[3, 3][..]));
        // And back again.
        spare.trade(&mut fresh);
        assert_eq!(address(&fresh), third);
        spare.offer();
        let mut again = spare.take(capacity).unwrap();
        assert_eq!((address(&again), again.len()), (second, 0));
        assert!(again.region().slice(0, 1).is_none());
        again.append(3, |b| b.copy_from_slice(b"abc")).unwrap();
        assert_eq!(again.region().slice(0, 3), Some(&b"abc"[..]));
        spare.keep(&again);
        drop(again);
        assert_eq!(spare.take(capacity + 1).unwrap().remaining(), capacity + 1);
    }

    #[test]
    fn appended_bytes_can_be_read_at_once_and_stay() {
        let mut buffer = AppendBuffer::new(16).unwrap();
        let region = Arc::clone(buffer.region());
        assert!(region.slice(0, 1).is_none());
        buffer.append(3, |b| b.copy_from_slice(b"abc")).unwrap();
        assert_eq!(region.slice(0, 3), Some(&b"abc"[..]));
        assert_eq!(region.slice(1, 3), None);
        assert!(buffer.append(14, |_| ()).is_none());
        assert_eq!(buffer.len(), 3);
    }

    #[test]
    fn a_big_buffer_is_a_map_and_a_small_one_memory() {
        for (capacity, is_map) in [(MAX_HEAP_CAPACITY, false), (MAX_HEAP_CAPACITY + 1, true)] {
            let mut buffer = AppendBuffer::new(capacity).unwrap();
            let backing = &buffer.region().backing;
            assert_eq!(matches!(backing, Backing::Anonymous { .. }), is_map);
            buffer.append(capacity, |b| b[capacity - 1] = 7).unwrap();
            assert_eq!(buffer.remaining(), 0);
            let all = buffer.region().slice(0, capacity).unwrap();
            assert_eq!((all[0], all[capacity - 1]), (0, 7));
        }
        let mut empty = AppendBuffer::new(0).unwrap();
        assert!(empty.append(0, |_| ()).is_some() && empty.append(1, |_| ()).is_none());
    }

    #[test]
    fn slices_near_the_end_of_the_address_space_are_refused() {
        let region = Region::from_vec(vec![1, 2, 3]);
        assert!(region.slice(usize::MAX, 2).is_none());
        assert!(region.tail(4).is_none());
        assert_eq!(region.tail(3), Some(&[][..]));
    }
}
