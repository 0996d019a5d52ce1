//! What a verb works with: the options that all verbs share, and the store.

use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::sync::Arc;

use crabkv::{CrabKvBuilder, Store};
use serde_json::Value;

use super::args::Options;
use super::exit::{Failure, say};
use super::output;
use super::progress::Progress;
use super::session::Session;

/// What to do when there is no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMissing {
    Create,
    Fail,
}

/// The options of a command line, and what the shell keeps from line to line.
pub(crate) struct Context {
    pub(crate) options: Options,
    session: Option<Arc<Session>>,
    /// Whether this is a line of the shell, and others may follow.
    is_line: bool,
    /// The number of the line, where lines come from a script.
    line: Option<u64>,
}

impl Context {
    pub(crate) fn new(options: Options) -> Context {
        Context {
            options,
            session: None,
            is_line: false,
            line: None,
        }
    }

    /// For a line of the shell that is about another store.
    pub(crate) fn of_other(options: Options, line: Option<u64>) -> Context {
        Context {
            is_line: true,
            line,
            ..Context::new(options)
        }
    }

    /// For a line of the shell.
    pub(crate) fn of_line(options: Options, session: Arc<Session>, line: Option<u64>) -> Context {
        Context {
            options,
            session: Some(session),
            is_line: true,
            line,
        }
    }

    /// Whether there may be lines to come.
    pub(crate) fn is_in_shell(&self) -> bool {
        self.is_line
    }

    /// Does `work` with the store, open read-only: also beside a program that has it open.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match &self.session {
            Some(session) => work(&session.to_read(self)?),
            None => work(&self.open_read_only()?),
        }
    }

    /// Does `work` with the store, open for writing, and closes it in good order.
    pub(crate) fn write<T>(
        &self,
        if_missing: IfMissing,
        work: impl FnOnce(&Store) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.write_with(if_missing, |builder| builder, work)
    }

    /// As [`write`](Context::write), with more options for a store that is opened for it.
    pub(crate) fn write_with<T>(
        &self,
        if_missing: IfMissing,
        configure: impl FnOnce(CrabKvBuilder) -> CrabKvBuilder,
        work: impl FnOnce(&Store) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if let Some(session) = &self.session {
            return work(&session.to_write(self, if_missing)?);
        }
        let store = self.open(if_missing, configure)?;
        let done = work(&store)?;
        self.close(&store);
        Ok(done)
    }

    /// Closes the store that the shell keeps open; the next line that needs it opens it again. For
    /// verbs that go by the directory, and want it for themselves.
    pub(crate) fn let_go(&self) {
        if let Some(session) = &self.session {
            session.let_go(self);
        }
    }

    pub(crate) fn open_read_only(&self) -> Result<Store, Failure> {
        self.build(self.builder().read_only(true))
    }

    pub(crate) fn open(
        &self,
        if_missing: IfMissing,
        configure: impl FnOnce(CrabKvBuilder) -> CrabKvBuilder,
    ) -> Result<Store, Failure> {
        let builder = self
            .builder()
            .create_if_missing(if_missing == IfMissing::Create);
        let store = self.build(configure(builder))?;
        self.warn_of_torn_tail(&store);
        Ok(store)
    }

    pub(crate) fn close(&self, store: &Store) {
        if let Err(error) = store.close() {
            // What was asked for is done and durable all the same.
            self.warn(format_args!(
                "{} was not closed in good order, opening it again will take a little longer: \
                 {error}",
                store.dir().display()
            ));
        }
    }

    /// Opens the store, with a bar if that takes long.
    fn build(&self, builder: CrabKvBuilder) -> Result<Store, Failure> {
        let bar = Arc::new(Progress::of_bytes(self, "opening", 0));
        let updated = Arc::clone(&bar);
        let builder = builder.on_recovery_progress(move |progress| {
            updated.set_total(progress.bytes);
            updated.set(progress.bytes_done);
        });
        let opened = builder.build_store();
        // The store keeps what is called while it is opened.
        bar.finish();
        Ok(opened?)
    }

    fn builder(&self) -> CrabKvBuilder {
        let mut builder = Store::builder(&self.options.data_dir);
        if let Some(values) = NonZeroUsize::new(self.options.cache_capacity) {
            builder = builder.cache_capacity(values);
        }
        if let Some(ttl) = self.options.default_ttl {
            builder = builder.default_ttl(ttl);
        }
        builder
    }

    fn warn_of_torn_tail(&self, store: &Store) {
        if let Some(torn) = &store.recovery_report().torn_tail {
            self.warn(format_args!(
                "a crash interrupted the last write: {} bytes that were never acknowledged were \
                 cut off segment {} at offset {}; a copy is in {}, delete it at will",
                torn.len,
                torn.segment,
                torn.offset,
                torn.saved_to.display()
            ));
        }
    }

    /// A line on stderr about something that is not as it should be, but no failure.
    pub(crate) fn warn(&self, message: impl std::fmt::Display) {
        self.note(format_args!("warning: {message}"));
    }

    /// A line on stderr, such as a summary.
    pub(crate) fn note(&self, message: impl std::fmt::Display) {
        if !self.options.quiet {
            self.say(message);
        }
    }

    /// Says that standard input is read where that is a terminal: nothing else tells that the
    /// program waits for its user.
    pub(crate) fn note_typing(&self) {
        if io::stdin().is_terminal() {
            let end = if cfg!(windows) {
                "Ctrl-Z and Enter"
            } else {
                "Ctrl-D"
            };
            self.note(format_args!("reading from the terminal, up to {end}"));
        }
    }

    /// A line on stderr, whatever the options.
    pub(crate) fn say(&self, message: impl std::fmt::Display) {
        match self.line {
            Some(line) => say(format_args!("line {line}: {message}")),
            None => say(message),
        }
    }

    /// What a verb has done, on stdout: with `--quiet` only as JSON.
    pub(crate) fn summarize(
        &self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> Result<(), Failure> {
        if self.options.quiet && !self.options.json {
            return Ok(());
        }
        self.report(text, json)
    }

    /// A report on stdout: text for people, or one JSON document.
    pub(crate) fn report(
        &self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> Result<(), Failure> {
        if self.options.json {
            output::write_json(&json())
        } else {
            output::write_text(&text())
        }
    }
}
