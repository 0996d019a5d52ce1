//! Everything at once: writers, readers, merges, and somebody who pauses, cancels, compacts, closes
//! and copies the store at random. What comes of it is what was written, and the figures that the
//! store kept all the while are those that opening it anew finds.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{Rng, SimStore, effort, go_on, is_kind, millis, seed, sim_builder};
use crabkv::disk::{Disk, SimDisk};
use crabkv::{CrabKvBuilder, ReadMode, SegmentStats, WriteBatch, verify_on};

const WRITERS: u64 = 3;
const KEYS: u64 = 90;
const SEGMENT_SIZE: u64 = 64 << 10;

/// Every value says whose it is and how old, and is of a length that depends on both.
fn value(key: u64, round: u64) -> Vec<u8> {
    let text = format!("{key}:{round}:");
    text.repeat(1 + (((key * 7) ^ round) % 400) as usize)
        .into_bytes()
}

fn round_of(key: u64, bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).unwrap();
    let round = text.split(':').nth(1).unwrap().parse().unwrap();
    assert_eq!(bytes, value(key, round), "a value that nobody put");
    round
}

/// The round of a key's value, if it has one, and when it expires.
type Known = Vec<Option<(u64, Option<u64>)>>;

fn is_visible(known: Option<(u64, Option<u64>)>, now_ms: u64) -> bool {
    known.is_some_and(|(_, expiry)| expiry.is_none_or(|expiry| expiry > now_ms))
}

/// Writes the keys that are congruent to the writer's number, which nobody else does.
fn write(
    store: &SimStore,
    disk: &SimDisk,
    writer: u64,
    known: &mut Known,
    rng: &mut Rng,
    ttl: bool,
) {
    let own = |rng: &mut Rng| rng.below(KEYS / WRITERS) * WRITERS + writer;
    let expiry_of = |key: u64| {
        let found = store.get(key.to_le_bytes()).unwrap();
        // What has expired already is as good as deleted.
        found.map(|value| value.expires_at().map(millis))
    };
    for _ in 0..300 {
        let (key, round) = (own(rng), rng.next() % 1_000_000);
        match rng.below(10) {
            0..5 => {
                store.put(key.to_le_bytes(), value(key, round)).unwrap();
                known[key as usize] = Some((round, None));
            }
            5 if ttl => {
                let lives = Duration::from_millis([5, 50, 1_000_000][rng.below(3) as usize]);
                let bytes = value(key, round);
                store.put_with_ttl(key.to_le_bytes(), bytes, lives).unwrap();
                known[key as usize] = expiry_of(key).map(|expiry| (round, expiry));
            }
            5..8 => {
                store.delete(key.to_le_bytes()).unwrap();
                known[key as usize] = None;
            }
            _ => {
                let mut batch = WriteBatch::new();
                for _ in 0..4 {
                    let key = own(rng);
                    if rng.chance(30) {
                        batch.delete(key.to_le_bytes()).unwrap();
                        known[key as usize] = None;
                    } else {
                        batch.put(key.to_le_bytes(), value(key, round)).unwrap();
                        known[key as usize] = Some((round, None));
                    }
                }
                store.write(&batch).unwrap();
            }
        }
        let key = own(rng);
        let found = store.get(key.to_le_bytes()).unwrap();
        let known = known[key as usize];
        match found {
            Some(bytes) => assert_eq!(Some(round_of(key, &bytes)), known.map(|(round, _)| round)),
            None => assert!(
                !is_visible(known, disk.now_ms()),
                "key {key} is lost: {known:?}"
            ),
        }
    }
}

/// Does to the store whatever somebody may do at any time.
fn disturb(store: &SimStore, disk: &SimDisk, rng: &mut Rng, ttl: bool) {
    match rng.below(12) {
        0 => drop(store.compact().unwrap()),
        1..3 => {
            let mut some = common::sealed(store);
            some.retain(|_| rng.chance(30));
            store.compact_segments(&some).unwrap();
        }
        3..5 => store.cancel_compaction(),
        5 => {
            store.pause_compaction();
            thread::yield_now();
            store.resume_compaction();
        }
        6 => store.close().unwrap(),
        7 => drop(store.checkpoint("/copy").unwrap()),
        8 => {
            store.stats();
            store.explain_compaction();
        }
        9 => store.sync().unwrap(),
        _ if ttl => disk.advance(rng.below(20)),
        _ => thread::sleep(Duration::from_millis(1)),
    }
}

