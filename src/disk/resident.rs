//! How much of some memory is there without a read from a disk, where the system can say.

/// How many pages are asked for at a time: the answer takes a byte for each.
#[cfg(any(target_os = "linux", target_os = "macos"))]
const PAGES: usize = 4096;

/// How many of these bytes of a map are in memory; `None` if the system does not say.
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(super) fn resident_bytes(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return Some(0);
    }
    // SAFETY: it reads a setting of the system.
    let page_len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page_len = usize::try_from(page_len).ok().filter(|len| *len > 0)?;
    // The system is asked for whole pages.
    let before = bytes.as_ptr() as usize % page_len;
    let first = bytes.as_ptr().wrapping_sub(before);
    let end = before + bytes.len();
    let mut is_there = [0_u8; PAGES];
    let mut resident = 0;
    for start in (0..end).step_by(PAGES * page_len) {
        let len = (end - start).min(PAGES * page_len);
        let address = first.wrapping_add(start).cast_mut().cast::<libc::c_void>();
        // SAFETY: of the memory at `address` nothing is read or written, and an address without
        // memory is an error; a byte is written for each page of `len`, of which there are at most
        // `PAGES`.
        let answer = unsafe { libc::mincore(address, len, is_there.as_mut_ptr().cast()) };
        if answer != 0 {
            return None;
        }
        for (number, flags) in is_there[..len.div_ceil(page_len)].iter().enumerate() {
            if flags & 1 == 1 {
                let page = start + number * page_len;
                resident += ((page + page_len).min(end) - page.max(before)) as u64;
            }
        }
    }
    Some(resident)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub(super) fn resident_bytes(_bytes: &[u8]) -> Option<u64> {
    None
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, DiskFile, OpenMode, OsDisk, Region};

    const MIB: u64 = 1 << 20;

    fn map(len: u64, write: impl Fn(&dyn Fn(&[u8], u64))) -> Region {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk
            .open(&dir.path().join("a"), OpenMode::CreateNew)
            .unwrap();
        file.set_len(len).unwrap();
        write(&|bytes, offset| file.write_at(bytes, offset).unwrap());
        file.map(len as usize).unwrap()
    }

    #[test]
    fn what_was_just_written_is_in_memory_to_the_byte() {
        // More than is asked for at a time with pages of 4 KiB, and a part of a page.
        let region = map(17 * MIB + 100, |write| {
            for mib in 0..17 {
                write(&vec![1; 1 << 20], mib * MIB);
            }
            write(&[1; 100], 17 * MIB);
        });
        assert_eq!(region.resident_bytes(), Some(17 * MIB + 100));
    }

    #[test]
    fn what_nobody_has_read_or_written_is_not() {
        let region = map(40 * MIB, |write| write(&[1; 10], 39 * MIB));
        let resident = region.resident_bytes().unwrap();
        assert!((10..MIB).contains(&resident), "{resident}");
        assert_eq!(region.slice(20 << 20, 1), Some(&[0][..]));
        let later = region.resident_bytes().unwrap();
        assert!((resident + 1..10 * MIB).contains(&later), "{later}");
    }

    #[test]
    fn of_bytes_that_begin_within_a_page_only_they_count() {
        let region = map(MIB, |write| write(&vec![1; 1 << 20], 0));
        let bytes = region.slice(1000, 500_000).unwrap();
        assert_eq!(resident_bytes(bytes), Some(500_000));
        assert_eq!(resident_bytes(&bytes[..1]), Some(1));
        assert_eq!(resident_bytes(&[]), Some(0));
    }
}
