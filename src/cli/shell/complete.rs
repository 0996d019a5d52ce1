//! What Tab completes, from the definitions of the command line: verbs, options, their values, and
//! files where an argument is one.

use std::fs;
use std::path::Path;

use clap::{Arg, Command, ValueHint};
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Helper, Result};

use crate::cli::text;

pub(super) struct Completion {
    command: Command,
}

impl Completion {
    pub(super) fn new() -> Completion {
        let mut command = super::command();
        // Hands the global options to every verb.
        command.build();
        Completion { command }
    }

    /// Where the last word of `line` begins, and what it could become.
    fn candidates(&self, line: &str) -> (usize, Vec<Pair>) {
        let start = line.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
        let before: Vec<_> = line[..start].split_whitespace().collect();
        let word = &line[start..];
        let found = match before.as_slice() {
            [] => self.verbs(word, &super::LEAVE),
            ["help"] => self.verbs(word, &[]),
            [verb, arguments @ ..] => match self.command.find_subcommand(verb) {
                Some(verb) => arguments_of(verb, arguments.last().copied(), word),
                None => Vec::new(),
            },
        };
        (start, found)
    }

    fn verbs(&self, word: &str, others: &[&str]) -> Vec<Pair> {
        let verbs = self
            .command
            .get_subcommands()
            .filter(|verb| !verb.is_hide_set());
        let mut names: Vec<_> = verbs
            .map(Command::get_name)
            .chain(others.iter().copied())
            .collect();
        names.sort_unstable();
        pairs(names.into_iter(), word)
    }
}

/// What an argument of `verb` could become, after the word `before`.
fn arguments_of(verb: &Command, before: Option<&str>, word: &str) -> Vec<Pair> {
    let takes_value = |arg: &&Arg| arg.get_action().takes_values();
    let option_called = |name: &str| {
        let found = verb.get_arguments().find(|arg| is_named(arg, name));
        found.filter(takes_value)
    };
    if let Some(option) = before.and_then(option_called) {
        return values_of(option, word);
    }
    if word.starts_with('-') {
        let options = verb.get_arguments().filter(|arg| !arg.is_hide_set());
        let mut names: Vec<_> = options
            .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
            .collect();
        names.sort_unstable();
        return pairs(names.iter().map(String::as_str), word);
    }
    verb.get_positionals()
        .flat_map(|arg| values_of(arg, word))
        .collect()
}

/// Whether `word` is what the option is called.
fn is_named(arg: &Arg, word: &str) -> bool {
    match (word.strip_prefix("--"), word.strip_prefix('-')) {
        (Some(long), _) => {
            let aliases = arg.get_visible_aliases().unwrap_or_default();
            arg.get_long() == Some(long) || aliases.contains(&long)
        }
        (None, Some(short)) => arg
            .get_short()
            .is_some_and(|name| short.len() == 1 && short.starts_with(name)),
        (None, None) => false,
    }
}

fn values_of(arg: &Arg, word: &str) -> Vec<Pair> {
    let values = arg.get_possible_values();
    if !values.is_empty() {
        return pairs(
            values.iter().map(clap::builder::PossibleValue::get_name),
            word,
        );
    }
    match arg.get_value_hint() {
        ValueHint::DirPath => paths(word, true),
        ValueHint::AnyPath | ValueHint::FilePath => paths(word, false),
        _ => Vec::new(),
    }
}

/// Those of `names` that `word` can become; the next word can follow at once.
fn pairs<'n>(names: impl Iterator<Item = &'n str>, word: &str) -> Vec<Pair> {
    let fitting = names.filter(|name| name.starts_with(word));
    let pair = |name: &str| Pair {
        display: name.to_owned(),
        replacement: format!("{name} "),
    };
    fitting.map(pair).collect()
}

/// Files and directories whose path begins with `word`.
fn paths(word: &str, only_dirs: bool) -> Vec<Pair> {
    let name_begins = word
        .rfind(['/', std::path::MAIN_SEPARATOR])
        .map_or(0, |at| at + 1);
    let (dir, begin) = word.split_at(name_begins);
    let listed = fs::read_dir(if dir.is_empty() {
        Path::new(".")
    } else {
        Path::new(dir)
    });
    let mut pairs = Vec::new();
    for entry in listed.into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_dir = entry.path().is_dir();
        let is_hidden = name.starts_with('.') && !begin.starts_with('.');
        if !name.starts_with(begin) || is_hidden || (only_dirs && !is_dir) {
            continue;
        }
        let path = format!("{dir}{name}{}", if is_dir { "/" } else { " " });
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '\'';
        let replacement = if name.chars().all(is_plain) {
            path
        } else {
            text::quoted(path.trim_end().as_bytes())
        };
        pairs.push(Pair {
            display: name,
            replacement,
        });
    }
    pairs.sort_unstable_by(|a, b| a.display.cmp(&b.display));
    pairs
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &rustyline::Context<'_>,
    ) -> Result<(usize, Vec<Pair>)> {
        Ok(self.candidates(&line[..at]))
    }
}

impl Hinter for Completion {
    type Hint = String;
}

impl Highlighter for Completion {}
impl Validator for Completion {}
impl Helper for Completion {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `line` could become, joined by blanks.
    fn completed(line: &str) -> String {
        let (start, found) = Completion::new().candidates(line);
        let lines = found
            .iter()
            .map(|pair| line[..start].to_owned() + &pair.replacement);
        lines.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn verbs_are_completed_and_those_that_do_not_work_here_are_not() {
        assert_eq!(completed("comp"), "compact ");
        assert_eq!(completed("exit"), "exit ");
        assert_eq!(completed("exi"), "exists |exit ");
        assert_eq!(completed("help comp"), "help compact ");
        assert_eq!(completed("she"), "");
        assert_eq!(completed("put ver"), "");
    }

    #[test]
    fn options_are_those_of_the_verb_and_the_global_ones() {
        assert_eq!(
            completed("compact --d"),
            "compact --data-dir |compact --default-ttl |compact --dry-run "
        );
        assert_eq!(completed("put key value --tt"), "put key value --ttl ");
        assert_eq!(
            completed("get --color a"),
            "get --color auto |get --color always "
        );
    }

    #[test]
    fn directories_are_completed_where_an_argument_is_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("backup")).unwrap();
        fs::create_dir(dir.path().join("back up")).unwrap();
        fs::write(dir.path().join("backlog"), "").unwrap();
        let at = dir.path().display().to_string();
        // In quotes a backslash, as in paths of Windows, is the beginning of an escape.
        let quoted = at.replace('\\', "\\\\");
        assert_eq!(
            completed(&format!("restore {at}/ba")),
            format!("restore \"{quoted}/back up/\"|restore {at}/backup/")
        );
        assert_eq!(
            completed(&format!("get key --out {at}/backl")),
            format!("get key --out {at}/backlog ")
        );
        assert_eq!(completed(&format!("delete {at}/ba")), "");
    }
}
