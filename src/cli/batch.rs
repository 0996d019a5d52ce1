//! `batch`: many writes as one, from lines of text. All lines are read before the store is opened, so
//! that one that is wrong, or a pipe that breaks, leaves it as it was.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crabkv::{MAX_BATCH_BYTES, WriteBatch};
use serde_json::json;

use super::args::Bytes;
use super::context::{Context, IfMissing};
use super::encoding::EncodingArgs;
use super::exit::{Failure, Outcome};
use super::text;
use super::units::{self, counted};
use super::words::{self, Word};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line is an operation:
  put KEY VALUE [--ttl DURATION]
  delete KEY

Later lines come after earlier ones. Empty lines are passed over, and those that begin with #. If \
a line is wrong, nothing is applied; after a crash, all of it is there or nothing. Makes the store \
if there is none.

What has blanks goes in quotes. In '...' everything stands for itself; in \"...\" there are \\n, \
\\r, \\t, \\\\, \\\" and \\xff, as scan shows them. A word in quotes is never an option. A value \
that is - or begins with @ stands for itself.

Example:
  printf '%s\\n' 'put user:7 \"Ada L.\"' 'delete user:6' | crabkv batch")]
pub(crate) struct BatchArgs {
    /// The file to read, `-` for stdin
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Only check the lines
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    encoding: EncodingArgs,
}

pub(crate) fn run(context: &Context, args: &BatchArgs) -> Result<Outcome, Failure> {
    let plan = if args.file == Path::new("-") {
        context.note_typing();
        let failed = |source| Failure::Stdio {
            op: "read standard input",
            source,
        };
        Plan::read(&mut io::stdin().lock(), args.encoding, failed)?
    } else {
        let failed = |source| Failure::file("read", &args.file, source);
        let file = File::open(&args.file).map_err(failed)?;
        Plan::read(&mut BufReader::new(file), args.encoding, failed)?
    };
    if !args.dry_run {
        context.write(IfMissing::Create, |store| Ok(store.write(&plan.batch)?))?;
    }
    plan.report(context, args.dry_run)?;
    Ok(Outcome::Done)
}

/// What is to be written.
#[derive(Default)]
struct Plan {
    batch: WriteBatch,
    puts: u64,
    deletes: u64,
    /// The bytes of its keys and values.
    bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Operation {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        ttl: Option<Duration>,
    },
    Delete {
        key: Vec<u8>,
    },
}

impl Plan {
    fn read(
        input: &mut impl BufRead,
        encoding: EncodingArgs,
        failed: impl Fn(io::Error) -> Failure,
    ) -> Result<Plan, Failure> {
        let mut plan = Plan::default();
        let mut line = Vec::new();
        let mut number = 0u64;
        loop {
            line.clear();
            // Endless input is noticed before it fills the memory.
            let mut limited = input.by_ref().take(MAX_BATCH_BYTES + 1);
            if limited.read_until(b'\n', &mut line).map_err(&failed)? == 0 {
                return Ok(plan);
            }
            number += 1;
            plan.add_line(&line, encoding)
                .map_err(|reason| Failure::Usage(format!("line {number}: {reason}")))?;
        }
    }

    fn add_line(&mut self, line: &[u8], encoding: EncodingArgs) -> Result<(), String> {
        let too_large = || format!("this is more than the {MAX_BATCH_BYTES} bytes of a batch");
        if line.len() as u64 > MAX_BATCH_BYTES {
            return Err(too_large());
        }
        let Some(operation) = Operation::parse(line, encoding)? else {
            return Ok(());
        };
        let (added, len) = match operation {
            Operation::Put { key, value, ttl } => {
                self.puts += 1;
                let added = match ttl {
                    Some(ttl) => self.batch.put_with_ttl(&key, &value, ttl),
                    None => self.batch.put(&key, &value),
                };
                (added, key.len() + value.len())
            }
            Operation::Delete { key } => {
                self.deletes += 1;
                (self.batch.delete(&key), key.len())
            }
        };
        added.map_err(|error| error.to_string())?;
        self.bytes += len as u64;
        if self.bytes > MAX_BATCH_BYTES {
            return Err(too_large() + "; split it");
        }
        Ok(())
    }

    fn report(&self, context: &Context, dry_run: bool) -> Result<(), Failure> {
        if context.options.json {
            let json = json!({
                "puts": self.puts,
                "deletes": self.deletes,
                "applied": !dry_run,
            });
            return context.report(String::new, || json);
        }
        let what = format!(
            "{} and {}",
            counted(self.puts, "put"),
            counted(self.deletes, "delete")
        );
        if dry_run {
            context.note(format_args!("{what} would be applied"));
        } else {
            context.note(format_args!("{what} applied"));
        }
        Ok(())
    }
}

