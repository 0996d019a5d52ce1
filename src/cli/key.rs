//! The key that a verb is about.

use super::args::{Bytes, bytes};
use super::encoding::EncodingArgs;
use super::exit::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    /// The key; after `--` it may begin with a dash
    #[arg(value_parser = bytes())]
    key: Bytes,
    #[command(flatten)]
    pub(crate) encoding: EncodingArgs,
}

impl KeyArgs {
    /// The key, decoded.
    pub(crate) fn decode(&self) -> Result<Vec<u8>, Failure> {
        self.encoding.decode(&self.key)
    }
}
