//! A follower in a process of its own, beside a writer that overwrites, deletes, rotates, compacts
//! and is opened again: every value that it reads is one that was written, no key's value is older
//! than one it has seen, and at rest it has what the writer has.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Rng, effort, seed};
use crabkv::{CrabKvBuilder, Store, WriteBatch};

const DIR: &str = "CRABKV_CHILD_FOLLOWS";
/// What it says when it has read and refreshed so often that it means something.
const ENOUGH: &str = "that is enough";
/// For that, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
const KEYS: u64 = 2000;
/// The first of them are never deleted.
const LASTING: u64 = 500;

fn key(number: u64) -> String {
    format!("key{number}")
}

/// What a key's n-th write puts: anybody can tell whether it was ever written.
fn value(number: u64, count: u64) -> String {
    format!("{number}#{count}#").repeat(1 + (number + count) as usize % 40)
}

/// The count in a value, which must be whole.
fn count_in(number: u64, bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut parts = text.split('#');
    assert_eq!(parts.next().unwrap(), number.to_string());
    let count = parts.next().unwrap().parse().unwrap();
    assert_eq!(text, value(number, count), "a value that was never written");
    count
}

fn read_only(dir: &Path) -> CrabKvBuilder {
    Store::builder(dir).read_only(true)
}

/// What a follower has been seen to have.
struct Seen {
    counts: Vec<AtomicU64>,
    reads: AtomicU64,
}

impl Seen {
    fn new() -> Seen {
        Seen {
            counts: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
            reads: AtomicU64::new(0),
        }
    }

    /// Checks one read of a key.
    fn check(&self, number: u64, read: impl FnOnce() -> Option<Vec<u8>>) {
        let seen = &self.counts[number as usize];
        let before = seen.load(Ordering::SeqCst);
        match read() {
            Some(bytes) => {
                let count = count_in(number, &bytes);
                assert!(count >= before, "key {number}: {count} after {before}");
                seen.fetch_max(count, Ordering::SeqCst);
            }
            None => assert!(number >= LASTING, "key {number} vanished"),
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}

fn read_for_ever(store: &Store, known: &Seen, stop: &AtomicBool, seed: u64) {
    let mut rng = Rng(seed);
    while !stop.load(Ordering::Relaxed) {
        match rng.below(100) {
            0..60 => {
                let number = rng.below(KEYS);
                let get = || store.get(key(number)).unwrap();
                known.check(number, || get().map(|value| value.to_vec()));
            }
            60..98 => {
                let reader = store.reader();
                for _ in 0..20 {
                    let number = rng.below(KEYS);
                    let get = || reader.get(key(number)).unwrap();
                    known.check(number, || get().map(<[u8]>::to_vec));
                }
            }
            98 => {
                let numbers: Vec<_> = (0..50).map(|_| rng.below(KEYS)).collect();
                let keys: Vec<_> = numbers.iter().map(|number| key(*number)).collect();
                let values = store.get_many(&keys).unwrap();
                for (number, value) in numbers.into_iter().zip(values) {
                    if let Some(value) = value {
                        count_in(number, &value);
                    }
                }
            }
            _ => {
                // Each key that is never deleted is met, once.
                let mut lasting = 0;
                for entry in store {
                    let (key, value) = entry.unwrap();
                    let number = std::str::from_utf8(&key[3..]).unwrap().parse().unwrap();
                    count_in(number, &value);
                    lasting += u64::from(number < LASTING);
                }
                assert_eq!(lasting, LASTING);
            }
        }
    }
}

/// Not a test of its own: what the child runs.
#[test]
fn child_that_follows_until_it_is_told_to_rest() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    // One that is refreshed as fast as it goes, by two threads, and one that does it by itself.
    let eager = read_only(dir).build_store().unwrap();
    let easy = read_only(dir).refresh_interval(Duration::from_millis(20));
    let easy = easy.build_store().unwrap();
    let stop = AtomicBool::new(false);
    let (of_eager, of_easy) = (Seen::new(), Seen::new());
    let refreshes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (eager, easy, of_eager, of_easy) = (&eager, &easy, &of_eager, &of_easy);
            let (stop, refreshes) = (&stop, &refreshes);
            scope.spawn(move || read_for_ever(eager, of_eager, stop, seed));
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let has_news = eager.refresh().unwrap();
                    refreshes.fetch_add(u64::from(has_news), Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
            if seed == 0 {
                scope.spawn(move || read_for_ever(easy, of_easy, stop, 9));
            }
        }
        scope.spawn(|| {
            let counts = [&of_eager.reads, &of_easy.reads, &refreshes];
            let is_enough = || {
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) > 10)
            };
            while !is_enough() && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            println!("{ENOUGH}");
        });
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        assert_eq!(line, "rest\n");
        stop.store(true, Ordering::Relaxed);
    });
    for store in [&eager, &easy] {
        store.refresh().unwrap();
        for entry in store {
            let (key, value) = entry.unwrap();
            let (key, value) = (key.escape_ascii(), value.escape_ascii());
            println!("has {key} {value}");
        }
        println!("has all");
    }
    println!(
        "did {} {} {}",
        of_eager.reads.load(Ordering::Relaxed),
        of_easy.reads.load(Ordering::Relaxed),
        refreshes.load(Ordering::Relaxed)
    );
}

