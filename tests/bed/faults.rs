//! Every disk operation fails in every way, once and for ever: the operation on the store fails
//! clearly, nothing acknowledged is lost, reads go on.
//!
//! The number of injections is printed; `CRABKV_EFFORT` multiplies the work.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{
    Op, Rng, SimStore, State, contents, delete, effort, in_two_threads, put, put_ttl, seed, show,
    sim_builder, visible,
};
use crabkv::Error;
use crabkv::disk::{CrashPlan, Disk, FailKind, SimDisk};

fn open(disk: &SimDisk) -> crabkv::Result<SimStore> {
    sim_builder(512).build_store_on(disk.clone())
}

/// Workloads that use every kind of disk operation.
fn workloads(rng: &mut Rng) -> Vec<Vec<Op>> {
    let fill = "x".repeat(100);
    let mut workloads = vec![
        (0..12)
            .map(|i| Op::Write(put(&format!("k{}", i % 5), format!("{i}{fill}"))))
            .collect(),
        vec![
            Op::Write(put("a", "1")),
            Op::Write(put("b", fill.repeat(6))),
            Op::Batch(vec![put("a", "2"), delete("b"), put("c", &fill)]),
            Op::Write(delete("a")),
            Op::Reopen,
            Op::Write(put("a", "3")),
            Op::Close,
            Op::Write(put_ttl("d", &fill, 500)),
            Op::Advance(1000),
            Op::Compact,
            Op::Write(put("e", "5")),
        ],
    ];
    for _ in 0..effort(1) {
        workloads.push((0..16).map(|number| random_op(rng, number)).collect());
    }
    workloads
}

fn random_op(rng: &mut Rng, number: u64) -> Op {
    let write = |rng: &mut Rng| {
        let key = format!("k{}", rng.below(5));
        let value = format!("{number}.{}-", rng.below(9)).repeat(1 + rng.below(40) as usize);
        match rng.below(8) {
            0..6 => put(&key, value),
            6 => delete(&key),
            _ => put_ttl(&key, value, 1 + rng.below(1000)),
        }
    };
    match rng.below(16) {
        0..10 => Op::Write(write(rng)),
        10..12 => Op::Batch((0..4).map(|_| write(rng)).collect()),
        12 => Op::Sync,
        13 => Op::Compact,
        14 => Op::Reopen,
        _ => Op::Advance(rng.below(800)),
    }
}

/// What a store with faults holds, as far as it can be known.
struct Run<'a> {
    disk: SimDisk,
    store: Option<SimStore>,
    known: State,
    /// Where a failed write may have led to; it shows at the next opening.
    possible: Vec<State>,
    is_poisoned: bool,
    /// Errors seen.
    failed: u64,
    context: &'a dyn Fn() -> String,
}

