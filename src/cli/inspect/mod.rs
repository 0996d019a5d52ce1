//! `inspect`: what lies in the files of a store, as it lies there. Opens no store: it works beside a
//! writer and on a damaged one, whose damage it shows.

mod history;
mod manifest;
mod records;
mod segments;

use crabkv::SegmentId;
use crabkv::inspect::Inspector;

use super::args::{Bytes, bytes};
use super::context::Context;
use super::encoding::EncodingArgs;
use super::exit::{Failure, Outcome};
use records::RecordsArgs;

#[derive(Debug, clap::Args)]
#[command(subcommand_value_name = "WHAT", subcommand_help_heading = "What")]
pub(crate) struct InspectArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Show every version of a key that is still on the disk, newest first
    #[arg(long, value_name = "KEY", value_parser = bytes(), allow_hyphen_values = true)]
    history: Option<Bytes>,
    #[command(flatten)]
    encoding: EncodingArgs,
}

/// What to look at; without any, manifest and segments.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// The manifest
    Manifest,
    /// Each segment's header, footer and hint file, without reading its records
    Segments,
    /// A segment's records, one on a line, and what is damaged between them
    Segment(RecordsArgs),
    /// A segment's hint file: an entry for each record, by hash
    Hint(HintArgs),
}

#[derive(Debug, clap::Args)]
struct HintArgs {
    /// The segment's number
    id: u64,
    /// Show so many entries at most
    #[arg(short, long, value_name = "N")]
    limit: Option<usize>,
}

pub(crate) fn run(context: &Context, args: &InspectArgs) -> Result<Outcome, Failure> {
    if args.history.is_some() && args.what.is_some() {
        let message = "--history is by itself: it looks through all segments";
        return Err(Failure::Usage(message.to_owned()));
    }
    let inspector = Inspector::open(&context.options.data_dir)?;
    if let Some(key) = &args.history {
        let key = args.encoding.decode(key)?;
        return history::run(context, &inspector, key, args.encoding);
    }
    match &args.what {
        None => overview(context, &inspector),
        Some(What::Manifest) => manifest::run(context, &inspector),
        Some(What::Segments) => segments::run(context, &inspector),
        Some(What::Segment(args)) => records::run(context, &inspector, args),
        Some(What::Hint(args)) => {
            segments::hint(context, &inspector, SegmentId::new(args.id), args.limit)
        }
    }
}

/// Manifest and segments.
fn overview(context: &Context, inspector: &Inspector) -> Result<Outcome, Failure> {
    let segments = inspector.segments()?;
    let text = || {
        let mut text = manifest::text(inspector);
        if !segments.is_empty() {
            text.push('\n');
            text += &segments::text(&segments);
        }
        text
    };
    let json = || {
        serde_json::json!({
            "manifest": manifest::json(inspector),
            "segments": segments.iter().map(segments::json).collect::<Vec<_>>(),
        })
    };
    context.report(text, json)?;
    let is_sound = inspector.manifest().is_ok() && segments.iter().all(segments::is_sound);
    Ok(if is_sound {
        Outcome::Done
    } else {
        Outcome::Damaged
    })
}

fn no_segment(id: SegmentId) -> Outcome {
    Outcome::False(format!(
        "there is no segment {id}; inspect segments lists those there are"
    ))
}
