//! Values that expire at a moment, rather than after a while.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, SystemTime};

use crabkv::disk::{CrashPlan, SimDisk};
use crabkv::{Change, ChangeKind, SeqNo, Store, WriteBatch};

fn at_ms(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

/// A store whose clock stands at 10 seconds, as it is and with a write-back buffer.
fn with_each_mode(check: impl Fn(&SimDisk, &dyn Fn(&SimDisk) -> Store<SimDisk>)) {
    for write_back in [false, true] {
        let disk = SimDisk::new(1);
        disk.set_clock(10_000);
        let open = |disk: &SimDisk| {
            Store::builder("/db")
                .segment_size(4096)
                .write_back_cache(write_back)
                .build_store_on(disk.clone())
                .unwrap()
        };
        check(&disk, &open);
    }
}

fn read(store: &Store<SimDisk>, key: &str) -> Option<String> {
    let value = store.get(key).unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn a_value_is_there_until_its_moment_and_not_in_it() {
    with_each_mode(|disk, open| {
        let store = open(disk);
        store.put_expiring_at("a", "1", at_ms(12_345)).unwrap();
        let mut batch = WriteBatch::new();
        batch.put_expiring_at("b", "2", at_ms(12_345)).unwrap();
        batch.put("c", "3").unwrap();
        store.write(&batch).unwrap();
        assert!(store.expire_at("c", at_ms(12_345)).unwrap());
        for key in ["a", "b", "c"] {
            assert_eq!(store.expires_at(key).unwrap(), Some(at_ms(12_345)));
        }
        disk.set_clock(12_344);
        assert_eq!(read(&store, "a").as_deref(), Some("1"));
        assert_eq!(read(&store, "b").as_deref(), Some("2"));
        assert_eq!(read(&store, "c").as_deref(), Some("3"));
        drop(store);
        let store = open(disk);
        assert_eq!(read(&store, "c").as_deref(), Some("3"));
        disk.set_clock(12_345);
        for key in ["a", "b", "c"] {
            assert_eq!(read(&store, key), None);
        }
    });
}

#[test]
fn a_part_of_a_millisecond_is_not_cut_off() {
    let disk = SimDisk::new(1);
    disk.set_clock(10_000);
    let store = Store::builder("/db").build_store_on(disk).unwrap();
    let at = at_ms(12_000) + Duration::from_micros(1);
    store.put_expiring_at("a", "1", at).unwrap();
    assert_eq!(store.expires_at("a").unwrap(), Some(at_ms(12_001)));
}

#[test]
fn a_moment_that_has_passed_deletes_whatever_the_clock_says_later() {
    with_each_mode(|disk, open| {
        let store = open(disk);
        for key in ["a", "b", "c"] {
            store.put(key, "older").unwrap();
        }
        store.flush().unwrap();
        store.put_expiring_at("a", "new", at_ms(10_000)).unwrap();
        let mut batch = WriteBatch::new();
        batch.put_expiring_at("b", "new", at_ms(9_999)).unwrap();
        batch.put("other", "x").unwrap();
        store.write(&batch).unwrap();
        assert!(store.expire_at("c", at_ms(0)).unwrap());
        assert!(!store.expire_at("c", at_ms(20_000)).unwrap());
        let gone = |store: &Store<SimDisk>| {
            for key in ["a", "b", "c"] {
                assert_eq!(read(store, key), None);
            }
            assert_eq!(read(store, "other").as_deref(), Some("x"));
        };
        gone(&store);
        store.flush().unwrap();
        // The machine dies, and comes back with its clock at the beginning.
        let after = disk.crash(&CrashPlan::LoseAll);
        after.set_clock(1);
        let store = open(&after);
        gone(&store);
        store.compact().unwrap();
        gone(&store);
        assert_eq!(store.len(), 1);
        drop(store);
        gone(&open(&after));
    });
}

#[test]
fn a_moment_that_has_passed_leaves_no_record_where_there_was_no_value() {
    let disk = SimDisk::new(1);
    disk.set_clock(10_000);
    let store = Store::builder("/db").build_store_on(disk).unwrap();
    store.put_expiring_at("a", "1", at_ms(10_000)).unwrap();
    assert_eq!(store.stats().next_seq.get(), 1);
    assert!(!store.expire_at("a", at_ms(0)).unwrap());
    assert_eq!(store.stats().next_seq.get(), 1);
}

#[test]
fn a_moment_that_passes_in_the_write_back_buffer_is_kept_to() {
    let disk = SimDisk::new(1);
    disk.set_clock(10_000);
    let builder = Store::builder("/db").write_back_cache(true);
    let store = builder.build_store_on(disk.clone()).unwrap();
    store.put("a", "older").unwrap();
    store.flush().unwrap();
    store.put_expiring_at("a", "1", at_ms(10_500)).unwrap();
    disk.set_clock(10_500);
    assert_eq!(read(&store, "a"), None);
    store.flush().unwrap();
    assert_eq!(read(&store, "a"), None);
    store.compact().unwrap();
    assert_eq!(read(&store, "a"), None);
}

#[test]
fn the_change_feed_shows_a_passed_moment_as_a_delete() {
    let disk = SimDisk::new(1);
    disk.set_clock(10_000);
    let store = Store::builder("/db").build_store_on(disk).unwrap();
    store.put("a", "1").unwrap();
    store.put_expiring_at("a", "2", at_ms(1)).unwrap();
    let changes: Vec<Change> = store
        .changes(SeqNo::new(1))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(changes.len(), 2);
    assert!(matches!(changes[1].kind, ChangeKind::Delete));
}

#[test]
fn a_moment_beyond_all_calendars_is_never_reached() {
    let disk = SimDisk::new(1);
    disk.set_clock(10_000);
    let store = Store::builder("/db").build_store_on(disk.clone()).unwrap();
    // The clock of Windows ends in the year 30828.
    let years = if cfg!(windows) { 20_000 } else { 1_000_000 };
    let years = Duration::from_secs(years * 365 * 86_400);
    store
        .put_expiring_at("a", "1", SystemTime::UNIX_EPOCH + years)
        .unwrap();
    disk.set_clock(u64::from(u32::MAX) * 1000);
    assert_eq!(read(&store, "a").as_deref(), Some("1"));
}
