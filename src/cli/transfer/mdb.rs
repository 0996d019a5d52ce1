//! The text that LMDB's `mdb_dump` writes and `mdb_load` reads: a header, then keys and values in
//! turn, each on a line of its own after a blank.
//!
//! Written as hexadecimal digits (`format=bytevalue`); `format=print`, with `\xx` for what cannot be
//! printed, is read too. There is nothing in it that could say when a value expires.

use std::borrow::Cow;
use std::io::{self, BufRead, Write};

use crabkv::{MAX_KEY_LEN, MAX_VALUE_LEN};

use super::source::Source;
use super::{Change, ChangeReader, Entry, EntryWriter, Expiry, Place, ReadError, malformed, put};

/// Three characters for a byte at most, and the blank.
const MAX_LINE_LEN: usize =
    3 * (if MAX_VALUE_LEN > MAX_KEY_LEN {
        MAX_VALUE_LEN
    } else {
        MAX_KEY_LEN
    }) + 1;

/// Header lines are short, but nothing says how long a name is.
const MAX_HEADER_LEN: usize = 64 * 1024;

pub(super) struct Writer<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// `map_bytes` is how large the map that `mdb_load` makes may grow.
    pub(super) fn begin(mut out: W, map_bytes: u64) -> io::Result<Writer<W>> {
        write!(
            out,
            "VERSION=3\nformat=bytevalue\ntype=btree\nmapsize={map_bytes}\nmaxreaders=126\n\
             HEADER=END\n"
        )?;
        let line = Vec::new();
        Ok(Writer { out, line })
    }

    fn line(&mut self, bytes: &[u8]) -> io::Result<()> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.out.write_all(b" ")?;
        for piece in bytes.chunks(4096) {
            self.line.clear();
            for byte in piece {
                let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
                self.line.extend(digits);
            }
            self.out.write_all(&self.line)?;
        }
        self.out.write_all(b"\n")
    }
}

impl<W: Write> EntryWriter for Writer<W> {
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.line(entry.key)?;
        self.line(entry.value)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.write_all(b"DATA=END\n")?;
        self.out.flush()
    }
}

pub(super) struct Reader<R> {
    source: Source<R>,
    line: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// The name of the database that is wanted; `None` for the only one.
    wanted: Option<String>,
    /// The names of the databases so far; that of the unnamed one is empty.
    seen: Vec<String>,
    section: Option<Section>,
}

/// A database of a dump, between its header and its end.
#[derive(Clone, Copy)]
struct Section {
    encoding: Encoding,
    is_wanted: bool,
}

#[derive(Clone, Copy)]
enum Encoding {
    ByteValue,
    Print,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(input: R, wanted: Option<String>) -> Reader<R> {
        Reader {
            source: Source::new(input),
            line: Vec::new(),
            key: Vec::new(),
            value: Vec::new(),
            wanted,
            seen: Vec::new(),
            section: None,
        }
    }

    fn place(&self) -> Place {
        self.source.line_number()
    }

    /// Reads up to the next key and value that are wanted. Whether there are any.
    fn next_pair(&mut self) -> Result<bool, ReadError> {
        loop {
            let Some(section) = self.section else {
                if !self.next_section()? {
                    return Ok(false);
                }
                continue;
            };
            if !self.source.line(&mut self.line, MAX_LINE_LEN)? {
                return self.cut_off();
            }
            if self.line == b"DATA=END" {
                self.section = None;
                continue;
            }
            decode(section, &self.line, self.place(), &mut self.key)?;
            if !self.source.line(&mut self.line, MAX_LINE_LEN)? {
                return self.cut_off();
            }
            if self.line == b"DATA=END" {
                return malformed(self.place(), "DATA=END after a key; its value is missing");
            }
            decode(section, &self.line, self.place(), &mut self.value)?;
            if section.is_wanted {
                return Ok(true);
            }
        }
    }

