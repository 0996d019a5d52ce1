//! What a store does, as a program that embeds it sees it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crabkv::disk::{FailKind, SimDisk};
use crabkv::{CrabKvBuilder, Error, Modification, ReadMode, Store, Verify, WriteBatch, verify_on};
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn open(dir: &tempfile::TempDir) -> Store {
    Store::builder(dir.path())
        .segment_size(4096)
        .build_store()
        .unwrap()
}

#[test]
fn what_was_put_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for i in 0..1000u32 {
        store.put(format!("key{i}"), format!("value{i}")).unwrap();
    }
    for i in (0..1000u32).step_by(3) {
        assert!(store.delete(format!("key{i}")).unwrap());
    }
    let check = |store: &Store| {
        for i in 0..1000u32 {
            let value = store.get(format!("key{i}")).unwrap();
            let expected = (i % 3 != 0).then(|| format!("value{i}"));
            assert_eq!(
                value.as_deref(),
                expected.as_deref().map(str::as_bytes),
                "{i}"
            );
        }
        assert_eq!(store.len(), 666);
        assert_eq!(store.iter().count(), 666);
    };
    check(&store);
    drop(store);
    let store = open(&dir);
    assert!(store.recovery_report().clean);
    check(&store);
}

#[test]
fn interval_mode_batches_and_compaction_work_together() {
    let dir = tempfile::tempdir().unwrap();
    let build = || {
        Store::builder(dir.path())
            .segment_size(1 << 20)
            .sync_interval(Duration::from_millis(10))
            .verify(Verify::EveryRead)
            .build_store()
            .unwrap()
    };
    let store = build();
    let mut batch = WriteBatch::new();
    for round in 0..20u32 {
        for i in 0..5000u32 {
            batch.put(i.to_le_bytes(), format!("{round}-{i}")).unwrap();
            if batch.len() == 100 {
                store.write(&batch).unwrap();
                batch.clear();
            }
        }
    }
    let stats = store.stats();
    assert!(stats.data_bytes < 3 * stats.live_bytes, "{stats:?}");
    store.compact().unwrap();
    for i in 0..5000u32 {
        assert_eq!(
            store.get(i.to_le_bytes()).unwrap().unwrap(),
            &*format!("19-{i}")
        );
    }
    drop(store);
    let store = build();
    assert_eq!(store.len(), 5000);
    for i in 0..5000u32 {
        assert_eq!(
            store.get(i.to_le_bytes()).unwrap().unwrap(),
            &*format!("19-{i}")
        );
    }
    assert!(matches!(Store::open(dir.path()), Err(Error::Locked { .. })));
}

