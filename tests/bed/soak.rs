//! Hours of ordinary work: writes, reads, values that expire, merges and checkpoints, and a kill
//! now and then. Nothing may grow that has no reason to: memory, descriptors, maps, the disk.
//!
//! `CRABKV_SOAK=SECONDS cargo bed soak` runs it; otherwise it says that it does not.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::Rng;
use crate::layer::{say, skip};
use crabkv::Store;

const LAYER: &str = "soak";
const DIR: &str = "CRABKV_CHILD_SOAKS_IN";
const SECONDS: &str = "CRABKV_SOAK";
const THREADS: u64 = 2;
/// Of each thread.
const KEYS: u64 = 1000;
/// How long the values live that expire.
const TTL: Duration = Duration::from_secs(2);
/// The writers rest after so many writes: it is to last, not to be fast.
const BURST: u64 = 20;

/// A few short sessions come before the long one, each ended by a kill.
const KILLS: u32 = 4;

/// What a thread does at a number: the same in every process.
fn write_at(thread: u64, number: u64) -> (String, Option<String>) {
    let mut rng = Rng(thread << 48 | number);
    let key = format!("t{thread}k{}", rng.below(KEYS));
    let times = 1 + rng.below(200) as usize;
    let value = (!rng.chance(20)).then(|| format!("{number}#").repeat(times));
    (key, value)
}

/// What a thread's keys hold after a number.
fn state_at(thread: u64, last: u64) -> BTreeMap<String, Option<String>> {
    let mut state = BTreeMap::new();
    for number in (1..=last).rev() {
        let (key, value) = write_at(thread, number);
        state.entry(key).or_insert(value);
        if state.len() as u64 == KEYS {
            break;
        }
    }
    state
}

fn open(dir: &Path) -> Store {
    Store::builder(dir.join("store"))
        .segment_size(1 << 20)
        .sync_interval(Duration::from_millis(50))
        .async_compaction(true)
        .build_store()
        .unwrap()
}

fn last(store: &Store, thread: u64) -> u64 {
    let last = store.get(format!("t{thread}")).unwrap();
    last.map_or(0, |last| String::from_utf8_lossy(&last).parse().unwrap())
}

fn tell(line: &str) {
    let line = format!("says {line} \n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Memory of its own, open files, maps: of this process.
#[cfg(target_os = "linux")]
fn resources() -> Option<[u64; 3]> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let anonymous = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = anonymous.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    let files = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    let maps = fs::read_to_string("/proc/self/maps").ok()?.lines().count() as u64;
    Some([kib, files, maps])
}

#[cfg(not(target_os = "linux"))]
fn resources() -> Option<[u64; 3]> {
    None
}

fn disk_kib(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap();
    // A file may go while it is looked at.
    let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    sizes.sum::<u64>() / 1024
}

/// Not a test of its own: what the children run until they are killed.
#[test]
fn child_that_soaks() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let store = open(dir);
    for thread in 0..THREADS {
        let last = last(&store, thread);
        for (key, value) in state_at(thread, last) {
            let found = store.get(&key).unwrap();
            assert_eq!(found.as_deref(), value.as_deref().map(str::as_bytes));
        }
        tell(&format!("found {thread} {last}"));
    }
    let reads = AtomicU64::new(0);
    let numbers: [AtomicU64; THREADS as usize] = Default::default();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, done, reads) = (&store, &numbers[thread as usize], &reads);
            scope.spawn(move || write_and_check(store, thread, done, reads));
        }
        let begun = Instant::now();
        for second in 0_u64.. {
            let at = Duration::from_secs(second + 1);
            std::thread::sleep(at.saturating_sub(begun.elapsed()));
            let count = store.iter().map(Result::unwrap).count();
            assert!(count > 0);
            if second % 20 == 10 {
                store.checkpoint(dir.join("checkpoint")).unwrap();
            }
            if second % 30 == 20 {
                store.compact().unwrap();
            }
            for (thread, number) in numbers.iter().enumerate() {
                tell(&format!("wrote {thread} {}", number.load(Ordering::SeqCst)));
            }
            if let Some([kib, files, maps]) = resources() {
                let disk = disk_kib(&dir.join("store"));
                let reads = reads.load(Ordering::Relaxed);
                tell(&format!("uses {kib} {files} {maps} {disk} {reads}"));
            }
        }
    });
}

