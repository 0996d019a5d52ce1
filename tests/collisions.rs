//! Stores in which all keys share a few hashes, so that only the keys themselves tell them apart.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::{
    Op, Rng, State, contents, delete, effort, is_kind, put, put_ttl, seal, seed, show, sim_builder,
    visible,
};
use crabkv::disk::{CrashPlan, Disk, SimDisk};

fn open(disk: &SimDisk, bits: u8) -> common::SimStore {
    let builder = sim_builder(512).hash_bits(bits);
    builder.build_store_on(disk.clone()).unwrap()
}

#[test]
fn keys_that_share_a_hash_stay_apart_through_crashes_and_compaction() {
    let mut rng = Rng(seed(20));
    let mut operations = 0;
    for round in 0..effort(12) {
        let bits = [1, 2, 4][round as usize % 3];
        let mut disk = SimDisk::new(rng.next());
        let mut store = open(&disk, bits);
        let mut state = State::new();
        for number in 0..150 {
            let mut write = || {
                let key = format!("k{}", rng.below(25));
                let value = format!("{number}-{key}").repeat(1 + rng.below(5) as usize);
                match rng.below(10) {
                    0..5 => put(&key, value),
                    5..8 => delete(&key),
                    _ => put_ttl(&key, value, rng.below(500)),
                }
            };
            let op = match number % 12 {
                0..7 => Op::Write(write()),
                7..10 => Op::Batch((0..5).map(|_| write()).collect()),
                10 => Op::Advance(100),
                _ => Op::Compact,
            };
            if let Op::Advance(ms) = op {
                disk.advance(ms);
            } else {
                op.apply(&store).unwrap();
                op.apply_to(&mut state, disk.now_ms());
            }
            operations += 1;
            if number % 7 != 0 {
                continue;
            }
            match rng.below(4) {
                // A power cut.
                0 => disk = disk.crash(&CrashPlan::Random(number)),
                // A clean close, and the hint files lost.
                1 => {
                    drop(store);
                    for (name, _) in disk.files(Path::new("/db")) {
                        if is_kind(&name, "hint") && rng.chance(60) {
                            disk.remove_raw(&Path::new("/db").join(name));
                        }
                    }
                }
                2 => drop(store),
                _ => continue,
            }
            store = open(&disk, bits);
            let expected = visible(&state, disk.now_ms());
            let seen = contents(&store, state.keys()).unwrap();
            assert!(
                seen == expected,
                "{}\nexpected {}",
                show(&seen),
                show(&expected)
            );
        }
    }
    println!("{operations} operations");
}

#[test]
fn a_deleted_key_does_not_take_another_of_its_hash_along() {
    let disk = SimDisk::new(1);
    let store = open(&disk, 1);
    for key in 0..50_u8 {
        store.put([key], [key]).unwrap();
    }
    for key in (0..50_u8).step_by(2) {
        assert!(store.delete([key]).unwrap());
    }
    for _ in 0..3 {
        let store = open(&disk.crash(&CrashPlan::LoseAll), 1);
        store.compact().unwrap();
        assert_eq!(store.len(), 25);
        for key in 0..50_u8 {
            assert_eq!(store.contains_key([key]).unwrap(), key % 2 == 1, "{key}");
        }
    }
}

#[test]
fn a_damaged_record_does_not_bring_back_an_older_value_of_its_key() {
    let disk = SimDisk::new(1);
    let store = open(&disk, 1);
    // As many as make sure that some of them share a hash with the one.
    for number in 0..4 {
        store.put(format!("other {number}"), "1").unwrap();
    }
    store.put("the key", "old").unwrap();
    seal(&store);
    store.put("the key", "new").unwrap();
    seal(&store);
    drop(store);

    let dir = Path::new("/db");
    let files = disk.files(dir).into_iter();
    let mut segments = files.filter(|(name, _)| is_kind(name, "seg"));
    let find = |bytes: &[u8]| bytes.windows(7).position(|window| window == b"the key");
    let (name, bytes) = segments.by_ref().nth(1).unwrap();
    // Now it is the record of another key.
    disk.corrupt(&dir.join(name), find(&bytes).unwrap() as u64, 1);

    let builder = sim_builder(512).hash_bits(1);
    match builder.build_store_on(disk) {
        Err(error) => assert!(error.is_corruption(), "{error}"),
        Ok(store) => assert!(store.get("the key").is_err()),
    }
}
