//! Verifying, repairing, compacting, backing up and restoring, as a person does it: what is said
//! of damage, what is left after Ctrl-C and a full disk, what works beside a writer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
#[cfg(unix)]
use std::process::{Child, Stdio};
#[cfg(unix)]
use std::time::{Duration, Instant};

use crabkv::Store;
use tempfile::{TempDir, tempdir};

use crate::program::*;

/// A store of several sealed segments with hint files, closed in good order.
fn fill(dir: &Path, keys: u32) {
    let store = Store::builder(dir)
        .segment_size(4096)
        .build_store()
        .unwrap();
    for i in 0..keys {
        store.put(format!("key{i}"), [7; 100]).unwrap();
    }
    store.close().unwrap();
}

/// Flips a bit of the value `needle` in a segment; says where it begins.
fn damage(segment: &Path, needle: &[u8]) -> usize {
    let mut bytes = fs::read(segment).unwrap();
    let at = bytes
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap();
    bytes[at] ^= 1;
    fs::write(segment, bytes).unwrap();
    at
}

fn first_segment(dir: &TempDir) -> PathBuf {
    data(dir).join("000000000001.seg")
}

/// What went to stdout, whatever the exit code.
#[track_caller]
fn stdout(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json_of(output: &Output, code: i32) -> serde_json::Value {
    serde_json::from_str(&stdout(output, code)).unwrap()
}

/// Every file in a directory but the lock, with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        // On Windows there is a file beside it that says who has it.
        .filter(|path| !path.ends_with("LOCK") && !path.ends_with("LOCK.holder"))
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_sound_store_is_said_to_be_sound() {
    let dir = tempdir().unwrap();
    fill(&data(&dir), 100);
    let report = text(run(&dir, "verify"));
    assert!(
        report.starts_with("sound: 4 segments, 100 sound records, "),
        "{report}"
    );
    assert_eq!(report.lines().count(), 1);
    let report = json(run(&dir, "verify --json"));
    assert_eq!(
        (&report["sound"], &report["records"]),
        (&true.into(), &100.into())
    );
    assert_eq!(report["damage"], serde_json::json!([]));
}

#[test]
fn damage_is_named_by_file_and_offset_and_exits_with_4() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put first precious"));
    silently_done(run(&dir, "put second one"));
    let at = damage(&first_segment(&dir), b"precious") as u64;
    let output = run(&dir, "verify");
    let report = stdout(&output, 4);
    let (place, verdict) = report.split_once('\n').unwrap();
    assert!(
        slashed(place).starts_with("data/000000000001.seg at offset "),
        "{report}"
    );
    assert!(place.contains(": record: "), "{report}");
    assert!(
        verdict.starts_with("damaged in 1 place: 1 segment, 1 sound record"),
        "{report}"
    );
    assert!(stderr(&output).contains("crabkv repair OUT_DIR"));

    let report = json_of(&run(&dir, "verify --json -q"), 4);
    assert_eq!(
        (&report["sound"], &report["heals"]),
        (&false.into(), &false.into())
    );
    let damage = &report["damage"][0];
    assert_eq!(
        slashed(damage["file"].as_str().unwrap()),
        "data/000000000001.seg"
    );
    assert_eq!(damage["kind"], "record");
    // The record's beginning: its header and key come before the value.
    let offset = damage["offset"].as_u64().unwrap();
    assert!(offset < at && at - offset < 64, "{offset} {at}");
}

#[test]
fn damage_that_opening_mends_is_said_to_be_no_loss() {
    let dir = tempdir().unwrap();
    fill(&data(&dir), 100);
    let hint = data(&dir).join("000000000001.hint");
    let mut bytes = fs::read(&hint).unwrap();
    bytes[40] ^= 1;
    fs::write(&hint, bytes).unwrap();
    let output = run(&dir, "verify");
    assert!(stdout(&output, 4).contains("000000000001.hint at offset "));
    assert!(
        stderr(&output).contains("nothing is lost"),
        "{}",
        stderr(&output)
    );
    silently_done(run(&dir, "put another one"));
    assert!(text(run(&dir, "verify")).starts_with("sound: "));
}

