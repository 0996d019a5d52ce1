//! An event loop over its share of the connections: waits for what arrives, gives each connection
//! its turn, and sends what may be sent.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crabkv::Store;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use tracing::{debug, warn};

use super::Config;
use super::clients::Clients;
use super::commands;
use super::connection::{Connection, Turn};
use super::descriptors::Descriptors;
use super::figures::{Figures, Trouble};
use super::input::Scratch;
use super::limits::{ACCEPT_PAUSE, DRAIN_TIMEOUT, LOG_PAUSE};
use super::metrics::Metrics;
use super::resp::{Protocol, Reply};
use super::saves::Saves;
use super::session::Session;
use super::slowlog::Slowlog;
use super::stream::{Stream, Traffic};
use super::syncer::Syncer;
use super::watch::Watch;
use super::worker::Worker;

const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
/// The first connection's.
const FIRST: usize = 2;

/// How often connections are looked at that say nothing.
const TICK: Duration = Duration::from_secs(1);

/// What all loops share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) local_addr: SocketAddr,
    pub(crate) since: Instant,
    pub(crate) syncer: Syncer,
    pub(crate) worker: Worker,
    pub(crate) clients: Clients,
    pub(crate) metrics: Metrics,
    pub(crate) slowlog: Slowlog,
    pub(crate) saves: Saves,
    descriptors: Descriptors,
    pub(crate) figures: Figures,
    pub(crate) watch: Watch,
    /// For [`Turnstile`](super::turnstile::Turnstile).
    pub(crate) turns: RwLock<()>,
    mailboxes: Vec<Arc<Mailbox>>,
}

impl Shared {
    pub(crate) fn new(
        store: Store,
        config: Config,
        local_addr: SocketAddr,
        mailboxes: Vec<Arc<Mailbox>>,
    ) -> Shared {
        Shared {
            store,
            syncer: Syncer::new(config.sync_before_reply, mailboxes.clone()),
            clients: Clients::new(config.max_connections),
            descriptors: Descriptors::for_connections(config.max_connections),
            config,
            local_addr,
            since: Instant::now(),
            worker: Worker::new(),
            metrics: Metrics::new(commands::known().len()),
            slowlog: Slowlog::default(),
            saves: Saves::default(),
            figures: Figures::new(),
            watch: Watch::default(),
            turns: RwLock::new(()),
            mailboxes,
        }
    }

    /// Lets the server end: it takes no new requests, and answers those that it has.
    pub(crate) fn stop(&self) {
        for mailbox in &self.mailboxes {
            mailbox.stop();
        }
    }

    pub(crate) fn has_password(&self) -> bool {
        self.config.password.is_some()
    }
}

/// How other threads reach a loop.
pub(crate) struct Mailbox {
    waker: Waker,
    messages: Mutex<Messages>,
}

#[derive(Default)]
struct Messages {
    accepted: Vec<(TcpStream, SocketAddr)>,
    /// Answers to requests that were done elsewhere, with their connections.
    answers: Vec<(Token, Vec<u8>)>,
    /// Connections that something has happened to.
    concerned: Vec<Token>,
    stop: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the loop look at what changed.
    pub(crate) fn wake(&self) {
        // It fails only if the loop is gone, and nobody is left to be told.
        let _ = self.waker.wake();
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.wake();
    }

    /// The answer to a request that a connection waits for.
    pub(crate) fn answer(&self, connection: Token, answer: Vec<u8>) {
        self.lock().answers.push((connection, answer));
        self.wake();
    }

    /// Gives a connection a turn.
    pub(crate) fn look_at(&self, connection: Token) {
        self.lock().concerned.push(connection);
        self.wake();
    }

    fn accepted(&self, stream: TcpStream, addr: SocketAddr) {
        self.lock().accepted.push((stream, addr));
        self.wake();
    }
}

pub(crate) struct EventLoop {
    poll: Poll,
    mailbox: Arc<Mailbox>,
    connections: HashMap<Token, Connection>,
    scratch: Scratch,
    /// Those that have something to do, each at most once.
    ready: VecDeque<Token>,
    /// Those whose turns have begun, with how they ended if they did: empty between rounds.
    round: Vec<(Token, Option<Turn>)>,
    /// Those with answers that are held until they are durable.
    held: Vec<Token>,
    /// Those that are paused, and when they may go on, the first first.
    paused: VecDeque<(Instant, Token)>,
    next_token: usize,
    stopping_since: Option<Instant>,
    /// When to accept again after a failure.
    accept_at: Option<Instant>,
    /// When the log was told last that clients are turned away.
    warned_at: Option<Instant>,
    /// Which loop gets the next connection.
    next_loop: usize,
}

