//! Real processes: a child writes and says over a pipe what it has written, the parent kills it,
//! opens the store and checks. The page cache survives, so this is about what the process does,
//! not about power cuts; those are in `crash.rs`.
//!
//! Half of the kills come at a random moment, half at an operation of the disk that was chosen
//! before: the child halts there, in the middle of opening, of a recovery, a merge, a checkpoint
//! or a write, says so, and waits for its end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::common::{Rng, in_two_threads, seed};
use crate::halting::HaltingDisk;
use crate::layer::Layer;
use crabkv::disk::Disk;
use crabkv::{CrabKvBuilder, Error, Store, WriteBatch};

/// Tells a child what to do: directory, mode, phase and number, with a line for each.
const PLAN: &str = "CRABKV_CHILD_PLAN";
const THREADS: u64 = 2;
const KEYS: u64 = 12;
/// How far the one thread of a child may be ahead of the other. On a slow machine it would write
/// more while the other merges than is ever merged.
const AHEAD: u64 = 100;
/// How long a child has, on a busy machine, to come to the operation that it is to halt at.
const PATIENCE: Duration = Duration::from_secs(300);
/// So many kills in one directory, then a new one.
const ROUND: u64 = 25;

/// How the store of a round is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    EveryWrite,
    Interval,
    /// Compaction on a thread of its own, with so much data that there is something for it to do.
    Background,
    SmallSegments,
}

const MODES: [Mode; 4] = [
    Mode::EveryWrite,
    Mode::Interval,
    Mode::Background,
    Mode::SmallSegments,
];

impl Mode {
    fn builder(self, dir: &Path) -> CrabKvBuilder {
        let builder = Store::builder(dir).segment_size(2048);
        let interval = Duration::from_millis(5);
        match self {
            Mode::EveryWrite => builder,
            Mode::Interval => builder.sync_interval(interval),
            Mode::Background => builder
                .segment_size(1 << 17)
                .sync_interval(interval)
                .async_compaction(true),
            Mode::SmallSegments => builder.segment_size(256),
        }
    }

    /// How often the text of a value is repeated at most.
    fn repeats(self) -> u64 {
        match self {
            Mode::Background => 3000,
            Mode::SmallSegments => 8,
            Mode::EveryWrite | Mode::Interval => 30,
        }
    }
}

/// In the middle of what a child halts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Of nothing: it is killed at some moment.
    Never,
    Open,
    Write,
    Merge,
    Checkpoint,
}

const PHASES: [Phase; 5] = [
    Phase::Never,
    Phase::Open,
    Phase::Write,
    Phase::Merge,
    Phase::Checkpoint,
];

impl Phase {
    /// About how many operations of the disk it has.
    fn operations(self) -> u64 {
        match self {
            Phase::Never => 1,
            Phase::Open | Phase::Write => 30,
            Phase::Merge => 90,
            Phase::Checkpoint => 40,
        }
    }
}

/// A thread's write: every thread has keys of its own and does the same from a given number on,
/// so that parent and child agree on what was meant.
fn writes(mode: Mode, thread: u64, number: u64) -> Vec<(String, Option<String>)> {
    let mut rng = Rng(thread << 32 | number);
    let count = if rng.chance(30) { 2 + rng.below(3) } else { 1 };
    let mut writes: Vec<_> = (0..count)
        .map(|_| {
            let key = format!("t{thread}k{}", rng.below(KEYS));
            let times = 1 + rng.below(mode.repeats()) as usize;
            let value = (!rng.chance(25)).then(|| format!("{key}#{number}#").repeat(times));
            (key, value)
        })
        .collect();
    // What it was at the end of this operation.
    writes.push((format!("t{thread}"), Some(number.to_string())));
    writes
}

type Contents = BTreeMap<String, String>;

/// The same, done to a map.
fn apply(mode: Mode, thread: u64, numbers: impl Iterator<Item = u64>, map: &mut Contents) {
    for (key, value) in numbers.flat_map(|number| writes(mode, thread, number)) {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

fn contents<D: Disk>(store: &Store<D>) -> Contents {
    let entries = store.iter().map(|entry| {
        let (key, value) = entry.unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&key), text(&value))
    });
    entries.collect()
}

/// The last number of a thread that a store knows of.
fn last<D: Disk>(store: &Store<D>, thread: u64) -> u64 {
    let last = store.get(format!("t{thread}")).unwrap();
    last.map_or(0, |last| String::from_utf8_lossy(&last).parse().unwrap())
}

/// The one with this name.
fn named<T: std::fmt::Debug, const N: usize>(all: [T; N], name: &str) -> T {
    let mut all = all.into_iter();
    all.find(|one| format!("{one:?}") == name).unwrap()
}

