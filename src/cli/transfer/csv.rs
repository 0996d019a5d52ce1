//! CSV as RFC 4180 has it, with a header of `key,value,ttl_ms` or `key,value,expires_at_ms`.
//!
//! A field that is not UTF-8, or that begins with `base64:`, is written as `base64:...`, so that
//! every byte comes back. Strict where it matters: a quote that is never closed, as a file that was
//! cut off has it, is an error and not a field.

use std::borrow::Cow;
use std::io::{self, BufRead, Write};
use std::ops::Range;

use base64::Engine;
use base64::display::Base64Display;
use crabkv::{MAX_KEY_LEN, MAX_VALUE_LEN};

use super::{BASE64, Change, ChangeReader, Entry, EntryWriter, Expiry, Place, ReadError, Times};
use super::{expiry, malformed, put};

const BASE64_PREFIX: &[u8] = b"base64:";

/// A key and a value in base64, and room for the other fields.
const MAX_RECORD_LEN: usize = (MAX_KEY_LEN + MAX_VALUE_LEN).div_ceil(3) * 4 + 4096;

/// More than any header has.
const MAX_FIELDS: usize = 1000;

const COLUMNS: [&str; 4] = ["key", "value", "ttl_ms", "expires_at_ms"];

pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(mut out: W, times: Times) -> io::Result<Writer<W>> {
        out.write_all(match times {
            Times::Relative => b"key,value,ttl_ms\n",
            Times::Absolute => b"key,value,expires_at_ms\n",
        })?;
        Ok(Writer { out })
    }

    fn field(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.starts_with(BASE64_PREFIX) || std::str::from_utf8(bytes).is_err() {
            self.out.write_all(BASE64_PREFIX)?;
            return write!(self.out, "{}", Base64Display::new(bytes, &BASE64));
        }
        if !bytes.iter().any(|byte| b",\"\r\n".contains(byte)) {
            return self.out.write_all(bytes);
        }
        self.out.write_all(b"\"")?;
        for part in bytes.split_inclusive(|&byte| byte == b'"') {
            self.out.write_all(part)?;
            if part.ends_with(b"\"") {
                self.out.write_all(b"\"")?;
            }
        }
        self.out.write_all(b"\"")
    }
}

impl<W: Write> EntryWriter for Writer<W> {
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.field(entry.key)?;
        self.out.write_all(b",")?;
        self.field(entry.value)?;
        match entry.expiry {
            Expiry::Never => self.out.write_all(b",\n"),
            Expiry::InMs(ms) | Expiry::AtMs(ms) => writeln!(self.out, ",{ms}"),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(super) struct Reader<R> {
    records: Records<R>,
    /// Where each of [`COLUMNS`] is; `None` before the header was read.
    columns: Option<[Option<usize>; 4]>,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(input: R) -> Reader<R> {
        Reader {
            records: Records::new(input),
            columns: None,
        }
    }

    fn read_header(&mut self) -> Result<[Option<usize>; 4], ReadError> {
        if !self.records.next()? {
            return malformed(
                Place::Line(1),
                "no header; a CSV file begins with the names of its columns: key,value,ttl_ms",
            );
        }
        let place = self.records.record.place();
        let mut columns = [None; 4];
        for at in 0..self.records.record.fields.len() {
            let name = self.records.record.field(at).trim_ascii();
            let known = COLUMNS.iter().position(|column| column.as_bytes() == name);
            let Some(known) = known else {
                return malformed(
                    place,
                    format!(
                        "unknown column `{}` in the header; those that are understood are {}",
                        name.escape_ascii(),
                        COLUMNS.join(", ")
                    ),
                );
            };
            if columns[known].replace(at).is_some() {
                return malformed(
                    place,
                    format!("the header has two columns `{}`", COLUMNS[known]),
                );
            }
        }
        for (name, at) in COLUMNS.iter().zip(columns).take(2) {
            if at.is_none() {
                return malformed(place, format!("the header has no column `{name}`"));
            }
        }
        Ok(columns)
    }
}

impl<R: BufRead> ChangeReader for Reader<R> {
    fn next(&mut self) -> Result<Option<Change<'_>>, ReadError> {
        let columns = if let Some(columns) = self.columns {
            columns
        } else {
            let columns = self.read_header()?;
            self.columns = Some(columns);
            columns
        };
        if !self.records.next()? {
            return Ok(None);
        }
        let place = self.records.record.place();
        let wanted = columns.iter().flatten().count();
        let found = self.records.record.fields.len();
        if found != wanted {
            return malformed(
                place,
                format!("{found} fields, the header has {wanted}; quote fields that hold commas"),
            );
        }
        let [key, value, ttl_ms, expires_at_ms] =
            columns.map(|at| at.map_or(&b""[..], |at| self.records.record.field(at)));
        let ttl_ms = milliseconds(place, "ttl_ms", ttl_ms)?;
        let expires_at_ms = milliseconds(place, "expires_at_ms", expires_at_ms)?;
        let expiry = expiry(place, ttl_ms, expires_at_ms)?;
        let key = decoded(place, "key", key)?;
        put(place, key, decoded(place, "value", value)?, expiry).map(Some)
    }
}

fn milliseconds(place: Place, column: &str, field: &[u8]) -> Result<Option<u64>, ReadError> {
    let field = field.trim_ascii();
    if field.is_empty() {
        return Ok(None);
    }
    let number = std::str::from_utf8(field).ok().map(str::parse);
    match number {
        Some(Ok(ms)) => Ok(Some(ms)),
        _ => malformed(
            place,
            format!(
                "{column} is `{}`, it must be a whole number of milliseconds or empty",
                shortened(field)
            ),
        ),
    }
}

fn shortened(bytes: &[u8]) -> impl std::fmt::Display {
    bytes[..bytes.len().min(40)].escape_ascii()
}

fn decoded<'a>(place: Place, column: &str, field: &'a [u8]) -> Result<Cow<'a, [u8]>, ReadError> {
    let Some(text) = field.strip_prefix(BASE64_PREFIX) else {
        return Ok(Cow::Borrowed(field));
    };
    match BASE64.decode(text) {
        Ok(bytes) => Ok(Cow::Owned(bytes)),
        Err(error) => malformed(
            place,
            format!(
                "the {column} begins with `base64:` and is not base64: {error}; text that begins \
                 so must be in base64 itself"
            ),
        ),
    }
}

