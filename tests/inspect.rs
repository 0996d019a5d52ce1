//! What `crabkv::inspect` shows of a store: what is on the disk, whole, damaged, or being written to.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Rng, SimStore, effort, remove_hints, seal, seed, sim_builder};
use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::inspect::{History, Inspector, Item, Record, RecordKind, SegmentState, VersionState};
use crabkv::{DamageKind, Error, SegmentId, SeqNo, Store, WriteBatch};

const FIRST: SegmentId = SegmentId::new(1);

fn path(name: &str) -> PathBuf {
    Path::new("/db").join(name)
}

fn store(disk: &SimDisk) -> SimStore {
    sim_builder(4096).build_store_on(disk.clone()).unwrap()
}

fn inspect(disk: &SimDisk) -> Inspector<SimDisk> {
    Inspector::open_on(disk.clone(), "/db").unwrap()
}

fn items(disk: &SimDisk, id: u64) -> Vec<Item> {
    let records = inspect(disk).records(SegmentId::new(id)).unwrap();
    records.unwrap().collect()
}

/// Offset, key and kind of each record, and what else there is by a word.
fn shown(items: &[Item]) -> Vec<(u64, String)> {
    let show = |item: &Item| {
        let text = match item {
            Item::Record(record) => {
                format!("{} {}", record.info.kind, record.key().escape_ascii())
            }
            Item::BatchFrame(frame) => format!("frame of {}", frame.records),
            Item::Damaged(range) => format!("{} damaged", range.len),
            Item::TornTail(range) => format!("{} torn", range.len),
            other => panic!("{other:?}"),
        };
        (item.offset(), text)
    };
    items.iter().map(show).collect()
}

fn records(items: Vec<Item>) -> Vec<Record> {
    let record = |item| match item {
        Item::Record(record) => record,
        other => panic!("{other:?}"),
    };
    items.into_iter().map(record).collect()
}

/// Sequence number, segment and state of each version.
fn versions(history: &History) -> Vec<(u64, u64, VersionState)> {
    history
        .versions
        .iter()
        .map(|version| {
            let seq = version.record.seq.get();
            (seq, version.segment.get(), version.state)
        })
        .collect()
}

/// Twenty values of 50 bytes in segments of 512, closed: five segments with records of 80 bytes.
fn closed_store() -> SimDisk {
    let disk = SimDisk::new(1);
    let store = sim_builder(512).build_store_on(disk.clone()).unwrap();
    for key in 0..20_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    drop(store);
    disk
}

#[test]
fn an_empty_store_has_a_manifest_and_no_records() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    let inspector = inspect(&disk);
    let manifest = inspector.manifest().unwrap();
    assert_eq!((manifest.version, manifest.flags), (1, 1));
    assert_eq!(manifest.hash_bits, 48);
    assert_eq!(manifest.next_seq, SeqNo::new(1));
    assert_eq!(manifest.store.to_string().len(), 32);
    let history = manifest.history.unwrap();
    assert_eq!(history.complete_from.get(), 0);
    assert_eq!(history.deletions_from.get(), 0);
    for segment in inspector.segments().unwrap() {
        assert!(segment.damage.is_empty());
        assert!(items(&disk, segment.id.get()).is_empty());
    }
    assert!(inspector.history("key").unwrap().versions.is_empty());
    assert!(inspector.records(SegmentId::new(99)).unwrap().is_none());
    assert!(inspector.record(SegmentId::new(99), 64).unwrap().is_none());
    assert!(inspector.hint(SegmentId::new(99)).unwrap().is_none());
    drop(store);
}

