//! What meets: writers, readers, iterations, merges, closing, checkpoints, flushes, expiry, failures,
//! panics.
//!
//! Segments hold three or four records, so that a few operations rotate and merge. Each scenario
//! ends by reading everything, closing, and reading everything again in the reopened store, and in
//! what a power cut would have left; all of that is part of each key's history, which must be
//! linearizable. That nobody waits for ever, shuttle sees by itself.
//!
//! The thread that begins others does nothing beside them: shuttle, in its version 0.9, wakes it
//! when the last of them ends, whatever it waits for.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crabkv::disk::{CrashPlan, Disk, FailKind, SimDisk};
use crabkv::{CrabKvBuilder, Modification, Result, Store};

use crate::common::hooked::{Event, HookedDisk};
use crate::common::{is_kind, sim_builder};
use crate::linear::Action;
use crate::orders::{choose, explore, thread};
use crate::witness::{History, Witness, bytes_of, value_of};

/// The message of the panics that scenarios cause.
pub(crate) const PLANTED: &str = "planted by the scenario";

const KEYS: &[&str] = &["a", "b", "c", "n"];

/// Tiny segments, and no merge but those that a scenario asks for.
fn tiny() -> CrabKvBuilder {
    sim_builder(512).auto_compaction(false)
}

fn open<D: Disk>(disk: &D) -> Store<D> {
    tiny().build_store_on(disk.clone()).unwrap()
}

/// Two sealed segments or so, with something to merge.
fn begin<D: Disk>(store: Store<D>, history: &History) -> Witness<'_, D> {
    let witness = Witness { store, history };
    for (key, value) in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("a", 9)] {
        witness.put(key, value);
    }
    witness
}

/// Reads everything, closes the store, and reads everything again once it is reopened; then the
/// histories are checked.
fn end(witness: Witness<'_, SimDisk>, disk: &SimDisk) {
    for key in KEYS {
        witness.get(key);
    }
    // Each write was durable when it returned.
    let cut = disk.crash(&CrashPlan::LoseAll);
    let after_the_cut = witness.history.fork();
    witness.store.close().unwrap();
    let segments = witness.store.stats().segments;
    let named: Vec<_> = segments.iter().map(|segment| segment.id.get()).collect();
    let history = witness.history;
    drop(witness);
    assert_eq!(segment_files(disk), named, "a file that is no segment");
    read_again(disk, history);
    read_again(&cut, &after_the_cut);
}

/// Reopens a store and reads everything; then its history must be linearizable.
fn read_again(disk: &SimDisk, history: &History) {
    let witness = Witness {
        store: open(disk),
        history,
    };
    for key in KEYS {
        witness.get(key);
    }
    witness.iterate(KEYS);
    drop(witness);
    history.check();
}

fn segment_files(disk: &SimDisk) -> Vec<u64> {
    let files = disk.files(Path::new("/db"));
    let segments = files.iter().filter(|(name, _)| is_kind(name, "seg"));
    segments
        .map(|(name, _)| name.strip_suffix(".seg").unwrap().parse().unwrap())
        .collect()
}

#[test]
fn merge_against_writers_and_a_reader() {
    explore("merge against writers and a reader", || {
        let (disk, history) = (SimDisk::new(1), History::default());
        let witness = begin(open(&disk), &history);
        thread::scope(|scope| {
            scope.spawn(|| {
                witness.put("a", 11);
                witness.delete("b");
                witness.put("b", 12);
            });
            scope.spawn(|| {
                witness.put_all(&[("a", 21), ("c", 22)]);
                witness.put("b", 23);
            });
            scope.spawn(|| {
                for key in KEYS {
                    witness.get(key);
                }
                witness.read(KEYS);
            });
            scope.spawn(|| witness.store.compact().unwrap());
        });
        end(witness, &disk);
    });
}

#[test]
fn iteration_against_merge_and_deletes() {
    explore("iteration against merge and deletes", || {
        let (disk, history) = (SimDisk::new(1), History::default());
        let witness = begin(open(&disk), &history);
        thread::scope(|scope| {
            scope.spawn(|| {
                witness.iterate(KEYS);
                witness.iterate(KEYS);
            });
            scope.spawn(|| {
                witness.delete("a");
                witness.put("n", 31);
                witness.delete("c");
                witness.put("a", 32);
            });
            scope.spawn(|| witness.store.compact().unwrap());
        });
        end(witness, &disk);
    });
}

#[test]
fn expiry_against_merge_and_writers() {
    explore("expiry against merge and writers", || {
        let (disk, history) = (SimDisk::new(1), History::default());
        let witness = begin(open(&disk), &history);
        for key in ["b", "c"] {
            let called = history.now();
            let ttl = Duration::from_millis(10);
            witness.store.put_with_ttl(key, bytes_of(5), ttl).unwrap();
            history.done(key, called, Action::Put(5));
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                let called = history.now();
                disk.advance(10);
                for key in ["b", "c"] {
                    history.done(key, called, Action::Expire(5));
                }
                witness.get("b");
                witness.get("c");
            });
            scope.spawn(|| {
                witness.put_if_absent("b", 41);
                witness.delete("c");
                witness.get("c");
                witness.put("c", 42);
            });
            scope.spawn(|| witness.iterate(KEYS));
            scope.spawn(|| witness.store.compact().unwrap());
        });
        end(witness, &disk);
    });
}

