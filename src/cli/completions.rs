//! `completions`: what a shell needs to complete command lines of this program.

use clap_complete::Shell;

use super::args;
use super::exit::{Failure, Outcome};
use super::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "crabkv", &mut script);
    let mut output = Output::new();
    output.write(&script)?;
    output.finish()?;
    Ok(Outcome::Done)
}
