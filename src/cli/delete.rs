//! `delete`: silent, and durable when it is done.

use super::context::{Context, IfMissing};
use super::exit::{Failure, Outcome};
use super::key::KeyArgs;

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) fn run(context: &Context, args: &DeleteArgs) -> Result<Outcome, Failure> {
    let key = args.key.decode()?;
    context.write(IfMissing::Fail, |store| {
        if store.delete(&key)? {
            Ok(Outcome::Done)
        } else {
            Ok(Outcome::Absent(key.clone()))
        }
    })
}
