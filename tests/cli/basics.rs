//! The first steps, and how the program behaves whatever the verb: output, exit codes, files.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crabkv::Store;
use tempfile::tempdir;

use crate::program::*;

#[test]
fn the_first_steps_of_the_readme_work() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put hello world"));
    assert_eq!(done(run(&dir, "get hello")), b"world");
    silently_done(run(&dir, "put --ttl 30 ephemeral value"));
    assert_eq!(done(run(&dir, "get ephemeral")), b"value");
    assert!((25..=30).contains(&ttl_secs(&dir, "ephemeral").unwrap()));
    silently_done(run(&dir, "delete hello"));
    absent(&run(&dir, "get hello"));
    let summary = String::from_utf8(done(run(&dir, "compact"))).unwrap();
    assert!(
        summary.starts_with("merged 1 segment into 1: "),
        "{summary}"
    );
    assert!(summary.contains("1 record kept, 2 dropped"), "{summary}");
    assert_eq!(done(run(&dir, "compact")), b"nothing to compact\n");
    assert_eq!(done(run(&dir, "get ephemeral")), b"value");
    assert!(data(&dir).join("MANIFEST").is_file());
}

#[test]
fn options_are_taken_before_and_after_the_verb_and_its_arguments() {
    let dir = tempdir().unwrap();
    for line in [
        "put --ttl 30 a 1",
        "put a 1 --ttl 30",
        "put a --ttl=30 1",
        "--default-ttl 30 put a 1",
        "put a 1 --default-ttl 30",
        "--default-ttl 9999 put a 1 --ttl 30",
    ] {
        silently_done(run(&dir, "put a unlimited"));
        assert_eq!(ttl_secs(&dir, "a"), None);
        silently_done(run(&dir, line));
        let left = ttl_secs(&dir, "a").unwrap();
        assert!((20..=30).contains(&left), "{line}: {left}");
    }
    for line in [
        "-d other put a 2",
        "put -d other a 2",
        "put a 2 --data-dir other",
        "--data-dir=other --cache 10 put a 2",
    ] {
        silently_done(run(&dir, line));
        assert_eq!(done(run(&dir, "get a -d other")), b"2", "{line}");
        fs::remove_dir_all(dir.path().join("other")).unwrap();
    }
    assert_eq!(done(run(&dir, "get a")), b"1");
}

#[test]
fn the_environment_gives_defaults_that_flags_override() {
    let dir = tempdir().unwrap();
    let with_environment = |line: &str| {
        let mut command = program(&dir);
        command.env("CRABKV_DATA_DIR", data(&dir).join("deeper"));
        command.env("CRABKV_CACHE_CAPACITY", "2048");
        command.env("CRABKV_DEFAULT_TTL_SECS", "60");
        command.args(line.split_whitespace()).output().unwrap()
    };
    silently_done(with_environment("put hello world"));
    assert_eq!(done(with_environment("get hello")), b"world");
    silently_done(with_environment("put long lived --ttl 6000"));
    silently_done(with_environment("-d elsewhere put hello there"));
    let store = Store::open(data(&dir).join("deeper")).unwrap();
    let left = |key: &str| {
        let expires_at = store.expires_at(key).unwrap().unwrap();
        expires_at.duration_since(SystemTime::now()).unwrap()
    };
    assert!(left("hello") <= Duration::from_secs(60));
    assert!(left("long") > Duration::from_secs(60));
    assert_eq!(done(run(&dir, "-d elsewhere get hello")), b"there");

    for name in ["CRABKV_CACHE_CAPACITY", "CRABKV_DEFAULT_TTL_SECS"] {
        let mut command = program(&dir);
        let output = command.env(name, "many").args(["get", "a"]).output();
        let message = misused(&output.unwrap());
        assert!(message.contains("invalid value 'many'"), "{message}");
    }
}

