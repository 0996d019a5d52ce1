//! Looking inside a store: `stats`, `inspect`, `doctor`.

use std::fs;
use std::process::Output;
use std::thread::sleep;
use std::time::Duration;

use crabkv::{Store, WriteBatch};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::program::*;

/// The program with a locale that has more than ASCII, or not.
fn run_in(dir: &TempDir, locale: &str, line: &str) -> Output {
    let mut command = program(dir);
    command.env("LC_ALL", locale).env_remove("TERM");
    command.args(line.split_whitespace()).output().unwrap()
}

/// What is shown where there is Unicode and no terminal.
#[track_caller]
fn shown(dir: &TempDir, line: &str) -> String {
    text(run_in(dir, "C.UTF-8", line))
}

/// A store with segments of 4 KiB that compacts nothing by itself, and waits for no disk.
fn small_segments(dir: &TempDir) -> Store {
    let builder = Store::builder(data(dir)).segment_size(4096);
    let builder = builder.sync_interval(Duration::from_secs(1));
    builder.auto_compaction(false).build_store().unwrap()
}

fn fill(store: &Store, keys: std::ops::Range<u32>) {
    for key in keys {
        store.put(key.to_string(), [b'v'; 100]).unwrap();
    }
}

/// The rows of the table of segments: number, bar, reason.
fn rows(page: &str) -> Vec<(String, String, String)> {
    let mut lines = page.lines();
    lines
        .by_ref()
        .find(|line| line.trim_start().starts_with("segment "))
        .expect("a table");
    lines
        .take_while(|line| !line.is_empty())
        .map(|line| {
            // Name, size and what there is to give stand before the bar.
            let words: Vec<_> = line.split_whitespace().collect();
            let at = if words[1] == "more" { 4 } else { 3 };
            let name = if at == 4 { "more" } else { words[0] };
            let reason = words[at + 1..].join(" ");
            (name.to_owned(), words[at].to_owned(), reason)
        })
        .collect()
}

/// How many of a bar's characters are this one, in hundredths.
fn percent(bar: &str, glyph: char) -> usize {
    let count = bar.chars().filter(|char| *char == glyph).count();
    count * 100 / bar.chars().count()
}

