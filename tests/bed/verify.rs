//! What `verify` says of damage by name, and that it says nothing of a store that is being written
//! to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Rng, effort, go_on, is_kind, seed, sim_builder};
use crabkv::disk::{CrashPlan, SimDisk};
use crabkv::{DamageKind, Error, NoteKind, Store, VerifyReport, verify, verify_on};

fn path(name: &str) -> PathBuf {
    Path::new("/db").join(name)
}

fn on(disk: &SimDisk) -> VerifyReport {
    verify_on(disk, "/db", go_on).unwrap()
}

/// Twenty values of 50 bytes in segments of 512, closed.
fn closed_store() -> SimDisk {
    let disk = SimDisk::new(1);
    let store = sim_builder(512).build_store_on(disk.clone()).unwrap();
    for key in 0..20_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    drop(store);
    disk
}

fn damage(report: &VerifyReport) -> Vec<(&str, u64, DamageKind)> {
    let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    report
        .damage
        .iter()
        .map(|damage| {
            let name: &str = name(&damage.file).leak();
            (name, damage.offset, damage.kind)
        })
        .collect()
}

#[test]
fn a_sound_store_is_sound_and_counted() {
    let report = on(&closed_store());
    assert!(report.is_sound() && report.heals());
    assert_eq!((report.segments, report.records), (5, 20));
    assert!(report.hints >= 3 && report.notes.is_empty());
}

#[test]
fn all_damage_is_reported_with_its_place() {
    let disk = closed_store();
    // Records of 80 bytes: header 16, key 8, value 56. The first and third of the second segment,
    // and the first of the third.
    disk.corrupt(&path("000000000002.seg"), 64 + 30, 1);
    disk.corrupt(&path("000000000002.seg"), 64 + 2 * 80 + 3, 0x80);
    disk.corrupt(&path("000000000003.seg"), 64 + 79, 1);
    disk.corrupt(&path("000000000001.hint"), 40, 1);
    let report = on(&disk);
    assert_eq!(
        damage(&report),
        [
            ("000000000001.hint", 0, DamageKind::HintFile),
            ("000000000002.seg", 64, DamageKind::Record),
            ("000000000002.seg", 64 + 2 * 80, DamageKind::Record),
            ("000000000003.seg", 64, DamageKind::Record),
        ]
    );
    assert_eq!(report.records, 17);
    assert!(!report.heals());
    let text = report.damage[1].to_string();
    assert!(text.contains("000000000002.seg at offset 64"), "{text}");
}

#[test]
fn a_hint_file_or_footer_that_is_damaged_is_said_to_heal() {
    let disk = closed_store();
    disk.corrupt(&path("000000000001.hint"), 80, 1);
    let footer = disk.read_raw(&path("000000000002.seg")).unwrap().len() as u64 - 64;
    disk.corrupt(&path("000000000002.seg"), footer + 20, 1);
    let report = on(&disk);
    assert_eq!(
        damage(&report),
        [
            ("000000000001.hint", 0, DamageKind::HintFile),
            ("000000000002.seg", footer, DamageKind::Footer),
        ]
    );
    assert!(report.heals() && !report.is_sound());
    drop(sim_builder(512).build_store_on(disk.clone()).unwrap());
    assert!(on(&disk).is_sound());
}

#[test]
fn a_hint_file_with_a_good_checksum_that_lists_something_else_is_damaged() {
    let disk = closed_store();
    let file = path("000000000001.hint");
    let mut bytes = disk.read_raw(&file).unwrap();
    // The low byte of the first entry's sequence distance; then the checksum made to fit.
    bytes[68 + 6 + 4] ^= 1;
    let covered = bytes.len() - 4;
    let checksum = crc32_of(&bytes[..covered]);
    bytes[covered..].copy_from_slice(&checksum.to_le_bytes());
    disk.write_raw(&file, &bytes);
    assert_eq!(
        damage(&on(&disk)),
        [("000000000001.hint", 0, DamageKind::HintFile)]
    );
}

