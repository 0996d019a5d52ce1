//! Read-only stores beside a live writer: what they see, what they leave alone, and how they catch
//! up, on the simulated disk and on real ones.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{
    Op, Rng, SimStore, State, contents, delete, effort, is_kind, put, put_ttl, seed, show,
    sim_builder, visible,
};
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
fn same_after_refresh(follower: &SimStore, writer: &SimStore, disk: &SimDisk) {
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
                .unwrap()
        }),
        ("rotation", &|| {
            for i in 0..40 {
                writer.put(format!("r{}", i % 11), format!("{i}")).unwrap();
            }
        }),
        ("compaction", &|| drop(writer.compact().unwrap())),
        ("close", &|| writer.close().unwrap()),
        ("after close", &|| writer.put("e", "7").unwrap()),
        ("a record longer than a segment", &|| {
            writer.put("long", [b'x'; 200_000]).unwrap()
        }),
        ("time", &|| disk.advance(10_000)),
        ("compaction of expired ones", &|| {
            drop(writer.compact().unwrap())
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
