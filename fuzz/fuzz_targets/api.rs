//! `fuzz/run 60 api`: a program of operations, against a map.

#![no_main]

#[path = "../oracles/allocation.rs"]
mod allocation;
#[path = "../oracles/api.rs"]
mod api;
#[path = "../oracles/contents.rs"]
mod contents;
#[path = "../oracles/program.rs"]
mod program;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    allocation::bounded(allocation::STORE.most(bytes.len()), || api::api(bytes));
});
