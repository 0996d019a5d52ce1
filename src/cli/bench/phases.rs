//! The phases of a run: what each measures, for how long, and what the right answers are.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use crabkv::Store;

use super::measure::{self, Done, Lane, Limit, Measured, Stop, Timed};
use super::workload::{Distribution, Keys, Numbers, Rng, Values};
use super::works::{Fill, MANY, Many, Points, Scan};
use crate::cli::exit::Failure;
use crate::cli::text::quoted;

/// Times that a store is opened again at most, and, where operations are counted, at all.
const OPENS: usize = 10;
const COUNTED_OPENS: usize = 3;

/// A part of a run, in the order they come in by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Phase {
    /// Put every key, in batches, each made durable as --durability says
    Fill,
    /// Overwrite single keys
    Put,
    /// Read single keys
    Get,
    /// Read keys that are not there
    GetMiss,
    /// Read 32 keys at a time
    GetMany,
    /// Read and overwrite single keys, as --reads-percent says
    Mixed,
    /// Read everything
    Scan,
    /// Close the store and open it again
    Reopen,
}

impl Phase {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Fill => "fill",
            Phase::Put => "put",
            Phase::Get => "get",
            Phase::GetMiss => "get-miss",
            Phase::GetMany => "get-many",
            Phase::Mixed => "mixed",
            Phase::Scan => "scan",
            Phase::Reopen => "reopen",
        }
    }

    /// The kinds of operations in it.
    fn lanes(self) -> Vec<Lane> {
        let each = |name, noun| Lane {
            name,
            timed: Timed::Each(noun),
        };
        let gets = |name| Lane {
            name,
            timed: Timed::Some("get"),
        };
        match self {
            Phase::Fill => vec![each("fill", "batch")],
            Phase::Put => vec![each("put", "put")],
            Phase::Get => vec![gets("get")],
            Phase::GetMiss => vec![gets("get-miss")],
            Phase::GetMany => vec![each("get-many", "get of 32")],
            Phase::Mixed => vec![gets("mixed get"), each("mixed put", "put")],
            Phase::Scan => vec![each("scan", "scan")],
            Phase::Reopen => vec![each("reopen", "open")],
        }
    }
}

/// What to do, as the options say.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) keys: Keys,
    pub(crate) values: Values,
    pub(crate) threads: u64,
    pub(crate) distribution: Distribution,
    pub(crate) batch: u64,
    pub(crate) reads_percent: u64,
    /// Of the phases that could go on for ever.
    pub(crate) limit: Limit,
    pub(crate) seed: u64,
}

impl Plan {
    /// How many operations a phase is going to have; `None` if it goes by time.
    pub(crate) fn operations(&self, phase: Phase) -> Option<u64> {
        match (phase, self.limit) {
            (Phase::Fill, _) => Some(self.keys.count),
            (Phase::Reopen | Phase::Scan, _) | (_, Limit::Time(_) | Limit::Exhaustion) => None,
            (_, Limit::Operations(operations)) => Some(operations),
        }
    }

    /// Does one phase with the store that `open` opens. `number` tells the phases of a run apart.
    /// Says to `progress` how many operations are done.
    pub(crate) fn run(
        &self,
        phase: Phase,
        number: u64,
        store: Store,
        open: impl Fn() -> Result<Store, Failure>,
        stop: &Stop<'_>,
        progress: impl Fn(u64),
    ) -> Result<(Store, Vec<Measured>), Failure> {
        // What a phase before left in memory is not to be what this one is measured with.
        store.flush()?;
        let lanes = &phase.lanes()[..];
        let threads = 0..self.threads;
        let measured = match phase {
            Phase::Fill => {
                let works = threads.map(|thread| Fill::new(self, &store, thread));
                let works = works.collect();
                let mut measured = measure::run(works, lanes, Limit::Exhaustion, stop, progress)?;
                // It is not filled before all of it is on the disk.
                let begun = Instant::now();
                store.sync()?;
                measured[0].elapsed += begun.elapsed();
                measured
            }
            Phase::Put | Phase::Get | Phase::GetMiss | Phase::Mixed => {
                let works = threads.map(|thread| Points::new(self, &store, phase, number, thread));
                measure::run(works.collect(), lanes, self.limit, stop, progress)?
            }
            Phase::GetMany => {
                let works = threads.map(|thread| Many::new(self, &store, number, thread));
                let limit = match self.limit {
                    Limit::Operations(keys) => Limit::Operations(keys.div_ceil(MANY as u64)),
                    limit => limit,
                };
                measure::run(works.collect(), lanes, limit, stop, progress)?
            }
            Phase::Scan => {
                let works = threads.map(|_| Scan::new(self, &store));
                let limit = match self.limit {
                    Limit::Operations(keys) => {
                        let scans = keys / self.keys.count / self.threads;
                        Limit::Operations(scans.max(1) * self.threads)
                    }
                    limit => limit,
                };
                measure::run(works.collect(), lanes, limit, stop, progress)?
            }
            Phase::Reopen => return self.reopen(lanes[0], store, open, stop, progress),
        };
        Ok((store, measured))
    }