/// One write to the pipe: a line is there or not.
fn say(line: &str) {
    let line = format!("says {line} \n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Not a test of its own: what the children run.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(plan) = std::env::var(PLAN) else {
        return;
    };
    let plan: Vec<_> = plan.lines().collect();
    let dir = Path::new(plan[0]).join("store");
    let checkpoint = Path::new(plan[0]).join("checkpoint");
    let mode = named(MODES, plan[1]);
    let phase = named(PHASES, plan[2]);
    let number = plan[3].parse().unwrap();
    let disk = HaltingDisk::new(|| {
        say("halted");
        std::thread::sleep(Duration::from_secs(600));
        std::process::exit(9);
    });
    let within = |this: Phase, work: &mut dyn FnMut()| {
        if phase == this {
            disk.halt_at(number);
        }
        work();
        if phase == this {
            disk.rest();
            say("passed");
        }
    };
    let mut opened = None;
    within(Phase::Open, &mut || {
        opened = Some(mode.builder(&dir).build_store_on(disk.clone()).unwrap());
    });
    let store = &opened.unwrap();
    say("opened");
    let write = |thread: u64, number: u64| {
        let mut batch = WriteBatch::new();
        for (key, value) in writes(mode, thread, number) {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
            .unwrap();
        }
        store.write(&batch).unwrap();
        say(&format!("wrote {thread} {number}"));
    };
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (count, number) in (0..).zip(last(store, 1) + 1..) {
                while count > done.load(Ordering::Relaxed) + AHEAD {
                    std::thread::sleep(Duration::from_millis(1));
                }
                write(1, number);
            }
        });
        let begin = last(store, 0) + 1;
        let write = |number| {
            write(0, number);
            done.fetch_add(1, Ordering::Relaxed);
        };
        within(Phase::Write, &mut || (begin..begin + 12).for_each(write));
        for number in begin + 12.. {
            write(number);
            if number % 12 == 0 {
                within(Phase::Merge, &mut || {
                    store.compact().unwrap();
                });
            }
            if number % 16 == 0 {
                within(Phase::Checkpoint, &mut || {
                    store.checkpoint(&checkpoint).unwrap();
                });
                say(&format!("copied 0 {number}"));
            }
        }
    });
}

/// A child, and what it says.
struct Writer {
    child: Child,
    lines: Receiver<String>,
    /// The last number that each thread acknowledged.
    acknowledged: [u64; THREADS as usize],
    /// The last number of the first thread that a finished checkpoint has.
    copied: u64,
    is_open: bool,
    has_halted: bool,
    /// The phase ended before the operation came in which it was to halt.
    has_passed: bool,
}

impl Writer {
    fn start(dir: &Path, mode: Mode, phase: Phase, number: u64) -> Writer {
        let plan = format!("{}\n{mode:?}\n{phase:?}\n{number}", dir.display());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_that_writes_until_it_is_killed"])
            .args(["--nocapture", "--quiet"])
            .env(PLAN, plan)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pipe = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                // What the harness says may stand before the first one.
                if let Some((_, line)) = line.split_once("says ") {
                    // Only with the space at its end a line is whole.
                    if let Some(line) = line.strip_suffix(' ') {
                        let _ = said.send(line.to_owned());
                    }
                }
            }
        });
        Writer {
            child,
            lines,
            acknowledged: [0; THREADS as usize],
            copied: 0,
            is_open: false,
            has_halted: false,
            has_passed: false,
        }
    }

    fn note(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["opened"] => self.is_open = true,
            ["halted"] => self.has_halted = true,
            ["passed"] => self.has_passed = true,
            ["wrote", thread, number] => {
                let thread: usize = thread.parse().unwrap();
                self.acknowledged[thread] = number.parse().unwrap();
            }
            ["copied", _, number] => self.copied = number.parse().unwrap(),
            _ => panic!("the child says {line:?}"),
        }
    }

    /// Listens until something is true.
    ///
    /// # Panics
    ///
    /// When nothing is said for a minute: the child hangs, or has ended. And when it writes on and
    /// on, but never comes to it.
    fn listen_until(&mut self, is_true: impl Fn(&Writer) -> bool) {
        let begun = Instant::now();
        while !is_true(self) {
            let line = self.lines.recv_timeout(Duration::from_secs(60));
            self.note(&line.expect("the child says nothing any more"));
            let [main, other] = self.acknowledged;
            assert!(
                begun.elapsed() < PATIENCE,
                "the child wrote {main} and {other}, and comes to nothing else"
            );
        }
    }

    fn listen_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.note(&line),
                Err(_) => return,
            }
        }
    }

    fn kill(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the child ended by itself: {ended:?}");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while let Ok(line) = self.lines.recv() {
            self.note(&line);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Only after a failure it is still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Counts {
    writes: AtomicU64,
    unclean: AtomicU64,
    torn: AtomicU64,
    copies: AtomicU64,
    /// Kills at the chosen operation, by phase.
    halted: [AtomicU64; PHASES.len()],
}

/// One directory, and what should be in it.
struct Round<'a> {
    dir: tempfile::TempDir,
    mode: Mode,
    rng: Rng,
    expected: Contents,
    done: [u64; THREADS as usize],
    copied: u64,
    counts: &'a Counts,
}

