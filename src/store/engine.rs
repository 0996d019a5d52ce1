//! The engine: everything that handles of one store share.

use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

use super::background::Background;
use super::builder::Settings;
use super::cache::Cache;
use super::clock::{self, Clock};
use super::commit::CommitTurn;
use super::compactor::Compactor;
use super::feed::{Feed, Origin};
use super::leaving::Leaving;
use super::pending::{Group, Pending};
use super::reserve::Reserve;
use super::stats::Counters;
use super::write_back::WriteBack;
use super::{Durability, Verify};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::{KeyHasher, SeqNo, StoreId};
use crate::index::{Index, IndexWriter, Trust};
use crate::log::{Log, LogOptions, SegmentTable};
use crate::reclaim::Collector;
use crate::recovery::{self, Follower, RecoveryOptions, RecoveryReport};
use crate::sync::{Mutex, MutexGuard, OnceLock, lock_briefly};

/// What only the one who holds the writer lock may touch.
pub(crate) struct Writer<D: Disk> {
    pub(crate) log: Log<D>,
    pub(crate) index: IndexWriter,
    pub(crate) pending: Pending,
    /// What the writes appended now belong to.
    pub(crate) group: Arc<Group>,
    /// Whether log and index are in the middle of a change; still set when the lock is taken
    /// after a panic, it means that they no longer fit together.
    pub(crate) changing: bool,
}

pub(crate) struct Engine<D: Disk> {
    pub(crate) disk: D,
    pub(crate) settings: Settings,
    pub(crate) hasher: KeyHasher,
    pub(crate) store_id: StoreId,
    pub(crate) verify: Verify,
    /// What `verify` means for an index entry.
    pub(crate) trust: Trust,
    /// The same for [`find_straight`](Engine::find_straight), which is no way where a write-back
    /// buffer is to be asked before the log.
    pub(crate) straight: Trust,
    pub(crate) collector: Arc<Collector>,
    pub(crate) index: Arc<Index>,
    pub(crate) table: SegmentTable<D>,
    pub(crate) clock: Clock<D>,
    pub(crate) cache: Option<Cache>,
    pub(crate) write_back: Option<WriteBack>,
    pub(crate) report: RecoveryReport,
    pub(crate) turn: CommitTurn,
    writer: Mutex<Writer<D>>,
    /// The first failure that left the disk in an unknown state.
    pub(crate) poison: OnceLock<Arc<Error>>,
    pub(crate) compactor: Compactor<D>,
    pub(crate) reserve: Reserve,
    pub(crate) counters: Counters,
    pub(crate) background: Background,
    pub(crate) feed: Arc<Feed<D>>,
    /// Of a read-only store: how far it has followed the writer.
    pub(crate) follower: Option<Mutex<Follower<D>>>,
    /// Why it could not follow the last time.
    pub(crate) refresh_failure: Mutex<Option<Error>>,
    /// After everything that holds segments, so that it knows which of them others still read.
    pub(crate) leaving: Leaving<D>,
    /// Last, so that it is given back when everything else is done.
    _lock: Option<D::Lock>,
}

impl<D: Disk> Engine<D> {
    pub(crate) fn open(disk: D, settings: Settings) -> Result<Arc<Engine<D>>> {
        settings.check()?;
        let open = if settings.read_only {
            recovery::follow
        } else {
            recovery::recover
        };
        let recovered = open(
            &disk,
            &settings.dir,
            &RecoveryOptions {
                log: LogOptions {
                    segment_size: settings.segment_size,
                    read_mode: settings.read_mode,
                },
                create: settings.create,
                threads: settings
                    .recovery_threads
                    .or_else(|| std::thread::available_parallelism().ok())
                    .map_or(1, NonZeroUsize::get),
                hash_bits: settings.hash_bits,
                progress: settings.progress.as_deref(),
            },
        )?;
        let log = Log::new(recovered.log);
        let origin = Origin {
            disk: disk.clone(),
            dir: settings.dir.clone(),
            store: log.manifest().store,
            hasher: log.manifest().hasher,
            read_mode: settings.read_mode,
            verify: settings.verify != Verify::Never,
            is_follower: settings.read_only,
        };
        // What recovery has read, or copied, is durable.
        let feed = Arc::new(Feed::new(origin, log.next_seq()));
        let trust = match settings.verify {
            Verify::FirstRead => Trust::VERIFIED,
            Verify::EveryRead => Trust::NONE,
            Verify::Never => Trust::ALL,
        };
        let write_back = settings
            .write_back_bytes
            .filter(|_| !settings.read_only)
            .map(WriteBack::new);
        let engine = Arc::new(Engine {
            hasher: log.manifest().hasher,
            store_id: log.manifest().store,
            verify: settings.verify,
            trust,
            straight: match write_back {
                None => trust,
                Some(_) => Trust::NONE,
            },
            collector: recovered.collector,
            index: recovered.index,
            table: log.table().clone(),
            clock: Clock::new(disk.clone(), log.manifest().clock_ms),
            cache: settings.cache_capacity.map(Cache::new),
            write_back,
            report: recovered.report,
            turn: CommitTurn::default(),
            writer: Mutex::new(Writer {
                log,
                index: recovered.index_writer,
                pending: Pending::default(),
                group: Arc::default(),
                changing: false,
            }),
            poison: OnceLock::new(),
            compactor: Compactor::new(),
            leaving: Leaving::new(),
            reserve: Reserve::default(),
            counters: Counters::default(),
            background: Background::new(),
            feed,
            follower: recovered.follower.map(Mutex::new),
            refresh_failure: Mutex::default(),
            _lock: recovered.lock,
            disk,
            settings,
        });
        engine.start_background()?;
        Ok(engine)
    }

