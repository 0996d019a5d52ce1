//! `export` and `import`: what goes out comes back, and what cannot is said.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crabkv::{Store, WriteBatch};
use tempfile::tempdir;

use super::program::{data, done, failed, json, program, run, run_with_input, stderr, text};

const FORMATS: [&str; 4] = ["jsonl", "csv", "resp", "mdb"];

type Entries = HashMap<Vec<u8>, (Vec<u8>, Option<SystemTime>)>;

/// Everything in a store, with when it expires.
fn entries(dir: &Path) -> Entries {
    let store = Store::open_read_only(dir).unwrap();
    let entry = |entry: crabkv::Result<(Vec<u8>, crabkv::Value)>| {
        let (key, value) = entry.unwrap();
        (key, (value.to_vec(), value.expires_at()))
    };
    store.iter().map(entry).collect()
}

/// Text, bytes that are none, and what formats could mistake for their own; a third expires.
fn fill(dir: &Path, count: u32) {
    let store = Store::open(dir).unwrap();
    let mut batch = WriteBatch::new();
    let base = SystemTime::UNIX_EPOCH + Duration::from_secs(32_472_187_200);
    for i in 0..count {
        let key = format!("key {i}").into_bytes();
        let mut value = match i % 7 {
            0 => Vec::new(),
            1 => b"base64:".to_vec(),
            2 => b"\"a\",\r\nDATA=END\n".to_vec(),
            3 => vec![0, 0xff, b'\n', 0x80],
            _ => "w\u{e4}re ".repeat(i as usize % 20).into_bytes(),
        };
        value.extend(i.to_string().into_bytes());
        if i % 3 == 0 {
            let at = base + Duration::from_millis(i.into());
            batch.put_expiring_at(key, value, at).unwrap();
        } else {
            batch.put(key, value).unwrap();
        }
        if batch.len() == 10_000 {
            store.write(&batch).unwrap();
            batch.clear();
        }
    }
    store.write(&batch).unwrap();
    store.put("", "the empty key").unwrap();
    store.put([0xff, 0], []).unwrap();
    store
        .put_with_ttl("over", "x", Duration::from_millis(1))
        .unwrap();
    std::thread::sleep(Duration::from_millis(2));
    store.close().unwrap();
}

fn ended_with(output: &std::process::Output, code: i32) -> String {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    message
}

/// What a summary says; nothing went to stdout.
fn summary(output: &std::process::Output) -> String {
    assert_eq!(output.stdout, b"");
    ended_with(output, 0)
}

#[test]
fn a_hundred_thousand_records_come_back_through_every_format() {
    let dir = tempdir().unwrap();
    fill(&data(&dir), 100_000);
    let before = entries(&data(&dir));
    assert_eq!(before.len(), 100_002);
    for format in FORMATS {
        let file = format!("file.{format}");
        let exported = summary(&run(&dir, &format!("export --absolute --out {file}")));
        assert!(
            exported.contains("exported 100,002 records to file."),
            "{exported}"
        );
        let imported = summary(&run(&dir, &format!("-d {format} import {file}")));
        assert!(imported.contains("imported 100,002 records"), "{imported}");
        let mut expected = before.clone();
        if format == "mdb" {
            assert!(
                exported.contains("33,334 records in the export would"),
                "{exported}"
            );
            assert!(
                exported.contains("mdb_load will stop at 1 key"),
                "{exported}"
            );
            for entry in expected.values_mut() {
                entry.1 = None;
            }
        }
        assert!(entries(&dir.path().join(format)) == expected, "{format}");
    }
}

#[test]
fn a_time_left_goes_on_from_the_import() {
    let dir = tempdir().unwrap();
    done(run(&dir, "put --ttl 1000 a 1"));
    for format in ["jsonl", "csv", "resp"] {
        let piped = done(run(&dir, &format!("export --relative --format {format}")));
        let line = format!("-q -d {format} import - --format {format}");
        done(run_with_input(&dir, &line, &piped));
        let expires_at = entries(&dir.path().join(format))[&b"a"[..]].1.unwrap();
        let left = expires_at.duration_since(SystemTime::now()).unwrap();
        assert!((900..=1000).contains(&left.as_secs()), "{format}: {left:?}");
    }
}

