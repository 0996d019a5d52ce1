//! The bars that crabkv is held to, each a ratio within one run, or a plain limit.

use serde::{Deserialize, Serialize};

use super::Run;
use crate::engines::{BARE, OURS};

/// LMDB, as heed opens it.
const LMDB: &str = "heed";
const SIMD: &str = "simd-r-drive";
/// "The same at both sizes": within a tenth.
const SAME: f64 = 0.9;
/// From so many keys on, the bars of ten million hold.
const MANY_KEYS: usize = 10_000_000;
/// For so many keys there is a limit on how long reopening takes.
const REOPEN_KEYS: usize = 1_000_000;

/// A bar, and whether it is met.
#[derive(Serialize, Deserialize)]
pub(crate) struct Judged {
    pub(crate) what: String,
    pub(crate) bar: String,
    pub(crate) measured: Option<f64>,
    pub(crate) met: Met,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Met {
    Yes,
    No,
    NotMeasured,
}

/// Every bar, in order.
pub(crate) fn judge(run: &Run) -> Vec<Judged> {
    let mut bars = Bars {
        run,
        judged: Vec::new(),
    };
    bars.gets();
    bars.larger_values();
    bars.writes();
    bars.ycsb();
    bars.room();
    bars.opening();
    bars.judged
}

struct Bars<'r> {
    run: &'r Run,
    judged: Vec<Judged>,
}

impl Bars<'_> {
    fn gets(&mut self) {
        self.of_bare("get", "get", 0.67);
        if self.run.keys < MANY_KEYS {
            self.times("get", "get", LMDB, 5.0);
            self.times("get", "get", SIMD, 2.0);
        } else {
            self.times("get", "get", LMDB, 6.0);
            self.times_best("get", "get", 3.0);
        }
        self.of_bare("dependent get", "dependent", 0.8);
        self.times("dependent get", "dependent", LMDB, 2.2);
        self.own("get, 2 threads against 1", "get_2", "get", 1.9);
        self.times("zipfian, 2 threads", "zipf_2", LMDB, 3.5);
        self.times_best("zipfian, 2 threads", "zipf_2", 2.0);
        self.of_bare("miss", "miss", 0.8);
        self.times("miss", "miss", LMDB, 8.0);
        self.own("get by guard against the reader", "guard", "get", 0.7);
        self.own(
            "get_many of 32 against the reader",
            "get_many_32",
            "get",
            1.5,
        );
        self.own(
            "get_many of 64 against the reader",
            "get_many_64",
            "get",
            1.5,
        );
        self.times("iteration, MB/s", "iterate", LMDB, 0.8);
    }

    fn larger_values(&mut self) {
        self.of_bare("get of 1 KiB", "get_1k", 0.67);
        self.of_bare("get of 16 KiB", "get_16k", 0.67);
        self.own("get of 16 KiB against 1 KiB", "get_16k", "get_1k", SAME);
    }

    fn writes(&mut self) {
        // What an engine answers for and loses is no put that survives.
        let (run, measure) = (self.run, "put");
        let peers = run
            .peers()
            .filter(|peer| run.median(&peer.name, "put_lost") == Some(0.0))
            .map(|peer| &peer.name[..]);
        let hardest = self.hardest(measure, peers);
        self.at_least_as_best(
            "put, relaxed, of those who lose nothing by kill -9",
            hardest,
            1.5,
        );
        let lost = run.median(OURS, "put_lost");
        self.at_most("acknowledged puts lost by kill -9, %", lost, 0.0);

        self.times("batches of 1,000", "batch", SIMD, 0.9);
        let others = safe_peers(self.run).filter(|name| *name != SIMD);
        let hardest = self.hardest("batch", others);
        self.at_least_as_best(&format!("batches of 1,000, {SIMD} aside"), hardest, 4.0);

        self.times_best("durable put", "durable_1", 1.0);
        self.times_best("durable put, 8 threads", "durable_8", 1.3);
        self.own(
            "durable put, 8 threads against 1",
            "durable_8",
            "durable_1",
            4.0,
        );
    }

    fn ycsb(&mut self) {
        for (what, measure) in [("YCSB A", "ycsb_a"), ("YCSB B", "ycsb_b")] {
            let hardest = self.hardest(measure, safe_peers(self.run));
            self.at_least_as_best(&format!("{what}, 2 threads"), hardest, 2.0);
        }
        self.times_best("YCSB C, 2 threads", "ycsb_c", 2.0);
    }

    fn room(&mut self) {
        let run = self.run;
        let index = run.median(OURS, "index");
        self.at_most("index, bytes per key, averaged over growth", index, 20.0);
        let loaded = run.median(OURS, "disk_loaded");
        self.at_most("disk / live after load", loaded, 1.3);
        let overwritten = run.median(OURS, "disk_overwritten");
        self.at_most("disk / live after five overwrites", overwritten, 1.6);
    }

    fn opening(&mut self) {
        let run = self.run;
        if run.keys <= REOPEN_KEYS {
            self.at_most("reopen, clean, ms", run.median(OURS, "reopen"), 100.0);
            let killed = run.median(OURS, "reopen_killed");
            self.at_most("reopen after kill -9, ms", killed, 100.0);
        }
        for (what, measure, limit) in [
            ("cold get, p50, times that of LMDB", "cold_p50", 1.2),
            (
                "cold get, bytes read, times those of LMDB",
                "cold_bytes",
                1.5,
            ),
        ] {
            let ratio = run.ratio((OURS, measure), (LMDB, measure));
            self.at_most(what, ratio, limit);
        }
    }

    fn of_bare(&mut self, what: &str, measure: &str, least: f64) {
        let ratio = self.run.ratio((OURS, measure), (BARE, measure));
        self.at_least(format!("{what}, of the bare baseline"), ratio, least);
    }

    fn times(&mut self, what: &str, measure: &str, peer: &str, least: f64) {
        let ratio = self.run.ratio((OURS, measure), (peer, measure));
        let peer = if peer == LMDB { "LMDB" } else { peer };
        self.at_least(format!("{what}, times {peer}"), ratio, least);
    }

    fn times_best(&mut self, what: &str, measure: &str, least: f64) {
        let peers = self.run.peers().map(|peer| &peer.name[..]);
        let hardest = self.hardest(measure, peers);
        self.at_least_as_best(what, hardest, least);
    }

    fn own(&mut self, what: &str, measure: &str, other: &str, least: f64) {
        let ratio = self.run.ratio((OURS, measure), (OURS, other));
        self.at_least(what.to_owned(), ratio, least);
    }

    /// The peer that our figure compares least well with, and how.
    fn hardest<'p>(
        &self,
        measure: &str,
        peers: impl Iterator<Item = &'p str>,
    ) -> Option<(f64, &'p str)> {
        peers
            .filter_map(|peer| Some((self.run.ratio((OURS, measure), (peer, measure))?, peer)))
            .min_by(|one, other| one.0.total_cmp(&other.0))
    }

    fn at_least_as_best(&mut self, what: &str, hardest: Option<(f64, &str)>, least: f64) {
        let name = hardest.map_or(String::new(), |(_, name)| format!(" ({name})"));
        let ratio = hardest.map(|(ratio, _)| ratio);
        self.at_least(format!("{what}, times the best peer{name}"), ratio, least);
    }

    fn at_least(&mut self, what: String, measured: Option<f64>, least: f64) {
        let bar = format!("at least {least}");
        self.push(what, bar, measured, |measured| measured >= least);
    }

    fn at_most(&mut self, what: &str, measured: Option<f64>, most: f64) {
        let bar = format!("at most {most}");
        self.push(what.to_owned(), bar, measured, |measured| measured <= most);
    }

    fn push(
        &mut self,
        what: String,
        bar: String,
        measured: Option<f64>,
        is_met: impl FnOnce(f64) -> bool,
    ) {
        let met = match measured {
            None => Met::NotMeasured,
            Some(measured) if is_met(measured) => Met::Yes,
            Some(_) => Met::No,
        };
        self.judged.push(Judged {
            what,
            bar,
            measured,
            met,
        });
    }
}