    fn cut_off<T>(&self) -> Result<T, ReadError> {
        malformed(
            self.place(),
            "the dump ends without DATA=END; it was cut off",
        )
    }

    /// Reads the next header. Whether there was one.
    fn next_section(&mut self) -> Result<bool, ReadError> {
        loop {
            if !self.source.line(&mut self.line, MAX_HEADER_LEN)? {
                return self.end();
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        if !self.line.starts_with(b"VERSION=") {
            return malformed(
                self.place(),
                "no VERSION=3; this is not what mdb_dump writes",
            );
        }
        let place = self.place();
        let mut encoding = None;
        let mut name = String::new();
        while self.line != b"HEADER=END" {
            let text = String::from_utf8_lossy(&self.line);
            let (field, value) = text.split_once('=').unwrap_or((&text, ""));
            match (field, value) {
                ("VERSION", "3") | ("type", "btree" | "hash") => {}
                ("format", "bytevalue") => encoding = Some(Encoding::ByteValue),
                ("format", "print") => encoding = Some(Encoding::Print),
                ("VERSION" | "type" | "format", _) => {
                    let problem = format!(
                        "{field}={value} is not understood; dump it with mdb_dump of LMDB 0.9"
                    );
                    return malformed(self.place(), problem);
                }
                ("duplicates", "1") => {
                    return malformed(
                        self.place(),
                        "the database has several values for a key (duplicates=1), a store has \
                         one; it cannot be imported",
                    );
                }
                ("database", _) => value.clone_into(&mut name),
                // Sizes and orders of LMDB, which a store has no use for.
                _ => {}
            }
            if !self.source.line(&mut self.line, MAX_HEADER_LEN)? {
                return malformed(self.place(), "the dump ends within its header");
            }
        }
        let Some(encoding) = encoding else {
            return malformed(place, "the header does not say format=bytevalue or print");
        };
        let is_wanted = self.wanted.as_ref().is_none_or(|wanted| *wanted == name);
        self.seen.push(name);
        if self.wanted.is_none() && self.seen.len() > 1 {
            return malformed(place, several(&self.seen));
        }
        self.section = Some(Section {
            encoding,
            is_wanted,
        });
        Ok(true)
    }

    fn end(&self) -> Result<bool, ReadError> {
        match &self.wanted {
            _ if self.seen.is_empty() => malformed(Place::Line(1), "the dump is empty"),
            Some(wanted) if !self.seen.contains(wanted) => malformed(
                self.place(),
                format!(
                    "no database `{wanted}` in the dump; there is {}",
                    listed(&self.seen)
                ),
            ),
            _ => Ok(false),
        }
    }
}

impl<R: BufRead> ChangeReader for Reader<R> {
    fn next(&mut self) -> Result<Option<Change<'_>>, ReadError> {
        if !self.next_pair()? {
            return Ok(None);
        }
        let (key, value) = (Cow::Borrowed(&self.key[..]), Cow::Borrowed(&self.value[..]));
        put(self.source.line_number(), key, value, Expiry::Never).map(Some)
    }
}

/// The names of the databases in a dump, without a look at what is in them; that of the unnamed one
/// is empty. For who can read an input twice, and wants to know before anything is imported.
///
/// Gives what it has found when the input turns out not to be a dump: reading it says what is wrong.
pub(crate) fn databases(input: impl BufRead) -> io::Result<Vec<String>> {
    let mut source = Source::new(input);
    let mut names = Vec::new();
    let mut name = String::new();
    let mut line = Vec::new();
    loop {
        match source.line(&mut line, MAX_LINE_LEN) {
            Ok(true) => {}
            Ok(false) | Err(ReadError::Malformed(_)) => return Ok(names),
            Err(ReadError::Io(error)) => return Err(error),
        }
        if let Some(given) = line.strip_prefix(b"database=") {
            name = String::from_utf8_lossy(given).into_owned();
        } else if line == b"HEADER=END" {
            names.push(std::mem::take(&mut name));
        }
    }
}

/// What to say of a dump of several databases.
pub(crate) fn several(names: &[String]) -> String {
    format!(
        "the dump is of several databases, {}, and a store is one; say which one is wanted with \
         --database, and import the others into stores of their own",
        listed(names)
    )
}

fn listed(names: &[String]) -> String {
    const LISTED: usize = 20;
    let mut list: Vec<_> = names
        .iter()
        .take(LISTED)
        .map(|name| format!("`{name}`"))
        .collect();
    if names.len() > LISTED {
        list.push(format!("and {} more", names.len() - LISTED));
    }
    list.join(", ")
}

fn decode(
    section: Section,
    line: &[u8],
    place: Place,
    bytes: &mut Vec<u8>,
) -> Result<(), ReadError> {
    bytes.clear();
    let Some(text) = line.strip_prefix(b" ") else {
        return malformed(
            place,
            "a line of data that does not begin with a blank, and is not DATA=END",
        );
    };
    match section.encoding {
        Encoding::ByteValue => decode_byte_value(text, place, bytes),
        Encoding::Print => decode_print(text, place, bytes),
    }
}

fn decode_byte_value(text: &[u8], place: Place, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
    let pairs = text.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return malformed(
            place,
            "an odd number of hexadecimal digits; the line was cut off",
        );
    }
    for pair in pairs {
        let Some(byte) = hex_byte(pair[0], pair[1]) else {
            let pair = pair.escape_ascii();
            return malformed(place, format!("`{pair}` is not two hexadecimal digits"));
        };
        bytes.push(byte);
    }
    Ok(())
}

