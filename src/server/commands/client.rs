//! `CLIENT`: what connections are called and do, and what one does to another.

use std::fmt::Write as _;
use std::time::Duration;

use super::Flag::Admin;
use super::Run::Directly;
use super::dispatch::help;
use super::{Call, Command, Failure, Flow, integer, is};
use crate::server::clients::Client;
use crate::server::session::Replies;

pub(crate) const COMMANDS: &[Command] = &[Command::container("client", SUBCOMMANDS)
    .about("connection", "Looks at connections and changes them.")];

const SUBCOMMANDS: &[Command] = &[
    Command::new("client|caching", 3, &[], Directly(caching))
        .syntax("(YES|NO)")
        .about("connection", "Is refused: nothing is tracked here."),
    Command::new("client|getname", 2, &[], Directly(getname))
        .about("connection", "Returns the name of the connection."),
    Command::new("client|getredir", 2, &[], Directly(getredir))
        .about("connection", "Returns whom tracking tells: -1 for nobody."),
    Command::new("client|help", 2, &[], Directly(help)).about("connection", "Prints this."),
    Command::new("client|id", 2, &[], Directly(id))
        .about("connection", "Returns the id of the connection."),
    Command::new("client|info", 2, &[], Directly(info))
        .about("connection", "Describes the connection in a line."),
    Command::new("client|kill", -3, &[Admin], Directly(kill))
        .syntax("<ip:port> | <ID|TYPE|USER|ADDR|LADDR|SKIPME|MAXAGE> <value> ...")
        .about("connection", "Closes connections."),
    Command::new("client|list", -2, &[Admin], Directly(list))
        .syntax("[TYPE <type> | ID <id> ...]")
        .about("connection", "Describes each connection in a line."),
    Command::new("client|no-evict", 3, &[Admin], Directly(on_or_off))
        .syntax("(ON|OFF)")
        .about(
            "connection",
            "Changes nothing: nobody is disconnected to save memory.",
        ),
    Command::new("client|no-touch", 3, &[], Directly(on_or_off))
        .syntax("(ON|OFF)")
        .about("connection", "Changes nothing: reads leave no trace here."),
    Command::new("client|reply", 3, &[], Directly(reply))
        .syntax("(ON|OFF|SKIP)")
        .about("connection", "Says which replies are wanted."),
    Command::new("client|setinfo", 4, &[], Directly(setinfo))
        .syntax("<LIB-NAME|LIB-VER> <value>")
        .about("connection", "Says which library this is."),
    Command::new("client|setname", 3, &[], Directly(setname))
        .syntax("<name>")
        .about("connection", "Gives the connection a name."),
    Command::new("client|tracking", -3, &[], Directly(tracking))
        .syntax("(ON|OFF)")
        .about("connection", "Switches tracking off; on is refused."),
    Command::new("client|trackinginfo", 2, &[], Directly(trackinginfo))
        .about("connection", "Returns that nothing is tracked."),
    Command::new("client|unblock", -3, &[Admin], Directly(unblock))
        .syntax("<id> [TIMEOUT|ERROR]")
        .about(
            "connection",
            "Returns 0: no command blocks a connection here.",
        ),
];

fn id(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.integer(id_of(&call.session.client));
    Ok(())
}

fn id_of(client: &Client) -> i64 {
    i64::try_from(client.id).unwrap_or(i64::MAX)
}

fn getname(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let name = call.session.client.names().name.clone();
    if name.is_empty() {
        call.reply.null();
    } else {
        call.reply.bulk(name.as_bytes());
    }
    Ok(())
}

fn setname(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let name = checked_name(call.words[2])?;
    call.session.client.names().name = name;
    call.reply.ok();
    Ok(())
}

/// A name that does not break the line that `CLIENT LIST` has for it.
pub(crate) fn checked_name(name: &[u8]) -> Result<String, Failure> {
    plain(name).ok_or_else(|| {
        Failure::new("ERR Client names cannot contain spaces, newlines or special characters.")
    })
}

fn plain(word: &[u8]) -> Option<String> {
    let is_plain = word.iter().all(u8::is_ascii_graphic);
    let text = is_plain.then(|| String::from_utf8(word.to_vec()));
    text.and_then(Result::ok)
}

