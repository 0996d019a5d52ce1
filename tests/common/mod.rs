//! What the tests of promises share: a model of a store, operations on both, random numbers.

#![allow(dead_code, reason = "each file of tests uses its part")]

pub(crate) mod hooked;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crabkv::disk::{Disk, SimDisk};
use crabkv::{CrabKvBuilder, Result, SegmentId, Store, Verify, WriteBatch};

/// What a progress function says that wants it all.
pub(crate) fn go_on<P>(_progress: &P) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// SplitMix64: the same numbers in every run from one printed seed.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The seed of a randomized test: `CRABKV_SEED`, or the fixed one. Printed, so that a failure can
/// be run again.
pub(crate) fn seed(fixed: u64) -> u64 {
    let seed = std::env::var("CRABKV_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(fixed);
    println!("CRABKV_SEED={seed}");
    seed
}

/// `CRABKV_EFFORT` times the usual number of rounds, and at least one.
pub(crate) fn effort(rounds: u64) -> u64 {
    let (times, parts) = chosen_effort();
    (rounds * times).div_ceil(parts)
}

/// What `CRABKV_EFFORT` says, as a fraction.
///
/// # Panics
///
/// When it is none: a run that does another amount of work than it was told would mislead.
pub(crate) fn chosen_effort() -> (u64, u64) {
    let Ok(text) = std::env::var("CRABKV_EFFORT") else {
        return (1, 1);
    };
    fraction(&text).unwrap_or_else(|| {
        panic!("CRABKV_EFFORT is a number such as 20, or a fraction such as 1/20, not {text:?}")
    })
}

/// Reads `20` or `1/20`, neither part of which may be 0.
pub(crate) fn fraction(text: &str) -> Option<(u64, u64)> {
    let (times, parts) = text.split_once('/').unwrap_or((text, "1"));
    let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
    Some((number(times)?, number(parts)?))
}

/// A key's value and when it expires.
pub(crate) type Entry = (Vec<u8>, Option<u64>);

/// What a store should hold, or was seen to hold.
pub(crate) type State = BTreeMap<Vec<u8>, Entry>;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) key: Vec<u8>,
    /// `None` for a delete.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) ttl_ms: Option<u64>,
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key.escape_ascii();
        match &self.value {
            Some(value) => {
                let shown = value[..value.len().min(12)].escape_ascii();
                write!(f, "{key}={shown}({})", value.len())?;
            }
            None => write!(f, "-{key}")?,
        }
        self.ttl_ms.map_or(Ok(()), |ttl| write!(f, " for {ttl} ms"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Write(Write),
    Batch(Vec<Write>),
    Sync,
    Flush,
    Compact,
    /// Drops the store, which closes it, and opens it again.
    Reopen,
    /// Closes it and goes on with the same handle.
    Close,
    /// Time passes.
    Advance(u64),
}

pub(crate) fn put(key: &str, value: impl AsRef<[u8]>) -> Write {
    Write {
        key: key.into(),
        value: Some(value.as_ref().to_vec()),
        ttl_ms: None,
    }
}

pub(crate) fn put_ttl(key: &str, value: impl AsRef<[u8]>, ttl_ms: u64) -> Write {
    Write {
        ttl_ms: Some(ttl_ms),
        ..put(key, value)
    }
}

pub(crate) fn delete(key: &str) -> Write {
    Write {
        key: key.into(),
        value: None,
        ttl_ms: None,
    }
}

impl Op {
    pub(crate) fn writes(&self) -> &[Write] {
        match self {
            Op::Write(write) => std::slice::from_ref(write),
            Op::Batch(writes) => writes,
            _ => &[],
        }
    }

    /// Does to a model what the operation does to a store.
    pub(crate) fn apply_to(&self, state: &mut State, now_ms: u64) {
        for write in self.writes() {
            match &write.value {
                Some(value) => {
                    let expiry = write.ttl_ms.map(|ttl| now_ms + ttl);
                    state.insert(write.key.clone(), (value.clone(), expiry));
                }
                None => {
                    state.remove(&write.key);
                }
            }
        }
    }

    /// Does it to a store; not for [`Op::Reopen`] and [`Op::Advance`].
    pub(crate) fn apply<D: Disk>(&self, store: &Store<D>) -> Result<()> {
        match self {
            Op::Write(write) => match (&write.value, write.ttl_ms) {
                (Some(value), Some(ttl)) => {
                    store.put_with_ttl(&write.key, value, Duration::from_millis(ttl))
                }
                (Some(value), None) => store.put(&write.key, value),
                (None, _) => store.delete(&write.key).map(drop),
            },
            Op::Batch(writes) => store.write(&batch(writes)?),
            Op::Sync => store.sync(),
            Op::Flush => store.flush(),
            Op::Compact => store.compact().map(drop),
            Op::Close => store.close(),
            Op::Reopen | Op::Advance(_) => unreachable!("not an operation of a store"),
        }
    }
}

pub(crate) fn batch(writes: &[Write]) -> Result<WriteBatch> {
    let mut batch = WriteBatch::new();
    for write in writes {
        match (&write.value, write.ttl_ms) {
            (Some(value), Some(ttl)) => {
                batch.put_with_ttl(&write.key, value, Duration::from_millis(ttl))?
            }
            (Some(value), None) => batch.put(&write.key, value)?,
            (None, _) => batch.delete(&write.key)?,
        };
    }
    Ok(batch)
}

/// The part of a state that can be seen at this time.
pub(crate) fn visible(state: &State, now_ms: u64) -> State {
    let mut state = state.clone();
    state.retain(|_, (_, expiry)| expiry.is_none_or(|expiry| expiry > now_ms));
    state
}

/// Everything in a store, by iteration, checked against a get of each key and of those in
/// `others`, which may be absent.
pub(crate) fn contents<'k, D: Disk>(
    store: &Store<D>,
    others: impl IntoIterator<Item = &'k Vec<u8>>,
) -> Result<State> {
    let mut state = State::new();
    for entry in store {
        let (key, value) = entry?;
        let again = state.insert(key.clone(), entry_of(&value));
        assert!(again.is_none(), "the iteration met {key:?} twice");
    }
    for (key, entry) in &state {
        let got = store.get(key)?.map(|value| entry_of(&value));
        assert_eq!(got.as_ref(), Some(entry), "get and iter differ at {key:?}");
    }
    for key in others {
        if !state.contains_key(key) {
            let got = store.get(key)?;
            assert!(
                got.is_none(),
                "{key:?} is not met by the iteration: {got:?}"
            );
        }
    }
    Ok(state)
}

