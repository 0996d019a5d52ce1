//! What Redis can be extended and examined with, as far as an empty answer is the true one:
//! `MODULE`, `FUNCTION`, `LATENCY`, `DEBUG`; and `TIME`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Flag::{Admin, Fast, Write};
use super::Run::Directly;
use super::dispatch::help;
use super::{Call, Command, Failure, is};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("time", 1, &[Fast], Directly(time)).about(
        "server",
        "Returns the server's time: seconds since 1970, and microseconds.",
    ),
    Command::new("debug", -2, &[Admin], Directly(debug)).about("server", "Is refused."),
    Command::container(
        "module",
        &[
            Command::new("module|help", 2, &[], Directly(help)).about("server", "Prints this."),
            Command::new("module|list", 2, &[Admin], Directly(nothing))
                .about("server", "Returns the modules: none."),
        ],
    )
    .about("server", "Says that there are no modules."),
    Command::container(
        "function",
        &[
            Command::new("function|flush", -2, &[Write], Directly(function_flush))
                .syntax("[ASYNC|SYNC]")
                .about(
                    "scripting",
                    "Deletes all functions, of which there are none.",
                ),
            Command::new("function|help", 2, &[], Directly(help))
                .about("scripting", "Prints this."),
            Command::new("function|list", -2, &[], Directly(nothing))
                .syntax("[LIBRARYNAME <pattern>] [WITHCODE]")
                .about("scripting", "Returns the functions: none."),
        ],
    )
    .about("scripting", "Says that there are no functions."),
    Command::container(
        "latency",
        &[
            Command::new("latency|help", 2, &[], Directly(help)).about("server", "Prints this."),
            Command::new("latency|history", 3, &[Admin], Directly(nothing))
                .syntax("<event>")
                .about(
                    "server",
                    "Returns the samples of an event: none, nothing is monitored.",
                ),
            Command::new("latency|latest", 2, &[Admin], Directly(nothing))
                .about("server", "Returns the last sample of each event: none."),
            Command::new("latency|reset", -2, &[Admin], Directly(latency_reset))
                .syntax("[<event> ...]")
                .about("server", "Forgets samples; returns of how many events: 0."),
        ],
    )
    .about(
        "server",
        "Says that there is no latency monitor; SLOWLOG has what was slow.",
    ),
];

fn time(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    call.reply.array(2);
    call.reply.bulk(now.as_secs().to_string().as_bytes());
    call.reply.bulk(now.subsec_micros().to_string().as_bytes());
    Ok(())
}

fn debug(_: &mut Call<'_, '_>) -> Result<(), Failure> {
    Err(Failure::new("ERR DEBUG command not allowed."))
}

fn nothing(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.array(0);
    Ok(())
}

fn function_flush(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    match call.words {
        [_, _] => {}
        [_, _, how] if is(how, "async") || is(how, "sync") => {}
        _ => {
            return Err(Failure::new(
                "ERR FUNCTION FLUSH only supports SYNC|ASYNC option",
            ));
        }
    }
    call.reply.ok();
    Ok(())
}

fn latency_reset(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.reply.integer(0);
    Ok(())
}
