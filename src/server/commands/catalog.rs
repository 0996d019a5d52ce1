//! `COMMAND`: the table of all commands, from our own tables.

use super::Run::Directly;
use super::acl;
use super::dispatch::{Known, find, help, known, resolve, takes};
use super::{Call, Command, Failure, Flag, all, is};
use crate::server::glob::Glob;
use crate::server::resp::Reply;

pub(crate) const COMMANDS: &[Command] = &[Command::new("command", -1, &[], Directly(command))
    .with(SUBCOMMANDS)
    .about("server", "Describes all commands.")];

const SUBCOMMANDS: &[Command] = &[
    Command::new("command|count", 2, &[], Directly(count))
        .about("server", "Returns how many commands there are."),
    Command::new("command|docs", -2, &[], Directly(docs))
        .syntax("[<command-name> ...]")
        .about("server", "Says what commands are for; without names, all."),
    Command::new("command|getkeys", -3, &[], Directly(getkeys))
        .syntax("<full-command>")
        .about("server", "Returns the keys in a command."),
    Command::new(
        "command|getkeysandflags",
        -3,
        &[],
        Directly(getkeysandflags),
    )
    .syntax("<full-command>")
    .about(
        "server",
        "Returns the keys in a command, and what is done to them.",
    ),
    Command::new("command|help", 2, &[], Directly(help)).about("server", "Prints this."),
    Command::new("command|info", -2, &[], Directly(info))
        .syntax("[<command-name> ...]")
        .about("server", "Describes commands; without names, all."),
    Command::new("command|list", -2, &[], Directly(list))
        .syntax("[FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]")
        .about("server", "Returns the commands' names."),
];

impl Flag {
    /// As `COMMAND` shows it, if it does.
    fn name(self) -> &'static str {
        match self {
            Flag::Write => "write",
            Flag::ReadOnly => "readonly",
            Flag::DenyOom => "denyoom",
            Flag::Admin => "admin",
            Flag::Fast => "fast",
            Flag::NoAuth => "no_auth",
            Flag::NoMulti => "no_multi",
            Flag::NoLog => "skip_slowlog",
        }
    }
}

fn command(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.array(all().count());
    all().for_each(|command| describe(command, &mut call.reply));
    Ok(())
}

fn count(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.count(all().count());
    Ok(())
}

fn info(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let names = &call.words[2..];
    if names.is_empty() {
        return command(call);
    }
    call.reply.array(names.len());
    for name in names {
        match find(name) {
            Some(known) => describe(known.command, &mut call.reply),
            None => call.reply.null_array(),
        }
    }
    Ok(())
}

/// Ten facts about a command, in their places.
fn describe(command: &Command, reply: &mut Reply<'_>) {
    let (first, last, step) = command.keys;
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(command.arity.into());
    reply.set(command.flags.len());
    for flag in command.flags {
        reply.simple(flag.name());
    }
    for place in [first, last, step] {
        reply.integer(place.into());
    }
    let categories: Vec<_> = acl::categories(command).collect();
    reply.set(categories.len());
    for category in categories {
        reply.status(&format!("@{category}"));
    }
    // No hints for how a cluster should be asked.
    reply.set(0);
    if first == 0 {
        reply.set(0);
    } else {
        reply.set(1);
        describe_keys(command, reply);
    }
    reply.set(command.subcommands.len());
    for subcommand in command.subcommands {
        describe(subcommand, reply);
    }
}

fn describe_keys(command: &Command, reply: &mut Reply<'_>) {
    let (first, last, step) = command.keys;
    reply.map(3);
    reply.bulk(b"flags");
    access(command, reply);
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.integer(first.into());
    reply.bulk(b"find_keys");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"range");
    reply.bulk(b"spec");
    reply.map(3);
    reply.bulk(b"lastkey");
    // From the first one, or from the end.
    reply.integer(if last < 0 { last } else { last - first }.into());
    reply.bulk(b"keystep");
    reply.integer(step.into());
    reply.bulk(b"limit");
    reply.integer(0);
}

/// What a command does to its keys.
fn access(command: &Command, reply: &mut Reply<'_>) {
    let flags: &[&'static str] = if command.flags.contains(&Flag::Write) {
        &["RW", "access", "update"]
    } else {
        &["RO", "access"]
    };
    reply.set(flags.len());
    for flag in flags {
        reply.simple(flag);
    }
}

