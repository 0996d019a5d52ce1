//! What can be said on the command line and in the environment: the verbs, and the options that all
//! of them share. What a verb alone takes stands in its own file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use clap::{Parser, Subcommand, ValueEnum};

use super::{
    backup, batch, bench, cas, compact, completions, count, delete, doctor, exists, expiry, export,
    get, import, incr, inspect, man, put, repair, restore, scan, shell, stats, units, verify,
};

/// A key-value store for read-heavy work.
#[derive(Debug, Parser)]
#[command(
    name = "crabkv",
    version,
    max_term_width = 100,
    after_help = super::exit::HELP,
    subcommand_help_heading = "Commands"
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What all verbs share: which store, how it is opened, how to talk. Before or after the verb.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Options {
    /// The directory of the store
    #[arg(
        short,
        long,
        global = true,
        value_name = "DIR",
        value_hint = clap::ValueHint::DirPath,
        env = "CRABKV_DATA_DIR",
        default_value = "data",
        hide_env_values = true
    )]
    pub(crate) data_dir: PathBuf,
    /// Keep this many decompressed values in memory; 0 for none
    #[arg(
        long,
        visible_alias = "cache",
        global = true,
        value_name = "VALUES",
        env = "CRABKV_CACHE_CAPACITY",
        default_value_t = 0,
        hide_default_value = true,
        hide_env_values = true
    )]
    pub(crate) cache_capacity: usize,
    /// Let values expire after this long that are put without --ttl: 30, 45s, 1h30m
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        env = "CRABKV_DEFAULT_TTL_SECS",
        value_parser = units::parse_ttl,
        allow_negative_numbers = true,
        hide_env_values = true
    )]
    pub(crate) default_ttl: Option<Duration>,
    /// Answer with JSON: sizes in bytes, times in milliseconds
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but data and errors: no warnings, summaries, progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say what caused an error, too
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Whether to use colour
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) color: Color,
}

/// When to use colour. By default on terminals, unless `NO_COLOR` is set.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// Makes it so for all output of this process.
    pub(crate) fn write_global(self) {
        match self {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Put a value, replacing the one before; makes the store if there is none
    Put(put::PutArgs),
    /// Write a key's value to stdout, byte for byte (and a newline if that is a terminal)
    Get(get::GetArgs),
    /// Delete a key
    Delete(delete::DeleteArgs),
    /// Say by the exit code whether a key has a value: 0 if it has, 1 if not
    Exists(exists::ExistsArgs),
    /// List keys and their values
    Scan(scan::ScanArgs),
    /// List keys
    Keys(scan::KeysArgs),
    /// Say how many keys there are
    Count(count::CountArgs),
    /// Say how long a key has to live; `none` if it never expires
    Ttl(expiry::TtlArgs),
    /// Let a key expire after a while, or at a time
    Expire(expiry::ExpireArgs),
    /// Let a key live for ever that would have expired
    Persist(expiry::PersistArgs),
    /// Add to a value that is a whole number, and write the sum to stdout
    Incr(incr::IncrArgs),
    /// Put a value only if the key still has the version that was seen, or has none
    Cas(cas::CasArgs),
    /// Put and delete many keys at once, all or none, as lines from stdin or a file say
    Batch(batch::BatchArgs),
    // What these two say of themselves is longer than a line, and stands with them.
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    /// Give back the room that overwritten, deleted and expired values take
    Compact(compact::CompactArgs),
    /// Serve the store on a TCP port, to nc and to programs
    #[cfg(feature = "server")]
    Serve(super::serve::ServeArgs),
    /// Show how many keys there are and what takes how much room
    Stats(stats::StatsArgs),
    /// Show what lies in the files: manifest, segments, records, hints, a key's history
    Inspect(inspect::InspectArgs),
    /// Check what a store depends on: lock, disk, file system, limits, permissions, clock
    Doctor(doctor::DoctorArgs),
    /// Check every byte of the store, and name what is damaged
    Verify(verify::VerifyArgs),
    /// Save what is sound of a damaged store into a new one
    Repair(repair::RepairArgs),
    /// Make a consistent copy while programs use the store, or bring one up to date
    Backup(backup::BackupArgs),
    /// Make a store from a backup
    Restore(restore::RestoreArgs),
    /// Give commands at a prompt, or from a script, with the store open all the time
    Shell(shell::ShellArgs),
    /// Measure what this machine and this disk make of a store that is filled for it
    Bench(bench::BenchArgs),
    /// Write a script that makes a shell complete command lines of this program
    Completions(completions::CompletionsArgs),
    /// Write the manual as man pages
    Man(man::ManArgs),
}

/// A key or value from the command line, before it is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

/// Takes arguments that are no valid Unicode as well, where the system has such.
pub(crate) fn bytes() -> ValueParser {
    ValueParser::new(OsStringValueParser::new().try_map(to_bytes))
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "its twin can fail")]
fn to_bytes(argument: OsString) -> Result<Bytes, &'static str> {
    use std::os::unix::ffi::OsStringExt;

    Ok(Bytes(argument.into_vec()))
}

/// Arguments are UTF-16 on Windows, and bytes only as UTF-8.
#[cfg(not(unix))]
fn to_bytes(argument: OsString) -> Result<Bytes, &'static str> {
    match argument.into_string() {
        Ok(text) => Ok(Bytes(text.into_bytes())),
        Err(_) => Err("it is not valid Unicode; give any bytes with --hex or --base64"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Args::command().debug_assert();
    }
}
