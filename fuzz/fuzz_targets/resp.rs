//! `fuzz/run 60 resp`: frames of RESP, in any pieces.

#![no_main]

#[path = "../oracles/allocation.rs"]
mod allocation;
#[path = "../oracles/resp.rs"]
mod resp;
#[path = "../oracles/stream.rs"]
mod stream;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    allocation::bounded(allocation::STREAM.most(bytes.len()), || resp::resp(bytes));
});