#[test]
fn conditional_writes_against_merge() {
    explore("conditional writes against merge", || {
        let (disk, history) = (SimDisk::new(1), History::default());
        let witness = begin(open(&disk), &history);
        witness.delete("c");
        thread::scope(|scope| {
            for number in [100, 200, 300] {
                let witness = &witness;
                scope.spawn(move || {
                    witness.swap("a", number);
                    witness.add("n", number);
                    witness.put_if_absent("c", number);
                });
            }
            scope.spawn(|| witness.store.compact().unwrap());
        });
        end(witness, &disk);
    });
}

#[test]
fn readers_of_a_segment_that_is_deleted() {
    explore("readers of a segment that is deleted", || {
        let (disk, history) = (SimDisk::new(1), History::default());
        let held = Mutex::new(Vec::new());
        let witness = begin(open(&disk), &history);
        thread::scope(|scope| {
            scope.spawn(|| {
                let values = KEYS.iter().filter_map(|key| witness.get(key));
                let values = values.map(|value| (value_of(&value), value));
                *held.lock().unwrap() = values.collect();
            });
            scope.spawn(|| {
                witness.read(KEYS);
                witness.iterate(KEYS);
            });
            scope.spawn(|| {
                for value in [51, 52] {
                    witness.put("a", value);
                    witness.put("b", value);
                    witness.store.compact().unwrap();
                }
            });
        });
        // Whatever was merged meanwhile.
        for (seen, value) in held.into_inner().unwrap() {
            assert_eq!(value_of(&value), seen, "held bytes have changed");
        }
        // All have let go: the room is free before the store is closed.
        let stats = witness.store.stats();
        let named: Vec<_> = stats.segments.iter().map(|s| s.id.get()).collect();
        assert_eq!(segment_files(&disk), named, "a file that nobody reads");
        end(witness, &disk);
    });
}

#[test]
fn the_last_handle_gives_the_directory_back() {
    explore("puts, background merges, close and reopening", || {
        let (disk, history) = (SimDisk::new(1), History::default());
        let builder = sim_builder(512).async_compaction(true);
        let witness = begin(builder.build_store_on(disk.clone()).unwrap(), &history);
        let open_handles = AtomicU64::new(3);
        thread::scope(|scope| {
            let witnesses = [witness.clone(), witness.clone(), witness];
            for (number, witness) in (0..).zip(witnesses) {
                let (disk, open_handles) = (&disk, &open_handles);
                scope.spawn(move || {
                    let history = witness.history;
                    match number {
                        0 => witness.store.close().unwrap(),
                        1 => drop(witness.get("a")),
                        _ => {}
                    }
                    witness.put("b", 60 + number);
                    drop(witness);
                    if open_handles.fetch_sub(1, Ordering::SeqCst) == 1 {
                        read_again(disk, history);
                    }
                });
            }
        });
        let witness = Witness {
            store: open(&disk),
            history: &history,
        };
        end(witness, &disk);
    });
}

#[test]
fn a_sync_that_fails_is_told_to_everybody_who_waits_for_it() {
    const KINDS: [FailKind; 4] = [
        FailKind::FsyncKeep,
        FailKind::FsyncRevert,
        FailKind::Eio,
        FailKind::Enospc,
    ];
    explore("group commit, one operation fails", || {
        let (disk, history) = (SimDisk::new(1), History::default());
        let witness = begin(open(&disk), &history);
        let kind = KINDS[choose(KINDS.len() as u64) as usize];
        disk.fail_at(choose(9), kind, true);
        thread::scope(|scope| {
            for (key, number) in [("a", 71), ("b", 72), ("a", 73)] {
                let witness = &witness;
                scope.spawn(move || {
                    let first = witness.try_put(key, number);
                    let second = witness.try_put("c", number);
                    let is_full = |result: &Result<()>| match result {
                        Ok(()) => true,
                        Err(error) => matches!(error, crabkv::Error::DiskFull { .. }),
                    };
                    assert!(is_full(&first) || second.is_err(), "{first:?}, {second:?}");
                    if !is_full(&first) {
                        assert!(witness.store.stats().poisoned.is_some());
                    }
                    witness.get(key);
                });
            }
        });
        for key in KEYS {
            witness.get(key);
        }
        let cut = disk.crash(&CrashPlan::LoseAll);
        let after_the_cut = history.fork();
        // Poisoned or not: dropping ends it.
        drop(witness);
        disk.heal();
        read_again(&disk, &history);
        read_again(&cut, &after_the_cut);
    });
}

