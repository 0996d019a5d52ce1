//! Checkpoints: what is in them, what they cost, what they refuse; and restoring one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{
    Op, Rng, SimStore, State, contents, delete, effort, go_on, is_kind, put, put_ttl, seed, show,
    sim_builder,
};
use crabkv::disk::{CrashPlan, Disk, OsDisk, SimDisk};
use crabkv::{CrabKvBuilder, Error, SeqNo, Store, WriteBatch};

const BACKUP: &str = "/backup";

fn open(disk: &SimDisk) -> SimStore {
    sim_builder(512).build_store_on(disk.clone()).unwrap()
}

fn open_at(disk: &SimDisk, dir: &str) -> crabkv::Result<SimStore> {
    Store::builder(dir)
        .segment_size(512)
        .create_if_missing(false)
        .build_store_on(disk.clone())
}

fn all<D: Disk>(store: &Store<D>) -> State {
    contents(store, []).unwrap()
}

/// What a store at `dir` holds; nothing is written there.
fn contents_of(disk: &SimDisk, dir: &str) -> State {
    let store = open_at(disk, dir).unwrap();
    assert!(store.recovery_report().clean);
    all(&store)
}

/// Fills several segments, with overwrites, deletes, batches and expiries.
fn fill<D: Disk>(store: &Store<D>, round: u64) {
    let mut rng = Rng(round);
    for number in 0..40 {
        let key = format!("k{}", rng.below(12));
        let value = format!("{round}.{number}-").repeat(1 + rng.below(12) as usize);
        let op = match rng.below(8) {
            0 => Op::Write(delete(&key)),
            1 => Op::Batch(vec![put(&key, &value), put("batch", &value), delete("k1")]),
            2 => Op::Write(put_ttl(&key, value, 1 << 40)),
            _ => Op::Write(put(&key, value)),
        };
        op.apply(store).unwrap();
    }
    // Something in the active segment, and a deleted key.
    Op::Write(delete("k0")).apply(store).unwrap();
    Op::Write(put("last", format!("{round}")))
        .apply(store)
        .unwrap();
}

fn files(disk: &SimDisk, dir: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<_, _> = disk.files(Path::new(dir)).into_iter().collect();
    files.remove("LOCK");
    files
}

fn segments(disk: &SimDisk, dir: &str) -> Vec<String> {
    let names = files(disk, dir).into_keys();
    names.filter(|name| is_kind(name, "seg")).collect()
}

fn sealed_segments<D: Disk>(store: &Store<D>) -> usize {
    let stats = store.stats();
    stats.segments.iter().filter(|one| one.sealed).count()
}

#[test]
fn a_checkpoint_opens_and_holds_what_the_store_held() {
    for compacted in [false, true] {
        let disk = SimDisk::new(1);
        let store = open(&disk);
        fill(&store, 1);
        if compacted {
            store.compact().unwrap();
            store.put("after", "compaction").unwrap();
        }
        let sealed = sealed_segments(&store);
        let report = store.checkpoint(BACKUP).unwrap();
        assert_eq!(report.segments_linked, sealed);
        assert_eq!((report.segments_copied, report.segments_present), (1, 0));
        let newest = if compacted { "after" } else { "last" };
        let version = store.get(newest).unwrap().and_then(|value| value.version());
        assert_eq!(Some(report.last), version);

        let copy = open_at(&disk, BACKUP).unwrap();
        let opened = copy.recovery_report();
        assert!(
            opened.clean && opened.foreign_files.is_empty(),
            "{opened:?}"
        );
        assert_eq!(opened.orphans_removed, Vec::<String>::new());
        // From hint files alone.
        assert_eq!(opened.hints_used, sealed + 1, "{opened:?}");
        assert_eq!(show(&all(&copy)), show(&all(&store)));
        for key in ["k0", "k3", "last"] {
            let version = |store: &SimStore| store.get(key).unwrap().map(|v| v.version());
            assert_eq!(version(&copy), version(&store), "{key}");
        }
        // Every record is sound.
        copy.compact().unwrap();
        assert_eq!(show(&all(&copy)), show(&all(&store)));
    }
}

#[test]
fn a_checkpoint_of_an_empty_store_is_an_empty_store() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let report = store.checkpoint(BACKUP).unwrap();
    assert_eq!(report.last, SeqNo::new(0));
    assert_eq!(report.bytes_copied, 0);
    assert!(contents_of(&disk, BACKUP).is_empty());
}

