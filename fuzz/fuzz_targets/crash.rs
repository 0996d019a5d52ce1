//! `fuzz/run 60 crash`: a program on a disk that fails.

#![no_main]

#[path = "../oracles/allocation.rs"]
mod allocation;
#[path = "../oracles/contents.rs"]
mod contents;
#[path = "../oracles/crash.rs"]
mod crash;
#[path = "../oracles/program.rs"]
mod program;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    allocation::bounded(allocation::STORE.most(bytes.len()), || crash::crash(bytes));
});