#[test]
fn the_manifest_is_shown_as_the_format_has_it() {
    // The worked example of docs/FORMAT.md.
    let disk = SimDisk::new(1);
    disk.set_clock(1_735_689_600_000);
    let store = sim_builder(256).build_store_on(disk.clone()).unwrap();
    store.put("hello", "world").unwrap();
    store.delete("hello").unwrap();
    drop(store);
    let inspector = inspect(&disk);
    let manifest = inspector.manifest().unwrap();
    assert_eq!(manifest.path, path("MANIFEST"));
    assert_eq!(
        manifest.store.to_string(),
        "c15c0289ec2d0a9167ec8e65a18debbe"
    );
    assert_eq!(manifest.hash_seed, 0xf893_a2ee_fb32_555e);
    assert_eq!((manifest.generation, manifest.next_segment.get()), (3, 2));
    assert_eq!(manifest.next_seq.get(), 3);
    assert_eq!(manifest.clock_ms, 1_735_689_600_000);
    let listed: Vec<_> = manifest
        .segments
        .iter()
        .map(|segment| (segment.id.get(), segment.state))
        .collect();
    assert_eq!(listed, [(1, SegmentState::Sealed { data_len: 120 })]);

    let segments = inspector.segments().unwrap();
    let segment = &segments[0];
    assert_eq!(
        (segment.file_len, segment.data_len()),
        (Some(184), Some(120))
    );
    let header = segment.header.unwrap();
    assert_eq!(
        (header.base_seq.get(), header.salt),
        (1, 0x71c1_8690_ee42_c90b)
    );
    let footer = segment.footer.unwrap();
    assert_eq!((footer.records, footer.data_checksum), (2, 0x164c_1ac1));
    assert_eq!((footer.lowest_seq.get(), footer.highest_seq.get()), (1, 2));
    assert_eq!(
        (footer.earliest_expiry_ms, footer.latest_expiry_ms),
        (None, None)
    );
    let file = segment.hint.as_ref().unwrap();
    assert_eq!(
        (file.path.clone(), file.file_len),
        (path("000000000001.hint"), 104)
    );

    let hint = inspector.hint(FIRST).unwrap().unwrap();
    assert_eq!((hint.records, hint.prefix_bytes, hint.flags), (2, 0, 0));
    assert_eq!((hint.data_len, hint.data_checksum), (120, 0x164c_1ac1));
    let entries: Vec<_> = hint
        .entries()
        .map(|entry| {
            (
                entry.hash,
                entry.offset,
                entry.len,
                entry.seq.get(),
                entry.tombstone,
            )
        })
        .collect();
    assert_eq!(
        entries,
        [
            (0x01c1_fcad_201b, 64, Some(32), 1, false),
            (0x01c1_fcad_201b, 96, Some(24), 2, true),
        ]
    );
}

#[test]
fn records_are_shown_with_everything_that_their_headers_say() {
    let disk = SimDisk::new(1);
    let store = sim_builder(4096)
        .compression(true)
        .build_store_on(disk.clone())
        .unwrap();
    store.put("plain", "value").unwrap();
    store.put("long", vec![b'x'; 1000]).unwrap();
    store
        .put_with_ttl("brief", "b", Duration::from_secs(60))
        .unwrap();
    store.delete("plain").unwrap();

    let records = records(items(&disk, 1));
    let plain = records[0].info;
    assert_eq!(
        (plain.offset, plain.len, plain.kind),
        (64, 32, RecordKind::Put)
    );
    assert_eq!((plain.seq.get(), plain.key_len), (1, 5));
    assert_eq!((plain.stored_len, plain.value_len), (5, Some(5)));
    assert_eq!((plain.compressed, plain.expires_at_ms), (false, None));
    assert!(!plain.collides && !plain.batched);
    assert_eq!(plain.durable_upto, Some(64));
    assert_eq!(records[0].value().unwrap().as_deref(), Some(&b"value"[..]));

    let long = records[1].info;
    assert!(long.compressed && long.stored_len < 200);
    assert_eq!(long.value_len, Some(1000));
    assert_eq!(records[1].stored_value().len(), long.stored_len);
    assert_eq!(records[1].value().unwrap().unwrap(), vec![b'x'; 1000]);

    assert_eq!(records[2].info.expires_at_ms, Some(disk.now_ms() + 60_000));
    assert_eq!(records[3].info.kind, RecordKind::Tombstone);
    assert_eq!(records[3].value().unwrap(), None);
    assert_eq!(records[3].key(), b"plain");
}

