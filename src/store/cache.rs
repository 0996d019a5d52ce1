//! The cache of values that cost something to make: decompressed ones, and those read by `pread`.
//!
//! Keyed by the record's sequence number, not by its key: a number is given to one write only, so
//! an entry can be useless but never stale, and serves a record that a merge has moved.

use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError};

use lru::{DefaultHasher, LruCache};

use crate::format::SeqNo;
use crate::sync::Mutex;

/// Enough that readers on a few dozen cores seldom meet; a power of two.
const SHARDS: usize = 16;

pub(crate) struct Cache {
    shards: Vec<Mutex<LruCache<SeqNo, Arc<[u8]>>>>,
    hasher: DefaultHasher,
}

impl Cache {
    /// A cache of `capacity` values, rounded up to a multiple of the number of shards.
    pub(crate) fn new(capacity: NonZeroUsize) -> Cache {
        let each = capacity.get().div_ceil(SHARDS);
        let each = NonZeroUsize::new(each).unwrap_or(NonZeroUsize::MIN);
        // Grows as it is filled: a generous capacity costs nothing before it is used.
        let shard = || {
            let mut shard = LruCache::unbounded();
            shard.resize(each);
            Mutex::new(shard)
        };
        let shards = std::iter::repeat_with(shard).take(SHARDS).collect();
        Cache {
            shards,
            hasher: DefaultHasher::default(),
        }
    }

    fn shard(&self, seq: SeqNo) -> &Mutex<LruCache<SeqNo, Arc<[u8]>>> {
        let hash = self.hasher.hash_one(seq);
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// The value of the record with this number; made by `make`, and kept, if it is not in the cache.
    pub(crate) fn get_or_make<E>(
        &self,
        seq: SeqNo,
        make: impl FnOnce() -> Result<Arc<[u8]>, E>,
    ) -> Result<Arc<[u8]>, E> {
        let shard = self.shard(seq);
        if let Some(value) = shard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&seq)
        {
            return Ok(Arc::clone(value));
        }
        // Not under the lock: decompressing takes long enough to hold others up.
        let value = make()?;
        shard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(seq, Arc::clone(&value));
        Ok(value)
    }

    /// How many values are in it.
    pub(crate) fn len(&self) -> usize {
        let len = |shard: &Mutex<LruCache<_, _>>| {
            shard.lock().unwrap_or_else(PoisonError::into_inner).len()
        };
        self.shards.iter().map(len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(cache: &Cache, seq: u64, byte: u8) -> Arc<[u8]> {
        let made: Result<_, ()> = cache.get_or_make(SeqNo(seq), || Ok([byte].into()));
        made.unwrap()
    }

    #[test]
    fn a_value_is_made_once_and_never_for_another_write() {
        let cache = Cache::new(NonZeroUsize::new(64).unwrap());
        assert_eq!(*make(&cache, 64, 1), [1]);
        assert_eq!(*make(&cache, 64, 2), [1]);
        assert_eq!(*make(&cache, 72, 3), [3]);
    }

    #[test]
    fn it_holds_no_more_than_its_capacity() {
        let cache = Cache::new(NonZeroUsize::new(32).unwrap());
        for offset in 0..10_000 {
            make(&cache, offset * 8, 0);
        }
        assert_eq!(cache.len(), 32);
    }
}
