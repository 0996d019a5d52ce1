//! A byte string as a program: operations that change a store, what they do to a model of it, and that
//! both agree.

#![allow(dead_code, reason = "each target uses its part")]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crabkv::disk::SimDisk;
use crabkv::{Error, Result, SegmentId, SeqNo, WriteBatch};

use super::contents::{DIR, Entry, SimStore, State, is_hint};

/// The bytes of an input, taken one after the other.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next byte, or 0 behind the end.
    pub(crate) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }
}

/// Lengths of values around what the format rounds to, what is compressed, and the segments' size.
const VALUE_LENS: [usize; 16] = [
    0, 1, 7, 8, 9, 20, 33, 64, 100, 180, 255, 256, 300, 450, 700, 1500,
];

const LONG_KEY: usize = 300;

/// One change of a key.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    key: Vec<u8>,
    /// `None` for a delete.
    value: Option<Vec<u8>>,
    ttl_ms: Option<u64>,
}

/// An operation that changes a store, or what is durable of it.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write(Write),
    Batch(Vec<Write>),
    PutIfAbsent(Vec<u8>, Vec<u8>),
    /// With the version that is there, or with another one.
    CompareAndSwap(Vec<u8>, Vec<u8>, bool),
    CompareAndDelete(Vec<u8>),
    Touch(Vec<u8>, u64),
    Persist(Vec<u8>),
    /// So many milliseconds from the clock's beginning.
    ExpireAt(Vec<u8>, u64),
    Increment(Vec<u8>, i64),
    /// What is there, shortened, with this in front; without anything, it is deleted.
    Update(Vec<u8>, Option<Vec<u8>>),
    Sync,
    Flush,
    Compact,
    /// Merges the sealed segments whose bits are set.
    CompactSome(u8),
    Checkpoint,
    /// Closes it and goes on with the same handle.
    Close,
    /// Drops the store, removes the hint files whose bits are set, and opens it again.
    Reopen(u8),
    /// Time passes.
    Advance(u64),
}

/// How many kinds of operations [`Op::decode`] knows; higher numbers are for the caller.
pub(crate) const OPS: u8 = 20;

impl Op {
    /// The operation of this kind, with what it needs from the bytes. `number` makes its values
    /// unlike all others.
    pub(crate) fn decode(kind: u8, bytes: &mut Bytes<'_>, number: usize) -> Op {
        match kind {
            0..4 => Op::Write(write(bytes, number)),
            4..6 => {
                let count = bytes.byte() % 6;
                let writes = (0..count).map(|part| write(bytes, number * 10 + usize::from(part)));
                Op::Batch(writes.collect())
            }
            6 => Op::PutIfAbsent(key(bytes), value(bytes, number)),
            7 => Op::CompareAndSwap(key(bytes), value(bytes, number), bytes.byte() & 1 == 0),
            8 => Op::CompareAndDelete(key(bytes)),
            9 => Op::Touch(key(bytes), ms(bytes)),
            10 => Op::Persist(key(bytes)),
            11 => Op::ExpireAt(key(bytes), ms(bytes)),
            12 => Op::Increment(
                key(bytes),
                match bytes.byte() {
                    u8::MAX => i64::MAX,
                    by => i64::from(by) - 100,
                },
            ),
            13 => {
                let key = key(bytes);
                let front = bytes.byte();
                Op::Update(
                    key,
                    (front & 3 > 0).then(|| number.to_string().into_bytes()),
                )
            }
            14 => Op::Sync,
            15 => Op::Compact,
            16 => Op::CompactSome(bytes.byte()),
            17 => match bytes.byte() & 3 {
                0 => Op::Close,
                1 => Op::Flush,
                2 => Op::Checkpoint,
                _ => Op::Sync,
            },
            18 => Op::Reopen(bytes.byte()),
            _ => Op::Advance(ms(bytes)),
        }
    }

