//! `delete`: silent, and durable when it is done.

use super::args::{Bytes, bytes};
use super::context::{Context, IfMissing};
use super::encoding::EncodingArgs;
use super::exit::{Failure, Outcome};

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct DeleteArgs {
    /// The key; after `--` it may begin with a dash
    #[arg(value_parser = bytes())]
    key: Bytes,
    #[command(flatten)]
    encoding: EncodingArgs,
}

pub(crate) fn run(context: &Context, args: &DeleteArgs) -> Result<Outcome, Failure> {
    let key = args.encoding.decode(&args.key)?;
    context.write(IfMissing::Fail, |store| {
        if store.delete(&key)? {
            Ok(Outcome::Done)
        } else {
            Ok(Outcome::Absent(key.clone()))
        }
    })
}
