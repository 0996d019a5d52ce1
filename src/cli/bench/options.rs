//! What can be said about a run, what it comes to, and how a report repeats it.

use std::fmt::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crabkv::{MAX_BATCH_BYTES, MAX_KEY_LEN, MAX_VALUE_LEN, Store};
use serde_json::{Value, json};

use super::measure::Limit;
use super::phases::{Phase, Plan};
use super::workload::{Distribution, Keys, Values};
use crate::cli::context::Context;
use crate::cli::exit::Failure;
use crate::cli::units::{self, counted, duration, parse_duration, parse_size, size, thousands};

/// Bytes of a batch, unless --batch says how many keys it has.
const BATCH_BYTES: u64 = 4 << 20;
/// Keys of a batch at most, unless --batch says so.
const BATCH_KEYS: u64 = 1000;

/// What a record takes beside its key and value, padding included, and in the hint file.
const RECORD_BYTES: u64 = 20 + 8 + 15;
/// What a store takes at most beside its records: segments reserved and being merged.
const SPARE_BYTES: u64 = 256 << 20;

/// What `--help` says below the options.
const HELP: &str = "\
Without options it takes less than half a minute: it fills a new directory beside the store's with \
a million keys, in batches, then measures each other phase for three seconds. Every value that \
comes back is checked. Throughput is without the time that making keys and values takes; latency is \
measured of every put, and of every 16th get, and has the clock's own time in it, which the report \
names; with --json times are in nanoseconds. What was just written is still in the system's memory: \
reads are from there, as long as it has room.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct BenchArgs {
    /// How many keys: 50000, 100k, 10M
    #[arg(long, value_name = "COUNT", default_value = "1M", value_parser = parse_count)]
    keys: u64,
    /// Bytes of a key
    #[arg(long, value_name = "SIZE", default_value = "16", value_parser = parse_size)]
    key_size: u64,
    /// Bytes of a value: 100, 4KiB; it compresses to about half
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_size)]
    value_size: u64,
    /// How many threads do it at the same time
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=1024)
    )]
    threads: u64,
    /// Which keys are asked for and overwritten
    #[arg(long, value_name = "NAME", value_enum, default_value = "uniform")]
    distribution: Distribution,
    /// When a write is durable: every-write, within an interval such as 100ms, or write-back:
    /// when a buffer in memory is full
    #[arg(long, value_name = "WHEN", default_value = "every-write", value_parser = parse_durability)]
    durability: Durability,
    /// Keys of a batch of fill; 1 for single puts [default: 1000, or as many as make 4MiB]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    batch: Option<u64>,
    /// How long each of the phases put, get, get-miss, get-many, mixed, scan goes on
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_phase)]
    duration: Duration,
    /// Go on for so many operations instead
    #[arg(long, value_name = "COUNT", conflicts_with = "duration", value_parser = parse_count)]
    ops: Option<u64>,
    /// How many of a hundred operations of mixed are reads
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 95,
        value_parser = clap::value_parser!(u64).range(0..=100)
    )]
    reads_percent: u64,
    /// Compress values (from 256 bytes on)
    #[arg(long)]
    compression: bool,
    /// Compact on a thread of its own instead of in the writes
    #[arg(long)]
    async_compaction: bool,
    /// What to do, in this order; fill is first in any case
    #[arg(
        long,
        value_name = "NAME,..",
        value_enum,
        value_delimiter = ',',
        default_value = "fill,put,get,get-miss,get-many,mixed,scan,reopen"
    )]
    phases: Vec<Phase>,
    /// The directory to fill, new or empty [default: a new one beside the store's]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Leave the store there at the end
    #[arg(long)]
    pub(crate) keep: bool,
    /// Another seed asks for the keys in another order
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// When the store's writes are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    EveryWrite,
    Interval(Duration),
    WriteBack,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::EveryWrite => f.write_str("every-write"),
            Durability::Interval(interval) => f.write_str(&duration(*interval)),
            Durability::WriteBack => f.write_str("write-back"),
        }
    }
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    match text {
        "every-write" => Ok(Durability::EveryWrite),
        "write-back" => Ok(Durability::WriteBack),
        text => match parse_duration(text) {
            Ok(interval) if !interval.is_zero() => Ok(Durability::Interval(interval)),
            _ => Err(
                "writes are durable at every-write, at an interval such as 100ms, or in the end \
                 with write-back"
                    .to_owned(),
            ),
        },
    }
}

/// A duration in which something can be done.
fn parse_phase(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("a phase takes longer than that".to_owned()),
        duration => Ok(duration),
    }
}

/// A count of at least 1: `50000`, `100k`, `10M`, `1G`.
fn parse_count(text: &str) -> Result<u64, String> {
    match units::parse_count(text) {
        Ok(0) => Err("it is at least 1".to_owned()),
        count => count,
    }
}