#[test]
fn on_a_real_disk_segments_are_shared_and_only_the_active_one_is_copied() {
    let parent = tempfile::tempdir().unwrap();
    let (data, backup) = (parent.path().join("data"), parent.path().join("backup"));
    let store = Store::builder(&data)
        .segment_size(1024)
        .build_store()
        .unwrap();
    for round in 0..4 {
        fill(&store, round);
    }
    let sealed = sealed_segments(&store);
    assert!(sealed > 3);
    let report = store.checkpoint(&backup).unwrap();
    assert_eq!(
        (report.segments_linked, report.segments_copied),
        (sealed, 1)
    );
    assert!(report.bytes_copied <= 1024, "{report:?}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let entries = std::fs::read_dir(&backup).unwrap();
        let mut links: Vec<u64> = entries
            .map(|entry| entry.unwrap())
            .filter(|entry| is_kind(entry.file_name().to_str().unwrap(), "seg"))
            .map(|entry| entry.metadata().unwrap().nlink())
            .collect();
        links.sort_unstable();
        let mut expected = vec![1];
        expected.resize(sealed + 1, 2);
        assert_eq!(links, expected);
    }
    let copy = Store::open(&backup).unwrap();
    assert_eq!(copy.recovery_report().hints_used, sealed + 1);
    assert_eq!(show(&all(&copy)), show(&all(&store)));
    drop(copy);
    drop(store);
    std::fs::remove_dir_all(&data).unwrap();
    assert!(!all(&Store::open(&backup).unwrap()).is_empty());
}

#[test]
fn what_waits_in_the_write_back_buffer_is_in_the_checkpoint() {
    let disk = SimDisk::new(1);
    let builder = sim_builder(512).write_back_cache(true);
    let store = builder.build_store_on(disk.clone()).unwrap();
    store.put("a", "1").unwrap();
    store.checkpoint(BACKUP).unwrap();
    assert_eq!(contents_of(&disk, BACKUP), all(&store));
}

#[test]
fn a_checkpoint_is_durable_when_it_is_done() {
    let disk = SimDisk::new(1);
    let builder = sim_builder(512).sync_interval(Duration::from_secs(1 << 20));
    let store = builder.build_store_on(disk.clone()).unwrap();
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let after = disk.crash(&CrashPlan::LoseAll);
    assert_eq!(contents_of(&after, BACKUP), all(&store));
    // And so is the store: it does not give the same versions to other writes.
    let again = sim_builder(512).build_store_on(after).unwrap();
    assert_eq!(all(&again), all(&store));
}

/// What a checkpoint costs a store of so many segments, the last of which holds the same: bytes
/// copied, growth of the disk, operations.
fn cost(segments: usize) -> (u64, u64, u64) {
    let disk = SimDisk::new(1);
    let store = sim_builder(8192).build_store_on(disk.clone()).unwrap();
    for number in 0.. {
        store.put(format!("k{number}"), "x".repeat(2000)).unwrap();
        if sealed_segments(&store) == segments {
            break;
        }
    }
    let (used, ops) = (disk.used_bytes(), disk.ops());
    let report = store.checkpoint(BACKUP).unwrap();
    assert_eq!(report.segments_linked, segments);
    let grown = disk.used_bytes() - used;
    (report.bytes_copied, grown, disk.ops() - ops)
}

#[test]
fn what_a_checkpoint_costs_does_not_grow_with_the_data() {
    let (few, many) = (cost(3), cost(60));
    assert_eq!(few.0, many.0, "bytes copied");
    // An entry of the manifest for each segment.
    assert_eq!(many.1 - few.1, 57 * 24, "bytes on the disk");
    // A link for each segment and for each hint file, and nothing more: no sync.
    assert_eq!(many.2 - few.2, 57 * 2, "operations");
}

#[test]
fn without_hard_links_segments_are_copied() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    disk.set_hard_links(false);
    let sealed = sealed_segments(&store);
    let report = store.checkpoint(BACKUP).unwrap();
    assert_eq!(
        (report.segments_linked, report.segments_copied),
        (0, sealed + 1)
    );
    let copied = segments(&disk, BACKUP)
        .iter()
        .map(|name| files(&disk, BACKUP)[name].len() as u64)
        .sum();
    assert_eq!(report.bytes_copied, copied);
    let after = disk.crash(&CrashPlan::LoseAll);
    let copy = open_at(&after, BACKUP).unwrap();
    assert_eq!(copy.recovery_report().hints_used, sealed + 1);
    assert_eq!(all(&copy), all(&store));

    // The next one copies only what is new.
    fill(&store, 2);
    let report = store.checkpoint(BACKUP).unwrap();
    assert_eq!(report.segments_present, sealed);
    assert_eq!(contents_of(&disk, BACKUP), all(&store));
}

