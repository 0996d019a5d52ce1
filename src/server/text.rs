//! The language of lines: `PUT key value ttl=45`, `GET key`, and answers that a person can read.

use std::io::Write as _;

use crabkv::Store;

use super::event_loop::Shared;
use super::inline;
use crate::cli::units;

const HELP: &str = "\
PUT key value [ttl=45]   puts a value, for 45 seconds (or 1h30m); answers OK
GET key                  answers VALUE value, or NOT_FOUND
DELETE key               answers OK, whether there was a value or not
COMPACT                  gives space back; answers OK when it is done
STATS                    figures, a line each, then END
HELP                     this
QUIT                     closes the connection
Verbs in any case. \"Quotes\" around what has spaces; in them \\n, \\\", \\\\, \\xff.
";

/// What becomes of a request.
pub(crate) enum Answer {
    /// It is answered.
    Given,
    /// It is answered; the connection ends.
    Close,
    /// It takes long: this does it elsewhere, and gives the answer.
    Later(Job),
}

/// A request that is done elsewhere: its result is the answer.
pub(crate) type Job = Box<dyn FnOnce(&Store) -> Vec<u8> + Send>;

/// Does what a line says, and appends the answer to `output`.
pub(crate) fn execute(line: &[u8], shared: &Shared, output: &mut Vec<u8>) -> Answer {
    let Ok(words) = inline::split(line) else {
        error("unbalanced quotes", output);
        return Answer::Given;
    };
    let Some((verb, arguments)) = words.split_first() else {
        return Answer::Given;
    };
    let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
    match (verb.to_ascii_uppercase().as_slice(), &arguments[..]) {
        (b"PUT", [key, value]) => put(key, value, None, shared, output),
        (b"PUT", [key, value, ttl]) => put(key, value, Some(ttl), shared, output),
        (b"PUT", _) => error(
            "PUT takes a key, a value and perhaps ttl=45; put quotes around what has spaces",
            output,
        ),
        (b"GET", [key]) => get(key, &shared.store, output),
        (b"DELETE", [key]) => {
            let deleted = shared.syncer.write(|| shared.store.delete(key));
            done(deleted.map(|_| ()), output);
        }
        (b"GET" | b"DELETE", _) => error("it takes a key", output),
        (b"COMPACT", []) => return compact(),
        (b"STATS", []) => stats(&shared.store, output),
        (b"HELP", []) => output.extend_from_slice(HELP.as_bytes()),
        (b"QUIT" | b"EXIT", []) => {
            output.extend_from_slice(b"OK\n");
            return Answer::Close;
        }
        (b"COMPACT" | b"STATS" | b"HELP" | b"QUIT" | b"EXIT", _) => {
            error("it takes no arguments", output);
        }
        // A browser, or a page that makes one talk to us.
        (b"POST" | b"HOST:", _) => {
            error("this is no web server", output);
            return Answer::Close;
        }
        _ => error("unknown command; HELP lists them", output),
    }
    Answer::Given
}

/// One line: no reason may break it, whatever a client made it of.
pub(crate) fn error(reason: &str, output: &mut Vec<u8>) {
    output.extend_from_slice(b"ERR ");
    let printable = |char: char| if char.is_control() { ' ' } else { char };
    let reason: String = reason.chars().map(printable).collect();
    output.extend_from_slice(reason.as_bytes());
    output.push(b'\n');
}

fn done(result: crabkv::Result<()>, output: &mut Vec<u8>) {
    match result {
        Ok(()) => output.extend_from_slice(b"OK\n"),
        Err(reason) => error(&reason.to_string(), output),
    }
}

fn put(key: &[u8], value: &[u8], ttl: Option<&[u8]>, shared: &Shared, output: &mut Vec<u8>) {
    let store = &shared.store;
    let written = match ttl.map(parse_ttl) {
        None => shared.syncer.write(|| store.put(key, value)),
        Some(Ok(ttl)) => shared.syncer.write(|| store.put_with_ttl(key, value, ttl)),
        Some(Err(reason)) => return error(&reason, output),
    };
    done(written, output);
}

fn parse_ttl(word: &[u8]) -> Result<std::time::Duration, String> {
    let text = String::from_utf8_lossy(word);
    match text.split_once('=') {
        Some((name, ttl)) if name.eq_ignore_ascii_case("ttl") => units::parse_ttl(ttl),
        _ => Err("after the value there can be ttl=45; put quotes around what has spaces".into()),
    }
}

fn get(key: &[u8], store: &Store, output: &mut Vec<u8>) {
    match store.get(key) {
        Ok(Some(value)) => {
            output.extend_from_slice(b"VALUE ");
            if needs_quotes(&value) {
                output.extend_from_slice(&inline::quote(&value));
            } else {
                output.extend_from_slice(&value);
            }
            output.push(b'\n');
        }
        Ok(None) => output.extend_from_slice(b"NOT_FOUND\n"),
        Err(reason) => error(&reason.to_string(), output),
    }
}

/// What would break the line, or be taken for something else.
fn needs_quotes(value: &[u8]) -> bool {
    value.first() == Some(&b'"')
        || std::str::from_utf8(value).map_or(true, |text| text.contains(char::is_control))
}

fn compact() -> Answer {
    Answer::Later(Box::new(|store| {
        let mut answer = Vec::new();
        done(store.compact().map(|_| ()), &mut answer);
        answer
    }))
}

fn stats(store: &Store, output: &mut Vec<u8>) {
    let stats = store.stats();
    for (name, figure) in [
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
    ] {
        // Writing to a vector cannot fail.
        let _ = writeln!(output, "{name} {figure}");
    }
    output.extend_from_slice(b"END\n");
}
