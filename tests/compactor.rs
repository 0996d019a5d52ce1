//! When compaction runs and how fast: inline, in the background, paused, cancelled, on a full disk.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{SimStore, contents, sim_builder};
use crabkv::disk::{CrashPlan, SimDisk};
use crabkv::{Error, NextCompaction, NotYetFree, ReadMode, Store};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn key(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// Overwrites a few keys until the log has grown by about so many bytes.
fn overwrite<D: crabkv::disk::Disk>(store: &Store<D>, bytes: u64) {
    let value = [7; 1000];
    for number in 0..bytes / 1024 {
        store.put(key(number % 50), value).unwrap();
    }
}

/// Waits for what another thread brings about; a minute is for ever.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: never");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn quick(dir: &Path) -> crabkv::CrabKvBuilder {
    Store::builder(dir)
        .segment_size(256 * KIB)
        .sync_interval(Duration::from_secs(3600))
}

#[test]
fn inline_compaction_keeps_an_overwritten_store_small() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path()).build_store().unwrap();
    overwrite(&store, 20 * MIB);
    let stats = store.stats();
    assert!(stats.merges > 0);
    assert_eq!(stats.keys, 50);
    assert!(stats.data_bytes < 3 * MIB, "{stats:#?}");
    assert_eq!(stats.compaction_failure, None);
}

#[test]
fn background_compaction_keeps_an_overwritten_store_small() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path()).async_compaction(true).build_store();
    let store = store.unwrap();
    overwrite(&store, 20 * MIB);
    wait_until("compacted", || store.stats().data_bytes < 2 * MIB);
    assert!(store.stats().merges > 0);
}

#[test]
fn a_write_does_a_bounded_piece_of_inline_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let (in_this_write, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let merged_before = AtomicU64::new(0);
    let (counted, largest) = (Arc::clone(&in_this_write), Arc::clone(&most));
    let store = Store::builder(dir.path())
        .segment_size(32 * MIB)
        .sync_interval(Duration::from_secs(3600))
        .on_compaction_progress(move |progress| {
            let next = if progress.finished {
                0
            } else {
                progress.bytes_done
            };
            let before = merged_before.swap(next, Ordering::Relaxed);
            let now = counted.fetch_add(progress.bytes_done - before, Ordering::Relaxed);
            largest.fetch_max(now + progress.bytes_done - before, Ordering::Relaxed);
        })
        .build_store()
        .unwrap();
    let value = vec![1; 64 << 10];
    for number in 0..1600_u64 {
        in_this_write.store(0, Ordering::Relaxed);
        store.put(key(number * 7919 % 500), &value).unwrap();
    }
    assert!(store.stats().merges > 0);
    // The bound, and one record or one batch of moves beyond it.
    let most = most.load(Ordering::Relaxed);
    assert!(most > 0 && most <= 8 * MIB + 128 * KIB, "{most}");
}

#[test]
fn a_paused_compaction_waits_until_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    for background in [false, true] {
        let dir = dir.path().join(background.to_string());
        let store = quick(&dir).async_compaction(background).build_store();
        let store = store.unwrap();
        store.pause_compaction();
        store.pause_compaction();
        overwrite(&store, 4 * MIB);
        store.resume_compaction();
        overwrite(&store, 2 * MIB);
        assert_eq!(store.stats().merges, 0);
        assert!(store.stats().compaction_paused);
        assert_eq!(store.explain_compaction().next, NextCompaction::Paused);
        store.resume_compaction();
        wait_until("merged", || {
            overwrite(&store, MIB);
            store.stats().merges > 0
        });
    }
}

#[test]
fn compact_works_while_automatic_compaction_is_paused() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path()).build_store().unwrap();
    store.pause_compaction();
    overwrite(&store, 2 * MIB);
    assert!(store.compact().unwrap().records_dropped > 0);
}

