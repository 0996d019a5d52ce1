//! A crash at every disk operation of every short workload, with every image that it may leave
//! behind: what was acknowledged is there, the operation in flight whole or absent, nothing comes
//! back. What is done with an image is in `aftermath.rs`.
//!
//! A violation is reported with the line that replays it:
//!
//! ```text
//! CRABKV_SEED=1 CRABKV_REPLAY=every-write:3.7.1:12.5,4.2 cargo bed crash::short
//! ```
//!
//! That is: in this mode, the steps of these numbers in [`alphabet`]; a crash at moment 12 of the
//! last one, as plan 5 has it; another at moment 4 of the recovery from it, by plan 2. A workload
//! `random-N` is the long one that the number N gives. How many images there are can differ a
//! little from run to run: of two that are the same, the one that is met first is looked at.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::aftermath::{BACKUP, Bounds, During, Examiner, Mode, Moment, Tale, Trail};
use crate::common::{Op, Rng, SimStore, State, delete, in_two_threads, put, put_ttl, seed};
use crate::layer::{Layer, one_in, say};
use crabkv::disk::{Disk, SimDisk};

/// At most so many images of one moment of a short workload: all subsets of six changes, and torn
/// writes.
const LIMIT: usize = 96;

/// And of a long one, of which every step is interrupted.
const LIMIT_OF_LONG: usize = 10;

/// How many steps a long workload has.
const LONG: u64 = 30;

/// A step of a workload.
#[derive(Clone, Debug)]
enum Step {
    Op(Op),
    /// Seals the active segment.
    Seal,
    /// Merges the oldest sealed segment alone.
    MergeOldest,
    Checkpoint,
}

impl Step {
    fn during(&self) -> During {
        match self {
            Step::Op(Op::Write(_) | Op::Batch(_)) => During::Write,
            Step::Op(Op::Compact) | Step::MergeOldest => During::Merge,
            Step::Op(_) => During::Other,
            Step::Seal => During::Rotation,
            Step::Checkpoint => During::Checkpoint,
        }
    }

    /// Whether everything before it is durable when it is done.
    fn syncs(&self) -> bool {
        matches!(
            self,
            Step::Checkpoint | Step::Op(Op::Sync | Op::Compact | Op::Close | Op::Reopen)
        )
    }

    fn apply(&self, store: &SimStore) -> crabkv::Result<()> {
        match self {
            Step::Op(op) => op.apply(store),
            Step::Seal => store.compact_segments(&[]).map(drop),
            Step::MergeOldest => {
                let sealed = crate::common::sealed(store);
                let oldest = &sealed[..sealed.len().min(1)];
                store.compact_segments(oldest).map(drop)
            }
            Step::Checkpoint => store.checkpoint(BACKUP).map(drop),
        }
    }
}

/// The steps that short workloads are made of.
fn alphabet(mode: Mode, round: usize) -> Vec<Step> {
    let v = |name: &str| format!("{name}{round}");
    let mut steps: Vec<Step> = [
        Op::Write(put("a", v("small"))),
        Op::Write(put("b", v("other"))),
        Op::Write(put("a", v("fills").repeat(40))),
        Op::Write(put("a", v("oversize").repeat(100))),
        Op::Write(delete("a")),
        Op::Write(put_ttl("a", v("brief"), 1000)),
        Op::Batch(vec![
            put("a", v("batch")),
            put("b", v("batch")),
            delete("c"),
        ]),
        Op::Batch(vec![
            put("c", v("long").repeat(30)),
            put("b", v("long").repeat(40)),
        ]),
        Op::Sync,
        Op::Compact,
        Op::Reopen,
        Op::Advance(1500),
        if mode == Mode::WriteBack {
            Op::Flush
        } else {
            Op::Close
        },
    ]
    .map(Step::Op)
    .into();
    steps.extend([Step::Seal, Step::MergeOldest, Step::Checkpoint]);
    steps
}

/// How many steps there are: a power of two, so that numbers can be shuffled.
const LETTERS: u64 = 16;

/// What is done before the crash.
#[derive(Clone, Debug)]
enum Workload {
    /// Of these steps only the last is interrupted: earlier crashes are those of a shorter one.
    Letters(Vec<usize>),
    Random(u64),
}

impl Workload {
    fn steps(&self, mode: Mode) -> Vec<Step> {
        match self {
            Workload::Letters(letters) => {
                let step =
                    |(round, letter): (usize, &usize)| alphabet(mode, round).swap_remove(*letter);
                letters.iter().enumerate().map(step).collect()
            }
            Workload::Random(seed) => random_steps(&mut Rng(*seed), LONG),
        }
    }

    fn limit(&self) -> usize {
        match self {
            Workload::Letters(_) => LIMIT,
            Workload::Random(_) => LIMIT_OF_LONG,
        }
    }
}

