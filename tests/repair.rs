//! What `repair` saves, case by case; that it leaves the damaged store alone; and that one that is
//! interrupted leaves no store.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{
    Op, State, contents, delete, go_on, is_kind, put, put_ttl, show, sim_builder, visible,
};
use crabkv::disk::{CrashPlan, Disk, FailKind, SimDisk};
use crabkv::{
    Error, ManifestUse, NoteKind, RepairOptions, RepairReport, Result, Store, WriteBatch, repair,
    repair_on, verify_on,
};

fn path(name: &str) -> PathBuf {
    Path::new("/db").join(name)
}

fn copy(disk: &SimDisk) -> SimDisk {
    disk.crash(&CrashPlan::KeepAll)
}

fn open(disk: &SimDisk) -> Store<SimDisk> {
    sim_builder(512).build_store_on(disk.clone()).unwrap()
}

fn run(disk: &SimDisk, options: &RepairOptions) -> Result<RepairReport> {
    let before = disk.files(Path::new("/db"));
    let report = repair_on(disk, "/db", "/out", options, go_on);
    assert_eq!(
        disk.files(Path::new("/db")),
        before,
        "the source was changed"
    );
    report
}

#[track_caller]
fn repaired(disk: &SimDisk) -> RepairReport {
    let report = run(disk, &RepairOptions::new()).unwrap();
    assert!(verify_on(disk, "/out", go_on).unwrap().is_sound());
    report
}

fn saved(disk: &SimDisk) -> Store<SimDisk> {
    let store = Store::builder("/out").build_store_on(disk.clone()).unwrap();
    assert!(store.recovery_report().clean);
    store
}

fn all(disk: &SimDisk) -> State {
    visible(&contents(&saved(disk), []).unwrap(), disk.now_ms())
}

/// Keys 0 to 19 with values of 50 bytes, four to a segment of 512, closed.
fn closed_store() -> (SimDisk, State) {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    for key in 0..20_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    let state = contents(&store, []).unwrap();
    drop(store);
    (disk, state)
}

/// Overwrites bytes with others that are all different.
fn overwrite(disk: &SimDisk, name: &str, offset: u64, len: u64) {
    for at in offset..offset + len {
        disk.corrupt(&path(name), at, 0xa5);
    }
}

/// The keys of a state that are single bytes.
fn keys(state: &State) -> Vec<u8> {
    state.keys().map(|key| key[0]).collect()
}

fn without(lost: &[u8]) -> Vec<u8> {
    (0..20).filter(|key| !lost.contains(key)).collect()
}

#[test]
fn a_sound_store_comes_out_the_same_with_versions_and_expiries() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.put("a", "1").unwrap();
    store
        .put_with_ttl("b", "2", Duration::from_secs(60))
        .unwrap();
    store.delete("a").unwrap();
    store.put("a", "3").unwrap();
    store.compact().unwrap();
    store.put("c", "4").unwrap();
    store.delete("c").unwrap();
    let version = store.get("a").unwrap().unwrap().version();
    let state = contents(&store, []).unwrap();
    drop(store);
    let report = repaired(&disk);
    assert_eq!(report.manifest, ManifestUse::Sound);
    assert!(report.is_complete() && report.warnings.is_empty());
    assert_eq!(report.keys, 2);
    let store = saved(&disk);
    assert_eq!(show(&contents(&store, []).unwrap()), show(&state));
    assert_eq!(store.get("a").unwrap().unwrap().version(), version);
    assert!(store.get("c").unwrap().is_none());
    // It goes on, with versions that were never given.
    store.put("new", "value").unwrap();
    assert!(store.get("new").unwrap().unwrap().version() > version);
    store.compact().unwrap();
    assert_eq!(store.get("a").unwrap().unwrap(), "3");
}

