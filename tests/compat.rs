//! Stores that earlier versions wrote are opened for ever.
//!
//! `tests/fixtures/v1/` was made by `cargo run --example make_fixture`, and is never made again:
//! what a release wrote, every later one reads, and goes on writing to.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crabkv::{Error, SeqNo, Store};
use tempfile::TempDir;

/// A copy of a fixture, to be opened: opening changes files.
fn copy_of(fixture: &str) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(fixture);
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// What the stores `sound` and `collisions` hold, apart from values made by a rule.
const TEXTS: &[(&str, &str)] = &[
    ("greeting", "hello again"),
    ("", "the empty key"),
    ("empty value", ""),
    ("expires", "late"),
    ("in the batch", "new"),
    ("batch expires", "late"),
    ("last", "write"),
];

/// All keys and values of the stores `sound` and `collisions`.
fn expected() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = TEXTS
        .iter()
        .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    for i in 0..40 {
        expected.insert(
            format!("n{i:02}").into_bytes(),
            format!("number {i}").into_bytes(),
        );
    }
    expected.insert(b"binary".to_vec(), (0..=255).collect());
    expected.insert(b"compressed".to_vec(), b"crab".repeat(500));
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    });
    expected.insert(b"large".to_vec(), noise.take(3000).collect());
    expected
}

fn contents(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entries = store.iter().map(|entry| {
        let (key, value) = entry.unwrap();
        (key, value.to_vec())
    });
    entries.collect()
}

fn check(store: &Store) {
    assert_eq!(contents(store), expected());
    for (key, value) in expected() {
        assert_eq!(store.get(&key).unwrap().as_deref(), Some(&value[..]));
    }
    for absent in ["deleted", "expired", "greeting 2", "never there"] {
        assert!(store.get(absent).unwrap().is_none(), "{absent}");
    }
    // 2025-01-01 and a hundred years of 365 days.
    let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600 + 3_153_600_000);
    assert_eq!(store.expires_at("expires").unwrap(), Some(expiry));
    // The 56th write since the store was made.
    let last = store.get("last").unwrap().unwrap();
    assert_eq!(last.version().unwrap().get(), 56);
}

/// Opens, reads, writes on, compacts and opens again.
fn opens_and_goes_on(fixture: &str) {
    let dir = copy_of(fixture);
    let store = Store::open(dir.path()).unwrap();
    let report = store.recovery_report();
    assert!(report.clean && !report.created);
    assert_eq!((report.segments, report.hints_used), (6, 5));
    assert!(report.scanned.is_empty() && report.orphans_removed.is_empty());
    check(&store);
    store.put("new", "from today").unwrap();
    store.compact().unwrap();
    store.delete("new").unwrap();
    check(&store);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.recovery_report().clean);
    check(&store);
}

#[test]
fn a_store_of_version_1_opens_and_goes_on() {
    opens_and_goes_on("v1/sound");
}

#[test]
fn a_store_of_version_1_with_colliding_hashes_opens_and_goes_on() {
    opens_and_goes_on("v1/collisions");
}

/// Nobody knows what was dropped from a store before its manifest said so: whoever has read a part
/// of it cannot go on, whoever has read nothing can begin.
#[test]
fn the_history_of_a_store_begins_when_its_manifest_begins_to_tell_it() {
    let dir = copy_of("v1/sound");
    let go_on = |store: &Store, since| store.changes(SeqNo::new(since));
    let check_history = |store: &Store| {
        for since in [2, 30, 56] {
            match go_on(store, since) {
                Err(Error::HistoryCompacted { oldest, .. }) => assert_eq!(oldest.get(), 57),
                other => panic!("what is missing from {since} on? {other:?}"),
            }
        }
        let mut copy = BTreeMap::new();
        for change in go_on(store, 0).unwrap() {
            let change = change.unwrap();
            match change.value() {
                Some(value) if value.expires_at().is_none_or(|at| at > SystemTime::now()) => {
                    copy.insert(change.key.clone(), value.to_vec())
                }
                _ => copy.remove(&change.key),
            };
        }
        assert_eq!(copy, contents(store));
    };
    let store = Store::open(dir.path()).unwrap();
    check_history(&store);
    assert_eq!(go_on(&store, 57).unwrap().count(), 0);
    store.put("new", "from today").unwrap();
    check_history(&store);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    check_history(&store);
    assert_eq!(go_on(&store, 57).unwrap().count(), 1);
}

#[test]
fn a_store_of_version_1_opens_without_its_hint_files_and_writes_them_again() {
    let dir = copy_of("v1/sound");
    let hint = |id: u32| dir.path().join(format!("{id:012}.hint"));
    let written: Vec<_> = (1..=5).map(|id| fs::read(hint(id)).unwrap()).collect();
    (1..=5).for_each(|id| fs::remove_file(hint(id)).unwrap());
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.recovery_report().scanned.len(), 5);
    check(&store);
    for (id, bytes) in (1..=5).zip(written) {
        assert_eq!(fs::read(hint(id)).unwrap(), bytes, "hint file {id}");
    }
}