#[test]
fn an_export_is_as_documented() {
    let dir = tempdir().unwrap();
    done(run(&dir, "put user:1 Ada"));
    done(run(&dir, "put other x"));
    assert_eq!(
        text(run(&dir, "export --prefix user:")),
        "{\"k\":\"user:1\",\"v\":\"Ada\"}\n"
    );
    let csv = text(run(&dir, "export --prefix user: -f csv"));
    assert_eq!(csv, "key,value,ttl_ms\nuser:1,Ada,\n");
    let csv = text(run(&dir, "export --prefix none -f csv --absolute"));
    assert_eq!(csv, "key,value,expires_at_ms\n");
    let resp = text(run(&dir, "export --prefix user: -f resp"));
    assert_eq!(resp, "*3\r\n$3\r\nSET\r\n$6\r\nuser:1\r\n$3\r\nAda\r\n");
    let mdb = text(run(&dir, "export --prefix user: -f mdb"));
    assert!(
        mdb.starts_with("VERSION=3\nformat=bytevalue\ntype=btree\nmapsize="),
        "{mdb}"
    );
    assert!(
        mdb.ends_with("HEADER=END\n 757365723a31\n 416461\nDATA=END\n"),
        "{mdb}"
    );
}

#[test]
fn a_file_is_replaced_only_with_consent_and_never_left_half_written() {
    let dir = tempdir().unwrap();
    done(run(&dir, "put a 1"));
    let file = dir.path().join("a.jsonl");
    fs::write(&file, "mine").unwrap();
    let refused = failed(&run(&dir, "export -o a.jsonl"), 2);
    assert!(refused.contains("--yes"), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    summary(&run(&dir, "export -o a.jsonl --yes"));
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "{\"k\":\"a\",\"v\":\"1\"}\n"
    );
    let unclear = failed(&run(&dir, "export -o a.txt"), 2);
    assert!(unclear.contains("say it with --format"), "{unclear}");
    let report = json(run(&dir, "export -o b.csv --json"));
    assert_eq!(report["records"], 1);
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["a.jsonl", "b.csv", "data"]);
}

#[test]
fn an_export_goes_on_beside_a_writer_and_an_import_names_it() {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    store.put("a", "1").unwrap();
    let exported = done(run(&dir, "export"));
    assert_eq!(exported, b"{\"k\":\"a\",\"v\":\"1\"}\n");
    failed(&run_with_input(&dir, "import", &exported), 3);
}

#[test]
fn a_reader_who_leaves_ends_an_export_quietly() {
    let dir = tempdir().unwrap();
    fill(&data(&dir), 50_000);
    for format in FORMATS {
        let mut command = program(&dir);
        command.args(["export", "-f", format]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 100]).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!(ended_with(&output, 0), "", "{format}");
    }
}

#[cfg(target_os = "linux")] // it has /dev/full
#[test]
fn a_full_disk_is_no_closed_pipe() {
    let dir = tempdir().unwrap();
    done(run(&dir, "put a 1"));
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = program(&dir);
    let output = command.arg("export").stdout(full).stderr(Stdio::piped());
    let message = ended_with(&output.output().unwrap(), 5);
    assert!(
        message.contains("cannot write to standard output"),
        "{message}"
    );
}

#[test]
fn a_malformed_line_is_named_and_what_is_before_it_is_there() {
    let dir = tempdir().unwrap();
    let input =
        b"{\"k\":\"a\",\"v\":\"1\"}\n\n{\"k\":\"b\",\"v\":\"2\"}\n{\"k\":\"c\",\"ttl\":3}\n";
    fs::write(dir.path().join("in.jsonl"), input).unwrap();
    let message = failed(&run(&dir, "import in.jsonl"), 2);
    assert_eq!(
        message,
        "crabkv: in.jsonl: line 4: unknown field `ttl`, expected one of `k`, `v`, `ttl_ms`, \
         `expires_at_ms`, at column 14; imported before that: 2 records; importing it again does \
         no harm\n"
    );
    assert_eq!(text(run(&dir, "get b")), "2");
    let message = failed(&run_with_input(&dir, "import --dry-run", input), 2);
    assert!(
        message.starts_with("crabkv: standard input: line 4: "),
        "{message}"
    );
    assert!(
        message.ends_with("; read before that: 2 records\n"),
        "{message}"
    );
}

#[test]
fn a_dry_run_reads_all_and_changes_nothing() {
    let dir = tempdir().unwrap();
    let input = b"SET a 1\r\nDEL b\r\nSET c 1 EXAT 1\r\n";
    let output = run_with_input(&dir, "import -f resp --dry-run", input);
    assert_eq!(
        summary(&output),
        "crabkv: read 3 records, 1 expired, 1 deleted; nothing was changed\n"
    );
    assert!(!data(&dir).exists());
}

