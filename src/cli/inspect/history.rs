//! Every version of a key that is still on the disk.

use std::fmt::Write as _;

use crabkv::inspect::{Inspector, Version};
use serde_json::{Value, json};

use super::manifest::{damage_json, damaged};
use super::records::{flags, info_json, value_len};
use crate::cli::context::Context;
use crate::cli::encoding::EncodingArgs;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::output::{self, Output};
use crate::cli::text;
use crate::cli::units::moment;

pub(super) fn run(
    context: &Context,
    inspector: &Inspector,
    key: Vec<u8>,
    encoding: EncodingArgs,
) -> Result<Outcome, Failure> {
    let history = inspector.history(&key)?;
    if context.options.json {
        let mut output = Output::new();
        for version in &history.versions {
            output.write_json_line(&version_json(&key, version))?;
        }
        for damage in &history.damage {
            output.write_json_line(&json!({ "damage": damage_json(damage) }))?;
        }
        output.finish()?;
    } else {
        let mut shown = String::new();
        if !history.versions.is_empty() {
            shown = table(&encoding.shown(&key), &history.versions);
        }
        for damage in &history.damage {
            shown += &damaged(damage);
        }
        output::write_text(&shown)?;
    }
    Ok(if !history.damage.is_empty() {
        Outcome::Damaged
    } else if history.versions.is_empty() {
        Outcome::Absent(key)
    } else {
        Outcome::Done
    })
}

fn table(key: &str, versions: &[Version]) -> String {
    let mut table = format!(
        "{key}\n{:>11}  {:<7}  {:<9} {:>10} {:>8} {:>11}  flags\n",
        "seq", "state", "kind", "value", "segment", "offset"
    );
    for version in versions {
        let info = &version.record;
        let _ = write!(
            table,
            "{:>11}  {:<7}  {:<9} {:>10} {:>8} {:>11}  {}",
            info.seq.get(),
            version.state,
            info.kind,
            value_len(info),
            version.segment.get(),
            info.offset,
            flags(info),
        );
        if let Some(at_ms) = info.expires_at_ms {
            let _ = write!(table, "  expires {}", moment(at_ms));
        }
        table.push('\n');
    }
    table
}

fn version_json(key: &[u8], version: &Version) -> Value {
    let mut object = json!({
        "key": text::json_bytes(key),
        "segment": version.segment.get(),
        "state": version.state.to_string(),
    });
    info_json(&mut object, &version.record);
    object
}
