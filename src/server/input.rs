//! What has arrived and is not done yet, cut into requests.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::time::Duration;

use super::limits::{KEPT_BYTES, READ_BYTES};
use super::patience::Transfer;
use super::resp::parse::{Limits, Parsed, ProtocolError, parse};

#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    /// How many of them are done.
    done: usize,
    /// How many there were when the last look found no request.
    looked_at: usize,
    /// How many there must be for another look to find one.
    wanted: usize,
    /// An incomplete request.
    arriving: Option<Transfer>,
}

/// A request, as the bytes that it is made of; [`bytes`](Input::bytes) has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A line, without its end.
    Line(Range<usize>),
    /// A frame; its arguments are where the caller wanted them.
    Frame,
}

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// There may be more.
    Some,
    /// There was less than there was room for.
    All,
    /// There was nothing.
    None,
    /// There never will be more.
    End,
}

/// Where a loop reads to, for all its connections: most have nothing in their own buffers between
/// requests, and none has to be zeroed for a read.
pub(crate) struct Scratch(Box<[u8]>);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch(vec![0; READ_BYTES].into_boxed_slice())
    }
}

impl Input {
    /// Reads what is there, up to a limit.
    pub(crate) fn read(
        &mut self,
        from: &mut impl Read,
        Scratch(scratch): &mut Scratch,
    ) -> io::Result<Arrival> {
        let read = loop {
            match from.read(scratch) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.bytes
            .extend_from_slice(&scratch[..*read.as_ref().unwrap_or(&0)]);
        match read {
            Ok(0) => Ok(Arrival::End),
            Ok(len) if len == scratch.len() => Ok(Arrival::Some),
            Ok(_) => Ok(Arrival::All),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Arrival::None),
            Err(error) => Err(error),
        }
    }

    /// The next request that is complete. It is done then.
    pub(crate) fn next(
        &mut self,
        limits: Limits,
        arguments: &mut Vec<Range<usize>>,
    ) -> Result<Option<Request>, ProtocolError> {
        let begin = self.done;
        if !self.is_unsearched() || self.bytes.len() < self.wanted {
            self.looked_at = self.bytes.len();
            return Ok(None);
        }
        if self.bytes[begin] == b'*' {
            return self.next_frame(limits, arguments);
        }
        let from = self.looked_at.max(begin);
        let len = self.bytes[from..].iter().position(|byte| *byte == b'\n');
        let end = len.map_or(self.bytes.len(), |len| from + len);
        // One that has arrived as a whole is no better than one whose end is still to come.
        if end - begin > limits.bytes {
            return Err(ProtocolError::TooLong { max: limits.bytes });
        }
        if len.is_none() {
            self.looked_at = end;
            return Ok(None);
        }
        self.done = end + 1;
        Ok(Some(Request::Line(begin..end)))
    }

