//! What a run has found, as data: figures by round, medians, ratios.

pub(crate) mod bars;
pub(crate) mod markdown;
pub(crate) mod plot;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::common::median;
use crate::engines::{self, About, BARE, OURS};
use crate::machine::Machine;
use crate::runner::{Plan, VALUE_LEN};

/// A run: everything that tables and plots are made of.
#[derive(Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) keys: usize,
    pub(crate) value_len: usize,
    /// How many keys there are with values of 1 KiB, and of 16 KiB.
    pub(crate) large_keys: usize,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) engines: Vec<EngineRun>,
    /// The bars as they were judged: for other programs; they are judged again when shown.
    bars: Vec<bars::Judged>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct EngineRun {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) figures: BTreeMap<String, Figure>,
    pub(crate) failures: Vec<String>,
}

/// One measure of one engine.
#[derive(Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    /// Median of the rounds' ratios to the bare baseline.
    of_bare: Option<f64>,
    /// Median of the rounds' ratios of crabkv's figure to this one.
    crabkv_to_this: Option<f64>,
    rounds: Vec<Option<f64>>,
}

impl EngineRun {
    pub(crate) fn new(
        about: &About,
        figures: BTreeMap<String, Vec<Option<f64>>>,
        failures: Vec<String>,
    ) -> EngineRun {
        let figures = figures.into_iter().filter_map(|(measure, rounds)| {
            let median = middle(rounds.iter().copied())?;
            let figure = Figure {
                median,
                of_bare: None,
                crabkv_to_this: None,
                rounds,
            };
            Some((measure, figure))
        });
        EngineRun {
            name: about.name.to_owned(),
            version: version_of(about.package),
            figures: figures.collect(),
            failures,
        }
    }
}

impl Run {
    pub(crate) fn new(plan: &Plan, engines: Vec<EngineRun>) -> Run {
        let mut run = Run {
            machine: Machine::this(),
            keys: plan.keys,
            value_len: VALUE_LEN,
            large_keys: plan.large_keys,
            rounds: plan.rounds,
            seconds: plan.seconds,
            engines,
            bars: Vec::new(),
        };
        let ratios: Vec<_> = run
            .engines
            .iter()
            .flat_map(|engine| engine.figures.keys().map(|measure| (&engine.name, measure)))
            .map(|(engine, measure)| {
                (
                    run.ratio((engine, measure), (BARE, measure)),
                    run.ratio((OURS, measure), (engine, measure)),
                )
            })
            .collect();
        let figures = run
            .engines
            .iter_mut()
            .flat_map(|engine| engine.figures.values_mut());
        for (figure, (of_bare, crabkv_to_this)) in figures.zip(ratios) {
            figure.of_bare = of_bare;
            figure.crabkv_to_this = crabkv_to_this;
        }
        run.bars = bars::judge(&run);
        run
    }

    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    pub(crate) fn from_json(text: &str) -> serde_json::Result<Run> {
        serde_json::from_str(text)
    }

    pub(crate) fn engine(&self, name: &str) -> Option<&EngineRun> {
        self.engines.iter().find(|engine| engine.name == name)
    }

    pub(crate) fn median(&self, engine: &str, measure: &str) -> Option<f64> {
        Some(self.engine(engine)?.figures.get(measure)?.median)
    }

    /// The median of the ratios of one figure to another, round by round.
    pub(crate) fn ratio(&self, one: (&str, &str), other: (&str, &str)) -> Option<f64> {
        let rounds = |(engine, measure): (&str, &str)| {
            Some(&self.engine(engine)?.figures.get(measure)?.rounds)
        };
        let ratios = rounds(one)?
            .iter()
            .zip(rounds(other)?)
            .map(|(one, other)| Some((*one)? / (*other)?));
        middle(ratios).filter(|ratio| ratio.is_finite())
    }

    /// The engines but the baseline and ours.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &EngineRun> {
        self.engines
            .iter()
            .filter(|engine| engine.name != BARE && engine.name != OURS)
    }

    /// Whether anybody has a figure for it.
    fn has(&self, measure: &str) -> bool {
        self.engines
            .iter()
            .any(|engine| engine.figures.contains_key(measure))
    }

    /// Why an engine has no figure; `None` if it has one, or nobody has.
    fn reason(&self, engine: &EngineRun, measure: &str) -> Option<&'static str> {
        if engine.figures.contains_key(measure) || !self.has(measure) {
            return None;
        }
        let known = engines::about(&engine.name).and_then(|about| about.lack(measure));
        Some(known.unwrap_or("failed, see below"))
    }
}

fn middle(figures: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let figures: Vec<_> = figures.flatten().collect();
    (!figures.is_empty()).then(|| median(figures))
}

/// The version of a package that this program was built with.
fn version_of(package: &str) -> String {
    let name = format!("name = \"{package}\"");
    let mut lines = include_str!("../../Cargo.lock").lines();
    lines.find(|line| *line == name);
    let version = lines.next().and_then(|line| line.split('"').nth(1));
    version.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of these figures: engine, measure, a figure for each of two rounds.
    pub(super) fn run(figures: &[(&'static str, &str, [f64; 2])]) -> Run {
        let mut by_engine: BTreeMap<&str, BTreeMap<String, Vec<Option<f64>>>> = BTreeMap::new();
        for (engine, measure, rounds) in figures {
            let rounds = rounds.iter().copied().map(Some).collect();
            by_engine
                .entry(engine)
                .or_default()
                .insert((*measure).to_owned(), rounds);
        }
        let engines = by_engine.into_iter().map(|(name, figures)| {
            let about = engines::about(name).unwrap();
            EngineRun::new(about, figures, Vec::new())
        });
        let plan = Plan {
            engines: Vec::new(),
            parts: std::collections::BTreeSet::new(),
            keys: 1_000_000,
            large_keys: 1000,
            rounds: 2,
            seconds: 1.0,
            quiet_seconds: 1.0,
            patience: std::time::Duration::ZERO,
            dir: std::path::PathBuf::new(),
        };
        Run::new(&plan, engines.collect())
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // The machine has become ten times slower, for both.
        let run = run(&[
            ("bare", "get", [1000.0, 100.0]),
            ("crabkv", "get", [700.0, 80.0]),
        ]);
        assert_eq!(run.ratio(("crabkv", "get"), ("bare", "get")), Some(0.8));
        let json = run.to_json().unwrap();
        let run = Run::from_json(&json).unwrap();
        assert_eq!(
            run.engine("crabkv").unwrap().figures["get"].of_bare,
            Some(0.8)
        );
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        assert!(version_of("sled").starts_with("0.34."));
        assert_eq!(version_of("no such package"), "unknown");
    }
}