#[test]
fn a_checkpoint_is_of_one_moment() {
    explore("checkpoint against a writer and merge", || {
        let (disk, history) = (SimDisk::new(1), History::default());
        let witness = begin(open(&disk), &history);
        witness.put_all(&[("a", 80), ("b", 80)]);
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 81..84 {
                    witness.put("a", round);
                    witness.put("b", round);
                }
            });
            scope.spawn(|| witness.store.compact().unwrap());
            scope.spawn(|| {
                let called = history.now();
                witness.store.checkpoint("/copy").unwrap();
                let returned = history.now();
                let copy = Store::builder("/copy").recovery_threads(NonZeroUsize::MIN);
                let copy = copy.build_store_on(disk.clone()).unwrap();
                let states = witness.note_copy(&copy, KEYS, called, returned);
                let (Some(first), Some(second)) = (states[0], states[1]) else {
                    panic!("not all of it: {states:?}");
                };
                assert!(
                    first == second || first == second + 1,
                    "of two moments: {first}, {second}"
                );
            });
        });
        end(witness, &disk);
    });
}

#[test]
fn write_back_flushes_against_reads_and_writes() {
    explore("write-back flushes against reads and writes", || {
        let (disk, history) = (SimDisk::new(1), History::default());
        let builder = tiny().write_back_cache(true).write_back_bytes(600);
        let witness = begin(builder.build_store_on(disk.clone()).unwrap(), &history);
        thread::scope(|scope| {
            scope.spawn(|| {
                witness.put("a", 91);
                witness.delete("b");
                witness.put_if_absent("b", 92);
            });
            scope.spawn(|| {
                witness.put_all(&[("a", 93), ("b", 94)]);
                witness.add("n", 1);
                witness.add("n", 2);
            });
            scope.spawn(|| {
                for key in KEYS.iter().chain(KEYS) {
                    witness.get(key);
                }
            });
            scope.spawn(|| {
                witness.store.flush().unwrap();
                witness.store.compact().unwrap();
            });
        });
        witness.store.flush().unwrap();
        end(witness, &disk);
    });
}

#[test]
fn panics_under_a_lock_leave_nobody_waiting() {
    explore("panics under the writer's and the merge's lock", || {
        let (disk, history) = (SimDisk::new(1), History::default());
        let panic_at = choose(6);
        let told = AtomicU64::new(0);
        let builder = tiny().on_compaction_progress(move |_| {
            if told.fetch_add(1, Ordering::Relaxed) == panic_at {
                panic_any(PLANTED);
            }
        });
        let witness = begin(builder.build_store_on(disk.clone()).unwrap(), &history);
        thread::scope(|scope| {
            scope.spawn(|| {
                let panicked = catch_unwind(AssertUnwindSafe(|| {
                    witness
                        .store
                        .modify("a", |_| -> Result<(Modification, ())> {
                            panic_any(PLANTED)
                        })
                }));
                assert!(panicked.is_err());
                witness.put("a", 101);
            });
            scope.spawn(|| {
                witness.put("a", 102);
                witness.put("b", 103);
            });
            scope.spawn(|| {
                let compact = || witness.store.compact().map(drop);
                let _ = catch_unwind(AssertUnwindSafe(compact));
                witness.get("a");
            });
        });
        for key in KEYS {
            witness.get(key);
        }
        // Nothing was in the middle of a change.
        assert_eq!(witness.store.stats().poisoned, None);
        drop(witness);
        read_again(&disk, &history);
    });
}

#[test]
fn a_panic_of_who_writes_for_all_leaves_nobody_waiting() {
    explore("a panic at any operation of the disk", || {
        let (sim, history) = (SimDisk::new(1), History::default());
        let disk = HookedDisk::new(sim.clone());
        let witness = begin(open(&disk), &history);
        let left = AtomicU64::new(choose(24));
        disk.set_hook(move |event: Event, _: &Path| {
            // Only once, and nowhere near a destructor that removes a file.
            let is_hit = !std::thread::panicking() && event != Event::Unlink;
            let before = left.load(Ordering::Relaxed);
            if is_hit && before < u64::MAX {
                left.store(before.wrapping_sub(1), Ordering::Relaxed);
                if before == 0 {
                    panic_any(PLANTED);
                }
            }
        });
        thread::scope(|scope| {
            for (key, number) in [("a", 111), ("b", 112)] {
                let (witness, history) = (&witness, &history);
                scope.spawn(move || {
                    for key in [key, "c"] {
                        let called = history.now();
                        let put = || witness.store.put(key, bytes_of(number));
                        let put = catch_unwind(AssertUnwindSafe(put));
                        let failed = !matches!(put, Ok(Ok(())));
                        let action = Action::Put(number);
                        history.note(key, called, action, failed);
                    }
                    witness.get(key);
                });
            }
            scope.spawn(|| {
                for work in [Store::close, |store: &Store<_>| store.compact().map(drop)] {
                    let work = || work(&witness.store);
                    let _ = catch_unwind(AssertUnwindSafe(work));
                }
            });
        });
        disk.clear_hook();
        for key in KEYS {
            witness.get(key);
        }
        drop(witness);
        drop(disk);
        read_again(&sim, &history);
    });
}
