//! CrabKv: a key-value store for read-heavy work.

#[cfg(any(test, feature = "sim"))]
pub mod disk;
#[cfg(not(any(test, feature = "sim")))]
mod disk;
