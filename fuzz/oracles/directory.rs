//! A whole data directory of any files, with what holds for everything that opens, checks, shows and
//! repairs one.
//!
//! The input says what is made right in them (a byte of flags), then file after file: which name (a byte),
//! the length (two bytes, little-endian) and the bytes; the last one is as long as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::path::Path;

use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::fuzzing::{self, Mending};
use crabkv::inspect::{Inspector, Item};
use crabkv::{CrabKvBuilder, Error, ReadMode, RepairOptions, Result, SeqNo, repair_on, verify_on};

use super::contents::{DIR, SimStore, State, builder, contents, is_hint, show, unchecked_contents};

/// The names that a file of the input can have, by their number.
const NAMES: [&str; 19] = [
    "MANIFEST",
    "000000000001.seg",
    "000000000002.seg",
    "000000000003.seg",
    "000000000004.seg",
    "000000000005.seg",
    "000000000006.seg",
    "000000000001.hint",
    "000000000002.hint",
    "000000000003.hint",
    "000000000004.hint",
    "000000000005.hint",
    "MANIFEST.tmp",
    "CHECKPOINT",
    "CHECKPOINT.tmp",
    "RESERVE",
    "000000000001.torn",
    "notes.txt",
    "18446744073709551615.seg",
];

/// Where a manifest says how many bits of a hash count.
const HASH_BITS_AT: usize = 40;

/// Where a repair puts what it saves.
const OUT: &str = "/out";

/// Room enough for all that is done here, and an end to what a hostile length can make a file grow to.
const CAPACITY: u64 = 1 << 20;

const MENDS_MANIFEST: u8 = 1;
const MENDS_RECORDS: u8 = 2;
const MENDS_FOOTERS: u8 = 4;
const MENDS_HINTS: u8 = 8;
const MAKES_HINTS: u8 = 16;
const BY_PREAD: u8 = 32;
const LARGE_SEGMENTS: u8 = 64;
const PARTIAL_BATCHES: u8 = 128;

/// A data directory.
pub(crate) fn directory(bytes: &[u8]) {
    let Some((&flags, rest)) = bytes.split_first() else {
        return;
    };
    let mut files = files_of(rest);
    let has = |flag: u8| flags & flag != 0;
    let mending = Mending {
        manifest: has(MENDS_MANIFEST),
        records: has(MENDS_RECORDS),
        footers: has(MENDS_FOOTERS),
        hints: has(MENDS_HINTS),
        fresh_hints: has(MAKES_HINTS),
    };
    fuzzing::directory(&mut files, mending);
    let directory = Directory { files, flags };
    directory.check();
}

/// The files in an input; of those of one name the last.
fn files_of(mut rest: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = BTreeMap::new();
    while let [name, low, high, after @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let name = NAMES[usize::from(*name) % NAMES.len()];
        let (bytes, after) = after.split_at(len);
        files.insert(name.to_owned(), bytes.to_vec());
        rest = after;
    }
    files.into_iter().collect()
}

struct Directory {
    files: Vec<(String, Vec<u8>)>,
    flags: u8,
}

