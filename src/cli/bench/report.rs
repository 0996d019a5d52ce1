//! What was measured: a table that fits 80 columns, a row as soon as its phase is over, or JSON.

use std::fmt::Write as _;
use std::time::Duration;

use crabkv::Stats;
use serde_json::{Value, json};

use super::measure::{Measured, Timed};
use super::phases::{Phase, Plan};
use super::works::MANY;
use crate::cli::units::{counted, size, thousands};

/// How wide the table's columns are, what is between them included.
const WIDTHS: [usize; 9] = [9, 13, 8, 12, 8, 7, 7, 7, 7];

const HEADS: [&str; 9] = [
    "phase",
    "operations",
    "time",
    "per second",
    "MiB/s",
    "p50",
    "p99",
    "p99.9",
    "max",
];

/// The quantiles of the table.
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// The line above the rows.
pub(crate) fn head() -> String {
    line(&HEADS.map(str::to_owned))
}

/// The row of one kind of operation.
pub(crate) fn row(measured: &Measured) -> String {
    let latency = &measured.latency;
    let time = |ns: u64| {
        // What never happened took no time.
        if latency.is_empty() {
            "-".to_owned()
        } else {
            short(Duration::from_nanos(ns))
        }
    };
    let [p50, p99, p999] = QUANTILES.map(|quantile| time(latency.value_at_quantile(quantile)));
    line(&[
        measured.lane.name.to_owned(),
        count(measured.done.operations),
        short(measured.elapsed),
        count(per_second(measured.done.operations, measured.elapsed)),
        mebibytes(per_second(measured.done.bytes, measured.elapsed)),
        p50,
        p99,
        p999,
        time(latency.max()),
    ])
}

/// What is to be known about the rows, below them.
pub(crate) fn notes(plan: &Plan, phases: &[Phase], clock_ns: u64, stats: &Stats) -> String {
    let mut text = String::from("\n");
    let mut note = |label: &str, note: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<11} {note}");
    };
    let batch = match plan.batch {
        1 => None,
        keys => Some(format!("a batch of {}", thousands(keys))),
    };
    for (phase, of) in [
        (Phase::Fill, batch),
        (Phase::GetMany, Some(format!("{MANY} keys together"))),
        (Phase::Scan, Some("all keys".to_owned())),
        (Phase::Reopen, Some("opening once".to_owned())),
    ] {
        if let (Some(of), true) = (of, phases.contains(&phase)) {
            note(phase.name(), format!("latency is of {of}"));
        }
    }
    let clock = short(Duration::from_nanos(clock_ns));
    note("clock", format!("its own {clock} are in every latency"));
    let store = format!(
        "{} on disk in {}, index of {}, {:.1} bytes a key",
        size(stats.data_bytes),
        counted(stats.segments.len() as u64, "segment"),
        size(stats.index_bytes),
        stats.index_bytes_per_key(),
    );
    note("store", store);
    text
}

/// One kind of operation, as JSON.
pub(crate) fn json_row(phase: Phase, measured: &Measured) -> Value {
    let latency = &measured.latency;
    let at = |quantile| latency.value_at_quantile(quantile);
    let (timed, every) = match measured.lane.timed {
        Timed::Each(noun) => (noun, 1),
        Timed::Some(noun) => (noun, measured.lane.timed.every()),
    };
    json!({
        "phase": phase.name(),
        "operations": measured.done.operations,
        "bytes": measured.done.bytes,
        "elapsed_ns": measured.elapsed.as_nanos() as u64,
        "operations_per_s": per_second(measured.done.operations, measured.elapsed),
        "bytes_per_s": per_second(measured.done.bytes, measured.elapsed),
        "timed": timed,
        "timed_every": every,
        "timed_count": latency.len(),
        "latency_ns": {
            "min": latency.min(),
            "mean": mean(measured),
            "p50": at(0.5),
            "p90": at(0.9),
            "p99": at(0.99),
            "p99_9": at(0.999),
            "p99_99": at(0.9999),
            "max": latency.max(),
        },
    })
}

#[expect(clippy::cast_sign_loss, reason = "a mean of what is not negative")]
fn mean(measured: &Measured) -> u64 {
    measured.latency.mean().round() as u64
}

/// The first column to the left, the others to the right.
fn line(cells: &[String; 9]) -> String {
    let mut text = String::new();
    for (i, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let _ = if i == 0 {
            write!(text, "{cell:<width$}")
        } else {
            write!(text, "{cell:>width$}")
        };
    }
    text.push('\n');
    text
}

