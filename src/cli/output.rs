//! Standard output: exact bytes, and a reader that may leave at any time.

use std::io::{self, ErrorKind, IsTerminal, Write};

use super::exit::Failure;

/// Writes text for people.
pub(crate) fn write_text(text: &str) -> Result<(), Failure> {
    finish(write_to(&mut io::stdout().lock(), text.as_bytes(), false))
}

/// Writes a value: nothing but its bytes, so that it can be piped on; on a terminal a newline, so
/// that the prompt does not stick to it.
pub(crate) fn write_value(value: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let newline = stdout.is_terminal();
    finish(write_to(&mut stdout, value, newline))
}

fn write_to(out: &mut impl Write, bytes: &[u8], newline: bool) -> io::Result<()> {
    out.write_all(bytes)?;
    if newline {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Whoever closes the pipe has read what he wanted: that is no failure.
fn finish(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(Failure::Stdio {
            op: "write to standard output",
            source,
        }),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_gets_a_newline() {
        for (newline, expected) in [(false, &b"a\0b"[..]), (true, b"a\0b\n")] {
            let mut out = Vec::new();
            write_to(&mut out, b"a\0b", newline).unwrap();
            assert_eq!(out, expected);
        }
    }
}
