//! What the size of values and their verification cost a read, compared with what the machine allows:
//! `cargo bench --bench values`.
//!
//! 16,384 keys of 16 bytes for each size of values, in sealed segments, asked for in a random order. A
//! value that is lent in place should cost the same whatever its size, since the first eight bytes are
//! all that is looked at; one whose checksum is verified is looked at as a whole, and compared with
//! the bare table that computes a CRC-32 of each record, too.
//!
//! After Criterion's figures comes a table of ratios from rounds of its own, in which all cases
//! take turns. `cargo bench --bench values -- ratios` prints only that table. `CRABKV_BENCH_KEYS` is
//! another number of keys; the largest values take 64 KiB twice for each.

mod common;
mod harness;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::bare::Bare;
use common::{Key, key, shuffled, value_of_len};
use crabkv::{Store, Verify};
use criterion::Criterion;
use harness::Outcome;
use harness::cases::{self, Case};
use harness::reading::{self, divided, in_turn};

/// Rounds of the table of ratios.
const ROUNDS: usize = 9;
/// How often each key is asked for in a round, so that what the case before left in the caches counts
/// for little.
const TIMES_EACH: usize = 8;

const SIZES: [(usize, &str); 5] = [
    (16, "16 B"),
    (100, "100 B"),
    (1 << 10, "1 KiB"),
    (16 << 10, "16 KiB"),
    (64 << 10, "64 KiB"),
];

type Read<'a> = Box<dyn Fn(&[Key]) -> Duration + Sync + 'a>;

/// Values of one size, in the bare table and in a store that is open once for each way to verify.
struct Data {
    size: &'static str,
    bare: Bare,
    dir: PathBuf,
    first_read: Store,
    every_read: Store,
    never: Store,
}

fn main() -> Outcome<()> {
    let count = harness::key_count(16_384)?;
    let dir = tempfile::tempdir()?;
    let once: Vec<Key> = shuffled(count).into_iter().map(key).collect();
    let keys = once.repeat(TIMES_EACH);
    let all_data = SIZES
        .into_iter()
        .map(|(len, size)| Data::make(dir.path(), count, len, size))
        .collect::<Outcome<Vec<_>>>()?;

    let mut steady = Vec::new();
    let mut first = Vec::new();
    for data in &all_data {
        for key in &once {
            let value = data.first_read.get(key)?.ok_or("a key is missing")?;
            assert_eq!(data.bare.get(key), Some(&*value));
        }
        for threads in [1, 2] {
            steady.extend(data.gets(&keys, threads));
        }
        let prefix = format!("{}, ", data.size);
        first.extend(reading::first_reads(&prefix, &data.bare, &data.dir, &once));
    }

    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("values");
    cases::bench(&mut group, &steady);
    group.sample_size(10);
    cases::bench(&mut group, &first);
    group.finish();
    criterion.final_summary();
    if !harness::is_test() {
        steady.extend(first);
        let what = format!("{count} keys for each size of values");
        cases::print_ratios(&what, ROUNDS, &steady);
    }
    Ok(())
}

impl Data {
    fn make(dir: &Path, count: usize, len: usize, size: &'static str) -> Outcome<Data> {
        let records = || (0..count).map(|number| (key(number), value_of_len(number, len)));
        let bare = Bare::build(&dir.join(format!("bare {size}")), records())?;
        let dir = dir.join(format!("store {size}"));
        harness::load(&dir, len, records())?;
        // Any number of stores can be open to read only.
        let open = |verify| {
            let options = Store::builder(&dir).read_only(true);
            options.verify(verify).build_store()
        };
        Ok(Data {
            size,
            bare,
            first_read: open(Verify::FirstRead)?,
            every_read: open(Verify::EveryRead)?,
            never: open(Verify::Never)?,
            dir,
        })
    }

    /// Each way to read values that have all been read before.
    fn gets<'a>(&'a self, keys: &'a [Key], threads: usize) -> impl Iterator<Item = Case<'a>> {
        let (bare, all) = (Some("bare"), Some("bare, CRC"));
        let reads: [(&str, Option<&str>, Read<'a>); 8] = [
            ("bare", None, Box::new(reading::bare(&self.bare))),
            ("reader", bare, Box::new(reading::reader(&self.first_read))),
            (
                "reader, never verified",
                bare,
                Box::new(reading::reader(&self.never)),
            ),
            ("get", bare, Box::new(reading::get(&self.first_read))),
            (
                "reader, get_many",
                bare,
                Box::new(reading::reader_many(&self.first_read)),
            ),
            (
                "bare, CRC",
                None,
                Box::new(reading::bare_checksum(&self.bare)),
            ),
            (
                "reader, every read verified",
                all,
                Box::new(reading::reader(&self.every_read)),
            ),
            (
                "get, every read verified",
                all,
                Box::new(reading::get(&self.every_read)),
            ),
        ];
        reads.into_iter().map(move |(way, limit, read)| {
            let name = |way, threads| match threads {
                1 => format!("{}, {way}", self.size),
                _ => format!("{}, {way}, {threads} threads", self.size),
            };
            let run = in_turn(keys, divided(threads, read));
            let mut case = Case::new(name(way, threads), keys.len(), run);
            if let Some(limit) = limit {
                case = case.slower_than(name(limit, threads));
            }
            if threads > 1 {
                case = case.faster_than(name(way, 1));
            }
            case
        })
    }
}
