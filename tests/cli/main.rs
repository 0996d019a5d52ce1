//! What the `crabkv` program does, as a shell sees it: output, exit codes, files.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod basics;
mod bench;
#[cfg(unix)] // a shell runs the examples
mod docs;
mod everyday;
#[cfg(target_os = "linux")] // it mounts a small disk in memory
mod full_disk;
mod hostile;
mod look;
mod maintain;
#[cfg(target_os = "linux")]
#[path = "../common/mount.rs"]
mod mount;
mod program;
mod shell;
mod transfer;
