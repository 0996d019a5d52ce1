//! Who has a store open for writing, and that asking is no more than asking.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crabkv::disk::{Disk, SimDisk};
use crabkv::{Error, Store, lock_holder, lock_holder_on};

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_holder_is_the_one_that_a_second_opener_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let Err(Error::Locked { holder, .. }) = Store::open(dir.path()) else {
        panic!("opened twice");
    };
    assert_eq!(lock_holder(dir.path()).unwrap(), Some(holder));
    // Asking leaves it as it was.
    assert!(matches!(Store::open(dir.path()), Err(Error::Locked { .. })));
    drop(store);
    assert_eq!(lock_holder(dir.path()).unwrap(), None);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_follower_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let _follower = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(lock_holder(dir.path()).unwrap(), None);
}

#[test]
fn where_there_is_no_store_there_is_none_after_asking() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    assert!(matches!(lock_holder(&missing), Err(Error::NotFound { dir }) if dir == missing));
    assert!(matches!(
        lock_holder(dir.path()),
        Err(Error::NotFound { .. })
    ));
    fs::write(dir.path().join("letter.txt"), "dear reader").unwrap();
    assert!(matches!(
        lock_holder(dir.path()),
        Err(Error::NotFound { .. })
    ));
    assert_eq!(names(dir.path()), ["letter.txt"]);
    let file = lock_holder(dir.path().join("letter.txt"));
    assert!(matches!(file, Err(Error::Io { .. })), "{file:?}");
}

#[test]
fn a_store_without_a_lock_file_or_a_manifest_has_no_holder_and_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.put("a", "1").unwrap();
    drop(store);
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    let before = names(dir.path());
    assert_eq!(lock_holder(dir.path()).unwrap(), None);
    fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    assert_eq!(lock_holder(dir.path()).unwrap(), None);
    assert_eq!(names(dir.path()).len(), before.len() - 1);
}

#[test]
fn opening_is_not_refused_because_somebody_asks() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let done = AtomicBool::new(false);
    let opened = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                lock_holder(dir.path()).unwrap();
            }
        });
        let opened: Vec<_> = (0..50).map(|_| Store::open(dir.path()).map(drop)).collect();
        done.store(true, Ordering::Relaxed);
        opened
    });
    for opened in opened {
        opened.unwrap();
    }
}

#[test]
fn a_simulated_disk_knows_its_holders_too() {
    let disk = SimDisk::new(1);
    let ask = || lock_holder_on(&disk, "/db");
    assert!(matches!(ask(), Err(Error::NotFound { .. })));
    let lock = disk.lock(Path::new("/db/LOCK"), "me");
    assert!(lock.is_err(), "there is no directory yet");
    let store = Store::builder("/db").build_store_on(disk.clone()).unwrap();
    let me = format!("process {}", std::process::id());
    assert_eq!(ask().unwrap(), Some(me));
    drop(store);
    assert_eq!(ask().unwrap(), None);
}
