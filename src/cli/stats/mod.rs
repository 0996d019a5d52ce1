//! `stats`: what is in a store, what takes how much room, what compaction would give back, and why
//! it has not yet; once, or again and again.

mod bar;
mod look;
mod page;

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crabkv::Store;

use super::context::Context;
use super::exit::{Failure, Outcome};
use super::output;
use super::units::{counted, parse_duration};
use super::{interrupt, terminal};
use bar::Pen;
use look::{Look, Rates};
use page::Page;

/// So many segments are shown; the others in one row.
const SHOWN: usize = 20;

/// The shortest interval of looks.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// Look again at this interval until Ctrl-C, and show how fast it goes
    #[arg(
        short,
        long,
        value_name = "INTERVAL",
        value_parser = parse_interval,
        num_args = 0..=1,
        default_missing_value = "1s"
    )]
    watch: Option<Duration>,
    /// Show every segment, not only those with the most to give
    #[arg(short, long)]
    all: bool,
    /// Draw with ASCII alone; so it is done anyway where the locale is not UTF-8
    #[arg(long)]
    ascii: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        interval if interval >= MIN_INTERVAL => Ok(interval),
        _ => Err("an interval is at least 50ms".to_owned()),
    }
}

pub(crate) fn run(context: &Context, args: &StatsArgs) -> Result<Outcome, Failure> {
    context.read(|store| {
        if let Some(interval) = args.watch {
            return watch(context, args, store, interval);
        }
        show(context, args, &Look::take(store)?, None)?;
        Ok(Outcome::Done)
    })
}

fn show(
    context: &Context,
    args: &StatsArgs,
    look: &Look,
    rates: Option<Rates>,
) -> Result<(), Failure> {
    if context.options.json {
        return output::write_json(&look.json(rates));
    }
    output::write_text(&page(context, args, look, rates).text())
}

fn page<'a>(
    context: &'a Context,
    args: &StatsArgs,
    look: &'a Look,
    rates: Option<Rates>,
) -> Page<'a> {
    Page {
        dir: &context.options.data_dir,
        look,
        rates,
        is_watched: args.watch.is_some(),
        pen: Pen::new(!args.ascii && terminal::has_unicode()),
        shown: if args.all { usize::MAX } else { SHOWN },
    }
}

fn watch(
    context: &Context,
    args: &StatsArgs,
    store: &Store,
    interval: Duration,
) -> Result<Outcome, Failure> {
    let (stop, stopped) = mpsc::channel();
    // In good order, so that no line is cut short.
    let _graceful = interrupt::graceful_with(move || {
        let _ = stop.send(());
    });
    let mut last: Option<(Look, Instant)> = None;
    let mut looks = 0;
    loop {
        let begun = Instant::now();
        let look = Look::take(store)?;
        let rates = last
            .as_ref()
            .map(|(earlier, at)| look.rates_since(earlier, begun.duration_since(*at)));
        match terminal::size() {
            Some((_, rows)) if !context.options.json => {
                let page = page(context, args, &look, rates);
                terminal::redraw(&page.fitted(rows))?;
            }
            _ => show(context, args, &look, rates)?,
        }
        looks += 1;
        last = Some((look, begun));
        let left = interval.saturating_sub(begun.elapsed());
        if stopped.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
            return Ok(Outcome::Interrupted(format!(
                "after {}",
                counted(looks, "look")
            )));
        }
        store.refresh()?;
    }
}
