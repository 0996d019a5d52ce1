//! The simulated disk itself, tested: a crash test is worth as much as the disk under it.

mod moments;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{CrashPlan, FailKind, OpKind, SimDisk, SimFile};
use crate::disk::{DirEntry, Disk, DiskFile, LockError, OpenMode};

fn path(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

fn sync_root(disk: &SimDisk) {
    disk.sync_dir(Path::new("/")).unwrap();
}

/// A new file with unsynced bytes and an unsynced name.
fn create(disk: &SimDisk, name: &str, bytes: &[u8]) -> SimFile {
    let file = disk.open(&path(name), OpenMode::CreateNew).unwrap();
    if !bytes.is_empty() {
        file.write_at(bytes, 0).unwrap();
    }
    file
}

/// A file of which nothing can be lost.
fn create_durable(disk: &SimDisk, name: &str, bytes: &[u8]) -> SimFile {
    let file = create(disk, name, bytes);
    file.sync_data().unwrap();
    sync_root(disk);
    file
}

fn after(disk: &SimDisk, plan: &CrashPlan) -> Vec<(String, Vec<u8>)> {
    disk.crash(plan).files(Path::new("/"))
}

fn owned(files: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    let files = files.iter();
    files
        .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
        .collect()
}

fn content(file: &SimFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == ErrorKind::StorageFull
}

// What survives.

#[test]
fn unsynced_writes_vanish_and_synced_ones_stay() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    file.write_at(b"XYZ", 1).unwrap();
    assert_eq!(content(&file), b"aXYZ");
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"abc")]));
    file.sync_data().unwrap();
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"aXYZ")]));
}

#[test]
fn closing_syncs_nothing() {
    let disk = SimDisk::new(0);
    create_durable(&disk, "a", b"");
    let file = disk.open(&path("a"), OpenMode::Write).unwrap();
    file.write_at(b"abc", 0).unwrap();
    drop(file);
    assert_eq!(disk.unsynced_ops(), 1);
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"")]));
}

#[test]
fn a_synced_file_in_an_unsynced_directory_vanishes() {
    let disk = SimDisk::new(0);
    let file = create(&disk, "a", b"abc");
    file.sync_data().unwrap();
    assert_eq!(after(&disk, &CrashPlan::LoseAll), []);
    sync_root(&disk);
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"abc")]));
}

#[test]
fn an_unsynced_file_in_a_synced_directory_is_empty() {
    let disk = SimDisk::new(0);
    let _file = create(&disk, "a", b"abc");
    sync_root(&disk);
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"")]));
}

#[test]
fn a_rename_can_be_durable_before_the_bytes() {
    let disk = SimDisk::new(0);
    create_durable(&disk, "a", b"old");
    create(&disk, "tmp", b"new");
    disk.rename(&path("tmp"), &path("a")).unwrap();
    // Create, write, rename.
    assert_eq!(disk.unsynced_ops(), 3);
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"old")]));
    let both: [(&str, &[u8]); 2] = [("a", b"old"), ("tmp", b"new")];
    assert_eq!(after(&disk, &CrashPlan::DropOne(2)), owned(&both));
    assert_eq!(after(&disk, &CrashPlan::DropOne(1)), owned(&[("a", b"")]));
    sync_root(&disk);
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"")]));
}

#[test]
fn a_rename_survives_without_the_creation_before_it() {
    let disk = SimDisk::new(0);
    let file = create(&disk, "tmp", b"new");
    file.sync_data().unwrap();
    disk.rename(&path("tmp"), &path("a")).unwrap();
    assert_eq!(
        after(&disk, &CrashPlan::KeepOne(1)),
        owned(&[("a", b"new")])
    );
    assert_eq!(
        after(&disk, &CrashPlan::KeepOne(0)),
        owned(&[("tmp", b"new")])
    );
}

#[test]
fn a_file_renamed_twice_never_has_two_names() {
    let disk = SimDisk::new(0);
    create_durable(&disk, "a", b"abc");
    disk.rename(&path("a"), &path("b")).unwrap();
    disk.rename(&path("b"), &path("c")).unwrap();
    for (bits, name) in [(0b00, "a"), (0b01, "b"), (0b10, "c"), (0b11, "c")] {
        assert_eq!(
            after(&disk, &CrashPlan::Subset(bits)),
            owned(&[(name, b"abc")])
        );
    }
}

