//! System calls that fail in a real process: a child works on a store under `strace`, which lets
//! one call of it fail, or under a limit of the shell's, and says what was acknowledged. The
//! parent opens what is left and checks the promises; the child has to say what went wrong, and
//! must not notice what the system only interrupts.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{Op, Rng, State, contents, delete, in_two_threads, put, seed};
use crate::layer::{Layer, say, skip};
use crabkv::{Error, Store, verify};

/// Tells a child where to work, on which operations.
const DIR: &str = "CRABKV_CHILD_WORKS_IN";
const SEED: &str = "CRABKV_CHILD_SEED";

/// The calls that are made to fail, and how; and whether the store must not notice.
const FAULTS: [(&str, &str, Noticed); 33] = [
    ("pwrite64", "EIO", Noticed::Maybe),
    ("pwrite64", "ENOSPC", Noticed::Maybe),
    ("pwrite64", "EDQUOT", Noticed::Maybe),
    ("pwrite64", "EINTR", Noticed::Never),
    ("fdatasync", "EIO", Noticed::Maybe),
    ("fdatasync", "ENOSPC", Noticed::Maybe),
    ("fdatasync", "EINTR", Noticed::Never),
    ("fsync", "EIO", Noticed::Maybe),
    ("fsync", "EINTR", Noticed::Never),
    ("fallocate", "ENOSPC", Noticed::Maybe),
    ("fallocate", "EIO", Noticed::Maybe),
    ("fallocate", "EINTR", Noticed::Never),
    ("fallocate", "EOPNOTSUPP", Noticed::Never),
    ("ftruncate", "EIO", Noticed::Maybe),
    ("ftruncate", "EINTR", Noticed::Never),
    ("openat", "EMFILE", Noticed::Maybe),
    ("openat", "ENFILE", Noticed::Maybe),
    ("openat", "ENOMEM", Noticed::Maybe),
    ("openat", "EIO", Noticed::Maybe),
    ("openat", "EINTR", Noticed::Never),
    ("/^rename", "EIO", Noticed::Maybe),
    ("/^rename", "ENOSPC", Noticed::Maybe),
    ("/^unlink", "EIO", Noticed::Maybe),
    ("/^link", "EIO", Noticed::Maybe),
    // Another file system: the checkpoint copies then.
    ("/^link", "EXDEV", Noticed::Never),
    ("mmap", "ENOMEM", Noticed::InMemory),
    ("close", "EIO", Noticed::Never),
    ("close", "EINTR", Noticed::Never),
    ("pread64", "EIO", Noticed::Maybe),
    ("pread64", "EINTR", Noticed::Never),
    ("flock", "EINTR", Noticed::Maybe),
    ("flock", "ENOLCK", Noticed::Maybe),
    ("getdents64", "EIO", Noticed::Maybe),
];

/// Whether something fails in the child when a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noticed {
    Maybe,
    Never,
    /// No more than that a write is refused; but whoever asks for memory may have to end.
    InMemory,
}

/// What a child does.
#[derive(Debug)]
enum Work {
    Do(Op),
    Checkpoint,
    Reopen,
    /// Everything is as it should be, if nothing has failed.
    Check,
}

fn work(seed: u64) -> Vec<Work> {
    let mut rng = Rng(seed);
    let mut work = Vec::new();
    for number in 0..30 {
        let mut write = || {
            let key = format!("k{}", rng.below(10));
            let text = format!("{number}-{key}.").repeat(1 + rng.below(20) as usize);
            if rng.chance(25) {
                delete(&key)
            } else {
                put(&key, text)
            }
        };
        work.push(Work::Do(match number {
            n if n % 6 == 5 => Op::Batch(vec![write(), write(), write()]),
            _ => Op::Write(write()),
        }));
        match number {
            10 | 24 => work.push(Work::Do(Op::Compact)),
            6 | 20 => work.push(Work::Checkpoint),
            14 => work.push(Work::Reopen),
            17 => work.push(Work::Do(Op::Sync)),
            12 | 22 => work.push(Work::Check),
            _ => {}
        }
    }
    work.push(Work::Do(Op::Write(put("large", [b'x'; 6000]))));
    work.extend([Work::Do(Op::Close), Work::Check]);
    work
}

