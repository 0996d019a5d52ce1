//! How fast writes are, by how durable they are, compared with what the machine allows:
//! `cargo bench --bench writes`.
//!
//! Keys of 16 bytes with values of 100 bytes, all new. [`Append`] is the measure: one positioned write
//! for each put or batch, into a file that has room for it. A write that is durable when it returns
//! costs a sync of the disk, whatever the store does; what the store can do is to let writes share one.
//! So eight threads are compared with one, and with eight records that are written and synced at once.
//!
//! After Criterion's figures comes a table of ratios from rounds of its own, in which all cases
//! take turns. `cargo bench --bench writes -- ratios` prints only that table. A store or a file is
//! made anew, untimed, when it has a million keys, or as many as `CRABKV_BENCH_KEYS` says.

mod common;
mod harness;

use std::cell::RefCell;
use std::io;
use std::iter;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{key, value};
use crabkv::{CrabKvBuilder, Store};
use criterion::Criterion;
use harness::append::Append;
use harness::cases::{self, Case};
use harness::{Outcome, on_threads, sound};
use tempfile::TempDir;

/// Rounds of the table of ratios.
const ROUNDS: usize = 9;
const THREADS: usize = 8;

/// What is written in a round of the table takes about a tenth of a second.
const PUTS: usize = 100_000;
const SYNCS: usize = 1000;

type Make<T> = dyn Fn(&Path) -> Outcome<T>;

/// Something to write to, which is made anew when it is full, so that what is measured does not
/// depend on how often it is.
struct Renewed<T> {
    make: Box<Make<T>>,
    /// How many keys fill it.
    room: usize,
    now: RefCell<Option<Fresh<T>>>,
}

struct Fresh<T> {
    target: T,
    /// The number of the first key that it does not have.
    next: usize,
    /// After the target, which is closed before its directory goes.
    _dir: TempDir,
}

/// What can be written to.
trait Target {
    /// Waits until nothing is left to do, so that whoever comes next is not held up by it.
    fn settle(&self);
}

impl Target for Store {
    fn settle(&self) {
        sound(self.sync());
    }
}

impl Target for Append {
    fn settle(&self) {
        sound(self.sync());
    }
}

impl<T: Target> Renewed<T> {
    fn new(room: usize, make: impl Fn(&Path) -> Outcome<T> + 'static) -> Renewed<T> {
        Renewed {
            make: Box::new(make),
            room,
            now: RefCell::new(None),
        }
    }

    fn make(&self) -> Outcome<Fresh<T>> {
        let dir = tempfile::tempdir()?;
        Ok(Fresh {
            target: (self.make)(dir.path())?,
            next: 0,
            _dir: dir,
        })
    }

    /// Writes so many times so many keys, with numbers that are not there yet; gives the time,
    /// without that for settling down.
    fn write(
        &self,
        times: u64,
        len: usize,
        write: impl Fn(&T, Range<usize>) -> Duration,
    ) -> Duration {
        let mut now = self.now.borrow_mut();
        let mut left = times as usize;
        let mut time = Duration::ZERO;
        while left > 0 {
            now.take_if(|fresh| self.room - fresh.next < len);
            let fresh = now.get_or_insert_with(|| sound(self.make()));
            let some = left.min((self.room - fresh.next) / len);
            assert!(some > 0, "{len} keys are more than {}", self.room);
            let end = fresh.next + some * len;
            time += write(&fresh.target, fresh.next..end);
            fresh.target.settle();
            fresh.next = end;
            left -= some;
        }
        time
    }
}

fn main() -> Outcome<()> {
    let room = harness::key_count(1_000_000)?;
    let cases: Vec<_> = puts(room)
        .into_iter()
        .chain([100, 1000].into_iter().flat_map(|len| batches(room, len)))
        .collect();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("writes");
    cases::bench(&mut group, &cases);
    group.finish();
    criterion.final_summary();
    if !harness::is_test() {
        let what = format!("up to {room} keys");
        cases::print_ratios(&what, ROUNDS, &cases);
    }
    Ok(())
}

