//! candystore: a hash index in a mapped file, over append-only files.

use candystore::{CandyStore, Config};

use super::{About, Durability, Engine, Entry, Outcome, Place, Reader};
use crate::common::Key;

pub(super) const ABOUT: About = About {
    name: "candystore",
    package: "candystore",
    lacks: &[
        ("guard", "there is one way to read"),
        ("get_many*", "there is one way to read"),
        (
            "index",
            "a mapped file, which the system may drop from memory",
        ),
    ],
    remarks: &[("batch", "has no batches: one put at a time")],
};

pub(super) struct Candystore {
    store: CandyStore,
    durability: Durability,
}

impl Engine for Candystore {
    type Reader<'e> = &'e Candystore;

    fn open(place: &Place) -> Outcome<Self> {
        // The defaults, but for the one that asks for a number.
        let config = Config {
            initial_capacity: place.keys,
            ..Config::default()
        };
        Ok(Candystore {
            store: CandyStore::open(&place.dir, config)?,
            durability: place.durability,
        })
    }

    fn reader(&self) -> Outcome<&Candystore> {
        Ok(self)
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.store.set(key, value)?;
        // README, "Checkpointing & Rebuild": a checkpoint is the "synchronous durability point".
        if self.durability == Durability::Durable {
            self.store.checkpoint()?;
        }
        Ok(())
    }

    fn put_batch(&self, entries: &[Entry]) -> Outcome<()> {
        for (key, value) in entries {
            self.put(key, value)?;
        }
        Ok(())
    }

    fn iterate(&self, mut visit: impl FnMut(usize, &[u8])) -> Outcome<()> {
        for entry in self.store.iter_items() {
            let (key, value) = entry?;
            visit(key.len(), &value);
        }
        Ok(())
    }

    fn close(self) -> Outcome<()> {
        Ok(self.store.checkpoint()?)
    }
}

impl Reader for &Candystore {
    #[inline(always)]
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.store.get(key)?.map(|value| look(&value)))
    }
}
