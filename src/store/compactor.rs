//! When merges run, and how fast: inline, in the background, or now.
//!
//! Inline, every mebibyte that is appended pays for a bounded piece of work. In the background a
//! thread does it, paced by a budget; writers wait for it only when they are so far ahead that the
//! promise about space would break. A merge that fails leaves everything as it was, and the next
//! try waits a little longer each time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use super::compact::Run;
use super::engine::Engine;
use super::hidden::Hidden;
use crate::compaction::pick::{self, Conditions, Pick};
use crate::compaction::{CompactionProgress, CompactionReport};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::SegmentId;
use crate::log::{Slot, Usage};
use crate::sync::{AtomicBool, Instant, Mutex, MutexGuard, Ordering};

/// How much work an inline compaction does for each mebibyte that is appended: more than the
/// appending makes necessary, so that it always catches up. As little in shuttle's tests as leaves
/// a merge half done.
const INLINE_WORK: u64 = if cfg!(shuttle) { 256 } else { 8 << 20 };

/// How much work is done between two looks at whether to pause, to wait or to stop: 1 MiB.
const STEP_WORK: u64 = if cfg!(shuttle) { 128 } else { 1 << 20 };

/// The wait after a failed merge, doubled with each further one.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);

/// How often a full compaction looks again for tombstones that its earlier passes have made
/// superfluous.
const MAX_PASSES: usize = 4;

/// What an automatic compaction has come to.
#[derive(Debug)]
enum Step {
    /// There is nothing to do.
    Idle,
    /// This much work was done, and there is more.
    Working(u64),
    Finished(u64),
}

/// What a piece of inline compaction has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inline {
    /// There is nothing to do, or somebody else does it.
    Idle,
    /// A merge is under way.
    Working,
    /// A merge was finished.
    Finished,
}

/// Compaction, as the handles of a store share it.
pub(crate) struct Compactor<D: Disk> {
    /// One merge at a time.
    work: Mutex<Work<D>>,
    cancelled: AtomicBool,
    failure: Mutex<Option<Error>>,
}

/// What only the one who compacts may touch.
pub(crate) struct Work<D: Disk> {
    run: Option<Run<D>>,
    pub(crate) hidden: Hidden,
    /// Segments that a merge found damaged: passed over, or no other could be merged any more.
    damaged: HashSet<SegmentId>,
    failures: u32,
    retry_at: Option<Instant>,
    bytes_done: u64,
}

