//! RocksDB: a log-structured merge tree in C++.

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options, WriteBatch,
    WriteOptions,
};

use super::{About, Durability, Engine, Entry, Outcome, Place, Reader, cache_bytes};
use crate::common::Key;
use crate::machine;

pub(super) const ABOUT: About = About {
    name: "rocksdb",
    package: "rocksdb",
    lacks: &[
        ("guard", "there is one way to read"),
        ("get_many*", "not measured"),
        ("index", "has no index apart from its data"),
    ],
    remarks: &[],
};

pub(super) struct RocksDb {
    db: DB,
    write: WriteOptions,
}

impl Engine for RocksDb {
    type Reader<'e> = &'e RocksDb;

    /// The wiki's "Setup Options and Basic Tuning", section "Other general options", and its pages
    /// on Bloom filters and on the data block hash index, for point lookups. Blocks stay at their
    /// default of 4 KiB (the wiki has 16), which point lookups in memory prefer.
    fn open(place: &Place) -> Outcome<Self> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(cache_bytes()));
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_bloom_filter(10.0, false);
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_level_compaction_dynamic_level_bytes(true);
        // "A good value is the number of cores."
        options.increase_parallelism(i32::try_from(machine::cores())?);
        options.set_bytes_per_sync(1 << 20);
        // The wiki has LZ4; these values do not compress, and no engine here compresses.
        options.set_compression_type(DBCompressionType::None);
        let db = DB::open(&options, &place.dir)?;
        // WriteOptions::sync: without it a write is in the system's buffers, and survives the
        // process.
        let mut write = WriteOptions::default();
        write.set_sync(place.durability == Durability::Durable);
        Ok(RocksDb { db, write })
    }

    fn reader(&self) -> Outcome<&RocksDb> {
        Ok(self)
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        Ok(self.db.put_opt(key, value, &self.write)?)
    }

    fn put_batch(&self, entries: &[Entry]) -> Outcome<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn iterate(&self, mut visit: impl FnMut(usize, &[u8])) -> Outcome<()> {
        // The raw iterator lends what it stands on, without a copy.
        let mut entries = self.db.raw_iterator();
        entries.seek_to_first();
        while let Some((key, value)) = entries.item() {
            visit(key.len(), value);
            entries.next();
        }
        Ok(entries.status()?)
    }

    fn close(self) -> Outcome<()> {
        Ok(self.db.flush_wal(true)?)
    }
}

impl Reader for &RocksDb {
    #[inline(always)]
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.db.get_pinned(key)?.map(|value| look(&value)))
    }
}
