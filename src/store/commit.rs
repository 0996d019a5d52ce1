//! Group commit, by leader and followers.
//!
//! Writers append to the buffer under the writer lock and wait. One of them leads: it writes
//! everything appended so far with one write and one sync, without holding the writer lock, so
//! that others go on appending; then it publishes the records and wakes the others. Whoever is
//! left over and finds no leader leads next.
//!
//! Leading is also what sealing, compaction and closing need: nobody else touches the active
//! segment's file meanwhile.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::engine::{Engine, Writer};
use super::pending::{Appended, Group};
use crate::bugs::{Bug, is_planted};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::log::LogError;
use crate::sync::{AtomicU32, AtomicU64, Condvar, Instant, Mutex, MutexGuard, Ordering, thread};

/// Who leads.
#[derive(Default)]
pub(crate) struct CommitTurn {
    state: Mutex<TurnState>,
    changed: Condvar,
    /// About how many writers there are: the size of the last groups, falling slowly.
    expected_writers: AtomicU32,
    /// How long the last sync took.
    last_sync_ns: AtomicU64,
}

#[derive(Default)]
struct TurnState {
    /// Whether somebody leads.
    leading: bool,
    /// How many wait for that to change. Waking is a system call, also where nobody sleeps.
    waiting: u32,
}

/// The longest that a leader waits for the writers of the last group to come again.
const MAX_GATHER: Duration = Duration::from_micros(500);

/// How many records ahead of the one that is published are on their way from memory.
const AHEAD: usize = 8;

/// The right to write and sync the active segment's file; given back when dropped.
pub(crate) struct Lead<'e> {
    turn: &'e CommitTurn,
}

impl CommitTurn {
    fn lock(&self) -> MutexGuard<'_, TurnState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody gives the lead back.
    fn wait<'t>(&self, mut state: MutexGuard<'t, TurnState>) -> MutexGuard<'t, TurnState> {
        state.waiting += 1;
        let woken = self.changed.wait(state);
        let mut state = woken.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    /// Waits a little for those who wrote in the last group and are likely to write again: what a
    /// group has more of, the next one does not wait a whole sync for. Not longer than the last
    /// sync took; a lone writer never waits.
    fn gather(&self, group: &Group) {
        let expected = self.expected_writers.load(Ordering::Relaxed);
        if group.writers() >= expected {
            return;
        }
        let last_sync = Duration::from_nanos(self.last_sync_ns.load(Ordering::Relaxed));
        let (begun, patience) = (Instant::now(), last_sync.min(MAX_GATHER));
        while group.writers() < expected && begun.elapsed() < patience {
            thread::yield_now();
        }
    }

    /// Remembers a group's size for the next ones. An eighth at a time is forgotten, so that
    /// groups of changing size are still waited for, and writers that left are not for long.
    fn note_group(&self, writers: u32, sync: Duration) {
        let expected = self.expected_writers.load(Ordering::Relaxed);
        let expected = writers.max(expected - expected.div_ceil(8));
        self.expected_writers.store(expected, Ordering::Relaxed);
        self.last_sync_ns
            .store(sync.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Waits for the lead.
    pub(crate) fn lead(&self) -> Lead<'_> {
        let mut state = self.lock();
        while state.leading {
            state = self.wait(state);
        }
        state.leading = true;
        Lead { turn: self }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut state = self.turn.lock();
        state.leading = false;
        let has_waiters = state.waiting > 0;
        drop(state);
        if has_waiters {
            self.turn.changed.notify_all();
        }
    }
}

/// A group that was taken out of the writer to be settled. Should its leader panic, nobody knows
/// what is on the disk: then the store is poisoned, and all who wait for the group are told.
struct Taken<'e, D: Disk> {
    engine: &'e Engine<D>,
    group: Arc<Group>,
}

impl<D: Disk> Taken<'_, D> {
    fn settle(&self, outcome: Result<()>) {
        self.group.settle(outcome);
    }
}

impl<D: Disk> Drop for Taken<'_, D> {
    fn drop(&mut self) {
        if self.group.outcome().is_none() {
            let mut writer = self.engine.lock_writer();
            self.engine.break_down(&mut writer, Error::Panicked);
            drop(writer);
            // Poisoned by now.
            self.settle(self.engine.check_poison());
        }
    }
}

impl<D: Disk> Engine<D> {
    /// Waits until a group of writes is durable and published, leading if nobody does.
    pub(crate) fn wait_for(&self, group: &Arc<Group>) -> Result<()> {
        let mut state = self.turn.lock();
        loop {
            if let Some(outcome) = group.outcome() {
                return outcome;
            }
            if state.leading {
                state = self.turn.wait(state);
            } else {
                state.leading = true;
                drop(state);
                let lead = Lead { turn: &self.turn };
                self.turn.gather(group);
                let committed = self.commit(&lead);
                drop(lead);
                state = self.turn.lock();
                // Its outcome reaches everybody through the group, but for a group whose leader
                // panicked.
                if group.outcome().is_none() {
                    committed?;
                }
            }
        }
    }

