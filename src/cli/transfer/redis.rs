//! What the commands of Redis mean for a store: those that leave a string there, or take it away.
//!
//! Enough for what `resp` writes, and for the append-only file of a Redis that holds strings. A
//! command whose result depends on the value before, such as INCR, is none of them: reading the
//! same stream twice would give something else. A rewritten append-only file has none.

use std::borrow::Cow;
use std::io::BufRead;

use super::resp::Commands;
use super::{Change, ChangeReader, Condition, Expiry, ReadError, Selection};
use super::{check_len, malformed};

pub(super) struct Reader<R> {
    commands: Commands<R>,
    arguments: Vec<Vec<u8>>,
    /// The changes of a command of several that are still to be given out.
    rest: Option<Several>,
    /// The number of the database that commands are about now.
    database: u64,
    selection: Selection,
    skipped: u64,
}

/// A command of several keys, and the argument that comes next.
#[derive(Clone, Copy)]
enum Several {
    Puts(usize),
    Deletes(usize),
}

/// A change, with its key and value as numbers of arguments.
enum Step {
    Put {
        key: usize,
        value: usize,
        expiry: Option<Expiry>,
        condition: Condition,
    },
    Delete {
        key: usize,
    },
    Expire {
        key: usize,
        expiry: Expiry,
    },
}

/// What a command comes to.
enum Meaning {
    Nothing,
    Step(Step),
    Several(Several),
    /// A store has nothing like it.
    Unsupported(String),
}

/// What is wrong with a command that is supported.
type Wrong = String;

impl<R: BufRead> Reader<R> {
    pub(super) fn new(input: R, selection: Selection) -> Reader<R> {
        Reader {
            commands: Commands::new(input),
            arguments: Vec::new(),
            rest: None,
            database: 0,
            selection,
            skipped: 0,
        }
    }

    fn next_step(&mut self) -> Result<Option<Step>, ReadError> {
        loop {
            if let Some(step) = self.next_of_several() {
                return Ok(Some(step));
            }
            if !self.commands.next(&mut self.arguments)? {
                return Ok(None);
            }
            let place = self.commands.start();
            self.arguments[0].make_ascii_uppercase();
            let meaning = match self.meaning() {
                Ok(meaning) => meaning,
                Err(wrong) => return malformed(place, wrong),
            };
            if !matches!(meaning, Meaning::Nothing) && !self.is_wanted() {
                continue;
            }
            match meaning {
                Meaning::Nothing => {}
                Meaning::Step(step) => return Ok(Some(step)),
                Meaning::Several(several) => self.rest = Some(several),
                Meaning::Unsupported(_) if self.selection.skip_unsupported => self.skipped += 1,
                Meaning::Unsupported(problem) => return malformed(place, problem),
            }
        }
    }

    fn next_of_several(&mut self) -> Option<Step> {
        let several = self.rest.take()?;
        match several {
            Several::Puts(key) if key < self.arguments.len() => {
                self.rest = Some(Several::Puts(key + 2));
                Some(put(key, key + 1))
            }
            Several::Deletes(key) if key < self.arguments.len() => {
                self.rest = Some(Several::Deletes(key + 1));
                Some(Step::Delete { key })
            }
            _ => None,
        }
    }

    /// Whether commands are about the database that was asked for.
    fn is_wanted(&self) -> bool {
        let database = self.selection.database.as_deref().unwrap_or("0");
        database.parse() == Ok(self.database)
    }

