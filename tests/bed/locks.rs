//! Who has a store open for writing, among real processes: exactly one, whatever becomes of the
//! others, of the lock file, or of the one that had it before.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::layer::say;
use crabkv::{Error, Store, lock_holder};

const DIR: &str = "CRABKV_CHILD_LOCKS";
/// What the child does once it has the store.
const HOW: &str = "CRABKV_CHILD_LOCKS_HOW";

/// Not a test of its own: what the children run. It opens the store, says what came of it, and
/// stays until its input ends.
#[test]
fn child_that_holds_a_lock() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let opened = Store::open(Path::new(&dir));
    let line = match &opened {
        Ok(store) => {
            store.put("holder", std::process::id().to_string()).unwrap();
            "won".to_owned()
        }
        Err(Error::Locked { holder, .. }) => format!("locked by {holder}"),
        Err(error) => format!("failed: {error}"),
    };
    let mut out = std::io::stdout();
    out.write_all(format!("says {line}\n").as_bytes()).unwrap();
    #[cfg(any(target_os = "linux", target_os = "macos"))] // where libc has fork
    if std::env::var_os(HOW).is_some() {
        unix::fork_and_wait();
        out.write_all(b"says forked\n").unwrap();
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[cfg(any(target_os = "linux", target_os = "macos"))] // where libc has fork
mod unix {
    /// Makes a copy of this process, which ends at once, and waits for its end.
    pub(super) fn fork_and_wait() {
        // SAFETY: the copy only ends itself, which is allowed there even if other threads held
        // locks, and no destructor runs.
        let ended = unsafe {
            match libc::fork() {
                0 => libc::_exit(7),
                copy => {
                    let mut status = 0;
                    libc::waitpid(copy, &raw mut status, 0) == copy
                        && libc::WEXITSTATUS(status) == 7
                }
            }
        };
        assert!(ended);
    }
}

struct Holder {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn start(dir: &Path, forks: bool) -> Holder {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "locks::child_that_holds_a_lock"])
            .args(["--nocapture", "--quiet"])
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if forks {
            command.env(HOW, "forks");
        }
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Holder { child, said }
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            if let Some((_, said)) = line.split_once("says ") {
                return said.trim_end().to_owned();
            }
            line.clear();
        }
        panic!("the child said nothing");
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it come to its end in good order.
    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn of_many_processes_exactly_one_opens_a_store_for_writing() {
    const ROUNDS: usize = 5;
    const CHILDREN: usize = 5;
    let dir = tempfile::tempdir().unwrap();
    let mut before = String::new();
    for round in 0..ROUNDS {
        let mut children: Vec<_> = (0..CHILDREN)
            .map(|_| Holder::start(dir.path(), false))
            .collect();
        let said: Vec<_> = children.iter_mut().map(Holder::says).collect();
        let winners: Vec<_> = (0..CHILDREN).filter(|at| said[*at] == "won").collect();
        assert_eq!(winners.len(), 1, "{said:?}");
        let pid = children[winners[0]].child.id();
        let holder = format!("locked by process {pid}");
        // Those who came before the winner had said who it is saw what stood there.
        let told = ["won", "locked by", &holder, &before];
        let is_told = |said: &&String| told.contains(&said.as_str());
        assert_eq!(said.iter().filter(is_told).count(), CHILDREN, "{said:?}");
        let found = lock_holder(dir.path()).unwrap();
        assert!(found.is_some_and(|found| found.contains(&pid.to_string())));
        assert!(matches!(Store::open(dir.path()), Err(Error::Locked { .. })));
        for (at, child) in children.into_iter().enumerate() {
            if at != winners[0] {
                child.end();
            } else if round % 2 == 0 {
                child.kill();
            } else {
                child.end();
            }
        }
        // The text of the dead holder is still there, and means nothing.
        // On Windows it has a file of its own.
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        let text = text("LOCK") + &text("LOCK.holder");
        assert!(text.contains(&pid.to_string()), "{text}");
        assert_eq!(lock_holder(dir.path()).unwrap(), None);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.get("holder").unwrap().unwrap(), &*pid.to_string());
        before = format!("locked by process {}", std::process::id());
    }
    say(
        "locks",
        &format!("{} processes, {ROUNDS} winners", ROUNDS * CHILDREN),
    );
}

#[cfg(unix)] // Windows does not remove a file that is open
#[test]
fn a_lock_file_that_is_removed_while_it_is_held_keeps_others_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Holder::start(dir.path(), false);
    assert_eq!(holder.says(), "won");
    std::fs::remove_file(dir.path().join("LOCK")).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::Locked { .. })));
    let mut other = Holder::start(dir.path(), false);
    assert!(other.says().starts_with("locked by"));
    other.end();
    holder.kill();
    Store::open(dir.path()).unwrap();
}

#[cfg(any(target_os = "linux", target_os = "macos"))] // they have fork
#[test]
fn the_end_of_a_forked_copy_does_not_give_the_lock_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Holder::start(dir.path(), true);
    assert_eq!(holder.says(), "won");
    assert_eq!(holder.says(), "forked");
    assert!(matches!(Store::open(dir.path()), Err(Error::Locked { .. })));
    holder.end();
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_program_that_was_started_meanwhile_does_not_keep_the_lock() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(dir.path()).unwrap();
    let mut program = Holder::start(other.path(), false);
    assert_eq!(program.says(), "won");
    drop(store);
    Store::open(dir.path()).unwrap();
    program.end();
}

/// Its own name in the lock file is no sign that the lock was left behind.
#[test]
fn a_process_does_not_open_a_store_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for _ in 0..2 {
        let second = Store::open(dir.path()).map(drop);
        assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
    }
    drop(store);
    Store::open(dir.path()).unwrap();
}
