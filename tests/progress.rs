//! Long work tells how far it has come, and can be stopped wherever it tells.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{SimStore, State, contents, go_on, is_kind, put, sim_builder};
use crabkv::disk::{CrashPlan, SimDisk};
use crabkv::{
    CopyProgress, CrabKvBuilder, Error, RecoveryProgress, RepairOptions, Result, ScanProgress,
    Store, repair_on, restore_on, verify_on,
};

const BACKUP: &str = "/backup";

fn open(disk: &SimDisk) -> SimStore {
    sim_builder(512).build_store_on(disk.clone()).unwrap()
}

fn open_at(disk: &SimDisk, dir: &str) -> Result<SimStore> {
    let builder = Store::builder(dir).create_if_missing(false);
    builder.build_store_on(disk.clone())
}

/// Overwrites some keys, in several segments.
fn fill(store: &SimStore, round: u8) {
    for number in 0..30_u8 {
        let write = put(&format!("k{}", number % 20), [round; 60]);
        common::Op::Write(write).apply(store).unwrap();
    }
}

fn filled() -> SimDisk {
    let disk = SimDisk::new(1);
    fill(&open(&disk), 1);
    disk
}

fn all(store: &SimStore) -> State {
    contents(store, []).unwrap()
}

fn copy(disk: &SimDisk) -> SimDisk {
    disk.crash(&CrashPlan::KeepAll)
}

/// What is in a directory beside the lock file.
fn files(disk: &SimDisk, dir: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = disk.files(Path::new(dir));
    files.retain(|(name, _)| name != "LOCK");
    files
}

/// Figures of either kind of progress.
type Told = (usize, usize, u64, u64);

fn scan(progress: &ScanProgress) -> Told {
    let (done, all) = (progress.segments_done, progress.segments);
    (done, all, progress.bytes_done, progress.bytes)
}

fn copied(progress: &CopyProgress) -> Told {
    let (done, all) = (progress.segments_done, progress.segments);
    (done, all, progress.bytes_done, progress.bytes)
}

/// Goes on so many times, and then breaks.
fn break_after(count: usize) -> impl FnMut() -> ControlFlow<()> {
    let mut left = count;
    move || {
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        ControlFlow::Continue(())
    }
}

/// Checks that a bar made of these figures goes forward only, and to its end.
#[track_caller]
fn makes_a_bar(told: &[Told]) {
    assert!(told.len() > 3, "{told:?}");
    for pair in told.windows(2) {
        assert!(pair[0].0 <= pair[1].0 && pair[0].2 <= pair[1].2, "{told:?}");
    }
    assert!(told.iter().all(|one| one.0 <= one.1 && one.2 <= one.3));
    let last = told.last().unwrap();
    assert_eq!((last.0, last.2), (last.1, last.3), "{told:?}");
    // Known from the beginning, but for a few headers: not made to fit at each step.
    let early = told.iter().find(|one| one.3 > 0).unwrap();
    assert!(early.2 <= early.3 / 4, "{told:?}");
    assert!(early.3 >= last.3 && early.3 < last.3 * 2, "{told:?}");
}