#[test]
fn what_stands_behind_damage_in_the_middle_of_a_segment_is_saved() {
    let (disk, state) = closed_store();
    // The second record of the second segment, and across the third and fourth of the third.
    disk.corrupt(&path("000000000002.seg"), 64 + 80 + 40, 1);
    overwrite(&disk, "000000000003.seg", 64 + 2 * 80 + 70, 20);
    let report = repaired(&disk);
    let lost: Vec<_> = report
        .lost
        .iter()
        .map(|lost| (lost.offset, lost.len, lost.records))
        .collect();
    assert_eq!(lost, [(64 + 80, 80, Some(1)), (64 + 2 * 80, 160, Some(2))]);
    assert!(
        report.lost[0]
            .to_string()
            .contains("000000000002.seg at offset 144: 80 bytes lost")
    );
    let all = all(&disk);
    assert_eq!(keys(&all), without(&[5, 10, 11]));
    assert!(all.iter().all(|(key, entry)| state[key] == *entry));
    // The hint files say what was lost: no deletion.
    assert!(!report.deletions_may_be_lost && !report.is_complete());
}

#[test]
fn a_store_without_its_manifest_is_saved_whole() {
    let (disk, state) = closed_store();
    disk.remove_raw(&path("MANIFEST"));
    let report = repaired(&disk);
    assert!(matches!(report.manifest, ManifestUse::Rebuilt { .. }));
    assert!(report.lost.is_empty());
    // Segments that a merge had replaced might have been there.
    assert!(report.deletions_may_be_lost && !report.warnings.is_empty());
    assert_eq!(show(&all(&disk)), show(&state));
}

#[test]
fn a_damaged_version_number_of_the_manifest_is_damage_and_a_newer_one_is_refused() {
    let (disk, state) = closed_store();
    let newer = copy(&disk);
    disk.corrupt(&path("MANIFEST"), 8, 4);
    assert!(matches!(
        repaired(&disk).manifest,
        ManifestUse::Rebuilt { .. }
    ));
    assert_eq!(show(&all(&disk)), show(&state));

    for (name, _) in newer.files(Path::new("/db")) {
        if is_kind(&name, "seg") || name == "MANIFEST" {
            newer.corrupt(&path(&name), 8, 4);
        }
    }
    let refused = run(&newer, &RepairOptions::new()).unwrap_err();
    assert!(
        matches!(refused, Error::UnsupportedVersion { found: 5, .. }),
        "{refused}"
    );
    assert!(newer.files(Path::new("/out")).is_empty());
}

#[test]
fn a_destroyed_segment_header_is_made_again_by_its_hint_file() {
    let (disk, state) = closed_store();
    // With the first record, as a lost sector would take it.
    overwrite(&disk, "000000000002.seg", 0, 64 + 20);
    let report = repaired(&disk);
    assert_eq!(keys(&all(&disk)), without(&[4]));
    assert!(all(&disk).iter().all(|(key, entry)| state[key] == *entry));
    assert_eq!((report.lost.len(), report.lost[0].records), (1, Some(1)));
    assert!(report.warnings[0].contains("000000000002.seg"));
}

#[test]
fn a_destroyed_segment_header_is_made_again_by_the_footer() {
    let (disk, state) = closed_store();
    overwrite(&disk, "000000000002.seg", 0, 64);
    disk.remove_raw(&path("000000000002.hint"));
    let report = repaired(&disk);
    assert!(report.lost.is_empty());
    assert_eq!(show(&all(&disk)), show(&state));
    let versions = |dir: &str| -> Vec<_> {
        let store = Store::builder(dir).build_store_on(disk.clone()).unwrap();
        (0..20_u8)
            .map(|key| store.get([key]).unwrap().unwrap().version())
            .collect()
    };
    let after = versions("/out");
    // Twenty puts, the first ones of the store.
    assert!(
        after
            .iter()
            .zip(1..)
            .all(|(version, number)| version.unwrap().get() == number)
    );
}

