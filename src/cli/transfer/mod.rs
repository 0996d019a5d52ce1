//! Entries as text or as commands, for other programs and back: JSON Lines, CSV, commands of Redis,
//! dumps of LMDB.
//!
//! Streaming in both directions, over `Write` and `BufRead`: no more than one record is in memory,
//! and what an input announces is not believed before it is there. Knows no store, no file and no
//! command line. Times to live stay as they are written, relative or absolute; whoever has a clock
//! makes one of the other.

mod csv;
mod json;
mod mdb;
mod redis;
mod resp;
mod source;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::time::SystemTime;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use crabkv::{MAX_KEY_LEN, MAX_VALUE_LEN};

pub(crate) use mdb::{databases, several as several_databases};

/// The usual alphabet; padding is written, and not asked for.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What entries are written as and read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// JSON Lines: {"k":..,"v":..,"ttl_ms":..}, with {"base64":..} where bytes are not UTF-8
    Jsonl,
    /// Comma-separated values: key,value,ttl_ms, with base64:.. where bytes are not UTF-8
    Csv,
    /// Commands of Redis, as redis-cli --pipe takes them and append-only files hold them
    Resp,
    /// The text that LMDB's mdb_dump writes and mdb_load reads; it has no times to live
    Mdb,
}

impl Format {
    /// The format that files with this extension are in.
    pub(crate) fn of_extension(extension: &str) -> Option<Format> {
        match &extension.to_ascii_lowercase()[..] {
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            "csv" => Some(Format::Csv),
            "resp" | "aof" => Some(Format::Resp),
            "mdb" | "dump" => Some(Format::Mdb),
            _ => None,
        }
    }
}

/// When something expires, as a format says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Never,
    /// This many milliseconds from when it is written or read.
    InMs(u64),
    /// At this many milliseconds since the beginning of 1970.
    AtMs(u64),
}

/// Which of the two a format has a column for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    Relative,
    Absolute,
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) expiry: Expiry,
}

/// What is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Put {
        key: Cow<'a, [u8]>,
        value: Cow<'a, [u8]>,
        /// `None`: as the value that it replaces.
        expiry: Option<Expiry>,
        condition: Condition,
    },
    Delete {
        key: Cow<'a, [u8]>,
    },
    /// Gives a value that is there another expiry.
    Expire {
        key: Cow<'a, [u8]>,
        expiry: Expiry,
    },
}

/// What must be so for a put to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    #[default]
    Always,
    Absent,
    Present,
}

/// Where in an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// From 1.
    Line(u64),
    /// In bytes from the beginning.
    Offset(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "line {line}"),
            Place::Offset(offset) => write!(f, "offset {offset}"),
        }
    }
}

/// An input that is not in its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) place: Place,
    /// What was found, what was expected, what to do.
    pub(crate) problem: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// A moment in milliseconds since the beginning of 1970; what is before that is at it.
pub(crate) fn unix_ms(moment: SystemTime) -> u64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Why reading ended before its end.
#[derive(Debug)]
pub(crate) enum ReadError {
    Malformed(Malformed),
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        ReadError::Io(error)
    }
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> ReadError {
        ReadError::Malformed(malformed)
    }
}

fn malformed<T>(place: Place, problem: impl Into<String>) -> Result<T, ReadError> {
    let problem = problem.into();
    Err(Malformed { place, problem }.into())
}

/// Writes entries in one of the formats.
pub(crate) trait EntryWriter {
    fn write(&mut self, entry: &Entry) -> io::Result<()>;

    /// Writes what the format ends with, and flushes.
    fn finish(&mut self) -> io::Result<()>;
}

/// Reads changes from one of the formats.
pub(crate) trait ChangeReader {
    /// The next change, or `None` at the end. After an error nothing more is to be read.
    fn next(&mut self) -> Result<Option<Change<'_>>, ReadError>;

    /// How much was passed over because there is nothing like it in a store, as was asked for.
    fn skipped(&self) -> u64 {
        0
    }
}

/// A writer that has written what its format begins with. `map_bytes` is what LMDB is told to
/// reserve.
pub(crate) fn writer<'a>(
    format: Format,
    times: Times,
    map_bytes: u64,
    out: impl Write + 'a,
) -> io::Result<Box<dyn EntryWriter + 'a>> {
    Ok(match format {
        Format::Jsonl => Box::new(json::Writer::new(out)),
        Format::Csv => Box::new(csv::Writer::begin(out, times)?),
        Format::Resp => Box::new(resp::Writer::new(out)),
        Format::Mdb => Box::new(mdb::Writer::begin(out, map_bytes)?),
    })
}

/// What of an input is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// The name of an LMDB database, or the number of a Redis one.
    pub(crate) database: Option<String>,
    /// Pass over commands that a store has nothing like.
    pub(crate) skip_unsupported: bool,
}

pub(crate) fn reader<'a>(
    format: Format,
    selection: Selection,
    input: impl BufRead + 'a,
) -> Box<dyn ChangeReader + 'a> {
    match format {
        Format::Jsonl => Box::new(json::Reader::new(input)),
        Format::Csv => Box::new(csv::Reader::new(input)),
        Format::Resp => Box::new(redis::Reader::new(input, selection)),
        Format::Mdb => Box::new(mdb::Reader::new(input, selection.database)),
    }
}

/// A put, if a store can hold it.
fn put<'a>(
    place: Place,
    key: Cow<'a, [u8]>,
    value: Cow<'a, [u8]>,
    expiry: Expiry,
) -> Result<Change<'a>, ReadError> {
    check_len(place, "key", key.len(), MAX_KEY_LEN)?;
    check_len(place, "value", value.len(), MAX_VALUE_LEN)?;
    Ok(Change::Put {
        key,
        value,
        expiry: Some(expiry),
        condition: Condition::Always,
    })
}

fn check_len(place: Place, what: &str, len: usize, max: usize) -> Result<(), ReadError> {
    if len > max {
        return malformed(
            place,
            format!("the {what} has {len} bytes, {max} are possible; shorten it or leave it out"),
        );
    }
    Ok(())
}

/// The expiry of the two fields that JSON and CSV have for it.
fn expiry(
    place: Place,
    ttl_ms: Option<u64>,
    expires_at_ms: Option<u64>,
) -> Result<Expiry, ReadError> {
    match (ttl_ms, expires_at_ms) {
        (None, None) => Ok(Expiry::Never),
        (Some(ms), None) => Ok(Expiry::InMs(ms)),
        (None, Some(ms)) => Ok(Expiry::AtMs(ms)),
        (Some(_), Some(_)) => malformed(
            place,
            "both ttl_ms and expires_at_ms; leave one of them out",
        ),
    }
}

#[cfg(test)]
mod tests;
