//! One connection: reads requests, has them done in order, and sends the answers in that order.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use mio::Token;
use mio::event::Event;
use tracing::{debug, warn};

use super::clients::Client;
use super::combine::Combined;
use super::commands::{self, Flow};
use super::event_loop::{Mailbox, Shared};
use super::figures::Trouble;
use super::inline::SplitError;
use super::input::{Arrival, Input, Request, Scratch};
use super::limits::{
    HANDSHAKE_TIMEOUT, OUTPUT_BYTES, PASSWORD_TIMEOUT, REQUEST_BEFORE_PASSWORD,
    WRONG_PASSWORD_PAUSE, WRONG_PASSWORDS,
};
use super::metrics::Tally;
use super::output::Output;
use super::patience::Timeouts;
use super::resp::Reply;
use super::resp::parse::{Limits, ProtocolError};
use super::session::Session;
use super::stream::{Stream, Traffic};
use super::turnstile::Turnstile;
use super::{inline, text, web};

/// How a connection's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits for its client, for a sync, or for an answer from elsewhere.
    Done,
    /// There is more to do at once.
    Again,
    /// It waits until then, whatever comes.
    Paused(Instant),
    Closed,
}

/// What a connection does about requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It waits for an answer from the worker.
    Busy,
    /// It gave a wrong password: until then nothing of it is done, or sent to it.
    Paused(Instant),
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
    stream: Stream,
    token: Token,
    mailbox: Arc<Mailbox>,
    ready: Readiness,
    input: Input,
    output: Output,
    combined: Combined,
    session: Session,
    /// Where the arguments of a request are, from request to request.
    arguments: Vec<Range<usize>>,
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
    pub(crate) fn new(
        stream: Stream,
        token: Token,
        mailbox: Arc<Mailbox>,
        session: Session,
    ) -> Connection {
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
            combined: Combined::default(),
            session,
            arguments: Vec::new(),
            state: State::Open,
            at_end: false,
            lists: Lists::default(),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.session.client
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
        let error = format!("ERR {reason}");
        Reply::new(self.output.bytes(), self.session.protocol).error(&error);
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

    /// Whether its client takes too long for what it does, or does nothing for too long.
    pub(crate) fn is_too_slow(&self, timeouts: &Timeouts) -> bool {
        let owes_nothing = self.output.unsent_len() == 0 && !self.input.is_arriving();
        let is_idle = self.state == State::Open && owes_nothing;
        let idle = self.session.client.idle();
        let owes_password_for = self.session.owes_password_for();
        let shaking_hands_for = self.stream.shaking_hands_for();
        owes_password_for.is_some_and(|duration| duration > PASSWORD_TIMEOUT)
            || shaking_hands_for.is_some_and(|duration| duration > HANDSHAKE_TIMEOUT)
            || self.input.is_overdue(timeouts.request)
            || self.output.is_overdue(timeouts.write)
            || (is_idle && timeouts.idle.is_some_and(|timeout| idle > timeout))
    }

    /// What it has read and sent since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        self.stream.take_traffic()
    }

    /// Begins a turn: reads, and does what has arrived. Gives its end where it ends there; else
    /// [`end_turn`](Connection::end_turn) goes on.
    pub(crate) fn begin_turn(&mut self, shared: &Shared, scratch: &mut Scratch) -> Option<Turn> {
        if self.session.client.is_killed() {
            return Some(Turn::Closed);
        }
        if let State::Paused(until) = self.state {
            if until > Instant::now() {
                return Some(Turn::Done);
            }
            self.state = if self.session.wrong_passwords < WRONG_PASSWORDS {
                State::Open
            } else {
                State::Ending
            };
            // The next request can be wrong again.
            if self.send(shared).is_err() {
                return Some(Turn::Closed);
            }
        }
        if self.takes_requests() && self.ready.readable {
            if let Err(error) = self.read(scratch) {
                self.note_broken(&error, shared);
                return Some(Turn::Closed);
            }
        }
        let from = self.output.end();
        self.do_requests(shared);
        self.hold(from, shared);
        match self.state {
            State::Paused(until) => Some(Turn::Paused(until)),
            _ => None,
        }
    }

    /// Ends a turn: sends what may be sent.
    pub(crate) fn end_turn(&mut self, shared: &Shared) -> Turn {
        if self.send(shared).is_err() {
            return Turn::Closed;
        }
        let has_more = self.ready.readable || self.input.is_unsearched();
        if self.at_end && !has_more {
            self.end();
        }
        let is_sent = self.output.unsent_len() == 0 && !self.stream.has_unsent();
        if self.state == State::Ending && is_sent {
            self.stream.say_goodbye();
            Turn::Closed
        } else if has_more && self.takes_requests() {
            Turn::Again
        } else {
            Turn::Done
        }
    }

    /// Takes note that the connection is no more.
    fn note_broken(&self, error: &io::Error, shared: &Shared) {
        let client = &self.session.client;
        // What arrives is only looked at while it is decrypted: else it is the system that fails.
        if error.kind() == ErrorKind::InvalidData {
            shared.figures.note(Trouble::Tls);
        }
        debug!(client = client.id, addr = %client.addr, %error, "cannot read; closed");
    }

    /// Whether the next request may be done: not while the last ones' answers pile up.
    fn takes_requests(&self) -> bool {
        self.state == State::Open && self.output.unsent_len() < OUTPUT_BYTES
    }

    fn read(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        self.ready.readable = match self.input.read(&mut self.stream, scratch)? {
            Arrival::Some => true,
            // What comes next is an event; but an end that came with this is none.
            Arrival::All => self.ready.read_closed || self.stream.is_at_end() || cfg!(windows),
            Arrival::None => false,
            Arrival::End => {
                self.at_end = true;
                false
            }
        };
        Ok(())
    }

    fn limits(&self, shared: &Shared) -> Limits {
        if self.session.is_authenticated() {
            shared.config.request
        } else {
            REQUEST_BEFORE_PASSWORD
        }
    }

    fn do_requests(&mut self, shared: &Shared) {
        if !self.input.is_unsearched() || !self.takes_requests() {
            return;
        }
        let mut turnstile = Turnstile::enter(&shared.turns);
        let mut tally = Tally::begin(&shared.metrics);
        while self.takes_requests() {
            let limits = self.limits(shared);
            let request = match self.input.next(limits, &mut self.arguments) {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(error) => {
                    shared.figures.note(Trouble::Protocol);
                    let client = &self.session.client;
                    debug!(client = client.id, addr = %client.addr, error = error.kind(), "closed");
                    self.refuse(&error.to_string());
                    break;
                }
            };
            let flow = match request {
                Request::Line(range) => {
                    self.write_combined(shared, &mut tally);
                    self.do_line(range, shared, &mut turnstile, &mut tally)
                }
                Request::Frame => self.do_frame(shared, &mut turnstile, &mut tally),
            };
            match flow {
                Flow::GoOn => {}
                Flow::Close => self.state = State::Ending,
                Flow::WrongPassword => {
                    self.session.wrong_passwords += 1;
                    shared.figures.note(Trouble::Password);
                    let client = &self.session.client;
                    warn!(client = client.id, addr = %client.addr, "a wrong password");
                    self.state = State::Paused(tally.last() + WRONG_PASSWORD_PAUSE);
                }
                Flow::Later(job) => {
                    self.state = State::Busy;
                    let (mailbox, token) = (Arc::clone(&self.mailbox), self.token);
                    let job = move |shared: &Shared| mailbox.answer(token, job(shared));
                    shared.worker.submit(job);
                }
            }
        }
        self.write_combined(shared, &mut tally);
        self.session.client.note_request(tally.last());
        self.session.publish();
        self.input.forget_done(self.takes_requests());
    }

    fn write_combined(&mut self, shared: &Shared, tally: &mut Tally<'_>) {
        let output = self.output.bytes();
        self.combined
            .write(&self.session.client, shared, tally, output);
    }

    fn do_line(
        &mut self,
        range: Range<usize>,
        shared: &Shared,
        turnstile: &mut Turnstile<'_>,
        tally: &mut Tally<'_>,
    ) -> Flow {
        let max = self.limits(shared).arguments;
        let output = self.output.bytes();
        let words = match inline::split(&self.input.bytes()[range], max) {
            Ok(words) => words,
            Err(SplitError::UnbalancedQuotes) => {
                let reason = "ERR Protocol error: unbalanced quotes in request";
                Reply::new(output, self.session.protocol).error(reason);
                // A person tries again; a program that has spoken RESP is out of step.
                return if self.session.has_sent_frame {
                    Flow::Close
                } else {
                    Flow::GoOn
                };
            }
            Err(SplitError::TooManyWords) => {
                let error = ProtocolError::TooManyArguments { max };
                Reply::new(output, self.session.protocol).error(&format!("ERR {error}"));
                return Flow::Close;
            }
        };
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        if web::is_request(&words) {
            return text::refuse_web(output);
        }
        if words.is_empty() {
            Flow::GoOn
        } else if self.session.takes_as_text(words[0], shared.config.inline) {
            let begin = output.len();
            let is_call = self.session.is_authenticated();
            let flow = if is_call {
                text::execute(&words, shared, output)
            } else {
                text::refuse(output)
            };
            // Verbs are counted as the commands that do the same.
            match commands::find(words[0]) {
                Some(known) if is_call && !matches!(flow, Flow::Later(_)) => {
                    tally.note(known.number, output[begin..].starts_with(b"ERR "));
                }
                _ => tally.pass(),
            }
            flow
        } else {
            commands::dispatch(&words, &mut self.session, shared, turnstile, tally, output)
        }
    }

    fn do_frame(
        &mut self,
        shared: &Shared,
        turnstile: &mut Turnstile<'_>,
        tally: &mut Tally<'_>,
    ) -> Flow {
        self.session.has_sent_frame = true;
        let bytes = self.input.bytes();
        // Most commands have few words, which need no memory of their own.
        let mut few = [&[][..]; 8];
        let many: Vec<&[u8]>;
        let words = if let Some(few) = few.get_mut(..self.arguments.len()) {
            for (word, range) in few.iter_mut().zip(&self.arguments) {
                *word = &bytes[range.clone()];
            }
            &*few
        } else {
            let arguments = self.arguments.iter();
            many = arguments.map(|range| &bytes[range.clone()]).collect();
            &many
        };
        if words.is_empty() {
            return Flow::GoOn;
        }
        let output = self.output.bytes();
        if self.session.is_plain() {
            if let Some(put) = Combined::takes(words) {
                self.session.last_command = "set";
                let expires_at = shared.config.default_expiry();
                // If it cannot be, the command itself says what is wrong.
                if self.combined.add(put, expires_at, output).is_ok() {
                    return Flow::GoOn;
                }
            }
        }
        self.combined
            .write(&self.session.client, shared, tally, output);
        commands::dispatch(words, &mut self.session, shared, turnstile, tally, output)
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