    fn reopen(
        &self,
        lane: Lane,
        mut store: Store,
        open: impl Fn() -> Result<Store, Failure>,
        stop: &Stop<'_>,
        progress: impl Fn(u64),
    ) -> Result<(Store, Vec<Measured>), Failure> {
        let (times, time) = match self.limit {
            Limit::Time(time) => (OPENS, time),
            Limit::Operations(_) | Limit::Exhaustion => (COUNTED_OPENS, Duration::MAX),
        };
        let mut measured = Measured::new(lane);
        for time_left in 0..times {
            store.close()?;
            drop(store);
            let begun = Instant::now();
            store = open()?;
            let latency = begun.elapsed();
            let keys = store.len() as u64;
            if keys != self.keys.count {
                return Err(wrong_count("reopen", self.keys.count, keys));
            }
            measured.record(latency);
            measured.count(Done {
                operations: keys,
                bytes: 0,
            });
            measured.elapsed += latency;
            progress(measured.done.operations);
            if stop.is_requested() || measured.elapsed >= time || time_left + 1 == times {
                break;
            }
        }
        Ok((store, vec![measured]))
    }

    pub(crate) fn numbers(&self, number: u64, thread: u64) -> Numbers {
        let rng = Rng::new(self.seed, number * self.threads + thread);
        let count = self.keys.count;
        Numbers::new(self.distribution, count, (thread, self.threads), rng)
    }

    /// Bytes of a key and its value.
    pub(crate) fn pair_bytes(&self) -> u64 {
        (self.keys.size + self.values.size()) as u64
    }

    /// What the key with this tag is expected to have, and what it had.
    pub(crate) fn check(
        &self,
        phase: Phase,
        key: &[u8],
        tag: u64,
        value: Option<&[u8]>,
    ) -> Result<Done, Failure> {
        let expected = phase != Phase::GetMiss;
        let complaint = match value {
            None if expected => "it has no value",
            Some(_) if !expected => "it has a value, and was never put",
            Some(value) if !self.values.is_of(tag, value) => "it has another value",
            _ => {
                let bytes = value.map_or(0, |_| self.pair_bytes());
                let operations = 1;
                return Ok(Done { operations, bytes });
            }
        };
        Err(wrong(phase, key, complaint))
    }
}

#[cold]
fn wrong(phase: Phase, key: &[u8], complaint: &str) -> Failure {
    Failure::Wrong(format!(
        "wrong answer in {}: key {}: {complaint}; --keep keeps the store to look at",
        phase.name(),
        quoted(key)
    ))
}

#[cold]
pub(crate) fn wrong_count(phase: &str, put: u64, found: u64) -> Failure {
    Failure::Wrong(format!(
        "wrong answer in {phase}: {put} keys were put and {found} are there; --keep keeps the \
         store to look at"
    ))
}

#[cfg(test)]
mod tests {
    use tempfile::{TempDir, tempdir};

    use super::*;

    fn plan() -> Plan {
        Plan {
            keys: Keys {
                count: 100,
                size: 16,
            },
            values: Values::new(20, 1),
            threads: 2,
            distribution: Distribution::Sequential,
            batch: 7,
            reads_percent: 50,
            limit: Limit::Operations(1000),
            seed: 1,
        }
    }

