//! What people see of a look at a store: 80 columns of figures and bars.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use crabkv::{NextCompaction, NotYetFree};

use super::bar::{KINDS, Pen, Shares};
use super::look::{Look, Rates, Segment};
use crate::cli::terminal::COLUMNS;
use crate::cli::units::{counted, epoch_ms, moment, size, thousands};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const ALARM: Style = AnsiColor::Red.on_default().bold();

/// Where automatic compaction begins: with a log of this many bytes, of which a third is to give.
const MIN_LOG_BYTES: u64 = 1 << 20;
const TRIGGER: u64 = 3;

/// Columns of the table of segments, and of the gaps between them.
const SIZE: usize = 9;
const REASON: usize = 11;

pub(crate) struct Page<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) look: &'a Look,
    pub(crate) rates: Option<Rates>,
    pub(crate) is_watched: bool,
    pub(crate) pen: Pen,
    /// So many segments at most.
    pub(crate) shown: usize,
}

impl Page<'_> {
    pub(crate) fn text(&self) -> String {
        let mut text = self.head();
        text += &self.figures();
        text += &self.compaction();
        text += &self.table();
        text += &self.reasons();
        if self.is_watched {
            text.push('\n');
        }
        text
    }

    /// With no more segments than leave the page in so many rows.
    pub(crate) fn fitted(mut self, rows: usize) -> String {
        /// Lines that may go with segments: a gap and the meanings of reasons.
        const MEANINGS: usize = 6;
        let mut text = self.text();
        // The last row is the cursor's. A long path makes the first line take several.
        let head = anstream::adapter::strip_str(text.lines().next().unwrap_or_default());
        let head_rows = head.to_string().chars().count().div_ceil(COLUMNS).max(1);
        let rows = rows.saturating_sub(head_rows);
        let over = text.lines().count().saturating_sub(rows);
        self.shown = self.shown.min(self.look.segments.len());
        self.shown -= over.saturating_sub(MEANINGS).min(self.shown);
        while text.lines().count() > rows && self.shown > 1 {
            self.shown -= 1;
            text = self.text();
        }
        let lines = text.lines().take(rows);
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    fn head(&self) -> String {
        let dir = self.dir.display();
        let mut text = match self.look.holder.as_deref() {
            None => format!("{BOLD}{dir}{BOLD:#}, not open for writing"),
            Some("") => format!("{BOLD}{dir}{BOLD:#}, open for writing"),
            Some(holder) => format!("{BOLD}{dir}{BOLD:#}, open for writing in {holder}"),
        };
        if self.is_watched {
            let _ = write!(text, ", {}", moment(epoch_ms(self.look.at)));
        }
        text.push('\n');
        if let Some(rates) = self.rates {
            let _ = writeln!(
                text,
                "{} writes/s, {}/s written, {} keys/s over {}",
                grouped(rates.writes_per_s),
                size(rounded(rates.bytes_per_s)),
                signed(rates.keys_per_s),
                seconds(rates.elapsed),
            );
        } else if self.is_watched {
            text += "rates follow\n";
        }
        let stats = &self.look.stats;
        for (what, problem) in [
            ("writes are refused", &stats.poisoned),
            ("compaction failed", &stats.compaction_failure),
            ("catching up failed", &stats.refresh_failure),
        ] {
            if let Some(problem) = problem {
                let _ = writeln!(text, "{ALARM}{what}{ALARM:#}: {problem}");
            }
        }
        text
    }

    fn figures(&self) -> String {
        let (stats, space) = (&self.look.stats, &self.look.space);
        let mut text = String::new();
        let mut figure = |name: &str, figure: String, note: String| {
            let line = format!("{name:<17} {figure:>13}  {note}");
            let _ = writeln!(text, "{}", line.trim_end());
        };
        let expired = if stats.may_have_expired {
            "some may have expired"
        } else {
            ""
        };
        figure("keys", thousands(stats.keys), expired.to_owned());
        let per_key = format!("{:.1} bytes for each key", stats.index_bytes_per_key());
        figure("index", size(stats.index_bytes), per_key);
        let resident = match self.look.resident_bytes {
            Some(resident) => format!("{} of it in memory", size(resident)),
            None => String::new(),
        };
        figure("mapped", size(stats.mapped_bytes), resident);
        figure(
            "append buffer",
            size(stats.append_buffer_bytes),
            String::new(),
        );
        if stats.buffered_keys > 0 {
            let keys = counted(stats.buffered_keys, "key");
            figure("write-back buffer", size(stats.buffered_bytes), keys);
        }
        if stats.cached_values > 0 {
            let values = counted(stats.cached_values, "value");
            figure("cache", values, String::new());
        }
        let mut segments = format!("in {}", counted(stats.segments.len() as u64, "segment"));
        if space.unwritten_bytes > 0 {
            let _ = write!(segments, "; {} more reserved", size(space.unwritten_bytes));
        }
        figure("data", size(stats.data_bytes), segments);
        let shares = self.shares();
        for kind in KINDS {
            let bytes = shares.of(kind);
            let (name, bytes, share) = (kind.name(), size(bytes), percent(bytes, shares.total()));
            let sample = self.pen.sample(kind);
            let _ = writeln!(text, "  {sample} {name:<13} {bytes:>13}  {share:>4}");
        }
        if space.pinned_bytes > 0 {
            let pinned = size(space.pinned_bytes);
            let _ = writeln!(
                text,
                "{:<17} {pinned:>13}  merged already, but somebody still reads them",
                "pinned"
            );
        }
        text
    }

    fn shares(&self) -> Shares {
        let space = &self.look.space;
        Shares([
            space.live_bytes,
            space.stale_bytes,
            space.expired_bytes,
            space.tombstone_bytes,
        ])
    }

    /// What compaction would free, and why it has not yet.
    fn compaction(&self) -> String {
        let (stats, space) = (&self.look.stats, &self.look.space);
        let (freed, data) = (space.reclaimable_bytes, stats.data_bytes);
        let mut text = format!(
            "{:<17} {:>13}  {:>4} of the data\n",
            "to give back",
            size(freed),
            percent(freed, data),
        );
        let marked = self.look.segments.iter();
        let marked = marked.filter(|segment| segment.reason == NotYetFree::Next);
        let marked = marked.count() as u64;
        let is_small = data < MIN_LOG_BYTES;
        let waits = match space.next {
            NextCompaction::ReadOnly if marked > 0 => format!(
                "{} marked next; merged by whoever writes to the store, or by compact",
                counted(marked, "segment")
            ),
            NextCompaction::Merge => format!("{} merged next", counted(marked, "segment")),
            _ if freed == 0 => return text,
            next if next == NextCompaction::NotWorthIt
                || (next == NextCompaction::ReadOnly && (is_small || freed < data / TRIGGER)) =>
            {
                let until = if is_small {
                    "there is 1MiB of data"
                } else {
                    "it is a third"
                };
                format!("automatic compaction waits until {until}; compact does it now")
            }
            NextCompaction::ReadOnly => {
                "merged by whoever writes to the store, or by compact".to_owned()
            }
            NextCompaction::NoRoom { needed_bytes } => format!(
                "compaction cannot: it needs {} of room on the disk",
                size(needed_bytes)
            ),
            NextCompaction::SealActive => {
                "it is in the active segment, which is sealed next, then merged".to_owned()
            }
            NextCompaction::Paused => "automatic compaction is paused".to_owned(),
            NextCompaction::Off => "automatic compaction is switched off".to_owned(),
            other => format!("automatic compaction {other}"),
        };
        let _ = writeln!(text, "  {waits}");
        text
    }

    fn table(&self) -> String {
        let segments = &self.look.segments;
        if segments.is_empty() {
            return String::new();
        }
        let (shown, others) = self.chosen();
        let more = format!("{} more", others.len());
        let longest = shown.iter().map(|segment| segment.id.to_string().len());
        let id_width = longest
            .max()
            .unwrap_or(0)
            .max("segment".len())
            .max(more.len());
        let bar_width = COLUMNS - id_width - 2 * SIZE - REASON - 4;
        let mut text = format!(
            "\n{DIM}{:>id_width$}{:>SIZE$}{:>SIZE$}  {:<bar_width$}  {}{DIM:#}\n",
            "segment", "size", "to give", "", "why not yet"
        );
        let mut row = |name: &str, segment: &Sum, reason: &str| {
            let line = format!(
                "{name:>id_width$}{:>SIZE$}{:>SIZE$}  {}  {reason}",
                size(segment.data_bytes),
                size(segment.to_give),
                self.pen.bar(segment.shares, bar_width),
            );
            let _ = writeln!(text, "{}", line.trim_end());
        };
        for segment in &shown {
            row(&segment.id.to_string(), &Sum::of(&[segment]), word(segment));
        }
        if !others.is_empty() {
            row(&more, &Sum::of(&others), "");
        }
        text
    }

    /// The segments that are shown, and those that are not.
    fn chosen(&self) -> (Vec<&Segment>, Vec<&Segment>) {
        let mut segments: Vec<_> = self.look.segments.iter().collect();
        if segments.len() <= self.shown {
            return (segments, Vec::new());
        }
        segments.sort_by_key(|segment| {
            let is_next = segment.reason == NotYetFree::Next;
            (!is_next, Reverse(segment.to_give), segment.id)
        });
        let others = segments.split_off(self.shown);
        (segments, others)
    }

    /// What the reasons mean, of those that are shown.
    fn reasons(&self) -> String {
        let (shown, _) = self.chosen();
        let mut reasons = BTreeMap::new();
        for segment in shown {
            if let Some(meaning) = meaning(segment) {
                reasons.insert(word(segment), meaning);
            }
        }
        let mut text = String::new();
        for (word, meaning) in &reasons {
            let _ = writeln!(text, "{DIM}{word:>11}: {meaning}{DIM:#}");
        }
        if !text.is_empty() {
            text.insert(0, '\n');
        }
        text
    }
}