impl Operation {
    /// What a line says to do; `None` where it says nothing.
    fn parse(line: &[u8], encoding: EncodingArgs) -> Result<Option<Operation>, String> {
        let mut words = words::split(line)?;
        if words.is_empty() {
            return Ok(None);
        }
        let verb = words.remove(0).bytes;
        let ttl = take_ttl(&mut words)?;
        let words = words
            .into_iter()
            .map(|word| encoding.decode(&Bytes(word.bytes)));
        let words: Result<Vec<_>, Failure> = words.collect();
        let mut words = words.map_err(|failure| failure.to_string())?.into_iter();
        let operation = match (verb.as_slice(), words.next(), words.next(), words.next()) {
            (b"put", Some(key), Some(value), None) => Operation::Put { key, value, ttl },
            (b"delete", Some(key), None, None) if ttl.is_none() => Operation::Delete { key },
            (b"put", ..) => return Err(wrong("put KEY VALUE [--ttl DURATION]")),
            (b"delete", ..) => return Err(wrong("delete KEY")),
            (other, ..) => {
                let shown = text::quoted(other);
                return Err(format!("{shown} is no operation; there are put and delete"));
            }
        };
        Ok(Some(operation))
    }
}

fn wrong(form: &str) -> String {
    format!("this is not: {form}; put what has blanks in quotes")
}

/// Takes `--ttl DURATION` or `--ttl=DURATION` out of the words, wherever it stands.
fn take_ttl(words: &mut Vec<Word>) -> Result<Option<Duration>, String> {
    let is_option = |word: &Word| !word.is_quoted && word.bytes.starts_with(b"--");
    let Some(at) = words.iter().position(is_option) else {
        return Ok(None);
    };
    let option = words.remove(at).bytes;
    let duration = match option.strip_prefix(b"--ttl") {
        Some([]) if at < words.len() => words.remove(at).bytes,
        Some([]) => return Err("--ttl takes a duration".to_owned()),
        Some([b'=', duration @ ..]) => duration.to_vec(),
        _ => {
            let shown = text::escaped(&option);
            return Err(format!(
                "{shown} is no option; put a key or value that begins with -- in quotes"
            ));
        }
    };
    if words.iter().any(is_option) {
        return Err("there is one option at most, --ttl; put what is none in quotes".to_owned());
    }
    let ttl = std::str::from_utf8(&duration).map_err(|_| "a TTL is a duration".to_owned())?;
    units::parse_ttl(ttl).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Operation>, String> {
        Operation::parse(line.as_bytes(), EncodingArgs::default())
    }

    #[test]
    fn a_line_is_a_put_or_a_delete_or_nothing() {
        let put = |key: &[u8], value: &[u8], secs: Option<u64>| Operation::Put {
            key: key.to_vec(),
            value: value.to_vec(),
            ttl: secs.map(Duration::from_secs),
        };
        for (line, operation) in [
            ("put a 1\n", put(b"a", b"1", None)),
            (r#"put "a b" "\xff""#, put(b"a b", b"\xff", None)),
            ("put a 1 --ttl 30s", put(b"a", b"1", Some(30))),
            ("put --ttl=1h a 1", put(b"a", b"1", Some(3600))),
            ("put a --ttl 5 1", put(b"a", b"1", Some(5))),
            ("put '--ttl' \"--\"5", put(b"--ttl", b"--5", None)),
            ("put -1 @x", put(b"-1", b"@x", None)),
            ("delete -", Operation::Delete { key: b"-".to_vec() }),
        ] {
            assert_eq!(parse(line), Ok(Some(operation)), "{line}");
        }
        assert_eq!(parse("# put"), Ok(None));
        assert_eq!(parse("\r\n"), Ok(None));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, reason) in [
            ("put a", "put KEY VALUE"),
            ("put a b c", "put KEY VALUE"),
            ("put", "put KEY VALUE"),
            ("delete", "delete KEY"),
            ("delete a b", "delete KEY"),
            ("delete a --ttl 5", "delete KEY"),
            ("PUT a 1", r#""PUT" is no operation"#),
            ("put a 1 --ttl", "--ttl takes a duration"),
            ("put a 1 --ttl 0", "at least 1ms"),
            ("put a 1 --tll 5", "--tll is no option"),
            ("put a 1 --ttls", "--ttls is no option"),
            ("put a 1 --ttl 5 --ttl 6", "one option at most"),
            ("put 'a 1", "not closed"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
