//! `delete`: silent, and durable when it is done.

use std::collections::HashSet;

use crabkv::{Store, WriteBatch};

use super::args::{Bytes, bytes};
use super::context::{Context, IfMissing};
use super::encoding::EncodingArgs;
use super::exit::{Failure, Outcome};
use super::text;

#[derive(Debug, clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
Several keys are deleted together, or none of them if that fails. Exits with 1 if any of them had \
no value; the others are deleted all the same.

Examples:
  crabkv delete user:1
  crabkv keys --prefix tmp: --null | xargs -0 -r crabkv delete --"
)]
pub(crate) struct DeleteArgs {
    /// The keys; after `--` they may begin with a dash
    #[arg(value_name = "KEY", required = true, value_parser = bytes())]
    keys: Vec<Bytes>,
    #[command(flatten)]
    encoding: EncodingArgs,
}

pub(crate) fn run(context: &Context, args: &DeleteArgs) -> Result<Outcome, Failure> {
    let keys: Result<Vec<_>, _> = args
        .keys
        .iter()
        .map(|key| args.encoding.decode(key))
        .collect();
    let keys = keys?;
    context.write(IfMissing::Fail, |store| match keys.as_slice() {
        [key] if store.delete(key)? => Ok(Outcome::Done),
        [key] => Ok(Outcome::Absent(key.clone())),
        keys => delete_all(store, keys),
    })
}

/// Deletes all that are there, in one batch.
fn delete_all(store: &Store, keys: &[Vec<u8>]) -> Result<Outcome, Failure> {
    let mut batch = WriteBatch::new();
    let mut absent = Vec::new();
    let mut seen = HashSet::new();
    for key in keys.iter().filter(|key| seen.insert(key.as_slice())) {
        if store.contains_key(key)? {
            batch.delete(key)?;
        } else {
            absent.push(key);
        }
    }
    store.write(&batch)?;
    Ok(match absent.as_slice() {
        [] => Outcome::Done,
        [key] => Outcome::Absent((*key).clone()),
        [key, others @ ..] => Outcome::False(format!(
            "no value for the key {} and {} more",
            text::quoted(key),
            others.len()
        )),
    })
}