    /// Does these phases, one after the other, and something to the store after the first.
    fn run(
        plan: &Plan,
        phases: &[Phase],
        meddle: impl Fn(&Store),
    ) -> Result<Vec<Measured>, Failure> {
        let dir: TempDir = tempdir().unwrap();
        let open = || Ok(Store::open(dir.path())?);
        let stop = Stop::when(&|| false);
        let mut store = open()?;
        let mut all = Vec::new();
        for (number, &phase) in (0..).zip(phases) {
            let (same, measured) = plan.run(phase, number, store, open, &stop, |_| ())?;
            store = same;
            if number == 0 {
                meddle(&store);
            }
            all.extend(measured);
        }
        Ok(all)
    }

    fn key(number: u64) -> Vec<u8> {
        let mut key = Vec::new();
        plan().keys.append(number, &mut key);
        key
    }

    #[track_caller]
    fn wrong(phase: Phase, meddle: impl Fn(&Store)) -> String {
        match run(&plan(), &[Phase::Fill, phase], meddle) {
            Err(Failure::Wrong(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_phase_counts_what_it_did() {
        let phases = [
            Phase::Fill,
            Phase::Put,
            Phase::Get,
            Phase::GetMiss,
            Phase::GetMany,
            Phase::Scan,
            Phase::Reopen,
            Phase::Mixed,
        ];
        let measured = run(&plan(), &phases, |_| ()).unwrap();
        let counts: Vec<_> = measured
            .iter()
            .map(|lane| (lane.lane.name, lane.done.operations, lane.done.bytes))
            .collect();
        assert_eq!(
            counts[..7],
            [
                ("fill", 100, 3600),
                ("put", 1000, 36_000),
                ("get", 1000, 36_000),
                ("get-miss", 1000, 0),
                // 32 calls of 32 keys.
                ("get-many", 1024, 36_864),
                // Five times each of two threads.
                ("scan", 1000, 36_000),
                ("reopen", 300, 0),
            ]
        );
        let (gets, puts) = (counts[7], counts[8]);
        assert_eq!((gets.0, puts.0), ("mixed get", "mixed put"));
        assert_eq!(gets.1 + puts.1, 1000);
        assert!((400..600).contains(&gets.1), "{gets:?}");
        // 8 batches of at most 7 from each thread's 50 keys.
        assert_eq!(measured[0].latency.len(), 16);
    }

    #[test]
    fn a_wrong_value_is_a_failure_in_every_phase_that_reads() {
        for phase in [Phase::Get, Phase::GetMany, Phase::Scan, Phase::Mixed] {
            let mut plan = plan();
            plan.reads_percent = 100;
            let put = |store: &Store| store.put(key(3), key(4)).unwrap();
            let failure = run(&plan, &[Phase::Fill, phase], put).unwrap_err();
            assert!(matches!(failure, Failure::Wrong(_)), "{failure}");
            let message = failure.to_string();
            let start = format!("wrong answer in {}: key \"", phase.name());
            assert!(message.starts_with(&start), "{message}");
            assert!(message.contains("it has another value"), "{message}");
        }
    }

    #[test]
    fn a_missing_key_is_a_failure_in_every_phase_that_reads() {
        let delete = |store: &Store| assert!(store.delete(key(3)).unwrap());
        for phase in [Phase::Get, Phase::GetMany] {
            let message = wrong(phase, delete);
            assert!(message.contains("it has no value"), "{message}");
        }
        for phase in [Phase::Scan, Phase::Reopen] {
            let message = wrong(phase, delete);
            let expected = "100 keys were put and 99 are there";
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_key_that_was_never_put_is_a_failure() {
        let put = |store: &Store| store.put(key(103), "x").unwrap();
        let message = wrong(Phase::GetMiss, put);
        assert!(message.contains("was never put"), "{message}");
    }

    #[test]
    fn values_of_no_bytes_are_put_and_found() {
        let mut plan = plan();
        plan.values = Values::new(0, 1);
        let phases = [Phase::Fill, Phase::Put, Phase::Get, Phase::Scan];
        run(&plan, &phases, |_| ()).unwrap();
    }
}
