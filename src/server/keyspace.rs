//! The store as commands see it: directly, or through a transaction that is applied as a whole.
//!
//! Directly, each operation is atomic by itself. In a transaction the operations see what those
//! before them have changed, nobody else sees any of it, and [`commit`](Keyspace::commit) writes all
//! of it as one batch. Whoever makes a transaction keeps all other writers of the server out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::SystemTime;

use crabkv::{MAX_BATCH_BYTES, MAX_KEY_LEN, Modification, SeqNo, Store, Value, WriteBatch};

use super::commands::Failure;
use super::syncer::Syncer;

/// A key's value, as far as commands care.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) expires_at: Option<SystemTime>,
}

/// What a command does to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Keep,
    /// Puts a value that expires then, or never. A time that has passed makes it a delete.
    Put(Vec<u8>, Option<SystemTime>),
    Delete,
}

pub(crate) struct Keyspace<'a> {
    store: &'a Store,
    syncer: &'a Syncer,
    transaction: Option<RefCell<Pending>>,
}

/// What a key becomes: a value and when it expires; `None` for a delete.
type Pended = Option<(Vec<u8>, Option<SystemTime>)>;

/// The changes of a transaction, by key.
#[derive(Default)]
struct Pending {
    changes: HashMap<Vec<u8>, Pended>,
    /// Of all keys and values in it.
    bytes: usize,
}

impl Pending {
    /// One command can make a value of half a GiB out of a few bytes, so a transaction of many is
    /// stopped at what a batch can hold, and not when all of it has been made.
    fn insert(&mut self, key: &[u8], change: Pended) -> Result<(), Failure> {
        if key.len() > MAX_KEY_LEN {
            // The batch would refuse it too, and all the others with it.
            return Err(Failure::Store(crabkv::Error::KeyTooLarge {
                len: key.len(),
                max: MAX_KEY_LEN,
            }));
        }
        let len = |change: &Pended| change.as_ref().map_or(0, |(value, _)| value.len());
        let old = self.changes.get(key).map(|old| key.len() + len(old));
        let bytes = self.bytes - old.unwrap_or(0) + key.len() + len(&change);
        if bytes as u64 > MAX_BATCH_BYTES {
            return Err(Failure::new(format!(
                "ERR a transaction changes at most {MAX_BATCH_BYTES} bytes"
            )));
        }
        self.bytes = bytes;
        self.changes.insert(key.to_vec(), change);
        Ok(())
    }
}

