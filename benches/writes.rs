//! How fast writes are, by how durable they are: `cargo bench --bench writes`.
//!
//! Keys of 16 bytes with values of 100 bytes, all new. A write that is durable when it returns costs
//! a sync of the disk, whatever the store does; what the store can do is to let writes share one. So
//! the figure to look at is printed last: how many more durable puts eight threads get done than one
//! (`cargo bench --bench writes -- ratios` prints only that).

mod common;
mod harness;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{key, median, value};
use crabkv::{CrabKvBuilder, Store};
use criterion::{Criterion, Throughput};

/// Rounds of the comparison at the end.
const ROUNDS: usize = 7;
/// How long each side of the comparison runs in a round.
const ROUND_TIME: Duration = Duration::from_millis(500);
const THREADS: usize = 8;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A store of its own for each case, and keys that it does not have yet.
struct Fresh {
    store: Store,
    next: AtomicUsize,
    /// After the store, which is closed before its directory goes.
    _dir: tempfile::TempDir,
}

impl Fresh {
    fn new(options: impl FnOnce(CrabKvBuilder) -> CrabKvBuilder) -> Outcome<Fresh> {
        let dir = tempfile::tempdir()?;
        let store = options(Store::builder(dir.path())).build_store()?;
        // The first write makes a segment.
        store.put("first", "")?;
        let next = AtomicUsize::new(0);
        Ok(Fresh {
            store,
            next,
            _dir: dir,
        })
    }

    fn put(&self) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        sound(self.store.put(key(number), value(number)));
    }

    fn put_batch(&self, len: usize) {
        let first = self.next.fetch_add(len, Ordering::Relaxed);
        let entries = (first..first + len).map(|number| (key(number), value(number)));
        sound(self.store.put_batch(entries));
    }

    /// Runs `puts` puts on each of several threads; gives the time from first to last.
    fn put_on_threads(&self, threads: usize, puts: u64) -> Duration {
        on_threads(threads, |_| (0..puts).for_each(|_| self.put()))
    }

    /// How many puts a second several threads get done.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn puts_per_second(&self, threads: usize) -> f64 {
        let before = self.next.load(Ordering::Relaxed);
        let time = on_threads(threads, |start| {
            while start.elapsed() < ROUND_TIME {
                self.put();
            }
        });
        (self.next.load(Ordering::Relaxed) - before) as f64 / time.as_secs_f64()
    }
}

/// Runs `work` on several threads at once; gives the time from first to last.
fn on_threads(threads: usize, work: impl Fn(Instant) + Sync) -> Duration {
    let ready = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let worker = || {
            ready.wait();
            work(Instant::now());
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
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

fn sound<T>(write: crabkv::Result<T>) -> T {
    write.unwrap_or_else(|error| panic!("{error}"))
}

fn interval(builder: CrabKvBuilder) -> CrabKvBuilder {
    builder.sync_interval(Duration::from_millis(100))
}

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion)?;
    criterion.final_summary();
    if !harness::is_test() {
        print_ratio()?;
    }
    Ok(())
}

fn bench(criterion: &mut Criterion) -> Outcome<()> {
    let mut group = criterion.benchmark_group("writes");
    group.throughput(Throughput::Elements(1));
    let durable = Fresh::new(|builder| builder)?;
    group.bench_function("put, durable", |b| b.iter(|| durable.put()));
    group.bench_function("put, durable, 8 threads", |b| {
        b.iter_custom(|puts| durable.put_on_threads(THREADS, puts.div_ceil(THREADS as u64)));
    });
    let relaxed = Fresh::new(interval)?;
    group.bench_function("put, synced every 100 ms", |b| b.iter(|| relaxed.put()));
    let buffered = Fresh::new(|builder| builder.write_back_cache(true))?;
    group.bench_function("put, write-back", |b| b.iter(|| buffered.put()));
    for len in [100, 1000] {
        group.throughput(Throughput::Elements(len as u64));
        let store = Fresh::new(|builder| builder)?;
        group.bench_function(format!("batch of {len}, durable"), |b| {
            b.iter(|| store.put_batch(len));
        });
        let store = Fresh::new(interval)?;
        group.bench_function(format!("batch of {len}, synced every 100 ms"), |b| {
            b.iter(|| store.put_batch(len));
        });
    }
    group.finish();
    Ok(())
}

/// Durable puts on one thread and on eight, in turn, several times over.
fn print_ratio() -> Outcome<()> {
    let store = Fresh::new(|builder| builder)?;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (threads, rates) in [1, THREADS].into_iter().zip(&mut rates) {
            rates.push(store.puts_per_second(threads));
        }
    }
    let [one, many] = rates.map(median);
    println!("\n{ROUNDS} rounds, durable puts\n");
    println!("1 thread   {one:>9.0}/s");
    println!(
        "{THREADS} threads  {many:>9.0}/s   {THREADS} threads / 1 thread = {:.2}x",
        many / one
    );
    Ok(())
}
