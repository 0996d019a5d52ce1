//! What can be said on the command line and in the environment: the verbs, and the options that all
//! of them share. What a verb alone takes stands in its own file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use clap::{Command, CommandFactory, Parser, Subcommand, ValueEnum};

use super::{
    backup, batch, bench, cas, compact, completions, count, delete, doctor, exists, exit, expiry,
    export, get, import, incr, inspect, man, overview, put, repair, restore, scan, shell, stats,
    units, verify,
};

/// The environment variables, and what they stand for, for `--help`.
const ENVIRONMENT: &str = "\
Environment:
  CRABKV_DATA_DIR          --data-dir
  CRABKV_CACHE_CAPACITY    --cache-capacity
  CRABKV_DEFAULT_TTL_SECS  --default-ttl
  CRABKV_HISTORY           the file of the shell's history; empty for none
  NO_COLOR                 no colour unless --color always";

/// A key-value store for read-heavy work.
#[derive(Debug, Parser)]
#[command(
    name = "crabkv",
    version,
    max_term_width = 100,
    after_help = format!("{ENVIRONMENT}\n\n{}", exit::HELP)
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
        hide_env = true
    )]
    pub(crate) data_dir: PathBuf,
    /// How many values to cache
    #[arg(
        long,
        visible_alias = "cache",
        global = true,
        value_name = "N",
        env = "CRABKV_CACHE_CAPACITY",
        default_value_t = 0,
        hide_default_value = true,
        hide_env = true
    )]
    pub(crate) cache_capacity: usize,
    /// For values put without --ttl: 45s, 1h30m
    #[arg(
        long,
        global = true,
        value_name = "TTL",
        env = "CRABKV_DEFAULT_TTL_SECS",
        value_parser = units::parse_ttl,
        allow_negative_numbers = true,
        hide_env = true
    )]
    pub(crate) default_ttl: Option<Duration>,
    /// Answer with JSON, in bytes and milliseconds
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but data and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more: what caused an error
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Colour: auto (the default), always, never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true
    )]
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

/// The definitions, with help that has the verbs by theme.
pub(crate) fn command() -> Command {
    let command = Args::command();
    let template = overview::template(&command);
    command.help_template(template)
}

// Each says what it does in a line of 65 characters: so many are left of a terminal's. What other
// tools call the same is understood too, and shown nowhere.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Put a value; makes the store if there is none
    #[command(alias = "set")]
    Put(put::PutArgs),
    /// Write a key's value to stdout, byte for byte
    Get(get::GetArgs),
    /// Delete keys
    #[command(aliases = ["del", "rm"])]
    Delete(delete::DeleteArgs),
    /// Exit with 0 if a key has a value, and with 1 if not
    Exists(exists::ExistsArgs),
    /// List keys and their values
    Scan(scan::ScanArgs),
    /// List keys
    #[command(aliases = ["ls", "list"])]
    Keys(scan::KeysArgs),
    /// Say how many keys there are
    Count(count::CountArgs),
    /// Say how long a key has to live; `none` if it never expires
    Ttl(expiry::TtlArgs),
    /// Let a key expire after a while, or at a time
    Expire(expiry::ExpireArgs),
    /// Let a key live for ever that would have expired
    Persist(expiry::PersistArgs),
    /// Add to a value that is a whole number, and write the sum
    Incr(incr::IncrArgs),
    /// Compare and swap: put a value only if nobody has put another
    Cas(cas::CasArgs),
    /// Put and delete many keys at once, all or none
    Batch(batch::BatchArgs),
    // What these two say of themselves is longer than a line, and stands with them.
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    /// Give back the room of overwritten, deleted and expired values
    Compact(compact::CompactArgs),
    /// Serve the store on a TCP port, to nc and to Redis clients
    #[cfg(feature = "server")]
    Serve(super::serve::ServeArgs),
    /// Show how many keys there are and what takes how much room
    Stats(stats::StatsArgs),
    /// Show what lies in the files, and a key's history
    Inspect(inspect::InspectArgs),
    /// Check what a store depends on: lock, disk, limits, clock
    Doctor(doctor::DoctorArgs),
    /// Check every byte of the store, and name what is damaged
    Verify(verify::VerifyArgs),
    /// Save what is sound of a damaged store into a new one
    Repair(repair::RepairArgs),
    /// Make a consistent copy of the store, or bring one up to date
    Backup(backup::BackupArgs),
    /// Make a store from a backup
    Restore(restore::RestoreArgs),
    /// Give commands at a prompt, or from a script
    Shell(shell::ShellArgs),
    /// Measure what this machine makes of a store filled for it
    Bench(bench::BenchArgs),
    /// Write a script that completes command lines in your shell
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
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        command().debug_assert();
    }

    #[test]
    fn options_that_mean_the_same_are_called_the_same() {
        for verb in command().get_subcommands() {
            let short_of = |long: &str| {
                let mut args = verb.get_arguments();
                let arg = args.find(|arg| arg.get_long() == Some(long));
                arg.map(clap::Arg::get_short)
            };
            for (long, short) in [("dry-run", 'n'), ("out", 'o'), ("limit", 'l'), ("yes", 'y')] {
                if let Some(found) = short_of(long) {
                    assert_eq!(found, Some(short), "{} --{long}", verb.get_name());
                }
            }
        }
    }
}
