//! The house rules, read from the source itself: who may import from whom, and what every file
//! owes its reader.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src/`, from the ground floor up. A file uses only its own room and the rooms
/// before it. `docs/ARCHITECTURE.md` is this list in words.
///
/// `segment` and `index` are strangers to each other, see [`STRANGERS`].
const ROOMS: &[&str] = &[
    "bugs",
    "format",
    "error",
    "progress",
    "sync",
    "reclaim",
    "disk",
    "segment",
    "index",
    "log",
    "recovery",
    "compaction",
    "checkpoint",
    "verify",
    "inspect",
    "repair",
    "store",
    "crabkv",
    "fuzzing",
    "lib",
    "cli",
    "server",
    "main",
];

/// Rooms that must not know of each other though the order would allow it.
const STRANGERS: &[(&str, &str)] = &[
    // The index is memory only: it knows keys' hashes and locations, no file.
    ("index", "segment"),
    ("index", "disk"),
    ("index", "error"),
    // The format is pure: bytes to values and back.
    ("reclaim", "format"),
    ("disk", "format"),
    // The fuzzers call decoders, not the store.
    ("fuzzing", "store"),
];

/// Rooms that use only what any program can use: `crabkv::...`, or their own `crate::`.
const PROGRAMS: &[&str] = &["cli", "server", "main"];

/// A file says one thing: this many lines at most, its unit tests not counted.
const MAX_LINES: usize = 500;

/// Files that are longer, how much longer they may be, and why.
const LONGER: &[(&str, usize, &str)] = &[
    (
        "disk/sim/tests.rs",
        720,
        "all tests, one after the other, of one model",
    ),
    (
        "store/compactor.rs",
        510,
        "when merges run and how fast is one story, in the order in which it happens",
    ),
];

/// Where threads meet, by how the names of the files begin: what threads are made of comes from
/// `sync` there, or shuttle does not see it.
const SCHEDULED: &[&str] = &[
    "reclaim",
    "disk/region",
    "disk/sim",
    "segment",
    "index",
    "log",
    "recovery",
    "compaction",
    "checkpoint",
    "store",
];

/// Files there that have their own, and why.
const UNSCHEDULED: &[(&str, &str)] = &[
    (
        "reclaim.rs",
        "numbers that debug builds compare, no part of what is done",
    ),
    ("reclaim/seized.rs", "not in builds that are scheduled"),
    ("reclaim/tests.rs", "the machine's own threads"),
    (
        "index/page.rs",
        "a flag that shuttle's build checks, no part of what is done",
    ),
    ("index/tests.rs", "the machine's own threads"),
    ("index/loom_tests.rs", "what loom itself is not told of"),
    ("disk/sim/tests.rs", "the machine's own threads"),
];

/// Rooms that may hold `unsafe` code.
const UNSAFE_ROOMS: &[&str] = &["disk", "index", "reclaim"];

/// How far above an `unsafe` block its SAFETY comment may begin: the length of a comment and of
/// the statement that the block is in.
const SAFETY_LINES: usize = 12;

struct SourceFile {
    /// Below `src/`, with `/` between the parts.
    name: String,
    room: String,
    text: String,
}

impl SourceFile {
    /// The lines that are code, with their numbers from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..)
            .zip(self.text.lines())
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(number, line)| (number, line.split(" // ").next().unwrap_or(line)))
    }

    /// The lines before the unit tests at the file's foot.
    fn lines_without_unit_tests(&self) -> usize {
        let lines: Vec<_> = self.text.lines().collect();
        lines
            .windows(2)
            .position(|pair| pair == ["#[cfg(test)]", "mod tests {"])
            .unwrap_or(lines.len())
    }
}

fn source_files() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "the source is not where it should be");
    paths
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&root).unwrap();
            let parts: Vec<_> = below.iter().map(|part| part.to_str().unwrap()).collect();
            SourceFile {
                name: parts.join("/"),
                room: parts[0].trim_end_matches(".rs").to_owned(),
                text: fs::read_to_string(&path).unwrap(),
            }
        })
        .collect()
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Fails with all complaints at once.
fn none(complaints: &[String], rule: &str) {
    let mut list = String::new();
    for complaint in complaints {
        let _ = writeln!(list, "  {complaint}");
    }
    assert!(complaints.is_empty(), "{rule}:\n{list}");
}

