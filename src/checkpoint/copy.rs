//! Copies of files, verified on the way: a copy must not pass damage on.

use std::path::{Path, PathBuf};

use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{SegmentId, names};
use crate::log::checkpoint_file::create_tmp;
use crate::progress::Meter;
use crate::recovery::Source;
use crate::segment::scanner::{self, Check};

/// How much is read and written at a time: 1 MiB.
const CHUNK_LEN: u64 = 1 << 20;

/// Copies a sealed segment, with its header, footer and the checksum of all its data verified;
/// gives its footer. The copy is durable before it gets its name.
pub(crate) fn sealed<D: Disk>(
    source: &Source<'_, D>,
    id: SegmentId,
    data_len: u64,
    to: &Path,
    meter: &mut Meter<'_>,
) -> Result<SegmentFooter> {
    let (path, file, header) = source.open(id, OpenMode::Read)?;
    let footer = read_footer(&file, &path, data_len)?;
    let name = names::segment(id);
    whole_file(source.disk, to, &name, |out, tmp| {
        let mut checksum = crc32fast::Hasher::new();
        let mut chunk = Vec::new();
        let mut offset = 0;
        while offset < data_len {
            chunk.resize((data_len - offset).min(CHUNK_LEN) as usize, 0);
            file.read_at(&mut chunk, offset)
                .map_err(|e| Error::io("read", &path, e))?;
            checksum.update(&chunk);
            out.write_at(&chunk, offset)
                .map_err(|e| Error::io("write", tmp, e))?;
            offset += chunk.len() as u64;
            meter.reach(offset)?;
        }
        if checksum.finalize() != footer.data_checksum {
            return Err(find_damage(&file, &path, &header, data_len));
        }
        out.write_at(&footer.encode(), data_len)
            .map_err(|e| Error::io("write", tmp, e))
    })?;
    Ok(footer)
}

/// Copies a segment that was closed in good order without being sealed, with every record
/// verified.
pub(crate) fn closed<D: Disk>(
    source: &Source<'_, D>,
    id: SegmentId,
    data_len: u64,
    to: &Path,
) -> Result<()> {
    let (path, file, header) = source.open(id, OpenMode::Read)?;
    let bytes = read_data(&file, &path, data_len)?;
    let from = HEADER_LEN as u64;
    let end = scanner::scan(&bytes, &header, from, Check::Appended, |_, _| ());
    if let Some(problem) = end.problem {
        return Err(Error::corrupt(&path, end.end, problem.to_string()));
    }
    let name = names::segment(id);
    whole_file(source.disk, to, &name, |out, tmp| {
        out.write_at(&bytes, 0)
            .map_err(|e| Error::io("write", tmp, e))
    })
}

/// Copies a hint file, if there is one. It is not trusted by whoever reads it, so it is not
/// verified here.
pub(crate) fn hint<D: Disk>(disk: &D, from: &Path, to: &Path, id: SegmentId) -> Result<()> {
    let name = names::hint(id);
    let path = from.join(&name);
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("open", &path, e)),
    };
    let len = file.len().map_err(|e| Error::io("read", &path, e))?;
    let bytes = read_data(&file, &path, len)?;
    whole_file(disk, to, &name, |out, tmp| {
        out.write_at(&bytes, 0)
            .map_err(|e| Error::io("write", tmp, e))
    })
}

/// Writes a file that is durable, but for its name, before it has its name.
fn whole_file<D: Disk>(
    disk: &D,
    dir: &Path,
    name: &str,
    write: impl FnOnce(&D::File, &Path) -> Result<()>,
) -> Result<()> {
    let tmp = dir.join(names::CHECKPOINT_TMP);
    let file = create_tmp(disk, dir).map_err(|e| Error::io("create", &tmp, e))?;
    let sync = |()| {
        if is_planted(Bug::NameUnsyncedCopy) {
            return Ok(());
        }
        file.sync_data().map_err(|e| Error::io("sync", &tmp, e))
    };
    let written = write(&file, &tmp).and_then(sync);
    // Windows does not rename what is open.
    drop(file);
    let path: PathBuf = dir.join(name);
    let renamed = written.and_then(|()| {
        disk.rename(&tmp, &path)
            .map_err(|e| Error::io("name", &path, e))
    });
    if renamed.is_err() {
        let _ = disk.unlink(&tmp);
    }
    renamed
}

/// Reads the footer of a sealed segment.
pub(crate) fn read_footer<F: DiskFile>(
    file: &F,
    path: &Path,
    data_len: u64,
) -> Result<SegmentFooter> {
    let mut bytes = [0; FOOTER_LEN];
    match file.read_at(&mut bytes, data_len) {
        Ok(()) => SegmentFooter::decode(&bytes, data_len)
            .map_err(|reason| Error::invalid(path, data_len, "segment footer", &reason)),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            let len = file.len().map_err(|e| Error::io("read", path, e))?;
            let reason = format!("the file has {len} bytes, its footer should end later");
            Err(Error::corrupt(path, len.min(data_len), reason))
        }
        Err(e) => Err(Error::io("read", path, e)),
    }
}

fn read_data<F: DiskFile>(file: &F, path: &Path, len: u64) -> Result<Vec<u8>> {
    let file_len = file.len().map_err(|e| Error::io("read", path, e))?;
    if file_len < len {
        let reason = format!("the file has {file_len} bytes, its records end at {len}");
        return Err(Error::corrupt(path, file_len, reason));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_at(&mut bytes, 0)
        .map_err(|e| Error::io("read", path, e))?;
    Ok(bytes)
}

/// Where the damage is that the checksum of all data has shown.
fn find_damage<F: DiskFile>(file: &F, path: &Path, header: &SegmentHeader, data_len: u64) -> Error {
    let bytes = match read_data(file, path, data_len) {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    let end = scanner::scan(&bytes, header, HEADER_LEN as u64, Check::Sealed, |_, _| ());
    match end.problem {
        Some(problem) => Error::corrupt(path, end.end, problem.to_string()),
        None => Error::corrupt(
            path,
            data_len,
            "the footer does not fit the records before it",
        ),
    }
}
