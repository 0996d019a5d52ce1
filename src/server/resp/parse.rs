//! One request: an array of bulk strings, `*2\r\n$3\r\nGET\r\n$1\r\na\r\n`.
//!
//! Lengths are digits only, and nothing is allocated for what was announced and has not arrived.
//! After an error there is no telling where the next request begins, so the connection ends.

use std::fmt;
use std::ops::Range;

/// The most a length may be written with.
const MAX_LENGTH_DIGITS: usize = 10;

/// What a request may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Arguments, the command's name included.
    pub(crate) arguments: usize,
    /// Bytes of the request as a whole.
    pub(crate) bytes: usize,
}

/// What is at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A request of so many bytes; its arguments are where the caller wanted them.
    Request { len: usize },
    /// A part of one. There is no use in looking again before there are so many bytes.
    Incomplete { at_least: usize },
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProtocolError {
    ArgumentCount,
    TooManyArguments { max: usize },
    ArgumentLength,
    TooLong { max: usize },
    ExpectedArgument { found: u8 },
    ExpectedLineEnd,
}

impl ProtocolError {
    /// What is wrong, without anything that the client sent.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            ProtocolError::ArgumentCount | ProtocolError::TooManyArguments { .. } => {
                "invalid multibulk length"
            }
            ProtocolError::ArgumentLength | ProtocolError::TooLong { .. } => "invalid bulk length",
            ProtocolError::ExpectedArgument { .. } => "expected '$'",
            ProtocolError::ExpectedLineEnd => "expected CRLF behind an argument",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Protocol error: {}", self.kind())?;
        match self {
            ProtocolError::TooManyArguments { max } => write!(f, ", at most {max} are allowed"),
            ProtocolError::TooLong { max } => write!(f, ", a request has at most {max} bytes"),
            ProtocolError::ExpectedArgument { found } => {
                write!(f, ", got '{}'", found.escape_ascii())
            }
            _ => Ok(()),
        }
    }
}

/// Looks for a request at the beginning of `bytes`, which begin with `*`. Where its arguments are
/// goes into `arguments`, whose former content is gone. A request of none is one to be ignored.
pub(crate) fn parse(
    bytes: &[u8],
    limits: Limits,
    arguments: &mut Vec<Range<usize>>,
) -> Result<Parsed, ProtocolError> {
    arguments.clear();
    let mut at = 1;
    let Some(count) = length(bytes, &mut at, ProtocolError::ArgumentCount)? else {
        return Ok(incomplete(bytes));
    };
    // -1 is an array that is none.
    let count = count.unwrap_or(0);
    if count > limits.arguments {
        let max = limits.arguments;
        return Err(ProtocolError::TooManyArguments { max });
    }
    for _ in 0..count {
        match bytes.get(at) {
            None => return Ok(incomplete(bytes)),
            Some(b'$') => at += 1,
            Some(&found) => return Err(ProtocolError::ExpectedArgument { found }),
        }
        let Some(len) = length(bytes, &mut at, ProtocolError::ArgumentLength)? else {
            return Ok(incomplete(bytes));
        };
        let len = len.ok_or(ProtocolError::ArgumentLength)?;
        let end = at + len;
        if end > limits.bytes {
            return Err(ProtocolError::TooLong { max: limits.bytes });
        }
        let at_least = end + 2;
        if bytes.len() < at_least {
            return Ok(Parsed::Incomplete { at_least });
        }
        if bytes[end..at_least] != *b"\r\n" {
            return Err(ProtocolError::ExpectedLineEnd);
        }
        arguments.push(at..end);
        at = at_least;
    }
    Ok(Parsed::Request { len: at })
}

fn incomplete(bytes: &[u8]) -> Parsed {
    Parsed::Incomplete {
        at_least: bytes.len() + 1,
    }
}