/// Some `mdb_dump` write a backslash as it is, which makes an escape of it and what follows. Where
/// that can be seen, it is an error: what is no hexadecimal number, or what could be printed.
fn decode_print(mut text: &[u8], place: Place, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
    loop {
        let (byte, rest) = match text {
            [] => return Ok(()),
            [b'\\', b'\\', rest @ ..] => (Some(b'\\'), rest),
            [b'\\', high, low, rest @ ..] => {
                let byte = hex_byte(*high, *low);
                (byte.filter(|byte| is_escaped(*byte)), rest)
            }
            [b'\\', ..] => (None, &[][..]),
            [byte, rest @ ..] => (Some(*byte), rest),
        };
        let Some(byte) = byte else {
            return malformed(
                place,
                "a backslash that escapes nothing: this mdb_dump does not tell backslashes from \
                 escapes; dump it without -p",
            );
        };
        bytes.push(byte);
        text = rest;
    }
}

/// Whether a byte is written as an escape.
fn is_escaped(byte: u8) -> bool {
    byte == b'\\' || !(b' '..=b'~').contains(&byte)
}

/// The byte of two hexadecimal digits.
pub(super) fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from(high << 4 | low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "VERSION=3\nformat=bytevalue\ntype=btree\nmapsize=1048576\n\
                          maxreaders=126\ndb_pagesize=4096\nHEADER=END\n";

    fn read(input: &str, wanted: Option<&str>) -> Result<Vec<String>, String> {
        let mut reader = Reader::new(input.as_bytes(), wanted.map(str::to_owned));
        let mut found = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(Change::Put { key, value, .. })) => {
                    found.push(format!("{}={}", key.escape_ascii(), value.escape_ascii()));
                }
                Ok(None) => return Ok(found),
                Err(ReadError::Malformed(malformed)) => return Err(malformed.to_string()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn entries_are_written_as_mdb_dump_writes_them() {
        let mut out = Vec::new();
        let mut writer = Writer::begin(&mut out, 8192).unwrap();
        for (key, value) in [(&b"k"[..], &b"\x00\xff"[..]), (b"\n", b"")] {
            let expiry = Expiry::Never;
            writer.write(&Entry { key, value, expiry }).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "VERSION=3\nformat=bytevalue\ntype=btree\nmapsize=8192\nmaxreaders=126\nHEADER=END\n \
             6b\n 00ff\n 0a\n \nDATA=END\n"
        );
    }

    #[test]
    fn both_encodings_are_read() {
        let input = format!("{HEADER} 6B\n 00ff\nDATA=END\n");
        assert_eq!(read(&input, None).unwrap(), ["k=\\x00\\xff"]);
        let print = "VERSION=3\nformat=print\ntype=btree\nHEADER=END\n a b\n \\5c\\\\\\0a \n\
                     DATA=END\n\n";
        assert_eq!(read(print, None).unwrap(), ["a b=\\\\\\\\\\n "]);
    }

    #[test]
    fn one_database_of_several_is_picked_and_all_are_named() {
        let section = |name: &str, key: &str| {
            format!("VERSION=3\nformat=print\ndatabase={name}\nHEADER=END\n {key}\n v\nDATA=END\n")
        };
        let input = section("users", "a") + &section("posts", "b");
        assert_eq!(read(&input, Some("users")).unwrap(), ["a=v"]);
        assert_eq!(read(&input, Some("posts")).unwrap(), ["b=v"]);
        assert_eq!(
            read(&input, None).unwrap_err(),
            "line 8: the dump is of several databases, `users`, `posts`, and a store is one; say \
             which one is wanted with --database, and import the others into stores of their own"
        );
        assert_eq!(
            read(&input, Some("x")).unwrap_err(),
            "line 14: no database `x` in the dump; there is `users`, `posts`"
        );
        assert_eq!(databases(input.as_bytes()).unwrap(), ["users", "posts"]);
        assert_eq!(databases(HEADER.as_bytes()).unwrap(), [""]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let cases = [
            (String::new(), "line 1: the dump is empty"),
            ("hello\n".to_owned(), "line 1: no VERSION=3"),
            (HEADER.replace('3', "2"), "line 1: VERSION=2 is not"),
            (
                HEADER.replace("btree", "recno"),
                "line 3: type=recno is not",
            ),
            (HEADER.replace("bytevalue", "x"), "line 2: format=x is not"),
            (
                HEADER.replace("maxreaders=126", "duplicates=1"),
                "line 5: the database has several",
            ),
            (
                "VERSION=3\nHEADER=END\n".to_owned(),
                "line 1: the header does not say format",
            ),
            (
                "VERSION=3\n".to_owned(),
                "line 1: the dump ends within its header",
            ),
            (
                format!("{HEADER} 6b\n 6b\n"),
                "line 9: the dump ends without DATA=END",
            ),
            (
                format!("{HEADER} 6b\n"),
                "line 8: the dump ends without DATA=END",
            ),
            (
                format!("{HEADER} 6b\nDATA=END\n"),
                "line 9: DATA=END after a key",
            ),
            (
                format!("{HEADER} 6b6\n"),
                "line 8: an odd number of hexadecimal digits",
            ),
            (
                format!("{HEADER} 6g\n"),
                "line 8: `6g` is not two hexadecimal digits",
            ),
            (
                format!("{HEADER}6b\n"),
                "line 8: a line of data that does not begin",
            ),
            (format!("{HEADER}DATA=END\nmore\n"), "line 9: no VERSION=3"),
            (
                "VERSION=3\nformat=print\nHEADER=END\n \\4\n".to_owned(),
                "line 4: a backslash",
            ),
            (
                "VERSION=3\nformat=print\nHEADER=END\n C:\\users\n".to_owned(),
                "line 4: a backslash",
            ),
            (
                "VERSION=3\nformat=print\nHEADER=END\n C:\\42\n".to_owned(),
                "line 4: a backslash",
            ),
        ];
        for (input, problem) in cases {
            let said = read(&input, None).unwrap_err();
            assert!(said.starts_with(problem), "{input}: {said}");
        }
    }
}
