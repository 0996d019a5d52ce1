//! `ttl`, `expire` and `persist`: when a key goes by itself.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::context::{Context, IfMissing};
use super::exit::{Failure, Outcome};
use super::key::KeyArgs;
use super::{entry, text, units};

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct TtlArgs {
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) fn run_ttl(context: &Context, args: &TtlArgs) -> Result<Outcome, Failure> {
    let key = args.key.decode()?;
    let Some(value) = context.read(|store| Ok(store.get(&key)?))? else {
        return Ok(Outcome::Absent(key));
    };
    let left = entry::time_left(&value);
    context.report(
        || left.map_or_else(|| "none".to_owned(), units::duration) + "\n",
        || json!({ "ttl_ms": left.map(|left| left.as_millis() as u64) }),
    )?;
    Ok(Outcome::Done)
}

#[derive(Debug, clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
Examples:
  crabkv expire session:7 1h30m
  crabkv expire offer --at 2030-01-01T00:00:00Z"
)]
pub(crate) struct ExpireArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// How long it is to live from now on: 30, 45s, 1h30m
    #[arg(
        value_name = "DURATION",
        value_parser = units::parse_ttl,
        required_unless_present = "at",
        conflicts_with = "at"
    )]
    ttl: Option<Duration>,
    /// When it is to go, in UTC: 2030-01-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<SystemTime>,
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}; write a time as 2030-01-01T00:00:00Z, in UTC"))
}

pub(crate) fn run_expire(context: &Context, args: &ExpireArgs) -> Result<Outcome, Failure> {
    let key = args.key.decode()?;
    if let Some(at) = args.at.filter(|at| *at <= SystemTime::now()) {
        // More likely a mistake than a wish to delete it.
        let at = humantime::format_rfc3339_seconds(at);
        let message = format!("{at} has passed; use delete if the key is to go now");
        return Err(Failure::Usage(message));
    }
    let found = context.write(IfMissing::Fail, |store| match (args.ttl, args.at) {
        (Some(ttl), _) => Ok(store.touch(&key, ttl)?),
        (None, Some(at)) => Ok(store.expire_at(&key, at)?),
        (None, None) => Err(Failure::Usage("give a duration or --at".to_owned())),
    })?;
    Ok(if found {
        Outcome::Done
    } else {
        Outcome::Absent(key)
    })
}

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct PersistArgs {
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) fn run_persist(context: &Context, args: &PersistArgs) -> Result<Outcome, Failure> {
    let key = args.key.decode()?;
    context.write(IfMissing::Fail, |store| {
        if store.persist(&key)? {
            return Ok(Outcome::Done);
        }
        if store.contains_key(&key)? {
            let shown = text::quoted(&key);
            return Ok(Outcome::False(format!("the key {shown} never expires")));
        }
        Ok(Outcome::Absent(key.clone()))
    })
}