#[test]
fn a_cancelled_compaction_leaves_everything_as_it_was() {
    let disk = SimDisk::new(1);
    let cancel = Arc::new(AtomicBool::new(true));
    let (asked, cancelled) = (Arc::clone(&cancel), Arc::new(std::sync::OnceLock::new()));
    let of_the_callback: Arc<std::sync::OnceLock<SimStore>> = Arc::clone(&cancelled);
    let store = sim_builder(4 * MIB)
        .auto_compaction(false)
        .on_compaction_progress(move |_| {
            if asked.load(Ordering::Relaxed) {
                of_the_callback.get().unwrap().cancel_compaction();
            }
        })
        .build_store_on(disk.clone())
        .unwrap();
    cancelled.set(store.clone()).unwrap();
    for number in 0..6000 {
        store.put(key(number % 3000), [1; 1000]).unwrap();
    }
    let before = contents(&store, []).unwrap();
    let report = store.compact().unwrap();
    assert!(
        report.cancelled && report.segments_written == 0,
        "{report:?}"
    );
    let after_cancelling = disk.used_bytes();
    assert_eq!(contents(&store, []).unwrap(), before);
    cancel.store(false, Ordering::Relaxed);
    let report = store.compact().unwrap();
    assert!(
        !report.cancelled && report.records_dropped >= 3000,
        "{report:?}"
    );
    assert_eq!(contents(&store, []).unwrap(), before);
    assert!(disk.used_bytes() < after_cancelling - 2 * MIB);
}

#[test]
fn progress_ends_with_finished() {
    let dir = tempfile::tempdir().unwrap();
    let (done, finished) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (last_done, count) = (Arc::clone(&done), Arc::clone(&finished));
    let store = quick(dir.path())
        .auto_compaction(false)
        .on_compaction_progress(move |progress| {
            assert!(progress.segments > 0 && progress.bytes_before > 0);
            last_done.store(progress.bytes_done, Ordering::Relaxed);
            count.fetch_add(u64::from(progress.finished), Ordering::Relaxed);
        })
        .build_store()
        .unwrap();
    overwrite(&store, 2 * MIB);
    let report = store.compact().unwrap();
    assert!(finished.load(Ordering::Relaxed) > 0);
    assert!(done.load(Ordering::Relaxed) > 0);
    assert!(report.segments_merged > 0 && report.elapsed > Duration::ZERO);
}

#[test]
fn the_budget_bounds_the_work_of_any_stretch_of_time() {
    const BUDGET: u64 = 4 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let worked = Arc::new(AtomicU64::new(0));
    let before = AtomicU64::new(0);
    let sum = Arc::clone(&worked);
    let store = quick(dir.path())
        .async_compaction(true)
        .compaction_budget(NonZeroU64::new(BUDGET).unwrap())
        .on_compaction_progress(move |progress| {
            let next = if progress.finished {
                0
            } else {
                progress.bytes_done
            };
            let last = before.swap(next, Ordering::Relaxed);
            sum.fetch_add(progress.bytes_done - last, Ordering::Relaxed);
        })
        .build_store()
        .unwrap();
    let begun = Instant::now();
    let value = [3; 1000];
    for number in 0..12_000_u64 {
        store.put(key(number * 31 % 3000), value).unwrap();
    }
    wait_until("merged", || store.stats().merges > 0);
    let allowed = BUDGET * begun.elapsed().as_millis() as u64 / 1000 + BUDGET / 8;
    let worked = worked.load(Ordering::Relaxed);
    assert!(worked < allowed, "{worked} of {allowed}");
}

#[test]
fn every_byte_is_explained() {
    let disk = SimDisk::new(2);
    let store = sim_builder(64 * KIB).auto_compaction(false);
    let store = store.build_store_on(disk.clone()).unwrap();
    for number in 0..200 {
        store.put(key(number), [1; 1000]).unwrap();
    }
    for number in 0..40 {
        store.put(key(number), [2; 1000]).unwrap();
        store.delete(key(20 + number)).unwrap();
    }
    store
        .put_with_ttl(key(999), [3; 1000], Duration::from_secs(1))
        .unwrap();
    let space = store.explain_compaction();
    assert_eq!(space.next, NextCompaction::Off);
    let data: u64 = space.segments.iter().map(|s| s.data_bytes).sum();
    let explained = space.live_bytes
        + space.stale_bytes
        + space.tombstone_bytes
        + space.expired_bytes
        + 64 * space.segments.len() as u64;
    assert_eq!(data, explained, "{space}");
    assert_eq!(data, store.stats().data_bytes);
    assert_eq!(space.tombstone_bytes, 40 * 24);
    let reasons: Vec<_> = space.segments.iter().map(|s| s.reason).collect();
    assert_eq!(reasons.last(), Some(&NotYetFree::Active));
    assert!(reasons.contains(&NotYetFree::AllLive), "{space}");
    assert!(space.unwritten_bytes > 0);

    let held = store.get(key(150)).unwrap().unwrap();
    let whole = store.iter().next().unwrap().unwrap();
    store.compact().unwrap();
    assert!(store.explain_compaction().stale_bytes == 0);
    drop((held, whole));
    let text = space.to_string();
    assert!(
        text.contains("it is being written to") && text.contains("switched off"),
        "{text}"
    );
}

