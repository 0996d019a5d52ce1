//! Commands as Redis takes them: `*3\r\n$3\r\nSET\r\n...`, and inline commands to be read.
//!
//! What is written goes through `redis-cli --pipe` as it is. Expiry is `PXAT`, which Redis knows
//! from 6.2 on, or `PX`.

use std::io::{self, BufRead, Write};

use crabkv::{MAX_BATCH_BYTES, MAX_VALUE_LEN};

use super::source::Source;
use super::{Entry, EntryWriter, Expiry, Place, ReadError, malformed};

/// Redis' own limits.
const MAX_ARGUMENTS: usize = 1024 * 1024;
const MAX_INLINE_LEN: usize = 64 * 1024;

pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    fn bulk(&mut self, bytes: &[u8]) -> io::Result<()> {
        write!(self.out, "${}\r\n", bytes.len())?;
        self.out.write_all(bytes)?;
        self.out.write_all(b"\r\n")
    }
}

impl<W: Write> EntryWriter for Writer<W> {
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        // Redis adds these to its clock as signed numbers, and takes no 0.
        let expiry = match entry.expiry {
            Expiry::Never => None,
            Expiry::InMs(ms) => Some(("PX", ms.clamp(1, i64::MAX as u64 / 2))),
            Expiry::AtMs(ms) => Some(("PXAT", ms.clamp(1, i64::MAX as u64))),
        };
        let arguments = if expiry.is_some() { 5 } else { 3 };
        write!(self.out, "*{arguments}\r\n")?;
        self.bulk(b"SET")?;
        self.bulk(entry.key)?;
        self.bulk(entry.value)?;
        if let Some((option, ms)) = expiry {
            self.bulk(option.as_bytes())?;
            self.bulk(ms.to_string().as_bytes())?;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The commands of a stream, whatever they mean.
pub(super) struct Commands<R> {
    source: Source<R>,
    start: Place,
    line: Vec<u8>,
}

impl<R: BufRead> Commands<R> {
    pub(super) fn new(input: R) -> Commands<R> {
        Commands {
            source: Source::new(input),
            start: Place::Offset(0),
            line: Vec::new(),
        }
    }

    /// Where the command that was read last begins.
    pub(super) fn start(&self) -> Place {
        self.start
    }

    /// Reads a command's name and arguments. Whether there was one.
    pub(super) fn next(&mut self, arguments: &mut Vec<Vec<u8>>) -> Result<bool, ReadError> {
        loop {
            self.start = self.source.offset();
            arguments.clear();
            if !self.read_line()? {
                return Ok(false);
            }
            if self.start == Place::Offset(0) {
                self.refuse_rdb()?;
            }
            match self.line.first() {
                Some(b'*') => self.array(arguments)?,
                // What Redis annotates its append-only files with: the time of what follows.
                Some(b'#') | None => {}
                Some(_) => self.inline(arguments)?,
            }
            if !arguments.is_empty() {
                return Ok(true);
            }
        }
    }

    fn read_line(&mut self) -> Result<bool, ReadError> {
        let read = self.source.line(&mut self.line, MAX_INLINE_LEN);
        read.or_else(|error| match error {
            ReadError::Malformed(problem) => malformed(self.start, problem.problem),
            ReadError::Io(_) => Err(error),
        })
    }

    /// A snapshot of Redis, alone or before an append-only file.
    fn refuse_rdb(&self) -> Result<(), ReadError> {
        let version = self.line.strip_prefix(b"REDIS");
        if version.is_some_and(|rest| rest.len() >= 4 && rest[..4].iter().all(u8::is_ascii_digit)) {
            return malformed(
                self.start,
                "this is an RDB snapshot, not commands; have Redis write commands: CONFIG SET \
                 aof-use-rdb-preamble no, BGREWRITEAOF, then import the .aof files it has written, \
                 base before incr",
            );
        }
        Ok(())
    }

    fn array(&mut self, arguments: &mut Vec<Vec<u8>>) -> Result<(), ReadError> {
        let count = self.number("arguments", MAX_ARGUMENTS)?;
        let mut room = MAX_BATCH_BYTES as usize;
        for _ in 0..count {
            let start = self.source.offset();
            if !self.read_line()? {
                return self.cut_off();
            }
            if self.line.first() != Some(&b'$') {
                let problem = format!(
                    "`{}` instead of the `$` and length of an argument",
                    self.line[..self.line.len().min(40)].escape_ascii()
                );
                return malformed(start, problem);
            }
            // Before anything of that size is asked of memory.
            let len = self.number("bytes in an argument", MAX_VALUE_LEN)?;
            room = match room.checked_sub(len) {
                Some(room) => room,
                None => {
                    return malformed(
                        self.start,
                        format!("a command of more than {MAX_BATCH_BYTES} bytes"),
                    );
                }
            };
            let mut argument = Vec::new();
            if !self.source.exact(&mut argument, len)? {
                return self.cut_off();
            }
            let end = self.source.offset();
            if !self.source.exact(&mut self.line, 2)? {
                return self.cut_off();
            }
            if self.line != b"\r\n" {
                return malformed(
                    end,
                    format!("no line end after an argument of {len} bytes; its length is wrong"),
                );
            }
            arguments.push(argument);
        }
        Ok(())
    }

    /// The number after the first byte of the line.
    fn number(&self, what: &str, max: usize) -> Result<usize, ReadError> {
        let digits = &self.line[1..];
        let number = std::str::from_utf8(digits).ok().map(str::parse::<i64>);
        match number {
            // Redis takes a negative number for none.
            Some(Ok(number)) if usize::try_from(number).unwrap_or(0) <= max => {
                Ok(usize::try_from(number).unwrap_or(0))
            }
            Some(Ok(number)) => malformed(
                self.start,
                format!("{number} {what}, {max} are possible; is this a stream of commands?"),
            ),
            _ => malformed(
                self.start,
                format!(
                    "`{}` instead of a number of {what}",
                    digits[..digits.len().min(40)].escape_ascii()
                ),
            ),
        }
    }

    fn cut_off<T>(&self) -> Result<T, ReadError> {
        malformed(
            self.start,
            "the input ends within this command; it was cut off, redis-check-aof --fix can \
             remove the part",
        )
    }

    /// Splits a line at its blanks; quotes are as `redis-cli` has them.
    fn inline(&mut self, arguments: &mut Vec<Vec<u8>>) -> Result<(), ReadError> {
        let mut rest = self.line.trim_ascii();
        while !rest.is_empty() {
            let mut argument = Vec::new();
            let end = match rest[0] {
                b'"' => double_quoted(&rest[1..], &mut argument),
                b'\'' => single_quoted(&rest[1..], &mut argument),
                _ => {
                    let blank = rest.iter().position(u8::is_ascii_whitespace);
                    let (word, rest) = rest.split_at(blank.unwrap_or(rest.len()));
                    argument.extend_from_slice(word);
                    Some(rest)
                }
            };
            rest = match end {
                Some(rest) if rest.first().is_none_or(u8::is_ascii_whitespace) => {
                    rest.trim_ascii_start()
                }
                _ => return malformed(self.start, "unbalanced quotes in an inline command"),
            };
            arguments.push(argument);
        }
        Ok(())
    }
}

/// Takes what is before the closing quote; gives what is behind it.
fn single_quoted<'a>(mut rest: &'a [u8], argument: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\'', rest @ ..] => return Some(rest),
            [b'\\', b'\'', rest @ ..] => {
                argument.push(b'\'');
                rest
            }
            [byte, rest @ ..] => {
                argument.push(*byte);
                rest
            }
            [] => return None,
        }
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], argument: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = match rest {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (super::mdb::hex_byte(*high, *low)?, after)
            }
            [b'\\', escaped, after @ ..] => (unescaped(*escaped), after),
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        argument.push(byte);
        rest = after;
    }
}

