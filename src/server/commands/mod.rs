//! The commands: what each is called and takes ([`Command`]), how one is found and run
//! ([`dispatch`]). Each family has a file, with a table of its own.
//!
//! Names, arguments, replies and error texts are those of Redis 7, as its documentation has them:
//! <https://redis.io/docs/latest/commands/>.

#![allow(
    clippy::unnecessary_wraps,
    reason = "every handler has the type of those that can fail"
)]

mod connection;
mod keys;
mod strings;
mod transactions;
mod verbs;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use super::event_loop::Shared;
use super::keyspace::Keyspace;
use super::limits::{REPLY_BYTES, TRANSACTION_BYTES};
use super::resp::Reply;
use super::session::{Full, Replies, Session, Transaction};
use super::turnstile::Turnstile;

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    /// In lower case.
    pub(crate) name: &'static str,
    /// How many words it has, its name included; at least that many if negative.
    pub(crate) arity: i32,
    pub(crate) flags: &'static [Flag],
    /// Where its keys are among the words: first, last (from the end if negative), step; all 0 for
    /// none.
    pub(crate) keys: (i32, i32, i32),
    pub(crate) group: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) run: Run,
}

impl Command {
    /// One that takes no keys, until [`keys`](Command::keys) says where they are.
    pub(crate) const fn new(
        name: &'static str,
        arity: i32,
        flags: &'static [Flag],
        run: Run,
    ) -> Command {
        Command {
            name,
            arity,
            flags,
            keys: (0, 0, 0),
            group: "",
            summary: "",
            run,
        }
    }

    pub(crate) const fn keys(self, first: i32, last: i32, step: i32) -> Command {
        Command {
            keys: (first, last, step),
            ..self
        }
    }

    pub(crate) const fn about(self, group: &'static str, summary: &'static str) -> Command {
        Command {
            group,
            summary,
            ..self
        }
    }
}

/// How a command is run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    /// Operation by operation, each atomic.
    Directly(Handler),
    /// With nobody else writing, and all its changes as one.
    Alone(Handler),
    /// Directly with one argument, alone with several.
    AloneIfMany(Handler),
}

impl Run {
    fn handler(self) -> Handler {
        let (Run::Directly(handler) | Run::Alone(handler) | Run::AloneIfMany(handler)) = self;
        handler
    }

    fn is_alone(self, arguments: usize) -> bool {
        match self {
            Run::Directly(_) => false,
            Run::Alone(_) => true,
            Run::AloneIfMany(_) => arguments > 1,
        }
    }
}

pub(crate) type Handler = fn(&mut Call<'_, '_>) -> Result<(), Failure>;

/// What a command does and may do, by the names that `COMMAND` has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Write,
    ReadOnly,
    DenyOom,
    Admin,
    Fast,
    /// It is done before a password was given.
    NoAuth,
    /// It is not queued in a transaction, but done at once, or refused there.
    NoMulti,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The whole text, with its code.
    Reply(Cow<'static, str>),
    Store(crabkv::Error),
}

impl Failure {
    pub(crate) fn new(text: impl Into<Cow<'static, str>>) -> Failure {
        Failure::Reply(text.into())
    }

    pub(crate) fn syntax() -> Failure {
        Failure::new("ERR syntax error")
    }

    pub(crate) fn not_an_integer() -> Failure {
        Failure::new("ERR value is not an integer or out of range")
    }

    fn text(&self) -> Cow<'_, str> {
        match self {
            Failure::Reply(text) => Cow::Borrowed(text),
            Failure::Store(error) => Cow::Owned(match error {
                crabkv::Error::DiskFull { .. } => format!("OOM {error}"),
                crabkv::Error::Poisoned { .. } => format!("MISCONF {error}"),
                crabkv::Error::ReadOnly => format!("READONLY {error}"),
                _ => format!("ERR {error}"),
            }),
        }
    }
}

impl From<crabkv::Error> for Failure {
    fn from(error: crabkv::Error) -> Failure {
        Failure::Store(error)
    }
}

/// What becomes of the connection after a command.
#[derive(Default)]
pub(crate) enum Flow {
    #[default]
    GoOn,
    /// It ends when the replies are sent.
    Close,
    /// The reply is made elsewhere, for it takes long.
    Later(Job),
}

/// Makes a reply elsewhere, from the beginning: what it returns is sent.
pub(crate) type Job = Box<dyn FnOnce(&Shared) -> Vec<u8> + Send>;

/// One command being run: everything that it may look at and change.
pub(crate) struct Call<'a, 'b> {
    /// The words, its name first.
    pub(crate) words: &'a [&'a [u8]],
    pub(crate) keyspace: &'a Keyspace<'b>,
    pub(crate) session: &'a mut Session,
    pub(crate) shared: &'a Shared,
    pub(crate) reply: Reply<'a>,
    pub(crate) flow: Flow,
}

