//! What a store takes while all of it is overwritten over and over, and what its readers notice:
//!
//! ```text
//! cargo run --release --example overwrite                        # 1 million keys, 20 times
//! cargo run --release --example overwrite -- --quick             # a tenth of the keys, 5 times
//! cargo run --release --example overwrite -- --keys 500000 --rounds 10 --batch 100
//! cargo run --release --example overwrite -- ttl --seconds 30    # every key lives for 2 s
//! ```
//!
//! Keys have 16 bytes, values 100; default settings but for `async_compaction(true)`: every batch
//! is synced. First the same writes are made without compaction, for the figures of a reader that
//! nothing disturbs. The end of the program says whether the bars were kept.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crabkv::{CrabKvBuilder, Store, WriteBatch};

const USAGE: &str = "usage: overwrite [ttl] [--keys N] [--rounds N] [--batch N] [--seconds N] \
                     [--dir DIR] [--quick]";
const KEY_LEN: u64 = 16;
const VALUE_LEN: u64 = 100;
/// What a key with an expiry takes in a segment: header, expiry, key, value, padding.
const TTL_RECORD_LEN: u64 = 144;
const SEGMENT_BYTES: u64 = 64 << 20;
const TTL: Duration = Duration::from_secs(2);
/// The store without compaction is overwritten only so often: it does not get smaller again.
const UNDISTURBED_ROUNDS: u64 = 5;
const SAMPLE_EVERY: Duration = Duration::from_millis(3);

/// Space, as a multiple of the live bytes, beside two segments.
const SPACE_BAR: f64 = 1.6;
/// Bytes written for each byte of the user's.
const WRITTEN_BAR: f64 = 3.5;
/// A reader's 99.9th percentile, as a multiple of what it is without compaction.
const READER_BAR: f64 = 3.0;

struct Args {
    is_ttl: bool,
    keys: u64,
    rounds: u64,
    batch_len: u64,
    seconds: u64,
    /// What is made in it is removed again.
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Some(args) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let verdict = if args.is_ttl {
        run_ttl(&args)
    } else {
        run_overwrites(&args)
    };
    match verdict {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("overwrite: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Args> {
    let mut parsed = Args {
        is_ttl: false,
        keys: 1_000_000,
        rounds: 20,
        batch_len: 500,
        seconds: 20,
        dir: None,
    };
    while let Some(arg) = args.next() {
        let mut number = || args.next()?.parse().ok().filter(|&number| number > 0);
        match arg.as_str() {
            "ttl" => parsed.is_ttl = true,
            "--keys" => parsed.keys = number()?,
            "--rounds" => parsed.rounds = number()?,
            "--batch" => parsed.batch_len = number()?,
            "--seconds" => parsed.seconds = number()?,
            "--dir" => parsed.dir = Some(PathBuf::from(args.next()?)),
            "--quick" => (parsed.keys, parsed.rounds, parsed.seconds) = (100_000, 5, 8),
            _ => return None,
        }
    }
    Some(parsed)
}

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A key's number in both halves, mixed, so that neighbours are no neighbours.
fn key(number: u64) -> [u8; KEY_LEN as usize] {
    let mut key = [0; KEY_LEN as usize];
    key[..8].copy_from_slice(&mix(number).to_le_bytes());
    key[8..].copy_from_slice(&number.to_le_bytes());
    key
}

/// Says whose it is and how old.
fn value(number: u64, round: u64) -> [u8; VALUE_LEN as usize] {
    let mut value = [b'.'; VALUE_LEN as usize];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value[8..16].copy_from_slice(&round.to_le_bytes());
    value
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at * 8..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// The finalizer of SplitMix64: a bijection that looks random.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn shuffle(numbers: &mut [u64], seed: u64) {
    for at in (1..numbers.len()).rev() {
        let other = mix(seed.wrapping_mul(0x1_0000_0001) ^ at as u64) % (at as u64 + 1);
        numbers.swap(at, other as usize);
    }
}

/// Writes these keys in batches.
fn write_all(store: &Store, numbers: &[u64], round: u64, batch_len: u64) -> crabkv::Result<()> {
    let mut batch = WriteBatch::new();
    for numbers in numbers.chunks(batch_len as usize) {
        batch.clear();
        for &number in numbers {
            batch.put(key(number), value(number, round))?;
        }
        store.write(&batch)?;
    }
    Ok(())
}

/// How long single reads took: log-linear, so that every figure is right to one part in 32.
struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max_ns: u64,
}

impl Histogram {
    const STEPS: u64 = 32;

