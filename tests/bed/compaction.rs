//! Compaction as its users see it: room comes back, nothing else changes, nobody is disturbed, and
//! what fails leaves everything as it was. What may not come back is in `ghosts.rs`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::hooked::{Event, HookedDisk, beside, merge_step_by_step};
use crate::common::{
    Op, Rng, SimStore, State, contents, delete, effort, entry_of, in_two_threads, is_kind, put,
    put_ttl, remove_hints, seal, sealed, seed, show, sim_builder, visible,
};
use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::{CompactionReport, Error, SegmentId, Store, WriteBatch};

fn open(disk: &SimDisk) -> SimStore {
    sim_builder(512).build_store_on(disk.clone()).unwrap()
}

/// The segments and hint files, byte for byte.
fn segment_files(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let files = disk.files(Path::new("/db")).into_iter();
    files
        .filter(|(name, _)| is_kind(name, "seg") || is_kind(name, "hint"))
        .collect()
}

fn check(store: &SimStore, expected: &State, context: &str) {
    let seen = contents(store, expected.keys()).unwrap();
    assert_eq!(show(&seen), show(expected), "{context}");
}

/// Everything a merge can meet: values that live, are overwritten, deleted, expired or about to
/// be, batches, tombstones that hide something and others that do not; in sealed segments.
fn mixed(disk: &SimDisk) -> (SimStore, State) {
    let store = open(disk);
    let mut state = State::new();
    let mut rng = Rng(9);
    for number in 0..60 {
        let write = |rng: &mut Rng| {
            let key = format!("k{}", rng.below(14));
            let value = format!("{number}.{key}-").repeat(1 + rng.below(9) as usize);
            match rng.below(8) {
                0..4 => put(&key, value),
                4..6 => delete(&key),
                6 => put_ttl(&key, value, 500),
                _ => put_ttl(&key, value, 1_000_000),
            }
        };
        let op = match number % 6 {
            5 => Op::Batch((0..3).map(|_| write(&mut rng)).collect()),
            _ => Op::Write(write(&mut rng)),
        };
        op.apply(&store).unwrap();
        op.apply_to(&mut state, disk.now_ms());
    }
    seal(&store);
    disk.advance(500);
    let state = visible(&state, disk.now_ms());
    check(&store, &state, "as built");
    assert!(state.len() > 3 && sealed(&store).len() > 6);
    (store, state)
}

#[test]
fn when_all_is_deleted_a_compaction_leaves_next_to_nothing() {
    let disk = SimDisk::new(1);
    let open = || sim_builder(4096).build_store_on(disk.clone()).unwrap();
    let store = open();
    for key in 0..1000_u32 {
        store.put(key.to_le_bytes(), "x".repeat(100)).unwrap();
    }
    assert!(store.stats().segments.len() > 20);
    for key in 0..1000_u32 {
        assert!(store.delete(key.to_le_bytes()).unwrap());
    }
    store.compact().unwrap();
    let is_empty = |store: &SimStore| {
        let stats = store.stats();
        assert!(stats.segments.len() < 2, "{stats:?}");
        assert_eq!((stats.keys, stats.live_bytes, stats.stale_bytes), (0, 0, 0));
    };
    is_empty(&store);
    drop(store);
    assert!(disk.used_bytes() < 1024, "{} bytes", disk.used_bytes());
    let store = open();
    is_empty(&store);
    assert_eq!(store.iter().count(), 0);
}

#[test]
fn when_all_has_expired_a_compaction_leaves_next_to_nothing() {
    let disk = SimDisk::new(1);
    let open = || sim_builder(4096).build_store_on(disk.clone()).unwrap();
    let store = open();
    // Each overwritten once, so that what expires hides something.
    for key in 0..1000_u32 {
        let (key, value) = (key % 500, "x".repeat(100));
        let ttl = Duration::from_secs(1 + u64::from(key) % 7);
        store.put_with_ttl(key.to_le_bytes(), value, ttl).unwrap();
    }
    disk.advance(7000);
    store.compact().unwrap();
    let stats = store.stats();
    assert!(stats.segments.len() < 2, "{stats:?}");
    assert_eq!((stats.keys, stats.live_bytes, stats.stale_bytes), (0, 0, 0));
    drop(store);
    assert!(disk.used_bytes() < 1024, "{} bytes", disk.used_bytes());
    assert_eq!(open().iter().count(), 0);
}

