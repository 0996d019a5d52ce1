//! `cargo +nightly fuzz run hint`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| crabkv::fuzzing::hint(bytes));
