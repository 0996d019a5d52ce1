//! What cannot be read any more, by how it is read. Through a map it is a signal, which ends the
//! process as any other death does: everything acknowledged is there for the next. By `pread` it
//! is an error for that key.
//!
//! On the simulated disk, and, where there are signals, with a real one: the file is cut short
//! under a process that has it mapped, which is to the processor what an unreadable sector is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::common::{SimStore, seal, sim_builder};
use crabkv::disk::{CrashPlan, SimDisk};
use crabkv::{Error, ReadMode};

fn open(disk: &SimDisk, mode: ReadMode) -> SimStore {
    let builder = sim_builder(4096).read_mode(mode);
    builder.build_store_on(disk.clone()).unwrap()
}

fn value(key: &str) -> String {
    key.repeat(50)
}

/// A store with some keys in one sealed segment, of which the value of "lost" cannot be read.
fn with_lost_sectors() -> SimDisk {
    let disk = SimDisk::new(0);
    let store = open(&disk, ReadMode::Mmap);
    for key in ["before", "lost", "behind"] {
        store.put(key, value(key)).unwrap();
    }
    seal(&store);
    drop(store);
    let mut found = 0;
    for (name, bytes) in disk.files(Path::new("/db")) {
        let find = |value: &str| {
            let value = value.as_bytes();
            bytes
                .windows(value.len())
                .position(|window| window == value)
        };
        if let (Some(before), Some(lost)) = (find(&value("before")), find(&value("lost"))) {
            // The whole record, from the multiple of 8 on at which it begins.
            let begin = (before + value("before").len()).next_multiple_of(8);
            let bad = begin as u64..(lost + value("lost").len()) as u64;
            disk.lose_sectors(&Path::new("/db").join(name), bad);
            found += 1;
        }
    }
    assert_eq!(found, 1, "the value is in one segment");
    disk
}

fn expect(store: &SimStore, keys: &[&str]) {
    for key in keys {
        let found = store.get(key).unwrap();
        assert_eq!(found.unwrap(), value(key).as_bytes(), "{key}");
    }
}

#[test]
fn a_fault_in_a_map_ends_the_process_and_loses_nothing() {
    let disk = with_lost_sectors();
    let store = open(&disk, ReadMode::Mmap);
    expect(&store, &["before", "behind"]);
    store.put("after", value("after")).unwrap();
    let end = catch_unwind(AssertUnwindSafe(|| store.get("lost").map(drop)));
    assert!(end.is_err(), "a fault is no error: {end:?}");
    drop(store);

    for plan in [CrashPlan::KeepAll, CrashPlan::LoseAll] {
        let next = disk.crash(&plan);
        let store = open(&next, ReadMode::Mmap);
        expect(&store, &["before", "behind", "after"]);
        store.put("more", value("more")).unwrap();
        drop(store);
        // As on a copy of the medium that was made in time.
        next.find_sectors();
        let store = open(&next, ReadMode::Mmap);
        expect(&store, &["before", "lost", "behind", "after", "more"]);
    }
}

#[test]
fn by_pread_an_unreadable_record_is_an_error_for_its_key() {
    let disk = with_lost_sectors();
    let store = open(&disk, ReadMode::Pread);
    let is_io = |error: &Error| matches!(error, Error::Io { .. });
    for _ in 0..2 {
        let error = store.get("lost").unwrap_err();
        assert!(is_io(&error), "{error:?}");
        expect(&store, &["before", "behind"]);
    }
    // Nor does it keep anybody from writing, and a merge that has to copy it changes nothing.
    store.put("after", value("after")).unwrap();
    assert!(store.delete("before").unwrap());
    let error = store.compact().unwrap_err();
    assert!(is_io(&error), "{error:?}");
    store.put("more", value("more")).unwrap();
    expect(&store, &["behind", "after", "more"]);
    drop(store);
    disk.find_sectors();
    let store = open(&disk, ReadMode::Pread);
    expect(&store, &["lost", "behind", "after", "more"]);
    assert!(store.get("before").unwrap().is_none());
}

