//! Finds the command that words are, says whether it may run now, runs it, and keeps count.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{Call, Command, Failure, Flag, Flow, Handler, Job, all, is, wrong_arity};
use crate::server::event_loop::Shared;
use crate::server::keyspace::Keyspace;
use crate::server::limits::TRANSACTION_BYTES;
use crate::server::metrics::Tally;
use crate::server::resp::Reply;
use crate::server::session::{Full, Replies, Session, Transaction};
use crate::server::slowlog;
use crate::server::turnstile::Turnstile;

/// A command in the table of all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) command: &'static Command,
    /// Its place in the table, under which its figures are kept.
    pub(crate) number: usize,
}

struct Table {
    /// Each command, followed by its subcommands.
    commands: Vec<Known>,
    by_name: HashMap<&'static [u8], Known>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let whole = all().flat_map(|command| std::iter::once(command).chain(command.subcommands));
    let commands: Vec<_> = whole
        .enumerate()
        .map(|(number, command)| Known { command, number })
        .collect();
    let by_name = commands
        .iter()
        .map(|known| (known.command.name.as_bytes(), *known))
        .collect();
    Table { commands, by_name }
});

/// Every command and subcommand, in the order of their numbers.
pub(crate) fn known() -> &'static [Known] {
    &TABLE.commands
}

/// The command of a name in any case. A subcommand's name is `client|id`.
pub(crate) fn find(name: &[u8]) -> Option<Known> {
    // No name is longer.
    let mut lower = [0; 32];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    TABLE.by_name.get(&*lower).copied()
}

/// The command that words are, which may be more than it takes.
pub(crate) fn resolve(words: &[&[u8]]) -> Result<Known, Failure> {
    let command = find(words[0]).filter(|_| !words[0].contains(&b'|'));
    let known = command.ok_or_else(|| unknown(words))?;
    match words.get(1) {
        Some(word) if !known.command.subcommands.is_empty() => {
            let name = [known.command.name.as_bytes(), word].join(&b'|');
            find(&name).ok_or_else(|| {
                let container = known.command.name.to_ascii_uppercase();
                Failure::new(format!(
                    "ERR unknown subcommand '{}'. Try {container} HELP.",
                    quoted(word)
                ))
            })
        }
        _ => Ok(known),
    }
}

/// A command of which nothing is left without a subcommand.
pub(crate) fn subcommand_missing(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let name = String::from_utf8_lossy(call.words[0]).to_ascii_lowercase();
    Err(wrong_arity(&name))
}

/// `HELP` of any command with subcommands: what they are and take.
pub(crate) fn help(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let Some(container) = find(call.words[0]) else {
        return Err(Failure::syntax());
    };
    let subcommands = container.command.subcommands;
    let name = container.command.name.to_ascii_uppercase();
    call.reply.array(1 + 2 * subcommands.len());
    let usage = format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    call.reply.status(&usage);
    for subcommand in subcommands {
        let (_, word) = subcommand.name.split_once('|').unwrap_or_default();
        let line = format!("{} {}", word.to_ascii_uppercase(), subcommand.syntax);
        call.reply.status(line.trim_end());
        call.reply.status(&format!("    {}", subcommand.summary));
    }
    Ok(())
}