#[test]
fn an_unsynced_removal_is_undone() {
    let disk = SimDisk::new(0);
    create_durable(&disk, "a", b"abc");
    disk.unlink(&path("a")).unwrap();
    assert_eq!(disk.files(Path::new("/")), []);
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"abc")]));
    sync_root(&disk);
    assert_eq!(after(&disk, &CrashPlan::LoseAll), []);
}

#[test]
fn a_lost_removal_does_not_lose_the_removal_of_the_next_file_of_that_name() {
    let disk = SimDisk::new(0);
    create_durable(&disk, "a", b"old");
    disk.unlink(&path("a")).unwrap();
    create(&disk, "a", b"");
    disk.unlink(&path("a")).unwrap();
    // Remove old, create new, remove new.
    assert_eq!(
        after(&disk, &CrashPlan::KeepOne(2)),
        owned(&[("a", b"old")])
    );
    assert_eq!(after(&disk, &CrashPlan::DropOne(0)), []);
    assert_eq!(after(&disk, &CrashPlan::KeepOne(1)), owned(&[("a", b"")]));
}

#[test]
fn a_cut_can_be_undone_after_later_writes() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abcdef");
    file.set_len(2).unwrap();
    file.write_at(b"X", 2).unwrap();
    assert_eq!(content(&file), b"abX");
    assert_eq!(
        after(&disk, &CrashPlan::KeepOne(1)),
        owned(&[("a", b"abXdef")])
    );
    assert_eq!(after(&disk, &CrashPlan::KeepOne(0)), owned(&[("a", b"ab")]));
}

#[test]
fn a_write_that_survives_alone_leaves_zeros_before_it() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"ab");
    file.write_at(b"cd", 2).unwrap();
    file.write_at(b"ef", 4).unwrap();
    assert_eq!(
        after(&disk, &CrashPlan::KeepOne(1)),
        owned(&[("a", b"ab\0\0ef")])
    );
    assert_eq!(
        after(&disk, &CrashPlan::Prefix(1)),
        owned(&[("a", b"abcd")])
    );
}

#[test]
fn a_killed_process_loses_nothing_but_makes_nothing_durable() {
    let disk = SimDisk::new(0);
    let _lock = disk.lock(&path("LOCK"), "me").unwrap();
    create(&disk, "a", b"abc");
    let next = disk.crash(&CrashPlan::KeepAll);
    let _lock = next.lock(&path("LOCK"), "next").unwrap();
    assert_eq!(next.read_raw(&path("a")).unwrap(), b"abc");
    assert_eq!(next.unsynced_ops(), 2);
    assert_eq!(next.crash(&CrashPlan::LoseAll).read_raw(&path("a")), None);
}

#[test]
fn a_power_cut_leaves_an_independent_disk() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    disk.advance(5);
    let next = disk.crash(&CrashPlan::LoseAll);
    file.write_at(b"X", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(next.read_raw(&path("a")).unwrap(), b"abc");
    assert_eq!((next.ops(), next.reads(), next.unsynced_ops()), (0, 0, 0));
    assert_eq!(next.now_ms(), disk.now_ms());
}

// Torn writes.

/// The images of a file of `old`, overwritten from `offset` on, after many torn writes.
fn torn_images(old: &[u8], offset: u64, bytes: &[u8]) -> BTreeSet<Vec<u8>> {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", old);
    file.write_at(bytes, offset).unwrap();
    let images = (0..500).map(|seed| {
        let next = disk.crash(&CrashPlan::TornLast(seed));
        next.read_raw(&path("a")).unwrap()
    });
    images.collect()
}

#[test]
fn torn_writes_break_at_bytes_sectors_and_pages() {
    let images = torn_images(b"", 0, &[7; 10_000]);
    let has_break = |is_at: &dyn Fn(usize) -> bool| {
        images.iter().any(|image| {
            let kept = image.iter().take_while(|byte| **byte == 7).count();
            image.len() == 10_000
                && kept > 0
                && image[kept..].iter().all(|b| *b == 0)
                && is_at(kept)
        })
    };
    assert!(has_break(&|kept| kept % 512 != 0));
    assert!(has_break(&|kept| kept % 4096 != 0 && kept % 512 == 0));
    assert!(has_break(&|kept| kept % 4096 == 0));
}

