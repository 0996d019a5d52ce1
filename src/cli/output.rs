//! Standard output: exact bytes, and a reader that may leave at any time.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::exit::Failure;
use super::interrupt;

/// Whether a newline follows each value, whatever stdout is.
static ENDS_VALUES: AtomicBool = AtomicBool::new(false);

/// From now on a newline follows each value: for the shell, whose answers follow one another.
pub(crate) fn end_values() {
    ENDS_VALUES.store(true, Ordering::Relaxed);
}

/// Standard output for bytes, buffered. What was written is only out after
/// [`finish`](Output::finish).
pub(crate) struct Output {
    stdout: BufWriter<StdoutLock<'static>>,
    is_terminal: bool,
}

impl Output {
    pub(crate) fn new() -> Output {
        let stdout = io::stdout().lock();
        let is_terminal = stdout.is_terminal();
        Output {
            stdout: BufWriter::with_capacity(64 << 10, stdout),
            is_terminal,
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if interrupt::ends_output() {
            return Err(Failure::Interrupted);
        }
        self.stdout.write_all(bytes).map_err(failure)
    }

    pub(crate) fn write_line(&mut self, line: &str) -> Result<(), Failure> {
        self.write(line.as_bytes())?;
        self.write(b"\n")
    }

    pub(crate) fn write_json_line(&mut self, value: &Value) -> Result<(), Failure> {
        self.write_line(&value.to_string())
    }

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(failure)
    }
}

/// Writes a value: nothing but its bytes, so that it can be piped on; on a terminal a newline, so
/// that the prompt does not stick to it, and in the shell.
pub(crate) fn write_value(value: &[u8]) -> Result<(), Failure> {
    let mut output = Output::new();
    output.write(value)?;
    if output.is_terminal() || ENDS_VALUES.load(Ordering::Relaxed) {
        output.write(b"\n")?;
    }
    output.finish()
}

/// Writes text for people; its colours only where they are wanted.
pub(crate) fn write_text(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(failure)
}

/// Writes one JSON document, on one line.
pub(crate) fn write_json(value: &Value) -> Result<(), Failure> {
    let mut output = Output::new();
    output.write_json_line(value)?;
    output.finish()
}

/// What it means that standard output cannot be written to.
pub(crate) fn failure(source: io::Error) -> Failure {
    if source.kind() == ErrorKind::BrokenPipe {
        Failure::ClosedPipe
    } else {
        Failure::Stdio {
            op: "write to standard output",
            source,
        }
    }
}