impl Directory {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// A disk with the files, those that are wanted.
    fn disk(&self, wanted: impl Fn(&str) -> bool) -> SimDisk {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(CAPACITY));
        let made = disk.create_dir(Path::new(DIR));
        assert!(made.is_ok(), "no directory: {made:?}");
        for (name, bytes) in &self.files {
            if wanted(name) {
                disk.write_raw(&Path::new(DIR).join(name), bytes);
            }
        }
        disk
    }

    fn builder(&self) -> CrabKvBuilder {
        let size = if self.has(LARGE_SEGMENTS) { 8192 } else { 512 };
        let mode = if self.has(BY_PREAD) {
            ReadMode::Pread
        } else {
            ReadMode::Mmap
        };
        builder(size).read_mode(mode).create_if_missing(false)
    }

    fn open(&self, disk: &SimDisk) -> Result<SimStore> {
        self.builder().build_store_on(disk.clone())
    }

    fn check(&self) {
        let disk = self.disk(|_| true);
        let before = disk.files(Path::new(DIR));
        let verified = verify_on(&disk, DIR, |_| ControlFlow::Continue(()));
        let is_ambiguous = inspect(&disk) || self.may_collide();
        let is_sound = !is_ambiguous && verified.is_ok_and(|report| report.is_sound());
        let followed = self.followed(&disk, is_sound);
        let after = disk.files(Path::new(DIR));
        assert!(before == after, "looking changes something");

        let opened = self.opened(&self.disk(|_| true), is_sound);
        let no_hints = self.disk(|name| !is_hint(name));
        let without_hints = self.opened(&no_hints, is_sound);
        let repaired = self.repaired(&disk);
        let results = [&followed, &opened, &without_hints, &repaired];
        let is_excused = |result: &&Result<State>| matches!(result, Err(error) if is_excuse(error));
        if is_sound && !results.iter().any(is_excused) {
            // Nothing depends on how it is read.
            same("a reader", &followed, &opened);
            same("opening without hints", &without_hints, &opened);
            same("a repair", &repaired, &opened);
            assert!(opened.is_ok(), "sound, but: {:?}", opened.err());
        }
    }

    /// What somebody sees who only reads.
    fn followed(&self, disk: &SimDisk, is_sound: bool) -> Result<State> {
        let store = self.builder().read_only(true);
        let store = store.build_store_on(disk.clone())?;
        let seen = seen(&store, is_sound);
        assert!(store.put("key", "value").is_err(), "a reader writes");
        let again = store.refresh().and_then(|_| self::seen(&store, is_sound));
        if let (Ok(seen), Ok(again), true) = (&seen, &again, is_sound) {
            assert_eq!(show(seen), show(again), "a refresh without a writer");
        }
        seen
    }

    /// What is there when it is opened for writing. Then it is written to.
    fn opened(&self, disk: &SimDisk, is_sound: bool) -> Result<State> {
        let before = disk.files(Path::new(DIR));
        let opened = self.open(disk);
        if let (Err(Error::Corrupt { .. }), before) = (&opened, before) {
            let mut after = disk.files(Path::new(DIR));
            after.retain(|(name, _)| name != "LOCK");
            assert!(after == before, "a refused open changes something");
        }
        let store = opened?;
        let seen = seen(&store, is_sound);
        let Ok(state) = &seen else {
            // Damage in a record: it stays an error, whatever else is done.
            let _ = store.compact();
            let _ = store.put("next", "works");
            return seen;
        };
        let _ = store.changes(SeqNo::new(0)).map(Iterator::count);
        let mut expected = state.clone();
        match store.put("next", "works") {
            Ok(()) => {
                expected.insert(b"next".to_vec(), (b"works".to_vec(), None));
                let got = store.get("next").map(|value| value.map(|v| v.to_vec()));
                assert!(
                    matches!(&got, Ok(Some(value)) if value == b"works"),
                    "{got:?}"
                );
            }
            Err(error) => assert!(!is_sound || is_excuse(&error), "a sound store: {error}"),
        }
        let compacted = store.compact().map(drop);
        if let Err(error) = compacted {
            assert!(!is_sound || is_excuse(&error), "a sound store: {error}");
        }
        let _ = store.checkpoint("/checkpoint");
        drop(store);
        if !is_sound {
            let again = self.open(disk);
            let _ = again.and_then(|store| unchecked_contents(&store));
            return seen;
        }
        for disk in [disk.crash(&CrashPlan::LoseAll), disk.clone()] {
            let again = self.open(&disk).and_then(|store| contents(&store, []));
            same("opening again", &again, &Ok(expected.clone()));
        }
        seen
    }

    /// Whether the manifest asks for fewer bits of a hash than there are: keys collide then, and whether
    /// their records say so nobody checks.
    fn may_collide(&self) -> bool {
        let manifest = self.files.iter().find(|(name, _)| name == "MANIFEST");
        manifest.and_then(|(_, bytes)| bytes.get(HASH_BITS_AT)) != Some(&48)
    }

    /// What a repair saves: nothing that was not in a file.
    fn repaired(&self, disk: &SimDisk) -> Result<State> {
        let before = disk.files(Path::new(DIR));
        let options = RepairOptions::new().partial_batches(self.has(PARTIAL_BATCHES));
        let go_on = |_: &_| ControlFlow::Continue(());
        let report = repair_on(disk, DIR, OUT, &options, go_on);
        let after = disk.files(Path::new(DIR));
        assert!(before == after, "a repair changes what it repairs");
        let report = report?;
        let store = crabkv::Store::builder(OUT)
            .segment_size(512)
            .create_if_missing(false)
            .build_store_on(disk.clone())?;
        let seen = contents(&store, []);
        let state = match &seen {
            Err(error) if is_lie(error) => return seen,
            Err(error) => panic!("a repaired store has {error}"),
            Ok(state) => state,
        };
        assert!(
            state.len() as u64 <= report.keys,
            "more keys than were saved"
        );
        for (key, (value, _)) in state {
            let is_there = |bytes: &[u8]| {
                let mut files = self.files.iter();
                bytes.is_empty() || files.any(|(_, file)| contains(file, bytes))
            };
            assert!(is_there(key), "a key out of nothing: {key:?}");
            let is_compressed = store.get(key)?.is_some_and(|value| !value.is_zero_copy());
            assert!(is_compressed || is_there(value), "a value out of nothing");
        }
        seen
    }
}

