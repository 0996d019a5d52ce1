//! The `crabkv` program: a store from the command line.

mod cli;
#[cfg(feature = "server")]
mod server;

fn main() -> std::process::ExitCode {
    cli::run()
}
