//! `ACL`, with one user who may do everything; and the categories that commands are in.

use super::Flag::Admin;
use super::Run::Directly;
use super::dispatch::{help, known};
use super::{Call, Command, Failure, Flag, is};

pub(crate) const COMMANDS: &[Command] = &[Command::container(
    "acl",
    &[
        Command::new("acl|cat", -2, &[], Directly(cat))
            .syntax("[<category>]")
            .about("server", "Returns the categories, or the commands of one."),
        Command::new("acl|getuser", 3, &[Admin], Directly(getuser))
            .syntax("<username>")
            .about("server", "Describes a user."),
        Command::new("acl|help", 2, &[], Directly(help)).about("server", "Prints this."),
        Command::new("acl|list", 2, &[Admin], Directly(list))
            .about("server", "Describes the users, of which there is one."),
        Command::new("acl|users", 2, &[Admin], Directly(users))
            .about("server", "Returns the users' names."),
        Command::new("acl|whoami", 2, &[], Directly(whoami))
            .about("server", "Returns the name of the user."),
    ],
)
.about(
    "server",
    "Says who may do what. There is one user, who may do everything.",
)];

/// A category, and whether a command is in it.
type Category = (&'static str, fn(&Command) -> bool);

const CATEGORIES: &[Category] = &[
    ("keyspace", |command| command.group == "generic"),
    ("read", |command| command.flags.contains(&Flag::ReadOnly)),
    ("write", |command| command.flags.contains(&Flag::Write)),
    ("string", |command| command.group == "string"),
    ("bitmap", |command| command.group == "bitmap"),
    ("admin", |command| command.flags.contains(&Flag::Admin)),
    ("fast", |command| command.flags.contains(&Flag::Fast)),
    ("slow", |command| !command.flags.contains(&Flag::Fast)),
    ("dangerous", |command| command.flags.contains(&Flag::Admin)),
    ("connection", |command| command.group == "connection"),
    ("transaction", |command| command.group == "transactions"),
    ("scripting", |command| command.group == "scripting"),
];

/// The categories that a command is in.
pub(crate) fn categories(command: &Command) -> impl Iterator<Item = &'static str> {
    CATEGORIES
        .iter()
        .filter(|(_, has)| has(command))
        .map(|(name, _)| *name)
}

/// Whether a command is in a category; `None` if there is no such category.
pub(crate) fn is_in(command: &Command, category: &[u8]) -> Option<bool> {
    let (_, has) = CATEGORIES.iter().find(|(name, _)| is(category, name))?;
    Some(has(command))
}

fn cat(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    match call.words {
        [_, _] => {
            call.reply.array(CATEGORIES.len());
            for (name, _) in CATEGORIES {
                call.reply.bulk(name.as_bytes());
            }
        }
        [_, _, category] => {
            let mut names = Vec::new();
            for known in known() {
                let is_in = is_in(known.command, category).ok_or_else(|| {
                    let category = String::from_utf8_lossy(category);
                    Failure::new(format!("ERR Unknown category '{category}'"))
                })?;
                if is_in {
                    names.push(known.command.name);
                }
            }
            call.reply.array(names.len());
            for name in names {
                call.reply.bulk(name.as_bytes());
            }
        }
        _ => return Err(Failure::syntax()),
    }
    Ok(())
}

fn whoami(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.bulk(b"default");
    Ok(())
}

fn users(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.array(1);
    whoami(call)
}

/// The password is not shown, nor anything made of it.
fn list(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.array(1);
    call.reply.bulk(if call.shared.has_password() {
        b"user default on ~* &* +@all"
    } else {
        b"user default on nopass ~* &* +@all"
    });
    Ok(())
}

fn getuser(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    if call.words[2] != b"default" {
        call.reply.null();
        return Ok(());
    }
    let flags: &[&[u8]] = if call.shared.has_password() {
        &[b"on"]
    } else {
        &[b"on", b"nopass"]
    };
    let reply = &mut call.reply;
    reply.map(6);
    reply.bulk(b"flags");
    reply.set(flags.len());
    for flag in flags {
        reply.bulk(flag);
    }
    reply.bulk(b"passwords");
    reply.array(0);
    for (name, rule) in [("commands", "+@all"), ("keys", "~*"), ("channels", "&*")] {
        reply.bulk(name.as_bytes());
        reply.bulk(rule.as_bytes());
    }
    reply.bulk(b"selectors");
    reply.array(0);
    Ok(())
}
