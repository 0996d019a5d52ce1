//! What the system says about the machine, this process and its files, and how to make the system
//! forget what it has cached of them.

use std::ffi::c_void;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Advice, fadvise};
use rustix::mm::{Advice as MapAdvice, madvise};
use serde::{Deserialize, Serialize};

use crate::engines::Outcome;

/// The machine that figures were taken on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
}

impl Machine {
    pub(crate) fn this() -> Machine {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, name)| name);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            processor: processor.to_owned(),
            cores: cores(),
            memory_gib: memory_bytes().unwrap_or(0).div_ceil(1 << 30),
            kernel: kernel.trim().to_owned(),
        }
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) fn memory_bytes() -> Option<u64> {
    kib_in("/proc/meminfo", "MemTotal:")
}

/// This process's memory that no file is behind.
pub(crate) fn anonymous_bytes() -> Outcome<u64> {
    kib_in("/proc/self/smaps_rollup", "Anonymous:")
        .ok_or_else(|| "/proc/self/smaps_rollup does not say".into())
}

fn kib_in(path: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// What this process has had the system do so far.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transferred {
    /// From the disk into the page cache, for it.
    pub(crate) read_bytes: u64,
    /// Pages that it made dirty, by writing or through a map.
    pub(crate) written_bytes: u64,
}

impl Transferred {
    /// What changes while anything is written or read, but for what is read here to find out.
    pub(crate) fn at_work(self) -> (u64, u64) {
        (self.read_bytes, self.written_bytes)
    }
}

pub(crate) fn transferred() -> Outcome<Transferred> {
    let text = fs::read_to_string("/proc/self/io")?;
    let field = |name: &str| -> Outcome<u64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(line.ok_or("/proc/self/io does not say")?.parse()?)
    };
    Ok(Transferred {
        read_bytes: field("read_bytes")?,
        written_bytes: field("write_bytes")?,
    })
}

/// What the files in a directory take on the disk.
pub(crate) fn disk_bytes(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    each_file(dir, &mut |path| {
        // In units of 512 bytes, whatever the file system's blocks.
        sum += fs::metadata(path)?.blocks() * 512;
        Ok(())
    })?;
    Ok(sum)
}

/// Makes the system forget what it has cached of the files in a directory, so that the next read
/// comes from the disk. Maps of them in this process are kept, and emptied.
pub(crate) fn forget_cached(dir: &Path) -> Outcome<()> {
    empty_maps(dir)?;
    each_file(dir, &mut |path| {
        let file = File::open(path)?;
        // Only what is on the disk can be forgotten.
        file.sync_all()?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    })?;
    Ok(())
}

/// The page cache keeps what is mapped.
fn empty_maps(dir: &Path) -> Outcome<()> {
    let dir = fs::canonicalize(dir)?;
    let dir = dir.to_str().ok_or("a directory with a strange name")?;
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else {
            continue;
        };
        let is_ours = line
            .split_once('/')
            .is_some_and(|(_, path)| format!("/{path}").starts_with(dir));
        if !is_ours || !rights.ends_with('s') {
            continue;
        }
        let (start, end) = range.split_once('-').ok_or("a map without an end")?;
        let start = usize::from_str_radix(start, 16)?;
        let end = usize::from_str_radix(end, 16)?;
        let address = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: of a shared map of a file this takes the page table entries away, no bytes: the
        // next access finds the same ones, from the page cache or the disk. Should an engine have
        // unmapped it meanwhile, the call fails, or does the same to the map that came after: all
        // that other maps of this process lose so would be memory of its own, so this is called
        // only while the engine is at rest.
        unsafe { madvise(address, end - start, MapAdvice::LinuxDontNeed)? };
    }
    Ok(())
}

fn each_file(dir: &Path, work: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        // Engines at work remove files of theirs.
        let done = match fs::symlink_metadata(&path) {
            Ok(about) if about.is_dir() => each_file(&path, work),
            Ok(about) if about.is_file() => work(&path),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}
