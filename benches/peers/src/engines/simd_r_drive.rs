//! simd-r-drive: one append-only file, mapped, under a map from hashes to offsets.

use std::fs::File;

use simd_r_drive::DataStore;
use simd_r_drive::traits::{DataStoreReader, DataStoreWriter};

use super::{About, Durability, Engine, Entry, Outcome, Place, Reader, within};
use crate::common::Key;

pub(super) const ABOUT: About = About {
    name: "simd-r-drive",
    package: "simd-r-drive",
    lacks: &[
        ("guard", "there is one way to read"),
        ("get_many*", "not measured"),
        ("index", "does not say"),
    ],
    remarks: &[
        (
            "get*",
            "keeps no keys, only their hashes, and checks nothing",
        ),
        (
            "durable*",
            "never syncs: the benchmark syncs its file after each put",
        ),
        ("disk_overwritten", "has no compaction in the background"),
        ("written_overwritten", "has no compaction in the background"),
        ("iterate", "values alone: keeps no keys"),
    ],
};

pub(super) struct SimdRDrive {
    store: DataStore,
    durability: Durability,
    /// The same file, to be synced: the store itself has no way to.
    file: File,
}

impl SimdRDrive {
    fn sync(&self) -> Outcome<()> {
        if self.durability == Durability::Durable {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

impl Engine for SimdRDrive {
    type Reader<'e> = &'e SimdRDrive;

    fn open(place: &Place) -> Outcome<Self> {
        // It has no options.
        let path = within(place, "storage");
        Ok(SimdRDrive {
            store: DataStore::open(&path)?,
            durability: place.durability,
            file: File::open(&path)?,
        })
    }

    fn reader(&self) -> Outcome<&SimdRDrive> {
        Ok(self)
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.store.write(key, value)?;
        self.sync()
    }

    fn put_batch(&self, entries: &[Entry]) -> Outcome<()> {
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, value)| (&key[..], &value[..]))
            .collect();
        self.store.batch_write(&entries)?;
        self.sync()
    }

    fn iterate(&self, mut visit: impl FnMut(usize, &[u8])) -> Outcome<()> {
        for entry in self.store.iter_entries() {
            visit(0, &entry);
        }
        Ok(())
    }

    fn close(self) -> Outcome<()> {
        Ok(self.file.sync_all()?)
    }
}

impl Reader for &SimdRDrive {
    #[inline(always)]
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.store.read(key)?.map(|value| look(&value)))
    }
}
