//! `cargo +nightly fuzz run inline`

#![no_main]

#[path = "../oracles/inline.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::inline(bytes));