fn setinfo(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (attribute, value) = (call.words[2], call.words[3]);
    let is_name = is(attribute, "lib-name");
    if !is_name && !is(attribute, "lib-ver") {
        let attribute = String::from_utf8_lossy(attribute);
        return Err(Failure::new(format!(
            "ERR Unrecognized option '{attribute}'"
        )));
    }
    let Some(value) = plain(value) else {
        let attribute = if is_name { "lib-name" } else { "lib-ver" };
        return Err(Failure::new(format!(
            "ERR {attribute} cannot contain spaces, newlines or special characters."
        )));
    };
    let mut names = call.session.client.names();
    if is_name {
        names.library = value;
    } else {
        names.library_version = value;
    }
    drop(names);
    call.reply.ok();
    Ok(())
}

fn info(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.session.publish();
    let line = described(&call.session.client);
    call.reply.verbatim(&line);
    Ok(())
}

fn list(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.session.publish();
    let mut clients = call.shared.clients.all();
    match call.words {
        [_, _] => {}
        [_, _, option, kind] if is(option, "type") => {
            let is_normal = is_normal(kind)?;
            clients.retain(|_| is_normal);
        }
        [_, _, option, ids @ ..] if is(option, "id") && !ids.is_empty() => {
            let ids = ids
                .iter()
                .map(|id| integer(id).map_err(|_| Failure::new("ERR Invalid client ID")))
                .collect::<Result<Vec<_>, _>>()?;
            clients.retain(|client| ids.contains(&id_of(client)));
        }
        _ => return Err(Failure::syntax()),
    }
    let lines: String = clients.iter().map(|client| described(client)).collect();
    call.reply.verbatim(&lines);
    Ok(())
}

/// Whether clients of a type are those that there are: neither replicas nor subscribers.
fn is_normal(kind: &[u8]) -> Result<bool, Failure> {
    let others = ["master", "replica", "slave", "pubsub"];
    if is(kind, "normal") {
        Ok(true)
    } else if others.iter().any(|other| is(kind, other)) {
        Ok(false)
    } else {
        let kind = String::from_utf8_lossy(kind);
        Err(Failure::new(format!("ERR Unknown client type '{kind}'")))
    }
}

/// A line for `CLIENT LIST`, of what is known.
fn described(client: &Client) -> String {
    let names = client.names().clone();
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        line,
        "id={} addr={} laddr={} name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 multi={} \
         watch={} cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
        client.id,
        client.addr,
        client.local_addr,
        names.name,
        client.age().as_secs(),
        client.idle().as_secs(),
        if names.queued.is_some() { "x" } else { "N" },
        names
            .queued
            .map_or("-1".to_owned(), |count| count.to_string()),
        names.watched,
        if names.last_command.is_empty() {
            "NULL"
        } else {
            names.last_command
        },
        names.protocol,
        names.library,
        names.library_version,
    );
    line
}

/// Whom `CLIENT KILL` is about.
struct Victims {
    ids: Vec<i64>,
    addr: Option<String>,
    local_addr: Option<String>,
    min_age: Duration,
    is_normal: bool,
    with_self: bool,
}

impl Victims {
    fn parse(mut options: &[&[u8]]) -> Result<Victims, Failure> {
        let mut victims = Victims {
            ids: Vec::new(),
            addr: None,
            local_addr: None,
            min_age: Duration::ZERO,
            is_normal: true,
            with_self: false,
        };
        let text = |value: &[u8]| Some(String::from_utf8_lossy(value).into_owned());
        while let [option, value, rest @ ..] = options {
            if is(option, "id") {
                let id = integer(value).ok().filter(|id| *id > 0);
                victims.ids.push(
                    id.ok_or_else(|| Failure::new("ERR client-id should be greater than 0"))?,
                );
            } else if is(option, "maxage") {
                let age = integer(value).ok().and_then(|age| u64::try_from(age).ok());
                let age = age
                    .filter(|age| *age > 0)
                    .ok_or_else(|| Failure::new("ERR maxage is not an integer or out of range"))?;
                victims.min_age = Duration::from_secs(age);
            } else if is(option, "type") {
                victims.is_normal &= is_normal(value)?;
            } else if is(option, "addr") {
                victims.addr = text(value);
            } else if is(option, "laddr") {
                victims.local_addr = text(value);
            } else if is(option, "user") {
                if *value != b"default" {
                    let user = String::from_utf8_lossy(value);
                    return Err(Failure::new(format!("ERR No such user '{user}'")));
                }
            } else if is(option, "skipme") && is(value, "no") {
                victims.with_self = true;
            } else if is(option, "skipme") && is(value, "yes") {
                victims.with_self = false;
            } else {
                return Err(Failure::syntax());
            }
            options = rest;
        }
        if options.is_empty() {
            Ok(victims)
        } else {
            Err(Failure::syntax())
        }
    }