fn open(dir: &Path) -> crabkv::Result<Store> {
    Store::builder(dir.join("store"))
        .segment_size(1024)
        .recovery_threads(std::num::NonZeroUsize::MIN)
        .build_store()
}

/// One write to the pipe, however busy the other end is.
fn tell(line: &str) {
    use std::io::Write;
    let line = format!("says {line} \n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Not a test of its own: what the children run.
#[test]
fn child_whose_system_calls_fail() {
    let (Some(dir), Ok(seed)) = (std::env::var_os(DIR), std::env::var(SEED)) else {
        return;
    };
    let seed = seed.parse().unwrap();
    // Calls are counted for each thread: in this one all are the store's.
    let done = std::thread::spawn(move || child(Path::new(&dir), seed)).join();
    tell(if done.is_ok() { "ended" } else { "panicked" });
}

fn child(dir: &Path, seed: u64) {
    let failed = |number: usize, error: &Error| {
        let kind = match error {
            Error::DiskFull { .. } | Error::ResourceLimit { .. } => "refused",
            Error::Poisoned { .. } => "poisoned",
            _ => "unknown",
        };
        tell(&format!("failed {number} {kind} {error}"));
    };
    let mut expected = Some(State::new());
    let mut store = match open(dir) {
        Ok(store) => Some(store),
        Err(error) => return failed(0, &error),
    };
    for (number, work) in work(seed).into_iter().enumerate() {
        tell(&format!("begins {number}"));
        let Some(opened) = &store else { return };
        let done = match &work {
            Work::Do(op) => op.apply(opened),
            Work::Checkpoint => opened.checkpoint(dir.join("checkpoint")).map(drop),
            Work::Reopen => {
                drop(store.take());
                open(dir).map(|opened| store = Some(opened))
            }
            Work::Check => contents(opened, []).map(|seen| {
                assert!(expected.as_ref().is_none_or(|expected| *expected == seen));
            }),
        };
        match done {
            Ok(()) => {
                if let (Work::Do(op), Some(expected)) = (&work, &mut expected) {
                    op.apply_to(expected, 0);
                }
                tell(&format!("did {number}"));
            }
            Err(error) => {
                failed(number, &error);
                expected = None;
            }
        }
    }
}

/// What a child said, and what it left.
struct Left {
    dir: tempfile::TempDir,
    seed: u64,
    output: Output,
    /// What strace did.
    trace: String,
}

/// Runs a child by a command that goes before it.
fn run(seed: u64, before: impl Fn(&Path) -> Vec<String>) -> std::io::Result<Left> {
    // It is about calls that fail, not about what is durable: in memory it takes a tenth of the
    // time.
    let memory = Path::new("/dev/shm");
    let dir = match tempfile::tempdir_in(memory) {
        Ok(dir) => dir,
        Err(_) => tempfile::tempdir()?,
    };
    let log = dir.path().join("trace");
    let before = before(&log);
    let output = Command::new(&before[0])
        .args(&before[1..])
        .arg(std::env::current_exe()?)
        .args(["--exact", "syscalls::child_whose_system_calls_fail"])
        .args(["--nocapture", "--quiet"])
        .env(DIR, dir.path())
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .output()?;
    Ok(Left {
        seed,
        output,
        trace: std::fs::read_to_string(log).unwrap_or_default(),
        dir,
    })
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What the child could not do.
#[derive(Default)]
struct Failures {
    refused: Vec<String>,
    others: Vec<String>,
    has_ended: bool,
    /// It panicked because a directory could not be closed: the standard library does.
    is_of_closedir: bool,
}

impl Left {
    fn told(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.output.stdout).into_owned();
        let lines = text.lines().filter_map(|line| {
            let (_, line) = line.split_once("says ")?;
            Some(line.strip_suffix(' ')?.to_owned())
        });
        lines.collect()
    }

    fn shown(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&self.output.stdout), text(&self.output.stderr));
        format!("seed {}\n{out}\n{err}\n{}", self.seed, self.trace)
    }

    /// Opens the store and checks it against what the child was told; gives what had failed.
    fn check(&self) -> Failures {
        let work = work(self.seed);
        let mut failures = Failures::default();
        // What the store, and the last checkpoint, may hold.
        let mut states = vec![State::new()];
        let mut copies: Option<Vec<State>> = None;
        let mut begun = None;
        for line in self.told() {
            let mut words = line.splitn(4, ' ');
            let (what, number) = (words.next().unwrap(), words.next());
            let number: usize = number.map_or(0, |number| number.parse().unwrap());
            let apply = |states: &[State]| -> Vec<State> {
                let mut states = states.to_vec();
                if let Some(Work::Do(op)) = work.get(number) {
                    for state in &mut states {
                        op.apply_to(state, 0);
                    }
                }
                states
            };
            match what {
                "begins" => begun = Some(number),
                "did" => {
                    begun = None;
                    states = apply(&states);
                    if matches!(work[number], Work::Checkpoint) {
                        copies = Some(states.clone());
                    }
                }
                "failed" => {
                    begun = None;
                    let kind = words.next().unwrap();
                    match kind {
                        "unknown" => {
                            states.extend(apply(&states));
                            failures.others.push(line.clone());
                        }
                        "refused" => failures.refused.push(line.clone()),
                        _ => failures.others.push(line.clone()),
                    }
                    if matches!(work[number], Work::Checkpoint) {
                        copies = None;
                    }
                }
                "ended" => failures.has_ended = true,
                "panicked" if self.shown().contains("during closedir") => {
                    failures.is_of_closedir = true;
                }
                _ => panic!("{line}\n{}", self.shown()),
            }
        }
        if let Some(number) = begun {
            // It died in the middle of it.
            let mut after = states.clone();
            if let Work::Do(op) = &work[number] {
                for state in &mut after {
                    op.apply_to(state, 0);
                }
            }
            states.extend(after);
            if matches!(work[number], Work::Checkpoint) {
                copies = None;
            }
        }
        self.check_store(&states);
        if let Some(copies) = copies {
            let copy = Store::open_read_only(self.path("checkpoint")).unwrap();
            let seen = contents(&copy, []).unwrap();
            assert!(copies.contains(&seen), "checkpoint\n{}", self.shown());
        }
        failures
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn check_store(&self, states: &[State]) {
        let store = open(self.dir.path()).unwrap_or_else(|error| {
            panic!("{error}\n{}", self.shown());
        });
        let seen = contents(&store, states.iter().flat_map(State::keys)).unwrap();
        assert!(states.contains(&seen), "{seen:?}\n{}", self.shown());
        store.put("parent", "writes").unwrap();
        drop(store);
        let store = open(self.dir.path()).unwrap();
        assert_eq!(store.get("parent").unwrap().unwrap(), "writes");
        assert!(store.delete("parent").unwrap());
        assert_eq!(contents(&store, []).unwrap(), seen, "{}", self.shown());
        drop(store);
        let report = verify(self.path("store")).unwrap();
        assert!(report.is_sound(), "{report:?}\n{}", self.shown());
    }
}

/// Whether strace can inject faults here; says so if it cannot.
fn can_inject(layer: &str) -> bool {
    let injected = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=getcwd"])
        .args(["-e", "inject=getcwd:error=EIO", "pwd", "-P"])
        .output();
    match injected {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let can = text.contains("INJECTED");
            if !can {
                skip(layer, &format!("strace cannot inject faults: {text}"));
            }
            can
        }
        Err(error) => {
            skip(layer, &format!("strace does not start: {error}"));
            false
        }
    }
}