#[test]
fn a_segment_whose_header_tells_nothing_any_more_is_lost_and_said_to_be() {
    let (disk, _) = closed_store();
    overwrite(&disk, "000000000002.seg", 0, 64);
    let end = disk.read_raw(&path("000000000002.seg")).unwrap().len() as u64 - 64;
    overwrite(&disk, "000000000002.seg", end, 64);
    disk.remove_raw(&path("000000000002.hint"));
    let report = repaired(&disk);
    assert_eq!(keys(&all(&disk)), without(&[4, 5, 6, 7]));
    assert_eq!((report.lost[0].offset, report.lost[0].len), (0, end));
    assert_eq!(report.lost[0].records, None);
    assert!(report.deletions_may_be_lost);
}

#[test]
fn a_segment_that_is_missing_or_of_another_store_is_lost_and_the_rest_saved() {
    let other = SimDisk::new(77);
    let store = open(&other);
    for key in 0..20_u8 {
        store.put([key], [255; 50]).unwrap();
    }
    drop(store);
    let (disk, state) = closed_store();
    let foreign = other.read_raw(&path("000000000002.seg")).unwrap();
    disk.write_raw(&path("000000000002.seg"), &foreign);
    disk.write_raw(&path("000000000099.seg"), &foreign);
    disk.remove_raw(&path("000000000003.seg"));
    let report = repaired(&disk);
    assert_eq!(keys(&all(&disk)), without(&[4, 5, 6, 7, 8, 9, 10, 11]));
    assert!(all(&disk).iter().all(|(key, entry)| state[key] == *entry));
    let records: Vec<_> = report.lost.iter().map(|lost| lost.records).collect();
    assert_eq!(
        records[1],
        Some(4),
        "the hint file tells what was in the missing segment"
    );
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.kind == NoteKind::ForeignFile)
    );

    // The same without a manifest: most files say which store it is.
    disk.remove_raw(&path("MANIFEST"));
    let disk = without_out(&disk);
    repaired(&disk);
    assert_eq!(keys(&all(&disk)), without(&[4, 5, 6, 7, 8, 9, 10, 11]));
}

/// The damaged store alone, on another disk.
fn without_out(disk: &SimDisk) -> SimDisk {
    let fresh = SimDisk::new(99);
    fresh.create_dir(Path::new("/db")).unwrap();
    for (name, bytes) in disk.files(Path::new("/db")) {
        fresh.write_raw(&path(&name), &bytes);
    }
    fresh
}

#[test]
fn an_older_copy_of_a_segment_gives_what_it_has() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.put([0], [0; 50]).unwrap();
    store.put([1], [1; 50]).unwrap();
    let old = disk.read_raw(&path("000000000001.seg")).unwrap();
    for key in 2..20_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    drop(store);
    disk.write_raw(&path("000000000001.seg"), &old);
    let report = repaired(&disk);
    assert_eq!(keys(&all(&disk)), without(&[2, 3]));
    assert_eq!(report.lost[0].records, Some(2));
}

#[test]
fn a_damaged_batch_is_lost_as_a_whole_unless_parts_of_it_are_wanted() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.put([0], [0; 50]).unwrap();
    let mut batch = WriteBatch::new();
    for key in 1..4_u8 {
        batch.put([key], [key; 50]).unwrap();
    }
    store.write(&batch).unwrap();
    store.put([4], [4; 50]).unwrap();
    drop(store);
    // The second of the batch: behind the first record and the frame's 24 bytes.
    disk.corrupt(&path("000000000001.seg"), 64 + 80 + 24 + 80 + 30, 1);
    let other = copy(&disk);
    let report = repaired(&disk);
    assert_eq!(keys(&all(&disk)), [0, 4]);
    assert_eq!(report.lost.len(), 1);
    assert_eq!(
        (report.lost[0].offset, report.lost[0].len),
        (64 + 80, 24 + 3 * 80)
    );

    let report = run(&other, &RepairOptions::new().partial_batches(true)).unwrap();
    assert_eq!(keys(&all(&other)), [0, 1, 3, 4]);
    let lost: Vec<_> = report
        .lost
        .iter()
        .map(|lost| (lost.offset, lost.len))
        .collect();
    assert_eq!(lost, [(64 + 80, 24), (64 + 80 + 24 + 80, 80)]);
}