#[test]
fn a_batch_is_shown_as_its_frame_and_then_its_records() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    let mut batch = WriteBatch::new();
    batch.put("key", "value").unwrap();
    batch.delete("old").unwrap();
    store.write(&batch).unwrap();
    store.put("after", "it").unwrap();
    let items = items(&disk, 1);
    assert_eq!(
        shown(&items),
        [
            (64, "frame of 2".to_owned()),
            (88, "put key".to_owned()),
            (120, "tombstone old".to_owned()),
            (144, "put after".to_owned()),
        ]
    );
    let Item::BatchFrame(frame) = &items[0] else {
        panic!("it was shown as one");
    };
    assert_eq!((frame.len, frame.seq.get()), (80, 1));
    let Item::Record(member) = &items[1] else {
        panic!("it was shown as one");
    };
    assert!(member.info.batched);
    let state = versions(&inspect(&disk).history("old").unwrap());
    assert_eq!(state, [(2, 1, VersionState::Deleted)]);
}

#[test]
fn every_version_of_a_key_is_shown_newest_first_with_what_became_of_it() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    store.put("key", "one").unwrap();
    store.put("other", "x").unwrap();
    store.delete("key").unwrap();
    seal(&store);
    store
        .put_with_ttl("key", "two", Duration::from_secs(1))
        .unwrap();
    seal(&store);
    store.put("key", "three").unwrap();

    let inspector = inspect(&disk);
    let history = inspector.history("key").unwrap();
    assert_eq!(
        versions(&history),
        [
            (5, 3, VersionState::Live),
            (4, 2, VersionState::Stale),
            (3, 1, VersionState::Stale),
            (1, 1, VersionState::Stale),
        ]
    );
    assert_eq!((history.segments_by_hint, history.segments_read), (2, 1));
    assert!(history.damage.is_empty());
    let kinds: Vec<_> = history.versions.iter().map(|v| v.record.kind).collect();
    let (put, tombstone) = (RecordKind::Put, RecordKind::Tombstone);
    assert_eq!(kinds, [put, put, tombstone, put]);
    let values: Vec<_> = history
        .versions
        .iter()
        .map(|v| inspector.record(v.segment, v.record.offset).unwrap())
        .map(|record| record.unwrap().value().unwrap().map(|v| v.to_vec()))
        .collect();
    let value = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(values, [value("three"), value("two"), None, value("one")]);
}

#[test]
fn a_newest_version_that_has_expired_is_said_to_be_expired_also_by_the_stores_clock() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    store
        .put_with_ttl("key", "brief", Duration::from_secs(1))
        .unwrap();
    let state = || versions(&inspect(&disk).history("key").unwrap())[0].2;
    assert_eq!(state(), VersionState::Live);
    disk.advance(1000);
    assert_eq!(state(), VersionState::Expired);
    drop(store);
    // The wall clock jumps back, but the manifest knows how late it was.
    disk.set_clock(disk.now_ms() - 500);
    assert_eq!(state(), VersionState::Expired);
}

#[test]
fn keys_that_share_a_hash_have_histories_of_their_own() {
    let disk = SimDisk::new(1);
    let builder = sim_builder(4096).hash_bits(1);
    let store = builder.build_store_on(disk.clone()).unwrap();
    for round in 0..3 {
        for key in ["a", "b", "c", "d"] {
            store.put(key, format!("{key}{round}")).unwrap();
        }
        seal(&store);
    }
    let inspector = inspect(&disk);
    assert_eq!(inspector.manifest().unwrap().hash_bits, 1);
    let collide = |item: &Item| matches!(item, Item::Record(record) if record.info.collides);
    assert!(items(&disk, 1).iter().any(collide));
    for (n, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let history = inspector.history(key).unwrap();
        let n = n as u64 + 1;
        let (live, stale) = (VersionState::Live, VersionState::Stale);
        assert_eq!(
            versions(&history),
            [(n + 8, 3, live), (n + 4, 2, stale), (n, 1, stale)]
        );
        assert_eq!(history.segments_by_hint, 3);
    }
    assert!(inspector.history("e").unwrap().versions.is_empty());
}

