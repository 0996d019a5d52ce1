//! `import`: puts what one of the formats holds, in batches that are atomic and durable each.
//!
//! Where it ends early, by Ctrl-C or at a line that is malformed, everything before that is there,
//! and importing the same again does no harm.

mod input;
mod pending;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::context::{Context, IfMissing};
use super::exit::{Failure, Outcome};
use super::export::format_of;
use super::progress::Progress;
use super::transfer::{self, ChangeReader, Format, ReadError, Selection};
use super::units::{counted, duration, parse_count, thousands};
use super::{interrupt, output};
use input::Input;
use pending::{Counts, Pending};

/// How many records are read before the bar is told.
const BAR_STEP: u64 = 128;

/// Put entries from JSON Lines, CSV, Redis commands or LMDB dump
///
/// Makes the store if there is none. Each batch is atomic and durable; where the import ends early,
/// all before is there, and importing again does no harm. A record that has expired meanwhile
/// deletes its key; one without a time to live lives for ever, whatever --default-ttl says.
///
/// Of Redis, it reads the commands that leave strings: an append-only file without RDB preamble, or
/// what `crabkv export --format resp` writes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
                  crabkv import backup.jsonl\n  \
                  crabkv import --dry-run users.csv\n  \
                  crabkv import --format resp appendonly.aof.1.incr.aof\n  \
                  mdb_dump lmdb-dir | crabkv import --format mdb")]
pub(crate) struct ImportArgs {
    /// The file, or `-` for stdin
    #[arg(default_value = "-", hide_default_value = true)]
    file: PathBuf,
    /// What it holds; by default what its extension says (jsonl, csv, resp, aof, mdb), or jsonl
    /// from stdin
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Read all of it, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Leave keys as they are that have a value
    #[arg(long)]
    if_absent: bool,
    /// Write this many records at a time, or fewer if they are large
    #[arg(long, value_name = "RECORDS", default_value = "10k", value_parser = parse_batch_size)]
    batch_size: u64,
    /// Leave out Redis commands that a store has nothing like, and say how many
    #[arg(long)]
    skip_unsupported: bool,
    /// The LMDB database, by its name, or the Redis database, by its number
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

fn parse_batch_size(text: &str) -> Result<u64, String> {
    match parse_count(text) {
        Ok(count) if !(1..=1_000_000).contains(&count) => Err("it is from 1 to 1M".to_owned()),
        count => count,
    }
}

pub(crate) fn run(context: &Context, args: &ImportArgs) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    let format = format(args)?;
    let input = Input::open(&args.file)?;
    if input.is_stdin() {
        context.note_typing();
    }
    if format == Format::Mdb && args.database.is_none() {
        input.refuse_several_databases()?;
    }
    let (counts, end) = if args.dry_run {
        import(context, args, format, &input, Pending::dry_run())
    } else {
        context.write(IfMissing::Create, |store| {
            let pending = Pending::new(store, args.if_absent, args.batch_size);
            Ok(import(context, args, format, &input, pending))
        })?
    };
    let so_far = format!(
        "{}: {}{}",
        if args.dry_run {
            "read before that"
        } else {
            "imported before that"
        },
        counted(counts.records, "record"),
        if args.dry_run {
            ""
        } else {
            "; importing it again does no harm"
        },
    );
    match end {
        End::Complete => {}
        End::Interrupted => return Ok(Outcome::Interrupted(so_far)),
        End::Malformed(problem) => {
            let message = format!("{}: {problem}; {so_far}", input.name());
            return Err(Failure::Usage(message));
        }
        End::Failed(failure) => {
            context.note(so_far);
            return Err(failure);
        }
    }
    report(context, args, &counts, begun.elapsed())?;
    Ok(Outcome::Done)
}

fn format(args: &ImportArgs) -> Result<Format, Failure> {
    match args.format {
        Some(format) => Ok(format),
        None if args.file.as_os_str() == "-" => Ok(Format::Jsonl),
        None => format_of(&args.file),
    }
}

/// How an import ended.
enum End {
    Complete,
    Interrupted,
    Malformed(transfer::Malformed),
    Failed(Failure),
}

/// Imports up to the end, an error or Ctrl-C. What is counted is durable.
fn import(
    context: &Context,
    args: &ImportArgs,
    format: Format,
    input: &Input,
    mut pending: Pending,
) -> (Counts, End) {
    let selection = Selection {
        database: args.database.clone(),
        skip_unsupported: args.skip_unsupported,
    };
    let _graceful = interrupt::graceful();
    // What comes behind it in the shell is the next line.
    let is_last_reader = !context.is_in_shell();
    let mut reader = transfer::reader(format, selection, input.reader(is_last_reader));
    let progress = match input.len() {
        Some(len) => Progress::of_bytes(context, "importing", len),
        None => Progress::of_items(context, "importing", 0),
    };
    let end = loop {
        if interrupt::is_requested() {
            break End::Interrupted;
        }
        match step(reader.as_mut(), &mut pending, input) {
            Ok(true) => {}
            // Whoever fed the pipe may have been interrupted too.
            Ok(false) | Err(End::Malformed(_)) if interrupt::is_requested() => {
                break End::Interrupted;
            }
            Ok(false) => break End::Complete,
            Err(end) => break end,
        }
        let records = pending.records();
        if records % BAR_STEP == 0 {
            progress.set(input.len().map_or(records, |_| input.position()));
        }
    };
    let end = match (end, pending.flush()) {
        (End::Failed(failure), _) | (_, Err(failure)) => End::Failed(failure),
        (end, Ok(())) => end,
    };
    let mut counts = pending.durable();
    counts.unsupported = reader.skipped();
    (counts, end)
}

/// Takes one change; `false` at the end.
fn step(reader: &mut dyn ChangeReader, pending: &mut Pending, input: &Input) -> Result<bool, End> {
    let change = match reader.next() {
        Ok(Some(change)) => change,
        Ok(None) => return Ok(false),
        Err(ReadError::Malformed(malformed)) => return Err(End::Malformed(malformed)),
        Err(ReadError::Io(_)) if interrupt::is_requested() => return Err(End::Interrupted),
        Err(ReadError::Io(error)) => return Err(End::Failed(input.failure(error))),
    };
    pending.apply(change).map_err(End::Failed)?;
    Ok(true)
}

fn report(
    context: &Context,
    args: &ImportArgs,
    counts: &Counts,
    elapsed: Duration,
) -> Result<(), Failure> {
    if context.options.json {
        return output::write_json(&json!({
            "dry_run": args.dry_run,
            "records": counts.records,
            "put": counts.put,
            "deleted": counts.deleted,
            "expired": counts.expired,
            "unchanged": counts.unchanged,
            "unsupported": counts.unsupported,
            "elapsed_ms": elapsed.as_millis() as u64,
        }));
    }
    let verb = if args.dry_run { "read" } else { "imported" };
    let mut text = format!("{verb} {}", counted(counts.records, "record"));
    for (count, what) in [
        (counts.expired, "expired"),
        (counts.deleted, "deleted"),
        (counts.unchanged, "left as it was"),
        (counts.unsupported, "unsupported and left out"),
    ] {
        if count > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {} {what}", thousands(count));
        }
    }
    if args.dry_run {
        text += "; nothing was changed";
    } else {
        let _ = write!(text, " in {}", duration(elapsed));
    }
    context.note(text);
    Ok(())
}
