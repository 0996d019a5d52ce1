//! Followers, checkpoints, the change feed, verify and repair, one on top of the other: each keeps
//! its promise on what another one has made, finished or not.
//!
//! The randomized test prints its seed; `CRABKV_EFFORT` multiplies its rounds, `CRABKV_SEED` runs it
//! again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::{SimStore, State, contents, sim_builder};
use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::{Error, RepairOptions, Store, repair_on, verify_on};

const BACKUP: &str = "/backup";

fn open_at(disk: &SimDisk, dir: &str) -> crabkv::Result<SimStore> {
    Store::builder(dir)
        .segment_size(512)
        .create_if_missing(false)
        .build_store_on(disk.clone())
}

fn follow_at(disk: &SimDisk, dir: &str) -> crabkv::Result<SimStore> {
    Store::builder(dir)
        .read_only(true)
        .build_store_on(disk.clone())
}

fn all<D: Disk>(store: &Store<D>) -> State {
    contents(store, []).unwrap()
}

fn fill(store: &SimStore, round: u8) {
    for key in 0..24_u8 {
        store.put([key], [round; 40]).unwrap();
    }
    store.delete([round]).unwrap();
}

/// A store with a checkpoint of an earlier state of it.
fn store_and_checkpoint() -> (SimDisk, SimStore, State) {
    let disk = SimDisk::new(1);
    let store = sim_builder(512).build_store_on(disk.clone()).unwrap();
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let then = all(&store);
    (disk, store, then)
}

#[test]
fn a_checkpoint_whose_update_was_interrupted_verifies_opens_and_is_repaired() {
    let (mut olds, mut news) = (0, 0);
    for op in 0.. {
        let (disk, store, old) = store_and_checkpoint();
        fill(&store, 2);
        store.compact().unwrap();
        fill(&store, 3);
        let new = all(&store);
        disk.stop_at(op);
        let done = store.checkpoint(BACKUP).is_ok();
        for plan in [CrashPlan::KeepAll, CrashPlan::LoseAll] {
            let after = disk.crash(&plan);
            let context = format!("{plan:?} at operation {op}");
            let report = verify_on(&after, BACKUP, |_| ()).unwrap();
            assert!(report.is_sound(), "{context}: {report:?}");
            let follower = follow_at(&after, BACKUP).unwrap();
            let seen = all(&follower);
            assert!(seen == old || seen == new, "{context}");
            olds += u32::from(seen == old);
            news += u32::from(seen == new);
            let repaired = repair_on(&after, BACKUP, "/new", &RepairOptions::new(), |_| ());
            let repaired = repaired.unwrap();
            assert!(repaired.is_complete(), "{context}: {repaired:?}");
            assert_eq!(all(&open_at(&after, "/new").unwrap()), seen, "{context}");
            assert_eq!(all(&open_at(&after, BACKUP).unwrap()), seen, "{context}");
        }
        if done {
            break;
        }
    }
    assert!(olds > 10 && news > 0, "{olds} {news}");
}

#[test]
fn a_checkpoint_that_has_lost_its_manifest_is_repaired_and_nobody_says_remove_it() {
    let (disk, store, old) = store_and_checkpoint();
    drop(store);
    // Also after it has become a store of its own.
    let used = open_at(&disk, BACKUP).unwrap();
    used.put("later", "written into the checkpoint").unwrap();
    drop(used);
    let manifest = Path::new(BACKUP).join("MANIFEST");
    disk.remove_raw(&manifest);

    let error = open_at(&disk, BACKUP).unwrap_err();
    assert!(!error.to_string().contains("remove"), "{error}");
    assert!(!verify_on(&disk, BACKUP, |_| ()).unwrap().is_sound());
    repair_on(&disk, BACKUP, "/new", &RepairOptions::new(), |_| ()).unwrap();
    let saved = open_at(&disk, "/new").unwrap();
    assert_eq!(
        saved.get("later").unwrap().unwrap(),
        "written into the checkpoint"
    );
    for (key, (value, _)) in &old {
        assert_eq!(saved.get(key).unwrap().unwrap(), &value[..]);
    }
}

#[cfg(unix)]
#[test]
fn a_place_inside_of_the_damaged_store_is_refused_by_whatever_path() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    Store::open(&data).unwrap().put("a", "1").unwrap();
    std::os::unix::fs::symlink(&data, parent.path().join("link")).unwrap();
    for out in ["data/new", "data/../data/new", "link/new", "link"] {
        for source in ["data", "link"] {
            let source = parent.path().join(source);
            let error = crabkv::repair(&source, parent.path().join(out)).unwrap_err();
            assert!(!data.join("new").exists(), "{out}: {error}");
            let is_refused = matches!(error, Error::InvalidOption { option: "out", .. });
            assert!(is_refused, "{out}: {error}");
        }
    }
}