/// CRC-32 (IEEE), bit by bit.
fn crc32_of(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn what_is_missing_or_left_over_is_told_apart() {
    let disk = closed_store();
    disk.remove_raw(&path("000000000002.seg"));
    disk.remove_raw(&path("000000000003.hint"));
    let segment = disk.read_raw(&path("000000000001.seg")).unwrap();
    disk.write_raw(&path("000000000099.seg"), &segment);
    disk.write_raw(&path("000000000098.seg"), b"never came to be");
    disk.write_raw(&path("000000000001.torn"), b"cut");
    disk.write_raw(&path("notes.txt"), b"mine");
    disk.write_raw(&path("MANIFEST.tmp"), b"half");
    disk.write_raw(&path("CHECKPOINT.tmp"), b"half");
    let report = on(&disk);
    assert_eq!(
        damage(&report),
        [("000000000002.seg", 0, DamageKind::MissingSegment)]
    );
    let kinds: Vec<_> = report.notes.iter().map(|note| note.kind).collect();
    assert_eq!(
        kinds,
        [
            NoteKind::NoHintFile,
            NoteKind::TornCopy,
            NoteKind::Orphan,
            NoteKind::Orphan,
            NoteKind::Orphan,
            NoteKind::Orphan,
            NoteKind::ForeignFile,
        ]
    );
}

#[test]
fn a_segment_of_another_store_is_damage_in_place_of_one_and_beside_them() {
    let other = SimDisk::new(2);
    let store = sim_builder(512).build_store_on(other.clone()).unwrap();
    for key in 0..20_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    drop(store);
    let foreign = other.read_raw(&path("000000000002.seg")).unwrap();

    let disk = closed_store();
    disk.write_raw(&path("000000000002.seg"), &foreign);
    disk.write_raw(&path("000000000099.seg"), &foreign);
    assert_eq!(
        damage(&on(&disk)),
        [
            ("000000000002.seg", 0, DamageKind::SegmentHeader),
            ("000000000099.seg", 0, DamageKind::ForeignSegment),
        ]
    );
}

#[test]
fn a_manifest_that_is_older_than_the_segments_is_damage() {
    let disk = SimDisk::new(1);
    let store = sim_builder(512).build_store_on(disk.clone()).unwrap();
    store.put("key", "value").unwrap();
    let old = disk.read_raw(&path("MANIFEST")).unwrap();
    for key in 0..20_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    drop(store);
    disk.write_raw(&path("MANIFEST"), &old);
    let kinds: Vec<_> = on(&disk).damage.iter().map(|damage| damage.kind).collect();
    assert!(kinds.contains(&DamageKind::Manifest), "{kinds:?}");
}

#[test]
fn without_a_manifest_the_segments_are_verified_by_themselves() {
    let disk = closed_store();
    disk.remove_raw(&path("MANIFEST"));
    disk.corrupt(&path("000000000002.seg"), 70, 1);
    let report = on(&disk);
    assert_eq!(
        damage(&report),
        [
            ("MANIFEST", 0, DamageKind::Manifest),
            ("000000000002.seg", 64, DamageKind::Record),
        ]
    );
    assert_eq!((report.segments, report.records), (5, 19));
}

#[test]
fn a_directory_without_a_store_is_not_found_and_a_newer_store_is_unsupported() {
    let disk = SimDisk::new(1);
    let missing = verify_on(&disk, "/db", go_on).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    let empty = tempfile::tempdir().unwrap();
    let missing = verify(empty.path()).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let no_dir = verify(file.path()).unwrap_err();
    assert!(matches!(no_dir, Error::Io { .. }), "{no_dir}");

    let disk = closed_store();
    disk.corrupt(&path("MANIFEST"), 8, 2);
    let newer = verify_on(&disk, "/db", go_on).unwrap_err();
    assert!(
        matches!(newer, Error::UnsupportedVersion { found: 3, .. }),
        "{newer}"
    );
}

#[test]
fn a_checkpoint_that_was_not_finished_is_no_store_and_one_that_was_is_sound() {
    let disk = SimDisk::new(1);
    let store = sim_builder(512).build_store_on(disk.clone()).unwrap();
    for key in 0..20_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    store.checkpoint("/copy").unwrap();
    assert!(verify_on(&disk, "/copy", go_on).unwrap().is_sound());

    let disk = closed_store();
    disk.remove_raw(&path("MANIFEST"));
    disk.write_raw(&path("CHECKPOINT"), b"begun");
    let unfinished = verify_on(&disk, "/db", go_on).unwrap_err();
    assert!(
        matches!(unfinished, Error::Checkpoint { .. }),
        "{unfinished}"
    );
}

#[test]
fn the_end_that_a_crash_left_is_a_note_and_damage_before_it_is_damage() {
    let disk = SimDisk::new(1);
    let store = sim_builder(4096).build_store_on(disk.clone()).unwrap();
    for key in 0..5_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    let disk = disk.crash(&CrashPlan::KeepAll);
    let file = path("000000000001.seg");
    disk.corrupt(&file, 64 + 4 * 80 + 20, 1);
    let report = on(&disk);
    assert!(report.is_sound());
    assert_eq!(report.notes[0].kind, NoteKind::TornTail);
    assert_eq!(report.records, 4);
    disk.corrupt(&file, 64 + 80 + 20, 1);
    let report = on(&disk);
    assert_eq!(
        damage(&report),
        [("000000000001.seg", 64 + 80, DamageKind::Record)]
    );
    assert_eq!(report.records, 3);
}

#[test]
fn a_file_that_cannot_be_read_is_damage_of_that_file_alone() {
    let fixture = closed_store();
    let reads = {
        let disk = fixture.crash(&CrashPlan::KeepAll);
        on(&disk);
        disk.reads()
    };
    assert!(reads > 20);
    let mut found = 0;
    for read in 0..reads {
        let disk = fixture.crash(&CrashPlan::KeepAll);
        disk.fail_reads_at(read, true);
        // The list of files is all there is to go on.
        let Ok(report) = verify_on(&disk, "/db", go_on) else {
            continue;
        };
        // A read that fails once is tried again in smaller blocks, and may do then.
        assert!(report.damage.len() <= 1, "{:?}", report.damage);
        for damage in &report.damage {
            let hint = damage.kind == DamageKind::HintFile;
            assert!(hint || damage.kind == DamageKind::Unreadable, "{damage}");
            found += 1;
        }
    }
    assert!(found > 4);
    fixture.fail_reads_at(20, false);
    assert!(verify_on(&fixture, "/db", go_on).is_err() || !on(&fixture).is_sound());
}

/// Overwrites, deletes, batches and compactions, as fast as they go, until told to stop.
fn write_on<D: crabkv::disk::Disk>(store: &Store<D>, stop: &AtomicBool, seed: u64) {
    let mut rng = Rng(seed);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            let key = rng.below(60).to_string();
            match rng.below(10) {
                0 => drop(store.delete(&key).unwrap()),
                1 => {
                    let mut batch = crabkv::WriteBatch::new();
                    for _ in 0..5 {
                        batch.put(rng.below(60).to_string(), [7; 40]).unwrap();
                    }
                    store.write(&batch).unwrap();
                }
                2 => store
                    .put_with_ttl(&key, "brief", Duration::from_secs(1))
                    .unwrap(),
                _ => store.put(&key, vec![1; rng.below(200) as usize]).unwrap(),
            }
        }
        if rng.chance(20) {
            store.compact().unwrap();
        }
        if rng.chance(5) {
            store.close().unwrap();
        }
    }
}