#[test]
fn a_value_goes_through_pipes_byte_for_byte() {
    let dir = tempdir().unwrap();
    let every_byte: Vec<u8> = (0..=255).cycle().take(1_000_003).collect();
    for value in [&every_byte[..], b"", b"\n", b"no newline", b"a\r\nb\0"] {
        silently_done(run_with_input(&dir, "put key -", value));
        assert!(done(run(&dir, "get key")) == value);
    }
}

#[cfg(unix)] // arguments are UTF-16 on Windows
#[test]
fn keys_and_values_need_not_be_unicode() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let dir = tempdir().unwrap();
    let key = OsStr::from_bytes(b"k\xff\xc0");
    let value = OsStr::from_bytes(b"v\xf5\n");
    let put = program(&dir).args([OsStr::new("put"), key, value]).output();
    silently_done(put.unwrap());
    let get = program(&dir).args([OsStr::new("get"), key]).output();
    assert_eq!(done(get.unwrap()), b"v\xf5\n");
    let store = Store::open(data(&dir)).unwrap();
    assert_eq!(store.get(b"k\xff\xc0").unwrap().unwrap(), &b"v\xf5\n"[..]);
}

#[test]
fn empty_negative_and_dashed_arguments_are_keys_and_values_too() {
    let dir = tempdir().unwrap();
    let empty = program(&dir).args(["put", "", ""]).output().unwrap();
    silently_done(empty);
    assert_eq!(done(program(&dir).args(["get", ""]).output().unwrap()), b"");
    silently_done(run(&dir, "put -1 -0.5"));
    assert_eq!(done(run(&dir, "get -1")), b"-0.5");
    silently_done(run(&dir, "put -- --ttl -d"));
    assert_eq!(done(run(&dir, "get -- --ttl")), b"-d");
}

#[test]
fn an_absent_key_is_told_apart_from_a_failure() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    absent(&run(&dir, "get b"));
    absent(&run(&dir, "delete b"));
    silently_done(run(&dir, "delete a"));
    absent(&run(&dir, "delete a"));
    silently_done(run(&dir, "put brief x --ttl 1"));
    std::thread::sleep(Duration::from_millis(1100));
    absent(&run(&dir, "get brief"));
}

#[test]
fn only_put_makes_a_store() {
    let dir = tempdir().unwrap();
    let foreign = dir.path().join("documents");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "dear reader").unwrap();
    for line in ["get a", "delete a", "compact", "stats"] {
        for data_dir in ["missing", ".", "documents"] {
            let line = format!("{line} -d {data_dir}");
            let message = failed(&run(&dir, &line), 5);
            assert!(
                message.contains(&format!("no store in {data_dir};")),
                "{message}"
            );
        }
    }
    let message = failed(&run(&dir, "put a 1 -d documents"), 5);
    assert!(message.contains("letter.txt does not belong"), "{message}");
    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!((names(dir.path()), names(&foreign)), (1, 1));
}

#[test]
fn a_ttl_that_is_none_is_a_usage_error_that_says_so() {
    let dir = tempdir().unwrap();
    for line in [
        "put a 1 --ttl 0",
        "put a 1 --ttl -5",
        "put --ttl=-5 a 1",
        "put a 1 --ttl soon",
        "put a 1 --ttl 99999999999999999999",
        "put a 1 --default-ttl 0",
    ] {
        let message = misused(&run(&dir, line));
        assert!(message.contains("TTL"), "{message}");
    }
    assert!(!data(&dir).exists());
    // The longest there is lasts for ever, as good as.
    silently_done(run(&dir, "put a 1 --ttl 18446744073709551615"));
    assert_eq!(done(run(&dir, "get a")), b"1");
}

#[test]
fn keys_are_deleted_together_and_those_that_were_not_there_are_told() {
    let dir = tempdir().unwrap();
    for key in ["a", "b", "c"] {
        silently_done(run(&dir, &format!("put {key} 1")));
    }
    let message = failed(&run(&dir, "delete a nothing b a"), 1);
    assert_eq!(message, "crabkv: no value for the key \"nothing\"\n");
    let message = failed(&run(&dir, "delete a c b"), 1);
    assert_eq!(message, "crabkv: no value for the key \"a\" and 1 more\n");
    assert_eq!(done(run(&dir, "count")), b"0\n");
    // A key that cannot be read as one leaves the others alone.
    silently_done(run(&dir, "put --hex 00 01"));
    failed(&run(&dir, "delete --hex 00 0"), 2);
    silently_done(run(&dir, "delete --hex 00"));
}

