//! `OBJECT` and `MEMORY`: how values are kept. Those subcommands are here that have an answer:
//! uses are not counted, and there is no allocator to ask.

use super::super::{Call, Failure, integer, is, wrong_arity};

/// What Redis calls the ways in which it keeps strings: as an integer, with their header, and apart
/// from it. Clients go by these names.
fn encoding(value: &[u8]) -> &'static str {
    const MAX_EMBEDDED_LEN: usize = 44;
    if integer(value).is_ok() {
        "int"
    } else if value.len() <= MAX_EMBEDDED_LEN {
        "embstr"
    } else {
        "raw"
    }
}

const OBJECT_HELP: &[&str] = &[
    "OBJECT <subcommand> <key>. Subcommands are:",
    "ENCODING <key>",
    "    Says how Redis would keep the value: int, embstr or raw.",
    "REFCOUNT <key>",
    "    Says 1: no value is shared.",
    "IDLETIME <key>",
    "    An error: when a key was used last is not noted.",
    "FREQ <key>",
    "    An error: how often a key is used is not noted.",
    "HELP",
    "    Prints this help.",
];

pub(super) fn object(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let subcommand = call.words[1];
    if is(subcommand, "help") {
        return help(call, "object", OBJECT_HELP);
    }
    let (name, answer): (_, fn(&[u8]) -> Answer) = match () {
        () if is(subcommand, "encoding") => {
            ("object|encoding", |value| Answer::Name(encoding(value)))
        }
        () if is(subcommand, "refcount") => ("object|refcount", |_| Answer::One),
        () if is(subcommand, "idletime") => ("object|idletime", |_| {
            Answer::Error("ERR idle times are not tracked: any key is as quick to read as another")
        }),
        () if is(subcommand, "freq") => ("object|freq", |_| {
            Answer::Error("ERR access frequency not tracked: nothing is evicted here")
        }),
        () => return Err(unknown(subcommand, "OBJECT")),
    };
    let [_, _, key] = *call.words else {
        return Err(wrong_arity(name));
    };
    let answer = call
        .keyspace
        .read(key, |current| current.map(|current| answer(current.value)))?;
    match answer {
        None => call.reply.null(),
        Some(Answer::Name(name)) => call.reply.bulk(name.as_bytes()),
        Some(Answer::One) => call.reply.integer(1),
        Some(Answer::Error(text)) => return Err(Failure::new(text)),
    }
    Ok(())
}

enum Answer {
    Name(&'static str),
    One,
    Error(&'static str),
}

const MEMORY_HELP: &[&str] = &[
    "MEMORY <subcommand> [<arg> ...]. Subcommands are:",
    "DOCTOR",
    "    Says in words what takes memory.",
    "MALLOC-STATS",
    "    Says that the allocator has no figures.",
    "PURGE",
    "    Does nothing: there is nothing to give back.",
    "STATS",
    "    Figures in bytes.",
    "USAGE <key> [SAMPLES <count>]",
    "    The bytes of a key, its value, and its entry in the index.",
    "HELP",
    "    Prints this help.",
];

/// What a key's entry in the index takes at most, on average, and its record beside key and value.
const OVERHEAD_BYTES: usize = 20 + 28;

pub(super) fn memory(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let subcommand = call.words[1];
    let has_no_arguments = call.words.len() == 2;
    match () {
        () if is(subcommand, "help") => return help(call, "memory", MEMORY_HELP),
        () if is(subcommand, "usage") => return usage(call),
        () if is(subcommand, "doctor") => {
            if !has_no_arguments {
                return Err(wrong_arity("memory|doctor"));
            }
            let stats = call.keyspace.store().stats();
            let text = format!(
                "The index takes {} bytes for {} keys, the append buffer {}. Values are read from \
                 the log's files through the page cache, which is the system's to give back.",
                stats.index_bytes, stats.keys, stats.append_buffer_bytes,
            );
            call.reply.verbatim(&text);
        }
        () if is(subcommand, "malloc-stats") => {
            if !has_no_arguments {
                return Err(wrong_arity("memory|malloc-stats"));
            }
            call.reply
                .verbatim("The allocator in use has no figures to show.");
        }
        () if is(subcommand, "purge") => {
            if !has_no_arguments {
                return Err(wrong_arity("memory|purge"));
            }
            call.reply.ok();
        }
        () if is(subcommand, "stats") => {
            if !has_no_arguments {
                return Err(wrong_arity("memory|stats"));
            }
            stats(call);
        }
        () => return Err(unknown(subcommand, "MEMORY")),
    }
    Ok(())
}

fn usage(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let Some((key, options)) = call.words[2..].split_first() else {
        return Err(wrong_arity("memory|usage"));
    };
    // How many parts of a value to look at: a string has one.
    let mut options = options;
    while let Some((word, rest)) = options.split_first() {
        options = match rest {
            [count, rest @ ..] if is(word, "samples") && integer(count)? >= 0 => rest,
            _ => return Err(Failure::syntax()),
        };
    }
    let value_len = call
        .keyspace
        .read(key, |current| current.map(|current| current.value.len()))?;
    match value_len {
        Some(len) => call.reply.count(key.len() + len + OVERHEAD_BYTES),
        None => call.reply.null(),
    }
    Ok(())
}

fn stats(call: &mut Call<'_, '_>) {
    let stats = call.keyspace.store().stats();
    let dataset_bytes = stats.live_bytes;
    let overhead_bytes = stats.index_bytes + stats.append_buffer_bytes + stats.buffered_bytes;
    let figures = [
        ("keys.count", stats.keys),
        ("keys.bytes-per-key", stats.live_bytes / stats.keys.max(1)),
        ("overhead.total", overhead_bytes),
        ("overhead.db.hashtable.main", stats.index_bytes),
        ("dataset.bytes", dataset_bytes),
    ];
    call.reply.map(figures.len());
    for (name, figure) in figures {
        call.reply.bulk(name.as_bytes());
        call.reply
            .integer(i64::try_from(figure).unwrap_or(i64::MAX));
    }
}

fn help(call: &mut Call<'_, '_>, name: &str, lines: &[&'static str]) -> Result<(), Failure> {
    if call.words.len() != 2 {
        return Err(wrong_arity(&format!("{name}|help")));
    }
    call.reply.array(lines.len());
    for line in lines {
        call.reply.simple(line);
    }
    Ok(())
}

fn unknown(subcommand: &[u8], name: &str) -> Failure {
    let subcommand = String::from_utf8_lossy(subcommand);
    Failure::new(format!(
        "ERR unknown subcommand '{subcommand}'. Try {name} HELP."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_what_redis_would_choose() {
        for (value, name) in [
            ("9223372036854775807", "int"),
            ("9223372036854775808", "embstr"),
            ("01", "embstr"),
            ("", "embstr"),
            (&"a".repeat(44), "embstr"),
            (&"a".repeat(45), "raw"),
        ] {
            assert_eq!(encoding(value.as_bytes()), name, "{value}");
        }
    }
}
