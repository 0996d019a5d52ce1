//! A file's bytes in memory, also where the system can read only some of them.
//!
//! Not a map: a block that cannot be read is an error here, and a signal there.

use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::path::Path;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::is_refusal;

/// How many bytes are given up at a time where the system cannot read: a block of most disks.
const BLOCK_LEN: usize = 4096;
const _: () = assert!(PIECE_LEN % BLOCK_LEN == 0);
/// How many bytes are read between two looks at whether to go on: 4 MiB.
const PIECE_LEN: usize = 4 << 20;
/// No segment is longer: the last record begins below 4 GiB, and a batch takes 1 GiB at most.
const MAX_LEN: u64 = 6 << 30;

/// A file as far as it can be read.
pub(crate) struct FileBytes {
    /// Zeros where the system could not read.
    pub(crate) bytes: Vec<u8>,
    /// The file's length, which may be beyond what was asked for.
    pub(crate) file_len: u64,
    /// Where the system could not read, and what it said.
    pub(crate) unreadable: Vec<Unreadable>,
    /// Why the system did not even try to read a part of them, the first time.
    pub(crate) refused: Option<io::Error>,
}

/// Bytes that the system could not read.
pub(crate) struct Unreadable {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) reason: String,
}

/// Reads the first `most` bytes of a file, or all there are; `None` where there is no such file.
pub(crate) fn read<D: Disk>(disk: &D, path: &Path, most: u64) -> io::Result<Option<FileBytes>> {
    let read = read_telling(disk, path, most, |_| Ok::<_, Infallible>(()));
    read.unwrap_or_else(|never| match never {})
}

/// As [`read`], telling `tell` how many bytes have been read; stops when it fails.
pub(crate) fn read_telling<D: Disk, E>(
    disk: &D,
    path: &Path,
    most: u64,
    mut tell: impl FnMut(u64) -> Result<(), E>,
) -> Result<io::Result<Option<FileBytes>>, E> {
    let (file, mut read) = match open(disk, path, most) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Ok(Ok(None)),
        Err(e) => return Ok(Err(e)),
    };
    let mut start = 0;
    while start < read.bytes.len() {
        let end = read.bytes.len().min(start + PIECE_LEN);
        if file
            .read_at(&mut read.bytes[start..end], start as u64)
            .is_err()
        {
            read.by_blocks(&file, start..end, &mut tell)?;
        }
        tell(end as u64)?;
        start = end;
    }
    Ok(Ok(Some(read)))
}

fn open<D: Disk>(disk: &D, path: &Path, most: u64) -> io::Result<Option<(D::File, FileBytes)>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let file_len = file.len()?;
    let len = usize::try_from(file_len.min(most).min(MAX_LEN)).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    bytes.resize(len, 0);
    Ok(Some((
        file,
        FileBytes {
            bytes,
            file_len,
            unreadable: Vec::new(),
            refused: None,
        },
    )))
}

impl FileBytes {
    /// Reads what can be read of a piece. A file that ends early was cut meanwhile, by its writer.
    fn by_blocks<E>(
        &mut self,
        file: &impl DiskFile,
        piece: Range<usize>,
        tell: &mut impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        for start in piece.clone().step_by(BLOCK_LEN) {
            tell(start as u64)?;
            let block = &mut self.bytes[start..piece.end.min(start + BLOCK_LEN)];
            let Err(error) = file.read_at(block, start as u64) else {
                continue;
            };
            // What a failed read has put there is nobody's.
            block.fill(0);
            if error.kind() == io::ErrorKind::UnexpectedEof {
                let mut len = 0;
                while len < block.len()
                    && file
                        .read_at(&mut block[len..=len], (start + len) as u64)
                        .is_ok()
                {
                    len += 1;
                }
                self.bytes.truncate(start + len);
                self.file_len = self.file_len.min((start + len) as u64);
                break;
            }
            let (start, len) = (start as u64, block.len() as u64);
            if is_refusal(&error) && self.refused.is_none() {
                self.refused = Some(io::Error::new(error.kind(), error.to_string()));
            }
            match self.unreadable.last_mut() {
                Some(last) if last.end == start => last.end += len,
                _ => self.unreadable.push(Unreadable {
                    start,
                    end: start + len,
                    reason: error.to_string(),
                }),
            }
        }
        Ok(())
    }

    /// Whether any of these bytes could not be read.
    pub(crate) fn is_unreadable(&self, start: u64, end: u64) -> bool {
        let overlaps = |bad: &Unreadable| bad.start < end && start < bad.end;
        self.unreadable.iter().any(overlaps)
    }
}