/// A store in which the segment of this number begins with the deletion of key 1, in 24 bytes, and
/// a newer value of key 2; the older ones of both are in a segment before it.
fn with_a_deletion() -> (SimDisk, String) {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    for key in 0..4_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    // Ends the segment.
    store.compact().unwrap();
    let segments = || {
        let names = disk
            .files(Path::new("/db"))
            .into_iter()
            .map(|(name, _)| name);
        names
            .filter(|name| is_kind(name, "seg"))
            .collect::<Vec<_>>()
    };
    let before = segments();
    store.delete([1]).unwrap();
    let number = segments().into_iter().find(|name| !before.contains(name));
    let number = number.unwrap().trim_end_matches(".seg").to_owned();
    store.put([2], [22; 50]).unwrap();
    for key in 4..12_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    drop(store);
    assert!(disk.read_raw(&path(&format!("{number}.hint"))).is_some());
    (disk, number)
}

#[test]
fn a_lost_deletion_that_a_hint_file_knows_of_is_kept() {
    let (disk, number) = with_a_deletion();
    disk.corrupt(&path(&format!("{number}.seg")), 64 + 10, 1);
    let report = repaired(&disk);
    assert!(!all(&disk).contains_key(&[1][..]), "it is back");
    assert!(!report.deletions_may_be_lost);
    assert_eq!(report.lost[0].records, Some(1));
    assert_eq!(report.older_values, 0);
}

#[test]
fn a_lost_deletion_that_nothing_knows_of_is_warned_of() {
    let (disk, number) = with_a_deletion();
    disk.corrupt(&path(&format!("{number}.seg")), 64 + 10, 1);
    disk.remove_raw(&path(&format!("{number}.hint")));
    let report = repaired(&disk);
    assert_eq!(
        all(&disk)[&[1][..]].0,
        [1; 50],
        "nothing says that it is deleted"
    );
    assert!(report.deletions_may_be_lost && !report.is_complete());
    assert!(
        report
            .warnings
            .iter()
            .any(|text| text.contains("may be back"))
    );
}

#[test]
fn an_older_value_in_place_of_a_lost_one_is_counted() {
    let (disk, number) = with_a_deletion();
    disk.corrupt(&path(&format!("{number}.seg")), 64 + 24 + 40, 1);
    let report = repaired(&disk);
    assert_eq!(all(&disk)[&[2][..]].0, [2; 50]);
    assert_eq!(report.older_values, 1);
    assert!(!report.deletions_may_be_lost);
}

#[test]
fn a_lost_value_that_has_expired_hides_what_is_older() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.put([0], [1; 50]).unwrap();
    store
        .put_with_ttl([0], [2; 50], Duration::from_secs(5))
        .unwrap();
    for key in 1..12_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    drop(store);
    disk.corrupt(&path("000000000001.seg"), 64 + 80 + 50, 1);
    let early = copy(&disk);
    repaired(&early);
    assert_eq!(all(&early)[&[0][..]].0, [1; 50]);
    disk.advance(6_000);
    repaired(&disk);
    assert!(!all(&disk).contains_key(&[0][..]));
}

#[test]
fn a_manifest_that_is_older_than_the_segments_is_not_believed() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.put("key", "value").unwrap();
    let old = disk.read_raw(&path("MANIFEST")).unwrap();
    for key in 0..20_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    let state = contents(&store, []).unwrap();
    drop(store);
    disk.write_raw(&path("MANIFEST"), &old);
    assert!(sim_builder(512).build_store_on(disk.clone()).is_err());
    let report = repaired(&disk);
    assert!(matches!(report.manifest, ManifestUse::Outdated { .. }));
    assert_eq!(show(&all(&disk)), show(&state));
    assert!(report.deletions_may_be_lost);
}

