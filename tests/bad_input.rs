//! What a user or an operator gets wrong: each its own clear error, and nothing changed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crabkv::{Error, MAX_VALUE_LEN, Store, WriteBatch};

/// Every file of a directory with its bytes, but for the lock, which opening may write.
fn listing(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap() != "LOCK" && path.is_file())
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    files.sort_unstable();
    files
}

#[track_caller]
fn assert_names(error: &Error, what: &str) {
    assert!(error.to_string().contains(what), "{what}: {error}");
}

/// A closed store with a few segments.
fn closed_store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path())
        .segment_size(512)
        .build_store()
        .unwrap();
    for key in 0..20_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    drop(store);
    dir
}

#[track_caller]
fn assert_still_whole(dir: &Path) {
    let store = Store::open(dir).unwrap();
    assert_eq!(
        store
            .iter()
            .map(|entry| entry.unwrap().1.len())
            .sum::<usize>(),
        20 * 50
    );
}

#[test]
fn a_key_that_is_too_long_is_refused() {
    let dir = closed_store();
    let store = Store::open(dir.path()).unwrap();
    let before = store.stats();
    let long = vec![b'k'; 65_536];
    let refused = |error: Error| {
        assert!(
            matches!(
                error,
                Error::KeyTooLarge {
                    len: 65_536,
                    max: 65_535
                }
            ),
            "{error}"
        );
        assert_names(&error, "65536");
    };
    refused(store.put(&long, "v").unwrap_err());
    refused(store.delete(&long).unwrap_err());
    refused(store.increment(&long, 1).unwrap_err());
    refused(store.put_if_absent(&long, "v").unwrap_err());
    refused(WriteBatch::new().put(&long, "v").unwrap_err());
    refused(WriteBatch::new().delete(&long).unwrap_err());
    assert!(store.get(&long).unwrap().is_none());
    assert_eq!(store.stats(), before);
    // One byte less is the longest.
    store.put(&long[1..], "v").unwrap();
    assert_eq!(store.get(&long[1..]).unwrap().unwrap(), "v");
}

#[test]
fn a_value_that_is_too_long_is_refused_before_it_is_copied() {
    let dir = closed_store();
    let store = Store::open(dir.path()).unwrap();
    let before = store.stats();
    // Zeros that nobody touches take no memory.
    let long = vec![0; MAX_VALUE_LEN + 1];
    let refused = |error: Error| {
        let (len, max) = (536_870_913, 536_870_912);
        match error {
            Error::ValueTooLarge {
                len: found,
                max: most,
            } => assert_eq!((found, most), (len, max)),
            other => panic!("{other}"),
        }
    };
    refused(store.put("key", &long).unwrap_err());
    refused(store.put_if_absent("key", &long).unwrap_err());
    refused(store.compare_and_swap("key", None, &long).unwrap_err());
    refused(WriteBatch::new().put("key", &long).unwrap_err());
    assert_eq!(store.stats(), before);
    assert!(store.get("key").unwrap().is_none());
}

#[test]
fn a_batch_that_is_too_large_is_refused() {
    if std::env::var_os("CRABKV_LARGE").is_none() {
        println!("skipped: takes 3 GiB of memory; set CRABKV_LARGE to run it");
        return;
    }
    let dir = closed_store();
    let store = Store::open(dir.path()).unwrap();
    let mut batch = WriteBatch::new();
    for key in 0..3_u8 {
        batch.put([100 + key], vec![0; 400 << 20]).unwrap();
    }
    let error = store.write(&batch).unwrap_err();
    assert!(matches!(error, Error::BatchTooLarge { .. }), "{error}");
    drop(store);
    assert_still_whole(dir.path());
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    fs::write(&file, "not a directory").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert_names(&error, "data");
    }
    assert_eq!(listing(dir.path()), [(file, b"not a directory".to_vec())]);
}

