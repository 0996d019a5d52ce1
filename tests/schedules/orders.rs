//! How a scenario is run: under shuttle in so many orders of its threads' steps, else a few times
//! on the machine's own threads.
//!
//! | variable | what it does |
//! | --- | --- |
//! | `CRABKV_EFFORT` | multiplies the number of schedules; 500 makes ten million of each scenario |
//! | `CRABKV_SEED` | another seed for all schedules |
//! | `CRABKV_SCHEDULE` | the one schedule to run, by the number that a failure prints; give the test's name, too |

use std::io::Write;
use std::time::Instant;

use crate::common::effort;

/// What a scenario is made of, as the build wants it.
#[cfg(not(shuttle))]
pub(crate) use std::thread;

#[cfg(shuttle)]
pub(crate) use shuttle::thread;

/// How many schedules of each scenario a run of ordinary length tries.
#[cfg(shuttle)]
const SCHEDULES: u64 = 20_000;

/// How often the machine's own threads run each scenario.
#[cfg(not(shuttle))]
const RUNS: u64 = 100;

/// A line of the report, past the test harness, which swallows what a passing test prints.
fn say(what: &str) {
    // In one write, so that the lines of two tests do not mix.
    let line = format!("test bed | {what}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A number with its thousands set apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Runs a scenario again and again; it panics at a violation.
#[cfg(not(shuttle))]
pub(crate) fn explore(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    let begun = Instant::now();
    let runs = effort(RUNS);
    for _ in 0..runs {
        scenario();
    }
    let seconds = begun.elapsed().as_secs_f64();
    say(&format!(
        "threads: {name} | {} runs, 0 violations | {seconds:.1} s",
        grouped(runs)
    ));
}

/// A number below `bound`, another one in each run of a scenario.
#[cfg(not(shuttle))]
pub(crate) fn choose(bound: u64) -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};

    static NEXT: AtomicU64 = AtomicU64::new(1);
    crate::common::Rng(NEXT.fetch_add(1, Ordering::Relaxed)).below(bound)
}

#[cfg(shuttle)]
pub(crate) use scheduled::{choose, explore};

#[cfg(shuttle)]
mod scheduled {
    use std::collections::{HashMap, HashSet};
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::{Arc, Mutex, Once};

    use shuttle::rand::RngCore as _;
    use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
    use shuttle::{Config, FailurePersistence, Runner};

    use super::{Instant, SCHEDULES, effort, grouped, say};
    use crate::common::{Rng, seed};
    use crate::scenarios::PLANTED;

    /// The seed of the first schedule of every run, which tells how long a schedule is.
    const FIRST: u64 = 0;

    /// Up to so many schedules are compared with each other.
    const COMPARED: usize = 20_000;

    /// Which thread goes on, from one number for each schedule: half of them choose any thread at
    /// any step; the other half are PCT, which finds what needs few switches at just the right
    /// steps: each thread has a priority, the highest goes on, and at a few steps, chosen
    /// beforehand, the running one falls behind all others. A thread that yields does, too.
    struct Orders {
        seeds: Box<dyn Iterator<Item = u64> + Send>,
        told: Arc<Mutex<Told>>,
        rng: Rng,
        is_pct: bool,
        priorities: HashMap<usize, u64>,
        /// The next priority below all others.
        lowest: u64,
        change_at: Vec<u64>,
        steps: u64,
        /// Of the first schedule.
        usual_steps: u64,
        choices: u64,
    }

    /// What the schedules tell whoever runs them.
    #[derive(Default)]
    struct Told {
        seed: u64,
        schedules: u64,
        steps: u64,
        distinct: HashSet<u64>,
    }

    impl Orders {
        fn end_schedule(&mut self) {
            let mut told = self.told.lock().unwrap();
            if told.schedules == 1 {
                self.usual_steps = self.steps.max(2);
            }
            told.steps += self.steps;
            if told.distinct.len() < COMPARED {
                told.distinct.insert(self.choices);
            }
        }
    }

    impl Scheduler for Orders {
        fn new_execution(&mut self) -> Option<Schedule> {
            if self.steps > 0 {
                self.end_schedule();
            }
            let seed = self.seeds.next()?;
            let mut told = self.told.lock().unwrap();
            told.seed = seed;
            told.schedules += 1;
            self.rng = Rng(seed);
            self.is_pct = self.rng.chance(50) && seed != FIRST;
            self.priorities.clear();
            self.lowest = u64::MAX / 2;
            self.steps = 0;
            self.choices = 0xcbf2_9ce4_8422_2325;
            self.change_at.clear();
            for _ in 0..1 + self.rng.below(4) {
                self.change_at.push(self.rng.below(self.usual_steps));
            }
            Some(Schedule::new(seed))
        }

