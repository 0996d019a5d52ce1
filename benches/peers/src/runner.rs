//! Runs the jobs, each in a process of its own, and gathers what they answer.
//!
//! A round does each task with all engines, one after the other, before the next task: a machine
//! that becomes slower meanwhile is as slow for all of them, and ratios are taken within a round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::common::Key;
use crate::engines::{About, BARE, Durability, Outcome, Place};
use crate::machine::disk_bytes;
use crate::report::{EngineRun, Run};
use crate::workloads::{Answer, Job, Task};

/// What can be asked for with `--measures`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Part {
    /// Loading one put at a time, kill -9, opening again
    Put,
    /// Loading in batches of 1,000; the disk it takes
    Batch,
    /// Gets from memory, iteration, opening, memory
    Reads,
    /// Opening and gets with nothing in the page cache
    Cold,
    /// YCSB A, B and C
    Ycsb,
    /// Overwriting everything five times; the disk it takes (in the first round)
    Overwrite,
    /// Durable puts of 1 and 8 threads
    Durable,
    /// Gets of values of 1 KiB and 16 KiB
    Large,
}

/// What to run.
pub(crate) struct Plan {
    pub(crate) engines: Vec<&'static About>,
    pub(crate) parts: BTreeSet<Part>,
    pub(crate) keys: usize,
    pub(crate) large_keys: usize,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// How long an engine does nothing before it counts as at rest.
    pub(crate) quiet_seconds: f64,
    /// How long one job may take.
    pub(crate) patience: Duration,
    /// Everything is in here, and removed in the end by whoever made it.
    pub(crate) dir: PathBuf,
}

pub(crate) const VALUE_LEN: usize = 100;
const LARGE: [usize; 2] = [1 << 10, 16 << 10];

struct Runner {
    plan: Plan,
    /// By engine and measure, a figure for each round.
    figures: BTreeMap<(&'static str, String), Vec<Option<f64>>>,
    failures: BTreeMap<&'static str, Vec<String>>,
    /// Engines whose directory `main` holds what loading has written, and nothing else.
    loaded: BTreeSet<&'static str>,
    round: usize,
}

pub(crate) fn run(plan: Plan) -> Run {
    let mut runner = Runner {
        plan,
        figures: BTreeMap::new(),
        failures: BTreeMap::new(),
        loaded: BTreeSet::new(),
        round: 0,
    };
    for round in 0..runner.plan.rounds {
        runner.round = round;
        runner.round();
    }
    runner.into_run()
}

impl Runner {
    fn round(&mut self) {
        let engines = self.plan.engines.clone();
        let parts = self.plan.parts.clone();
        let wants = |part| parts.contains(&part);
        if wants(Part::Put) {
            for about in &engines {
                self.put_and_kill(about);
            }
        }
        let main = [Part::Batch, Part::Reads, Part::Cold, Part::Ycsb];
        if main.into_iter().any(wants) {
            for about in &engines {
                if wants(Part::Batch) || !self.loaded.contains(about.name) {
                    self.load(about);
                }
            }
        }
        if wants(Part::Reads) {
            self.each_loaded(&engines, "reads", Task::Reads);
        }
        if wants(Part::Cold) {
            self.each_loaded(&engines, "cold_p50", Task::Cold);
        }
        if wants(Part::Ycsb) {
            self.each_loaded(&engines, "ycsb_a", Task::Ycsb);
        }
        if wants(Part::Ycsb) {
            self.loaded.clear();
        }
        if wants(Part::Overwrite) && self.round == 0 {
            for about in &engines {
                self.overwrite(about);
            }
        }
        if wants(Part::Durable) {
            for about in &engines {
                self.durable(about);
            }
        }
        if wants(Part::Large) {
            for len in LARGE {
                for about in &engines {
                    self.large(about, len);
                }
            }
        }
    }

    fn put_and_kill(&mut self, about: &'static About) {
        if about.lack("put").is_some() {
            return;
        }
        let place = self.place(about, "put", Durability::Relaxed);
        if self.fresh(about, &place) && self.job(about, Task::Put, "put", &place) {
            self.job(about, Task::AfterKill, "after kill -9", &place);
        }
        self.remove(about, &place.dir);
    }

