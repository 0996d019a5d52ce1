//! How fast everything is gone through: opening, which rebuilds the index, compaction, iteration;
//! compared with what the machine allows: `cargo bench --bench maintenance`.
//!
//! A million keys of 16 bytes with values of 100 bytes, or as many as `CRABKV_BENCH_KEYS` says;
//! figures are for one of them. All files are in the page cache. [`Bare`] is the measure, on one
//! thread: filling its table from a list of hashes and offsets, or by walking its records, with and
//! without a checksum of each; copying what is live; walking the records. A store opens with a thread
//! for each core, so that opening it with one is what compares.
//!
//! What is compacted has every second key written twice, so that a third of the records is stale.
//!
//! After Criterion's figures comes a table of ratios from rounds of its own, in which all cases
//! take turns. `cargo bench --bench maintenance -- ratios` prints only that table.

mod common;
mod harness;

use std::fs;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::bare::Bare;
use common::{VALUE_LEN, first_word, key, value};
use crabkv::Store;
use criterion::{Criterion, SamplingMode};
use harness::cases::{self, Case};
use harness::{Outcome, sound, timed};

/// Rounds of the table of ratios.
const ROUNDS: usize = 9;

/// The same records in a bare table and in a store.
struct Data {
    /// How many keys, each of which is live.
    count: usize,
    /// How many records are stale.
    stale: usize,
    bare: Bare,
    bare_path: PathBuf,
    store: Store,
    /// For what is made while measuring.
    dir: PathBuf,
}

impl Data {
    fn make(dir: PathBuf, count: usize, stale: usize) -> Outcome<Data> {
        let records = || {
            let again = (0..stale).map(move |number| (key(2 * number), value(count + number)));
            (0..count)
                .map(|number| (key(number), value(number)))
                .chain(again)
        };
        fs::create_dir(&dir)?;
        let bare_path = dir.join("bare");
        let bare = Bare::build(&bare_path, records())?;
        let store_dir = dir.join("store");
        harness::load(&store_dir, VALUE_LEN, records())?;
        let store = Store::open(store_dir)?;
        assert_eq!(store.len(), count);
        Ok(Data {
            count,
            stale,
            bare,
            bare_path,
            store,
            dir,
        })
    }

    /// Something that deals with every key once each time.
    fn case<'a>(&'a self, name: &str, once: impl Fn() -> Duration + 'a) -> Case<'a> {
        let run = move |times| (0..times).map(|_| once()).sum();
        Case::new(name, 1, run).of_keys(self.count)
    }
}

fn main() -> Outcome<()> {
    let count = harness::key_count(1_000_000)?;
    let dir = tempfile::tempdir()?;
    let fresh = Data::make(dir.path().join("fresh"), count, 0)?;
    let overwritten = Data::make(dir.path().join("overwritten"), count, count / 2)?;
    let mut cases = bare_tables(&fresh)?;
    cases.extend(opens(&fresh)?);
    cases.extend(compactions(&overwritten));
    cases.extend(iterations(&fresh));

    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("maintenance");
    group.sampling_mode(SamplingMode::Flat);
    cases::bench(&mut group, &cases);
    group.finish();
    criterion.final_summary();
    if !harness::is_test() {
        cases::print_ratios(&format!("{count} keys"), ROUNDS, &cases);
    }
    Ok(())
}

/// How long it takes to make something; not to drop it.
fn time_to_make<T, E: std::fmt::Display>(make: impl FnOnce() -> Result<T, E>) -> (Duration, T) {
    let start = Instant::now();
    let product = sound(make());
    (start.elapsed(), product)
}

fn bare_tables(data: &Data) -> Outcome<Vec<Case<'_>>> {
    let list = data.dir.join("list");
    data.bare.write_list(&list)?;
    let (path, count) = (&data.bare_path, data.count);
    let from_list = move || time_to_make(|| Bare::from_list(path, &list)).0;
    let scan = move || time_to_make(|| Bare::scan(path, count, |_| ())).0;
    let checksum = |record: &[u8]| {
        black_box(crc32fast::hash(record));
    };
    let verified = move || time_to_make(|| Bare::scan(path, count, checksum)).0;
    Ok(vec![
        data.case("bare table from a list", from_list),
        data.case("bare table from records", scan),
        data.case("bare table from records, CRC", verified),
    ])
}