#[cfg(unix)] // what a map cannot read is a signal
mod real {
    use std::fs::{self, OpenOptions};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::path::PathBuf;
    use std::process::{Command, ExitStatus, Stdio};

    use super::*;
    use crabkv::Store;

    const DIR: &str = "CRABKV_CHILD_READS_IN";
    const MODE: &str = "CRABKV_CHILD_READS_BY";
    /// More than a page of any system, so that what is cut off is whole pages.
    const VALUE_BYTES: usize = 256 << 10;

    fn value(key: &str) -> Vec<u8> {
        key.bytes().cycle().take(VALUE_BYTES).collect()
    }

    fn open(dir: &Path, mode: ReadMode) -> Store {
        Store::builder(dir).read_mode(mode).build_store().unwrap()
    }

    fn has(store: &Store, key: &str) -> bool {
        store
            .get(key)
            .unwrap()
            .is_some_and(|got| *got == *value(key))
    }

    /// Not a test by itself: the child of the one below.
    #[test]
    fn child_that_reads() {
        let Ok(dir) = std::env::var(DIR) else { return };
        let mode = match std::env::var(MODE).unwrap().as_str() {
            "map" => ReadMode::Mmap,
            _ => ReadMode::Pread,
        };
        let store = open(Path::new(&dir), mode);
        store.put("child", value("child")).unwrap();
        println!("ready");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        assert!(has(&store, "first"));
        assert!(has(&store, "child"));
        // Ends a child that reads a map.
        let error = store.get("last").unwrap_err();
        assert!(matches!(error, Error::Io { .. } | Error::Corrupt { .. }));
        assert!(has(&store, "first"));
        store.put("more", value("more")).unwrap();
    }

    /// Lets a child read what is gone from under it; the store is whole again afterwards.
    fn read_what_is_gone(dir: &Path, mode: &str) -> ExitStatus {
        let store = open(dir, ReadMode::Mmap);
        store.put("first", value("first")).unwrap();
        store.put("last", value("last")).unwrap();
        seal_real(&store);
        drop(store);
        let segment: PathBuf = (fs::read_dir(dir).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "seg"))
            .min()
            .unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "map_faults::real::child_that_reads",
                "--exact",
                "--nocapture",
            ])
            .env(DIR, dir)
            .env(MODE, mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = |line: std::io::Result<String>| line.unwrap().ends_with("ready");
        assert!(lines.any(is_ready), "the child came to nothing");
        let bytes = fs::read(&segment).unwrap();
        let file = OpenOptions::new().write(true).open(&segment).unwrap();
        file.set_len(VALUE_BYTES as u64 + 64 * 1024).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        lines.for_each(drop);
        let status = child.wait().unwrap();
        fs::write(&segment, bytes).unwrap();
        status
    }

    fn seal_real(store: &Store) {
        crate::common::seal(store);
    }

    #[test]
    fn a_real_fault_in_a_map_ends_the_process_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let status = read_what_is_gone(dir.path(), "map");
        let bus_error = if cfg!(any(target_os = "macos", target_os = "freebsd")) {
            10
        } else {
            7
        };
        assert_eq!(status.signal(), Some(bus_error), "{status}");
        let store = open(dir.path(), ReadMode::Mmap);
        assert!(!store.recovery_report().clean);
        for key in ["first", "last", "child"] {
            assert!(has(&store, key), "{key}");
        }
    }

    #[test]
    fn by_pread_what_is_gone_is_an_error_in_a_process_that_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let status = read_what_is_gone(dir.path(), "pread");
        assert!(status.success(), "{status}");
        let store = open(dir.path(), ReadMode::Mmap);
        assert!(store.recovery_report().clean);
        for key in ["first", "last", "child", "more"] {
            assert!(has(&store, key), "{key}");
        }
    }
}