impl Call<'_, '_> {
    /// The words behind the name.
    pub(crate) fn arguments(&self) -> &[&[u8]] {
        &self.words[1..]
    }

    /// Runs another command as part of this one, and appends its reply.
    pub(crate) fn run_within(&mut self, command: &'static Command, words: &[&[u8]]) {
        let output = self.reply.output();
        let (flow, _) = run(
            command.run.handler(),
            words,
            self.keyspace,
            self.session,
            self.shared,
            output,
        );
        if let Flow::Later(job) = flow {
            output.extend_from_slice(&job(self.shared));
        }
    }

    /// Whether a reply of many parts may have another one.
    pub(crate) fn has_room(&mut self) -> Result<(), Failure> {
        if self.reply.output().len() > REPLY_BYTES {
            return Err(Failure::new(format!(
                "ERR the reply has more than {REPLY_BYTES} bytes"
            )));
        }
        Ok(())
    }

    /// Has the reply made by the worker, for it takes long.
    pub(crate) fn later(
        &mut self,
        work: impl FnOnce(&Shared, &mut Reply<'_>) -> Result<(), Failure> + Send + 'static,
    ) {
        let protocol = self.reply.protocol();
        self.flow = Flow::Later(Box::new(move |shared| {
            let mut output = Vec::new();
            if let Err(failure) = work(shared, &mut Reply::new(&mut output, protocol)) {
                output.clear();
                Reply::new(&mut output, protocol).error(&failure.text());
            }
            output
        }));
    }

    /// When a value expires that is put now and says nothing of it.
    pub(crate) fn default_expiry(&self) -> Option<SystemTime> {
        let ttl: Option<Duration> = self.shared.config.default_ttl;
        ttl.and_then(|ttl| SystemTime::now().checked_add(ttl))
    }
}

/// The version of Redis whose commands these are.
pub(crate) const REDIS_VERSION: &str = "7.4.0";

/// The length of -2^63.
const MAX_INTEGER_LEN: usize = 20;

/// An integer of 64 bits, as Redis takes it: no blanks, no plus, no leading zeros.
pub(crate) fn integer(word: &[u8]) -> Result<i64, Failure> {
    // A value can be long, and need not be read then.
    if word.len() > MAX_INTEGER_LEN {
        return Err(Failure::not_an_integer());
    }
    let text = std::str::from_utf8(word).map_err(|_| Failure::not_an_integer())?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_canonical = match digits.as_bytes() {
        [] => false,
        [b'0'] => text == "0",
        [first, ..] => first.is_ascii_digit() && *first != b'0',
    };
    if !is_canonical {
        return Err(Failure::not_an_integer());
    }
    text.parse().map_err(|_| Failure::not_an_integer())
}

/// Whether a word is this option, in any case.
pub(crate) fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

static TABLE: LazyLock<HashMap<&'static [u8], &'static Command>> = LazyLock::new(|| {
    all()
        .map(|command| (command.name.as_bytes(), command))
        .collect()
});

/// Every command, family by family.
pub(crate) fn all() -> impl Iterator<Item = &'static Command> {
    [
        connection::COMMANDS,
        keys::COMMANDS,
        strings::COMMANDS,
        transactions::COMMANDS,
        verbs::COMMANDS,
    ]
    .into_iter()
    .flatten()
}

/// The command of a name in any case.
pub(crate) fn find(name: &[u8]) -> Option<&'static Command> {
    // No name is longer.
    let mut lower = [0; 32];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    TABLE.get(&*lower).copied()
}

/// Runs a command and appends its reply, or queues it in a transaction.
pub(crate) fn dispatch(
    words: &[&[u8]],
    session: &mut Session,
    shared: &Shared,
    turnstile: &mut Turnstile<'_>,
    output: &mut Vec<u8>,
) -> Flow {
    let begin = output.len();
    if session.replies == Replies::SkipNext {
        session.replies = Replies::Skip;
    }
    let mut flow = match admit(words, session) {
        Ok(Admitted::Queued) => {
            Reply::new(output, session.protocol).simple("QUEUED");
            Flow::GoOn
        }
        Ok(Admitted::Now(command)) => {
            session.last_command = command.name;
            run_now(command, words, session, shared, turnstile, output)
        }
        Err(failure) => {
            Reply::new(output, session.protocol).error(&failure.text());
            Flow::GoOn
        }
    };
    // As the command itself has left it: `CLIENT REPLY ON` is answered.
    if matches!(session.replies, Replies::Off | Replies::Skip) {
        output.truncate(begin);
        if let Flow::Later(job) = flow {
            flow = Flow::Later(Box::new(|shared| {
                job(shared);
                Vec::new()
            }));
        }
    }
    if session.replies == Replies::Skip {
        session.replies = Replies::On;
    }
    flow
}

