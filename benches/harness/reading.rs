//! Ways to read: the bare table's, and a store's.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use crabkv::Store;

use super::cases::Case;
use super::{on_threads, sound, timed};
use crate::common::bare::Bare;
use crate::common::{Key, first_word};

/// Keys of one `get_many`.
const MANY: usize = 32;

/// Asks for so many of the keys: goes on where it ended before, and after the last from the first.
pub(crate) fn in_turn<'a>(
    keys: &'a [Key],
    read: impl Fn(&[Key]) -> Duration + 'a,
) -> impl Fn(u64) -> Duration + 'a {
    let next = Cell::new(0);
    move |times| {
        let mut left = times as usize;
        let mut time = Duration::ZERO;
        while left > 0 {
            let some = &keys[next.get()..];
            let some = &some[..left.min(some.len())];
            time += read(some);
            left -= some.len();
            next.set((next.get() + some.len()) % keys.len());
        }
        time
    }
}

/// Divides the keys among so many threads.
pub(crate) fn divided(
    threads: usize,
    read: impl Fn(&[Key]) -> Duration + Sync,
) -> impl Fn(&[Key]) -> Duration {
    move |keys| {
        if threads == 1 {
            return read(keys);
        }
        let share = keys.len().div_ceil(threads);
        on_threads(threads, |number| {
            if let Some(keys) = keys.chunks(share).nth(number) {
                read(keys);
            }
        })
    }
}

/// Reads key after key, as fast as the processor overlaps them.
pub(crate) fn each(get: impl Fn(&Key) -> u64) -> impl Fn(&[Key]) -> Duration {
    move |keys| timed(|| keys.iter().map(&get).fold(0, u64::wrapping_add))
}

/// With the bare table, looking at the first eight bytes of each value.
pub(crate) fn bare(bare: &Bare) -> impl Fn(&[Key]) -> Duration {
    each(|key| bare.get(key).map_or(0, first_word))
}

/// With the bare table, looking at the whole record as a checksum does.
pub(crate) fn bare_checksum(bare: &Bare) -> impl Fn(&[Key]) -> Duration {
    each(|key| {
        let record = bare.get_record(key);
        record.map_or(0, |record| crc32fast::hash(record).into())
    })
}

/// With a reader, which lends values.
pub(crate) fn reader(store: &Store) -> impl Fn(&[Key]) -> Duration {
    move |keys| {
        let reader = store.reader();
        each(|key| sound(reader.get(key)).map_or(0, first_word))(keys)
    }
}

/// With a reader, many keys at a time.
pub(crate) fn reader_many(store: &Store) -> impl Fn(&[Key]) -> Duration {
    move |keys| {
        let reader = store.reader();
        timed(|| {
            let mut sum = 0_u64;
            for keys in keys.chunks(MANY) {
                let add = |_, value: Option<&[u8]>| {
                    sum = sum.wrapping_add(value.map_or(0, first_word));
                };
                sound(reader.get_many(keys, add));
            }
            sum
        })
    }
}

/// With the store, which gives guards.
pub(crate) fn get(store: &Store) -> impl Fn(&[Key]) -> Duration {
    each(|key| sound(store.get(key)).map_or(0, |value| first_word(&value)))
}

/// With the store, many keys at a time.
pub(crate) fn get_many(store: &Store) -> impl Fn(&[Key]) -> Duration {
    move |keys| {
        timed(|| {
            let values = keys
                .chunks(MANY)
                .flat_map(|keys| sound(store.get_many(keys)));
            values
                .map(|value| value.map_or(0, |value| first_word(&value)))
                .fold(0, u64::wrapping_add)
        })
    }
}

/// Opens what is to be read, untimed, and reads all keys for the first time, which is when checksums
/// are verified and the system is asked for each page.
pub(crate) fn first_reads<'a>(
    prefix: &str,
    bare: &'a Bare,
    dir: &'a Path,
    keys: &'a [Key],
) -> [Case<'a>; 2] {
    let limit = format!("{prefix}bare, first read, CRC");
    let with_bare = move |times| {
        let once = |_| bare_checksum(&sound(bare.mapped_again()))(keys);
        (0..times).map(once).sum()
    };
    // Any number of stores can be open to read only.
    let with_reader = move |times| {
        let once = |_| reader(&sound(Store::open_read_only(dir)))(keys);
        (0..times).map(once).sum()
    };
    [
        Case::new(&limit, 1, with_bare).of_keys(keys.len()),
        Case::new(format!("{prefix}reader, first read"), 1, with_reader)
            .of_keys(keys.len())
            .slower_than(limit),
    ]
}
