//! Keys a few at a time, for callers that keep nothing in between but a number.

use super::Store;
use super::Verify;
use super::engine::Engine;
use crate::disk::Disk;
use crate::error::Result;
use crate::index::Index;

/// Some of a store's keys, from [`Store::scan_keys`](crate::Store::scan_keys).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScannedKeys {
    /// In no order that means anything.
    pub keys: Vec<Vec<u8>>,
    /// Where to go on; `None` at the end, and never 0.
    pub next: Option<u64>,
}

impl Store {
    /// Positions of [`scan_keys`](Store::scan_keys) are below this; a walk can begin at any of them,
    /// for instance to meet keys at random.
    ///
    /// ```
    /// assert_eq!(crabkv::Store::SCAN_POSITIONS, 1 << 48);
    /// ```
    pub const SCAN_POSITIONS: u64 = Index::END;
}

impl<D: Disk> Store<D> {
    /// Some of the keys, and where to go on: a walk over all keys for those who cannot keep an
    /// [iterator](Store::iter), nor a [`Cursor`](crate::Cursor), but only a number. Begin at 0.
    ///
    /// About `count` keys are looked at, more where the index is densely filled: for a `count` of 10
    /// in a store of a million keys 19 on average and 446 at most; a page of the index, 4,088, bounds
    /// it. They may all have expired: that there are none does not mean that the end has come.
    ///
    /// A key that is there from beginning to end of the walk is met at least once; twice if its page
    /// of the index was split while the walk was in it. One that comes or goes meanwhile may be met
    /// or not. The numbers are places in the order of hashes: they stay good while the process
    /// lives and after it, and any number is a place. Writes and compaction go on. A write-back
    /// buffer is flushed first.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get), and of the flush as [`put`](Store::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// for i in 0..100 {
    ///     store.put(format!("key{i}"), "x")?;
    /// }
    /// let (mut found, mut position) = (0, Some(0));
    /// while let Some(at) = position {
    ///     let some = store.scan_keys(at, 10)?;
    ///     found += some.keys.len();
    ///     position = some.next;
    /// }
    /// assert_eq!(found, 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scan_keys(&self, position: u64, count: usize) -> Result<ScannedKeys> {
        self.engine.flush_write_back()?;
        self.engine.scan_keys(position, count.max(1))
    }
}

impl<D: Disk> Engine<D> {
    fn scan_keys(&self, position: u64, count: usize) -> Result<ScannedKeys> {
        let mut keys = Vec::new();
        let mut locations = Vec::new();
        let mut place = position;
        let mut looked_at = 0;
        // Pages can be empty: those count, too.
        for _ in 0..count {
            if place >= Index::END || looked_at >= count {
                break;
            }
            let pin = self.collector.pin();
            locations.clear();
            let at_least = count - looked_at;
            let stretch = self.index.stretch_at(&pin, place, at_least, &mut locations);
            for &location in &locations {
                let hit = self.read(&pin, location, self.verify != Verify::Never)?;
                let record = hit.record()?;
                if !stretch.has(self.hash(record.key()).into()) {
                    continue;
                }
                let expires_at_ms = record.expires_at_ms();
                if !expires_at_ms.is_some_and(|at| self.clock.has_passed(at)) {
                    keys.push(record.key().to_vec());
                }
            }
            looked_at += locations.len();
            place = stretch.next;
        }
        Ok(ScannedKeys {
            keys,
            next: (place < Index::END).then_some(place),
        })
    }
}
