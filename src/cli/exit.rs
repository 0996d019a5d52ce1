//! How the program ends: its exit codes, and the line on stderr that says why.

use std::error::Error as _;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crabkv::Error;

use super::context::Context;
use super::text;

/// The exit codes, for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
    0  done
    1  the key is absent, or the condition is false
    2  wrong usage or input, such as a key that is too long
    3  the store is open in another program
    4  damage was found
    5  the disk is full, or reading or writing failed; also: there is no store
    6  the store was written by a newer crabkv
  130  interrupted";

const FALSE: u8 = 1;
pub(crate) const USAGE: u8 = 2;
const LOCKED: u8 = 3;
const DAMAGED: u8 = 4;
const IO: u8 = 5;
const NEWER: u8 = 6;
pub(crate) const INTERRUPTED: u8 = 130;

/// How a verb ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// There is no value for this key.
    Absent(Vec<u8>),
    /// Another condition does not hold: which, and how it is instead. Empty where the answer has
    /// been given already.
    False(String),
    /// Damage was found, and has been reported.
    Damaged,
    /// Something is in the way of reading and writing, and has been reported.
    Unfit,
    /// Ctrl-C ended it in good order: how far it came.
    Interrupted(String),
    /// Lines of the shell failed, and have been reported: the exit code of the last one.
    Failed(u8),
}

/// Why a verb failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Store(Error),
    /// The arguments, or what was read, ask for something impossible.
    Usage(String),
    /// Standard input or output.
    Stdio {
        /// As in "read standard input".
        op: &'static str,
        source: io::Error,
    },
    /// A file that is not the store's.
    File {
        /// As in "read".
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A server that cannot have its address.
    #[cfg(feature = "server")]
    Listen {
        addr: std::net::SocketAddr,
        /// Which one gave it.
        option: &'static str,
        source: io::Error,
    },
    /// What came back is not what was written.
    Wrong(String),
    /// Whoever reads standard output has read what he wanted.
    ClosedPipe,
    /// Ctrl-C ended a command of the shell.
    Interrupted,
}

impl Failure {
    pub(crate) fn file(op: &'static str, path: &Path, source: io::Error) -> Failure {
        let path = path.to_path_buf();
        Failure::File { op, path, source }
    }
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
            Failure::Store(Error::Corrupt {
                file,
                offset,
                reason,
            }) => write!(
                f,
                "damage in {} at offset {offset}: {reason}; crabkv verify looks for more, crabkv \
                 repair saves what is sound",
                file.display()
            ),
            Failure::Store(error) => error.fmt(f),
            Failure::Usage(message) | Failure::Wrong(message) => f.write_str(message),
            Failure::Stdio { op, source } => write!(f, "cannot {op}: {source}"),
            Failure::File { op, path, source } => {
                write!(f, "cannot {op} {}: {source}", path.display())
            }
            #[cfg(feature = "server")]
            Failure::Listen {
                addr,
                option,
                source,
            } => write!(
                f,
                "cannot listen on {addr}: {source}; another program may have it, choose one with \
                 {option}"
            ),
            Failure::ClosedPipe => f.write_str("standard output was closed"),
            Failure::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What to do about a failure of the system, where that is clear.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotADirectory => "; a store is a directory: name another one",
        ErrorKind::PermissionDenied => "; its owner can give you the right to read and write it",
        ErrorKind::ReadOnlyFilesystem => "; a store can only be opened where it can be written",
        _ => "",
    }
}

/// Says on stderr what there is to say, and gives the exit code.
pub(crate) fn code(outcome: Result<Outcome, Failure>, context: &Context) -> ExitCode {
    ExitCode::from(report(outcome, context))
}

/// As [`code`], as a number.
pub(crate) fn report(outcome: Result<Outcome, Failure>, context: &Context) -> u8 {
    match outcome {
        Ok(Outcome::Done) | Err(Failure::ClosedPipe) => 0,
        Ok(Outcome::Absent(key)) => {
            context.note(format_args!("no value for the key {}", text::quoted(&key)));
            FALSE
        }
        Ok(Outcome::False(message)) => {
            if !message.is_empty() {
                context.note(message);
            }
            FALSE
        }
        Ok(Outcome::Damaged) => DAMAGED,
        Ok(Outcome::Unfit) => IO,
        Ok(Outcome::Interrupted(message)) => {
            context.note(format_args!("interrupted: {message}"));
            INTERRUPTED
        }
        Ok(Outcome::Failed(code)) => code,
        Err(failure) => {
            context.say(&failure);
            if context.options.verbose {
                say_causes(&failure);
            }
            code_of(&failure)
        }
    }
}

/// What is behind an error, each cause below what it caused.
fn say_causes(failure: &Failure) {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = match failure {
        Failure::Store(error) => error.source(),
        Failure::Stdio { source, .. } | Failure::File { source, .. } => Some(source),
        #[cfg(feature = "server")]
        Failure::Listen { source, .. } => Some(source),
        Failure::Usage(_) | Failure::Wrong(_) | Failure::ClosedPipe | Failure::Interrupted => None,
    };
    while let Some(error) = cause {
        let line = format!("  caused by: {}\n", text::harmless(&error.to_string()));
        let _ = io::stderr().write_all(line.as_bytes());
        cause = error.source();
    }
}

fn code_of(failure: &Failure) -> u8 {
    match failure {
        Failure::Store(error) => code_of_error(error),
        Failure::Usage(_) => USAGE,
        Failure::Stdio { .. } | Failure::File { .. } => IO,
        #[cfg(feature = "server")]
        Failure::Listen { .. } => IO,
        Failure::Wrong(_) => DAMAGED,
        Failure::ClosedPipe => 0,
        Failure::Interrupted => INTERRUPTED,
    }
}

fn code_of_error(error: &Error) -> u8 {
    match error {
        Error::KeyTooLarge { .. }
        | Error::ValueTooLarge { .. }
        | Error::BatchTooLarge { .. }
        | Error::NotAnInteger { .. }
        | Error::InvalidOption { .. }
        | Error::ReadOnly => USAGE,
        Error::Conflict { .. } => FALSE,
        Error::Locked { .. } => LOCKED,
        Error::Corrupt { .. } => DAMAGED,
        Error::UnsupportedVersion { .. } | Error::UnsupportedFeatures { .. } => NEWER,
        Error::Cancelled => INTERRUPTED,
        Error::Poisoned { cause } => code_of_error(cause),
        _ => IO,
    }
}

/// One line on stderr, in one piece, so that what several programs say does not mix. There is nobody
/// to tell when that fails.
pub(crate) fn say(message: impl fmt::Display) {
    let line = format!("crabkv: {}\n", text::harmless(&message.to_string()));
    let _ = io::stderr().write_all(line.as_bytes());
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
