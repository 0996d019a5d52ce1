//! A segment's records, one on a line.

use std::fmt::Write as _;

use crabkv::SegmentId;
use crabkv::inspect::{DamagedRange, Inspector, Item, Record, RecordInfo};
use serde_json::{Value, json};

use super::no_segment;
use crate::cli::context::Context;
use crate::cli::encoding::EncodingArgs;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::output::Output;
use crate::cli::text;
use crate::cli::units::moment;

/// As much of a key as leaves a line short; there is `--keys` for the rest.
const KEY_COLUMNS: usize = 26;

#[derive(Debug, clap::Args)]
pub(super) struct RecordsArgs {
    /// The segment's number
    id: u64,
    /// Show so many lines at most
    #[arg(short, long, value_name = "N")]
    limit: Option<usize>,
    /// Show long keys in full
    #[arg(long)]
    keys: bool,
    /// Show values, too
    #[arg(long)]
    values: bool,
    #[command(flatten)]
    encoding: EncodingArgs,
}

pub(super) fn run(
    context: &Context,
    inspector: &Inspector,
    args: &RecordsArgs,
) -> Result<Outcome, Failure> {
    let id = SegmentId::new(args.id);
    let Some(records) = inspector.records(id)? else {
        return Ok(no_segment(id));
    };
    let mut output = Output::new();
    if !context.options.json {
        output.write_line(&format!(
            "{:>11} {:>11}  {:<9} {:>10}  {:<5}  key",
            "offset", "seq", "kind", "value", "flags"
        ))?;
    }
    let mut is_damaged = false;
    let limit = args.limit.unwrap_or(usize::MAX);
    for item in records.take(limit) {
        is_damaged |= matches!(item, Item::Damaged(_));
        if context.options.json {
            output.write_json_line(&item_json(&item, args)?)?;
        } else {
            output.write_line(item_text(&item, args)?.trim_end())?;
        }
    }
    output.finish()?;
    Ok(if is_damaged {
        Outcome::Damaged
    } else {
        Outcome::Done
    })
}

fn item_text(item: &Item, args: &RecordsArgs) -> Result<String, Failure> {
    Ok(match item {
        Item::Record(record) => record_text(record, args)?,
        Item::BatchFrame(frame) => format!(
            "{:>11} {:>11}  {:<9} {:>10}  {:<5}  {} in {} bytes",
            frame.offset,
            frame.seq.get(),
            "batch",
            "",
            "",
            frame.records,
            frame.len
        ),
        Item::Damaged(range) => range_text(range, "DAMAGED"),
        Item::TornTail(range) => range_text(range, "torn tail"),
        other => format!("{:>11}  {other:?}", other.offset()),
    })
}

fn range_text(range: &DamagedRange, what: &str) -> String {
    let (offset, len, reason) = (range.offset, range.len, &range.reason);
    format!(
        "{offset:>11} {:>11}  {what:<9} {len:>10} bytes: {reason}",
        ""
    )
}

fn record_text(record: &Record, args: &RecordsArgs) -> Result<String, Failure> {
    let info = &record.info;
    let mut line = format!(
        "{:>11} {:>11}  {:<9} {:>10}  {:<5}  {}",
        info.offset,
        info.seq.get(),
        info.kind,
        value_len(info),
        flags(info),
        shown_key(record.key(), args)
    );
    if let Some(at_ms) = info.expires_at_ms {
        let _ = write!(line, "  expires {}", moment(at_ms));
    }
    if args.values {
        if let Some(value) = record.value()? {
            let _ = write!(line, "  {}", args.encoding.shown(&value));
        }
    }
    Ok(line)
}

fn shown_key(key: &[u8], args: &RecordsArgs) -> String {
    let shown = args.encoding.shown(key);
    if args.keys || shown.chars().count() <= KEY_COLUMNS {
        return shown;
    }
    let begin: String = shown.chars().take(KEY_COLUMNS - 3).collect();
    begin + "..."
}

/// How long a value is, in bytes; of a tombstone nothing.
pub(super) fn value_len(info: &RecordInfo) -> String {
    match info.kind {
        crabkv::inspect::RecordKind::Tombstone => "-".to_owned(),
        _ => info.value_len.map_or("?".to_owned(), |len| len.to_string()),
    }
}

/// `b`: of a batch, `c`: compressed, `h`: another key has the same hash.
pub(super) fn flags(info: &RecordInfo) -> String {
    [
        (info.batched, 'b'),
        (info.compressed, 'c'),
        (info.collides, 'h'),
    ]
    .map(|(is_set, letter)| if is_set { letter } else { '-' })
    .iter()
    .collect()
}

fn item_json(item: &Item, args: &RecordsArgs) -> Result<Value, Failure> {
    Ok(match item {
        Item::Record(record) => {
            let mut object = json!({ "type": "record" });
            info_json(&mut object, &record.info);
            object["key"] = text::json_bytes(record.key());
            if args.values {
                let value = record.value()?;
                object["value"] = value.map_or(Value::Null, |value| text::json_bytes(&value));
            }
            object
        }
        Item::BatchFrame(frame) => json!({
            "type": "batch_frame",
            "offset": frame.offset,
            "len": frame.len,
            "seq": frame.seq.get(),
            "records": frame.records,
            "checksum_ok": true,
        }),
        Item::Damaged(range) => range_json(range, "damaged"),
        Item::TornTail(range) => range_json(range, "torn_tail"),
        other => json!({ "type": "other", "offset": other.offset() }),
    })
}

fn range_json(range: &DamagedRange, what: &str) -> Value {
    json!({
        "type": what,
        "offset": range.offset,
        "len": range.len,
        "checksum_ok": false,
        "reason": range.reason,
    })
}

/// Adds what a record's header says.
pub(super) fn info_json(object: &mut Value, info: &RecordInfo) {
    object["offset"] = json!(info.offset);
    object["len"] = json!(info.len);
    object["seq"] = json!(info.seq.get());
    object["kind"] = json!(info.kind.to_string());
    object["key_len"] = json!(info.key_len);
    object["value_len"] = json!(info.value_len);
    object["stored_len"] = json!(info.stored_len);
    object["compressed"] = json!(info.compressed);
    object["batched"] = json!(info.batched);
    object["collides"] = json!(info.collides);
    object["expires_at_ms"] = json!(info.expires_at_ms);
    object["durable_upto"] = json!(info.durable_upto);
    object["checksum_ok"] = json!(true);
}
