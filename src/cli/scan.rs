//! `scan` and `keys`: entries as they come, one to a line, in memory that does not grow with them.

use crabkv::{Cursor, Store, Value};
use serde_json::json;

use super::args::{Bytes, bytes};
use super::context::Context;
use super::encoding::{self, EncodingArgs};
use super::entry;
use super::exit::{Failure, Outcome};
use super::output::Output;
use super::{text, units};

/// Which entries, and how they are shown.
#[derive(Debug, clap::Args)]
struct Selection {
    /// Only keys that begin with this; every key is looked at all the same
    #[arg(long, value_parser = bytes(), default_value = "", hide_default_value = true)]
    prefix: Bytes,
    /// At most so many; if there are more, stderr says how to go on
    #[arg(short, long, value_name = "N", value_parser = units::parse_count)]
    limit: Option<u64>,
    /// Go on where an earlier call with --limit stopped, as that said
    #[arg(long, value_name = "CURSOR", value_parser = parse_cursor)]
    from: Option<Cursor>,
    #[command(flatten)]
    encoding: EncodingArgs,
}

/// Cursors are in hexadecimal whatever keys and values are in.
fn parse_cursor(text: &str) -> Result<Cursor, String> {
    encoding::decode_hex(text.as_bytes())
        .map(|bytes| Cursor::from_bytes(&bytes))
        // What is no cursor would start again from the beginning, for ever perhaps.
        .filter(|cursor| *cursor != Cursor::default())
        .ok_or_else(|| "it is not what a call with --limit said to go on from".to_owned())
}

#[derive(Debug, clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
Each line is a key, a tab, and its value, with \\n, \\t, \\\\ and \\xff for what would break the line, \
or else in JSON, hexadecimal or base64. The order means nothing, but a store keeps to it.

Example:
  crabkv scan --prefix user: --limit 10"
)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    selection: Selection,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
Examples:
  crabkv keys --prefix user: | wc -l
  crabkv keys --prefix tmp: --null | xargs -0 -r crabkv delete --"
)]
pub(crate) struct KeysArgs {
    #[command(flatten)]
    selection: Selection,
    /// End each key with a NUL byte and escape nothing, for xargs -0
    #[arg(short = '0', long, conflicts_with = "json")]
    null: bool,
}

/// What is written of each entry.
#[derive(Clone, Copy)]
enum Show {
    Entries,
    Keys,
    KeysEndedByNul,
}

pub(crate) fn run(context: &Context, args: &ScanArgs) -> Result<Outcome, Failure> {
    let show = if args.keys_only {
        Show::Keys
    } else {
        Show::Entries
    };
    args.selection.write(context, show)
}

pub(crate) fn run_keys(context: &Context, args: &KeysArgs) -> Result<Outcome, Failure> {
    let show = if args.null {
        Show::KeysEndedByNul
    } else {
        Show::Keys
    };
    args.selection.write(context, show)
}

impl Selection {
    fn write(&self, context: &Context, show: Show) -> Result<Outcome, Failure> {
        let prefix = self.encoding.decode(&self.prefix)?;
        let end = context.read(|store| self.write_entries(context, store, &prefix, show))?;
        if let Some(cursor) = end {
            let cursor = encoding::encode_hex(&cursor.to_bytes());
            context.note(format_args!("there are more; go on with --from {cursor}"));
        }
        Ok(Outcome::Done)
    }

    /// Returns where it stopped if there are more entries than were asked for.
    fn write_entries(
        &self,
        context: &Context,
        store: &Store,
        prefix: &[u8],
        show: Show,
    ) -> Result<Option<Cursor>, Failure> {
        let mut output = Output::new();
        let mut entries = store.scan_prefix_from(prefix, &self.from.clone().unwrap_or_default());
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(entry) = entries.next() else {
                output.finish()?;
                return Ok(None);
            };
            let (key, value) = entry?;
            if context.options.json {
                output.write_json_line(&as_json(&key, &value, show))?;
            } else {
                self.write_entry(&mut output, &key, &value, show)?;
            }
            left -= 1;
        }
        // Before looking on, which may take a while if the prefix is rare.
        output.finish()?;
        let cursor = entries.cursor();
        let more = entries.next().transpose()?.is_some();
        Ok(more.then_some(cursor))
    }

    fn write_entry(
        &self,
        output: &mut Output,
        key: &[u8],
        value: &[u8],
        show: Show,
    ) -> Result<(), Failure> {
        match show {
            Show::Entries => {
                output.write(self.encoding.shown(key).as_bytes())?;
                output.write(b"\t")?;
                output.write_line(&self.encoding.shown(value))
            }
            Show::Keys => output.write_line(&self.encoding.shown(key)),
            Show::KeysEndedByNul => {
                output.write(&self.encoding.encode(key))?;
                output.write(b"\0")
            }
        }
    }
}

fn as_json(key: &[u8], value: &Value, show: Show) -> serde_json::Value {
    match show {
        Show::Entries => entry::described(key, value),
        Show::Keys | Show::KeysEndedByNul => json!({ "key": text::json_bytes(key) }),
    }
}