/// A random workload that fills segments, rotates, batches, deletes, expires, compacts, reopens.
fn random_steps(rng: &mut Rng, len: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    for number in 0..len {
        let key = |rng: &mut Rng| format!("k{}", rng.below(6));
        let write = |rng: &mut Rng| {
            let value = format!("{number}.{}-", rng.below(10)).repeat(1 + rng.below(30) as usize);
            match rng.below(10) {
                0..6 => put(&key(rng), value),
                6..8 => delete(&key(rng)),
                8 => put_ttl(&key(rng), value, 1 + rng.below(2000)),
                _ => put(&key(rng), value.repeat(8)),
            }
        };
        steps.push(match rng.below(24) {
            0..11 => Step::Op(Op::Write(write(rng))),
            11..14 => Step::Op(Op::Batch((0..=rng.below(4)).map(|_| write(rng)).collect())),
            14 => Step::Op(Op::Sync),
            15 => Step::Op(Op::Compact),
            16 => Step::Op(Op::Reopen),
            17 => Step::Op(Op::Close),
            18 => Step::Op(Op::Flush),
            19 => Step::Seal,
            20 => Step::MergeOldest,
            21 => Step::Checkpoint,
            _ => Step::Op(Op::Advance(rng.below(1500))),
        });
    }
    steps
}

/// Runs a workload, and gives every moment of it at which a crash can come: of its last step, or
/// of all.
fn run(mode: Mode, workload: &Workload, disk_seed: u64) -> (Tale, Vec<Moment>) {
    let steps = workload.steps(mode);
    let from = match workload {
        Workload::Letters(letters) => letters.len() - 1,
        Workload::Random(_) => 0,
    };
    let disk = SimDisk::new(disk_seed);
    let mut keys: Vec<_> = (steps.iter())
        .filter_map(|step| match step {
            Step::Op(op) => Some(op.writes()),
            _ => None,
        })
        .flatten()
        .map(|write| write.key.clone())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let mut states = vec![State::new()];
    let mut bounds = Bounds {
        durable: 0,
        acknowledged: 0,
        last: 0,
        backup: None,
    };
    let mut moments = Vec::new();
    let mut note = |bounds: &Bounds, during| {
        let moment = |disk| Moment {
            disk,
            during,
            bounds: *bounds,
        };
        moments.extend(disk.take_moments().into_iter().map(moment));
        disk.keep_moments();
    };
    if from == 0 {
        disk.keep_moments();
    }
    let mut store = mode.open(&disk).unwrap();
    for (number, step) in steps.iter().enumerate() {
        if number == from && from > 0 {
            disk.keep_moments();
        } else if number >= from {
            note(&bounds, During::Other);
        }
        let mut next = states[bounds.last].clone();
        if let Step::Op(op) = step {
            op.apply_to(&mut next, disk.now_ms());
        }
        states.push(next);
        bounds.last += 1;
        match step {
            Step::Op(Op::Advance(ms)) => disk.advance(*ms),
            Step::Op(Op::Reopen) => {
                drop(store);
                if number >= from {
                    note(&bounds, During::Other);
                }
                bounds = bounds.all_durable();
                store = mode.open(&disk).unwrap();
            }
            step => step.apply(&store).unwrap(),
        }
        if number >= from {
            let during = match step {
                Step::Op(Op::Reopen) => During::Recovery,
                step => step.during(),
            };
            note(&bounds, during);
        }
        // Flushing is writing, in the mode that has something to flush.
        let is_flushed = mode == Mode::WriteBack && matches!(step, Step::Op(Op::Flush));
        if step.syncs() || mode.is_durable() || is_flushed {
            bounds = bounds.all_durable();
        } else if mode.is_written() {
            bounds.acknowledged = bounds.last;
        }
        if matches!(step, Step::Checkpoint) {
            bounds.backup = Some(bounds.last);
        }
    }
    drop(store);
    note(&bounds, During::Other);
    disk.take_moments();
    moments.push(Moment {
        disk,
        during: During::Other,
        bounds: bounds.all_durable(),
    });
    (Tale { mode, states, keys }, moments)
}

/// A violation of a promise, and how to see it again.
#[derive(Debug)]
struct Violation {
    line: String,
    steps: Vec<Step>,
    what: String,
}

/// The enumeration at work.
struct Enumeration {
    examiner: Examiner,
    violations: Mutex<Vec<Violation>>,
    is_over: AtomicBool,
}