#[test]
fn a_torn_tail_of_version_1_is_cut_reported_and_kept_beside() {
    let dir = copy_of("v1/torn");
    let store = Store::open(dir.path()).unwrap();
    let report = store.recovery_report();
    assert!(!report.clean);
    let torn = report.torn_tail.as_ref().unwrap();
    assert_eq!(torn.segment.get(), 1);
    assert_eq!((torn.offset, torn.len), (104, 47));
    assert_eq!(fs::read(&torn.saved_to).unwrap().len(), 47);
    assert_eq!(store.get("kept").unwrap().unwrap(), "acknowledged");
    assert!(store.get("torn").unwrap().is_none());
}

#[test]
fn the_damaged_twin_is_refused_by_file_and_offset_and_left_alone() {
    let dir = copy_of("v1/damaged");
    match Store::open(dir.path()) {
        Err(Error::Corrupt { file, offset, .. }) => {
            assert_eq!(file, dir.path().join("000000000006.seg"));
            assert_eq!(offset, 64);
        }
        other => panic!("damage passed for a store: {other:?}"),
    }
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/damaged");
    for entry in fs::read_dir(&original).unwrap() {
        let name = entry.unwrap().file_name();
        assert_eq!(
            fs::read(dir.path().join(&name)).unwrap(),
            fs::read(original.join(&name)).unwrap(),
            "{}",
            Path::new(&name).display()
        );
    }
}

#[test]
fn damage_in_a_sealed_segment_is_met_when_its_record_is_read() {
    let dir = copy_of("v1/sound");
    let path = dir.path().join("000000000002.seg");
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = Store::open(dir.path()).unwrap();
    match store.get("large") {
        Err(Error::Corrupt { file, offset, .. }) => assert_eq!((file, offset), (path, 64)),
        other => panic!("a damaged value was given out: {other:?}"),
    }
    assert_eq!(store.get("greeting").unwrap().unwrap(), "hello again");
}

#[test]
fn a_newer_version_is_refused_by_its_number() {
    let dir = copy_of("v1/sound");
    for file in ["MANIFEST", "000000000003.seg"] {
        let path = dir.path().join(file);
        let sound = fs::read(&path).unwrap();
        let mut newer = sound.clone();
        newer[8] = 2;
        fs::write(&path, newer).unwrap();
        match Store::open(dir.path()) {
            Err(Error::UnsupportedVersion {
                file,
                found,
                supported,
            }) => assert_eq!((file, found, supported), (path.clone(), 2, 1)),
            other => panic!("{file} of version 2 was not refused: {other:?}"),
        }
        fs::write(&path, sound).unwrap();
    }
    check(&Store::open(dir.path()).unwrap());
}

#[test]
fn what_came_later_works_on_a_store_of_the_first_version_as_it_is() {
    for fixture in ["v1/sound", "v1/collisions"] {
        let (store, parent) = (copy_of(fixture), tempfile::tempdir().unwrap());
        let dir = |name: &str| parent.path().join(name);
        let report = crabkv::verify(store.path()).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let follower = Store::open_read_only(store.path()).unwrap();
        check(&follower);
        follower.checkpoint(dir("by follower")).unwrap();
        let report = crabkv::repair(store.path(), dir("repaired")).unwrap();
        assert!(report.is_complete(), "{report:?}");
        crabkv::restore(dir("by follower"), dir("restored")).unwrap();
        let writer = Store::open(store.path()).unwrap();
        writer.checkpoint(dir("by writer")).unwrap();
        for name in ["by follower", "repaired", "restored", "by writer"] {
            let report = crabkv::verify(dir(name)).unwrap();
            assert!(report.is_sound(), "{name}: {report:?}");
            check(&Store::open(dir(name)).unwrap());
        }
        // What such a store has compacted away nobody knows: to begin with everything is sure.
        for store in [&follower, &writer] {
            let mut copy = BTreeMap::new();
            let mut changes = store.changes(SeqNo::new(0)).unwrap();
            for change in changes.by_ref() {
                let change = change.unwrap();
                let expiry = change.value().and_then(crabkv::Value::expires_at);
                match change.value() {
                    Some(value) if expiry.is_none_or(|at| at > SystemTime::now()) => {
                        copy.insert(change.key.clone(), value.to_vec());
                    }
                    _ => drop(copy.remove(&change.key)),
                }
            }
            assert_eq!(copy, expected());
            assert_eq!(changes.next_seq(), store.next_seq());
            assert_eq!(store.changes(changes.next_seq()).unwrap().count(), 0);
        }
        // Reading has not changed it, and a write after it is followed.
        writer.put("greeting", "from a later version").unwrap();
        assert!(follower.refresh().unwrap());
        assert_eq!(
            follower.get("greeting").unwrap().unwrap(),
            "from a later version"
        );
    }
}
