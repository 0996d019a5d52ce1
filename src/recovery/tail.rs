//! The segment that was being written to: continued if it was closed in good order, else ended
//! where its sound records end.
//!
//! After a crash, in this order:
//!
//! 1. Scan. Damage before the end of what was durable is an error, and nothing is touched.
//! 2. Copy the torn tail beside the segment, and sync the copy.
//! 3. Copy what no record proves to be durable into a new segment, and sync that. A crash, or a
//!    failed sync before it, may have left it in the page cache only, as clean pages that no sync
//!    would write. It is not written again in its place: a power cut could tear it there.
//! 4. The manifest says that the segment is sealed where the proof ends, and names the new one.
//!    The next write begins another segment with a new salt.
//! 5. Cut, footer, hint file.
//!
//! A crash up to step 4 leaves a segment that step 1 reads the same way, after it one without a
//! footer, which is scanned and gets it.

use std::path::PathBuf;

use crate::bugs::{Bug, is_planted};
use crate::disk::{AppendBuffer, Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::record::{RECORD_HEADER_LEN, Record};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{Invalid, SegmentId, SeqNo, names};
use crate::recovery::report::TornTail;
use crate::recovery::sealed::{Opened, Source, encode_hint};
use crate::segment::hint::Summary;
use crate::segment::scanner::{self, Behind, Check, ScanEnd};
use crate::segment::writer::{hint_owner, write_hint};
use crate::segment::{Segment, SegmentWriter};

/// A segment that was closed in good order, ready to be continued.
pub(crate) struct Continued<D: Disk> {
    pub(crate) opened: Opened<D>,
    pub(crate) writer: SegmentWriter<D>,
}

/// A segment that a crash left behind.
pub(crate) struct Interrupted<D: Disk> {
    path: PathBuf,
    file: D::File,
    header: SegmentHeader,
    bytes: Vec<u8>,
    scan: ScanEnd,
    /// Up to here, a record's end, later records prove that it is durable.
    proven: u64,
    /// The sequence number after the last.
    next_seq: SeqNo,
    /// The first byte behind the records that is not zero, up to the last one: what is cut.
    torn_len: u64,
}

/// What is still to be written to a segment that ends before its file does.
pub(crate) struct Ending<D: Disk> {
    file: D::File,
    header: SegmentHeader,
    summary: Summary,
    footer: SegmentFooter,
}

impl<D: Disk> Interrupted<D> {
    /// Whether there are records that nothing proves to be durable.
    pub(crate) fn is_unproven(&self) -> bool {
        self.scan.end > self.proven
    }

    /// A sequence number beyond all that the segment can have held before the crash: those of
    /// lost writes, which somebody may have seen as versions, are not given again.
    pub(crate) fn next_seq(&self, segment_size: u64) -> SeqNo {
        let most_bytes = segment_size.max(self.bytes.len() as u64);
        if is_planted(Bug::ReuseSequenceNumbers) {
            return self.next_seq;
        }
        let most_records = most_bytes / RECORD_HEADER_LEN as u64;
        SeqNo(self.next_seq.0.saturating_add(most_records))
    }
}

/// How much is read at a time of a file that may be empty for the most part.
const READ_LEN: usize = 128 << 10;

/// To be compared with.
static ZEROS: [u8; 4096] = [0; 4096];

/// Reads a file whose room was reserved: all of it, and how far it has anything but zeros at most.
/// Memory for what was reserved alone is not touched.
fn read_written(file: &impl DiskFile) -> std::io::Result<(Vec<u8>, usize)> {
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    let (mut part, mut written) = (vec![0; READ_LEN.min(len)], 0);
    for start in (0..len).step_by(READ_LEN) {
        let end = len.min(start + READ_LEN);
        let part = &mut part[..end - start];
        file.read_at(part, start as u64)?;
        if part
            .chunks(ZEROS.len())
            .any(|part| *part != ZEROS[..part.len()])
        {
            bytes[start..end].copy_from_slice(part);
            written = end;
        }
    }
    Ok((bytes, written))
}

/// The end of the last record or frame that a later one says was durable before it.
fn proven_end(bytes: &[u8], scan: &ScanEnd) -> u64 {
    let mut end = HEADER_LEN as u64;
    while let Ok(record) = Record::parse(&bytes[end as usize..scan.end as usize]) {
        let next = end + record.len() as u64;
        if next > scan.synced_upto {
            break;
        }
        end = next;
    }
    end
}

impl<D: Disk> Source<'_, D> {
    /// Reads a segment whose records end at `data_len`, all of them synced.
    pub(crate) fn closed(
        &self,
        id: SegmentId,
        data_len: u64,
        segment_size: u64,
    ) -> Result<Continued<D>> {
        let (path, file, header) = self.open(id, OpenMode::Write)?;
        let file_len = file.len().map_err(|e| Error::io("read", &path, e))?;
        let len = usize::try_from(data_len).unwrap_or(usize::MAX);
        let capacity = (segment_size as usize).max(len + FOOTER_LEN);
        let mut buffer = AppendBuffer::new(capacity).map_err(|e| Error::io("buffer", &path, e))?;
        let read = buffer.append(len, |out| file.read_at(out, 0));
        match read {
            Some(Ok(())) => {}
            Some(Err(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                let reason = format!("the file ends before its records do, at {data_len}");
                return Err(Error::corrupt(&path, data_len, reason));
            }
            Some(Err(e)) => return Err(Error::io("read", &path, e)),
            None => return Err(Error::corrupt(&path, data_len, "an impossible length")),
        }
        if file_len > data_len {
            // The footer of a seal that was interrupted, or room that was reserved. Records are
            // appended only once the manifest says so.
            let mut bytes = vec![0; usize::try_from(file_len).unwrap_or(usize::MAX)];
            file.read_at(&mut bytes, 0)
                .map_err(|e| Error::io("read", &path, e))?;
            let scan = scanner::scan(&bytes, &header, data_len, Check::Sealed, |_, _| ());
            if scan.end > data_len {
                let reason =
                    "there are records behind the end that the manifest, an older one, says";
                return Err(Error::corrupt(&path, data_len, reason));
            }
        }
        let data = buffer.region().tail(0).unwrap_or_default();
        let (summary, end) = Summary::of(data, &header, self.hasher, Check::Appended);
        if let Some(problem) = end.problem {
            return Err(Error::corrupt(&path, end.end, problem.to_string()));
        }
        let owner = hint_owner(&header, &summary.footer_of(data));
        let writer = SegmentWriter::resume(self.disk, path, header, file, buffer);
        let segment = writer.reader();
        let hint = encode_hint(&summary, &owner, &segment)?;
        Ok(Continued {
            opened: Opened {
                segment,
                hint,
                data_len,
                rebuilt: None,
            },
            writer,
        })
    }

    /// Reads a segment that was being written to when the process or the machine died.
    pub(crate) fn interrupted(&self, id: SegmentId) -> Result<Interrupted<D>> {
        let (path, file, header) = self.open(id, OpenMode::Write)?;
        let (bytes, written) = read_written(&file).map_err(|e| Error::io("read", &path, e))?;
        let mut next_seq = header.base_seq;
        let scan = scanner::scan(
            &bytes,
            &header,
            HEADER_LEN as u64,
            Check::Appended,
            |_, record| next_seq = next_seq.max(record.seq(header.base_seq).next()),
        );
        let end = scan.end as usize;
        // A complete footer: the crash came between sealing and the manifest.
        let footer = SegmentFooter::decode(&bytes[end..], scan.end);
        let torn_len = match footer {
            Ok(_) => 0,
            Err(_) => bytes[end..written.max(end)]
                .iter()
                .rposition(|&b| b != 0)
                .map_or(0, |last| last as u64 + 1),
        };
        if torn_len > 0 {
            let behind = scanner::look_ahead(&bytes, &header, scan.end);
            if let Behind::DurableRecord { offset } = behind {
                let problem = scan.problem.as_ref().unwrap_or(&Invalid::Short);
                let reason = format!(
                    "{problem}; the record at {offset} was written after this one was durable, so \
                     this is no torn tail"
                );
                return Err(Error::corrupt(&path, scan.end, reason));
            }
        }
        Ok(Interrupted {
            path,
            file,
            header,
            proven: if is_planted(Bug::TrustUnprovenTail) {
                scan.end
            } else {
                proven_end(&bytes, &scan)
            },
            next_seq,
            bytes,
            scan,
            torn_len,
        })
    }

    /// Saves what will be cut off, if anything.
    pub(crate) fn save_torn_tail(&self, found: &Interrupted<D>) -> Result<Option<TornTail>> {
        if found.torn_len == 0 {
            return Ok(None);
        }
        let end = found.scan.end;
        let cut = &found.bytes[end as usize..(end + found.torn_len) as usize];
        self.save_torn(found.header.id, end, cut).map(Some)
    }

    /// Copies the records that nothing proves to be durable into a sealed segment of their own,
    /// durably but for its name.
    pub(crate) fn copy_unproven(&self, found: &Interrupted<D>, id: SegmentId) -> Result<Opened<D>> {
        let header = SegmentHeader {
            id,
            salt: self.disk.random_u64(),
            ..found.header
        };
        let data = &found.bytes[..found.scan.end as usize];
        let mut writer = SegmentWriter::create_copy(
            self.disk,
            self.dir,
            header,
            (&found.header, data, found.proven),
        )?;
        let (summary, footer) = writer.seal(self.hasher)?;
        // Without its hint file a segment only takes longer to open.
        let _ = write_hint(self.disk, self.dir, &header, &summary, &footer);
        let segment = writer.into_sealed(footer.data_len, self.read_mode);
        let hint = encode_hint(&summary, &hint_owner(&header, &footer), &segment)?;
        Ok(Opened {
            segment,
            hint,
            data_len: footer.data_len,
            rebuilt: None,
        })
    }

    /// An interrupted segment as far as it is proven to be durable, and what is still to be done
    /// to its file; `None` if nothing is.
    pub(crate) fn keep_proven(
        &self,
        found: Interrupted<D>,
    ) -> Result<Option<(Opened<D>, Ending<D>)>> {
        let Interrupted {
            path,
            file,
            header,
            bytes,
            proven,
            ..
        } = found;
        if proven == HEADER_LEN as u64 {
            return Ok(None);
        }
        let data = &bytes[..proven as usize];
        // Its records have been verified.
        let (summary, _) = Summary::of(data, &header, self.hasher, Check::Trusted);
        let footer = summary.footer_of(data);
        let segment = Segment::sealed(self.disk.clone(), path, header, proven, self.read_mode)?;
        let hint = encode_hint(&summary, &hint_owner(&header, &footer), &segment)?;
        let opened = Opened {
            segment,
            hint,
            data_len: proven,
            rebuilt: None,
        };
        let ending = Ending {
            file,
            header,
            summary,
            footer,
        };
        Ok(Some((opened, ending)))
    }

    /// Ends the file of a segment that the manifest says is sealed. Should this fail, the next
    /// open does it.
    pub(crate) fn finish(&self, ending: &Ending<D>) {
        let Ending {
            file,
            header,
            summary,
            footer,
        } = ending;
        let finish = || {
            file.write_at(&footer.encode(), footer.data_len)?;
            file.set_len(footer.data_len + FOOTER_LEN as u64)?;
            file.sync_data()
        };
        if finish().is_ok() {
            let _ = write_hint(self.disk, self.dir, header, summary, footer);
        }
    }

    /// Copies what will be cut off into a file of its own, durably. A copy from an earlier,
    /// interrupted recovery is replaced: it has the same bytes.
    fn save_torn(&self, id: SegmentId, offset: u64, bytes: &[u8]) -> Result<TornTail> {
        let path = self.dir.join(names::torn(id));
        let save = || {
            let file = match self.disk.open(&path, OpenMode::CreateNew) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                    self.disk.open(&path, OpenMode::Write)?
                }
                opened => opened?,
            };
            file.set_len(bytes.len() as u64)?;
            file.write_at(bytes, 0)?;
            file.sync_data()?;
            self.disk.sync_dir(self.dir)
        };
        save().map_err(|e| Error::io("save the torn tail to", &path, e))?;
        Ok(TornTail {
            segment: id,
            offset,
            len: bytes.len() as u64,
            saved_to: path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;
    use std::path::Path;

    #[test]
    fn a_reserved_file_is_read_whole_with_the_zeros_between() {
        let disk = SimDisk::new(1);
        let file = disk.open(Path::new("/file"), OpenMode::CreateNew).unwrap();
        assert_eq!(read_written(&file).unwrap(), (Vec::new(), 0));
        let len = 5 * READ_LEN + 100;
        let mut expected = vec![0; len];
        file.preallocate(len as u64).unwrap();
        assert_eq!(read_written(&file).unwrap(), (expected.clone(), 0));
        for (at, written) in [(7, READ_LEN), (3 * READ_LEN, 4 * READ_LEN), (len - 1, len)] {
            file.write_at(&[9], at as u64).unwrap();
            expected[at] = 9;
            assert_eq!(read_written(&file).unwrap(), (expected.clone(), written));
        }
    }
}