/// Verifies beside a writer; every report must be sound.
fn stays_sound(rounds: u64, write: impl Fn(&AtomicBool) + Sync, check: impl Fn() -> VerifyReport) {
    let stop = AtomicBool::new(false);
    let mut records = 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&stop));
        let mut unsound = None;
        // On a slow machine the writer needs a while for its first write.
        for round in 0..100_000 {
            if round >= rounds && records > 0 {
                break;
            }
            let report = check();
            records += report.records;
            if !report.is_sound() || writer.is_finished() {
                unsound = Some(report);
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert!(unsound.is_none(), "{:?}", unsound.unwrap().damage);
    });
    assert!(records > 0, "nothing was verified");
}

#[test]
fn a_store_that_is_written_to_and_compacted_meanwhile_is_sound() {
    let seed = seed(11);
    let disk = SimDisk::new(seed);
    let store = sim_builder(2048).build_store_on(disk.clone()).unwrap();
    stays_sound(
        effort(300),
        |stop| write_on(&store, stop, seed),
        || on(&disk),
    );
}

#[test]
fn a_store_on_a_real_disk_that_is_written_to_meanwhile_is_sound_and_unchanged() {
    let seed = seed(12);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path())
        .segment_size(64 << 10)
        .sync_interval(Duration::from_millis(20))
        .build_store()
        .unwrap();
    store.put("first", "value").unwrap();
    stays_sound(
        effort(150),
        |stop| write_on(&store, stop, seed),
        || verify(dir.path()).unwrap(),
    );
    drop(store);
    let files = || {
        let mut files: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (fs::read(&path).unwrap(), path))
            .collect();
        files.sort_unstable();
        files
    };
    let before = files();
    assert!(
        before
            .iter()
            .any(|(_, path)| is_kind(path.to_str().unwrap(), "seg"))
    );
    assert!(verify(dir.path()).unwrap().is_sound());
    assert_eq!(files(), before);
}
