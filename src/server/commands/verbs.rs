//! The store's own verbs, for who has sent a frame: what [`text`](crate::server::text) has as lines.

use super::Flag::{DenyOom, Fast, ReadOnly, Write};
use super::Run::Directly;
use super::{Call, Command, Failure, Flow, now};
use crate::server::resp::Reply;
use crate::server::text;

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("put", -3, &[Write, DenyOom], Directly(put))
        .keys(1, 1, 1)
        .about(
            "crabkv",
            "Gives a key a value, perhaps for a time: 45, 1h30m or ttl=45.",
        ),
    Command::new("delete", 2, &[Write, Fast], Directly(delete))
        .keys(1, 1, 1)
        .about("crabkv", "Deletes a key, whether it has a value or not."),
    Command::new("compact", 1, &[Write], Directly(compact))
        .about("crabkv", "Gives the space of stale records back."),
    Command::new("stats", 1, &[ReadOnly], Directly(stats))
        .about("crabkv", "Returns the store's figures."),
    Command::new("help", 1, &[Fast], Directly(help)).about(
        "crabkv",
        "Returns the verbs that this server has beside those of Redis.",
    ),
];

fn put(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let expires_at = match call.words[3..] {
        [] => call.default_expiry(),
        [ttl] => {
            let ttl = text::parse_ttl(ttl).map_err(|reason| {
                let text = format!("ERR {reason}");
                Failure::new(text)
            })?;
            // What lasts longer than time does, lasts.
            now().checked_add(ttl)
        }
        _ => return Err(Failure::syntax()),
    };
    call.keyspace
        .put(call.words[1], call.words[2], expires_at)?;
    call.reply.ok();
    Ok(())
}

fn delete(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.keyspace.delete(call.words[1])?;
    call.reply.ok();
    Ok(())
}

fn compact(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let protocol = call.reply.protocol();
    call.flow = Flow::Later(Box::new(move |shared| {
        let mut output = Vec::new();
        let mut reply = Reply::new(&mut output, protocol);
        match shared.store.compact() {
            Ok(_) => reply.ok(),
            Err(error) => reply.error(&Failure::from(error).text()),
        }
        output
    }));
    Ok(())
}

fn stats(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let figures = text::figures(call.keyspace.store());
    call.reply.map(figures.len());
    for (name, figure) in figures {
        call.reply.bulk(name.as_bytes());
        call.reply
            .integer(i64::try_from(figure).unwrap_or(i64::MAX));
    }
    Ok(())
}

fn help(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let lines = text::HELP.lines();
    call.reply.array(lines.clone().count());
    for line in lines {
        call.reply.bulk(line.as_bytes());
    }
    Ok(())
}
