//! Read-only stores beside a live writer: what they see, what they leave alone, and how they catch
//! up, on the simulated disk and on real ones.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::hooked::{self, HookedDisk};
use crate::common::{
    Op, Rng, SimStore, State, contents, delete, effort, is_kind, put, put_ttl, sealed, seed, show,
    sim_builder, visible,
};
use crate::fated::{Event, Fate, FatedDisk};
use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::{CrabKv, CrabKvBuilder, Error, ReadMode, Store, WriteBatch};

const NEVER: Duration = Duration::from_secs(1 << 20);

fn writer(disk: &SimDisk) -> SimStore {
    sim_builder(512)
        .auto_compaction(false)
        .build_store_on(disk.clone())
        .unwrap()
}

fn follower(disk: &SimDisk) -> SimStore {
    let builder = sim_builder(512).read_only(true);
    builder.build_store_on(disk.clone()).unwrap()
}

/// Everything that a store has, its figures checked against those of one that is opened now.
fn seen(store: &SimStore, disk: &SimDisk) -> State {
    let state = contents(store, []).unwrap();
    let anew = follower(disk);
    let (a, b) = (store.stats(), anew.stats());
    assert_eq!(a.keys, b.keys);
    assert_eq!(a.segments, b.segments);
    assert_eq!(a.append_buffer_bytes, b.append_buffer_bytes);
    assert_eq!(state, contents(&anew, []).unwrap());
    state
}

/// Refreshes, and compares with the writer.
fn same_after_refresh<D: Disk>(follower: &SimStore, writer: &Store<D>, disk: &SimDisk) {
    follower.refresh().unwrap();
    let expected = contents(writer, []).unwrap();
    let state = contents(follower, expected.keys()).unwrap();
    assert!(
        state == expected,
        "the follower has {}\nthe writer {}",
        show(&state),
        show(&expected)
    );
    seen(follower, disk);
    assert!(!follower.refresh().unwrap(), "at rest there is no news");
}

#[test]
fn a_follower_sees_what_was_there_and_after_a_refresh_what_came() {
    let disk = SimDisk::new(1);
    let writer = writer(&disk);
    writer.put("a", "1").unwrap();
    let follower = follower(&disk);
    assert!(follower.is_read_only() && !writer.is_read_only());
    assert!(!follower.recovery_report().clean);
    assert_eq!(follower.get("a").unwrap().unwrap(), "1");
    let steps: [(&str, &dyn Fn()); 12] = [
        ("put", &|| writer.put("b", "2").unwrap()),
        ("overwrite", &|| writer.put("a", "3").unwrap()),
        ("delete", &|| assert!(writer.delete("b").unwrap())),
        ("batch", &|| {
            let mut batch = WriteBatch::new();
            batch.put("c", "4").unwrap().put("d", "5").unwrap();
            batch.delete("a").unwrap();
            writer.write(&batch).unwrap();
        }),
        ("ttl", &|| {
            writer
                .put_with_ttl("t", "6", Duration::from_secs(9))
                .unwrap();
        }),
        ("rotation", &|| {
            for i in 0..40 {
                writer.put(format!("r{}", i % 11), format!("{i}")).unwrap();
            }
        }),
        ("compaction", &|| assert!(writer.compact().is_ok())),
        ("close", &|| writer.close().unwrap()),
        ("after close", &|| writer.put("e", "7").unwrap()),
        ("a record longer than a segment", &|| {
            writer.put("long", vec![b'x'; 200_000]).unwrap();
        }),
        ("time", &|| disk.advance(10_000)),
        ("compaction of expired ones", &|| {
            assert!(writer.compact().is_ok());
        }),
    ];
    for (what, step) in steps {
        step();
        println!("{what}");
        same_after_refresh(&follower, &writer, &disk);
    }
}

#[test]
fn a_store_that_was_closed_is_followed_by_its_next_writer() {
    let disk = SimDisk::new(2);
    let first = writer(&disk);
    first.put("a", "1").unwrap();
    drop(first);
    let follower = follower(&disk);
    assert!(follower.recovery_report().clean);
    let second = writer(&disk);
    same_after_refresh(&follower, &second, &disk);
    second.put("b", "2").unwrap();
    same_after_refresh(&follower, &second, &disk);
    drop(second);
    follower.refresh().unwrap();
    assert_eq!(follower.len(), 2);
}

/// The store's files on another disk, as if the process had died at this moment.
fn kill(disk: &SimDisk) -> SimDisk {
    disk.crash(&CrashPlan::KeepAll)
}

