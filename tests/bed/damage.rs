//! Damaged stores: `verify` finds all of it, `repair` saves all the rest, and neither makes
//! anything worse.
//!
//! The mutants are of small stores with everything in them. What a mutant must still give is
//! computed from the sound files by a reader of the format of its own, below, which knows nothing of
//! checksums: so it can tell where each key's newest record lies, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{
    Entry, Op, Rng, State, contents, delete, effort, go_on, in_two_threads, is_kind, put, put_ttl,
    seed, visible,
};
use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::{
    CrabKvBuilder, DamageKind, NoteKind, RepairOptions, RepairReport, Result, Store, VerifyReport,
    repair_on, verify_on,
};

const DB: &str = "/db";
const OUT: &str = "/out";

fn path(name: &str) -> PathBuf {
    Path::new(DB).join(name)
}

fn builder(dir: &str, hash_bits: u8) -> CrabKvBuilder {
    Store::builder(dir)
        .segment_size(512)
        .compression(true)
        .recovery_threads(std::num::NonZeroUsize::MIN)
        .verify(crabkv::Verify::EveryRead)
        .hash_bits(hash_bits)
}

fn open(disk: &SimDisk) -> Result<Store<SimDisk>> {
    builder(DB, 48).build_store_on(disk.clone())
}

fn copy(disk: &SimDisk) -> SimDisk {
    disk.crash(&CrashPlan::KeepAll)
}

fn verified(disk: &SimDisk) -> Result<VerifyReport> {
    verify_on(disk, DB, go_on)
}

fn repaired(disk: &SimDisk) -> Result<RepairReport> {
    repair_on(disk, DB, OUT, &RepairOptions::new(), go_on)
}

/// A record of a sound store, or a member of a batch.
#[derive(Clone, Debug)]
struct Written {
    seq: u64,
    is_put: bool,
    file: String,
    /// Its bytes, or those of its whole batch.
    range: Range<usize>,
}

/// A store with everything in it, and what is known of it.
struct Fixture {
    name: &'static str,
    disk: SimDisk,
    state: State,
    /// Every value that each key ever had.
    history: BTreeMap<Vec<u8>, Vec<Entry>>,
    /// The newest record of each key that has any.
    newest: BTreeMap<Vec<u8>, Written>,
    files: Vec<(String, Vec<u8>)>,
    active: Option<String>,
    /// Where each record of the active segment ends.
    active_ends: BTreeSet<usize>,
    report: VerifyReport,
}

fn noise(len: usize, from: u64) -> Vec<u8> {
    let mut rng = Rng(from);
    (0..len).map(|_| rng.next() as u8).collect()
}

fn ops() -> Vec<Op> {
    vec![
        Op::Write(put("a", "1")),
        Op::Write(put_ttl("brief", "b", 1_000)),
        Op::Write(put_ttl("long", noise(40, 1), 10_000_000)),
        Op::Write(put("overwritten", "old")),
        Op::Write(put("deleted", "gone")),
        Op::Batch(vec![
            put("in batch", "old"),
            put("batch 2", noise(60, 2)),
            delete("a"),
        ]),
        Op::Advance(2_000),
        Op::Compact,
        Op::Write(put("compressed", b"crab".repeat(100))),
        Op::Write(put("overwritten", noise(90, 3))),
        Op::Write(delete("deleted")),
        Op::Write(put("c", noise(100, 4))),
        Op::Batch(vec![
            put("in batch", "new"),
            delete("c"),
            put("batch 3", noise(150, 5)),
        ]),
        Op::Write(put("large", noise(700, 6))),
        Op::Write(put("a", "again")),
        Op::Write(put("", "the empty key")),
        Op::Write(put("empty", "")),
        Op::Write(put("deleted later", noise(100, 7))),
        Op::Write(put("d", noise(130, 8))),
        Op::Write(delete("deleted later")),
        Op::Write(put("overwritten", noise(20, 9))),
        Op::Write(put("e", noise(300, 10))),
        Op::Reopen,
        Op::Write(put("f", "6")),
        Op::Write(put_ttl("late", "7", 5_000_000)),
        Op::Batch(vec![put("batch 4", "8"), delete("d")]),
        Op::Write(put("a", "last")),
    ]
}

