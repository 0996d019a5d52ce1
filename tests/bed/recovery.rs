//! Opening a store whose files are damaged, missing, foreign, or left by an interrupted step:
//! what can be made again is, what cannot is an error that names it, nothing is wrong in silence.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{
    Op, SimStore, State, contents, delete, entry_of, in_two_threads, is_kind, put, put_ttl, seal,
    show, sim_builder, visible,
};
use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::{Error, Result};

fn open(disk: &SimDisk) -> Result<SimStore> {
    sim_builder(512).build_store_on(disk.clone())
}

fn path(name: &str) -> PathBuf {
    Path::new("/db").join(name)
}

/// The files but the lock, which opening always writes.
fn files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let mut files = disk.files(Path::new("/db"));
    files.retain(|(name, _)| name != "LOCK");
    files
}

fn copy(disk: &SimDisk) -> SimDisk {
    disk.crash(&CrashPlan::KeepAll)
}

/// A small store with a merged segment, sealed ones and one that is appended to; and its states
/// after each of the last operations.
fn fixture(seed: u64, is_closed: bool) -> (SimDisk, Vec<State>) {
    let disk = SimDisk::new(seed);
    let store = open(&disk).unwrap();
    let mut states = vec![State::new()];
    let ops = [
        Op::Write(put("a", "1")),
        Op::Write(put_ttl("b", "brief", 1_000_000)),
        Op::Compact,
        Op::Write(put("c", "3".repeat(120))),
        Op::Batch(vec![put("d", "4"), put("e", "5".repeat(100)), delete("a")]),
        Op::Write(put("f", "6".repeat(200))),
        Op::Write(put("a", "again")),
        Op::Write(delete("c")),
        Op::Write(put("g", "last")),
    ];
    for op in ops {
        op.apply(&store).unwrap();
        let mut state = states.last().unwrap().clone();
        op.apply_to(&mut state, disk.now_ms());
        states.push(state);
    }
    let disk = if is_closed {
        drop(store);
        disk
    } else {
        let disk = copy(&disk);
        drop(store);
        disk
    };
    (disk, states)
}

type Damage<'a> = &'a dyn Fn(&SimDisk, &Path);

fn segments(disk: &SimDisk) -> Vec<String> {
    let names = files(disk).into_iter().map(|(name, _)| name);
    names.filter(|name| is_kind(name, "seg")).collect()
}

fn hints(disk: &SimDisk) -> Vec<String> {
    let names = files(disk).into_iter().map(|(name, _)| name);
    names.filter(|name| is_kind(name, "hint")).collect()
}

fn all(disk: &SimDisk, store: &SimStore, states: &[State]) -> Result<State> {
    let keys = states.iter().flat_map(State::keys);
    contents(store, keys).map(|state| visible(&state, disk.now_ms()))
}

#[track_caller]
fn assert_whole(disk: &SimDisk, states: &[State]) -> SimStore {
    let store = open(disk).unwrap();
    let seen = all(disk, &store, states).unwrap();
    assert_eq!(show(&seen), show(states.last().unwrap()));
    store
}

/// Opening fails, with an error about this file, and changes nothing.
#[track_caller]
fn assert_refused(disk: &SimDisk, name: &str) -> Error {
    let before = files(disk);
    let error = open(disk).expect_err("it opens");
    assert_eq!(files(disk), before, "something was changed");
    assert!(error.to_string().contains(name), "{error}");
    error
}

