//! Threads: what each may see of the others' writes, while segments rotate and are compacted.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::hooked::{Event, HookedDisk};
use crate::common::{Rng, effort, is_kind, sim_builder};
use crabkv::disk::{CrashPlan, FailKind, SimDisk};
use crabkv::{Error, Store, Verify};

fn store_in(dir: &tempfile::TempDir) -> Store {
    Store::builder(dir.path())
        .segment_size(16 << 10)
        .sync_interval(Duration::from_secs(1000))
        .verify(Verify::EveryRead)
        .build_store()
        .unwrap()
}

/// Says which key it belongs to and how old it is, and is of a length that depends on both.
fn value(key: u64, round: u64) -> Vec<u8> {
    let text = format!("{key}:{round}:");
    text.repeat(1 + ((key ^ round) % 20) as usize).into_bytes()
}

fn round_of(key: u64, bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).unwrap();
    let round = text.split(':').nth(1).unwrap().parse().unwrap();
    assert_eq!(bytes, value(key, round), "a value that nobody put");
    round
}

#[test]
fn readers_see_whole_values_that_never_get_older() {
    const KEYS: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let done = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    let end = Instant::now() + Duration::from_millis(1500 * effort(1));
    thread::scope(|scope| {
        for kind in 0..3 {
            let (store, done, reads) = (&store, &done, &reads);
            scope.spawn(move || {
                let mut newest: HashMap<u64, u64> = HashMap::new();
                let mut see = |key: u64, bytes: Option<&[u8]>| {
                    reads.fetch_add(1, Ordering::Relaxed);
                    if let Some(bytes) = bytes {
                        let round = round_of(key, bytes);
                        let newest = newest.entry(key).or_default();
                        assert!(round >= *newest, "key {key}: {round} after {newest}");
                        *newest = round;
                    }
                };
                while !done.load(Ordering::Relaxed) {
                    match kind {
                        0 => (0..KEYS).for_each(|key| {
                            see(key, store.get(key.to_le_bytes()).unwrap().as_deref());
                        }),
                        1 => {
                            let reader = store.reader();
                            for key in 0..KEYS {
                                see(key, reader.get(key.to_le_bytes()).unwrap());
                            }
                        }
                        _ => {
                            let keys: Vec<_> = (0..KEYS).map(u64::to_le_bytes).collect();
                            let values = store.get_many(&keys).unwrap();
                            for (key, value) in (0..).zip(&values) {
                                see(key, value.as_deref());
                            }
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.compact().unwrap();
            }
        });
        let mut round = 0;
        while Instant::now() < end {
            round += 1;
            for key in 0..KEYS {
                if (key + round) % 7 == 0 {
                    store.delete(key.to_le_bytes()).unwrap();
                } else {
                    store.put(key.to_le_bytes(), value(key, round)).unwrap();
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        println!("{round} rounds, {} reads", reads.load(Ordering::Relaxed));
    });
    let expected: Vec<_> = (0..KEYS)
        .map(|key| {
            store
                .get(key.to_le_bytes())
                .unwrap()
                .map(|value| value.to_vec())
        })
        .collect();
    drop(store);
    let store = store_in(&dir);
    for (key, expected) in (0..KEYS).zip(expected) {
        let found = store.get(key.to_le_bytes()).unwrap();
        assert_eq!(found.as_deref(), expected.as_deref(), "after reopening");
    }
}

#[test]
fn increments_of_eight_threads_add_up_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path())
        .segment_size(1024)
        .build_store()
        .unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let compactor = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.compact().unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        });
        let workers: Vec<_> = (0..8_i64)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    for _ in 0..50 {
                        store.increment("sum", thread).unwrap();
                        store.increment(format!("own{thread}"), 1).unwrap();
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        compactor.join().unwrap();
    });
    let check = |store: &Store| {
        assert_eq!(store.get("sum").unwrap().unwrap(), "1400");
        for thread in 0..8 {
            assert_eq!(store.get(format!("own{thread}")).unwrap().unwrap(), "50");
        }
    };
    check(&store);
    drop(store);
    check(&Store::open(dir.path()).unwrap());
}

#[test]
fn compare_and_swap_makes_a_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let counter = AtomicU64::new(0);
    store.put("lock", "free").unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    loop {
                        let seen = store.get("lock").unwrap().unwrap();
                        if seen == "free" {
                            match store.compare_and_swap("lock", seen.version(), "held") {
                                Ok(()) => break,
                                Err(Error::Conflict { .. }) => {}
                                Err(other) => panic!("{other}"),
                            }
                        }
                        thread::yield_now();
                    }
                    // Not atomic on purpose: the lock makes it so.
                    let count = counter.load(Ordering::Relaxed);
                    thread::yield_now();
                    counter.store(count + 1, Ordering::Relaxed);
                    store.put("lock", "free").unwrap();
                }
            });
        }
    });
    assert_eq!(counter.into_inner(), 400);
}

