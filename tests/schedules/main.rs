//! Threads that meet in the store, each key's history checked: in so many orders of their steps
//! under shuttle (`cargo shuttle`, see `orders.rs`), else on the machine's own threads.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;
mod linear;
mod orders;
mod scenarios;
mod witness;