    fn meaning(&mut self) -> Result<Meaning, Wrong> {
        let [name, arguments @ ..] = &self.arguments[..] else {
            return Ok(Meaning::Nothing);
        };
        let name = &name[..];
        Ok(match (name, arguments) {
            (b"PING" | b"ECHO" | b"MULTI" | b"EXEC", _) => Meaning::Nothing,
            (b"SELECT", [database]) => {
                let database = u64::try_from(integer(database)?)
                    .map_err(|_| "SELECT of a negative number".to_owned())?;
                return self.select(database);
            }
            (b"SET", [_, _, options @ ..]) => set(options)?,
            (b"SETNX", [_, _]) => Meaning::Step(Step::Put {
                key: 1,
                value: 2,
                expiry: Some(Expiry::Never),
                condition: Condition::Absent,
            }),
            (b"SETEX" | b"PSETEX", [_, ttl, _]) => {
                let option: &[u8] = if name == b"SETEX" { b"EX" } else { b"PX" };
                Meaning::Step(Step::Put {
                    key: 1,
                    value: 3,
                    expiry: Some(positive(expiry(option, ttl)?, ttl)?),
                    condition: Condition::Always,
                })
            }
            (b"MSET", [_, ..]) if arguments.len() % 2 == 0 => Meaning::Several(Several::Puts(1)),
            (b"DEL" | b"UNLINK", [_, ..]) => Meaning::Several(Several::Deletes(1)),
            (b"EXPIRE", [_, time]) => expire(expiry(b"EX", time)?),
            (b"PEXPIRE", [_, time]) => expire(expiry(b"PX", time)?),
            (b"EXPIREAT", [_, time]) => expire(expiry(b"EXAT", time)?),
            (b"PEXPIREAT", [_, time]) => expire(expiry(b"PXAT", time)?),
            (b"PERSIST", [_]) => expire(Expiry::Never),
            (
                b"SELECT" | b"SET" | b"SETNX" | b"SETEX" | b"PSETEX" | b"MSET" | b"DEL" | b"UNLINK"
                | b"EXPIRE" | b"PEXPIRE" | b"EXPIREAT" | b"PEXPIREAT" | b"PERSIST",
                _,
            ) => {
                return Err(format!(
                    "{} with {} arguments is not understood",
                    name.escape_ascii(),
                    arguments.len()
                ));
            }
            _ => Meaning::Unsupported(format!(
                "a store has nothing like the command {}; leave it out with --skip-unsupported, \
                 or, if it changes strings, have Redis rewrite its file with BGREWRITEAOF",
                name[..name.len().min(40)].escape_ascii()
            )),
        })
    }

    fn select(&mut self, database: u64) -> Result<Meaning, Wrong> {
        self.database = database;
        if self.selection.database.is_some() || database == 0 {
            return Ok(Meaning::Nothing);
        }
        Err(format!(
            "what follows is of database {database}, and a store is one database; say which one \
             is wanted with --database, and import the others into stores of their own"
        ))
    }
}

impl<R: BufRead> ChangeReader for Reader<R> {
    fn next(&mut self) -> Result<Option<Change<'_>>, ReadError> {
        let Some(step) = self.next_step()? else {
            return Ok(None);
        };
        let place = self.commands.start();
        let argument = |at: usize| self.arguments.get(at).map_or(&[][..], |bytes| &bytes[..]);
        let key = |at| {
            let key = argument(at);
            check_len(place, "key", key.len(), crabkv::MAX_KEY_LEN)?;
            Ok::<_, ReadError>(Cow::Borrowed(key))
        };
        Ok(Some(match step {
            Step::Put {
                key: at,
                value,
                expiry,
                condition,
            } => Change::Put {
                key: key(at)?,
                value: Cow::Borrowed(argument(value)),
                expiry,
                condition,
            },
            Step::Delete { key: at } => Change::Delete { key: key(at)? },
            Step::Expire { key: at, expiry } => Change::Expire {
                key: key(at)?,
                expiry,
            },
        }))
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }
}

fn put(key: usize, value: usize) -> Step {
    Step::Put {
        key,
        value,
        expiry: Some(Expiry::Never),
        condition: Condition::Always,
    }
}

fn expire(expiry: Expiry) -> Meaning {
    Meaning::Step(Step::Expire { key: 1, expiry })
}

