//! Cases to be measured: by Criterion one after the other, and for the table of ratios in turn.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Throughput};

use crate::common::{median, mix};

/// One thing to measure, and what to compare it with.
pub(crate) struct Case<'a> {
    pub(crate) name: String,
    /// Does it so many times; gives the time it took.
    run: Box<dyn Fn(u64) -> Duration + 'a>,
    /// How often it is done in a round of the table.
    times: u64,
    /// How many keys it deals with each time.
    keys: u64,
    compared: Vec<(String, Compared)>,
}

enum Compared {
    /// Time by time: how near it comes to a limit.
    Slower,
    /// Throughput by throughput: what more threads, or more keys at a time, are worth.
    Faster,
}

impl<'a> Case<'a> {
    /// Something that deals with one key each time, and is done so many times in a round.
    pub(crate) fn new(
        name: impl Into<String>,
        times: usize,
        run: impl Fn(u64) -> Duration + 'a,
    ) -> Case<'a> {
        Case {
            name: name.into(),
            run: Box::new(run),
            times: times as u64,
            keys: 1,
            compared: Vec::new(),
        }
    }

    /// It deals with so many keys each time; figures are for one of them.
    pub(crate) fn of_keys(self, keys: usize) -> Case<'a> {
        let keys = keys as u64;
        Case { keys, ..self }
    }

    pub(crate) fn slower_than(mut self, other: impl Into<String>) -> Case<'a> {
        self.compared.push((other.into(), Compared::Slower));
        self
    }

    pub(crate) fn faster_than(mut self, other: impl Into<String>) -> Case<'a> {
        self.compared.push((other.into(), Compared::Faster));
        self
    }

    /// Nanoseconds for each key, over a round.
    #[expect(clippy::cast_precision_loss, reason = "a count of keys")]
    fn round(&self) -> f64 {
        (self.run)(self.times).as_secs_f64() * 1e9 / (self.times * self.keys) as f64
    }
}

/// Lets Criterion measure each case.
pub(crate) fn bench(group: &mut BenchmarkGroup<'_, WallTime>, cases: &[Case<'_>]) {
    for case in cases {
        group.throughput(Throughput::Elements(case.keys));
        group.bench_function(&case.name, |bencher| bencher.iter_custom(&case.run));
    }
}

/// Runs all cases in turn, several times over, so that a noisy machine is equally hard on all, and
/// prints how they compare: the medians, and the best rounds, which tell more when the machine has
/// other things to do. Each round has another order: what a case leaves behind, in caches or for the
/// disk to do, is not always left to the same one.
///
/// # Panics
///
/// When a case is compared with one that is not there.
pub(crate) fn print_ratios(what: &str, rounds: usize, cases: &[Case<'_>]) {
    let mut times = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        let mut order: Vec<_> = (0..cases.len()).collect();
        order.sort_unstable_by_key(|at| mix((round << 32 | at) as u64));
        for at in order {
            times[at].push(cases[at].round());
        }
    }
    let best = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    let figures: Vec<_> = times
        .into_iter()
        .map(|times| (best(&times), median(times)))
        .collect();
    let width = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
    println!("\n{what}, {rounds} rounds, nanoseconds for each key\n");
    println!("{:<width$} {:>9} {:>9}   compared", "", "median", "best");
    for (case, (best, median)) in cases.iter().zip(&figures) {
        let compared = case.compared.iter().map(|(other, how)| {
            let at = cases.iter().position(|case| case.name == *other);
            let at = at.unwrap_or_else(|| panic!("there is no case `{other}`"));
            let (their_best, their_median) = figures[at];
            let (ratio, best, words) = match how {
                Compared::Slower => (median / their_median, best / their_best, "the time of"),
                Compared::Faster => (their_median / median, their_best / best, "as fast as"),
            };
            format!("{ratio:.2}x (best {best:.2}x) {words} `{other}`")
        });
        let compared: Vec<_> = compared.collect();
        let line = format!(
            "{:<width$} {median:>9.1} {best:>9.1}   {}",
            case.name,
            compared.join(", ")
        );
        println!("{}", line.trim_end());
    }
}
