//! Damaged stores: `verify` finds all of it, `repair` saves all the rest, and neither makes
//! anything worse.
//!
//! The mutants are of small stores with everything in them. What a mutant must still give is
//! computed from the sound files by a reader of the format of its own, below, which knows nothing of
//! checksums: so it can tell where each key's newest record lies, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::common::{
    Entry, Op, Rng, State, contents, delete, go_on, in_two_threads, is_kind, put, put_ttl, seed,
    visible,
};
use crate::layer::{Layer, one_in};
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
    /// Whether most of its keys share a hash with others.
    collides: bool,
    disk: SimDisk,
    state: State,
    /// Every value that each key ever had.
    history: BTreeMap<Vec<u8>, Vec<Entry>>,
    /// The newest record of each key that has any.
    newest: BTreeMap<Vec<u8>, Written>,
    files: Vec<(String, Vec<u8>)>,
    /// What the files held earlier.
    older: Vec<(String, Vec<u8>)>,
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
        let mut older = BTreeSet::new();
        for op in ops() {
            older.extend(disk.files(Path::new(DB)));
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
        older.retain(|(name, bytes)| {
            let now = files.iter().find(|(other, _)| other == name);
            now.is_some_and(|(_, now)| now != bytes)
        });
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
            collides: hash_bits < 8,
            state: visible(&state, disk.now_ms()),
            disk,
            history,
            newest,
            files,
            older: older.into_iter().collect(),
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

/// What is wrong with a store.
#[derive(Clone, Debug)]
enum Mutation {
    Flip {
        offset: usize,
        bit: u8,
    },
    /// As many flips, in one file.
    Flips(Vec<(usize, u8)>),
    Truncate(usize),
    Remove,
    Swap {
        a: usize,
        b: usize,
        len: usize,
    },
    Zero {
        start: usize,
        len: usize,
    },
    Garbage {
        start: usize,
        len: usize,
        seed: u64,
    },
    /// The file is now this one.
    Replace(Origin, Vec<u8>),
    /// There is a file of this name besides, with the same bytes.
    Duplicate(String),
    /// It has another name.
    Rename(String),
}

/// Where the bytes of a replaced file come from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// Another file of the same store.
    Other,
    /// The file of this name of another store.
    Elsewhere,
    /// What it held earlier.
    Older,
}