    /// Takes the writer lock. Only what is short may happen under it; waiting for the disk only
    /// in [`Durability::Interval`] and with the lead.
    pub(crate) fn lock_writer(&self) -> MutexGuard<'_, Writer<D>> {
        let mut writer = lock_briefly(&self.writer);
        if std::mem::take(&mut writer.changing) {
            self.break_down(&mut writer, Error::Panicked);
        }
        writer
    }

    /// Whether anything may be written: not to a read-only store, nor after a failure that left
    /// the disk in an unknown state. Every write comes past here.
    pub(crate) fn check_poison(&self) -> Result<()> {
        self.check_not_read_only()?;
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned {
                cause: Arc::clone(cause),
            }),
        }
    }

    pub(crate) fn check_not_read_only(&self) -> Result<()> {
        if self.settings.read_only {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }

    /// When something written now expires.
    pub(crate) fn expiry(&self, ttl: super::batch::Ttl) -> Option<u64> {
        let ttl = match ttl {
            super::batch::Ttl::Default => self.settings.default_ttl?,
            super::batch::Ttl::For(ttl) => ttl,
            super::batch::Ttl::Never => return None,
            super::batch::Ttl::At(expires_at_ms) => return Some(expires_at_ms),
        };
        Some(self.clock.now_ms().saturating_add(clock::whole_ms(ttl)))
    }

    /// Whether a put would be gone as it is written. It is a delete then: a record that had
    /// expired before it was written would be a value again should the clock be set back.
    pub(crate) fn is_over(&self, ttl: super::batch::Ttl) -> bool {
        matches!(ttl, super::batch::Ttl::At(at_ms) if self.clock.has_passed(at_ms))
    }

    /// Flushes, syncs, and tells the manifest that the store ended in good order.
    pub(crate) fn close(&self) -> Result<()> {
        if self.settings.read_only {
            self.feed.note_closed();
            return Ok(());
        }
        self.end_compaction();
        self.flush_write_back()?;
        self.check_poison()?;
        let lead = self.turn.lead();
        self.commit(&lead)?;
        let mut writer = self.lock_writer();
        let clock_ms = self.clock.now_ms();
        if writer.log.is_worth_sealing() {
            writer.changing = true;
            let sealed = writer.log.seal(clock_ms);
            writer.changing = false;
            if let Err(error) = sealed {
                // Closed unsealed, it takes a little longer to open.
                self.log_failed(&mut writer, error);
                self.check_poison()?;
            }
        }
        writer.changing = true;
        let closed = writer.log.close(clock_ms);
        writer.changing = false;
        closed.map_err(|error| self.log_failed(&mut writer, error))?;
        // That has made durable what came in since the commit, too.
        self.publish_all(&mut writer)?;
        self.feed.note_closed();
        Ok(())
    }

    pub(crate) fn is_interval(&self) -> bool {
        matches!(self.settings.durability, Durability::Interval(_))
    }
}

/// What the handles and iterations of a store share. The engine's own threads do not: they borrow
/// it for a moment, and must not be the last to let go of it, or the directory would still be
/// locked when the last handle is gone.
pub(crate) struct Handle<D: Disk> {
    engine: Arc<Engine<D>>,
}

impl<D: Disk> Handle<D> {
    pub(crate) fn new(engine: Arc<Engine<D>>) -> Handle<D> {
        Handle { engine }
    }

    /// The engine, for those who must not keep the store open.
    pub(crate) fn downgrade(&self) -> Weak<Engine<D>> {
        Arc::downgrade(&self.engine)
    }
}

impl<D: Disk> std::ops::Deref for Handle<D> {
    type Target = Engine<D>;

    fn deref(&self) -> &Engine<D> {
        &self.engine
    }
}

impl<D: Disk> Drop for Handle<D> {
    fn drop(&mut self) {
        self.engine.feed.let_go();
        self.engine.background.stop();
    }
}

impl<D: Disk> Drop for Engine<D> {
    fn drop(&mut self) {
        self.background.stop();
        // Whoever wants to know of a failure calls `close` first; then this does nothing new.
        let _ = self.close();
        self.feed.leave_behind(|| self.snapshot(SeqNo::FIRST));
    }
}
