//! `fuzz/run 60 segment`: a segment.

#![no_main]

#[path = "../oracles/allocation.rs"]
mod allocation;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    allocation::bounded(allocation::SEGMENT.most(bytes.len()), || {
        crabkv::fuzzing::segment(bytes)
    });
});
