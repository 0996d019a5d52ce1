//! What was found: a line each, and one for what to do about it.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::cli::exit::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok,
    /// It works, but not as well or as safely as it could.
    Warn,
    /// It does not work.
    Fail,
    /// Bytes are not what was written.
    Damage,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail | Level::Damage => "fail",
        }
    }

    fn style(self) -> Style {
        match self {
            Level::Ok => AnsiColor::Green.on_default(),
            Level::Warn => AnsiColor::Yellow.on_default().bold(),
            Level::Fail | Level::Damage => AnsiColor::Red.on_default().bold(),
        }
    }
}

pub(super) struct Finding {
    pub(super) level: Level,
    /// What was looked at, in a word or two.
    pub(super) check: &'static str,
    pub(super) message: String,
    /// What to do; empty where there is nothing.
    pub(super) advice: String,
}

#[derive(Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
}

impl Findings {
    pub(super) fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.add(Level::Ok, check, message.into(), "");
    }

    pub(super) fn warn(&mut self, check: &'static str, message: impl Into<String>, advice: &str) {
        self.add(Level::Warn, check, message.into(), advice);
    }

    pub(super) fn fail(&mut self, check: &'static str, message: impl Into<String>, advice: &str) {
        self.add(Level::Fail, check, message.into(), advice);
    }

    pub(super) fn damage(&mut self, check: &'static str, message: impl Into<String>, advice: &str) {
        self.add(Level::Damage, check, message.into(), advice);
    }

    fn add(&mut self, level: Level, check: &'static str, message: String, advice: &str) {
        let advice = advice.to_owned();
        self.list.push(Finding {
            level,
            check,
            message,
            advice,
        });
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.list {
            let (name, style) = (finding.level.name(), finding.level.style());
            let (check, message) = (finding.check, &finding.message);
            let _ = writeln!(text, "{style}{name:<4}{style:#}  {check:<12} {message}");
            if !finding.advice.is_empty() {
                let _ = writeln!(text, "{:19}-> {}", "", finding.advice);
            }
        }
        text
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self.list.iter().map(|finding| finding.level).max() {
            None | Some(Level::Ok | Level::Warn) => Outcome::Done,
            Some(Level::Fail) => Outcome::Unfit,
            Some(Level::Damage) => Outcome::Damaged,
        }
    }
}