/// The lines of stdout, as JSON.
fn json_lines(stdout: &[u8]) -> Vec<Value> {
    let lines = stdout.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Changes one byte of a file.
fn damage(dir: &TempDir, name: &str, offset: usize) {
    let path = data(dir).join(name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[offset] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn stats_say_what_takes_how_much_room() {
    let dir = tempdir().unwrap();
    let store = small_segments(&dir);
    fill(&store, 0..100);
    // Of no segment everything, which would be reason enough to merge it.
    for key in (0..100).step_by(2) {
        fill(&store, key..key + 1);
    }
    store.delete("99").unwrap();
    store.close().unwrap();
    drop(store);
    let page = shown(&dir, "stats");
    assert!(page.starts_with("data, not open for writing\n"), "{page}");
    let line = |name: &str| {
        let mut lines = page.lines().filter(|line| line.contains(name));
        lines.next().unwrap().to_owned()
    };
    assert_eq!(
        line("keys").split_whitespace().collect::<Vec<_>>(),
        ["keys", "99"]
    );
    assert!(line("index ").ends_with("bytes for each key"));
    assert!(line("█ live").ends_with("66%"), "{page}");
    assert!(line("░ stale").ends_with("34%"), "{page}");
    assert!(line("▒ expired").ends_with("0%"), "{page}");
    assert!(line("× tombstones").ends_with("<1%"), "{page}");
    assert!(page.contains("automatic compaction waits until there is 1MiB of data"));

    let raw = json(run(&dir, "stats --json"));
    // A key of 2 bytes and a value of 100: 24 bytes in front, and padding up to a multiple of 8.
    assert_eq!((&raw["keys"], &raw["next_seq"]), (&99.into(), &152.into()));
    let segments = raw["segments"].as_array().unwrap();
    let sum = |name: &str| {
        let figures = segments
            .iter()
            .map(|segment| segment[name].as_u64().unwrap());
        figures.sum::<u64>()
    };
    for name in ["data_bytes", "live_bytes", "stale_bytes", "tombstone_bytes"] {
        assert_eq!(raw[name].as_u64(), Some(sum(name)), "{name}");
    }
    assert_eq!(raw["tombstone_bytes"], 24);
    assert_eq!(raw["holder"], Value::Null);
    assert_eq!(raw["next_compaction"], "read_only");
    assert!(raw["mapped_bytes"].as_u64().unwrap() > 10_000);
}

#[test]
fn a_bar_shows_how_much_of_a_segment_is_live() {
    let dir = tempdir().unwrap();
    let store = small_segments(&dir);
    fill(&store, 0..100);
    let segments = store.stats().segments;
    let first = segments[0].records as u32;
    let second = first + segments[1].records as u32;
    // Of the first all, of the second every other, of the third none.
    fill(&store, 0..first);
    for key in (first..second).step_by(2) {
        fill(&store, key..key + 1);
    }
    store.close().unwrap();
    drop(store);
    let rows = rows(&shown(&dir, "stats"));
    let bars: Vec<_> = rows.iter().map(|(_, bar, _)| bar.as_str()).collect();
    assert_eq!(percent(bars[0], '░'), 100);
    assert!((45..=55).contains(&percent(bars[1], '█')), "{}", bars[1]);
    assert!((45..=55).contains(&percent(bars[1], '░')), "{}", bars[1]);
    assert_eq!(percent(bars[2], '█'), 100);
    assert_eq!(rows[2].2, "all live");
    // What nothing is kept of goes first.
    assert_eq!((rows[0].2.as_str(), rows[1].2.as_str()), ("next", "later"));
}

#[test]
fn expired_values_and_tombstones_have_characters_of_their_own() {
    let dir = tempdir().unwrap();
    let store = small_segments(&dir);
    for key in 0..24u32 {
        let ttl = Duration::from_millis(1);
        store.put_with_ttl(key.to_string(), [0; 100], ttl).unwrap();
    }
    fill(&store, 100..124);
    for key in 100..124u32 {
        store.delete(key.to_string()).unwrap();
    }
    store.close().unwrap();
    drop(store);
    sleep(Duration::from_millis(20));
    let page = shown(&dir, "stats");
    let bars: String = rows(&page).into_iter().map(|(_, bar, _)| bar).collect();
    assert!(page.contains("some may have expired"), "{page}");
    for glyph in ['▒', '░', '×'] {
        assert!(bars.contains(glyph), "{glyph} in {page}");
    }
}

#[test]
fn without_unicode_the_bars_are_ascii_and_mean_the_same() {
    let dir = tempdir().unwrap();
    let store = small_segments(&dir);
    fill(&store, 0..40);
    fill(&store, 0..10);
    store.close().unwrap();
    drop(store);
    // How much of it is in memory is up to the system, from one moment to the next.
    let page = |page: String| {
        let lines = page.lines().filter(|line| !line.starts_with("mapped"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let unicode = page(shown(&dir, "stats"));
    let ascii = page(shown(&dir, "stats --ascii"));
    assert!(ascii.is_ascii(), "{ascii}");
    let translated = unicode
        .replace('█', "#")
        .replace('░', "-")
        .replace('▒', "~")
        .replace('×', "x");
    assert_eq!(ascii, translated);
    // A console of Windows shows all of Unicode, whatever the locale.
    let in_c = page(text(run_in(&dir, "C", "stats")));
    assert_eq!(in_c, if cfg!(windows) { unicode } else { ascii });
}

#[test]
fn colour_is_for_terminals_and_those_who_ask() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    let escapes = |set: &[(&str, &str)], line: &str| {
        let mut command = program(&dir);
        command.envs(set.iter().copied());
        let page = text(command.args(line.split_whitespace()).output().unwrap());
        page.contains('\x1b')
    };
    for verb in ["stats", "doctor"] {
        assert!(!escapes(&[], verb));
        assert!(escapes(&[("CLICOLOR_FORCE", "1")], verb));
        assert!(escapes(&[], &format!("{verb} --color always")));
        assert!(!escapes(&[("NO_COLOR", "1")], verb));
        let never = format!("{verb} --color never");
        assert!(!escapes(&[("CLICOLOR_FORCE", "1")], &never));
    }
}

#[test]
fn of_hundreds_of_segments_those_with_the_most_to_give_are_shown() {
    let dir = tempdir().unwrap();
    let store = small_segments(&dir);
    fill(&store, 0..8000);
    fill(&store, 4000..4100);
    store.close().unwrap();
    drop(store);
    let count = json(run(&dir, "stats --json"))["segments"]
        .as_array()
        .unwrap()
        .len();
    assert!(count > 250, "{count}");
    let page = shown(&dir, "stats");
    assert!(
        page.lines().all(|line| line.chars().count() <= 80),
        "{page}"
    );
    let some = rows(&page);
    assert_eq!(some.len(), 21);
    assert_eq!(some[20].0, "more");
    assert!(page.contains(&format!("{} more", count - 20)), "{page}");
    // All that is stale is in the first few.
    assert!(
        some[0].1.contains('░') && !some[20].1.contains('░'),
        "{page}"
    );
    assert_eq!(rows(&shown(&dir, "stats --all")).len(), count);
}

#[cfg(unix)] // it has signals
#[test]
fn watching_gives_a_line_of_json_at_each_look_until_it_is_interrupted() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    store.put("a", "1").unwrap();
    let mut command = program(&dir);
    command.args(["stats", "--watch", "100ms", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let first = next();
    fill(&store, 0..100);
    let second = std::iter::repeat_with(&mut next)
        .take(100)
        .find(|look| look["keys"] == 101)
        .unwrap();
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(stderr(&output).starts_with("crabkv: interrupted: after "));

    assert_eq!(first["keys"], 1);
    assert_eq!(first.get("rates"), None);
    let me = format!("process {}", std::process::id());
    assert_eq!(first["holder"].as_str(), Some(me.as_str()));
    let rates = &second["rates"];
    assert!(rates["elapsed_ms"].as_u64().unwrap() >= 100, "{rates}");
    assert!(rates["writes_per_s"].as_f64().unwrap() > 0.0, "{rates}");
    assert!(rates["bytes_per_s"].as_f64().unwrap() > 0.0, "{rates}");
}

#[test]
fn an_interval_of_no_time_is_a_usage_error() {
    let dir = tempdir().unwrap();
    for line in ["stats --watch 0", "stats --watch soon", "stats --watch 1ms"] {
        misused(&run(&dir, line));
    }
}

#[test]
fn history_has_every_version_that_is_still_there() {
    let dir = tempdir().unwrap();
    let store = small_segments(&dir);
    store.put("a", "one").unwrap();
    let mut batch = WriteBatch::new();
    batch.put("a", "two").unwrap().put("b", "x").unwrap();
    store.write(&batch).unwrap();
    fill(&store, 0..40);
    store.put("a", "three").unwrap();
    store.delete("b").unwrap();
    let brief = Duration::from_millis(1);
    store.put_with_ttl("brief", "x", brief).unwrap();
    sleep(Duration::from_millis(20));
    // Beside the program that has it open.
    let history = |line: &str| {
        let stdout = done(run(&dir, &format!("{line} --json")));
        let versions = json_lines(&stdout).into_iter();
        versions
            .map(|v| {
                let texts = ["state", "kind"].map(|name| v[name].as_str().unwrap().to_owned());
                let numbers = ["seq", "segment"].map(|name| v[name].as_u64().unwrap());
                (texts.join(" "), numbers, v["batched"].as_bool().unwrap())
            })
            .collect::<Vec<_>>()
    };
    let version = |what: &str, numbers, batched| (what.to_owned(), numbers, batched);
    assert_eq!(
        history("inspect --history a"),
        [
            version("live put", [44, 2], false),
            version("stale put", [2, 1], true),
            version("stale put", [1, 1], false),
        ]
    );
    assert_eq!(
        history("inspect --history b"),
        [
            version("deleted tombstone", [45, 2], false),
            version("stale put", [3, 1], true),
        ]
    );
    assert_eq!(
        history("inspect --history brief"),
        [version("expired put", [46, 2], false)]
    );
    assert_eq!(
        history("inspect --hex --history 61"),
        history("inspect --history a")
    );
    absent(&run(&dir, "inspect --history nobody"));

    let page = shown(&dir, "inspect --history b");
    let lines: Vec<Vec<_>> = page
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["b"]);
    assert_eq!(lines[2][..4], ["45", "deleted", "tombstone", "-"]);
    assert_eq!(lines[3][..4], ["3", "stale", "put", "1"]);
}

#[test]
fn a_segment_is_shown_record_by_record() {
    let dir = tempdir().unwrap();
    let store = small_segments(&dir);
    store.put("plain", "hello").unwrap();
    store.put(b"\xff\n", "bytes").unwrap();
    store.put("x".repeat(100), "long").unwrap();
    store.delete("plain").unwrap();
    drop(store);
    let page = shown(&dir, "inspect segment 1");
    let lines: Vec<_> = page.lines().collect();
    assert_eq!(lines.len(), 5, "{page}");
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{page}"
    );
    assert!(lines[1].ends_with("---    plain"), "{page}");
    assert!(lines[2].ends_with(r"---    \xff\n"), "{page}");
    assert!(lines[3].ends_with("xxx..."), "{page}");
    assert!(lines[4].contains("tombstone"), "{page}");
    assert!(shown(&dir, "inspect segment 1 --keys").contains(&"x".repeat(100)));
    assert!(shown(&dir, "inspect segment 1 --values").contains("plain  hello"));
    assert_eq!(
        shown(&dir, "inspect segment 1 --limit 2").lines().count(),
        3
    );
    assert!(shown(&dir, "inspect segment 1 --hex").contains("ff0a"));

    let items = json_lines(&done(run(&dir, "inspect segment 1 --json --values")));
    assert_eq!(items.len(), 4);
    assert_eq!(
        (&items[0]["offset"], &items[0]["seq"]),
        (&64.into(), &1.into())
    );
    assert_eq!(items[0]["value"], "hello");
    assert_eq!(items[1]["key"]["base64"], "/wo=");
    assert_eq!(items[3]["kind"], "tombstone");

    let output = run(&dir, "inspect segment 7");
    assert!(failed(&output, 1).contains("there is no segment 7"));
    assert!(failed(&run(&dir, "inspect hint 1"), 1).contains("no hint file"));
}

#[test]
fn manifest_segments_and_hint_files_are_shown() {
    let dir = tempdir().unwrap();
    let store = small_segments(&dir);
    fill(&store, 0..70);
    store.close().unwrap();
    drop(store);
    let overview = shown(&dir, "inspect");
    assert!(overview.lines().all(|line| line.len() <= 80), "{overview}");
    for part in [
        "next sequence number  71\n",
        "sealed",
        "format version",
        "1-",
    ] {
        assert!(overview.contains(part), "{part} in {overview}");
    }
    let manifest = json(run(&dir, "inspect manifest --json"));
    assert_eq!(manifest["next_seq"], 71);
    let listed = manifest["segments"].as_array().unwrap().len();
    assert_eq!(json(run(&dir, "inspect --json"))["manifest"], manifest);
    let segments = json_lines(&done(run(&dir, "inspect segments --json")));
    assert_eq!(segments.len(), listed);
    let records = segments[0]["footer"]["records"].as_u64().unwrap();
    let hint = json_lines(&done(run(&dir, "inspect hint 1 --json")));
    assert_eq!(hint[0]["records"].as_u64(), Some(records));
    assert_eq!(hint.len() as u64, records + 1);
    let entries = shown(&dir, "inspect hint 1 --limit 3");
    assert_eq!(entries.lines().count(), 5, "{entries}");
    let message = failed(&run(&dir, "inspect --history a segments"), 2);
    assert!(message.contains("--history"), "{message}");
}

#[test]
fn damage_is_shown_where_it_is_and_exits_with_4() {
    let dir = tempdir().unwrap();
    let store = small_segments(&dir);
    fill(&store, 0..70);
    store.close().unwrap();
    drop(store);
    // In the second record: the first has 64 + 128 bytes before it.
    damage(&dir, "000000000001.seg", 64 + 128 + 40);
    let output = run(&dir, "inspect segment 1");
    assert_eq!(output.status.code(), Some(4));
    let page = String::from_utf8(output.stdout).unwrap();
    let damaged = page.lines().find(|line| line.contains("DAMAGED")).unwrap();
    assert!(damaged.trim_start().starts_with("192 "), "{damaged}");
    assert!(page.lines().count() > 20, "it goes on: {page}");
    let output = run(&dir, "inspect segment 1 --json");
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(json_lines(&output.stdout)[1]["type"], "damaged");
    // The hint file leads to it.
    let output = run(&dir, "inspect --history 1");
    assert_eq!(output.status.code(), Some(4));
    done(run(&dir, "inspect --history 2"));
    // What is found without reading it all is sound.
    done(run(&dir, "inspect"));

    damage(&dir, "000000000002.seg", 20);
    let output = run(&dir, "inspect segments");
    assert_eq!(output.status.code(), Some(4));
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(
        page.contains("000000000002.seg at offset 0: segment header"),
        "{page}"
    );
    let output = run(&dir, "doctor");
    assert_eq!(output.status.code(), Some(4));
    let page = slashed(&String::from_utf8(output.stdout).unwrap());
    assert!(
        page.contains("fail  segments     data/000000000002.seg at offset 0"),
        "{page}"
    );

    damage(&dir, "MANIFEST", 30);
    for line in ["inspect", "inspect manifest", "doctor"] {
        let output = run(&dir, line);
        assert_eq!(output.status.code(), Some(4), "{line}");
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(page.contains("MANIFEST at offset"), "{page}");
    }
}

#[test]
fn who_reads_only_the_beginning_gets_it_quietly() {
    use std::process::Stdio;

    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    fill(&store, 0..5000);
    drop(store);
    for line in ["inspect segment 1", "inspect segment 1 --json", "doctor"] {
        let mut command = program(&dir);
        command.args(line.split_whitespace());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        silently_done(child.wait_with_output().unwrap());
    }
}

/// The findings: level and message by what was looked at.
fn findings(output: &Output) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            let [check, level, message] = ["check", "level", "message"]
                .map(|name| finding[name].as_str().unwrap().to_owned());
            (check, level, message)
        })
        .collect()
}

fn finding(dir: &TempDir, check: &str) -> (String, String) {
    let output = run(dir, "doctor --json");
    let mut found = findings(&output).into_iter();
    let (_, level, message) = found.find(|(other, ..)| other == check).unwrap();
    (level, message)
}

#[test]
fn a_store_in_good_order_has_nothing_that_fails() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    let output = run(&dir, "doctor --json");
    assert_eq!(output.status.code(), Some(0));
    let checks: Vec<_> = findings(&output);
    for check in [
        "lock",
        "version",
        "segments",
        "clock",
        "permissions",
        "leftovers",
    ] {
        let (_, level, message) = checks.iter().find(|(other, ..)| other == check).unwrap();
        assert_eq!(level, "ok", "{check}: {message}");
    }
    assert!(checks.iter().any(|(check, ..)| check == "free space"));
    if cfg!(target_os = "linux") {
        assert!(checks.iter().any(|(check, ..)| check == "file system"));
        assert!(checks.iter().any(|(check, ..)| check == "limits"));
    }
    let page = shown(&dir, "doctor");
    assert!(page.starts_with("ok    lock         free"), "{page}");
}

