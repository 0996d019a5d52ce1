//! Moments, fingerprints, and bytes that cannot be read.

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// Some of everything that changes a disk; gives up where the power fails.
fn work(disk: &SimDisk) -> io::Result<()> {
    let root = Path::new("/");
    disk.create_dir(&path("d"))?;
    let a = disk.open(&path("a"), OpenMode::CreateNew)?;
    a.preallocate(64)?;
    a.write_at(b"header", 0)?;
    a.sync_data()?;
    disk.sync_dir(root)?;
    a.write_at(&[7; 3000], 6)?;
    let b = disk.open(&path("b.tmp"), OpenMode::CreateNew)?;
    b.write_at(b"manifest", 0)?;
    b.sync_data()?;
    disk.rename(&path("b.tmp"), &path("b"))?;
    disk.hard_link(&path("b"), &path("d/b"))?;
    a.set_len(100)?;
    disk.sync_dir(root)?;
    a.write_at(b"later", 100)?;
    disk.unlink(&path("b"))?;
    disk.sync_dir(&path("d"))?;
    a.sync_data()
}

#[test]
fn a_moment_is_what_a_power_cut_at_that_operation_leaves() {
    let whole = SimDisk::new(0);
    whole.keep_moments();
    work(&whole).unwrap();
    let moments = whole.take_moments();
    assert_eq!(moments.len() as u64, whole.ops());
    for (moment, stop) in moments.iter().zip(0..) {
        let stopped = SimDisk::new(0);
        stopped.stop_at(stop);
        assert!(work(&stopped).is_err());
        let plans = stopped.crash_plans(200, stop);
        assert_eq!(moment.crash_plans(200, stop), plans);
        for plan in plans {
            let (one, other) = (moment.crash(&plan), stopped.crash(&plan));
            assert_eq!(one.fingerprint(), other.fingerprint(), "{stop} {plan:?}");
        }
    }
    work(&SimDisk::new(0)).unwrap();
    assert!(whole.take_moments().is_empty(), "kept once only");
}

#[test]
fn what_a_process_or_a_power_cut_could_tell_apart_has_another_fingerprint() {
    let disk = || {
        let disk = SimDisk::new(0);
        create_durable(&disk, "a", b"abc");
        create_durable(&disk, "b", b"abc");
        disk
    };
    let first = disk().fingerprint();
    let after = |change: &dyn Fn(&SimDisk)| {
        let disk = disk();
        change(&disk);
        disk.fingerprint()
    };
    assert_eq!(after(&|disk| _ = disk.random_u64()), first);
    assert_eq!(after(&|disk| disk.stop_at(7)), first);
    let locked_by = |holder| after(&|disk| drop(disk.lock(&path("LOCK"), holder).unwrap()));
    assert_eq!(locked_by("process 1"), locked_by("process 2"));
    let write = |disk: &SimDisk, bytes: &[u8]| {
        let file = disk.open(&path("a"), OpenMode::Write).unwrap();
        file.write_at(bytes, 0).unwrap();
        file
    };
    let prints = [
        first,
        locked_by("process 1"),
        after(&|disk| disk.advance(1)),
        // The same bytes, but of another standing.
        after(&|disk| drop(write(disk, b"abc"))),
        after(&|disk| drop(write(disk, b"abd"))),
        after(&|disk| write(disk, b"abd").sync_data().unwrap()),
        after(&|disk| drop(disk.open(&path("c"), OpenMode::CreateNew).unwrap())),
        after(&|disk| disk.rename(&path("a"), &path("c")).unwrap()),
        after(&|disk| disk.unlink(&path("a")).unwrap()),
        after(&|disk| {
            disk.unlink(&path("b")).unwrap();
            sync_root(disk);
        }),
        after(&|disk| {
            disk.unlink(&path("b")).unwrap();
            disk.hard_link(&path("a"), &path("b")).unwrap();
            sync_root(disk);
        }),
        after(&|disk| disk.lose_sectors(&path("a"), 0..1)),
    ];
    let different: BTreeSet<_> = prints.iter().collect();
    assert_eq!(different.len(), prints.len());
}

#[test]
fn the_same_image_by_two_ways_has_one_fingerprint() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"abc");
    file.write_at(b"X", 0).unwrap();
    file.write_at(b"Y", 0).unwrap();
    let print = |plan| disk.crash(&plan).fingerprint();
    assert_eq!(print(CrashPlan::KeepOne(1)), print(CrashPlan::Prefix(2)));
    assert_ne!(print(CrashPlan::Prefix(2)), print(CrashPlan::KeepAll));
}

#[test]
fn lost_sectors_are_an_error_to_read_and_the_end_to_look_at() {
    let disk = SimDisk::new(0);
    let file = create_durable(&disk, "a", b"0123456789");
    let before = file.map(10).unwrap();
    disk.lose_sectors(&path("a"), 4..6);
    let mut two = [0; 2];
    for (offset, can_be_read) in [(2, true), (3, false), (5, false), (6, true)] {
        assert_eq!(file.read_at(&mut two, offset).is_ok(), can_be_read);
    }
    // Of a map that was there before nothing is known.
    assert_eq!(before.as_ref(), b"0123456789");

    let map = file.map(10).unwrap();
    assert_eq!((map.len(), map.is_empty()), (10, false));
    assert_eq!(map.slice(0, 4), Some(&b"0123"[..]));
    assert_eq!(map.slice(6, 4), Some(&b"6789"[..]));
    assert_eq!(map.tail(6), Some(&b"6789"[..]));
    assert_eq!((map.slice(6, 5), map.tail(11)), (None, None));
    let looks: [&dyn Fn(); 4] = [
        &|| _ = black_box(map.slice(3, 2)),
        &|| _ = black_box(map.slice(5, 1)),
        &|| _ = black_box(map.tail(4)),
        &|| _ = black_box(map.as_ref().len()),
    ];
    for look in looks {
        disk.heal();
        file.write_at(b"x", 9).unwrap();
        let end = catch_unwind(AssertUnwindSafe(look)).unwrap_err();
        let said = end.downcast_ref::<&str>().unwrap();
        assert!(said.contains("SIGBUS"), "{said}");
        assert!(file.sync_data().is_err(), "after the end of the process");
        let next = disk.crash(&CrashPlan::KeepAll);
        let file = next.open(&path("a"), OpenMode::Read).unwrap();
        assert!(file.read_at(&mut two, 4).is_err(), "the medium is the same");
        next.find_sectors();
        assert_eq!(content(&file), b"012345678x");
    }
}
