//! `bench`: what this machine and this disk make of the store. Fills a directory of its own, reads
//! it back, says how fast that was, and removes it.

mod measure;
mod options;
mod phases;
mod report;
mod scratch;
mod workload;
mod works;

use std::path::Path;

use super::context::Context;
use super::exit::{Failure, Outcome};
use super::progress::Progress;
use super::{interrupt, output};
use measure::Stop;
use phases::{Phase, Plan};
use scratch::Scratch;

pub(crate) use options::BenchArgs;

pub(crate) fn run(context: &Context, args: &BenchArgs) -> Result<Outcome, Failure> {
    let plan = args.plan()?;
    // Dropped last: the directory is removed before another Ctrl-C could end the program.
    let _graceful = interrupt::graceful();
    let scratch = match &args.dir {
        Some(dir) => Scratch::at(dir, args.keep)?,
        None => Scratch::beside(&context.options.data_dir, args.keep)?,
    };
    scratch.require(args.most_bytes())?;
    let interrupted = run_in(context, args, &plan, scratch.path())?;
    if args.keep {
        context.note(format_args!("the store is in {}", scratch.path().display()));
    }
    Ok(match interrupted {
        None => Outcome::Done,
        Some(phase) => Outcome::Interrupted(format!(
            "in {}{}",
            phase.name(),
            if args.keep {
                ""
            } else {
                "; what was filled is removed"
            }
        )),
    })
}

/// Does all phases in this directory. Gives the phase in which it was interrupted.
fn run_in(
    context: &Context,
    args: &BenchArgs,
    plan: &Plan,
    dir: &Path,
) -> Result<Option<Phase>, Failure> {
    let json = context.options.json;
    let clock_ns = measure::clock_ns();
    let phases = args.phases();
    let open = || args.open(context, dir);
    let stop = Stop::when(&interrupt::is_requested);
    let mut store = open()?;
    let mut rows = Vec::new();
    if !json {
        output::write_text(&(args.title(plan, dir) + &report::head()))?;
    }
    for (number, &phase) in (0..).zip(&phases) {
        let total = plan.operations(phase).unwrap_or(0);
        let bar = Progress::of_items(context, phase.name(), total);
        let (same, measured) = plan.run(phase, number, store, open, &stop, |done| bar.set(done))?;
        drop(bar);
        store = same;
        if stop.is_requested() {
            return Ok(Some(phase));
        }
        if json {
            rows.extend(measured.iter().map(|lane| report::json_row(phase, lane)));
        } else {
            let text: String = measured.iter().map(report::row).collect();
            output::write_text(&text)?;
        }
    }
    let stats = store.stats();
    if json {
        output::write_json(&args.json(plan, dir, clock_ns, &rows, &stats))?;
    } else {
        output::write_text(&report::notes(plan, &phases, clock_ns, &stats))?;
    }
    if args.keep {
        store.close()?;
    }
    Ok(None)
}