/// A thread's writes, with what it wrote checked on the way: nobody else has its keys.
fn write_and_check(store: &Store, thread: u64, done: &AtomicU64, reads: &AtomicU64) {
    let begin = last(store, thread);
    let mut state = state_at(thread, begin);
    let mut rng = Rng(begin);
    for number in begin + 1.. {
        let (key, value) = write_at(thread, number);
        let mut batch = crabkv::WriteBatch::new();
        match &value {
            Some(value) => batch.put(&key, value),
            None => batch.delete(&key),
        }
        .unwrap();
        batch.put(format!("t{thread}"), number.to_string()).unwrap();
        let brief = format!("t{thread}brief{}", number % 500);
        batch.put_with_ttl(&brief, number.to_string(), TTL).unwrap();
        store.write(&batch).unwrap();
        done.store(number, Ordering::SeqCst);
        state.insert(key, value);
        for _ in 0..4 {
            let key = format!("t{thread}k{}", rng.below(KEYS));
            let found = store.get(&key).unwrap();
            let expected = state.get(&key).and_then(Option::as_deref);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{key}");
            reads.fetch_add(1, Ordering::Relaxed);
        }
        if number % BURST == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What a child used, second by second: memory in KiB, files, maps, disk in KiB, reads.
type Uses = Vec<[u64; 5]>;

/// Runs a child for a while and kills it; every number that was said is to be found afterwards.
fn session(dir: &Path, time: Duration, promised: &mut [u64; THREADS as usize]) -> Uses {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "soak::child_that_soaks"])
        .args(["--nocapture", "--quiet"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pipe = BufReader::new(child.stdout.take().unwrap());
    let is_over = AtomicBool::new(false);
    let mut uses = Uses::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(time);
            is_over.store(true, Ordering::SeqCst);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        for line in pipe.lines().map_while(Result::ok) {
            let said = line.split_once("says ");
            let Some(line) = said.and_then(|(_, line)| line.strip_suffix(' ')) else {
                continue;
            };
            let mut words = line.split(' ');
            let what = words.next().unwrap();
            let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
            match what {
                "found" => {
                    let promised = promised[numbers[0] as usize];
                    assert!(numbers[1] >= promised, "{line}, promised {promised}");
                }
                "wrote" => {
                    let promised = &mut promised[numbers[0] as usize];
                    *promised = numbers[1].max(*promised);
                }
                _ => uses.push(numbers.try_into().unwrap()),
            }
        }
        assert!(is_over.load(Ordering::SeqCst), "the child ended by itself");
    });
    uses
}

/// That something is not much more at the end than at the beginning: by the highest of a quarter
/// of the time, a fifth and `slack` more.
fn is_flat(what: &str, figures: &[u64], slack: u64) -> String {
    let quarter = figures.len() / 4;
    let most = |figures: &[u64]| figures.iter().copied().max().unwrap_or(0);
    // The first tenth is for everything to come to its size.
    let first = most(&figures[figures.len() / 10..quarter.max(figures.len() / 10 + 1)]);
    let end = most(&figures[figures.len() - quarter.max(1)..]);
    assert!(
        end <= first + first / 5 + slack,
        "{what} grew from {first} to {end}: {figures:?}"
    );
    format!("{what} {first} -> {end}")
}

#[test]
fn nothing_grows_in_a_long_time_of_work() {
    let seconds = std::env::var(SECONDS).ok();
    let Some(seconds) = seconds.and_then(|seconds| seconds.parse::<u64>().ok()) else {
        skip(
            LAYER,
            "takes as long as it is told; set CRABKV_SOAK to a number of seconds",
        );
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut promised = [0; THREADS as usize];
    let time = Duration::from_secs(seconds.max(60));
    for _ in 0..KILLS {
        session(dir.path(), time / 10, &mut promised);
    }
    let uses = session(dir.path(), time * 6 / 10, &mut promised);
    // Once more, to see that what the last one was told is there.
    session(dir.path(), Duration::from_secs(3), &mut promised);
    let report = crabkv::verify(dir.path().join("store")).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let mut said = format!(
        "{} writes, {} kills",
        promised.iter().sum::<u64>(),
        KILLS + 2
    );
    if uses.is_empty() {
        skip(LAYER, "this system does not say what a process uses");
    } else {
        let names = [
            ("memory KiB", 4096),
            ("files", 8),
            ("maps", 16),
            ("disk KiB", 8192),
        ];
        for (at, (name, slack)) in names.into_iter().enumerate() {
            let figures: Vec<_> = uses.iter().map(|uses| uses[at]).collect();
            said = format!("{said}; {}", is_flat(name, &figures, slack));
        }
        let reads = uses.last().map_or(0, |uses| uses[4]);
        said = format!("{said}; {reads} reads checked in the last session");
    }
    say(LAYER, &said);
}