#[test]
fn a_follower_survives_the_recovery_of_a_writer_that_died() {
    for torn in [0, 5, 40] {
        let disk = SimDisk::new(3);
        let first = sim_builder(4096)
            .sync_interval(NEVER)
            .build_store_on(disk.clone())
            .unwrap();
        for i in 0..6 {
            first.put(format!("k{i}"), "synced").unwrap();
        }
        first.sync().unwrap();
        for i in 3..9 {
            first.put(format!("k{i}"), "only written").unwrap();
        }
        let disk = kill(&disk);
        let path = Path::new("/db/000000000001.seg");
        let end = disk.read_raw(path).unwrap();
        let end = end.iter().rposition(|&byte| byte != 0).unwrap() as u64;
        for at in 0..torn {
            disk.corrupt(path, end - 4 - at, 0xff);
        }
        let follower = follower(&disk);
        let before = contents(&follower, []).unwrap();
        let second = writer(&disk);
        assert!(!second.recovery_report().clean);
        // What nothing proved to be durable is in a segment of its own now.
        same_after_refresh(&follower, &second, &disk);
        assert_eq!(contents(&follower, []).unwrap(), before, "{torn}");
        second.put("k0", "anew").unwrap();
        same_after_refresh(&follower, &second, &disk);
    }
}

#[test]
fn every_write_to_a_read_only_store_is_refused() {
    let disk = SimDisk::new(4);
    writer(&disk).put("a", "1").unwrap();
    let ops = disk.ops();
    let store = sim_builder(512)
        .read_only(true)
        .write_back_cache(true)
        .async_compaction(true)
        .sync_interval(Duration::from_millis(1))
        .build_store_on(disk.clone())
        .unwrap();
    let mut batch = WriteBatch::new();
    batch.put("b", "2").unwrap();
    let version = store.get("a").unwrap().unwrap().version();
    let refused = [
        store.put("a", "2"),
        store.put_with_ttl("a", "2", Duration::from_secs(1)),
        store.put_batch([("a", "2"), ("b", "3")]),
        store.write(&batch),
        store.write(&WriteBatch::new()),
        store.delete("a").map(drop),
        store.delete("absent").map(drop),
        store.put_if_absent("b", "2").map(drop),
        store.compare_and_swap("a", version, "2"),
        store.compare_and_delete("a", version.unwrap()),
        store.update("a", |_| None).map(drop),
        store.increment("n", 1).map(drop),
        store.persist("a").map(drop),
        store.touch("a", Duration::from_secs(1)).map(drop),
        store.compact().map(drop),
        store.flush(),
        store.sync(),
    ];
    for (number, result) in refused.into_iter().enumerate() {
        assert!(
            matches!(result, Err(Error::ReadOnly)),
            "{number}: {result:?}"
        );
    }
    let error = std::io::Error::from(Error::ReadOnly);
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let space = store.explain_compaction();
    assert_eq!(space.next, crabkv::NextCompaction::ReadOnly);
    store.close().unwrap();
    assert_eq!(store.get("a").unwrap().unwrap(), "1");
    drop(store);
    assert_eq!(disk.ops(), ops, "the disk was changed");
}

#[test]
fn a_writing_store_has_nothing_to_refresh() {
    let disk = SimDisk::new(5);
    let store = writer(&disk);
    store.put("a", "1").unwrap();
    assert!(!store.refresh().unwrap());
}

#[test]
fn a_store_that_is_not_there_is_not_found_and_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let found = Store::open_read_only(&missing);
    assert!(matches!(found, Err(Error::NotFound { .. })), "{found:?}");
    assert!(!missing.exists());
    let found = Store::open_read_only(dir.path());
    assert!(matches!(found, Err(Error::NotFound { .. })), "{found:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_interval_without_read_only_or_of_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let writing = Store::builder(dir.path()).refresh_interval(Duration::from_secs(1));
    let nothing = Store::builder(dir.path())
        .read_only(true)
        .refresh_interval(Duration::ZERO);
    for builder in [writing, nothing] {
        let opened = builder.build_store();
        assert!(matches!(
            opened,
            Err(Error::InvalidOption {
                option: "refresh_interval",
                ..
            })
        ));
    }
}

