//! A panic while locks are held: in a closure of the caller's, or in the disk. Whoever waits is
//! told and does not wait for ever, and the store can be opened again with all that was
//! acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::hooked::{Event, HookedDisk, beside};
use crate::common::{Op, State, contents, delete, put, sim_builder};
use crate::layer::say;
use crate::model::shrink::without_panic;
use crabkv::disk::{CrashPlan, SimDisk};
use crabkv::{CrabKvBuilder, Error, Modification, Store};

const NEVER: Duration = Duration::from_secs(1 << 20);

type Hooked = Store<HookedDisk>;

fn modes() -> [(&'static str, CrabKvBuilder); 3] {
    let builder = || sim_builder(512);
    [
        ("every write", builder()),
        ("interval", builder().sync_interval(NEVER)),
        ("write-back", builder().write_back_bytes(300)),
    ]
}

/// Does something on another thread; an error if it panics there, and a failure of the test if it
/// does not come to its end.
fn attempt<T: Send + 'static>(
    store: &Hooked,
    work: impl FnOnce(&Hooked) -> T + Send + 'static,
) -> Result<T, String> {
    let store = store.clone();
    beside(move || without_panic(|| Ok(work(&store))))
}

#[test]
fn a_closure_that_panics_changes_nothing_and_keeps_nobody_waiting() {
    for (mode, builder) in modes() {
        let disk = HookedDisk::new(SimDisk::new(1));
        let store = builder.build_store_on(disk.clone()).unwrap();
        store.put("key", "old").unwrap();
        for key in ["key", "absent"] {
            let updated = attempt(&store, move |store| {
                store.update(key, |_| panic!("in an update")).map(drop)
            });
            assert!(updated.unwrap_err().contains("in an update"), "{mode}");
            let modified = attempt(&store, move |store| {
                let modified: crabkv::Result<()> =
                    store.modify(key, |_| panic!("in a modification"));
                modified
            });
            assert!(
                modified.unwrap_err().contains("in a modification"),
                "{mode}"
            );
            let value = attempt(&store, move |store| store.get(key).unwrap());
            let value = value.unwrap().map(|value| value.to_vec());
            let expected = (key == "key").then(|| b"old".to_vec());
            assert_eq!(value, expected, "{mode}");
        }
        let written = attempt(&store, |store| {
            store.put("other", "new").unwrap();
            let delete = |_: Option<&crabkv::Value>| Ok((Modification::Delete, ()));
            store.modify("key", delete).unwrap();
            store.compact().unwrap();
            store.close().unwrap();
        });
        written.unwrap();
        drop(store);
        let store = sim_builder(512).build_store_on(disk).unwrap();
        assert_eq!(store.get("other").unwrap().unwrap(), "new", "{mode}");
        assert!(store.get("key").unwrap().is_none(), "{mode}");
    }
}

fn work() -> Vec<Op> {
    let value = |number: usize| format!("value {number}.").repeat(6);
    let mut work: Vec<_> = (0..14)
        .map(|number| Op::Write(put(&format!("k{}", number % 5), value(number))))
        .collect();
    work[4] = Op::Write(delete("k1"));
    work[7] = Op::Batch(vec![
        put("k2", "in a batch"),
        delete("k3"),
        put("k9", value(1)),
    ]);
    work[9] = Op::Compact;
    work[11] = Op::Flush;
    work
}

/// Works until the disk panics at its event of this number, and on; `false` if it did not come to
/// it.
fn panic_at(mode: &str, builder: CrabKvBuilder, number: u64) -> bool {
    let disk = HookedDisk::new(SimDisk::new(2));
    let store = builder.build_store_on(disk.clone()).unwrap();
    let events = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&events);
    disk.set_hook(move |event, path| {
        let is_it = counted.fetch_add(1, Ordering::Relaxed) == number;
        assert!(!is_it, "{event:?} of {}", path.display());
    });
    // What the store may hold, the last of them with all that it was told.
    let mut states = vec![State::new()];
    let mut has_panicked = false;
    for op in work() {
        let mut after = states.clone();
        for state in &mut after {
            op.apply_to(state, 0);
        }
        let is_write = !op.writes().is_empty();
        let applied = op.clone();
        match attempt(&store, move |store| applied.apply(store)) {
            // What waits in a buffer may be lost.
            Ok(Ok(())) if mode == "write-back" && is_write => states.extend(after),
            Ok(Ok(())) if is_write => states = after,
            Ok(Ok(())) if !has_panicked => states = states.split_off(states.len() - 1),
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let is_poisoned = matches!(error, Error::Poisoned { .. });
                assert!(has_panicked && is_poisoned, "{mode}, {number}: {error}");
            }
            Err(_) => {
                has_panicked = true;
                states.extend(after);
            }
        }
        // Nobody waits for a lock that a panic left.
        attempt(&store, |store| {
            for key in ["k0", "k1", "absent"] {
                store.get(key).unwrap();
            }
            store.stats();
        })
        .unwrap();
    }
    let was_there = events.load(Ordering::Relaxed) > number;
    disk.clear_hook();
    let after_a_kill = disk.sim.crash(&CrashPlan::KeepAll);
    beside(move || drop(store));
    for disk in [after_a_kill, disk.sim] {
        let store = sim_builder(512).build_store_on(disk).unwrap();
        let seen = contents(&store, states.iter().flat_map(State::keys)).unwrap();
        assert!(states.contains(&seen), "{mode}, event {number}");
        store.put("next", "works").unwrap();
    }
    was_there
}

#[test]
fn a_disk_that_panics_anywhere_poisons_the_store_and_no_more() {
    let mut panics = 0;
    for mode in 0..modes().len() {
        let mut number = 0;
        loop {
            let (name, builder) = modes().into_iter().nth(mode).unwrap();
            if !panic_at(name, builder, number) {
                break;
            }
            number += 1;
        }
        panics += number;
    }
    say("panics", &format!("{panics} in the disk, 0 violations"));
    assert!(panics > 100);
}

#[test]
fn those_who_share_a_sync_that_panics_are_told() {
    for round in 0..20 {
        let disk = HookedDisk::new(SimDisk::new(3));
        let store = sim_builder(4096).build_store_on(disk.clone()).unwrap();
        let left = AtomicU64::new(round % 5);
        disk.set_hook(move |event, _| {
            let is_it = event == Event::SyncData && left.fetch_sub(1, Ordering::Relaxed) == 0;
            assert!(!is_it, "in a sync");
        });
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let store = store.clone();
                std::thread::spawn(move || {
                    beside(move || {
                        let written = without_panic(|| {
                            for number in 0..10 {
                                let written = store.put(format!("{writer}"), format!("{number}"));
                                written.map_err(|error| error.to_string())?;
                            }
                            Ok(())
                        });
                        written.is_err()
                    })
                })
            })
            .collect();
        let told = writers.into_iter().map(|writer| writer.join().unwrap());
        assert_eq!(told.filter(|told| *told).count(), 4);
        assert!(matches!(store.put("a", "b"), Err(Error::Poisoned { .. })));
    }
}