/// The options of SET.
fn set(options: &[Vec<u8>]) -> Result<Meaning, Wrong> {
    let mut expires = Some(Expiry::Never);
    let mut condition = Condition::Always;
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let name = option.to_ascii_uppercase();
        match &name[..] {
            b"NX" => condition = Condition::Absent,
            b"XX" => condition = Condition::Present,
            b"KEEPTTL" => expires = None,
            // Asks for the value before, which nobody here waits for.
            b"GET" => {}
            b"EX" | b"PX" | b"EXAT" | b"PXAT" => {
                let time = rest.next().ok_or("SET with an expiry option and no time")?;
                expires = Some(positive(expiry(&name, time)?, time)?);
            }
            _ => {
                return Err(format!(
                    "SET with the option `{}`, which is not understood",
                    option[..option.len().min(40)].escape_ascii()
                ));
            }
        }
    }
    Ok(Meaning::Step(Step::Put {
        key: 1,
        value: 2,
        expiry: expires,
        condition,
    }))
}

/// The time of an option; one that is negative has passed.
fn expiry(option: &[u8], time: &[u8]) -> Result<Expiry, Wrong> {
    let time = u64::try_from(integer(time)?.max(0)).unwrap_or(0);
    Ok(match option {
        b"EX" => Expiry::InMs(time.saturating_mul(1000)),
        b"PX" => Expiry::InMs(time),
        b"EXAT" => Expiry::AtMs(time.saturating_mul(1000)),
        _ => Expiry::AtMs(time),
    })
}

/// As Redis has it: only EXPIRE and its like take a time of zero or less.
fn positive(expiry: Expiry, time: &[u8]) -> Result<Expiry, Wrong> {
    match expiry {
        Expiry::InMs(0) | Expiry::AtMs(0) => {
            let time = time.escape_ascii();
            Err(format!("an expiry of {time}; it must be greater than 0"))
        }
        _ => Ok(expiry),
    }
}