/// The records of a CSV file, whatever they mean.
struct Records<R> {
    input: R,
    at_start: bool,
    record: Record,
}

/// A record, and how far into the input it is.
#[derive(Default)]
struct Record {
    bytes: Vec<u8>,
    /// Where each field is in `bytes`.
    fields: Vec<Range<usize>>,
    /// The line that the record begins on, from 1.
    first_line: u64,
    /// Line feeds that were read.
    lines: u64,
}

/// What the byte before has led to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of the record was there yet.
    Record,
    /// Nothing of the field was there yet.
    Field,
    Unquoted,
    Quoted,
    /// The field is over, or the quote is doubled.
    Quote,
    /// Only a line feed can follow.
    CarriageReturn,
}

impl<R: BufRead> Records<R> {
    fn new(input: R) -> Records<R> {
        Records {
            input,
            at_start: true,
            record: Record::default(),
        }
    }

    /// Reads a record; blank lines are none. Whether there was one.
    fn next(&mut self) -> Result<bool, ReadError> {
        let record = &mut self.record;
        record.bytes.clear();
        record.fields.clear();
        let mut state = State::Record;
        loop {
            let mut available = self.input.fill_buf()?;
            let read = available.len();
            if read == 0 {
                return record.end(state);
            }
            if self.at_start {
                self.at_start = false;
                available = available.strip_prefix(b"\xef\xbb\xbf").unwrap_or(available);
            }
            let mut rest = available;
            while let Some((&byte, after)) = rest.split_first() {
                // Most bytes are neither the beginning nor the end of anything.
                let plain = match state {
                    State::Quoted => position(rest, |byte| matches!(byte, b'"' | b'\n')),
                    State::Unquoted => {
                        position(rest, |byte| matches!(byte, b',' | b'"' | b'\r' | b'\n'))
                    }
                    _ => 0,
                };
                if plain > 0 {
                    record.bytes.extend_from_slice(&rest[..plain]);
                    rest = &rest[plain..];
                    continue;
                }
                rest = after;
                if state == State::Record {
                    record.first_line = record.lines + 1;
                }
                if byte == b'\n' {
                    record.lines += 1;
                }
                let Some(next) = record.step(state, byte)? else {
                    let used = read - rest.len();
                    self.input.consume(used);
                    return Ok(true);
                };
                state = next;
            }
            self.input.consume(read);
            if record.bytes.len() > MAX_RECORD_LEN || record.fields.len() > MAX_FIELDS {
                return malformed(
                    record.place(),
                    format!(
                        "a record of more than {MAX_RECORD_LEN} bytes or {MAX_FIELDS} fields; is a \
                         quote not closed?"
                    ),
                );
            }
        }
    }
}

impl Record {
    fn place(&self) -> Place {
        Place::Line(self.first_line)
    }

    fn field(&self, at: usize) -> &[u8] {
        let field = self.fields.get(at);
        field.map_or(&[], |field| &self.bytes[field.clone()])
    }

