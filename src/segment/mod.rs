//! One segment file: written by [`writer`] (or, by a merge, [`output`]), read by [`reader`], walked
//! by [`scanner`], summed up by [`hint`]; past what is damaged by [`salvage`].
//!
//! Owns what is inside one file. Knows nothing of the other segments, the manifest or the index.

pub(crate) mod hint;
pub(crate) mod output;
pub(crate) mod reader;
pub(crate) mod salvage;
pub(crate) mod scanner;
pub(crate) mod writer;

pub use reader::ReadMode;
pub(crate) use reader::Segment;
pub(crate) use writer::SegmentWriter;
