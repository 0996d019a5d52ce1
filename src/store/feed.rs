//! What the change feed needs of the store: up to where the log is settled, a snapshot of it, and
//! who is to be woken when it grows.
//!
//! Owns:
//!
//! - the **settled** mark. Every record below it is durable and published, or will never be; so the
//!   feed never gives what a crash could take back. It is raised under the writer lock, wherever
//!   a group of writes becomes both. In a follower it is where the last refresh came to.
//! - the watches' alarm. Raising the mark costs one look at a counter where nobody watches; else a
//!   lock that is held for no time, and a wake-up. What was written is not handed over: a watch
//!   reads it from the log.
//! - landmarks: where some records of the active segment are, so that nobody who has seen most of
//!   it has to walk it from its beginning.
//!
//! A watch is no handle: it must not keep the store open. It borrows the engine for a snapshot and
//! lets go at once; the last handle waits for that. When the engine goes, it leaves a last snapshot
//! behind.

use std::path::PathBuf;
use std::sync::{PoisonError, Weak};

use super::engine::Engine;
use super::walk::{Part, Snapshot};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::segment::HEADER_LEN;
use crate::format::{KeyHasher, SegmentId, SeqNo, StoreId};
use crate::log::Usage;
use crate::recovery::Source;
use crate::segment::ReadMode;
use crate::sync::{
    AtomicU64, AtomicUsize, Condvar, Instant, Mutex, MutexGuard, Ordering, RwLock, wait_timeout,
};

/// How far apart landmarks are, in bytes: what is walked in vain at most.
pub(crate) const LANDMARK_EVERY_BYTES: u64 = 16 << 10;

pub(crate) struct Feed<D: Disk> {
    pub(crate) origin: Origin<D>,
    settled: AtomicU64,
    /// How many watches there are.
    watches: AtomicUsize,
    ending: Mutex<Ending<D>>,
    /// The settled mark was raised, or `ending` has changed.
    changed: Condvar,
    landmarks: Mutex<Landmarks>,
    /// Held for reading by watches that borrow the engine.
    borrowed: RwLock<()>,
}

/// Where a store's segments are read from.
pub(crate) struct Origin<D: Disk> {
    pub(crate) disk: D,
    pub(crate) dir: PathBuf,
    pub(crate) store: StoreId,
    pub(crate) hasher: KeyHasher,
    pub(crate) read_mode: ReadMode,
    /// Whether checksums are verified.
    pub(crate) verify: bool,
    /// Whether another process writes: then what has been read of the active segment may be taken
    /// back, and other records come in its place.
    pub(crate) is_follower: bool,
}

struct Ending<D: Disk> {
    /// How often the store was closed.
    closes: u64,
    /// The settled mark when it was closed last.
    closed_at: SeqNo,
    /// The last handle is gone, or about to be: nobody may borrow the engine any more.
    going: bool,
    /// What the engine left behind.
    last: Option<Snapshot<D>>,
}

/// Some records of one segment that is, or was, appended to: all before them in it have lower
/// sequence numbers.
struct Landmarks {
    segment: SegmentId,
    /// In the order of the segment.
    at: Vec<(SeqNo, u64)>,
}

/// What a watch finds when it has seen all it knew of.
pub(crate) enum News<D: Disk> {
    /// There is more.
    Settled(Snapshot<D>),
    /// Not now.
    Nothing,
    /// Nor ever.
    Over,
}

/// How long to wait for news.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    None,
    Until(Instant),
    Forever,
}

impl<D: Disk> Origin<D> {
    pub(crate) fn source(&self) -> Source<'_, D> {
        Source {
            disk: &self.disk,
            dir: &self.dir,
            store: self.store,
            hasher: self.hasher,
            read_mode: self.read_mode,
        }
    }
}