fn integer(bytes: &[u8]) -> Result<i64, Wrong> {
    let number = std::str::from_utf8(bytes).ok().map(str::parse);
    match number {
        Some(Ok(number)) => Ok(number),
        _ => Err(format!(
            "`{}` instead of a whole number",
            bytes[..bytes.len().min(40)].escape_ascii()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The changes, each as text, and how many commands were skipped.
    fn read(input: &str, selection: Selection) -> Result<(Vec<String>, u64), String> {
        let mut reader = Reader::new(input.as_bytes(), selection);
        let mut found = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(change)) => found.push(text(&change)),
                Ok(None) => return Ok((found, reader.skipped())),
                Err(ReadError::Malformed(malformed)) => return Err(malformed.to_string()),
                Err(ReadError::Io(error)) => panic!("{error}"),
            }
        }
    }

    fn text(change: &Change) -> String {
        match change {
            Change::Put {
                key,
                value,
                expiry,
                condition,
            } => {
                let expiry = expiry.map_or("Keep".to_owned(), |expiry| format!("{expiry:?}"));
                let (key, value) = (key.escape_ascii(), value.escape_ascii());
                format!("{key}={value} {expiry} {condition:?}")
            }
            Change::Delete { key } => format!("-{}", key.escape_ascii()),
            Change::Expire { key, expiry } => format!("{} {expiry:?}", key.escape_ascii()),
        }
    }

    fn changes(input: &str) -> Vec<String> {
        read(input, Selection::default()).unwrap().0
    }

    #[test]
    fn each_command_means_what_it_means_to_redis() {
        let cases: [(&str, &[&str]); 24] = [
            ("SET a 1", &["a=1 Never Always"]),
            ("set a 1 ex 2", &["a=1 InMs(2000) Always"]),
            ("SET a 1 PX 2 NX", &["a=1 InMs(2) Absent"]),
            ("SET a 1 XX EXAT 2 GET", &["a=1 AtMs(2000) Present"]),
            ("SET a 1 PXAT 2", &["a=1 AtMs(2) Always"]),
            ("SET a 1 KEEPTTL", &["a=1 Keep Always"]),
            ("SETNX a 1", &["a=1 Never Absent"]),
            ("SETEX a 3 1", &["a=1 InMs(3000) Always"]),
            ("PSETEX a 3 1", &["a=1 InMs(3) Always"]),
            ("MSET a 1 b 2", &["a=1 Never Always", "b=2 Never Always"]),
            ("DEL a b c", &["-a", "-b", "-c"]),
            ("UNLINK a", &["-a"]),
            ("EXPIRE a 5", &["a InMs(5000)"]),
            ("EXPIRE a -5", &["a InMs(0)"]),
            ("PEXPIRE a 5", &["a InMs(5)"]),
            ("EXPIREAT a 5", &["a AtMs(5000)"]),
            ("PEXPIREAT a 5", &["a AtMs(5)"]),
            ("PERSIST a", &["a Never"]),
            ("SELECT 0", &[]),
            ("PING", &[]),
            ("ECHO x", &[]),
            ("MULTI\r\nSET a 1\r\nEXEC", &["a=1 Never Always"]),
            (
                "SET a 1 EX 9223372036854775807",
                &["a=1 InMs(18446744073709551615) Always"],
            ),
            (
                "EXPIREAT a 9223372036854775807",
                &["a AtMs(18446744073709551615)"],
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(changes(input), expected, "{input}");
        }
    }

    #[test]
    fn a_command_that_is_wrong_or_unknown_is_named_with_its_offset() {
        let cases = [
            (
                "PING\r\nLPUSH a 1",
                "offset 6: a store has nothing like the command LPUSH;",
            ),
            (
                "INCR a",
                "offset 0: a store has nothing like the command INCR;",
            ),
            ("SELECT 1", "offset 0: what follows is of database 1,"),
            ("SELECT x", "offset 0: `x` instead of a whole number"),
            ("SET a", "offset 0: SET with 1 arguments"),
            ("MSET a 1 b", "offset 0: MSET with 3 arguments"),
            ("DEL", "offset 0: DEL with 0 arguments"),
            ("SET a 1 EX 0", "offset 0: an expiry of 0;"),
            ("SETEX a -1 1", "offset 0: an expiry of -1;"),
            (
                "SET a 1 EX",
                "offset 0: SET with an expiry option and no time",
            ),
            ("SET a 1 EX soon", "offset 0: `soon` instead of"),
            ("SET a 1 IFEQ 2", "offset 0: SET with the option `IFEQ`"),
            ("EXPIRE a 1 GT", "offset 0: EXPIRE with 3 arguments"),
        ];
        for (input, problem) in cases {
            let said = read(input, Selection::default()).unwrap_err();
            assert!(said.starts_with(problem), "{input}: {said}");
        }
    }

    #[test]
    fn what_is_unsupported_is_skipped_and_counted_on_demand() {
        let selection = Selection {
            skip_unsupported: true,
            ..Selection::default()
        };
        let input = "LPUSH a 1\r\nSET b 2\r\nFLUSHALL\r\n";
        let expected = (vec!["b=2 Never Always".to_owned()], 2);
        assert_eq!(read(input, selection).unwrap(), expected);
    }

    #[test]
    fn one_database_of_several_is_picked() {
        let selection = |database: &str| Selection {
            database: Some(database.to_owned()),
            ..Selection::default()
        };
        let input = "SET a 0\r\nSELECT 3\r\nSET a 3\r\nLPUSH b 1\r\nSELECT 0\r\nDEL b\r\n";
        assert_eq!(
            read(input, selection("0")).unwrap().0,
            ["a=0 Never Always", "-b"]
        );
        let said = read(input, selection("3")).unwrap_err();
        assert!(said.contains("LPUSH"), "{said}");
        assert_eq!(read(input, selection("7")).unwrap().0, [""; 0]);
    }
}
