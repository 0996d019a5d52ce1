//! Changes that wait to be written together, and what a key is with them in mind.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crabkv::{Error, Store, WriteBatch};

use super::super::exit::Failure;
use super::super::transfer::{Change, Condition, Expiry, unix_ms};

/// A batch is written when it has this many bytes of keys and values, however few they are.
const MAX_BYTES: usize = 8 << 20;

/// What became of what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Changes that were read, whatever became of them.
    pub(super) records: u64,
    pub(super) put: u64,
    pub(super) deleted: u64,
    /// Over already: their keys are deleted.
    pub(super) expired: u64,
    /// There was a value that was to stay, or none that could be changed.
    pub(super) unchanged: u64,
    /// Commands that were passed over.
    pub(super) unsupported: u64,
}

/// What a key is to be.
enum Write {
    Put {
        value: Vec<u8>,
        expires_at: Option<SystemTime>,
    },
    Delete,
}

pub(super) struct Pending<'a> {
    /// `None` when nothing is to be changed.
    store: Option<&'a Store>,
    if_absent: bool,
    max_records: u64,
    /// The last write of each key: no other one matters.
    writes: HashMap<Vec<u8>, Write>,
    bytes: usize,
    batch: WriteBatch,
    counts: Counts,
    /// The counts of what is written.
    durable: Counts,
}

impl<'a> Pending<'a> {
    pub(super) fn new(store: &'a Store, if_absent: bool, max_records: u64) -> Pending<'a> {
        Pending {
            if_absent,
            max_records,
            ..Pending::of(Some(store))
        }
    }

    /// Counts, and does nothing. What a store would have to do with it is left out.
    pub(super) fn dry_run() -> Pending<'static> {
        Pending::of(None)
    }

    fn of(store: Option<&Store>) -> Pending<'_> {
        Pending {
            store,
            if_absent: false,
            max_records: 0,
            writes: HashMap::new(),
            bytes: 0,
            batch: WriteBatch::new(),
            counts: Counts::default(),
            durable: Counts::default(),
        }
    }

    /// How many changes there were.
    pub(super) fn records(&self) -> u64 {
        self.counts.records
    }

    /// The counts of what is written and durable.
    pub(super) fn durable(&self) -> Counts {
        self.durable
    }

    /// Takes a change, and writes what has gathered when that is enough.
    pub(super) fn apply(&mut self, change: Change) -> Result<(), Failure> {
        match self.store {
            Some(store) => self.change(store, change)?,
            None => self.count(&change),
        }
        self.counts.records += 1;
        if self.writes.len() as u64 >= self.max_records || self.bytes >= MAX_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn count(&mut self, change: &Change) {
        match change {
            Change::Put { expiry, .. } if is_over(*expiry) => self.counts.expired += 1,
            Change::Put { .. } | Change::Expire { .. } => self.counts.put += 1,
            Change::Delete { .. } => self.counts.deleted += 1,
        }
    }

    fn change(&mut self, store: &Store, change: Change) -> Result<(), Failure> {
        if self.if_absent && !matches!(change, Change::Put { .. }) {
            return Err(Failure::Usage(
                "with --if-absent the input may only put, and this deletes a key or changes when \
                 it expires; import it into a store of its own first"
                    .to_owned(),
            ));
        }
        match change {
            Change::Put {
                key,
                value,
                expiry,
                condition,
            } => {
                let condition = if self.if_absent {
                    Condition::Absent
                } else {
                    condition
                };
                let wanted = match condition {
                    Condition::Always => true,
                    Condition::Absent => !self.contains(store, &key)?,
                    Condition::Present => self.contains(store, &key)?,
                };
                if !wanted {
                    self.counts.unchanged += 1;
                } else if is_over(expiry) {
                    self.delete(store, &key)?;
                    self.counts.expired += 1;
                } else {
                    let expires_at = match expiry {
                        Some(expiry) => moment(expiry),
                        None => self.expires_at(store, &key)?,
                    };
                    self.put(key.into_owned(), value.into_owned(), expires_at);
                }
            }
            Change::Delete { key } => {
                if self.contains(store, &key)? {
                    self.delete(store, &key)?;
                    self.counts.deleted += 1;
                } else {
                    self.counts.unchanged += 1;
                }
            }
            Change::Expire { key, expiry } => {
                let value = match self.writes.get(&key[..]) {
                    Some(Write::Put { value, .. }) => Some(value.clone()),
                    Some(Write::Delete) => None,
                    None => store.get(&key)?.map(|value| value.to_vec()),
                };
                match value {
                    None => self.counts.unchanged += 1,
                    Some(_) if is_over(Some(expiry)) => {
                        self.delete(store, &key)?;
                        self.counts.expired += 1;
                    }
                    Some(value) => self.put(key.into_owned(), value, moment(expiry)),
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, expires_at: Option<SystemTime>) {
        self.counts.put += 1;
        self.bytes += key.len() + value.len();
        self.writes.insert(key, Write::Put { value, expires_at });
    }

    /// Leaves a tombstone only where there is something to delete.
    fn delete(&mut self, store: &Store, key: &[u8]) -> Result<(), Failure> {
        if store.contains_key(key)? {
            self.bytes += key.len();
            self.writes.insert(key.to_vec(), Write::Delete);
        } else {
            self.writes.remove(key);
        }
        Ok(())
    }

    fn contains(&self, store: &Store, key: &[u8]) -> Result<bool, Failure> {
        Ok(match self.writes.get(key) {
            Some(Write::Put { .. }) => true,
            Some(Write::Delete) => false,
            None => store.contains_key(key)?,
        })
    }

    fn expires_at(&self, store: &Store, key: &[u8]) -> Result<Option<SystemTime>, Failure> {
        Ok(match self.writes.get(key) {
            Some(Write::Put { expires_at, .. }) => *expires_at,
            Some(Write::Delete) => None,
            None => store.expires_at(key)?,
        })
    }

    /// Writes what has gathered. When that fails, it is not there and does not count.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        if let Some(store) = self.store {
            let written = self.gather().and_then(|()| {
                if self.batch.is_empty() {
                    Ok(())
                } else {
                    store.write(&self.batch)
                }
            });
            if let Err(error) = written {
                self.counts = self.durable;
                return Err(error.into());
            }
        }
        self.durable = self.counts;
        Ok(())
    }

    /// Makes a batch of the writes.
    fn gather(&mut self) -> Result<(), Error> {
        self.batch.clear();
        self.bytes = 0;
        for (key, write) in self.writes.drain() {
            match write {
                Write::Put {
                    value,
                    expires_at: Some(at),
                } => self.batch.put_expiring_at(key, value, at)?,
                // As it is where it comes from, whatever the default TTL.
                Write::Put { value, .. } => self.batch.put_without_expiry(key, value)?,
                Write::Delete => self.batch.delete(key)?,
            };
        }
        Ok(())
    }
}

/// Milliseconds since the epoch; `None` for what never comes.
fn at_ms(expiry: Expiry) -> Option<u64> {
    match expiry {
        Expiry::Never => None,
        Expiry::InMs(ms) => Some(unix_ms(SystemTime::now()).saturating_add(ms)),
        Expiry::AtMs(ms) => Some(ms),
    }
}

fn is_over(expiry: Option<Expiry>) -> bool {
    let at_ms = expiry.and_then(at_ms);
    at_ms.is_some_and(|at_ms| at_ms <= unix_ms(SystemTime::now()))
}

/// A moment that the system's clock cannot reach is never.
fn moment(expiry: Expiry) -> Option<SystemTime> {
    let since = Duration::from_millis(at_ms(expiry)?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}