fn opens(data: &Data) -> Outcome<Vec<Case<'_>>> {
    let dir = data.dir.join("open");
    data.store.checkpoint(&dir)?;
    // Once it has been opened, it is a store that was closed like any other.
    Store::open(&dir)?.close()?;
    let hints = |threads| {
        let dir = dir.clone();
        move || open(&dir, data.count, threads, true)
    };
    let scan = |threads| {
        let dir = dir.clone();
        move || {
            sound(remove_hints(&dir));
            open(&dir, data.count, threads, false)
        }
    };
    let one = Some(NonZeroUsize::MIN);
    Ok(vec![
        data.case("open from hints, 1 thread", hints(one))
            .slower_than("bare table from a list"),
        data.case("open from hints", hints(None))
            .slower_than("bare table from a list")
            .faster_than("open from hints, 1 thread"),
        data.case("open by a scan, 1 thread", scan(one))
            .slower_than("bare table from records, CRC"),
        data.case("open by a scan", scan(None))
            .slower_than("bare table from records, CRC")
            .faster_than("open by a scan, 1 thread"),
    ])
}

/// Opens a store of so many keys, all of it from hints or none of it.
fn open(dir: &Path, count: usize, threads: Option<NonZeroUsize>, from_hints: bool) -> Duration {
    let mut options = Store::builder(dir).create_if_missing(false);
    if let Some(threads) = threads {
        options = options.recovery_threads(threads);
    }
    let (time, store) = time_to_make(|| options.build_store());
    let report = store.recovery_report();
    assert_eq!(report.keys, count as u64);
    let used = if from_hints { report.segments } else { 0 };
    assert_eq!((report.hints_used, report.clean), (used, true));
    sound(store.close());
    time
}

fn remove_hints(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "hint")
        {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn compactions(data: &Data) -> [Case<'_>; 2] {
    let bare = || {
        let copy = data.dir.join("copy");
        let (time, copied) = time_to_make(|| data.bare.copy_live(&copy));
        assert_eq!(copied, data.count);
        sound(fs::remove_file(copy));
        time
    };
    // A compacted store is of no more use: each time there is another, which shares the files.
    let compact = || {
        let dir = data.dir.join("compacted");
        sound(data.store.checkpoint(&dir));
        let store = sound(Store::builder(&dir).auto_compaction(false).build_store());
        let (time, report) = time_to_make(|| store.compact());
        assert_eq!(report.records_dropped, data.stale as u64);
        drop(store);
        sound(fs::remove_dir_all(dir));
        time
    };
    [
        data.case("bare copy of what is live", bare),
        data.case("compact", compact)
            .slower_than("bare copy of what is live"),
    ]
}

fn iterations(data: &Data) -> [Case<'_>; 5] {
    let sum = |words: &mut dyn Iterator<Item = u64>| words.fold(0, u64::wrapping_add);
    let walk = move || timed(|| sum(&mut data.bare.values().map(first_word)));
    let checksum = |record: &[u8]| u64::from(crc32fast::hash(record));
    let verified = move || timed(|| sum(&mut data.bare.records().map(checksum)));
    let for_each = move || {
        timed(|| {
            let mut sum = 0_u64;
            sound(data.store.reader().for_each(|key, value| {
                sum = sum.wrapping_add(first_word(key) ^ first_word(value));
                ControlFlow::Continue(())
            }));
            sum
        })
    };
    let iter = move || {
        let entry = |entry| {
            let (key, value): (Vec<u8>, crabkv::Value) = sound(entry);
            first_word(&key) ^ first_word(&value)
        };
        timed(|| sum(&mut data.store.iter().map(entry)))
    };
    let keys = move || timed(|| sum(&mut data.store.keys().map(|key| first_word(&sound(key)))));
    [
        data.case("bare walk", walk),
        data.case("bare walk, CRC", verified),
        data.case("reader, for_each", for_each)
            .slower_than("bare walk, CRC"),
        data.case("iter", iter).slower_than("bare walk, CRC"),
        data.case("keys", keys).slower_than("bare walk, CRC"),
    ]
}
