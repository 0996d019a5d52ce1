//! LMDB, through heed: as it comes, and with a writable map.

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};

use super::{About, Durability, Engine, Entry, Outcome, Place, Reader};
use crate::common::Key;

const ONE_WAY: &str = "there is one way to read";

pub(super) const ABOUT: About = About {
    name: "heed",
    package: "heed",
    lacks: &[
        ("guard", ONE_WAY),
        ("get_many*", ONE_WAY),
        ("index", "has no index apart from its data"),
    ],
    remarks: &[],
};

/// The same with `MDB_WRITEMAP`, which LMDB's documentation calls faster, and unprotected against
/// stray writes of the program's own.
pub(super) const ABOUT_WRITE_MAP: About = About {
    name: "heed-writemap",
    package: "heed",
    lacks: ABOUT.lacks,
    remarks: &[],
};

/// Address space for the largest file there will be. mdb_env_set_mapsize: it should be a large
/// multiple of the page size, for the file cannot outgrow it. The file is sparse.
const MAP_BYTES_LEAST: usize = 8 << 30;
/// Pages of a tree filled at random are two thirds full; freed pages are used again.
const MAP_BYTES_PER_LIVE_BYTE: usize = 8;

pub(super) struct Heed<const WRITE_MAP: bool> {
    env: Env,
    database: Database<'static, Bytes, Bytes>,
}

impl<const WRITE_MAP: bool> Engine for Heed<WRITE_MAP> {
    type Reader<'e> = HeedReader<'e>;

    fn open(place: &Place) -> Outcome<Self> {
        let live = place.keys * (size_of::<Key>() + place.value_len);
        // Whole pages are asked for; these are multiples of them.
        let map = MAP_BYTES_LEAST.max((live * MAP_BYTES_PER_LIVE_BYTE).next_multiple_of(1 << 20));
        let mut flags = EnvFlags::empty();
        if WRITE_MAP {
            flags |= EnvFlags::WRITE_MAP;
        }
        // mdb_env_open: MDB_NOSYNC leaves the flushing to the system; what was committed is in its
        // hands, and survives the process.
        if place.durability == Durability::Relaxed {
            flags |= EnvFlags::NO_SYNC;
        }
        let mut options = EnvOpenOptions::new();
        // SAFETY: these flags are unsafe for what a crash of the machine may do to the file. There
        // is none, and the data is thrown away.
        let options = unsafe { options.map_size(map).flags(flags) };
        // SAFETY: the directory is this process's alone, which opens it once.
        let env = unsafe { options.open(&place.dir)? };
        let made = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
            let database = opener.create_database(txn, None)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(database))
        })?;
        let database = made.unwrap_commit();
        Ok(Heed { env, database })
    }

    fn reader(&self) -> Outcome<HeedReader<'_>> {
        Ok(HeedReader {
            env: &self.env,
            database: self.database,
            txn: Some(self.env.read_txn()?),
        })
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        let mut txn = self.env.write_txn()?;
        self.database.put(&mut txn, key, value)?;
        Ok(txn.commit()?)
    }

    fn put_batch(&self, entries: &[Entry]) -> Outcome<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in entries {
            self.database.put(&mut txn, key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn iterate(&self, mut visit: impl FnMut(usize, &[u8])) -> Outcome<()> {
        let txn = self.env.read_txn()?;
        for entry in self.database.iter(&txn)? {
            let (key, value) = entry?;
            visit(key.len(), value);
        }
        Ok(())
    }

    fn close(self) -> Outcome<()> {
        self.env.force_sync()?;
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

/// A read transaction, which is a snapshot.
pub(super) struct HeedReader<'e> {
    env: &'e Env,
    database: Database<'static, Bytes, Bytes>,
    /// There but while it is replaced: a thread can have only one.
    txn: Option<RoTxn<'e, WithTls>>,
}

impl Reader for HeedReader<'_> {
    #[inline(always)]
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        let txn = self.txn.as_ref().ok_or("there is no transaction")?;
        Ok(self.database.get(txn, key)?.map(look))
    }

    fn refresh(&mut self) -> Outcome<()> {
        self.txn = None;
        self.txn = Some(self.env.read_txn()?);
        Ok(())
    }
}
