//! crabkv itself, with its defaults but for two options.

use std::ops::ControlFlow;
use std::time::Duration;

use crabkv::Store;

use super::{About, Durability, Engine, Entry, Outcome, Place, Reader};
use crate::common::Key;

pub(super) const ABOUT: About = About {
    name: "crabkv",
    package: "crabkv",
    lacks: &[],
    remarks: &[],
};

/// Relaxed writes: `CrabKvBuilder::sync_interval` says that the death of the process loses nothing,
/// that of the machine the last interval.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct CrabKv(Store);

impl Engine for CrabKv {
    type Reader<'e> = crabkv::Reader<'e>;

    const READS_IN_MORE_WAYS: bool = true;

    fn open(place: &Place) -> Outcome<Self> {
        // Compaction on a thread of its own, as the engines beside it have it; default otherwise.
        let builder = Store::builder(&place.dir).async_compaction(true);
        let store = match place.durability {
            Durability::Relaxed => builder.sync_interval(SYNC_INTERVAL).build_store()?,
            Durability::Durable => builder.build_store()?,
        };
        Ok(CrabKv(store))
    }

    fn reader(&self) -> Outcome<crabkv::Reader<'_>> {
        Ok(self.0.reader())
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        Ok(self.0.put(key, value)?)
    }

    fn put_batch(&self, entries: &[Entry]) -> Outcome<()> {
        Ok(self
            .0
            .put_batch(entries.iter().map(|(key, value)| (key, value)))?)
    }

    fn iterate(&self, mut visit: impl FnMut(usize, &[u8])) -> Outcome<()> {
        Ok(self.0.reader().for_each(|key, value| {
            visit(key.len(), value);
            ControlFlow::Continue(())
        })?)
    }

    fn close(self) -> Outcome<()> {
        Ok(self.0.close()?)
    }

    #[inline]
    fn guard<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.0.get(key)?.map(|value| look(&value)))
    }

    fn index_bytes(&self) -> Option<u64> {
        Some(self.0.stats().index_bytes)
    }
}

impl Reader for crabkv::Reader<'_> {
    #[inline(always)]
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(crabkv::Reader::get(self, key)?.map(look))
    }

    #[inline]
    fn get_many(&self, keys: &[Key], visit: impl FnMut(usize, Option<&[u8]>)) -> Outcome<()> {
        Ok(crabkv::Reader::get_many(self, keys, visit)?)
    }

    fn refresh(&mut self) -> Outcome<()> {
        crabkv::Reader::refresh(self);
        Ok(())
    }
}
