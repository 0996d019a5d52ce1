//! The language of lines: `PUT key value ttl=45`, `GET key`, and answers that a person can read.

use std::io::Write as _;
use std::time::Duration;

use crabkv::Store;

use super::commands::{self, Failure, Flow, is};
use super::event_loop::Shared;
use super::inline;
use super::keyspace::Keyspace;
use crate::cli::units;

pub(crate) const HELP: &str = "\
PUT key value [ttl=45]   puts a value, for 45 seconds (or 1h30m); answers OK
GET key                  answers VALUE value, or NOT_FOUND
DELETE key               answers OK, whether there was a value or not
COMPACT                  gives space back; answers OK when it is done
STATS                    figures, a line each, then END
HELP                     this
QUIT                     closes the connection
Redis commands work as well, and answer as Redis does.
Verbs in any case. \"Quotes\" around what has spaces; in them \\n, \\\", \\\\, \\xff.
";

const VERBS: [&str; 6] = ["PUT", "GET", "DELETE", "COMPACT", "STATS", "HELP"];

/// Whether the language has a verb, in any case.
pub(crate) fn has(verb: &[u8]) -> bool {
    VERBS.iter().any(|known| is(verb, known))
}

/// Does what a line says, and appends the answer to `output`.
pub(crate) fn execute(words: &[&[u8]], shared: &Shared, output: &mut Vec<u8>) -> Flow {
    let keyspace = Keyspace::direct(&shared.store, &shared.syncer);
    match (words[0].to_ascii_uppercase().as_slice(), &words[1..]) {
        (b"PUT", [key, value]) => put(key, value, None, shared, output),
        (b"PUT", [key, value, ttl]) => put(key, value, Some(ttl), shared, output),
        (b"PUT", _) => error(
            "PUT takes a key, a value and perhaps ttl=45; put quotes around what has spaces",
            output,
        ),
        (b"GET", [key]) => get(key, &keyspace, output),
        (b"DELETE", [key]) => done(keyspace.delete(key).map(|_| ()), output),
        (b"GET" | b"DELETE", _) => error("it takes a key", output),
        (b"COMPACT", []) => return compact(),
        (b"STATS", []) => stats(&shared.store, output),
        (b"HELP", []) => output.extend_from_slice(HELP.as_bytes()),
        (b"COMPACT" | b"STATS" | b"HELP", _) => error("it takes no arguments", output),
        _ => error("unknown command; HELP lists them", output),
    }
    Flow::GoOn
}

/// Answers a line of a client that has not given the password.
pub(crate) fn refuse(output: &mut Vec<u8>) -> Flow {
    error("a password is needed first: AUTH password", output);
    Flow::GoOn
}

/// Answers a web request. Whatever comes behind it is not to be done.
pub(crate) fn refuse_web(output: &mut Vec<u8>) -> Flow {
    error("this is no web server", output);
    Flow::Close
}

/// One line: no reason may break it, whatever a client made it of.
pub(crate) fn error(reason: &str, output: &mut Vec<u8>) {
    output.extend_from_slice(b"ERR ");
    let printable = |char: char| if char.is_control() { ' ' } else { char };
    let reason: String = reason.chars().map(printable).collect();
    output.extend_from_slice(reason.as_bytes());
    output.push(b'\n');
}

fn done(result: Result<(), Failure>, output: &mut Vec<u8>) {
    match result {
        Ok(()) => output.extend_from_slice(b"OK\n"),
        Err(failure) => error(&reason(&failure), output),
    }
}

/// What went wrong, without the code that Redis has for it.
fn reason(failure: &Failure) -> String {
    match failure {
        Failure::Reply(text) => text.strip_prefix("ERR ").unwrap_or(text).to_owned(),
        Failure::Store(error) => error.to_string(),
    }
}

fn put(key: &[u8], value: &[u8], ttl: Option<&[u8]>, shared: &Shared, output: &mut Vec<u8>) {
    let ttl = match ttl {
        None => shared.config.default_ttl,
        // A third word without a name is more likely the value's second one.
        Some(word) if !word.contains(&b'=') => {
            let reason = "after the value there can be ttl=45; put quotes around what has spaces";
            return error(reason, output);
        }
        Some(word) => match parse_ttl(word) {
            Ok(ttl) => Some(ttl),
            Err(reason) => return error(&reason, output),
        },
    };
    // What lasts longer than time does, lasts.
    let expires_at = ttl.and_then(|ttl| commands::now().checked_add(ttl));
    let keyspace = Keyspace::direct(&shared.store, &shared.syncer);
    done(keyspace.put(key, value, expires_at), output);
}

/// `ttl=45`, `1h30m`.
pub(crate) fn parse_ttl(word: &[u8]) -> Result<Duration, String> {
    let text = String::from_utf8_lossy(word);
    match text.split_once('=') {
        None => units::parse_ttl(&text),
        Some((name, ttl)) if name.eq_ignore_ascii_case("ttl") => units::parse_ttl(ttl),
        Some(_) => Err("after the value there can be ttl=45".to_owned()),
    }
}

fn get(key: &[u8], keyspace: &Keyspace<'_>, output: &mut Vec<u8>) {
    let shown = keyspace.read(key, |current| {
        let Some(current) = current else {
            return output.extend_from_slice(b"NOT_FOUND\n");
        };
        output.extend_from_slice(b"VALUE ");
        if needs_quotes(current.value) {
            output.extend_from_slice(&inline::quote(current.value));
        } else {
            output.extend_from_slice(current.value);
        }
        output.push(b'\n');
    });
    if let Err(failure) = shown {
        error(&reason(&failure), output);
    }
}

/// What would break the line, or be taken for something else.
fn needs_quotes(value: &[u8]) -> bool {
    value.first() == Some(&b'"')
        || std::str::from_utf8(value).map_or(true, |text| text.contains(char::is_control))
}

fn compact() -> Flow {
    Flow::Later(Box::new(|shared| {
        let mut answer = Vec::new();
        let compacted = shared.store.compact();
        done(compacted.map(|_| ()).map_err(Failure::from), &mut answer);
        answer
    }))
}

fn stats(store: &Store, output: &mut Vec<u8>) {
    for (name, figure) in figures(store) {
        // Writing to a vector cannot fail.
        let _ = writeln!(output, "{name} {figure}");
    }
    output.extend_from_slice(b"END\n");
}

/// What there is to know of the store, with names.
pub(crate) fn figures(store: &Store) -> [(&'static str, u64); 11] {
    let stats = store.stats();
    [
        ("keys", stats.keys),
        ("segments", stats.segments.len() as u64),
        ("data_bytes", stats.data_bytes),
        ("live_bytes", stats.live_bytes),
        ("stale_bytes", stats.stale_bytes),
        ("tombstone_bytes", stats.tombstone_bytes),
        ("expired_bytes", stats.expired_bytes),
        ("index_bytes", stats.index_bytes),
        ("mapped_bytes", stats.mapped_bytes),
        ("merges", stats.merges),
        ("syncs", stats.syncs),
    ]
}
