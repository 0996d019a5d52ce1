//! `cargo +nightly fuzz run segment`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| crabkv::fuzzing::segment(bytes));