/// Runs a command and appends its reply, or queues it in a transaction.
pub(crate) fn dispatch(
    words: &[&[u8]],
    session: &mut Session,
    shared: &Shared,
    turnstile: &mut Turnstile<'_>,
    tally: &mut Tally<'_>,
    output: &mut Vec<u8>,
) -> Flow {
    let begin = output.len();
    if session.replies == Replies::SkipNext {
        session.replies = Replies::Skip;
    }
    let mut flow = match admit(words, session) {
        Ok(Admitted::Queued) => {
            Reply::new(output, session.protocol).simple("QUEUED");
            tally.pass();
            Flow::GoOn
        }
        Ok(Admitted::Now(known)) => {
            session.last_command = known.command.name;
            let flow = run_now(known, words, session, shared, turnstile, output);
            let failed = output.get(begin) == Some(&b'-');
            match flow {
                Flow::Later(job) => {
                    tally.pass();
                    later(known, words, session, job)
                }
                flow => {
                    let took = tally.note(known.number, failed);
                    if shared.slowlog.is_slow(took) && !known.command.flags.contains(&Flag::NoLog) {
                        let entry = slowlog::Entry::new(words, &session.client, took);
                        shared.slowlog.add(entry);
                    }
                    flow
                }
            }
        }
        Err(failure) => {
            let text = failure.text();
            shared.metrics.note_error(&text);
            if let Ok(known) = resolve(words) {
                shared.metrics.note_rejected(known.number);
            }
            Reply::new(output, session.protocol).error(&text);
            tally.pass();
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

/// The job, with its time and outcome noted.
fn later(known: Known, words: &[&[u8]], session: &Session, job: Job) -> Flow {
    let mut entry = slowlog::Entry::new(words, &session.client, Duration::ZERO);
    Flow::Later(Box::new(move |shared| {
        let begun = Instant::now();
        let answer = job(shared);
        entry.took = begun.elapsed();
        let failed = answer.first() == Some(&b'-');
        shared.metrics.note(known.number, entry.took, failed);
        if shared.slowlog.is_slow(entry.took) {
            shared.slowlog.add(entry);
        }
        answer
    }))
}

enum Admitted {
    Now(Known),
    Queued,
}

/// Finds the command, and says whether it is run now. In a transaction, one that cannot be queued
/// spoils it: the others are still taken, but for nothing.
fn admit(words: &[&[u8]], session: &mut Session) -> Result<Admitted, Failure> {
    let checked = check(words, session).map_err(|failure| {
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
    let queued = checked.and_then(|known| match &mut session.transaction {
        _ if known.command.flags.contains(&Flag::NoMulti) => Ok(Admitted::Now(known)),
        Transaction::Queued(queue) => match queue.push(known, words) {
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

/// The command, if there is one that takes so many words, and this client may have it.
fn check(words: &[&[u8]], session: &Session) -> Result<Known, Failure> {
    let known = resolve(words)?;
    let command = known.command;
    if !takes(command, words.len()) {
        return Err(wrong_arity(command.name));
    }
    if !session.is_authenticated() && !command.flags.contains(&Flag::NoAuth) {
        return Err(Failure::new("NOAUTH Authentication required."));
    }
    Ok(known)
}

/// Whether a command takes so many words.
pub(crate) fn takes(command: &Command, count: usize) -> bool {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    if command.arity >= 0 {
        count == command.arity
    } else {
        count >= -command.arity
    }
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
    known: Known,
    words: &[&[u8]],
    session: &mut Session,
    shared: &Shared,
    turnstile: &mut Turnstile<'_>,
    output: &mut Vec<u8>,
) -> Flow {
    let run_how = known.command.run;
    let handler = run_how.handler();
    if !run_how.is_alone(words.len() - 1) {
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
                let text = failure.text();
                shared.metrics.note_error(&text);
                Reply::new(output, session.protocol).error(&text);
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
        let text = failure.text();
        shared.metrics.note_error(&text);
        Reply::new(output, protocol).error(&text);
    }
    (flow, is_done)
}

impl Call<'_, '_> {
    /// Runs a command of a transaction as part of this one, and appends its reply.
    pub(crate) fn run_within(&mut self, known: Known, words: &[&[u8]]) {
        let output = self.reply.output();
        let begin = output.len();
        let clock = Instant::now();
        let (flow, _) = run(
            known.command.run.handler(),
            words,
            self.keyspace,
            self.session,
            self.shared,
            output,
        );
        match flow {
            Flow::Later(job) => output.extend_from_slice(&job(self.shared)),
            Flow::GoOn => {}
            flow => self.flow = flow,
        }
        let failed = output.get(begin) == Some(&b'-');
        let took = clock.elapsed();
        self.shared.metrics.note(known.number, took, failed);
    }
}
