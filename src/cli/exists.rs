//! `exists`: an exit code.

use serde_json::json;

use super::context::Context;
use super::exit::{Failure, Outcome};
use super::key::KeyArgs;
use super::output;

#[derive(Debug, clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Example:\n  if crabkv exists lock; then echo \"somebody has it\"; fi"
)]
pub(crate) struct ExistsArgs {
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) fn run(context: &Context, args: &ExistsArgs) -> Result<Outcome, Failure> {
    let key = args.key.decode()?;
    let exists = context.read(|store| Ok(store.contains_key(&key)?))?;
    if context.options.json {
        output::write_json(&json!({ "exists": exists }))?;
    }
    Ok(if exists {
        Outcome::Done
    } else {
        Outcome::False(String::new())
    })
}