#[test]
fn segments_that_a_merge_had_replaced_do_no_harm_where_the_newest_records_are_left() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let ops = [
        Op::Write(put("a", "1".repeat(100))),
        Op::Write(put("b", "old".repeat(50))),
        Op::Write(put_ttl("c", "brief", 1_000)),
        Op::Write(put("b", "new".repeat(50))),
        Op::Write(put("d", "4".repeat(100))),
        Op::Write(delete("a")),
        Op::Write(put("a", "again")),
    ];
    let mut state = State::new();
    for op in &ops {
        op.apply(&store).unwrap();
        op.apply_to(&mut state, disk.now_ms());
    }
    disk.advance(2_000);
    let inputs = disk.files(Path::new("/db"));
    store.compact().unwrap();
    drop(store);
    for (name, bytes) in inputs {
        if is_kind(&name, "seg") && disk.read_raw(&path(&name)).is_none() {
            disk.write_raw(&path(&name), &bytes);
        }
    }
    disk.remove_raw(&path("MANIFEST"));
    let report = repaired(&disk);
    let state = visible(&state, disk.now_ms());
    assert_eq!(show(&all(&disk)), show(&state));
    // No record is there twice.
    assert!(report.records <= ops.len() as u64, "{report:?}");
}

#[test]
fn an_unfinished_write_is_left_out_as_opening_would() {
    let disk = SimDisk::new(1);
    let store = sim_builder(4096).build_store_on(disk.clone()).unwrap();
    for key in 0..5_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    let disk = copy(&disk);
    disk.corrupt(&path("000000000001.seg"), 64 + 4 * 80 + 20, 1);
    let report = repaired(&disk);
    assert!(report.is_complete());
    assert_eq!(report.notes[0].kind, NoteKind::TornTail);
    assert_eq!(keys(&all(&disk)), [0, 1, 2, 3]);
}

#[test]
fn blocks_that_cannot_be_read_cost_what_is_in_them() {
    let (fixture, state) = closed_store();
    let reads = {
        let disk = copy(&fixture);
        repaired(&disk);
        disk.reads()
    };
    for read in 0..reads {
        let disk = copy(&fixture);
        disk.fail_reads_at(read, true);
        let report = repair_on(&disk, "/db", "/out", &RepairOptions::new(), go_on);
        disk.heal();
        let Ok(report) = report else {
            // The directory, or what had just been written: then all of it is there.
            if disk.read_raw(Path::new("/out/MANIFEST")).is_some() {
                assert_eq!(show(&all(&disk)), show(&state));
            }
            continue;
        };
        let all = all(&disk);
        assert!(all.iter().all(|(key, entry)| state[key] == *entry));
        assert!(
            all.len() == 20 || !report.lost.is_empty(),
            "{read}: {report:?}"
        );
    }
}

