//! How long a large store takes to open, and how much memory its keys take:
//!
//! ```text
//! cargo run --release --example recovery                      # 10 million keys
//! cargo run --release --example recovery -- 1000000           # as many as you say
//! cargo run --release --example recovery -- --dir /mnt/disk   # on another disk
//! cargo run --release --example recovery -- --memory          # memory at every tenth of the way
//! ```
//!
//! Keys have 16 bytes, values 100. All files are in the page cache when they are read: it is the
//! work of opening that is measured, not the disk.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crabkv::{Store, WriteBatch};

const USAGE: &str = "usage: recovery [KEYS] [--memory] [--dir DIR]";
const BATCH_LEN: u64 = 1000;
/// Each way of opening is measured so many times; the best counts.
const ROUNDS: usize = 3;
/// How many samples `--memory` takes.
const SAMPLES: u32 = 10;

struct Args {
    keys: u64,
    memory: bool,
    /// An empty directory, or one that is not there yet; what is made in it is removed again.
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Some(args) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let result = if args.memory {
        measure_memory(&args)
    } else {
        measure_opening(&args)
    };
    if let Err(error) = result {
        eprintln!("recovery: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Args> {
    let mut parsed = Args {
        keys: 10_000_000,
        memory: false,
        dir: None,
    };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--memory" => parsed.memory = true,
            "--dir" => parsed.dir = Some(PathBuf::from(args.next()?)),
            keys => parsed.keys = keys.parse().ok().filter(|&keys| keys > 0)?,
        }
    }
    Some(parsed)
}

/// Loads all keys, then opens the store from its hint files, then without.
fn measure_opening(args: &Args) -> Result<(), Box<dyn Error>> {
    let home = temp_dir(args)?;
    let dir = home.path().join("store");
    let started = Instant::now();
    let store = relaxed(&dir)?;
    put_range(&store, 0, args.keys)?;
    store.close()?;
    drop(store);
    let data_bytes = bytes_of(&dir, "seg")?;
    println!("{:<28} {:>10}", "", "seconds");
    let rate =
        |bytes: u64, time: Duration| format!("{:.0} MB/s", megabytes(bytes) / time.as_secs_f64());
    print_row(
        "load",
        started.elapsed(),
        &rate(data_bytes, started.elapsed()),
    );

    let mut best = Duration::MAX;
    let mut figures = None;
    for _ in 0..ROUNDS {
        let before = anonymous_bytes();
        let started = Instant::now();
        let store = Store::open(&dir)?;
        best = best.min(started.elapsed());
        let report = store.recovery_report();
        assert_eq!((report.keys, report.scanned.len()), (args.keys, 0));
        figures.get_or_insert((store.stats(), difference(before, anonymous_bytes())));
    }
    let hint_bytes = bytes_of(&dir, "hint")?;
    print_row("open, from hint files", best, &rate(hint_bytes, best));

    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        for path in files(&dir, "hint")? {
            std::fs::remove_file(path)?;
        }
        let started = Instant::now();
        let store = Store::open(&dir)?;
        best = best.min(started.elapsed());
        let report = store.recovery_report();
        assert_eq!((report.keys, report.hints_used), (args.keys, 0));
    }
    print_row("open, by a full scan", best, &rate(data_bytes, best));

    if let Some((stats, anonymous)) = figures {
        println!();
        println!("{} keys in {} segments", stats.keys, stats.segments.len());
        print!("index: {:.1} bytes per key", stats.index_bytes_per_key());
        if let Some(bytes) = anonymous {
            print!("; whole process: {:.1}", per_key(bytes, stats.keys));
        }
        println!();
    }
    Ok(())
}

/// Fills a store step by step, and looks at its memory at each, when everything is sealed. Both
/// how the index grew by writes and how it is loaded anew are looked at.
fn measure_memory(args: &Args) -> Result<(), Box<dyn Error>> {
    let home = temp_dir(args)?;
    let dir = home.path().join("store");
    let before = anonymous_bytes();
    let store = relaxed(&dir)?;
    let mut samples = Vec::new();
    println!(
        "{:>12} {:>14} {:>16}   bytes per key",
        "keys", "index, stats()", "process, outside"
    );
    for step in 1..=SAMPLES {
        let upto = |step| args.keys * u64::from(step) / u64::from(SAMPLES);
        put_range(&store, upto(step - 1), upto(step))?;
        // Seals what was appended, so that no append buffer counts.
        store.close()?;
        let stats = store.stats();
        let outside = difference(before, anonymous_bytes())
            .map(|bytes| per_key(bytes.saturating_sub(stats.append_buffer_bytes), stats.keys));
        let inside = stats.index_bytes_per_key();
        print_sample(&stats.keys.to_string(), inside, outside);
        samples.push((inside, outside));
    }
    let mean = |figures: Vec<f64>| figures.iter().sum::<f64>() / f64::from(SAMPLES);
    let inside = mean(samples.iter().map(|sample| sample.0).collect());
    let outside = samples.iter().map(|sample| sample.1).collect::<Option<_>>();
    print_sample("mean", inside, outside.map(mean));
    Ok(())
}

fn relaxed(dir: &Path) -> crabkv::Result<Store> {
    Store::builder(dir)
        .sync_interval(Duration::from_millis(100))
        .build_store()
}

fn put_range(store: &Store, from: u64, to: u64) -> crabkv::Result<()> {
    let mut batch = WriteBatch::new();
    for number in from..to {
        batch.put(key(number), value(number))?;
        if (number + 1) % BATCH_LEN == 0 || number + 1 == to {
            store.write(&batch)?;
            batch = WriteBatch::new();
        }
    }
    Ok(())
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"key-............";
    key[8..].copy_from_slice(&number.to_le_bytes());
    key
}

fn value(number: u64) -> [u8; 100] {
    let mut value = [b'.'; 100];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

fn temp_dir(args: &Args) -> std::io::Result<tempfile::TempDir> {
    match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
}

fn files(dir: &Path, extension: &str) -> std::io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
    let has_extension = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    let paths: std::io::Result<Vec<PathBuf>> = paths.collect();
    Ok(paths?.into_iter().filter(has_extension).collect())
}

fn bytes_of(dir: &Path, extension: &str) -> std::io::Result<u64> {
    let paths = files(dir, extension)?;
    paths.iter().map(|path| Ok(path.metadata()?.len())).sum()
}

/// The process's memory that is not a file's, as the system counts it; only on Linux.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn difference(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    Some(after?.saturating_sub(before?))
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn per_key(bytes: u64, keys: u64) -> f64 {
    bytes as f64 / keys as f64
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn print_row(what: &str, time: Duration, rate: &str) {
    println!("{what:<28} {:>10.3} {rate:>14}", time.as_secs_f64());
}

fn print_sample(keys: &str, inside: f64, outside: Option<f64>) {
    let outside = outside.map_or("-".to_owned(), |bytes| format!("{bytes:.1}"));
    println!("{keys:>12} {inside:>14.1} {outside:>16}");
}
