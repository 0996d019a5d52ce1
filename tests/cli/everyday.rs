//! The everyday verbs: exists, scan, keys, count.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crabkv::Store;
use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::program::*;

/// A store with these entries.
fn store_of(entries: &[(&[u8], &[u8])]) -> TempDir {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    for (key, value) in entries {
        store.put(key, value).unwrap();
    }
    dir
}

/// The lines on stdout, sorted: the order of entries means nothing.
#[track_caller]
fn sorted(output: Output) -> Vec<String> {
    let text = text(output);
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Condition false, and nothing said.
#[track_caller]
fn silently_false(output: &Output) {
    assert_eq!(stderr(output), "");
    assert_eq!(output.stdout, b"");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn exists_answers_by_its_exit_code() {
    let dir = store_of(&[(b"a", b""), (b"\xff", b"1")]);
    silently_done(run(&dir, "exists a"));
    silently_done(run(&dir, "exists --hex ff"));
    silently_false(&run(&dir, "exists b"));
    assert_eq!(json(run(&dir, "exists a --json")), json!({"exists": true}));
    let output = run(&dir, "exists b --json");
    assert_eq!(output.stdout, b"{\"exists\":false}\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn scan_lists_each_entry_on_a_line_of_its_own() {
    let dir = store_of(&[
        (b"a", b"1"),
        (b"tab\tkey", b"line\nbreak"),
        (b"user:1", b"\xff\x00\\"),
        (b"user:2", b""),
    ]);
    assert_eq!(
        sorted(run(&dir, "scan")),
        [
            "a\t1",
            r"tab\tkey	line\nbreak",
            r"user:1	\xff\x00\\",
            "user:2\t"
        ]
    );
    assert_eq!(
        sorted(run(&dir, "scan --prefix user: --keys-only")),
        ["user:1", "user:2"]
    );
    assert_eq!(
        sorted(run(&dir, "scan --hex --prefix 75")),
        ["757365723a31\tff005c", "757365723a32\t"]
    );
    assert_eq!(
        sorted(run(&dir, "scan --base64 --prefix dGFi")),
        ["dGFiCWtleQ==\tbGluZQpicmVhaw=="]
    );
    silently_done(run(&dir, "scan --prefix nothing"));
}

#[test]
fn scan_describes_each_entry_in_json_as_get_does() {
    let dir = store_of(&[(b"a", b"1"), (b"\xff", b"\xfe")]);
    silently_done(run(&dir, "put brief x --ttl 1h"));
    let lines = sorted(run(&dir, "scan --json"));
    let parsed = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    let mut entries: Vec<serde_json::Value> = parsed.collect();
    let ttl_ms = entries[1].as_object_mut().unwrap().remove("ttl_ms");
    let ttl_ms = ttl_ms.unwrap().as_u64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&ttl_ms), "{ttl_ms}");
    assert_eq!(
        json!(entries),
        json!([
            {"key": "a", "value": "1", "version": 1},
            {"key": "brief", "value": "x", "version": 3},
            {"key": {"base64": "/w=="}, "value": {"base64": "/g=="}, "version": 2},
        ])
    );
    let keys = sorted(run(&dir, "keys --json"));
    assert_eq!(
        keys,
        [
            r#"{"key":"a"}"#,
            r#"{"key":"brief"}"#,
            r#"{"key":{"base64":"/w=="}}"#
        ]
    );
    misused(&run(&dir, "keys --json --null"));
}

#[test]
fn keys_ended_by_nul_are_raw() {
    let dir = store_of(&[(b"a b\n", b"1"), (b"\xff\t", b"2"), (b"c", b"3")]);
    let stdout = done(run(&dir, "keys -0"));
    assert_eq!(stdout.last(), Some(&0));
    let mut keys: Vec<_> = stdout[..stdout.len() - 1].split(|&b| b == 0).collect();
    keys.sort_unstable();
    assert_eq!(keys, [&b"a b\n"[..], b"c", b"\xff\t"]);
    assert_eq!(sorted(run(&dir, "keys")), [r"\xff\t", r"a b\n", "c"]);
}

#[cfg(unix)]
#[test]
fn keys_go_through_xargs_to_another_verb() {
    let dir = store_of(&[(b"tmp:a b", b"1"), (b"tmp:'\"\n", b"2"), (b"keep", b"3")]);
    let program = env!("CARGO_BIN_EXE_crabkv");
    let line =
        format!("'{program}' keys --prefix tmp: --null | xargs -0 -n 1 '{program}' delete --");
    let mut shell = std::process::Command::new("sh");
    let shell = shell.current_dir(dir.path()).args(["-c", &line]);
    silently_done(shell.output().unwrap());
    assert_eq!(sorted(run(&dir, "keys")), ["keep"]);
}

#[test]
fn a_limit_says_how_to_go_on_and_nothing_is_missed_or_met_twice() {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    for i in 0..25 {
        store.put(format!("key{i}"), format!("{i}")).unwrap();
        store.put(format!("other{i}"), "").unwrap();
    }
    drop(store);
    let mut entries = BTreeMap::new();
    let mut line = "scan --prefix key --limit 10".to_owned();
    for page in [10, 10, 5] {
        let output = run(&dir, &line);
        assert_eq!(output.status.code(), Some(0));
        let stdout = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(stdout.lines().count(), page);
        for entry in stdout.lines() {
            let (key, value) = entry.split_once('\t').unwrap();
            assert_eq!(entries.insert(key.to_owned(), value.to_owned()), None);
        }
        let note = stderr(&output);
        if page == 5 {
            assert_eq!(note, "");
            break;
        }
        let (_, cursor) = note
            .split_once("there are more; go on with --from ")
            .unwrap();
        line = format!("scan --prefix key --limit 10 --from {cursor}");
    }
    assert_eq!(entries.len(), 25);
    assert!(entries.iter().all(|(key, value)| key[3..] == *value));

    // Just as many as there are, none at all, and quietly.
    assert_eq!(sorted(run(&dir, "keys --prefix key --limit 25")).len(), 25);
    assert_eq!(sorted(run(&dir, "keys --limit 7 --quiet")).len(), 7);
    silently_done(run(&dir, "keys --limit 0 -q"));
    for cursor in ["zz", "00", ""] {
        let arguments = ["scan", "--from", cursor];
        let message = misused(&program(&dir).args(arguments).output().unwrap());
        assert!(message.contains("--limit said"), "{message}");
    }
}

#[test]
fn count_is_exact_though_some_keys_have_expired() {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    for i in 0..2000u32 {
        store.put(format!("{}:{i}", i % 4), [0; 40]).unwrap();
    }
    let hour = Duration::from_secs(3600);
    store.put_with_ttl("0:later", "", hour).unwrap();
    drop(store);
    assert_eq!(text(run(&dir, "count")), "2001\n");
    assert_eq!(text(run(&dir, "count --prefix 0:")), "501\n");
    silently_done(run(&dir, "put 0:brief x --ttl 1ms"));
    sleep(Duration::from_millis(20));
    assert_eq!(text(run(&dir, "count")), "2001\n");
    assert_eq!(text(run(&dir, "count --prefix 0:")), "501\n");
    assert_eq!(text(run(&dir, "count --prefix 9")), "0\n");
    assert_eq!(text(run(&dir, "count --hex --prefix 31")), "500\n");
    assert_eq!(json(run(&dir, "count --json")), json!({"count": 2001}));
}

#[test]
fn a_closed_pipe_ends_a_scan_quietly_and_early() {
    let dir = tempdir().unwrap();
    let store = Store::builder(data(&dir)).sync_interval(Duration::from_secs(1));
    let store = store.build_store().unwrap();
    for i in 0..20_000u32 {
        store.put(format!("key{i}"), [b'x'; 100]).unwrap();
    }
    drop(store);
    for line in [
        "scan",
        "scan --json",
        "keys",
        "keys -0",
        "scan --limit 15000",
    ] {
        let mut command = program(&dir);
        command.args(line.split_whitespace());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::with_capacity(100, child.stdout.take().unwrap());
        assert!(!stdout.fill_buf().unwrap().is_empty());
        drop(stdout);
        silently_done(child.wait_with_output().unwrap());
    }
}