#[test]
fn deleting_everything_gives_the_room_back_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path())
        .segment_size(64 << 10)
        .sync_interval(Duration::from_secs(1000))
        .build_store()
        .unwrap();
    for key in 0..5000_u32 {
        store.put(key.to_le_bytes(), "x".repeat(100)).unwrap();
    }
    for key in 0..5000_u32 {
        assert!(store.delete(key.to_le_bytes()).unwrap());
    }
    store.compact().unwrap();
    assert!(store.stats().segments.len() < 2);
    store.close().unwrap();
    drop(store);
    let files = std::fs::read_dir(dir.path()).unwrap();
    let bytes: u64 = files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    // A reserve of 16 KiB is kept, the least there is.
    assert!(bytes < (16 << 10) + 4096, "{bytes} bytes");
}

#[test]
fn a_second_compaction_has_nothing_to_do() {
    let disk = SimDisk::new(1);
    let (store, state) = mixed(&disk);
    let first = store.compact().unwrap();
    assert!(
        first.segments_merged > 6 && first.records_dropped > 0,
        "{first:?}"
    );
    let files = segment_files(&disk);
    for round in 0..2 {
        let again = store.compact().unwrap();
        assert_eq!(
            (again.segments_merged, again.segments_written),
            (0, 0),
            "{again:?}"
        );
        assert_eq!(segment_files(&disk), files);
        check(&store, &state, &format!("round {round}"));
    }
    drop(store);
    // Nor when the figures come from the files.
    let store = open(&disk);
    let again = store.compact().unwrap();
    assert_eq!(again.segments_merged, 0, "{again:?}");
}

#[test]
fn a_report_accounts_for_every_record_and_byte() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    for key in ["a", "b", "c", "a", "b", "a"] {
        store.put(key, "value").unwrap();
    }
    store.delete("c").unwrap();
    seal(&store);
    let before: u64 = store
        .stats()
        .segments
        .iter()
        .filter(|s| s.sealed)
        .map(|s| s.data_bytes)
        .sum();
    let report = store.compact().unwrap();
    assert_eq!((report.records_kept, report.records_dropped), (2, 5));
    assert_eq!((report.segments_merged, report.segments_written), (1, 1));
    // A header of 64 bytes, and records of 16 bytes of header, 8 of key and 8 of value.
    assert_eq!(
        (report.bytes_before, report.bytes_after),
        (before, 64 + 2 * 32)
    );
}

#[test]
fn versions_and_expiries_stay_through_merges_and_reopening() {
    let disk = SimDisk::new(1);
    let (mut store, state) = mixed(&disk);
    let look = |store: &SimStore| -> Vec<_> {
        let keys = state.keys();
        keys.map(|key| {
            let value = store.get(key).unwrap().unwrap();
            (value.version().unwrap(), entry_of(&value))
        })
        .collect()
    };
    let before = look(&store);
    assert!(before.iter().any(|(_, (_, expiry))| expiry.is_some()));
    let ids = sealed(&store);
    for some in ids.chunks(3) {
        store.compact_segments(some).unwrap();
        assert_eq!(look(&store), before);
    }
    store.compact().unwrap();
    assert_eq!(look(&store), before);
    for has_hints in [true, false] {
        drop(store);
        if !has_hints {
            remove_hints(&disk, || true);
        }
        store = open(&disk);
        assert_eq!(look(&store), before);
    }
    // A version from before the merge still serves to swap.
    let (key, (version, _)) = state.keys().zip(&before).next().unwrap();
    store
        .compare_and_swap(key, Some(*version), "swapped")
        .unwrap();
}