#[test]
fn there_is_no_store_in_a_directory_of_other_things() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "dear reader").unwrap();
    let open = |create| {
        Store::builder(dir.path())
            .create_if_missing(create)
            .build_store()
    };
    assert!(matches!(open(false), Err(Error::NotFound { .. })));
    assert!(matches!(open(true), Err(Error::ForeignFile { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn dropping_the_last_handle_unlocks_the_store_whatever_its_threads_are_doing() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..200u32 {
        let store = Store::builder(dir.path())
            .sync_interval(Duration::from_micros(200))
            .build_store()
            .unwrap();
        store.put(i.to_le_bytes(), "x").unwrap();
        // So that the syncing thread is met at all points of its work.
        std::thread::sleep(Duration::from_micros(u64::from(i % 50) * 20));
    }
    assert_eq!(Store::open(dir.path()).unwrap().len(), 200);
}

#[test]
fn versions_of_lost_writes_are_not_given_again() {
    use crabkv::disk::{CrashPlan, SimDisk};

    let disk = SimDisk::new(1);
    let open = |disk: &SimDisk| {
        Store::builder("/db")
            .segment_size(4096)
            .sync_interval(Duration::from_secs(1 << 20))
            .build_store_on(disk.clone())
            .unwrap()
    };
    let version = |store: &Store<SimDisk>| store.get("key").unwrap().unwrap().version();
    let store = open(&disk);
    store.put("key", "durable").unwrap();
    store.sync().unwrap();
    store.put("key", "lost").unwrap();
    let seen = version(&store);
    let store = open(&disk.crash(&CrashPlan::LoseAll));
    store.put("key", "other").unwrap();
    assert!(version(&store) > seen);
    let swap = store.compare_and_swap("key", seen, "mistake");
    assert!(matches!(swap, Err(Error::Conflict { .. })));
}

#[test]
fn what_a_flush_could_not_write_is_read_and_written_before_what_came_later() {
    use crabkv::disk::{CrashPlan, SimDisk};

    let disk = SimDisk::new(7);
    let open = |disk: &SimDisk| {
        Store::builder("/db")
            .segment_size(1024)
            .write_back_cache(true)
            .build_store_on(disk.clone())
            .unwrap()
    };
    let read = |store: &Store<SimDisk>, key| store.get(key).unwrap().map(|value| value.to_vec());
    let store = open(&disk);
    store.put("old", "1").unwrap();
    store.put("both", "1").unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    assert!(matches!(store.flush(), Err(Error::DiskFull { .. })));
    store.put("both", "2").unwrap();
    store.delete("old").unwrap();
    assert_eq!(read(&store, "both").as_deref(), Some(&b"2"[..]));
    assert_eq!(read(&store, "old"), None);
    assert!(store.flush().is_err());
    disk.set_capacity(None);
    store.flush().unwrap();
    let store = open(&disk.crash(&CrashPlan::LoseAll));
    assert_eq!(read(&store, "both").as_deref(), Some(&b"2"[..]));
    assert_eq!(read(&store, "old"), None);
}

#[cfg(any(target_os = "linux", target_os = "macos"))] // they have mincore
#[test]
fn what_was_just_read_is_resident_and_never_more_than_is_mapped() {
    use crabkv::ReadMode;

    let dir = tempfile::tempdir().unwrap();
    let open = |mode| {
        Store::builder(dir.path())
            .segment_size(1 << 20)
            .read_mode(mode)
            .build_store()
            .unwrap()
    };
    let store = open(ReadMode::Mmap);
    assert_eq!(store.resident_bytes(), Some(0));
    for i in 0..40u32 {
        store.put(i.to_le_bytes(), vec![b'x'; 100_000]).unwrap();
    }
    for value in &store {
        value.unwrap();
    }
    let (mapped, resident) = (store.stats().mapped_bytes, store.resident_bytes());
    assert!(mapped > 3_000_000, "{mapped}");
    assert_eq!(resident, Some(mapped));
    drop(store);
    assert_eq!(open(ReadMode::Pread).resident_bytes(), None);
}

#[test]
fn a_simulated_disk_does_not_say_what_is_resident() {
    let disk = crabkv::disk::SimDisk::new(1);
    let builder = Store::builder("/db").segment_size(256);
    let store = builder.build_store_on(disk).unwrap();
    for i in 0..100u32 {
        store.put(i.to_le_bytes(), "x").unwrap();
    }
    assert!(store.stats().mapped_bytes > 0);
    assert_eq!(store.resident_bytes(), None);
}

#[test]
fn a_modification_sees_the_live_value_and_its_expiry_is_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path())
        .default_ttl(Duration::from_secs(60))
        .build_store()
        .unwrap();
    let set = |value: &str, expires_at| {
        let put = Modification::Put {
            value: value.into(),
            expires_at,
        };
        store.modify("key", |current| {
            Ok((put.clone(), current.map(|value| value.to_vec())))
        })
    };
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    assert_eq!(set("1", None).unwrap(), None);
    // The default TTL does not count.
    assert_eq!(store.expires_at("key").unwrap(), None);
    assert_eq!(set("2", Some(in_an_hour)).unwrap().unwrap(), b"1");
    let left = store.expires_at("key").unwrap().unwrap();
    assert!(left.duration_since(in_an_hour).unwrap() < Duration::from_millis(2));
    let seq = store.next_seq();
    let kept = store.modify("key", |_| Ok((Modification::Keep, ())));
    kept.unwrap();
    let refused: Result<(), _> = store.modify("key", |_| {
        Err(Error::NotAnInteger {
            reason: "it is none",
        })
    });
    assert!(matches!(refused, Err(Error::NotAnInteger { .. })));
    assert_eq!(store.next_seq(), seq);
    // What has passed already is a delete.
    let past = SystemTime::now() - Duration::from_secs(1);
    assert_eq!(set("3", Some(past)).unwrap().unwrap(), b"2");
    assert!(!store.contains_key("key").unwrap());
    let seq = store.next_seq();
    assert_eq!(set("4", Some(past)).unwrap(), None);
    let deleted = store.modify("key", |_| Ok((Modification::Delete, ())));
    deleted.unwrap();
    assert_eq!(store.next_seq(), seq, "there was nothing to delete");
}

#[test]
fn the_number_of_keys_is_exact_while_nothing_may_have_expired() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let value = [7; 100];
    let hour = Duration::from_secs(3600);
    let brief = Duration::from_millis(1);
    for i in 0..100u32 {
        store.put_with_ttl(i.to_le_bytes(), value, hour).unwrap();
    }
    let seen = |store: &Store| {
        let stats = store.stats();
        (stats.keys, stats.may_have_expired, store.iter().count())
    };
    assert_eq!(seen(&store), (100, false, 100));
    // One among many, in the active segment, then in a sealed one.
    store.put_with_ttl("brief", value, brief).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(seen(&store), (101, true, 100));
    for i in 0..100u32 {
        store.put(i.to_le_bytes(), value).unwrap();
    }
    assert_eq!(seen(&store), (101, true, 100));
    drop(store);
    let store = open(&dir);
    assert_eq!(seen(&store), (101, true, 100));
    store.compact().unwrap();
    assert_eq!(seen(&store), (100, false, 100));
}

