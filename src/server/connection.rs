//! One connection: reads requests, has them done in order, and sends the answers in that order.

use std::io;
use std::sync::Arc;

use mio::Token;
use mio::event::Event;
use mio::net::TcpStream;

use super::event_loop::{Mailbox, Shared};
use super::input::{Arrival, Input};
use super::limits::{OUTPUT_BYTES, REQUEST_TIMEOUT};
use super::output::Output;
use super::text::{self, Answer};

/// How a connection's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits for its client, for a sync, or for an answer from elsewhere.
    Done,
    /// There is more to do at once.
    Again,
    Closed,
}

/// What a connection does about requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It waits for an answer from the worker.
    Busy,
    /// It takes no more: what is answered is sent, then it closes.
    Ending,
}

/// What the system has said of the socket.
#[derive(Clone, Copy, Debug)]
struct Readiness {
    readable: bool,
    writable: bool,
    /// The client sends no more; what it has sent may still be unread.
    read_closed: bool,
}

pub(crate) struct Connection {
    stream: TcpStream,
    token: Token,
    mailbox: Arc<Mailbox>,
    ready: Readiness,
    input: Input,
    output: Output,
    state: State,
    /// Everything that the client sent has been read.
    at_end: bool,
    /// In which of its loop's lists it is.
    pub(crate) lists: Lists,
}

/// In which lists of its loop a connection is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lists {
    pub(crate) ready: bool,
    pub(crate) held: bool,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, token: Token, mailbox: Arc<Mailbox>) -> Connection {
        Connection {
            stream,
            token,
            mailbox,
            ready: Readiness {
                readable: false,
                writable: true,
                read_closed: false,
            },
            input: Input::default(),
            output: Output::default(),
            state: State::Open,
            at_end: false,
            lists: Lists::default(),
        }
    }

    /// Takes note of what the system says.
    pub(crate) fn note(&mut self, event: &Event) {
        self.ready.readable |= event.is_readable();
        self.ready.writable |= event.is_writable();
        self.ready.read_closed |= event.is_read_closed();
    }

    /// Takes no more requests.
    pub(crate) fn end(&mut self) {
        if self.state == State::Open {
            self.state = State::Ending;
        }
    }

    /// Says why, and takes no more requests.
    pub(crate) fn refuse(&mut self, reason: &str) {
        text::error(reason, self.output.bytes());
        self.state = State::Ending;
    }

    /// Takes the answer that it waited for.
    pub(crate) fn resume(&mut self, answer: &[u8], shared: &Shared) {
        self.state = State::Open;
        let from = self.output.end();
        self.output.bytes().extend_from_slice(answer);
        self.hold(from, shared);
    }

    /// Whether answers wait for a sync.
    pub(crate) fn is_held(&self) -> bool {
        self.output.is_held()
    }

    /// Whether its client has let a request hang for too long.
    pub(crate) fn is_too_slow(&self) -> bool {
        let arriving_for = self.input.arriving_for();
        arriving_for.is_some_and(|duration| duration > REQUEST_TIMEOUT)
    }

    /// Reads, does what has arrived, and sends what may be sent.
    pub(crate) fn turn(&mut self, shared: &Shared) -> Turn {
        if self.takes_requests() && self.ready.readable && self.read().is_err() {
            return Turn::Closed;
        }
        let from = self.output.end();
        self.do_requests(shared);
        self.hold(from, shared);
        if self.send(shared).is_err() {
            return Turn::Closed;
        }
        let has_more = self.ready.readable || self.input.is_unsearched();
        if self.at_end && !has_more {
            self.end();
        }
        if self.state == State::Ending && self.output.unsent_len() == 0 {
            Turn::Closed
        } else if has_more && self.takes_requests() {
            Turn::Again
        } else {
            Turn::Done
        }
    }

    /// Whether the next request may be done: not while the last ones' answers pile up.
    fn takes_requests(&self) -> bool {
        self.state == State::Open && self.output.unsent_len() < OUTPUT_BYTES
    }

    fn read(&mut self) -> io::Result<()> {
        self.ready.readable = match self.input.read(&mut self.stream)? {
            Arrival::Some => true,
            // What comes next is an event; but an end that came with this is none.
            Arrival::All => self.ready.read_closed || cfg!(windows),
            Arrival::None => false,
            Arrival::End => {
                self.at_end = true;
                false
            }
        };
        Ok(())
    }

    fn do_requests(&mut self, shared: &Shared) {
        while self.takes_requests() {
            let line = match self.input.next_line() {
                Ok(Some(range)) => self.input.line(range),
                Ok(None) => break,
                Err(_) => return self.refuse("a request has at most 64 MiB"),
            };
            match text::execute(line, shared, self.output.bytes()) {
                Answer::Given => {}
                Answer::Close => self.state = State::Ending,
                Answer::Later(job) => {
                    self.state = State::Busy;
                    let (mailbox, token) = (Arc::clone(&self.mailbox), self.token);
                    let store = shared.store.clone();
                    let job = move || mailbox.answer(token, job(&store));
                    shared.worker.submit(job);
                }
            }
        }
        self.input.forget_done(self.takes_requests());
    }

    /// Holds the output from `from` on until everything that it can tell of is durable.
    fn hold(&mut self, from: usize, shared: &Shared) {
        if from < self.output.end() {
            if let Some(write) = shared.syncer.hold() {
                self.output.hold(from, write);
            }
        }
    }

    /// Sends what may be sent.
    fn send(&mut self, shared: &Shared) -> io::Result<()> {
        if let Some(failure) = shared.syncer.failure() {
            if self.output.is_held() {
                // What waits may not be true after a power cut.
                self.output.withdraw_held();
                self.refuse(&failure.to_string());
            }
        }
        self.output.release(shared.syncer.durable());
        if self.ready.writable {
            self.ready.writable = self.output.send(&mut self.stream)?;
        }
        Ok(())
    }
}