#[test]
fn a_missing_store_is_not_made_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("deeper/still")] {
        let error = Store::builder(&path)
            .create_if_missing(false)
            .build_store()
            .unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        assert_names(&error, path.to_str().unwrap());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_in_use_is_refused_in_this_process() {
    let dir = closed_store();
    let store = Store::open(dir.path()).unwrap();
    let before = listing(dir.path());
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert_names(&error, &dir.path().display().to_string());
    assert_eq!(listing(dir.path()), before);
    // Nor does the attempt take the lock from its holder.
    assert!(matches!(Store::open(dir.path()), Err(Error::Locked { .. })));
    store.put("still", "works").unwrap();
    store.delete("still").unwrap();
    drop(store);
    assert_still_whole(dir.path());
}

/// Not a test of its own: what the child of the next one runs.
#[test]
fn child_that_opens_a_directory() {
    let Some(dir) = std::env::var_os("CRABKV_CHILD_OPENS") else {
        return;
    };
    let error = Store::open(dir).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    println!("child: {error}");
}

#[test]
fn a_directory_in_use_is_refused_in_another_process() {
    let dir = closed_store();
    let store = Store::open(dir.path()).unwrap();
    let before = listing(dir.path());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_opens_a_directory", "--nocapture"])
        .env("CRABKV_CHILD_OPENS", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("child: "), "{text}");
    // It says who holds the lock.
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert_eq!(listing(dir.path()), before);
    drop(store);
    assert_still_whole(dir.path());
}

#[test]
fn a_read_only_directory_is_refused_and_nothing_is_made() {
    let Some(place) = ReadOnly::of(tempfile::tempdir().unwrap()) else {
        return;
    };
    let error = Store::open(place.dir.path()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_names(&error, &place.dir.path().display().to_string());
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0);
}

#[test]
fn a_store_on_a_read_only_file_system_is_read_and_not_opened_for_writing() {
    let Some(place) = ReadOnly::of(closed_store()) else {
        return;
    };
    let dir = place.dir.path();
    let before = listing(dir);
    let error = Store::open(dir).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_names(&error, &dir.display().to_string());
    let store = Store::open_read_only(dir).unwrap();
    assert_eq!(store.iter().count(), 20);
    assert_eq!(store.get([7]).unwrap().unwrap(), &[7; 50][..]);
    assert!(!store.refresh().unwrap());
    assert!(matches!(store.put("a", "b"), Err(Error::ReadOnly)));
    assert!(crabkv::verify(dir).unwrap().is_sound());
    assert_eq!(crabkv::lock_holder(dir).unwrap(), None);
    drop(store);
    assert_eq!(listing(dir), before);
}

/// A directory that cannot be written to, if there can be one.
struct ReadOnly {
    dir: tempfile::TempDir,
    is_mounted: bool,
}

/// Whether a command succeeded; says why if not.
fn succeeds(command: &mut Command) -> bool {
    let why = match command.output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    println!("skipped: {command:?}: {why}");
    false
}

fn set_readonly(path: &Path, is_readonly: bool) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    permissions.set_readonly(is_readonly);
    fs::set_permissions(path, permissions).unwrap();
}

impl ReadOnly {
    /// Takes the right to write from a directory and what is in it.
    fn of(dir: tempfile::TempDir) -> Option<ReadOnly> {
        let mut place = ReadOnly {
            dir,
            is_mounted: false,
        };
        let dir = place.dir.path();
        place.set_all_readonly(true);
        if fs::write(dir.join("probe"), "").is_err() {
            return Some(place);
        }
        fs::remove_file(dir.join("probe")).unwrap();
        if !cfg!(target_os = "linux") {
            println!("skipped: permissions do not keep this user from writing");
            return None;
        }
        // Root writes wherever the file system lets it.
        if !succeeds(Command::new("mount").arg("--bind").args([dir, dir])) {
            return None;
        }
        let dir = dir.to_path_buf();
        place.is_mounted = true;
        let mut remount = Command::new("mount");
        remount.args(["-o", "remount,bind,ro"]).arg(dir);
        succeeds(&mut remount).then_some(place)
    }

    fn set_all_readonly(&self, is_readonly: bool) {
        let dir = self.dir.path();
        for entry in fs::read_dir(dir).unwrap() {
            set_readonly(&entry.unwrap().path(), is_readonly);
        }
        set_readonly(dir, is_readonly);
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg(self.dir.path()).status();
        }
        self.set_all_readonly(false);
    }
}

#[test]
fn a_newer_version_is_refused() {
    for name in ["MANIFEST", "000000000001.seg"] {
        let dir = closed_store();
        let path = dir.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 9;
        fs::write(&path, &bytes).unwrap();
        let before = listing(dir.path());
        let error = Store::open(dir.path()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::UnsupportedVersion {
                    found: 9,
                    supported: 1,
                    ..
                }
            ),
            "{error}"
        );
        assert_names(&error, name);
        assert_eq!(listing(dir.path()), before);
        bytes[8] = 1;
        fs::write(&path, bytes).unwrap();
        assert_still_whole(dir.path());
    }
}

#[test]
fn a_directory_with_other_things_in_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    fs::write(dir.path().join(".hidden"), "harmless").unwrap();
    let before = listing(dir.path());
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::ForeignFile { .. }), "{error}");
    assert_names(&error, "thesis.txt");
    assert_eq!(listing(dir.path()), before);
    assert!(!dir.path().join("LOCK").exists());
    fs::remove_file(dir.path().join("thesis.txt")).unwrap();
    Store::open(dir.path()).unwrap();
    assert!(dir.path().join(".hidden").exists());
}

