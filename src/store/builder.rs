//! How a store is opened: every option, its trade-off and its default.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Store, write_back};
use crate::compaction::{CompactionProgress, CompactionProgressFn};
use crate::disk::{Disk, OsDisk};
use crate::error::{Error, Result};
use crate::format::hash::HASH_BITS;
use crate::recovery::RecoveryProgress;
use crate::recovery::directory::check_named;
use crate::segment::ReadMode;

/// When a write is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it returns: it survives the death of the process and of the machine. Writes of
    /// several threads share a sync.
    #[default]
    EveryWrite,
    /// It survives the death of the process when it returns, and that of the machine after at
    /// most this long. What a power cut takes is the end of the log, never something in between.
    Interval(Duration),
}

/// When a record's checksum is verified on reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// The first time that this process reads it: damage on the disk is found, at almost no
    /// price for what is read often.
    #[default]
    FirstRead,
    /// Every time: also finds memory that goes bad under a long-running process. Costs fetching
    /// the whole record.
    EveryRead,
    /// Never: damage gives wrong values. For data that can be made again.
    Never,
}

/// The smallest segment size, in bytes.
const MIN_SEGMENT_SIZE: u64 = 256;
/// The largest segment size, in bytes: 4 GiB less 4 KiB.
const MAX_SEGMENT_SIZE: u64 = (4 << 30) - 4096;
/// The segment size unless the builder says otherwise: 64 MiB.
const DEFAULT_SEGMENT_SIZE: u64 = 64 << 20;

/// What the options say.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    /// How often a read-only store catches up by itself.
    pub(crate) refresh_interval: Option<Duration>,
    pub(crate) segment_size: u64,
    pub(crate) durability: Durability,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) compression: bool,
    pub(crate) cache_capacity: Option<NonZeroUsize>,
    /// `None` without a write-back buffer.
    pub(crate) write_back_bytes: Option<usize>,
    pub(crate) auto_compaction: bool,
    pub(crate) async_compaction: bool,
    /// Bytes per second; `None` without a limit.
    pub(crate) compaction_budget: Option<NonZeroU64>,
    pub(crate) compaction_progress: Option<Arc<CompactionProgressFn>>,
    pub(crate) verify: Verify,
    pub(crate) read_mode: ReadMode,
    /// `None` for one for each core, which takes a while to find out.
    pub(crate) recovery_threads: Option<NonZeroUsize>,
    pub(crate) progress: Option<Arc<crate::recovery::ProgressFn>>,
    pub(crate) hash_bits: u8,
}

impl Settings {
    pub(crate) fn check(&self) -> Result<()> {
        check_named("dir", &self.dir)?;
        let invalid = |option, reason: String| Err(Error::InvalidOption { option, reason });
        if !(MIN_SEGMENT_SIZE..=MAX_SEGMENT_SIZE).contains(&self.segment_size) {
            let range = format!("{MIN_SEGMENT_SIZE} to {MAX_SEGMENT_SIZE} bytes");
            return invalid(
                "segment_size",
                format!("{} is not {range}", self.segment_size),
            );
        }
        if self.default_ttl == Some(Duration::ZERO) {
            return invalid(
                "default_ttl",
                "0 would expire every value at once; leave it out".into(),
            );
        }
        if self.durability == Durability::Interval(Duration::ZERO) {
            let reason = "0 is every write; leave it out for that".into();
            return invalid("sync_interval", reason);
        }
        match self.refresh_interval {
            Some(_) if !self.read_only => {
                let reason = "only a read-only store follows another; add read_only(true)".into();
                return invalid("refresh_interval", reason);
            }
            Some(Duration::ZERO) => {
                let reason = "0 would never stop reading; call refresh before a read".into();
                return invalid("refresh_interval", reason);
            }
            _ => {}
        }
        if self.write_back_bytes == Some(0) {
            return invalid("write_back_bytes", "a buffer needs room; at least 1".into());
        }
        Ok(())
    }
}

/// Opens a store with options other than the defaults.
///
/// [`build`](CrabKvBuilder::build) gives the text facade, [`build_store`](CrabKvBuilder::build_store)
/// the store for bytes; the options are the same.
///
/// ```
/// use std::time::Duration;
///
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::CrabKv::builder(dir.path())
///     .sync_interval(Duration::from_millis(100))
///     .compression(true)
///     .build_store()?;
/// store.put("key", vec![b'x'; 1000])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder does nothing before `build` or `build_store`"]
pub struct CrabKvBuilder {
    settings: Settings,
}

