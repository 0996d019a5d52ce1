//! A store through every format and back: whether it is the same, how long that takes, and how much
//! memory:
//!
//! ```text
//! cargo build --release
//! cargo run --release --example transfer                      # 1 million records
//! cargo run --release --example transfer -- 100000            # as many as you say
//! cargo run --release --example transfer -- --dir /mnt/disk   # on another disk
//! ```
//!
//! Keys have 16 bytes, values 0 to 200: text, text with quotes and line feeds, other bytes. Every
//! fifth expires, in a year; in an LMDB dump none does. The memory is that of the program, at its
//! peak: what it had of its own, and with what of its mapped files was in memory.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

use crabkv::{Store, WriteBatch};

const USAGE: &str = "usage: transfer [RECORDS] [--dir DIR]";
const FORMATS: [&str; 4] = ["jsonl", "csv", "resp", "mdb"];
const BATCH_LEN: usize = 10_000;
/// How often the memory of the program is looked at.
const INTERVAL: Duration = Duration::from_millis(2);

struct Args {
    records: u64,
    dir: PathBuf,
}

fn main() -> ExitCode {
    let Some(args) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match measure(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("transfer: what came back is not what went out");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("transfer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Args> {
    let mut parsed = Args {
        records: 1_000_000,
        dir: std::env::temp_dir(),
    };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--dir" => parsed.dir = PathBuf::from(args.next()?),
            records => parsed.records = records.parse().ok()?,
        }
    }
    Some(parsed)
}

fn measure(args: &Args) -> Result<bool, Box<dyn Error>> {
    let dir = tempfile::tempdir_in(&args.dir)?;
    let source = dir.path().join("source");
    fill(&source, args.records)?;
    let program = program()?;
    let opened = run(Command::new(&program).arg("-d").arg(&source).arg("stats"))?;
    println!("{} records; a look at the store: {opened}", args.records);
    println!("format         bytes  verb     seconds   own KiB  all KiB  checksum");
    let mut same = true;
    for format in FORMATS {
        let file = dir.path().join(format!("records.{format}"));
        let copy = dir.path().join(format);
        let mut export = Command::new(&program);
        export
            .arg("-d")
            .arg(&source)
            .args(["-q", "export", "--absolute", "-o"]);
        let exported = run(export.arg(&file))?;
        let mut import = Command::new(&program);
        let imported = run(import
            .arg("-d")
            .arg(&copy)
            .args(["-q", "import"])
            .arg(&file))?;
        let with_expiry = format != "mdb";
        let (before, after) = (
            checksum(&source, with_expiry)?,
            checksum(&copy, with_expiry)?,
        );
        same &= before == after;
        let bytes = fs::metadata(&file)?.len();
        println!("{format:<6} {bytes:>13}  export {exported}  {before:016x}");
        println!("{:<6} {:>13}  import {imported}  {after:016x}", "", "");
        fs::remove_dir_all(&copy)?;
        fs::remove_file(&file)?;
    }
    Ok(same)
}

/// The program of the same build.
fn program() -> Result<PathBuf, Box<dyn Error>> {
    let example = std::env::current_exe()?;
    let build = example.parent().and_then(Path::parent);
    let program = build.ok_or("no build directory")?.join("crabkv");
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    if !program.is_file() {
        return Err(format!("no {}; build it first", program.display()).into());
    }
    Ok(program)
}

fn fill(dir: &Path, records: u64) -> Result<(), Box<dyn Error>> {
    let store = Store::open(dir)?;
    let mut batch = WriteBatch::new();
    let year = SystemTime::now() + Duration::from_secs(365 * 24 * 3600);
    for i in 0..records {
        let key = format!("record{i:010}");
        let value = value(i);
        if i % 5 == 0 {
            batch.put_expiring_at(key, value, year + Duration::from_millis(i))?;
        } else {
            batch.put(key, value)?;
        }
        if batch.len() == BATCH_LEN {
            store.write(&batch)?;
            batch.clear();
        }
    }
    store.write(&batch)?;
    store.close()?;
    Ok(())
}

fn value(i: u64) -> Vec<u8> {
    let len = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % 200;
    let mut text = String::new();
    while text.len() < len {
        // Writing to a string cannot fail.
        let _ = match i % 4 {
            0 => write!(text, "\"{i}\",\r\n\\"),
            _ => write!(text, "the record {i} says "),
        };
    }
    let mut value = text.into_bytes();
    value.truncate(len);
    if i % 4 == 1 {
        value.iter_mut().step_by(3).for_each(|byte| *byte ^= 0xff);
    }
    value
}

/// Of all entries, in whatever order.
fn checksum(dir: &Path, with_expiry: bool) -> Result<u64, Box<dyn Error>> {
    let mut sum = 0_u64;
    for entry in &Store::open_read_only(dir)? {
        let (key, value) = entry?;
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        value.hash(&mut hasher);
        if with_expiry {
            value.expires_at().hash(&mut hasher);
        }
        sum = sum.wrapping_add(hasher.finish());
    }
    Ok(sum)
}

/// Runs a command to its end: seconds, and its peak of memory in KiB where the system tells.
fn run(command: &mut Command) -> Result<String, Box<dyn Error>> {
    let begun = Instant::now();
    let mut child = command.stdout(std::process::Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let (mut own, mut all) = (0, 0);
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        if let Ok(status) = fs::read_to_string(&status) {
            own = own.max(figure(&status, "RssAnon:"));
            all = all.max(figure(&status, "VmHWM:"));
        }
        std::thread::sleep(INTERVAL);
    };
    if !ended.success() {
        return Err(format!("{command:?} ended with {ended}").into());
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(format!("{seconds:>9.2} {own:>9} {all:>8}"))
}

fn figure(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    figure.and_then(|figure| figure.parse().ok()).unwrap_or(0)
}
