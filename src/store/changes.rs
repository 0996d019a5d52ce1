//! The change feed: what was written, in the order in which it was written, from the log itself.

use std::sync::Arc;

use super::Store;
use super::engine::{Engine, Handle};
use super::value::Value;
use super::walk::Walk;
use crate::disk::{Disk, OsDisk};
use crate::error::Result;
use crate::format::SeqNo;

/// One write, as [`Store::changes`](crate::Store::changes) and [`Watch`](crate::Watch) give it. The
/// writes of a batch are changes of their own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change {
    /// The write's sequence number: the version that it gave the key.
    pub seq: SeqNo,
    /// The key.
    pub key: Vec<u8>,
    /// What was done to it.
    pub kind: ChangeKind,
}

/// What a [`Change`] did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ChangeKind {
    /// The key was given this value. It may have expired since: [`Value::expires_at`] says when.
    Put(Value),
    /// The key was deleted, or it had expired when compaction came past.
    Delete,
}

impl Change {
    /// The value that was put; `None` for a delete.
    pub fn value(&self) -> Option<&Value> {
        match &self.kind {
            ChangeKind::Put(value) => Some(value),
            ChangeKind::Delete => None,
        }
    }
}

/// The changes of a store up to one moment, in ascending order of their sequence numbers; see
/// [`Store::changes`](crate::Store::changes).
///
/// Ends at the first error. While it lives, the directory stays locked, and the segments that it
/// has not come past stay on the disk even if they are compacted.
pub struct Changes<D: Disk = OsDisk> {
    walk: Walk<D>,
    complete_from: SeqNo,
    since: SeqNo,
    failed: bool,
    /// Keeps the store open.
    _engine: Arc<Handle<D>>,
}

impl<D: Disk> Changes<D> {
    pub(crate) fn new(engine: &Arc<Handle<D>>, since: SeqNo) -> Result<Changes<D>> {
        engine.settle_all()?;
        let snapshot = engine.snapshot(since);
        snapshot.check(since)?;
        Ok(Changes {
            complete_from: snapshot.history.complete_from,
            walk: Walk::new(&engine.feed, snapshot, since),
            since,
            failed: false,
            _engine: Arc::clone(engine),
        })
    }

    /// Where to go on: [`Store::changes`](crate::Store::changes) from here gives everything that
    /// was not given yet, also in another process and after the store was opened again.
    pub fn next_seq(&self) -> SeqNo {
        self.walk.next_seq()
    }

    /// From this sequence number on, every single change is there. Before it, changes whose keys
    /// were written again later may be missing.
    pub fn complete_from(&self) -> SeqNo {
        self.complete_from
    }

    /// Whether every single change is given. Otherwise compaction has dropped some whose keys were
    /// written again later: what the changes come to is the same.
    pub fn is_complete(&self) -> bool {
        self.since >= self.complete_from
    }
}

impl<D: Disk> Iterator for Changes<D> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Result<Change>> {
        if self.failed {
            return None;
        }
        let change = self.walk.next(b"");
        self.failed = change.is_err();
        change.transpose()
    }
}

impl<D: Disk> std::fmt::Debug for Changes<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes")
            .field("next_seq", &self.next_seq())
            .field("complete_from", &self.complete_from)
            .finish_non_exhaustive()
    }
}

impl<D: Disk> Store<D> {
    /// What was written from the sequence number `since` on, in the order in which it was written.
    ///
    /// Each change that is visible now is given once, in ascending order of the sequence numbers,
    /// read from the log; what is written meanwhile is not. [`Changes::next_seq`] says where to go
    /// on the next time, also after the store was opened again, whatever happened in between.
    /// Everything is durable before it is given: a write-back buffer is flushed first, and with a
    /// sync interval the log is synced. So no crash takes back what was given. Values that have
    /// expired are given, with their expiry.
    ///
    /// **Compaction** drops what is no longer needed. Of a key that was written several times the
    /// older changes may be missing ([`Changes::is_complete`] says so); whoever applies the changes
    /// in their order comes to the store's state all the same. When it drops deletions, or
    /// values that have expired, that somebody who is at `since` has not seen, the changes would
    /// no longer lead to the store's state, and there is an error instead.
    ///
    /// **To begin**, or to begin again after that error, forget what was read, and either read all
    /// changes from `SeqNo::new(0)` on, which never fails so; or, with less memory and in no order,
    /// read all keys, and then what was written meanwhile:
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # use std::collections::HashMap;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("a", "1")?;
    ///
    /// let position = store.next_seq(); // first, so that nothing is missed
    /// let mut copy = HashMap::new();
    /// for entry in store.iter() {
    ///     let (key, value) = entry?;
    ///     copy.insert(key, value.to_vec());
    /// }
    /// # store.put("b", "2")?;
    /// # store.delete("a")?;
    /// let mut changes = store.changes(position)?;
    /// for change in changes.by_ref() {
    ///     let change = change?;
    ///     match change.value().map(|value| value.to_vec()) {
    ///         Some(value) => copy.insert(change.key, value),
    ///         None => copy.remove(&change.key),
    ///     };
    /// }
    /// let position = changes.next_seq(); // to be kept with the copy
    /// # assert_eq!(copy, HashMap::from([(b"b".to_vec(), b"2".to_vec())]));
    /// # assert_eq!(store.changes(position)?.count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// **A [read-only](crate::CrabKvBuilder::read_only) store** gives what it has caught up with.
    /// That can be ahead of what the writer has made durable, so that a power cut, or a full disk,
    /// takes back what was given; a position is worth keeping only where that is of no account.
    ///
    /// A `since` beyond the newest change gives nothing. Sequence numbers belong to one store: a
    /// store that was restored from an older copy of itself is another one.
    ///
    /// Takes eight bytes of memory for each record of the segments whose sequence numbers overlap
    /// where the reading has come to: one segment at a time, but for segments that compaction
    /// has made of several others.
    ///
    /// # Errors
    ///
    /// [`Error::HistoryCompacted`](crate::Error::HistoryCompacted), see above; as
    /// [`sync`](Store::sync), when something cannot be made durable. On a store that refuses writes
    /// already, what is durable is given. Each change may fail as [`get`](Store::get).
    pub fn changes(&self, since: SeqNo) -> Result<Changes<D>> {
        Changes::new(&self.engine, since)
    }

    /// The sequence number after all changes that [`changes`](Store::changes) is sure to give: who
    /// reads all keys after asking for it, and then the changes from it on, misses nothing. Takes
    /// no time.
    pub fn next_seq(&self) -> SeqNo {
        self.engine.feed.settled()
    }
}

impl<D: Disk> Engine<D> {
    /// Brings everything that was written to where the feed gives it. On a store that refuses
    /// writes there is nothing to bring: reads go on.
    fn settle_all(&self) -> Result<()> {
        if self.settings.read_only || self.poison.get().is_some() {
            return Ok(());
        }
        self.flush_write_back()?;
        if self.is_interval() {
            self.sync()
        } else {
            Ok(())
        }
    }
}
