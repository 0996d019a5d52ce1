//! Progress of long work: a bar on stderr with rate and time left, where stderr is a terminal, and
//! only once the work has taken a moment.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::context::Context;
use super::units::{size, thousands};

/// How long work goes on without a bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// Templates of what is shown, for one kind of progress.
struct Styles {
    /// While there is no telling how much there will be.
    endless: &'static str,
    of_total: &'static str,
}

const BYTES: Styles = Styles {
    endless: "{msg} {size}, {size_rate}, {elapsed}",
    of_total: "{msg} [{wide_bar}] {percent}% {size} of {total_size}, {size_rate}, {eta} left",
};

const ITEMS: Styles = Styles {
    endless: "{msg} {human_pos}, {rate}, {elapsed}",
    of_total: "{msg} [{wide_bar}] {percent}% {human_pos} of {human_len}, {rate}, {eta} left",
};

fn styled(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates here are sound");
    // There is nobody to tell that a bar cannot be drawn.
    style
        .with_key(
            "rate",
            |state: &ProgressState, text: &mut dyn fmt::Write| {
                let _ = write!(text, "{}/s", thousands(per_second(state)));
            },
        )
        .with_key(
            "size",
            |state: &ProgressState, text: &mut dyn fmt::Write| {
                let _ = text.write_str(&size(state.pos()));
            },
        )
        .with_key(
            "total_size",
            |state: &ProgressState, text: &mut dyn fmt::Write| {
                let _ = text.write_str(&size(state.len().unwrap_or_default()));
            },
        )
        .with_key(
            "size_rate",
            |state: &ProgressState, text: &mut dyn fmt::Write| {
                let _ = write!(text, "{}/s", size(per_second(state)));
            },
        )
        .progress_chars("=> ")
}

#[expect(clippy::cast_sign_loss, reason = "a rate is not negative")]
fn per_second(state: &ProgressState) -> u64 {
    state.per_sec() as u64
}

/// A bar. It is gone from the screen when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    styles: &'static Styles,
    begun: Instant,
    /// Not yet to be seen, or never.
    hidden: AtomicBool,
    wanted: bool,
}

impl Progress {
    /// Of bytes. With a total of 0, there is no telling how many there will be.
    pub(crate) fn of_bytes(context: &Context, label: &str, total: u64) -> Progress {
        Progress::new(context, label, total, &BYTES)
    }

    /// Of things: records, segments. With a total of 0, there is no telling how many.
    pub(crate) fn of_items(context: &Context, label: &str, total: u64) -> Progress {
        Progress::new(context, label, total, &ITEMS)
    }

    fn new(context: &Context, label: &str, total: u64, styles: &'static Styles) -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_message(label.to_owned());
        bar.set_style(styled(styles.endless));
        let progress = Progress {
            bar,
            styles,
            begun: Instant::now(),
            hidden: AtomicBool::new(true),
            wanted: !context.options.quiet,
        };
        progress.set_total(total);
        progress
    }

    /// So much is done in all.
    pub(crate) fn set(&self, done: u64) {
        self.bar.set_position(done);
        self.show();
    }

    /// There is another total than was thought.
    pub(crate) fn set_total(&self, total: u64) {
        if total == 0 || self.bar.length() == Some(total) {
            return;
        }
        if self.bar.length().is_none() {
            self.bar.set_style(styled(self.styles.of_total));
        }
        self.bar.set_length(total);
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        if self.wanted && self.hidden.load(Ordering::Relaxed) && self.begun.elapsed() >= PATIENCE {
            self.hidden.store(false, Ordering::Relaxed);
            // Indicatif draws nothing where stderr is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