#[test]
fn what_is_compressed_is_copied_as_it_is() {
    let disk = SimDisk::new(1);
    let build = |compression| {
        let builder = sim_builder(4096).compression(compression);
        builder.build_store_on(disk.clone()).unwrap()
    };
    let store = build(true);
    let value = |key: u32| format!("{key} and again ").repeat(100);
    for key in 0..100_u32 {
        store.put(key.to_le_bytes(), value(key)).unwrap();
        store.put("stale", value(key)).unwrap();
    }
    store.delete("stale").unwrap();
    let live_bytes = store.stats().live_bytes;
    // 100 values of more than 1400 bytes each.
    assert!(live_bytes < 20_000, "{live_bytes}");
    drop(store);
    // Whoever opens it to merge does not compress, and need not.
    let store = build(false);
    let report = store.compact().unwrap();
    assert_eq!(
        (report.records_kept, store.stats().live_bytes),
        (100, live_bytes)
    );
    for key in 0..100_u32 {
        assert_eq!(store.get(key.to_le_bytes()).unwrap().unwrap(), &*value(key));
    }
}

/// Damages one byte of a segment, and merges. Tells whether it was in a record that is needed; in
/// one that is not, it goes with its record.
fn merge_with_damage(victim: SegmentId, at: u64) -> bool {
    let disk = SimDisk::new(1);
    let (store, state) = mixed(&disk);
    // What is mapped on the simulated disk stays as it was mapped.
    drop(store);
    let name = format!("{:012}.seg", victim.get());
    let path = Path::new("/db").join(&name);
    disk.corrupt(&path, at, 0x10);
    let store = open(&disk);
    let files = segment_files(&disk);
    let context = format!("{name} damaged at {at}");
    let is_damage = |result: crabkv::Result<CompactionReport>| match result {
        Err(Error::Corrupt { file, offset, .. }) => {
            assert_eq!(file, path);
            assert!((64..=at).contains(&offset), "{offset}: {context}");
            true
        }
        Err(other) => panic!("{other}: {context}"),
        Ok(_) => false,
    };
    if !is_damage(store.compact_segments(&sealed(&store))) {
        check(&store, &state, &context);
        return false;
    }
    assert_eq!(segment_files(&disk), files, "{context}");
    // A full compaction is many merges: those of other segments may be done.
    assert!(is_damage(store.compact()));
    assert_eq!(segment_files(&disk).get(&name), files.get(&name));
    // What is lost says so; in a batch that may be all of its members.
    let lost = state.iter().filter(|(key, entry)| match store.get(key) {
        Ok(value) => {
            assert_eq!(value.as_ref().map(entry_of).as_ref(), Some(*entry));
            false
        }
        Err(error) => {
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            true
        }
    });
    assert!(lost.count() <= 3);
    // The store goes on: other segments are merged, and it is written to and opened again.
    let mut others = sealed(&store);
    others.retain(|id| *id != victim);
    store.compact_segments(&others).unwrap();
    store.put("next", "works").unwrap();
    drop(store);
    let store = open(&disk);
    assert_eq!(store.get("next").unwrap().unwrap(), "works");
    true
}

#[test]
fn a_damaged_record_stops_a_merge_that_leaves_everything_as_it_was() {
    let (store, _) = mixed(&SimDisk::new(1));
    let segments = store.stats().segments.into_iter();
    let sealed = segments.filter(|segment| segment.sealed);
    let places: Vec<_> = sealed
        .flat_map(|segment| (64..segment.data_bytes).map(move |at| (segment.id, at)))
        .step_by(29)
        .collect();
    let stopped = places.iter().filter(|(id, at)| merge_with_damage(*id, *at));
    let (stopped, places) = (stopped.count(), places.len());
    println!("{stopped} of {places} places stop the merge");
    assert!(stopped > 10 && stopped < places);
}

/// Every value says whose it is and how old, and is of a length that depends on both.
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

const WRITERS: u64 = 3;
const KEYS: u64 = 40;