/// What follows `crate::` on a line: the rooms or root names that it uses.
fn used_from_crate(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .filter(|(at, _)| !line[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        .map(|(at, prefix)| {
            let rest = &line[at + prefix.len()..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect()
}

fn floor_of(room: &str) -> Option<usize> {
    ROOMS.iter().position(|other| *other == room)
}

#[test]
fn every_file_is_in_a_room_of_the_house() {
    let complaints: Vec<_> = source_files()
        .iter()
        .filter(|file| floor_of(&file.room).is_none())
        .map(|file| format!("src/{}: add its room to ROOMS, in its place", file.name))
        .collect();
    none(&complaints, "a file without a place in the order");
}

#[test]
fn a_file_imports_only_from_the_rooms_below_its_own() {
    let mut complaints = Vec::new();
    for file in source_files() {
        if file.room == "lib" || PROGRAMS.contains(&file.room.as_str()) {
            continue;
        }
        let floor = floor_of(&file.room).unwrap();
        for (number, line) in file.code() {
            for used in used_from_crate(line) {
                let place = format!("src/{}:{number}", file.name);
                match floor_of(used) {
                    Some(_) if used == file.room => {}
                    Some(other) if other < floor => {
                        if STRANGERS.contains(&(file.room.as_str(), used)) {
                            complaints.push(format!("{place}: `{used}` is a stranger here"));
                        }
                    }
                    Some(_) => complaints.push(format!(
                        "{place}: `{used}` is above `{}`; move what is needed down, or the code up",
                        file.room
                    )),
                    None => complaints.push(format!(
                        "{place}: `crate::{used}` is the front door; name the room it comes from"
                    )),
                }
            }
        }
    }
    none(&complaints, "imports go one way, down");
}

#[test]
fn programs_use_only_the_public_interface() {
    let mut complaints = Vec::new();
    for file in source_files() {
        if !PROGRAMS.contains(&file.room.as_str()) {
            continue;
        }
        for (number, line) in file.code() {
            for used in used_from_crate(line) {
                if floor_of(used).is_some() && !PROGRAMS.contains(&used) {
                    complaints.push(format!(
                        "src/{}:{number}: `crate::{used}` is not for programs; use `crabkv::`",
                        file.name
                    ));
                }
            }
        }
    }
    none(&complaints, "a program goes through the front door");
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let complaints: Vec<_> = source_files()
        .iter()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| format!("src/{}: begin with a `//!` comment", file.name))
        .collect();
    none(&complaints, "a file without a header");
}

#[test]
fn no_file_is_too_long_to_be_read_at_a_sitting() {
    let mut complaints = Vec::new();
    for file in source_files() {
        let longer = LONGER.iter().find(|(name, ..)| *name == file.name);
        let max = longer.map_or(MAX_LINES, |(_, max, _)| *max);
        let lines = file.lines_without_unit_tests();
        if lines > max {
            complaints.push(format!(
                "src/{}: {lines} lines without its unit tests, {max} are allowed; look for the \
                 second noun in it",
                file.name
            ));
        }
        if longer.is_some() && lines <= MAX_LINES {
            complaints.push(format!(
                "src/{}: is short again; take it off LONGER",
                file.name
            ));
        }
    }
    none(&complaints, "a file of more than one thing");
}

#[test]
fn what_threads_are_made_of_comes_from_one_room() {
    const MADE_OF: &[&str] = &[
        "atomic",
        "Mutex",
        "MutexGuard",
        "RwLock",
        "Condvar",
        "OnceLock",
        "Once",
        "Barrier",
        "mpsc",
        "scope",
        "spawn",
        "sleep",
        "yield_now",
        "current",
        "Builder",
        "JoinHandle",
        "Instant",
    ];
    let is_own = |line: &str| {
        ["std::sync", "std::thread", "std::time"]
            .iter()
            .filter_map(|path| Some(&line[line.find(path)? + path.len()..]))
            .any(|rest| {
                rest.split(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .any(|word| MADE_OF.contains(&word))
            })
    };
    assert!(is_own("use std::sync::{Arc, Mutex};") && is_own("    std::thread::sleep(time);"));
    assert!(!is_own("use std::sync::{Arc, PoisonError};") && !is_own("use std::time::Duration;"));
    let mut complaints = Vec::new();
    for file in source_files() {
        let is_scheduled = SCHEDULED.iter().any(|begin| file.name.starts_with(begin));
        if !is_scheduled || UNSCHEDULED.iter().any(|(name, _)| *name == file.name) {
            continue;
        }
        let last = file.lines_without_unit_tests();
        for (number, line) in file.code().take_while(|(number, _)| *number <= last) {
            if is_own(line) {
                complaints.push(format!("src/{}:{number}: {}", file.name, line.trim()));
            }
        }
    }
    none(&complaints, "take it from `crate::sync`");
}

#[test]
fn nothing_unfinished_is_left_behind() {
    let mut complaints = Vec::new();
    for file in source_files() {
        for (number, line) in file.code() {
            for word in ["todo!", "dbg!", "unimplemented!"] {
                if line.contains(&format!("{word}(")) {
                    complaints.push(format!("src/{}:{number}: {word}", file.name));
                }
            }
        }
    }
    none(&complaints, "something is not finished");
}

/// The lines of a file on which `unsafe` stands as a word of code, beginning at 0.
fn unsafe_lines(file: &SourceFile) -> Vec<(usize, &str)> {
    let word = |line: &str| {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .any(|word| word == "unsafe")
    };
    file.code()
        .filter(|(_, line)| word(line) && !line.contains('"'))
        .map(|(number, line)| (number - 1, line))
        .collect()
}

#[test]
fn unsafe_code_lives_in_three_rooms_only() {
    let mut complaints = Vec::new();
    for file in source_files() {
        if UNSAFE_ROOMS.contains(&file.room.as_str()) {
            continue;
        }
        for (line, _) in unsafe_lines(&file) {
            complaints.push(format!(
                "src/{}:{}: there are {UNSAFE_ROOMS:?} for that",
                file.name,
                line + 1
            ));
        }
    }
    none(&complaints, "unsafe code in a room that has none");
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut complaints = Vec::new();
    for file in source_files() {
        let lines: Vec<_> = file.text.lines().collect();
        for (at, line) in unsafe_lines(&file) {
            let above = &lines[at.saturating_sub(SAFETY_LINES)..=at];
            // An `unsafe fn` has a section for its callers instead.
            let wanted = if line.contains("unsafe fn") {
                ["# Safety", "SAFETY:"]
            } else {
                ["SAFETY:", "SAFETY:"]
            };
            let said = |line: &&str| wanted.iter().any(|wanted| line.contains(wanted));
            if !above.iter().any(said) {
                complaints.push(format!("src/{}:{}: {}", file.name, at + 1, line.trim()));
            }
        }
    }
    none(&complaints, "unsafe code without a SAFETY comment");
}

/// `.ci/windows` tells from this what it leaves out.
#[test]
fn a_test_that_is_not_for_every_system_says_why() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join("src"), &mut paths);
    collect(&root.join("tests"), &mut paths);
    let mut complaints = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim_start).collect();
        let is_test = |line: &str| {
            line == "#[test]" || line.starts_with("mod ") && !path.starts_with(root.join("src"))
        };
        for (at, pair) in lines.windows(2).enumerate() {
            let [condition, below] = pair else { continue };
            let is_of_systems = condition.starts_with("#[cfg(")
                && ["unix", "windows", "target_os"]
                    .iter()
                    .any(|name| condition.contains(name));
            if is_of_systems && is_test(below) && !condition.contains(")] // ") {
                let name = path.strip_prefix(root).unwrap().display();
                complaints.push(format!("{name}:{}: {condition}", at + 1));
            }
        }
    }
    none(
        &complaints,
        "a test for some systems only, without a reason",
    );
}