pub(crate) fn entry_of(value: &crabkv::Value) -> Entry {
    (value.to_vec(), value.expires_at().map(millis))
}

pub(crate) fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Options for a store on a simulated disk: tiny segments, one thread, every read verified.
pub(crate) fn sim_builder(segment_size: u64) -> CrabKvBuilder {
    Store::builder("/db")
        .segment_size(segment_size)
        .recovery_threads(NonZeroUsize::MIN)
        .verify(Verify::EveryRead)
}

pub(crate) type SimStore = Store<SimDisk>;

/// Shows a state in few characters.
pub(crate) fn show(state: &State) -> String {
    let entries = state.iter().map(|(key, (value, expiry))| {
        let shown = &value[..value.len().min(16)];
        let expiry = expiry.map_or(String::new(), |expiry| format!(" until {expiry}"));
        format!(
            "{}={}({}){expiry}",
            key.escape_ascii(),
            shown.escape_ascii(),
            value.len()
        )
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
}

/// Leaves nothing to do when a thread fails that has it.
struct EndAllOnPanic<'a>(&'a AtomicU64);

impl Drop for EndAllOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(u64::MAX / 2, Ordering::Relaxed);
        }
    }
}

/// Shares the work among two threads, until one of them fails.
pub(crate) fn in_two_threads(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let work = || {
        let _end = EndAllOnPanic(&next);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            // Far beyond once the other thread has failed: there is nothing to wait for then.
            if number >= count {
                break;
            }
            work(number);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
}

/// Whether a file of a store is of this kind, as `hint`.
pub(crate) fn is_kind(name: &str, kind: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| extension == kind)
}

/// The sealed segments, in the order of their ids.
pub(crate) fn sealed<D: Disk>(store: &Store<D>) -> Vec<SegmentId> {
    let segments = store.stats().segments.into_iter();
    segments
        .filter(|segment| segment.sealed)
        .map(|segment| segment.id)
        .collect()
}

/// Seals the active segment, if there is anything in it, and merges nothing.
pub(crate) fn seal<D: Disk>(store: &Store<D>) {
    let report = store.compact_segments(&[]).unwrap();
    assert_eq!(report.segments_merged, 0);
    // The active segment has its header and no record.
    let mut segments = store.stats().segments.into_iter();
    assert!(segments.all(|segment| segment.sealed || segment.data_bytes == 64));
}

/// Removes the hint files of a store that nobody has open, or those among them that are chosen.
pub(crate) fn remove_hints(disk: &SimDisk, mut chosen: impl FnMut() -> bool) {
    let dir = std::path::Path::new("/db");
    for (name, _) in disk.files(dir) {
        if is_kind(&name, "hint") && chosen() {
            disk.remove_raw(&dir.join(name));
        }
    }
}