/// One of the threads, which alone writes the keys that are congruent to its number.
fn write_own_keys<D: Disk>(
    store: &Store<D>,
    writer: u64,
    rounds: u64,
    seed: u64,
) -> Vec<Option<u64>> {
    let mut rng = Rng(seed ^ writer);
    // The round of each key's value, if it has one.
    let mut known = vec![None; KEYS as usize];
    let own = |rng: &mut Rng| rng.below(KEYS / WRITERS) * WRITERS + writer;
    for round in 1..=rounds {
        let key = own(&mut rng);
        match rng.below(10) {
            0..5 => {
                store.put(key.to_le_bytes(), value(key, round)).unwrap();
                known[key as usize] = Some(round);
            }
            5..8 => {
                let was_there = store.delete(key.to_le_bytes()).unwrap();
                assert_eq!(was_there, known[key as usize].is_some(), "key {key}");
                known[key as usize] = None;
            }
            _ => {
                let mut batch = WriteBatch::new();
                for _ in 0..4 {
                    let key = own(&mut rng);
                    if rng.chance(30) {
                        batch.delete(key.to_le_bytes()).unwrap();
                        known[key as usize] = None;
                    } else {
                        batch.put(key.to_le_bytes(), value(key, round)).unwrap();
                        known[key as usize] = Some(round);
                    }
                }
                store.write(&batch).unwrap();
            }
        }
        let key = own(&mut rng);
        let found = store.get(key.to_le_bytes()).unwrap();
        let found = found.map(|bytes| round_of(key, &bytes));
        assert_eq!(found, known[key as usize], "key {key}, round {round}");
    }
    known
}

/// Several threads write their own keys while others merge all and some segments; gives what
/// every key must hold.
fn write_and_merge<D: Disk>(store: &Store<D>, rounds: u64, seed: u64) -> Vec<Option<u64>> {
    let done = AtomicBool::new(false);
    let merges = AtomicU64::new(0);
    let known = thread::scope(|scope| {
        for number in 0..2 {
            let (store, done, merges) = (&store, &done, &merges);
            scope.spawn(move || {
                let mut rng = Rng(seed ^ (100 + number));
                while !done.load(Ordering::Relaxed) {
                    let result = if rng.chance(20) {
                        store.compact()
                    } else {
                        let mut some = sealed(store);
                        some.retain(|_| rng.chance(40));
                        store.compact_segments(&some)
                    };
                    result.unwrap();
                    merges.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write_own_keys(store, writer, rounds, seed)))
            .collect();
        let known: Vec<_> = writers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        known
    });
    println!("{} merges", merges.into_inner());
    let known: Vec<_> = known.into_iter().map(|known| known.unwrap()).collect();
    (0..KEYS)
        .map(|key| known[(key % WRITERS) as usize][key as usize])
        .collect()
}

fn holds<D: Disk>(store: &Store<D>, known: &[Option<u64>], context: &str) {
    for (key, known) in (0..).zip(known) {
        let found = store.get(u64::to_le_bytes(key)).unwrap();
        let found = found.map(|bytes| round_of(key, &bytes));
        assert_eq!(found, *known, "key {key}: {context}");
    }
    let count = known.iter().flatten().count();
    assert_eq!(store.iter().count(), count, "{context}");
}

#[test]
fn puts_deletes_and_batches_of_several_threads_come_through_merges_beside_them() {
    let seed = seed(40);
    let dir = tempfile::tempdir().unwrap();
    let build = || {
        let builder = Store::builder(dir.path()).segment_size(4096);
        let builder = builder.sync_interval(Duration::from_millis(5));
        builder.async_compaction(true).build_store().unwrap()
    };
    let store = build();
    let known = write_and_merge(&store, effort(3000), seed);
    holds(&store, &known, "before closing");
    drop(store);
    holds(&build(), &known, "reopened");
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "hint") {
            std::fs::remove_file(path).unwrap();
        }
    }
    holds(&build(), &known, "reopened without hint files");
}

#[test]
fn writes_beside_merges_survive_a_power_cut() {
    let seed = seed(41);
    for round in 0..effort(4) {
        let disk = SimDisk::new(seed ^ round);
        let store = open(&disk);
        let known = write_and_merge(&store, 300, seed ^ round);
        for plan in [
            CrashPlan::LoseAll,
            CrashPlan::KeepAll,
            CrashPlan::Random(round),
        ] {
            for has_hints in [true, false] {
                let copy = disk.crash(&plan);
                if !has_hints {
                    remove_hints(&copy, || true);
                }
                let context = format!("{plan:?}, hints: {has_hints}, round {round}");
                holds(&open(&copy), &known, &context);
            }
        }
    }
}

