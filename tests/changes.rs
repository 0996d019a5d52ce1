//! The change feed: every write once and in order, to be resumed anywhere; what compaction takes
//! away is either not needed or reported. And watches, which follow it live.
//!
//! `CRABKV_EFFORT` multiplies the work of the random ones.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use common::{
    Entry, Op, Rng, SimStore, State, contents, delete, effort, entry_of, is_kind, put, put_ttl,
    seed, show, sim_builder, visible,
};
use crabkv::disk::{CrashPlan, Disk, FailKind, SimDisk};
use crabkv::{Change, Changes, CrabKvBuilder, Error, ReadMode, SegmentId, SeqNo, Store};

/// The interval never ends within a test: only what syncs explicitly does.
const NEVER: Duration = Duration::from_secs(1 << 20);
/// Longer than anything takes that is waited for.
const LONG: Duration = Duration::from_secs(60);

/// A change as a model has it: number, key, and the value unless it is a delete.
type Seen = (u64, Vec<u8>, Option<Entry>);

fn seen(change: &Change) -> Seen {
    let value = change.value();
    if let Some(value) = value {
        assert_eq!(value.version(), Some(change.seq));
    }
    (change.seq.get(), change.key.clone(), value.map(entry_of))
}

/// Everything that a feed gives; the numbers ascend, and the feed says where to go on.
fn all(changes: &mut Changes<SimDisk>) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    while let Some(change) = changes.next() {
        let change = change.unwrap();
        assert!(
            all.last().is_none_or(|last| last.0 < change.seq.get()),
            "{} does not come after {:?}",
            change.seq,
            all.last()
        );
        assert_eq!(changes.next_seq().get(), change.seq.get() + 1);
        all.push(seen(&change));
    }
    assert!(changes.next().is_none());
    all
}

fn changes(store: &SimStore, since: u64) -> Vec<Seen> {
    all(&mut store.changes(SeqNo::new(since)).unwrap())
}

/// What happened to a store, write by write.
#[derive(Default)]
struct Log {
    writes: Vec<Seen>,
    state: State,
}

impl Log {
    fn apply(&mut self, op: &Op, now_ms: u64) {
        let is_batch = matches!(op, Op::Batch(_));
        for write in op.writes() {
            // A delete of what is not there writes nothing, unless it is part of a batch.
            let there = visible(&self.state, now_ms).contains_key(&write.key);
            if write.value.is_some() || there || is_batch {
                let expiry = write.ttl_ms.map(|ttl| now_ms + ttl);
                let seq = self.writes.len() as u64 + 1;
                let entry = write.value.clone().map(|value| (value, expiry));
                self.writes.push((seq, write.key.clone(), entry));
            }
        }
        op.apply_to(&mut self.state, now_ms);
    }

    fn since(&self, since: u64) -> &[Seen] {
        let passed = self.writes.partition_point(|(seq, ..)| *seq < since);
        &self.writes[passed..]
    }
}

/// Among how many keys to choose, and how long some of the values are, about, in bytes.
#[derive(Clone, Copy)]
struct Shape {
    keys: u64,
    longest: u64,
}

const SMALL: Shape = Shape {
    keys: 9,
    longest: 600,
};

fn random_write(rng: &mut Rng, number: u64, shape: Shape) -> common::Write {
    let key = format!("key{}", rng.below(shape.keys));
    let longest = if rng.chance(10) {
        shape.longest / 10
    } else {
        6
    };
    let value = format!("{number}-{key}-").repeat(1 + rng.below(longest) as usize);
    match rng.below(10) {
        0..6 => put(&key, value),
        6..8 => delete(&key),
        _ => put_ttl(&key, value, 1 + rng.below(3000)),
    }
}

fn random_op(rng: &mut Rng, number: u64, shape: Shape) -> Op {
    match rng.below(10) {
        0..7 => Op::Write(random_write(rng, number, shape)),
        7..9 => {
            let writes = 0..2 + rng.below(5);
            Op::Batch(writes.map(|_| random_write(rng, number, shape)).collect())
        }
        _ => Op::Advance(rng.below(800)),
    }
}