/// Figures of segments together.
struct Sum {
    data_bytes: u64,
    to_give: u64,
    shares: Shares,
}

impl Sum {
    fn of(segments: &[&Segment]) -> Sum {
        let mut sum = Sum {
            data_bytes: 0,
            to_give: 0,
            shares: Shares::default(),
        };
        for segment in segments {
            sum.data_bytes += segment.data_bytes;
            sum.to_give += segment.to_give;
            sum.shares = sum.shares.plus(segment.shares);
        }
        sum
    }
}

/// Why a segment's bytes are still there, in a word of at most [`REASON`] characters.
fn word(segment: &Segment) -> &'static str {
    match segment.reason {
        _ if !segment.sealed => "active",
        NotYetFree::AllLive => "all live",
        NotYetFree::TombstonesHideOlderValues => "hides older",
        NotYetFree::Next => "next",
        _ => "later",
    }
}

/// What the word means, where it does not say it all.
fn meaning(segment: &Segment) -> Option<&'static str> {
    match segment.reason {
        _ if !segment.sealed => Some("is being written to; can be merged once it is sealed"),
        NotYetFree::AllLive => None,
        NotYetFree::TombstonesHideOlderValues => {
            Some("its tombstones hide older values in segments to be merged first")
        }
        NotYetFree::Next => Some("automatic compaction takes it next"),
        _ => Some("others have more to give, or all of them too little"),
    }
}

