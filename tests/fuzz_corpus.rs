//! The fuzzers' corpora, replayed: what a fuzzer found once stays found, without a fuzzer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

/// Calls `target` with every file of a corpus, with each of its bytes changed a little, and cut
/// off at every length.
fn replay(corpus: &str, target: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(corpus);
    let mut files = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        let bytes = fs::read(&path).unwrap();
        target(&bytes);
        for at in 0..bytes.len() {
            for xor in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= xor;
                target(&changed);
            }
        }
        (0..bytes.len()).for_each(|len| target(&bytes[..len]));
        files += 1;
    }
    assert!(files > 0, "{} is empty", dir.display());
}

#[test]
fn no_segment_of_the_corpus_breaks_a_promise() {
    replay("segment", crabkv::fuzzing::segment);
}

#[test]
fn no_hint_file_of_the_corpus_breaks_a_promise() {
    replay("hint", crabkv::fuzzing::hint);
}

#[test]
fn no_manifest_of_the_corpus_breaks_a_promise() {
    replay("manifest", crabkv::fuzzing::manifest);
}