        fn next_task(
            &mut self,
            runnable: &[&Task],
            current: Option<TaskId>,
            is_yielding: bool,
        ) -> Option<TaskId> {
            let [first, .., _] = runnable else {
                return runnable.first().map(|task| task.id());
            };
            self.steps += 1;
            let id = if self.is_pct {
                if let Some(current) = current {
                    if is_yielding || self.change_at.contains(&self.steps) {
                        self.lowest -= 1;
                        self.priorities.insert(current.into(), self.lowest);
                    }
                }
                let mut priority = |task: &&&Task| {
                    let high = u64::MAX / 2 + self.rng.below(u64::MAX / 2);
                    *self.priorities.entry(task.id().into()).or_insert(high)
                };
                runnable
                    .iter()
                    .max_by_key(|task| priority(task))
                    .unwrap_or(&first)
                    .id()
            } else {
                runnable[self.rng.below(runnable.len() as u64) as usize].id()
            };
            self.choices = (self.choices ^ usize::from(id) as u64).wrapping_mul(0x100_0000_01b3);
            Some(id)
        }

        fn next_u64(&mut self) -> u64 {
            self.rng.next()
        }
    }

    /// Panics that a scenario plants are not reported, only those that are none of its doing.
    fn silence_planted_panics() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // Shuttle's own hook, which it puts in place at its first run, would print at each.
            shuttle::check_random(|| (), 1);
            drop(std::panic::take_hook());
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if info.payload().downcast_ref() != Some(&PLANTED) {
                    report(info);
                }
            }));
        });
    }

    /// A number below `bound` that belongs to the schedule.
    pub(crate) fn choose(bound: u64) -> u64 {
        shuttle::rand::thread_rng().next_u64() % bound
    }

    /// Runs a scenario under so many schedules; it panics at a violation.
    pub(crate) fn explore(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
        silence_planted_panics();
        let begun = Instant::now();
        let replayed = std::env::var("CRABKV_SCHEDULE").ok();
        let replayed: Option<u64> = replayed.map(|seed| seed.parse().unwrap());
        let wanted = replayed.map_or_else(|| effort(SCHEDULES), |_| 2);
        let mut others = Rng(name.bytes().fold(seed(1), |seed, byte| {
            (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        }));
        let others = std::iter::repeat_with(move || replayed.unwrap_or_else(|| others.next()));
        let told = Arc::new(Mutex::new(Told::default()));
        let orders = Orders {
            seeds: Box::new(std::iter::once(FIRST).chain(others).take(wanted as usize)),
            told: Arc::clone(&told),
            rng: Rng(0),
            is_pct: false,
            priorities: HashMap::new(),
            lowest: 0,
            change_at: Vec::new(),
            steps: 0,
            usual_steps: 2,
            choices: 0,
        };
        let mut config = Config::new();
        config.stack_size = 1 << 18;
        config.failure_persistence = FailurePersistence::None;
        config.silence_warnings = true;
        let run = || Runner::new(orders, config).run(scenario);
        let result = catch_unwind(AssertUnwindSafe(run));
        let told = told.lock().unwrap();
        if let Err(panic) = result {
            let (seed, schedules) = (told.seed, grouped(told.schedules));
            say(&format!(
                "shuttle: {name} | VIOLATION in schedule {schedules}; CRABKV_SCHEDULE={seed} runs it alone"
            ));
            if panic.downcast_ref() == Some(&PLANTED) {
                say("a planted panic went astray");
            }
            resume_unwind(panic);
        }
        let seconds = begun.elapsed().as_secs_f64();
        say(&format!(
            "shuttle: {name} | {} schedules of {} steps, 0 violations | {seconds:.1} s",
            grouped(told.schedules),
            grouped(told.steps / told.schedules)
        ));
        assert!(told.schedules >= wanted);
        let compared = told.schedules.min(COMPARED as u64) as usize;
        assert!(
            replayed.is_some() || told.distinct.len() * 2 >= compared,
            "only {} of {compared} schedules are distinct",
            told.distinct.len()
        );
    }
}