/// Keys written one by one.
fn puts(room: usize) -> Vec<Case<'static>> {
    let threads = format!("put, every write, {THREADS} threads");
    let at_once = format!("bare append of {THREADS}, synced");
    vec![
        Case::new("bare append", PUTS, appends(room, 1, Append::write)),
        Case::new("put, write-back", PUTS, single_puts(room, write_back))
            .slower_than("bare append"),
        Case::new("put, interval", PUTS, single_puts(room, interval)).slower_than("bare append"),
        Case::new(
            "bare append, synced",
            SYNCS,
            appends(room, 1, Append::write_durably),
        ),
        Case::new("put, every write", SYNCS, single_puts(room, every_write))
            .slower_than("bare append, synced"),
        Case::new(
            &at_once,
            SYNCS,
            appends(room, THREADS, Append::write_durably),
        )
        .of_keys(THREADS),
        Case::new(threads, SYNCS * THREADS, puts_on_threads(room, every_write))
            .slower_than(at_once)
            .faster_than("put, every write"),
    ]
}

/// Keys written so many at a time.
fn batches(room: usize, len: usize) -> [Case<'static>; 4] {
    let bare = format!("bare append of {len}");
    let bare_synced = format!("bare append of {len}, synced");
    let cases = [
        Case::new(&bare, PUTS / len, appends(room, len, Append::write)),
        Case::new(
            format!("batch of {len}, interval"),
            PUTS / len,
            put_batches(room, len, interval),
        )
        .slower_than(bare),
        Case::new(
            &bare_synced,
            SYNCS / 10,
            appends(room, len, Append::write_durably),
        ),
        Case::new(
            format!("batch of {len}, every write"),
            SYNCS / 10,
            put_batches(room, len, every_write),
        )
        .slower_than(bare_synced),
    ];
    cases.map(|case| case.of_keys(len))
}

fn every_write(builder: CrabKvBuilder) -> CrabKvBuilder {
    builder
}

fn interval(builder: CrabKvBuilder) -> CrabKvBuilder {
    builder.sync_interval(Duration::from_millis(100))
}

fn write_back(builder: CrabKvBuilder) -> CrabKvBuilder {
    interval(builder).write_back_cache(true)
}

fn store(room: usize, options: fn(CrabKvBuilder) -> CrabKvBuilder) -> Renewed<Store> {
    Renewed::new(room, move |dir| {
        let store = options(Store::builder(dir)).build_store()?;
        // The first write makes a segment.
        store.put("first", "")?;
        store.sync()?;
        Ok(store)
    })
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Cuts numbers into as many as belong together.
fn chunks(numbers: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    numbers.step_by(len).map(move |first| first..first + len)
}

fn appends(
    room: usize,
    len: usize,
    append: fn(&Append, Range<usize>) -> io::Result<()>,
) -> impl Fn(u64) -> Duration {
    let file = Renewed::new(room, move |dir| {
        Ok(Append::create(&dir.join("bare"), room)?)
    });
    move |times| {
        file.write(times, len, |file, numbers| {
            timed(|| chunks(numbers, len).for_each(|some| sound(append(file, some))))
        })
    }
}

fn put(store: &Store, number: usize) {
    sound(store.put(key(number), value(number)));
}

fn single_puts(
    room: usize,
    options: fn(CrabKvBuilder) -> CrabKvBuilder,
) -> impl Fn(u64) -> Duration {
    let store = store(room, options);
    move |times| {
        store.write(times, 1, |store, numbers| {
            timed(|| numbers.for_each(|number| put(store, number)))
        })
    }
}

fn puts_on_threads(
    room: usize,
    options: fn(CrabKvBuilder) -> CrabKvBuilder,
) -> impl Fn(u64) -> Duration {
    let store = store(room, options);
    move |times| {
        store.write(times, 1, |store, numbers| {
            // Whoever is ready takes the next, so that none is left to go on alone for long.
            let next = AtomicUsize::new(numbers.start);
            on_threads(THREADS, |_| {
                let take = || Some(next.fetch_add(1, Ordering::Relaxed));
                let taken = iter::from_fn(take).take_while(|number| *number < numbers.end);
                taken.for_each(|number| put(store, number));
            })
        })
    }
}

fn put_batches(
    room: usize,
    len: usize,
    options: fn(CrabKvBuilder) -> CrabKvBuilder,
) -> impl Fn(u64) -> Duration {
    let store = store(room, options);
    move |times| {
        store.write(times, len, |store, numbers| {
            timed(|| {
                for some in chunks(numbers, len) {
                    let entries = some.map(|number| (key(number), value(number)));
                    sound(store.put_batch(entries));
                }
            })
        })
    }
}
