//! A child process that writes by a script which its parent knows too, and says over a pipe how
//! far it has come: what there must be after whatever happened to it follows from that.
//!
//! Two threads write, each to keys of its own. Each operation of a thread has a number, which
//! goes with it into the store, together with the number that the other thread had come to: so
//! the log has an order across the threads that a hole would break.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::Rng;
use crabkv::{Error, ReadMode, Result, Store, WriteBatch};

pub(crate) const THREADS: usize = 2;
const KEYS: u64 = 12;

/// How many operations a thread does before the store is closed and opened again.
const ROUND: u64 = 60;

/// Far beyond the end of any run.
const TTL: Duration = Duration::from_secs(10 * 24 * 3600);

const VARIABLE: &str = "CRABKV_CHILD_WRITES_BY_SCRIPT";

/// When what the child writes is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    EveryWrite,
    Interval,
    WriteBack,
}

const MODES: [Mode; 3] = [Mode::EveryWrite, Mode::Interval, Mode::WriteBack];

/// How a child writes.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) dir: PathBuf,
    pub(crate) mode: Mode,
    pub(crate) segment_size: u64,
    pub(crate) read_mode: ReadMode,
    /// Whether it compacts, so that the store stays small.
    pub(crate) compacts: bool,
}

impl Script {
    pub(crate) fn random(dir: &Path, rng: &mut Rng) -> Script {
        Script {
            dir: dir.to_path_buf(),
            // Half of them in the mode that promises most.
            mode: *MODES.get(rng.below(4) as usize).unwrap_or(&MODES[0]),
            segment_size: [1024, 2048, 8192, 128 << 10][rng.below(4) as usize],
            read_mode: if rng.chance(25) {
                ReadMode::Pread
            } else {
                ReadMode::Mmap
            },
            compacts: true,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    fn open(&self) -> Result<Store> {
        let builder = Store::builder(self.data())
            .segment_size(self.segment_size)
            .read_mode(self.read_mode)
            .auto_compaction(self.compacts);
        let builder = match self.mode {
            Mode::EveryWrite => builder,
            Mode::Interval => builder.sync_interval(Duration::from_millis(5)),
            Mode::WriteBack => builder.write_back_cache(true),
        };
        builder.build_store()
    }

    /// As one word of an environment, and back.
    fn to_word(&self) -> String {
        let mode = MODES.iter().position(|mode| *mode == self.mode).unwrap();
        let pread = u8::from(self.read_mode == ReadMode::Pread);
        let (size, dir) = (self.segment_size, self.dir.display());
        let compacts = u8::from(self.compacts);
        format!("{mode},{size},{pread},{compacts},{dir}")
    }

    fn from_word(word: &str) -> Script {
        let mut parts = word.splitn(5, ',');
        let mut part = || parts.next().unwrap();
        Script {
            mode: MODES[part().parse::<usize>().unwrap()],
            segment_size: part().parse().unwrap(),
            read_mode: if part() == "1" {
                ReadMode::Pread
            } else {
                ReadMode::Mmap
            },
            compacts: part() == "1",
            dir: part().into(),
        }
    }
}

/// What keys hold by the script: the value, and whether it expires some day.
pub(crate) type Map = BTreeMap<String, (String, bool)>;

/// What an operation changes, but for its thread's number.
fn changes(thread: usize, number: u64) -> Vec<(String, Option<(String, bool)>)> {
    let mut rng = Rng((thread as u64) << 32 | number);
    let count = match rng.below(10) {
        0..3 => 0,
        3..8 => 1,
        _ => 2 + rng.below(3),
    };
    let change = |_| {
        let key = format!("t{thread}k{}", rng.below(KEYS));
        let value = (!rng.chance(25)).then(|| {
            let value = format!("{key}#{number}#").repeat(1 + rng.below(30) as usize);
            (value, rng.chance(20))
        });
        (key, value)
    };
    (0..count).map(change).collect()
}

/// Does an operation to a map.
pub(crate) fn apply(thread: usize, number: u64, map: &mut Map) {
    for (key, value) in changes(thread, number) {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

/// Does it to a store.
fn write(store: &Store, thread: usize, number: u64, other: u64) -> Result<()> {
    let (key, value) = (format!("t{thread}"), format!("{number} {other}"));
    let changes = changes(thread, number);
    if changes.is_empty() {
        return store.put(key, value);
    }
    let mut batch = WriteBatch::new();
    for (key, value) in changes {
        match value {
            Some((value, true)) => batch.put_with_ttl(key, value, TTL)?,
            Some((value, false)) => batch.put(key, value)?,
            None => batch.delete(key)?,
        };
    }
    batch.put(key, value)?;
    store.write(&batch)
}

/// How far a thread had come, and how far the other one when it went there.
pub(crate) fn number(store: &Store, thread: usize) -> (u64, u64) {
    let text = store.get(format!("t{thread}")).unwrap();
    let text = text.map_or("0 0".into(), |text| {
        String::from_utf8(text.to_vec()).unwrap()
    });
    let (number, other) = text.split_once(' ').unwrap();
    (number.parse().unwrap(), other.parse().unwrap())
}

/// All that the threads have written, but for their numbers.
pub(crate) fn contents(store: &Store) -> Map {
    let entries = store.iter().map(|entry| {
        let (key, value) = entry.unwrap();
        let text = String::from_utf8(value.to_vec()).unwrap();
        let expires = value.expires_at().is_some();
        (String::from_utf8(key).unwrap(), (text, expires))
    });
    entries.filter(|(key, _)| key.contains('k')).collect()
}

/// A line to the parent, in one write: it is there or not.
fn say(what: &str) {
    let line = format!("\nscript {what}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Not a test of its own: what the children run.
#[test]
fn child_that_writes_by_the_script() {
    let Ok(word) = std::env::var(VARIABLE) else {
        return;
    };
    let script = Script::from_word(&word);
    say("ready");
    loop {
        if let Err(failure) = run_round(&script) {
            say(&format!("failed {}", failure.0));
            // The parent has the time it needs to look at what is left.
            let mut nothing = String::new();
            let _ = std::io::stdin().read_line(&mut nothing);
            return;
        }
    }
}

/// What failed, and what was seen of the store after it.
struct Failure(String);

impl Failure {
    fn of(what: &'static str) -> impl Fn(Error) -> Failure {
        move |error| Failure(format!("{what}: {error:?}"))
    }

    /// Adds whether writes are refused now, and whether what is there can be read.
    fn look_at(self, store: &Store) -> Failure {
        let refused = match store.put("after", "a failure") {
            Err(Error::Poisoned { .. }) => "refused",
            _ => "not refused",
        };
        // By keys: an iteration would write first what waits in a buffer.
        let read = catch_unwind(AssertUnwindSafe(|| {
            let mut expected = Map::new();
            for thread in 0..THREADS {
                let last = number(store, thread).0;
                (1..=last).for_each(|number| apply(thread, number, &mut expected));
            }
            let mut keys =
                (0..THREADS).flat_map(|t| (0..KEYS).map(move |key| format!("t{t}k{key}")));
            keys.all(|key| {
                let found = store.get(&key).unwrap();
                let value = expected.get(&key).map(|(value, _)| value.as_bytes());
                found.as_deref() == value
            })
        }));
        let read = match read {
            Ok(true) => "read well".to_owned(),
            Ok(false) => "read wrongly".to_owned(),
            Err(panic) => {
                let said = panic.downcast_ref::<String>();
                format!("not read: {}", said.map_or("", String::as_str))
            }
        };
        Failure(format!("{}, then {refused}, {read}", self.0))
    }
}

fn run_round(script: &Script) -> Result<(), Failure> {
    let store = script.open().map_err(Failure::of("open"))?;
    let numbers = [0, 1].map(|thread| AtomicU64::new(number(&store, thread).0));
    thread::scope(|scope| {
        let run = |thread| {
            let (script, store, numbers) = (script, &store, &numbers);
            scope.spawn(move || run_thread(script, store, thread, numbers))
        };
        let threads = [run(0), run(1)];
        let ended = threads.map(|thread| thread.join().unwrap());
        ended.into_iter().collect::<Result<(), Failure>>()
    })
    .map_err(|failure| failure.look_at(&store))?;
    let closed = store.close().map_err(Failure::of("close"));
    closed.map_err(|failure| failure.look_at(&store))?;
    for (thread, number) in numbers.iter().enumerate() {
        say(&format!(
            "durable {thread} {} .",
            number.load(Ordering::Relaxed)
        ));
    }
    Ok(())
}

fn run_thread(
    script: &Script,
    store: &Store,
    thread: usize,
    numbers: &[AtomicU64; THREADS],
) -> Result<(), Failure> {
    let last = numbers[thread].load(Ordering::Relaxed);
    for number in last + 1..=last + ROUND {
        let other = numbers[1 - thread].load(Ordering::Relaxed);
        write(store, thread, number, other).map_err(Failure::of("write"))?;
        numbers[thread].store(number, Ordering::Relaxed);
        let durable = match script.mode {
            Mode::EveryWrite => true,
            Mode::Interval if number % 16 == 0 => {
                store.sync().map(|()| true).map_err(Failure::of("write"))?
            }
            Mode::WriteBack if number % 7 == 0 => {
                store.flush().map(|()| true).map_err(Failure::of("write"))?
            }
            Mode::Interval | Mode::WriteBack => false,
        };
        let what = if durable { "durable" } else { "wrote" };
        say(&format!("{what} {thread} {number} ."));
        if script.compacts && number % 40 == 0 {
            store.compact().map_err(Failure::of("compact"))?;
        }
        if thread == 0 && number % 50 == 0 {
            let made = store.checkpoint(script.checkpoint());
            made.map_err(Failure::of("checkpoint"))?;
            say(&format!("checkpoint {thread} {number} ."));
        }
    }
    Ok(())
}

/// What a child said: the last number of each thread, that it had begun to say or said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// What it went on from, or wrote.
    pub(crate) wrote: [u64; THREADS],
    /// What cannot be lost.
    pub(crate) durable: [u64; THREADS],
    /// What of the first thread is in the checkpoint.
    pub(crate) checkpoint: u64,
    /// Why it gave up.
    pub(crate) failed: Option<String>,
}

impl Said {
    fn hear(&mut self, line: &str) -> bool {
        let Some(said) = line.strip_prefix("script ") else {
            return false;
        };
        if let Some(error) = said.strip_prefix("failed ") {
            self.failed = Some(error.to_owned());
            return true;
        }
        let parts: Vec<_> = said.split(' ').collect();
        let [what, thread, number, "."] = parts[..] else {
            return true;
        };
        let (thread, number): (usize, u64) = (thread.parse().unwrap(), number.parse().unwrap());
        match what {
            "durable" => {
                self.wrote[thread] = number;
                self.durable[thread] = number;
            }
            "wrote" => self.wrote[thread] = number,
            "checkpoint" => self.checkpoint = number,
            other => panic!("{other}"),
        }
        true
    }
}

/// A child at work; it ends with this.
pub(crate) struct Writer {
    child: Child,
    lines: mpsc::Receiver<String>,
    _stdin: ChildStdin,
    said: Said,
}

impl Writer {
    /// Starts a child, which has not opened the store yet.
    pub(crate) fn start(script: &Script) -> Writer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "scripted::child_that_writes_by_the_script"])
            .arg("--nocapture")
            .env(VARIABLE, script.to_word())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pipe = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in pipe.lines().map_while(std::result::Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut writer = Writer {
            _stdin: child.stdin.take().unwrap(),
            child,
            lines,
            said: Said::default(),
        };
        writer.hear(1);
        writer
    }

    /// Waits until it has said so many things, or that something failed; `false` if it has ended.
    pub(crate) fn hear(&mut self, count: u64) -> bool {
        let mut heard = 0;
        while heard < count && self.said.failed.is_none() {
            let Ok(line) = self.lines.recv() else {
                return false;
            };
            heard += u64::from(self.said.hear(&line));
        }
        true
    }

    /// What was heard of it until now.
    pub(crate) fn said(&mut self) -> Said {
        while let Ok(line) = self.lines.try_recv() {
            self.said.hear(&line);
        }
        self.said.clone()
    }

    /// Kills it, and gives all that it said.
    pub(crate) fn kill(mut self) -> Said {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        while self.hear(1) && self.said.failed.is_none() {}
        std::mem::take(&mut self.said)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a parent knows of a store that its children write to.
#[derive(Default)]
pub(crate) struct Ledger {
    /// How far each thread had come when the store was last looked at.
    pub(crate) done: [u64; THREADS],
    maps: [Map; THREADS],
    /// What a checkpoint that was reported holds of the first thread.
    checkpoint: u64,
    /// What the parent itself wrote last.
    parent: u64,
}

impl Ledger {
    /// Checks a store after whatever happened to the child that said this, and writes to it.
    /// Gives whether the end of the log was torn.
    pub(crate) fn check(
        &mut self,
        script: &Script,
        said: &Said,
        context: &dyn Fn() -> String,
    ) -> bool {
        let report = crabkv::verify(script.data());
        match report {
            Ok(report) => assert!(report.heals(), "{:?}\n{}", report.damage, context()),
            // Not even the directory may be there.
            Err(error) => assert!(self.done == [0, 0] && said.durable == [0, 0], "{error}"),
        }
        let store = open(script, context);
        let is_torn = store.recovery_report().torn_tail.is_some();
        let numbers = [number(&store, 0), number(&store, 1)];
        for thread in 0..THREADS {
            let (last, other) = numbers[thread];
            let promised = said.durable[thread].max(self.done[thread]);
            // What it was doing when it ended may be there or not.
            let attempted = said.wrote[thread].max(self.done[thread]) + 1;
            assert!(
                (promised..=attempted).contains(&last),
                "thread {thread} is at {last}, not {promised} to {attempted}\n{}",
                context()
            );
            assert!(
                numbers[1 - thread].0 >= other,
                "a hole: thread {thread} had seen {other} of the other, which is at {}\n{}",
                numbers[1 - thread].0,
                context()
            );
            for number in self.done[thread] + 1..=last {
                apply(thread, number, &mut self.maps[thread]);
            }
            self.done[thread] = last;
        }
        let expected: Map = self.maps.iter().flatten().map(cloned).collect();
        let seen = contents(&store);
        assert_eq!(seen, expected, "{}", context());
        let parent = store.get("parent").unwrap();
        let parent = parent.map(|parent| String::from_utf8(parent.to_vec()).unwrap());
        let written = (self.parent > 0).then(|| self.parent.to_string());
        assert_eq!(parent, written, "{}", context());
        self.check_checkpoint(script, said, context);

        self.parent += 1;
        store.put("parent", self.parent.to_string()).unwrap();
        store.close().unwrap();
        drop(store);
        let report = crabkv::verify(script.data()).unwrap();
        assert!(report.is_sound(), "{:?}\n{}", report.damage, context());
        let store = open(script, context);
        assert_eq!(contents(&store), seen, "opened again\n{}", context());
        assert_eq!([number(&store, 0), number(&store, 1)], numbers);
        is_torn
    }

    /// It holds a moment of the store between its report and now.
    fn check_checkpoint(&mut self, script: &Script, said: &Said, context: &dyn Fn() -> String) {
        self.checkpoint = self.checkpoint.max(said.checkpoint);
        let opened = Store::builder(script.checkpoint())
            .read_only(true)
            .build_store();
        let store = match opened {
            Ok(store) => store,
            Err(error) => {
                assert_eq!(self.checkpoint, 0, "{error}\n{}", context());
                return;
            }
        };
        let numbers = [number(&store, 0), number(&store, 1)];
        assert!(
            numbers[0].0 >= self.checkpoint && numbers[1].0 >= numbers[0].1,
            "the checkpoint is of {numbers:?}, reported was {}\n{}",
            self.checkpoint,
            context()
        );
        let mut expected = Map::new();
        for (thread, (last, _)) in numbers.into_iter().enumerate() {
            assert!(
                last <= self.done[thread],
                "the checkpoint is ahead\n{}",
                context()
            );
            (1..=last).for_each(|number| apply(thread, number, &mut expected));
        }
        assert_eq!(contents(&store), expected, "the checkpoint\n{}", context());
    }
}

fn open(script: &Script, context: &dyn Fn() -> String) -> Store {
    let opened = Store::builder(script.data())
        .segment_size(script.segment_size)
        .read_mode(script.read_mode)
        .build_store();
    opened.unwrap_or_else(|error| panic!("{error}\n{}", context()))
}

fn cloned((key, value): (&String, &(String, bool))) -> (String, (String, bool)) {
    (key.clone(), value.clone())
}