#[test]
fn what_other_tools_call_the_same_is_understood() {
    let dir = tempdir().unwrap();
    for key in ["a", "b", "c"] {
        silently_done(run(&dir, &format!("set {key} 1")));
    }
    silently_done(run(&dir, "del a"));
    silently_done(run(&dir, "rm b"));
    assert_eq!(done(run(&dir, "ls")), b"c\n");
    assert_eq!(done(run(&dir, "list")), b"c\n");
}

#[test]
fn wrong_usage_exits_with_2_and_help_with_0() {
    let dir = tempdir().unwrap();
    for line in ["put", "put a", "put a b -", "put -", "get", "fetch a"] {
        failed(&run(&dir, line), 2);
    }
    let verbs = misused(&run(&dir, ""));
    assert!(verbs.contains("\n  verify ") && verbs.lines().count() < 50);

    let help = String::from_utf8(done(run(&dir, "--help"))).unwrap();
    assert!(help.contains("Exit codes:") && help.contains("CRABKV_DATA_DIR"));
    done(run(&dir, "put --help"));
    done(run(&dir, "--version"));
}

/// On Windows a command line cannot be as long as that.
#[cfg(unix)] // a command line has at most 32,767 characters on Windows
#[test]
fn a_key_that_is_too_long_is_a_usage_error() {
    let dir = tempdir().unwrap();
    let key = "x".repeat(65_536);
    let output = program(&dir).args(["put", &key, "1"]).output().unwrap();
    let message = failed(&output, 2);
    assert!(message.contains("at most 65535 bytes"), "{message}");
}

#[test]
fn a_store_that_is_open_elsewhere_is_locked_and_says_by_whom() {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    store.put("a", "1").unwrap();
    for line in ["put a 2", "delete a", "compact"] {
        let message = failed(&run(&dir, line), 3);
        let holder = format!("process {}", std::process::id());
        assert!(message.contains(&holder), "{message}");
    }
    assert_eq!(done(run(&dir, "get a")), b"1");
    assert!(text(run(&dir, "stats")).contains("keys"));
}

#[test]
fn a_reader_that_takes_its_time_does_not_keep_the_store_locked() {
    let dir = tempdir().unwrap();
    let value = vec![b'x'; 4 << 20];
    Store::open(data(&dir)).unwrap().put("big", &value).unwrap();
    let mut command = program(&dir);
    let child = command.args(["get", "big"]).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    // The first byte comes when the store is closed again.
    let mut first = [0];
    let mut stdout = child.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut first).unwrap();
    silently_done(run(&dir, "put big small"));
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stdout, &mut rest).unwrap();
    assert_eq!(rest.len() + 1, value.len());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    store.put("big", vec![b'x'; 4 << 20]).unwrap();
    drop(store);
    for line in ["get big", "stats", "compact", "--help"] {
        let mut command = program(&dir);
        command.args(line.split_whitespace());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        silently_done(child.wait_with_output().unwrap());
    }
}

#[cfg(target_os = "linux")] // it has /dev/full
#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = program(&dir);
    let output = command.args(["get", "a"]).stdout(full).output().unwrap();
    let message = failed(&output, 5);
    assert!(message.contains("standard output"), "{message}");
}

#[test]
fn a_data_directory_that_is_a_file_is_refused_and_left_alone() {
    let dir = tempdir().unwrap();
    fs::write(data(&dir), "mine").unwrap();
    for line in ["get a", "put a 1", "put a 1 -d data/sub"] {
        let message = failed(&run(&dir, line), 5);
        assert!(message.contains("a store is a directory"), "{message}");
    }
    assert_eq!(fs::read(data(&dir)).unwrap(), b"mine");
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    let manifest = data(&dir).join("MANIFEST");
    let mut bytes = fs::read(&manifest).unwrap();
    // The version is behind the 8 bytes of magic.
    bytes[8] = 99;
    fs::write(&manifest, &bytes).unwrap();
    for line in ["get a", "put a 2"] {
        let message = failed(&run(&dir, line), 6);
        assert!(message.contains("format version 99"), "{message}");
        assert!(message.contains("use a newer crabkv"), "{message}");
    }
    assert_eq!(fs::read(&manifest).unwrap(), bytes);
}

