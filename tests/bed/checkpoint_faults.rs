//! Checkpoints and restores that are interrupted or fail, at every operation of the disk: the
//! store is as it was, and the target is what it was, or whole, or says that it is neither.
//!
//! The number of images checked is printed; `CRABKV_EFFORT` multiplies the work.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{
    Op, Rng, SimStore, State, contents, delete, effort, go_on, in_two_threads, put, seed, show,
    sim_builder,
};
use crabkv::disk::{CrashPlan, Disk, FailKind, SimDisk};
use crabkv::{Error, Store};

const BACKUP: &str = "/backup";

/// What a checkpoint is made of, and into what.
#[derive(Clone, Copy, Debug)]
enum Case {
    First,
    /// Into a checkpoint of the same segments and some more, with nothing in between but writes.
    Next,
    /// Into a checkpoint of segments that were compacted since.
    AfterCompaction,
    /// As that, and where links are impossible.
    ByCopies,
}

const CASES: [Case; 4] = [
    Case::First,
    Case::Next,
    Case::AfterCompaction,
    Case::ByCopies,
];

fn open(disk: &SimDisk, dir: &str) -> crabkv::Result<SimStore> {
    Store::builder(dir)
        .segment_size(384)
        .create_if_missing(false)
        .build_store_on(disk.clone())
}

fn all<D: Disk>(store: &Store<D>) -> State {
    contents(store, []).unwrap()
}

fn write_some(store: &SimStore, rng: &mut Rng, count: u64) {
    for number in 0..count {
        let key = format!("k{}", rng.below(6));
        let value = format!("{number}.{}-", rng.below(100)).repeat(1 + rng.below(12) as usize);
        let op = match rng.below(6) {
            0 => Op::Write(delete(&key)),
            1 => Op::Batch(vec![put(&key, &value), put("batch", &value)]),
            _ => Op::Write(put(&key, value)),
        };
        op.apply(store).unwrap();
    }
}

/// A store that is about to make a checkpoint.
struct Scene {
    disk: SimDisk,
    store: SimStore,
    /// What is in the checkpoint before, if there is one.
    old: Option<State>,
    now: State,
}

fn scene(case: Case, seed: u64) -> Scene {
    let mut rng = Rng(seed);
    let disk = SimDisk::new(seed);
    let store = sim_builder(384).build_store_on(disk.clone()).unwrap();
    let count = 6 + rng.below(8);
    write_some(&store, &mut rng, count);
    disk.set_hard_links(!matches!(case, Case::ByCopies));
    let mut old = None;
    if !matches!(case, Case::First) {
        store.checkpoint(BACKUP).unwrap();
        old = Some(all(&store));
        let count = 2 + rng.below(8);
        write_some(&store, &mut rng, count);
    }
    if matches!(case, Case::AfterCompaction | Case::ByCopies) {
        store.compact().unwrap();
        let count = rng.below(4);
        write_some(&store, &mut rng, count);
    }
    let now = all(&store);
    Scene {
        disk,
        store,
        old,
        now,
    }
}

/// Checks what an interrupted checkpoint has left at `target`: nothing that can be opened, the
/// old state or the new one. Gives which.
fn check_target(
    disk: &SimDisk,
    target: &str,
    old: Option<&State>,
    new: &State,
    context: &dyn Fn() -> String,
) -> &'static str {
    match open(disk, target) {
        Ok(store) => {
            let report = store.recovery_report();
            assert!(report.clean, "{report:?}\n{}", context());
            let seen = all(&store);
            if seen == *new {
                return "new";
            }
            let shown = show(&seen);
            assert_eq!(
                Some(&seen),
                old,
                "neither old nor new: {shown}\n{}",
                context()
            );
            "old"
        }
        Err(error) => {
            let is_clear = match &error {
                Error::NotFound { .. } => true,
                Error::Checkpoint { .. } => error.to_string().contains("not finished"),
                _ => false,
            };
            assert!(is_clear, "{error}\n{}", context());
            assert!(old.is_none(), "the old one is gone: {error}\n{}", context());
            // Nor is an empty store made of what is unfinished.
            if matches!(error, Error::Checkpoint { .. }) {
                let made = Store::builder(target).build_store_on(disk.clone());
                assert!(made.is_err(), "{}", context());
            }
            "none"
        }
    }
}

