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
//! prints only that table.

mod common;

use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use common::bare::Bare;
use common::{Key, below, first_word, key, median, mix, shuffled, value, zipfian};
use crabkv::Store;
use criterion::{Criterion, Throughput};

/// Rounds of the table of ratios.
const ROUNDS: usize = 9;
/// Keys of one `get_many`.
const MANY: usize = 32;
/// Keys of one batch when the data is prepared.
const LOAD_BATCH: usize = 1000;

type Run<'a> = dyn Fn(&[Key]) -> Duration + 'a;
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A way to read, and the keys to read.
struct Case<'a> {
    name: &'static str,
    keys: &'a [Key],
    /// Reads these keys; gives the time it took.
    run: Box<Run<'a>>,
    /// The case to compare it with.
    compared: Option<(&'static str, Compared)>,
}

enum Compared {
    /// Time by time.
    Slower,
    /// Throughput by throughput.
    Faster,
}

fn main() -> Outcome<()> {
    let count = if common::is_test() { 10_000 } else { 1_000_000 };
    let dir = tempfile::tempdir()?;
    let records = (0..count).map(|number| (key(number), value(number)));
    let bare = Bare::build(&dir.path().join("bare"), records)?;
    let store = load(&dir.path().join("store"), count)?;
    let copy = dir.path().join("copy");
    copy_store(store.dir(), &copy)?;

    let keys = |numbers: Vec<usize>| numbers.into_iter().map(key).collect::<Vec<_>>();
    let uniform = keys(shuffled(count));
    let absent = keys(shuffled(count).into_iter().map(|n| n + count).collect());
    let skewed = keys(zipfian(count));
    // The first read of a record verifies its checksum; the cases below are about later ones.
    for key in &uniform {
        let value = store.get(key)?.ok_or("a key is missing")?;
        assert_eq!(bare.get(key), Some(&*value));
    }

    let cases = cases(&bare, &store, &uniform, &absent, &skewed);
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion, &cases, &copy, &uniform);
    criterion.final_summary();
    if !common::is_test() {
        print_ratios(&cases, &copy, &uniform);
    }
    Ok(())
}

/// A store of `count` keys, closed and opened again.
fn load(dir: &Path, count: usize) -> Outcome<Store> {
    let interval = Duration::from_millis(100);
    let store = Store::builder(dir).sync_interval(interval).build_store()?;
    for first in (0..count).step_by(LOAD_BATCH) {
        let numbers = first..count.min(first + LOAD_BATCH);
        store.put_batch(numbers.map(|number| (key(number), value(number))))?;
    }
    store.close()?;
    drop(store);
    Ok(Store::open(dir)?)
}

/// A store is locked while it is open; this makes another one like it.
fn copy_store(from: &Path, to: &Path) -> Outcome<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn cases<'a>(
    bare: &'a Bare,
    store: &'a Store,
    uniform: &'a [Key],
    absent: &'a [Key],
    skewed: &'a [Key],
) -> Vec<Case<'a>> {
    let count = uniform.len();
    let bare_get = move |key: &Key| bare.get(key).map_or(0, first_word);
    let get = move |key: &Key| sound(store.get(key)).map_or(0, |value| first_word(&value));
    let bare = || each(bare_get);
    let reader = || move |keys: &[Key]| read_each(store, keys);
    let many = move |keys: &[Key]| get_many(store, keys);
    let reader_many = move |keys: &[Key]| read_many(store, keys);
    let reader_dependent = move |keys: &[Key]| {
        let reader = store.reader();
        chain(keys.len(), count, |key| {
            sound(reader.get(key)).map_or(0, first_word)
        })
    };
    let bare_dependent = move |keys: &[Key]| chain(keys.len(), count, bare_get);
    vec![
        Case::new("bare", uniform, bare()),
        Case::new("reader", uniform, reader()).slower_than("bare"),
        Case::new("get", uniform, each(get)).slower_than("bare"),
        Case::new("reader, get_many", uniform, reader_many).slower_than("bare"),
        Case::new("get_many", uniform, many).slower_than("bare"),
        Case::new("bare, dependent", uniform, bare_dependent),
        Case::new("reader, dependent", uniform, reader_dependent).slower_than("bare, dependent"),
        Case::new("bare, misses", absent, bare()),
        Case::new("reader, misses", absent, reader()).slower_than("bare, misses"),
        Case::new("bare, zipfian", skewed, bare()),
        Case::new("reader, zipfian", skewed, reader()).slower_than("bare, zipfian"),
        Case::new("bare, 2 threads", uniform, both(bare())).faster_than("bare"),
        Case::new("reader, 2 threads", uniform, both(reader())).faster_than("reader"),
        Case::new("get, 2 threads", uniform, both(each(get))).faster_than("get"),
    ]
}

