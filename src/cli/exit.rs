//! How the program ends: its exit codes, and the line on stderr that says why.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crabkv::Error;

use super::args::Bytes;

/// The exit codes, for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  the key is absent
  2  wrong usage, or a key or value that is too large
  3  the store is open in another program
  4  damage was found
  5  the disk is full, or reading or writing failed; also: there is no store
  6  the store was written by a newer crabkv";

const ABSENT: u8 = 1;
const USAGE: u8 = 2;
const LOCKED: u8 = 3;
const DAMAGED: u8 = 4;
const IO: u8 = 5;
const NEWER: u8 = 6;

/// How a verb ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// There is no value for this key.
    Absent(Bytes),
}

/// Why a verb failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Store(Error),
    /// The arguments ask for something impossible.
    Usage(String),
    /// Standard input or output.
    Stdio {
        /// As in "read standard input".
        op: &'static str,
        source: io::Error,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Store(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The library cannot know how its user was told the directory.
            Failure::Store(Error::NotFound { dir }) => write!(
                f,
                "no store in {}; name its directory with --data-dir or CRABKV_DATA_DIR, or make \
                 one with put",
                dir.display()
            ),
            Failure::Store(error @ Error::Io { source, .. }) => {
                write!(f, "{error}{}", advice(source.kind()))
            }
            Failure::Store(error) => error.fmt(f),
            Failure::Usage(message) => f.write_str(message),
            Failure::Stdio { op, source } => write!(f, "cannot {op}: {source}"),
        }
    }
}

/// What to do about a failure of the system, where that is clear.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotADirectory => "; a store is a directory: name another one with --data-dir",
        ErrorKind::PermissionDenied => "; its owner can give you the right to read and write it",
        ErrorKind::ReadOnlyFilesystem => "; a store can only be opened where it can be written",
        _ => "",
    }
}

/// Says on stderr what there is to say, and gives the exit code.
pub(crate) fn code(outcome: Result<Outcome, Failure>) -> ExitCode {
    let code = match outcome {
        Ok(Outcome::Done) => return ExitCode::SUCCESS,
        Ok(Outcome::Absent(key)) => {
            // As a literal, since it may hold anything, line feeds too.
            say(format_args!(
                "no value for the key {:?}",
                String::from_utf8_lossy(&key.0)
            ));
            ABSENT
        }
        Err(failure) => {
            say(&failure);
            code_of(&failure)
        }
    };
    ExitCode::from(code)
}

fn code_of(failure: &Failure) -> u8 {
    match failure {
        Failure::Store(error) => code_of_error(error),
        Failure::Usage(_) => USAGE,
        Failure::Stdio { .. } => IO,
    }
}

fn code_of_error(error: &Error) -> u8 {
    match error {
        Error::KeyTooLarge { .. }
        | Error::ValueTooLarge { .. }
        | Error::InvalidOption { .. }
        | Error::ReadOnly => USAGE,
        Error::Locked { .. } => LOCKED,
        Error::Corrupt { .. } => DAMAGED,
        Error::UnsupportedVersion { .. } => NEWER,
        Error::Poisoned { cause } => code_of_error(cause),
        _ => IO,
    }
}

/// One line on stderr. There is nobody to tell when that fails.
pub(crate) fn say(message: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "crabkv: {message}");
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_failure_has_the_code_that_help_says() {
        let io = |kind: ErrorKind| Error::Io {
            op: "read",
            path: PathBuf::from("x"),
            source: Arc::new(kind.into()),
        };
        let codes = [
            (Error::KeyTooLarge { len: 2, max: 1 }, 2),
            (Error::ValueTooLarge { len: 2, max: 1 }, 2),
            (Error::ReadOnly, 2),
            (
                Error::Locked {
                    dir: PathBuf::from("x"),
                    holder: String::new(),
                },
                3,
            ),
            (
                Error::Corrupt {
                    file: PathBuf::from("x"),
                    offset: 0,
                    reason: String::new(),
                },
                4,
            ),
            (io(ErrorKind::Other), 5),
            (
                Error::DiskFull {
                    path: PathBuf::from("x"),
                    source: Arc::new(ErrorKind::StorageFull.into()),
                },
                5,
            ),
            (
                Error::UnsupportedVersion {
                    file: PathBuf::from("x"),
                    found: 2,
                    supported: 1,
                },
                6,
            ),
            (
                Error::Poisoned {
                    cause: Arc::new(io(ErrorKind::Other)),
                },
                5,
            ),
        ];
        for (error, code) in codes {
            assert_eq!(code_of_error(&error), code, "{error}");
        }
    }
}
