//! `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`: several commands as one.
//!
//! A transaction is run with nobody else writing, and its changes are one atomic batch of the store.
//! What a connection watches is remembered with its version. A key that was absent has none, and is
//! as good as unchanged if it is absent again: Redis would notice that it came and went.

use super::Flag::{Fast, NoMulti};
use super::Run::{Alone, Directly};
use super::{Call, Command, Failure};
use crate::server::limits::TRANSACTION_BYTES;
use crate::server::session::{Full, Queue, Transaction, Watched};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("multi", 1, &[Fast, NoMulti], Directly(multi))
        .about("transactions", "Starts a transaction."),
    Command::new("exec", 1, &[NoMulti], Alone(exec))
        .about("transactions", "Executes all commands in a transaction."),
    Command::new("discard", 1, &[Fast, NoMulti], Directly(discard))
        .about("transactions", "Discards a transaction."),
    Command::new("watch", -2, &[Fast, NoMulti], Directly(watch))
        .keys(1, -1, 1)
        .about(
            "transactions",
            "Monitors changes to keys to determine the execution of a transaction.",
        ),
    Command::new("unwatch", 1, &[Fast], Directly(unwatch)).about(
        "transactions",
        "Forgets about watched keys of a transaction.",
    ),
];

fn multi(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    if !matches!(call.session.transaction, Transaction::None) {
        return Err(Failure::new("ERR MULTI calls can not be nested"));
    }
    call.session.transaction = Transaction::Queued(Queue::default());
    call.reply.ok();
    Ok(())
}

fn discard(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    if matches!(call.session.transaction, Transaction::None) {
        return Err(Failure::new("ERR DISCARD without MULTI"));
    }
    call.session.discard();
    call.reply.ok();
    Ok(())
}

fn watch(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    if !matches!(call.session.transaction, Transaction::None) {
        return Err(Failure::new("ERR WATCH inside MULTI is not allowed"));
    }
    for key in &call.words[1..] {
        let version = call.keyspace.version(key)?;
        call.session.watched.watch(key, version).map_err(|Full| {
            Failure::new(format!(
                "ERR too much is watched: keys of {TRANSACTION_BYTES} bytes can be"
            ))
        })?;
    }
    call.reply.ok();
    Ok(())
}

fn unwatch(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.session.watched = Watched::default();
    call.reply.ok();
    Ok(())
}

/// Runs what is queued. Each command's error is a reply of its own, and the others are run all the
/// same, as Redis does.
fn exec(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let queue = match std::mem::take(&mut call.session.transaction) {
        Transaction::None => return Err(Failure::new("ERR EXEC without MULTI")),
        Transaction::Spoilt => {
            call.session.watched = Watched::default();
            return Err(Failure::new(
                "EXECABORT Transaction discarded because of previous errors.",
            ));
        }
        Transaction::Queued(queue) => queue,
    };
    for (key, version) in std::mem::take(&mut call.session.watched).versions {
        if call.keyspace.version(&key)? != version {
            call.reply.null_array();
            return Ok(());
        }
    }
    call.reply.array(queue.commands.len());
    for queued in queue.commands {
        let words: Vec<&[u8]> = queued.words.iter().map(Vec::as_slice).collect();
        // Otherwise nothing of it is done.
        call.has_room()?;
        call.run_within(queued.known, &words);
    }
    Ok(())
}