/// Names, lengths, times and contents of all files.
fn listing(dir: &Path) -> Vec<(String, u64, std::time::SystemTime, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = std::fs::read(entry.path()).unwrap();
        (name, metadata.len(), metadata.modified().unwrap(), bytes)
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

#[test]
fn a_read_only_open_leaves_the_directory_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let build = || Store::builder(dir.path()).segment_size(4096);
    let store = build().auto_compaction(false).build_store().unwrap();
    for i in 0..300 {
        store
            .put(format!("k{}", i % 50), format!("value {i}"))
            .unwrap();
    }
    // As a writer that died leaves it: unsealed, without a hint file, with leftovers.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    std::fs::remove_file(copy.path().join("000000000001.hint")).unwrap();
    std::fs::remove_file(copy.path().join("LOCK")).unwrap();
    std::fs::write(copy.path().join("MANIFEST.tmp"), "left over").unwrap();
    std::fs::write(copy.path().join("000000009999.seg"), "left over").unwrap();
    let before = listing(copy.path());
    let read_only = |yes| {
        let mut permissions = std::fs::metadata(copy.path()).unwrap().permissions();
        permissions.set_readonly(yes);
        std::fs::set_permissions(copy.path(), permissions).unwrap();
    };
    read_only(true);
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        let follower = Store::builder(copy.path())
            .read_only(true)
            .read_mode(mode)
            .build_store()
            .unwrap();
        let another = CrabKv::open_read_only(copy.path()).unwrap();
        assert_eq!(follower.recovery_report().scanned.len(), 1);
        assert_eq!(follower.len(), 50);
        assert!(!follower.refresh().unwrap() && !another.refresh().unwrap());
        assert_eq!(another.get("k49").unwrap().unwrap(), "value 299");
        follower.close().unwrap();
    }
    let after = listing(copy.path());
    read_only(false);
    assert_eq!(before, after);
}

#[test]
fn a_refresh_reads_only_what_is_new() {
    let disk = SimDisk::new(6);
    let build = || sim_builder(64 << 10).auto_compaction(false);
    let writer = build().build_store_on(disk.clone()).unwrap();
    let value = [b'v'; 100];
    for i in 0..3000 {
        writer.put(format!("key{i}"), value).unwrap();
    }
    let follower = build()
        .read_only(true)
        .build_store_on(disk.clone())
        .unwrap();
    let segments = writer.stats().segments.len() as u64;
    assert!(segments > 5, "{segments}");
    let reads_of = |expected: bool| {
        let before = disk.reads();
        assert_eq!(follower.refresh().unwrap(), expected);
        disk.reads() - before
    };
    // The manifest (open, length, bytes), and the tail (length, bytes, its last record).
    assert_eq!(reads_of(false), 6);
    writer.put("key0", "new").unwrap();
    assert_eq!(reads_of(true), 6);
    for i in 0..3000 {
        writer.put(format!("key{i}"), value).unwrap();
    }
    let new = writer.stats().segments.len() as u64 - segments;
    // Of each segment: open, header, length, footer; open, length and map of segment and hint
    // file. The last tail is one of them, the new one is read in a few pieces.
    let reads = reads_of(true);
    assert!(
        reads <= 20 + 10 * (new + 1),
        "{reads} reads for {new} segments"
    );
    assert_eq!(reads_of(false), 6);
}

#[test]
fn a_key_that_is_gone_does_not_come_back_from_a_merged_copy() {
    let disk = SimDisk::new(7);
    let writer = writer(&disk);
    let seal = |marker: &str| {
        // Merging nothing seals the active segment.
        writer.put(marker, "x").unwrap();
        writer.compact_segments(&[]).unwrap();
        writer.stats().segments.last().unwrap().id
    };
    writer.put("k", "old").unwrap();
    let first = seal("m1");
    let follower = follower(&disk);
    // A copy of the old value moves, is deleted, and its tombstone stays where it is.
    let second = {
        writer.compact_segments(&[first]).unwrap();
        assert!(writer.delete("k").unwrap());
        seal("m2")
    };
    same_after_refresh(&follower, &writer, &disk);
    assert!(follower.get("k").unwrap().is_none());
    // Put and deleted, and both merged away, between two refreshes.
    writer.put("k", "newer").unwrap();
    let third = seal("m3");
    same_after_refresh(&follower, &writer, &disk);
    assert!(writer.delete("k").unwrap());
    let fourth = seal("m4");
    writer.compact_segments(&[second, third, fourth]).unwrap();
    writer.compact().unwrap();
    same_after_refresh(&follower, &writer, &disk);
    assert!(follower.get("k").unwrap().is_none());
}