/// Does random operations, and reads the feed from every number there is, then and after
/// opening the store again, with its hint files and without.
fn gives_the_log(build: impl Fn() -> CrabKvBuilder, longest: u64, fixed_seed: u64) {
    let seed = seed(fixed_seed);
    for round in 0..effort(4) {
        let mut rng = Rng(seed + round);
        let disk = SimDisk::new(rng.next());
        let open = || build().auto_compaction(false).build_store_on(disk.clone());
        let store = open().unwrap();
        let mut log = Log::default();
        for number in 0..120 {
            let op = random_op(&mut rng, number, Shape { keys: 12, longest });
            if let Op::Advance(ms) = op {
                disk.advance(ms);
            } else {
                op.apply(&store).unwrap();
                log.apply(&op, disk.now_ms());
            }
            if rng.chance(20) {
                let since = rng.below(log.writes.len() as u64 + 2);
                assert_eq!(changes(&store, since), log.since(since), "since {since}");
            }
        }
        let every_since = |store: &SimStore| {
            for since in 0..log.writes.len() as u64 + 3 {
                let mut feed = store.changes(SeqNo::new(since)).unwrap();
                assert!(feed.is_complete());
                assert_eq!(all(&mut feed), log.since(since), "since {since}");
                let end = log.writes.len() as u64 + 1;
                assert_eq!(feed.next_seq().get(), end.max(since));
            }
        };
        every_since(&store);
        drop(store);
        every_since(&open().unwrap());
        for (name, _) in disk.files(Path::new("/db")) {
            if is_kind(&name, "hint") {
                disk.unlink(&Path::new("/db").join(&name)).unwrap();
            }
        }
        every_since(&open().unwrap());
    }
}

#[test]
fn the_feed_is_the_log_from_any_number_on() {
    gives_the_log(|| sim_builder(512), 600, 1);
}

#[test]
fn the_feed_is_the_log_in_one_segment() {
    gives_the_log(|| sim_builder(1 << 20), 20_000, 2);
}

#[test]
fn the_feed_is_the_log_with_compression() {
    gives_the_log(|| sim_builder(1024).compression(true), 5000, 3);
}

#[test]
fn the_feed_is_the_log_with_a_sync_interval() {
    gives_the_log(|| sim_builder(700).sync_interval(NEVER), 600, 4);
}

#[test]
fn the_feed_is_the_log_by_pread() {
    gives_the_log(|| sim_builder(512).read_mode(ReadMode::Pread), 6000, 5);
}

#[test]
fn what_waits_in_a_write_back_buffer_is_flushed_and_given() {
    let store = sim_builder(512)
        .write_back_cache(true)
        .build_store_on(SimDisk::new(1))
        .unwrap();
    store.put("a", "1").unwrap();
    store.put("a", "2").unwrap();
    let given = changes(&store, 0);
    assert_eq!(given, [(1, b"a".to_vec(), Some((b"2".to_vec(), None)))]);
}

/// A copy of a store that is kept up by its feed alone.
struct Consumer {
    copy: State,
    position: SeqNo,
}

impl Consumer {
    fn new() -> Consumer {
        Consumer {
            copy: State::new(),
            position: SeqNo::new(0),
        }
    }

    fn apply(&mut self, change: &Change) {
        assert!(change.seq >= self.position);
        match change.value() {
            Some(value) => self.copy.insert(change.key.clone(), entry_of(value)),
            None => self.copy.remove(&change.key),
        };
        self.position = SeqNo::new(change.seq.get() + 1);
    }

    /// Reads `at_most` so many changes; says whether it got to the end.
    fn follow(&mut self, store: &SimStore, at_most: usize) -> crabkv::Result<bool> {
        let mut changes = store.changes(self.position)?;
        for change in changes.by_ref().take(at_most) {
            self.apply(&change?);
        }
        let done = changes.next().is_none();
        if done {
            self.position = changes.next_seq();
        }
        Ok(done)
    }

    fn must_equal(&self, store: &SimStore, now_ms: u64) {
        let (copy, state) = (visible(&self.copy, now_ms), contents(store, []).unwrap());
        assert!(
            copy == state,
            "the feed led to\n{}\nbut the store holds\n{}",
            show(&copy),
            show(&state)
        );
    }
}

fn segments(store: &SimStore) -> Vec<SegmentId> {
    let stats = store.stats();
    let sealed = stats.segments.iter().filter(|segment| segment.sealed);
    sealed.map(|segment| segment.id).collect()
}

