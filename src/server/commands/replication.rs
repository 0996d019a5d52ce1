//! Commands about replicas, of which there are none.

use super::Flag::{Admin, Fast, NoMulti};
use super::Run::Directly;
use super::{Call, Command, Failure, integer, is};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("role", 1, &[Fast], Directly(role))
        .about("server", "Returns that this is a master without replicas."),
    Command::new("replicaof", 3, &[Admin, NoMulti], Directly(replicaof)).about(
        "server",
        "Makes it a master, which it is; of others it is no replica.",
    ),
    Command::new("slaveof", 3, &[Admin, NoMulti], Directly(replicaof)).about(
        "server",
        "Makes it a master, which it is; of others it is no replica.",
    ),
    Command::new("wait", 3, &[], Directly(wait)).about(
        "generic",
        "Returns how many replicas have the writes so far: 0.",
    ),
];

fn role(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let reply = &mut call.reply;
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(0);
    reply.array(0);
    Ok(())
}

fn replicaof(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.refuse_in_transaction()?;
    if !is(call.words[1], "no") || !is(call.words[2], "one") {
        return Err(Failure::new(
            "ERR replication is not supported: only NO ONE is possible",
        ));
    }
    call.reply.ok();
    Ok(())
}

/// Nobody could come, so that nobody is waited for.
fn wait(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    integer(call.words[1])?;
    timeout(call.words[2])?;
    call.reply.integer(0);
    Ok(())
}

/// A timeout in milliseconds, as far as it is one.
pub(crate) fn timeout(word: &[u8]) -> Result<(), Failure> {
    match integer(word) {
        Err(_) => Err(Failure::new(
            "ERR timeout is not an integer or out of range",
        )),
        Ok(..0) => Err(Failure::new("ERR timeout is negative")),
        Ok(_) => Ok(()),
    }
}