/// A share, so that what is there at all is not 0.
fn percent(part: u64, whole: u64) -> String {
    match (u128::from(part) * 100 + u128::from(whole / 2)).checked_div(u128::from(whole)) {
        Some(0) if part > 0 => "<1%".to_owned(),
        percent => format!("{}%", percent.unwrap_or(0)),
    }
}

#[expect(
    clippy::cast_sign_loss,
    reason = "it is never negative; casts from floats saturate"
)]
fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}

fn grouped(rate: f64) -> String {
    thousands(rounded(rate))
}

fn signed(rate: f64) -> String {
    let sign = match rounded(rate.abs()) {
        0 => "",
        _ if rate < 0.0 => "-",
        _ => "+",
    };
    sign.to_owned() + &grouped(rate.abs())
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a store after something has been done to its figures.
    fn text_of(change: impl FnOnce(&mut Look)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let store = crabkv::Store::open(dir.path()).unwrap();
        store.put("a", "1").unwrap();
        let mut look = Look::take(&store).unwrap();
        change(&mut look);
        let text = page(&look).text();
        anstream::adapter::strip_str(&text).to_string()
    }

    fn page(look: &Look) -> Page<'_> {
        Page {
            dir: Path::new("data"),
            look,
            rates: None,
            is_watched: false,
            pen: Pen::new(false),
            shown: 20,
        }
    }

    #[test]
    fn failures_are_said_first() {
        let text = text_of(|look| {
            look.stats.poisoned = Some("sync failed".to_owned());
            look.stats.compaction_failure = Some("no room".to_owned());
        });
        let lines: Vec<_> = text.lines().skip(1).take(2).collect();
        assert_eq!(
            lines,
            [
                "writes are refused: sync failed",
                "compaction failed: no room"
            ]
        );
    }

    #[test]
    fn why_nothing_is_given_back_yet_is_said() {
        for (next, reclaimable, says) in [
            (NextCompaction::ReadOnly, 0, ""),
            (
                NextCompaction::ReadOnly,
                9 << 20,
                "whoever writes to the store",
            ),
            (
                NextCompaction::ReadOnly,
                1 << 20,
                "waits until it is a third",
            ),
            (
                NextCompaction::NotWorthIt,
                1 << 20,
                "waits until it is a third",
            ),
            (NextCompaction::Paused, 9 << 20, "is paused"),
            (NextCompaction::Off, 9 << 20, "is switched off"),
            (NextCompaction::SealActive, 9 << 20, "is sealed next"),
            (
                NextCompaction::NoRoom {
                    needed_bytes: 3 << 20,
                },
                9 << 20,
                "cannot: it needs 3MiB",
            ),
        ] {
            let text = text_of(|look| {
                look.stats.data_bytes = 10 << 20;
                look.space.reclaimable_bytes = reclaimable;
                look.space.next = next;
            });
            let mut lines = text.lines().skip_while(|line| !line.starts_with("to give"));
            let why = lines.nth(1).unwrap();
            assert!(why.contains(says), "{next:?}: {why}");
        }
    }

    #[test]
    fn a_page_fits_the_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let store = crabkv::Store::builder(dir.path()).segment_size(4096);
        let store = store.build_store().unwrap();
        for key in 0..400 {
            store.put(key.to_string(), [0; 100]).unwrap();
        }
        let look = Look::take(&store).unwrap();
        let lines = |rows| page(&look).fitted(rows).lines().count();
        let whole = page(&look).text().lines().count();
        assert_eq!(whole, 29);
        assert_eq!((lines(40), lines(30)), (29, 29));
        // The active segment is none of those shown any more, and its reason goes with it.
        assert_eq!(lines(29), 27);
        assert_eq!((lines(24), lines(16), lines(5)), (23, 15, 4));
        let long = "d".repeat(100);
        let mut page = page(&look);
        page.dir = Path::new(&long);
        assert_eq!(page.fitted(24).lines().count(), 22);
    }

    #[test]
    fn the_largest_figures_fit_80_columns() {
        let text = text_of(|look| {
            look.stats.keys = 1_000_000_000_000;
            look.stats.index_bytes = 20 << 40;
            look.stats.mapped_bytes = u64::MAX;
            look.resident_bytes = Some(u64::MAX);
            look.stats.data_bytes = 999 << 40;
            look.stats.buffered_keys = 1_000_000_000;
            look.space.unwritten_bytes = 1023 << 40;
            look.space.pinned_bytes = 999 << 40;
            look.space.live_bytes = 666 << 40;
            look.space.stale_bytes = (333 << 40) + 1;
            look.space.reclaimable_bytes = 333 << 40;
            for segment in &mut look.segments {
                segment.data_bytes = 1023 << 50;
                segment.to_give = 1023 << 50;
            }
        });
        for line in text.lines().skip(1) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(
            text.contains("\n  # live                 666TiB   67%\n"),
            "{text}"
        );
        assert!(
            text.contains("keys              1,000,000,000,000"),
            "{text}"
        );
        assert!(text.contains(" 1023PiB  1023PiB  #"), "{text}");
    }

    #[test]
    fn a_share_that_is_there_at_all_is_not_nothing() {
        for (part, whole, text) in [
            (0, 0, "0%"),
            (0, 10, "0%"),
            (1, 1_000_000, "<1%"),
            (1, 3, "33%"),
            (2, 3, "67%"),
            (10, 10, "100%"),
            (u64::MAX, u64::MAX, "100%"),
        ] {
            assert_eq!(percent(part, whole), text);
        }
    }

    #[test]
    fn rates_have_a_sign_only_where_they_move() {
        assert_eq!(signed(0.2), "0");
        assert_eq!(signed(-0.2), "0");
        assert_eq!(signed(1234.4), "+1,234");
        assert_eq!(signed(-5.0), "-5");
    }
}
