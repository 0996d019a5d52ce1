//! `put`: silent when it is done, and durable then.

use std::io::{self, Read};

use crabkv::MAX_VALUE_LEN;

use super::args::{PutArgs, StoreArgs};
use super::exit::{Failure, Outcome};
use super::open::{IfMissing, with_store};

pub(crate) fn run(store: &StoreArgs, args: PutArgs) -> Result<Outcome, Failure> {
    // Before the store is opened: the other end of the pipe may be slow, or another crabkv.
    let value = match args.value {
        Some(value) => value.0,
        None => read_value(&mut io::stdin().lock())?,
    };
    with_store(store, IfMissing::Create, |store| {
        match args.ttl {
            Some(ttl) => store.put_with_ttl(&args.key.0, &value, ttl)?,
            None => store.put(&args.key.0, &value)?,
        }
        Ok(Outcome::Done)
    })
}

fn read_value(input: &mut impl Read) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    input
        .take(MAX_VALUE_LEN as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|source| Failure::Stdio {
            op: "read standard input",
            source,
        })?;
    if value.len() > MAX_VALUE_LEN {
        return Err(Failure::Usage(format!(
            "what comes from standard input is too long: a value has at most {MAX_VALUE_LEN} bytes"
        )));
    }
    Ok(value)
}
