//! Records that are appended but not durable yet, so that readers must not see them; writes that
//! depend on what is there must.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::error::Error;
use crate::format::KeyHash;
use crate::format::hash::HASH_BITS;
use crate::format::record::Kind;
use crate::log::Placed;
use crate::sync::{AtomicU32, OnceLock, Ordering};

/// A record that was appended and is to be published.
#[derive(Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) hash: KeyHash,
    pub(crate) placed: Placed,
    pub(crate) kind: Kind,
}

/// A record that waits to be published.
#[derive(Clone, Copy)]
struct PendingRecord {
    appended: Appended,
    /// The record of the same hash before it, by number.
    previous: Option<u64>,
}

/// The pending records in the order of the log.
#[derive(Default)]
pub(crate) struct Pending {
    records: VecDeque<PendingRecord>,
    /// The number of the first of them; they are numbered for the life of the store.
    first: u64,
    /// The newest record of each hash.
    newest: HashMap<KeyHash, u64, BuildHasherDefault<HashOfHash>>,
}

impl Pending {
    pub(crate) fn push(&mut self, appended: Appended) {
        let number = self.first + self.records.len() as u64;
        let previous = self.newest.insert(appended.hash, number);
        self.records.push_back(PendingRecord { appended, previous });
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Takes out the oldest `count`.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Appended> {
        let count = count.min(self.records.len());
        let taken = self.records.drain(..count).map(|record| record.appended);
        let taken: Vec<_> = taken.collect();
        for (number, record) in (self.first..).zip(&taken) {
            if self.newest.get(&record.hash) == Some(&number) {
                self.newest.remove(&record.hash);
            }
        }
        self.first += count as u64;
        taken
    }

    pub(crate) fn clear(&mut self) {
        self.first += self.records.len() as u64;
        self.records.clear();
        self.newest.clear();
    }

    /// The pending records of a hash, newest first.
    pub(crate) fn of(&self, hash: KeyHash) -> impl Iterator<Item = &Appended> {
        let record = |number: &u64| self.records.get(number.checked_sub(self.first)? as usize);
        let newest = if self.newest.is_empty() {
            None
        } else {
            self.newest.get(&hash).and_then(record)
        };
        let older = move |newer: &&PendingRecord| newer.previous.as_ref().and_then(record);
        std::iter::successors(newest, older).map(|record| &record.appended)
    }
}

/// A key's hash needs no hashing.
#[derive(Default)]
pub(crate) struct HashOfHash(u64);

impl Hasher for HashOfHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        // The map looks at the top bits and the low ones; a key's hash has 48, at the top.
        let hash = hash >> (u64::BITS - HASH_BITS);
        self.0 = hash | hash << HASH_BITS;
    }
}

/// The writes that will become durable together, and what came of them.
#[derive(Default)]
pub(crate) struct Group {
    writers: AtomicU32,
    outcome: OnceLock<Result<(), Error>>,
}

impl Group {
    /// Joins a writer to the group it has appended for; the writer lock is held.
    pub(crate) fn join(self: &Arc<Group>) -> Arc<Group> {
        self.writers.fetch_add(1, Ordering::Relaxed);
        Arc::clone(self)
    }

    /// How many writers wait for it.
    pub(crate) fn writers(&self) -> u32 {
        self.writers.load(Ordering::Relaxed)
    }

    pub(crate) fn settle(self: &Arc<Group>, outcome: Result<(), Error>) {
        // Settled once: whoever settles a group has taken it out of the writer first.
        let _ = self.outcome.set(outcome);
    }

    pub(crate) fn outcome(&self) -> Option<Result<(), Error>> {
        self.outcome.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn hashes_of_keys_are_spread_over_the_map() {
        let spread = |bits: &dyn Fn(u64) -> u64| {
            let hashes =
                (1..=1000_u64).map(|n| KeyHash::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let builder = BuildHasherDefault::<HashOfHash>::default();
            let all: HashSet<_> = hashes.map(|hash| bits(builder.hash_one(hash))).collect();
            all.len()
        };
        assert!(spread(&|hash| hash & 0xf_ffff) > 990);
        assert_eq!(spread(&|hash| hash >> 57), 128);
    }
}
