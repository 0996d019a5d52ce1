//! Asking before what cannot be undone.

use std::io::{self, IsTerminal, Write};

use super::exit::Failure;

/// Consent to what destroys or loses something.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Consent {
    /// Replace a file that is there without asking
    #[arg(short, long)]
    yes: bool,
}

impl Consent {
    /// Asks on the terminal whether to do `what`, as in "replace notes.txt"; where nobody can be
    /// asked, it takes `--yes`.
    pub(crate) fn ask(self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::Usage(format!("this would {what}; --yes does it")));
        }
        let mut answer = String::new();
        let asked = write!(io::stderr(), "crabkv: {what}? [y/N] ")
            .and_then(|()| io::stdin().read_line(&mut answer));
        asked.map_err(|source| Failure::Stdio {
            op: "ask on the terminal",
            source,
        })?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::Usage(format!("not done: {what}"))),
        }
    }
}
