//! `export`: all entries in one of the formats, to stdout or to a file.
//!
//! Opens the store read-only, so it works beside a program that writes. What is there throughout is
//! exported once; what is put or deleted meanwhile may be in it or not.

use std::ffi::OsStr;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use crabkv::Store;
use serde_json::json;

use super::args::{Bytes, bytes};
use super::confirm::Consent;
use super::context::Context;
use super::exit::{Failure, Outcome};
use super::file::NewFile;
use super::progress::Progress;
use super::transfer::{self, Entry, Expiry, Format, Times};
use super::units::{counted, duration};
use super::{file, interrupt, output};

/// How many entries are written before the bar is told.
const BAR_STEP: u64 = 128;

/// The longest key that LMDB takes unless it was built for more; an empty one it never takes.
const LMDB_MAX_KEY_LEN: usize = 511;

/// Write entries as JSON Lines, CSV, Redis commands or LMDB dump
///
/// Expired entries are left out. JSON Lines and CSV say how long an entry has left (ttl_ms), or
/// with --absolute when it expires (expires_at_ms, since 1970). Redis commands say when (PXAT, for
/// Redis 6.2 or later), or with --relative how long (PX). An LMDB dump has no room for either: its
/// entries live for ever, and a warning says how many would not have.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
                  crabkv export --out backup.jsonl\n  \
                  crabkv export --prefix user: --format csv > users.csv\n  \
                  crabkv export --format resp | redis-cli --pipe\n  \
                  crabkv export --format mdb | mdb_load lmdb-dir")]
pub(crate) struct ExportArgs {
    /// What to write; by default what FILE's extension says (jsonl, csv, resp, mdb), or else jsonl
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Write to a file, which appears once it is complete
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Only entries whose keys begin so
    #[arg(long, value_parser = bytes(), allow_hyphen_values = true)]
    prefix: Option<Bytes>,
    /// Say when entries expire
    #[arg(long)]
    absolute: bool,
    /// Say how long entries have left
    #[arg(long, conflicts_with = "absolute")]
    relative: bool,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(context: &Context, args: &ExportArgs) -> Result<Outcome, Failure> {
    let format = format(args)?;
    context.read(|store| {
        if let Some(path) = &args.out {
            return to_file(context, args, format, store, path);
        }
        let out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
        let counts = export(context, args, format, store, out, &output::failure)?;
        if interrupt::is_requested() {
            let message = "not all of it was written".to_owned();
            return Ok(Outcome::Interrupted(message));
        }
        counts.warn(context);
        Ok(Outcome::Done)
    })
}

fn format(args: &ExportArgs) -> Result<Format, Failure> {
    match (args.format, &args.out) {
        (Some(format), _) => Ok(format),
        (None, Some(path)) => format_of(path),
        (None, None) => Ok(Format::Jsonl),
    }
}

/// The format that a file's extension stands for.
pub(crate) fn format_of(path: &Path) -> Result<Format, Failure> {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.and_then(Format::of_extension).ok_or_else(|| {
        let path = path.display();
        Failure::Usage(format!(
            "the name {path} does not say the format; say it with --format jsonl, csv, resp or mdb"
        ))
    })
}

fn to_file(
    context: &Context,
    args: &ExportArgs,
    format: Format,
    store: &Store,
    path: &Path,
) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    let mut new = NewFile::create(path, args.consent)?;
    // What was written so far is to be removed.
    let _graceful = interrupt::graceful();
    let failed = |source| file::failure(path, source);
    let counts = export(context, args, format, store, new.writer(), &failed)?;
    if interrupt::is_requested() {
        let message = format!("{} was not written", path.display());
        return Ok(Outcome::Interrupted(message));
    }
    new.commit()?;
    counts.warn(context);
    if context.options.json {
        output::write_json(&json!({
            "records": counts.records,
            "expiries_lost": counts.expiries_lost,
            "keys_beyond_lmdb": counts.keys_beyond_lmdb,
            "elapsed_ms": begun.elapsed().as_millis() as u64,
        }))?;
    } else {
        context.note(format_args!(
            "exported {} to {} in {}",
            counted(counts.records, "record"),
            path.display(),
            duration(begun.elapsed()),
        ));
    }
    Ok(Outcome::Done)
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    records: u64,
    /// Of entries that expire, in a format that cannot say so.
    expiries_lost: u64,
    /// In an LMDB dump.
    keys_beyond_lmdb: u64,
}