#[test]
fn a_history_is_the_same_without_hint_files_and_without_a_manifest() {
    let disk = SimDisk::new(1);
    let store = sim_builder(512).build_store_on(disk.clone()).unwrap();
    for round in 0..6 {
        for key in 0..5_u8 {
            store.put([key], [round; 50]).unwrap();
        }
    }
    store.delete([3]).unwrap();
    drop(store);
    let all = || {
        let inspector = inspect(&disk);
        let of = |key| inspector.history([key]).unwrap();
        let histories: Vec<_> = (0..5).map(of).collect();
        let read: usize = histories.iter().map(|h| h.segments_read).sum();
        let versions: Vec<_> = histories.into_iter().map(|h| h.versions).collect();
        (versions, read)
    };
    let (with_hints, _) = all();
    assert_eq!(with_hints[3].len(), 7);
    assert_eq!(with_hints[3][0].state, VersionState::Deleted);
    remove_hints(&disk, || true);
    let (without, read) = all();
    assert_eq!(without, with_hints);
    assert!(read >= 5 * 7, "{read}");
    disk.remove_raw(&path("MANIFEST"));
    assert_eq!(all().0, with_hints);
}

#[test]
fn a_damaged_record_is_a_range_and_the_records_around_it_are_shown() {
    let disk = closed_store();
    disk.corrupt(&path("000000000002.seg"), 64 + 80 + 30, 1);
    let shown = shown(&items(&disk, 2));
    assert_eq!(shown[0], (64, "put \\x04".to_owned()));
    assert_eq!(shown[1], (64 + 80, "80 damaged".to_owned()));
    assert_eq!(shown[2], (64 + 160, "put \\x06".to_owned()));

    let inspector = inspect(&disk);
    let error = inspector.record(SegmentId::new(2), 64 + 80).unwrap_err();
    assert!(
        matches!(error, Error::Corrupt { offset: 144, .. }),
        "{error}"
    );
    assert!(inspector.record(SegmentId::new(2), 64).unwrap().is_some());

    // Whose record it is cannot be told for sure, so it is no version, but it is not hidden.
    let history = inspector.history([5]).unwrap();
    assert!(history.versions.is_empty());
    assert_eq!(history.damage.len(), 1);
    let damage = &history.damage[0];
    assert_eq!((damage.offset, damage.kind), (144, DamageKind::Record));
    assert_eq!(damage.file, path("000000000002.seg"));
    // A hint file says that the others have nothing to do with it.
    assert!(inspector.history([7]).unwrap().damage.is_empty());
}

#[test]
fn the_records_of_a_batch_whose_frame_is_damaged_are_shown() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    let mut batch = WriteBatch::new();
    batch.put("a", "1").unwrap().put("b", "2").unwrap();
    store.write(&batch).unwrap();
    store.put("after", "it").unwrap();
    seal(&store);
    // In the padding of the second member.
    disk.corrupt(&path("000000000001.seg"), 64 + 24 + 32 + 31, 1);
    assert_eq!(
        shown(&items(&disk, 1)),
        [
            (64, "24 damaged".to_owned()),
            (88, "put a".to_owned()),
            (120, "32 damaged".to_owned()),
            (152, "put after".to_owned()),
        ]
    );
}

#[test]
fn a_damaged_header_hides_the_records_and_says_so() {
    let disk = closed_store();
    disk.corrupt(&path("000000000002.seg"), 20, 1);
    let inspector = inspect(&disk);
    let segments = inspector.segments().unwrap();
    assert_eq!(segments.len(), 5);
    assert!(segments[1].header.is_none() && segments[0].header.is_some());
    let kinds: Vec<_> = segments[1].damage.iter().map(|d| d.kind).collect();
    assert_eq!(kinds, [DamageKind::SegmentHeader]);
    let data_len = segments[1].data_len().unwrap();
    assert_eq!(
        shown(&items(&disk, 2)),
        [(0, format!("{data_len} damaged"))]
    );
    let error = inspector.record(SegmentId::new(2), 64).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    let history = inspector.history([0]).unwrap();
    assert_eq!(history.versions.len(), 1);
    assert_eq!(history.damage[0].kind, DamageKind::SegmentHeader);
}

