//! The parser of requests, with what holds for any bytes. The fuzzer calls it, and so does the replay of
//! its corpus.

use std::ops::Range;

use super::stream::parse::{Parsed, parse};
use super::stream::{LIMITS, stream};

/// No input makes it look longer than this, which would take time and find nothing.
const MOST_BYTES: usize = 256;

/// A request's bytes, behind its `*`.
pub(crate) fn resp(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MOST_BYTES)];
    let bytes = [b"*", bytes.strip_prefix(b"*").unwrap_or(bytes)].concat();
    let mut arguments = Vec::new();
    stream(&bytes);
    let parsed = parse(&bytes, LIMITS, &mut arguments);
    assert!(arguments.len() <= LIMITS.arguments, "too many arguments");
    match parsed {
        Ok(Parsed::Request { len }) => {
            assert!(len <= bytes.len(), "it ends behind the end");
            check_arguments(&bytes[..len], &arguments);
            check_prefixes(&bytes, len);
        }
        Ok(Parsed::Incomplete { at_least }) => {
            assert!(at_least > bytes.len(), "there is nothing to wait for");
            // What was announced is within the limits, and the line end behind it.
            assert!(at_least <= bytes.len().max(LIMITS.bytes) + 2);
            check_prefixes(&bytes, bytes.len() + 1);
        }
        Err(error) => {
            for more in [&b"\r\n"[..], b"$1\r\na\r\n", &[0xff; 99]] {
                let longer = [&bytes, more].concat();
                assert_eq!(parse(&longer, LIMITS, &mut arguments), Err(error));
            }
        }
    }
}

/// Written anew, it is the same request.
fn check_arguments(request: &[u8], arguments: &[Range<usize>]) {
    let mut written = format!("*{}\r\n", arguments.len()).into_bytes();
    let mut at = 0;
    for argument in arguments {
        assert!(at < argument.start, "arguments overlap");
        let value = &request[argument.clone()];
        written.extend(format!("${}\r\n", value.len()).bytes());
        written.extend(value);
        written.extend(b"\r\n");
        at = argument.end;
    }
    let mut again = Vec::new();
    let len = written.len();
    let parsed = parse(&written, LIMITS, &mut again);
    assert_eq!(parsed, Ok(Parsed::Request { len }), "another length");
    let values = |bytes: &[u8], ranges: &[Range<usize>]| -> Vec<Vec<u8>> {
        let value = |range: &Range<usize>| bytes[range.clone()].to_vec();
        ranges.iter().map(value).collect()
    };
    assert_eq!(values(request, arguments), values(&written, &again));
}

/// Less than what is needed is incomplete, and never more than that is waited for.
fn check_prefixes(bytes: &[u8], needed: usize) {
    let mut arguments = Vec::new();
    for len in 1..needed {
        match parse(&bytes[..len], LIMITS, &mut arguments) {
            Ok(Parsed::Incomplete { at_least }) => {
                assert!(len < at_least && at_least <= needed.max(LIMITS.bytes + 2));
                assert!(needed > bytes.len() || at_least <= needed, "it would wait");
            }
            other => panic!("{len} bytes are {other:?}"),
        }
    }
}