fn per_second(count: u64, elapsed: Duration) -> u64 {
    let ns = elapsed.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / ns).unwrap_or(u64::MAX)
}

/// A count in at most 10 characters.
#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn count(count: u64) -> String {
    match count {
        0..100_000_000 => thousands(count),
        100_000_000..100_000_000_000 => format!("{:.1}M", count as f64 / 1e6),
        100_000_000_000.. => format!("{:.1}G", count as f64 / 1e9),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn mebibytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    match bytes {
        0 => "-".to_owned(),
        _ if mebibytes < 99.95 => format!("{mebibytes:.1}"),
        _ => format!("{mebibytes:.0}"),
    }
}

/// A time in at most 6 characters: three digits and the unit that they are best in.
#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn short(time: Duration) -> String {
    let ns = time.as_nanos();
    if ns < 1000 {
        return format!("{ns}ns");
    }
    let (value, unit) = match ns {
        0..999_500 => (ns as f64 / 1e3, "µs"),
        999_500..999_500_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let decimals = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::measure::{Done, Lane};

    fn measured(name: &'static str, operations: u64, elapsed: Duration) -> Measured {
        let timed = Timed::Each("put");
        let mut measured = Measured::new(Lane { name, timed });
        measured.elapsed = elapsed;
        measured.count(Done {
            operations,
            bytes: operations.saturating_mul(100),
        });
        measured
    }

    #[test]
    fn the_table_is_aligned() {
        let mut put = measured("put", 30_000, Duration::from_secs(3));
        put.record(Duration::from_nanos(110_400));
        let empty = measured("get-miss", 0, Duration::ZERO);
        assert_eq!(
            head() + &row(&put) + &row(&empty),
            "\
phase       operations    time  per second   MiB/s    p50    p99  p99.9    max
put             30,000   3.00s      10,000     1.0  110µs  110µs  110µs  110µs
get-miss             0     0ns           0       -      -      -      -      -
"
        );
    }

    #[test]
    fn the_table_fits_80_columns_whatever_was_measured() {
        for operations in [
            0,
            99_999_999,
            100_000_000,
            99_999_999_999,
            9_999_999_999_999,
        ] {
            for elapsed in [1, 999_500, 3_000_000_000, 3_599_000_000_000] {
                let elapsed = Duration::from_nanos(elapsed);
                let mut measured = measured("mixed put", operations, elapsed);
                for latency in [1, 999, 99_960, 999_499_999, 3_600_000_000_000] {
                    measured.record(Duration::from_nanos(latency));
                }
                // Faster than any machine of these years.
                if per_second(operations, elapsed) > 10_000_000_000 {
                    continue;
                }
                let row = row(&measured);
                assert!(row.trim_end().chars().count() <= 80, "{row}");
                assert_eq!(
                    row.split_whitespace().count(),
                    10,
                    "two columns run into one: {row}"
                );
            }
        }
    }

    #[test]
    fn times_have_three_digits() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1000, "1.00µs"),
            (9_994, "9.99µs"),
            (9_996, "10.0µs"),
            (99_960, "100µs"),
            (999_499, "999µs"),
            (999_500, "1.00ms"),
            (12_345_678, "12.3ms"),
            (999_500_000, "1.00s"),
            (3_000_000_000, "3.00s"),
            (3_600_000_000_000, "3600s"),
        ] {
            assert_eq!(short(Duration::from_nanos(ns)), text);
        }
    }

    #[test]
    fn counts_of_any_size_stay_readable() {
        for (number, text) in [
            (0, "0"),
            (99_999_999, "99,999,999"),
            (100_000_000, "100.0M"),
            (99_999_900_000, "99999.9M"),
            (100_000_000_000, "100.0G"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!(per_second(30, Duration::from_secs(2)), 15);
        assert_eq!(mebibytes(52_428_800), "50.0");
        assert_eq!(mebibytes(1_048_576_000), "1000");
    }

    #[test]
    fn json_has_raw_integers() {
        let mut put = measured("put", 30_000, Duration::from_secs(3));
        put.record(Duration::from_nanos(100));
        put.record(Duration::from_nanos(300));
        assert_eq!(
            json_row(Phase::Put, &put).to_string(),
            r#"{"phase":"put","operations":30000,"bytes":3000000,"elapsed_ns":3000000000,"#
                .to_owned()
                + r#""operations_per_s":10000,"bytes_per_s":1000000,"timed":"put","#
                + r#""timed_every":1,"timed_count":2,"latency_ns":{"min":100,"mean":200,"#
                + r#""p50":100,"p90":300,"p99":300,"p99_9":300,"p99_99":300,"max":300}}"#
        );
    }
}
