//! fjall: a log-structured merge tree in Rust.

use fjall::config::HashRatioPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use super::{About, Durability, Engine, Entry, Outcome, Place, Reader, cache_bytes};
use crate::common::Key;

pub(super) const ABOUT: About = About {
    name: "fjall",
    package: "fjall",
    lacks: &[
        ("guard", "there is one way to read"),
        ("get_many*", "there is one way to read"),
        ("index", "has no index apart from its data"),
    ],
    remarks: &[],
};

/// From here on values are kept apart from keys, which is meant for large values; this is the
/// library's own threshold.
const LARGE_VALUE: usize = 1024;

pub(super) struct Fjall {
    database: Database,
    keyspace: Keyspace,
    durability: Durability,
}

impl Fjall {
    /// README, "Durability": what was written is in the system's buffers; `persist` brings it to
    /// the disk.
    fn persist(&self) -> Outcome<()> {
        if self.durability == Durability::Durable {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for Fjall {
    type Reader<'e> = &'e Fjall;

    fn open(place: &Place) -> Outcome<Self> {
        // README, "Memory usage": a block cache of 20 to 25 % of the memory.
        let database = Database::builder(&place.dir)
            .cache_size(cache_bytes() as u64)
            .open()?;
        let large = place.value_len >= LARGE_VALUE;
        let keyspace = database.keyspace("all", || {
            KeyspaceCreateOptions::default()
                // Its documentation: a hash index in the blocks speeds up point reads of what is
                // cached, at a byte for each key or less.
                .data_block_hash_ratio_policy(HashRatioPolicy::all(1.0))
                .with_kv_separation(large.then(KvSeparationOptions::default))
        })?;
        Ok(Fjall {
            database,
            keyspace,
            durability: place.durability,
        })
    }

    fn reader(&self) -> Outcome<&Fjall> {
        Ok(self)
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.keyspace.insert(key, value)?;
        self.persist()
    }

    fn put_batch(&self, entries: &[Entry]) -> Outcome<()> {
        let mut batch = self.database.batch();
        for (key, value) in entries {
            batch.insert(&self.keyspace, key, &value[..]);
        }
        batch.commit()?;
        self.persist()
    }

    fn iterate(&self, mut visit: impl FnMut(usize, &[u8])) -> Outcome<()> {
        for entry in self.keyspace.iter() {
            let (key, value) = entry.into_inner()?;
            visit(key.len(), &value);
        }
        Ok(())
    }

    fn close(self) -> Outcome<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

impl Reader for &Fjall {
    #[inline(always)]
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.keyspace.get(key)?.map(|value| look(&value)))
    }
}