    /// The state that it leads to.
    pub(crate) fn after(&self, state: &State, now_ms: u64) -> State {
        let mut state = state.clone();
        let seen = |state: &State, key: &[u8]| -> Option<Entry> {
            let entry = state.get(key)?;
            let is_over = entry.1.is_some_and(|expiry| expiry <= now_ms);
            (!is_over).then(|| entry.clone())
        };
        let (key, entry) = match self {
            Op::Write(write) => return after_writes(state, std::slice::from_ref(write), now_ms),
            Op::Batch(writes) => return after_writes(state, writes, now_ms),
            Op::PutIfAbsent(key, value) => match seen(&state, key) {
                Some(entry) => (key, Some(entry)),
                None => (key, Some((value.clone(), None))),
            },
            Op::CompareAndSwap(key, value, fits) => match (fits, seen(&state, key)) {
                (true, _) => (key, Some((value.clone(), None))),
                (false, seen) => (key, seen),
            },
            Op::CompareAndDelete(key) => (key, None),
            Op::Touch(key, ttl) => {
                let entry = seen(&state, key);
                (key, entry.map(|(value, _)| (value, Some(now_ms + ttl))))
            }
            Op::Persist(key) => (key, seen(&state, key).map(|(value, _)| (value, None))),
            Op::ExpireAt(key, ms) => {
                let at = expiry_of(*ms, now_ms);
                let entry = seen(&state, key).filter(|_| at > now_ms);
                (key, entry.map(|(value, _)| (value, Some(at))))
            }
            Op::Increment(key, by) => {
                let entry = seen(&state, key);
                match sum(entry.as_ref(), *by) {
                    Some(sum) => {
                        let expiry = entry.and_then(|(_, expiry)| expiry);
                        (key, Some((sum.to_string().into_bytes(), expiry)))
                    }
                    None => (key, entry),
                }
            }
            Op::Update(key, front) => {
                let entry = seen(&state, key);
                let old = entry.as_ref().map(|(value, _)| &value[..]);
                let new = updated(old, front.as_deref());
                let expiry = entry.as_ref().and_then(|(_, expiry)| *expiry);
                (key, new.map(|new| (new, expiry)))
            }
            _ => return state,
        };
        match entry {
            Some(entry) => state.insert(key.clone(), entry),
            None => state.remove(key),
        };
        state
    }