/// Random writes and merges of any segments, with a refresh now and then, after which the follower
/// has what the writer has: nothing that is gone comes back, whatever was merged in between.
fn follow_at_rest(build: fn() -> CrabKvBuilder, steps: u64, fixed_seed: u64) {
    let mut rng = Rng(seed(fixed_seed));
    let disk = SimDisk::new(rng.next());
    let mut store = build().build_store_on(disk.clone()).unwrap();
    let follower = build().read_only(true);
    let follower = follower.build_store_on(disk.clone()).unwrap();
    let mut refreshes = 0;
    for number in 0..effort(steps) {
        let mut write = || {
            let key = format!("k{}", rng.below(30));
            let value = format!("{number}-{key}-").repeat(1 + rng.below(6) as usize);
            match rng.below(20) {
                0..9 => put(&key, value),
                9..18 => delete(&key),
                _ => put_ttl(&key, value, 1 + rng.below(300)),
            }
        };
        let op = match number % 15 {
            0..14 => Op::Write(write()),
            _ => Op::Batch((0..number % 4 + 2).map(|_| write()).collect()),
        };
        op.apply(&store).unwrap();
        match rng.below(1000) {
            0..150 => {
                let segments = store.stats().segments;
                let chance = rng.below(100);
                let picked = segments.iter().filter(|_| rng.chance(chance));
                let picked: Vec<_> = picked.map(|segment| segment.id).collect();
                store.compact_segments(&picked).unwrap();
            }
            150..155 => assert!(store.compact().is_ok()),
            155..160 => store.close().unwrap(),
            160..165 => {
                drop(store);
                for (name, _) in disk.files(Path::new("/db")) {
                    if is_kind(&name, "hint") && rng.chance(20) {
                        disk.remove_raw(&Path::new("/db").join(name));
                    }
                }
                store = build().build_store_on(disk.clone()).unwrap();
            }
            165..200 => disk.advance(rng.below(100)),
            _ => {}
        }
        if rng.chance(5) {
            same_after_refresh(&follower, &store, &disk);
            refreshes += 1;
        }
    }
    println!("{} writes, {refreshes} refreshes", effort(steps));
}

#[test]
fn nothing_that_was_deleted_comes_back_to_a_follower() {
    let build = || sim_builder(400).auto_compaction(false);
    follow_at_rest(build, 12_000, 43);
}

#[test]
fn nor_where_keys_share_hashes() {
    let build = || sim_builder(512).auto_compaction(false).hash_bits(3);
    follow_at_rest(build, 8_000, 44);
}

#[test]
fn nor_with_compaction_by_itself() {
    let build = || sim_builder(1000).sync_interval(NEVER).hash_bits(6);
    follow_at_rest(build, 12_000, 45);
}

#[test]
fn a_follower_begins_anew_when_a_merge_removes_what_it_was_about_to_open() {
    let disk = SimDisk::new(14);
    let writer = writer(&disk);
    let fill = |value: &str| {
        for i in 0..60 {
            writer.put(format!("k{}", i % 20), value).unwrap();
        }
    };
    fill("first");
    let hooked = HookedDisk::new(disk.clone());
    let builder = sim_builder(512).read_only(true);
    let follower = builder.build_store_on(hooked.clone()).unwrap();
    fill("second");
    let merges = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&merges);
    let compacting = writer.clone();
    hooked.set_hook(move |event, path| {
        let mut merges = counted.lock().unwrap();
        let is_segment = path.extension().is_some_and(|extension| extension == "seg");
        if event == hooked::Event::Open && is_segment && *merges < 3 {
            *merges += 1;
            compacting.put(format!("m{merges}"), "x").unwrap();
            assert!(compacting.compact().is_ok());
        }
    });
    assert!(follower.refresh().unwrap());
    hooked.clear_hook();
    assert_eq!(*merges.lock().unwrap(), 3);
    assert_eq!(follower.get("k0").unwrap().unwrap(), "second");
    follower.refresh().unwrap();
    assert_eq!(
        contents(&follower, []).unwrap(),
        contents(&writer, []).unwrap()
    );
}

#[test]
fn a_follower_keeps_up_with_writers_and_merges_on_many_threads() {
    const WRITERS: u64 = 3;
    const KEYS: u64 = 40;
    const ENOUGH: u64 = 10;
    let rounds = effort(1500);
    let disk = SimDisk::new(seed(15));
    let store = writer(&disk);
    let follower = follower(&disk);
    let left = AtomicU64::new(WRITERS);
    let refreshes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, left, refreshes) = (&store, &left, &refreshes);
            scope.spawn(move || {
                for round in 1..=rounds * 100 {
                    // The follower has met something by then, on a slow machine, too.
                    if round > rounds && refreshes.load(Ordering::Relaxed) > ENOUGH {
                        break;
                    }
                    // Each key once in a round, and those of odd numbers deleted before.
                    let key = format!("w{writer}k{}", round % KEYS);
                    if round % 2 == 1 {
                        store.delete(&key).unwrap();
                    }
                    store.put(&key, round.to_string()).unwrap();
                }
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            while left.load(Ordering::SeqCst) > 0 {
                let picked: Vec<_> = sealed(&store).into_iter().step_by(2).collect();
                store.compact_segments(&picked).unwrap();
            }
        });
        scope.spawn(|| {
            let mut seen = vec![0; (WRITERS * KEYS) as usize];
            while left.load(Ordering::SeqCst) > 0 {
                for (number, seen) in (0..).zip(&mut seen) {
                    let key = format!("w{}k{}", number / KEYS, number % KEYS);
                    if let Some(value) = follower.get(key).unwrap() {
                        let round: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
                        assert!(round >= *seen, "{round} after {seen}");
                        *seen = round;
                    } else {
                        assert!(*seen == 0 || number % 2 == 1, "a key vanished");
                    }
                }
            }
        });
        while left.load(Ordering::SeqCst) > 0 {
            let has_news = follower.refresh().unwrap();
            refreshes.fetch_add(u64::from(has_news), Ordering::Relaxed);
        }
    });
    same_after_refresh(&follower, &store, &disk);
    let refreshes = refreshes.into_inner();
    println!("{refreshes} refreshes");
    assert!(refreshes > ENOUGH);
}