#[test]
fn put_if_absent_has_exactly_one_winner() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let wins = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (store, wins) = (&store, &wins);
            scope.spawn(move || {
                for key in 0..200_u64 {
                    let won = store.put_if_absent(key.to_le_bytes(), [thread]).unwrap();
                    wins.fetch_add(u64::from(won), Ordering::Relaxed);
                    if won {
                        assert_eq!(
                            store.get(key.to_le_bytes()).unwrap().unwrap(),
                            &[thread][..]
                        );
                    }
                }
            });
        }
    });
    assert_eq!(wins.into_inner(), 200);
}

#[test]
fn an_iteration_meets_every_key_that_stays_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    for key in 0..1000_u64 {
        store.put(format!("stable{key}"), value(key, 0)).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1.. {
                for key in 0..1000_u64 {
                    store
                        .put(format!("stable{key}"), value(key, round))
                        .unwrap();
                    // Comes and goes, and makes the index grow.
                    let other = format!("other{}", key + 1000 * (round % 5));
                    if round % 2 == 0 {
                        store.delete(other).unwrap();
                    } else {
                        store.put(other, value(key, round)).unwrap();
                    }
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                }
                store.compact().unwrap();
            }
        });
        for _ in 0..20 {
            let mut met = HashSet::new();
            for entry in &store {
                let (key, value) = entry.unwrap();
                let key = String::from_utf8(key).unwrap();
                if let Some(number) = key.strip_prefix("stable") {
                    round_of(number.parse().unwrap(), &value);
                }
                assert!(met.insert(key.clone()), "{key} is met twice");
            }
            let stable = met.iter().filter(|key| key.starts_with("stable"));
            assert_eq!(stable.count(), 1000);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_iteration_finds_the_segments_it_has_come_to_though_compaction_removes_them() {
    let disk = SimDisk::new(1);
    let store = sim_builder(64 << 10).build_store_on(disk).unwrap();
    let put_all = |round: u64| {
        for key in 0..200_u64 {
            store.put(key.to_le_bytes(), value(key, round)).unwrap();
        }
    };
    put_all(0);
    let done = AtomicBool::new(false);
    let mut walks = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..40 * effort(1) {
                // Most records are moved, and their segment goes.
                store.put("stale", "x").unwrap();
                store.compact().unwrap();
                if round % 10 == 0 {
                    put_all(round);
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let met = store
                .iter()
                .filter(|entry| entry.as_ref().unwrap().0 != b"stale");
            assert_eq!(met.count(), 200);
            walks += 1;
        }
    });
    println!("{walks} walks");
}

#[test]
fn a_value_and_a_reader_outlive_the_compaction_of_their_segment() {
    let disk = SimDisk::new(1);
    let store = sim_builder(512).build_store_on(disk.clone()).unwrap();
    store.put("kept", "as it was").unwrap();
    store.put("other", "x".repeat(300)).unwrap();
    let value = store.get("kept").unwrap().unwrap();
    let reader = store.reader();
    let lent = reader.get("kept").unwrap().unwrap();
    let files = |disk: &SimDisk| {
        let files = disk.files("/db".as_ref()).into_iter();
        files.filter(|(name, _)| is_kind(name, "seg")).count()
    };
    for round in 0..20 {
        store.put("kept", format!("{round}").repeat(100)).unwrap();
        store.compact().unwrap();
    }
    assert_eq!((&*value, lent), (&b"as it was"[..], &b"as it was"[..]));
    drop(reader);
    drop(value);
    store.compact().unwrap();
    // Their files go with the last who looks at them.
    assert!(files(&disk) <= 3, "{} files", files(&disk));
}