#[test]
fn what_readers_still_hold_is_pinned_until_they_let_go() {
    let disk = SimDisk::new(3);
    let store = sim_builder(64 * KIB).auto_compaction(false);
    let store = store.build_store_on(disk.clone()).unwrap();
    for number in 0..100 {
        store.put(key(number % 60), [1; 1000]).unwrap();
    }
    store.compact().unwrap();
    store.put(key(1), "new").unwrap();
    let reader = store.reader();
    let bytes = reader.get(key(5)).unwrap().unwrap();
    store.compact().unwrap();
    assert!(store.explain_compaction().pinned_bytes > 0);
    assert_eq!(bytes, [1; 1000]);
    drop(reader);
    assert_eq!(store.explain_compaction().pinned_bytes, 0);
}

#[test]
fn a_segment_of_expired_values_goes_without_its_data_being_read() {
    let disk = SimDisk::new(4);
    let store = sim_builder(64 * KIB).auto_compaction(false);
    // The simulated disk's maps do not see what is damaged later.
    let store = store.read_mode(ReadMode::Pread);
    let store = store.build_store_on(disk.clone()).unwrap();
    for number in 0..100 {
        let ttl = Duration::from_secs(5);
        store.put_with_ttl(key(number), [1; 1000], ttl).unwrap();
    }
    let sealed: Vec<_> = disk.files(Path::new("/db")).into_iter().collect();
    let sealed = sealed.iter().find(|(name, _)| common::is_kind(name, "seg"));
    // Reading any of its records would find this.
    let path = Path::new("/db").join(&sealed.unwrap().0);
    for at in (100..60_000).step_by(1000) {
        disk.corrupt(&path, at, 0xff);
    }
    disk.advance(5000);
    let report = store.compact().unwrap();
    assert_eq!(report.records_dropped, 100);
    assert_eq!(store.len(), 0);
    assert!(store.stats().segments.is_empty());
}

#[test]
fn expired_values_that_hide_older_ones_go_on_as_tombstones() {
    let disk = SimDisk::new(5);
    let open = || {
        let builder = sim_builder(4 * KIB).auto_compaction(false);
        builder.build_store_on(disk.clone()).unwrap()
    };
    let store = open();
    store.put("key", "old").unwrap();
    store.put("other", [0; 3840]).unwrap();
    let ttl = Duration::from_secs(1);
    store.put_with_ttl("key", "new", ttl).unwrap();
    store.put("filler", [0; 3900]).unwrap();
    let second = store.stats().segments[1].id;
    disk.advance(1000);
    let report = store.compact_segments(&[second]).unwrap();
    assert_eq!((report.records_kept, report.records_dropped), (1, 0));
    let retained: u64 = store
        .stats()
        .segments
        .iter()
        .map(|s| s.retained_bytes)
        .sum();
    assert_eq!(retained, 24);
    drop(store);
    let store = open();
    assert!(store.get("key").unwrap().is_none());
    store.compact().unwrap();
    assert_eq!(store.stats().tombstone_bytes, 0);
    drop(store);
    assert!(open().get("key").unwrap().is_none());
}