    /// Makes everything appended so far durable and visible.
    pub(crate) fn commit(&self, _lead: &Lead<'_>) -> Result<()> {
        let (job, group, count, upto) = {
            let mut writer = self.lock_writer();
            // Whoever led before may have failed: nothing is synced again after that.
            self.check_poison()?;
            let group = Taken {
                engine: self,
                group: std::mem::take(&mut writer.group),
            };
            let upto = writer.log.next_seq();
            if is_planted(Bug::PublishBeforeSync) {
                let count = writer.pending.len();
                self.publish(&mut writer, count)?;
            }
            (writer.log.unsynced(), group, writer.pending.len(), upto)
        };
        let (wrote, synced) = match &job {
            Some(job) => {
                let wrote = job.write();
                let begun = Instant::now();
                let synced = if wrote.is_ok() && !is_planted(Bug::AcknowledgeBeforeSync) {
                    job.sync()
                } else {
                    Ok(())
                };
                let synced = match synced {
                    Err(_) if is_planted(Bug::RetrySync) => job.sync(),
                    synced => synced,
                };
                self.turn.note_group(group.group.writers(), begun.elapsed());
                self.counters.note_sync();
                (wrote, synced)
            }
            None => (Ok(()), Ok(())),
        };
        let mut writer = self.lock_writer();
        let outcome = match (wrote, synced) {
            (Ok(()), Ok(())) => {
                if let Some(job) = &job {
                    writer.log.note_synced(job);
                }
                let published = self.publish(&mut writer, count);
                if published.is_ok() {
                    self.feed.settle(upto);
                }
                published
            }
            (Err(error @ Error::DiskFull { .. }), _) => Err(self.take_back(&mut writer, error)),
            (Err(error), _) | (_, Err(error)) => Err(self.break_down(&mut writer, error)),
        };
        if is_planted(Bug::TellWaitersOk) {
            group.settle(Ok(()));
        }
        group.settle(outcome.clone());
        outcome
    }

    /// Publishes the oldest `count` pending records.
    pub(crate) fn publish(&self, writer: &mut Writer<D>, count: usize) -> Result<()> {
        let records = writer.pending.take(count);
        self.publish_records(writer, &records)
    }

    /// Publishes records, in the order of the log.
    pub(crate) fn publish_records(
        &self,
        writer: &mut Writer<D>,
        records: &[Appended],
    ) -> Result<()> {
        writer.changing = true;
        let mut published = Ok(());
        let mut pin = self.collector.pin();
        for (number, record) in (1..).zip(records) {
            if let Some(far_ahead) = records.get(number + 2 * AHEAD) {
                writer.index.prefetch_head(far_ahead.hash.into());
            }
            if let Some(ahead) = records.get(number + AHEAD) {
                self.index.prefetch(&pin, ahead.hash.into());
                writer.index.prefetch(ahead.hash.into());
            }
            published = self.publish_one(&pin, writer, record);
            if published.is_err() {
                break;
            }
            // Pages that were split meanwhile can go.
            if number % 1024 == 0 {
                pin.repin();
            }
        }
        writer.changing = false;
        // The records are durable, but the index no longer tells the truth of them.
        published.map_err(|error| self.break_down(writer, error))
    }

    /// Publishes everything that is pending: it has been made durable.
    pub(crate) fn publish_all(&self, writer: &mut Writer<D>) -> Result<()> {
        let group = std::mem::take(&mut writer.group);
        let count = writer.pending.len();
        let published = self.publish(writer, count);
        if published.is_ok() {
            self.feed.settle(writer.log.next_seq());
        }
        group.settle(published.clone());
        published
    }

    /// Undoes a write that did not fit on the disk: nothing that is pending has happened.
    pub(crate) fn take_back(&self, writer: &mut Writer<D>, error: Error) -> Error {
        if !is_planted(Bug::KeepRefusedWrite) {
            if let Err(worse) = writer.log.take_back_unwritten() {
                return self.break_down(writer, worse);
            }
        }
        drop_pending(writer, &error);
        error
    }

    /// Refuses all writes from now on: nobody knows what is on the disk.
    pub(crate) fn break_down(&self, writer: &mut Writer<D>, error: Error) -> Error {
        let error = error.into_lasting();
        if is_planted(Bug::GoOnAfterFailedSync) {
            drop_pending(writer, &error);
            return error;
        }
        let cause = self.poison.get_or_init(|| Arc::new(error.clone()));
        drop_pending(
            writer,
            &Error::Poisoned {
                cause: Arc::clone(cause),
            },
        );
        error
    }

    /// Turns a failed step of the log into the caller's error. Only a full disk or a limit, which
    /// can pass, and a number that there is no more of, leave the store in use.
    pub(crate) fn log_failed(&self, writer: &mut Writer<D>, error: LogError) -> Error {
        match error {
            LogError::Unchanged(
                error @ (Error::DiskFull { .. }
                | Error::ResourceLimit { .. }
                | Error::Exhausted { .. }),
            ) => error,
            LogError::Unchanged(error) | LogError::Broken(error) => self.break_down(writer, error),
        }
    }

    /// Makes everything so far durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_poison()?;
        self.commit(&self.turn.lead())
    }
}

/// Tells everybody who waits that their writes did not happen.
fn drop_pending<D: Disk>(writer: &mut Writer<D>, error: &Error) {
    writer.pending.clear();
    std::mem::take(&mut writer.group).settle(Err(error.clone()));
}
