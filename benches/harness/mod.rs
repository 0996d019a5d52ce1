//! What the benchmarks of the store itself share: how they are measured and compared.
//!
//! They are built with what the tests need of the library, which no release has: where a bug could be
//! planted it is asked whether one is. On the way of a read that has been verified nobody asks; a
//! record that is verified, written, scanned or moved pays for a few loads of a constant.

#![allow(dead_code, reason = "no benchmark needs all of it")]

pub(crate) mod append;
pub(crate) mod cases;
pub(crate) mod reading;

use std::fmt::Display;
use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crabkv::Store;

use crate::common::Key;

/// About how many bytes of values are in a batch when data is prepared.
const LOAD_BATCH_BYTES: usize = 100_000;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Whether the benchmarks are only to show that they run (`cargo test --benches`), or to be listed:
/// nothing is measured then. As Criterion tells it, and `ratios` asks for figures in any case.
pub(crate) fn is_test() -> bool {
    let asked_for = |what| std::env::args().any(|arg| arg == what);
    let is_measured = asked_for("--bench") || asked_for("ratios");
    asked_for("--test") || asked_for("--list") || !is_measured
}

/// How many keys there are: `usual`, or what the environment variable `CRABKV_BENCH_KEYS` says; only a
/// few in a test.
///
/// # Errors
///
/// When the variable is not a number, or too small a one.
pub(crate) fn key_count(usual: usize) -> Outcome<usize> {
    /// For the largest batch, and for what is done by halves.
    const LEAST: usize = 1000;

    let count = match std::env::var("CRABKV_BENCH_KEYS") {
        Ok(count) => count.parse()?,
        Err(_) if is_test() => LEAST,
        Err(_) => usual,
    };
    if count < LEAST {
        return Err(format!("CRABKV_BENCH_KEYS: {count} is less than {LEAST}").into());
    }
    Ok(count)
}

/// What came of it, where an error ends the benchmark.
pub(crate) fn sound<T, E: Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}

/// How long it takes to get to a number.
pub(crate) fn timed(work: impl FnOnce() -> u64) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

/// Runs `work` on several threads at once; gives the time from the first start to the last end, by the
/// threads' own clocks: whoever waits for them may wake up late.
pub(crate) fn on_threads(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let ready = Barrier::new(threads);
    let worker = |number| {
        ready.wait();
        let start = Instant::now();
        work(number);
        (start, Instant::now())
    };
    let worker = &worker;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || worker(number)))
            .collect();
        let times = workers.into_iter().map(|worker| {
            worker
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e))
        });
        let whole = times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        whole.map_or(Duration::ZERO, |(start, end)| end - start)
    })
}

/// Makes a store of these records and closes it, so that all its segments are sealed.
///
/// # Errors
///
/// As the store fails.
pub(crate) fn load<V: AsRef<[u8]>>(
    dir: &Path,
    value_len: usize,
    records: impl Iterator<Item = (Key, V)>,
) -> crabkv::Result<()> {
    let options = Store::builder(dir).sync_interval(Duration::from_millis(100));
    let store = options.auto_compaction(false).build_store()?;
    let batch_len = (LOAD_BATCH_BYTES / value_len).max(1);
    let mut records = records.peekable();
    while records.peek().is_some() {
        store.put_batch(records.by_ref().take(batch_len))?;
    }
    store.close()
}