#[test]
fn a_damaged_footer_or_hint_file_is_said_and_nothing_is_hidden_by_it() {
    let disk = closed_store();
    disk.corrupt(&path("000000000001.hint"), 80, 1);
    disk.corrupt(&path("000000000003.hint"), 45, 1);
    let footer = disk.read_raw(&path("000000000002.seg")).unwrap().len() as u64 - 64;
    disk.corrupt(&path("000000000002.seg"), footer + 20, 1);
    let inspector = inspect(&disk);
    let damage: Vec<_> = inspector
        .segments()
        .unwrap()
        .into_iter()
        .flat_map(|segment| segment.damage)
        .map(|damage| (damage.offset, damage.kind))
        .collect();
    // The first hint file is damaged behind what a list of segments reads.
    assert_eq!(
        damage,
        [(footer, DamageKind::Footer), (0, DamageKind::HintFile)]
    );
    for id in [1, 3] {
        let error = inspector.hint(SegmentId::new(id)).unwrap_err();
        assert!(error.is_corruption(), "{error}");
    }
    for key in 0..20 {
        let history = inspector.history([key]).unwrap();
        assert_eq!(history.versions.len(), 1, "{key}");
        assert!(history.segments_read >= 3 && history.damage.is_empty());
    }
}

#[test]
fn the_hint_file_of_another_segment_is_refused() {
    let disk = closed_store();
    let other = disk.read_raw(&path("000000000001.hint")).unwrap();
    disk.write_raw(&path("000000000002.hint"), &other);
    let error = inspect(&disk).hint(SegmentId::new(2)).unwrap_err();
    assert!(
        error.to_string().contains("belongs to segment 1"),
        "{error}"
    );
    assert_eq!(inspect(&disk).history([6]).unwrap().versions.len(), 1);
}

#[test]
fn a_hint_file_that_is_being_made_is_not_taken_for_a_damaged_one() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    store.put("key", "value").unwrap();
    disk.write_raw(&path("000000000001.hint"), b"CRABHNT\n");
    let segments = inspect(&disk).segments().unwrap();
    assert!(segments[0].damage.is_empty());
    assert_eq!(segments[0].hint.as_ref().unwrap().file_len, 8);
    assert!(inspect(&disk).hint(FIRST).unwrap().is_none());
    drop(store);
}

#[test]
fn a_segment_that_is_cut_short_or_missing_is_damage() {
    let disk = closed_store();
    let data_len = inspect(&disk).segments().unwrap()[1].data_len().unwrap();
    disk.truncate(&path("000000000002.seg"), 64 + 2 * 80 + 10);
    disk.remove_raw(&path("000000000003.seg"));
    let inspector = inspect(&disk);
    let segments = inspector.segments().unwrap();
    assert_eq!(segments[1].damage[0].kind, DamageKind::SegmentLength);
    assert_eq!(segments[2].damage[0].kind, DamageKind::MissingSegment);
    assert_eq!(segments[2].file_len, None);
    let shown = shown(&items(&disk, 2));
    assert_eq!(shown.len(), 3);
    let lost = data_len - (64 + 160);
    assert_eq!(shown[2], (64 + 160, format!("{lost} damaged")));
    let error = inspector.records(SegmentId::new(3)).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    let history = inspector.history([0]).unwrap();
    assert_eq!(history.versions.len(), 1);
    let kinds: Vec<_> = history.damage.iter().map(|d| d.kind).collect();
    assert!(kinds.contains(&DamageKind::MissingSegment), "{kinds:?}");
}

