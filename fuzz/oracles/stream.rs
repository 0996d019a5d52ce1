//! The stream of a connection, cut into requests: however it arrives, they are the same. What cuts it
//! is part of the program, so this reads its files.

#[path = "../../src/server/input.rs"]
#[allow(dead_code, reason = "nobody waits for what arrives here")]
mod input;
#[path = "../../src/server/limits.rs"]
#[allow(dead_code, reason = "there is no connection here")]
mod limits;
#[path = "../../src/server/resp/parse.rs"]
#[allow(dead_code, reason = "nobody is told of errors here")]
pub(crate) mod parse;
#[path = "../../src/server/patience.rs"]
#[allow(dead_code, reason = "nobody waits for what arrives here")]
mod patience;

mod resp {
    pub(super) use super::parse;
}

use std::ops::Range;

use input::{Input, Request, Scratch};
use parse::{Limits, ProtocolError};

/// Small enough to be met by chance.
pub(crate) const LIMITS: Limits = Limits {
    arguments: 8,
    bytes: 64,
};

/// Longer streams take time and show nothing else.
const MOST_BYTES: usize = 512;

/// What a stream holds, up to the first error.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    requests: Vec<Vec<Vec<u8>>>,
    error: Option<ProtocolError>,
}

/// A stream, in one piece, byte by byte, in pieces of other sizes, and cut in two anywhere.
pub(crate) fn stream(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MOST_BYTES)];
    let mut scratch = Scratch::new();
    let whole = held(&mut std::iter::once(bytes), &mut scratch);
    for size in [1, 7, 64] {
        let pieces = held(&mut bytes.chunks(size), &mut scratch);
        assert_eq!(pieces, whole, "in pieces of {size}");
    }
    // All places are tried for short streams, a few for long ones.
    let step = 1 + bytes.len() / 16;
    for at in (1..bytes.len()).step_by(step) {
        let (begin, rest) = bytes.split_at(at);
        let pieces = held(&mut [begin, rest].into_iter(), &mut scratch);
        assert_eq!(pieces, whole, "cut at {at}");
    }
}

fn held(pieces: &mut dyn Iterator<Item = &[u8]>, scratch: &mut Scratch) -> Held {
    let mut held = Held::default();
    let mut input = Input::default();
    let mut arguments = Vec::new();
    for mut piece in pieces {
        let Ok(_) = input.read(&mut piece, scratch) else {
            panic!("bytes cannot be read");
        };
        loop {
            match input.next(LIMITS, &mut arguments) {
                Ok(Some(request)) => {
                    let ranges = match request {
                        Request::Line(range) => vec![range],
                        Request::Frame => arguments.clone(),
                    };
                    let value = |range: Range<usize>| input.bytes()[range].to_vec();
                    held.requests.push(ranges.into_iter().map(value).collect());
                }
                Ok(None) => break,
                Err(error) => {
                    held.error = Some(error);
                    return held;
                }
            }
        }
        assert!(!input.is_unsearched(), "a request is overlooked");
        input.forget_done(true);
        // What waits is never more than a request may have, with the end of its last argument.
        assert!(input.bytes().len() <= 2 * (LIMITS.bytes + 2) + MOST_BYTES);
    }
    held
}
