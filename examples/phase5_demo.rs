//! What each option does for the speed of writes, one by one and all together:
//!
//! ```text
//! cargo run --release --example phase5_demo
//! ```
//!
//! The baseline waits for the disk at every write. The others wait less often, or do less; what each
//! of them gives up for that stands beside the option in `CrabKvBuilder`.

use std::io;
use std::time::{Duration, Instant};

use crabkv::{CrabKv, CrabKvBuilder};

/// How many keys there are; later writes replace earlier ones.
const KEYS: u32 = 100_000;
const BATCH_LEN: u32 = 100;

struct Configuration {
    name: &'static str,
    options: fn(CrabKvBuilder) -> CrabKvBuilder,
    writes: u32,
    write: fn(&CrabKv, u32) -> io::Result<()>,
}

const CONFIGURATIONS: [Configuration; 7] = [
    Configuration {
        name: "Baseline (every write synced)",
        options: |builder| builder,
        writes: 5_000,
        write: put_each,
    },
    Configuration {
        name: "Buffered I/O (100 ms sync)",
        options: |builder| builder.sync_interval(Duration::from_millis(100)),
        writes: 500_000,
        write: put_each,
    },
    Configuration {
        name: "Batch writes (100/batch)",
        options: |builder| builder,
        writes: 300_000,
        write: put_batches,
    },
    Configuration {
        name: "Async compaction",
        options: |builder| builder.async_compaction(true),
        writes: 5_000,
        write: put_each,
    },
    Configuration {
        name: "Compression",
        options: |builder| builder.compression(true),
        writes: 5_000,
        write: put_each,
    },
    Configuration {
        name: "Write-back cache",
        options: |builder| builder.write_back_cache(true),
        writes: 500_000,
        write: put_each,
    },
    Configuration {
        name: "All optimizations combined",
        options: |builder| {
            builder
                .sync_interval(Duration::from_millis(100))
                .async_compaction(true)
                .compression(true)
                .write_back_cache(true)
        },
        writes: 500_000,
        write: put_batches,
    },
];

fn main() -> io::Result<()> {
    let mut baseline = None;
    println!(
        "{:<30} {:>14} {:>9}",
        "Configuration", "Writes/s", "Speed-up"
    );
    for configuration in &CONFIGURATIONS {
        let rate = measure(configuration)?;
        let speedup = rate / *baseline.get_or_insert(rate);
        let name = configuration.name;
        println!("{name:<30} {rate:>14.0} {speedup:>8.1}x");
    }
    Ok(())
}

/// Writes per second, until everything has reached the log.
fn measure(configuration: &Configuration) -> io::Result<f64> {
    let dir = tempfile::tempdir()?;
    let db = (configuration.options)(CrabKv::builder(dir.path())).build()?;
    let start = Instant::now();
    (configuration.write)(&db, configuration.writes)?;
    db.flush()?;
    Ok(f64::from(configuration.writes) / start.elapsed().as_secs_f64())
}

fn put_each(db: &CrabKv, writes: u32) -> io::Result<()> {
    (0..writes).try_for_each(|i| db.put(key(i), value(i)))
}

fn put_batches(db: &CrabKv, writes: u32) -> io::Result<()> {
    (0..writes)
        .step_by(BATCH_LEN as usize)
        .try_for_each(|first| {
            let numbers = first..writes.min(first + BATCH_LEN);
            db.put_batch(numbers.map(|i| (key(i), value(i), None)).collect())
        })
}

fn key(i: u32) -> String {
    format!("key-{}", i % KEYS)
}

/// Long enough to be worth compressing: 300 bytes.
fn value(i: u32) -> String {
    format!("value-{i:024}").repeat(10)
}