#[test]
fn damage_is_found_when_a_segment_is_copied_and_the_checkpoint_stays_what_it_was() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    disk.set_hard_links(false);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let before = contents_of(&disk, BACKUP);
    fill(&store, 2);
    let newest = segments(&disk, "/db").iter().rev().nth(1).unwrap().clone();
    let path = Path::new("/db").join(newest);
    disk.corrupt(&path, 100, 4);
    match store.checkpoint(BACKUP) {
        Err(Error::Corrupt { file, offset, .. }) => {
            assert_eq!(file, path);
            assert!((64..=100).contains(&offset), "{offset}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(contents_of(&disk, BACKUP), before);
    disk.corrupt(&path, 100, 4);
    store.checkpoint(BACKUP).unwrap();
    assert_eq!(contents_of(&disk, BACKUP), all(&store));
}

#[test]
fn the_next_checkpoint_brings_only_what_is_new() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let mut total = 0;
    for round in 0..5 {
        fill(&store, round);
        let sealed = sealed_segments(&store);
        let report = store.checkpoint(BACKUP).unwrap();
        assert_eq!(report.segments_present, total, "{round}");
        assert_eq!(report.segments_linked, sealed - total, "{round}");
        assert_eq!(report.segments_copied, 1, "{round}");
        assert!(report.bytes_copied <= 512);
        total = sealed;
        assert_eq!(contents_of(&disk, BACKUP), all(&store));
        // The copies of earlier active segments are gone.
        assert_eq!(segments(&disk, BACKUP).len(), sealed + 1);
    }
    // Nothing was written: nothing is brought.
    let report = store.checkpoint(BACKUP).unwrap();
    assert_eq!(report.segments_present, total + 1);
    assert_eq!((report.segments_linked, report.segments_copied), (0, 0));
    assert_eq!(report.bytes_copied, 0);
    assert_eq!(contents_of(&disk, BACKUP), all(&store));

    // What compaction replaced goes.
    store.compact().unwrap();
    let report = store.checkpoint(BACKUP).unwrap();
    assert_eq!(report.segments_linked, sealed_segments(&store));
    assert_eq!(segments(&disk, BACKUP), segments(&disk, "/db"));
    assert_eq!(contents_of(&disk, BACKUP), all(&store));
}

#[test]
fn a_store_goes_on_checkpointing_after_it_was_reopened_or_has_crashed() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    drop(store);
    let store = open(&disk);
    let unchanged = store.checkpoint(BACKUP).unwrap();
    assert_eq!(unchanged.bytes_copied, 0);
    store.put("more", "1").unwrap();
    store.checkpoint(BACKUP).unwrap();
    assert_eq!(contents_of(&disk, BACKUP), all(&store));
    store.put("more", "2").unwrap();
    let disk = disk.crash(&CrashPlan::LoseAll);
    let store = open(&disk);
    store.checkpoint(BACKUP).unwrap();
    assert_eq!(contents_of(&disk, BACKUP), all(&store));
    store.put("more", "3").unwrap();
    store.checkpoint(BACKUP).unwrap();
    assert_eq!(contents_of(&disk, BACKUP), all(&store));
}

#[test]
fn compaction_leaves_a_checkpoint_whole() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let (expected, before) = (all(&store), files(&disk, BACKUP));
    fill(&store, 2);
    store.compact().unwrap();
    for key in expected.keys() {
        store.delete(key).unwrap();
    }
    store.compact().unwrap();
    assert_eq!(files(&disk, BACKUP), before);
    assert_eq!(contents_of(&disk, BACKUP), expected);
}

#[test]
fn neither_the_store_nor_its_checkpoint_writes_into_the_others_files() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let ours = files(&disk, "/db");
    let copy = open_at(&disk, BACKUP).unwrap();
    fill(&copy, 7);
    copy.compact().unwrap();
    fill(&copy, 8);
    copy.close().unwrap();
    assert_eq!(files(&disk, "/db"), ours);
    drop(copy);

    // Segment ids do not meet, either.
    fill(&store, 9);
    store.compact().unwrap();
    let other = segments(&disk, BACKUP);
    let shared = segments(&disk, "/db")
        .into_iter()
        .filter(|name| other.contains(name));
    assert_eq!(shared.count(), 0);
}