#[test]
fn a_write_of_every_kind_at_any_step_of_a_merge_wins_over_the_copy() {
    let kinds: [fn(&Store<HookedDisk>); 5] = [
        |store| store.put("key", "new").unwrap(),
        |store| assert!(store.delete("key").unwrap()),
        |store| {
            let mut batch = WriteBatch::new();
            batch.put("key", "new").unwrap().delete("other").unwrap();
            store.write(&batch).unwrap();
        },
        |store| {
            store
                .put_with_ttl("key", "new", Duration::from_secs(9))
                .unwrap();
        },
        |store| assert!(store.touch("key", Duration::from_secs(5)).unwrap()),
    ];
    let look = |store: &Store<HookedDisk>| {
        let entries = store.iter().map(|entry| {
            let (key, value) = entry.unwrap();
            (key, (value.version(), entry_of(&value)))
        });
        entries.collect::<BTreeMap<_, _>>()
    };
    let mut cases = 0;
    for kind in kinds {
        let mut steps = 1;
        let mut at = 0;
        while at < steps {
            let disk = HookedDisk::new(SimDisk::new(1));
            let build = |disk: &HookedDisk| sim_builder(256).build_store_on(disk.clone()).unwrap();
            let store = build(&disk);
            for key in ["key", "other", "third", "stale", "stale"] {
                store.put(key, "old".repeat(20)).unwrap();
            }
            seal(&store);
            let handle = store.clone();
            let seen = Arc::new(Mutex::new(None));
            let noted = Arc::clone(&seen);
            let step = move |number| {
                if number == at {
                    let (store, noted) = (handle.clone(), Arc::clone(&noted));
                    beside(move || {
                        kind(&store);
                        // What a write has changed is seen at once, and so after the merge.
                        *noted.lock().unwrap() = Some(look(&store));
                    });
                }
            };
            steps = merge_step_by_step(&store, &disk, &sealed(&store), step).unwrap();
            let expected = seen.lock().unwrap().clone().unwrap();
            assert_eq!(look(&store), expected, "step {at}");
            drop(store);
            for has_hints in [true, false] {
                let copy = disk.sim.crash(&CrashPlan::KeepAll);
                if !has_hints {
                    remove_hints(&copy, || true);
                }
                let store = build(&HookedDisk::new(copy));
                assert_eq!(look(&store), expected, "step {at}, hints: {has_hints}");
            }
            at += 1;
            cases += 1;
        }
    }
    println!("{cases} cases");
    assert!(cases > 50);
}

#[test]
fn a_merge_drops_nothing_that_only_an_unsynced_write_replaced() {
    let build = |disk: &HookedDisk| {
        let builder = sim_builder(256).sync_interval(Duration::from_secs(1 << 20));
        builder.build_store_on(disk.clone()).unwrap()
    };
    let (mut steps, mut at) = (1, 0);
    while at < steps {
        let disk = HookedDisk::new(SimDisk::new(1));
        let store = build(&disk);
        for key in ["key", "other", "stale", "stale"] {
            store.put(key, "old").unwrap();
        }
        seal(&store);
        let handle = store.clone();
        let step = move |number| {
            if number == at {
                let store = handle.clone();
                beside(move || store.put("key", "new").unwrap());
            }
        };
        steps = merge_step_by_step(&store, &disk, &sealed(&store), step).unwrap();
        for plan in disk.sim.crash_plans(16, at) {
            let copy = build(&HookedDisk::new(disk.sim.crash(&plan)));
            let found = copy.get("key").unwrap();
            let is_there = found.as_ref().is_some_and(|v| *v == "old" || *v == "new");
            assert!(is_there, "step {at}, {plan:?}: {found:?}");
        }
        at += 1;
    }
    assert!(steps > 6, "{steps}");
}