impl<D: Disk> Feed<D> {
    pub(crate) fn new(origin: Origin<D>, settled: SeqNo) -> Feed<D> {
        Feed {
            origin,
            settled: AtomicU64::new(settled.0),
            watches: AtomicUsize::new(0),
            ending: Mutex::new(Ending {
                closes: 0,
                closed_at: SeqNo(0),
                going: false,
                last: None,
            }),
            changed: Condvar::new(),
            landmarks: Mutex::new(Landmarks {
                segment: SegmentId(0),
                at: Vec::new(),
            }),
            borrowed: RwLock::new(()),
        }
    }

    /// The first sequence number that is not settled.
    pub(crate) fn settled(&self) -> SeqNo {
        SeqNo(self.settled.load(Ordering::Acquire))
    }

    /// Raises the settled mark, and wakes the watches. Under the writer lock, which a watch that
    /// begins has taken, too, after it was counted: so none is overlooked.
    pub(crate) fn settle(&self, upto: SeqNo) {
        let before = self.settled.fetch_max(upto.0, Ordering::Release);
        if before < upto.0 && self.watches.load(Ordering::Relaxed) > 0 {
            // Whoever looked at the mark under the lock and saw the old one waits by now.
            drop(self.lock_ending());
            self.changed.notify_all();
        }
    }

    fn lock_ending(&self) -> MutexGuard<'_, Ending<D>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a watch in, and gives the number of times that the store was closed before it.
    pub(crate) fn begin_watch(&self) -> u64 {
        self.watches.fetch_add(1, Ordering::Relaxed);
        self.lock_ending().closes
    }

    /// Counts a watch out. The last one lets go of what the engine left behind.
    pub(crate) fn end_watch(&self) {
        let mut ending = self.lock_ending();
        if self.watches.fetch_sub(1, Ordering::Relaxed) == 1 {
            ending.last = None;
        }
    }

    /// Leaves the watches what is settled when the engine goes; nothing will come any more.
    pub(crate) fn leave_behind(&self, last: impl FnOnce() -> Snapshot<D>) {
        if self.watches.load(Ordering::Relaxed) == 0 {
            return;
        }
        let last = last();
        self.lock_ending().last = Some(last);
        self.changed.notify_all();
    }

    /// Tells the watches that the store was closed, everything in it being settled.
    pub(crate) fn note_closed(&self) {
        let mut ending = self.lock_ending();
        ending.closes += 1;
        ending.closed_at = self.settled();
        drop(ending);
        // A watch is counted before it looks at the ending. Waking is a system call.
        if self.watches.load(Ordering::Relaxed) > 0 {
            self.changed.notify_all();
        }
    }

    /// Waits until no watch borrows the engine, and sees to it that none does again.
    pub(crate) fn let_go(&self) {
        self.lock_ending().going = true;
        drop(self.borrowed.write());
    }

