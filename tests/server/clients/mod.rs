//! Clients that others wrote, against the real program. Those that are not installed are skipped, with
//! a line that says so; `.ci/run` installs them where it can.

mod redis_rs;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use tempfile::tempdir;

use crate::running::Running;

/// Where `.ci/run` installs clients: beside what is built.
fn installed() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap().join("clients")
}

fn script(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    dir.join("tests/server/clients").join(name)
}

/// Runs a client to its end; `None`, and a line that says so, where it is not installed.
fn run(command: &mut Command, input: &str) -> Option<Output> {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: {} is missing: {error}", name(command));
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // It may answer before it has read everything.
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // Whoever ends early has a reason, which the output says.
    let _ = writer.join().unwrap();
    Some(output)
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// What a client printed, of both kinds, when it has succeeded.
fn printed(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{}:\n{text}", output.status);
    text
}

/// Does a command by `redis-cli`, and gives what it printed.
fn redis_cli_with(server: &Running, input: &str, words: &[&str]) -> Option<String> {
    let mut command = Command::new("redis-cli");
    let port = server.addr.port().to_string();
    command.args(["-p", &port]).args(words);
    let output = run(&mut command, input)?;
    Some(printed(&output))
}

fn redis_cli(server: &Running, words: &[&str]) -> Option<String> {
    redis_cli_with(server, "", words)
}

#[test]
fn redis_cli_does_what_it_is_told() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    for (words, expected) in [
        (&["PING"][..], "PONG\n"),
        (&["SET", "a key", "two words"], "OK\n"),
        (&["GET", "a key"], "two words\n"),
        (&["--no-raw", "GET", "a key"], "\"two words\"\n"),
        (&["--no-raw", "GET", "missing"], "(nil)\n"),
        (&["--no-raw", "INCR", "n"], "(integer) 1\n"),
        (&["-3", "--no-raw", "GET", "missing"], "(nil)\n"),
        (
            &["-3", "--no-raw", "CONFIG", "GET", "maxclients"],
            "1# \"maxclients\" => \"1000\"\n",
        ),
        (
            &["--no-raw", "MGET", "a key", "missing"],
            "1) \"two words\"\n2) (nil)\n",
        ),
        (&["--json", "-3", "MGET", "n"], "[\"1\"]\n"),
        (&["-r", "3", "INCR", "n"], "2\n3\n4\n"),
        (&["-x", "SET", "from input"], "OK\n"),
        (&["GET", "from input"], "of a pipe\n"),
        (&["TTL", "a key"], "-1\n"),
    ] {
        let Some(found) = redis_cli_with(&server, "of a pipe", words) else {
            return;
        };
        assert_eq!(found, expected, "{words:?}");
    }
    let lines = "MULTI\nSET t 'a b'\nINCR n\nEXEC\nGET t\nLPUSH list 1\nQUIT\n";
    let found = redis_cli_with(&server, lines, &[]).unwrap();
    let expected = "OK\nQUEUED\nQUEUED\nOK\n5\na b\nERR unknown command 'LPUSH', ";
    assert!(found.starts_with(expected), "{found}");
}

#[test]
fn redis_cli_pipes_ten_thousand_commands_in_either_form() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut lines = String::new();
    let mut frames = String::new();
    for i in 0..10_000 {
        // Writing to a string cannot fail.
        let _ = write!(lines, "SET line{i} \"value {i}\"\r\n");
        let key = format!("frame{i}");
        let len = key.len();
        let _ = write!(frames, "*3\r\n$3\r\nSET\r\n${len}\r\n{key}\r\n$1\r\n1\r\n");
    }
    for input in [lines, frames] {
        let Some(found) = redis_cli_with(&server, &input, &["--pipe"]) else {
            return;
        };
        let expected = "Last reply received from server.\nerrors: 0, replies: 10000\n";
        assert!(found.ends_with(expected), "{found}");
    }
    let found = redis_cli(&server, &["GET", "line9999"]);
    assert_eq!(found.unwrap(), "value 9999\n");
    let scanned = redis_cli(&server, &["--scan"]).unwrap();
    let mut keys: Vec<_> = scanned.lines().collect();
    assert_eq!(keys.len(), 20_000);
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 20_000);
    let some = redis_cli(&server, &["--scan", "--pattern", "frame999?"]);
    assert_eq!(some.unwrap().lines().count(), 10);
}

#[test]
fn redis_cli_finds_the_largest_value() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let large = "v".repeat(1000);
    for words in [&["SET", "small", "1"], &["SET", "large", large.as_str()]] {
        if redis_cli(&server, words).is_none() {
            return;
        }
    }
    let found = redis_cli(&server, &["--bigkeys"]).unwrap();
    let largest = "Biggest string found '\"large\"' has 1000 bytes";
    assert!(found.contains(largest), "{found}");
    let found = redis_cli(&server, &["--memkeys"]).unwrap();
    assert!(
        found.contains("Biggest string found '\"large\"'"),
        "{found}"
    );
}

#[test]
fn redis_benchmark_measures_without_an_error() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let port = server.addr.port().to_string();
    for options in [&["-P", "16"][..], &["-c", "5", "-r", "100", "-3"]] {
        let mut command = Command::new("redis-benchmark");
        let tests = "ping,set,get,incr,mset";
        command.args(["-p", &port, "-q", "-n", "2000", "-t", tests]);
        let Some(output) = run(command.args(options), "") else {
            return;
        };
        let found = printed(&output);
        let measured = found.matches("requests per second").count();
        // PING is measured twice, as a line and as a frame.
        assert!(measured >= 6, "{found}");
        assert!(!found.contains("rror"), "{found}");
    }
}

/// Runs a script of claims, which says what it is at.
fn claims(command: &mut Command) {
    let Some(output) = run(command, "") else {
        return;
    };
    let found = printed(&output);
    println!("{found}");
    assert!(found.ends_with("all claims hold\n"), "{found}");
}

#[test]
fn redis_py_finds_what_it_expects() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s"]);
    let own = installed().join("python/bin/python");
    let python = if own.exists() {
        own
    } else {
        PathBuf::from("python3")
    };
    match run(Command::new(&python).args(["-c", "import redis"]), "") {
        None => return,
        Some(output) if !output.status.success() => {
            eprintln!("skipped: {} has no redis-py", python.display());
            return;
        }
        Some(_) => {}
    }
    let mut command = Command::new(python);
    command.arg(script("redis_py.py")).arg("127.0.0.1");
    claims(command.arg(server.addr.port().to_string()));
}

/// Runs a script with the modules that were installed for it.
fn node(package: &str, name: &str) {
    let modules = installed().join("node/node_modules");
    if !modules.join(package).exists() {
        eprintln!("skipped: {package} is not in {}", modules.display());
        return;
    }
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s"]);
    let mut command = Command::new("node");
    command.arg(script(name)).arg("127.0.0.1");
    command.arg(server.addr.port().to_string()).arg(modules);
    claims(&mut command);
}

#[test]
fn node_redis_finds_what_it_expects() {
    node("redis", "node_redis.mjs");
}

#[test]
fn ioredis_finds_what_it_expects() {
    node("ioredis", "ioredis.mjs");
}
