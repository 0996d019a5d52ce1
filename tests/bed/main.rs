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
#[cfg(not(target_os = "linux"))] // says what is skipped there
mod elsewhere;
#[cfg(target_os = "linux")] // mounts file systems on loop devices
mod failing_disk;
mod fated;
mod faults;
mod follower;
#[cfg(target_os = "linux")] // mounts a small tmpfs
mod full_disk;
mod ghosts;
mod halting;
mod kill;
mod late_sync;
mod layer;
mod limits;
mod locks;
mod map_faults;
mod model;
#[cfg(target_os = "linux")] // mount and umount
#[path = "../common/mount.rs"]
mod mount;
mod panics;
#[cfg(target_os = "linux")] // the shutdown ioctl
mod power_cuts;
#[cfg(target_os = "linux")] // setrlimit
mod process_limits;
mod recovery;
#[cfg(target_os = "linux")] // for those that mount
mod scripted;
mod soak;
#[cfg(target_os = "linux")] // strace makes its system calls fail
mod syscalls;
mod verify;
