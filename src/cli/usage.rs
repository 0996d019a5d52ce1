//! Reading the command line, and what is said of one that cannot be understood: a line like that of
//! any other error.

use std::io::Write as _;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use super::args::{self, Args};
use super::exit::{self, USAGE};
use super::overview;

/// What the command line says, or the exit code once everything has been said.
pub(crate) fn parse() -> Result<Args, ExitCode> {
    let mut command = args::command();
    let read = command.try_get_matches_from_mut(std::env::args_os());
    let error = match read.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => return Ok(args),
        Err(error) => error,
    };
    match error.kind() {
        // There is nobody to tell when that fails, as with a closed pipe.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Err(ExitCode::SUCCESS)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let text = overview::brief(&command);
            let _ = anstream::stderr().write_all(text.as_bytes());
            Err(ExitCode::from(USAGE))
        }
        _ => {
            exit::say(in_one_line(&error, "crabkv help"));
            Err(ExitCode::from(USAGE))
        }
    }
}

/// What clap says on several lines. `help` lists the verbs.
pub(crate) fn in_one_line(error: &clap::Error, help: &str) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines
        .take_while(|line| !line.starts_with("For more"))
        .collect();
    let is_usage = |line: &&&str| line.starts_with("Usage:");
    let message: Vec<_> = lines
        .iter()
        .filter(|line| !is_usage(line))
        .copied()
        .collect();
    let message = message.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let message = message.replace(" tip: ", "; ");
    if error.kind() == ErrorKind::InvalidSubcommand {
        // The rest of the documentation calls them so.
        let message = message.replace("subcommand", "command");
        return format!("{message}; {help} lists all");
    }
    match lines.iter().find(is_usage) {
        Some(usage) => format!("{message}; {}", usage.replacen("Usage", "usage", 1)),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_of(line: &str) -> String {
        let mut command = args::command();
        let error = command
            .try_get_matches_from_mut(line.split(' '))
            .unwrap_err();
        in_one_line(&error, "crabkv help")
    }

    #[test]
    fn what_is_wrong_with_a_command_line_is_said_in_a_line() {
        for (line, message) in [
            (
                "crabkv putt a",
                "unrecognized command 'putt'; a similar command exists: 'put'; crabkv help lists all",
            ),
            (
                "crabkv put a",
                "the following required arguments were not provided: <VALUE>; usage: crabkv put \
                 <KEY> <VALUE>",
            ),
            (
                "crabkv get a --jsn",
                "unexpected argument '--jsn' found; a similar argument exists: '--json'; usage: \
                 crabkv get --json <KEY>",
            ),
            (
                "crabkv export --format xml",
                "invalid value 'xml' for '--format <FORMAT>' [possible values: jsonl, csv, resp, \
                 mdb]",
            ),
            (
                "crabkv put a b --ttl soon",
                "invalid value 'soon' for '--ttl <DURATION>': it is no TTL; write 30, 45s, \
                 250ms or 1h30m",
            ),
        ] {
            assert_eq!(said_of(line), message);
        }
    }
}
