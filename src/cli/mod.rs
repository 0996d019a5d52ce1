//! The command line: one file for each verb, over the library's public API alone.
//!
//! A verb is a struct of its arguments, read by clap, and a `run` that takes them and the
//! [`Context`]: the options that all verbs share, and how to get at the store. Verbs that read open
//! it read-only ([`Context::read`]), so that they work beside a program that has it open; verbs that
//! write open it for writing ([`Context::write`]).
//!
//! Data goes to stdout and nothing else does ([`output`]); warnings, summaries, progress and errors
//! go to stderr. How the program ends is in [`exit`].

mod args;
mod backup;
mod batch;
mod bench;
mod cas;
mod compact;
mod completions;
mod confirm;
mod context;
mod count;
mod delete;
mod doctor;
mod encoding;
mod entry;
mod exists;
mod exit;
mod expiry;
mod export;
mod file;
mod get;
mod import;
mod incr;
mod input;
mod inspect;
mod interrupt;
mod key;
mod man;
mod output;
mod overview;
mod progress;
mod put;
mod repair;
mod restore;
mod scan;
#[cfg(feature = "server")]
mod serve;
mod session;
mod shell;
mod stats;
mod terminal;
mod text;
mod transfer;
pub(crate) mod units;
mod usage;
mod verify;
mod watched;
mod words;

use std::process::ExitCode;

use args::{Args, Verb};
use context::Context;
use exit::{Failure, Outcome};

/// Does what the command line says.
pub(crate) fn run() -> ExitCode {
    let Args { options, verb } = match usage::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    options.color.write_global();
    // The shell does so itself, once its line editor has had its way with signals.
    if !matches!(verb, Verb::Shell(_)) {
        interrupt::install();
    }
    let context = Context::new(options);
    let outcome = dispatch(verb, &context);
    exit::code(outcome, &context)
}

/// One verb, from the command line or from a line of the shell.
fn dispatch(verb: Verb, context: &Context) -> Result<Outcome, Failure> {
    match verb {
        Verb::Put(args) => put::run(context, &args),
        Verb::Get(args) => get::run(context, &args),
        Verb::Delete(args) => delete::run(context, &args),
        Verb::Exists(args) => exists::run(context, &args),
        Verb::Scan(args) => scan::run(context, &args),
        Verb::Keys(args) => scan::run_keys(context, &args),
        Verb::Count(args) => count::run(context, &args),
        Verb::Ttl(args) => expiry::run_ttl(context, &args),
        Verb::Expire(args) => expiry::run_expire(context, &args),
        Verb::Persist(args) => expiry::run_persist(context, &args),
        Verb::Incr(args) => incr::run(context, &args),
        Verb::Cas(args) => cas::run(context, &args),
        Verb::Batch(args) => batch::run(context, &args),
        Verb::Export(args) => export::run(context, &args),
        Verb::Import(args) => import::run(context, &args),
        Verb::Compact(args) => compact::run(context, &args),
        #[cfg(feature = "server")]
        Verb::Serve(args) => serve::run(context, &args),
        Verb::Stats(args) => stats::run(context, &args),
        Verb::Inspect(args) => inspect::run(context, &args),
        Verb::Doctor(args) => doctor::run(context, &args),
        Verb::Bench(args) => bench::run(context, &args),
        Verb::Verify(args) => verify::run(context, &args),
        Verb::Repair(args) => repair::run(context, &args),
        Verb::Backup(args) => backup::run(context, &args),
        Verb::Restore(args) => restore::run(context, &args),
        Verb::Shell(args) => shell::run(context, &args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(context, &args),
    }
}