impl Mutation {
    /// Makes the change; gives the bytes that it touches, and whether it changed anything.
    fn apply(&self, disk: &SimDisk, name: &str, bytes: &[u8]) -> (Vec<Range<usize>>, bool) {
        let file = path(name);
        let mut changed = bytes.to_vec();
        let touched = match *self {
            Mutation::Flip { offset, bit } => {
                changed[offset] ^= 1 << bit;
                one(offset..offset + 1)
            }
            Mutation::Flips(ref flips) => {
                for &(offset, bit) in flips {
                    changed[offset] ^= 1 << bit;
                }
                flips.iter().map(|(at, _)| *at..*at + 1).collect()
            }
            Mutation::Truncate(len) => {
                changed.truncate(len);
                one(len..usize::MAX)
            }
            Mutation::Remove => {
                disk.remove_raw(&file);
                return (one(0..usize::MAX), true);
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
            Mutation::Replace(_, ref by) => {
                changed.clone_from(by);
                one(0..usize::MAX)
            }
            Mutation::Duplicate(ref other) => {
                disk.write_raw(&path(other), bytes);
                return (Vec::new(), true);
            }
            Mutation::Rename(ref other) => {
                disk.remove_raw(&file);
                disk.write_raw(&path(other), bytes);
                return (one(0..usize::MAX), true);
            }
        };
        disk.write_raw(&file, &changed);
        (touched, changed != bytes)
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

/// Damages a copy of the fixture, and checks everything that is promised of it; of repairing it, if
/// that is asked for. Says whether anything was changed.
fn check(fixture: &Fixture, name: &str, bytes: &[u8], mutation: &Mutation, repair: bool) -> bool {
    let disk = copy(&fixture.disk);
    let (touched, has_changed) = mutation.apply(&disk, name, bytes);
    if !has_changed {
        return false;
    }
    let context = || format!("{}: {name}: {:.300}", fixture.name, format!("{mutation:?}"));
    let before = disk.files(Path::new(DB));
    let unchanged = |what: &str| {
        let now = disk.files(Path::new(DB));
        assert_eq!(now, before, "{}: {what} changed something", context());
    };
    let report = verified(&disk);
    unchanged("verify");
    if repair {
        let repaired = repaired(&disk).unwrap_or_else(|error| panic!("{}: {error}", context()));
        unchanged("repair");
        check_saved(
            fixture, &disk, name, mutation, &touched, &repaired, &context,
        );
    }
    check_found(fixture, &disk, (name, bytes), mutation, report, &context);
    true
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
    let before = disk.files(Path::new(DB));
    let changed = disk.read_raw(&path(name)).unwrap_or_default();
    let opened = open(disk);
    // Records that share a hash are read last, when the end that a crash left has been dealt with.
    if opened.is_err() && (fixture.active.is_none() || !fixture.collides) {
        let is_part = |(name, _): &(String, Vec<u8>)| name != "LOCK";
        let files = disk.files(Path::new(DB)).into_iter();
        assert!(
            files.filter(is_part).eq(before.into_iter().filter(is_part)),
            "{}: a refused opening changed something",
            context()
        );
    }
    let Ok(report) = report else {
        assert_eq!(name, "MANIFEST", "{}", context());
        assert!(opened.is_err(), "{}: opens", context());
        return;
    };
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
        DamageKind::ForeignSegment,
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
        if let Ok(store) = opened {
            check_reads(fixture, &store, disk.now_ms(), context);
        }
        return;
    }
    // What is not called damage: the end of a segment that a crash left, a hint file that is not
    // there, a file that is too many. Everything else that is said to be sound has to be.
    let is_noted = report.notes != fixture.report.notes;
    let is_active = fixture.active.as_deref() == Some(name);
    if is_active && is_noted && !matches!(mutation, Mutation::Duplicate(_)) {
        assert!(
            report
                .notes
                .iter()
                .any(|note| note.kind == NoteKind::TornTail),
            "{}: {:?}",
            context(),
            report.notes
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
    let is_hint = is_kind(name, "hint");
    let is_harmless = match mutation {
        Mutation::Remove | Mutation::Rename(_) => is_hint && is_noted,
        Mutation::Duplicate(_) => is_noted,
        // One that names the same segments: from before the store was closed.
        Mutation::Replace(Origin::Older, _) => name == "MANIFEST",
        _ => false,
    };
    assert!(is_harmless, "{}: not noticed", context());
}

/// A store that opens though it is damaged: each key's value is right, or an error.
fn check_reads(
    fixture: &Fixture,
    store: &Store<SimDisk>,
    now_ms: u64,
    context: &dyn Fn() -> String,
) {
    for key in fixture.history.keys() {
        match store.get(key) {
            Ok(value) => {
                let entry = value.as_ref().map(crate::common::entry_of);
                let entry = entry.filter(|(_, expiry)| expiry.is_none_or(|at| at > now_ms));
                assert_eq!(
                    entry.as_ref(),
                    fixture.state.get(key),
                    "{}: {} is wrong in silence",
                    context(),
                    key.escape_ascii()
                );
            }
            Err(error) => assert!(error.is_corruption(), "{}: {error}", context()),
        }
    }
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
    // To a manifest of another store all segments are foreign.
    let is_foreign =
        matches!(mutation, Mutation::Replace(Origin::Elsewhere, _)) && name == "MANIFEST";
    let is_touched = |written: &Written| {
        is_foreign
            || written.file == name
                && (!spares_the_header
                    || touched.iter().any(|range| overlap(range, &written.range)))
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

/// A kind of damage, and all that there is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bits,
    Lengths,
    /// Two stretches of a file that change places: words, half lines, lines, sectors.
    Swaps,
    /// Missing, renamed, duplicated, replaced.
    Files,
}

const SWAPPED: [usize; 4] = [8, 16, 64, 128];

impl Fixture {
    /// All mutations of a kind, of one file.
    fn mutations(&self, kind: Kind, (name, bytes): &(String, Vec<u8>)) -> Vec<Mutation> {
        let len = bytes.len();
        match kind {
            Kind::Bits => (0..len * 8)
                .map(|bit| Mutation::Flip {
                    offset: bit / 8,
                    bit: (bit % 8) as u8,
                })
                .collect(),
            Kind::Lengths => (0..len).map(Mutation::Truncate).collect(),
            Kind::Swaps => {
                let mut swaps = Vec::new();
                for size in SWAPPED {
                    for b in 0..len / size {
                        swaps.extend((0..b).map(|a| Mutation::Swap {
                            a: a * size,
                            b: b * size,
                            len: size,
                        }));
                    }
                }
                swaps
            }
            Kind::Files => self.file_mutations(name),
        }
    }

    fn file_mutations(&self, name: &str) -> Vec<Mutation> {
        let mut mutations = vec![Mutation::Remove];
        let others = self.files.iter().filter(|(other, _)| other != name);
        for (_, bytes) in others {
            mutations.push(Mutation::Replace(Origin::Other, bytes.clone()));
        }
        let older = self.older.iter().filter(|(older, _)| older == name);
        mutations.extend(older.map(|(_, bytes)| Mutation::Replace(Origin::Older, bytes.clone())));
        let elsewhere = Fixture::new("another store", 99, 48, true);
        let elsewhere = elsewhere
            .files
            .into_iter()
            .filter(|(other, _)| other == name);
        mutations.extend(elsewhere.map(|(_, bytes)| Mutation::Replace(Origin::Elsewhere, bytes)));
        // Under a name of the same kind that no file has: a lower one than all, and a higher.
        if let Some((_, kind)) = name.rsplit_once('.') {
            for id in [0, 999] {
                let other = format!("{id:012}.{kind}");
                mutations.push(Mutation::Duplicate(other.clone()));
                mutations.push(Mutation::Rename(other));
            }
        }
        mutations
    }

    /// A mutation of any file, and which.
    fn random_mutation(&self, rng: &mut Rng) -> (usize, Mutation) {
        let file = rng.below(self.files.len() as u64) as usize;
        let len = self.files[file].1.len();
        let most = [1, 4, 8, 16, 64, 512][rng.below(6) as usize];
        let stretch = 1 + rng.below(most.min(len) as u64) as usize;
        let start = rng.below((len - stretch) as u64 + 1) as usize;
        let mutation = match rng.below(4) {
            0 => Mutation::Zero {
                start,
                len: stretch,
            },
            1 => Mutation::Garbage {
                start,
                len: stretch,
                seed: rng.next(),
            },
            _ => {
                let flip = |rng: &mut Rng| (rng.below(len as u64) as usize, rng.below(8) as u8);
                Mutation::Flips((0..2 + rng.below(3)).map(|_| flip(rng)).collect())
            }
        };
        (file, mutation)
    }
}

/// One mutant in so many is repaired too.
const REPAIRED: u64 = 8;

/// Checks mutants number `0..count`; gives how many are different from the sound store.
fn check_all(layer: &Layer, count: u64, check: impl Fn(u64) -> bool + Sync) -> u64 {
    let before = layer.done();
    in_two_threads(count, |number| layer.add(u64::from(check(number))));
    layer.done() - before
}

#[test]
fn damage_is_found_or_does_not_matter_and_costs_at_most_its_records() {
    let layer = Layer::begin("damage", "mutants", 500_000);
    let seed = seed(1);
    let fixtures = fixtures();
    // A short run does every so manieth of what is done in full otherwise.
    let step = one_in();
    let mut shares = Vec::new();
    for kind in [Kind::Bits, Kind::Lengths, Kind::Swaps, Kind::Files] {
        let mut mutants = 0;
        for fixture in &fixtures {
            for file in &fixture.files {
                let mutations = fixture.mutations(kind, file);
                let (name, bytes) = file;
                mutants += check_all(&layer, (mutations.len() as u64).div_ceil(step), |number| {
                    let mut rng = Rng(seed ^ number);
                    let index = number * step + rng.below(step);
                    let Some(mutation) = mutations.get(index as usize) else {
                        return false;
                    };
                    let repair = kind == Kind::Files || rng.below(REPAIRED) == 0;
                    check(fixture, name, bytes, mutation, repair)
                });
            }
        }
        shares.push(format!("{mutants} {kind:?}").to_lowercase());
    }
    let mut round = 0;
    while !layer.is_done() {
        let count = (layer.goal() - layer.done()).max(100);
        check_all(&layer, count, |number| {
            let mut rng = Rng(Rng(seed ^ round << 32 ^ number).next());
            let fixture = &fixtures[rng.below(fixtures.len() as u64) as usize];
            let (file, mutation) = fixture.random_mutation(&mut rng);
            let (name, bytes) = &fixture.files[file];
            let repair = rng.below(REPAIRED) == 0;
            check(fixture, name, bytes, &mutation, repair)
        });
        round += 1;
    }
    layer.end(&format!("{}, the rest at random", shares.join(", ")));
}