#[test]
fn the_doctor_names_the_holder() {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    store.put("a", "1").unwrap();
    let (level, message) = finding(&dir, "lock");
    assert_eq!(level, "ok");
    let holder = format!("held by process {}", std::process::id());
    assert!(message.starts_with(&holder), "{message}");
    if cfg!(target_os = "linux") {
        assert!(message.contains("alive"), "{message}");
    }
    store.put("a", "2").unwrap();
}

#[test]
fn what_steps_left_behind_is_found_and_left_there() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    fs::write(data(&dir).join("000000000009.hint"), "x").unwrap();
    let (level, message) = finding(&dir, "leftovers");
    assert_eq!(level, "warn");
    assert!(
        message.contains("1 file of 1B (000000000009.hint)"),
        "{message}"
    );
    fs::remove_file(data(&dir).join("000000000009.hint")).unwrap();
    for name in ["000000000001.torn", "letter.txt"] {
        fs::write(data(&dir).join(name), "x").unwrap();
        let (level, message) = finding(&dir, "leftovers");
        assert_eq!(level, "ok");
        assert!(message.contains(name), "{message}");
        fs::remove_file(data(&dir).join(name)).unwrap();
    }
}

#[test]
fn the_doctor_needs_a_store() {
    let dir = tempdir().unwrap();
    for line in ["doctor", "inspect", "inspect --history a", "stats --watch"] {
        let message = failed(&run(&dir, line), 5);
        assert!(message.contains("no store in data;"), "{message}");
    }
    assert!(!data(&dir).exists());
}

#[test]
fn a_store_of_a_newer_version_is_newer_for_the_doctor_too() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    let manifest = data(&dir).join("MANIFEST");
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[8] = 99;
    fs::write(&manifest, &bytes).unwrap();
    let output = run(&dir, "doctor");
    assert_eq!(output.status.code(), Some(6));
    let page = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(page.contains("fail  store"), "{page}");
    assert!(stderr(&output).contains("format version 99"));
}

/// Root may read everything.
#[cfg(target_os = "linux")] // it has modes
#[test]
fn a_directory_that_may_not_be_read_is_a_finding() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    let mode = |mode| fs::set_permissions(data(&dir), fs::Permissions::from_mode(mode)).unwrap();
    mode(0);
    if fs::read_dir(data(&dir)).is_ok() {
        println!("skipped: this user may read what nobody may");
        mode(0o755);
        return;
    }
    let output = run(&dir, "doctor --json");
    mode(0o755);
    assert_eq!(output.status.code(), Some(5));
    let found = findings(&output);
    assert!(
        found
            .iter()
            .any(|(check, level, _)| check == "permissions" && level == "fail")
    );
}
