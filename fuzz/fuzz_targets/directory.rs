//! `fuzz/run 60 directory`: a whole data directory.

#![no_main]

#[path = "../oracles/allocation.rs"]
mod allocation;
#[path = "../oracles/contents.rs"]
mod contents;
#[path = "../oracles/directory.rs"]
mod directory;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    allocation::bounded(allocation::STORE.most(bytes.len()), || {
        directory::directory(bytes);
    });
});
