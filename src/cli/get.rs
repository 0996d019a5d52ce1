//! `get`: the value, byte for byte.

use std::io::Write as _;
use std::path::PathBuf;

use super::args::{Bytes, bytes};
use super::confirm::Consent;
use super::context::Context;
use super::encoding::EncodingArgs;
use super::entry;
use super::exit::{Failure, Outcome};
use super::file::NewFile;
use super::output;

#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct GetArgs {
    /// The key; after `--` it may begin with a dash
    #[arg(value_parser = bytes())]
    key: Bytes,
    /// Write the value to a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    out: Option<PathBuf>,
    #[command(flatten)]
    encoding: EncodingArgs,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(context: &Context, args: &GetArgs) -> Result<Outcome, Failure> {
    let key = args.encoding.decode(&args.key)?;
    // The value outlives the store.
    let Some(value) = context.read(|store| Ok(store.get(&key)?))? else {
        return Ok(Outcome::Absent(key));
    };
    if let Some(path) = &args.out {
        let mut file = NewFile::create(path, args.consent)?;
        let written = file.writer().write_all(&args.encoding.encode(&value));
        written.map_err(|source| file.failure(source))?;
        file.commit()?;
    } else if context.options.json {
        output::write_json(&entry::described(&key, &value))?;
    } else if args.encoding.is_plain() {
        output::write_value(&value)?;
    } else {
        output::write_text(&(args.encoding.shown(&value) + "\n"))?;
    }
    Ok(Outcome::Done)
}