impl Fixture {
    fn new(name: &'static str, seed: u64, hash_bits: u8, is_closed: bool) -> Fixture {
        let disk = SimDisk::new(seed);
        let open = || builder(DB, hash_bits).build_store_on(disk.clone()).unwrap();
        let mut store = Some(open());
        let (mut state, mut history) = (State::new(), BTreeMap::<_, Vec<_>>::new());
        for op in ops() {
            match op {
                Op::Reopen => {
                    drop(store.take());
                    store = Some(open());
                }
                Op::Advance(ms) => disk.advance(ms),
                _ => op.apply(store.as_ref().unwrap()).unwrap(),
            }
            op.apply_to(&mut state, disk.now_ms());
            for write in op.writes() {
                let versions = history.entry(write.key.clone()).or_default();
                versions.extend(state.get(&write.key).cloned());
            }
        }
        let store = store.take().unwrap();
        let disk = if is_closed {
            drop(store);
            disk
        } else {
            copy(&disk)
        };
        let files: Vec<_> = disk
            .files(Path::new(DB))
            .into_iter()
            .filter(|(name, _)| name != "LOCK" && name != "RESERVE")
            .collect();
        let mut newest = BTreeMap::new();
        let (mut active, mut active_ends) = (None, BTreeSet::new());
        for (file, bytes) in files.iter().filter(|(file, _)| is_kind(file, "seg")) {
            let (records, end) = read(file, bytes);
            for (key, written) in &records {
                let slot: &mut Written = newest.entry(key.clone()).or_insert(written.clone());
                if written.seq >= slot.seq {
                    *slot = written.clone();
                }
            }
            if !bytes[end..].starts_with(b"CRABEND\n") {
                active = Some(file.clone());
                active_ends = records
                    .into_iter()
                    .map(|(_, written)| written.range.end)
                    .collect();
                active_ends.insert(64);
            }
        }
        let report = verify_on(&disk, DB, go_on).unwrap();
        assert!(report.is_sound(), "{name}: {:?}", report.damage);
        assert!(files.len() > 8, "{name} has too few files to be damaged");
        Fixture {
            name,
            state: visible(&state, disk.now_ms()),
            disk,
            history,
            newest,
            files,
            active,
            active_ends,
            report,
        }
    }
}

/// All records of a sound segment, and where they end.
fn read(file: &str, bytes: &[u8]) -> (Vec<(Vec<u8>, Written)>, usize) {
    let number = |at: usize, len: usize| {
        let bytes = bytes[at..at + len].iter().rev();
        bytes.fold(0_u64, |number, &byte| number << 8 | u64::from(byte))
    };
    let base = number(40, 8);
    let mut records = Vec::new();
    let mut at = 64;
    let mut frame_end = 0;
    let mut frame_start = 0;
    while at + 16 <= bytes.len() && bytes[at + 4] & 7 != 0 && bytes[at..at + 8] != *b"CRABEND\n" {
        let (flags, key_len) = (bytes[at + 4], number(at + 6, 2) as usize);
        let value_len = number(at + 8, 4) as usize;
        if flags & 7 == 3 {
            (frame_start, frame_end) = (at, at + 16 + value_len);
            at += 24;
            continue;
        }
        let key_at = at + if flags & 8 == 0 { 16 } else { 24 };
        let value_at = (key_at + key_len).next_multiple_of(8);
        let end = (value_at + value_len).next_multiple_of(8);
        let range = if at < frame_end {
            frame_start..frame_end
        } else {
            at..end
        };
        let written = Written {
            seq: base + number(at + 12, 4),
            is_put: flags & 7 == 1,
            file: file.to_owned(),
            range,
        };
        records.push((bytes[key_at..key_at + key_len].to_vec(), written));
        at = end;
    }
    (records, at)
}

/// A change of one file.
#[derive(Clone, Debug)]
enum Mutation {
    Flip { offset: usize, bit: u8 },
    Truncate(usize),
    Remove,
    Swap { a: usize, b: usize, len: usize },
    Zero { start: usize, len: usize },
    Garbage { start: usize, len: usize, seed: u64 },
}

impl Mutation {
    /// Makes the change; gives the bytes that it touches.
    fn apply(&self, disk: &SimDisk, name: &str, bytes: &[u8]) -> Vec<Range<usize>> {
        let file = path(name);
        let mut changed = bytes.to_vec();
        let touched = match *self {
            Mutation::Flip { offset, bit } => {
                changed[offset] ^= 1 << bit;
                one(offset..offset + 1)
            }
            Mutation::Truncate(len) => {
                changed.truncate(len);
                one(len..usize::MAX)
            }
            Mutation::Remove => {
                disk.remove_raw(&file);
                return one(0..usize::MAX);
            }
            Mutation::Swap { a, b, len } => {
                for i in 0..len {
                    changed.swap(a + i, b + i);
                }
                vec![a..a + len, b..b + len]
            }
            Mutation::Zero { start, len } => {
                changed[start..start + len].fill(0);
                one(start..start + len)
            }
            Mutation::Garbage { start, len, seed } => {
                changed[start..start + len].copy_from_slice(&noise(len, seed));
                one(start..start + len)
            }
        };
        disk.write_raw(&file, &changed);
        touched
    }