    /// What a byte does to a record; `None` when it ends it.
    fn step(&mut self, state: State, byte: u8) -> Result<Option<State>, ReadError> {
        Ok(match (state, byte) {
            (State::Record, b'\r' | b'\n') => Some(State::Record),
            (State::Quoted, b'"') => Some(State::Quote),
            (State::Quoted, _) | (State::Quote, b'"') => {
                self.bytes.push(byte);
                Some(State::Quoted)
            }
            (State::CarriageReturn, b'\n') => None,
            (State::CarriageReturn, _) => {
                return malformed(
                    self.place(),
                    "a carriage return without a line feed; quote the field that holds it",
                );
            }
            (_, b',') => {
                self.end_field();
                Some(State::Field)
            }
            (_, b'\n') => {
                self.end_field();
                None
            }
            (_, b'\r') => {
                self.end_field();
                Some(State::CarriageReturn)
            }
            (State::Record | State::Field, b'"') => Some(State::Quoted),
            (State::Unquoted, b'"') => {
                return malformed(
                    self.place(),
                    "a quote within a field that is not quoted; quote the field and double the \
                     quotes in it",
                );
            }
            (State::Quote, _) => {
                return malformed(
                    self.place(),
                    "something follows a closing quote; double the quotes within a field",
                );
            }
            (State::Record | State::Field | State::Unquoted, _) => {
                self.bytes.push(byte);
                Some(State::Unquoted)
            }
        })
    }

    fn end_field(&mut self) {
        let start = self.fields.last().map_or(0, |field| field.end);
        self.fields.push(start..self.bytes.len());
    }

    /// What the end of the input does to a record; its line feed may be absent.
    fn end(&mut self, state: State) -> Result<bool, ReadError> {
        match state {
            State::Record => Ok(false),
            State::Quoted => malformed(
                self.place(),
                "the input ends within a quoted field; the file was cut off, or a quote is not \
                 closed",
            ),
            State::CarriageReturn => Ok(true),
            State::Field | State::Unquoted | State::Quote => {
                self.end_field();
                Ok(true)
            }
        }
    }
}

fn position(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    let found = bytes.iter().position(|&byte| wanted(byte));
    found.unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<Vec<String>, String> {
        let mut reader = Reader::new(input);
        let mut found = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(Change::Put {
                    key, value, expiry, ..
                })) => found.push(format!(
                    "{}={} {:?}",
                    key.escape_ascii(),
                    value.escape_ascii(),
                    expiry.unwrap()
                )),
                Ok(None) => return Ok(found),
                Err(ReadError::Malformed(malformed)) => return Err(malformed.to_string()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn fields_are_quoted_where_they_must_be_and_base64_where_they_are_no_text() {
        let mut out = Vec::new();
        let mut writer = Writer::begin(&mut out, Times::Relative).unwrap();
        for (key, value, expiry) in [
            (&b"plain"[..], &b"text"[..], Expiry::Never),
            (b"a,b", b"say \"hi\"\r\n", Expiry::InMs(20)),
            (b"\xff", b"base64:", Expiry::Never),
            (b"", b"", Expiry::Never),
        ] {
            writer.write(&Entry { key, value, expiry }).unwrap();
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "key,value,ttl_ms\nplain,text,\n\"a,b\",\"say \"\"hi\"\"\r\n\",20\n\
             base64:/w==,base64:YmFzZTY0Og==,\n,,\n"
        );
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let input = "\u{feff}value,expires_at_ms,key\r\n1,,a\r\n\r\n\"2\",17,\"b\"\r\n3,,";
        let expected = ["a=1 Never", "b=2 AtMs(17)", "=3 Never"];
        assert_eq!(read(input.as_bytes()).unwrap(), expected);
        let input = "\n\"key\",\"value\"\na,\"b\"";
        assert_eq!(read(input.as_bytes()).unwrap(), ["a=b Never"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_line_that_the_record_begins_on() {
        let cases = [
            ("", "line 1: no header"),
            ("\n\nkey,valu\n", "line 3: unknown column `valu`"),
            ("key,ttl_ms\n", "line 1: the header has no column `value`"),
            (
                "key,value,key\n",
                "line 1: the header has two columns `key`",
            ),
            (
                "key,value\n\"a\nb\",c\nd\n",
                "line 4: 1 fields, the header has 2",
            ),
            ("key,value\na,b,c\n", "line 2: 3 fields, the header has 2"),
            (
                "key,value\na,\"b\n",
                "line 2: the input ends within a quoted",
            ),
            ("key,value\na,b\"c\n", "line 2: a quote within a field"),
            (
                "key,value\na,\"b\"c\n",
                "line 2: something follows a closing",
            ),
            ("key,value\na,b\rc,d\n", "line 2: a carriage return without"),
            (
                "key,value\na,base64:?\n",
                "line 2: the value begins with `base64:` and is not",
            ),
            ("key,value,ttl_ms\na,b,1.5\n", "line 2: ttl_ms is `1.5`"),
            (
                "key,value,ttl_ms,expires_at_ms\na,b,1,2\n",
                "line 2: both ttl_ms and expires_at_ms",
            ),
        ];
        for (input, problem) in cases {
            let said = read(input.as_bytes()).unwrap_err();
            assert!(said.starts_with(problem), "{input:?}: {said}");
        }
    }
}
