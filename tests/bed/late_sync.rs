//! A sync that says it worked and did not, as ext4 with `data=journal` may: the error comes with
//! the next one. Nobody can keep a promise on such a disk, but nobody is told anything wrong.

use crate::common::{State, contents, sim_builder};
use crabkv::Error;
use crabkv::disk::{CrashPlan, FailKind, SimDisk};

const WRITES: usize = 8;

fn state(count: usize) -> State {
    let entry = |number: usize| (key(number), (value(number), None));
    (0..count).map(entry).collect()
}

fn key(number: usize) -> Vec<u8> {
    format!("k{number}").into_bytes()
}

fn value(number: usize) -> Vec<u8> {
    format!("value{number}").repeat(6).into_bytes()
}

#[test]
fn a_late_error_ends_writing_and_no_crash_gives_a_wrong_answer() {
    let (mut refused, mut suffixes, mut images) = (0, 0, 0);
    for op in 0.. {
        let disk = SimDisk::new(op);
        let builder = || sim_builder(512);
        let store = builder().build_store_on(disk.clone()).unwrap();
        let begun = disk.ops();
        disk.fail_at(op, FailKind::FsyncLate, true);
        let mut done = 0;
        while done < WRITES && store.put(key(done), value(done)).is_ok() {
            done += 1;
        }
        let was_hit = disk.ops() - begun > op;
        if done < WRITES {
            // Whoever learns of it, nobody writes any more; what was there can be read.
            let error = store.put("next", "refused").unwrap_err();
            assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
            assert_eq!(contents(&store, []).unwrap(), state(done), "op {op}");
        }
        drop(store);
        if !was_hit {
            break;
        }
        for plan in disk.crash_plans(40, op) {
            images += 1;
            let image = disk.crash(&plan);
            match builder().build_store_on(image) {
                // All of it, and maybe the write that was refused; or less, from the end.
                Ok(store) => {
                    let seen = contents(&store, []).unwrap();
                    let count = seen.len();
                    assert_eq!(seen, state(count), "op {op}, {plan:?}");
                    suffixes += usize::from(count < done);
                }
                // A later record says that what is missing had been durable.
                Err(Error::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("op {op}, {plan:?}: {error}"),
            }
            // The death of the process alone loses nothing.
            let killed = disk.crash(&CrashPlan::KeepAll);
            let store = builder().build_store_on(killed).unwrap();
            assert!(contents(&store, []).unwrap().len() >= done, "op {op}");
        }
    }
    assert!(images > 50, "{images} images");
    // Both happen, or the disk does not lie.
    assert!(
        refused > 0 && suffixes > 0,
        "{refused} refused, {suffixes} shorter"
    );
}
