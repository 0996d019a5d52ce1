//! The command line: one file for each verb, over the library's public API alone.
//!
//! Data goes to stdout and nothing else does; warnings and errors are single lines on stderr. How
//! the program ends is in [`exit`].

mod args;
mod compact;
mod delete;
mod exit;
mod get;
mod open;
mod output;
mod put;
mod stats;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Verb};

/// Does what the command line says. Clap ends the process itself when that cannot be understood.
pub(crate) fn run() -> ExitCode {
    let Args { store, verb } = Args::parse();
    let outcome = match verb {
        Verb::Put(args) => put::run(&store, args),
        Verb::Get(args) => get::run(&store, args),
        Verb::Delete(args) => delete::run(&store, args),
        Verb::Compact => compact::run(&store),
        Verb::Stats => stats::run(&store),
    };
    exit::code(outcome)
}
