//! The `crabkv` program.

fn main() {}