#[test]
fn a_footer_or_hint_that_is_mended_in_a_checkpoint_leaves_the_stores_bytes() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let (ours, expected) = (files(&disk, "/db"), all(&store));
    let name = &segments(&disk, "/db")[0];
    let path = Path::new("/db").join(name);
    // One file under two names: damaged in both.
    disk.corrupt(&path, ours[name].len() as u64 - 20, 1);
    let hint = Path::new("/db").join(name.replace("seg", "hint"));
    disk.corrupt(&hint, 70, 1);
    let copy = open_at(&disk, BACKUP).unwrap();
    assert_eq!(copy.recovery_report().scanned.len(), 1);
    assert_eq!(all(&copy), expected);
    assert_eq!(files(&disk, "/db")[name], ours[name]);
    drop(copy);
    drop(store);
    let store = open(&disk);
    assert_eq!(all(&store), expected);
    store.checkpoint(BACKUP).unwrap();
}

#[test]
fn a_segment_without_a_sound_footer_is_not_linked() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    let name = segments(&disk, "/db")[0].clone();
    let path = Path::new("/db").join(&name);
    let footer = files(&disk, "/db")[&name].len() as u64 - 64;
    disk.corrupt(&path, footer + 8, 1);
    match store.checkpoint(BACKUP) {
        Err(Error::Corrupt { file, offset, .. }) => assert_eq!((file, offset), (path, footer)),
        other => panic!("{other:?}"),
    }
    assert!(segments(&disk, BACKUP).is_empty());
    // Opening the store makes the footer anew.
    drop(store);
    open(&disk).checkpoint(BACKUP).unwrap();
}

/// Checks that a checkpoint into `dir` is refused as `is_right` says, and leaves it as it was.
fn refused(disk: &SimDisk, store: &SimStore, dir: &str, is_right: impl Fn(&Error) -> bool) {
    let before = (files(disk, dir), all(store));
    let error = store.checkpoint(dir).unwrap_err();
    assert!(is_right(&error), "{error}\n{error:?}");
    assert_eq!((files(disk, dir), all(store)), before, "{error}");
}

fn says(words: &'static str) -> impl Fn(&Error) -> bool {
    move |error| matches!(error, Error::Checkpoint { .. }) && error.to_string().contains(words)
}

#[test]
fn the_stores_own_directory_is_refused() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    for dir in ["/db", "db", "/db/backup", "/other/../db/x/y"] {
        refused(&disk, &store, dir, says("choose another"));
    }
    assert!(disk.list(Path::new("/db/backup")).is_err());
}

#[cfg(unix)] // symbolic links take rights on Windows
#[test]
fn the_stores_own_directory_is_refused_behind_a_symbolic_link() {
    let parent = tempfile::tempdir().unwrap();
    let (data, link) = (parent.path().join("data"), parent.path().join("link"));
    let store = Store::open(&data).unwrap();
    store.put("a", "1").unwrap();
    std::os::unix::fs::symlink(&data, &link).unwrap();
    for dir in [link.clone(), link.join("new"), data.join("new/deep")] {
        let error = store.checkpoint(&dir).unwrap_err();
        assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    }
    assert!(!data.join("new").exists());
}

#[test]
fn directories_that_are_something_else_are_refused() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);

    let other = Store::builder("/other")
        .build_store_on(disk.clone())
        .unwrap();
    other.put("a", "1").unwrap();
    refused(&disk, &store, "/other", says("another store"));
    other.checkpoint("/others-backup").unwrap();
    refused(&disk, &store, "/others-backup", says("another store"));

    disk.create_dir(Path::new("/notes")).unwrap();
    disk.write_raw(Path::new("/notes/todo.txt"), b"buy milk");
    refused(
        &disk,
        &store,
        "/notes",
        |error| matches!(error, Error::ForeignFile { path, .. } if path.ends_with("todo.txt")),
    );

    // A store that lost its manifest is not built over.
    disk.create_dir(Path::new("/lost")).unwrap();
    for (name, bytes) in files(&disk, "/db") {
        if name != "MANIFEST" {
            disk.write_raw(&Path::new("/lost").join(name), &bytes);
        }
    }
    refused(&disk, &store, "/lost", Error::is_corruption);

    // Nor is one that is the same store, but no checkpoint.
    disk.create_dir(Path::new("/twin")).unwrap();
    for (name, bytes) in files(&disk, "/db") {
        disk.write_raw(&Path::new("/twin").join(name), &bytes);
    }
    refused(
        &disk,
        &store,
        "/twin",
        says("not one that a checkpoint made"),
    );

    disk.write_raw(Path::new("/file"), b"");
    let error = store.checkpoint("/file").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");

    // Hidden files do no harm.
    disk.create_dir(Path::new("/mount")).unwrap();
    disk.write_raw(Path::new("/mount/.hidden"), b"");
    store.checkpoint("/mount").unwrap();
}