#[test]
fn a_hint_file_that_cannot_be_used_is_made_again_and_used_the_next_time() {
    let (fixture, states) = fixture(1, true);
    let names = hints(&fixture);
    assert!(names.len() >= 2, "{names:?}");
    let other = fixture.read_raw(&path(&names[1])).unwrap();
    let damages: [(&str, Damage); 6] = [
        ("there is no hint file", &|disk, path| disk.remove_raw(path)),
        ("the checksum does not match", &|disk, path| {
            disk.corrupt(path, 40, 1);
        }),
        ("the magic number is wrong", &|disk, path| {
            disk.corrupt(path, 0, 1);
        }),
        ("the checksum does not match", &|disk, path| {
            disk.truncate(path, 50);
        }),
        ("the bytes end too early", &|disk, path| {
            disk.truncate(path, 0);
        }),
        ("it belongs to another segment", &|disk, path| {
            disk.write_raw(path, &other);
        }),
    ];
    for (reason, damage) in damages {
        let disk = copy(&fixture);
        let intact = disk.read_raw(&path(&names[0]));
        damage(&disk, &path(&names[0]));
        let store = assert_whole(&disk, &states);
        let report = store.recovery_report();
        assert_eq!(report.scanned.len(), 1, "{report:?}");
        assert!(names[0].contains(&report.scanned[0].segment.to_string()));
        assert!(report.scanned[0].reason.contains(reason), "{report:?}");
        assert_eq!(disk.read_raw(&path(&names[0])), intact);
        drop(store);
        let store = assert_whole(&disk, &states);
        assert!(store.recovery_report().scanned.is_empty());
        assert_eq!(store.recovery_report().hints_used, names.len());
    }
}

#[test]
fn torn_tail_is_cut_saved_and_reported() {
    let (disk, mut states) = fixture(1, false);
    let active = segments(&disk).pop().unwrap();
    let bytes = disk.read_raw(&path(&active)).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    // Into the value of the last record.
    disk.corrupt(&path(&active), end as u64, 1);
    states.pop();
    let store = assert_whole(&disk, &states);
    let report = store.recovery_report();
    let torn = report.torn_tail.clone().unwrap();
    assert!(!report.clean);
    assert!(active.contains(&torn.segment.to_string()));
    assert_eq!(torn.saved_to, path(&active.replace(".seg", ".torn")));
    let saved = disk.read_raw(&torn.saved_to).unwrap();
    assert_eq!(torn.len, saved.len() as u64);
    assert_eq!(saved[..saved.len() - 1], bytes[torn.offset as usize..end]);
    drop(store);
    let store = assert_whole(&disk, &states);
    assert!(store.recovery_report().torn_tail.is_none());
    assert!(store.recovery_report().foreign_files.is_empty());
}

#[test]
fn the_copy_of_a_torn_tail_survives_an_interrupted_recovery() {
    let (fixture, mut states) = fixture(1, false);
    let active = segments(&fixture).pop().unwrap();
    let bytes = fixture.read_raw(&path(&active)).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    fixture.corrupt(&path(&active), end as u64, 1);
    states.pop();
    let whole = copy(&fixture);
    let torn = assert_whole(&whole, &states)
        .recovery_report()
        .torn_tail
        .clone()
        .unwrap();
    let expected = whole.read_raw(&torn.saved_to);
    for stop in 0.. {
        let disk = copy(&fixture);
        disk.stop_at(stop);
        let is_done = open(&disk).is_ok();
        for plan in disk.crash_plans(12, stop) {
            let disk = disk.crash(&plan);
            assert_whole(&disk, &states);
            assert_eq!(disk.read_raw(&torn.saved_to), expected, "{stop}, {plan:?}");
        }
        if is_done {
            break;
        }
    }
}

#[test]
fn damage_before_durable_data_is_an_error_that_names_file_and_offset() {
    let (fixture, _) = fixture(1, false);
    let active = segments(&fixture).pop().unwrap();
    // The first record of the segment, which later ones were written after.
    for offset in [64, 68, 80, 88] {
        let disk = copy(&fixture);
        disk.corrupt(&path(&active), offset, 0x10);
        match assert_refused(&disk, &active) {
            Error::Corrupt { file, offset, .. } => assert_eq!((file, offset), (path(&active), 64)),
            other => panic!("{other}"),
        }
    }
}

