//! What the server remembers of a connection from request to request.

use std::collections::HashMap;
use std::sync::Arc;

use crabkv::SeqNo;

use super::clients::Client;
use super::commands::{self, Command};
use super::resp::Protocol;
use super::{Inline, text};

pub(crate) struct Session {
    /// What others can see of it.
    pub(crate) client: Arc<Client>,
    pub(crate) protocol: Protocol,
    /// Whether it has sent a RESP frame: until then, lines are answered as text.
    pub(crate) has_sent_frame: bool,
    pub(crate) transaction: Transaction,
    /// The keys that it watches, with the versions that they had.
    pub(crate) watched: HashMap<Vec<u8>, Option<SeqNo>>,
    pub(crate) replies: Replies,
    /// The command that it sent last, in lower case.
    pub(crate) last_command: &'static str,
}

/// Whether commands are queued, and which are.
#[derive(Default)]
pub(crate) enum Transaction {
    #[default]
    None,
    Queued(Vec<Queued>),
    /// A command could not be queued: it can only be given up.
    Spoilt,
}

impl Transaction {
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Transaction::None)
    }
}

/// A command that waits for `EXEC`.
pub(crate) struct Queued {
    pub(crate) command: &'static Command,
    pub(crate) arguments: Vec<Vec<u8>>,
}

/// Which replies the client wants, by `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Replies {
    #[default]
    On,
    Off,
    /// Not to the next command.
    SkipNext,
}

impl Session {
    pub(crate) fn new(client: Arc<Client>) -> Session {
        Session {
            client,
            protocol: Protocol::default(),
            has_sent_frame: false,
            transaction: Transaction::None,
            watched: HashMap::new(),
            replies: Replies::On,
            last_command: "",
        }
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

    /// Gives up the transaction, and what is watched for it.
    pub(crate) fn discard(&mut self) {
        self.transaction = Transaction::None;
        self.watched.clear();
    }

    /// Begins anew, as far as the client can tell.
    pub(crate) fn reset(&mut self) {
        self.discard();
        self.protocol = Protocol::default();
        self.replies = Replies::On;
        self.client.forget_names();
    }
}