#[test]
fn another_stores_segment_in_a_checkpoint_is_not_removed() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let other = Store::builder("/other")
        .build_store_on(disk.clone())
        .unwrap();
    other.put("a", "1").unwrap();
    let bytes = &files(&disk, "/other")["000000000001.seg"];
    disk.write_raw(&Path::new(BACKUP).join("000000099999.seg"), bytes);
    refused(&disk, &store, BACKUP, |error| {
        matches!(error, Error::ForeignFile { .. })
    });
}

#[test]
fn a_checkpoint_that_was_written_to_is_refused() {
    let writes: [fn(&SimStore); 3] = [
        |copy| copy.put("a", "mine").unwrap(),
        |copy| assert!(copy.delete("last").unwrap()),
        |copy| assert!(copy.compact().unwrap().records_dropped > 0),
    ];
    for write in writes {
        let disk = SimDisk::new(1);
        let store = open(&disk);
        fill(&store, 1);
        store.checkpoint(BACKUP).unwrap();
        let copy = open_at(&disk, BACKUP).unwrap();
        write(&copy);
        drop(copy);
        fill(&store, 2);
        refused(&disk, &store, BACKUP, says("written to"));
        store.compact().unwrap();
        refused(&disk, &store, BACKUP, says("written to"));
    }
}

#[test]
fn a_checkpoint_that_was_only_opened_and_read_is_brought_up_to_date() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let copy = open_at(&disk, BACKUP).unwrap();
    let locked = |error: &Error| matches!(error, Error::Locked { .. });
    refused(&disk, &store, BACKUP, locked);
    copy.close().unwrap();
    drop(copy);
    fill(&store, 2);
    store.checkpoint(BACKUP).unwrap();
    assert_eq!(contents_of(&disk, BACKUP), all(&store));
}

#[test]
fn a_store_does_not_go_back_behind_its_checkpoint() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint("/early").unwrap();
    fill(&store, 2);
    store.checkpoint(BACKUP).unwrap();
    drop(store);
    crabkv::restore_on(&disk, "/early", "/restored", go_on).unwrap();
    let restored = open_at(&disk, "/restored").unwrap();
    refused(&disk, &restored, BACKUP, says("later writes"));
    // But the one that it was restored from goes on.
    fill(&restored, 3);
    let report = restored.checkpoint("/early").unwrap();
    assert!(report.segments_present > 1, "{report:?}");
    assert_eq!(contents_of(&disk, "/early"), all(&restored));
}

#[test]
fn a_checkpoint_of_another_life_of_the_store_is_refused() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.close().unwrap();
    drop(store);
    let twin = disk.crash(&CrashPlan::KeepAll);
    let store = open(&disk);
    fill(&store, 2);
    store.checkpoint(BACKUP).unwrap();
    drop(store);
    // The disk of the store is set back to a copy, the checkpoint is not.
    for name in files(&disk, "/db").keys() {
        disk.remove_raw(&Path::new("/db").join(name));
    }
    for (name, bytes) in files(&twin, "/db") {
        disk.write_raw(&Path::new("/db").join(name), &bytes);
    }
    let store = open(&disk);
    fill(&store, 3);
    fill(&store, 4);
    refused(&disk, &store, BACKUP, says("different ways"));
}

#[test]
fn a_poisoned_store_makes_no_checkpoint() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    disk.fail_at(1, crabkv::disk::FailKind::Eio, true);
    store.put("a", "1").unwrap_err();
    let error = store.checkpoint(BACKUP).unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
}

/// Ends the other threads, also when a test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A write of a thread, known by the version of the marker that it ends with.
struct Logged {
    last: SeqNo,
    writes: Vec<(String, Option<String>)>,
}

