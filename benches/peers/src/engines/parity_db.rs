//! parity-db: a hash index in a mapped file, over tables of values by their size.

use parity_db::{Db, Options};

use super::{About, Engine, Entry, Outcome, Place, Reader};
use crate::common::Key;

pub(super) const ABOUT: About = About {
    name: "parity-db",
    package: "parity-db",
    lacks: &[
        (
            "durable*",
            "a commit returns before it is written, and nothing waits for it",
        ),
        ("guard", "there is one way to read"),
        ("get_many*", "there is one way to read"),
        (
            "index",
            "a mapped file, which the system may drop from memory",
        ),
    ],
    remarks: &[("iterate", "values alone: keeps only hashes of keys")],
};

const COLUMN: u8 = 0;

pub(super) struct ParityDb(Db);

impl Engine for ParityDb {
    type Reader<'e> = &'e ParityDb;

    fn open(place: &Place) -> Outcome<Self> {
        // The defaults: a column under a hash index. Statistics "may have effect on performance".
        let mut options = Options::with_columns(&place.dir, 1);
        options.stats = false;
        Ok(ParityDb(Db::open_or_create(&options)?))
    }

    fn reader(&self) -> Outcome<&ParityDb> {
        Ok(self)
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        Ok(self.0.commit([(COLUMN, key, Some(value.to_vec()))])?)
    }

    fn put_batch(&self, entries: &[Entry]) -> Outcome<()> {
        let changes = entries
            .iter()
            .map(|(key, value)| (COLUMN, key, Some(value.clone())));
        Ok(self.0.commit(changes)?)
    }

    fn iterate(&self, mut visit: impl FnMut(usize, &[u8])) -> Outcome<()> {
        self.0.iter_column_while(COLUMN, |entry| {
            visit(0, &entry.value);
            true
        })?;
        Ok(())
    }

    /// Dropping it writes what waits.
    fn close(self) -> Outcome<()> {
        Ok(())
    }
}

impl Reader for &ParityDb {
    #[inline(always)]
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.0.get(COLUMN, key)?.map(|value| look(&value)))
    }
}
