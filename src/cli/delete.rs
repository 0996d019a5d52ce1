//! `delete`: silent, and durable when it is done.

use super::args::{KeyArgs, StoreArgs};
use super::exit::{Failure, Outcome};
use super::open::{IfMissing, with_store};

pub(crate) fn run(store: &StoreArgs, args: KeyArgs) -> Result<Outcome, Failure> {
    with_store(store, IfMissing::Fail, |store| {
        if store.delete(&args.key.0)? {
            Ok(Outcome::Done)
        } else {
            Ok(Outcome::Absent(args.key))
        }
    })
}
