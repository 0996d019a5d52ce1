//! What can be said on the command line and in the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use clap::{Parser, Subcommand};

/// A key-value store for read-heavy work.
#[derive(Debug, Parser)]
#[command(name = "crabkv", version, after_help = super::exit::HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Which store, and how it is opened: for every verb, before or after it.
#[derive(Debug, clap::Args)]
pub(crate) struct StoreArgs {
    /// The directory of the store
    #[arg(
        short,
        long,
        global = true,
        value_name = "DIR",
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
    /// Let values expire after this many seconds that are put without --ttl
    #[arg(
        long,
        global = true,
        value_name = "SECS",
        env = "CRABKV_DEFAULT_TTL_SECS",
        value_parser = ttl,
        allow_negative_numbers = true,
        hide_env_values = true
    )]
    pub(crate) default_ttl: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Put a value, replacing the one before; makes the store if there is none
    Put(PutArgs),
    /// Write a key's value to stdout, byte for byte (and a newline if that is a terminal)
    Get(KeyArgs),
    /// Delete a key
    Delete(KeyArgs),
    /// Give back the room that overwritten, deleted and expired values take
    Compact,
    /// Show how many keys there are and what takes how much room
    Stats,
}

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct PutArgs {
    /// The key; after `--` it may begin with a dash
    #[arg(value_parser = bytes())]
    pub(crate) key: Bytes,
    /// The value
    #[arg(value_parser = bytes(), required_unless_present = "stdin")]
    pub(crate) value: Option<Bytes>,
    /// Read the value from stdin, to its end
    #[arg(long, conflicts_with = "value")]
    pub(crate) stdin: bool,
    /// Let the value expire after this many seconds
    #[arg(long, value_name = "SECS", value_parser = ttl, allow_negative_numbers = true)]
    pub(crate) ttl: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct KeyArgs {
    /// The key; after `--` it may begin with a dash
    #[arg(value_parser = bytes())]
    pub(crate) key: Bytes,
}

/// A key or value from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

/// Takes arguments that are no valid Unicode as well, where the system has such.
fn bytes() -> ValueParser {
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
        Err(_) => Err("it is not valid Unicode; values of any bytes can be put with --stdin"),
    }
}

fn ttl(text: &str) -> Result<Duration, &'static str> {
    match text.parse() {
        Ok(secs @ 1..) => Ok(Duration::from_secs(secs)),
        _ => Err("a TTL is a whole number of seconds, at least 1; leave it out for no expiry"),
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

    #[test]
    fn a_ttl_is_a_whole_number_of_seconds_from_1_on() {
        assert_eq!(ttl("1"), Ok(Duration::from_secs(1)));
        assert_eq!(
            ttl("18446744073709551615"),
            Ok(Duration::from_secs(u64::MAX))
        );
        for text in ["", "0", "-1", "1.5", "1s", "never", "18446744073709551616"] {
            assert!(ttl(text).is_err(), "{text}");
        }
    }
}
