//! What is answered and not sent yet. Some of it may have to wait until it is durable.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use super::limits::{KEPT_BYTES, OUTPUT_BYTES};
use super::patience::Transfer;

#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// How many of them are sent.
    sent: usize,
    /// What waits, in order, each up to the next.
    holds: VecDeque<Hold>,
    /// The other side did not take everything at once: since then, and how much it has taken.
    blocked: Option<(Transfer, usize)>,
}

/// From here on, a write must be durable before anything is sent.
#[derive(Clone, Copy, Debug)]
struct Hold {
    from: usize,
    write: u64,
}

impl Output {
    /// Where answers are appended.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Where the next answer begins.
    pub(crate) fn end(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes are not sent yet.
    pub(crate) fn unsent_len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether some of it waits for a write to be durable.
    pub(crate) fn is_held(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Lets what was answered from `from` on wait until a write is durable.
    pub(crate) fn hold(&mut self, from: usize, write: u64) {
        let is_new = self.holds.back().is_none_or(|hold| hold.write < write);
        if from < self.bytes.len() && is_new {
            self.holds.push_back(Hold { from, write });
        }
    }

    /// Lets go what waits for writes up to `durable`.
    pub(crate) fn release(&mut self, durable: u64) {
        while self.holds.front().is_some_and(|hold| hold.write <= durable) {
            self.holds.pop_front();
        }
    }

    /// Takes back what waits.
    pub(crate) fn withdraw_held(&mut self) {
        if let Some(first) = self.holds.front() {
            self.bytes.truncate(first.from.max(self.sent));
            self.holds.clear();
        }
    }

    /// Sends what does not wait, as far as the other side takes it; whether it took all of that.
    pub(crate) fn send(&mut self, to: &mut impl Write) -> io::Result<bool> {
        let end = self.holds.front().map_or(self.bytes.len(), |h| h.from);
        let begin = self.sent;
        let mut takes_more = true;
        while self.sent < end && takes_more {
            match to.write(&self.bytes[self.sent..end]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => takes_more = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if takes_more {
            match to.flush() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => takes_more = false,
                flushed => flushed?,
            }
        }
        let taken = self.sent - begin;
        self.blocked = match self.blocked {
            _ if takes_more => None,
            None => Some((Transfer::begin(), 0)),
            Some((transfer, bytes)) => Some((transfer, bytes + taken)),
        };
        self.forget_sent();
        Ok(takes_more)
    }

    /// Whether the other side has been taking too long.
    pub(crate) fn is_overdue(&self, timeout: Duration) -> bool {
        self.blocked
            .is_some_and(|(transfer, bytes)| transfer.is_overdue(timeout, bytes))
    }

    fn forget_sent(&mut self) {
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            self.sent = 0;
        } else if self.sent >= OUTPUT_BYTES {
            self.bytes.drain(..self.sent);
            for hold in &mut self.holds {
                hold.from -= self.sent;
            }
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(output: &mut Output, text: &str, write: Option<u64>) {
        let from = output.end();
        output.bytes().extend_from_slice(text.as_bytes());
        if let Some(write) = write {
            output.hold(from, write);
        }
    }

    #[test]
    fn an_answer_waits_for_its_write_and_holds_those_behind_it() {
        let mut output = Output::default();
        let mut sent = Vec::new();
        answer(&mut output, "a", None);
        answer(&mut output, "b", Some(1));
        answer(&mut output, "c", Some(1));
        answer(&mut output, "d", Some(3));
        assert!(output.send(&mut sent).unwrap());
        assert_eq!(sent, b"a");
        output.release(2);
        output.send(&mut sent).unwrap();
        assert_eq!(sent, b"abc");
        assert!(output.is_held());
        output.release(3);
        output.send(&mut sent).unwrap();
        assert_eq!(sent, b"abcd");
        assert_eq!((output.is_held(), output.unsent_len()), (false, 0));
    }

    #[test]
    fn what_waits_can_be_taken_back() {
        let mut output = Output::default();
        let mut sent = Vec::new();
        answer(&mut output, "true", None);
        answer(&mut output, "not durable", Some(1));
        output.withdraw_held();
        answer(&mut output, "!", None);
        output.send(&mut sent).unwrap();
        assert_eq!(sent, b"true!");
    }
}
