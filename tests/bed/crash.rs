//! A crash at every disk operation, with every image that it may leave behind: what was
//! acknowledged is there, the operation in flight whole or absent, nothing comes back.
//!
//! The number of images checked is printed; `CRABKV_EFFORT` multiplies the work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{
    Op, Rng, SimStore, State, contents, delete, effort, in_two_threads, put, put_ttl, seed, show,
    sim_builder, visible,
};
use crabkv::disk::{CrashPlan, Disk, SimDisk};

/// How a store is opened in a test.
#[derive(Clone, Copy, Debug)]
enum Mode {
    EveryWrite,
    /// The interval never ends within a test: only what syncs explicitly does.
    Interval,
}

impl Mode {
    fn open(self, disk: &SimDisk) -> crabkv::Result<SimStore> {
        let builder = sim_builder(512);
        let builder = match self {
            Mode::EveryWrite => builder,
            Mode::Interval => builder.sync_interval(Duration::from_secs(1 << 20)),
        };
        builder.build_store_on(disk.clone())
    }
}

/// What a store may hold after a crash: the states between the last one that is certain to be
/// durable and the one that the operation in flight would have led to.
struct History {
    states: Vec<State>,
    /// The first of them that a power cut may leave.
    durable: usize,
    /// The first of them that the death of the process may leave.
    acknowledged: usize,
    keys: Vec<Vec<u8>>,
}

impl History {
    /// Chooses what is done with an image, evenly but always in the same way.
    fn rng(&self, plan: &CrashPlan) -> u64 {
        let text = format!("{plan:?}{}{}", self.durable, self.acknowledged);
        let fold = |sum: u64, byte: u8| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
        Rng(text.bytes().fold(7, fold)).next()
    }

    fn may_be(&self, seen: &State, plan: &CrashPlan, now_ms: u64) -> bool {
        let first = if *plan == CrashPlan::KeepAll {
            self.acknowledged
        } else {
            self.durable
        };
        self.states[first..]
            .iter()
            .any(|state| visible(state, now_ms) == *seen)
    }
}

/// Runs a workload until it is done or the power is cut: `stop` operations of the disk after
/// operation number `from`.
fn run(
    mode: Mode,
    ops: &[Op],
    from: usize,
    stop: Option<u64>,
    disk_seed: u64,
) -> (SimDisk, History, u64) {
    let disk = SimDisk::new(disk_seed);
    let mut keys: Vec<_> = ops
        .iter()
        .flat_map(Op::writes)
        .map(|write| write.key.clone())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let mut history = History {
        states: vec![State::new()],
        durable: 0,
        acknowledged: 0,
        keys,
    };
    let arm = |at: usize| {
        if at == from {
            if let Some(stop) = stop {
                disk.stop_at(stop);
            }
        }
        at == from
    };
    let mut begun = 0;
    if arm(0) {
        begun = disk.ops();
    }
    let mut store = mode.open(&disk).ok();
    for (number, op) in ops.iter().enumerate() {
        if number > 0 && arm(number) {
            begun = disk.ops();
        }
        let Some(open_store) = &store else { break };
        let mut next = history.states.last().unwrap().clone();
        op.apply_to(&mut next, disk.now_ms());
        history.states.push(next);
        let is_done = match op {
            Op::Advance(ms) => {
                disk.advance(*ms);
                true
            }
            Op::Reopen => {
                drop(store.take());
                store = mode.open(&disk).ok();
                store.is_some()
            }
            op => op.apply(open_store).is_ok(),
        };
        if !is_done {
            break;
        }
        history.acknowledged = history.states.len() - 1;
        let is_synced = matches!(op, Op::Sync | Op::Compact | Op::Close | Op::Reopen);
        if is_synced || matches!(mode, Mode::EveryWrite) {
            history.durable = history.acknowledged;
        }
    }
    drop(store);
    let ops = disk.ops() - begun;
    (disk, history, ops)
}

/// Checks one image; gives how many were checked on the way.
fn check(
    mode: Mode,
    image: &SimDisk,
    plan: &CrashPlan,
    history: &History,
    context: &dyn Fn() -> String,
) {
    let now_ms = image.now_ms();
    let reopen = |disk: &SimDisk, what: &str| -> SimStore {
        match mode.open(disk) {
            Ok(store) => store,
            Err(error) => panic!("{what} fails: {error}\n{}", context()),
        }
    };
    let store = reopen(image, "reopening");
    let seen = contents(&store, &history.keys).unwrap();
    if !history.may_be(&seen, plan, now_ms) {
        let states: Vec<_> = history.states.iter().map(show).collect();
        panic!(
            "found {}\nof {states:#?} from {} (acknowledged: {})\n{:?}\n{}",
            show(&seen),
            history.durable,
            history.acknowledged,
            store.recovery_report(),
            context()
        );
    }
    match history.rng(plan) % 3 {
        // What was seen once is not lost in a power cut right after it.
        0 => {
            let cut = match history.rng(plan) % 2 {
                0 => CrashPlan::LoseAll,
                _ => CrashPlan::Random(history.rng(plan)),
            };
            let again = image.crash(&cut);
            let after = contents(&reopen(&again, "a second reopening"), &history.keys).unwrap();
            assert_eq!(show(&after), show(&seen), "not idempotent: {}", context());
        }
        // The next write works, and is there after a clean close.
        1 => {
            let mut expected = seen;
            let write = Op::Write(put("next", "works"));
            write.apply(&store).and_then(|()| store.sync()).unwrap();
            write.apply_to(&mut expected, now_ms);
            let cut = image.crash(&CrashPlan::LoseAll);
            let after = contents(&reopen(&cut, "after a power cut"), &history.keys).unwrap();
            assert_eq!(
                show(&after),
                show(&expected),
                "after a power cut: {}",
                context()
            );
            drop(store);
            let store = reopen(image, "reopening after the next write");
            let report = store.recovery_report();
            let is_clean = report.clean && report.torn_tail.is_none();
            assert!(is_clean, "{report:?}\n{}", context());
            let after = contents(&store, &history.keys).unwrap();
            assert_eq!(show(&after), show(&expected), "{}", context());
        }
        _ => {}
    }
}