#[test]
fn what_has_expired_deletes_and_what_is_there_can_be_left() {
    let dir = tempdir().unwrap();
    done(run(&dir, "put a old"));
    done(run(&dir, "put b old"));
    let input = b"key,value,expires_at_ms\na,new,\nb,new,1\nc,new,\nc,newer,\n";
    let report = json(run_with_input(
        &dir,
        "import -f csv --if-absent --json",
        input,
    ));
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((count("records"), count("put")), (4, 1));
    assert_eq!((count("unchanged"), count("expired")), (3, 0));
    assert_eq!(text(run(&dir, "get a")), "old");
    assert_eq!(text(run(&dir, "get b")), "old");
    assert_eq!(text(run(&dir, "get c")), "new");
    let report = json(run_with_input(&dir, "import -f csv --json", input));
    assert_eq!(report["put"], 3);
    assert_eq!(report["expired"], 1);
    assert_eq!(text(run(&dir, "get a")), "new");
    assert_eq!(run(&dir, "get b").status.code(), Some(1));
    assert_eq!(text(run(&dir, "get c")), "newer");
    let refused = failed(
        &run_with_input(&dir, "-q import -f resp --if-absent", b"DEL a\n"),
        2,
    );
    assert!(refused.contains("--if-absent"), "{refused}");
}

#[test]
fn commands_mean_the_same_however_they_are_batched() {
    let input = b"SET a 1\r\nPEXPIREAT a 32472187200000\r\nSET a 2 KEEPTTL\r\nMSET b 1 c 1 d 1\r\n\
                  DEL b nothing\r\nSET c 2 NX\r\nSET e 1 XX\r\nSETNX f 1\r\nSET d 2 XX\r\n\
                  EXPIREAT d 32472187200\r\nPERSIST d\r\nSET g 1 EX 100\r\nPEXPIREAT g 1\r\n\
                  EXPIRE nothing 5\r\n";
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(32_472_187_200);
    let expected: Entries = [
        ("a", "2", Some(at)),
        ("c", "1", None),
        ("d", "2", None),
        ("f", "1", None),
    ]
    .map(|(key, value, at)| (key.into(), (value.into(), at)))
    .into();
    for batch_size in [1, 2, 3, 10_000] {
        let dir = tempdir().unwrap();
        // Twice: importing again gives the same.
        for _ in 0..2 {
            let line = format!("-q import --format resp --batch-size {batch_size}");
            done(run_with_input(&dir, &line, input));
            assert_eq!(entries(&data(&dir)), expected, "{batch_size}");
        }
    }
}

#[test]
fn unsupported_commands_stop_an_import_or_are_counted() {
    let dir = tempdir().unwrap();
    let input = b"SET a 1\r\nRPUSH list 1\r\nSET b 1\r\n";
    let message = failed(&run_with_input(&dir, "import -f resp", input), 2);
    assert!(
        message.contains("offset 9: a store has nothing like the command RPUSH"),
        "{message}"
    );
    let output = run_with_input(&dir, "import -f resp --skip-unsupported", input);
    assert!(summary(&output).contains("imported 2 records, 1 unsupported and left out in "));
    let snapshot = run_with_input(&dir, "import -f resp", b"REDIS0011\xfa\x09redis-ver");
    assert!(failed(&snapshot, 2).contains("aof-use-rdb-preamble no"));
}

#[test]
fn one_database_of_a_dump_is_picked_before_anything_is_imported() {
    let dir = tempdir().unwrap();
    let section = |name: &str| {
        format!("VERSION=3\nformat=print\ndatabase={name}\nHEADER=END\n {name}\n 1\nDATA=END\n")
    };
    let dump = section("users") + &section("posts");
    fs::write(dir.path().join("all.mdb"), &dump).unwrap();
    let message = failed(&run(&dir, "import all.mdb"), 2);
    assert!(message.contains("`users`, `posts`"), "{message}");
    assert!(!data(&dir).exists());
    summary(&run(&dir, "import --database posts all.mdb"));
    assert_eq!(text(run(&dir, "export")), "{\"k\":\"posts\",\"v\":\"1\"}\n");
    let cut = &dump.as_bytes()[..dump.len() - 10];
    let message = failed(
        &run_with_input(&dir, "import -f mdb --database posts", cut),
        2,
    );
    assert!(message.contains("without DATA=END"), "{message}");
}

#[test]
fn an_import_is_a_copy_whatever_the_default_ttl() {
    let dir = tempdir().unwrap();
    let input = b"{\"k\":\"a\",\"v\":\"1\"}\n{\"k\":\"b\",\"v\":\"1\",\"ttl_ms\":9000000}\n";
    summary(&run_with_input(&dir, "--default-ttl 1h import", input));
    let entries = entries(&data(&dir));
    assert_eq!(entries[&b"a"[..]].1, None);
    let at = entries[&b"b"[..]].1.unwrap();
    let left = at.duration_since(SystemTime::now()).unwrap();
    assert!((8900..=9000).contains(&left.as_secs()), "{left:?}");
}

