//! The everyday verbs: exists, scan, keys, count, ttl, expire, persist, incr, cas, batch.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

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

fn value_of(dir: &TempDir, key: &str) -> Vec<u8> {
    done(program(dir).args(["get", key]).output().unwrap())
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

#[cfg(unix)] // it has xargs
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
fn a_key_lives_as_long_as_expire_and_persist_say() {
    let dir = store_of(&[(b"a", b"1")]);
    assert_eq!(text(run(&dir, "ttl a")), "none\n");
    assert_eq!(json(run(&dir, "ttl a --json")), json!({"ttl_ms": null}));
    let message = failed(&run(&dir, "persist a"), 1);
    assert!(
        message.contains(r#"the key "a" never expires"#),
        "{message}"
    );

    silently_done(run(&dir, "expire a 1h30m"));
    let left = text(run(&dir, "ttl a"));
    assert!(["1h29m\n", "1h30m\n"].contains(&left.as_str()), "{left}");
    let ttl_ms = json(run(&dir, "ttl a --json"))["ttl_ms"].as_u64().unwrap();
    assert!((5_300_000..=5_400_000).contains(&ttl_ms), "{ttl_ms}");
    // It can be given back.
    silently_done(run(&dir, &format!("expire a {left}")));

    silently_done(run(&dir, "persist a"));
    assert_eq!(text(run(&dir, "ttl a")), "none\n");
    silently_done(run(&dir, "expire a --at 2999-01-01T00:00:00Z"));
    let store = Store::open(data(&dir)).unwrap();
    let new_year_of_2999 = SystemTime::UNIX_EPOCH + Duration::from_secs(32_472_144_000);
    assert_eq!(store.expires_at("a").unwrap(), Some(new_year_of_2999));
    drop(store);
    silently_done(run(&dir, "expire a 1ms"));
    sleep(Duration::from_millis(20));
    for line in ["ttl a", "expire a 5", "persist a", "get a"] {
        absent(&run(&dir, line));
    }
}

#[test]
fn an_expiry_that_makes_no_sense_is_a_usage_error() {
    let dir = store_of(&[(b"a", b"1")]);
    for (line, reason) in [
        ("expire a", "required"),
        ("expire a 0", "TTL"),
        ("expire a -5", "TTL"),
        ("expire a soon", "TTL"),
        ("expire a --at tomorrow", "2030-01-01T00:00:00Z"),
        (
            "expire a 5 --at 2999-01-01T00:00:00Z",
            "cannot be used with",
        ),
        ("expire a --at 2001-01-01T00:00:00Z", "has passed"),
    ] {
        let message = misused(&run(&dir, line));
        assert!(message.contains(reason), "{line}: {message}");
    }
    assert_eq!(text(run(&dir, "ttl a")), "none\n");
}

#[test]
fn incr_counts_and_says_where_it_is() {
    let dir = tempdir().unwrap();
    assert_eq!(text(run(&dir, "incr visits")), "1\n");
    assert_eq!(text(run(&dir, "incr visits --by 41")), "42\n");
    assert_eq!(text(run(&dir, "incr --by -50 visits")), "-8\n");
    assert_eq!(json(run(&dir, "incr visits --json")), json!({"value": -7}));
    assert_eq!(value_of(&dir, "visits"), b"-7");

    silently_done(run(&dir, "put brief 1 --ttl 1h"));
    assert_eq!(text(run(&dir, "incr brief")), "2\n");
    assert!(ttl_secs(&dir, "brief").is_some());

    silently_done(run(&dir, "put word one"));
    let message = failed(&run(&dir, "incr word"), 2);
    assert!(message.contains("not a decimal integer"), "{message}");
    silently_done(run(&dir, "put most 9223372036854775807"));
    let message = failed(&run(&dir, "incr most"), 2);
    assert!(message.contains("more than 64 bits"), "{message}");
    misused(&run(&dir, "incr visits --by 1.5"));
    assert_eq!(value_of(&dir, "word"), b"one");
}

#[test]
fn cas_puts_only_over_the_version_that_was_seen() {
    let dir = store_of(&[(b"stock", b"5")]);
    let version = json(run(&dir, "get stock --json"))["version"].clone();
    silently_done(run(&dir, &format!("cas stock --version {version} 4")));
    let message = failed(&run(&dir, &format!("cas stock 3 --version {version}")), 1);
    assert!(
        message.contains("expected version 1, found version 2"),
        "{message}"
    );
    silently_false(&run(&dir, "cas stock 3 --version 1 --quiet"));
    let message = failed(&run(&dir, "cas other 3 --version 1"), 1);
    assert!(
        message.contains("expected version 1, found no value"),
        "{message}"
    );
    assert_eq!(value_of(&dir, "stock"), b"4");

    silently_done(run_with_input(&dir, "cas stock --version 2 -", b"\xff\0"));
    assert_eq!(value_of(&dir, "stock"), b"\xff\0");
    silently_done(run(&dir, "cas stock --version 3 --literal -"));
    assert_eq!(value_of(&dir, "stock"), b"-");
    silently_done(run(&dir, "cas --hex 61 --absent 00"));
    assert_eq!(value_of(&dir, "a"), b"\0");
    for line in [
        "cas a 1",
        "cas a 1 --version 1 --absent",
        "cas a 1 --version x",
    ] {
        misused(&run(&dir, line));
    }
}

#[test]
fn cas_of_an_absent_key_is_for_the_first_only() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "cas leader --absent node-a"));
    let message = failed(&run(&dir, "cas leader --absent node-b"), 1);
    assert!(
        message.contains("expected no value, found version 1"),
        "{message}"
    );
    assert_eq!(value_of(&dir, "leader"), b"node-a");
}