    fn has(&self, client: &Client) -> bool {
        let is_at =
            |addr: &Option<String>, at: String| addr.as_ref().is_none_or(|addr| *addr == at);
        self.is_normal
            && (self.ids.is_empty() || self.ids.contains(&id_of(client)))
            && is_at(&self.addr, client.addr.to_string())
            && is_at(&self.local_addr, client.local_addr.to_string())
            && client.age() >= self.min_age
    }
}

fn kill(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    // The old form: an address alone, which can be one's own.
    let (victims, is_old_form) = match call.words {
        [_, _, addr] => {
            let mut victims = Victims::parse(&[])?;
            victims.addr = Some(String::from_utf8_lossy(addr).into_owned());
            victims.with_self = true;
            (victims, true)
        }
        [_, _, options @ ..] => (Victims::parse(options)?, false),
        _ => return Err(Failure::syntax()),
    };
    let mut killed = 0;
    for client in call.shared.clients.all() {
        let is_self = client.id == call.session.client.id;
        if !victims.has(&client) || (is_self && !victims.with_self) {
            continue;
        }
        killed += 1;
        if is_self {
            // It gets its answer first.
            call.flow = Flow::Close;
        } else {
            client.kill();
        }
    }
    match (is_old_form, killed) {
        (true, 0) => return Err(Failure::new("ERR No such client")),
        (true, _) => call.reply.ok(),
        (false, killed) => call.reply.integer(killed),
    }
    Ok(())
}

/// Each answers what it should: `OFF` and `SKIP` nothing.
fn reply(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let mode = call.words[2];
    if is(mode, "on") {
        call.session.replies = Replies::On;
        call.reply.ok();
    } else if is(mode, "off") {
        call.session.replies = Replies::Off;
    } else if is(mode, "skip") {
        // Where none is wanted, that stays so.
        if call.session.replies != Replies::Off {
            call.session.replies = Replies::SkipNext;
        }
    } else {
        return Err(Failure::syntax());
    }
    Ok(())
}

fn on_or_off(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    if !is(call.words[2], "on") && !is(call.words[2], "off") {
        return Err(Failure::syntax());
    }
    call.reply.ok();
    Ok(())
}

fn tracking(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    match call.words[2] {
        word if is(word, "on") => Err(Failure::new(
            "ERR tracking is not supported here: no client is told what others change",
        )),
        word if is(word, "off") => {
            call.reply.ok();
            Ok(())
        }
        _ => Err(Failure::syntax()),
    }
}

fn trackinginfo(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let reply = &mut call.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(1);
    reply.bulk(b"off");
    reply.bulk(b"redirect");
    reply.integer(-1);
    reply.bulk(b"prefixes");
    reply.array(0);
    Ok(())
}

fn getredir(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.integer(-1);
    Ok(())
}

fn caching(_: &mut Call<'_, '_>) -> Result<(), Failure> {
    Err(Failure::new(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
         OPTOUT mode enabled",
    ))
}

fn unblock(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let how = &call.words[3..];
    let is_known = |word: &&[u8]| is(word, "timeout") || is(word, "error");
    if how.len() > 1 || !how.iter().all(is_known) {
        return Err(Failure::syntax());
    }
    integer(call.words[2])?;
    call.reply.integer(0);
    Ok(())
}