impl BenchArgs {
    /// What to do, if it can be done.
    pub(crate) fn plan(&self) -> Result<Plan, Failure> {
        let usage = |message: String| Err(Failure::Usage(message));
        let Ok(key_size @ 1..=MAX_KEY_LEN) = usize::try_from(self.key_size) else {
            return usage(format!("a key has from 1 to {MAX_KEY_LEN} bytes here"));
        };
        let Ok(value_size @ 0..=MAX_VALUE_LEN) = usize::try_from(self.value_size) else {
            return usage(format!("a value has at most {MAX_VALUE_LEN} bytes"));
        };
        let most = Keys::max_count(key_size);
        if self.keys > most {
            return usage(format!(
                "there are only {} of {key_size} bytes here, and as many that are absent: ask for \
                 fewer --keys or a larger --key-size",
                counted(most, "key")
            ));
        }
        let pair_bytes = self.key_size + self.value_size;
        let batch = self
            .batch
            .unwrap_or_else(|| (BATCH_BYTES / pair_bytes).clamp(1, BATCH_KEYS))
            .min(self.keys);
        let batch_bytes = batch.saturating_mul(pair_bytes + RECORD_BYTES);
        if batch > 1 && batch_bytes > MAX_BATCH_BYTES {
            return usage(format!(
                "{} keys are more than fit a batch of {}: make --batch smaller",
                thousands(batch),
                size(MAX_BATCH_BYTES)
            ));
        }
        Ok(Plan {
            keys: Keys {
                count: self.keys,
                size: key_size,
            },
            values: Values::new(value_size, self.seed),
            threads: self.threads,
            distribution: self.distribution,
            batch,
            reads_percent: self.reads_percent,
            limit: self
                .ops
                .map_or(Limit::Time(self.duration), Limit::Operations),
            seed: self.seed,
        })
    }

    /// The phases that were asked for, after one that fills.
    pub(crate) fn phases(&self) -> Vec<Phase> {
        let mut phases = self.phases.clone();
        if phases.first() != Some(&Phase::Fill) {
            phases.insert(0, Phase::Fill);
        }
        phases
    }

    /// How many bytes the store can come to take: what is overwritten may come to a third of the
    /// log before compaction, which needs room for what it writes.
    pub(crate) fn most_bytes(&self) -> u64 {
        let record = RECORD_BYTES + self.key_size + self.value_size;
        let live = u128::from(record) * u128::from(self.keys);
        u64::try_from(live * 8 / 5).map_or(u64::MAX, |bytes| bytes.saturating_add(SPARE_BYTES))
    }

    pub(crate) fn open(&self, context: &Context, dir: &Path) -> Result<Store, Failure> {
        let mut builder = Store::builder(dir)
            .compression(self.compression)
            .async_compaction(self.async_compaction);
        builder = match self.durability {
            Durability::EveryWrite => builder,
            Durability::Interval(interval) => builder.sync_interval(interval),
            Durability::WriteBack => builder.write_back_cache(true),
        };
        if let Some(values) = NonZeroUsize::new(context.options.cache_capacity) {
            builder = builder.cache_capacity(values);
        }
        Ok(builder.build_store()?)
    }

    /// What is going to be measured.
    pub(crate) fn title(&self, plan: &Plan, dir: &Path) -> String {
        let mut text = format!(
            "keys        {} of {}, values of {}\nworkload    {}, {}",
            thousands(plan.keys.count),
            counted(self.key_size, "byte"),
            counted(self.value_size, "byte"),
            plan.distribution.name(),
            counted(self.threads, "thread"),
        );
        if self.phases.contains(&Phase::Mixed) {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {} % of mixed are reads", self.reads_percent);
        }
        let _ = write!(text, "\ndurability  {}", self.durability);
        if self.compression {
            text += ", compressed";
        }
        if self.async_compaction {
            text += ", compaction on a thread of its own";
        }
        let _ = write!(text, "\ndirectory   {}\n\n", dir.display());
        text
    }

    pub(crate) fn json(
        &self,
        plan: &Plan,
        dir: &Path,
        clock_ns: u64,
        rows: &[Value],
        stats: &crabkv::Stats,
    ) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "directory": dir.to_string_lossy(),
            "keys": self.keys,
            "key_bytes": self.key_size,
            "value_bytes": self.value_size,
            "threads": self.threads,
            "distribution": plan.distribution.name(),
            "durability": self.durability.to_string(),
            "batch": plan.batch,
            "duration_ms": self.ops.is_none().then_some(self.duration.as_millis() as u64),
            "operations": self.ops,
            "reads_percent": self.reads_percent,
            "compression": self.compression,
            "async_compaction": self.async_compaction,
            "seed": self.seed,
            "clock_ns": clock_ns,
            "phases": rows,
            "data_bytes": stats.data_bytes,
            "index_bytes": stats.index_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_a_number_that_may_have_a_unit() {
        for (text, count) in [
            ("1", 1),
            ("50000", 50_000),
            ("100k", 100_000),
            ("2K", 2000),
            ("10M", 10_000_000),
            ("1G", 1_000_000_000),
        ] {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in ["", "0", "k", "1.5k", "-1", "many", "99999999999999999G"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durability_is_shown_as_it_is_read() {
        for text in ["every-write", "100ms", "1s", "write-back"] {
            assert_eq!(parse_durability(text).unwrap().to_string(), text);
        }
        for text in ["", "0", "0s", "none", "sometimes"] {
            assert!(parse_durability(text).is_err(), "{text}");
        }
    }
}