/// A write that failed once all its bytes were in the file, and was taken back.
struct TakenBack {
    disk: SimDisk,
    writer: Store<FatedDisk>,
    /// Looked at it before it was taken back.
    follower: SimStore,
    /// The segment as it was then.
    file: Vec<u8>,
}

fn take_back(build: fn() -> CrabKvBuilder, first: &Op, taken: &Op) -> TakenBack {
    let disk = SimDisk::new(8);
    let armed = Arc::new(Mutex::new(None::<SimStore>));
    let file = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let (armed, file, disk) = (Arc::clone(&armed), Arc::clone(&file), disk.clone());
        move |event| match (&*armed.lock().unwrap(), event) {
            (Some(follower), Event::Written) => {
                assert!(follower.refresh().unwrap());
                for entry in follower {
                    drop(entry.unwrap());
                }
                let path = Path::new("/db/000000000001.seg");
                *file.lock().unwrap() = disk.read_raw(path).unwrap();
                Fate::Full
            }
            _ => Fate::Go,
        }
    };
    let hooked = FatedDisk::new(disk.clone(), hook);
    let writer = build().build_store_on(hooked).unwrap();
    first.apply(&writer).unwrap();
    let follower = build().read_only(true);
    *armed.lock().unwrap() = Some(follower.build_store_on(disk.clone()).unwrap());
    let failed = taken.apply(&writer);
    assert!(matches!(failed, Err(Error::DiskFull { .. })), "{failed:?}");
    let follower = armed.lock().unwrap().take().unwrap();
    let file = file.lock().unwrap().clone();
    TakenBack {
        disk,
        writer,
        follower,
        file,
    }
}

#[test]
fn a_follower_takes_back_what_its_writer_took_back() {
    let build = || sim_builder(4096);
    let first = Op::Batch(vec![put("a", "1"), put("b", "2")]);
    let taken = Op::Batch(vec![put("a", "3"), delete("b"), put("c", "4")]);
    let TakenBack { follower, disk, .. } = take_back(build, &first, &taken);
    assert_eq!(follower.get("a").unwrap().unwrap(), "3");
    assert!(follower.get("b").unwrap().is_none());
    assert!(follower.refresh().unwrap());
    assert_eq!(follower.get("a").unwrap().unwrap(), "1");
    assert_eq!(follower.get("b").unwrap().unwrap(), "2");
    assert!(follower.get("c").unwrap().is_none());
    assert_eq!(seen(&follower, &disk).len(), 2);
}

#[test]
fn a_read_during_which_a_write_is_taken_back_is_not_trusted() {
    let build = || sim_builder(4096);
    let first = Op::Write(put("x", "00000000"));
    let taken = take_back(build, &first, &Op::Write(put("k", "11111111")));
    let hooked = FatedDisk::new(taken.disk, |_| Fate::Go);
    let follower = build().read_only(true);
    let follower = follower.build_store_on(hooked.clone()).unwrap();
    assert_eq!(follower.len(), 1);
    let record = 16 + 8 + 8;
    taken.writer.put("k", "22222222").unwrap();
    taken.writer.put("y", "33333333").unwrap();
    // The read begins before the write is taken back, and ends after the next two: what it gives
    // looks like a sound log.
    hooked.see_stale(64 + 2 * record, taken.file);
    assert!(follower.refresh().unwrap());
    assert_eq!(follower.get("k").unwrap().unwrap(), "22222222");
    assert_eq!(follower.get("y").unwrap().unwrap(), "33333333");
}