impl Enumeration {
    fn new(seed: u64) -> Enumeration {
        Enumeration {
            examiner: Examiner::new(seed),
            violations: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// A crash at every moment of a workload.
    fn crash_everywhere(&self, mode: Mode, workload: &Workload) {
        let mut trail = Trail::new();
        let disk_seed = match workload {
            Workload::Letters(_) => self.examiner.seed,
            Workload::Random(seed) => *seed,
        };
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            let (tale, moments) = run(mode, workload, disk_seed);
            let depth = Examiner::top(workload.limit());
            self.examiner.examine(&tale, moments, depth, &mut trail);
        }));
        let Err(panic) = outcome else { return };
        self.is_over.store(true, Ordering::Relaxed);
        let what = (panic.downcast_ref::<String>().cloned())
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        let mut violations = self
            .violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violations.push(Violation {
            line: replay_line(self.examiner.seed, mode, workload, &trail),
            steps: workload.steps(mode),
            what,
        });
    }

    /// Every workload of so many steps in this mode, or, in no order, as many of them as it takes.
    fn every_workload(&self, mode: Mode, len: u32, is_enough: &(dyn Fn() -> bool + Sync)) {
        let count = LETTERS.pow(len);
        in_two_threads(count, |number| {
            if self.is_over.load(Ordering::Relaxed) || is_enough() {
                return;
            }
            // An odd factor makes this a permutation.
            let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count;
            let letter = |round| (number / LETTERS.pow(round) % LETTERS) as usize;
            let workload = Workload::Letters((0..len).map(letter).collect());
            self.crash_everywhere(mode, &workload);
        });
        self.assert_sound();
    }

    /// # Panics
    ///
    /// When a promise was broken; says the shortest way to see it.
    fn assert_sound(&self) {
        let mut violations = self
            .violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violations.sort_by_key(|violation| (violation.steps.len(), violation.line.len()));
        if let Some(Violation { line, steps, what }) = violations.first() {
            panic!(
                "{} violations; the shortest:\n{what}\n{steps:#?}\n{line}",
                violations.len()
            );
        }
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::EveryWrite => "every-write",
        Mode::Interval => "interval",
        Mode::WriteBack => "write-back",
    }
}

fn replay_line(seed: u64, mode: Mode, workload: &Workload, trail: &Trail) -> String {
    let join = |numbers: Vec<String>, between| numbers.join(between);
    let workload = match workload {
        Workload::Letters(letters) => join(letters.iter().map(usize::to_string).collect(), "."),
        Workload::Random(seed) => format!("random-{seed}"),
    };
    let place = |(moment, plan): &(usize, usize)| format!("{moment}.{plan}");
    let trail = join(trail.iter().map(place).collect(), ",");
    let mode = mode_name(mode);
    format!("CRABKV_SEED={seed} CRABKV_REPLAY={mode}:{workload}:{trail} cargo bed crash::short")
}

/// What `CRABKV_REPLAY` says.
fn parse_replay(text: &str) -> Option<(Mode, Workload, Trail)> {
    let mut parts = text.split(':');
    let name = parts.next()?;
    let mode = Mode::ALL
        .into_iter()
        .find(|mode| mode_name(*mode) == name)?;
    let workload = parts.next()?;
    let workload = match workload.strip_prefix("random-") {
        Some(seed) => Workload::Random(seed.parse().ok()?),
        None => Workload::Letters(
            (workload.split('.'))
                .map(|letter| {
                    letter
                        .parse()
                        .ok()
                        .filter(|letter| *letter < LETTERS as usize)
                })
                .collect::<Option<_>>()?,
        ),
    };
    let place = |place: &str| {
        let (moment, plan) = place.split_once('.')?;
        Some((moment.parse().ok()?, plan.parse().ok()?))
    };
    let trail: Option<Trail> = parts.next()?.split(',').map(place).collect();
    Some((mode, workload, trail?))
}

/// Looks at one image again.
fn replay(text: &str, seed: u64) {
    let (mode, workload, trail) = parse_replay(text).expect("CRABKV_REPLAY as a violation says it");
    let mut enumeration = Enumeration::new(seed);
    let wanted = trail.len() as u64;
    enumeration.examiner.only = Some(trail);
    enumeration.crash_everywhere(mode, &workload);
    enumeration.assert_sound();
    assert_eq!(enumeration.examiner.checked(), wanted, "no such image");
    say(
        "crash enumeration",
        &format!("replayed {text}: no violation"),
    );
}

#[test]
fn short_workloads_survive_a_crash_anywhere() {
    let seed = seed(1);
    if let Ok(text) = std::env::var("CRABKV_REPLAY") {
        return replay(&text, seed);
    }
    let layer = Layer::begin("crash enumeration", "images", 1_000_000);
    let enumeration = Enumeration::new(seed);
    // A short run is complete for the shorter ones only.
    let complete = match one_in() {
        1 => 3,
        2..20 => 2,
        _ => 1,
    };
    for len in 1..=complete {
        for mode in Mode::ALL {
            enumeration.every_workload(mode, len, &|| false);
        }
    }
    let is_enough = || enumeration.examiner.checked() >= layer.goal();
    for len in complete + 1..=5 {
        for mode in Mode::ALL {
            enumeration.every_workload(mode, len, &is_enough);
        }
    }
    layer.add(enumeration.examiner.checked());
    let account = enumeration.examiner.account();
    layer.end(&format!(
        "every workload of up to {complete} steps; {account}"
    ));
}

#[test]
fn long_workloads_survive_a_crash_anywhere() {
    let layer = Layer::begin("crash, long workloads", "images", 20_000);
    let seed = seed(2);
    let enumeration = Enumeration::new(seed);
    let mut begun = 0;
    while enumeration.examiner.checked() < layer.goal() {
        in_two_threads(6, |number| {
            let workload = Workload::Random(Rng(seed ^ (begun + number)).next());
            let mode = Mode::ALL[number as usize % Mode::ALL.len()];
            enumeration.crash_everywhere(mode, &workload);
        });
        enumeration.assert_sound();
        begun += 6;
    }
    layer.add(enumeration.examiner.checked());
    layer.end(&enumeration.examiner.account());
}
