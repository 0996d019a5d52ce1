//! Makes the stores under `tests/fixtures/v1/` and the seeds of the fuzzers' corpora, the same
//! bytes in every run:
//!
//! ```text
//! cargo run --example make_fixture            # into the source tree
//! cargo run --example make_fixture -- /tmp/x  # elsewhere, to compare
//! ```
//!
//! The committed fixtures are what version 1 of the format wrote; they are opened for ever by
//! `tests/compat.rs` and not made again when the format changes: a new version gets a directory,
//! and a version of this program, of its own.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crabkv::disk::SimDisk;
use crabkv::{Store, WriteBatch};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// 2025-01-01T00:00:00Z.
const NOW_MS: u64 = 1_735_689_600_000;
const DIR: &str = "/store";
const SEGMENT_SIZE: u64 = 1024;

fn main() -> Outcome {
    let root = std::env::args_os().nth(1);
    let root = root.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let fixtures = root.join("tests/fixtures/v1");

    let sound = SimDisk::new(1);
    fill(&sound, 48)?;
    let files = sound.files(Path::new(DIR));
    save(&fixtures.join("sound"), &files)?;
    save_corpus(&root.join("fuzz/corpus"), &files)?;

    // The same with one bit of the last segment's record flipped.
    let last = Path::new(DIR).join(last_segment(&files));
    sound.corrupt(&last, 90, 0x01);
    save(&fixtures.join("damaged"), &sound.files(Path::new(DIR)))?;

    // Four bits of hash: nearly every key shares its hash with others.
    let collisions = SimDisk::new(2);
    fill(&collisions, 4)?;
    save(
        &fixtures.join("collisions"),
        &collisions.files(Path::new(DIR)),
    )?;

    // Power lost during the last write: some bytes of its record did not arrive.
    let torn = SimDisk::new(3);
    torn.set_clock(NOW_MS);
    let store = open(&torn, 48)?;
    store.put("kept", "acknowledged")?;
    store.put("torn", "the power went off here")?;
    let active = Path::new(DIR).join("000000000001.seg");
    // The first record takes 40 bytes from 64 on, the second 48.
    for offset in 136..144 {
        let byte = torn
            .read_raw(&active)
            .ok_or("no active segment")?
            .swap_remove(offset);
        torn.corrupt(&active, offset as u64, byte);
    }
    save(&fixtures.join("torn"), &torn.files(Path::new(DIR)))?;
    Ok(())
}

fn open(disk: &SimDisk, hash_bits: u8) -> Outcome<Store<SimDisk>> {
    Ok(Store::builder(DIR)
        .segment_size(SEGMENT_SIZE)
        .compression(true)
        .hash_bits(hash_bits)
        .build_store_on(disk.clone())?)
}

/// Everything that a store can hold: several sealed segments, and one that was closed unsealed.
fn fill(disk: &SimDisk, hash_bits: u8) -> Outcome {
    disk.set_clock(NOW_MS);
    let store = open(disk, hash_bits)?;
    store.put("greeting", "hello")?;
    store.put("greeting", "hello again")?;
    store.put("", "the empty key")?;
    store.put("empty value", "")?;
    store.put("binary", (0..=255).collect::<Vec<u8>>())?;
    store.put("compressed", b"crab".repeat(500))?;
    store.put("large", noise(3000))?;
    store.put("deleted", "gone")?;
    store.delete("deleted")?;
    store.put_with_ttl("expired", "gone", Duration::from_secs(1))?;
    store.put_with_ttl("expires", "late", Duration::from_secs(100 * 365 * 86_400))?;
    store.put("in the batch", "old")?;
    let mut batch = WriteBatch::new();
    batch
        .put("in the batch", "new")?
        .put_with_ttl("batch expires", "late", Duration::from_secs(3_153_600_000))?
        .delete("greeting 2")?;
    store.write(&batch)?;
    for i in 0..40 {
        store.put(format!("n{i:02}"), format!("number {i}"))?;
    }
    store.close()?;
    drop(store);
    // A second life, in a segment that is closed without being sealed.
    disk.advance(1000);
    let store = open(disk, hash_bits)?;
    store.put("last", "write")?;
    store.close()?;
    Ok(())
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn last_segment(files: &[(String, Vec<u8>)]) -> String {
    let names = files.iter().map(|(name, _)| name);
    let segments = names.filter(|name| name.rsplit('.').next() == Some("seg"));
    segments.max().cloned().unwrap_or_default()
}

/// Puts the files in place of those that are there.
fn save(dir: &Path, files: &[(String, Vec<u8>)]) -> Outcome {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    for (name, bytes) in files.iter().filter(|(name, _)| name != "LOCK") {
        fs::write(dir.join(name), bytes)?;
    }
    println!("{}: {} files", dir.display(), files.len());
    Ok(())
}

/// Adds the files to the corpora of the fuzzers that decode them.
fn save_corpus(dir: &Path, files: &[(String, Vec<u8>)]) -> Outcome {
    for (name, bytes) in files {
        let target = match name.rsplit('.').next() {
            Some("seg") => "segment",
            Some("hint") => "hint",
            Some("MANIFEST") => "manifest",
            _ => continue,
        };
        fs::create_dir_all(dir.join(target))?;
        fs::write(dir.join(target).join(format!("v1-{name}")), bytes)?;
    }
    Ok(())
}
