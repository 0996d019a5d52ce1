//! What has arrived and is not done yet, cut into requests.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::limits::{KEPT_BYTES, READ_BYTES, REQUEST_BYTES};

#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    /// How many of them are done.
    done: usize,
    /// Up to where there is no line end behind what is done.
    searched: usize,
    /// Since when an incomplete request is there.
    arriving_since: Option<Instant>,
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

/// A request that is longer than any may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Input {
    /// Reads what is there, up to a limit.
    pub(crate) fn read(&mut self, from: &mut impl Read) -> io::Result<Arrival> {
        let begin = self.bytes.len();
        self.bytes.resize(begin + READ_BYTES, 0);
        let read = loop {
            match from.read(&mut self.bytes[begin..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.bytes.truncate(begin + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Ok(Arrival::End),
            Ok(READ_BYTES) => Ok(Arrival::Some),
            Ok(_) => Ok(Arrival::All),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Arrival::None),
            Err(error) => Err(error),
        }
    }

    /// The next line that is complete, without its end; [`line`](Input::line) has its bytes. It is
    /// done then.
    pub(crate) fn next_line(&mut self) -> Result<Option<Range<usize>>, TooLong> {
        let begin = self.done;
        let from = self.searched.max(begin);
        let Some(len) = self.bytes[from..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            if self.bytes.len() - begin > REQUEST_BYTES {
                return Err(TooLong);
            }
            return Ok(None);
        };
        let end = from + len;
        self.done = end + 1;
        Ok(Some(begin..end))
    }

    pub(crate) fn line(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Whether there may be a complete request that nobody has looked for.
    pub(crate) fn is_unsearched(&self) -> bool {
        self.searched.max(self.done) < self.bytes.len()
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
            self.searched = self.searched.saturating_sub(self.done);
            if self.done > 0 {
                self.arriving_since = None;
            }
            self.done = 0;
        }
        if rest == 0 || !is_waiting {
            self.arriving_since = None;
        } else if self.arriving_since.is_none() {
            self.arriving_since = Some(Instant::now());
        }
    }

    /// For how long a request has been arriving.
    pub(crate) fn arriving_for(&self) -> Option<Duration> {
        self.arriving_since.map(|since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &mut Input) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(range) = input.next_line().unwrap() {
            lines.push(String::from_utf8(input.line(range).to_vec()).unwrap());
        }
        input.forget_done(true);
        lines
    }

    #[test]
    fn lines_are_found_however_they_arrive() {
        let text = "GET a\nPUT b 1\n\nGET b\r\nrest";
        for size in 1..text.len() {
            let mut input = Input::default();
            let mut found = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                assert_eq!(input.read(&mut &*chunk).unwrap(), Arrival::All);
                found.extend(lines(&mut input));
            }
            assert_eq!(found, ["GET a", "PUT b 1", "", "GET b\r"]);
            assert!(input.arriving_for().is_some() && !input.is_unsearched());
            assert_eq!(input.read(&mut &b""[..]).unwrap(), Arrival::End);
        }
    }

    #[test]
    fn a_line_without_an_end_is_too_long_at_some_point() {
        let mut input = Input {
            bytes: vec![b'x'; REQUEST_BYTES],
            ..Input::default()
        };
        assert_eq!(input.next_line(), Ok(None));
        input.bytes.push(b'x');
        assert_eq!(input.next_line(), Err(TooLong));
    }
}