#[test]
fn an_expired_value_of_a_merge_that_was_given_up_still_hides_what_is_older() {
    let disk = SimDisk::new(6);
    let open = || {
        let builder = sim_builder(4 * KIB).auto_compaction(false);
        builder.build_store_on(disk.clone()).unwrap()
    };
    let store = open();
    store.put("key", "old").unwrap();
    store.put("other", [0; 3840]).unwrap();
    let ttl = Duration::from_secs(1);
    store.put_with_ttl("key", "new", ttl).unwrap();
    store.put("kept", "kept").unwrap();
    store.put("filler", [0; 3900]).unwrap();
    let second = store.stats().segments[1].id;
    disk.advance(1000);
    // The merge forgets the expired key, then fails.
    disk.set_capacity(Some(disk.used_bytes()));
    let error = store.compact_segments(&[second]).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    disk.set_capacity(None);
    store.compact_segments(&[second]).unwrap();
    drop(store);
    assert!(open().get("key").unwrap().is_none());
}

#[test]
fn a_failed_background_compaction_is_in_the_stats_and_the_store_goes_on() {
    let disk = SimDisk::new(7);
    let store = sim_builder(64 * KIB)
        .verify(crabkv::Verify::Never)
        // The simulated disk's maps do not see what is damaged later.
        .read_mode(ReadMode::Pread)
        .async_compaction(true)
        .build_store_on(disk.clone())
        .unwrap();
    store.pause_compaction();
    // One record of each segment stays live.
    for number in 0..2200 {
        if number < 1100 || number % 55 != 0 {
            store.put(key(number % 1100), [1; 1000]).unwrap();
        }
    }
    // The first segment's.
    let path = Path::new("/db/000000000001.seg");
    disk.corrupt(path, 64 + 500, 1);
    store.resume_compaction();
    wait_until("failed", || store.stats().compaction_failure.is_some());
    let failure = store.stats().compaction_failure.unwrap();
    assert!(failure.contains("000000000001.seg"), "{failure}");
    store.put("after", "it").unwrap();
    assert_eq!(store.get("after").unwrap().unwrap(), "it");
}

#[test]
fn deletes_and_compaction_work_on_a_full_disk() {
    let disk = SimDisk::new(8);
    let open = || {
        let builder = sim_builder(64 * KIB);
        builder.build_store_on(disk.clone()).unwrap()
    };
    let store = open();
    let mut written = 0;
    disk.set_capacity(Some(MIB));
    let full = loop {
        match store.put(key(written), [1; 1000]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::DiskFull { .. }), "{full}");
    assert!(written > 700, "{written}");
    // As full as can be: not even a manifest has room but for the reserve.
    disk.set_capacity(Some(disk.used_bytes()));
    for number in 0..written {
        let deleted = store.delete(key(number));
        assert!(
            matches!(deleted, Ok(true)),
            "{number} of {written}: {deleted:?}\n{}{:#?}",
            store.explain_compaction(),
            store.stats(),
        );
    }
    store.compact().unwrap();
    assert_eq!(store.len(), 0);
    assert!(disk.used_bytes() < 150 * KIB, "{}", disk.used_bytes());
    for number in 0..written / 2 {
        store.put(key(number), [2; 1000]).unwrap();
    }
    drop(store);
    assert_eq!(open().len() as u64, written / 2);
}

#[test]
fn closing_gives_up_a_merge_half_done_and_leaves_no_files_of_it() {
    let disk = SimDisk::new(9);
    let open = || sim_builder(16 * MIB).build_store_on(disk.clone()).unwrap();
    let store = open();
    // Inline work is bounded to 8 MiB a time, so that a merge is under way at the end.
    let value = vec![5; 100_000];
    for number in 0..400 {
        store.put(key(number * 13 % 100), &value).unwrap();
    }
    store.close().unwrap();
    let named: Vec<_> = store.stats().segments.iter().map(|s| s.id.get()).collect();
    let files = disk.files(Path::new("/db"));
    let on_disk = files
        .iter()
        .filter_map(|(name, _)| name.strip_suffix(".seg"));
    let on_disk: Vec<u64> = on_disk.map(|id| id.parse().unwrap()).collect();
    assert_eq!(on_disk, named);
    let before = contents(&store, []).unwrap();
    drop(store);
    let store = open();
    assert!(store.recovery_report().orphans_removed.is_empty());
    assert_eq!(contents(&store, []).unwrap(), before);
}

