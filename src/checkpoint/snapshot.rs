//! What a checkpoint is made of, as it was at one moment.

use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::SeqNo;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::HEADER_LEN;
use crate::segment::Segment;
use crate::segment::scanner::{self, Check};

/// The first `data_len` bytes of a segment, which never change. As long as it is held, the
/// segment's file stays where it is, whatever compaction does.
pub(crate) struct Part<D: Disk> {
    pub(crate) segment: Arc<Segment<D>>,
    pub(crate) data_len: u64,
}

impl<D: Disk> Part<D> {
    pub(crate) fn path(&self) -> &Path {
        self.segment.path()
    }

    /// The bytes, where they are in memory.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        let len = usize::try_from(self.data_len).ok()?;
        self.segment.region()?.slice(0, len)
    }
}

/// A store at one moment: everything in it is durable, and everything that was acknowledged
/// before is in it.
pub(crate) struct Snapshot<D: Disk> {
    /// Names the sealed segments only, and the sequence number after the last.
    pub(crate) manifest: Manifest,
    pub(crate) sealed: Vec<Part<D>>,
    /// The durable part of the segment that is being written to, in memory; none if there is no
    /// record in it.
    pub(crate) tail: Option<Part<D>>,
}

impl<D: Disk> Snapshot<D> {
    /// Puts together what was taken under the store's locks: the manifest as it would be
    /// committed, all segments, and the durable part of the active one.
    ///
    /// # Errors
    ///
    /// When a record of the tail is damaged, or the segments are not those of the manifest.
    pub(crate) fn new(
        mut manifest: Manifest,
        mut sealed: Vec<Part<D>>,
        tail: Option<Part<D>>,
    ) -> Result<Snapshot<D>> {
        manifest
            .segments
            .retain(|(_, state)| matches!(state, SegmentState::Sealed { .. }));
        sealed.sort_unstable_by_key(|part| part.segment.id());
        let named = sealed.iter().map(|part| {
            let data_len = part.data_len;
            (part.segment.id(), SegmentState::Sealed { data_len })
        });
        if !named.eq(manifest.segments.iter().copied()) {
            return Err(Error::Panicked);
        }
        if let Some(tail) = &tail {
            manifest.next_seq = next_seq(tail)?;
        }
        Ok(Snapshot {
            manifest,
            sealed,
            tail: tail.filter(|tail| tail.data_len > HEADER_LEN as u64),
        })
    }

    /// The highest sequence number that is in it.
    pub(crate) fn last(&self) -> SeqNo {
        SeqNo(self.manifest.next_seq.0.saturating_sub(1))
    }
}

/// The sequence number after the last of an active segment's durable records.
fn next_seq<D: Disk>(tail: &Part<D>) -> Result<SeqNo> {
    let header = tail.segment.header();
    let bytes = tail.bytes().ok_or(Error::Exhausted {
        what: "memory for the active segment",
    })?;
    let mut next = header.base_seq;
    let end = scanner::scan(
        bytes,
        header,
        HEADER_LEN as u64,
        Check::Appended,
        |_, record| next = SeqNo(record.seq(header.base_seq).0.saturating_add(1)),
    );
    match end.problem {
        Some(problem) => Err(tail.segment.damage(end.end, &problem)),
        None => Ok(next),
    }
}
