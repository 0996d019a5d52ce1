//! `docs/FORMAT.md` against the code: the files of its worked example are made here, on the
//! simulated disk with its fixed clock and random numbers, and compared with the hex in the
//! document byte by byte.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crabkv::disk::SimDisk;
use crabkv::{Store, WriteBatch};

const DOCUMENT: &str = "docs/FORMAT.md";

/// 2025-01-01T00:00:00Z.
const NOW_MS: u64 = 1_735_689_600_000;

/// The example: one put, one tombstone, closed; the segment is small enough to be sealed by that.
fn example() -> Vec<(String, Vec<u8>)> {
    let disk = SimDisk::new(1);
    disk.set_clock(NOW_MS);
    let store = Store::builder("/data")
        .segment_size(256)
        .build_store_on(disk.clone())
        .unwrap();
    store.put("hello", "world").unwrap();
    store.delete("hello").unwrap();
    store.close().unwrap();
    drop(store);
    files_of(&disk)
}

/// The second example: a batch of a put that expires and a tombstone, in a segment that was not
/// sealed.
fn batch_example() -> Vec<(String, Vec<u8>)> {
    let disk = SimDisk::new(2);
    disk.set_clock(NOW_MS);
    let store = Store::builder("/data")
        .segment_size(4096)
        .build_store_on(disk.clone())
        .unwrap();
    let mut batch = WriteBatch::new();
    batch
        .put_with_ttl("key", "value", std::time::Duration::from_secs(60))
        .unwrap()
        .delete("old")
        .unwrap();
    store.write(&batch).unwrap();
    store.close().unwrap();
    drop(store);
    files_of(&disk)
}

fn files_of(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let mut files = disk.files(Path::new("/data"));
    files.retain(|(name, _)| name != "LOCK");
    files
}

/// The bytes of the fenced block of the document that begins with `hex <title>`: an offset, bytes,
/// and what they mean behind a `|`, on each line.
fn documented(title: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let text = fs::read_to_string(path).unwrap();
    let fence = format!("```hex {title}");
    let block = text
        .lines()
        .skip_while(|line| *line != fence)
        .skip(1)
        .take_while(|line| *line != "```");
    let mut bytes = Vec::new();
    for line in block {
        let hex = line.split('|').next().unwrap();
        let mut words = hex.split_whitespace();
        let Some(offset) = words.next() else {
            continue;
        };
        let offset = usize::from_str_radix(offset, 16).unwrap();
        assert_eq!(offset, bytes.len(), "{title}: a wrong offset: {line}");
        bytes.extend(words.map(|word| u8::from_str_radix(word, 16).unwrap()));
    }
    assert!(!bytes.is_empty(), "{DOCUMENT} has no block `{fence}`");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (i, row) in bytes.chunks(8).enumerate() {
        let _ = write!(out, "{:02x} ", i * 8);
        for byte in row {
            let _ = write!(out, " {byte:02x}");
        }
        out.push('\n');
    }
    out
}

fn compare(title: &str, bytes: &[u8]) {
    let documented = documented(title);
    assert!(
        documented == bytes,
        "{DOCUMENT} and the code differ on {title}; the code writes\n{}",
        hex(bytes)
    );
}

#[test]
fn the_worked_example_of_the_format_document_is_what_the_code_writes() {
    let files = example();
    let names: Vec<_> = files.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(
        names,
        ["000000000001.hint", "000000000001.seg", "MANIFEST"],
        "the files of the example"
    );
    for (name, bytes) in &files {
        compare(name, bytes);
    }
}

#[test]
fn the_documents_batch_frame_is_what_the_code_writes() {
    let files = batch_example();
    let (_, segment) = files
        .iter()
        .find(|(name, _)| name.ends_with("seg"))
        .unwrap();
    compare("batch frame", &segment[64..]);
}

#[test]
fn the_documents_space_figures_are_those_of_the_code() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT)).unwrap();
    let disk = SimDisk::new(3);
    let store = Store::builder("/data")
        .build_store_on(disk.clone())
        .unwrap();
    let data_bytes = || store.stats().data_bytes;
    store.put("first", "").unwrap();
    // A key of 16 bytes; what the value takes, with a TTL or without.
    for (value_len, expires, documented) in [
        (0, false, "| 0 | 32 |"),
        (8, false, "| 8 | 40 |"),
        (100, false, "| 100 | 136 |"),
        (100, true, "| 100, with a TTL | 144 |"),
        (1000, false, "| 1000 | 1032 |"),
    ] {
        assert!(text.contains(documented), "{DOCUMENT} lacks `{documented}`");
        let before = data_bytes();
        let value = vec![b'x'; value_len];
        if expires {
            let ttl = std::time::Duration::from_secs(60);
            store.put_with_ttl("sixteen bytes...", value, ttl).unwrap();
        } else {
            store.put("sixteen bytes...", value).unwrap();
        }
        let taken = data_bytes() - before;
        assert!(documented.ends_with(&format!("| {taken} |")), "{taken}");
    }
}

#[test]
fn the_documents_checkpoint_file_is_what_the_code_writes() {
    let disk = SimDisk::new(1);
    disk.set_clock(NOW_MS);
    let store = Store::builder("/data")
        .segment_size(256)
        .build_store_on(disk.clone())
        .unwrap();
    store.put("hello", "world").unwrap();
    store.delete("hello").unwrap();
    store.close().unwrap();
    store.checkpoint("/copy").unwrap();
    let bytes = disk.read_raw(Path::new("/copy/CHECKPOINT")).unwrap();
    compare("CHECKPOINT", &bytes);
    let manifest = disk.read_raw(Path::new("/copy/MANIFEST")).unwrap();
    assert_eq!(bytes[52..56], manifest[manifest.len() - 4..]);
    assert_eq!(bytes[40..48], manifest[48..56]);
}
