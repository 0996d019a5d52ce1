//! Real processes: a child writes and says over a pipe what it has written, the parent kills it
//! at a random moment, opens the store and checks. The page cache survives, so this is about what
//! the process does, not about power cuts; those are in `crash.rs`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{Rng, effort, seed};
use crabkv::{Store, WriteBatch};

const DIR: &str = "CRABKV_CHILD_WRITES_IN";
const THREADS: u64 = 2;
const KEYS: u64 = 12;

/// A thread's operation: every thread has keys of its own and does the same from a given number
/// on, so that parent and child agree on what was meant.
fn operation(thread: u64, number: u64) -> WriteBatch {
    let mut rng = Rng(thread << 32 | number);
    let mut batch = WriteBatch::new();
    let count = if rng.chance(30) { 2 + rng.below(3) } else { 1 };
    for _ in 0..count {
        let key = format!("t{thread}k{}", rng.below(KEYS));
        if rng.chance(25) {
            batch.delete(key).unwrap();
        } else {
            let value = format!("{key}#{number}#").repeat(1 + rng.below(30) as usize);
            batch.put(key, value).unwrap();
        }
    }
    // What it was at the end of this operation.
    batch.put(format!("t{thread}"), number.to_string()).unwrap();
    batch
}

/// The same, done to a map.
fn apply(thread: u64, number: u64, map: &mut HashMap<String, String>) {
    let mut rng = Rng(thread << 32 | number);
    let count = if rng.chance(30) { 2 + rng.below(3) } else { 1 };
    for _ in 0..count {
        let key = format!("t{thread}k{}", rng.below(KEYS));
        if rng.chance(25) {
            map.remove(&key);
        } else {
            let value = format!("{key}#{number}#").repeat(1 + rng.below(30) as usize);
            map.insert(key, value);
        }
    }
    map.insert(format!("t{thread}"), number.to_string());
}

fn open(dir: &Path) -> Store {
    Store::builder(dir)
        .segment_size(2048)
        .build_store()
        .unwrap()
}

/// Not a test of its own: what the children run.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = open(Path::new(&dir));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let last = store.get(format!("t{thread}")).unwrap();
                let last = last.map_or(0, |last| String::from_utf8_lossy(&last).parse().unwrap());
                for number in last + 1.. {
                    store.write(&operation(thread, number)).unwrap();
                    if number % 40 == 0 {
                        store.compact().unwrap();
                    }
                    // One write to the pipe: a line is there or not.
                    let line = format!("wrote {thread} {number} \n");
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

/// Runs a child for a while; gives the last number that each thread acknowledged.
fn run_and_kill(dir: &Path, micros: u64) -> [u64; THREADS as usize] {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kill::child_that_writes_until_it_is_killed",
            "--nocapture",
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pipe = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut last = [0; THREADS as usize];
        for line in pipe.lines().map_while(Result::ok) {
            // The name of the test may stand before the first one.
            let Some((_, said)) = line.split_once("wrote ") else {
                continue;
            };
            let mut numbers = said.split(' ').map(str::parse::<u64>);
            if let (Some(Ok(thread)), Some(Ok(number)), Some(_)) =
                (numbers.next(), numbers.next(), numbers.next())
            {
                last[thread as usize] = number;
            }
        }
        last
    });
    std::thread::sleep(Duration::from_micros(micros));
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

fn contents(store: &Store) -> HashMap<String, String> {
    let entries = store.iter().map(|entry| {
        let (key, value) = entry.unwrap();
        (
            String::from_utf8(key).unwrap(),
            String::from_utf8(value.to_vec()).unwrap(),
        )
    });
    entries.collect()
}

#[test]
fn what_was_acknowledged_survives_two_hundred_kills() {
    let mut rng = Rng(seed(30));
    let mut dir = tempfile::tempdir().unwrap();
    let mut models: Vec<HashMap<String, String>> = vec![HashMap::new(); THREADS as usize];
    let mut done = [0; THREADS as usize];
    let (mut writes, mut torn, mut unclean) = (0, 0, 0);
    for kill in 0..effort(200) {
        // Mostly a directory that grows, now and then a new one.
        if kill % 25 == 0 {
            dir = tempfile::tempdir().unwrap();
            models = vec![HashMap::new(); THREADS as usize];
            done = [0; THREADS as usize];
        }
        let acknowledged = run_and_kill(dir.path(), 2000 + rng.below(60_000));
        let store = open(dir.path());
        let report = store.recovery_report();
        unclean += u64::from(!report.clean);
        torn += u64::from(report.torn_tail.is_some());
        for thread in 0..THREADS as usize {
            let last = store.get(format!("t{thread}")).unwrap();
            let last: u64 = last.map_or(0, |last| String::from_utf8_lossy(&last).parse().unwrap());
            let promised = acknowledged[thread].max(done[thread]);
            assert!(
                (promised..=promised + 1).contains(&last),
                "kill {kill}: {last} of {promised}"
            );
            for number in done[thread] + 1..=last {
                apply(thread as u64, number, &mut models[thread]);
            }
            writes += last - done[thread];
            done[thread] = last;
        }
        let expected: HashMap<_, _> = models.iter().flatten().collect();
        let seen = contents(&store);
        assert_eq!(
            seen.iter().collect::<HashMap<_, _>>(),
            expected,
            "kill {kill}"
        );
        store.put("parent", kill.to_string()).unwrap();
        drop(store);
        let store = open(dir.path());
        assert_eq!(store.get("parent").unwrap().unwrap(), &*kill.to_string());
        assert!(store.delete("parent").unwrap());
        assert_eq!(contents(&store), seen, "kill {kill}, opened again");
    }
    println!(
        "{} kills, {writes} writes, {unclean} unclean, {torn} torn tails",
        effort(200)
    );
    assert!(writes > 0);
}
