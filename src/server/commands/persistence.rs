//! Commands about what is durable: `SAVE`, `BGSAVE`, `BGREWRITEAOF`, `WAITAOF`, and the end,
//! `SHUTDOWN`.

use super::Flag::{Admin, NoMulti};
use super::Run::Directly;
use super::{Call, Command, Failure, Flow, integer, is};
use crate::server::resp::Reply;

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("save", 1, &[Admin, NoMulti], Directly(save))
        .about("server", "Makes everything durable, and answers then."),
    Command::new("bgsave", -1, &[Admin], Directly(bgsave))
        .about("server", "Makes everything durable, and answers at once."),
    Command::new("bgrewriteaof", 1, &[Admin], Directly(bgrewriteaof))
        .about("server", "Compacts the store, and answers at once."),
    Command::new("lastsave", 1, &[super::Flag::Fast], Directly(lastsave))
        .about("server", "Returns when everything was made durable last."),
    Command::new("waitaof", 4, &[], Directly(waitaof)).about(
        "generic",
        "Waits until what this connection wrote is durable.",
    ),
    Command::new("shutdown", -1, &[Admin, NoMulti], Directly(shutdown)).about(
        "server",
        "Ends the server, after all that it has answered is durable.",
    ),
];

fn save(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.refuse_in_transaction()?;
    call.later(|shared, reply| {
        shared.saves.save(&shared.store)?;
        reply.ok();
        Ok(())
    });
    Ok(())
}

fn bgsave(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    match call.words {
        [_] => {}
        [_, option] if is(option, "schedule") => {}
        _ => return Err(Failure::syntax()),
    }
    call.shared.worker.submit(|shared| {
        // What became of it, `INFO persistence` says.
        let _ = shared.saves.save(&shared.store);
    });
    call.reply.simple("Background saving started");
    Ok(())
}

fn bgrewriteaof(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    if !call.shared.saves.begin_rewrite() {
        return Err(Failure::new(
            "ERR Background append only file rewriting already in progress",
        ));
    }
    call.shared
        .worker
        .submit(|shared| shared.saves.rewrite(&shared.store));
    call.reply
        .simple("Background append only file rewriting started");
    Ok(())
}

fn lastsave(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let last = call.shared.saves.last();
    call.reply.integer(i64::try_from(last).unwrap_or(i64::MAX));
    Ok(())
}

/// There are no replicas, so that nobody waits for any; the log here is the only one.
fn waitaof(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let local = integer(call.words[1])?;
    if !(0..=1).contains(&local) {
        return Err(Failure::new(
            "ERR value is out of range, value must between 0 and 1",
        ));
    }
    let replicas = integer(call.words[2])?;
    if replicas < 0 {
        return Err(Failure::new("ERR value is out of range, must be positive"));
    }
    super::replication::timeout(call.words[3])?;
    let counts = |reply: &mut Reply<'_>, durable: i64| {
        reply.array(2);
        reply.integer(durable);
        reply.integer(0);
    };
    if call.keyspace.is_transaction() {
        // It cannot wait here, and what is written with it is not durable yet.
        counts(&mut call.reply, 0);
        return Ok(());
    }
    call.later(move |shared, reply| {
        shared.store.sync()?;
        counts(reply, 1);
        Ok(())
    });
    Ok(())
}

fn shutdown(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.refuse_in_transaction()?;
    let options = &call.words[1..];
    let has = |option: &str| options.iter().any(|word| is(word, option));
    let known = ["nosave", "save", "now", "force", "abort"];
    let are_known = options
        .iter()
        .all(|word| known.iter().any(|known| is(word, known)));
    if !are_known || (has("save") && has("nosave")) || (has("abort") && options.len() > 1) {
        return Err(Failure::syntax());
    }
    if has("abort") {
        return Err(Failure::new("ERR No shutdown in progress."));
    }
    // Everything is saved in any case. Who asked learns of it when the connection ends.
    call.flow = Flow::Close;
    call.shared.stop();
    Ok(())
}