#[test]
fn for_each_meets_what_iter_gives_in_every_mode_and_stops_when_told() {
    let plain: fn(CrabKvBuilder) -> CrabKvBuilder = |builder| builder;
    let modes = [
        plain,
        |builder| builder.compression(true),
        |builder| builder.read_mode(ReadMode::Pread),
        |builder| builder.write_back_cache(true),
    ];
    for mode in modes {
        let dir = tempfile::tempdir().unwrap();
        let store = mode(Store::builder(dir.path())).build_store().unwrap();
        let entries = (0..5000).map(|i| (format!("key{i}"), format!("{i} ").repeat(20)));
        store.put_batch(entries).unwrap();
        store.delete("key7").unwrap();
        store.put("key8", "another").unwrap();
        store.put_expiring_at("key9", "gone", UNIX_EPOCH).unwrap();
        let mut expected: Vec<_> = store.iter().map(Result::unwrap).collect();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        let mut met = Vec::new();
        let reader = store.reader();
        let all = reader.for_each(|key, value| {
            met.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        });
        all.unwrap();
        met.sort();
        assert_eq!(met.len(), 4998);
        assert!(
            met.iter()
                .zip(&expected)
                .all(|(met, iter)| met.0 == iter.0 && met.1 == *iter.1)
        );
        let mut count = 0;
        let some = reader.for_each(|_, _| {
            count += 1;
            if count < 10 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        some.unwrap();
        assert_eq!(count, 10);
    }
}

#[test]
fn every_way_over_all_keys_says_that_a_record_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for i in 0..100 {
        store
            .put(format!("key{i}"), "a value of some length")
            .unwrap();
    }
    store.close().unwrap();
    drop(store);
    // In a sealed segment, which opening does not read.
    let path = dir.path().join("000000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(7)
        .position(|window| window == b"a value")
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let store = open(&dir);
    let is_damage = |error: &Error| matches!(error, Error::Corrupt { .. });
    // Again and again, not only the first time.
    for _ in 0..2 {
        let failed = store.iter().find_map(Result::err);
        assert!(failed.as_ref().is_some_and(is_damage), "{failed:?}");
        let walked = store.reader().for_each(|_, _| ControlFlow::Continue(()));
        assert!(walked.as_ref().err().is_some_and(is_damage), "{walked:?}");
    }
    assert!(store.get("key0").as_ref().err().is_some_and(is_damage));
}

/// A full append buffer's memory is used again: not before the last reader has let go of it.
#[test]
fn what_is_held_stays_as_it_was_while_later_segments_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path())
        .segment_size(256 << 10)
        .sync_interval(Duration::from_secs(60))
        .auto_compaction(false)
        .build_store()
        .unwrap();
    let value = |key: u32, round: u32| vec![(key + round) as u8; 1000];
    let (mut values, mut clones) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let reader = (round % 2 == 0).then(|| store.reader());
        for key in 0..100 {
            store.put(format!("key{key}"), value(key, round)).unwrap();
        }
        let lent: Vec<_> = reader
            .iter()
            .map(|reader| reader.get("key5").unwrap().unwrap())
            .collect();
        values.push(store.get("key5").unwrap().unwrap());
        clones.push(values[0].clone());
        for key in 100..400 {
            store.put(format!("key{key}"), value(key, round)).unwrap();
        }
        assert!(lent.iter().all(|lent| *lent == value(5, round)));
    }
    assert!(store.stats().segments.len() > 20);
    assert!(values.iter().all(crabkv::Value::is_zero_copy));
    for (round, held) in (0..).zip(&values) {
        assert_eq!(held, &value(5, round)[..]);
    }
    assert!(clones.iter().all(|clone| *clone == *value(5, 0)));
    for key in 0..400 {
        let found = store.get(format!("key{key}")).unwrap().unwrap();
        assert_eq!(&*found, &value(key, 19)[..]);
    }
}