#[test]
fn torn_writes_leave_old_bytes_zeros_and_garbage_and_touch_nothing_else() {
    let images = torn_images(&[1; 3000], 500, &[7; 2000]);
    for image in &images {
        assert_eq!(image.len(), 3000);
        assert!(
            image[..500]
                .iter()
                .chain(&image[2500..])
                .all(|byte| *byte == 1)
        );
    }
    let any = |test: &dyn Fn(&[u8]) -> bool| images.iter().any(|image| test(&image[500..2500]));
    assert!(any(&|bytes| bytes.contains(&1) && bytes.contains(&7)));
    assert!(any(&|bytes| bytes.contains(&0) && bytes.contains(&7)));
    assert!(any(&|bytes| bytes
        .iter()
        .any(|byte| ![0, 1, 7].contains(byte))));
}

#[test]
fn a_file_can_grow_without_its_bytes_and_get_bytes_without_growing() {
    let images = torn_images(b"abcd", 2, b"XXXX");
    assert!(images.contains(&b"abcd\0\0"[..]));
    assert!(images.contains(&b"abXX"[..]));
    assert!(images.contains(&b"abcd"[..]));
    assert!(images.contains(&b"abX"[..]) || images.contains(&b"abXd"[..]));
}

// Crash plans.

#[test]
fn few_changes_give_every_subset() {
    let disk = SimDisk::new(0);
    let file = create(&disk, "a", b"abc");
    file.write_at(b"d", 3).unwrap();
    let plans = disk.crash_plans(1000, 1);
    assert!(plans.contains(&CrashPlan::LoseAll) && plans.contains(&CrashPlan::KeepAll));
    for bits in 1..8 {
        assert!(plans.contains(&CrashPlan::Subset(bits)));
    }
    let torn = |plan: &&CrashPlan| matches!(plan, CrashPlan::TornLast(_) | CrashPlan::Random(_));
    assert_eq!(plans.iter().filter(torn).count(), 16);
}

#[test]
fn many_changes_give_a_sample_within_the_limit() {
    let disk = SimDisk::new(0);
    let file = create(&disk, "a", b"");
    for offset in 0..99 {
        file.write_at(b"x", offset).unwrap();
    }
    let plans = disk.crash_plans(40, 1);
    assert_eq!(plans.len(), 40);
    assert!(plans.contains(&CrashPlan::Prefix(100)));
    assert!(plans.contains(&CrashPlan::DropOne(99)));
    assert!(plans.contains(&CrashPlan::KeepOne(99)));
    for limit in [0, 1, 2, 3, 500] {
        assert!(disk.crash_plans(limit, 1).len() <= limit);
    }
}

#[test]
fn a_synced_disk_has_one_state_only() {
    let disk = SimDisk::new(0);
    create_durable(&disk, "a", b"abc");
    assert_eq!(disk.crash_plans(100, 1), [CrashPlan::LoseAll]);
}

#[test]
fn the_same_seed_gives_the_same_plans_images_and_numbers() {
    let run = || {
        let disk = SimDisk::new(42);
        let a = create_durable(&disk, "a", &[1; 6000]);
        for step in 0..20 {
            a.write_at(&[step; 700], u64::from(step) * 650).unwrap();
            create(&disk, &format!("f{step}"), &[step; 30]);
        }
        let plans = disk.crash_plans(60, disk.random_u64());
        let images: Vec<_> = plans.iter().map(|plan| after(&disk, plan)).collect();
        (plans, images)
    };
    let (plans, images) = run();
    assert_eq!((plans.clone(), images.clone()), run());
    let different: BTreeSet<_> = images.into_iter().collect();
    assert!(
        different.len() >= 40,
        "{} of {}",
        different.len(),
        plans.len()
    );
}

// Failures.