#[test]
fn many_small_segments_are_gathered() {
    let mut disk = SimDisk::new(10);
    for number in 0..40 {
        let store = sim_builder(64 * KIB).build_store_on(disk.clone()).unwrap();
        store.put(key(number), [1; 100]).unwrap();
        // A killed process leaves a tail, which the next open seals in a segment of its own.
        disk = disk.crash(&CrashPlan::KeepAll);
    }
    let store = sim_builder(64 * KIB).build_store_on(disk).unwrap();
    assert_eq!(store.len(), 40);
    let segments = store.stats().segments.len();
    assert!(segments < 20, "{segments}");
}

#[test]
fn a_compaction_drops_the_tombstones_that_its_later_merges_free() {
    let disk = SimDisk::new(11);
    let store = sim_builder(16 * KIB).auto_compaction(false);
    let store = store.build_store_on(disk.clone()).unwrap();
    let fill = |from: u64| {
        let before = store.stats().segments.len();
        let mut number = from;
        while store.stats().segments.len() == before {
            store.put(key(number), [1; 1000]).unwrap();
            number += 1;
        }
    };
    store.put("first", "of all").unwrap();
    fill(1000);
    store.put("key", "value").unwrap();
    fill(2000);
    store.delete("key").unwrap();
    fill(3000);
    // With room in the first segment, the tombstone comes to lie in front of what it hides.
    store.put(key(1000), "new").unwrap();
    let segments = store.stats().segments;
    store
        .compact_segments(&[segments[0].id, segments[2].id])
        .unwrap();
    assert_eq!(store.stats().tombstone_bytes, 24);
    let report = store.compact().unwrap();
    assert_eq!(report.records_dropped, 2, "{report:?}");
    assert_eq!(store.stats().tombstone_bytes, 0);
}

#[test]
fn a_compaction_uses_the_reserve_when_not_even_a_manifest_has_room() {
    let disk = SimDisk::new(12);
    let store = sim_builder(64 * KIB).auto_compaction(false);
    let store = store.build_store_on(disk.clone()).unwrap();
    for number in 0..200 {
        let ttl = Duration::from_secs(1);
        store.put_with_ttl(key(number), [1; 1000], ttl).unwrap();
    }
    store.compact().unwrap();
    disk.advance(1000);
    // There is nothing to copy, and no room that sealing could give back.
    disk.set_capacity(Some(disk.used_bytes()));
    store.compact().unwrap();
    assert_eq!(store.stats().data_bytes, 0);
}