/// A child, which is killed if the test fails before it has rested.
struct Follower {
    child: Child,
    stdin: ChildStdin,
    has_enough: Arc<AtomicBool>,
    /// What it said, at the end.
    lines: Option<JoinHandle<Vec<String>>>,
}

impl Follower {
    fn start(dir: &Path) -> Follower {
        let name = "child_that_follows_until_it_is_told_to_rest";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let has_enough = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&has_enough);
        let lines = std::thread::spawn(move || {
            let lines = stdout.lines().map(Result::unwrap);
            // The name of the test may stand before it.
            let lines = lines.inspect(|line| {
                if line.ends_with(ENOUGH) {
                    heard.store(true, Ordering::Relaxed);
                }
            });
            lines.collect()
        });
        Follower {
            stdin: child.stdin.take().unwrap(),
            has_enough,
            lines: Some(lines),
            child,
        }
    }

    fn assert_alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the follower failed: {ended:?}");
    }

    /// What the follower's two stores have at the end, and how much it did.
    fn rest(mut self) -> (Vec<BTreeMap<String, String>>, Vec<u64>) {
        self.stdin.write_all(b"rest\n").unwrap();
        let mut stores = vec![BTreeMap::new()];
        let mut did = Vec::new();
        for line in self.lines.take().unwrap().join().unwrap() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["has", "all"] => stores.push(BTreeMap::new()),
                ["has", key, value] => {
                    let last = stores.last_mut().unwrap();
                    last.insert(key.to_owned(), value.to_owned());
                }
                ["did", ..] => did = words[1..].iter().map(|n| n.parse().unwrap()).collect(),
                _ => {}
            }
        }
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "the follower failed: {ended}");
        stores.pop();
        (stores, did)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_follower_process_never_sees_anything_but_what_was_written_and_nothing_older() {
    let mut rng = Rng(seed(50));
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let builder = Store::builder(dir.path())
            .segment_size(64 << 10)
            .sync_interval(Duration::from_millis(50))
            .async_compaction(true);
        builder.build_store().unwrap()
    };
    let mut store = open();
    let mut counts = vec![0_u64; KEYS as usize];
    for number in 0..LASTING {
        store.put(key(number), value(number, 0)).unwrap();
    }
    let mut follower = Follower::start(dir.path());
    let begun = Instant::now();
    let usual = Duration::from_secs(effort(8));
    let (mut writes, mut compactions, mut opens) = (0_u64, 0, 1);
    while begun.elapsed() < usual || !follower.has_enough.load(Ordering::Relaxed) {
        assert!(begun.elapsed() < usual + PATIENCE, "it does not get on");
        let mut batch = WriteBatch::new();
        for _ in 0..=rng.below(4) {
            // Some are written all the time.
            let keys = if rng.chance(50) { 50 } else { KEYS };
            let number = rng.below(keys);
            if number >= LASTING && rng.chance(40) {
                batch.delete(key(number)).unwrap();
            } else {
                counts[number as usize] += 1;
                let value = value(number, counts[number as usize]);
                batch.put(key(number), value).unwrap();
            }
        }
        store.write(&batch).unwrap();
        writes += batch.len() as u64;
        match rng.below(5000) {
            0..5 => {
                store.compact().unwrap();
                compactions += 1;
            }
            5 => {
                drop(store);
                store = open();
                opens += 1;
            }
            6 => follower.assert_alive(),
            7 => std::thread::sleep(Duration::from_millis(30)),
            _ => {}
        }
    }
    let (stores, did) = follower.rest();
    let entries = store.iter().map(|entry| {
        let (key, value) = entry.unwrap();
        (
            key.escape_ascii().to_string(),
            value.escape_ascii().to_string(),
        )
    });
    let expected: BTreeMap<_, _> = entries.collect();
    assert_eq!(stores.len(), 2);
    for seen in stores {
        assert!(seen == expected, "at rest they differ");
    }
    println!(
        "{writes} writes, {compactions} compactions by hand, {opens} opens; the follower did {did:?} \
         (reads, reads, refreshes with news)"
    );
    assert!(did.iter().all(|&count| count > 10), "{did:?}");
}
