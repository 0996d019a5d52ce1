//! What a hostile, unlucky or confused person does: odd names, odd files to write to, places where no
//! store may be.

use std::fs;

use tempfile::tempdir;

use crate::program::*;

#[test]
fn a_message_is_one_line_and_drives_no_terminal_whatever_is_in_a_name() {
    let dir = tempdir().unwrap();
    let output = program(&dir)
        .args(["get", "a", "-d", "no\nwhere\x1b[2J"])
        .output()
        .unwrap();
    let message = failed(&output, 5);
    let expected = if cfg!(windows) {
        // There is nothing that could be called so.
        r"crabkv: cannot open no\x0awhere\x1b[2J\MANIFEST: "
    } else {
        r"crabkv: no store in no\x0awhere\x1b[2J; "
    };
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn keys_that_turn_the_direction_of_text_are_escaped() {
    let dir = tempdir().unwrap();
    let key = "user:\u{202e}nimda";
    let put = program(&dir).args(["put", key, "1"]).output().unwrap();
    silently_done(put);
    assert_eq!(text(run(&dir, "keys")), "user:\\xe2\\x80\\xaenimda\n");
    assert_eq!(json(run(&dir, "keys --json"))["key"], key);
}

#[cfg(unix)] // it has pipes with names in directories
#[test]
fn a_pipe_is_written_to_and_not_replaced() {
    use std::os::unix::fs::FileTypeExt;

    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for (line, expected) in [
        ("get a --out pipe", "1"),
        (
            "export --format jsonl --quiet --out pipe",
            "{\"k\":\"a\",\"v\":\"1\"}\n",
        ),
    ] {
        let from = pipe.clone();
        let reader = std::thread::spawn(move || fs::read_to_string(from).unwrap());
        silently_done(run(&dir, line));
        assert_eq!(reader.join().unwrap(), expected);
    }
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn a_directory_is_no_file_to_write_to_even_with_consent() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    fs::create_dir(dir.path().join("sub.csv")).unwrap();
    for line in ["get a --out sub.csv --yes", "export --out sub.csv --yes"] {
        assert_eq!(
            failed(&run(&dir, line), 2),
            "crabkv: sub.csv is a directory; name a file in it\n"
        );
    }
    let message = failed(&run(&dir, "get a --out nowhere/a"), 5);
    assert!(
        message.starts_with("crabkv: cannot create nowhere/a: "),
        "{message}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[cfg(unix)] // it has modes and symbolic links
#[test]
fn a_file_that_is_replaced_keeps_its_permissions_and_the_links_to_it() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    let (file, link) = (dir.path().join("secret"), dir.path().join("link"));
    fs::write(&file, "0").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    symlink("secret", &link).unwrap();
    let message = failed(&run(&dir, "get a --out link"), 2);
    assert!(message.contains("--yes"), "{message}");
    silently_done(run(&dir, "get a --out link --yes"));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&file).unwrap(), b"1");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_store_is_made_only_where_it_may_be() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    done(run(&dir, "backup copy"));
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/notes"), "mine").unwrap();
    for (line, code, reason) in [
        ("backup data/sub", 5, "data/sub: it is in the directory"),
        ("backup full", 5, "full/notes does not belong"),
        ("backup data -d copy", 5, "data: it is a store"),
        ("repair full", 5, "full/notes does not belong"),
        (
            "repair data/sub",
            2,
            "data/sub is in the damaged store, data; name a directory outside of it",
        ),
        ("restore copy -d full", 5, "full/notes does not belong"),
        ("restore copy -d copy/sub", 5, "copy/sub: it is in the dir"),
    ] {
        let message = failed(&run(&dir, line), code);
        let begin = format!("crabkv: {reason}");
        assert!(slashed(&message).starts_with(&begin), "{line}: {message}");
    }
    assert_eq!(fs::read_dir(dir.path().join("full")).unwrap().count(), 1);
    for line in ["restore gone -d new", "restore gone -d new --dry-run"] {
        assert_eq!(
            failed(&run(&dir, line), 5),
            "crabkv: cannot find a backup in gone: there is none\n"
        );
    }
    assert!(text(run(&dir, "verify")).starts_with("sound: "));
}

#[test]
fn quiet_verbs_that_do_something_say_nothing() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    silently_done(run(&dir, "put a 2"));
    for line in ["compact -q", "backup copy -q", "restore copy -d new -q"] {
        silently_done(run(&dir, line));
    }
    // What was asked for is data.
    assert_eq!(json(run(&dir, "compact -q --json"))["segments_merged"], 0);
    assert!(text(run(&dir, "compact -q --dry-run")).starts_with("nothing to compact"));
}

/// A dump without its end is refused by whoever reads it.
#[cfg(unix)] // it has signals
#[test]
fn an_export_that_is_interrupted_does_not_look_complete() {
    use std::io::Read;
    use std::process::{Command, Stdio};

    let dir = tempdir().unwrap();
    let lines = (0..20_000).map(|i| format!("{{\"k\":\"key{i}\",\"v\":\"{i}\"}}\n"));
    let lines: String = lines.collect();
    run_with_input(&dir, "import --quiet", lines.as_bytes());
    let mut export = program(&dir);
    export.args(["export", "--format", "mdb"]);
    let mut child = export
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut dump = vec![0];
    // It has begun, and cannot end while the pipe is full.
    stdout.read_exact(&mut dump).unwrap();
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    std::thread::sleep(std::time::Duration::from_millis(100));
    stdout.read_to_end(&mut dump).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(dump.starts_with(b"VERSION=3\n"));
    assert!(!String::from_utf8_lossy(&dump).contains("DATA=END"));
}

/// As `crabkv import` at a terminal does, by somebody who forgot the file. What was read of a line
/// could be taken for all of it.
#[cfg(unix)] // it has signals
#[test]
fn an_import_that_waits_for_input_ends_at_ctrl_c_without_half_a_record() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let dir = tempdir().unwrap();
    let mut import = program(&dir);
    import.args(["import", "--format", "csv"]);
    import.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = import.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"key,value\na,1\nb,ha").unwrap();
    let begun = Instant::now();
    while !data(&dir).join("MANIFEST").exists() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    // By then it has read that, and waits for more.
    std::thread::sleep(Duration::from_millis(500));
    let id = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &id]).status();
    assert!(killed.unwrap().success());
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let is_ended = child.try_wait().unwrap().is_some();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(is_ended, "it waited for the end of its input");
    assert_eq!(
        failed(&output, 130),
        "crabkv: interrupted: imported before that: 1 record; importing it again does no harm\n"
    );
    assert_eq!(done(run(&dir, "get a")), b"1");
    absent(&run(&dir, "get b"));
}
