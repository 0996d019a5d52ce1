//! `count`: how many keys have a value, exactly.

use serde_json::json;

use super::args::{Bytes, bytes};
use super::context::Context;
use super::encoding::EncodingArgs;
use super::exit::{Failure, Outcome};
use super::progress::Progress;

/// Keys from one movement of the bar to the next.
const STEP: u64 = 1024;

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct CountArgs {
    /// Only keys that begin with this; every key is looked at all the same
    #[arg(long, value_parser = bytes())]
    prefix: Option<Bytes>,
    #[command(flatten)]
    encoding: EncodingArgs,
}

pub(crate) fn run(context: &Context, args: &CountArgs) -> Result<Outcome, Failure> {
    let prefix = args.prefix.as_ref();
    let prefix = prefix.map(|prefix| args.encoding.decode(prefix));
    let prefix = prefix.transpose()?.unwrap_or_default();
    let count = context.read(|store| {
        let stats = store.stats();
        if prefix.is_empty() && !stats.may_have_expired {
            return Ok(stats.keys);
        }
        // Of a prefix there is no telling how many keys come before the next that has it.
        let total = if prefix.is_empty() { stats.keys } else { 0 };
        let bar = Progress::of_items(context, "counting", total);
        let mut count = 0;
        for entry in store.scan_prefix(&prefix) {
            entry?;
            count += 1;
            if count % STEP == 0 {
                bar.set(count);
            }
        }
        Ok(count)
    })?;
    context.report(|| format!("{count}\n"), || json!({ "count": count }))?;
    Ok(Outcome::Done)
}