#[test]
fn without_a_manifest_the_segments_that_are_there_are_shown() {
    for missing in [true, false] {
        let disk = closed_store();
        let before = inspect(&disk).segments().unwrap();
        if missing {
            disk.remove_raw(&path("MANIFEST"));
        } else {
            disk.corrupt(&path("MANIFEST"), 60, 1);
        }
        let inspector = inspect(&disk);
        let damage = inspector.manifest().unwrap_err();
        assert_eq!(damage.kind, DamageKind::Manifest);
        assert_eq!(inspector.segments().unwrap()[..4], before[..4]);
        assert_eq!(items(&disk, 2).len(), 4);
        assert_eq!(inspector.history([19]).unwrap().versions.len(), 1);
    }
}

#[test]
fn a_torn_tail_is_shown_as_one_and_damage_before_it_as_damage() {
    let disk = SimDisk::new(1);
    let store = store(&disk);
    for key in 0..5_u8 {
        store.put([key], [key; 50]).unwrap();
    }
    let disk = disk.crash(&CrashPlan::KeepAll);
    let file = path("000000000001.seg");
    disk.corrupt(&file, 64 + 4 * 80 + 20, 1);
    let last = shown(&items(&disk, 1)).pop().unwrap();
    assert_eq!(last.0, 64 + 4 * 80);
    assert!(last.1.ends_with("torn"), "{last:?}");
    assert!(inspect(&disk).history([4]).unwrap().versions.is_empty());
    disk.corrupt(&file, 64 + 80 + 20, 1);
    let second = &shown(&items(&disk, 1))[1];
    assert_eq!(*second, (64 + 80, "80 damaged".to_owned()));
    drop(store);
}

#[test]
fn what_is_no_store_or_a_newer_one_is_refused() {
    let disk = SimDisk::new(1);
    let missing = Inspector::open_on(disk, "/db").unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let no_dir = Inspector::open(file.path()).unwrap_err();
    assert!(matches!(no_dir, Error::Io { .. }), "{no_dir}");
    let disk = closed_store();
    disk.corrupt(&path("MANIFEST"), 8, 2);
    let newer = Inspector::open_on(disk, "/db").unwrap_err();
    let is_newer = matches!(newer, Error::UnsupportedVersion { found: 3, .. });
    assert!(is_newer, "{newer}");
}

#[test]
fn a_read_that_fails_is_damage_or_an_error_and_never_a_panic_or_a_wrong_answer() {
    let fixture = closed_store();
    let look = |disk: &SimDisk| {
        let inspector = Inspector::open_on(disk.clone(), "/db")?;
        let segments = inspector.segments()?;
        let history = inspector.history([6])?;
        let records = shown(
            &inspector
                .records(SegmentId::new(2))?
                .unwrap()
                .collect::<Vec<_>>(),
        );
        let hint = inspector.hint(FIRST)?.unwrap().records;
        Ok::<_, Error>((segments, history, records, hint))
    };
    let disk = fixture.crash(&CrashPlan::KeepAll);
    let (segments, history, records, hint) = look(&disk).unwrap();
    let reads = disk.reads();
    assert!(reads > 20);
    for read in 0..reads {
        let disk = fixture.crash(&CrashPlan::KeepAll);
        disk.fail_reads_at(read, true);
        let Ok(found) = look(&disk) else {
            continue;
        };
        let is_said = found.0.iter().any(|segment| !segment.damage.is_empty());
        assert!(is_said || found.0 == segments, "{read}");
        let is_said = !found.1.damage.is_empty();
        assert!(is_said || found.1.versions == history.versions, "{read}");
        let is_said = found.2.iter().any(|(_, text)| text.ends_with("damaged"));
        assert!(is_said || found.2 == records, "{read}");
        assert_eq!(found.3, hint, "{read}");
    }
}

/// Overwrites and merges, so fast that segments vanish under the inspector's hands.
fn write_on<D: Disk>(store: &Store<D>, stop: &AtomicBool, seed: u64) {
    let mut rng = Rng(seed);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            let key = rng.below(40).to_string();
            match rng.below(8) {
                0 => drop(store.delete(&key).unwrap()),
                1 => {
                    let mut batch = WriteBatch::new();
                    batch.put(&key, [7; 40]).unwrap();
                    batch.put("batched", [8; 40]).unwrap();
                    store.write(&batch).unwrap();
                }
                _ => store.put(&key, vec![1; rng.below(200) as usize]).unwrap(),
            }
            store.increment("counter", 1).unwrap();
        }
        if rng.chance(30) {
            store.compact().unwrap();
        }
        if rng.chance(5) {
            store.close().unwrap();
        }
    }
}