/// What became of damaged copies of a store.
#[derive(Debug, Default)]
struct Outcomes {
    refused: AtomicU64,
    refused_reads: AtomicU64,
    harmless: AtomicU64,
    torn: AtomicU64,
    cut_short: AtomicU64,
}

impl Outcomes {
    fn count(outcome: &AtomicU64) {
        outcome.fetch_add(1, Ordering::Relaxed);
    }

    /// `may_lose` says up to how many of the last states a damaged tail may hide, and whether it
    /// must be reported.
    fn judge(&self, disk: &SimDisk, states: &[State], may_lose: usize, context: &str) {
        let before = files(disk);
        let store = match open(disk) {
            Ok(store) => store,
            Err(Error::Corrupt { .. } | Error::UnsupportedVersion { .. }) => {
                assert!(files(disk) == before, "{context}: something was changed");
                return Outcomes::count(&self.refused);
            }
            Err(other) => panic!("{context}: {other}"),
        };
        // Each key by itself, which a look at all of them might not come to.
        let possible = &states[states.len().saturating_sub(may_lose + 1)..];
        for key in states.iter().flat_map(State::keys) {
            match store.get(key) {
                Ok(value) => {
                    let entry = value.as_ref().map(entry_of);
                    let is_right = possible
                        .iter()
                        .any(|state| state.get(key) == entry.as_ref());
                    assert!(is_right, "{context}: {} is {entry:?}", key.escape_ascii());
                }
                Err(Error::Corrupt { .. }) => {}
                Err(other) => panic!("{context}: {other}"),
            }
        }
        let seen = match all(disk, &store, states) {
            Ok(seen) => seen,
            Err(Error::Corrupt { .. }) => return Outcomes::count(&self.refused_reads),
            Err(other) => panic!("{context}: {other}"),
        };
        if seen == *states.last().unwrap() {
            return Outcomes::count(&self.harmless);
        }
        let lost = states.iter().rev().position(|state| *state == seen);
        let report = store.recovery_report();
        assert!(
            lost.is_some_and(|lost| lost <= may_lose),
            "{context}: found {}\n{report:?}",
            show(&seen)
        );
        Outcomes::count(if report.torn_tail.is_some() {
            &self.torn
        } else {
            &self.cut_short
        });
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_does_not_matter() {
    for is_closed in [true, false] {
        let (fixture, states) = fixture(1, is_closed);
        let active = segments(&fixture).pop();
        let outcomes = Outcomes::default();
        let mut mutants = 0;
        for (name, bytes) in files(&fixture) {
            // The last write of a store that was not closed: nothing says that it was durable.
            let may_lose = usize::from(!is_closed && Some(&name) == active.as_ref());
            mutants += bytes.len() * 8;
            in_two_threads(bytes.len() as u64, |offset| {
                for bit in 0..8 {
                    let disk = copy(&fixture);
                    disk.corrupt(&path(&name), offset, 1 << bit);
                    let context = format!("bit {bit} of byte {offset} of {name}");
                    outcomes.judge(&disk, &states, may_lose, &context);
                }
            });
        }
        println!("{mutants} mutants, closed: {is_closed}: {outcomes:?}");
        assert_eq!(outcomes.cut_short.into_inner(), 0);
        if is_closed {
            assert_eq!(outcomes.torn.into_inner(), 0);
        }
    }
}

#[test]
fn every_truncation_is_an_error_or_does_not_matter() {
    for is_closed in [true, false] {
        let (fixture, states) = fixture(1, is_closed);
        let active = segments(&fixture).pop();
        let outcomes = Outcomes::default();
        for (name, bytes) in files(&fixture) {
            // Of a store that was not closed, nothing but the records themselves says where the
            // segment ends that was appended to.
            let is_active = !is_closed && Some(&name) == active.as_ref();
            for len in 0..bytes.len() as u64 {
                let disk = copy(&fixture);
                disk.truncate(&path(&name), len);
                let may_lose = if is_active { states.len() } else { 0 };
                outcomes.judge(
                    &disk,
                    &states,
                    may_lose,
                    &format!("{name} cut to {len} bytes"),
                );
                let longer = copy(&fixture);
                longer.truncate(&path(&name), bytes.len() as u64 + len + 1);
                outcomes.judge(
                    &longer,
                    &states,
                    0,
                    &format!("{name} longer by {}", len + 1),
                );
            }
        }
        println!("closed: {is_closed}: {outcomes:?}");
        if is_closed {
            assert_eq!(
                outcomes.torn.into_inner() + outcomes.cut_short.into_inner(),
                0
            );
        }
    }
}

#[test]
fn a_sector_of_another_place_is_noticed() {
    let (fixture, states) = fixture(1, true);
    let outcomes = Outcomes::default();
    let all_files = files(&fixture);
    for (to, bytes) in &all_files {
        for (from, other) in &all_files {
            for at in (0..bytes.len().saturating_sub(64)).step_by(8) {
                for source in (0..other.len().saturating_sub(64)).step_by(64) {
                    let mut mutant = bytes.clone();
                    mutant[at..at + 64].copy_from_slice(&other[source..source + 64]);
                    if mutant == *bytes {
                        continue;
                    }
                    let disk = copy(&fixture);
                    disk.write_raw(&path(to), &mutant);
                    let context = format!("{from} from {source} at {at} of {to}");
                    outcomes.judge(&disk, &states, 0, &context);
                }
            }
        }
    }
    println!("{outcomes:?}");
}

#[test]
fn a_missing_or_empty_file_is_never_taken_for_an_empty_store() {
    for is_closed in [true, false] {
        let (fixture, states) = fixture(1, is_closed);
        for (name, _) in files(&fixture) {
            for is_missing in [true, false] {
                let disk = copy(&fixture);
                if is_missing {
                    disk.remove_raw(&path(&name));
                } else {
                    disk.truncate(&path(&name), 0);
                }
                if is_kind(&name, "hint") {
                    assert_whole(&disk, &states);
                } else {
                    let error = assert_refused(&disk, &name);
                    assert!(error.is_corruption(), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_segment_of_another_store_is_refused_in_place_and_beside() {
    let (fixture, _) = fixture(1, true);
    let (other, _) = self::fixture(2, true);
    let names = segments(&fixture);
    for name in &names {
        let disk = copy(&fixture);
        disk.write_raw(&path(name), &other.read_raw(&path(name)).unwrap());
        assert!(assert_refused(&disk, name).is_corruption());
    }
    let beside = "000000000099.seg";
    fixture.write_raw(&path(beside), &other.read_raw(&path(&names[0])).unwrap());
    let error = assert_refused(&fixture, beside);
    assert!(matches!(error, Error::ForeignFile { .. }), "{error}");
}

#[test]
fn two_segments_that_changed_places_are_refused() {
    let (disk, _) = fixture(1, true);
    let names = segments(&disk);
    let (a, b) = (
        disk.read_raw(&path(&names[0])),
        disk.read_raw(&path(&names[1])),
    );
    disk.write_raw(&path(&names[0]), &b.unwrap());
    disk.write_raw(&path(&names[1]), &a.unwrap());
    assert!(assert_refused(&disk, &names[0]).is_corruption());
}

#[test]
fn orphans_are_removed_and_foreign_files_left_and_both_reported() {
    let (disk, states) = fixture(1, true);
    let sealed = disk.read_raw(&path(&segments(&disk)[0])).unwrap();
    let orphans = ["000000000098.hint", "000000000099.seg", "MANIFEST.tmp"];
    disk.write_raw(&path(orphans[0]), b"a hint");
    // Of this store, but under a number that nothing names.
    disk.write_raw(&path(orphans[1]), &sealed);
    disk.write_raw(&path(orphans[2]), b"half a manifest");
    disk.write_raw(&path("notes.txt"), b"keep me");
    let store = assert_whole(&disk, &states);
    assert_eq!(store.recovery_report().orphans_removed, orphans);
    assert_eq!(store.recovery_report().foreign_files, ["notes.txt"]);
    drop(store);
    assert_eq!(disk.read_raw(&path("notes.txt")).unwrap(), b"keep me");
    assert!(
        orphans
            .iter()
            .all(|name| disk.read_raw(&path(name)).is_none())
    );
    let store = assert_whole(&disk, &states);
    assert!(store.recovery_report().orphans_removed.is_empty());
}

#[test]
fn a_newer_version_is_refused_and_nothing_is_written() {
    for is_closed in [true, false] {
        let (fixture, states) = fixture(1, is_closed);
        for (name, bytes) in files(&fixture) {
            let disk = copy(&fixture);
            let mut newer = bytes.clone();
            newer[8] = 2;
            disk.write_raw(&path(&name), &newer);
            if is_kind(&name, "hint") {
                assert_whole(&disk, &states);
                continue;
            }
            match assert_refused(&disk, &name) {
                Error::UnsupportedVersion {
                    file,
                    found,
                    supported,
                } => {
                    assert_eq!((file, found, supported), (path(&name), 2, 1));
                }
                other => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_crash_between_footer_and_manifest_leaves_a_whole_segment() {
    let mut between = 0;
    for stop in 0.. {
        let disk = SimDisk::new(1);
        let store = open(&disk).unwrap();
        store.put("a", "1").unwrap();
        let footers = |disk: &SimDisk| {
            let files = files(disk).into_iter();
            let footer = |bytes: &[u8]| bytes.windows(8).any(|window| window == b"CRABEND\n");
            files.filter(|(_, bytes)| footer(bytes)).count()
        };
        disk.stop_at(stop);
        let is_done = store.put("b", "x".repeat(500)).is_ok();
        drop(store);
        let image = disk.crash(&CrashPlan::KeepAll);
        let is_sealed = footers(&image) == 1;
        let manifest = image.read_raw(&path("MANIFEST")).unwrap();
        let store = open(&image).unwrap();
        assert_eq!(store.get("a").unwrap().unwrap(), "1");
        assert!(store.recovery_report().torn_tail.is_none());
        // The manifest of one segment: header 88, history 16, entry 24, checksum 4.
        if is_sealed && !is_done && manifest.len() == 88 + 16 + 24 + 4 {
            between += 1;
            assert!(!store.recovery_report().clean);
            assert_eq!(footers(&image), 1);
        }
        if is_done {
            break;
        }
    }
    assert!(between >= 4, "{between}");
}

#[test]
fn an_older_manifest_is_not_taken_for_the_newest() {
    let disk = SimDisk::new(1);
    let mut manifests = Vec::new();
    for round in 0..12_u32 {
        let store = open(&disk).unwrap();
        store.put(format!("key{round}"), "x".repeat(90)).unwrap();
        if round == 8 {
            store.compact().unwrap();
        }
        manifests.push(disk.read_raw(&path("MANIFEST")).unwrap());
        drop(store);
        manifests.push(disk.read_raw(&path("MANIFEST")).unwrap());
    }
    let newest = manifests.pop().unwrap();
    for manifest in manifests {
        let disk = copy(&disk);
        disk.write_raw(&path("MANIFEST"), &manifest);
        // Still good is one from before the last close, which finds the end by scanning.
        let Ok(store) = open(&disk) else {
            disk.write_raw(&path("MANIFEST"), &newest);
            assert_eq!(open(&disk).unwrap().len(), 12);
            continue;
        };
        assert_eq!(store.len(), 12);
    }
}

/// Behind what was written, a file system may show blocks of a file that is gone: the records of an
/// earlier life of the same segment, each where it would be expected.
#[test]
fn bytes_of_another_life_of_a_file_are_no_records() {
    let disk = SimDisk::new(1);
    let a = "x".repeat(300);
    open(&disk).unwrap().put("a", &a).unwrap();
    let other_life = copy(&disk);
    // So that it draws another salt.
    other_life.random_u64();
    let write = |disk: &SimDisk, keys: &[&str]| {
        let store = open(disk).unwrap();
        // Does not fit: begins another segment.
        store.put("b", "x".repeat(200)).unwrap();
        for key in keys {
            store.put(key, "of another life").unwrap();
        }
        let left = copy(disk);
        let active = path(&segments(&left).pop().unwrap());
        let bytes = left.read_raw(&active).unwrap();
        (left, active, bytes)
    };
    let (left, active, bytes) = write(&disk, &[]);
    let (_, other_active, other_bytes) = write(&other_life, &["ghost", "ghost too"]);
    assert_eq!(active, other_active);
    assert_ne!(bytes[..64], other_bytes[..64], "the salt is the same");
    let end = 1 + bytes.iter().rposition(|&byte| byte != 0).unwrap();
    let end = end.next_multiple_of(8);
    left.write_raw(&active, &[&bytes[..end], &other_bytes[end..]].concat());
    let store = open(&left).unwrap();
    assert!(store.get("ghost").unwrap().is_none());
    assert!(store.get("ghost too").unwrap().is_none());
    assert_eq!(store.len(), 2);
    assert!(store.recovery_report().torn_tail.is_some());
}

#[test]
fn a_footer_that_does_not_fit_its_records_is_refused() {
    // Two lives of one segment, which differ in one value.
    let [one, other] = ["one", "two"].map(|value| {
        let disk = SimDisk::new(1);
        let store = open(&disk).unwrap();
        store.put("a", value).unwrap();
        seal(&store);
        drop(store);
        disk
    });
    let name = segments(&one).pop().unwrap();
    let [bytes, other_bytes] = [&one, &other].map(|disk| disk.read_raw(&path(&name)).unwrap());
    let end = bytes.len() - 64;
    assert_eq!(bytes.len(), other_bytes.len());
    assert_ne!(bytes[end..], other_bytes[end..]);
    one.write_raw(&path(&name), &[&bytes[..end], &other_bytes[end..]].concat());
    one.remove_raw(&path(&hints(&one)[0]));
    let error = assert_refused(&one, &name);
    assert!(error.to_string().contains("footer"), "{error}");
}

#[test]
fn versions_that_a_crash_took_are_not_given_again() {
    for lost in 1..30 {
        let disk = SimDisk::new(lost);
        let open = |disk: &SimDisk| {
            let builder = sim_builder(4096).sync_interval(Duration::from_secs(1 << 20));
            builder.build_store_on(disk.clone()).unwrap()
        };
        let version = |store: &SimStore| store.get("key").unwrap().unwrap().version();
        let store = open(&disk);
        store.put("key", "durable").unwrap();
        store.sync().unwrap();
        for _ in 0..lost {
            store.put("key", "lost").unwrap();
        }
        let seen = version(&store);
        for plan in disk.crash_plans(8, lost) {
            let store = open(&disk.crash(&plan));
            store.put("key", "other").unwrap();
            assert!(version(&store) > seen, "{lost} lost, {plan:?}");
        }
    }
}

#[test]
fn what_has_expired_stays_gone_when_the_clock_goes_back() {
    let disk = SimDisk::new(1);
    let start = disk.now_ms();
    let store = open(&disk).unwrap();
    store.put("a", "older").unwrap();
    Op::Write(put_ttl("a", "brief", 1000))
        .apply(&store)
        .unwrap();
    disk.set_clock(start + 2000);
    assert!(store.get("a").unwrap().is_none());
    disk.set_clock(start);
    assert!(store.get("a").unwrap().is_none());
    store.put("b", "1").unwrap();
    drop(store);
    for _ in 0..2 {
        let store = open(&disk).unwrap();
        assert!(store.get("a").unwrap().is_none());
        store.compact().unwrap();
        assert!(store.get("a").unwrap().is_none());
    }
}