/// Errors 13 and 24 of Unix: permission denied, and too many open files.
#[cfg(unix)] // reason: the numbers are another system's
#[test]
fn what_the_system_refuses_to_read_is_not_given_up_as_lost() {
    let (fixture, state) = closed_store();
    let mut refused = 0;
    for kind in [FailKind::Os(13), FailKind::Os(24)] {
        for read in 0.. {
            let disk = copy(&fixture);
            disk.fail_reads_with(read, kind, true);
            let report = repair_on(&disk, "/db", "/out", &RepairOptions::new(), go_on);
            disk.heal();
            match report {
                Ok(report) => {
                    assert!(report.lost.is_empty(), "{read}: {report:?}");
                    assert_eq!(show(&all(&disk)), show(&state));
                }
                Err(_) => refused += 1,
            }
            if disk.reads() <= read {
                break;
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_power_cut_during_a_repair_leaves_no_store_or_all_of_it_and_the_source_as_it_was() {
    let (fixture, _) = closed_store();
    fixture.corrupt(&path("000000000002.seg"), 64 + 80 + 40, 1);
    let ops = {
        let disk = copy(&fixture);
        let before = disk.ops();
        repaired(&disk);
        disk.ops() - before
    };
    let source = fixture.files(Path::new("/db"));
    let (mut none, mut whole) = (0, 0);
    for op in 0..ops {
        let disk = copy(&fixture);
        disk.stop_at(op);
        assert!(repair_on(&disk, "/db", "/out", &RepairOptions::new(), go_on).is_err());
        for plan in disk.crash_plans(12, op) {
            let after = disk.crash(&plan);
            assert_eq!(after.files(Path::new("/db")), source, "{op} {plan:?}");
            if after.read_raw(Path::new("/out/MANIFEST")).is_some() {
                assert_eq!(keys(&all(&after)), without(&[5]), "{op} {plan:?}");
                whole += 1;
            } else {
                let opened = Store::builder("/out").create_if_missing(false);
                let opened = opened.build_store_on(after.clone());
                assert!(opened.is_err(), "{op} {plan:?}: a part of it is a store");
                none += 1;
            }
        }
    }
    assert!(
        none > 50 && whole > 0,
        "{none} without, {whole} with a store"
    );
}

#[test]
fn a_repair_that_fails_takes_back_what_it_wrote() {
    let (fixture, state) = closed_store();
    let ops = {
        let disk = copy(&fixture);
        let before = disk.ops();
        repaired(&disk);
        disk.ops() - before
    };
    for op in 0..ops {
        for kind in [FailKind::Enospc, FailKind::Eio, FailKind::ShortWrite] {
            let disk = copy(&fixture);
            disk.fail_at(op, kind, true);
            let report = run(&disk, &RepairOptions::new());
            disk.heal();
            if report.is_ok() || disk.read_raw(Path::new("/out/MANIFEST")).is_some() {
                assert_eq!(show(&all(&disk)), show(&state), "{op} {kind:?}");
                continue;
            }
            let left = disk.files(Path::new("/out"));
            assert!(
                left.iter().all(|(name, _)| name == "LOCK"),
                "{op} {kind:?}: {left:?}"
            );
            // And so it can be tried again.
            assert!(repaired(&disk).is_complete());
        }
    }
}

#[test]
fn a_store_that_is_open_is_not_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    let store = Store::open(&source).unwrap();
    store.put("key", "value").unwrap();
    let locked = repair(&source, &out).unwrap_err();
    assert!(matches!(locked, Error::Locked { .. }), "{locked}");
    assert!(!out.exists());
    drop(store);
    // Not even the text in the lock file is another one afterwards.
    fs::write(source.join("LOCK"), "somebody, long ago").unwrap();
    assert_eq!(repair(&source, &out).unwrap().keys, 1);
    assert_eq!(
        fs::read(source.join("LOCK")).unwrap(),
        b"somebody, long ago"
    );
    assert_eq!(
        Store::open(&out).unwrap().get("key").unwrap().unwrap(),
        "value"
    );
}

#[test]
fn no_lock_file_is_made_in_the_damaged_store() {
    let (disk, _) = closed_store();
    disk.remove_raw(&path("LOCK"));
    repaired(&disk);
    assert!(disk.read_raw(&path("LOCK")).is_none());
}

#[test]
fn a_place_that_is_not_empty_or_inside_of_the_damaged_store_is_refused() {
    let (disk, _) = closed_store();
    repaired(&disk);
    let again = run(&disk, &RepairOptions::new()).unwrap_err();
    assert!(matches!(again, Error::ForeignFile { .. }), "{again}");
    for inside in ["/db", "/db/out"] {
        let refused = repair_on(&disk, "/db", inside, &RepairOptions::new(), go_on);
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::InvalidOption { .. }), "{refused}");
    }
    let nothing = repair_on(&disk, "/nothing", "/new", &RepairOptions::new(), go_on);
    assert!(matches!(nothing, Err(Error::NotFound { .. })));
    assert!(disk.list(Path::new("/new")).is_err());
}
