//! What `crabkv serve` does, as clients on the other end of a socket see it.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod lines;
mod running;