impl<'a> Case<'a> {
    fn new(name: &'static str, keys: &'a [Key], run: impl Fn(&[Key]) -> Duration + 'a) -> Case<'a> {
        Case {
            name,
            keys,
            run: Box::new(run),
            compared: None,
        }
    }

    fn slower_than(self, other: &'static str) -> Case<'a> {
        Case {
            compared: Some((other, Compared::Slower)),
            ..self
        }
    }

    fn faster_than(self, other: &'static str) -> Case<'a> {
        Case {
            compared: Some((other, Compared::Faster)),
            ..self
        }
    }
}

fn sound<T>(read: crabkv::Result<T>) -> T {
    read.unwrap_or_else(|error| panic!("{error}"))
}

fn timed(work: impl FnOnce() -> u64) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

/// Reads key after key, as fast as the processor overlaps them.
fn each(get: impl Fn(&Key) -> u64) -> impl Fn(&[Key]) -> Duration {
    move |keys| timed(|| keys.iter().map(&get).fold(0, u64::wrapping_add))
}

fn read_each(store: &Store, keys: &[Key]) -> Duration {
    let reader = store.reader();
    each(|key| sound(reader.get(key)).map_or(0, first_word))(keys)
}

fn read_many(store: &Store, keys: &[Key]) -> Duration {
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

fn get_many(store: &Store, keys: &[Key]) -> Duration {
    timed(|| {
        let values = keys
            .chunks(MANY)
            .flat_map(|keys| sound(store.get_many(keys)));
        values
            .map(|value| value.map_or(0, |value| first_word(&value)))
            .fold(0, u64::wrapping_add)
    })
}

/// Reads `len` of `count` keys, each of which the value before decides: nothing overlaps.
fn chain(len: usize, count: usize, get: impl Fn(&Key) -> u64) -> Duration {
    timed(|| {
        (0..len as u64).fold(0, |word, step| {
            get(&key(below(count, mix(word.wrapping_add(step)))))
        })
    })
}

/// Runs the same with half of the keys each on two threads.
fn both(run: impl Fn(&[Key]) -> Duration + Sync) -> impl Fn(&[Key]) -> Duration {
    move |keys| {
        let (first, second) = keys.split_at(keys.len() / 2);
        let ready = Barrier::new(3);
        std::thread::scope(|scope| {
            let workers = [first, second].map(|keys| {
                scope.spawn(|| {
                    ready.wait();
                    run(keys);
                })
            });
            ready.wait();
            let start = Instant::now();
            for worker in workers {
                worker
                    .join()
                    .unwrap_or_else(|e| std::panic::resume_unwind(e));
            }
            start.elapsed()
        })
    }
}

/// Opens a store and reads all keys for the first time.
fn first_read(dir: &Path, keys: &[Key]) -> Duration {
    let store = sound(Store::open(dir));
    read_each(&store, keys)
}

fn bench(criterion: &mut Criterion, cases: &[Case<'_>], copy: &Path, uniform: &[Key]) {
    let mut group = criterion.benchmark_group("reads");
    group.throughput(Throughput::Elements(1));
    for case in cases {
        // Goes on where the sample before has ended.
        let mut next = 0;
        group.bench_function(case.name, |bencher| {
            bencher.iter_custom(|mut left| {
                let mut time = Duration::ZERO;
                while left > 0 {
                    let end = case.keys.len().min(next + left as usize);
                    time += (case.run)(&case.keys[next..end]);
                    left -= (end - next) as u64;
                    next = end % case.keys.len();
                }
                time
            });
        });
    }
    group.throughput(Throughput::Elements(uniform.len() as u64));
    group.sample_size(10);
    group.bench_function("reader, all for the first time", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| first_read(copy, uniform)).sum());
    });
    group.finish();
}

/// Runs all cases in turn, several times over, and prints how they compare: the medians, and the
/// best rounds, which tell more when the machine has other things to do.
#[expect(clippy::cast_precision_loss, reason = "a count of keys")]
fn print_ratios(cases: &[Case<'_>], copy: &Path, uniform: &[Key]) {
    let first = Case::new("reader, first read", uniform, |keys| first_read(copy, keys));
    let first = [first.slower_than("bare")];
    let cases: Vec<_> = cases.iter().chain(&first).collect();
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for (case, times) in cases.iter().zip(&mut times) {
            times.push((case.run)(case.keys).as_secs_f64() * 1e9 / case.keys.len() as f64);
        }
    }
    let figures: Vec<_> = cases
        .iter()
        .zip(times)
        .map(|(case, times)| {
            let best = times.iter().copied().fold(f64::INFINITY, f64::min);
            (case.name, median(times), best)
        })
        .collect();
    println!(
        "\n{ROUNDS} rounds of {} keys, nanoseconds for each get\n",
        uniform.len()
    );
    println!("{:<20} {:>8} {:>8}   compared", "", "median", "best");
    for (case, (name, median, best)) in cases.iter().zip(&figures) {
        print!("{name:<20} {median:>8.1} {best:>8.1}");
        let compared = case.compared.as_ref().and_then(|(other, how)| {
            let other = figures.iter().find(|figure| figure.0 == *other)?;
            Some((other, how))
        });
        match compared {
            Some(((other, their_median, their_best), Compared::Slower)) => print!(
                "   {name} / {other} = {:.2}x, best {:.2}x",
                median / their_median,
                best / their_best
            ),
            Some(((_, their_median, their_best), Compared::Faster)) => print!(
                "   2 threads / 1 thread = {:.2}x, best {:.2}x",
                their_median / median,
                their_best / best
            ),
            None => {}
        }
        println!();
    }
}