/// Everything that can be looked at. Says whether two records have the same sequence number: which of
/// them counts is not said then, and the store never writes such.
fn inspect(disk: &SimDisk) -> bool {
    let Ok(inspector) = Inspector::open_on(disk.clone(), DIR) else {
        return false;
    };
    let Ok(segments) = inspector.segments() else {
        return false;
    };
    let (mut seqs, mut records_met) = (BTreeSet::new(), 0);
    let mut keys = vec![b"key".to_vec()];
    for segment in segments {
        let _ = inspector.hint(segment.id);
        let Ok(Some(records)) = inspector.records(segment.id) else {
            continue;
        };
        let mut end = 0;
        for item in records {
            assert!(item.offset() >= end, "records overlap");
            end = item.offset();
            if let Item::Record(record) = &item {
                seqs.insert(record.info.seq);
                records_met += 1;
            }
            let one = inspector.record(segment.id, item.offset());
            if let Ok(Some(record)) = one {
                let _ = record.value();
                if keys.len() < 8 {
                    keys.push(record.key().to_vec());
                }
            }
        }
        let _ = inspector.record(segment.id, u64::MAX);
    }
    for key in keys {
        let _ = inspector.history(&key);
    }
    seqs.len() < records_met
}

/// Whether a store that is sound may refuse in this way: it has something of another one beside it, or has
/// come to the end of its numbers, or a value is none.
fn is_excuse(error: &Error) -> bool {
    let is_other = matches!(
        error,
        Error::ForeignFile { .. }
            | Error::UnsupportedVersion { .. }
            | Error::UnsupportedFeatures { .. }
            | Error::Exhausted { .. }
    );
    is_other || is_lie(error)
}

/// Whether a value with a good checksum is not what compression makes: the store never writes such, and
/// nobody looks for it before the value is read.
fn is_lie(error: &Error) -> bool {
    matches!(error, Error::Corrupt { reason, .. } if reason.contains("decompress"))
}

fn seen(store: &SimStore, is_sound: bool) -> Result<State> {
    if is_sound {
        contents(store, [])
    } else {
        unchecked_contents(store)
    }
}

fn contains(file: &[u8], bytes: &[u8]) -> bool {
    file.windows(bytes.len()).any(|window| window == bytes)
}

fn same<E: Debug>(
    what: &str,
    found: &std::result::Result<State, E>,
    expected: &std::result::Result<State, E>,
) {
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            assert_eq!(show(found), show(expected), "{what} finds something else");
            assert!(found == expected, "{what} finds another value");
        }
        (found, expected) => panic!("{what}: {found:?} instead of {expected:?}"),
    }
}