/// Puts until the disk is full.
fn fill_disk(store: &SimStore) -> u64 {
    let mut written = 0;
    loop {
        match store.put(key(written), [1; 1000]) {
            Ok(()) => written += 1,
            Err(Error::DiskFull { .. }) => return written,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn deletes_work_after_a_merge_for_which_the_reserve_was_not_enough() {
    let disk = SimDisk::new(14);
    disk.set_capacity(Some(4 * MIB));
    let store = sim_builder(256 * KIB).auto_compaction(false);
    let store = store.build_store_on(disk.clone()).unwrap();
    let written = fill_disk(&store);
    // Half of a segment, so that a merge wants more than there is.
    let mut number = 0;
    while number < 100 {
        store.delete(key(number * 2)).unwrap();
        number += 1;
    }
    disk.set_capacity(Some(disk.used_bytes()));
    let first = store.stats().segments[0].id;
    let full = store.compact_segments(&[first]).unwrap_err();
    assert!(matches!(full, Error::DiskFull { .. }), "{full}");
    for number in 100..300 {
        let deleted = store.delete(key(number * 2));
        assert!(deleted.is_ok(), "{number} of {written}: {deleted:?}");
    }
}

#[test]
fn a_progress_callback_that_panics_in_the_background_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let panics = AtomicU64::new(0);
    let store = quick(dir.path())
        .async_compaction(true)
        .on_compaction_progress(move |_| {
            let is_first = panics.fetch_add(1, Ordering::Relaxed) == 0;
            assert!(!is_first, "of the callback");
        })
        .build_store()
        .unwrap();
    // A writer that is far ahead waits for compaction while there is somebody to wait for.
    let (done, is_done) = std::sync::mpsc::channel();
    let writer = store.clone();
    std::thread::spawn(move || {
        overwrite(&writer, 20 * MIB);
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
    // And the thread is still there, after a wait.
    wait_until("gone on", || {
        overwrite(&store, MIB);
        store.stats().merges > 0 && store.stats().compaction_failure.is_none()
    });
    wait_until("compacted", || store.stats().data_bytes < 2 * MIB);
}

#[test]
fn tombstones_are_not_merged_again_until_enough_of_what_they_hide_is_gone() {
    let disk = SimDisk::new(15);
    let store = sim_builder(4 * KIB).auto_compaction(false);
    let store = store.build_store_on(disk.clone()).unwrap();
    for number in 0..40 {
        store.put(key(number), [1; 1000]).unwrap();
    }
    common::seal(&store);
    let values = common::sealed(&store);
    // One value of each segment, and a little more.
    for number in (0..40).step_by(3) {
        store.delete(key(number)).unwrap();
    }
    common::seal(&store);
    let retained = || -> u64 {
        let segments = store.stats().segments;
        segments.iter().map(|s| s.retained_bytes).sum()
    };
    let tombstones = *common::sealed(&store).last().unwrap();
    store.compact_segments(&[tombstones]).unwrap();
    let all = store.stats().tombstone_bytes;
    assert_eq!((all, retained()), (14 * 24, 14 * 24));
    store.compact_segments(&values[..1]).unwrap();
    assert_eq!(store.stats().tombstone_bytes, all);
    assert!(
        retained() < all && retained() >= all - 2 * 24,
        "{}",
        retained()
    );
    // All at once: in merges of one output each, oldest first.
    store.compact().unwrap();
    assert_eq!(store.stats().stale_bytes, 0);
}

#[test]
fn asking_many_segments_for_what_a_tombstone_hides_counts_as_work() {
    const SEGMENTS: u64 = 60;
    let disk = SimDisk::new(16);
    let worked = Arc::new(AtomicU64::new(0));
    let done = Arc::clone(&worked);
    let store = sim_builder(4 * KIB)
        .auto_compaction(false)
        .on_compaction_progress(move |progress| {
            done.fetch_max(progress.bytes_done, Ordering::Relaxed);
        })
        .build_store_on(disk.clone())
        .unwrap();
    for number in 0..SEGMENTS * 3 {
        store.put(key(number), [1; 1000]).unwrap();
    }
    for number in 1000..1050 {
        store.put(key(number), [1; 10]).unwrap();
    }
    common::seal(&store);
    assert!(common::sealed(&store).len() as u64 > SEGMENTS);
    for number in 1000..1050 {
        store.delete(key(number)).unwrap();
    }
    common::seal(&store);
    let tombstones = *common::sealed(&store).last().unwrap();
    store.compact_segments(&[tombstones]).unwrap();
    let worked = worked.load(Ordering::Relaxed);
    assert!(worked > 50 * SEGMENTS * 8, "{worked}");
}

#[test]
fn a_damaged_segment_does_not_keep_the_others_from_being_compacted() {
    let disk = SimDisk::new(17);
    let store = sim_builder(64 * KIB)
        .verify(crabkv::Verify::Never)
        // The simulated disk's maps do not see what is damaged later.
        .read_mode(ReadMode::Pread)
        .build_store_on(disk.clone())
        .unwrap();
    store.pause_compaction();
    // One record of each segment stays live.
    for number in 0..2200 {
        if number < 1100 || number % 55 != 0 {
            store.put(key(number % 1100), [1; 1000]).unwrap();
        }
    }
    // One of 1024 bytes that is not overwritten below.
    let offset = 64 + 55 * 1024 + 500;
    disk.corrupt(Path::new("/db/000000000001.seg"), offset, 1);
    let before = store.stats().data_bytes;
    store.resume_compaction();
    // Each failure is followed by a wait.
    wait_until("compacted", || {
        overwrite(&store, 16 * MIB);
        store.stats().merges > 0 && store.stats().data_bytes < before * 2 / 3
    });
    // It is not forgotten, either.
    let failure = store.stats().compaction_failure.unwrap();
    assert!(failure.contains("000000000001.seg"), "{failure}");
    assert!(store.compact().is_err());
}

#[test]
fn a_reserve_that_another_process_left_unfinished_is_made_whole() {
    let disk = SimDisk::new(18);
    let builder = sim_builder(64 * KIB);
    drop(builder.build_store_on(disk.clone()).unwrap());
    // As a crash leaves it between its creation and the reservation of its room.
    let path = Path::new("/db/RESERVE");
    disk.write_raw(path, &[]);
    let store = sim_builder(64 * KIB).build_store_on(disk.clone()).unwrap();
    for number in 0..100 {
        store.put(key(number), [1; 1000]).unwrap();
    }
    assert_eq!(disk.read_raw(path).unwrap().len() as u64, 16 * KIB);
}

#[test]
fn records_that_were_taken_back_are_not_counted_once_the_segment_is_sealed() {
    let disk = SimDisk::new(19);
    let store = sim_builder(64 * KIB).auto_compaction(false);
    let store = store.build_store_on(disk.clone()).unwrap();
    store.put("key", "value").unwrap();
    disk.fail_at(0, crabkv::disk::FailKind::Enospc, true);
    let full = store.put("other", "value").unwrap_err();
    assert!(matches!(full, Error::DiskFull { .. }), "{full}");
    common::seal(&store);
    let segment = store.stats().segments[0];
    assert_eq!((segment.records, segment.live_records), (1, 1));
    assert_eq!(store.compact().unwrap().segments_merged, 0);
}

#[test]
fn a_crash_while_a_store_that_was_only_opened_is_compacted_loses_nothing() {
    let disk = SimDisk::new(20);
    let open = |disk: &SimDisk| {
        let builder = sim_builder(64 * KIB).auto_compaction(false);
        builder.build_store_on(disk.clone()).unwrap()
    };
    let store = open(&disk);
    for number in 0..5 {
        store.put("key", number.to_string()).unwrap();
        store.put(key(number), [1; 100]).unwrap();
        store.delete(key(3)).unwrap();
    }
    drop(store);
    let closed = disk.crash(&CrashPlan::KeepAll);
    let mut ops = 0;
    loop {
        let disk = closed.crash(&CrashPlan::KeepAll);
        let store = open(&disk);
        let expected = contents(&store, []).unwrap();
        // The segment that is sealed here was closed, and is not announced.
        disk.stop_at(ops);
        let compacted = store.compact();
        for plan in disk.crash_plans(20, ops) {
            let after = disk.crash(&plan);
            let store = open(&after);
            assert_eq!(contents(&store, []).unwrap(), expected, "{ops} {plan:?}");
        }
        if compacted.is_ok() {
            break;
        }
        ops += 1;
    }
    assert!(ops > 5, "{ops}");
}

#[test]
fn a_write_on_a_full_disk_waits_for_the_whole_merge_that_makes_room_for_it() {
    let disk = SimDisk::new(21);
    let store = sim_builder(16 * MIB).build_store_on(disk.clone()).unwrap();
    store.pause_compaction();
    // Three fifths of each segment are live, so that a merge copies more than a write does at a time.
    let value = vec![5; 100_000];
    for number in 0..640_u64 {
        let number = if number % 5 < 2 { 0 } else { number };
        store.put(key(number), &value).unwrap();
    }
    // Room for the merge, but not for the next segment.
    disk.set_capacity(Some(disk.used_bytes() + 12 * MIB));
    while store.put(key(1000), &value).is_ok() {}
    store.resume_compaction();
    store.put(key(1001), &value).unwrap();
}

#[test]
fn a_compaction_without_room_for_all_takes_what_needs_none() {
    let mut failed = 0;
    for room in (2 * KIB..12 * KIB).step_by(100) {
        let disk = SimDisk::new(22);
        let builder = sim_builder(8 * KIB).auto_compaction(false);
        let store = builder.build_store_on(disk.clone()).unwrap();
        // Two segments of which nothing is needed, and one of which most is.
        for number in 0..20 {
            store.put(key(number), [1; 1000]).unwrap();
        }
        for number in 0..15 {
            store.delete(key(number)).unwrap();
        }
        disk.set_capacity(Some(disk.used_bytes() + room));
        store
            .compact()
            .unwrap_or_else(|error| panic!("{room}: {error}"));
        assert_eq!(store.len(), 5);
        assert!(disk.used_bytes() < 9 * KIB, "{}", disk.used_bytes());
        failed += u64::from(store.stats().merges > 1);
    }
    assert!(failed > 0, "there was always room for all");
}