    /// Loads an engine for what is measured next.
    fn load(&mut self, about: &'static About) {
        let place = self.place(about, "main", Durability::Relaxed);
        if !self.fresh(about, &place) {
            return;
        }
        let is_loaded = about.name == BARE || self.job(about, Task::Batch, "batch", &place);
        if is_loaded {
            self.loaded.insert(about.name);
        } else {
            self.loaded.remove(about.name);
        }
        if about.name != BARE && is_loaded {
            self.note_disk(about, "disk_loaded", &place);
        }
    }

    fn each_loaded(&mut self, engines: &[&'static About], measure: &str, task: Task) {
        for about in engines {
            if about.lack(measure).is_some() || !self.loaded.contains(about.name) {
                continue;
            }
            let place = self.place(about, "main", Durability::Relaxed);
            let name = format!("{task:?}").to_lowercase();
            self.job(about, task, &name, &place);
        }
    }

    /// Overwrites a store of its own, which has been through nothing else.
    fn overwrite(&mut self, about: &'static About) {
        if about.lack("overwrite").is_some() {
            return;
        }
        let place = self.place(about, "overwritten", Durability::Relaxed);
        if self.fresh(about, &place)
            && self.load_silently(about, "overwrite, load", &place)
            && self.job(about, Task::Overwrite, "overwrite", &place)
        {
            self.note_disk(about, "disk_overwritten", &place);
        }
        self.remove(about, &place.dir);
    }

    /// Loads without keeping the figures: they would be of another store than those of `batch`.
    fn load_silently(&mut self, about: &'static About, label: &str, place: &Place) -> bool {
        let answer = self.ask(about, Task::Batch, label, place);
        if let Err(failure) = &answer {
            self.fail(about, label, &failure.to_string());
        }
        answer.is_ok()
    }

    fn durable(&mut self, about: &'static About) {
        if about.lack("durable_1").is_some() {
            return;
        }
        let place = self.place(about, "durable", Durability::Durable);
        if self.fresh(about, &place) {
            self.job(about, Task::Durable, "durable", &place);
        }
        self.remove(about, &place.dir);
    }

    /// Loaded once, read in each round.
    fn large(&mut self, about: &'static About, len: usize) {
        let place = Place {
            keys: self.plan.large_keys,
            value_len: len,
            ..self.place(about, &format!("large-{len}"), Durability::Relaxed)
        };
        let name = format!("{} KiB", len >> 10);
        if self.round == 0 && self.fresh(about, &place) && about.name != BARE {
            let label = format!("{name}, load");
            if !self.load_silently(about, &label, &place) {
                self.remove(about, &place.dir);
            }
        }
        if place.dir.exists() {
            self.job(about, Task::Sized, &name, &place);
        }
        if self.round + 1 == self.plan.rounds {
            self.remove(about, &place.dir);
        }
    }

    fn place(&self, about: &About, name: &str, durability: Durability) -> Place {
        Place {
            dir: self.plan.dir.join(format!("{}-{name}", about.name)),
            durability,
            keys: self.plan.keys,
            value_len: VALUE_LEN,
        }
    }

    /// Makes the directory, or makes it empty.
    fn fresh(&mut self, about: &'static About, place: &Place) -> bool {
        self.remove(about, &place.dir);
        match fs::create_dir(&place.dir) {
            Ok(()) => true,
            Err(error) => {
                self.fail(about, "making a directory", &error.to_string());
                false
            }
        }
    }

    fn remove(&mut self, about: &'static About, dir: &Path) {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                self.fail(about, "removing a directory", &error.to_string());
            }
            _ => {}
        }
    }

    fn note_disk(&mut self, about: &'static About, measure: &str, place: &Place) {
        let live = place.keys * (size_of::<Key>() + place.value_len);
        match disk_bytes(&place.dir) {
            Ok(bytes) => self.note(about, measure, bytes as f64 / live as f64),
            Err(error) => self.fail(about, measure, &error.to_string()),
        }
    }