    /// Whether no more than one bit of a segment's header is changed, which can be put right.
    fn spares_the_header(&self, touched: &[Range<usize>]) -> bool {
        matches!(self, Mutation::Flip { .. }) || touched.iter().all(|range| range.start >= 64)
    }
}

fn one(range: Range<usize>) -> Vec<Range<usize>> {
    std::iter::once(range).collect()
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Damages a copy of the fixture, and checks everything that is promised of it.
fn check(fixture: &Fixture, name: &str, bytes: &[u8], mutation: &Mutation) {
    let disk = copy(&fixture.disk);
    let touched = mutation.apply(&disk, name, bytes);
    if disk.read_raw(&path(name)).as_deref() == Some(bytes) {
        return;
    }
    let context = || format!("{}: {name}: {mutation:?}", fixture.name);
    let before = disk.files(Path::new(DB));

    let report = verified(&disk);
    assert_eq!(
        disk.files(Path::new(DB)),
        before,
        "{}: verify changed something",
        context()
    );
    let repair = repaired(&disk).unwrap_or_else(|error| panic!("{}: {error}", context()));
    assert_eq!(
        disk.files(Path::new(DB)),
        before,
        "{}: repair changed something",
        context()
    );
    check_saved(fixture, &disk, name, mutation, &touched, &repair, &context);
    check_found(fixture, &disk, (name, bytes), mutation, report, &context);
}

/// Damage is found, or nothing is wrong.
fn check_found(
    fixture: &Fixture,
    disk: &SimDisk,
    (name, bytes): (&str, &[u8]),
    mutation: &Mutation,
    report: Result<VerifyReport>,
    context: &dyn Fn() -> String,
) {
    let Ok(report) = report else {
        assert_eq!(name, "MANIFEST", "{}", context());
        return;
    };
    let changed = disk.read_raw(&path(name)).unwrap_or_default();
    let opened = open(disk);
    let is_same = |store: &Store<SimDisk>| {
        let seen = contents(store, fixture.history.keys());
        seen.is_ok_and(|seen| visible(&seen, disk.now_ms()) == fixture.state)
    };
    if report.heals() && !report.is_sound() {
        let store = opened.unwrap_or_else(|error| panic!("{}: {error}", context()));
        assert!(
            is_same(&store),
            "{}: does not heal: {:?}",
            context(),
            report.damage
        );
        return;
    }
    let refused = [
        DamageKind::Manifest,
        DamageKind::MissingSegment,
        DamageKind::SegmentHeader,
        DamageKind::SegmentLength,
    ];
    if report
        .damage
        .iter()
        .any(|damage| refused.contains(&damage.kind))
    {
        assert!(opened.is_err(), "{}: opens: {:?}", context(), report.damage);
        return;
    }
    if !report.is_sound() {
        return;
    }
    // What is not called damage: the end of a segment that a crash left, and a hint file that is
    // not there. Everything else that is said to be sound has to be.
    let is_noted = report.notes != fixture.report.notes;
    let is_active = fixture.active.as_deref() == Some(name);
    if is_active && is_noted {
        assert!(
            report
                .notes
                .iter()
                .any(|note| note.kind == NoteKind::TornTail)
        );
        return;
    }
    // A segment that was being appended to, cut between two records, or zeros from there on: nothing
    // on the disk says that there was more.
    let is_cut_at = |&end: &usize| {
        changed.get(..end) == bytes.get(..end) && changed[end..].iter().all(|&byte| byte == 0)
    };
    if is_active && fixture.active_ends.iter().any(is_cut_at) {
        return;
    }
    let store = opened.unwrap_or_else(|error| panic!("{}: {error}", context()));
    assert!(is_same(&store), "{}: said to be sound", context());
    assert!(
        is_noted && is_kind(name, "hint") && matches!(mutation, Mutation::Remove),
        "{}: not noticed",
        context()
    );
}

/// Every key whose newest record is not touched is saved, and nothing is invented.
fn check_saved(
    fixture: &Fixture,
    disk: &SimDisk,
    name: &str,
    mutation: &Mutation,
    touched: &[Range<usize>],
    report: &RepairReport,
    context: &dyn Fn() -> String,
) {
    let store = Store::builder(OUT).verify(crabkv::Verify::EveryRead);
    let store = store.build_store_on(disk.clone());
    let store = store.unwrap_or_else(|error| panic!("{}: {error}", context()));
    assert!(store.recovery_report().clean && store.recovery_report().scanned.is_empty());
    assert_eq!(store.recovery_report().keys, report.keys, "{}", context());
    let saved = contents(&store, fixture.history.keys()).unwrap();
    let saved = visible(&saved, disk.now_ms());
    let spares_the_header = mutation.spares_the_header(touched);
    let is_active = fixture.active.as_deref() == Some(name);
    let is_touched = |written: &Written| {
        written.file == name
            && (!spares_the_header || touched.iter().any(|range| overlap(range, &written.range)))
    };
    for (key, entry) in &fixture.state {
        if !is_touched(&fixture.newest[key]) {
            assert_eq!(
                saved.get(key),
                Some(entry),
                "{}: {}",
                context(),
                key.escape_ascii()
            );
        }
    }
    for (key, entry) in &saved {
        assert!(
            fixture.history[key].contains(entry),
            "{}: {} was never written",
            context(),
            key.escape_ascii()
        );
        if fixture.state.contains_key(key) {
            continue;
        }
        // A key that had been deleted.
        let newest = &fixture.newest[key];
        let key = key.escape_ascii();
        assert!(
            !newest.is_put && is_touched(newest),
            "{}: {key} is back",
            context()
        );
        // What the last write before a crash did looks like one that was not finished.
        let is_told = report.deletions_may_be_lost || is_active;
        assert!(is_told, "{}: {key} is back in silence", context());
    }
    if saved != fixture.state {
        assert!(
            !report.is_complete() || fixture.active.as_deref() == Some(name),
            "{}",
            context()
        );
    }
}

fn fixtures() -> Vec<Fixture> {
    vec![
        Fixture::new("closed", 1, 48, true),
        Fixture::new("crashed", 2, 48, false),
        Fixture::new("closed, colliding", 3, 3, true),
        Fixture::new("crashed, colliding", 4, 3, false),
    ]
}

/// Checks about `share` of `count` mutations, others for each seed.
fn for_some(share: u64, count: u64, seed: u64, check: impl Fn(u64) + Sync) -> u64 {
    let share = share.min(count);
    let checked = AtomicU64::new(0);
    in_two_threads(share, |number| {
        // One of each stretch of equal length.
        let (start, end) = (number * count / share, (number + 1) * count / share);
        let index = start + Rng(seed ^ number).below(end - start);
        check(index);
        checked.fetch_add(1, Ordering::Relaxed);
    });
    checked.into_inner()
}

#[test]
fn a_flipped_bit_is_found_and_costs_at_most_its_record() {
    let seed = seed(1);
    for fixture in fixtures() {
        let total: usize = fixture.files.iter().map(|(_, bytes)| bytes.len() * 8).sum();
        let checked = for_some(effort(3_500), total as u64, seed, |index| {
            let mut index = index as usize;
            for (name, bytes) in &fixture.files {
                if index < bytes.len() * 8 {
                    let (offset, bit) = (index / 8, (index % 8) as u8);
                    return check(&fixture, name, bytes, &Mutation::Flip { offset, bit });
                }
                index -= bytes.len() * 8;
            }
        });
        println!("{}: {checked} of {total} bits", fixture.name);
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_found_and_costs_at_most_what_was_cut() {
    let seed = seed(2);
    for fixture in fixtures() {
        let total: usize = fixture.files.iter().map(|(_, bytes)| bytes.len()).sum();
        for_some(effort(800), total as u64, seed, |index| {
            let mut len = index as usize;
            for (name, bytes) in &fixture.files {
                if len < bytes.len() {
                    return check(&fixture, name, bytes, &Mutation::Truncate(len));
                }
                len -= bytes.len();
            }
        });
    }
}

#[test]
fn a_missing_file_is_found_and_costs_at_most_what_was_in_it() {
    for fixture in fixtures() {
        for (name, bytes) in &fixture.files {
            check(&fixture, name, bytes, &Mutation::Remove);
            check(&fixture, name, bytes, &Mutation::Truncate(0));
        }
    }
}

#[test]
fn swapped_zeroed_and_overwritten_stretches_are_found_and_cost_at_most_their_records() {
    let seed = seed(3);
    for fixture in fixtures() {
        for_some(effort(800), effort(800), seed, |number| {
            let mut rng = Rng(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9)));
            let (name, bytes) = &fixture.files[rng.below(fixture.files.len() as u64) as usize];
            let len = [8, 16, 64, 128][rng.below(4) as usize].min(bytes.len() / 2);
            let start = rng.below((bytes.len() - len) as u64 + 1) as usize;
            let mutation = match rng.below(3) {
                0 => {
                    let sectors = (bytes.len() / len) as u64;
                    let (a, b) = (rng.below(sectors) as usize, rng.below(sectors) as usize);
                    if a == b {
                        return;
                    }
                    Mutation::Swap {
                        a: a * len,
                        b: b * len,
                        len,
                    }
                }
                1 => Mutation::Zero { start, len },
                _ => Mutation::Garbage {
                    start,
                    len,
                    seed: rng.next(),
                },
            };
            check(&fixture, name, bytes, &mutation);
        });
    }
}