impl CrabKvBuilder {
    /// Options for the store in `dir`, all at their defaults.
    pub fn new(dir: impl AsRef<Path>) -> CrabKvBuilder {
        CrabKvBuilder {
            settings: Settings {
                dir: dir.as_ref().to_path_buf(),
                create: true,
                read_only: false,
                refresh_interval: None,
                segment_size: DEFAULT_SEGMENT_SIZE,
                durability: Durability::EveryWrite,
                default_ttl: None,
                compression: false,
                cache_capacity: None,
                write_back_bytes: None,
                auto_compaction: true,
                async_compaction: false,
                compaction_budget: None,
                compaction_progress: None,
                verify: Verify::FirstRead,
                read_mode: ReadMode::Mmap,
                recovery_threads: None,
                progress: None,
                hash_bits: HASH_BITS as u8,
            },
        }
    }

    fn with(mut self, set: impl FnOnce(&mut Settings)) -> CrabKvBuilder {
        set(&mut self.settings);
        self
    }

    /// Whether to make the directory and a store in it if there is none. Default: yes. Without
    /// it, opening fails with [`Error::NotFound`] and nothing is made.
    pub fn create_if_missing(self, create: bool) -> CrabKvBuilder {
        self.with(|s| s.create = create)
    }

    /// Opens the store to read only, also beside a process that writes to it. Default: no.
    ///
    /// Nothing is made or changed in the directory, which may be on a read-only file system, and
    /// no lock is taken: any number of read-only stores may have it open. What is seen is the
    /// store as it was at one moment; [`Store::refresh`] goes on to what was written since, or a
    /// thread does at a [`refresh_interval`](CrabKvBuilder::refresh_interval). Every write fails
    /// with [`Error::ReadOnly`]. Options that are about writing ([`create_if_missing`], TTLs,
    /// compression, syncing, the write-back buffer, compaction) are ignored, so that writer and
    /// readers can share one set of options.
    ///
    /// [`create_if_missing`]: CrabKvBuilder::create_if_missing
    pub fn read_only(self, read_only: bool) -> CrabKvBuilder {
        self.with(|s| s.read_only = read_only)
    }

    /// Lets a [read-only](CrabKvBuilder::read_only) store [refresh](Store::refresh) itself this
    /// often, on a thread of its own. Default: it stays as it is until `refresh` is called.
    ///
    /// A refresh that finds nothing new reads the manifest and a few bytes at the end of the log.
    /// One that fails changes nothing and is tried again at the next interval; why is in
    /// [`Stats::refresh_failure`](crate::Stats::refresh_failure).
    pub fn refresh_interval(self, interval: Duration) -> CrabKvBuilder {
        self.with(|s| s.refresh_interval = Some(interval))
    }

    /// How large a segment file grows before the next one begins, in bytes; also how much memory
    /// the active segment can take and how much disk space is reserved at a time. From 256 bytes
    /// (for tests) to just under 4 GiB. Default: 64 MiB. Much smaller segments run out of maps
    /// (`vm.max_map_count`); larger ones make compaction coarser. Can be changed at every open.
    pub fn segment_size(self, bytes: u64) -> CrabKvBuilder {
        self.with(|s| s.segment_size = bytes)
    }

    /// Syncs at this interval in the background instead of at every write: about a hundred times
    /// the writes per second. Default: every write is synced before it returns.
    ///
    /// When the process dies, nothing is lost. When the machine dies, what was written in the
    /// last interval may be.
    pub fn sync_interval(self, interval: Duration) -> CrabKvBuilder {
        self.with(|s| s.durability = Durability::Interval(interval))
    }

    /// [`sync_interval`](CrabKvBuilder::sync_interval) and its default in one.
    pub fn durability(self, durability: Durability) -> CrabKvBuilder {
        self.with(|s| s.durability = durability)
    }

    /// How long values live that are put without a TTL of their own. Default: for ever.
    pub fn default_ttl(self, ttl: Duration) -> CrabKvBuilder {
        self.with(|s| s.default_ttl = Some(ttl))
    }

    /// Compresses values with Snappy where it is worth it: from 256 bytes on, if it saves at
    /// least a tenth. Default: no. Compressed values take less room and are not zero-copy: a get
    /// decompresses, or finds them in the [cache](CrabKvBuilder::cache_capacity). What is already
    /// there is read either way.
    pub fn compression(self, compression: bool) -> CrabKvBuilder {
        self.with(|s| s.compression = compression)
    }

    /// Keeps this many values that cost something to read (decompressed ones, and all in
    /// [`ReadMode::Pread`]) in an LRU cache. Default: none. Plain values in mapped segments never
    /// go through it: reading them in place is faster.
    pub fn cache_capacity(self, values: NonZeroUsize) -> CrabKvBuilder {
        self.with(|s| s.cache_capacity = Some(values))
    }