#[test]
fn a_batch_of_lines_is_applied_and_counted() {
    let dir = store_of(&[(b"old", b"x"), (b"kept", b"y")]);
    let lines = concat!(
        "# users\n",
        "\n",
        "put user:1 'Ada L.'\r\n",
        "put \"k \\xff\\n\" \"\\x00\\\"\"\n",
        "put brief 1 --ttl 1h\n",
        "put twice first\n",
        "put twice C:\\second\n",
        "delete old\n",
        "delete never-there\n",
        "put '' @no-file"
    );
    let output = run_with_input(&dir, "batch", lines.as_bytes());
    assert_eq!(stderr(&output), "crabkv: 6 puts and 2 deletes applied\n");
    silently_done(Output {
        stderr: Vec::new(),
        ..output
    });
    let store = Store::open(data(&dir)).unwrap();
    let value = |key: &[u8]| store.get(key).unwrap().map(|value| value.to_vec());
    for (key, wanted) in [
        (&b"user:1"[..], Some(&b"Ada L."[..])),
        (b"k \xff\n", Some(b"\0\"")),
        (b"brief", Some(b"1")),
        (b"twice", Some(br"C:\second")),
        (b"old", None),
        (b"never-there", None),
        (b"kept", Some(b"y")),
        (b"", Some(b"@no-file")),
    ] {
        assert_eq!(value(key).as_deref(), wanted, "{key:?}");
    }
    drop(store);
    assert!(ttl_secs(&dir, "brief").is_some());
    assert_eq!(ttl_secs(&dir, "user:1"), None);
}

#[test]
fn a_batch_comes_from_a_file_too_and_makes_the_store() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("ops.txt"), "put 6b00 ff\nput 61 ''\n").unwrap();
    let checked = json(run(&dir, "batch ops.txt --hex --dry-run --json"));
    assert_eq!(checked, json!({"puts": 2, "deletes": 0, "applied": false}));
    assert!(!data(&dir).exists());
    let output = run(&dir, "batch ops.txt --hex --dry-run");
    assert_eq!(
        stderr(&output),
        "crabkv: 2 puts and 0 deletes would be applied\n"
    );
    silently_done(run(&dir, "batch ops.txt --hex --quiet"));
    assert_eq!(sorted(run(&dir, "scan --hex")), ["61\t", "6b00\tff"]);
    let applied = json(run_with_input(&dir, "batch - --json", b"delete a"));
    assert_eq!(applied, json!({"puts": 0, "deletes": 1, "applied": true}));
    let message = failed(&run(&dir, "batch missing.txt"), 5);
    assert!(message.contains("cannot read missing.txt"), "{message}");
}

