//! Opening the store that the command line names, and closing it again.

use std::num::NonZeroUsize;

use crabkv::{Error, Store};

use super::args::StoreArgs;
use super::exit::{Failure, Outcome, say};

/// What to do when there is no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMissing {
    Create,
    Fail,
}

/// Opens the store, does `work` with it, and closes it.
pub(crate) fn with_store(
    args: &StoreArgs,
    if_missing: IfMissing,
    work: impl FnOnce(&Store) -> Result<Outcome, Failure>,
) -> Result<Outcome, Failure> {
    let store = open(args, if_missing)?;
    warn_of_torn_tail(&store);
    let outcome = work(&store)?;
    if let Err(error) = store.close() {
        // What was asked for is done and durable all the same.
        say(format_args!(
            "warning: {} was not closed in good order, opening it again will take a little \
             longer: {error}",
            store.dir().display()
        ));
    }
    Ok(outcome)
}

fn open(args: &StoreArgs, if_missing: IfMissing) -> Result<Store, Error> {
    let mut builder =
        Store::builder(&args.data_dir).create_if_missing(if_missing == IfMissing::Create);
    if let Some(values) = NonZeroUsize::new(args.cache_capacity) {
        builder = builder.cache_capacity(values);
    }
    if let Some(ttl) = args.default_ttl {
        builder = builder.default_ttl(ttl);
    }
    builder.build_store()
}

fn warn_of_torn_tail(store: &Store) {
    if let Some(torn) = &store.recovery_report().torn_tail {
        say(format_args!(
            "warning: a crash interrupted the last write: {} bytes that were never acknowledged \
             were cut off segment {} at offset {}; a copy is in {}, delete it at will",
            torn.len,
            torn.segment,
            torn.offset,
            torn.saved_to.display()
        ));
    }
}