#[test]
fn what_is_of_interest_but_no_damage_is_told_when_asked_for() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    fs::write(data(&dir).join("000000000001.torn-8"), "left over").unwrap();
    let report = text(run(&dir, "verify"));
    assert!(
        report.trim_end().ends_with("; 1 note, to be seen with -v"),
        "{report}"
    );
    let report = text(run(&dir, "verify -v"));
    assert!(
        slashed(&report).starts_with("note: data/000000000001.torn-8: "),
        "{report}"
    );
}

#[test]
fn what_only_reads_works_beside_a_writer_and_the_rest_says_who_it_is() {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    store.put("a", "1").unwrap();
    store.put("a", "2").unwrap();
    assert!(text(run(&dir, "verify")).starts_with("sound: 1 segment, 2 sound records"));
    assert!(text(run(&dir, "compact --dry-run")).starts_with("would give back about 32B "));
    assert!(text(run(&dir, "backup copy")).starts_with("copy has every write up to number 2: "));
    store.put("a", "3").unwrap();
    let report = json(run(&dir, "backup copy --json"));
    assert_eq!(report["last_seq"], 3);
    assert_eq!(done(run(&dir, "get a -d copy")), b"3");
    let holder = format!("process {}", std::process::id());
    for line in ["compact", "repair out", "restore data -d other"] {
        let message = failed(&run(&dir, line), 3);
        assert!(message.contains(&holder), "{message}");
    }
}