#[test]
fn a_value_that_was_taken_back_is_not_served_from_the_cache() {
    let build = || {
        sim_builder(4096)
            .compression(true)
            .cache_capacity(std::num::NonZeroUsize::MIN)
    };
    let taken = put("k", "old".repeat(500));
    let taken = take_back(build, &Op::Write(put("x", "1")), &Op::Write(taken));
    let TakenBack {
        writer, follower, ..
    } = taken;
    let value = |text: &str| Some(text.repeat(500).into_bytes());
    let get = || follower.get("k").unwrap().map(|value| value.to_vec());
    assert_eq!(get(), value("old"));
    // Another value of the same length, in the same place.
    writer.put("k", "new".repeat(500)).unwrap();
    assert!(follower.refresh().unwrap());
    assert_eq!(get(), value("new"));
}

#[test]
fn damage_before_what_was_durable_is_reported_and_a_torn_end_is_not() {
    let disk = SimDisk::new(9);
    let writer = writer(&disk);
    writer.put("a", "1").unwrap();
    let follower = follower(&disk);
    let path = Path::new("/db/000000000001.seg");
    let record = 32;
    writer.put("b", "2").unwrap();
    writer.put("c", "3").unwrap();
    disk.corrupt(path, 64 + record + 20, 1);
    let failed = follower.refresh();
    let Err(Error::Corrupt { offset, .. }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(offset, 64 + record);
    // What was seen goes on to be seen, and when the damage is mended, so does the rest.
    assert_eq!(follower.get("a").unwrap().unwrap(), "1");
    disk.corrupt(path, 64 + record + 20, 1);
    disk.corrupt(path, 64 + 2 * record + 20, 1);
    assert!(follower.refresh().unwrap());
    assert_eq!(follower.len(), 2);
    disk.corrupt(path, 64 + 2 * record + 20, 1);
    assert!(follower.refresh().unwrap());
    assert_eq!(follower.len(), 3);
}

#[test]
fn a_segment_that_is_missing_from_a_manifest_that_stays_is_damage() {
    let disk = SimDisk::new(10);
    let writer = writer(&disk);
    for i in 0..30 {
        writer.put(format!("k{i}"), "value").unwrap();
    }
    let opened = sim_builder(512).read_only(true);
    disk.remove_raw(Path::new("/db/000000000002.seg"));
    let opened = opened.build_store_on(disk);
    assert!(matches!(opened, Err(Error::Corrupt { .. })));
}

#[test]
fn another_store_or_an_older_copy_in_the_same_place_is_refused() {
    let disk = SimDisk::new(11);
    let manifest = Path::new("/db/MANIFEST");
    let first = writer(&disk);
    first.put("a", "1").unwrap();
    let old = disk.read_raw(manifest).unwrap();
    for i in 0..30 {
        first.put(format!("k{i}"), "value").unwrap();
    }
    let follower = follower(&disk);
    let new = disk.read_raw(manifest).unwrap();
    disk.write_raw(manifest, &old);
    assert!(matches!(follower.refresh(), Err(Error::Corrupt { .. })));
    let other = SimDisk::new(12);
    drop(writer(&other));
    disk.write_raw(manifest, &other.read_raw(manifest).unwrap());
    assert!(matches!(follower.refresh(), Err(Error::ForeignFile { .. })));
    disk.write_raw(manifest, &new);
    assert!(!follower.refresh().unwrap());
    assert_eq!(follower.len(), 31);
}

#[test]
fn what_the_writer_saw_expire_is_expired_for_a_follower_with_a_slow_clock() {
    let disk = SimDisk::new(13);
    let writer = writer(&disk);
    writer.put("k", "old").unwrap();
    writer
        .put_with_ttl("k", "new", Duration::from_secs(1))
        .unwrap();
    let follower = follower(&disk);
    let now_ms = disk.now_ms();
    disk.advance(2000);
    assert!(writer.get("k").unwrap().is_none());
    writer.compact().unwrap();
    disk.set_clock(now_ms);
    assert!(follower.get("k").unwrap().is_some());
    follower.refresh().unwrap();
    assert!(follower.get("k").unwrap().is_none());
}

#[test]
fn at_an_interval_a_follower_catches_up_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Store::open(dir.path()).unwrap();
    let follower = Store::builder(dir.path())
        .read_only(true)
        .refresh_interval(Duration::from_millis(1))
        .build_store()
        .unwrap();
    for i in 0..20 {
        writer.put("k", i.to_string()).unwrap();
        while follower
            .get("k")
            .unwrap()
            .is_none_or(|value| value != *i.to_string())
        {
            std::thread::yield_now();
        }
    }
}

