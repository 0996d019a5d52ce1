//! `incr`: counts, and says where it has come to.

use serde_json::json;

use super::context::{Context, IfMissing};
use super::exit::{Failure, Outcome};
use super::key::KeyArgs;

#[derive(Debug, clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
A key without a value counts as 0; makes the store if there is none. How long the value has to \
live stays as it is.

Example:
  crabkv incr stock:apples --by -3"
)]
pub(crate) struct IncrArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// How much to add; less than 0 to subtract
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    by: i64,
}

pub(crate) fn run(context: &Context, args: &IncrArgs) -> Result<Outcome, Failure> {
    let key = args.key.decode()?;
    let sum = context.write(IfMissing::Create, |store| {
        Ok(store.increment(&key, args.by)?)
    })?;
    context.report(|| format!("{sum}\n"), || json!({ "value": sum }))?;
    Ok(Outcome::Done)
}
