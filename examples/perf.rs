//! Puts and gets per second, for a quick look:
//!
//! ```text
//! cargo run --release --example perf -- 50000 64    # operations, value size in bytes
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crabkv::CrabKv;

const USAGE: &str = "usage: perf [OPS [VALUE_SIZE]]   (default: 50000 64)";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let Some((ops, value_size)) = parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(ops, value_size) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[String]) -> Option<(u32, usize)> {
    if args.len() > 2 {
        return None;
    }
    let ops = args.first().map_or(Ok(50_000), |arg| arg.parse()).ok()?;
    let value_size = args.get(1).map_or(Ok(64), |arg| arg.parse()).ok()?;
    (ops > 0 && value_size <= crabkv::MAX_VALUE_LEN).then_some((ops, value_size))
}

fn run(ops: u32, value_size: usize) -> std::io::Result<()> {
    let dir = tempfile::tempdir()?;
    let db = CrabKv::builder(dir.path())
        .sync_interval(Duration::from_millis(100))
        .build()?;
    let value = "x".repeat(value_size);

    let start = Instant::now();
    for i in 0..ops {
        db.put(format!("key-{i}"), value.clone())?;
    }
    report("puts", ops, start.elapsed());

    let start = Instant::now();
    for i in 0..ops {
        // Not in the order they were put, which would be kind to the caches.
        let i = u64::from(i) * 2_654_435_761 % u64::from(ops);
        db.get(&format!("key-{i}"))?;
    }
    report("gets", ops, start.elapsed());
    Ok(())
}

fn report(what: &str, ops: u32, time: Duration) {
    let rate = f64::from(ops) / time.as_secs_f64();
    println!(
        "{what}: {ops} in {:.3} s, {rate:.0} per second",
        time.as_secs_f64()
    );
}