#[test]
fn a_batch_with_a_wrong_line_names_it_and_changes_nothing() {
    let dir = store_of(&[(b"a", b"1")]);
    for (lines, line, reason) in [
        (&b"put a 2\nput b\n"[..], 2, "put KEY VALUE"),
        (
            b"put a 2\n\n# x\nremove a",
            4,
            r#""remove" is no operation"#,
        ),
        (b"delete a\nput b 'x", 2, "not closed"),
        (b"delete a\nput b \"\\q\"", 2, "backslash"),
        (b"put a 2 --ttl never", 1, "TTL"),
        (b"put a 2\nput \xff", 2, "put KEY VALUE"),
    ] {
        for verb in ["batch", "batch --dry-run"] {
            let message = failed(&run_with_input(&dir, verb, lines), 2);
            let place = format!("crabkv: line {line}: ");
            assert!(message.starts_with(&place), "{message}");
            assert!(message.contains(reason), "{message}");
        }
    }
    let message = failed(&run_with_input(&dir, "batch --hex", b"put 61 fg"), 2);
    assert!(
        message.contains("line 1: \"fg\" is not hexadecimal"),
        "{message}"
    );
    let long = [b"put ", &*vec![b'x'; 65_536], b" 1"].concat();
    let message = failed(&run_with_input(&dir, "batch", &long), 2);
    assert!(
        message.contains("line 1: a key of 65536 bytes"),
        "{message}"
    );
    assert_eq!(sorted(run(&dir, "scan")), ["a\t1"]);
}

#[test]
fn what_scan_shows_can_be_given_to_batch_in_quotes() {
    let every_byte: Vec<u8> = (0..=255).collect();
    let dir = store_of(&[(&every_byte, &every_byte)]);
    let shown = text(run(&dir, "scan"));
    let (key, value) = shown.trim_end().split_once('\t').unwrap();
    let quote = |text: &str| format!("\"{}\"", text.replace('"', "\\\""));
    let line = format!("put {} {}", quote(key), quote(value));
    silently_done(run_with_input(&dir, "batch -q -d copy", line.as_bytes()));
    let store = Store::open(dir.path().join("copy")).unwrap();
    assert_eq!(store.get(&every_byte).unwrap().unwrap(), every_byte[..]);
}

#[test]
fn where_there_is_no_store_only_what_begins_something_makes_one() {
    let dir = tempdir().unwrap();
    for line in [
        "exists a",
        "scan",
        "keys",
        "count",
        "ttl a",
        "expire a 5",
        "persist a",
        "cas a --version 1 x",
    ] {
        let message = failed(&run(&dir, line), 5);
        assert!(message.contains("no store in data;"), "{message}");
        assert!(!data(&dir).exists(), "{line}");
    }
    for line in ["incr a -d 1", "cas a --absent x -d 2", "batch -q -d 3"] {
        let output = run_with_input(&dir, line, b"");
        assert_eq!(output.status.code(), Some(0), "{line}");
    }
    for name in ["1", "2", "3"] {
        assert!(dir.path().join(name).join("MANIFEST").is_file(), "{name}");
    }
}

#[test]
fn reading_verbs_work_beside_a_writer_and_writing_ones_name_it() {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    store.put("a", "1").unwrap();
    fs::write(dir.path().join("ops.txt"), "put a 2").unwrap();
    silently_done(run(&dir, "exists a"));
    assert_eq!(text(run(&dir, "scan")), "a\t1\n");
    assert_eq!(text(run(&dir, "keys")), "a\n");
    assert_eq!(text(run(&dir, "count")), "1\n");
    assert_eq!(text(run(&dir, "ttl a")), "none\n");
    for line in [
        "expire a 5",
        "persist a",
        "incr a",
        "cas a --version 1 2",
        "cas b --absent 2",
        "batch ops.txt",
    ] {
        let message = failed(&run(&dir, line), 3);
        let holder = format!("process {}", std::process::id());
        assert!(message.contains(&holder), "{line}: {message}");
    }
    assert_eq!(store.get("a").unwrap().unwrap(), "1");
    silently_done(run(&dir, "batch ops.txt --dry-run --quiet"));
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