#[test]
fn a_verification_tells_of_every_segment_and_every_few_mebibytes() {
    let disk = filled();
    let mut told = Vec::new();
    let report = verify_on(&disk, "/db", |progress| {
        told.push(scan(progress));
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    makes_a_bar(&told);
    let last = *told.last().unwrap();
    assert_eq!((last.0, last.2), (report.segments, report.bytes));
    assert!(report.segments > 3);

    let disk = SimDisk::new(1);
    let store = sim_builder(32 << 20).build_store_on(disk.clone()).unwrap();
    store.put("k", vec![1; 18 << 20]).unwrap();
    drop(store);
    let mut steps = Vec::new();
    let verified = verify_on(&disk, "/db", |progress| {
        steps.push(progress.bytes_done);
        ControlFlow::Continue(())
    });
    verified.unwrap();
    let long = steps.windows(2).any(|pair| pair[1] - pair[0] > 4 << 20);
    assert!(!long && steps.len() >= 5, "{steps:?}");
}

#[test]
fn a_verification_stops_wherever_it_tells() {
    let disk = filled();
    let mut stops = 0;
    loop {
        let mut go = break_after(stops);
        match verify_on(&disk, "/db", |_| go()) {
            Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
            Ok(report) => break assert!(report.is_sound()),
        }
        stops += 1;
    }
    assert!(stops > 10, "{stops}");
}

/// Stores to be repaired: sound, damaged in a segment, without a manifest, with an old one.
fn broken() -> Vec<SimDisk> {
    let sound = filled();
    let damaged = copy(&sound);
    let segments = files(&sound, "/db").into_iter();
    let second = segments.filter(|(name, _)| is_kind(name, "seg")).nth(1);
    damaged.corrupt(&Path::new("/db").join(second.unwrap().0), 100, 1);
    let without = copy(&sound);
    without.remove_raw(Path::new("/db/MANIFEST"));
    let outdated = copy(&sound);
    let manifest = outdated.read_raw(Path::new("/db/MANIFEST")).unwrap();
    fill(&open(&outdated), 2);
    outdated.write_raw(Path::new("/db/MANIFEST"), &manifest);
    vec![sound, damaged, without, outdated]
}

#[test]
fn a_repair_tells_of_all_that_it_reads() {
    for disk in broken() {
        let mut told = Vec::new();
        let report = repair_on(&disk, "/db", "/out", &RepairOptions::new(), |progress| {
            told.push(scan(progress));
            ControlFlow::Continue(())
        });
        assert!(report.unwrap().records > 0);
        makes_a_bar(&told);
    }
}

#[test]
fn a_repair_that_is_stopped_leaves_nothing_and_can_be_run_again() {
    for disk in broken() {
        let source = files(&disk, "/db");
        let mut stops = 0;
        let report = loop {
            let mut go = break_after(stops);
            match repair_on(&disk, "/db", "/out", &RepairOptions::new(), |_| go()) {
                Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
                Ok(report) => break report,
            }
            assert_eq!(files(&disk, "/out"), [], "after {stops}");
            assert_eq!(files(&disk, "/db"), source);
            stops += 1;
        };
        assert!(stops > 20, "{stops}");
        let store = open_at(&disk, "/out").unwrap();
        assert_eq!(store.len() as u64, report.keys);
    }
}

#[test]
fn a_crash_after_a_repair_was_stopped_leaves_no_store() {
    let disk = filled();
    let mut count = 0;
    repair_on(&copy(&disk), "/db", "/out", &RepairOptions::new(), |_| {
        count += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    // While the new store is verified, which is the last that it does.
    let mut go = break_after(count - 1);
    repair_on(&disk, "/db", "/out", &RepairOptions::new(), |_| go()).unwrap_err();
    for plan in disk.crash_plans(50, 1) {
        let after = disk.crash(&plan);
        assert!(open_at(&after, "/out").is_err(), "{plan:?}");
    }
}

#[test]
fn a_checkpoint_tells_of_every_segment_whether_linked_or_copied() {
    for links in [true, false] {
        let disk = SimDisk::new(1);
        disk.set_hard_links(links);
        let store = open(&disk);
        fill(&store, 1);
        let mut told = Vec::new();
        let report = store.checkpoint_with(BACKUP, |progress| {
            told.push(copied(progress));
            ControlFlow::Continue(())
        });
        let report = report.unwrap();
        makes_a_bar(&told);
        let segments = report.segments_linked + report.segments_copied;
        assert_eq!(told.last().unwrap().1, segments);
        assert_eq!(report.segments_linked > 0, links);
    }
}

#[test]
fn a_checkpoint_that_is_stopped_is_gone_on_with() {
    for links in [true, false] {
        let disk = SimDisk::new(1);
        disk.set_hard_links(links);
        let store = open(&disk);
        fill(&store, 1);
        let mut stops = 0;
        let present = loop {
            let mut go = break_after(stops);
            match store.checkpoint_with(BACKUP, |_| go()) {
                Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
                Ok(report) => break report.segments_present,
            }
            assert!(open_at(&disk, BACKUP).is_err(), "after {stops}");
            stops += 1;
        };
        assert!(stops > 10, "{stops}");
        assert!(present > 3, "{present}");
        assert_eq!(all(&open_at(&disk, BACKUP).unwrap()), all(&store));
    }
}

#[test]
fn a_checkpoint_that_is_stopped_on_its_way_up_to_date_is_what_it_was() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let before = all(&store);
    fill(&store, 2);
    store.compact().unwrap();
    let mut stops = 0;
    loop {
        let mut go = break_after(stops);
        match store.checkpoint_with(BACKUP, |_| go()) {
            Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
            Ok(_) => break,
        }
        assert_eq!(all(&open_at(&copy(&disk), BACKUP).unwrap()), before);
        stops += 1;
    }
    assert!(stops > 5, "{stops}");
    assert_eq!(all(&open_at(&disk, BACKUP).unwrap()), all(&store));
}

#[test]
fn progress_may_use_the_store() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    let made = store.checkpoint_with(BACKUP, |progress| {
        store.put("seen", progress.bytes_done.to_string()).unwrap();
        ControlFlow::Continue(())
    });
    let last = made.unwrap().last;
    assert!(store.get("seen").unwrap().unwrap().version() > Some(last));
}

#[test]
fn a_restore_tells_of_every_segment_and_every_mebibyte() {
    let disk = SimDisk::new(1);
    let store = sim_builder(8 << 20).build_store_on(disk.clone()).unwrap();
    for number in 0..4_u8 {
        store.put([number], vec![number; 5 << 20]).unwrap();
    }
    store.checkpoint(BACKUP).unwrap();
    let mut told = Vec::new();
    let report = restore_on(&disk, BACKUP, "/again", |progress| {
        told.push(copied(progress));
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    makes_a_bar(&told);
    let last = *told.last().unwrap();
    assert_eq!((last.0, last.2), (report.segments, report.bytes));
    let long = told.windows(2).any(|pair| pair[1].2 - pair[0].2 > 1 << 20);
    assert!(!long, "{told:?}");
}

#[test]
fn a_restore_that_is_stopped_leaves_no_store_and_can_be_run_again() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let mut stops = 0;
    loop {
        let mut go = break_after(stops);
        match restore_on(&disk, BACKUP, "/again", |_| go()) {
            Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
            Ok(_) => break,
        }
        assert!(open_at(&disk, "/again").is_err(), "after {stops}");
        stops += 1;
    }
    assert!(stops > 10, "{stops}");
    assert_eq!(all(&open_at(&disk, "/again").unwrap()), all(&store));
    assert!(verify_on(&disk, "/again", go_on).unwrap().is_sound());
}

/// All that opening a store tells.
fn told_by_opening(builder: CrabKvBuilder, disk: &SimDisk) -> Vec<RecoveryProgress> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&told);
    let builder = builder.on_recovery_progress(move |progress| all.lock().unwrap().push(*progress));
    drop(builder.build_store_on(disk.clone()).unwrap());
    let told = told.lock().unwrap();
    told.clone()
}

#[test]
fn opening_tells_of_the_segments_and_then_of_the_records() {
    let disk = SimDisk::new(1);
    let store = sim_builder(256 << 10)
        .sync_interval(Duration::from_secs(1 << 20))
        .build_store_on(disk.clone())
        .unwrap();
    for thousand in 0..40_u32 {
        let numbers = (0..1000).map(|number| (thousand * 1000 + number).to_le_bytes());
        store.put_batch(numbers.map(|key| (key, "x"))).unwrap();
    }
    let segments = store.stats().segments.len();
    let crashed = copy(&disk);
    drop(store);
    let threads = NonZeroUsize::new(3).unwrap();
    for (disk, read_only) in [
        (&disk, true),
        (&disk, false),
        (&crashed, true),
        (&crashed, false),
    ] {
        let builder = sim_builder(256 << 10).recovery_threads(threads);
        let told = told_by_opening(builder.read_only(read_only), disk);
        let first = told[0];
        assert_eq!(
            (first.segments_done, first.bytes_done, first.records),
            (0, 0, 0)
        );
        // A read-only store reads the end of the log by itself.
        assert!((segments - 1..=segments).contains(&first.segments));
        assert!(first.bytes > 100_000, "{first:?}");
        for pair in told.windows(2) {
            assert_eq!(
                (pair[0].segments, pair[0].bytes),
                (pair[1].segments, pair[1].bytes)
            );
            assert!(pair[0].segments_done <= pair[1].segments_done);
            assert!(pair[0].bytes_done <= pair[1].bytes_done);
            assert!(pair[0].records_done <= pair[1].records_done);
        }
        let last = told.last().unwrap();
        assert_eq!(
            (last.segments_done, last.bytes_done),
            (last.segments, last.bytes)
        );
        assert_eq!((last.records_done, last.records), (40_000, 40_000));
        let filling = told.iter().filter(|one| one.records > 0).count();
        assert!(filling > 5, "{filling}");
    }
}

#[test]
fn an_error_of_the_standard_library_says_interrupted() {
    let error = std::io::Error::from(Error::Cancelled);
    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
    assert_eq!(error.to_string(), "cancelled before it was done");
}
