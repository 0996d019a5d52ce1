//! Every disk operation fails in every way, once and for ever, and then the power: the operation
//! on the store fails clearly, nothing acknowledged is lost, reads go on.
//!
//! `CRABKV_EFFORT` multiplies the work.

mod fault;
mod run;
mod workloads;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{Rng, SimStore, in_two_threads, seed, sim_builder};
use crate::layer::{Layer, one_in, share};
use crabkv::Error;
use crabkv::disk::{CrashPlan, FailKind, OpKind, SimDisk};
use fault::{Fault, ways};
use run::{IMAGES, Run};
use workloads::{Workload, fixed, large};

fn open(disk: &SimDisk) -> crabkv::Result<SimStore> {
    sim_builder(512).build_store_on(disk.clone())
}

/// Runs a workload with nothing wrong, and gives the disk that it leaves.
fn healthy(workload: &Workload) -> SimDisk {
    let context = || format!("without a fault: {workload:?}");
    let mut run = Run::new(workload, None, 0, &context);
    run.run(workload);
    assert_eq!(run.failed, 0);
    run.disk
}

/// Every way in which the operations of a workload can fail, each once and for ever.
fn faults_of(workload: &Workload) -> Vec<(OpKind, Fault)> {
    let disk = healthy(workload);
    let mut faults = Vec::new();
    for (at, op) in (0..).zip(disk.op_kinds()) {
        for kind in ways(op) {
            faults.extend([true, false].map(|once| (op, Fault::Change { at, kind, once })));
        }
    }
    for (at, op) in (0..).zip(disk.read_kinds()) {
        for kind in ways(op) {
            faults.extend([true, false].map(|once| (op, Fault::Read { at, kind, once })));
        }
    }
    faults
}

/// What a layer that injects has done, by all of its threads.
#[derive(Default)]
struct Done {
    images: AtomicU64,
    errors: AtomicU64,
    kinds: Mutex<BTreeSet<OpKind>>,
}

impl Done {
    /// Lets a workload run into a fault.
    fn inject(&self, workload: &Workload, fault: Fault, seed: u64) {
        let context = || format!("{fault:?}\nCRABKV_SEED={seed}\n{workload:?}");
        let images = IMAGES.get();
        let errors = AtomicU64::new(0);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut run = Run::new(workload, Some(fault), seed, &context);
            run.run(workload);
            errors.store(run.failed, Ordering::Relaxed);
            run.finish();
        }));
        if let Err(panic) = ran {
            // Also where the panic was none of ours.
            eprintln!("{}", context());
            resume_unwind(panic);
        }
        self.images
            .fetch_add(IMAGES.get() - images, Ordering::Relaxed);
        self.errors
            .fetch_add(errors.into_inner(), Ordering::Relaxed);
    }

    fn inject_all(
        &self,
        layer: &Layer,
        workload: &Workload,
        faults: &[(OpKind, Fault)],
        seed: u64,
    ) {
        in_two_threads(faults.len() as u64, |number| {
            let (_, fault) = faults[number as usize];
            self.inject(workload, fault, seed ^ number);
            layer.add(1);
        });
        let kinds = faults.iter().map(|(op, _)| *op);
        self.kinds.lock().unwrap().extend(kinds);
    }

    fn end(self, layer: Layer, more: &str) {
        let (images, errors) = (self.images.into_inner(), self.errors.into_inner());
        layer.end(&format!(
            "{errors} operations failed, {images} crash images checked{more}"
        ));
    }
}

/// Chooses `count` of the faults, evenly.
fn some_of(faults: Vec<(OpKind, Fault)>, count: usize) -> Vec<(OpKind, Fault)> {
    let step = faults.len().div_ceil(count.max(1)).max(1);
    faults.into_iter().step_by(step).collect()
}

#[test]
fn every_disk_operation_may_fail() {
    let layer = Layer::begin("error injection", "injections", 50_000);
    let seed = seed(3);
    let done = Done::default();
    let workloads = fixed();
    for workload in &workloads {
        let mut faults = faults_of(workload);
        if one_in() > 1 {
            faults = some_of(faults, layer.goal() as usize / workloads.len());
        }
        done.inject_all(&layer, workload, &faults, seed);
    }
    for workload in &large() {
        let faults = some_of(faults_of(workload), share(300) as usize);
        done.inject_all(&layer, workload, &faults, seed);
    }
    let mut rng = Rng(seed);
    while !layer.is_done() {
        let workload = Workload::random(rng.next());
        let mut faults = faults_of(&workload);
        if one_in() > 1 {
            faults = some_of(faults, 100);
        }
        done.inject_all(&layer, &workload, &faults, rng.next());
    }
    // The workloads have to use everything there is.
    let kinds = done.kinds.lock().unwrap().len();
    assert_eq!(kinds, 16, "{:?}", done.kinds);
    done.end(layer, &format!(", {kinds} kinds of operations"));
}

#[test]
fn a_full_disk_loses_nothing_and_writes_resume_when_there_is_room() {
    let layer = Layer::begin("full disk", "fill levels", 10_000);
    let seed = seed(5);
    let done = Done::default();
    let mut rng = Rng(seed);
    let mut workloads = fixed();
    let per_workload = layer.goal().div_ceil(workloads.len() as u64);
    while !layer.is_done() {
        for workload in &workloads {
            let most = most_used(workload);
            let step = (most / per_workload).max(1);
            let faults: Vec<_> = (0..most)
                .step_by(step as usize)
                .map(|start| start + rng.below(step))
                .map(|bytes| (OpKind::Write, Fault::Room { bytes }))
                .collect();
            done.inject_all(&layer, workload, &faults, seed);
        }
        workloads = vec![Workload::random(rng.next())];
    }
    done.end(layer, "");
}

/// How many bytes a workload has on the disk at most, with one step's room to spare.
fn most_used(workload: &Workload) -> u64 {
    let context = || "without a limit".to_owned();
    let mut run = Run::new(workload, None, 0, &context);
    let mut most = 0;
    for step in &workload.steps {
        run.step(step);
        most = most.max(run.disk.used_bytes());
    }
    most + 1024
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
