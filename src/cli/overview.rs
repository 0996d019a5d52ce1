//! The verbs by theme, a line for each: what help shows first.

use std::fmt::Write as _;

use anstyle::Style;
use clap::Command;

/// Every verb stands in one theme, and once.
const THEMES: [(&str, &[&str]); 6] = [
    (
        "One key",
        &[
            "put", "get", "delete", "exists", "ttl", "expire", "persist", "incr", "cas",
        ],
    ),
    ("Many keys", &["scan", "keys", "count", "batch"]),
    ("Looking inside", &["stats", "inspect", "verify", "doctor"]),
    (
        "Looking after it",
        &["compact", "repair", "backup", "restore"],
    ),
    ("Moving data", &["export", "import"]),
    ("More", &["shell", "serve", "bench", "completions", "man"]),
];

/// Of the longest name.
const NAME_WIDTH: usize = "completions".len();

/// As clap has them.
const HEADING: Style = Style::new().bold().underline();
const NAME: Style = Style::new().bold();

/// The verbs that `command` has and does not hide; behind them, `others` and what they do.
pub(crate) fn verbs(command: &Command, others: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (theme, names) in THEMES {
        let verbs = names
            .iter()
            .filter_map(|name| command.find_subcommand(name));
        let verbs: Vec<_> = verbs.filter(|verb| !verb.is_hide_set()).collect();
        let is_last = theme == THEMES[THEMES.len() - 1].0;
        if verbs.is_empty() && !is_last {
            continue;
        }
        let _ = writeln!(text, "{HEADING}{theme}:{HEADING:#}");
        for verb in verbs {
            let about = verb.get_about().map(ToString::to_string);
            write_verb(&mut text, verb.get_name(), &about.unwrap_or_default());
        }
        if is_last {
            for (name, about) in others {
                write_verb(&mut text, name, about);
            }
        }
        text.push('\n');
    }
    text
}

fn write_verb(text: &mut String, name: &str, about: &str) {
    let _ = writeln!(text, "  {NAME}{name:<NAME_WIDTH$}{NAME:#}  {about}");
}

/// What the program is and which verbs it has, for whoever gave none.
pub(crate) fn brief(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string);
    format!(
        "{}\n\n{HEADING}Usage:{HEADING:#} {NAME}crabkv{NAME:#} [OPTIONS] <COMMAND>\n\n{}\
         crabkv help COMMAND says more, crabkv --help lists options and exit codes.\n",
        about.unwrap_or_default(),
        verbs(command, &[]),
    )
}

/// The template of the program's help.
pub(crate) fn template(command: &Command) -> String {
    format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{}{HEADING}Options:{HEADING:#}\n\
         {{options}}{{after-help}}",
        verbs(command, &[("help", "Say more about a command")]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    fn lines(command: &Command) -> Vec<String> {
        let text = verbs(command, &[]);
        let text = anstream::adapter::strip_str(&text).to_string();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_verb_is_listed_once() {
        let command = args::command();
        let lines = lines(&command);
        for verb in command.get_subcommands() {
            let begin = format!("  {} ", verb.get_name());
            let count = lines.iter().filter(|line| line.starts_with(&begin)).count();
            assert_eq!(count, 1, "{}", verb.get_name());
        }
        let listed = lines.iter().filter(|line| line.starts_with("  ")).count();
        assert_eq!(listed, command.get_subcommands().count());
    }

    #[test]
    fn every_verb_takes_one_line_of_a_terminal() {
        for line in lines(&args::command()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn what_is_hidden_is_not_listed_and_leaves_no_empty_theme() {
        let command = args::command();
        let command = command.mut_subcommands(|verb| verb.hide(true));
        assert_eq!(lines(&command), ["More:", ""]);
    }
}
