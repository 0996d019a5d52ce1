//! Following a store as it is written to.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Store;
use super::changes::Change;
use super::engine::{Engine, Handle};
use super::feed::{Feed, News, Patience};
use super::walk::Walk;
use crate::disk::{Disk, OsDisk};
use crate::error::Result;
use crate::format::SeqNo;
use crate::sync::Instant;

/// The changes of the keys that begin with a prefix, as they come; see
/// [`Store::watch`](crate::Store::watch).
///
/// As an iterator it waits for the next change. It ends when the store is
/// [closed](crate::Store::close) or its last handle is dropped, once everything up to then was given,
/// and at the first error. It is no handle itself: it does not keep the directory locked.
///
/// It reads from the log. So a watch that is slow costs the writers nothing, and no memory; but
/// the segments that it is in the middle of stay on the disk meanwhile, and one that compaction
/// has overtaken fails with [`Error::HistoryCompacted`](crate::Error::HistoryCompacted).
pub struct Watch<D: Disk = OsDisk> {
    engine: Weak<Engine<D>>,
    feed: Arc<Feed<D>>,
    prefix: Vec<u8>,
    /// What was there when it was last looked, as far as it was not given yet.
    walk: Option<Walk<D>>,
    next_seq: SeqNo,
    /// How often the store had been closed when the watch began.
    closes: u64,
    over: bool,
}

impl<D: Disk> Watch<D> {
    /// Watches from `since` on, or from now on.
    pub(crate) fn new(engine: &Arc<Handle<D>>, prefix: &[u8], since: Option<SeqNo>) -> Watch<D> {
        let feed = Arc::clone(&engine.feed);
        // Counted before the writer lock is taken: whoever raises the settled mark after that
        // knows of this watch.
        let closes = feed.begin_watch();
        let now = engine.visible_seq();
        Watch {
            engine: engine.downgrade(),
            feed,
            prefix: prefix.to_vec(),
            walk: None,
            next_seq: since.unwrap_or(now),
            closes,
            over: false,
        }
    }

    /// Where to go on: [`Store::watch_from`](crate::Store::watch_from) and
    /// [`Store::changes`](crate::Store::changes) from here give everything that was not given yet,
    /// also in another process and after the store was opened again.
    pub fn next_seq(&self) -> SeqNo {
        self.walk.as_ref().map_or(self.next_seq, Walk::next_seq)
    }

    /// Whether it has ended: nothing will come any more.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The next change, if there is one now.
    ///
    /// # Errors
    ///
    /// As [`Store::changes`](crate::Store::changes); the watch is [over](Watch::is_over) then.
    pub fn try_next(&mut self) -> Result<Option<Change>> {
        self.next_within(Patience::None)
    }

    /// The next change, if it comes within this time. `None` also when the watch is
    /// [over](Watch::is_over), and then at once.
    ///
    /// # Errors
    ///
    /// As [`Store::changes`](crate::Store::changes); the watch is over then.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Change>> {
        // A time beyond the end of the clock never comes.
        let deadline = Instant::now().checked_add(timeout);
        self.next_within(deadline.map_or(Patience::Forever, Patience::Until))
    }

    fn next_within(&mut self, patience: Patience) -> Result<Option<Change>> {
        let next = self.look(patience);
        if next.is_err() {
            self.end();
        }
        next
    }

    fn look(&mut self, patience: Patience) -> Result<Option<Change>> {
        while !self.over {
            if let Some(walk) = &mut self.walk {
                let change = walk.next(&self.prefix)?;
                if change.is_some() {
                    return Ok(change);
                }
                self.next_seq = walk.next_seq();
                self.walk = None;
            }
            let (engine, next_seq) = (&self.engine, self.next_seq);
            match self.feed.news(engine, next_seq, self.closes, patience) {
                News::Settled(snapshot) => {
                    snapshot.check(next_seq)?;
                    self.walk = Some(Walk::new(&self.feed, snapshot, next_seq));
                }
                News::Nothing => return Ok(None),
                News::Over => self.end(),
            }
        }
        Ok(None)
    }

    /// Lets go of everything.
    fn end(&mut self) {
        self.next_seq = self.next_seq();
        self.walk = None;
        if !std::mem::replace(&mut self.over, true) {
            self.feed.end_watch();
        }
    }
}

impl<D: Disk> Iterator for Watch<D> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Result<Change>> {
        self.next_within(Patience::Forever).transpose()
    }
}

impl<D: Disk> Drop for Watch<D> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<D: Disk> std::fmt::Debug for Watch<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("prefix", &self.prefix.escape_ascii().to_string())
            .field("next_seq", &self.next_seq())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

impl<D: Disk> Store<D> {
    /// Follows what is written to the keys that begin with `prefix`, from now on; all keys with an
    /// empty one.
    ///
    /// As an iterator, [`Watch`] waits for the next change. It gives what
    /// [`changes`](Store::changes) gives, as soon as it is durable and visible: with a sync interval
    /// that is at the next sync, with a write-back buffer after the next flush, in a read-only store
    /// when it is [refreshed](Store::refresh). It ends when the
    /// store is closed or its last handle is dropped.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// let watch = store.watch("user:");
    /// let watcher = std::thread::spawn(move || {
    ///     let keys = watch.map(|change| change.map(|change| change.key));
    ///     keys.collect::<Result<Vec<_>, _>>()
    /// });
    /// store.put("user:1", "Ada")?;
    /// store.put("order:1", "...")?;
    /// store.delete("user:1")?;
    /// store.close()?;
    /// assert_eq!(watcher.join().unwrap()?, [b"user:1", b"user:1"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch(&self, prefix: impl AsRef<[u8]>) -> Watch<D> {
        Watch::new(&self.engine, prefix.as_ref(), None)
    }

    /// As [`watch`](Store::watch), but first what was written from the sequence number `since` on:
    /// so a watch is resumed, also after the store was opened again. If that is no longer
    /// possible, its first change is
    /// [`Error::HistoryCompacted`](crate::Error::HistoryCompacted).
    pub fn watch_from(&self, since: SeqNo, prefix: impl AsRef<[u8]>) -> Watch<D> {
        Watch::new(&self.engine, prefix.as_ref(), Some(since))
    }
}