/// The keys that readers meet, each with a value that was put.
fn read(store: &SimStore) -> u64 {
    let mut count = 0;
    for entry in store {
        let (key, bytes) = entry.unwrap();
        round_of(u64::from_le_bytes(key.try_into().unwrap()), &bytes);
        count += 1;
    }
    count
}

/// What opening the store finds out anew, and what it cannot know of the process before.
fn figures(store: &SimStore) -> Vec<SegmentStats> {
    let mut segments = store.stats().segments;
    for segment in &mut segments {
        segment.retained_bytes = 0;
    }
    segments
}

fn check(store: &SimStore, disk: &SimDisk, known: &Known) {
    let mut visible = 0;
    for (key, known) in (0..).zip(known) {
        let found = store.get(u64::to_le_bytes(key)).unwrap();
        let found = found.map(|bytes| round_of(key, &bytes));
        let is_there = is_visible(*known, disk.now_ms());
        let expected = known.filter(|_| is_there).map(|(round, _)| round);
        assert_eq!(found, expected, "key {key}");
        visible += u64::from(is_there);
    }
    assert_eq!(read(store), visible);
}

#[test]
fn whatever_is_done_to_a_store_at_once_leaves_it_as_opening_it_finds_it() {
    let mut rng = Rng(seed(60));
    let disk = SimDisk::new(rng.next());
    let mut known: Known = vec![None; KEYS as usize];
    let mut merges = 0;
    for round in 0..effort(12) {
        let (background, ttl) = (round % 2 == 0, round % 4 < 2);
        let build = |auto: bool| {
            let mut builder: CrabKvBuilder = sim_builder(SEGMENT_SIZE)
                .auto_compaction(auto)
                .async_compaction(background)
                .compression(round % 5 == 0);
            if round % 3 == 0 {
                builder = builder.sync_interval(Duration::from_millis(2));
            }
            if round % 6 == 1 {
                builder = builder.read_mode(ReadMode::Pread);
            }
            builder.build_store_on(disk.clone()).unwrap()
        };
        let store = build(true);
        check(&store, &disk, &known);
        let done = AtomicBool::new(false);
        let written: Vec<Known> = thread::scope(|scope| {
            let (store, disk, done) = (&store, &disk, &done);
            let mut own = Rng(rng.next());
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    disturb(store, disk, &mut own, ttl);
                }
            });
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    read(store);
                }
            });
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (mut known, mut own) = (known.clone(), Rng(rng.next()));
                    scope.spawn(move || {
                        write(store, disk, writer, &mut known, &mut own, ttl);
                        known
                    })
                })
                .collect();
            let written = writers.into_iter().map(thread::ScopedJoinHandle::join);
            let written: Vec<_> = written.collect();
            done.store(true, Ordering::Relaxed);
            written.into_iter().map(Result::unwrap).collect()
        });
        for key in 0..KEYS {
            known[key as usize] = written[(key % WRITERS) as usize][key as usize];
        }
        check(&store, &disk, &known);
        merges += store.stats().merges;
        if ttl {
            // A merge that was given up has forgotten expired keys, which opening finds again.
            store.compact().unwrap();
        }
        store.pause_compaction();
        store.close().unwrap();
        let before = figures(&store);
        assert_eq!(store.stats().poisoned, None);
        let named: Vec<_> = before.iter().map(|segment| segment.id.get()).collect();
        let files = disk.files(Path::new("/db"));
        let on_disk = files.iter().filter(|(name, _)| is_kind(name, "seg"));
        let on_disk: Vec<u64> = on_disk
            .map(|(name, _)| name.strip_suffix(".seg").unwrap().parse().unwrap())
            .collect();
        assert_eq!(on_disk, named, "a file that is no segment of the store");
        drop(store);
        let verified = verify_on(&disk, "/db", go_on).unwrap();
        assert!(verified.is_sound(), "{verified:#?}");
        let store = build(false);
        assert_eq!(figures(&store), before);
        check(&store, &disk, &known);
    }
    assert!(merges > 0);
    assert!(verify_on(&disk, "/copy", go_on).unwrap().is_sound());
}
