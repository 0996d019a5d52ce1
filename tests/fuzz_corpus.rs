//! The fuzzers' corpora, replayed: what a fuzzer found once stays found, without a fuzzer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../fuzz/oracles/allocation.rs"]
mod allocation;
#[path = "../fuzz/oracles/api.rs"]
mod api;
#[path = "../fuzz/oracles/contents.rs"]
mod contents;
#[path = "../fuzz/oracles/crash.rs"]
mod crash;
#[path = "../fuzz/oracles/directory.rs"]
mod directory;
#[path = "../fuzz/oracles/inline.rs"]
mod inline;
#[path = "../fuzz/oracles/program.rs"]
mod program;
#[path = "../fuzz/oracles/resp.rs"]
mod resp;
#[path = "../fuzz/oracles/stream.rs"]
mod stream;

use std::fs;
use std::path::Path;

use allocation::{Bound, DECODER, SEGMENT, STORE, STREAM};

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

/// How many of an input's changes are tried: every one where that takes no time, some where each opens
/// stores.
const EVERY: usize = usize::MAX;
const SOME: usize = 8;

/// Calls `target` with every file of a corpus, with its bytes changed a little, and cut off; `most`
/// bytes of each at most, at even distances.
fn replay(corpus: &str, bound: Bound, most: usize, target: fn(&[u8])) {
    let target = |bytes: &[u8]| allocation::bounded(bound.most(bytes.len()), || target(bytes));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(corpus);
    let mut files = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        let bytes = fs::read(&path).unwrap();
        target(&bytes);
        let step = bytes.len().div_ceil(most).max(1);
        for at in (0..bytes.len()).step_by(step) {
            for xor in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= xor;
                target(&changed);
            }
        }
        let lens = (0..bytes.len()).step_by(step);
        lens.for_each(|len| target(&bytes[..len]));
        files += 1;
    }
    assert!(files > 0, "{} is empty", dir.display());
}

#[test]
fn no_record_of_the_corpus_breaks_a_promise() {
    replay("record", SEGMENT, EVERY, crabkv::fuzzing::record);
}

#[test]
fn no_segment_of_the_corpus_breaks_a_promise() {
    replay("segment", SEGMENT, EVERY, crabkv::fuzzing::segment);
}

#[test]
fn no_hint_file_of_the_corpus_breaks_a_promise() {
    replay("hint", DECODER, EVERY, crabkv::fuzzing::hint);
}

#[test]
fn no_manifest_of_the_corpus_breaks_a_promise() {
    replay("manifest", DECODER, EVERY, crabkv::fuzzing::manifest);
}

#[test]
fn no_directory_of_the_corpus_breaks_a_promise() {
    replay("directory", STORE, SOME, directory::directory);
}

#[test]
fn no_program_of_the_corpus_breaks_a_promise() {
    replay("api", STORE, SOME, api::api);
}

#[test]
fn no_crash_of_the_corpus_breaks_a_promise() {
    replay("crash", STORE, SOME, crash::crash);
}

#[test]
fn no_request_of_the_corpus_breaks_a_promise() {
    replay("resp", STREAM, EVERY, resp::resp);
}

#[test]
fn no_line_of_the_corpus_breaks_a_promise() {
    replay("inline", STREAM, EVERY, inline::inline);
}

/// What a fuzzer does, without one: each input is a change of one before it, from a fixed beginning.
#[test]
fn a_hundred_thousand_changes_of_requests_and_lines_break_no_promise() {
    // A xorshift generator: any will do.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let words: [&[u8]; 12] = [
        b"*2\r\n",
        b"$3\r\n",
        b"GET",
        b"\r\n",
        b"$0\r\n\r\n",
        b"-1",
        b"9",
        b"*",
        b"\"",
        b"'",
        b"\\x0a",
        b" ",
    ];
    let mut bytes = Vec::new();
    for _ in 0..100_000 {
        match random(8) {
            0 => bytes.clear(),
            1 | 2 => bytes.truncate(random(bytes.len() + 1)),
            3 if !bytes.is_empty() => {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            _ => bytes.extend(words[random(words.len())]),
        }
        bytes.truncate(200);
        resp::resp(&bytes);
        inline::inline(&bytes);
    }
}
