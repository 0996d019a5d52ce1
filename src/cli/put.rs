//! `put`: silent when it is done, and durable then.

use std::time::Duration;

use super::args::{Bytes, bytes};
use super::context::{Context, IfMissing};
use super::encoding::EncodingArgs;
use super::exit::{Failure, Outcome};
use super::{input, units};

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct PutArgs {
    /// The key; after `--` it may begin with a dash
    #[arg(value_parser = bytes())]
    key: Bytes,
    /// The value; `-` for what comes from stdin, `@FILE` for a file's content
    #[arg(value_parser = bytes())]
    value: Bytes,
    /// Let the value expire after this long: 30, 45s, 1h30m
    #[arg(long, value_name = "DURATION", value_parser = units::parse_ttl, allow_negative_numbers = true)]
    ttl: Option<Duration>,
    /// Take a value as it stands that is `-` or begins with `@`
    #[arg(long)]
    literal: bool,
    #[command(flatten)]
    encoding: EncodingArgs,
}

pub(crate) fn run(context: &Context, args: &PutArgs) -> Result<Outcome, Failure> {
    let key = args.encoding.decode(&args.key)?;
    // Before the store is opened: the other end of the pipe may be slow, or another crabkv.
    let value = input::value(&args.value, args.literal, args.encoding)?;
    context.write(IfMissing::Create, |store| {
        match args.ttl {
            Some(ttl) => store.put_with_ttl(&key, &value, ttl)?,
            None => store.put(&key, &value)?,
        }
        Ok(Outcome::Done)
    })
}