impl<D: Disk> Compactor<D> {
    pub(crate) fn new() -> Compactor<D> {
        Compactor {
            work: Mutex::new(Work {
                run: None,
                hidden: Hidden::default(),
                damaged: HashSet::new(),
                failures: 0,
                retry_at: None,
                bytes_done: 0,
            }),
            cancelled: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work<D>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the last merge failed, if it did.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.lock_failure().clone()
    }

    fn lock_failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the merge that is running, if any, as soon as it is at a point where it can.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl<D: Disk> Work<D> {
    fn is_backing_off(&self) -> bool {
        self.retry_at.is_some_and(|at| Instant::now() < at)
    }
}

impl<D: Disk> Engine<D> {
    /// Compacts a little, here or on the background thread, if it is worth it.
    pub(crate) fn compact_soon(&self) {
        if !self.settings.auto_compaction {
            return;
        }
        if self.settings.async_compaction {
            self.background.want_compaction();
            self.wait_for_compaction();
        } else if !self.background.is_paused() {
            self.compact_inline();
        }
    }

    /// Does a bounded piece of work; tells what it has come to.
    fn compact_inline(&self) -> Inline {
        let mut work = match self.compactor.work.try_lock() {
            Ok(work) => work,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Inline::Idle,
        };
        if self.compactor.cancelled.swap(false, Ordering::Relaxed) {
            self.give_up(&mut work);
            return Inline::Idle;
        }
        let (mut left, mut come_to) = (INLINE_WORK, Inline::Working);
        loop {
            // A failure has nothing to do with the write that happened to come by. It is in the
            // stats; if it is the disk, the next write will tell.
            let done = match self.step(&mut work, left) {
                Ok(Step::Working(done)) => done,
                Ok(Step::Finished(done)) => {
                    come_to = Inline::Finished;
                    done
                }
                Ok(Step::Idle) | Err(_) if come_to == Inline::Finished => return come_to,
                Ok(Step::Idle) | Err(_) => return Inline::Idle,
            };
            left = left.saturating_sub(done);
            if left == 0 {
                return come_to;
            }
        }
    }

    /// Compacts, here, because the disk is full; tells whether that has given anything back. Not
    /// until a merge is finished: the write that asks has no other hope.
    pub(crate) fn compact_on_full_disk(&self) -> bool {
        if !self.settings.auto_compaction || self.background.is_paused() {
            return false;
        }
        loop {
            match self.compact_inline() {
                Inline::Working => {}
                Inline::Finished => return true,
                Inline::Idle => return false,
            }
        }
    }

    /// Waits while writers are too far ahead of a compaction that is under way.
    fn wait_for_compaction(&self) {
        let is_overdue = || {
            let now_ms = self.clock.now_ms();
            let writer = self.lock_writer();
            let usages = writer.log.usages().map(|(_, usage)| usage);
            pick::is_overdue(usages, now_ms, self.settings.segment_size)
        };
        if is_overdue() {
            self.background.wait_while_compacting(is_overdue);
        }
    }

    /// Runs on the background thread: compacts until there is nothing to do. `None` when the
    /// thread is to end.
    pub(crate) fn compact_in_background(&self) -> Option<()> {
        // What panics is most likely the callback for progress. Without its thread the store would
        // grow for ever, and writers would wait for nobody.
        let compacted = catch_unwind(AssertUnwindSafe(|| self.compact_until_idle()));
        compacted.unwrap_or_else(|_| {
            self.back_off(&mut self.compactor.lock(), Error::Panicked);
            Some(())
        })
    }

    fn compact_until_idle(&self) -> Option<()> {
        loop {
            self.background.wait_while_paused()?;
            let begun = Instant::now();
            // Held for a step only, so that somebody who wants a full compaction can have it.
            let step = {
                let mut work = self.compactor.lock();
                if self.compactor.cancelled.swap(false, Ordering::Relaxed) {
                    self.give_up(&mut work);
                    return Some(());
                }
                self.step(&mut work, self.step_work())
            };
            match step {
                Ok(Step::Working(done) | Step::Finished(done)) => {
                    self.background.note_progress();
                    self.pace(begun, done)?;
                }
                // A failure is in the stats; the next rotation, or a while, brings the next try.
                Ok(Step::Idle) | Err(_) => return Some(()),
            }
        }
    }

    fn step_work(&self) -> u64 {
        match self.settings.compaction_budget {
            // A step is short, so that the pauses between them are short, too.
            Some(budget) => (budget.get() / 16).clamp(STEP_WORK.min(4096), STEP_WORK),
            None => STEP_WORK,
        }
    }

    /// Waits as long as the budget wants it after so much work.
    fn pace(&self, begun: Instant, done: u64) -> Option<()> {
        let Some(budget) = self.settings.compaction_budget else {
            return Some(());
        };
        let due = Duration::from_micros(done.saturating_mul(1_000_000) / budget);
        self.background.rest(due.saturating_sub(begun.elapsed()))
    }

    /// Goes on with the automatic compaction, beginning a merge if there is one worth it.
    fn step(&self, work: &mut Work<D>, budget: u64) -> Result<Step> {
        if work.is_backing_off() {
            return Ok(Step::Idle);
        }
        let stepped = self.try_step(work, budget);
        match &stepped {
            Ok(Step::Finished(_)) => {
                work.failures = 0;
                if work.damaged.is_empty() {
                    *self.compactor.lock_failure() = None;
                }
            }
            Ok(_) => {}
            Err(error) => {
                work.run = None;
                self.back_off(work, error.clone());
            }
        }
        stepped
    }

    /// Keeps automatic compaction from trying again for a while.
    fn back_off(&self, work: &mut Work<D>, error: Error) {
        let wait = FIRST_BACK_OFF * 2_u32.saturating_pow(work.failures.min(6));
        work.failures = work.failures.saturating_add(1);
        work.retry_at = Some(Instant::now() + wait.min(MAX_BACK_OFF));
        *self.compactor.lock_failure() = Some(error);
    }

    fn try_step(&self, work: &mut Work<D>, budget: u64) -> Result<Step> {
        self.check_poison()?;
        if work.run.is_none() {
            let Some(picked) = self.pick(&work.damaged)? else {
                return Ok(Step::Idle);
            };
            work.run = Some(self.begin_run(&picked));
            work.bytes_done = 0;
        }
        let (done, report) = self.go_on(work, budget)?;
        Ok(match report {
            Some(_) => Step::Finished(done),
            None => Step::Working(done),
        })
    }

    /// Goes on with the merge that is under way; gives its report once it is finished.
    fn go_on(&self, work: &mut Work<D>, budget: u64) -> Result<(u64, Option<CompactionReport>)> {
        // Taken out meanwhile: after a panic nobody goes on with what may be half a step. The
        // files of a merge that was not committed go; after its commit, the inputs stay where
        // readers find them until the store is opened again.
        let Some(mut run) = work.run.take() else {
            return Ok((0, None));
        };
        let advanced = self.advance_run(&mut run, budget);
        if let Err(Error::Corrupt { file, .. }) = &advanced {
            work.damaged.extend(run.input_in(file));
        }
        let done = advanced?;
        let run = work.run.insert(run);
        work.bytes_done += done;
        let finished = run.is_done();
        let progress = CompactionProgress {
            segments: run.report.segments_merged,
            bytes_before: run.report.bytes_before,
            bytes_to_copy: run.bytes_to_copy,
            bytes_done: work.bytes_done,
            finished,
        };
        if let Some(tell) = &self.settings.compaction_progress {
            tell(&progress);
        }
        if !finished {
            return Ok((done, None));
        }
        let report = work.run.take().map(|run| self.settle_run(work, &run));
        self.ensure_reserve();
        Ok((done, report))
    }

    /// What automatic compaction is to merge next, if anything.
    fn pick(&self, damaged: &HashSet<SegmentId>) -> Result<Option<Vec<Slot>>> {
        // Sealing the active segment is followed by another look; once is enough.
        for _ in 0..2 {
            let (mut segments, at) = self.figures();
            segments.retain(|(_, usage)| !damaged.contains(&usage.id));
            match pick::pick(&segments, at) {
                Pick::Nothing => return Ok(None),
                Pick::Merge(picked) => return Ok(Some(picked)),
                Pick::SealActive => self.seal_active()?,
                Pick::NoRoom { needed } => {
                    self.check_room_for_merge(needed)?;
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn figures(&self) -> (Vec<(Slot, Usage)>, Conditions) {
        let at = Conditions {
            now_ms: self.clock.now_ms(),
            segment_size: self.settings.segment_size,
            room: self.room_for_merge(),
            is_full: self.reserve.was_full(),
        };
        let writer = self.lock_writer();
        let usages = writer.log.usages().map(|(slot, usage)| (slot, *usage));
        (usages.collect(), at)
    }

    /// Compacts everything there is to compact, now.
    pub(crate) fn compact_all(&self) -> Result<CompactionReport> {
        self.compact_now(pick::has_something_to_give)
    }

    /// Seals the active segment and merges just these, sealed ones, whatever they have to give:
    /// for tests.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn compact_segments(&self, ids: &[SegmentId]) -> Result<CompactionReport> {
        let begun = Instant::now();
        let mut work = self.compactor.lock();
        self.check_poison()?;
        let mut total = CompactionReport::default();
        self.finish_run(&mut work, &mut total)?;
        self.seal_active()?;
        let segments = self.figures().0.into_iter();
        let picked: Vec<_> = segments
            .filter(|(_, usage)| usage.sealed && ids.contains(&usage.id))
            .map(|(slot, _)| slot)
            .collect();
        total = CompactionReport::default();
        if !picked.is_empty() {
            work.run = Some(self.begin_run(&picked));
            self.finish_run(&mut work, &mut total)?;
        }
        total.elapsed = begun.elapsed();
        Ok(total)
    }

    fn compact_now(&self, picks: impl Fn(&Usage, u64) -> bool) -> Result<CompactionReport> {
        let begun = Instant::now();
        let mut work = self.compactor.lock();
        self.check_poison()?;
        self.compactor.cancelled.store(false, Ordering::Relaxed);
        let mut total = CompactionReport::default();
        self.finish_run(&mut work, &mut total)?;
        self.seal_active()?;
        let begun_at = self.lock_writer().log.next_seq();
        for pass in 0..MAX_PASSES {
            let (mut segments, at) = self.figures();
            // Tombstones that the first pass had to retain, it may have freed itself, by merging
            // what they hid. What was written meanwhile is left to the next compaction: writers
            // may go on for ever.
            segments.retain(|(_, usage)| {
                let is_freed = usage.tombstone_bytes > usage.retained_bytes;
                let is_older = usage.next_seq <= begun_at;
                usage.sealed && picks(usage, at.now_ms) && (pass == 0 || (is_freed && is_older))
            });
            let dropped = total.records_dropped;
            self.compact_batches(&mut work, segments, at, &mut total)?;
            let is_first = pass == 0;
            if total.cancelled || (total.records_dropped == dropped && !is_first) {
                break;
            }
        }
        total.elapsed = begun.elapsed();
        Ok(total)
    }

    /// Merges segments, oldest first, a batch at a time.
    fn compact_batches(
        &self,
        work: &mut Work<D>,
        mut segments: Vec<(Slot, Usage)>,
        at: Conditions,
        total: &mut CompactionReport,
    ) -> Result<()> {
        segments.retain(|(_, usage)| usage.sealed);
        let base_of = {
            let pin = self.collector.pin();
            let base = |slot| self.table.get(&pin, slot).map(|s| s.header().base_seq);
            let bases = segments.iter().map(|(slot, _)| (*slot, base(*slot)));
            bases.collect::<HashMap<_, _>>()
        };
        segments.sort_by_key(|(slot, _)| base_of.get(slot).copied());
        let (mut full, before) = (None, total.segments_merged);
        let mut batches = VecDeque::from(pick::batches(&segments, at));
        while let Some(batch) = batches.pop_front() {
            work.run = Some(self.begin_run(&batch));
            work.bytes_done = 0;
            match self.finish_run(work, total) {
                // Another one may make room, or a part of it: some need none.
                Err(error @ Error::DiskFull { .. }) => {
                    full = Some(error);
                    if batch.len() > 1 {
                        batches.extend(batch.into_iter().map(|slot| vec![slot]));
                    }
                }
                finished => finished?,
            }
            if total.cancelled {
                break;
            }
        }
        match full {
            // Those that were passed over have another chance.
            Some(_) if total.segments_merged > before => {
                let (mut again, at) = self.figures();
                again.retain(|(_, usage)| segments.iter().any(|(_, other)| other.id == usage.id));
                self.compact_batches(work, again, at, total)
            }
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Finishes the merge that is under way, if any, unless it is cancelled.
    fn finish_run(&self, work: &mut Work<D>, total: &mut CompactionReport) -> Result<()> {
        while work.run.is_some() {
            if self.compactor.is_cancelled() {
                self.give_up(work);
                total.cancelled = true;
                return Ok(());
            }
            match self.go_on(work, STEP_WORK) {
                Ok((_, Some(report))) => total.add(&report),
                Ok((_, None)) => {}
                Err(error) => {
                    work.run = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Gives up the merge that is under way, or finishes it where it cannot be given up.
    fn give_up(&self, work: &mut Work<D>) {
        while work.run.as_ref().is_some_and(Run::is_committed) {
            if self.go_on(work, STEP_WORK).is_err() {
                break;
            }
        }
        work.run = None;
    }

    /// Leaves no merge half done: the store is being closed.
    pub(crate) fn end_compaction(&self) {
        // Somebody else's full compaction is not waited for.
        self.compactor.cancel();
        let mut work = self.compactor.lock();
        self.give_up(&mut work);
        self.compactor.cancelled.store(false, Ordering::Relaxed);
    }
}