#[test]
fn after_a_power_cut_everything_fails() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    disk.stop_at(1);
    file.write_at(b"X", 0).unwrap();
    let ops = disk.ops();
    let error = file.sync_data().unwrap_err();
    assert_eq!(error.to_string(), "simulated power cut");
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(disk.unlink(&path("a")).is_err());
    assert!(disk.open(&path("b"), OpenMode::CreateNew).is_err());
    assert!(disk.create_dir(&path("d")).is_err());
    assert!(matches!(
        disk.lock(&path("LOCK"), ""),
        Err(LockError::Io(_))
    ));
    assert_eq!(disk.ops(), ops + 1);

    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"abc")]));
    let next = disk.crash(&CrashPlan::Prefix(1));
    next.unlink(&path("a")).unwrap();
}

#[test]
fn a_write_that_the_power_cut_hits_survives_whole_in_part_or_not_at_all() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    disk.stop_at(0);
    assert!(file.write_at(b"XYZ", 3).is_err());
    assert_eq!(disk.read_raw(&path("a")).unwrap(), b"abc");
    assert_eq!(disk.unsynced_ops(), 1);
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"abc")]));
    assert_eq!(after(&disk, &CrashPlan::KeepAll), owned(&[("a", b"abc")]));
    assert_eq!(
        after(&disk, &CrashPlan::Prefix(1)),
        owned(&[("a", b"abcXYZ")])
    );
    let in_part = |seed| after(&disk, &CrashPlan::TornLast(seed)) == owned(&[("a", b"abcX")]);
    assert!((0..500).any(in_part));
    disk.heal();
    assert_eq!(disk.unsynced_ops(), 0);
}

#[test]
fn the_chosen_operation_fails_once_or_for_ever() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"");
    disk.fail_at(1, FailKind::Eio, true);
    file.write_at(b"a", 0).unwrap();
    assert!(file.write_at(b"b", 1).is_err());
    file.write_at(b"c", 1).unwrap();
    assert_eq!(content(&file), b"ac");

    disk.fail_at(0, FailKind::Os(27), false);
    for _ in 0..3 {
        assert_eq!(file.write_at(b"b", 1).unwrap_err().raw_os_error(), Some(27));
        assert_eq!(
            disk.unlink(&path("a")).unwrap_err().raw_os_error(),
            Some(27)
        );
    }
    assert_eq!(content(&file), b"ac");
    disk.heal();
    file.write_at(b"b", 1).unwrap();
}

#[test]
fn the_chosen_read_fails_once_or_for_ever() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    disk.fail_reads_at(1, true);
    file.read_at(&mut [0], 0).unwrap();
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(file.map(1).is_ok());
    disk.fail_reads_at(0, false);
    assert!(file.map(1).is_err());
    assert!(disk.list(Path::new("/")).is_err());
    assert!(disk.open(&path("a"), OpenMode::Read).is_err());
    file.write_at(b"X", 0).unwrap();
}

#[test]
fn operations_are_told_apart_and_reads_fail_with_any_error() {
    let disk = SimDisk::new(0);
    let file = create(&disk, "a", b"abc");
    sync_root(&disk);
    let changes = [OpKind::Create, OpKind::Write, OpKind::SyncDir];
    assert_eq!(disk.op_kinds(), changes);
    disk.fail_reads_with(1, FailKind::Os(24), true);
    assert_eq!(file.len().unwrap(), 3);
    assert_eq!(file.map(1).err().unwrap().raw_os_error(), Some(24));
    assert_eq!(disk.read_kinds(), [OpKind::Len, OpKind::Map]);
}

#[test]
fn a_short_write_stores_its_beginning() {
    let mut stored = BTreeSet::new();
    for n in 0..20 {
        let disk = SimDisk::new(0);
        let file = create_durable(&disk, "a", b"");
        (0..n).for_each(|_| sync_root(&disk));
        disk.fail_at(0, FailKind::ShortWrite, true);
        assert!(is_full(&file.write_at(b"abcd", 0).unwrap_err()));
        assert!(b"abc".starts_with(&content(&file)));
        stored.insert(content(&file).len());
    }
    assert_eq!(stored, BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn a_failed_sync_that_keeps_the_bytes_never_makes_them_durable() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    file.write_at(b"XYZ", 3).unwrap();
    disk.fail_at(0, FailKind::FsyncKeep, true);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(content(&file), b"abcXYZ");
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"abc")]));
    assert_eq!(
        after(&disk, &CrashPlan::KeepAll),
        owned(&[("a", b"abcXYZ")])
    );
    assert_eq!(
        disk.crash_plans(9, 1),
        [CrashPlan::LoseAll, CrashPlan::KeepAll]
    );

    file.write_at(b"!", 5).unwrap();
    file.sync_data().unwrap();
    assert_eq!(
        after(&disk, &CrashPlan::LoseAll),
        owned(&[("a", b"abc\0\0!")])
    );
}

