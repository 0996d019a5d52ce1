//! JSON Lines: an object of `k`, `v` and, if it expires, `ttl_ms` or `expires_at_ms` on each line.
//!
//! Text is a string; bytes that are not UTF-8 are an object, `{"base64":"..."}`. An unknown field
//! is an error, so that a misspelt one is not silently lost.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Write};

use base64::Engine;
use base64::display::Base64Display;
use crabkv::{MAX_KEY_LEN, MAX_VALUE_LEN};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::source::Source;
use super::{BASE64, Change, ChangeReader, Entry, EntryWriter, Expiry, ReadError};
use super::{expiry, malformed, put};

/// An escape is six characters for one byte: `\u0000`. The rest is for the names and blanks.
const MAX_LINE_LEN: usize = 6 * (MAX_KEY_LEN + MAX_VALUE_LEN) + 4096;

pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(serde_json::to_writer(&mut self.out, text)?),
            Err(_) => write!(
                self.out,
                "{{\"base64\":\"{}\"}}",
                Base64Display::new(bytes, &BASE64)
            ),
        }
    }
}

impl<W: Write> EntryWriter for Writer<W> {
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.out.write_all(b"{\"k\":")?;
        self.bytes(entry.key)?;
        self.out.write_all(b",\"v\":")?;
        self.bytes(entry.value)?;
        match entry.expiry {
            Expiry::Never => self.out.write_all(b"}\n"),
            Expiry::InMs(ms) => writeln!(self.out, ",\"ttl_ms\":{ms}}}"),
            Expiry::AtMs(ms) => writeln!(self.out, ",\"expires_at_ms\":{ms}}}"),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(super) struct Reader<R> {
    source: Source<R>,
    line: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(input: R) -> Reader<R> {
        Reader {
            source: Source::new(input),
            line: Vec::new(),
        }
    }
}

impl<R: BufRead> ChangeReader for Reader<R> {
    fn next(&mut self) -> Result<Option<Change<'_>>, ReadError> {
        loop {
            if !self.source.line(&mut self.line, MAX_LINE_LEN)? {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let place = self.source.line_number();
        if self.line.trim_ascii_start().first() != Some(&b'{') {
            return malformed(
                place,
                "not a JSON object; each line is one: {\"k\":..,\"v\":..}",
            );
        }
        let record: Record = match serde_json::from_slice(&self.line) {
            Ok(record) => record,
            Err(error) => return malformed(place, explain(&error)),
        };
        let expiry = expiry(place, record.ttl_ms, record.expires_at_ms)?;
        put(place, record.k.0, record.v.0, expiry).map(Some)
    }
}

/// What is wrong, with the column: the line is not that of the file for `serde_json`.
fn explain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    format!("{message}, at column {}", error.column())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<'a> {
    #[serde(borrow)]
    k: Bytes<'a>,
    #[serde(borrow)]
    v: Bytes<'a>,
    ttl_ms: Option<u64>,
    expires_at_ms: Option<u64>,
}

/// A string, or an object of base64.
struct Bytes<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes<'a>, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or {\"base64\":\"...\"}")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Bytes<'de>, E> {
        Ok(Bytes(Cow::Borrowed(text.as_bytes())))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes<'de>, E> {
        Ok(Bytes(Cow::Owned(text.as_bytes().to_vec())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Bytes<'de>, E> {
        Ok(Bytes(Cow::Owned(text.into_bytes())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bytes<'de>, A::Error> {
        let Some((Base64Name, Base64Text(bytes))) = map.next_entry()? else {
            return Err(Error::missing_field("base64"));
        };
        match map.next_key()? {
            Some(Base64Name) => Err(Error::duplicate_field("base64")),
            None => Ok(Bytes(Cow::Owned(bytes))),
        }
    }
}

/// The only name there is in an object of base64.
struct Base64Name;

impl<'de> Deserialize<'de> for Base64Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64Name, D::Error> {
        let name = <Cow<'de, str>>::deserialize(deserializer)?;
        if name == "base64" {
            Ok(Base64Name)
        } else {
            Err(Error::unknown_field(&name, &["base64"]))
        }
    }
}

struct Base64Text(Vec<u8>);

impl<'de> Deserialize<'de> for Base64Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64Text, D::Error> {
        deserializer.deserialize_str(Base64Visitor)
    }
}

struct Base64Visitor;

impl Visitor<'_> for Base64Visitor {
    type Value = Base64Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string of base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Base64Text, E> {
        match BASE64.decode(text) {
            Ok(bytes) => Ok(Base64Text(bytes)),
            Err(error) => Err(E::custom(format_args!("not base64: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(entries: &[Entry]) -> String {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        for entry in entries {
            writer.write(entry).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    fn read(input: &[u8]) -> Result<usize, String> {
        let mut reader = Reader::new(input);
        let mut count = 0;
        loop {
            match reader.next() {
                Ok(Some(_)) => count += 1,
                Ok(None) => return Ok(count),
                Err(ReadError::Malformed(malformed)) => return Err(malformed.to_string()),
                Err(ReadError::Io(error)) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn text_is_a_string_and_other_bytes_are_base64() {
        let entry = |key, value, expiry| Entry { key, value, expiry };
        let lines = written(&[
            entry(b"a\"\n", "ä\0".as_bytes(), Expiry::Never),
            entry(b"\xff", b"", Expiry::InMs(1500)),
            entry(b"", b"\x80\0", Expiry::AtMs(1_700_000_000_000)),
        ]);
        assert_eq!(
            lines,
            r#"{"k":"a\"\n","v":"ä\u0000"}
{"k":{"base64":"/w=="},"v":"","ttl_ms":1500}
{"k":"","v":{"base64":"gAA="},"expires_at_ms":1700000000000}
"#
        );
    }

    #[test]
    fn blank_lines_a_byte_order_mark_and_another_order_of_fields_are_read() {
        let input = "\u{feff}\r\n{\"v\":\"1\",\"k\":\"a\"}\r\n\n  \n\
                     { \"ttl_ms\": null, \"k\": \"\\u0041\", \"v\": {\"base64\": \"YQ\"} }";
        assert_eq!(read(input.as_bytes()), Ok(2));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_column() {
        let cases = [
            (r#"{"k":"a"}"#, "line 1: missing field `v`, at column 9"),
            (
                "{\"k\":\"a\",\"v\":\"b\"}\n\n{\"k\":\"a\",\"v\":\"b\",\"ttl\":1}",
                "line 3: unknown field `ttl`, expected one of `k`, `v`, `ttl_ms`, \
                 `expires_at_ms`, at column 22",
            ),
            (
                r#"{"k":"a","k":"a","v":""}"#,
                "line 1: duplicate field `k`, at column 12",
            ),
            (
                r#"{"k":1,"v":""}"#,
                "line 1: invalid type: integer `1`, expected a string or {\"base64\":\"...\"}, at \
                 column 6",
            ),
            (
                r#"{"k":"a","v":{"base46":""}}"#,
                "line 1: unknown field `base46`, expected `base64`, at column 22",
            ),
            (
                r#"{"k":"a","v":{"base64":"YQ","base64":"YQ"}}"#,
                "line 1: duplicate field `base64`, at column 36",
            ),
            (
                r#"{"k":"a","v":{}}"#,
                "line 1: missing field `base64`, at column 15",
            ),
            (
                r#"{"k":"a","v":"","ttl_ms":-1}"#,
                "line 1: invalid value: integer `-1`, expected u64, at column 27",
            ),
            (
                r#"{"k":"a","v":"","ttl_ms":1,"expires_at_ms":1}"#,
                "line 1: both ttl_ms and expires_at_ms; leave one of them out",
            ),
            (
                r#"{"k":"a","v":"b"#,
                "line 1: EOF while parsing a string, at column 15",
            ),
            (
                r#"{"k":"a","v":"b"} {"k":"a","v":"b"}"#,
                "line 1: trailing characters, at column 19",
            ),
            (
                "[1]",
                "line 1: not a JSON object; each line is one: {\"k\":..,\"v\":..}",
            ),
        ];
        for (input, problem) in cases {
            assert_eq!(read(input.as_bytes()), Err(problem.to_owned()), "{input}");
        }
        let not_base64 = read(br#"{"k":"a","v":{"base64":"?"}}"#).unwrap_err();
        assert!(
            not_base64.starts_with("line 1: not base64: "),
            "{not_base64}"
        );
    }
}
