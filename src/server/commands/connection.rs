//! Commands about the connection itself, and the password.

use super::Flag::{Fast, NoAuth, NoLog, NoMulti};
use super::Run::Directly;
use super::{Call, Command, Failure, Flow, client, integer, is, only_database, wrong_arity};
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
    Command::new("hello", -1, &[Fast, NoAuth, NoLog], Directly(hello))
        .about("connection", "Agrees on the protocol, and who this is."),
    Command::new("auth", -2, &[Fast, NoAuth, NoLog], Directly(auth))
        .about("connection", "Gives the password."),
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
    call.session.reset(call.shared.has_password());
    call.reply.switch(Protocol::Two);
    call.reply.simple("RESET");
    Ok(())
}

fn select(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    only_database(call.words[1])?;
    call.reply.ok();
    Ok(())
}

/// The only user there is.
const USER: &[u8] = b"default";

fn auth(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    match call.words {
        [_, _] if !call.shared.has_password() => {
            return Err(Failure::new(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            ));
        }
        [_, password] => authenticate(call, USER, password)?,
        [_, user, password] => authenticate(call, user, password)?,
        _ => return Err(Failure::syntax()),
    }
    call.reply.ok();
    Ok(())
}

/// Without a password, any is right.
fn authenticate(call: &mut Call<'_, '_>, user: &[u8], attempt: &[u8]) -> Result<(), Failure> {
    let password = call.shared.config.password.as_ref();
    let is_right = password.is_none_or(|password| password.is(attempt));
    if is_right && user == USER {
        call.session.authenticate();
        return Ok(());
    }
    if password.is_some() {
        call.flow = Flow::WrongPassword;
    }
    Err(Failure::new(
        "WRONGPASS invalid username-password pair or user is disabled.",
    ))
}

/// What `HELLO` asks for.
struct Hello<'a> {
    protocol: Protocol,
    user_and_password: Option<(&'a [u8], &'a [u8])>,
    name: Option<String>,
}

fn parse_hello<'a>(words: &[&'a [u8]], protocol: Protocol) -> Result<Hello<'a>, Failure> {
    let mut hello = Hello {
        protocol,
        user_and_password: None,
        name: None,
    };
    let [_, version, options @ ..] = words else {
        return Ok(hello);
    };
    let mut options = options;
    hello.protocol = match integer(version) {
        Ok(2) => Protocol::Two,
        Ok(3) => Protocol::Three,
        Ok(_) => return Err(Failure::new("NOPROTO unsupported protocol version")),
        Err(_) => {
            return Err(Failure::new(
                "ERR Protocol version is not an integer or out of range",
            ));
        }
    };
    while let [option, ..] = options {
        options = match options {
            [_, user, password, rest @ ..] if is(option, "auth") => {
                hello.user_and_password = Some((user, password));
                rest
            }
            [_, name, rest @ ..] if is(option, "setname") => {
                hello.name = Some(client::checked_name(name)?);
                rest
            }
            _ => {
                let option = String::from_utf8_lossy(option);
                return Err(Failure::new(format!(
                    "ERR Syntax error in HELLO option '{option}'"
                )));
            }
        };
    }
    Ok(hello)
}

fn hello(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let hello = parse_hello(call.words, call.session.protocol)?;
    if let Some((user, password)) = hello.user_and_password {
        authenticate(call, user, password)?;
    }
    if !call.session.is_authenticated() {
        return Err(Failure::new(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    let protocol = hello.protocol;
    call.session.protocol = protocol;
    let id = call.session.client.id;
    let mut names = call.session.client.names();
    names.protocol = protocol.number();
    if let Some(name) = hello.name {
        names.name = name;
    }
    drop(names);
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
