//! The `crabkv` program: a store from the command line.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