impl<'a> Run<'a> {
    fn new(disk: SimDisk, context: &'a dyn Fn() -> String) -> Run<'a> {
        let mut run = Run {
            disk,
            store: None,
            known: State::new(),
            possible: Vec::new(),
            is_poisoned: false,
            failed: 0,
            context,
        };
        run.reopen();
        run
    }

    fn reopen(&mut self) {
        self.store = None;
        self.is_poisoned = false;
        match open(&self.disk) {
            Ok(store) => {
                self.store = Some(store);
                self.settle();
            }
            Err(_) => self.failed += 1,
        }
    }

    /// Finds out which of the possible states it is.
    fn settle(&mut self) {
        let now_ms = self.disk.now_ms();
        let seen = self.seen();
        let mut possible = std::mem::take(&mut self.possible);
        possible.push(self.known.clone());
        let found = possible.iter().find(|state| visible(state, now_ms) == seen);
        self.known = found
            .unwrap_or_else(|| {
                let possible: Vec<_> = possible.iter().map(show).collect();
                panic!(
                    "{} is none of {possible:#?}\n{}",
                    show(&seen),
                    (self.context)()
                )
            })
            .clone();
    }

    fn seen(&self) -> State {
        contents(self.store.as_ref().unwrap(), self.known.keys())
            .unwrap_or_else(|error| panic!("a read fails: {error}\n{}", (self.context)()))
    }

    /// Reads must show exactly what was acknowledged, whatever has failed.
    fn check(&self) {
        if self.store.is_some() {
            let expected = visible(&self.known, self.disk.now_ms());
            let seen = self.seen();
            assert_eq!(show(&seen), show(&expected), "{}", (self.context)());
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Reopen => return self.reopen(),
            Op::Advance(ms) => {
                self.disk.advance(*ms);
                return;
            }
            _ => {}
        }
        let Some(store) = &self.store else { return };
        let mut next = self.known.clone();
        op.apply_to(&mut next, self.disk.now_ms());
        match op.apply(store) {
            Ok(()) => {
                assert!(
                    !self.is_poisoned || op.writes().is_empty() || next == self.known,
                    "a write to a poisoned store: {op:?}\n{}",
                    (self.context)()
                );
                self.known = next;
            }
            Err(error) => {
                self.failed += 1;
                self.is_poisoned = matches!(error, Error::Poisoned { .. }) || self.is_poisoned;
                // Whatever is half done may be whole or absent later; what was refused may not.
                let is_refused = matches!(error, Error::Poisoned { .. } | Error::DiskFull { .. });
                if !is_refused {
                    self.possible.push(next);
                }
            }
        }
        self.check();
    }

    /// The fault is over: the store opens, holds what it must, and is written to; also after a
    /// power cut.
    fn finish(&mut self, number: u64) {
        self.disk.heal();
        self.check();
        // One of them each time: they are many.
        let plans = [
            CrashPlan::LoseAll,
            CrashPlan::Random(number),
            CrashPlan::KeepAll,
        ];
        {
            let plan = &plans[number as usize % plans.len()];
            let mut image = Run {
                disk: self.disk.crash(plan),
                store: None,
                known: self.known.clone(),
                possible: self.possible.clone(),
                is_poisoned: false,
                failed: 0,
                context: self.context,
            };
            image.reopen();
            assert!(
                image.store.is_some(),
                "{plan:?}: {:?}\n{}",
                open(&image.disk).err(),
                (self.context)()
            );
        }
        self.reopen();
        assert!(
            self.store.is_some(),
            "{:?}\n{}",
            open(&self.disk).err(),
            (self.context)()
        );
        self.step(&Op::Write(put("last", "write")));
        self.step(&Op::Write(delete("k1")));
        assert!(
            self.possible.is_empty(),
            "writes fail: {}",
            (self.context)()
        );
        self.disk = self.disk.crash(&CrashPlan::LoseAll);
        self.reopen();
        assert!(self.store.is_some(), "{}", (self.context)());
    }
}

const KINDS: [FailKind; 6] = [
    FailKind::Eio,
    FailKind::Enospc,
    // EMFILE, ERROR_TOO_MANY_OPEN_FILES.
    FailKind::Os(if cfg!(windows) { 4 } else { 24 }),
    FailKind::ShortWrite,
    FailKind::FsyncKeep,
    FailKind::FsyncRevert,
];

#[test]
fn every_disk_operation_may_fail() {
    let mut rng = Rng(seed(3));
    let (injections, errors) = (AtomicU64::new(0), AtomicU64::new(0));
    for (number, ops) in workloads(&mut rng).iter().enumerate() {
        let disk = SimDisk::new(1);
        let context = || "without a fault".to_owned();
        let mut run = Run::new(disk.clone(), &context);
        for op in ops {
            run.step(op);
        }
        assert_eq!(run.failed, 0);
        drop(run);
        in_two_threads(disk.ops(), |at| {
            for (kind, once) in KINDS
                .iter()
                .flat_map(|kind| [(*kind, true), (*kind, false)])
            {
                let context =
                    || format!("workload {number}: {ops:?}\n{kind:?} at {at}, once: {once}");
                let disk = SimDisk::new(1);
                disk.fail_at(at, kind, once);
                let mut run = Run::new(disk, &context);
                for op in ops {
                    run.step(op);
                }
                run.finish(at);
                injections.fetch_add(1, Ordering::Relaxed);
                errors.fetch_add(run.failed, Ordering::Relaxed);
            }
        });
    }
    let (injections, errors) = (injections.into_inner(), errors.into_inner());
    println!("{injections} injections, {errors} operations failed");
}

#[test]
fn every_read_may_fail() {
    let mut rng = Rng(seed(4));
    let mut injections = 0;
    for ops in &workloads(&mut rng) {
        for (at, once) in (0..).flat_map(|at| [(at, true), (at, false)]) {
            let disk = SimDisk::new(1);
            disk.fail_reads_at(at, once);
            let store = open(&disk);
            let mut known = State::new();
            let mut store = store.ok();
            for op in ops {
                let Some(open_store) = &store else { break };
                match op {
                    Op::Reopen => {
                        drop(store.take());
                        store = open(&disk).ok();
                    }
                    Op::Advance(ms) => disk.advance(*ms),
                    op => {
                        if op.apply(open_store).is_err() {
                            break;
                        }
                        op.apply_to(&mut known, disk.now_ms());
                    }
                }
            }
            drop(store);
            let was_hit = disk.reads() > at;
            disk.heal();
            let store = open(&disk).unwrap();
            let seen = contents(&store, known.keys()).unwrap();
            let expected = visible(&known, disk.now_ms());
            assert_eq!(
                show(&seen),
                show(&expected),
                "{ops:?}\nread {at}, once: {once}"
            );
            injections += 1;
            if !was_hit {
                break;
            }
        }
    }
    println!("{injections} injections");
}

#[test]
fn a_full_disk_loses_nothing_and_writes_resume_when_there_is_room() {
    let mut rng = Rng(seed(5));
    let mut injections = 0;
    for ops in &workloads(&mut rng) {
        let disk = SimDisk::new(1);
        let context = || "without a limit".to_owned();
        let mut run = Run::new(disk.clone(), &context);
        let mut most = 0;
        for op in ops {
            run.step(op);
            most = most.max(disk.used_bytes());
        }
        drop(run);
        for capacity in (0..most + 1024).step_by(72) {
            let context = || format!("{ops:?}\ncapacity {capacity}");
            let disk = SimDisk::new(1);
            disk.set_capacity(Some(capacity));
            let mut run = Run::new(disk.clone(), &context);
            for op in ops {
                let failed = run.failed;
                run.step(op);
                assert!(!run.is_poisoned, "poisoned by {op:?}\n{}", context());
                // Nothing was written: it does not appear later either.
                if run.failed > failed {
                    run.possible.clear();
                }
            }
            disk.set_capacity(None);
            if run.store.is_some() {
                run.step(&Op::Write(put("room", "again")));
                run.step(&Op::Compact);
                assert!(
                    run.possible.is_empty(),
                    "writes do not resume: {}",
                    context()
                );
            }
            run.finish(capacity);
            injections += 1;
        }
    }
    println!("{injections} fill levels");
}

#[test]
fn a_failed_sync_poisons_the_store_until_it_is_opened_again() {
    for kind in [FailKind::Eio, FailKind::FsyncKeep, FailKind::FsyncRevert] {
        let disk = SimDisk::new(1);
        let store = open(&disk).unwrap();
        store.put("a", "1").unwrap();
        // A put into a segment with room is one write and one sync.
        disk.fail_at(1, kind, true);
        assert!(matches!(
            store.put("a", "2"),
            Err(Error::Io { op: "sync", .. })
        ));
        for _ in 0..2 {
            assert!(matches!(store.put("b", "1"), Err(Error::Poisoned { .. })));
            assert!(matches!(store.delete("a"), Err(Error::Poisoned { .. })));
            assert!(matches!(store.sync(), Err(Error::Poisoned { .. })));
            assert!(matches!(store.compact(), Err(Error::Poisoned { .. })));
            assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
            assert_eq!(store.get("a").unwrap().unwrap(), "1");
        }
        drop(store);
        let store = open(&disk).unwrap();
        let found = store.get("a").unwrap().unwrap();
        assert!(found == "1" || found == "2");
        // What is read now stays, though the kernel had forgotten to write it.
        let store = open(&disk.crash(&CrashPlan::LoseAll)).unwrap();
        assert_eq!(store.get("a").unwrap().unwrap(), &*found);
    }
}

#[test]
fn the_directory_is_durable_before_a_write_is_acknowledged() {
    let disk = SimDisk::new(1);
    // The directory is made, but syncing its parent fails.
    disk.fail_at(1, FailKind::Eio, true);
    assert!(open(&disk).is_err());
    let store = open(&disk).unwrap();
    store.put("a", "1").unwrap();
    let store = open(&disk.crash(&CrashPlan::LoseAll)).unwrap();
    assert_eq!(store.get("a").unwrap().unwrap(), "1");
}

#[test]
fn a_segment_that_the_manifest_may_name_is_not_removed() {
    let mut failed = 0;
    for at in 0.. {
        let disk = SimDisk::new(1);
        let store = open(&disk).unwrap();
        store.put("a", "1").unwrap();
        let before = disk.ops();
        disk.fail_at(at, FailKind::Eio, true);
        // Does not fit: seals, and begins another segment.
        let rotated = store.put("b", "x".repeat(500));
        let was_hit = disk.ops() - before > at;
        drop(store);
        disk.heal();
        let store = open(&disk).unwrap();
        assert_eq!(store.get("a").unwrap().unwrap(), "1", "{at}");
        failed += u64::from(rotated.is_err());
        if !was_hit {
            break;
        }
    }
    assert!(failed > 8, "{failed}");
}