    fn note(&mut self, about: &'static About, measure: &str, figure: f64) {
        let rounds = self
            .figures
            .entry((about.name, measure.to_owned()))
            .or_insert_with(|| vec![None; self.plan.rounds]);
        rounds[self.round] = Some(figure);
    }

    fn fail(&mut self, about: &'static About, label: &str, failure: &str) {
        eprintln!("{}: {label}: failed: {failure}", about.name);
        let failure = format!("round {}, {label}: {failure}", self.round + 1);
        self.failures.entry(about.name).or_default().push(failure);
    }

    /// Has a job done, and notes its figures.
    fn job(&mut self, about: &'static About, task: Task, label: &str, place: &Place) -> bool {
        match self.ask(about, task, label, place) {
            Ok(answer) => {
                for (measure, figure) in answer.figures {
                    self.note(about, &measure, figure);
                }
                true
            }
            Err(failure) => {
                self.fail(about, label, &failure.to_string());
                false
            }
        }
    }

    fn ask(&self, about: &About, task: Task, label: &str, place: &Place) -> Outcome<Answer> {
        let job = Job {
            engine: about.name.to_owned(),
            task,
            place: place.clone(),
            seconds: self.plan.seconds,
            quiet_seconds: self.plan.quiet_seconds,
        };
        let start = Instant::now();
        let answer = in_own_process(&job, self.plan.patience);
        eprintln!(
            "round {}/{}  {label:<14} {:<14} {:>6.1} s",
            self.round + 1,
            self.plan.rounds,
            about.name,
            start.elapsed().as_secs_f64()
        );
        answer
    }

    fn into_run(self) -> Run {
        let engines = self.plan.engines.iter().map(|about| {
            let figures = self
                .figures
                .iter()
                .filter(|((engine, _), _)| *engine == about.name)
                .map(|((_, measure), rounds)| (measure.clone(), rounds.clone()))
                .collect();
            let failures = self.failures.get(about.name).cloned().unwrap_or_default();
            EngineRun::new(about, figures, failures)
        });
        let engines = engines.collect();
        Run::new(&self.plan, engines)
    }
}

/// The process that is at work.
static AT_WORK: Mutex<Option<Child>> = Mutex::new(None);

fn at_work() -> MutexGuard<'static, Option<Child>> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process that is at work, starts no other, removes the directory, and ends this one: for
/// a signal, after which nothing is dropped.
pub(crate) fn give_up(dir: &Path) -> ! {
    let mut at_work = at_work();
    if let Some(mut child) = at_work.take() {
        // If either fails, it has ended.
        let _ = child.kill();
        let _ = child.wait();
    }
    if let Err(error) = fs::remove_dir_all(dir) {
        eprintln!("crabkv-peers: {}: {error}", dir.display());
    }
    std::process::exit(130)
}

/// Starts this program again for one job. It is killed, as `kill -9` does it, once it has answered,
/// or when it takes too long.
fn in_own_process(job: &Job, patience: Duration) -> Outcome<Answer> {
    let mut started = at_work();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["job", &serde_json::to_string(job)?])
        // It ends when this is closed, so that none outlives this process.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("a process without an output")?;
    *started = Some(child);
    drop(started);

    let (sender, receiver) = mpsc::channel();
    let listener = std::thread::spawn(move || {
        let line = BufReader::new(stdout)
            .lines()
            .find(|line| !matches!(line, Ok(line) if !line.starts_with('{')));
        // If nobody waits any more, nobody needs it.
        let _ = sender.send(line);
    });
    let line = receiver.recv_timeout(patience);
    if let Some(mut child) = at_work().take() {
        child.kill()?;
        child.wait()?;
    }
    listener.join().map_err(|_| "the listener failed")?;
    let line = line.map_err(|_| "it took too long")?;
    let line = line.ok_or("it ended without an answer")??;
    let answer: Answer = serde_json::from_str(&line)?;
    match answer.failure {
        Some(failure) => Err(failure.into()),
        None => Ok(answer),
    }
}