#[test]
fn what_is_held_across_a_merge_keeps_its_bytes_and_its_file_goes_when_it_is_let_go() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    for key in 0..40_u64 {
        store.put(key.to_le_bytes(), value(key, 1)).unwrap();
    }
    seal(&store);
    let before = segment_files(&disk);
    let values: Vec<_> = (0..40_u64)
        .map(|key| store.get(key.to_le_bytes()).unwrap().unwrap())
        .collect();
    let reader = store.reader();
    let lent = reader.get(7_u64.to_le_bytes()).unwrap().unwrap();
    let mut iteration = store.iter();
    let met = iteration.next().unwrap().unwrap();
    for round in 2..6 {
        for key in 0..40_u64 {
            store.put(key.to_le_bytes(), value(key, round)).unwrap();
        }
        store.compact().unwrap();
    }
    for (key, bytes) in (0..).zip(&values) {
        assert_eq!(bytes, &*value(key, 1));
    }
    assert_eq!(lent, value(7, 1));
    // The iteration goes on where it was, over what is there now.
    let mut keys = vec![met.0];
    for entry in iteration {
        let (key, bytes) = entry.unwrap();
        let number = u64::from_le_bytes(key[..].try_into().unwrap());
        assert!((1..6).contains(&round_of(number, &bytes)));
        keys.push(key);
    }
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 40);

    let inputs_left = |disk: &SimDisk| {
        let now = segment_files(disk);
        let names = before.keys().filter(|name| is_kind(name, "seg"));
        names.filter(|name| now.contains_key(*name)).count()
    };
    assert!(inputs_left(&disk) > 0, "somebody reads them");
    drop((reader, values, met.1));
    // Whoever writes next sweeps up.
    store.put("next", "write").unwrap();
    store.compact().unwrap();
    assert_eq!(inputs_left(&disk), 0, "nobody reads them");
}

/// Writes until a compaction in the background is about to write an output, and holds it there
/// until the sender is dropped.
fn held_in_the_background(disk: &HookedDisk) -> (Store<HookedDisk>, State, mpsc::Sender<()>) {
    let builder = sim_builder(128 << 10).async_compaction(true);
    let store = builder.build_store_on(disk.clone()).unwrap();
    let (hold, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let is_there = Arc::new(AtomicBool::new(false));
    let tells = Arc::clone(&is_there);
    disk.set_hook(move |event, path| {
        let is_output = thread::current().name() == Some("crabkv-compact")
            && event == Event::Create
            && is_kind(&path.to_string_lossy(), "seg");
        if is_output {
            tells.store(true, Ordering::SeqCst);
            // An error: the sender is gone.
            let _ = gate.lock().unwrap().recv();
        }
    });
    let mut state = State::new();
    let mut write = |key: &str, value: Vec<u8>| {
        let op = Op::Write(put(key, value));
        op.apply(&store).unwrap();
        op.apply_to(&mut state, disk.now_ms());
    };
    // Every other value stays, so that there is something to copy.
    for number in 0_u64.. {
        if is_there.load(Ordering::SeqCst) {
            break;
        }
        assert!(number < 10_000, "no compaction begins");
        let key = if number % 2 == 0 { number } else { number % 20 };
        write(&format!("k{key}"), value(number, 1).repeat(100));
        thread::sleep(Duration::from_micros(100));
    }
    // Writes and reads go on.
    write("k1", b"beside the merge".to_vec());
    assert_eq!(store.get("k1").unwrap().unwrap(), "beside the merge");
    (store, state, hold)
}

#[test]
fn a_store_may_be_closed_while_it_is_compacted_in_the_background() {
    for is_dropped in [true, false] {
        let disk = HookedDisk::new(SimDisk::new(1));
        let (store, mut state, hold) = held_in_the_background(&disk);
        // Whether closing waits for the compaction or not, it comes to its end.
        let let_go = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            drop(hold);
        });
        if !is_dropped {
            store.close().unwrap();
            let op = Op::Write(put("after", "the close"));
            op.apply(&store).unwrap();
            op.apply_to(&mut state, disk.now_ms());
        }
        drop(store);
        let_go.join().unwrap();
        for plan in [CrashPlan::KeepAll, CrashPlan::LoseAll] {
            let copy = disk.sim.crash(&plan);
            let store = sim_builder(128 << 10).build_store_on(copy).unwrap();
            assert!(store.recovery_report().clean);
            check(&store, &state, &format!("dropped: {is_dropped}, {plan:?}"));
        }
    }
}

