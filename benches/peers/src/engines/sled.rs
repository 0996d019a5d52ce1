//! sled 0.34: a tree over a log, in Rust.

use std::fs::File;

use sled::{Batch, Db};

use super::{About, Durability, Engine, Entry, Outcome, Place, Reader, cache_bytes, within};
use crate::common::Key;

pub(super) const ABOUT: About = About {
    name: "sled",
    package: "sled",
    lacks: &[
        ("guard", "there is one way to read"),
        ("get_many*", "there is one way to read"),
        ("index", "has no index apart from its data"),
    ],
    remarks: &[(
        "durable*",
        "`flush` uses sync_file_range, which by its manual guarantees nothing after a crash: the \
         benchmark syncs its file after each flush",
    )],
};

pub(super) struct Sled {
    db: Db,
    durability: Durability,
    /// Where its log is.
    file: File,
}

impl Sled {
    /// `Tree::insert` leaves the log to a flusher that runs twice a second; `flush` waits until it
    /// is written, on Linux by sync_file_range, which leaves out the file's metadata and the disk's
    /// own cache.
    fn flush(&self) -> Outcome<()> {
        if self.durability == Durability::Durable {
            self.db.flush()?;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

impl Engine for Sled {
    type Reader<'e> = &'e Sled;

    fn open(place: &Place) -> Outcome<Self> {
        // The defaults, `flush_every_ms` of 500 among them, but for the cache (1 GiB).
        let db = sled::Config::new()
            .path(&place.dir)
            .cache_capacity(cache_bytes() as u64)
            .open()?;
        Ok(Sled {
            db,
            durability: place.durability,
            file: File::open(within(place, "db"))?,
        })
    }

    fn reader(&self) -> Outcome<&Sled> {
        Ok(self)
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.db.insert(key, value)?;
        self.flush()
    }

    fn put_batch(&self, entries: &[Entry]) -> Outcome<()> {
        let mut batch = Batch::default();
        for (key, value) in entries {
            batch.insert(key, &value[..]);
        }
        self.db.apply_batch(batch)?;
        self.flush()
    }

    fn iterate(&self, mut visit: impl FnMut(usize, &[u8])) -> Outcome<()> {
        for entry in &*self.db {
            let (key, value) = entry?;
            visit(key.len(), &value);
        }
        Ok(())
    }

    fn close(self) -> Outcome<()> {
        self.db.flush()?;
        Ok(self.file.sync_all()?)
    }
}

impl Reader for &Sled {
    #[inline(always)]
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.db.get(key)?.map(|value| look(&value)))
    }
}