fn docs(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let names = &call.words[2..];
    let commands: Vec<&Command> = if names.is_empty() {
        all().collect()
    } else {
        let found = names.iter().filter_map(|name| find(name));
        found.map(|known| known.command).collect()
    };
    call.reply.map(commands.len());
    for command in commands {
        document(command, &mut call.reply);
    }
    Ok(())
}

fn document(command: &Command, reply: &mut Reply<'_>) {
    let has_subcommands = !command.subcommands.is_empty();
    reply.bulk(command.name.as_bytes());
    reply.map(2 + usize::from(has_subcommands));
    reply.bulk(b"summary");
    reply.bulk(command.summary.as_bytes());
    reply.bulk(b"group");
    reply.bulk(command.group.as_bytes());
    if has_subcommands {
        reply.bulk(b"subcommands");
        reply.map(command.subcommands.len());
        for subcommand in command.subcommands {
            document(subcommand, reply);
        }
    }
}

fn getkeys(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let words = &call.words[2..];
    let keys = keys(words)?.1;
    call.reply.array(keys.len());
    for key in keys {
        call.reply.bulk(key);
    }
    Ok(())
}

fn getkeysandflags(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let words = &call.words[2..];
    let (known, keys) = keys(words)?;
    call.reply.array(keys.len());
    for key in keys {
        call.reply.array(2);
        call.reply.bulk(key);
        access(known.command, &mut call.reply);
    }
    Ok(())
}

/// The command that words are, and its keys.
fn keys<'a>(words: &[&'a [u8]]) -> Result<(Known, Vec<&'a [u8]>), Failure> {
    let known = resolve(words).map_err(|_| Failure::new("ERR Invalid command specified"))?;
    if known.command.keys.0 == 0 {
        return Err(Failure::new("ERR The command has no key arguments"));
    }
    if !takes(known.command, words.len()) {
        return Err(Failure::new(
            "ERR Invalid number of arguments specified for command",
        ));
    }
    let place = |place: i32| usize::try_from(place).unwrap_or(0);
    let (first, last, step) = known.command.keys;
    let last = if last < 0 {
        words.len().saturating_sub(place(-last))
    } else {
        place(last)
    };
    let places = (place(first)..=last).step_by(place(step).max(1));
    let keys = places.filter_map(|place| words.get(place).copied());
    Ok((known, keys.collect()))
}

fn list(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let names: Vec<&'static str> = match call.words {
        [_, _] => known().iter().map(|known| known.command.name).collect(),
        [_, _, filter, by, what] if is(filter, "filterby") => {
            let every = known().iter().map(|known| known.command);
            if is(by, "module") {
                Vec::new()
            } else if is(by, "aclcat") {
                let is_in = |command: &&Command| acl::is_in(command, what) == Some(true);
                every.filter(is_in).map(|command| command.name).collect()
            } else if is(by, "pattern") {
                let pattern =
                    Glob::ignoring_case(what).map_err(|_| Failure::new("ERR pattern too long"))?;
                let is_meant = |command: &&Command| pattern.matches(command.name.as_bytes());
                every.filter(is_meant).map(|command| command.name).collect()
            } else {
                return Err(Failure::syntax());
            }
        }
        _ => return Err(Failure::syntax()),
    };
    call.reply.array(names.len());
    for name in names {
        call.reply.bulk(name.as_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_says_what_it_is_and_is_found_by_its_name() {
        for known in known() {
            let command = known.command;
            assert!(!command.summary.is_empty(), "{}", command.name);
            assert!(!command.group.is_empty(), "{}", command.name);
            assert_eq!(find(command.name.as_bytes()).unwrap().number, known.number);
            for subcommand in command.subcommands {
                let (container, _) = subcommand.name.split_once('|').unwrap();
                assert_eq!(container, command.name);
            }
        }
    }

    #[test]
    fn keys_are_where_the_table_says() {
        let words = |text: &'static str| text.split(' ').map(str::as_bytes).collect::<Vec<_>>();
        let found = |text| keys(&words(text)).map(|(_, keys)| keys.concat());
        assert_eq!(found("get a").unwrap(), b"a");
        assert_eq!(found("WATCH a b c").unwrap(), b"abc");
        assert!(found("ping").is_err() && found("get").is_err() && found("nosuch a").is_err());
    }
}
