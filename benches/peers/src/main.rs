//! Compares crabkv with other embedded key-value stores, and with what the machine allows.
//!
//! See README.md beside this crate's manifest for what is measured and how each engine is set up.

#[path = "../../common/mod.rs"]
mod common;

mod data;
mod engines;
mod machine;
mod measures;
mod report;
mod runner;
mod workloads;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use engines::{About, ENGINES, Outcome};
use report::{Run, bars, markdown, plot};
use runner::{Part, Plan};
use workloads::{Answer, Job};

/// Compares crabkv with other embedded key-value stores
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, print tables and the bars, write JSON, markdown and plots
    Run(RunArguments),
    /// Draw the plots again from saved JSON, of one or several numbers of keys
    Plot {
        /// What `run` has written
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where the plots go
        #[arg(long, default_value = ".")]
        out: PathBuf,
    },
    /// Print the tables and the bars again from saved JSON
    Show {
        /// What `run` has written
        file: PathBuf,
    },
    #[command(hide = true)]
    Job { job: String },
}

#[derive(clap::Args)]
struct RunArguments {
    /// How many keys there are
    #[arg(long, default_value_t = 1_000_000, value_parser = parse_count)]
    keys: usize,
    /// Which engines, by name, with commas between; default: all
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// What to measure, with commas between; default: everything
    #[arg(long, value_delimiter = ',')]
    measures: Vec<Part>,
    /// How often; figures are medians
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long one rate is measured, in seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How many keys there are with values of 1 KiB, and with values of 16 KiB; default: 32768 or
    /// `--keys`, whichever is less
    #[arg(long, value_parser = parse_count)]
    large_keys: Option<usize>,
    /// Few keys, one round: does everything work?
    #[arg(long)]
    quick: bool,
    /// Where results.json, tables.md and the plots go; default: nowhere
    #[arg(long)]
    out: Option<PathBuf>,
    /// On which disk: a directory is made in here, and removed; default: beside this program
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How long one step may take for one engine, in seconds
    #[arg(long, default_value_t = 3600)]
    timeout: u64,
}

const QUICK_KEYS: usize = 20_000;
const QUICK_LARGE_KEYS: usize = 1_000;
const QUICK_SECONDS: f64 = 0.05;
const QUICK_QUIET_SECONDS: f64 = 0.5;
/// Longer than the intervals at which the engines look for work in the background.
const QUIET_SECONDS: f64 = 6.0;
const LARGE_KEYS: usize = 32_768;

/// `100k`, `10M` or digits, with underscores between them.
fn parse_count(text: &str) -> Result<usize, String> {
    let text = text.replace('_', "");
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1_000_000),
            None => (&text[..], 1),
        },
    };
    let count: usize = digits
        .parse()
        .map_err(|_| "expected a number, such as 100k or 10M".to_owned())?;
    match count.checked_mul(unit) {
        Some(count) if count >= 1_000 => Ok(count),
        _ => Err("at least 1000".to_owned()),
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Plot { files, out } => draw(&files, &out).map(|()| true),
        Command::Show { file } => show(&file).map(|()| true),
        Command::Job { job } => do_job(&job).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crabkv-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Gives whether everything could be measured.
fn run(arguments: &RunArguments) -> Outcome<bool> {
    let beside = std::env::current_exe()?;
    let beside = beside.parent().unwrap_or(Path::new("."));
    let dir = tempfile::Builder::new()
        .prefix("peers-")
        .tempdir_in(arguments.dir.as_deref().unwrap_or(beside))?;
    let left_behind = dir.path().to_owned();
    ctrlc::set_handler(move || runner::give_up(&left_behind))?;
    if let Some(out) = &arguments.out {
        fs::create_dir_all(out)?;
    }
    let run = runner::run(plan(arguments, dir.path())?);
    dir.close()?;

    print!("{}", markdown::tables(&run));
    print!("{}", markdown::bars(&bars::judge(&run)));
    if let Some(out) = &arguments.out {
        fs::write(out.join("results.json"), run.to_json()?)?;
        let tables = markdown::tables(&run) + &markdown::bars(&bars::judge(&run));
        fs::write(out.join("tables.md"), tables)?;
        plot::draw(std::slice::from_ref(&run), out)?;
        eprintln!(
            "written: results.json, tables.md and plots in {}",
            out.display()
        );
    }
    Ok(run.engines.iter().all(|engine| engine.failures.is_empty()))
}

fn plan(arguments: &RunArguments, dir: &Path) -> Outcome<Plan> {
    let quick = arguments.quick;
    let keys = if quick { QUICK_KEYS } else { arguments.keys };
    let large_keys = if quick { QUICK_LARGE_KEYS } else { LARGE_KEYS };
    let parts: &[Part] = match &arguments.measures[..] {
        [] => clap::ValueEnum::value_variants(),
        some => some,
    };
    Ok(Plan {
        engines: engines_named(&arguments.engines)?,
        parts: parts.iter().copied().collect(),
        keys,
        large_keys: arguments.large_keys.unwrap_or(large_keys).min(keys),
        rounds: if quick { 1 } else { arguments.rounds.max(1) },
        seconds: if quick {
            QUICK_SECONDS
        } else {
            arguments.seconds
        },
        quiet_seconds: if quick {
            QUICK_QUIET_SECONDS
        } else {
            QUIET_SECONDS
        },
        patience: Duration::from_secs(arguments.timeout),
        dir: dir.to_owned(),
    })
}

/// In the order in which they take turns, whatever order they are named in.
fn engines_named(names: &[String]) -> Outcome<Vec<&'static About>> {
    if let Some(name) = names.iter().find(|name| engines::about(name).is_none()) {
        let all: Vec<_> = ENGINES.iter().map(|about| about.name).collect();
        return Err(format!("there is no engine {name:?}; there are {}", all.join(", ")).into());
    }
    let is_named = |about: &&About| names.is_empty() || names.iter().any(|name| name == about.name);
    Ok(ENGINES.iter().copied().filter(is_named).collect())
}

fn draw(files: &[PathBuf], out: &Path) -> Outcome<()> {
    let runs: Vec<_> = files
        .iter()
        .map(|file| load(file))
        .collect::<Outcome<_>>()?;
    fs::create_dir_all(out)?;
    plot::draw(&runs, out)
}

fn show(file: &Path) -> Outcome<()> {
    let run = load(file)?;
    print!("{}", markdown::tables(&run));
    print!("{}", markdown::bars(&bars::judge(&run)));
    Ok(())
}

fn load(file: &Path) -> Outcome<Run> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(Run::from_json(&text).map_err(|e| format!("{}: {e}", file.display()))?)
}

/// Does one job, answers, and waits to be killed.
fn do_job(job: &str) -> Outcome<()> {
    let job: Job = serde_json::from_str(job)?;
    std::thread::spawn(|| {
        // Nothing is ever written to it; it ends with the process that waits for the answer.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let answer = workloads::run(&job).unwrap_or_else(|failure| Answer {
        failure: Some(failure.to_string()),
        ..Answer::default()
    });
    println!("{}", serde_json::to_string(&answer)?);
    loop {
        std::thread::park();
    }
}