#[test]
fn writes_of_eight_threads_are_durable_when_they_return() {
    let disk = SimDisk::new(1);
    let store = sim_builder(1024).build_store_on(disk.clone()).unwrap();
    let acknowledged: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
    let mut cuts = 0;
    thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (store, acknowledged) = (&store, &acknowledged);
            scope.spawn(move || {
                for round in 1..=100 {
                    store
                        .put(thread.to_le_bytes(), value(thread, round))
                        .unwrap();
                    acknowledged[thread as usize].store(round, Ordering::SeqCst);
                }
            });
        }
        // A power cut now and then, on a copy of the disk.
        while acknowledged
            .iter()
            .any(|round| round.load(Ordering::SeqCst) < 100)
        {
            let least: Vec<_> = acknowledged
                .iter()
                .map(|a| a.load(Ordering::SeqCst))
                .collect();
            let image = disk.crash(&CrashPlan::LoseAll);
            let copy = sim_builder(1024).build_store_on(image).unwrap();
            for (thread, least) in (0_u64..).zip(least) {
                let found = copy.get(thread.to_le_bytes()).unwrap();
                let found = found.map_or(0, |bytes| round_of(thread, &bytes));
                assert!(found >= least, "thread {thread}: {found} of {least}");
            }
            cuts += 1;
        }
    });
    println!("{cuts} power cuts");
}

