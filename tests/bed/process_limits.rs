//! What the system refuses a process: memory maps, open files, threads. A child process runs into
//! the limit, goes on as well as it can, and works as before when it has room again.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use memmap2::{Mmap, MmapOptions};
use tempfile::tempdir_in;

use crate::layer::{Layer, skip};
use crate::mount::SmallDisk;
use crabkv::{Error, ReadMode, Result, Store};

const VARIABLE: &str = "CRABKV_CHILD_MEETS_A_LIMIT";
const KEYS: u64 = 30;

fn value(number: u64) -> String {
    format!("{number}-").repeat(60)
}

/// Small, so that there are many files; but those of up to 64 KiB are filled on the heap, which
/// has room in these processes, and a limit on address space is met by larger ones.
fn segment_size(kind: &str) -> u64 {
    if kind == "bytes" { 128 << 10 } else { 1024 }
}

fn open(dir: &Path, kind: &str, mode: ReadMode, threads: usize) -> Result<Store> {
    let builder = Store::builder(dir).segment_size(segment_size(kind));
    let builder = builder.recovery_threads(NonZeroUsize::new(threads).unwrap());
    builder.read_mode(mode).build_store()
}

#[derive(Clone, Copy)]
enum Resource {
    Files,
    AddressSpace,
}

/// Sets one of this process's limits; gives what it was before.
fn limit(resource: Resource, to: u64) -> u64 {
    let resource = match resource {
        Resource::Files => libc::RLIMIT_NOFILE,
        Resource::AddressSpace => libc::RLIMIT_AS,
    };
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a local that lives through the call, which writes to it alone.
    let got = unsafe { libc::getrlimit(resource, &raw mut limit) };
    let before = limit.rlim_cur;
    limit.rlim_cur = to;
    // SAFETY: as above; it is only read.
    let set = unsafe { libc::setrlimit(resource, &raw const limit) };
    assert_eq!((got, set), (0, 0));
    before
}

/// How many bytes of its address space this process uses.
fn address_space() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

/// A limit that this process meets, until it is dropped.
struct Limited {
    maps: Vec<Mmap>,
    before: Option<(Resource, u64)>,
}

impl Limited {
    fn new(kind: &str, left: u64) -> Limited {
        let (mut maps, mut before) = (Vec::new(), None);
        match kind {
            "files" => {
                before = Some((Resource::Files, limit(Resource::Files, left)));
            }
            "bytes" => {
                let space = Resource::AddressSpace;
                before = Some((space, limit(space, address_space() + left)));
            }
            "maps" => maps = use_up_maps(left),
            "threads" => assert!(std::thread::Builder::new().spawn(|| ()).is_err()),
            other => panic!("{other}"),
        }
        Limited { maps, before }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.maps.clear();
        if let Some((resource, before)) = self.before {
            limit(resource, before);
        }
    }
}

/// Uses up all memory maps that the system gives this process but so many.
fn use_up_maps(left: u64) -> Vec<Mmap> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let map = |file: &File| {
        // SAFETY: nobody else has this file, which has no name, and nobody changes it.
        unsafe { MmapOptions::new().map(file) }
    };
    // Reserved, so that the vector itself needs none while there is none.
    let mut maps = Vec::with_capacity(max_maps() as usize + 1);
    while let Ok(one) = map(&file) {
        maps.push(one);
    }
    maps.truncate(maps.len() - left as usize);
    maps
}

fn max_maps() -> u64 {
    let max = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    max.trim().parse().unwrap()
}