/// Cuts the power at each operation of a checkpoint; gives how many images were checked.
fn crash_everywhere(case: Case, seed: u64, limit: usize) -> u64 {
    let mut images = 0;
    for stop in 0.. {
        let Scene {
            disk,
            store,
            old,
            now,
        } = scene(case, seed);
        let begun = disk.ops();
        disk.stop_at(stop);
        let taken = store.checkpoint(BACKUP);
        let was_hit = disk.ops() - begun > stop;
        for plan in disk.crash_plans(limit, seed ^ stop) {
            images += 1;
            let context = || format!("{case:?}, seed {seed}, stop at {stop}, {plan:?}");
            let image = disk.crash(&plan);
            // Looked at in a copy: opening it removes what is left over.
            let copy = image.crash(&CrashPlan::KeepAll);
            let found = check_target(&copy, BACKUP, old.as_ref(), &now, &context);
            if taken.is_ok() {
                assert_eq!(found, "new", "{}", context());
            }
            let store = open(&image, "/db").unwrap_or_else(|e| panic!("{e}\n{}", context()));
            assert_eq!(show(&all(&store)), show(&now), "the store\n{}", context());

            // Running it again finishes it, whether somebody has opened it meanwhile or not.
            if images % 2 == 0 && found != "none" {
                drop(open(&image, BACKUP).unwrap());
            }
            if images % 3 == 0 {
                store.put("more", "1").unwrap();
            }
            let again = store.checkpoint(BACKUP);
            assert!(again.is_ok(), "{again:?}\n{}", context());
            let cut = image.crash(&CrashPlan::LoseAll);
            let copy = all(&open(&cut, BACKUP).unwrap());
            assert_eq!(show(&copy), show(&all(&store)), "{}", context());
            // Nothing is left over, unless a power cut brings it back.
            let copy = open(&image, BACKUP).unwrap();
            let orphans = &copy.recovery_report().orphans_removed;
            assert!(orphans.is_empty(), "{orphans:?}\n{}", context());
        }
        if !was_hit {
            taken.unwrap();
            break;
        }
    }
    images
}

#[test]
fn a_crash_anywhere_leaves_the_old_checkpoint_or_the_new_one() {
    let (seed, images) = (seed(1), AtomicU64::new(0));
    let rounds = effort(2);
    in_two_threads(rounds * CASES.len() as u64, |number| {
        let case = CASES[number as usize % CASES.len()];
        let seed = Rng(seed ^ number).next();
        images.fetch_add(crash_everywhere(case, seed, 12), Ordering::Relaxed);
    });
    println!("{} crash images", images.into_inner());
}

/// Lets each operation of a checkpoint fail; gives how many checkpoints failed.
fn fail_everywhere(case: Case, seed: u64, kind: FailKind, once: bool) -> u64 {
    let mut failed = 0;
    for at in 0.. {
        let Scene {
            disk,
            store,
            old,
            now,
        } = scene(case, seed);
        let context = || format!("{case:?}, seed {seed}, {kind:?} at {at}, once: {once}");
        let begun = disk.ops();
        disk.fail_at(at, kind, once);
        let taken = store.checkpoint(BACKUP);
        let was_hit = disk.ops() - begun > at;
        disk.heal();
        if let Err(error) = &taken {
            failed += 1;
            let is_right = match kind {
                FailKind::Enospc | FailKind::ShortWrite => {
                    matches!(error, Error::DiskFull { .. })
                }
                _ => matches!(error, Error::Io { .. }),
            };
            assert!(is_right, "{error}\n{}", context());
        }
        assert_eq!(show(&all(&store)), show(&now), "{}", context());
        let copy = disk.crash(&CrashPlan::KeepAll);
        let found = check_target(&copy, BACKUP, old.as_ref(), &now, &context);
        assert!(taken.is_err() || found == "new", "{}", context());
        // The store does not mind, and the next attempt succeeds.
        store.put("more", "1").unwrap();
        let again = store.checkpoint(BACKUP);
        assert!(again.is_ok(), "{again:?}\n{}", context());
        let cut = disk.crash(&CrashPlan::LoseAll);
        assert_eq!(show(&all(&open(&cut, BACKUP).unwrap())), show(&all(&store)));
        drop(store);
        assert!(open(&disk, "/db").unwrap().recovery_report().clean);
        if !was_hit {
            break;
        }
    }
    failed
}

#[test]
fn whatever_fails_the_store_is_untouched_and_the_next_attempt_succeeds() {
    let (seed, failed) = (seed(2), AtomicU64::new(0));
    let kinds = [
        FailKind::Eio,
        FailKind::Enospc,
        FailKind::ShortWrite,
        FailKind::FsyncKeep,
        FailKind::FsyncRevert,
    ];
    let count = CASES.len() * kinds.len() * 2;
    in_two_threads(effort(1) * count as u64, |number| {
        let seed = Rng(seed ^ number).next();
        let number = number as usize % count;
        let (case, rest) = (CASES[number % CASES.len()], number / CASES.len());
        let (kind, once) = (kinds[rest % kinds.len()], rest < kinds.len());
        failed.fetch_add(fail_everywhere(case, seed, kind, once), Ordering::Relaxed);
    });
    println!("{} failed checkpoints", failed.into_inner());
}