/// The peers whose relaxed writes are not known to be lost by a kill: what returns before the system
/// has it is no match for what does not.
fn safe_peers(run: &Run) -> impl Iterator<Item = &str> {
    run.peers()
        .map(|peer| &peer.name[..])
        .filter(|name| run.median(name, "put_lost").is_none_or(|lost| lost == 0.0))
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    fn met(figures: &[(&'static str, &str, [f64; 2])], what: &str) -> Met {
        let judged = judge(&run(figures));
        let bar = judged.iter().find(|bar| bar.what.starts_with(what));
        bar.unwrap_or_else(|| panic!("there is no bar {what:?}"))
            .met
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        assert_eq!(
            met(&[("crabkv", "get", [1.0; 2])], "get, of the bare"),
            Met::NotMeasured
        );
    }

    #[test]
    fn the_best_peer_is_the_one_that_is_hardest_to_beat() {
        let figures = [
            ("crabkv", "ycsb_a", [3.0; 2]),
            ("sled", "ycsb_a", [1.0; 2]),
            ("fjall", "ycsb_a", [2.0; 2]),
        ];
        assert_eq!(met(&figures, "YCSB A"), Met::No);
        assert_eq!(met(&figures[..2], "YCSB A"), Met::Yes);
    }

    #[test]
    fn puts_that_are_lost_by_a_kill_are_no_measure() {
        let lossy = |lost: f64| {
            [
                ("crabkv", "put", [3.0; 2]),
                ("sled", "put", [1.0; 2]),
                ("sled", "put_lost", [0.0; 2]),
                ("parity-db", "put", [9.0; 2]),
                ("parity-db", "put_lost", [lost; 2]),
            ]
        };
        assert_eq!(met(&lossy(7.0), "put, relaxed"), Met::Yes);
        assert_eq!(met(&lossy(0.0), "put, relaxed"), Met::No);
        let mixed = |lost: f64| {
            [
                ("crabkv", "ycsb_a", [3.0; 2]),
                ("sled", "ycsb_a", [2.0; 2]),
                ("sled", "put_lost", [lost; 2]),
                ("fjall", "ycsb_a", [1.0; 2]),
            ]
        };
        assert_eq!(met(&mixed(7.0), "YCSB A"), Met::Yes);
        assert_eq!(met(&mixed(0.0), "YCSB A"), Met::No);
    }
}
