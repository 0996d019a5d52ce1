//! What the server remembers of a connection from request to request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crabkv::SeqNo;

use super::clients::Client;
use super::commands::{self, Known};
use super::limits::TRANSACTION_BYTES;
use super::resp::Protocol;
use super::{Inline, text};

pub(crate) struct Session {
    /// What others can see of it.
    pub(crate) client: Arc<Client>,
    /// Since when it owes a password; `None` when it has given it, or there is none.
    owes_password_since: Option<Instant>,
    /// How many wrong passwords it has given.
    pub(crate) wrong_passwords: u32,
    pub(crate) protocol: Protocol,
    /// Whether it has sent a RESP frame: until then, lines are answered as text.
    pub(crate) has_sent_frame: bool,
    pub(crate) transaction: Transaction,
    pub(crate) watched: Watched,
    pub(crate) replies: Replies,
    /// The command that it sent last, in lower case.
    pub(crate) last_command: &'static str,
}

/// Whether commands are queued, and which are.
#[derive(Default)]
pub(crate) enum Transaction {
    #[default]
    None,
    Queued(Queue),
    /// A command could not be queued: it can only be given up.
    Spoilt,
}

impl Transaction {
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Transaction::None)
    }
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The commands that wait for `EXEC`, in order.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) commands: Vec<Queued>,
    bytes: usize,
}

pub(crate) struct Queued {
    pub(crate) known: Known,
    pub(crate) words: Vec<Vec<u8>>,
}

impl Queue {
    pub(crate) fn push(&mut self, known: Known, words: &[&[u8]]) -> Result<(), Full> {
        grow(&mut self.bytes, words)?;
        let words = words.iter().map(|word| word.to_vec()).collect();
        self.commands.push(Queued { known, words });
        Ok(())
    }
}

/// The keys that a connection watches, with the versions that they had.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) versions: HashMap<Vec<u8>, Option<SeqNo>>,
    bytes: usize,
}

impl Watched {
    /// Watched twice, the first look counts.
    pub(crate) fn watch(&mut self, key: &[u8], version: Option<SeqNo>) -> Result<(), Full> {
        if !self.versions.contains_key(key) {
            grow(&mut self.bytes, &[key])?;
            self.versions.insert(key.to_vec(), version);
        }
        Ok(())
    }
}

/// Counts what is remembered, with what remembering it takes, unless it becomes too much.
fn grow(bytes: &mut usize, words: &[&[u8]]) -> Result<(), Full> {
    const OVERHEAD_BYTES: usize = 64;
    let added = words.iter().map(|word| word.len() + OVERHEAD_BYTES);
    let grown = *bytes + added.sum::<usize>();
    if grown > TRANSACTION_BYTES {
        return Err(Full);
    }
    *bytes = grown;
    Ok(())
}

/// Which replies the client wants, by `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Replies {
    #[default]
    On,
    Off,
    /// Not to the next command.
    SkipNext,
    /// Not to this one.
    Skip,
}

impl Session {
    pub(crate) fn new(client: Arc<Client>, is_authenticated: bool) -> Session {
        Session {
            client,
            owes_password_since: (!is_authenticated).then(Instant::now),
            wrong_passwords: 0,
            protocol: Protocol::default(),
            has_sent_frame: false,
            transaction: Transaction::None,
            watched: Watched::default(),
            replies: Replies::On,
            last_command: "",
        }
    }

    /// Whether it has given the password, or there is none.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.owes_password_since.is_none()
    }

    /// Whether a command is done at once, and answered.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_authenticated() && self.transaction.is_none() && self.replies == Replies::On
    }

    pub(crate) fn authenticate(&mut self) {
        self.owes_password_since = None;
    }

    /// For how long it has owed a password.
    pub(crate) fn owes_password_for(&self) -> Option<Duration> {
        self.owes_password_since.map(|since| since.elapsed())
    }

    /// Whether a line that begins with this verb is text, and no Redis command.
    pub(crate) fn takes_as_text(&self, verb: &[u8], inline: Inline) -> bool {
        match inline {
            Inline::Redis => false,
            Inline::Text => text::has(verb),
            Inline::Auto => {
                let is_text = !self.has_sent_frame && self.transaction.is_none();
                is_text && (text::has(verb) || commands::find(verb).is_none())
            }
        }
    }

    /// Lets others see what it did last.
    pub(crate) fn publish(&self) {
        let mut names = self.client.names();
        names.last_command = self.last_command;
        names.watched = self.watched.versions.len();
        names.queued = match &self.transaction {
            Transaction::None => None,
            Transaction::Queued(queue) => Some(queue.commands.len()),
            Transaction::Spoilt => Some(0),
        };
    }

    /// Gives up the transaction, and what is watched for it.
    pub(crate) fn discard(&mut self) {
        self.transaction = Transaction::None;
        self.watched = Watched::default();
    }

    /// Begins anew, as far as the client can tell.
    pub(crate) fn reset(&mut self, has_password: bool) {
        self.discard();
        self.owes_password_since = has_password.then(Instant::now);
        self.protocol = Protocol::default();
        self.replies = Replies::On;
        self.client.forget_names();
    }
}
