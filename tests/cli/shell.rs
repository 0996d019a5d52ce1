//! The shell, with lines from a script: what they share, what a failure does, who else may write.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Output, Stdio};

use crabkv::Store;
use tempfile::{TempDir, tempdir};

use crate::program::*;

fn shell(dir: &TempDir, arguments: &str, script: &str) -> Output {
    run_with_input(dir, &format!("shell {arguments}"), script.as_bytes())
}

#[test]
fn a_script_does_what_its_lines_say_with_one_value_on_a_line() {
    let dir = tempdir().unwrap();
    let script = "# the first put makes the store\n\
                  put a 1\n\
                  put 'b c' \"two\\nlines\"\r\n\
                  \n   \n\
                  get a\n\
                  get \"b c\"\n\
                  delete a\n";
    assert_eq!(text(shell(&dir, "", script)), "1\ntwo\nlines\n");
    absent(&run(&dir, "get a"));
    assert_eq!(done(run(&dir, "get --hex 622063")), b"74776f0a6c696e6573\n");
}

#[test]
fn a_line_that_fails_is_told_and_the_next_is_read() {
    let dir = tempdir().unwrap();
    let script = "get a\nput a 1\nget b\nfetch a\nput\nput 'a\nget a\n";
    let output = shell(&dir, "", script);
    // That of the last line that failed.
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"1\n");
    let messages = stderr(&output);
    let expected = [
        "crabkv: line 1: no store in data;",
        "crabkv: line 3: no value for the key \"b\"",
        "crabkv: line 4: unrecognized command 'fetch'; ",
        "crabkv: line 5: the following required arguments were not provided: <KEY> <VALUE>; \
         usage: put <KEY> <VALUE>",
        "crabkv: line 6: a quote (') is not closed",
    ];
    assert_eq!(messages.lines().count(), expected.len(), "{messages}");
    for (message, begin) in messages.lines().zip(expected) {
        assert!(message.starts_with(begin), "{message}");
    }
}

#[test]
fn the_exit_code_is_that_of_the_last_failure_and_bail_stops_at_the_first() {
    let dir = tempdir().unwrap();
    let script = "put a 1\nget b\nput a 2\n";
    assert_eq!(shell(&dir, "", script).status.code(), Some(1));
    assert_eq!(done(run(&dir, "get a")), b"2");
    assert_eq!(shell(&dir, "--bail", script).status.code(), Some(1));
    assert_eq!(done(run(&dir, "get a")), b"1");
    let script = "get b\nexit\nput a 3\n";
    assert_eq!(shell(&dir, "", script).status.code(), Some(1));
    silently_done(shell(&dir, "", "quit\nput a 3\n"));
    assert_eq!(done(run(&dir, "get a")), b"1");
}

#[test]
fn a_line_has_the_options_of_the_shell_and_its_own() {
    let dir = tempdir().unwrap();
    let script =
        "put a 1\nput a 2 -d other\nget a\nget a -d other\nget a --json\nget --data-dir other a\n";
    let answers = text(shell(&dir, "", script));
    assert_eq!(
        answers,
        "1\n2\n{\"key\":\"a\",\"value\":\"1\",\"version\":1}\n2\n"
    );
    let answers = text(shell(&dir, "--json -d other", "get a\nget a -d data\n"));
    let values: Vec<serde_json::Value> = answers
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&values[0]["value"], &values[1]["value"]),
        (&"2".into(), &"1".into())
    );
    let script = "get nothing\nput brief 1\nget brief\n";
    let output = shell(&dir, "-q --default-ttl 1h", script);
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(1), "")
    );
    assert_eq!(output.stdout, b"1\n");
    assert!(ttl_secs(&dir, "brief").unwrap() > 3500);
}

#[test]
fn a_value_from_stdin_is_the_rest_of_the_script() {
    let dir = tempdir().unwrap();
    silently_done(shell(&dir, "", "put a -\nget a\nthe rest"));
    assert_eq!(done(run(&dir, "get a")), b"get a\nthe rest");
}

#[test]
fn what_needs_no_store_is_sent_out_of_the_shell() {
    let dir = tempdir().unwrap();
    for line in ["shell", "completions bash", "man"] {
        let message = failed(&shell(&dir, "", line), 2);
        assert!(message.contains("does not work in the shell"), "{message}");
    }
    let help = text(shell(&dir, "", "help\n"));
    assert!(
        help.contains("\n  verify ") && help.contains("\n  exit "),
        "{help}"
    );
    assert!(!help.contains("completions"), "{help}");
    let help = text(shell(&dir, "", "help verify\nverify --help\n"));
    assert_eq!(help.matches("Usage: verify").count(), 2, "{help}");
}

#[test]
fn verbs_that_want_the_directory_for_themselves_get_it() {
    let dir = tempdir().unwrap();
    let script = "put a 1\nbackup copy -q\nrepair saved -q\nput a 2\nrestore copy -d again -q\n\
                  get a -d copy\nget a -d saved\nget a -d again\nget a\ncompact\nverify\n";
    let output = shell(&dir, "", script);
    assert_eq!(stderr(&output), "");
    let answers = text(output);
    let lines: Vec<_> = answers.lines().collect();
    assert!(
        lines[0].starts_with("saved 1 key in 1 record to saved: "),
        "{answers}"
    );
    assert_eq!(lines[1..5], ["1", "1", "1", "2"]);
    assert!(
        lines[5].starts_with("merged 1 segment into 1: "),
        "{answers}"
    );
    assert!(lines[6].starts_with("sound: "), "{answers}");
}

