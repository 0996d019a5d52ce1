//! What is compared: each engine behind one trait, set up as its own documentation advises.
//!
//! The trait is resolved at compile time, and a read hands the value to a closure, as a slice that
//! is borrowed where the engine can lend one: what is measured is the engine.
//!
//! Settings that all share: values are random bytes, so nothing compresses; engines with a cache of
//! their own get a quarter of the memory for it, which is what fjall's documentation advises (20 to
//! 25 %) and less than RocksDB's (a third).

mod bare;
mod candystore;
mod crabkv;
mod fjall;
mod heed;
mod parity_db;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod simd_r_drive;
mod sled;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::common::Key;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What a write that returned survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Durability {
    /// The death of the process, as far as the engine can.
    Relaxed,
    /// The death of the machine.
    Durable,
}

/// Where an engine keeps its data, and what it is going to be used for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    /// A directory of its own. It is there.
    pub(crate) dir: PathBuf,
    pub(crate) durability: Durability,
    /// How many keys it holds or will hold.
    pub(crate) keys: usize,
    pub(crate) value_len: usize,
}

pub(crate) type Entry = (Key, Vec<u8>);

/// An open engine.
pub(crate) trait Engine: Sync + Sized {
    type Reader<'e>: Reader
    where
        Self: 'e;

    /// Whether [`guard`](Engine::guard) and [`Reader::get_many`] are there to be measured.
    const READS_IN_MORE_WAYS: bool = false;

    fn open(place: &Place) -> Outcome<Self>;

    /// What one thread reads with.
    fn reader(&self) -> Outcome<Self::Reader<'_>>;

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()>;

    fn put_batch(&self, entries: &[Entry]) -> Outcome<()>;

    /// Calls `visit` with each key's length and value, in any order.
    fn iterate(&self, visit: impl FnMut(usize, &[u8])) -> Outcome<()>;

    /// Closes in good order, with everything durable.
    fn close(self) -> Outcome<()>;

    /// A read without a reader, through what owns or holds the value.
    fn guard<T>(&self, _key: &Key, _look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Err("there is one way to read".into())
    }

    /// What the index takes in memory, if the engine says so.
    fn index_bytes(&self) -> Option<u64> {
        None
    }
}

/// What one thread reads with.
pub(crate) trait Reader {
    /// Looks at a key's value. Always inlined: it only names what an engine calls it, and a call more
    /// is a tenth of what the fastest of them takes.
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>>;

    /// Calls `visit` with each key's place among `keys` and its value.
    fn get_many(&self, _keys: &[Key], _visit: impl FnMut(usize, Option<&[u8]>)) -> Outcome<()> {
        Err("there is one way to read".into())
    }

    /// Goes on to what was written since the reader was made.
    fn refresh(&mut self) -> Outcome<()> {
        Ok(())
    }
}

/// What is known of an engine without opening it.
pub(crate) struct About {
    /// Its name in arguments and tables.
    pub(crate) name: &'static str,
    /// The package whose version the report names.
    pub(crate) package: &'static str,
    /// Measures (or, with a `*` at the end, how their names begin) that it has no figure for, and
    /// why.
    pub(crate) lacks: &'static [(&'static str, &'static str)],
    /// What to know of its figures: measures, as above, and what to know.
    pub(crate) remarks: &'static [(&'static str, &'static str)],
}

/// All engines, in the order in which they take turns.
pub(crate) const ENGINES: &[&About] = &[
    &bare::ABOUT,
    &crabkv::ABOUT,
    &heed::ABOUT,
    &heed::ABOUT_WRITE_MAP,
    &redb::ABOUT,
    &fjall::ABOUT,
    &sled::ABOUT,
    #[cfg(feature = "rocksdb")]
    &rocksdb::ABOUT,
    &candystore::ABOUT,
    &simd_r_drive::ABOUT,
    &parity_db::ABOUT,
];

/// The engine that all others are compared with.
pub(crate) const BARE: &str = bare::ABOUT.name;
/// The engine that is compared.
pub(crate) const OURS: &str = crabkv::ABOUT.name;

pub(crate) fn about(name: &str) -> Option<&'static About> {
    ENGINES.iter().copied().find(|about| about.name == name)
}

impl About {
    /// Why there is no figure for a measure; `None` if there should be one.
    pub(crate) fn lack(&self, measure: &str) -> Option<&'static str> {
        find(self.lacks, measure)
    }

    pub(crate) fn remark(&self, measure: &str) -> Option<&'static str> {
        find(self.remarks, measure)
    }
}

fn find(list: &[(&str, &'static str)], measure: &str) -> Option<&'static str> {
    let fits = |name: &str| match name.strip_suffix('*') {
        Some(begin) => measure.starts_with(begin),
        None => measure == name,
    };
    list.iter()
        .find(|(name, _)| fits(name))
        .map(|(_, what)| *what)
}

/// Work to be done with an engine whose type is only known by its name.
pub(crate) trait Work {
    type Output;
    fn run<E: Engine>(self) -> Outcome<Self::Output>;
}

/// Does the work with the engine of this name.
pub(crate) fn with_engine<W: Work>(name: &str, work: W) -> Outcome<W::Output> {
    match name {
        "bare" => work.run::<bare::BareTable>(),
        "crabkv" => work.run::<crabkv::CrabKv>(),
        "heed" => work.run::<heed::Heed<false>>(),
        "heed-writemap" => work.run::<heed::Heed<true>>(),
        "redb" => work.run::<redb::Redb>(),
        "fjall" => work.run::<fjall::Fjall>(),
        "sled" => work.run::<sled::Sled>(),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => work.run::<rocksdb::RocksDb>(),
        "candystore" => work.run::<candystore::Candystore>(),
        "simd-r-drive" => work.run::<simd_r_drive::SimdRDrive>(),
        "parity-db" => work.run::<parity_db::ParityDb>(),
        _ => Err(format!("there is no engine {name:?}").into()),
    }
}

/// How large an engine's own cache may grow: a quarter of the memory.
fn cache_bytes() -> usize {
    crate::machine::memory_bytes().unwrap_or(4 << 30) as usize / 4
}

/// A file or directory of this name in the engine's own directory.
fn within(place: &Place, name: &str) -> PathBuf {
    Path::new(&place.dir).join(name)
}