#[test]
fn a_failed_sync_can_bring_the_old_bytes_back() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    file.write_at(b"XYZ", 1).unwrap();
    disk.fail_at(0, FailKind::FsyncRevert, true);
    assert!(file.sync_data().is_err());
    assert_eq!(content(&file), b"abc");
}

#[test]
fn a_late_sync_reports_its_error_at_the_next_sync() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    file.write_at(b"X", 0).unwrap();
    disk.fail_at(0, FailKind::FsyncLate, true);
    file.sync_data().unwrap();
    file.write_at(b"Y", 1).unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&[("a", b"aYc")]));
}

#[test]
fn a_sync_failure_waits_for_a_sync() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"");
    disk.fail_at(0, FailKind::FsyncKeep, false);
    file.write_at(b"X", 0).unwrap();
    sync_root(&disk);
    assert!(file.sync_data().is_err());
    assert!(file.write_at(b"X", 0).is_err());
    assert!(disk.sync_dir(Path::new("/")).is_err());
}

#[test]
fn a_full_disk_takes_what_fits_and_room_comes_back() {
    let disk = SimDisk::new(0);
    disk.set_capacity(Some(10));
    let a = create_durable(&disk, "a", b"123456");
    let b = create_durable(&disk, "b", b"");
    assert!(is_full(&b.preallocate(5).unwrap_err()));
    assert!(is_full(&b.set_len(5).unwrap_err()));
    assert_eq!(b.len().unwrap(), 0);
    assert!(is_full(&b.write_at(b"abcde", 0).unwrap_err()));
    assert_eq!(content(&b), b"abcd");
    // In place.
    a.write_at(b"x", 5).unwrap();

    disk.unlink(&path("a")).unwrap();
    assert_eq!(disk.used_bytes(), 10);
    drop(a);
    assert_eq!(disk.used_bytes(), 4);
    b.preallocate(10).unwrap();
    assert_eq!(content(&b), b"abcd\0\0\0\0\0\0");
    b.write_at(&[7; 10], 0).unwrap();
}

// A file system like others.

#[test]
fn open_files_outlive_their_names() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    disk.unlink(&path("a")).unwrap();
    sync_root(&disk);
    file.write_at(b"d", 3).unwrap();
    assert_eq!(content(&file), b"abcd");
    let region = file.map(4).unwrap();
    drop(file);
    assert_eq!(region.slice(0, 4), Some(&b"abcd"[..]));
    assert_eq!(disk.state().files.len(), 0);
}

