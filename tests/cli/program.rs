//! The program as a shell runs it, and what its answers are held against.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use crabkv::Store;
use tempfile::TempDir;

/// The program, with `dir` as its working directory and nothing of ours in its environment.
pub(crate) fn program(dir: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crabkv"));
    command.current_dir(dir.path());
    for name in [
        "CRABKV_DATA_DIR",
        "CRABKV_CACHE_CAPACITY",
        "CRABKV_DEFAULT_TTL_SECS",
        "NO_COLOR",
        "CLICOLOR_FORCE",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs a command line as the shell would split it: `run(&dir, "put hello world")`.
pub(crate) fn run(dir: &TempDir, line: &str) -> Output {
    program(dir).args(line.split_whitespace()).output().unwrap()
}

pub(crate) fn run_with_input(dir: &TempDir, line: &str, input: &[u8]) -> Output {
    let mut command = program(dir);
    command.args(line.split_whitespace());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// What went to stdout; there must have been no complaint.
#[track_caller]
pub(crate) fn done(output: Output) -> Vec<u8> {
    assert_eq!(stderr(&output), "");
    assert_eq!(output.status.code(), Some(0));
    output.stdout
}

#[track_caller]
pub(crate) fn silently_done(output: Output) {
    assert!(done(output).is_empty());
}

/// The one line that says why; nothing may have gone to stdout.
#[track_caller]
pub(crate) fn failed(output: &Output, code: i32) -> String {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(output.stdout, b"", "{message}");
    assert!(message.starts_with("crabkv: "), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    message
}

#[track_caller]
pub(crate) fn absent(output: &Output) {
    let message = failed(output, 1);
    assert!(message.contains("no value"), "{message}");
}

/// What clap says.
#[track_caller]
pub(crate) fn misused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"");
    stderr(output)
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What was said, with paths as all systems but one write them.
pub(crate) fn slashed(said: &str) -> String {
    said.replace('\\', "/")
}

/// The data directory when nothing else is said.
pub(crate) fn data(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

/// How long a key has to live, in whole seconds.
pub(crate) fn ttl_secs(dir: &TempDir, key: &str) -> Option<u64> {
    let store = Store::open(data(dir)).unwrap();
    let expires_at = store.expires_at(key).unwrap()?;
    let left = expires_at.duration_since(SystemTime::now()).unwrap();
    Some(left.as_secs())
}

/// What went to stdout, as JSON.
#[track_caller]
pub(crate) fn json(output: Output) -> serde_json::Value {
    let stdout = done(output);
    serde_json::from_slice(&stdout).unwrap()
}

/// What went to stdout, as text.
#[track_caller]
pub(crate) fn text(output: Output) -> String {
    String::from_utf8(done(output)).unwrap()
}