/// The table of segments grows by a thousand places at a time.
#[test]
fn more_than_a_thousand_segments_are_read_and_opened_again() {
    let options = || {
        CrabKvBuilder::new("/db")
            .segment_size(1024)
            .sync_interval(Duration::from_secs(60))
            .auto_compaction(false)
    };
    let disk = SimDisk::new(1);
    let value = |key: u32| vec![key as u8; 800];
    let check = |store: &Store<SimDisk>| {
        assert!(store.stats().segments.len() > 1050);
        for key in 0..1100 {
            let found = store.get(format!("key{key}")).unwrap().unwrap();
            assert_eq!(&*found, &value(key)[..]);
        }
    };
    let store = options().build_store_on(disk.clone()).unwrap();
    for key in 0..1100 {
        store.put(format!("key{key}"), value(key)).unwrap();
    }
    check(&store);
    store.close().unwrap();
    drop(store);
    check(&options().build_store_on(disk).unwrap());
}

/// What a hint file lists is noted when records are written; a refused one was no record.
#[test]
fn a_write_that_a_full_disk_refused_is_in_no_hint_file() {
    let options = || {
        CrabKvBuilder::new("/db")
            .segment_size(4096)
            .sync_interval(Duration::from_secs(60))
            .auto_compaction(false)
    };
    let disk = SimDisk::new(1);
    let store = options().build_store_on(disk.clone()).unwrap();
    store.put("before", "1").unwrap();
    let mut batch = WriteBatch::new();
    batch.put("batched", "1").unwrap().put("and", "2").unwrap();
    disk.fail_at(0, FailKind::Enospc, true);
    assert!(matches!(store.write(&batch), Err(Error::DiskFull { .. })));
    disk.fail_at(0, FailKind::Enospc, true);
    let refused = store.put("refused", "1");
    assert!(matches!(refused, Err(Error::DiskFull { .. })));
    for i in 0..200 {
        store.put(format!("after{i}"), [7; 50]).unwrap();
    }
    assert!(store.stats().segments.len() > 3);
    store.close().unwrap();
    drop(store);
    let go_on = |_: &_| ControlFlow::Continue(());
    let verified = verify_on(&disk, "/db", go_on).unwrap();
    assert!(verified.is_sound(), "{verified:#?}");
    let store = options().build_store_on(disk).unwrap();
    assert_eq!(
        store.recovery_report().hints_used,
        store.stats().segments.len()
    );
    assert_eq!(store.len(), 201);
    assert!(store.get("refused").unwrap().is_none());
}