/// A length and its line end; `Some(None)` for -1, `None` where there are too few bytes.
#[allow(clippy::option_option, reason = "two things can be missing")]
fn length(
    bytes: &[u8],
    at: &mut usize,
    error: ProtocolError,
) -> Result<Option<Option<usize>>, ProtocolError> {
    let rest = &bytes[*at..];
    let begin = &rest[..rest.len().min(MAX_LENGTH_DIGITS + 2)];
    let Some(end) = begin.iter().position(|byte| *byte == b'\r') else {
        return if begin.len() < rest.len() || begin.len() == MAX_LENGTH_DIGITS + 2 {
            Err(error)
        } else {
            Ok(None)
        };
    };
    match rest.get(end + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(error),
    }
    let digits = &rest[..end];
    *at += end + 2;
    if digits == b"-1" {
        return Ok(Some(None));
    }
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(error);
    }
    let value = |value: usize, digit: &u8| value * 10 + usize::from(digit - b'0');
    Ok(Some(Some(digits.iter().fold(0, value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        arguments: 4,
        bytes: 100,
    };

    fn parsed(bytes: &[u8]) -> Result<Parsed, ProtocolError> {
        parse(bytes, LIMITS, &mut Vec::new())
    }

    #[test]
    fn a_request_is_complete_at_its_last_byte_only() {
        let request = b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n";
        let mut arguments = Vec::new();
        for end in 1..request.len() {
            match parse(&request[..end], LIMITS, &mut arguments).unwrap() {
                Parsed::Incomplete { at_least } => {
                    assert!(at_least > end && at_least <= request.len());
                }
                Parsed::Request { .. } => panic!("{end} bytes are not enough"),
            }
        }
        let mut bytes = request.to_vec();
        bytes.extend(b"*1\r\n");
        let len = request.len();
        assert_eq!(
            parse(&bytes, LIMITS, &mut arguments),
            Ok(Parsed::Request { len })
        );
        let found: Vec<_> = arguments
            .iter()
            .map(|range| &bytes[range.clone()])
            .collect();
        assert_eq!(found, [&b"SET"[..], b"", b"\r\n"]);
    }

    #[test]
    fn what_is_announced_is_checked_before_it_arrives() {
        for (bytes, error) in [
            (&b"*x\r\n"[..], ProtocolError::ArgumentCount),
            (b"*+1\r\n", ProtocolError::ArgumentCount),
            (b"*\r\n", ProtocolError::ArgumentCount),
            (b"*-2\r\n", ProtocolError::ArgumentCount),
            (b"*1\rx", ProtocolError::ArgumentCount),
            (b"*99999999999999999999", ProtocolError::ArgumentCount),
            (b"*5\r\n", ProtocolError::TooManyArguments { max: 4 }),
            (
                b"*1\r\n:1\r\n",
                ProtocolError::ExpectedArgument { found: b':' },
            ),
            (
                b"*1\r\n*1\r\n",
                ProtocolError::ExpectedArgument { found: b'*' },
            ),
            (b"*1\r\n$-1\r\n", ProtocolError::ArgumentLength),
            (b"*1\r\n$101\r\n", ProtocolError::TooLong { max: 100 }),
            (
                b"*1\r\n$9999999999\r\n",
                ProtocolError::TooLong { max: 100 },
            ),
            (b"*1\r\n$1\r\nabc", ProtocolError::ExpectedLineEnd),
        ] {
            assert_eq!(parsed(bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn an_array_of_nothing_is_a_request_of_nothing() {
        assert_eq!(parsed(b"*0\r\n"), Ok(Parsed::Request { len: 4 }));
        assert_eq!(parsed(b"*-1\r\n"), Ok(Parsed::Request { len: 5 }));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let request = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
        for at in 0..request.len() {
            for byte in 0..=255 {
                let mut bytes = request.to_vec();
                bytes[at] = byte;
                bytes[0] = b'*';
                for end in 1..=bytes.len() {
                    let _ = parsed(&bytes[..end]);
                }
            }
        }
    }
}