/// A follower that looks at every operation of its writer, and what it may see.
struct Watcher {
    disk: SimDisk,
    build: fn() -> CrabKvBuilder,
    follower: SimStore,
    /// What the store held before the write in progress, and what it holds after it.
    before: State,
    after: State,
    /// Whether the follower has seen what comes after.
    has_seen_after: bool,
    /// Whether a refresh failed half way, so that some keys are new and some old.
    is_mixed: bool,
    rng: Rng,
    looks: u64,
    /// How many operations later the writer dies, or finds the disk full.
    fate: Option<(u64, Fate)>,
    may_take_back: bool,
}

impl Watcher {
    fn open(build: fn() -> CrabKvBuilder, disk: &SimDisk) -> SimStore {
        let builder = build().read_only(true);
        builder.build_store_on(disk.clone()).unwrap()
    }

    fn event(&mut self, event: Event) -> Fate {
        if let Some((left, fate)) = &mut self.fate {
            // Only a write of records is taken back for a full disk; others may leave the end of
            // the log in doubt.
            if *fate != Fate::Full || event == Event::Written {
                *left = left.saturating_sub(1);
            }
            if *left == 0 && (*fate != Fate::Full || event == Event::Written) {
                let fate = *fate;
                self.fate = None;
                self.look();
                return fate;
            }
        }
        if self.rng.chance(60) {
            self.look();
        }
        Fate::Go
    }

    fn look(&mut self) {
        self.looks += 1;
        if self.rng.chance(10) {
            let at = self.rng.below(30);
            self.disk.fail_reads_at(at, self.rng.chance(50));
        }
        let refreshed = self.follower.refresh();
        self.disk.heal();
        match refreshed {
            Ok(_) => self.is_mixed = false,
            Err(error) => {
                assert!(matches!(error, Error::Io { .. }), "{error}");
                self.is_mixed = true;
            }
        }
        if !self.is_mixed {
            let seen = contents(&self.follower, self.after.keys()).unwrap();
            self.check(&seen);
        }
        if self.rng.chance(3) {
            let anew = Watcher::open(self.build, &self.disk);
            let seen = contents(&anew, self.after.keys()).unwrap();
            self.check(&seen);
            if self.rng.chance(50) {
                self.follower = anew;
                self.is_mixed = false;
            }
        }
    }

    fn check(&mut self, seen: &State) {
        let now_ms = self.disk.now_ms();
        let (before, after) = (visible(&self.before, now_ms), visible(&self.after, now_ms));
        let is_before = *seen == before && (!self.has_seen_after || self.may_take_back);
        assert!(
            is_before || *seen == after,
            "seen {}\nbefore {}\nafter {}",
            show(seen),
            show(&before),
            show(&after)
        );
        self.has_seen_after |= before != after && *seen == after;
    }
}