impl Round<'_> {
    /// Runs a child in some phase and kills it there; gives what it acknowledged.
    fn kill_one(&mut self, phase: Phase) -> [u64; THREADS as usize] {
        let at = self.rng.below(phase.operations());
        let mut writer = Writer::start(self.dir.path(), self.mode, phase, at);
        if phase == Phase::Open {
            // If the number was not reached, at the end of opening.
            writer.listen_until(|writer| writer.has_halted || writer.has_passed);
        } else if phase == Phase::Never {
            if !self.rng.chance(20) {
                writer.listen_until(|writer| writer.is_open);
            }
            writer.listen_for(Duration::from_micros(self.rng.below(30_000)));
        } else {
            // If it was not, soon after the end of the phase.
            writer.listen_until(|writer| writer.has_halted || writer.has_passed);
            if writer.has_passed {
                writer.listen_for(Duration::from_micros(self.rng.below(5000)));
            }
        }
        writer.kill();
        let number = PHASES.iter().position(|other| *other == phase).unwrap();
        Counts::add(&self.counts.halted[number], u64::from(writer.has_halted));
        self.copied = self.copied.max(writer.copied);
        writer.acknowledged
    }

    fn open(&self) -> Store {
        let builder = self.mode.builder(&self.dir.path().join("store"));
        builder.async_compaction(false).build_store().unwrap()
    }

    /// What was acknowledged is there, and no more than what was on its way when a child was
    /// killed.
    fn check(&mut self, acknowledged: [u64; THREADS as usize], kills: u64) {
        let store = self.open();
        let report = store.recovery_report();
        Counts::add(&self.counts.unclean, u64::from(!report.clean));
        Counts::add(&self.counts.torn, u64::from(report.torn_tail.is_some()));
        for thread in 0..THREADS {
            let done = &mut self.done[thread as usize];
            let promised = acknowledged[thread as usize].max(*done);
            let last = last(&store, thread);
            assert!(
                (promised..=promised + kills).contains(&last),
                "{:?}: thread {thread} has {last}, was promised {promised}",
                self.mode
            );
            apply(self.mode, thread, *done + 1..=last, &mut self.expected);
            Counts::add(&self.counts.writes, last - *done);
            *done = last;
        }
        let seen = contents(&store);
        assert_eq!(seen, self.expected, "{:?}", self.mode);
        store.put("parent", "writes").unwrap();
        drop(store);
        let store = self.open();
        assert!(store.recovery_report().clean);
        assert_eq!(store.get("parent").unwrap().unwrap(), "writes");
        assert!(store.delete("parent").unwrap());
        assert_eq!(contents(&store), seen, "{:?}, opened again", self.mode);
    }

    /// The checkpoint is the last finished one, or a later one.
    fn check_checkpoint(&self) {
        let dir = self.dir.path().join("checkpoint");
        let copy = match Store::open_read_only(&dir) {
            Ok(copy) => copy,
            Err(Error::NotFound { .. } | Error::Checkpoint { .. }) if self.copied == 0 => return,
            Err(error) => panic!("a checkpoint of {}: {error}", self.copied),
        };
        let mut expected = Contents::new();
        for thread in 0..THREADS {
            let last = last(&copy, thread);
            assert!(last <= self.done[thread as usize] && (thread > 0 || last >= self.copied));
            apply(self.mode, thread, 1..=last, &mut expected);
        }
        assert_eq!(contents(&copy), expected, "{:?}", self.mode);
        Counts::add(&self.counts.copies, 1);
    }
}

impl Counts {
    fn add(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }
}

#[test]
fn what_was_acknowledged_survives_five_hundred_kills() {
    let layer = Layer::begin("processes", "kills", 500);
    let seed = seed(30);
    let counts = Counts::default();
    // A short run, too, has each mode once.
    let rounds = layer.goal().div_ceil(ROUND).max(MODES.len() as u64);
    in_two_threads(rounds, |number| {
        let mut round = Round {
            dir: tempfile::tempdir().unwrap(),
            mode: MODES[number as usize % MODES.len()],
            rng: Rng(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            expected: Contents::new(),
            done: [0; THREADS as usize],
            copied: 0,
            counts: &counts,
        };
        let mut kills = 0;
        while kills < ROUND {
            let phase = if round.rng.chance(50) {
                Phase::Never
            } else {
                PHASES[1 + round.rng.below(4) as usize]
            };
            let mut acknowledged = round.kill_one(phase);
            let before = kills;
            kills += 1;
            // And while it recovers from that, and from that again.
            while round.rng.chance(40) {
                let again = round.kill_one(Phase::Open);
                kills += 1;
                for (last, again) in acknowledged.iter_mut().zip(again) {
                    *last = again.max(*last);
                }
            }
            round.check(acknowledged, kills - before);
            round.check_checkpoint();
        }
        layer.add(kills);
    });
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let [_, open, write, merge, checkpoint] = counts.halted.each_ref().map(get);
    // Or it would show little.
    assert!(get(&counts.writes) > 0 && open + write + merge + checkpoint > 0);
    layer.end(&format!(
        "{} writes, {} torn tails, {} unclean, {} checkpoints; killed within opening {open}, a \
         write {write}, a merge {merge}, a checkpoint {checkpoint}",
        get(&counts.writes),
        get(&counts.torn),
        get(&counts.unclean),
        get(&counts.copies),
    ));
}
