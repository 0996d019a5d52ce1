//! `shell`: the verbs at a prompt, or from a script, with a store that stays open.
//!
//! A line is a command line without the program's name, and is read by the same definitions. What
//! the shell was started with holds for every line that says nothing else. A line that fails is
//! reported, and the next one is read.

mod complete;
mod history;
mod prompt;

pub(crate) use history::VARIABLE as HISTORY_VARIABLE;

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};
use crabkv::Error;

use super::args::{self, Args, Options};
use super::context::Context;
use super::exit::{self, Failure, Outcome};
use super::session::Session;
use super::{dispatch, interrupt, output, overview, usage, words};

/// Verbs that make no sense in here: they need no store, or one of their own.
const ELSEWHERE: [&str; 5] = ["bench", "completions", "man", "serve", "shell"];

/// What leaves the shell.
const LEAVE: [&str; 2] = ["exit", "quit"];

/// What `help` says below the verbs.
const HELP: &str = "\
help COMMAND says more. Quotes keep words together: 'a b'. In double quotes there
are escapes for any bytes: \"a\\n\\xff\".
";

#[derive(Debug, clap::Args)]
pub(crate) struct ShellArgs {
    /// Only read, and leave the store to other programs to write to
    #[arg(long)]
    read_only: bool,
    /// Stop at the first line that fails, where lines come from a file or a pipe
    #[arg(long)]
    bail: bool,
}

pub(crate) fn run(context: &Context, args: &ShellArgs) -> Result<Outcome, Failure> {
    let shell = Shell {
        options: context.options.clone(),
        session: Arc::new(Session::new(args.read_only)),
    };
    output::end_values();
    let outcome = if io::stdin().is_terminal() && io::stdout().is_terminal() {
        prompt::run(&shell)
    } else {
        interrupt::install();
        shell.run_script(args.bail)
    };
    shell.session.let_go(context);
    outcome
}

/// What came of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// With this exit code, had it been a program of its own.
    Code(u8),
    /// The shell is to be left.
    Leave,
}

struct Shell {
    /// Those that the shell was started with.
    options: Options,
    session: Arc<Session>,
}

impl Shell {
    /// Lines from stdin, to its end. They share it with what they read there: `put KEY -` takes
    /// the rest of it.
    fn run_script(&self, bail: bool) -> Result<Outcome, Failure> {
        let mut last = 0;
        for number in 1.. {
            let mut line = Vec::new();
            // Not locked from line to line, since what a line does may read there.
            let read = io::stdin().lock().read_until(b'\n', &mut line);
            let read = read.map_err(|source| Failure::Stdio {
                op: "read standard input",
                source,
            });
            if read? == 0 {
                break;
            }
            match self.run_line(&line, Some(number))? {
                Done::Code(0) => {}
                Done::Code(code) => last = code,
                Done::Leave => break,
            }
            if bail && last != 0 {
                break;
            }
        }
        match last {
            0 => Ok(Outcome::Done),
            code => Ok(Outcome::Failed(code)),
        }
    }

    /// # Errors
    ///
    /// Only when there is nobody any more to tell what comes of a line.
    fn run_line(&self, line: &[u8], number: Option<u64>) -> Result<Done, Failure> {
        let context = self.context(self.options.clone(), number);
        let outcome = match self.parse(line) {
            Ok(Line::Empty) => return Ok(Done::Code(0)),
            Ok(Line::Leave) => return Ok(Done::Leave),
            Ok(Line::Help(text)) => output::write_text(&text).map(|()| Outcome::Done),
            Ok(Line::Args(args)) => return self.run_args(*args, number),
            Err(message) => Err(Failure::Usage(message)),
        };
        if let Err(Failure::ClosedPipe) = outcome {
            return Err(Failure::ClosedPipe);
        }
        Ok(Done::Code(exit::report(outcome, &context)))
    }