/// Crashes within the recovery of an image, at each of its operations.
fn check_recovery(
    mode: Mode,
    disk: &SimDisk,
    plan: &CrashPlan,
    history: &History,
    images: &AtomicU64,
    context: &dyn Fn() -> String,
) {
    for stop in 0.. {
        let image = disk.crash(plan);
        image.stop_at(stop);
        let opened = mode.open(&image);
        let was_hit = image.ops() > stop;
        drop(opened);
        if !was_hit {
            break;
        }
        let mut rng = Rng(stop);
        for second in image.crash_plans(24, stop) {
            if !rng.chance(15) {
                continue;
            }
            images.fetch_add(1, Ordering::Relaxed);
            // A power cut in either of them may take what was not durable.
            let worst = if second == CrashPlan::KeepAll {
                plan
            } else {
                &second
            };
            check(mode, &image.crash(&second), worst, history, &|| {
                format!(
                    "{}\nthen, in recovery, stop at {stop}, {second:?}",
                    context()
                )
            });
        }
    }
}

/// A crash at each operation of the disk from operation `from` of the workload on.
fn crash_everywhere(
    mode: Mode,
    ops: &[Op],
    from: usize,
    limit: usize,
    seed: u64,
    images: &AtomicU64,
) {
    let (_, _, disk_ops) = run(mode, ops, from, None, seed);
    for stop in 0..=disk_ops {
        let (disk, history, _) = run(mode, ops, from, Some(stop), seed);
        let mut rng = Rng(seed ^ stop);
        for plan in disk.crash_plans(limit, rng.next()) {
            images.fetch_add(1, Ordering::Relaxed);
            let context = || format!("{ops:?}\nseed {seed}, from {from}, stop at {stop}, {plan:?}");
            check(mode, &disk.crash(&plan), &plan, &history, &context);
            if rng.chance(2) {
                check_recovery(mode, &disk, &plan, &history, images, &context);
            }
        }
    }
}

/// The operations that short workloads are made of.
fn alphabet(round: usize) -> Vec<Op> {
    let v = |name: &str| format!("{name}{round}");
    vec![
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
        Op::Close,
        Op::Advance(1500),
    ]
}

fn every_short_workload(mode: Mode, len: u32, limit: usize, images: &AtomicU64) {
    let letters = alphabet(0).len() as u64;
    let count = letters.pow(len);
    in_two_threads(count, |number| {
        let ops: Vec<Op> = (0..len)
            .map(|round| {
                let letter = number / letters.pow(round) % letters;
                alphabet(round as usize).swap_remove(letter as usize)
            })
            .collect();
        // Earlier crashes are those of a shorter workload.
        crash_everywhere(mode, &ops, ops.len() - 1, limit, number, images);
    });
}

#[test]
fn short_workloads_survive_a_crash_anywhere() {
    let images = AtomicU64::new(0);
    every_short_workload(Mode::EveryWrite, 1, 24, &images);
    every_short_workload(Mode::EveryWrite, 2, 5, &images);
    println!("{} crash images", images.into_inner());
}

/// A random workload that fills segments, rotates, batches, deletes, expires, compacts, reopens.
fn random_workload(rng: &mut Rng, len: u64) -> Vec<Op> {
    let mut ops = Vec::new();
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
        ops.push(match rng.below(20) {
            0..11 => Op::Write(write(rng)),
            11..14 => Op::Batch((0..=rng.below(4)).map(|_| write(rng)).collect()),
            14 => Op::Sync,
            15 => Op::Compact,
            16 => Op::Reopen,
            17 => Op::Close,
            _ => Op::Advance(rng.below(1500)),
        });
    }
    ops
}

fn random_workloads(mode: Mode, workloads: u64, len: u64, limit: usize, seed: u64) -> u64 {
    let images = AtomicU64::new(0);
    in_two_threads(workloads, |number| {
        let seed = Rng(seed ^ number).next();
        let ops = random_workload(&mut Rng(seed), len);
        crash_everywhere(mode, &ops, 0, limit, seed, &images);
    });
    images.into_inner()
}

#[test]
fn long_workloads_survive_a_crash_anywhere() {
    let images = random_workloads(Mode::EveryWrite, effort(2), 30, 10, seed(1));
    println!("{images} crash images");
}

#[test]
fn with_an_interval_a_power_cut_takes_a_suffix_and_a_kill_nothing() {
    let images = AtomicU64::new(0);
    every_short_workload(Mode::Interval, 2, 4, &images);
    let long = random_workloads(Mode::Interval, effort(2), 30, 10, seed(2));
    println!("{} crash images", images.into_inner() + long);
}