#[test]
fn two_threads_may_compact_at_once() {
    for round in 0..effort(20) {
        let disk = SimDisk::new(round);
        let (store, state) = mixed(&disk);
        let alone = mixed(&SimDisk::new(round)).0.compact().unwrap();
        let dropped: u64 = thread::scope(|scope| {
            let compact = || store.compact().unwrap().records_dropped;
            let both = [scope.spawn(compact), scope.spawn(compact)];
            both.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // What one has dropped the other does not find.
        assert_eq!(dropped, alone.records_dropped);
        check(&store, &state, "after both");
        assert_eq!(store.stats().stale_bytes, 0);
        drop(store);
        check(&open(&disk), &state, "reopened");
    }
}

type Merge = fn(&SimStore) -> crabkv::Result<()>;

#[test]
fn a_disk_that_is_full_at_any_point_of_a_merge_leaves_the_inputs_untouched() {
    let (mut failed, mut done) = (0, 0);
    let everything = |store: &SimStore| store.compact().map(|_| ());
    let all_at_once = |store: &SimStore| store.compact_segments(&sealed(store)).map(|_| ());
    let some = |store: &SimStore| store.compact_segments(&sealed(store)[1..5]).map(|_| ());
    let merges: [(Merge, bool); 3] = [(everything, false), (all_at_once, true), (some, true)];
    for (merge, is_one_merge) in merges {
        for room in (0..8192).step_by(48) {
            let disk = SimDisk::new(1);
            let (store, mut state) = mixed(&disk);
            let files = segment_files(&disk);
            disk.set_capacity(Some(disk.used_bytes() + room));
            match merge(&store) {
                Ok(()) => done += 1,
                Err(Error::DiskFull { .. }) => {
                    failed += 1;
                    // Of many merges, those that had room may be done.
                    if is_one_merge {
                        assert_eq!(segment_files(&disk), files, "{room} bytes of room");
                    }
                }
                Err(other) => panic!("{other}, with {room} bytes of room"),
            }
            let context = format!("{room} bytes of room");
            check(&store, &state, &context);
            let copy = disk.crash(&CrashPlan::LoseAll);
            copy.set_capacity(None);
            check(&open(&copy), &state, &context);
            // There is room again: writes and merges go on, also once it was closed.
            disk.set_capacity(None);
            let store = if room % 96 == 0 {
                store
            } else {
                drop(store);
                open(&disk)
            };
            let op = Op::Write(put("later", "written"));
            op.apply(&store).unwrap();
            op.apply_to(&mut state, disk.now_ms());
            merge(&store).unwrap();
            check(&store, &state, &context);
            drop(store);
            check(&open(&disk), &state, &context);
        }
    }
    println!("{failed} merges failed, {done} had room");
    assert!(failed > 20 && done > 20);
}

#[test]
fn a_crash_at_any_operation_of_a_partial_merge_changes_nothing() {
    let images = AtomicU64::new(0);
    let choose = |ids: &[SegmentId], number: u64| -> Vec<SegmentId> {
        let chosen = (0..).zip(ids).filter(|(at, _)| number >> (at % 6) & 1 == 1);
        chosen.map(|(_, id)| *id).collect()
    };
    in_two_threads(effort(6), |number| {
        let number = 1 + number * 11;
        for stop in 0.. {
            let disk = SimDisk::new(1);
            let (store, state) = mixed(&disk);
            let chosen = choose(&sealed(&store), number);
            let before = disk.ops();
            disk.stop_at(stop);
            let merged = store.compact_segments(&chosen);
            let was_hit = disk.ops() - before > stop;
            assert!(was_hit || merged.is_ok());
            drop(store);
            let mut rng = Rng(number ^ stop);
            for plan in disk.crash_plans(12, stop) {
                images.fetch_add(1, Ordering::Relaxed);
                let context = format!("merge {number}, stop at {stop}, {plan:?}");
                let image = disk.crash(&plan);
                if rng.chance(30) {
                    remove_hints(&image, || true);
                }
                let store = open(&image);
                check(&store, &state, &context);
                // What a crash left behind does not change what the next merge may drop.
                let chosen = choose(&sealed(&store), 1 + rng.below(63));
                store.compact_segments(&chosen).unwrap();
                drop(store);
                remove_hints(&image, || rng.chance(50));
                check(&open(&image), &state, &context);
            }
            if !was_hit {
                break;
            }
        }
    });
    println!("{} crash images", images.into_inner());
}

/// `rounds` times over all keys, in batches; gives what each key holds.
fn overwrite<D: Disk>(store: &Store<D>, rounds: u32, mut after_each: impl FnMut()) {
    for round in 0..rounds {
        for keys in 0..40_u32 {
            let mut batch = WriteBatch::new();
            for key in 0..25 {
                let key = keys * 25 + key;
                batch
                    .put(key.to_le_bytes(), format!("{round:0>1000}"))
                    .unwrap();
            }
            store.write(&batch).unwrap();
            after_each();
        }
    }
}

fn holds_round<D: Disk>(store: &Store<D>, round: u32) {
    assert_eq!(store.len(), 1000);
    for key in 0..1000_u32 {
        let found = store.get(key.to_le_bytes()).unwrap().unwrap();
        assert_eq!(found, &*format!("{round:0>1000}"), "{key}");
    }
}

const MIB: u64 = 1 << 20;

#[test]
fn under_overwrites_an_inline_store_is_never_larger_than_promised() {
    const SEGMENT: u64 = 128 << 10;
    let disk = SimDisk::new(1);
    let store = sim_builder(SEGMENT).build_store_on(disk.clone()).unwrap();
    let mut most = 0;
    overwrite(&store, 8, || {
        let stats = store.stats();
        most = most.max(stats.data_bytes);
        // It is looked at after every mebibyte, and the last batch may have gone over it.
        let bound = stats.live_bytes * 3 / 2 + 2 * SEGMENT + MIB;
        assert!(stats.data_bytes <= bound, "{} of {bound}", stats.data_bytes);
    });
    println!(
        "at most {most} bytes, for {} live ones",
        store.stats().live_bytes
    );
    holds_round(&store, 7);
}

#[test]
fn under_overwrites_a_store_that_compacts_in_the_background_becomes_small() {
    const SEGMENT: u64 = 128 << 10;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path())
        .segment_size(SEGMENT)
        .sync_interval(Duration::from_millis(20))
        .async_compaction(true)
        .build_store()
        .unwrap();
    overwrite(&store, 20, || {});
    // It may lag behind, but not for ever, and not because nobody writes any more.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let stats = store.stats();
        if stats.data_bytes <= stats.live_bytes * 3 / 2 + 2 * SEGMENT + MIB {
            break;
        }
        assert!(Instant::now() < end, "{stats:?}");
        thread::sleep(Duration::from_millis(5));
    }
    holds_round(&store, 19);
    drop(store);
    holds_round(&Store::open(dir.path()).unwrap(), 19);
}

