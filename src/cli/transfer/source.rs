//! An input that knows how far it was read, and takes no more at a time than it is told to.

use std::io::{BufRead, Read};

use super::{Place, ReadError, malformed};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) struct Source<R> {
    input: R,
    /// Bytes that were read.
    offset: u64,
    /// Lines that were read.
    lines: u64,
}

impl<R: BufRead> Source<R> {
    pub(super) fn new(input: R) -> Source<R> {
        Source {
            input,
            offset: 0,
            lines: 0,
        }
    }

    pub(super) fn offset(&self) -> Place {
        Place::Offset(self.offset)
    }

    /// The line that was read last.
    pub(super) fn line_number(&self) -> Place {
        Place::Line(self.lines)
    }

    /// Reads a line of up to `max` bytes into `line`, without its line feed and what of a carriage
    /// return or a byte order mark comes with it. Whether there was one.
    pub(super) fn line(&mut self, line: &mut Vec<u8>, max: usize) -> Result<bool, ReadError> {
        line.clear();
        let bytes = self
            .input
            .by_ref()
            .take(max as u64 + 2)
            .read_until(b'\n', line)?;
        if bytes == 0 {
            return Ok(false);
        }
        self.offset += bytes as u64;
        self.lines += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > max {
            return malformed(
                self.line_number(),
                format!("more than {max} bytes without a line feed; is this the right format?"),
            );
        }
        if self.lines == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(true)
    }

    /// Reads `len` bytes into `bytes`, which grows with what there is and not with what was
    /// announced. Whether there were so many.
    pub(super) fn exact(&mut self, bytes: &mut Vec<u8>, len: usize) -> Result<bool, ReadError> {
        bytes.clear();
        let read = self.input.by_ref().take(len as u64).read_to_end(bytes)?;
        self.offset += read as u64;
        Ok(read == len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_without_its_end_and_its_byte_order_mark() {
        let mut source = Source::new(&b"\xef\xbb\xbfa\r\n\n\xef\xbb\xbfb"[..]);
        let mut line = Vec::new();
        assert!(source.line(&mut line, 9).unwrap());
        assert_eq!(line, b"a");
        assert!(source.line(&mut line, 9).unwrap());
        assert_eq!(line, b"");
        assert!(source.line(&mut line, 9).unwrap());
        assert_eq!(line, b"\xef\xbb\xbfb");
        assert_eq!(source.line_number(), Place::Line(3));
        assert_eq!(source.offset(), Place::Offset(11));
        assert!(!source.line(&mut line, 9).unwrap());
    }

    #[test]
    fn a_line_without_end_is_not_read_to_its_end() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        let error = Source::new(endless).line(&mut Vec::new(), 100).unwrap_err();
        let ReadError::Malformed(malformed) = error else {
            panic!("{error:?}");
        };
        assert_eq!(malformed.place, Place::Line(1));
    }

    #[test]
    fn a_line_of_the_greatest_length_is_read_whatever_it_ends_with() {
        for input in [&b"abc\r\n"[..], b"abc\n", b"abc"] {
            let mut line = Vec::new();
            assert!(Source::new(input).line(&mut line, 3).unwrap());
            assert_eq!(line, b"abc");
            assert!(Source::new(input).line(&mut line, 2).is_err());
        }
    }
}