/// Random operations with partial merges of random segments and reopening, and consumers at
/// different places that follow now and then; any of them must come to the store's state, or be
/// told that it cannot. Gives how many were told, and how many caught up.
fn leads_to_the_state(build: impl Fn() -> CrabKvBuilder, seed: u64, steps: u64) -> (u64, u64) {
    let mut rng = Rng(seed);
    let disk = SimDisk::new(rng.next());
    let open = || build().auto_compaction(false).build_store_on(disk.clone());
    let mut store = open().unwrap();
    let mut consumers: Vec<_> = (0..6).map(|_| Consumer::new()).collect();
    let (mut told, mut caught_up) = (0, 0);
    for number in 0..steps {
        match rng.below(100) {
            0..80 => match random_op(&mut rng, number, SMALL) {
                Op::Advance(ms) => disk.advance(ms),
                op => op.apply(&store).unwrap(),
            },
            80..90 => {
                let mut some = segments(&store);
                let percent = [20, 50, 100][rng.below(3) as usize];
                some.retain(|_| rng.chance(percent));
                store.compact_segments(&some).unwrap();
            }
            90..92 => {
                drop(store);
                store = open().unwrap();
            }
            _ => {
                let consumer = rng.below(consumers.len() as u64) as usize;
                let consumer = &mut consumers[consumer];
                let at_most = [1, 5, usize::MAX][rng.below(3) as usize];
                match consumer.follow(&store, at_most) {
                    Ok(true) => {
                        consumer.must_equal(&store, disk.now_ms());
                        caught_up += 1;
                    }
                    Ok(false) => {}
                    Err(Error::HistoryCompacted { since, oldest }) => {
                        assert!(since == consumer.position && since < oldest);
                        *consumer = Consumer::new();
                        told += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    (told, caught_up)
}

fn leads_anyone_to_the_state(build: impl Fn() -> CrabKvBuilder + Copy, fixed_seed: u64) {
    let seed = seed(fixed_seed);
    let (mut told, mut caught_up) = (0, 0);
    for round in 0..effort(25) {
        let counts = leads_to_the_state(build, seed.wrapping_add(round * 1000), 400);
        told += counts.0;
        caught_up += counts.1;
    }
    println!("caught up {caught_up} times, told of missing deletions {told} times");
    assert!(told > 0 && caught_up > 0);
}

#[test]
fn the_feed_leads_to_the_state_after_any_merges_or_says_that_it_cannot() {
    leads_anyone_to_the_state(|| sim_builder(400), 10);
}

#[test]
fn the_feed_leads_to_the_state_with_colliding_hashes() {
    leads_anyone_to_the_state(|| sim_builder(400).hash_bits(2), 20);
}

#[test]
fn the_feed_leads_to_the_state_by_pread_with_an_interval() {
    let build = || {
        sim_builder(600)
            .read_mode(ReadMode::Pread)
            .sync_interval(NEVER)
    };
    leads_anyone_to_the_state(build, 30);
}

/// As [`leads_to_the_state`], by the feed of a store that is read-only beside the writer, and only
/// now and then caught up: its segments may be merged away under it.
#[test]
fn the_feed_of_a_follower_leads_to_what_the_follower_holds() {
    let seed = seed(60);
    let (mut told, mut caught_up) = (0, 0);
    for round in 0..effort(25) {
        let mut rng = Rng(seed.wrapping_add(round * 1000));
        let disk = SimDisk::new(rng.next());
        let build = || sim_builder(400).auto_compaction(false);
        let mut store = build().build_store_on(disk.clone()).unwrap();
        let follower = build().read_only(true).build_store_on(disk.clone());
        let follower = follower.unwrap();
        let mut consumer = Consumer::new();
        for number in 0..300 {
            match rng.below(100) {
                0..75 => match random_op(&mut rng, number, SMALL) {
                    Op::Advance(ms) => disk.advance(ms),
                    op => op.apply(&store).unwrap(),
                },
                75..82 => {
                    let mut some = segments(&store);
                    some.retain(|_| rng.chance(50));
                    store.compact_segments(&some).unwrap();
                }
                82..84 => {
                    drop(store);
                    store = build().build_store_on(disk.clone()).unwrap();
                }
                84..90 => drop(follower.refresh().unwrap()),
                _ => match consumer.follow(&follower, usize::MAX) {
                    Ok(_) => {
                        assert_eq!(consumer.position, follower.next_seq());
                        consumer.must_equal(&follower, disk.now_ms());
                        caught_up += 1;
                    }
                    Err(Error::HistoryCompacted { .. }) => {
                        consumer = Consumer::new();
                        told += 1;
                    }
                    Err(error) => panic!("{error}"),
                },
            }
        }
    }
    println!("caught up {caught_up} times, told of missing deletions {told} times");
    assert!(told > 0 && caught_up > 0);
}

#[test]
fn a_watch_on_a_follower_is_woken_by_a_refresh() {
    let disk = SimDisk::new(1);
    let store = store_on(&disk);
    store.put("before", "").unwrap();
    let follower = sim_builder(4096).read_only(true).build_store_on(disk);
    let follower = follower.unwrap();
    let mut watch = follower.watch("");
    store.put("key", "").unwrap();
    assert!(watch.try_next().unwrap().is_none());
    let watcher = std::thread::spawn(move || {
        let keys: Vec<_> = watch.map(|change| change.unwrap().key).collect();
        keys
    });
    follower.refresh().unwrap();
    store.put("another", "").unwrap();
    follower.refresh().unwrap();
    follower.close().unwrap();
    assert_eq!(watcher.join().unwrap(), [&b"key"[..], b"another"]);
}

/// A store on a simulated disk whose segments are merged only when that is asked for.
fn store_on(disk: &SimDisk) -> SimStore {
    let builder = sim_builder(4096).auto_compaction(false);
    builder.build_store_on(disk.clone()).unwrap()
}

fn oldest(store: &SimStore, since: u64) -> Option<u64> {
    match store.changes(SeqNo::new(since)) {
        Ok(_) => None,
        Err(Error::HistoryCompacted {
            since: asked,
            oldest,
        }) => {
            assert_eq!(asked.get(), since);
            Some(oldest.get())
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_dropped_tombstone_is_missed_by_those_only_who_have_not_seen_it() {
    let disk = SimDisk::new(1);
    let store = store_on(&disk);
    store.put("kept", "1").unwrap();
    store.put("deleted", "2").unwrap();
    assert!(store.delete("deleted").unwrap());
    store.put("later", "4").unwrap();
    store.compact().unwrap();
    let check = |store: &SimStore| {
        assert_eq!(oldest(store, 2), Some(4));
        assert_eq!(oldest(store, 3), Some(4));
        let keys = |since| {
            let keys = changes(store, since).into_iter().map(|(_, key, _)| key);
            keys.collect::<Vec<_>>()
        };
        assert_eq!(keys(4), [b"later"]);
        // Whoever has nothing misses nothing.
        assert_eq!(keys(0), [&b"kept"[..], b"later"]);
        assert_eq!(keys(1), keys(0));
        assert!(keys(5).is_empty());
    };
    check(&store);
    drop(store);
    let store = store_on(&disk);
    check(&store);
    // A store that was not closed.
    store.put("one more", "5").unwrap();
    store.delete("one more").unwrap();
    let crashed = disk.crash(&CrashPlan::KeepAll);
    drop(store);
    assert_eq!(oldest(&store_on(&crashed), 3), Some(4));
}

/// Writes so much that what was written before is in a sealed segment; gives that segment.
fn seal(store: &SimStore) -> SegmentId {
    let before = segments(store);
    store.put("filler", "x".repeat(3900)).unwrap();
    let mut sealed = segments(store);
    sealed.retain(|id| !before.contains(id));
    assert!(!sealed.is_empty());
    *sealed.last().unwrap()
}

#[test]
fn a_tombstone_that_still_hides_something_is_given() {
    let store = store_on(&SimDisk::new(1));
    store.put("key", "1").unwrap();
    seal(&store);
    store.delete("key").unwrap();
    let with_tombstone = seal(&store);
    let report = store.compact_segments(&[with_tombstone]).unwrap();
    assert_eq!(report.segments_merged, 1);
    assert_eq!(changes(&store, 3)[0], (3, b"key".to_vec(), None));
    store.compact().unwrap();
    assert_eq!(oldest(&store, 3), Some(4));
}

#[test]
fn an_expired_value_that_was_dropped_is_like_a_dropped_tombstone() {
    let disk = SimDisk::new(1);
    let store = store_on(&disk);
    store.put("key", "for ever").unwrap();
    store
        .put_with_ttl("key", "for a while", Duration::from_millis(5))
        .unwrap();
    store.put("other", "3").unwrap();
    disk.advance(10);
    let expired = changes(&store, 2).remove(0);
    let (value, expiry) = expired.2.unwrap();
    assert_eq!(value, b"for a while");
    assert!(expiry.unwrap() <= disk.now_ms());
    store.compact().unwrap();
    assert_eq!(oldest(&store, 2), Some(3));
    assert_eq!(changes(&store, 3).len(), 1);
}

#[test]
fn an_expired_value_that_still_hides_something_is_given_as_a_delete() {
    let disk = SimDisk::new(1);
    let store = store_on(&disk);
    store.put("key", "for ever").unwrap();
    seal(&store);
    let ttl = Duration::from_millis(5);
    store.put_with_ttl("key", "for a while", ttl).unwrap();
    let with_ttl = seal(&store);
    disk.advance(10);
    store.compact_segments(&[with_ttl]).unwrap();
    let mut feed = store.changes(SeqNo::new(3)).unwrap();
    assert!(!feed.is_complete(), "the value is gone");
    assert_eq!(all(&mut feed)[0], (3, b"key".to_vec(), None));
    assert!(store.changes(SeqNo::new(4)).unwrap().is_complete());
}

#[test]
fn overwritten_values_go_without_harm_but_not_unsaid() {
    let store = store_on(&SimDisk::new(1));
    for value in ["1", "2", "3"] {
        store.put("key", value).unwrap();
    }
    store.put("other", "4").unwrap();
    store.compact().unwrap();
    let mut feed = store.changes(SeqNo::new(2)).unwrap();
    assert_eq!(feed.complete_from().get(), 3);
    assert!(!feed.is_complete());
    assert_eq!(all(&mut feed).len(), 2);
    assert!(store.changes(SeqNo::new(3)).unwrap().is_complete());
}

#[test]
fn a_tombstone_whose_key_was_put_again_is_not_missed() {
    let store = store_on(&SimDisk::new(1));
    store.put("key", "1").unwrap();
    store.delete("key").unwrap();
    store.put("key", "3").unwrap();
    store.compact().unwrap();
    let given = changes(&store, 2);
    assert_eq!(given, [(3, b"key".to_vec(), Some((b"3".to_vec(), None)))]);
}

#[test]
fn what_a_feed_has_begun_with_stays_while_it_is_read() {
    let disk = SimDisk::new(1);
    let store = sim_builder(400)
        .auto_compaction(false)
        .build_store_on(disk.clone())
        .unwrap();
    for number in 0..40 {
        store.put(format!("key{number}"), "x".repeat(40)).unwrap();
    }
    let mut feed = store.changes(SeqNo::new(1)).unwrap();
    let first = feed.next().unwrap().unwrap();
    assert_eq!(first.seq.get(), 1);
    for number in 0..40 {
        store.delete(format!("key{number}")).unwrap();
    }
    store.compact().unwrap();
    assert_eq!(store.stats().data_bytes, 0);
    assert_eq!(all(&mut feed).len(), 39);
    drop(feed);
    assert!(oldest(&store, 2).is_some());
}

#[test]
fn no_crash_takes_back_what_was_given() {
    let seed = seed(40);
    let mut images = 0;
    for round in 0..effort(30) {
        let mut rng = Rng(seed.wrapping_add(round));
        let disk = SimDisk::new(rng.next());
        let interval = rng.chance(50);
        let open = |disk: &SimDisk| {
            let builder = sim_builder(600).auto_compaction(false);
            let builder = if interval {
                builder.sync_interval(NEVER)
            } else {
                builder
            };
            builder.build_store_on(disk.clone()).unwrap()
        };
        let store = open(&disk);
        let mut consumer = Consumer::new();
        let mut watch = store.watch("");
        for number in 0..rng.below(60) {
            // Without time passing: what expires is another matter.
            match random_op(&mut rng, number, SMALL) {
                Op::Advance(_) if rng.chance(30) => store.sync().unwrap(),
                Op::Advance(_) if rng.chance(30) => {
                    consumer.follow(&store, usize::MAX).map(drop).unwrap();
                }
                Op::Advance(_) => {}
                op => op.apply(&store).unwrap(),
            }
            // A watch gives what is durable without making it so.
            while let Some(change) = watch.try_next().unwrap() {
                if change.seq >= consumer.position {
                    consumer.apply(&change);
                }
            }
        }
        for plan in disk.crash_plans(effort(20) as usize, rng.next()) {
            let crashed = disk.crash(&plan);
            let store = open(&crashed);
            let mut consumer = Consumer {
                copy: consumer.copy.clone(),
                position: consumer.position,
            };
            store.put("after", "the crash").unwrap();
            consumer.follow(&store, usize::MAX).unwrap();
            consumer.must_equal(&store, crashed.now_ms());
            images += 1;
        }
    }
    println!("{images} images");
}

#[test]
fn a_write_that_failed_is_never_given() {
    let disk = SimDisk::new(1);
    let store = sim_builder(1 << 20).build_store_on(disk.clone()).unwrap();
    store.put("before", "1").unwrap();
    let mut watch = store.watch("");
    // The bytes are written, but not synced.
    disk.fail_at(0, FailKind::FsyncKeep, true);
    assert!(store.put("failed", "2").is_err());
    assert_eq!(
        changes(&store, 0).len(),
        1,
        "reads go on, of what is durable"
    );
    assert!(watch.try_next().unwrap().is_none());
    assert_eq!(store.next_seq().get(), 2);
}

#[test]
fn a_write_that_found_the_disk_full_is_never_given() {
    let disk = SimDisk::new(1);
    let store = sim_builder(4096).build_store_on(disk.clone()).unwrap();
    store.put("before", "1").unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let full = store.put("too much", "x".repeat(10_000)).unwrap_err();
    assert!(matches!(full, Error::DiskFull { .. }), "{full}");
    disk.set_capacity(None);
    store.put("after", "3").unwrap();
    let keys: Vec<_> = changes(&store, 0).into_iter().map(|seen| seen.1).collect();
    assert_eq!(keys, [&b"before"[..], b"after"]);
}

#[test]
fn damage_ends_the_feed_before_what_is_damaged() {
    let disk = SimDisk::new(1);
    let store = sim_builder(256).build_store_on(disk.clone()).unwrap();
    for number in 0..8 {
        store.put(format!("key{number}"), "x".repeat(30)).unwrap();
    }
    drop(store);
    let path = Path::new("/db/000000000002.seg");
    let mut bytes = disk.read_raw(path).unwrap();
    bytes[100] ^= 1;
    disk.write_raw(path, &bytes);
    let store = sim_builder(256).build_store_on(disk).unwrap();
    let mut feed = store.changes(SeqNo::new(0)).unwrap();
    let before = feed.by_ref().map_while(Result::ok).count();
    assert!(before > 0);
    assert_eq!(feed.next_seq().get(), before as u64 + 1);
    assert!(feed.next().is_none());
    let mut again = store.changes(feed.next_seq()).unwrap();
    match again.next() {
        Some(Err(Error::Corrupt { file, .. })) => assert_eq!(file, path),
        other => panic!("damage was given out: {other:?}"),
    }
}

#[test]
fn a_watch_gives_the_writes_of_its_prefix_in_order_whoever_writes_them() {
    let store = sim_builder(2000).build_store_on(SimDisk::new(1)).unwrap();
    store.put("a:before", "not seen").unwrap();
    let watch = store.watch("a:");
    let every_key = store.watch("");
    let begun = watch.next_seq();
    let watchers = [watch, every_key].map(|watch| {
        std::thread::spawn(move || {
            watch
                .map(|change| seen(&change.unwrap()))
                .collect::<Vec<_>>()
        })
    });
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..100 {
                    let prefix = if number % 3 == 0 { "b" } else { "a" };
                    let value = format!("{number}-").repeat(1 + number % 20);
                    let key = format!("{prefix}:{writer}:{}", number % 10);
                    store.put(key, value).unwrap();
                }
                store.delete(format!("a:{writer}:1")).unwrap();
            });
        }
    });
    let expected = changes(&store, begun.get());
    assert_eq!(expected.len(), 404);
    store.close().unwrap();
    let [of_a, of_all] = watchers.map(|watcher| watcher.join().unwrap());
    assert_eq!(of_all, expected);
    let is_a = |seen: &&Seen| seen.1.starts_with(b"a:");
    let expected: Vec<_> = expected.iter().filter(is_a).cloned().collect();
    assert_eq!(of_a, expected);
    assert_eq!(of_a.iter().filter(|seen| seen.2.is_none()).count(), 4);
}

#[test]
fn what_is_given_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let watch = store.watch("");
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..effort(200) {
                        let key = format!("{writer}-{}", number % 3);
                        store.put(key, number.to_string()).unwrap();
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            for change in watch {
                let Change { seq, key, .. } = change.unwrap();
                let version = store.get(&key).unwrap().and_then(|value| value.version());
                assert!(
                    version >= Some(seq),
                    "{seq} was given, but {version:?} read"
                );
                assert!(store.next_seq() > seq);
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        store.close().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn a_watch_that_waits_is_woken_by_a_write() {
    let store = sim_builder(4096).build_store_on(SimDisk::new(1)).unwrap();
    let mut watch = store.watch("key");
    let (send, receive) = mpsc::channel();
    let watcher = std::thread::spawn(move || {
        for change in watch.by_ref() {
            send.send(change.unwrap().key).unwrap();
        }
        assert!(watch.is_over());
    });
    for number in 0..50 {
        store.put("another", "not for it").unwrap();
        let key = format!("key{number}");
        store.put(&key, "").unwrap();
        // Whether it was asleep already is left to chance; that it comes is not.
        assert_eq!(receive.recv_timeout(LONG).unwrap(), key.into_bytes());
    }
    drop(store);
    watcher.join().unwrap();
}

#[test]
fn a_watch_waits_no_longer_than_it_is_told() {
    let store = sim_builder(4096).build_store_on(SimDisk::new(1)).unwrap();
    let mut watch = store.watch("");
    assert!(watch.try_next().unwrap().is_none());
    let waited = watch.next_timeout(Duration::from_millis(20)).unwrap();
    assert!(waited.is_none() && !watch.is_over());
    store.put("key", "").unwrap();
    assert!(watch.next_timeout(LONG).unwrap().is_some());
    store.put("key", "").unwrap();
    assert!(watch.try_next().unwrap().is_some());
    store.close().unwrap();
    // Over, so that nothing is waited for.
    assert!(watch.next_timeout(Duration::MAX).unwrap().is_none() && watch.is_over());
}

#[test]
fn a_watch_goes_on_where_another_ended() {
    let disk = SimDisk::new(1);
    let open = || sim_builder(300).build_store_on(disk.clone()).unwrap();
    let store = open();
    let mut watch = store.watch("key");
    for number in 0..10 {
        store.put(format!("key{number}"), "x").unwrap();
    }
    let first: Vec<_> = watch.by_ref().take(4).map(Result::unwrap).collect();
    let position = watch.next_seq();
    drop((watch, store));
    let store = open();
    let watch = store.watch_from(position, "key");
    store.put("key10", "x").unwrap();
    drop(store);
    let rest: Vec<_> = watch.map(Result::unwrap).collect();
    let keys = first.iter().chain(&rest).map(|change| change.key.clone());
    let expected = (0..11).map(|number| format!("key{number}").into_bytes());
    assert!(keys.eq(expected));
}

#[test]
fn a_watch_gives_all_that_was_written_before_the_last_handle_went() {
    let disk = SimDisk::new(1);
    let store = sim_builder(300)
        .write_back_cache(true)
        .build_store_on(disk.clone())
        .unwrap();
    let mut watch = store.watch("");
    for number in 0..20 {
        store.put(format!("{number:02}"), "x".repeat(30)).unwrap();
    }
    assert!(watch.try_next().unwrap().is_none(), "it waits for a flush");
    drop(store);
    // Somebody else takes its files away meanwhile.
    let store = sim_builder(300).build_store_on(disk).unwrap();
    for number in 0..20 {
        store.delete(format!("{number:02}")).unwrap();
    }
    store.compact().unwrap();
    let mut keys: Vec<_> = watch.by_ref().map(|change| change.unwrap().key).collect();
    keys.sort_unstable();
    assert!(
        keys.into_iter()
            .eq((0..20).map(|number| format!("{number:02}").into_bytes()))
    );
    assert_eq!(watch.next_seq().get(), 21);
}

#[test]
fn a_watch_that_began_after_a_close_outlives_it() {
    let store = sim_builder(4096).build_store_on(SimDisk::new(1)).unwrap();
    let mut before = store.watch("");
    store.put("a", "").unwrap();
    store.close().unwrap();
    assert_eq!(before.next().unwrap().unwrap().key, b"a");
    assert!(before.next().is_none());
    let mut after = store.watch("");
    store.put("b", "").unwrap();
    assert_eq!(after.next().unwrap().unwrap().key, b"b");
    assert!(before.next().is_none());
}

#[test]
fn a_watch_keeps_no_store_open() {
    let disk = SimDisk::new(1);
    std::thread::scope(|scope| {
        for _ in 0..effort(200) {
            let store = sim_builder(4096).build_store_on(disk.clone());
            let store = store.expect("the last handle is gone, and with it the lock");
            let mut watch = store.watch("");
            // Looks at the store in the very moment in which it goes.
            scope.spawn(move || while watch.next().is_some() {});
            store.put("key", "value").unwrap();
        }
    });
}

#[test]
fn with_a_sync_interval_a_watch_gives_what_is_synced() {
    let store = sim_builder(4096)
        .sync_interval(NEVER)
        .build_store_on(SimDisk::new(1))
        .unwrap();
    store.put("before", "").unwrap();
    let mut watch = store.watch("");
    store.put("key", "").unwrap();
    assert!(watch.try_next().unwrap().is_none());
    store.sync().unwrap();
    assert_eq!(watch.try_next().unwrap().unwrap().key, b"key");
}

#[test]
fn a_watch_that_compaction_has_overtaken_is_told_so() {
    let store = store_on(&SimDisk::new(1));
    store.put("a", "1").unwrap();
    let mut watch = store.watch("");
    store.put("b", "2").unwrap();
    store.delete("a").unwrap();
    store.compact().unwrap();
    match watch.next() {
        Some(Err(Error::HistoryCompacted { since, oldest })) => {
            assert_eq!((since.get(), oldest.get()), (2, 4));
        }
        other => panic!("it does not know of the delete: {other:?}"),
    }
    assert!(watch.next().is_none() && watch.is_over());
    let mut again = store.watch_from(SeqNo::new(0), "");
    assert_eq!(again.next().unwrap().unwrap().key, b"b");
}

/// The copy that a watcher keeps, of which it begins a new one whenever compaction overtakes it.
fn watch_and_copy(store: &SimStore, stop: &AtomicBool) -> (State, u64) {
    let mut overtaken = 0;
    'anew: loop {
        let mut copy = State::new();
        let position = store.next_seq();
        for entry in store {
            let (key, value) = entry.unwrap();
            copy.insert(key, entry_of(&value));
        }
        let mut watch = store.watch_from(position, "");
        loop {
            // Looked at before the watch is: what was written before the stop is then given.
            let stopped = stop.load(Ordering::Acquire);
            match watch.next_timeout(Duration::from_millis(1)) {
                Ok(Some(change)) => {
                    match change.value() {
                        Some(value) => copy.insert(change.key.clone(), entry_of(value)),
                        None => copy.remove(&change.key),
                    };
                }
                Ok(None) if stopped => return (copy, overtaken),
                Ok(None) => {}
                Err(Error::HistoryCompacted { .. }) => {
                    overtaken += 1;
                    continue 'anew;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_watcher_under_compaction_ends_with_what_the_store_holds() {
    let seed = seed(50);
    let store = sim_builder(1000)
        .sync_interval(Duration::from_millis(1))
        .auto_compaction(false)
        .build_store_on(SimDisk::new(1))
        .unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watchers = [(); 2].map(|()| scope.spawn(|| watch_and_copy(&store, &stop)));
        let writers = [1, 2].map(|writer| {
            let store = &store;
            scope.spawn(move || {
                let mut rng = Rng(seed.wrapping_add(writer));
                for number in 0..effort(3000) {
                    let key = format!("{writer}-{}", rng.below(40));
                    if rng.chance(30) {
                        store.delete(key).unwrap();
                    } else {
                        store.put(key, format!("{number}")).unwrap();
                    }
                    if number % 100 == 0 {
                        store.compact().unwrap();
                    }
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        store.sync().unwrap();
        stop.store(true, Ordering::Release);
        let state = contents(&store, []).unwrap();
        for watcher in watchers {
            let (copy, overtaken) = watcher.join().unwrap();
            println!("overtaken {overtaken} times");
            assert!(copy == state, "{}\n{}", show(&copy), show(&state));
        }
    });
}

#[test]
fn a_feed_on_the_real_disk_follows_rotation_and_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        Store::builder(dir.path())
            .segment_size(16 << 10)
            .sync_interval(NEVER)
            .build_store()
            .unwrap()
    };
    let mut copy = BTreeMap::new();
    let mut position = SeqNo::new(0);
    for round in 0..5 {
        let store = open();
        for number in 0..2000 {
            store
                .put(format!("{}", number % 300), format!("{round}-{number}"))
                .unwrap();
        }
        if round == 3 {
            store.compact().unwrap();
        }
        let mut changes = store.changes(position).unwrap();
        for change in changes.by_ref() {
            let change = change.unwrap();
            copy.insert(change.key.clone(), change.value().unwrap().to_vec());
        }
        position = changes.next_seq();
        assert_eq!(position.get(), (round + 1) * 2000 + 1);
        let state = store.iter().map(Result::unwrap);
        assert!(
            state
                .map(|(key, value)| (key, value.to_vec()))
                .collect::<BTreeMap<_, _>>()
                == copy
        );
    }
}
