//! How fast reads are, compared with what the machine allows: `cargo bench --bench reads`.
//!
//! A million keys of 16 bytes with values of 100 bytes, in sealed segments, as after opening a
//! store again. Keys are asked for in a random order that visits all of them before it repeats
//! itself, so that hardly any get finds its index line or its record in the cache; of each value
//! the first eight bytes are looked at. [`Bare`] is the measure: a table over a mapped file
//! that does no more than any store must.
//!
//! After Criterion's figures comes a table of ratios from rounds of its own, in which all cases
//! take turns, so that a noisy machine is equally hard on all. `cargo bench --bench reads -- ratios`
//! prints only that table. `CRABKV_BENCH_KEYS` is another number of keys.

mod common;
mod harness;

use std::time::Duration;

use common::bare::Bare;
use common::{Key, VALUE_LEN, below, first_word, key, mix, shuffled, value, zipfian};
use crabkv::Store;
use criterion::Criterion;
use harness::cases::{self, Case};
use harness::reading::{self, divided, in_turn};
use harness::{Outcome, sound, timed};

/// Rounds of the table of ratios.
const ROUNDS: usize = 9;

type Read<'a> = Box<dyn Fn(&[Key]) -> Duration + Sync + 'a>;

fn main() -> Outcome<()> {
    let count = harness::key_count(1_000_000)?;
    let dir = tempfile::tempdir()?;
    let records = || (0..count).map(|number| (key(number), value(number)));
    let bare = Bare::build(&dir.path().join("bare"), records())?;
    let store_dir = dir.path().join("store");
    harness::load(&store_dir, VALUE_LEN, records())?;
    let store = Store::open(&store_dir)?;

    let keys = |numbers: Vec<usize>| numbers.into_iter().map(key).collect::<Vec<_>>();
    let uniform = keys(shuffled(count));
    let absent = keys(shuffled(count).into_iter().map(|n| n + count).collect());
    let skewed = keys(zipfian(count));
    // The first read of a record verifies its checksum; most cases are about later ones.
    for key in &uniform {
        let value = store.get(key)?.ok_or("a key is missing")?;
        assert_eq!(bare.get(key), Some(&*value));
    }

    let mut steady = Vec::new();
    for (order, keys) in [
        ("", &uniform),
        (", misses", &absent),
        (", zipfian", &skewed),
    ] {
        for threads in [1, 2] {
            steady.extend(gets(&bare, &store, order, keys, threads));
        }
    }
    steady.extend(dependent(&bare, &store, count));
    let first = reading::first_reads("", &bare, &store_dir, &uniform);

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("reads");
    cases::bench(&mut group, &steady);
    group.sample_size(10);
    cases::bench(&mut group, &first);
    group.finish();
    criterion.final_summary();
    if !harness::is_test() {
        steady.extend(first);
        cases::print_ratios(&format!("{count} keys"), ROUNDS, &steady);
    }
    Ok(())
}

/// Each way to read these keys.
fn gets<'a>(
    bare: &'a Bare,
    store: &'a Store,
    order: &str,
    keys: &'a [Key],
    threads: usize,
) -> impl Iterator<Item = Case<'a>> {
    let reads: [(&str, Read<'a>); 5] = [
        ("bare", Box::new(reading::bare(bare))),
        ("reader", Box::new(reading::reader(store))),
        ("get", Box::new(reading::get(store))),
        ("reader, get_many", Box::new(reading::reader_many(store))),
        ("get_many", Box::new(reading::get_many(store))),
    ];
    reads.into_iter().map(move |(way, read)| {
        let name = |way, threads| match threads {
            1 => format!("{way}{order}"),
            _ => format!("{way}{order}, {threads} threads"),
        };
        let run = in_turn(keys, divided(threads, read));
        let mut case = Case::new(name(way, threads), keys.len(), run);
        if way != "bare" {
            case = case.slower_than(name("bare", threads));
        }
        match way {
            "get" => case = case.slower_than(name("reader", threads)),
            "reader, get_many" => case = case.faster_than(name("reader", threads)),
            "get_many" => case = case.faster_than(name("get", threads)),
            _ => {}
        }
        if threads > 1 {
            case = case.faster_than(name(way, 1));
        }
        case
    })
}

/// Gets each of which the value before decides, so that nothing overlaps.
fn dependent<'a>(bare: &'a Bare, store: &'a Store, count: usize) -> [Case<'a>; 2] {
    let with_bare = move |times| chain(times, count, |key| bare.get(key).map_or(0, first_word));
    let with_reader = move |times| {
        let reader = store.reader();
        chain(times, count, |key| {
            sound(reader.get(key)).map_or(0, first_word)
        })
    };
    [
        Case::new("bare, dependent", count, with_bare),
        Case::new("reader, dependent", count, with_reader).slower_than("bare, dependent"),
    ]
}

fn chain(times: u64, count: usize, get: impl Fn(&Key) -> u64) -> Duration {
    timed(|| {
        (0..times).fold(0, |word, step| {
            get(&key(below(count, mix(word.wrapping_add(step)))))
        })
    })
}
