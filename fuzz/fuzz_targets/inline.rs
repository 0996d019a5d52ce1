//! `fuzz/run 60 inline`: lines of the text protocol, in any pieces.

#![no_main]

#[path = "../oracles/allocation.rs"]
mod allocation;
#[path = "../oracles/inline.rs"]
mod inline;
#[path = "../oracles/stream.rs"]
mod stream;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    allocation::bounded(allocation::STREAM.most(bytes.len()), || {
        inline::inline(bytes)
    });
});