    /// Waits until there are records from `next_seq` on, or none will come: the store was closed
    /// once more than `closes` times, or is gone.
    pub(crate) fn news(
        &self,
        engine: &Weak<Engine<D>>,
        next_seq: SeqNo,
        closes: u64,
        patience: Patience,
    ) -> News<D> {
        let mut ending = self.lock_ending();
        loop {
            if let Some(last) = &ending.last {
                if last.end > next_seq {
                    return News::Settled(last.clone());
                }
                return News::Over;
            }
            if ending.closes != closes && ending.closed_at <= next_seq {
                return News::Over;
            }
            if self.settled() > next_seq && !ending.going {
                drop(ending);
                if let Some(snapshot) = self.borrow_for_snapshot(engine, next_seq) {
                    return News::Settled(snapshot);
                }
                // The last handle is about to go; its snapshot is waited for.
                ending = self.lock_ending();
                continue;
            }
            ending = match patience {
                Patience::None => return News::Nothing,
                Patience::Forever => self
                    .changed
                    .wait(ending)
                    .unwrap_or_else(PoisonError::into_inner),
                Patience::Until(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return News::Nothing;
                    }
                    wait_timeout(&self.changed, &self.ending, ending, left)
                }
            };
        }
    }

    /// A snapshot, unless the last handle is gone or about to be.
    fn borrow_for_snapshot(&self, engine: &Weak<Engine<D>>, since: SeqNo) -> Option<Snapshot<D>> {
        let _borrowed = self.borrowed.read().unwrap_or_else(PoisonError::into_inner);
        if self.lock_ending().going {
            return None;
        }
        let engine = engine.upgrade()?;
        Some(engine.snapshot(since))
    }

    fn lock_landmarks(&self) -> MutexGuard<'_, Landmarks> {
        self.landmarks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// From which offset on all records of a segment are that have this sequence number or a higher
    /// one; `None` for a segment of which that is not known.
    pub(crate) fn landmark_before(&self, segment: SegmentId, since: SeqNo) -> Option<u64> {
        let landmarks = self.lock_landmarks();
        if landmarks.segment != segment {
            return None;
        }
        let passed = landmarks.at.partition_point(|(seq, _)| *seq <= since);
        let offset = passed
            .checked_sub(1)
            .map(|last_passed| landmarks.at[last_passed].1);
        Some(offset.unwrap_or(HEADER_LEN as u64))
    }

    /// Notes where a settled record is in a segment that is appended to, if it is far enough
    /// from the landmark before it.
    pub(crate) fn note_landmark(&self, segment: SegmentId, seq: SeqNo, offset: u64) {
        if self.origin.is_follower {
            return;
        }
        let mut landmarks = self.lock_landmarks();
        if segment > landmarks.segment {
            *landmarks = Landmarks {
                segment,
                at: Vec::new(),
            };
        }
        let last = landmarks.at.last().map_or(0, |(_, offset)| *offset);
        if segment == landmarks.segment && offset >= last + LANDMARK_EVERY_BYTES {
            landmarks.at.push((seq, offset));
        }
    }
}

impl<D: Disk> Engine<D> {
    /// The sequence number after the newest record that readers see. With a sync interval it may
    /// be beyond what is settled.
    pub(crate) fn visible_seq(&self) -> SeqNo {
        let writer = self.lock_writer();
        if self.is_interval() {
            writer.log.next_seq()
        } else {
            self.feed.settled()
        }
    }

    /// The log at this moment, as far as it may hold records from `since` on.
    pub(crate) fn snapshot(&self, since: SeqNo) -> Snapshot<D> {
        let writer = self.lock_writer();
        let pin = self.collector.pin();
        let part = |slot, usage: Option<&Usage>| {
            let sealed = usage.filter(|usage| usage.sealed);
            Some(Part {
                segment: self.table.get_arc(&pin, slot)?,
                data_len: sealed.map_or(0, |usage| usage.data_len),
                next_seq: sealed.map_or(SeqNo(u64::MAX), |usage| usage.next_seq),
                sealed: sealed.is_some(),
            })
        };
        // All before the active segment's base is in the others, and nothing else: who follows
        // the log closely need not look at them.
        let active = writer.log.active().filter(|(_, base)| *base <= since);
        let parts = match active {
            Some((slot, _)) => part(slot, None).into_iter().collect(),
            None => writer
                .log
                .usages()
                .filter(|(_, usage)| !usage.sealed || usage.next_seq > since)
                .filter_map(|(slot, usage)| part(slot, Some(usage)))
                .collect(),
        };
        Snapshot {
            parts,
            end: self.feed.settled(),
            history: writer.log.manifest().history(),
        }
    }
}

impl<D: Disk> Snapshot<D> {
    /// Whether those who have seen everything before `since` can go on from here.
    ///
    /// # Errors
    ///
    /// [`Error::HistoryCompacted`] when they could miss that a key is gone.
    pub(crate) fn check(&self, since: SeqNo) -> Result<()> {
        let oldest = self.history.deletions_from;
        // Whoever has seen nothing has nothing that could have been deleted since.
        if since < oldest && since > SeqNo::FIRST {
            return Err(Error::HistoryCompacted { since, oldest });
        }
        Ok(())
    }
}