enum Admitted {
    Now(&'static Command),
    Queued,
}

/// Finds the command, and says whether it is run now. In a transaction, one that cannot be queued
/// spoils it: the others are still taken, but for nothing.
fn admit(words: &[&[u8]], session: &mut Session) -> Result<Admitted, Failure> {
    let checked = check(words).map_err(|failure| {
        if !is(words[0], "exec") {
            return failure;
        }
        // There is no second try.
        session.discard();
        let text = failure.text();
        let reason = text.strip_prefix("ERR ").unwrap_or(&text);
        Failure::new(format!(
            "EXECABORT Transaction discarded because of: {reason}"
        ))
    });
    if session.transaction.is_none() {
        return checked.map(Admitted::Now);
    }
    let queued = checked.and_then(|command| match &mut session.transaction {
        _ if command.flags.contains(&Flag::NoMulti) => Ok(Admitted::Now(command)),
        Transaction::Queued(queue) => match queue.push(command, words) {
            Ok(()) => Ok(Admitted::Queued),
            Err(Full) => Err(Failure::new(format!(
                "ERR the transaction is too large: {TRANSACTION_BYTES} bytes can be queued"
            ))),
        },
        _ => Ok(Admitted::Queued),
    });
    if queued.is_err() {
        session.transaction = Transaction::Spoilt;
    }
    queued
}

/// The command, if there is one that takes so many words.
fn check(words: &[&[u8]]) -> Result<&'static Command, Failure> {
    let command = find(words[0]).ok_or_else(|| unknown(words))?;
    let count = i32::try_from(words.len()).unwrap_or(i32::MAX);
    let fits = if command.arity >= 0 {
        count == command.arity
    } else {
        count >= -command.arity
    };
    if fits {
        Ok(command)
    } else {
        Err(wrong_arity(command.name))
    }
}

pub(crate) fn wrong_arity(name: &str) -> Failure {
    Failure::new(format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}

/// There is no database but number 0.
pub(crate) fn only_database(word: &[u8]) -> Result<(), Failure> {
    match integer(word)? {
        0 => Ok(()),
        _ => Err(no_such_database()),
    }
}

pub(crate) fn no_such_database() -> Failure {
    Failure::new("ERR DB index is out of range: there is only database 0 here")
}

/// How much of what a client sent is quoted.
const QUOTED_BYTES: usize = 128;

fn unknown(words: &[&[u8]]) -> Failure {
    let mut text = format!(
        "ERR unknown command '{}', with args beginning with: ",
        quoted(words[0])
    );
    for word in &words[1..] {
        if text.len() > QUOTED_BYTES * 2 {
            break;
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "'{}' ", quoted(word));
    }
    Failure::new(text)
}

fn quoted(word: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&word[..word.len().min(QUOTED_BYTES)])
}

fn run_now(
    command: &'static Command,
    words: &[&[u8]],
    session: &mut Session,
    shared: &Shared,
    turnstile: &mut Turnstile<'_>,
    output: &mut Vec<u8>,
) -> Flow {
    let handler = command.run.handler();
    if !command.run.is_alone(words.len() - 1) {
        let keyspace = Keyspace::direct(&shared.store, &shared.syncer);
        return run(handler, words, &keyspace, session, shared, output).0;
    }
    turnstile.alone(|| {
        let keyspace = Keyspace::transaction(&shared.store, &shared.syncer);
        let begin = output.len();
        let (flow, is_done) = run(handler, words, &keyspace, session, shared, output);
        // What has failed has changed nothing.
        if is_done {
            if let Err(failure) = keyspace.commit() {
                output.truncate(begin);
                Reply::new(output, session.protocol).error(&failure.text());
            }
        }
        flow
    })
}

/// Runs a handler, and says whether it succeeded. An error takes the place of what it had replied so
/// far.
fn run(
    handler: Handler,
    words: &[&[u8]],
    keyspace: &Keyspace<'_>,
    session: &mut Session,
    shared: &Shared,
    output: &mut Vec<u8>,
) -> (Flow, bool) {
    let begin = output.len();
    let protocol = session.protocol;
    let mut call = Call {
        words,
        keyspace,
        session,
        shared,
        reply: Reply::new(output, protocol),
        flow: Flow::GoOn,
    };
    let done = handler(&mut call);
    let flow = call.flow;
    let is_done = done.is_ok();
    if let Err(failure) = done {
        output.truncate(begin);
        Reply::new(output, protocol).error(&failure.text());
    }
    (flow, is_done)
}
