//! The documents' examples: each `console` block is run by a shell, and must print what it says.
//!
//! A line that begins with `$ ` is a command; `> ` continues it. What follows is what the command
//! prints, stdout and stderr together. `[..]` stands for anything within a line, `...` alone for any
//! lines. `? 1` behind it is the exit code, where that is not 0. Each section (`## `) begins in an
//! empty directory.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

struct Example {
    line: usize,
    command: String,
    output: Vec<String>,
    code: i32,
}

/// The examples of a document, section by section.
fn sections(text: &str) -> Vec<Vec<Example>> {
    let mut sections = vec![Vec::new()];
    let mut in_console = false;
    let mut in_other = false;
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(language) = text.strip_prefix("```") {
            if in_console || in_other {
                (in_console, in_other) = (false, false);
            } else {
                in_console = language == "console";
                in_other = !in_console;
            }
            continue;
        }
        if !in_console && !in_other && text.starts_with("## ") {
            sections.push(Vec::new());
        }
        if !in_console {
            continue;
        }
        let section = sections.last_mut().unwrap();
        if let Some(command) = text.strip_prefix("$ ") {
            section.push(Example {
                line,
                command: command.to_owned(),
                output: Vec::new(),
                code: 0,
            });
            continue;
        }
        let example = section.last_mut().expect("a block begins with a command");
        match text.strip_prefix("? ") {
            Some(code) => example.code = code.parse().unwrap(),
            None => match text.strip_prefix("> ") {
                Some(more) if example.output.is_empty() => {
                    example.command.push('\n');
                    example.command.push_str(more);
                }
                _ => example.output.push(text.to_owned()),
            },
        }
    }
    sections
}

/// Whether a line is as the pattern has it.
fn line_matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split("[..]");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap()) else {
        return false;
    };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn matches(patterns: &[String], lines: &[&str]) -> bool {
    match patterns.split_first() {
        None => lines.is_empty(),
        Some((first, patterns)) if first == "..." => {
            (0..=lines.len()).any(|skipped| matches(patterns, &lines[skipped..]))
        }
        Some((first, patterns)) => lines
            .split_first()
            .is_some_and(|(line, lines)| line_matches(first, line) && matches(patterns, lines)),
    }
}

fn run_examples(name: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = fs::read_to_string(path).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_crabkv")).parent().unwrap();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(program.to_owned()).chain(std::env::split_paths(&paths));
    let paths = std::env::join_paths(paths).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for section in sections(&text) {
        let dir = TempDir::new().unwrap();
        for example in section {
            count += 1;
            let mut command = Command::new("sh");
            command.arg("-c");
            // As on a terminal, stderr comes where it belongs.
            command.arg(format!("exec 2>&1\n{}", example.command));
            command.current_dir(dir.path()).env("PATH", &paths);
            for name in [
                "CRABKV_DATA_DIR",
                "CRABKV_CACHE_CAPACITY",
                "CRABKV_DEFAULT_TTL_SECS",
                "CLICOLOR_FORCE",
            ] {
                command.env_remove(name);
            }
            let output = command.output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            let lines: Vec<_> = printed.lines().collect();
            let code = output.status.code().unwrap_or(-1);
            if code != example.code || !matches(&example.output, &lines) {
                let expected = example.output.join("\n");
                wrong.push(format!(
                    "{name}:{}: $ {}\n--- printed, and exited with {code}:\n{printed}\n--- the \
                     document has, with {}:\n{expected}\n",
                    example.line, example.command, example.code
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    count
}

#[test]
fn every_example_of_the_command_lines_document_prints_what_it_says() {
    assert!(run_examples("docs/CLI.md") > 20);
}

#[test]
fn every_example_of_the_readme_prints_what_it_says() {
    assert!(run_examples("README.md") > 3);
}

#[test]
fn patterns_stand_for_parts_of_lines_and_for_lines() {
    assert!(line_matches("a [..] c", "a b c"));
    assert!(line_matches("[..]", ""));
    assert!(!line_matches("a [..] c", "a b d"));
    assert!(!line_matches("a", "ab"));
    let patterns = ["a".to_owned(), "...".to_owned(), "z".to_owned()];
    assert!(matches(&patterns, &["a", "z"]));
    assert!(matches(&patterns, &["a", "b", "c", "z"]));
    assert!(!matches(&patterns, &["a", "b"]));
}
