//! Read-only stores, and how they catch up with the process that writes.

use std::path::Path;
use std::sync::PoisonError;

use super::Store;
use super::engine::Engine;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::recovery::Follower;
use crate::sync::MutexGuard;

impl Store {
    /// Opens the store in `dir` to read only, with the default options otherwise, also beside a
    /// process that writes to it; see [`read_only`](crate::CrabKvBuilder::read_only).
    ///
    /// # Errors
    ///
    /// As [`open`](Store::open), but never [`Error::Locked`]; [`Error::NotFound`] when there is
    /// no store. Nothing is made or changed in the directory, whatever happens.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let writer = crabkv::Store::open(dir.path())?; // in another process, say
    /// writer.put("a", "1")?;
    ///
    /// let follower = crabkv::Store::open_read_only(dir.path())?;
    /// assert_eq!(follower.get("a")?.unwrap(), "1");
    /// writer.put("a", "2")?;
    /// assert!(follower.refresh()?);
    /// assert_eq!(follower.get("a")?.unwrap(), "2");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Store> {
        Store::builder(dir).read_only(true).build_store()
    }
}

impl<D: Disk> Store<D> {
    /// Whether the store was opened [read-only](crate::CrabKvBuilder::read_only).
    pub fn is_read_only(&self) -> bool {
        self.engine.settings.read_only
    }

    /// Lets a read-only store see what has been written since it was opened or last refreshed;
    /// says whether there was anything. A store that writes sees everything already.
    ///
    /// Reads only what is new: the manifest, hint files of new segments, and what was appended.
    /// Reads go on meanwhile, on other threads; they meet each key as it was before or as it is
    /// after, and a key that is there throughout is never absent. After it, the store is as the
    /// writer had written it at one moment during the call: no write is seen without those before
    /// it. That may include the last ones before they are durable, or acknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when a file is damaged, or an older copy of the store was put in its
    /// place, [`Error::ForeignFile`] when it is another store, [`Error::NotFound`] when it is
    /// gone, [`Error::Io`] when a file cannot be read. What was seen before goes on to be seen,
    /// and the next call tries again. The failure is also in
    /// [`Stats::refresh_failure`](crate::Stats::refresh_failure), until a refresh succeeds.
    pub fn refresh(&self) -> Result<bool> {
        self.engine.refresh()
    }
}

impl<D: Disk> Engine<D> {
    pub(crate) fn refresh(&self) -> Result<bool> {
        let Some(follower) = &self.follower else {
            return Ok(false);
        };
        let mut follower = follower.lock().unwrap_or_else(PoisonError::into_inner);
        let refreshed = self.refresh_from(&mut follower);
        // Still under the lock: of two refreshes, the later one counts.
        *self.lock_refresh_failure() = refreshed.as_ref().err().cloned();
        refreshed
    }

    pub(crate) fn refresh_failure(&self) -> Option<String> {
        self.lock_refresh_failure().as_ref().map(Error::to_string)
    }

    fn lock_refresh_failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.refresh_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh_from(&self, follower: &mut Follower<D>) -> Result<bool> {
        let news = follower.look()?;
        if let Some(news) = &news {
            // Before what the writer has compacted away because it had expired is gone.
            self.clock.note(news.clock_ms());
        }
        if news.is_none() && !follower.is_behind() {
            return Ok(false);
        }
        let mut guard = self.lock_writer();
        if let Some(cause) = self.poison.get() {
            return Err(Error::clone(cause));
        }
        let writer = &mut *guard;
        writer.changing = true;
        let done = follower.catch_up(news, &mut writer.index, &mut writer.log, &self.collector);
        writer.changing = false;
        done?;
        self.feed.settle(writer.log.next_seq());
        Ok(true)
    }
}