/// A shell that is given one line after the other.
struct Typed {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Typed {
    fn start(dir: &TempDir, arguments: &str) -> Typed {
        let mut command = program(dir);
        command.arg("shell").args(arguments.split_whitespace());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Typed {
            child,
            stdin,
            stdout,
        }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// The answer, of one line.
    fn ask(&mut self, line: &str) -> String {
        self.type_line(line);
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// The exit code, and what went to stderr.
    fn leave(mut self) -> (Option<i32>, String) {
        drop(self.stdin);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), stderr(&output))
    }
}

#[test]
fn beside_a_writer_the_shell_reads_what_it_writes_and_writes_once_it_is_gone() {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    store.put("a", "1").unwrap();
    let mut shell = Typed::start(&dir, "");
    assert_eq!(shell.ask("get a"), "1");
    store.put("a", "2").unwrap();
    assert_eq!(shell.ask("get a"), "2");
    shell.type_line("put a 3");
    assert_eq!(shell.ask("get a"), "2");
    drop(store);
    shell.type_line("put a 4");
    assert_eq!(shell.ask("get a"), "4");
    let (code, messages) = shell.leave();
    assert_eq!(code, Some(3), "{messages}");
    let messages: Vec<_> = messages.lines().collect();
    let holder = format!("process {}", std::process::id());
    assert!(
        messages[0].starts_with("crabkv: line 1: only reading: "),
        "{messages:?}"
    );
    assert!(messages[0].contains(&holder), "{messages:?}");
    assert!(messages[1].starts_with("crabkv: line 3: ") && messages[1].contains(&holder));
    assert_eq!(
        messages[2],
        "crabkv: line 5: the store is open for writing now"
    );
    assert_eq!(messages.len(), 3, "{messages:?}");
}

#[test]
fn a_shell_that_only_reads_leaves_writing_to_others() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    let mut shell = Typed::start(&dir, "--read-only");
    assert_eq!(shell.ask("get a"), "1");
    silently_done(run(&dir, "put a 2"));
    assert_eq!(shell.ask("get a"), "2");
    shell.type_line("put a 3");
    assert_eq!(shell.ask("get a"), "2");
    let (code, messages) = shell.leave();
    assert_eq!(code, Some(2));
    assert!(
        messages.contains("line 3: this shell only reads"),
        "{messages}"
    );
}

#[test]
fn a_store_that_the_shell_writes_to_is_locked_and_left_in_good_order() {
    let dir = tempdir().unwrap();
    let mut shell = Typed::start(&dir, "");
    shell.type_line("put a 1");
    assert_eq!(shell.ask("get a"), "1");
    let message = failed(&run(&dir, "put a 2"), 3);
    let holder = format!("process {}", shell.child.id());
    assert!(message.contains(&holder), "{message}");
    let (code, messages) = shell.leave();
    assert_eq!((code, messages.as_str()), (Some(0), ""));
    silently_done(run(&dir, "put a 2"));
}

#[test]
fn damage_does_not_end_the_shell() {
    let dir = tempdir().unwrap();
    let store = Store::builder(data(&dir)).segment_size(4096).build_store();
    let store = store.unwrap();
    store.put("a", "precious").unwrap();
    store.put("b", [b'2'; 4000]).unwrap();
    store.put("c", "3").unwrap();
    store.close().unwrap();
    drop(store);
    let segment = data(&dir).join("000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(8).position(|w| w == b"precious").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let output = shell(&dir, "", "get a\nget c\n");
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(output.stdout, b"3\n");
    let message = stderr(&output);
    assert!(
        slashed(&message).starts_with("crabkv: line 1: damage in data/000000000001.seg at offset "),
        "{message}"
    );
    assert!(message.contains("crabkv repair"), "{message}");
}

#[test]
fn a_closed_pipe_ends_the_shell_quietly() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    let mut shell = Typed::start(&dir, "");
    assert_eq!(shell.ask("get a"), "1");
    drop(shell.stdout);
    shell.stdin.write_all(b"get a\nput a 2\n").unwrap();
    drop(shell.stdin);
    let output = shell.child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(0), "")
    );
    assert_eq!(done(run(&dir, "get a")), b"1");
}

#[test]
fn the_shell_knows_its_store_by_every_name_it_has() {
    let dir = tempdir().unwrap();
    let script = "put a 1\nput a 2 -d ./data\nincr a --data-dir data/../data\nget a\n";
    assert_eq!(text(shell(&dir, "", script)), "3\n3\n");
}

#[test]
fn a_line_about_another_store_that_fails_is_told_with_its_number() {
    let dir = tempdir().unwrap();
    let output = shell(&dir, "", "put a 1\nput a 1 -d other\nget b -d other\n");
    assert_eq!(
        failed(&output, 1),
        "crabkv: line 3: no value for the key \"b\"\n"
    );
}