impl<'a> Keyspace<'a> {
    pub(crate) fn direct(store: &'a Store, syncer: &'a Syncer) -> Keyspace<'a> {
        Keyspace {
            store,
            syncer,
            transaction: None,
        }
    }

    pub(crate) fn transaction(store: &'a Store, syncer: &'a Syncer) -> Keyspace<'a> {
        Keyspace {
            transaction: Some(RefCell::default()),
            ..Keyspace::direct(store, syncer)
        }
    }

    /// The store, for what is no key's: figures, iteration. A transaction's changes are not in it.
    pub(crate) fn store(&self) -> &'a Store {
        self.store
    }

    pub(crate) fn is_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Shows a key's value, if it has one.
    pub(crate) fn read<T>(
        &self,
        key: &[u8],
        show: impl FnOnce(Option<Current<'_>>) -> T,
    ) -> Result<T, Failure> {
        if let Some(pending) = &self.transaction {
            if let Some(change) = pending.borrow().changes.get(key) {
                return Ok(show(change.as_ref().and_then(pending_value)));
            }
        }
        let value = self.store.get(key)?;
        Ok(show(value.as_ref().map(current)))
    }

    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, Failure> {
        self.read(key, |current| current.is_some())
    }

    pub(crate) fn put(
        &self,
        key: &[u8],
        value: &[u8],
        expires_at: Option<SystemTime>,
    ) -> Result<(), Failure> {
        if let Some(pending) = &self.transaction {
            let change = Some((value.to_vec(), expires_at));
            return pending.borrow_mut().insert(key, change);
        }
        self.syncer.write(|| match expires_at {
            // The server opens its store without a default TTL.
            None => self.store.put(key, value),
            Some(at) => self.store.put_expiring_at(key, value, at),
        })?;
        Ok(())
    }

    /// Says whether there was a value.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<bool, Failure> {
        if self.transaction.is_some() {
            return self.modify(key, |current| Ok((Change::Delete, current.is_some())));
        }
        Ok(self.syncer.write(|| self.store.delete(key))?)
    }

    /// Changes a key as `decide` says, which is shown its value and may be asked again. Nobody
    /// else writes in between. With an error from it nothing is changed.
    pub(crate) fn modify<T>(
        &self,
        key: &[u8],
        mut decide: impl FnMut(Option<Current<'_>>) -> Result<(Change, T), Failure>,
    ) -> Result<T, Failure> {
        if let Some(pending) = &self.transaction {
            let (change, result) = self.read(key, decide)??;
            let change = match change {
                Change::Keep => return Ok(result),
                Change::Put(value, expires_at) => Some((value, expires_at)),
                Change::Delete => None,
            };
            pending.borrow_mut().insert(key, change)?;
            return Ok(result);
        }
        self.syncer.write(|| {
            self.store.modify(key, |value| {
                // What `decide` finds wrong is no error of the store's.
                let (change, result) = match decide(value.map(current)) {
                    Ok((change, result)) => (change, Ok(result)),
                    Err(failure) => (Change::Keep, Err(failure)),
                };
                let modification = match change {
                    Change::Keep => Modification::Keep,
                    Change::Delete => Modification::Delete,
                    Change::Put(value, expires_at) => Modification::Put { value, expires_at },
                };
                Ok((modification, result))
            })
        })?
    }

    /// Some keys of the store from a position on, and where to go on; see [`Store::scan_keys`].
    /// What a transaction has changed is not among them, but in
    /// [`pending_keys`](Keyspace::pending_keys).
    pub(crate) fn scan(
        &self,
        position: u64,
        count: usize,
    ) -> Result<(Vec<Vec<u8>>, Option<u64>), Failure> {
        let mut some = self.store.scan_keys(position, count)?;
        if let Some(pending) = &self.transaction {
            let pending = pending.borrow();
            some.keys.retain(|key| !pending.changes.contains_key(key));
        }
        Ok((some.keys, some.next))
    }

    /// The keys that the transaction has put.
    pub(crate) fn pending_keys(&self) -> Vec<Vec<u8>> {
        let Some(pending) = &self.transaction else {
            return Vec::new();
        };
        let pending = pending.borrow();
        let changes = pending.changes.iter();
        let keys = changes.filter(|(_, change)| is_value(change));
        keys.map(|(key, _)| key.clone()).collect()
    }

    /// How many keys the transaction has added and removed.
    pub(crate) fn pending_difference(&self) -> Result<(usize, usize), Failure> {
        let (mut added, mut removed) = (0, 0);
        if let Some(pending) = &self.transaction {
            for (key, change) in &pending.borrow().changes {
                let is_there = is_value(change);
                let was_there = self.store.contains_key(key)?;
                added += usize::from(is_there && !was_there);
                removed += usize::from(was_there && !is_there);
            }
        }
        Ok((added, removed))
    }

    /// Writes what the transaction changed, all or nothing. Does nothing without one.
    pub(crate) fn commit(self) -> Result<(), Failure> {
        let Some(pending) = self.transaction else {
            return Ok(());
        };
        let changes = pending.into_inner().changes;
        if changes.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        // Each value is given up when the batch has it.
        for (key, change) in changes {
            match change {
                None => batch.delete(key)?,
                Some((value, None)) => batch.put(key, value)?,
                Some((value, Some(at))) => batch.put_expiring_at(key, value, at)?,
            };
        }
        Ok(self.syncer.write(|| self.store.write(&batch))?)
    }

    /// The version of what the store has for a key, to see later whether somebody wrote it.
    pub(crate) fn version(&self, key: &[u8]) -> Result<Option<SeqNo>, Failure> {
        Ok(self.store.get(key)?.and_then(|value| value.version()))
    }
}

fn current(value: &Value) -> Current<'_> {
    Current {
        value,
        expires_at: value.expires_at(),
    }
}

fn is_value(change: &Pended) -> bool {
    change.as_ref().and_then(pending_value).is_some()
}

/// A value of the transaction's own, unless it has expired already.
fn pending_value(put: &(Vec<u8>, Option<SystemTime>)) -> Option<Current<'_>> {
    let (value, expires_at) = put;
    let is_over = expires_at.is_some_and(|at| at <= SystemTime::now());
    (!is_over).then_some(Current {
        value,
        expires_at: *expires_at,
    })
}