/// What a follower sees at every operation of a writer that puts, deletes, expires, merges any
/// segments, rotates, closes, dies in the middle of things, and meets a full disk.
#[expect(clippy::too_many_lines, reason = "one life, from beginning to end")]
fn watch(build: fn() -> CrabKvBuilder, steps: u64, fixed_seed: u64) {
    let mut rng = Rng(seed(fixed_seed));
    let disk = SimDisk::new(rng.next());
    drop(build().build_store_on(disk.clone()).unwrap());
    let watcher = Arc::new(Mutex::new(Watcher {
        follower: Watcher::open(build, &disk),
        disk: disk.clone(),
        build,
        before: State::new(),
        after: State::new(),
        has_seen_after: false,
        is_mixed: false,
        rng: Rng(rng.next()),
        looks: 0,
        fate: None,
        may_take_back: false,
    }));
    let open = || {
        let watcher = Arc::clone(&watcher);
        let hook = move |event| watcher.lock().unwrap().event(event);
        let hooked = FatedDisk::new(disk.clone(), hook);
        (build().build_store_on(hooked.clone()).unwrap(), hooked)
    };
    let (mut store, mut hooked) = open();
    let mut state = State::new();
    let (mut kills, mut taken_back) = (0, 0);
    let steps = effort(steps).max(600);
    for number in 0..steps {
        let mut write = || {
            let key = format!("k{}", rng.below(24));
            let value = format!("{number}-{key}-").repeat(1 + rng.below(9) as usize);
            match rng.below(10) {
                0..5 => put(&key, value),
                5..9 => delete(&key),
                _ => put_ttl(&key, value, 1 + rng.below(400)),
            }
        };
        let op = match number % 10 {
            0..7 => Op::Write(write()),
            _ => Op::Batch((0..number % 5 + 2).map(|_| write()).collect()),
        };
        {
            let mut watcher = watcher.lock().unwrap();
            watcher.before.clone_from(&state);
            op.apply_to(&mut state, disk.now_ms());
            watcher.after.clone_from(&state);
            watcher.has_seen_after = false;
            watcher.may_take_back = false;
            match rng.below(60) {
                0 => watcher.fate = Some((1 + rng.below(12), Fate::Die)),
                1 => {
                    watcher.fate = Some((1, Fate::Full));
                    watcher.may_take_back = true;
                }
                _ => {}
            }
        }
        let done = op.apply(&store);
        let was_full = matches!(done, Err(Error::DiskFull { .. }));
        if was_full {
            taken_back += 1;
        }
        if was_full || done.is_err() {
            // Nothing has happened, or it is up to the recovery whether it has.
            let mut watcher = watcher.lock().unwrap();
            state.clone_from(&watcher.before);
            if was_full {
                watcher.after.clone_from(&state);
            }
        }
        let dice = rng.below(100);
        if done.is_err() && !was_full || hooked.is_dead() || dice == 0 {
            // Not closed: its files stay as they are.
            std::mem::forget(store);
            kills += 1;
            watcher.lock().unwrap().fate = None;
            (store, hooked) = open();
            state = contents(&store, []).unwrap();
        } else {
            let mut watcher = watcher.lock().unwrap();
            watcher.fate = None;
            watcher.before.clone_from(&state);
            watcher.after.clone_from(&state);
            drop(watcher);
            match dice {
                1..3 => {
                    drop(store);
                    (store, hooked) = open();
                }
                3 => store.close().unwrap(),
                4 => assert!(store.compact().is_ok()),
                5..20 => {
                    let segments = store.stats().segments;
                    let picked = segments.iter().filter(|_| rng.chance(40));
                    let picked: Vec<_> = picked.map(|segment| segment.id).collect();
                    store.compact_segments(&picked).unwrap();
                }
                20..30 => disk.advance(rng.below(200)),
                _ => {}
            }
        }
        if number % 20 == 0 {
            let mut watcher = watcher.lock().unwrap();
            watcher.before = contents(&store, []).unwrap();
            watcher.after = watcher.before.clone();
            watcher.is_mixed = false;
            watcher.has_seen_after = false;
            same_after_refresh(&watcher.follower, &store, &disk);
        }
    }
    let looks = watcher.lock().unwrap().looks;
    println!("{steps} writes, {looks} looks, {kills} kills, {taken_back} taken back");
    assert!(kills > 0 && taken_back > 0);
}

#[test]
fn a_refresh_that_fails_is_in_the_stats_until_one_succeeds() {
    let disk = SimDisk::new(1);
    let store = writer(&disk);
    store.put("a", "1").unwrap();
    let follower = follower(&disk);
    assert_eq!(follower.stats().refresh_failure, None);
    store.put("a", "2").unwrap();
    disk.fail_reads_at(0, false);
    let error = follower.refresh().unwrap_err();
    disk.heal();
    assert_eq!(follower.stats().refresh_failure, Some(error.to_string()));
    assert_eq!(follower.get("a").unwrap().unwrap(), "1");
    assert!(follower.refresh().unwrap());
    assert_eq!(follower.stats().refresh_failure, None);
}

#[test]
fn a_refresh_that_fails_by_itself_is_in_the_stats() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.put("a", "1").unwrap();
    let builder = Store::builder(dir.path()).read_only(true);
    let follower = builder
        .refresh_interval(Duration::from_millis(1))
        .build_store()
        .unwrap();
    let wait_for = |is_failing: bool| {
        let begun = std::time::Instant::now();
        while follower.stats().refresh_failure.is_some() != is_failing {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let manifest = dir.path().join("MANIFEST");
    let sound = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, "damaged").unwrap();
    wait_for(true);
    let failure = follower.stats().refresh_failure.unwrap();
    assert!(failure.contains("MANIFEST"), "{failure}");
    std::fs::write(&manifest, sound).unwrap();
    wait_for(false);
    assert_eq!(follower.get("a").unwrap().unwrap(), "1");
}

#[test]
fn at_every_operation_of_its_writer_a_follower_sees_a_prefix_of_the_writes() {
    watch(|| sim_builder(512).auto_compaction(false), 1500, 40);
}

#[test]
fn so_it_does_where_keys_share_hashes() {
    let build = || sim_builder(256).auto_compaction(false).hash_bits(3);
    watch(build, 300, 41);
}

#[test]
fn so_it_does_when_it_reads_by_pread_and_the_writer_syncs_at_an_interval() {
    let build = || {
        sim_builder(1024)
            .auto_compaction(false)
            .hash_bits(5)
            .sync_interval(NEVER)
            .read_mode(ReadMode::Pread)
    };
    watch(build, 1000, 42);
}
