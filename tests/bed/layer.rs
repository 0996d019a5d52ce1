//! What all layers of the test bed have in common: how much work a run does, and the line that
//! says so.
//!
//! | variable | what it does |
//! | --- | --- |
//! | `CRABKV_EFFORT` | multiplies the work of every layer: `CRABKV_EFFORT=20 cargo bed` is a long run, `1/20` a short one |
//! | `CRABKV_SEED` | another seed for all that is random; a failure prints the one it had |
//! | `CRABKV_REPLAY` | the one image of the crash enumeration to look at, as a violation says it |
//!
//! The lines go to standard error past the test harness, which swallows what a passing test
//! prints: whoever reads the output sees what was done, and what was skipped.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::common::{chosen_effort, effort, fraction};

/// An unoptimised build does one part in so many: it is there to check overflows and debug
/// assertions, and for `cargo test` to end within minutes.
const DEBUG_SHARE: u64 = 25;

/// A layer of the test bed at work.
pub(crate) struct Layer {
    name: &'static str,
    unit: &'static str,
    goal: u64,
    done: AtomicU64,
    begun: Instant,
}

impl Layer {
    /// Begins a layer which has to do `bar` of something in a run of ordinary length.
    pub(crate) fn begin(name: &'static str, unit: &'static str, bar: u64) -> Layer {
        Layer {
            name,
            unit,
            goal: share(bar),
            done: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    /// How many of its units it has to do in this run.
    pub(crate) fn goal(&self) -> u64 {
        self.goal
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done() >= self.goal
    }

    pub(crate) fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    /// Says what was done, with `more` to tell about it.
    ///
    /// # Panics
    ///
    /// When it did less than it has to.
    pub(crate) fn end(self, more: &str) {
        let done = self.done();
        let seconds = self.begun.elapsed().as_secs_f64();
        let more = if more.is_empty() {
            String::new()
        } else {
            format!("; {more}")
        };
        say(
            self.name,
            &format!(
                "{} {} of {}, 0 violations{more} | {seconds:.1} s",
                grouped(done),
                self.unit,
                grouped(self.goal)
            ),
        );
        assert!(
            done >= self.goal,
            "{}: {done} {} of {}",
            self.name,
            self.unit,
            self.goal
        );
    }
}

/// How much of `bar` this run does.
pub(crate) fn share(bar: u64) -> u64 {
    if cfg!(debug_assertions) {
        effort(bar).div_ceil(DEBUG_SHARE)
    } else {
        effort(bar)
    }
}

/// One part in how many of an ordinary run's work this one does; 1 if it does all of it, or more.
pub(crate) fn one_in() -> u64 {
    let (times, parts) = chosen_effort();
    let debug_share = if cfg!(debug_assertions) {
        DEBUG_SHARE
    } else {
        1
    };
    (parts * debug_share / times).max(1)
}

/// Says that a layer, or a part of it, cannot run here, and why.
pub(crate) fn skip(layer: &str, why: &str) {
    say(layer, &format!("SKIPPED: {why}"));
}

/// A line of the test bed's report.
pub(crate) fn say(layer: &str, what: &str) {
    // In one write, so that the lines of two tests do not mix.
    let line = format!("test bed | {layer} | {what}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A number with its thousands set apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[test]
fn an_effort_is_a_number_or_a_fraction() {
    assert_eq!(fraction("20"), Some((20, 1)));
    assert_eq!(fraction("1/20"), Some((1, 20)));
    for text in ["", "0", "1/0", "0/3", "0.5", "-1", "1/2/3", " 1"] {
        assert_eq!(fraction(text), None, "{text:?}");
    }
}

#[test]
fn thousands_are_set_apart() {
    assert_eq!(grouped(0), "0");
    assert_eq!(grouped(999), "999");
    assert_eq!(grouped(1_000), "1,000");
    assert_eq!(grouped(12_345_678), "12,345,678");
}
