//! `cargo +nightly fuzz run resp`

#![no_main]

#[path = "../oracles/resp.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::resp(bytes));