fn unescaped(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<Vec<String>, String> {
        let mut commands = Commands::new(input);
        let mut arguments = Vec::new();
        let mut found = Vec::new();
        loop {
            match commands.next(&mut arguments) {
                Ok(true) => found.push(arguments.join(&b'|').escape_ascii().to_string()),
                Ok(false) => return Ok(found),
                Err(ReadError::Malformed(malformed)) => return Err(malformed.to_string()),
                Err(ReadError::Io(error)) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn an_entry_is_a_set_byte_for_byte() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        for expiry in [Expiry::Never, Expiry::InMs(0), Expiry::AtMs(17)] {
            let (key, value) = (b"k", b"\r\n\0");
            writer.write(&Entry { key, value, expiry }).unwrap();
        }
        let set = |rest: &str| format!("$3\r\nSET\r\n$1\r\nk\r\n$3\r\n\r\n\0\r\n{rest}");
        let expected = [
            "*3\r\n".to_owned() + &set(""),
            "*5\r\n".to_owned() + &set("$2\r\nPX\r\n$1\r\n1\r\n"),
            "*5\r\n".to_owned() + &set("$4\r\nPXAT\r\n$2\r\n17\r\n"),
        ];
        assert_eq!(String::from_utf8(out).unwrap(), expected.concat());
    }

    #[test]
    fn arrays_inline_commands_annotations_and_blank_lines_are_read() {
        let input = b"#TS:1628217470\r\n*2\r\n$3\r\nDEL\r\n$2\r\n\r\n\r\n\r\n*0\r\n  SET a\tb  \n\
                      set \"a b\\x41\\n\\\"\" 'it\\'s \\n' \"\"\r\n";
        let expected = ["DEL|\\r\\n", "SET|a|b", "set|a bA\\n\\\"|it\\'s \\\\n|"];
        assert_eq!(read(input).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_offset_of_the_command() {
        let cases: [(&[u8], &str); 11] = [
            (
                b"REDIS0011\xfa\x09redis-ver",
                "offset 0: this is an RDB snapshot",
            ),
            (
                b"PING\r\n*1\r\n$3\r\nDE",
                "offset 6: the input ends within this",
            ),
            (b"*2\r\n$1\r\na\r\n", "offset 0: the input ends within this"),
            (
                b"*1\r\n$2\r\nabc\r\n",
                "offset 10: no line end after an argument",
            ),
            (b"*x\r\n", "offset 0: `x` instead of a number of arguments"),
            (b"*1\r\n:3\r\n", "offset 4: `:3` instead of the `$`"),
            (
                b"*1\r\n$x\r\n",
                "offset 0: `x` instead of a number of bytes",
            ),
            (b"*1048577\r\n", "offset 0: 1048577 arguments, 1048576 are"),
            (
                b"*1\r\n$536870913\r\n",
                "offset 0: 536870913 bytes in an argument, 536870912",
            ),
            (b"SET \"a b\r\n", "offset 0: unbalanced quotes"),
            (b"SET \"a\"b\r\n", "offset 0: unbalanced quotes"),
        ];
        for (input, problem) in cases {
            let said = read(input).unwrap_err();
            assert!(
                said.starts_with(problem),
                "{}: {said}",
                input.escape_ascii()
            );
        }
        let long = read(&b"a".repeat(70_000)).unwrap_err();
        assert!(
            long.starts_with("offset 0: more than 65536 bytes"),
            "{long}"
        );
    }
}