#[test]
fn an_input_that_is_not_there_is_named() {
    let dir = tempdir().unwrap();
    let message = failed(&run(&dir, "import none.csv"), 5);
    assert!(message.contains("cannot read none.csv"), "{message}");
    assert!(!data(&dir).exists());
    assert!(failed(&run(&dir, "import none"), 2).contains("--format"));
}

#[cfg(unix)]
fn importing(dir: &tempfile::TempDir, arguments: &[&str]) -> std::process::Child {
    let mut command = program(dir);
    command.arg("import").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

#[cfg(unix)] // it has signals
#[test]
fn ctrl_c_ends_an_import_with_what_was_read() {
    use std::io::Write;

    let dir = tempdir().unwrap();
    let mut child = importing(&dir, &["--batch-size", "10"]);
    let mut stdin = child.stdin.take().unwrap();
    for i in 0..15 {
        writeln!(stdin, "{{\"k\":\"{i}\",\"v\":\"\"}}").unwrap();
    }
    // The first batch is there: the import is under way.
    let begun = std::time::Instant::now();
    while Store::open_read_only(data(&dir)).map_or(0, |store| store.len()) < 10 {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "nothing is imported"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    // The rest is read by then.
    std::thread::sleep(Duration::from_millis(500));
    let pid = child.id().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(killed.unwrap().success());
    // It waits for no other record, nor for the end.
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        ended_with(&output, 130),
        "crabkv: interrupted: imported before that: 15 records; importing it again does no harm\n"
    );
    drop(stdin);
    assert_eq!(entries(&data(&dir)).len(), 15);
}

/// A figure of a process in `/proc`, in KiB.
#[cfg(target_os = "linux")]
fn memory_kib(child: &std::process::Child, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")] // it tells the most memory that a process had
#[test]
fn the_memory_of_reading_does_not_grow_with_the_records() {
    use std::io::Write;

    let peak_kib = |format: &str, records: u32| {
        let dir = tempdir().unwrap();
        let mut child = importing(&dir, &["--dry-run", "--format", format]);
        let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
        let (header, footer) = match format {
            "csv" => ("key,value\n", ""),
            "mdb" => ("VERSION=3\nformat=print\nHEADER=END\n", "DATA=END\n"),
            _ => ("", ""),
        };
        input.write_all(header.as_bytes()).unwrap();
        let value = "v".repeat(100);
        for i in 0..records {
            match format {
                "jsonl" => writeln!(input, "{{\"k\":\"{i}\",\"v\":\"{value}\"}}"),
                "csv" => writeln!(input, "{i},{value}"),
                "resp" => writeln!(input, "SET {i} {value}\r"),
                _ => writeln!(input, " {i}\n {value}"),
            }
            .unwrap();
        }
        input.write_all(footer.as_bytes()).unwrap();
        input.flush().unwrap();
        // All but what is in the pipe has been read.
        let peak = memory_kib(&child, "VmHWM:");
        drop(input);
        summary(&child.wait_with_output().unwrap());
        peak
    };
    for format in FORMATS {
        let (few, many) = (peak_kib(format, 5_000), peak_kib(format, 100_000));
        // 95,000 records that were kept would be 10 MB.
        assert!(many < few + 2_000, "{format}: {few} KiB, then {many} KiB");
    }
}

#[cfg(target_os = "linux")] // it tells the most memory that a process had
#[test]
fn the_memory_of_writing_does_not_grow_with_the_records() {
    let dir = tempdir().unwrap();
    fill(&data(&dir), 60_000);
    for format in FORMATS {
        let arguments = ["-q", "export", "--absolute", "--format", format];
        let len = done(program(&dir).args(arguments).output().unwrap()).len();
        let mut command = program(&dir);
        let mut child = command
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        // The store is open, its index is there. More than a buffer and the pipe can hold is to
        // come, at first and at last, so that the program waits.
        stdout.read_exact(&mut [0]).unwrap();
        let first = memory_kib(&child, "RssAnon:");
        let mut most = (&mut stdout).take(len as u64 - 500_000);
        std::io::copy(&mut most, &mut std::io::sink()).unwrap();
        let last = memory_kib(&child, "RssAnon:");
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        assert!(child.wait().unwrap().success());
        // 50,000 records that were kept would be 5 MB.
        assert!(
            last < first + 1_000,
            "{format}: {first} KiB, then {last} KiB"
        );
    }
}