    /// Whether it writes what the model knows of, rather than only how it lies on the disk.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(
            self,
            Op::Sync
                | Op::Flush
                | Op::Compact
                | Op::CompactSome(_)
                | Op::Checkpoint
                | Op::Close
                | Op::Reopen(_)
                | Op::Advance(_)
        )
    }

    /// Does it to a store; not for [`Op::Reopen`] and [`Op::Advance`]. What it returns must be what the
    /// model says: `before` is what can be seen before it.
    pub(crate) fn apply(&self, store: &SimStore, before: &State, now_ms: u64) -> Result<()> {
        match self {
            Op::Write(write) => apply_write(write, store, before),
            Op::Batch(writes) => store.write(&batch(writes)?),
            Op::PutIfAbsent(key, value) => {
                let was_put = store.put_if_absent(key, value)?;
                assert_eq!(was_put, !before.contains_key(key), "{self:?}");
                Ok(())
            }
            Op::CompareAndSwap(key, value, fits) => {
                let there = version(store, key)?;
                let other = there.map_or(Some(SeqNo::new(1 << 60)), |_| None);
                let swapped = store.compare_and_swap(key, if *fits { there } else { other }, value);
                match swapped {
                    Err(Error::Conflict { found, .. }) if !fits => {
                        assert_eq!(found, there, "{self:?}");
                        Ok(())
                    }
                    Err(Error::Conflict { .. }) => panic!("a conflict with nobody: {self:?}"),
                    Ok(()) if !fits => panic!("no conflict: {self:?}"),
                    other => other,
                }
            }
            Op::CompareAndDelete(key) => match version(store, key)? {
                Some(version) => store.compare_and_delete(key, version),
                None => Ok(()),
            },
            Op::Touch(key, ttl) => {
                let was_there = store.touch(key, Duration::from_millis(*ttl))?;
                assert_eq!(was_there, before.contains_key(key), "{self:?}");
                Ok(())
            }
            Op::Persist(key) => {
                let had_expiry = store.persist(key)?;
                let expected = before.get(key).is_some_and(|(_, expiry)| expiry.is_some());
                assert_eq!(had_expiry, expected, "{self:?}");
                Ok(())
            }
            Op::ExpireAt(key, ms) => {
                let was_there = store.expire_at(key, time(expiry_of(*ms, now_ms)))?;
                assert_eq!(was_there, before.contains_key(key), "{self:?}");
                Ok(())
            }
            Op::Increment(key, by) => {
                let expected = sum(before.get(key), *by);
                match store.increment(key, *by) {
                    Err(Error::NotAnInteger { .. }) if expected.is_none() => Ok(()),
                    Ok(sum) => {
                        assert_eq!(Some(sum), expected, "{self:?}");
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Op::Update(key, front) => {
                let expected = before.get(key).map(|(value, _)| &value[..]);
                store.update(key, |old| {
                    assert_eq!(old, expected, "{self:?}");
                    updated(old, front.as_deref())
                })?;
                Ok(())
            }
            Op::Sync => store.sync(),
            Op::Flush => store.flush(),
            Op::Compact => store.compact().map(drop),
            Op::CompactSome(bits) => store.compact_segments(&some(store, *bits)).map(drop),
            Op::Checkpoint => store.checkpoint(CHECKPOINT).map(drop),
            Op::Close => store.close(),
            Op::Reopen(_) | Op::Advance(_) => unreachable!("not an operation of a store"),
        }
    }
}

/// Where [`Op::Checkpoint`] puts it.
pub(crate) const CHECKPOINT: &str = "/checkpoint";

pub(crate) fn key(bytes: &mut Bytes<'_>) -> Vec<u8> {
    match bytes.byte() {
        254 => Vec::new(),
        255 => vec![b'k'; LONG_KEY],
        number => format!("k{}", number % 8).into_bytes(),
    }
}

fn value(bytes: &mut Bytes<'_>, number: usize) -> Vec<u8> {
    let choice = bytes.byte();
    let len = VALUE_LENS[usize::from(choice & 15)];
    if choice & 0x80 != 0 {
        return number.to_string().into_bytes();
    }
    let text = format!("{number}.").into_bytes();
    let mut value = text.repeat(len / text.len() + 1);
    value.truncate(len);
    value
}

fn write(bytes: &mut Bytes<'_>, number: usize) -> Write {
    let key = key(bytes);
    let (value, ttl_ms) = match bytes.byte() % 8 {
        0..5 => (Some(value(bytes, number)), None),
        5 => (Some(value(bytes, number)), Some(ms(bytes))),
        _ => (None, None),
    };
    Write { key, value, ttl_ms }
}

/// At least one, at most about four seconds.
fn ms(bytes: &mut Bytes<'_>) -> u64 {
    1 + u64::from(bytes.byte()) * 16
}

/// A time near now, in the past if the number is odd.
fn expiry_of(ms: u64, now_ms: u64) -> u64 {
    if ms & 16 == 0 {
        now_ms + ms
    } else {
        now_ms.saturating_sub(ms)
    }
}

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn sum(entry: Option<&Entry>, by: i64) -> Option<i64> {
    let old = match entry {
        None => 0,
        Some((value, _)) => {
            let text = std::str::from_utf8(value).ok()?;
            text.parse::<i64>().ok()?
        }
    };
    old.checked_add(by)
}

fn updated(old: Option<&[u8]>, front: Option<&[u8]>) -> Option<Vec<u8>> {
    let old = old.unwrap_or_default();
    front.map(|front| [front, &old[..old.len().min(40)]].concat())
}

fn after_writes(mut state: State, writes: &[Write], now_ms: u64) -> State {
    for write in writes {
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
    state
}

fn apply_write(write: &Write, store: &SimStore, before: &State) -> Result<()> {
    match (&write.value, write.ttl_ms) {
        (Some(value), Some(ttl)) => {
            store.put_with_ttl(&write.key, value, Duration::from_millis(ttl))
        }
        (Some(value), None) => store.put(&write.key, value),
        (None, _) => {
            let was_there = store.delete(&write.key)?;
            assert_eq!(was_there, before.contains_key(&write.key), "{write:?}");
            Ok(())
        }
    }
}

fn batch(writes: &[Write]) -> Result<WriteBatch> {
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

/// The version of what is there; what waits in a write-back buffer gets one first.
fn version(store: &SimStore, key: &[u8]) -> Result<Option<SeqNo>> {
    store.flush()?;
    let value = store.get(key)?;
    Ok(value.and_then(|value| value.version()))
}

/// The sealed segments whose bits are set.
fn some(store: &SimStore, bits: u8) -> Vec<SegmentId> {
    let sealed = store
        .stats()
        .segments
        .into_iter()
        .filter(|segment| segment.sealed);
    let chosen = sealed
        .enumerate()
        .filter(|(at, _)| bits >> (at % 8) & 1 == 1);
    chosen.map(|(_, segment)| segment.id).collect()
}

/// Removes the hint files whose bits are set of a store that nobody has open.
pub(crate) fn remove_hints(disk: &SimDisk, bits: u8) {
    let dir = Path::new(DIR);
    let names = disk.files(dir).into_iter().map(|(name, _)| name);
    let hints = names.filter(|name| is_hint(name));
    for (at, name) in hints.enumerate() {
        if bits >> (at % 8) & 1 == 1 {
            disk.remove_raw(&dir.join(name));
        }
    }
}