    fn new() -> Histogram {
        Histogram {
            counts: vec![0; 64 * Histogram::STEPS as usize],
            count: 0,
            max_ns: 0,
        }
    }

    fn add(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // The leading bit, and the five that follow it.
        let bits = ns.max(Histogram::STEPS).ilog2() - Histogram::STEPS.ilog2();
        let at = u64::from(bits) * Histogram::STEPS + (ns >> bits);
        self.counts[at as usize] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The time within which so many of a million reads are done.
    fn percentile_ns(&self, of_a_million: u64) -> u64 {
        let wanted = (self.count * of_a_million).div_ceil(1_000_000);
        let mut seen = 0;
        for (at, count) in (0..).zip(&self.counts) {
            seen += count;
            if seen >= wanted && *count > 0 {
                let bits = (at / Histogram::STEPS).saturating_sub(1);
                return ((at - bits * Histogram::STEPS) << bits).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for of_a_million in [500_000, 990_000, 999_000, 999_900] {
            let us = as_f64(self.percentile_ns(of_a_million)) / 1e3;
            write!(f, " {us:>9.1}")?;
        }
        write!(f, " {:>11.1} {:>12}", as_f64(self.max_ns) / 1e3, self.count)
    }
}

/// One by one, as fast as it goes, until it is told to stop: by guards (`Store::get`) and by
/// borrowed slices (`Reader::get`).
fn read_until(done: &AtomicBool, store: &Store, keys: u64) -> crabkv::Result<[Histogram; 2]> {
    let [mut guards, mut slices] = [Histogram::new(), Histogram::new()];
    let mut number = 1;
    let mut next = || {
        number = mix(number);
        number % keys
    };
    while !done.load(Ordering::Relaxed) {
        for _ in 0..32 {
            let number = next();
            let started = Instant::now();
            let value = store.get(key(number))?;
            guards.add(started.elapsed());
            assert_eq!(value.and_then(|value| word(&value, 0)), Some(number));
        }
        let reader = store.reader();
        for _ in 0..32 {
            let number = next();
            let started = Instant::now();
            let value = reader.get(key(number))?;
            slices.add(started.elapsed());
            assert_eq!(value.and_then(|value| word(value, 0)), Some(number));
        }
    }
    Ok([guards, slices])
}

/// The room that the files of a directory take on the disk.
fn allocated_bytes(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        match entry?.metadata() {
            Ok(metadata) => bytes += allocated(&metadata),
            // Removed since the directory was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(unix)]
fn allocated(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn allocated(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}

/// The most room that the files take until it is told to stop, and how often it was looked at.
fn watch_space(done: &AtomicBool, dir: &Path) -> std::io::Result<(u64, u64)> {
    let (mut most, mut samples) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        most = most.max(allocated_bytes(dir)?);
        samples += 1;
        thread::sleep(SAMPLE_EVERY);
    }
    Ok((most, samples))
}

/// Bytes that this process has written: to the disk and by system calls. Only on Linux.
fn written_bytes() -> Option<(u64, u64)> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    let figure = |name| {
        let line = io.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some((figure("write_bytes:")?, figure("wchar:")?))
}

/// What was measured while a store was overwritten.
struct Measured {
    reads: [Histogram; 2],
    elapsed: Duration,
    most_bytes: u64,
    samples: u64,
    live_bytes: u64,
    /// To the disk, and by system calls.
    written: Option<(u64, u64)>,
}

fn overwrite(builder: CrabKvBuilder, dir: &Path, args: &Args, rounds: u64) -> Outcome<Measured> {
    let store = builder.build_store()?;
    let mut numbers: Vec<_> = (0..args.keys).collect();
    write_all(&store, &numbers, 0, args.batch_len.max(1000))?;
    let live_bytes = store.stats().live_bytes;

    let done = AtomicBool::new(false);
    let before = written_bytes();
    let started = Instant::now();
    let measured = thread::scope(|scope| -> Outcome<Measured> {
        let reads = scope.spawn(|| read_until(&done, &store, args.keys));
        let space = scope.spawn(|| watch_space(&done, dir));
        let wrote = (1..=rounds).try_for_each(|round| {
            shuffle(&mut numbers, round);
            write_all(&store, &numbers, round, args.batch_len)
        });
        let elapsed = started.elapsed();
        done.store(true, Ordering::Relaxed);
        let reads = reads.join().map_err(|_| "the reader panicked")??;
        let (most_bytes, samples) = space.join().map_err(|_| "the watcher panicked")??;
        wrote?;
        let difference = |(disk, calls): (u64, u64)| {
            let (disk_before, calls_before) = before?;
            Some((disk - disk_before, calls - calls_before))
        };
        Ok(Measured {
            reads,
            elapsed,
            most_bytes,
            samples,
            live_bytes,
            written: written_bytes().and_then(difference),
        })
    })?;
    drop(store);
    // From the files alone: every key has its last value.
    let store = Store::open(dir)?;
    for number in 0..args.keys {
        let value = store.get(key(number))?;
        let round = value.and_then(|value| word(&value, 1));
        assert_eq!(round, Some(rounds), "key {number} has another value");
    }
    Ok(measured)
}

/// Tells whether the bars were kept.
fn run_overwrites(args: &Args) -> Outcome<bool> {
    println!(
        "{} keys, overwritten {} times, {} in a batch",
        args.keys, args.rounds, args.batch_len
    );
    let home = temp_dir(args)?;
    let dir = home.path().join("without");
    let builder = Store::builder(&dir).auto_compaction(false);
    let rounds = args.rounds.min(UNDISTURBED_ROUNDS);
    let without = overwrite(builder, &dir, args, rounds)?;
    std::fs::remove_dir_all(&dir)?;
    let dir = home.path().join("with");
    let builder = Store::builder(&dir).async_compaction(true);
    let with = overwrite(builder, &dir, args, args.rounds)?;

    println!();
    println!(
        "{:<32} {:>9} {:>9} {:>9} {:>9} {:>11} {:>12}",
        "single reads, microseconds", "p50", "p99", "p99.9", "p99.99", "max", "reads"
    );
    for (at, how) in [(0, "Store::get"), (1, "Reader::get")] {
        println!(
            "{:<32}{}",
            format!("{how}, no compaction"),
            without.reads[at]
        );
        println!(
            "{:<32}{}",
            format!("{how}, with compaction"),
            with.reads[at]
        );
    }
    println!();
    for (measured, rounds, how) in [(&without, rounds, "no"), (&with, args.rounds, "with")] {
        let rate = as_f64(args.keys * rounds) / measured.elapsed.as_secs_f64();
        let seconds = measured.elapsed.as_secs_f64();
        println!("{how} compaction: {seconds:.1} s, {rate:.0} writes per second");
    }

    println!();
    let mut is_kept = true;
    let mut verdict = |what: &str, measured: f64, bar: f64, unit: &str| {
        let is_good = measured <= bar;
        is_kept &= is_good;
        let said = if is_good { "kept" } else { "BROKEN" };
        println!("{what:<58} {measured:>7.2} {bar:>7.2} {unit:<6} {said}");
    };
    println!("{:<58} {:>7} {:>7}", "", "seen", "bar");
    let bound = SPACE_BAR * as_f64(with.live_bytes) + 2.0 * as_f64(SEGMENT_BYTES);
    verdict(
        &format!("most space, in {} looks", with.samples),
        as_f64(with.most_bytes) / 1e6,
        bound / 1e6,
        "MB",
    );
    println!(
        "  which is {:.2} times the {:.1} MB that are live",
        as_f64(with.most_bytes) / as_f64(with.live_bytes),
        as_f64(with.live_bytes) / 1e6,
    );
    let user_bytes = as_f64(args.keys * args.rounds * (KEY_LEN + VALUE_LEN));
    match with.written {
        // Nothing reaches a disk on a file system in memory.
        Some((0, calls)) => {
            let what = "written by system calls (wchar), for each user's byte";
            verdict(what, as_f64(calls) / user_bytes, WRITTEN_BAR, "times");
        }
        Some((disk, calls)) => {
            let what = "written to the disk (write_bytes), for each user's byte";
            verdict(what, as_f64(disk) / user_bytes, WRITTEN_BAR, "times");
            let times = as_f64(calls) / user_bytes;
            println!("  and {times:.2} times by system calls (wchar)");
        }
        None => println!("bytes written: not known on this system"),
    }
    for (at, how) in [(0, "Store::get"), (1, "Reader::get")] {
        let p999 = |measured: &Measured| as_f64(measured.reads[at].percentile_ns(999_000));
        let what = format!("p99.9 of {how}, with compaction to without");
        verdict(&what, p999(&with) / p999(&without), READER_BAR, "times");
    }
    Ok(is_kept)
}

/// Nothing is overwritten: every key is new, and lives for two seconds. Tells whether the space
/// stayed within the bar.
fn run_ttl(args: &Args) -> Outcome<bool> {
    let home = temp_dir(args)?;
    let dir = home.path().join("ttl");
    let store = Store::builder(&dir).async_compaction(true).build_store()?;
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let (most_live, seconds) = thread::scope(|scope| -> Outcome<(u64, Vec<u64>)> {
        let watcher = scope.spawn(|| watch_expiry(&done, &written, &dir));
        let wrote = write_brief(&store, args, &written);
        done.store(true, Ordering::Relaxed);
        let seen = watcher.join().map_err(|_| "the watcher panicked")??;
        wrote?;
        Ok(seen)
    })?;
    let written = written.into_inner();

    println!(
        "every key lives for {} s; {} of them were written in {} s",
        TTL.as_secs(),
        written / TTL_RECORD_LEN,
        args.seconds
    );
    println!("most space in each second:");
    let most = seconds.iter().copied().max().unwrap_or(0);
    for (second, bytes) in (1..).zip(&seconds) {
        let bar = "#".repeat((bytes * 50 / most.max(1)) as usize);
        println!("{second:>4} {:>8.1} MB {bar}", as_f64(*bytes) / 1e6);
    }
    let bound = SPACE_BAR * as_f64(most_live) + 2.0 * as_f64(SEGMENT_BYTES);
    let is_kept = as_f64(most) <= bound;
    println!(
        "at most {:.1} MB, of {:.1} MB written; live at a time: {:.1} MB; bar: {:.1} MB: {}",
        as_f64(most) / 1e6,
        as_f64(written) / 1e6,
        as_f64(most_live) / 1e6,
        bound / 1e6,
        if is_kept { "kept" } else { "BROKEN" },
    );
    let stats = store.stats();
    println!("keys in the index at the end: {}", stats.keys);
    Ok(is_kept)
}

fn write_brief(store: &Store, args: &Args, written: &AtomicU64) -> crabkv::Result<()> {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut number = 0;
    while Instant::now() < end {
        let mut batch = WriteBatch::new();
        for _ in 0..args.batch_len {
            batch.put_with_ttl(key(number), value(number, 0), TTL)?;
            number += 1;
        }
        store.write(&batch)?;
        written.fetch_add(args.batch_len * TTL_RECORD_LEN, Ordering::Relaxed);
    }
    Ok(())
}

/// The most bytes that were alive at a time, and the most space in each second.
fn watch_expiry(
    done: &AtomicBool,
    written: &AtomicU64,
    dir: &Path,
) -> std::io::Result<(u64, Vec<u64>)> {
    let started = Instant::now();
    let mut most_live = 0;
    let mut seconds = Vec::new();
    // How much had been written when, as far back as something may still live.
    let mut before = VecDeque::new();
    while !done.load(Ordering::Relaxed) {
        let now = Instant::now();
        let written = written.load(Ordering::Relaxed);
        before.push_back((now, written));
        while before.front().is_some_and(|(at, _)| *at + TTL < now) {
            before.pop_front();
        }
        let expired = before.front().map_or(0, |(_, written)| *written);
        most_live = most_live.max(written - expired);
        let second = now.duration_since(started).as_secs() as usize;
        seconds.resize(seconds.len().max(second + 1), 0);
        seconds[second] = seconds[second].max(allocated_bytes(dir)?);
        thread::sleep(SAMPLE_EVERY);
    }
    Ok((most_live, seconds))
}

fn temp_dir(args: &Args) -> std::io::Result<tempfile::TempDir> {
    match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