impl EventLoop {
    pub(crate) fn new() -> io::Result<EventLoop> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        Ok(EventLoop {
            poll,
            mailbox: Arc::new(Mailbox {
                waker,
                messages: Mutex::default(),
            }),
            connections: HashMap::new(),
            scratch: Scratch::new(),
            ready: VecDeque::new(),
            round: Vec::new(),
            held: Vec::new(),
            paused: VecDeque::new(),
            next_token: FIRST,
            stopping_since: None,
            accept_at: None,
            warned_at: None,
            next_loop: 0,
        })
    }

    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// Runs until the server is stopped and every answer is sent, or its client too slow.
    pub(crate) fn run(&mut self, shared: &Shared, mut listener: Option<TcpListener>) {
        if let Some(listener) = &mut listener {
            // A fresh poll takes any socket.
            let registered = self
                .poll
                .registry()
                .register(listener, LISTENER, Interest::READABLE);
            registered.expect("a listening socket can be waited for");
        }
        let mut events = Events::with_capacity(1024);
        let mut last_tick = Instant::now();
        loop {
            self.wait(&mut events);
            let mut accept = self.accept_at.is_some_and(|at| at <= Instant::now());
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => accept = true,
                    token => {
                        let Some(connection) = self.connections.get_mut(&token) else {
                            continue;
                        };
                        connection.note(event);
                        enqueue(&mut self.ready, token, connection);
                    }
                }
            }
            self.take_messages(shared);
            if accept && self.stopping_since.is_none() {
                if let Some(listener) = &listener {
                    self.accept(shared, listener);
                }
            }
            self.end_pauses();
            self.give_turns(shared);
            if last_tick.elapsed() >= TICK {
                last_tick = Instant::now();
                self.close_the_slow(shared);
                shared.metrics.tick();
            }
            if let Some(since) = self.stopping_since {
                drop(listener.take());
                if self.connections.is_empty() || since.elapsed() > DRAIN_TIMEOUT {
                    break;
                }
            }
        }
    }

    fn wait(&mut self, events: &mut Events) {
        let timeout = if self.ready.is_empty() {
            let next = self.paused.front().map(|(until, _)| *until);
            let next = next.into_iter().chain(self.accept_at).min();
            let pause = next.map(|at| at.saturating_duration_since(Instant::now()));
            pause.unwrap_or(TICK).min(TICK)
        } else {
            Duration::ZERO
        };
        match self.poll.poll(events, Some(timeout)) {
            // A signal. What was to be waited for is still to come.
            Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
            other => other.expect("waiting for events works"),
        }
    }

    fn take_messages(&mut self, shared: &Shared) {
        let messages = std::mem::take(&mut *self.mailbox.lock());
        for (stream, addr) in messages.accepted {
            self.admit(stream, addr, shared);
        }
        for token in messages.concerned {
            if let Some(connection) = self.connections.get_mut(&token) {
                enqueue(&mut self.ready, token, connection);
            }
        }
        for (token, answer) in messages.answers {
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.resume(&answer, shared);
                enqueue(&mut self.ready, token, connection);
            }
        }
        self.release_held();
        if messages.stop && self.stopping_since.is_none() {
            self.stopping_since = Some(Instant::now());
        }
        if self.stopping_since.is_some() {
            for (token, connection) in &mut self.connections {
                connection.end();
                enqueue(&mut self.ready, *token, connection);
            }
        }
    }

    /// Gives a turn to those whose answers may be durable by now.
    fn release_held(&mut self) {
        for token in std::mem::take(&mut self.held) {
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.lists.held = false;
                enqueue(&mut self.ready, token, connection);
            }
        }
    }

    fn accept(&mut self, shared: &Shared, listener: &TcpListener) {
        self.accept_at = None;
        loop {
            match listener.accept() {
                Ok((stream, _)) if shared.descriptors.are_short_with(&stream) => {
                    shared.metrics.note_rejected_connection();
                    refuse(stream);
                }
                Ok((stream, addr)) => {
                    let mailboxes = &shared.mailboxes;
                    let next = &mailboxes[self.next_loop % mailboxes.len()];
                    self.next_loop += 1;
                    if Arc::ptr_eq(next, &self.mailbox) {
                        self.admit(stream, addr, shared);
                    } else {
                        next.accepted(stream, addr);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Whoever gave up meanwhile is nobody else's trouble; without descriptors there
                // is nothing to do but wait.
                Err(error) => {
                    shared.figures.note(Trouble::Accept);
                    if self.warns() {
                        warn!(%error, "cannot accept connections; it is tried again and again");
                    }
                    self.accept_at = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream, addr: SocketAddr, shared: &Shared) {
        let token = Token(self.next_token);
        self.next_token += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        if registry.register(&mut stream, token, interest).is_err() {
            return;
        }
        // Answers are whole when they are written; waiting for more helps nobody.
        let _ = stream.set_nodelay(true);
        let is_one_too_many = shared.clients.count() >= shared.clients.max();
        let tls = shared.config.tls.as_ref();
        if is_one_too_many && self.warns() {
            let max = shared.clients.max();
            warn!(
                max,
                "there are too many connections; others are turned away"
            );
        }
        if is_one_too_many && tls.is_some() {
            // To tell it so would take a handshake, and as long as its client likes.
            shared.metrics.note_rejected_connection();
            return;
        }
        let Ok(stream) = Stream::new(stream, tls) else {
            return;
        };
        let mailbox = Arc::clone(&self.mailbox);
        let client = shared
            .clients
            .connect(addr, shared.local_addr, token, mailbox);
        let mut connection = Connection::new(
            stream,
            token,
            Arc::clone(&self.mailbox),
            Session::new(client, !shared.has_password()),
        );
        if is_one_too_many {
            shared.metrics.note_rejected_connection();
            connection.refuse("max number of clients reached");
        }
        debug!(client = connection.client().id, %addr, "connected");
        enqueue(&mut self.ready, token, &mut connection);
        self.connections.insert(token, connection);
    }

    /// Whether the log is to hear of clients that are turned away: not of each.
    fn warns(&mut self) -> bool {
        let warns = self.warned_at.is_none_or(|at| at.elapsed() > LOG_PAUSE);
        if warns {
            self.warned_at = Some(Instant::now());
        }
        warns
    }

    /// Gives a turn to all that are ready: first everybody's requests are done, then all answers
    /// are sent. So clients find more of them at once, and one sync in between covers all.
    fn give_turns(&mut self, shared: &Shared) {
        let mut traffic = Traffic::default();
        let mut round = std::mem::take(&mut self.round);
        // Who is ready again after his turn waits for the next round, behind what has arrived.
        for token in self.ready.drain(..) {
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.lists.ready = false;
                let ended = connection.begin_turn(shared, &mut self.scratch);
                round.push((token, ended));
            }
        }
        if shared.syncer.request(&shared.store) {
            self.release_held();
        }
        for (token, ended) in round.drain(..) {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            let turn = ended.unwrap_or_else(|| connection.end_turn(shared));
            traffic += connection.take_traffic();
            match turn {
                Turn::Done => {}
                Turn::Again => enqueue(&mut self.ready, token, connection),
                Turn::Paused(until) => self.paused.push_back((until, token)),
                Turn::Closed => {
                    self.remove(token, shared);
                    continue;
                }
            }
            if connection.is_held() && !connection.lists.held {
                connection.lists.held = true;
                self.held.push(token);
            }
        }
        self.round = round;
        shared.figures.note_traffic(traffic);
    }

    fn end_pauses(&mut self) {
        while let Some((until, token)) = self.paused.front().copied() {
            if until > Instant::now() {
                return;
            }
            self.paused.pop_front();
            if let Some(connection) = self.connections.get_mut(&token) {
                enqueue(&mut self.ready, token, connection);
            }
        }
    }

    fn close_the_slow(&mut self, shared: &Shared) {
        let slow: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_too_slow(&shared.config.timeouts))
            .map(|(token, _)| *token)
            .collect();
        for token in slow {
            debug!(
                client = self.connections[&token].client().id,
                "too slow; closed"
            );
            self.remove(token, shared);
        }
    }

    fn remove(&mut self, token: Token, shared: &Shared) {
        if let Some(connection) = self.connections.remove(&token) {
            let client = connection.client();
            shared.clients.disconnect(client);
            debug!(client = client.id, "disconnected");
        }
    }
}

/// Says why, if that can be said at once: its descriptor is needed.
fn refuse(mut stream: TcpStream) {
    let mut reason = Vec::new();
    Reply::new(&mut reason, Protocol::default()).error("ERR max number of clients reached");
    let _ = stream.write(&reason);
}

fn enqueue(ready: &mut VecDeque<Token>, token: Token, connection: &mut Connection) {
    if !connection.lists.ready {
        connection.lists.ready = true;
        ready.push_back(token);
    }
}