    fn next_frame(
        &mut self,
        limits: Limits,
        arguments: &mut Vec<Range<usize>>,
    ) -> Result<Option<Request>, ProtocolError> {
        let begin = self.done;
        match parse(&self.bytes[begin..], limits, arguments)? {
            Parsed::Incomplete { at_least } => {
                self.looked_at = self.bytes.len();
                self.wanted = begin + at_least;
                Ok(None)
            }
            Parsed::Request { len } => {
                for argument in arguments {
                    *argument = argument.start + begin..argument.end + begin;
                }
                self.done = begin + len;
                Ok(Some(Request::Frame))
            }
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there may be a complete request that nobody has looked for.
    pub(crate) fn is_unsearched(&self) -> bool {
        self.bytes.len() > self.looked_at.max(self.done)
    }

    /// Forgets what is done. What is left is a request that is still arriving if `is_waiting`.
    pub(crate) fn forget_done(&mut self, is_waiting: bool) {
        let rest = self.bytes.len() - self.done;
        if rest == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
        } else if self.done >= rest {
            self.bytes.drain(..self.done);
        }
        if self.bytes.len() == rest {
            self.looked_at = self.looked_at.saturating_sub(self.done);
            self.wanted = self.wanted.saturating_sub(self.done);
            if self.done > 0 {
                self.arriving = None;
            }
            self.done = 0;
        }
        if rest == 0 || !is_waiting {
            self.arriving = None;
        } else if self.arriving.is_none() {
            self.arriving = Some(Transfer::begin());
        }
    }

    /// Whether a part of a request is there.
    pub(crate) fn is_arriving(&self) -> bool {
        self.arriving.is_some()
    }

    /// Whether a request has been arriving for too long.
    pub(crate) fn is_overdue(&self, timeout: Duration) -> bool {
        let bytes = self.bytes.len() - self.done;
        self.arriving
            .is_some_and(|arriving| arriving.is_overdue(timeout, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        arguments: 10,
        bytes: 1000,
    };

    /// Each request as its words, a line as one.
    fn requests(input: &mut Input) -> Vec<Vec<String>> {
        let mut requests = Vec::new();
        let mut arguments = Vec::new();
        while let Some(request) = input.next(LIMITS, &mut arguments).unwrap() {
            let ranges = match request {
                Request::Line(range) => vec![range],
                Request::Frame => arguments.clone(),
            };
            let text =
                |range: Range<usize>| String::from_utf8(input.bytes[range].to_vec()).unwrap();
            requests.push(ranges.into_iter().map(text).collect());
        }
        input.forget_done(true);
        requests
    }

    #[test]
    fn requests_are_found_however_they_arrive() {
        let text =
            "GET a\n*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\nPUT b 1\n\n*0\r\nGET b\r\n*1\r\n$4\r\nPI";
        for size in 1..text.len() {
            let mut input = Input::default();
            let mut found = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                assert_eq!(
                    input.read(&mut &*chunk, &mut Scratch::new()).unwrap(),
                    Arrival::All
                );
                found.extend(requests(&mut input));
            }
            let expected: [&[&str]; 6] = [
                &["GET a"],
                &["GET", "\r\n"],
                &["PUT b 1"],
                &[""],
                &[],
                &["GET b\r"],
            ];
            assert_eq!(found, expected, "{size} bytes at a time");
            assert!(input.is_arriving() && !input.is_unsearched());
            assert_eq!(
                input
                    .read(&mut &b"NG\r\n"[..], &mut Scratch::new())
                    .unwrap(),
                Arrival::All
            );
            assert_eq!(requests(&mut input), [["PING"]]);
            assert_eq!(
                input.read(&mut &b""[..], &mut Scratch::new()).unwrap(),
                Arrival::End
            );
        }
    }

    #[test]
    fn a_line_without_an_end_is_too_long_at_some_point() {
        let mut input = Input {
            bytes: vec![b'x'; 1000],
            ..Input::default()
        };
        assert_eq!(input.next(LIMITS, &mut Vec::new()), Ok(None));
        input.bytes.push(b'x');
        let too_long = Err(ProtocolError::TooLong { max: 1000 });
        assert_eq!(input.next(LIMITS, &mut Vec::new()), too_long);
    }

    /// Found by a fuzzer: whether a line was refused depended on how it arrived.
    #[test]
    fn a_line_that_is_too_long_is_refused_also_when_it_arrives_at_once() {
        for (len, is_refused) in [(1000, false), (1001, true)] {
            let mut bytes = vec![b'x'; len];
            bytes.push(b'\n');
            let mut input = Input {
                bytes,
                ..Input::default()
            };
            let next = input.next(LIMITS, &mut Vec::new());
            let expected = if is_refused {
                Err(ProtocolError::TooLong { max: 1000 })
            } else {
                Ok(Some(Request::Line(0..len)))
            };
            assert_eq!(next, expected, "{len} bytes");
        }
    }
}