/// One thread's writes, each of them a batch that ends with a marker, so that its place in the
/// order of all writes can be asked for.
fn write_in_turn<D: Disk>(
    store: &Store<D>,
    thread: u64,
    count: u64,
    log: &Mutex<Vec<Logged>>,
    acknowledged: &AtomicU64,
) {
    let mut rng = Rng(thread);
    let marker = format!("{thread}-at");
    for number in 1..=count {
        let mut writes = Vec::new();
        for _ in 0..=rng.below(3) {
            let key = format!("{thread}-{}", rng.below(20));
            let value = format!("{number}.").repeat(1 + rng.below(60) as usize);
            writes.push((key, rng.chance(75).then_some(value)));
        }
        writes.push((marker.clone(), Some(number.to_string())));
        let mut batch = WriteBatch::new();
        for (key, value) in &writes {
            match value {
                Some(value) => batch.put(key, value).unwrap(),
                None => batch.delete(key).unwrap(),
            };
        }
        store.write(&batch).unwrap();
        let last = store.get(&marker).unwrap().unwrap().version().unwrap();
        log.lock().unwrap().push(Logged { last, writes });
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

fn text(state: &State) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let entries = state.iter();
    entries
        .map(|(key, (value, _))| (text(key), text(value)))
        .collect()
}

/// Takes checkpoints while threads write and another one compacts; each must hold exactly the
/// writes up to the sequence number that it says.
fn under_load<D: Disk>(open: impl Fn(&Path) -> Store<D>, parent: &Path, threads: u64, count: u64) {
    let store = open(&parent.join("data"));
    let log = Mutex::new(Vec::new());
    let acknowledged = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let mut taken = Vec::new();
    let backup = parent.join("incremental");
    let fresh = |round: usize| parent.join(format!("checkpoint{round}"));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                let (store, log, acknowledged) = (&store, &log, &acknowledged);
                scope.spawn(move || write_in_turn(store, thread, count, log, acknowledged))
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.compact().unwrap();
                thread::yield_now();
            }
        });
        let _ending = Ending(&done);
        for round in 0.. {
            let is_over = writers.iter().all(thread::ScopedJoinHandle::is_finished);
            let before = acknowledged.load(Ordering::SeqCst);
            if round % 5 < 4 && !is_over {
                let report = store.checkpoint(fresh(round)).unwrap();
                taken.push((before, report.last, None));
                continue;
            }
            // Opened and closed in between, which does not make it a store of its own.
            let report = store.checkpoint(&backup).unwrap();
            taken.push((before, report.last, Some(all(&open(&backup)))));
            if is_over {
                break;
            }
        }
    });
    let mut log = log.into_inner().unwrap();
    log.sort_by_key(|logged| logged.last);
    println!("{} checkpoints of {} writes", taken.len(), log.len());
    assert!(taken.len() > 3);
    for (round, (acknowledged_before, last, seen)) in taken.iter().enumerate() {
        let seen = seen.clone().unwrap_or_else(|| {
            let copy = open(&fresh(round));
            let seen = all(&copy);
            copy.compact().unwrap();
            assert_eq!(all(&copy), seen, "every record is sound");
            seen
        });
        let within = log.iter().take_while(|logged| logged.last <= *last);
        let mut expected = BTreeMap::new();
        let mut count = 0;
        for (key, value) in within.flat_map(|logged| {
            count += 1;
            &logged.writes
        }) {
            match value {
                Some(value) => expected.insert(key.clone(), value.clone()),
                None => expected.remove(key),
            };
        }
        assert_eq!(text(&seen), expected, "up to {last}");
        assert!(
            count >= *acknowledged_before,
            "{count} of {acknowledged_before}"
        );
    }
    let last = taken.pop().and_then(|(_, _, seen)| seen);
    assert_eq!(last, Some(all(&store)));
}

fn small_segments(builder: CrabKvBuilder) -> CrabKvBuilder {
    builder.segment_size(4096).auto_compaction(false)
}

#[test]
fn a_checkpoint_under_load_holds_exactly_the_writes_up_to_a_moment() {
    let parent = tempfile::tempdir().unwrap();
    let open = |dir: &Path| {
        small_segments(Store::builder(dir))
            .build_store_on(OsDisk)
            .unwrap()
    };
    under_load(open, parent.path(), 4, effort(300));
}