/// Lets call number `number` of the child's thread fail; `None` if it did not come to it.
fn inject(seed: u64, call: &str, errno: &str, number: u64) -> Option<Left> {
    let left = run(seed, |log| {
        let log = log.to_str().unwrap();
        let trace = format!("trace={call}");
        let fault = format!("inject={call}:error={errno}:when={number}");
        words(&["strace", "-f", "-qq", "-o", log, "-e", &trace, "-e", &fault])
    });
    let left = left.unwrap();
    left.trace.contains("INJECTED").then_some(left)
}

#[test]
fn whatever_system_call_fails_what_was_acknowledged_is_there() {
    const LAYER: &str = "system calls";
    /// Of the calls of one kind, in one pass, one in so many fails in its turn.
    const STRIDE: u64 = if cfg!(debug_assertions) { 40 } else { 3 };
    if !can_inject(LAYER) {
        return;
    }
    let layer = Layer::begin(LAYER, "injected errors", 500);
    let seed = seed(50);
    let counts: [AtomicU64; 3] = Default::default();
    let [unnoticed, refused, ended] = &counts;
    for pass in 0.. {
        let before = layer.done();
        if layer.is_done() {
            break;
        }
        in_two_threads(FAULTS.len() as u64, |fault| {
            let (call, errno, noticed) = FAULTS[fault as usize];
            let mut number = 1 + (pass + fault) % STRIDE;
            while pass == 0 || !layer.is_done() {
                let Some(left) = inject(seed + pass, call, errno, number) else {
                    break;
                };
                if left.told().is_empty() {
                    // It was not a call of the store's: the program could not even begin.
                    number += STRIDE;
                    continue;
                }
                let failures = left.check();
                let says = || format!("{call} {number} {errno}\n{}", left.shown());
                let count = failures.refused.len() + failures.others.len();
                match noticed {
                    Noticed::Never => {
                        let has_ended = failures.has_ended || failures.is_of_closedir;
                        assert!(count == 0 && has_ended, "{}", says());
                    }
                    Noticed::InMemory => assert!(failures.others.is_empty(), "{}", says()),
                    Noticed::Maybe => assert!(failures.has_ended, "{}", says()),
                }
                // One call failed, once: nothing else is refused after that.
                assert!(failures.refused.len() <= 1, "{}", says());
                if !failures.refused.is_empty() {
                    assert!(failures.others.is_empty(), "{}", says());
                }
                unnoticed.fetch_add(u64::from(count == 0), Ordering::Relaxed);
                refused.fetch_add(failures.refused.len() as u64, Ordering::Relaxed);
                ended.fetch_add(u64::from(!failures.has_ended), Ordering::Relaxed);
                layer.add(1);
                number += STRIDE;
            }
        });
        assert!(layer.done() > before, "none of the calls was made");
    }
    layer.end(&format!(
        "{} had no effect, {} were refusals, {} ended the process",
        unnoticed.load(Ordering::Relaxed),
        refused.load(Ordering::Relaxed),
        ended.load(Ordering::Relaxed)
    ));
}

