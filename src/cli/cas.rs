//! `cas`: puts a value only if nobody else has meanwhile.

use clap::ArgGroup;
use crabkv::{Error, SeqNo};

use super::args::{Bytes, bytes};
use super::context::{Context, IfMissing};
use super::exit::{Failure, Outcome};
use super::input;
use super::key::KeyArgs;

#[derive(Debug, clap::Args)]
#[command(
    allow_negative_numbers = true,
    group = ArgGroup::new("expected").required(true).args(["version", "absent"]),
    after_help = "\
Exits with 1 if the key has another version by now; read it again then, and decide anew. The new \
value lives for ever, or as long as --default-ttl says, however long the old one had to live.

Examples:
  crabkv get stock --json            # {\"key\":\"stock\",\"value\":\"5\",\"version\":17}
  crabkv cas stock --version 17 4
  crabkv cas leader --absent node-a  # only the first one gets it"
)]
pub(crate) struct CasArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// The value; `-` for what comes from stdin, `@FILE` for a file's content
    #[arg(value_parser = bytes())]
    value: Bytes,
    /// The version that the key has to have, as `get --json` shows it
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// The key is to have no value yet; makes the store if there is none
    #[arg(long)]
    absent: bool,
    /// Take a value as it stands that is `-` or begins with `@`
    #[arg(long)]
    literal: bool,
}

pub(crate) fn run(context: &Context, args: &CasArgs) -> Result<Outcome, Failure> {
    let key = args.key.decode()?;
    let value = input::value(&args.value, args.literal, args.key.encoding)?;
    let expected = args.version.map(SeqNo::new);
    let if_missing = if args.absent {
        IfMissing::Create
    } else {
        IfMissing::Fail
    };
    context.write(if_missing, |store| {
        match store.compare_and_swap(&key, expected, &value) {
            Ok(()) => Ok(Outcome::Done),
            // A condition that is false, and no failure.
            Err(conflict @ Error::Conflict { .. }) => Ok(Outcome::False(conflict.to_string())),
            Err(error) => Err(error.into()),
        }
    })
}
