//! The files of a data directory, read a few bytes at a time: a segment's header and footer, and the
//! state that its files say it is in.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::view::View;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::Error;
use crate::format::hint::{Hint, HintOwner};
use crate::format::manifest::SegmentState;
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{Invalid, SegmentId, names};
use crate::segment::writer::hint_owner;
use crate::verify::{Damage, DamageKind, bytes, state_by_files};

/// What is said of a segment that the manifest names, but that is not there.
pub(super) const MISSING: &str = "the manifest names this segment, but it is missing";

/// Where the files are.
pub(super) struct Source<D> {
    pub(super) disk: D,
    pub(super) dir: PathBuf,
}

/// Why a segment, or a record of it, cannot be shown.
pub(super) enum Fault {
    /// There is no such file.
    Missing,
    Damaged(Damage),
    /// The system failed to open it, or it is of a newer format.
    Failed(Error),
}

/// A segment's file, and its header as far as that is sound.
pub(super) struct SegmentFile<F> {
    pub(super) path: PathBuf,
    file: F,
    pub(super) len: u64,
    pub(super) header: Result<SegmentHeader, Damage>,
}

pub(super) fn damage(file: &Path, offset: u64, kind: DamageKind, reason: &str) -> Damage {
    Damage {
        file: file.to_path_buf(),
        offset,
        kind,
        reason: reason.to_owned(),
    }
}

impl<D> fmt::Debug for Source<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dir.fmt(f)
    }
}

impl<D: Disk> Source<D> {
    pub(super) fn manifest_path(&self) -> PathBuf {
        self.dir.join(names::MANIFEST)
    }

    pub(super) fn segment_path(&self, id: SegmentId) -> PathBuf {
        self.dir.join(names::segment(id))
    }

    pub(super) fn hint_path(&self, id: SegmentId) -> PathBuf {
        self.dir.join(names::hint(id))
    }

    /// Opens a segment and reads its header.
    pub(super) fn open(&self, view: &View, id: SegmentId) -> Result<SegmentFile<D::File>, Fault> {
        let path = self.segment_path(id);
        let opened = self
            .disk
            .open(&path, OpenMode::Read)
            .and_then(|file| Ok((file.len()?, file)));
        let (len, file) = match opened {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Fault::Missing),
            Err(e) => return Err(Fault::Failed(Error::io("open", &path, e))),
        };
        let mut head = [0; HEADER_LEN];
        let header = match file.read_at(&mut head, 0) {
            Ok(()) => header(&head, &path, view, id)?,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(damage(
                &path,
                0,
                DamageKind::SegmentHeader,
                &Invalid::Short.to_string(),
            )),
            Err(e) => Err(damage(&path, 0, DamageKind::Unreadable, &e.to_string())),
        };
        Ok(SegmentFile {
            path,
            file,
            len,
            header,
        })
    }

    /// The state of a segment that no manifest says, by its files.
    pub(super) fn state_by_files(
        &self,
        id: SegmentId,
        header: &SegmentHeader,
    ) -> Option<SegmentState> {
        let file = bytes::read(&self.disk, &self.segment_path(id), u64::MAX);
        let file = file.ok()??;
        let hint = bytes::read(&self.disk, &self.hint_path(id), u64::MAX);
        let hint = hint.ok().flatten().map(|hint| hint.bytes);
        Some(state_by_files(&file.bytes, header, hint.as_deref()))
    }

    /// The hint file of a sealed segment, if it is sound and of this very content.
    pub(super) fn hint(
        &self,
        header: &SegmentHeader,
        footer: &SegmentFooter,
    ) -> Option<Hint<Vec<u8>>> {
        let file = bytes::read(&self.disk, &self.hint_path(header.id), u64::MAX);
        let owner: HintOwner = hint_owner(header, footer);
        Hint::decode(file.ok()??.bytes, &owner).ok()
    }
}

/// A header that is sound and of this segment.
fn header(
    head: &[u8],
    path: &Path,
    view: &View,
    id: SegmentId,
) -> Result<Result<SegmentHeader, Damage>, Fault> {
    let damaged = |reason: &str| Ok(Err(damage(path, 0, DamageKind::SegmentHeader, reason)));
    match SegmentHeader::decode(head) {
        Ok(header)
            if header.id != id || view.store().is_some_and(|store| store != header.store) =>
        {
            let (id, store) = (header.id, header.store);
            damaged(&format!("this is segment {id} of store {store}"))
        }
        Ok(header) => Ok(Ok(header)),
        Err(reason @ (Invalid::Version(_) | Invalid::Features(_)))
            if SegmentHeader::is_intact(head) =>
        {
            let error = Error::invalid(path, 0, "segment header", &reason);
            Err(Fault::Failed(error))
        }
        Err(reason) => damaged(&reason.to_string()),
    }
}

impl<F: DiskFile> SegmentFile<F> {
    /// The footer that stands where the records end.
    pub(super) fn footer(&self, data_len: u64) -> Result<SegmentFooter, Damage> {
        let mut bytes = [0; FOOTER_LEN];
        let damaged = |kind, reason: &str| damage(&self.path, data_len, kind, reason);
        match self.file.read_at(&mut bytes, data_len) {
            Ok(()) => SegmentFooter::decode(&bytes, data_len)
                .map_err(|reason| damaged(DamageKind::Footer, &reason.to_string())),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(damaged(DamageKind::Footer, &Invalid::Short.to_string()))
            }
            Err(e) => Err(damaged(DamageKind::Unreadable, &e.to_string())),
        }
    }
}
