//! Commands about the connection itself.

use super::Flag::{Fast, NoAuth, NoMulti};
use super::Run::Directly;
use super::{Call, Command, Failure, Flow, integer, is, only_database, wrong_arity};
use crate::server::resp::Protocol;

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("ping", -1, &[Fast, NoAuth], Directly(ping))
        .about("connection", "Returns the server's liveliness response."),
    Command::new("echo", 2, &[Fast], Directly(echo))
        .about("connection", "Returns the given string."),
    Command::new("quit", -1, &[Fast, NoAuth, NoMulti], Directly(quit))
        .about("connection", "Closes the connection."),
    Command::new("reset", 1, &[Fast, NoAuth, NoMulti], Directly(reset))
        .about("connection", "Resets the connection."),
    Command::new("select", 2, &[Fast], Directly(select))
        .about("connection", "Changes the selected database."),
    Command::new("hello", -1, &[Fast, NoAuth], Directly(hello))
        .about("connection", "Handshakes with the server."),
];

fn ping(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    match call.words {
        [_] => call.reply.simple("PONG"),
        [_, message] => call.reply.bulk(message),
        _ => return Err(wrong_arity("ping")),
    }
    Ok(())
}

fn echo(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.bulk(call.words[1]);
    Ok(())
}

fn quit(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.ok();
    call.flow = Flow::Close;
    Ok(())
}

fn reset(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.session.reset();
    call.reply.switch(Protocol::Two);
    call.reply.simple("RESET");
    Ok(())
}

fn select(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    only_database(call.words[1])?;
    call.reply.ok();
    Ok(())
}

fn hello(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let arguments = &call.words[1..];
    let mut protocol = call.session.protocol;
    let mut options = arguments;
    if let [version, rest @ ..] = arguments {
        protocol = match integer(version) {
            Ok(2) => Protocol::Two,
            Ok(3) => Protocol::Three,
            Ok(_) => return Err(Failure::new("NOPROTO unsupported protocol version")),
            Err(_) => {
                return Err(Failure::new(
                    "ERR Protocol version is not an integer or out of range",
                ));
            }
        };
        options = rest;
    }
    let mut name = None;
    while let Some(option) = options.first() {
        match options {
            [_, new_name, rest @ ..] if is(option, "setname") => {
                name = Some(*new_name);
                options = rest;
            }
            _ => {
                let option = String::from_utf8_lossy(option);
                return Err(Failure::new(format!(
                    "ERR Syntax error in HELLO option '{option}'"
                )));
            }
        }
    }
    if let Some(name) = name {
        call.session.client.names().name = String::from_utf8_lossy(name).into_owned();
    }
    call.session.protocol = protocol;
    call.session.client.names().protocol = protocol.number();
    let id = call.session.client.id;
    let reply = &mut call.reply;
    reply.switch(protocol);
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(super::REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(protocol.number());
    reply.bulk(b"id");
    reply.integer(i64::try_from(id).unwrap_or(i64::MAX));
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}