    fn run_args(&self, args: Args, number: Option<u64>) -> Result<Done, Failure> {
        let Args { options, verb } = args;
        options.color.write_global();
        let context = self.context(options, number);
        let outcome = dispatch(verb, &context);
        if let Err(Failure::ClosedPipe) = outcome {
            return Err(Failure::ClosedPipe);
        }
        // It writes again once it has been opened again.
        if let Err(Failure::Store(Error::Poisoned { .. })) = &outcome {
            context.let_go();
        }
        Ok(Done::Code(exit::report(outcome, &context)))
    }

    /// Another store than the shell's is opened for one line.
    fn context(&self, options: Options, number: Option<u64>) -> Context {
        if is_same(&options.data_dir, &self.options.data_dir) {
            Context::of_line(options, Arc::clone(&self.session), number)
        } else {
            Context::of_other(options, number)
        }
    }

    fn parse(&self, line: &[u8]) -> Result<Line, String> {
        let words = words::split(line)?;
        let Some(first) = words.first() else {
            return Ok(Line::Empty);
        };
        if words.len() == 1 && LEAVE.iter().any(|word| first.bytes == word.as_bytes()) {
            return Ok(Line::Leave);
        }
        let words: Result<Vec<_>, _> = words.into_iter().map(|word| to_os(word.bytes)).collect();
        let mut command = command();
        let matches = match command.try_get_matches_from_mut(words?) {
            Ok(matches) => matches,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
                ) =>
            {
                return Ok(Line::Help(error.render().ansi().to_string()));
            }
            Err(error) => return Err(usage::in_one_line(&error, "help")),
        };
        if let Some(verb) = matches
            .subcommand_name()
            .filter(|verb| ELSEWHERE.contains(verb))
        {
            return Err(format!(
                "{verb} does not work in the shell; leave it, and run crabkv {verb}"
            ));
        }
        let mut args =
            Args::from_arg_matches(&matches).map_err(|error| usage::in_one_line(&error, "help"))?;
        inherit(&mut args.options, &self.options, &matches);
        Ok(Line::Args(Box::new(args)))
    }
}

/// Whether two names are those of one directory: the shell would not let itself in a second time.
fn is_same(one: &Path, other: &Path) -> bool {
    let canonical = |dir| fs::canonicalize(dir).ok();
    one == other || canonical(one).is_some_and(|one| Some(one) == canonical(other))
}

/// What stands on a line.
enum Line {
    Empty,
    Leave,
    Help(String),
    Args(Box<Args>),
}

/// The definitions, as the shell has them.
fn command() -> Command {
    let mut command = args::command().no_binary_name(true);
    for verb in ELSEWHERE {
        if command.find_subcommand(verb).is_some() {
            command = command.mut_subcommand(verb, |verb| verb.hide(true));
        }
    }
    let verbs = overview::verbs(&command, &[("exit", "Leave; so do quit and Ctrl-D")]);
    command.help_template(verbs + HELP)
}

/// Options that a line does not have are those of the shell.
fn inherit(options: &mut Options, shell: &Options, matches: &ArgMatches) {
    let is_given = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    if !is_given("data_dir") {
        options.data_dir.clone_from(&shell.data_dir);
    }
    if !is_given("cache_capacity") {
        options.cache_capacity = shell.cache_capacity;
    }
    if !is_given("default_ttl") {
        options.default_ttl = shell.default_ttl;
    }
    if !is_given("color") {
        options.color = shell.color;
    }
    options.json |= shell.json;
    options.quiet |= shell.quiet;
    options.verbose |= shell.verbose;
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "its twin can fail")]
fn to_os(word: Vec<u8>) -> Result<OsString, String> {
    use std::os::unix::ffi::OsStringExt;

    Ok(OsString::from_vec(word))
}

#[cfg(not(unix))]
fn to_os(word: Vec<u8>) -> Result<OsString, String> {
    match String::from_utf8(word) {
        Ok(text) => Ok(OsString::from(text)),
        Err(_) => Err("a word is not text; give any bytes with --hex or --base64".to_owned()),
    }
}