#[test]
fn a_read_that_fails_fails_the_checkpoint_and_no_more() {
    for case in CASES {
        for at in 0.. {
            let Scene {
                disk,
                store,
                old,
                now,
                ..
            } = scene(case, 5);
            let begun = disk.reads();
            disk.fail_reads_at(at, true);
            let taken = store.checkpoint(BACKUP);
            let was_hit = disk.reads() - begun > at;
            disk.heal();
            let context = || format!("{case:?}, read {at}: {taken:?}");
            assert_eq!(show(&all(&store)), show(&now), "{}", context());
            let copy = disk.crash(&CrashPlan::KeepAll);
            let found = check_target(&copy, BACKUP, old.as_ref(), &now, &context);
            assert!(taken.is_err() || found == "new", "{}", context());
            store.checkpoint(BACKUP).unwrap();
            assert_eq!(all(&open(&disk, BACKUP).unwrap()), now, "{}", context());
            if !was_hit {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_at_every_level_is_said_and_harmless() {
    for case in CASES {
        let mut full = 0;
        for room in (0..).step_by(16) {
            let Scene {
                disk,
                store,
                old,
                now,
            } = scene(case, 7);
            disk.set_capacity(Some(disk.used_bytes() + room));
            let taken = store.checkpoint(BACKUP);
            disk.set_capacity(None);
            let context = || format!("{case:?}, {room} bytes: {taken:?}");
            let copy = disk.crash(&CrashPlan::KeepAll);
            let found = check_target(&copy, BACKUP, old.as_ref(), &now, &context);
            match &taken {
                Ok(_) => {
                    assert_eq!(found, "new");
                    break;
                }
                Err(Error::DiskFull { .. }) => full += 1,
                Err(other) => panic!("{other}\n{}", context()),
            }
            assert_eq!(show(&all(&store)), show(&now), "{}", context());
            store.checkpoint(BACKUP).unwrap();
            assert_eq!(all(&open(&disk, BACKUP).unwrap()), now, "{}", context());
        }
        assert!(full > 10, "{case:?}: {full}");
    }
}

/// A disk with a checkpoint, and what is in it.
fn with_checkpoint(seed: u64) -> (SimDisk, State) {
    let Scene {
        disk, store, now, ..
    } = scene(Case::First, seed);
    store.checkpoint(BACKUP).unwrap();
    (disk.crash(&CrashPlan::LoseAll), now)
}

#[test]
fn a_crash_anywhere_in_a_restore_leaves_no_store_or_a_whole_one() {
    let mut images = 0;
    for round in 0..effort(3) {
        for stop in 0.. {
            let (disk, expected) = with_checkpoint(round);
            let begun = disk.ops();
            disk.stop_at(stop);
            let restored = crabkv::restore_on(&disk, BACKUP, "/restored", go_on);
            let was_hit = disk.ops() - begun > stop;
            for plan in disk.crash_plans(12, stop) {
                images += 1;
                let context = || format!("round {round}, stop at {stop}, {plan:?}");
                let image = disk.crash(&plan);
                let found = check_target(&image, "/restored", None, &expected, &context);
                assert!(restored.is_err() || found == "new", "{}", context());
                let backup = all(&open(&image, BACKUP).unwrap());
                assert_eq!(show(&backup), show(&expected), "{}", context());
                if found == "none" {
                    let again = crabkv::restore_on(&image, BACKUP, "/restored", go_on);
                    assert!(again.is_ok(), "{again:?}\n{}", context());
                    let cut = image.crash(&CrashPlan::LoseAll);
                    let restored = all(&open(&cut, "/restored").unwrap());
                    assert_eq!(show(&restored), show(&expected), "{}", context());
                }
            }
            if !was_hit {
                restored.unwrap();
                break;
            }
        }
    }
    println!("{images} crash images");
}

#[test]
fn a_restore_that_fails_can_be_run_again() {
    for kind in [FailKind::Eio, FailKind::Enospc, FailKind::FsyncKeep] {
        for at in 0.. {
            let (disk, expected) = with_checkpoint(1);
            let begun = disk.ops();
            disk.fail_at(at, kind, true);
            let restored = crabkv::restore_on(&disk, BACKUP, "/restored", go_on);
            let was_hit = disk.ops() - begun > at;
            disk.heal();
            let context = || format!("{kind:?} at {at}: {restored:?}");
            let found = check_target(&disk, "/restored", None, &expected, &context);
            assert!(restored.is_err() || found == "new", "{}", context());
            if found == "none" {
                crabkv::restore_on(&disk, BACKUP, "/restored", go_on).unwrap();
                let cut = disk.crash(&CrashPlan::LoseAll);
                assert_eq!(all(&open(&cut, "/restored").unwrap()), expected);
            }
            if !was_hit {
                break;
            }
        }
    }
    let (disk, _) = with_checkpoint(1);
    assert!(disk.list(Path::new("/restored")).is_err());
}