#[test]
fn damage_is_reported_with_its_place_and_its_own_exit_code() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a precious"));
    let segment = data(&dir).join("000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(8).position(|w| w == b"precious").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let message = failed(&run(&dir, "get a"), 4);
    assert!(message.contains("000000000001.seg at offset"), "{message}");
}

#[test]
fn a_torn_tail_is_one_line_of_warning_and_no_failure() {
    let dir = tempdir().unwrap();
    // What a crash leaves behind: a copy of a store that is open, with half a write at its end.
    let live = dir.path().join("live");
    let store = Store::open(&live).unwrap();
    store.put("a", "1").unwrap();
    fs::create_dir(data(&dir)).unwrap();
    for name in ["MANIFEST", "000000000001.seg"] {
        fs::copy(live.join(name), data(&dir).join(name)).unwrap();
    }
    let segment = data(&dir).join("000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    // Behind the value and its padding.
    let end = bytes.iter().rposition(|&b| b != 0).unwrap() / 8 * 8 + 8;
    bytes[end..end + 20].fill(0xee);
    fs::write(&segment, bytes).unwrap();

    // A verb that reads leaves everything as it is, and has nothing to say.
    assert_eq!(done(run(&dir, "get a")), b"1");
    let output = run(&dir, "put b 2");
    assert_eq!(output.status.code(), Some(0));
    let message = stderr(&output);
    let begin = format!(
        "crabkv: warning: a crash interrupted the last write: 20 bytes that were never \
         acknowledged were cut off segment 1 at offset {end};"
    );
    assert!(message.starts_with(&begin), "{message}");
    assert_eq!(message.lines().count(), 1);
    assert_eq!(done(run(&dir, "get a")), b"1");
}

#[test]
fn a_value_is_described_with_its_version_in_json() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1 --ttl 1h"));
    let value = json(run(&dir, "get a --json"));
    assert_eq!((&value["key"], &value["value"]), (&"a".into(), &"1".into()));
    assert_eq!(value["version"], 1);
    let ttl_ms = value["ttl_ms"].as_u64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&ttl_ms), "{ttl_ms}");
    silently_done(run(&dir, "put --hex ff 00fe"));
    assert_eq!(
        json(run(&dir, "get --hex ff --json")),
        serde_json::json!({
            "key": {"base64": "/w=="}, "value": {"base64": "AP4="}, "version": 2
        })
    );
    assert_eq!(done(run(&dir, "get --hex ff")), b"00fe\n");
    assert_eq!(done(run(&dir, "get --base64 /w==")), b"AP4=\n");
}

#[test]
fn values_come_from_files_and_go_to_files() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("in.bin"), [0, 255, 10]).unwrap();
    silently_done(run(&dir, "put a @in.bin"));
    assert_eq!(done(run(&dir, "get a")), [0, 255, 10]);
    silently_done(run(&dir, "get a --out out.bin"));
    assert_eq!(fs::read(dir.path().join("out.bin")).unwrap(), [0, 255, 10]);
    silently_done(run(&dir, "put a @in.bin --literal"));
    let message = failed(&run(&dir, "get a --out out.bin"), 2);
    assert!(message.contains("replace out.bin"), "{message}");
    silently_done(run(&dir, "get a --out out.bin --yes"));
    assert_eq!(fs::read(dir.path().join("out.bin")).unwrap(), b"@in.bin");
    let message = failed(&run(&dir, "put a @missing"), 5);
    assert!(message.contains("cannot read missing"), "{message}");
    // Nothing half done is left.
    let names = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 3);
}