#[test]
fn paths_that_do_not_fit_are_refused() {
    let disk = SimDisk::new(0);
    create_durable(&disk, "a", b"abc");
    disk.create_dir(&path("d")).unwrap();
    let kind = |result: io::Result<SimFile>| result.unwrap_err().kind();
    assert_eq!(
        kind(disk.open(&path("x"), OpenMode::Write)),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(disk.open(&path("a/b"), OpenMode::Read)),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        kind(disk.open(&path("d"), OpenMode::Read)),
        ErrorKind::IsADirectory
    );
    assert_eq!(
        kind(disk.open(&path("a"), OpenMode::CreateNew)),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(disk.open(&path("x/b"), OpenMode::CreateNew)),
        ErrorKind::NotFound
    );
    let over_file = disk.create_dir(&path("a/b")).unwrap_err();
    assert_eq!(over_file.kind(), ErrorKind::NotADirectory);
    let across = disk.rename(&path("a"), &path("d/a")).unwrap_err();
    assert_eq!(across.kind(), ErrorKind::Unsupported);
    let read_only = disk.open(&path("a"), OpenMode::Read).unwrap();
    assert_eq!(
        read_only.set_len(0).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
}

#[test]
fn reads_maps_and_writes_out_of_bounds_are_refused() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    for offset in [2, 4, u64::MAX] {
        let error = file.read_at(&mut [0; 2], offset).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
    file.read_at(&mut [], 3).unwrap();
    assert_eq!(file.map(4).err().unwrap().kind(), ErrorKind::UnexpectedEof);
    let error = file.write_at(b"ab", u64::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
}

#[test]
fn directories_are_durable_once_made() {
    let disk = SimDisk::new(0);
    disk.create_dir(Path::new("/a/b")).unwrap();
    disk.create_dir(Path::new("/a/b")).unwrap();
    assert_eq!(disk.ops(), 4);
    let file = disk.open(Path::new("/a/b/c"), OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("a/b/")).unwrap();
    drop(file);
    let next = disk.crash(&CrashPlan::LoseAll);
    let entry = |name: &str, is_dir| DirEntry {
        name: name.to_owned(),
        is_dir,
    };
    assert_eq!(next.list(Path::new("a")).unwrap(), [entry("b", true)]);
    assert_eq!(next.list(Path::new("a/b")).unwrap(), [entry("c", false)]);
}

#[test]
fn a_directory_made_before_a_kill_is_made_durable_by_the_next_maker() {
    let disk = SimDisk::new(0);
    disk.stop_at(1);
    assert!(disk.create_dir(&path("d")).is_err());
    assert!(disk.crash(&CrashPlan::LoseAll).list(&path("d")).is_err());
    let next = disk.crash(&CrashPlan::KeepAll);
    next.create_dir(&path("d")).unwrap();
    assert!(next.crash(&CrashPlan::LoseAll).list(&path("d")).is_ok());
}

#[test]
fn a_lock_excludes_others_until_it_is_dropped() {
    let disk = SimDisk::new(0);
    let lock = disk.lock(&path("LOCK"), "first").unwrap();
    // Whatever becomes of its file.
    disk.remove_raw(&path("LOCK"));
    match disk.clone().lock(Path::new("LOCK"), "second") {
        Err(LockError::Held { holder }) => assert_eq!(holder, "first"),
        other => panic!("{other:?}"),
    }
    drop(lock);
    let _lock = disk.lock(&path("LOCK"), "third").unwrap();
    assert_eq!(disk.read_raw(&path("LOCK")).unwrap(), b"third");
    assert_eq!((disk.ops(), disk.unsynced_ops()), (0, 0));
    assert!(matches!(
        disk.lock(&path("x/LOCK"), ""),
        Err(LockError::Io(_))
    ));
}

#[test]
fn damage_is_durable_and_no_operation() {
    let disk = SimDisk::new(0);
    let file = create(&disk, "a", b"abc");
    let ops = disk.ops();
    sync_root(&disk);
    disk.corrupt(&path("a"), 1, 0x20);
    disk.write_raw(&path("b"), b"bb");
    disk.write_raw(&path("c"), b"cc");
    disk.write_raw(&path("c"), b"ccc");
    disk.truncate(&path("b"), 1);
    disk.remove_raw(&path("c"));
    assert_eq!(content(&file), b"aBc");
    assert_eq!(disk.ops(), ops + 1);
    let files: [(&str, &[u8]); 2] = [("a", b"aBc"), ("b", b"b")];
    assert_eq!(after(&disk, &CrashPlan::LoseAll), owned(&files));
}

#[test]
fn the_clock_stands_still_until_it_is_moved() {
    let disk = SimDisk::new(0);
    assert_eq!(disk.now_ms(), 1_704_096_000_000);
    disk.advance(10);
    assert_eq!(disk.now_ms(), 1_704_096_000_010);
    disk.set_clock(3);
    assert_eq!(disk.now_ms(), 3);
}

#[test]
fn many_threads_can_share_a_disk() {
    let disk = SimDisk::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let disk = &disk;
            scope.spawn(move || {
                let file = create(disk, &format!("{thread}"), b"");
                for offset in 0..100 {
                    file.write_at(&[thread], offset).unwrap();
                    file.sync_data().unwrap();
                }
            });
        }
    });
    sync_root(&disk);
    assert_eq!(disk.ops(), 4 * 201 + 1);
    assert_eq!(disk.crash(&CrashPlan::LoseAll).used_bytes(), 400);
}