#[test]
fn a_checkpoint_under_load_with_an_interval_holds_exactly_the_writes_up_to_a_moment() {
    let parent = tempfile::tempdir().unwrap();
    let open = |dir: &Path| {
        small_segments(Store::builder(dir))
            .sync_interval(Duration::from_millis(5))
            .build_store_on(OsDisk)
            .unwrap()
    };
    under_load(open, parent.path(), 3, effort(1000));
}

#[test]
fn a_checkpoint_by_copies_under_load_holds_exactly_the_writes_up_to_a_moment() {
    let disk = SimDisk::new(seed(3));
    disk.set_hard_links(false);
    let open = |dir: &Path| {
        small_segments(Store::builder(dir))
            .build_store_on(disk.clone())
            .unwrap()
    };
    under_load(open, Path::new("/"), 3, effort(100));
}

#[test]
fn a_restored_store_holds_what_the_checkpoint_holds_and_shares_nothing_with_it() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    let taken = store.checkpoint(BACKUP).unwrap();
    let expected = all(&store);
    let before = files(&disk, BACKUP);
    let report = crabkv::restore_on(&disk, BACKUP, "/restored", go_on).unwrap();
    assert_eq!(report.last, taken.last);
    assert_eq!(report.segments, segments(&disk, BACKUP).len());
    let names: Vec<_> = files(&disk, "/restored").into_keys().collect();
    let kept = before.keys().filter(|name| *name != "CHECKPOINT");
    assert_eq!(names, kept.cloned().collect::<Vec<_>>());
    assert_eq!(files(&disk, BACKUP), before);

    let after = disk.crash(&CrashPlan::LoseAll);
    for name in segments(&after, BACKUP) {
        after.corrupt(&Path::new(BACKUP).join(name), 80, 1);
    }
    let restored = open_at(&after, "/restored").unwrap();
    assert_eq!(restored.recovery_report().hints_used, report.segments);
    assert_eq!(all(&restored), expected);
    fill(&restored, 2);
    restored.compact().unwrap();
}

#[test]
fn a_store_that_was_closed_can_be_restored_from_and_one_that_was_not_says_so() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.put("a", "1").unwrap();
    let locked = crabkv::restore_on(&disk, "/db", "/one", go_on).unwrap_err();
    assert!(matches!(locked, Error::Locked { .. }), "{locked}");
    let crashed = disk.crash(&CrashPlan::KeepAll);
    let error = crabkv::restore_on(&crashed, "/db", "/one", go_on).unwrap_err();
    assert!(says("open it once")(&error), "{error}");
    store.close().unwrap();
    let expected = all(&store);
    drop(store);
    crabkv::restore_on(&disk, "/db", "/one", go_on).unwrap();
    assert_eq!(contents_of(&disk, "/one"), expected);
}

#[test]
fn restoring_finds_every_damaged_byte() {
    let disk = SimDisk::new(1);
    let store = sim_builder(256).build_store_on(disk.clone()).unwrap();
    for round in 0..4 {
        store.put(format!("k{round}"), "some value").unwrap();
        store.put_batch([("a", "1"), ("b", "2")]).unwrap();
    }
    store.checkpoint(BACKUP).unwrap();
    let expected = all(&store);
    let mut damaged = 0;
    for (name, bytes) in files(&disk, BACKUP) {
        if !is_kind(&name, "seg") && name != "MANIFEST" {
            continue;
        }
        let path = Path::new(BACKUP).join(&name);
        for offset in 0..bytes.len() as u64 {
            let image = disk.crash(&CrashPlan::KeepAll);
            image.corrupt(&path, offset, 1 << (offset % 8));
            match crabkv::restore_on(&image, BACKUP, "/restored", go_on) {
                Err(Error::Corrupt {
                    file, offset: at, ..
                }) => {
                    assert_eq!(file, path);
                    assert!(at <= offset, "{name}: {offset} found at {at}");
                }
                Err(Error::UnsupportedVersion { file, .. }) => assert_eq!(file, path),
                other => panic!("{name} at {offset}: {other:?}"),
            }
            if name != "MANIFEST" {
                let error = open_at(&image, "/restored").unwrap_err();
                assert!(says("not finished")(&error), "{error}");
                let made = Store::builder("/restored").build_store_on(image.clone());
                assert!(says("not finished")(&made.unwrap_err()));
                assert!(segments(&image, "/restored").is_empty());
            }
            damaged += 1;
            // The damage mended, the same directory will do.
            if offset % 50 == 0 {
                image.corrupt(&path, offset, 1 << (offset % 8));
                crabkv::restore_on(&image, BACKUP, "/restored", go_on).unwrap();
                assert_eq!(contents_of(&image, "/restored"), expected);
            }
        }
        for len in [0, 63, 64, bytes.len() as u64 - 1] {
            let image = disk.crash(&CrashPlan::KeepAll);
            image.truncate(&path, len);
            let error = crabkv::restore_on(&image, BACKUP, "/restored", go_on).unwrap_err();
            assert!(error.is_corruption(), "{name} cut to {len}: {error}");
        }
        if is_kind(&name, "seg") {
            let image = disk.crash(&CrashPlan::KeepAll);
            image.remove_raw(&path);
            let error = crabkv::restore_on(&image, BACKUP, "/restored", go_on).unwrap_err();
            assert!(error.is_corruption(), "without {name}: {error}");
        }
    }
    println!("{damaged} damaged bytes");
    assert!(damaged > 500);
}

