//! The test bed: every fault that the store promises to survive, one layer to a file.
//!
//! `cargo bed` runs it optimised, with the bars of docs/RELIABILITY.md; as part of `cargo test` an
//! unoptimised build does a small share of each layer's work. See `layer.rs` for the variables
//! that make it longer or replay a run.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod aftermath;
mod bug_bank;
mod checkpoint_faults;
mod combinations;
#[path = "../common/mod.rs"]
mod common;
mod compaction;
mod concurrency;
mod crash;
mod damage;
mod fated;
mod faults;
mod follower;
mod ghosts;
mod halting;
mod kill;
mod late_sync;
mod layer;
mod limits;
mod locks;
mod map_faults;
mod model;
mod panics;
mod recovery;
mod soak;
#[cfg(target_os = "linux")] // strace makes its system calls fail
mod syscalls;
mod verify;
