//! redb: a tree of pages, copied when they are written, in Rust.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use super::{About, Durability, Engine, Entry, Outcome, Place, Reader, cache_bytes, within};
use crate::common::Key;

pub(super) const ABOUT: About = About {
    name: "redb",
    package: "redb",
    lacks: &[
        ("guard", "there is one way to read"),
        ("get_many*", "there is one way to read"),
        ("index", "has no index apart from its data"),
    ],
    remarks: &[(
        "put",
        "`Durability::None`, with an `Immediate` commit every 100 ms, without which all would be lost with \
             the process",
    )],
};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("all");

/// `Durability::None`'s documentation: not persisted unless a commit with `Immediate` follows.
const IMMEDIATE_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Redb {
    database: Database,
    durability: Durability,
    /// When the last `Immediate` commit was.
    synced: Mutex<Instant>,
}

impl Redb {
    fn write<'a>(&self, entries: impl Iterator<Item = (&'a Key, &'a [u8])>) -> Outcome<()> {
        let mut txn = self.database.begin_write()?;
        if self.durability == Durability::Relaxed {
            let mut synced = self.synced.lock().map_err(|_| "another thread failed")?;
            if synced.elapsed() < IMMEDIATE_EVERY {
                txn.set_durability(redb::Durability::None)?;
            } else {
                *synced = Instant::now();
            }
        }
        let mut table = txn.open_table(TABLE)?;
        for (key, value) in entries {
            table.insert(&key[..], value)?;
        }
        drop(table);
        Ok(txn.commit()?)
    }
}

impl Engine for Redb {
    type Reader<'e> = RedbReader<'e>;

    fn open(place: &Place) -> Outcome<Self> {
        // Builder::set_cache_size: 1 GiB by default.
        let database = Database::builder()
            .set_cache_size(cache_bytes())
            .create(within(place, "redb"))?;
        let txn = database.begin_write()?;
        txn.open_table(TABLE)?;
        txn.commit()?;
        Ok(Redb {
            database,
            durability: place.durability,
            synced: Mutex::new(Instant::now()),
        })
    }

    fn reader(&self) -> Outcome<RedbReader<'_>> {
        Ok(RedbReader {
            database: &self.database,
            table: self.database.begin_read()?.open_table(TABLE)?,
        })
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.write(std::iter::once((key, value)))
    }

    fn put_batch(&self, entries: &[Entry]) -> Outcome<()> {
        self.write(entries.iter().map(|(key, value)| (key, &value[..])))
    }

    fn iterate(&self, mut visit: impl FnMut(usize, &[u8])) -> Outcome<()> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        for entry in table.iter()? {
            let (key, value) = entry?;
            visit(key.value().len(), value.value());
        }
        Ok(())
    }

    fn close(self) -> Outcome<()> {
        // A commit of the default durability takes all before it along.
        self.database.begin_write()?.commit()?;
        Ok(self.database.close()?)
    }
}

/// A table in a read transaction, which is a snapshot.
pub(super) struct RedbReader<'e> {
    database: &'e Database,
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Reader for RedbReader<'_> {
    #[inline(always)]
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.table.get(&key[..])?.map(|value| look(value.value())))
    }

    fn refresh(&mut self) -> Outcome<()> {
        self.table = self.database.begin_read()?.open_table(TABLE)?;
        Ok(())
    }
}
