//! The operating system's files, clock and random numbers.