#[test]
fn a_dry_compaction_says_what_would_be_given_back_and_gives_nothing_back() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    assert!(text(run(&dir, "compact -n")).starts_with("nothing to compact: all of "));
    silently_done(run(&dir, "put a 2"));
    let before = files(&data(&dir));
    let report = json(run(&dir, "compact --dry-run --json"));
    // A record of 16 bytes, and a key and a value of one each, padded.
    assert_eq!(
        (&report["dry_run"], &report["reclaimable_bytes"]),
        (&true.into(), &32.into())
    );
    assert_eq!(report["segments"], serde_json::json!([1]));
    assert!(files(&data(&dir)) == before);
    let report = json(run(&dir, "compact --json"));
    assert_eq!(
        (&report["segments_merged"], &report["records_dropped"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn repair_saves_what_is_sound_and_says_what_is_lost() {
    let dir = tempdir().unwrap();
    for line in ["put first 1", "put second precious", "put third 3"] {
        silently_done(run(&dir, line));
    }
    damage(&first_segment(&dir), b"precious");
    let before = files(&data(&dir));
    let output = run(&dir, "repair saved");
    let report = stdout(&output, 4);
    assert!(
        slashed(&report).starts_with("lost: data/000000000001.seg at offset "),
        "{report}"
    );
    assert!(
        report.contains("\nsaved 2 keys in 2 records to saved: "),
        "{report}"
    );
    assert!(
        stderr(&output).contains("data is as it was"),
        "{}",
        stderr(&output)
    );
    assert!(files(&data(&dir)) == before);
    assert_eq!(done(run(&dir, "get first -d saved")), b"1");
    assert_eq!(done(run(&dir, "get third -d saved")), b"3");
    absent(&run(&dir, "get second -d saved"));
    assert!(text(run(&dir, "verify -d saved")).starts_with("sound: "));

    let message = failed(&run(&dir, "repair saved"), 5);
    assert!(message.contains("empty directory"), "{message}");
    let report = json_of(&run(&dir, "repair again --json"), 4);
    assert_eq!(
        (&report["complete"], &report["keys"]),
        (&false.into(), &2.into())
    );
    assert_eq!(
        slashed(report["lost"][0]["file"].as_str().unwrap()),
        "data/000000000001.seg"
    );
    assert_eq!(report["manifest"], "sound");
}

#[test]
fn repair_of_what_is_not_damaged_loses_nothing() {
    let dir = tempdir().unwrap();
    fill(&data(&dir), 100);
    let report = stdout(&run(&dir, "repair saved"), 0);
    assert!(
        report.starts_with("saved 100 keys in 100 records to saved: "),
        "{report}"
    );
    assert!(report.contains("; nothing is lost"), "{report}");
}

#[test]
fn a_store_without_its_manifest_is_saved_with_a_warning() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    fs::remove_file(data(&dir).join("MANIFEST")).unwrap();
    let report = stdout(&run(&dir, "verify"), 4);
    assert!(
        slashed(&report).starts_with("data/MANIFEST at offset 0: manifest: "),
        "{report}"
    );
    let report = stdout(&run(&dir, "repair saved"), 4);
    assert!(
        report.starts_with("warning: there was no sound manifest"),
        "{report}"
    );
    assert_eq!(done(run(&dir, "get a -d saved")), b"1");
}

#[test]
fn a_batch_is_saved_in_part_only_if_that_is_asked_for() {
    let dir = tempdir().unwrap();
    let store = Store::open(data(&dir)).unwrap();
    let mut batch = crabkv::WriteBatch::new();
    batch.put("a", "1").unwrap().put("b", "precious").unwrap();
    store.write(&batch).unwrap();
    store.close().unwrap();
    drop(store);
    damage(&first_segment(&dir), b"precious");
    stdout(&run(&dir, "repair whole"), 4);
    stdout(&run(&dir, "repair parts --partial-batches"), 4);
    absent(&run(&dir, "get a -d whole"));
    assert_eq!(done(run(&dir, "get a -d parts")), b"1");
}

#[test]
fn a_backup_is_brought_up_to_date_and_copies_nothing_twice() {
    let dir = tempdir().unwrap();
    fill(&data(&dir), 100);
    let first = json(run(&dir, "backup copy --json"));
    let figures = |report: &serde_json::Value| {
        ["segments_linked", "segments_copied", "segments_present"]
            .map(|name| report[name].as_u64().unwrap())
    };
    let [linked, copied, present] = figures(&first);
    assert_eq!((linked + copied, present), (4, 0), "{first}");
    let second = json(run(&dir, "backup copy --json"));
    assert_eq!(
        (figures(&second), &second["copied_bytes"]),
        ([0, 0, 4], &0.into())
    );
    silently_done(run(&dir, "put one more"));
    let third = json(run(&dir, "backup copy --json"));
    let [linked, copied, present] = figures(&third);
    assert_eq!((linked + copied, present), (1, 4), "{third}");
    assert_eq!(done(run(&dir, "get one -d copy")), b"more");
}

#[test]
fn a_restored_store_has_what_the_backup_had() {
    let dir = tempdir().unwrap();
    fill(&data(&dir), 100);
    stdout(&run(&dir, "backup copy"), 0);
    silently_done(run(&dir, "put key1 mistake"));

    let message = failed(&run(&dir, "restore copy"), 2);
    assert!(
        message.contains("there is a store in data already"),
        "{message}"
    );
    assert!(message.contains("--data-dir"), "{message}");
    let would = text(run(&dir, "restore copy -d again --dry-run"));
    assert!(
        would.starts_with("copy is sound; would restore 4 segments with 100 records, "),
        "{would}"
    );
    assert!(!dir.path().join("again").exists());
    let report = text(run(&dir, "restore copy -d again"));
    assert!(report.starts_with("restored 4 segments, "), "{report}");
    assert_eq!(done(run(&dir, "get key1 -d again")), [7; 100]);
    let report = json(run(&dir, "restore copy -d third --json"));
    assert_eq!(
        (&report["segments"], &report["last_seq"]),
        (&4.into(), &100.into())
    );

    let message = failed(&run(&dir, "restore nowhere -d fourth"), 5);
    assert!(
        message.contains("cannot find a backup in nowhere"),
        "{message}"
    );
}

#[test]
fn a_damaged_backup_is_not_restored_and_says_where_it_is_damaged() {
    let dir = tempdir().unwrap();
    fill(&data(&dir), 100);
    stdout(&run(&dir, "backup copy"), 0);
    let segment = dir.path().join("copy/000000000001.seg");
    damage(&segment, &[7; 100]);
    let report = stdout(&run(&dir, "restore copy -d again -n"), 4);
    assert!(
        slashed(&report).starts_with("copy/000000000001.seg at offset "),
        "{report}"
    );
    assert!(report.contains("crabkv repair -d copy again"), "{report}");
    let report = json_of(&run(&dir, "restore copy -d again -n --json"), 4);
    assert_eq!(report["damage"][0]["kind"], "record");
    let message = failed(&run(&dir, "restore copy -d again"), 4);
    assert!(message.contains("000000000001.seg at offset"), "{message}");
    failed(&run(&dir, "get key1 -d again"), 5);
}

#[test]
fn reports_on_a_store_that_is_not_there_say_so() {
    let dir = tempdir().unwrap();
    for line in [
        "verify",
        "repair out",
        "compact",
        "compact -n",
        "backup copy",
    ] {
        let message = failed(&run(&dir, line), 5);
        assert!(message.contains("no store in data;"), "{line}: {message}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[cfg(target_os = "linux")] // it has /dev/full
#[test]
fn a_report_that_cannot_be_written_is_a_failure() {
    let dir = tempdir().unwrap();
    silently_done(run(&dir, "put a 1"));
    for line in [
        "verify",
        "compact -n --json",
        "backup copy",
        "man",
        "completions bash",
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = program(&dir);
        let output = command.args(line.split_whitespace()).stdout(full).output();
        let message = failed(&output.unwrap(), 5);
        assert!(message.contains("standard output"), "{message}");
    }
}

/// A limit on the size of files stands for a disk without room: it needs no rights.
#[cfg(unix)] // it has a limit on the size of files
#[test]
fn without_room_nothing_is_half_done_and_it_can_be_done_again() {
    let dir = tempdir().unwrap();
    let store = Store::builder(data(&dir))
        .segment_size(1 << 20)
        .build_store()
        .unwrap();
    for i in 0..30 {
        store.put(format!("key{i}"), vec![i; 50_000]).unwrap();
    }
    store.close().unwrap();
    drop(store);
    stdout(&run(&dir, "backup copy"), 0);
    let limited = |line: &str| {
        let mut command = std::process::Command::new("sh");
        // Blocks of 512 or 1024 bytes.
        let script = "ulimit -f 200; trap '' XFSZ; exec \"$0\" \"$@\"";
        command.args(["-c", script, env!("CARGO_BIN_EXE_crabkv")]);
        command
            .args(line.split_whitespace())
            .current_dir(dir.path());
        command.output().unwrap()
    };
    for line in ["repair saved", "restore copy -d again"] {
        let message = failed(&limited(line), 5);
        assert!(message.contains("the limit on file size"), "{message}");
        stdout(&run(&dir, line), 0);
    }
    for copy in ["saved", "again"] {
        let value = done(run(&dir, &format!("get key29 -d {copy}")));
        assert!(value == vec![29; 50_000], "{copy}");
    }
}

/// A store that takes a while to read, with something to give in each segment: 72 MB, a third of
/// them stale.
#[cfg(unix)]
fn fill_much(dir: &Path) {
    let builder = Store::builder(dir)
        .segment_size(4 << 20)
        .auto_compaction(false);
    let store = builder
        .sync_interval(Duration::from_secs(60))
        .build_store()
        .unwrap();
    for step in [1, 2] {
        for i in (0..480u32).step_by(step) {
            store.put(i.to_le_bytes(), vec![i as u8; 100_000]).unwrap();
        }
    }
    store.close().unwrap();
}

#[cfg(unix)]
fn start(dir: &TempDir, line: &str) -> Child {
    let mut command = program(dir);
    command.args(line.split_whitespace());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Presses Ctrl-C once the work is under way.
#[cfg(unix)]
fn interrupt(child: Child, is_under_way: impl Fn() -> bool) -> Output {
    let begun = Instant::now();
    while !is_under_way() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it does not begin"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut kill = std::process::Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    assert!(kill.status().unwrap().success());
    child.wait_with_output().unwrap()
}

/// Whether there are segments, other than those in `known`.
#[cfg(unix)]
fn has_new_segments(dir: &Path, known: &[PathBuf]) -> bool {
    let Ok(entries) = fs::read_dir(dir) else {
        return false;
    };
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.any(|path| path.extension().is_some_and(|e| e == "seg") && !known.contains(&path))
}

#[cfg(unix)] // it has signals
#[test]
fn ctrl_c_ends_long_work_with_130_and_leaves_everything_good() {
    let dir = tempdir().unwrap();
    fill_much(&data(&dir));
    stdout(&run(&dir, "backup copy"), 0);

    let out = dir.path().join("saved");
    let output = interrupt(start(&dir, "repair saved"), || has_new_segments(&out, &[]));
    assert_eq!(
        failed(&output, 130),
        "crabkv: interrupted: nothing was saved; saved can be used again\n"
    );
    let report = stdout(&run(&dir, "repair saved"), 0);
    assert!(report.starts_with("saved 480 keys "), "{report}");

    let out = dir.path().join("again");
    let output = interrupt(start(&dir, "restore copy -d again"), || {
        has_new_segments(&out, &[])
    });
    assert_eq!(
        failed(&output, 130),
        "crabkv: interrupted: again is no store yet; restore again\n"
    );
    failed(&run(&dir, "verify -d again"), 5);
    stdout(&run(&dir, "restore copy -d again"), 0);
    assert!(text(run(&dir, "verify -d again")).starts_with("sound: "));

    let known: Vec<_> = files(&data(&dir))
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    let output = interrupt(start(&dir, "compact"), || {
        has_new_segments(&data(&dir), &known)
    });
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert_eq!(
        stderr(&output),
        "crabkv: interrupted: what was merged stays merged\n"
    );
    assert!(text(run(&dir, "verify")).starts_with("sound: "));
    let store = Store::open(data(&dir)).unwrap();
    for i in 0..480u32 {
        let value = store.get(i.to_le_bytes()).unwrap().unwrap();
        assert!(*value == *vec![i as u8; 100_000], "{i}");
    }
}

/// Where hard links are possible there is next to nothing to interrupt.
#[cfg(target_os = "linux")] // it has /dev/shm and signals
#[test]
fn ctrl_c_ends_a_backup_that_goes_on_from_there() {
    use std::os::unix::fs::MetadataExt;

    let dir = tempdir().unwrap();
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let elsewhere = Path::new("/dev/shm");
    if device(elsewhere).is_none_or(|shm| Some(shm) == device(dir.path())) {
        eprintln!("not tested: /dev/shm is no file system of its own");
        return;
    }
    fill_much(&data(&dir));
    let elsewhere = tempfile::tempdir_in(elsewhere).unwrap();
    let copy = elsewhere.path().join("copy");
    let line = format!("backup {}", copy.display());
    let output = interrupt(start(&dir, &line), || has_new_segments(&copy, &[]));
    let message = failed(&output, 130);
    assert!(message.contains("is what it was before"), "{message}");
    failed(&run(&dir, &format!("get a -d {}", copy.display())), 5);
    let report = json(run(&dir, &format!("{line} --json")));
    assert!(report["segments_present"].as_u64().unwrap() > 0, "{report}");
    assert!(text(run(&dir, &format!("verify -d {}", copy.display()))).starts_with("sound: "));
}

/// The verbs that help lists.
fn verbs(dir: &TempDir) -> Vec<String> {
    let help = text(run(dir, "--help"));
    let listed = help.lines().take_while(|line| *line != "Options:");
    let verbs: Vec<_> = listed
        .filter(|line| line.starts_with("  "))
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect();
    assert!(
        verbs.len() > 10 && verbs.contains(&"get".to_owned()),
        "{help}"
    );
    verbs
}

#[test]
fn every_command_has_a_man_page_and_is_completed() {
    let dir = tempdir().unwrap();
    let output = run(&dir, "man --out pages/man1");
    assert_eq!(stdout(&output, 0), "");
    let page = |name: &str| {
        let path = dir.path().join("pages/man1").join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let main = page("crabkv.1");
    assert!(main.contains("EXIT STATUS") && main.contains("CRABKV_DATA_DIR"));
    assert_eq!(text(run(&dir, "man")), main);
    let verbs = verbs(&dir);
    for verb in &verbs {
        if verb != "help" {
            assert!(
                page(&format!("crabkv-{verb}.1")).contains("OPTIONS"),
                "{verb}"
            );
        }
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = text(run(&dir, &format!("completions {shell}")));
        for verb in &verbs {
            assert!(script.contains(verb.as_str()), "{shell}: {verb}");
        }
        assert!(script.contains("data-dir"), "{shell}");
    }
    misused(&run(&dir, "completions tcsh"));
}

#[cfg(unix)] // it has bash
#[test]
fn bash_accepts_its_completions() {
    let dir = tempdir().unwrap();
    let script = done(run(&dir, "completions bash"));
    fs::write(dir.path().join("crabkv.bash"), script).unwrap();
    // The script is read, and asked what `crabkv ver` could become.
    let ask = "source crabkv.bash; COMP_WORDS=(crabkv ver); COMP_CWORD=1; \
               _crabkv crabkv ver crabkv; echo \"${COMPREPLY[@]}\"";
    let mut bash = std::process::Command::new("bash");
    let Ok(output) = bash
        .args(["--norc", "-c", ask])
        .current_dir(dir.path())
        .output()
    else {
        eprintln!("not tested: there is no bash");
        return;
    };
    assert_eq!(text(output), "verify\n");
}