#[test]
fn a_file_that_may_not_grow_as_large_refuses_what_does_not_fit_and_nothing_else() {
    // In blocks of 512 bytes; the segments have 1024, the large value 6000. Without the signal
    // the system call fails; with it the process ends.
    for (script, is_ignored) in [
        ("trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"", true),
        ("ulimit -f 8; exec \"$0\" \"$@\"", false),
    ] {
        let left = run(51, |_| words(&["sh", "-c", script])).unwrap();
        let failures = left.check();
        assert_eq!(failures.has_ended, is_ignored, "{}", left.shown());
        assert!(failures.others.is_empty(), "{}", left.shown());
        let refused = failures.refused.len();
        assert_eq!(refused, usize::from(is_ignored), "{}", left.shown());
    }
}

#[test]
fn where_few_files_may_be_open_a_store_says_so_and_loses_nothing() {
    let (mut refused, mut without) = (0, 0);
    for files in 3..40 {
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        let left = run(52, |_| words(&["sh", "-c", &script])).unwrap();
        let failures = left.check();
        if !failures.has_ended {
            // The harness itself had too few.
            assert!(left.told().is_empty(), "{files} files\n{}", left.shown());
            continue;
        }
        assert!(
            failures.others.is_empty(),
            "{files} files\n{}",
            left.shown()
        );
        refused += failures.refused.len();
        without += usize::from(failures.refused.is_empty());
    }
    say(
        "system calls",
        &format!("limits on open files: {refused} operations refused, {without} limits sufficed"),
    );
    assert!(refused > 0 && without > 0);
}