/// Nothing is ever overwritten or deleted here: all that becomes stale does so by the clock.
#[test]
fn where_every_key_expires_space_stays_bounded_though_nobody_compacts() {
    const SEGMENT: u64 = 128 << 10;
    const VALUE_LEN: usize = 1000;
    // Header, expiry, key and value.
    const RECORD_LEN: u64 = 16 + 8 + 8 + VALUE_LEN as u64;
    for (shortest_ms, longest_ms) in [(2000, 2000), (500, 2500)] {
        let disk = SimDisk::new(1);
        let store = sim_builder(SEGMENT).build_store_on(disk.clone()).unwrap();
        let mut rng = Rng(2);
        let (mut most_bytes, mut most_keys) = (0, 0);
        // One write in each millisecond: so many of them can be seen at a time.
        let window = longest_ms;
        for number in 0..800_u64 {
            let mut batch = WriteBatch::new();
            for key in number * 25..(number + 1) * 25 {
                let ttl_ms = shortest_ms + rng.below(longest_ms - shortest_ms + 1);
                let ttl = Duration::from_millis(ttl_ms);
                batch
                    .put_with_ttl(key.to_le_bytes(), [7; VALUE_LEN], ttl)
                    .unwrap();
            }
            store.write(&batch).unwrap();
            disk.advance(25);
            let stats = store.stats();
            most_bytes = most_bytes.max(stats.data_bytes);
            most_keys = most_keys.max(stats.keys);
        }
        println!("{most_bytes} bytes and {most_keys} keys at most, of 20,000 written");
        let bound = 2 * window * RECORD_LEN + 2 * SEGMENT + MIB;
        assert!(most_bytes <= bound, "{most_bytes} bytes, more than {bound}");
        let bound = bound / RECORD_LEN;
        assert!(most_keys <= bound, "{most_keys} keys, more than {bound}");
    }
}
