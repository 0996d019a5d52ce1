//! Sizes and numbers at their limits: correct, or a clear error and nothing written.

use std::path::Path;

use crate::common::{SimStore, State, contents, put, remove_hints, sim_builder};
use crate::layer::{say, skip};
use crabkv::disk::{CrashPlan, SimDisk};
use crabkv::{CrabKvBuilder, Error, MAX_KEY_LEN, MAX_VALUE_LEN, ReadMode, Store, WriteBatch};

fn modes(segment_size: u64) -> [CrabKvBuilder; 5] {
    let builder = || sim_builder(segment_size);
    [
        builder(),
        builder().sync_interval(std::time::Duration::from_secs(1 << 20)),
        builder().write_back_bytes(100),
        builder().read_mode(ReadMode::Pread),
        builder().compression(true),
    ]
}

/// The same by every way of opening again: at once, without hint files, after a kill.
fn is_there_for_good(disk: &SimDisk, expected: &State) {
    let open = |disk: &SimDisk| {
        let store = sim_builder(1024).build_store_on(disk.clone()).unwrap();
        assert!(contents(&store, []).unwrap() == *expected);
        store
    };
    for has_hints in [true, false] {
        let copy = disk.crash(&CrashPlan::KeepAll);
        if !has_hints {
            remove_hints(&copy, || true);
        }
        let store = open(&copy);
        store.put("one more", "").unwrap();
        assert!(store.delete("one more").unwrap());
        let killed = copy.crash(&CrashPlan::KeepAll);
        drop(store);
        for disk in [copy, killed] {
            open(&disk).compact().unwrap();
            open(&disk);
        }
    }
}

/// Bytes of a given length that are not all the same, and do not compress.
fn bytes(len: usize) -> Vec<u8> {
    let mut rng = crate::common::Rng(len as u64);
    (0..len).map(|_| rng.next() as u8).collect()
}

#[test]
fn keys_and_values_of_no_one_and_the_most_bytes_are_as_they_were_put() {
    for builder in modes(1024) {
        let disk = SimDisk::new(1);
        let store = builder.build_store_on(disk.clone()).unwrap();
        let mut expected = State::new();
        for key_len in [0, 1, MAX_KEY_LEN - 1, MAX_KEY_LEN] {
            // The value of the longest key is empty, and the other way round, and so on.
            for value_len in [1, 100_000, 0] {
                let (key, value) = (bytes(key_len), bytes(value_len));
                store.put(&key, &value).unwrap();
                assert_eq!(store.get(&key).unwrap().unwrap(), &value[..]);
                expected.insert(key, (value, None));
            }
        }
        let mut batch = WriteBatch::new();
        batch.put(bytes(MAX_KEY_LEN), "in a batch").unwrap();
        batch.put("", "too").unwrap();
        store.write(&batch).unwrap();
        expected.insert(bytes(MAX_KEY_LEN), (b"in a batch".to_vec(), None));
        expected.insert(Vec::new(), (b"too".to_vec(), None));
        drop(store);
        is_there_for_good(&disk, &expected);
        // One more is too many, and changes nothing.
        let store = sim_builder(1024).build_store_on(disk.clone()).unwrap();
        let operations = disk.ops();
        let long = vec![b'x'; MAX_KEY_LEN + 1];
        assert!(matches!(
            store.put(&long, ""),
            Err(Error::KeyTooLarge { .. })
        ));
        assert!(matches!(store.get(&long), Ok(None)));
        let too_large = store.delete(&long);
        assert!(matches!(too_large, Err(Error::KeyTooLarge { .. })));
        assert_eq!(disk.ops(), operations);
        assert!(store.delete("").unwrap());
        assert!(store.get("").unwrap().is_none());
    }
}

#[test]
fn a_record_may_be_as_large_as_its_segment_and_a_little_more_or_less() {
    const SEGMENT: usize = 1024;
    for builder in 0..modes(0).len() {
        // Header, footer and what is kept back for deletes lie in this range too.
        for len in SEGMENT - 300..=SEGMENT + 40 {
            let mode = modes(SEGMENT as u64).into_iter().nth(builder).unwrap();
            let disk = SimDisk::new(1);
            let store = mode.build_store_on(disk.clone()).unwrap();
            let mut expected = State::new();
            for (key, value) in [("a", bytes(len)), ("b", bytes(3)), ("c", bytes(len - 1))] {
                put_and_expect(&store, key, value, &mut expected);
            }
            let mut batch = WriteBatch::new();
            batch.put("d", bytes(len / 2)).unwrap();
            batch.put("e", bytes(len - len / 2)).unwrap();
            store.write(&batch).unwrap();
            for (key, len) in [("d", len / 2), ("e", len - len / 2)] {
                expected.insert(key.into(), (bytes(len), None));
            }
            assert!(contents(&store, []).unwrap() == expected, "{len}");
            drop(store);
            is_there_for_good(&disk, &expected);
        }
    }
}

fn put_and_expect(store: &SimStore, key: &str, value: Vec<u8>, expected: &mut State) {
    store.put(key, &value).unwrap();
    expected.insert(key.into(), (value, None));
}

/// Where the manifest has the next sequence number.
const NEXT_SEQ_AT: usize = 64;