#[test]
fn a_segment_of_another_store_is_refused() {
    let (dir, other) = (closed_store(), closed_store());
    let name = "000000000077.seg";
    fs::copy(other.path().join("000000000001.seg"), dir.path().join(name)).unwrap();
    let before = listing(dir.path());
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::ForeignFile { .. }), "{error}");
    assert_names(&error, name);
    assert_eq!(listing(dir.path()), before);
    fs::remove_file(dir.path().join(name)).unwrap();
    assert_still_whole(dir.path());
}

#[test]
fn options_that_cannot_work_are_refused_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let zero = std::time::Duration::ZERO;
    let builder = || Store::builder(dir.path());
    for (option, builder) in [
        ("segment_size", builder().segment_size(255)),
        ("segment_size", builder().segment_size(4 << 30)),
        ("default_ttl", builder().default_ttl(zero)),
        ("sync_interval", builder().sync_interval(zero)),
        ("write_back_bytes", builder().write_back_bytes(0)),
    ] {
        let error = builder.build_store().unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
        assert_names(&error, option);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_empty_path_is_named_as_what_is_wrong() {
    use std::ops::ControlFlow;

    use crabkv::disk::{Disk, OsDisk, SimDisk};
    use crabkv::{RepairOptions, repair_on, restore_on, verify_on};

    fn refused(disk: &impl Disk, dir: &str) -> Vec<(&'static str, String)> {
        let store = Store::builder(dir).build_store_on(disk.clone()).unwrap();
        let options = RepairOptions::new();
        let read_only = Store::builder("").read_only(true);
        let errors = [
            Store::builder("").build_store_on(disk.clone()).map(drop),
            read_only.build_store_on(disk.clone()).map(drop),
            store.checkpoint("").map(drop),
            crabkv::lock_holder_on(disk, "").map(drop),
            verify_on(disk, "", |_| ControlFlow::Continue(())).map(drop),
            repair_on(disk, "", dir, &options, |_| ControlFlow::Continue(())).map(drop),
            repair_on(disk, dir, "", &options, |_| ControlFlow::Continue(())).map(drop),
            restore_on(disk, "", dir, |_| ControlFlow::Continue(())).map(drop),
            restore_on(disk, dir, "", |_| ControlFlow::Continue(())).map(drop),
        ];
        let errors = errors.into_iter().map(|error| match error {
            Err(Error::InvalidOption { option, reason }) => (option, reason),
            other => panic!("{other:?}"),
        });
        errors.collect()
    }

    let dir = tempfile::tempdir().unwrap();
    let real = refused(&OsDisk, dir.path().to_str().unwrap());
    assert_eq!(real, refused(&SimDisk::new(1), "/db"));
    let options: Vec<_> = real.iter().map(|(option, _)| *option).collect();
    let expected = [
        "dir",
        "dir",
        "dir",
        "dir",
        "dir",
        "source",
        "out",
        "checkpoint",
        "dir",
    ];
    assert_eq!(options, expected);
    let reason =
        "the path is empty; name a directory, such as \"data\", or \".\" for the current one";
    assert!(real.iter().all(|(_, found)| found == reason), "{real:?}");
    let error = Store::open("").unwrap_err();
    assert_eq!(error.to_string(), format!("option dir: {reason}"));
}

/// Writes a number over the one at `offset` of the manifest, with its checksum.
fn set_in_manifest(dir: &Path, offset: usize, number: u64) {
    let path = dir.join("MANIFEST");
    let mut bytes = fs::read(&path).unwrap();
    bytes[offset..offset + 8].copy_from_slice(&number.to_le_bytes());
    let covered = bytes.len() - 4;
    let checksum = crc32fast::hash(&bytes[..covered]);
    bytes[covered..].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, bytes).unwrap();
}

/// Found by a fuzzer: the next id after the highest was 0.
#[test]
fn a_store_that_is_out_of_segment_ids_refuses_writes_and_stays_whole() {
    let dir = closed_store();
    // docs/FORMAT.md: the next segment's id.
    set_in_manifest(dir.path(), 56, u64::MAX - 1);
    let store = Store::builder(dir.path())
        .segment_size(512)
        .build_store()
        .unwrap();
    let refused = (0..100_u8).find_map(|key| store.put([key % 20], [key % 20; 50]).err());
    let error = refused.unwrap();
    assert!(matches!(error, Error::Exhausted { .. }), "{error:?}");
    assert_names(&error, "segment ids");
    drop(store);
    assert_still_whole(dir.path());
}