#[test]
fn restoring_into_what_is_not_empty_is_refused() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let restore = |dir: &str| {
        let before = files(&disk, dir);
        let error = crabkv::restore_on(&disk, BACKUP, dir, go_on).unwrap_err();
        assert_eq!(files(&disk, dir), before, "{error}");
        error
    };
    assert!(says("already")(&restore("/db")));
    assert!(says("choose another")(&restore(BACKUP)));
    assert!(says("choose another")(&restore("/backup/inside")));
    store.checkpoint("/second").unwrap();
    assert!(says("already")(&restore("/second")));
    disk.create_dir(Path::new("/notes")).unwrap();
    disk.write_raw(Path::new("/notes/todo.txt"), b"buy milk");
    assert!(matches!(restore("/notes"), Error::ForeignFile { .. }));

    let none = crabkv::restore_on(&disk, "/notes", "/new", go_on).unwrap_err();
    assert!(matches!(none, Error::NotFound { .. }), "{none}");
    let none = crabkv::restore_on(&disk, "/nowhere", "/new", go_on).unwrap_err();
    assert!(matches!(none, Error::NotFound { .. }), "{none}");
    assert!(disk.list(Path::new("/new")).is_err());
}

#[test]
fn restoring_writes_nothing_to_a_checkpoint_that_has_no_lock_file() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    disk.remove_raw(Path::new("/backup/LOCK"));
    crabkv::restore_on(&disk, BACKUP, "/restored", go_on).unwrap();
    assert!(disk.read_raw(Path::new("/backup/LOCK")).is_none());
    assert_eq!(contents_of(&disk, "/restored"), all(&store));
}

#[test]
fn a_read_only_store_makes_checkpoints_beside_its_writer() {
    let parent = tempfile::tempdir().unwrap();
    let (data, backup) = (parent.path().join("data"), parent.path().join("backup"));
    let writer = Store::builder(&data)
        .segment_size(16 << 10)
        .sync_interval(Duration::from_secs(3600))
        .build_store()
        .unwrap();
    writer.put("first", "1").unwrap();
    let follower = Store::open_read_only(&data).unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // One number after the other, so that a checkpoint must hold a prefix of them.
            for number in 0..30_000_u64 {
                let key = format!("k{}", number % 50);
                writer.put(key, number.to_le_bytes()).unwrap();
                if number % 3000 == 0 {
                    writer.compact().unwrap();
                }
            }
            is_done.store(true, Ordering::SeqCst);
        });
        while !is_done.load(Ordering::SeqCst) {
            let report = follower.checkpoint(&backup).unwrap();
            let copy = Store::open_read_only(&backup).unwrap();
            assert_eq!(copy.get("first").unwrap().unwrap(), "1");
            let numbers = copy.scan_prefix("k").map(|entry| {
                let bytes = entry.unwrap().1.to_vec();
                u64::from_le_bytes(bytes.try_into().unwrap())
            });
            let mut numbers: Vec<_> = numbers.collect();
            numbers.sort_unstable();
            let steps = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
            assert!(steps, "{numbers:?} up to {:?}", report.last);
        }
    });
    follower.checkpoint(&backup).unwrap();
    let copy = Store::open(&backup).unwrap();
    assert_eq!(copy.len(), writer.len());
    assert!(crabkv::verify(&data).unwrap().is_sound());
}
