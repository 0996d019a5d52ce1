//! The commands: what each is called and takes ([`Command`]), and what it is given to run
//! ([`Call`]). Each family has a file, with a table of its own. [`dispatch`] finds and runs them.
//!
//! Names, arguments, replies and error texts are those of Redis 7, as its documentation has them:
//! <https://redis.io/docs/latest/commands/>.

#![allow(
    clippy::unnecessary_wraps,
    reason = "every handler has the type of those that can fail"
)]

mod acl;
mod catalog;
mod client;
mod config;
mod connection;
mod dispatch;
mod extensions;
mod info;
mod keys;
mod persistence;
mod replication;
mod slowlog;
mod strings;
mod transactions;
mod verbs;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use super::event_loop::Shared;
use super::keyspace::Keyspace;
use super::limits::REPLY_BYTES;
use super::resp::Reply;
use super::session::{Session, Transaction};

pub(crate) use dispatch::{Known, dispatch, find, known};

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
    /// What it is only the beginning of. Their names are its own, a `|`, and their word.
    pub(crate) subcommands: &'static [Command],
    /// What its words are, for the `HELP` of what it is a subcommand of.
    pub(crate) syntax: &'static str,
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
            subcommands: &[],
            syntax: "",
        }
    }

    /// One that says nothing without its subcommands.
    pub(crate) const fn container(name: &'static str, subcommands: &'static [Command]) -> Command {
        Command {
            subcommands,
            ..Command::new(name, -2, &[], Run::Directly(dispatch::subcommand_missing))
        }
    }

    pub(crate) const fn with(self, subcommands: &'static [Command]) -> Command {
        Command {
            subcommands,
            ..self
        }
    }

    pub(crate) const fn syntax(self, syntax: &'static str) -> Command {
        Command { syntax, ..self }
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
    /// It may have a password in it, and is not remembered for being slow.
    NoLog,
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

    pub(crate) fn text(&self) -> Cow<'_, str> {
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
    /// A wrong password was sent: the reply and everything after it have to wait.
    WrongPassword,
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

    /// Fails where commands are queued, which are given up by that.
    pub(crate) fn refuse_in_transaction(&mut self) -> Result<(), Failure> {
        if self.session.transaction.is_none() {
            return Ok(());
        }
        self.session.transaction = Transaction::Spoilt;
        Err(Failure::new("ERR Command not allowed inside a transaction"))
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
                let text = failure.text();
                shared.metrics.note_error(&text);
                Reply::new(&mut output, protocol).error(&text);
            }
            output
        }));
    }

    /// When a value expires that is put now and says nothing of it.
    pub(crate) fn default_expiry(&self) -> Option<SystemTime> {
        self.shared.config.default_expiry()
    }
}

/// The time of day, in whole milliseconds: what is put for 100 seconds has no more of them left, and
/// the store would make a part of one a whole one.
pub(crate) fn now() -> SystemTime {
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let beyond_ns = since.map_or(0, |since| since.subsec_nanos() % 1_000_000);
    now - Duration::from_nanos(beyond_ns.into())
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

/// Every command, family by family.
pub(crate) fn all() -> impl Iterator<Item = &'static Command> {
    [
        acl::COMMANDS,
        catalog::COMMANDS,
        client::COMMANDS,
        config::COMMANDS,
        connection::COMMANDS,
        extensions::COMMANDS,
        info::COMMANDS,
        persistence::COMMANDS,
        replication::COMMANDS,
        slowlog::COMMANDS,
        keys::COMMANDS,
        strings::COMMANDS,
        transactions::COMMANDS,
        verbs::COMMANDS,
    ]
    .into_iter()
    .flatten()
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
