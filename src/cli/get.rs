//! `get`: the value, byte for byte.

use super::args::{KeyArgs, StoreArgs};
use super::exit::{Failure, Outcome};
use super::open::{IfMissing, with_store};
use super::output;

pub(crate) fn run(store: &StoreArgs, args: KeyArgs) -> Result<Outcome, Failure> {
    let mut value = None;
    with_store(store, IfMissing::Fail, |store| {
        value = store.get(&args.key.0)?;
        Ok(Outcome::Done)
    })?;
    // The value outlives the store, which is free for others while a slow reader takes its time.
    match value {
        Some(value) => output::write_value(&value).map(|()| Outcome::Done),
        None => Ok(Outcome::Absent(args.key)),
    }
}
