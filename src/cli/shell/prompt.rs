//! Lines from a person: a prompt, editing, history, completion.

use std::io;

use rustyline::Editor;
use rustyline::config::{CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;

use super::complete::Completion;
use super::history::History;
use super::{Done, Shell, interrupt};
use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::units::counted;

pub(super) fn run(shell: &Shell) -> Result<Outcome, Failure> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .auto_add_history(false)
        // A line that begins with a blank leaves no trace, as in bash.
        .history_ignore_space(true)
        .build();
    let lines = MemHistory::with_config(&config);
    let mut editor: Editor<Completion, MemHistory> =
        Editor::with_history(config, lines).map_err(failure)?;
    editor.set_helper(Some(Completion::new()));
    let mut history = History::open();
    for line in history.lines() {
        editor.add_history_entry(line).map_err(failure)?;
    }
    // The editor takes SIGINT for itself when it is made, and needs it never: while it reads, Ctrl-C
    // is a key like others. So it is taken back.
    interrupt::install();
    interrupt::stay();
    greet(shell);
    loop {
        let prompt = if shell.session.is_read_only() {
            "crabkv (read-only)> "
        } else {
            "crabkv> "
        };
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            // Ctrl-C gives up the line, not the shell.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(Outcome::Done),
            Err(error) => return Err(failure(error)),
        };
        // What is pasted can have several.
        for line in line.lines().map(str::trim_end) {
            if line.is_empty() {
                continue;
            }
            if editor.add_history_entry(line).map_err(failure)? {
                let context = shell.context(shell.options.clone(), None);
                history.append(line, &context);
            }
            interrupt::reset();
            let done = shell.run_line(line.as_bytes(), None)?;
            let is_stopped = interrupt::is_requested();
            interrupt::reset();
            if done == Done::Leave {
                return Ok(Outcome::Done);
            }
            if is_stopped {
                break;
            }
        }
    }
}

/// Opens the store, and says what there is.
fn greet(shell: &Shell) {
    let context = shell.context(shell.options.clone(), None);
    let dir = shell.options.data_dir.display();
    let hint = "type help for the commands";
    match context.read(|store| Ok(store.len())) {
        Ok(keys) => context.note(format_args!(
            "{}: {}; {hint}",
            dir,
            counted(keys as u64, "key")
        )),
        Err(Failure::Store(crabkv::Error::NotFound { .. })) => {
            context.note(format_args!(
                "{dir}: no store yet, the first put makes one; {hint}"
            ));
        }
        // What can be done about it may be done from here, as with verify and repair.
        Err(failure) => {
            exit::report(Err(failure), &context);
        }
    }
}

fn failure(error: ReadlineError) -> Failure {
    let source = match error {
        ReadlineError::Io(source) => source,
        other => io::Error::other(other),
    };
    Failure::Stdio {
        op: "read from the terminal",
        source,
    }
}
