//! What `crabkv serve` does, as clients on the other end of a socket see it.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    dead_code,
    reason = "each family of commands uses its part of the clients"
)]

mod admin;
mod clients;
mod keys;
mod limits;
mod lines;
mod load;
mod ops;
mod redis;
mod resp;
mod running;
mod strings;
#[cfg(feature = "tls")]
mod tls;
mod transactions;
