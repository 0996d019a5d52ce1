//! Replies, in the version of the protocol that the client asked for.

use std::io::Write as _;

/// The version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    #[default]
    Two,
    Three,
}

impl Protocol {
    pub(crate) fn number(self) -> i64 {
        match self {
            Protocol::Two => 2,
            Protocol::Three => 3,
        }
    }
}

/// Appends replies to what is to be sent.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    output: &'a mut Vec<u8>,
    protocol: Protocol,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(output: &'a mut Vec<u8>, protocol: Protocol) -> Reply<'a> {
        Reply { output, protocol }
    }

    /// Where replies go, for what makes its own.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        self.output
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// From here on, replies are in another version.
    pub(crate) fn switch(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    pub(crate) fn ok(&mut self) {
        self.output.extend_from_slice(b"+OK\r\n");
    }

    /// A word of the protocol's own, such as `PONG`; nothing that a client sent.
    pub(crate) fn simple(&mut self, text: &'static str) {
        self.output.push(b'+');
        self.line(text.as_bytes());
    }

    /// A line of text of the server's own. Line ends in it become blanks.
    pub(crate) fn status(&mut self, text: &str) {
        self.output.push(b'+');
        self.one_line(text);
    }

    /// An error, with its code: `ERR syntax error`. Line ends in it become blanks, for it may quote
    /// what a client sent.
    pub(crate) fn error(&mut self, text: &str) {
        self.output.push(b'-');
        self.one_line(text);
    }

    fn one_line(&mut self, text: &str) {
        let begin = self.output.len();
        self.output.extend_from_slice(text.as_bytes());
        for byte in &mut self.output[begin..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.output.extend_from_slice(b"\r\n");
    }

    pub(crate) fn integer(&mut self, integer: i64) {
        // Writing to a vector cannot fail.
        let _ = write!(self.output, ":{integer}\r\n");
    }

    /// A count, which no memory can hold more of than fits.
    pub(crate) fn count(&mut self, count: usize) {
        self.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        self.output.push(b'$');
        self.length(bytes.len());
        self.line(bytes);
    }

    /// Text of a format of its own, such as `INFO`'s.
    pub(crate) fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Two => self.bulk(text.as_bytes()),
            Protocol::Three => {
                self.output.push(b'=');
                self.length(text.len() + 4);
                self.output.extend_from_slice(b"txt:");
                self.line(text.as_bytes());
            }
        }
    }

    /// That there is no value.
    pub(crate) fn null(&mut self) {
        self.output.extend_from_slice(match self.protocol {
            Protocol::Two => b"$-1\r\n",
            Protocol::Three => b"_\r\n",
        });
    }

    /// That there is no array.
    pub(crate) fn null_array(&mut self) {
        self.output.extend_from_slice(match self.protocol {
            Protocol::Two => b"*-1\r\n",
            Protocol::Three => b"_\r\n",
        });
    }

    /// So many replies follow.
    pub(crate) fn array(&mut self, len: usize) {
        self.output.push(b'*');
        self.length(len);
    }

    /// An array of strings.
    pub(crate) fn bulks(&mut self, items: &[Vec<u8>]) {
        self.array(items.len());
        for item in items {
            self.bulk(item);
        }
    }

    /// So many pairs follow, each a key's reply and a value's.
    pub(crate) fn map(&mut self, len: usize) {
        match self.protocol {
            Protocol::Two => self.array(len * 2),
            Protocol::Three => {
                self.output.push(b'%');
                self.length(len);
            }
        }
    }

    /// So many replies follow, in no order.
    pub(crate) fn set(&mut self, len: usize) {
        match self.protocol {
            Protocol::Two => self.array(len),
            Protocol::Three => {
                self.output.push(b'~');
                self.length(len);
            }
        }
    }

    fn length(&mut self, len: usize) {
        let _ = write!(self.output, "{len}\r\n");
    }

    fn line(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        self.output.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replied(protocol: Protocol, reply: impl FnOnce(&mut Reply<'_>)) -> String {
        let mut output = Vec::new();
        reply(&mut Reply::new(&mut output, protocol));
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn each_reply_is_as_the_protocol_has_it() {
        type Make = fn(&mut Reply<'_>);
        let replies: [(Make, &str, &str); 9] = [
            (|r| r.ok(), "+OK\r\n", "+OK\r\n"),
            (|r| r.integer(-5), ":-5\r\n", ":-5\r\n"),
            (|r| r.bulk(b"a\r\n"), "$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n"),
            (|r| r.null(), "$-1\r\n", "_\r\n"),
            (|r| r.null_array(), "*-1\r\n", "_\r\n"),
            (|r| r.array(2), "*2\r\n", "*2\r\n"),
            (|r| r.map(2), "*4\r\n", "%2\r\n"),
            (|r| r.set(2), "*2\r\n", "~2\r\n"),
            (|r| r.verbatim("a"), "$1\r\na\r\n", "=5\r\ntxt:a\r\n"),
        ];
        for (make, two, three) in replies {
            assert_eq!(replied(Protocol::Two, make), two);
            assert_eq!(replied(Protocol::Three, make), three);
        }
    }

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let text = replied(Protocol::Two, |r| r.error("ERR no 'a\r\n+OK'"));
        assert_eq!(text, "-ERR no 'a  +OK'\r\n");
    }
}