/// Threads write while operations of the disk fail now and then: what failed shows nowhere, and
/// what was acknowledged is durable.
fn write_with_faults(seed: u64, kind: FailKind) -> (u64, u64) {
    let disk = SimDisk::new(seed);
    let store = sim_builder(1024).build_store_on(disk.clone()).unwrap();
    let (written, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    // The last round of each thread, and the round of which it is not known.
    let last: Vec<Mutex<(u64, Option<u64>)>> = (0..4).map(|_| Mutex::default()).collect();
    let running = AtomicU64::new(4);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (store, written, failed) = (&store, &written, &failed);
            let (last, running) = (&last[thread as usize], &running);
            scope.spawn(move || {
                for round in 1..150 {
                    let result = store.put(thread.to_le_bytes(), value(thread, round));
                    let mut last = last.lock().unwrap();
                    match result {
                        Ok(()) => {
                            *last = (round, None);
                            written.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            if !matches!(error, Error::DiskFull { .. }) {
                                last.1 = last.1.or(Some(round));
                            }
                        }
                    }
                    let found = store.get(thread.to_le_bytes()).unwrap();
                    let found = found.map_or(0, |bytes| round_of(thread, &bytes));
                    assert_eq!(found, last.0, "thread {thread}, seed {seed}");
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let mut rng = Rng(seed);
        while running.load(Ordering::SeqCst) > 0 {
            disk.fail_at(rng.below(30), kind, true);
            thread::sleep(Duration::from_micros(300));
        }
    });
    disk.heal();
    drop(store);
    for plan in [
        CrashPlan::KeepAll,
        CrashPlan::LoseAll,
        CrashPlan::Random(seed),
    ] {
        let copy = sim_builder(1024).build_store_on(disk.crash(&plan)).unwrap();
        for (thread, last) in (0_u64..).zip(&last) {
            let (last, unknown) = *last.lock().unwrap();
            let found = copy.get(thread.to_le_bytes()).unwrap();
            let found = found.map_or(0, |bytes| round_of(thread, &bytes));
            let is_right = found == last || Some(found) == unknown;
            assert!(
                is_right,
                "{kind:?} {seed} {plan:?}: {found}, not {last} or {unknown:?}"
            );
        }
    }
    (written.into_inner(), failed.into_inner())
}

#[test]
fn a_failed_write_of_a_group_shows_nowhere_and_takes_nothing_along() {
    let (mut written, mut failed) = (0, 0);
    for seed in 0..effort(10) {
        for kind in [
            FailKind::ShortWrite,
            FailKind::Enospc,
            FailKind::FsyncKeep,
            FailKind::Eio,
        ] {
            let (more, errors) = write_with_faults(seed, kind);
            written += more;
            failed += errors;
        }
    }
    println!("{written} written, {failed} failed");
}

/// Shuttle found it: those who waited for the same sync led one commit after the other, for ever.
#[test]
fn a_panic_in_the_sync_of_a_group_poisons_the_store_and_leaves_nobody_waiting() {
    let (done, is_done) = mpsc::channel();
    let writing = thread::spawn(move || {
        for round in 0..effort(30) {
            let disk = HookedDisk::new(SimDisk::new(round));
            let store = sim_builder(1 << 16).build_store_on(disk.clone()).unwrap();
            let left = AtomicU64::new(2 + round % 5);
            disk.set_hook(move |event, _| {
                if event == Event::SyncData && left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    panic!("planted");
                }
            });
            thread::scope(|scope| {
                for thread in 0..4_u64 {
                    let store = &store;
                    scope.spawn(move || {
                        let put = |round| store.put(thread.to_le_bytes(), value(thread, round));
                        let put = || (0..30).try_for_each(put);
                        match catch_unwind(AssertUnwindSafe(put)) {
                            Ok(Ok(())) => panic!("nobody told thread {thread}"),
                            Ok(Err(error)) => assert!(matches!(error, Error::Poisoned { .. })),
                            Err(_) => {}
                        }
                    });
                }
            });
            assert!(store.stats().poisoned.is_some());
            disk.clear_hook();
        }
        done.send(()).unwrap();
    });
    // A minute is for ever.
    let waited = is_done.recv_timeout(Duration::from_secs(60 * effort(1)));
    assert!(
        waited.is_ok() || writing.is_finished(),
        "somebody waits for ever"
    );
    writing.join().unwrap();
}

#[test]
fn a_group_that_a_full_disk_refused_does_not_come_back_in_a_power_cut() {
    let appended = |store: &Store<HookedDisk>| -> u64 {
        let segments = store.stats().segments.into_iter();
        segments.map(|segment| segment.data_bytes).sum()
    };
    for seed in 0..20 {
        let disk = HookedDisk::new(SimDisk::new(seed));
        let store = sim_builder(4096).build_store_on(disk.clone()).unwrap();
        // How much of a write that fails gets into the file depends on the number of operations.
        (0..=seed).for_each(|_| store.put("a", "1").unwrap());
        let (handle, sim, before) = (store.clone(), disk.sim.clone(), appended(&store));
        let writers = Arc::new(Mutex::new([None, None]));
        let begun = Arc::clone(&writers);
        let is_first = AtomicBool::new(true);
        disk.set_hook(move |event, _| {
            if event != Event::SyncData || !is_first.swap(false, Ordering::Relaxed) {
                return;
            }
            // While a write is synced, two more come, and are the next group.
            *begun.lock().unwrap() = ["b", "c"].map(|key| {
                let store = handle.clone();
                Some(thread::spawn(move || store.put(key, "refused")))
            });
            while appended(&handle) < before + 3 * 32 {
                thread::yield_now();
            }
            // This sync, then the write of both records.
            sim.fail_at(1, FailKind::ShortWrite, true);
        });
        store.put("a", "2").unwrap();
        for writer in &mut *writers.lock().unwrap() {
            let refused = writer.take().unwrap().join().unwrap();
            assert!(
                matches!(refused, Err(Error::DiskFull { .. })),
                "{refused:?}"
            );
        }
        disk.clear_hook();
        for plan in disk.sim.crash_plans(16, seed) {
            let copy = disk.sim.crash(&plan);
            let copy = sim_builder(4096).build_store_on(copy).unwrap();
            assert_eq!(copy.get("a").unwrap().unwrap(), "2");
            assert_eq!(copy.len(), 1, "seed {seed}, {plan:?}");
        }
    }
}

#[test]
fn compaction_drops_nothing_that_only_an_unsynced_write_replaced() {
    let mut cuts = 0;
    for seed in 0..effort(6) {
        let disk = SimDisk::new(seed);
        let open = |disk: SimDisk| {
            let builder = sim_builder(4096).sync_interval(Duration::from_secs(1 << 20));
            builder.build_store_on(disk).unwrap()
        };
        let store = open(disk.clone());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // Round after round over all keys, so that any suffix lost leaves them all.
                for round in 1..200 {
                    for key in 0..8_u64 {
                        store.put(key.to_le_bytes(), value(key, round)).unwrap();
                    }
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                store.compact().unwrap();
                let copy = open(disk.crash(&CrashPlan::LoseAll));
                let rounds: Vec<_> = (0..8_u64)
                    .map(|key| {
                        let found = copy.get(key.to_le_bytes()).unwrap();
                        found.map_or(0, |bytes| round_of(key, &bytes))
                    })
                    .collect();
                let is_prefix = rounds.is_sorted_by(|a, b| a >= b) && rounds[0] <= rounds[7] + 1;
                assert!(is_prefix, "a hole: {rounds:?}");
                cuts += 1;
            }
        });
    }
    println!("{cuts} power cuts");
}

#[test]
fn dropping_the_last_handle_gives_the_directory_back_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..effort(300) {
        let store = Store::builder(dir.path())
            .segment_size(4096)
            .sync_interval(Duration::from_micros(100))
            .build_store();
        let store = store.unwrap_or_else(|error| panic!("round {round}: {error}"));
        store.put("key", "value").unwrap();
        if round % 3 == 0 {
            thread::sleep(Duration::from_micros(round));
        }
    }
}