/// Looks at everything beside a writer, until the writer has merged segments away often enough.
fn stays_right<D: Disk>(store: &Store<D>, seed: u64, open: impl Fn() -> Inspector<D>) {
    store.put("constant", "stays").unwrap();
    let stop = AtomicBool::new(false);
    let mut last = 0;
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(store, &stop, seed));
        // What fails here must not leave the writer running.
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while rounds < effort(200) || last < 500 {
                assert!(!writer.is_finished(), "the writer has failed");
                let inspector = open();
                for segment in inspector.segments().unwrap() {
                    assert!(segment.damage.is_empty(), "{:?}", segment.damage);
                    let records = inspector.records(segment.id).unwrap();
                    for item in records.into_iter().flatten() {
                        assert!(!matches!(item, Item::Damaged(_)), "{item:?}");
                    }
                    inspector.hint(segment.id).unwrap();
                }
                let constant = inspector.history("constant").unwrap();
                assert_eq!(constant.versions.len(), 1, "{constant:?}");
                assert_eq!(constant.versions[0].state, VersionState::Live);
                let counter = inspector.history("counter").unwrap();
                assert!(counter.damage.is_empty(), "{:?}", counter.damage);
                let seqs = counter.versions.iter().map(|version| version.record.seq);
                assert!(seqs.clone().rev().is_sorted(), "{counter:?}");
                let newest = seqs.max().map_or(0, SeqNo::get);
                assert!(newest >= last, "{newest} after {last}");
                last = newest;
                rounds += 1;
            }
        }));
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        checked.unwrap();
    });
}

#[test]
fn beside_a_writer_that_merges_nothing_seems_damaged_and_no_key_is_missing() {
    let seed = seed(21);
    let disk = SimDisk::new(seed);
    let store = sim_builder(2048).build_store_on(disk.clone()).unwrap();
    stays_right(&store, seed, || inspect(&disk));
}

#[test]
fn beside_a_writer_on_a_real_disk_nothing_seems_damaged_and_nothing_is_changed() {
    let seed = seed(22);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::builder(dir.path())
        .segment_size(16 << 10)
        .sync_interval(Duration::from_millis(20))
        .build_store()
        .unwrap();
    stays_right(&store, seed, || Inspector::open(dir.path()).unwrap());
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
    let inspector = Inspector::open(dir.path()).unwrap();
    for segment in inspector.segments().unwrap() {
        inspector.records(segment.id).unwrap().unwrap().count();
    }
    inspector.history("counter").unwrap();
    assert_eq!(files(), before);
}

/// A million keys: `cargo test --release --test inspect -- --ignored --nocapture`.
#[test]
#[ignore = "takes a while to fill; a measurement"]
fn the_history_of_one_key_among_a_million_takes_less_than_100_ms() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || Store::builder(dir.path()).sync_interval(Duration::from_secs(1));
    let store = builder().build_store().unwrap();
    for key in 0..1_000_000_u32 {
        store.put(format!("key-{key:012}"), [7; 100]).unwrap();
    }
    let measure = |what: &str| {
        let started = Instant::now();
        let inspector = Inspector::open(dir.path()).unwrap();
        let history = inspector.history("key-000000500000").unwrap();
        let took = started.elapsed();
        println!("{what}: {took:?}, {} in full", history.segments_read);
        assert_eq!(history.versions.len(), 1);
        took
    };
    measure("beside the writer");
    measure("beside the writer, again");
    store.compact_segments(&[]).unwrap();
    let took = measure("with all segments sealed");
    drop(store);
    assert!(took < Duration::from_millis(100), "{took:?}");
}