/// A closed store that says to have come to a sequence number.
fn store_at(number: u64) -> (SimDisk, State) {
    let disk = SimDisk::new(1);
    let store = sim_builder(1024).build_store_on(disk.clone()).unwrap();
    let mut expected = State::new();
    for key in 0..20 {
        put_and_expect(&store, &format!("k{key}"), bytes(100), &mut expected);
    }
    // No segment is left to be appended to, with a base of its own.
    store.compact_segments(&[]).unwrap();
    drop(store);
    let path = Path::new("/db/MANIFEST");
    let mut manifest = disk.read_raw(path).unwrap();
    manifest[NEXT_SEQ_AT..NEXT_SEQ_AT + 8].copy_from_slice(&number.to_le_bytes());
    let checked = manifest.len() - 4;
    let checksum = crc32fast::hash(&manifest[..checked]);
    manifest[checked..].copy_from_slice(&checksum.to_le_bytes());
    disk.write_raw(path, &manifest);
    (disk, expected)
}

#[test]
fn sequence_numbers_end_with_an_error_and_never_begin_again() {
    let mut refused = 0;
    for before_the_end in [
        0,
        1,
        2,
        20,
        1 << 20,
        (1 << 33) - 3,
        1 << 33,
        (1 << 33) + 7,
        1 << 34,
    ] {
        let (disk, mut expected) = store_at(u64::MAX - before_the_end);
        for round in 0..4 {
            let store = sim_builder(1024).build_store_on(disk.clone()).unwrap();
            assert!(contents(&store, []).unwrap() == expected);
            let before = store.next_seq();
            for write in 0..10 {
                let value = format!("{round} {write}").into_bytes();
                let written = if write % 2 == 0 {
                    store.put("k0", &value)
                } else {
                    let write = put("k0", &value);
                    store.write(&crate::common::batch(&[write]).unwrap())
                };
                match written {
                    Ok(()) => {
                        expected.insert(b"k0".to_vec(), (value, None));
                    }
                    Err(Error::Exhausted { what }) => {
                        assert_eq!(what, "sequence numbers");
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
                assert!(contents(&store, []).unwrap() == expected);
            }
            assert!(store.next_seq() >= before);
            if round % 2 == 0 {
                store.compact().unwrap();
            }
            drop(store);
            let after_a_kill = disk.crash(&CrashPlan::KeepAll);
            let store = sim_builder(1024).build_store_on(after_a_kill).unwrap();
            assert!(contents(&store, []).unwrap() == expected);
        }
    }
    assert!(refused > 0);
}

/// Whether what takes much memory and time is to be run.
fn is_large(what: &str) -> bool {
    let is_large = std::env::var_os("CRABKV_LARGE").is_some();
    if !is_large {
        skip("limits", &format!("{what}; set CRABKV_LARGE to run it"));
    }
    is_large
}

#[test]
fn the_longest_value_is_as_it_was_put() {
    if !is_large("the longest value takes 3 GiB of memory") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let value = vec![7; MAX_VALUE_LEN];
    let store = Store::open(dir.path()).unwrap();
    store.put("key", &value).unwrap();
    assert!(*store.get("key").unwrap().unwrap() == value[..]);
    store.put("next", "small").unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(*store.get("key").unwrap().unwrap() == value[..]);
    assert_eq!(store.get("next").unwrap().unwrap(), "small");
    say("limits", "a value of 512 MiB");
}

/// A segment of almost 4 GiB, full to the end, with a mebibyte and a small record in turns.
#[test]
fn records_anywhere_in_the_largest_segment_are_found() {
    if !is_large("a segment of 4 GiB takes 5 GiB of memory, and 9 GiB on the disk") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        Store::builder(dir.path())
            .segment_size((4 << 30) - 4096)
            .sync_interval(std::time::Duration::from_secs(1 << 20))
            .build_store()
            .unwrap()
    };
    let large = bytes(1 << 20);
    let store = open();
    let mut count = 0_u32;
    // Until the next segment has been begun.
    while store.stats().segments.len() < 2 {
        store.put(format!("large{count}"), &large).unwrap();
        store
            .put(format!("small{count}"), count.to_string())
            .unwrap();
        count += 1;
    }
    let longest = store.stats().segments[0].data_bytes;
    assert!(longest > (4 << 30) - (300 << 20), "{longest}");
    let check = |store: &Store| {
        for number in 0..count {
            let small = store.get(format!("small{number}")).unwrap().unwrap();
            assert_eq!(small, &*number.to_string());
            // All of it is read where it is likeliest to be wrong.
            let key = format!("large{number}");
            if number % 64 == 0 || number + 8 > count {
                assert!(*store.get(key).unwrap().unwrap() == large[..], "{number}");
            } else {
                assert!(store.contains_key(key).unwrap(), "{number}");
            }
        }
    };
    check(&store);
    drop(store);
    check(&open());
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "hint") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let store = open();
    check(&store);
    for number in 0..count - 4 {
        store.delete(format!("large{number}")).unwrap();
    }
    store.compact().unwrap();
    assert!(
        store
            .stats()
            .segments
            .iter()
            .all(|one| one.data_bytes < 1 << 30)
    );
    for number in 0..count {
        let small = store.get(format!("small{number}")).unwrap().unwrap();
        assert_eq!(small, &*number.to_string());
    }
    say(
        "limits",
        &format!("{count} large and small records in a segment of {longest} bytes"),
    );
}