impl Counts {
    fn warn(self, context: &Context) {
        if self.expiries_lost > 0 {
            context.warn(format_args!(
                "{} in the export would have expired, and will live for ever: an LMDB dump has no \
                 times to live",
                counted(self.expiries_lost, "record"),
            ));
        }
        if self.keys_beyond_lmdb > 0 {
            context.warn(format_args!(
                "mdb_load will stop at {} in the export: LMDB takes keys of 1 to \
                 {LMDB_MAX_KEY_LEN} bytes; crabkv import takes all",
                counted(self.keys_beyond_lmdb, "key"),
            ));
        }
    }
}

/// Writes the entries that are wanted to `out`. Ends early when that is asked for.
fn export(
    context: &Context,
    args: &ExportArgs,
    format: Format,
    store: &Store,
    out: impl Write,
    failed: &dyn Fn(io::Error) -> Failure,
) -> Result<Counts, Failure> {
    let times = match format {
        _ if args.absolute => Times::Absolute,
        Format::Resp if !args.relative => Times::Absolute,
        _ => Times::Relative,
    };
    // Not between the lines of the export.
    let shown = args.out.is_some() || !io::stdout().is_terminal();
    let progress = shown.then(|| Progress::of_items(context, "exporting", store.len() as u64));
    let mut counts = Counts::default();
    let mut writer = transfer::writer(format, times, lmdb_map_bytes(store), out).map_err(failed)?;
    let prefix = args.prefix.as_ref().map_or(&[][..], |prefix| &prefix.0);
    for entry in store.scan_prefix(prefix) {
        let (key, value) = entry?;
        let Some(expiry) = expiry(value.expires_at(), times) else {
            continue;
        };
        let (key, value) = (&key[..], &value[..]);
        writer
            .write(&Entry { key, value, expiry })
            .map_err(failed)?;
        counts.records += 1;
        if format == Format::Mdb {
            counts.expiries_lost += u64::from(expiry != Expiry::Never);
            let fits = (1..=LMDB_MAX_KEY_LEN).contains(&key.len());
            counts.keys_beyond_lmdb += u64::from(!fits);
        }
        if counts.records % BAR_STEP == 0 {
            if let Some(progress) = &progress {
                progress.set(counts.records);
            }
            if interrupt::is_requested() {
                // Without what says that it is complete.
                return Ok(counts);
            }
        }
    }
    writer.finish().map_err(failed)?;
    Ok(counts)
}

/// How the expiry is to be written; `None` for an entry that has expired since it was read.
fn expiry(expires_at: Option<SystemTime>, times: Times) -> Option<Expiry> {
    let Some(expires_at) = expires_at else {
        return Some(Expiry::Never);
    };
    let at_ms = transfer::unix_ms(expires_at);
    let left_ms = at_ms.checked_sub(transfer::unix_ms(SystemTime::now()))?;
    match (left_ms, times) {
        (0, _) => None,
        (_, Times::Relative) => Some(Expiry::InMs(left_ms)),
        (_, Times::Absolute) => Some(Expiry::AtMs(at_ms)),
    }
}

/// What LMDB needs for the entries at most. Its pages are half full after insertion in the order of
/// hashes, and a value may leave nearly half of a page of its own unused; a map that is larger than
/// its file costs nothing.
fn lmdb_map_bytes(store: &Store) -> u64 {
    const SPARE: u64 = 64 << 20;
    let stats = store.stats();
    let bytes = stats.live_bytes.saturating_mul(4).saturating_add(SPARE);
    bytes.next_multiple_of(SPARE)
}
