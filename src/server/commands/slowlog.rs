//! `SLOWLOG`: the commands that took long.

use super::Flag::Admin;
use super::Run::Directly;
use super::dispatch::help;
use super::{Call, Command, Failure, integer};

pub(crate) const COMMANDS: &[Command] = &[Command::container(
    "slowlog",
    &[
        Command::new("slowlog|get", -2, &[Admin], Directly(get))
            .syntax("[<count>]")
            .about(
                "server",
                "Returns the last 10 slow commands, or <count> of them; -1 for all.",
            ),
        Command::new("slowlog|help", 2, &[], Directly(help)).about("server", "Prints this."),
        Command::new("slowlog|len", 2, &[Admin], Directly(len))
            .about("server", "Returns how many slow commands are remembered."),
        Command::new("slowlog|reset", 2, &[Admin], Directly(reset))
            .about("server", "Forgets the slow commands."),
    ],
)
.about("server", "Remembers commands that took long.")];

/// How many are shown when nothing else is said.
const DEFAULT_COUNT: i64 = 10;

fn get(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let count = match call.words {
        [_, _] => DEFAULT_COUNT,
        [_, _, count] => integer(count)
            .ok()
            .filter(|count| *count >= -1)
            .ok_or_else(|| Failure::new("ERR count should be greater than or equal to -1"))?,
        _ => {
            return Err(Failure::new(
                "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.",
            ));
        }
    };
    let entries = call
        .shared
        .slowlog
        .latest(usize::try_from(count).unwrap_or(usize::MAX));
    let reply = &mut call.reply;
    let number = |number: u128| i64::try_from(number).unwrap_or(i64::MAX);
    reply.array(entries.len());
    for (id, entry) in entries {
        reply.array(6);
        reply.integer(number(id.into()));
        reply.integer(number(entry.at.into()));
        reply.integer(number(entry.took.as_micros()));
        reply.array(entry.words.len());
        for word in &entry.words {
            reply.bulk(word);
        }
        reply.bulk(entry.addr.as_bytes());
        reply.bulk(entry.client.as_bytes());
    }
    Ok(())
}

fn len(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.count(call.shared.slowlog.len());
    Ok(())
}

fn reset(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.shared.slowlog.clear();
    call.reply.ok();
    Ok(())
}