    /// Lets writes wait in memory, so that many writes to one key cost one. Default: no.
    ///
    /// They reach the log at [`flush`](Store::flush), when the buffer is
    /// [full](CrabKvBuilder::write_back_bytes), and when the last handle is dropped. When the
    /// process or the machine dies, what waits is lost, all of it since the last flush.
    pub fn write_back_cache(self, write_back: bool) -> CrabKvBuilder {
        self.with(|s| {
            let bytes = s
                .write_back_bytes
                .unwrap_or(write_back::DEFAULT_WRITE_BACK_BYTES);
            s.write_back_bytes = write_back.then_some(bytes);
        })
    }

    /// As [`write_back_cache(true)`](CrabKvBuilder::write_back_cache), flushing itself when keys
    /// and values take more than about this many bytes. Default: 8 MiB.
    pub fn write_back_bytes(self, bytes: usize) -> CrabKvBuilder {
        self.with(|s| s.write_back_bytes = Some(bytes))
    }

    /// Whether to compact by itself, once a third of a log of more than 1 MiB could be given back.
    /// Default: yes. Without it, space comes back with [`Store::compact`] only.
    pub fn auto_compaction(self, auto: bool) -> CrabKvBuilder {
        self.with(|s| s.auto_compaction = auto)
    }

    /// Compacts on a thread of its own instead of in the writes that make it worth while.
    /// Default: no, then each mebibyte written pays for at most 8 MiB of compaction work.
    ///
    /// With it, writers wait for compaction only when they are so far ahead of it that stale
    /// records would take much more than a third of the log. Readers never wait for either.
    pub fn async_compaction(self, background: bool) -> CrabKvBuilder {
        self.with(|s| s.async_compaction = background)
    }

    /// How many bytes per second compaction on its own thread may read and write, so that it
    /// leaves the disk to others. Default: no limit. A limit below what overwriting makes
    /// necessary slows writers down to it.
    pub fn compaction_budget(self, bytes_per_second: NonZeroU64) -> CrabKvBuilder {
        self.with(|s| s.compaction_budget = Some(bytes_per_second))
    }

    /// Calls `progress` as merges go on, on the thread that merges, about once for each mebibyte
    /// of work. It must not call back into the store. Should it panic on compaction's own thread,
    /// compaction waits a little before it goes on.
    pub fn on_compaction_progress(
        self,
        progress: impl Fn(&CompactionProgress) + Send + Sync + 'static,
    ) -> CrabKvBuilder {
        self.with(|s| s.compaction_progress = Some(Arc::new(progress)))
    }

    /// When checksums are verified on reading. Default: at the first read of a record.
    pub fn verify(self, verify: Verify) -> CrabKvBuilder {
        self.with(|s| s.verify = verify)
    }

    /// How sealed segments are read. Default: through memory maps.
    pub fn read_mode(self, mode: ReadMode) -> CrabKvBuilder {
        self.with(|s| s.read_mode = mode)
    }

    /// How many threads open a store. Default: one for each core.
    pub fn recovery_threads(self, threads: NonZeroUsize) -> CrabKvBuilder {
        self.with(|s| s.recovery_threads = Some(threads))
    }

    /// Calls `progress` while the store is opened: at the start, after each segment, and about two
    /// hundred times while the index is filled; not called by several threads at once.
    pub fn on_recovery_progress(
        self,
        progress: impl Fn(&RecoveryProgress) + Send + Sync + 'static,
    ) -> CrabKvBuilder {
        self.with(|s| s.progress = Some(Arc::new(progress)))
    }

    /// Uses only this many bits of a key's hash, in a store that is made now, so that keys
    /// collide: for tests.
    #[cfg(any(test, feature = "sim"))]
    pub fn hash_bits(self, bits: u8) -> CrabKvBuilder {
        self.with(|s| s.hash_bits = bits)
    }

    /// Opens the store for bytes.
    ///
    /// # Errors
    ///
    /// As [`Store::open`], and [`Error::InvalidOption`].
    pub fn build_store(self) -> Result<Store> {
        self.build_store_on(OsDisk)
    }

    /// Opens the store on another [`Disk`] than the operating system's: a simulated one, in tests.
    ///
    /// # Errors
    ///
    /// As [`build_store`](CrabKvBuilder::build_store).
    pub fn build_store_on<D: Disk>(self, disk: D) -> Result<Store<D>> {
        Store::open_on(disk, self.settings)
    }
}
