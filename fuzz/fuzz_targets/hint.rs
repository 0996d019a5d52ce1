//! `fuzz/run 60 hint`: a hint file.

#![no_main]

#[path = "../oracles/allocation.rs"]
mod allocation;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    allocation::bounded(allocation::DECODER.most(bytes.len()), || {
        crabkv::fuzzing::hint(bytes)
    });
});