/// Not a test of its own: what the children run.
#[test]
fn child_that_meets_a_limit() {
    let Ok(word) = std::env::var(VARIABLE) else {
        return;
    };
    let parts: Vec<_> = word.splitn(4, ',').collect();
    let [kind, left, mode, dir] = parts[..] else {
        panic!("{word}");
    };
    let (left, dir) = (left.parse().unwrap(), Path::new(dir));
    let mode = match mode {
        "pread" => ReadMode::Pread,
        _ => ReadMode::Mmap,
    };
    // Without maps for its stack, a thread that the standard library starts ends the process.
    let threads = if matches!(kind, "maps" | "bytes") {
        1
    } else {
        4
    };
    let say = |what: &str| {
        let line = format!("\nlimit {what}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    };
    let limited = Limited::new(kind, left);
    let mut refused = 0;
    let mut met = |error: &Error| {
        assert!(matches!(error, Error::ResourceLimit { .. }), "{error:?}");
        refused += 1;
    };
    let mut number = 0;
    let mut write = |store: &Store, met: &mut dyn FnMut(&Error)| {
        number += 1;
        match store.put((number % KEYS).to_string(), value(number)) {
            Ok(()) => say(&format!("wrote {number} .")),
            Err(error) => met(&error),
        }
    };
    let store = match open(dir, kind, mode, threads) {
        Ok(store) => Some(store),
        Err(error) => {
            met(&error);
            None
        }
    };
    if let Some(store) = &store {
        for _ in 0..3 * KEYS {
            write(store, &mut met);
        }
        for key in 0..KEYS {
            if let Err(error) = store.get(key.to_string()) {
                met(&error);
            }
        }
        if let Err(error) = store.compact() {
            met(&error);
        }
    }
    // The limit is raised, and all is as it was.
    drop(limited);
    let store = store.unwrap_or_else(|| open(dir, kind, mode, threads).unwrap());
    let mut never = |error: &Error| panic!("{error}");
    for _ in 0..KEYS {
        write(&store, &mut never);
    }
    for key in 0..KEYS {
        assert!(store.get(key.to_string()).unwrap().is_some());
    }
    store.compact().unwrap();
    store.close().unwrap();
    say(&format!("refused {refused} ."));
}

/// Runs a child under a limit, in a store of some age; gives how often it was refused something.
fn meet(at: &Path, kind: &str, left: u64, mode: &str) -> u64 {
    let dir = tempdir_in(at).unwrap();
    let data = dir.path().join("data");
    let store = open(&data, kind, ReadMode::Mmap, 1).unwrap();
    for number in 0..4 * KEYS {
        store.put(format!("old{number}"), value(number)).unwrap();
    }
    drop(store);
    let context = format!("{left} {kind} are left, {mode}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    if kind == "threads" {
        // No room anywhere for such a stack: every thread is refused.
        command.env("RUST_MIN_STACK", (1_u64 << 50).to_string());
    }
    let mut child = command
        .args([
            "--exact",
            "process_limits::child_that_meets_a_limit",
            "--nocapture",
        ])
        .env(VARIABLE, format!("{kind},{left},{mode},{}", data.display()))
        // One heap for all threads, which has its room from the beginning: a process that has used
        // up its maps gets no memory either.
        .env("MALLOC_ARENA_MAX", "1")
        .env("MALLOC_TOP_PAD_", "33554432")
        .env("MALLOC_MMAP_THRESHOLD_", "1073741824")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pipe = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = vec![None; KEYS as usize];
    let mut refused = None;
    for line in pipe.lines().map_while(std::result::Result::ok) {
        let Some(said) = line.strip_prefix("limit ") else {
            continue;
        };
        let parts: Vec<_> = said.split(' ').collect();
        match parts[..] {
            ["wrote", number, "."] => {
                let number: u64 = number.parse().unwrap();
                acknowledged[(number % KEYS) as usize] = Some(number);
            }
            ["refused", count, "."] => refused = Some(count.parse().unwrap()),
            _ => {}
        }
    }
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{context}: {complaint}");

    let store = open(&data, kind, ReadMode::Mmap, 1).unwrap();
    for (key, number) in acknowledged.into_iter().enumerate() {
        let found = store.get(key.to_string()).unwrap();
        let number = number.unwrap_or_else(|| panic!("{context}: {key} was never written"));
        assert_eq!(found.unwrap(), &*value(number), "{context}");
    }
    for number in 0..4 * KEYS {
        let found = store.get(format!("old{number}")).unwrap();
        assert_eq!(found.unwrap(), &*value(number), "{context}");
    }
    drop(store);
    assert!(crabkv::verify(&data).unwrap().is_sound(), "{context}");
    refused.unwrap_or_else(|| panic!("{context}: the child did not end well: {complaint}"))
}

/// Where a test may make its stores: in memory if it can, where syncing takes no time.
struct Place {
    memory: Option<SmallDisk>,
}

impl Place {
    fn new() -> Place {
        Place {
            memory: SmallDisk::mount("size=64m").ok(),
        }
    }

    fn dir(&self) -> PathBuf {
        let memory = self.memory.as_ref();
        memory.map_or_else(std::env::temp_dir, |disk| disk.dir().to_path_buf())
    }
}

#[test]
fn a_limit_on_open_files_is_an_error_that_passes() {
    let layer = Layer::begin("limits on open files", "limits", 60);
    let place = Place::new();
    let mut refused = 0;
    for left in (4..).take(layer.goal().div_ceil(2) as usize) {
        for mode in ["pread", "mmap"] {
            refused += meet(&place.dir(), "files", left, mode);
            layer.add(1);
        }
    }
    assert!(refused > 0, "no limit was met");
    layer.end(&format!("{refused} operations were refused"));
}

#[test]
fn without_memory_maps_a_store_is_read_and_written_all_the_same() {
    const MOST: u64 = 1 << 20;
    let name = "limits on memory maps";
    if max_maps() > MOST {
        return skip(
            name,
            "there are more maps than can be used up in a short time",
        );
    }
    let layer = Layer::begin(name, "limits", 6);
    let place = Place::new();
    for left in (4..).step_by(7).take(layer.goal() as usize) {
        let refused = meet(&place.dir(), "maps", left, "mmap");
        assert_eq!(refused, 0, "{left} maps are left");
        layer.add(1);
    }
    layer.end("nothing was refused");
}

#[test]
fn a_limit_on_memory_is_an_error_that_passes() {
    let layer = Layer::begin("limits on address space", "limits", 30);
    let place = Place::new();
    let mut refused = 0;
    for pages in 0..layer.goal() {
        refused += meet(&place.dir(), "bytes", pages << 16, "mmap");
        layer.add(1);
    }
    assert!(refused > 0, "no limit was met");
    layer.end(&format!("{refused} operations were refused"));
}

#[test]
fn without_more_threads_a_store_opens_all_the_same() {
    assert_eq!(meet(&Place::new().dir(), "threads", 0, "mmap"), 0);
}
