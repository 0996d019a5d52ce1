//! `bench`: what it prints, that it checks and refuses, and that nothing is left of it.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use crate::program::{failed, json, misused, run, slashed, text};

/// A run of a moment.
const TINY: &str = "bench --keys 500 --ops 300";

fn rows<'a>(report: &'a Value, phase: &str) -> Vec<&'a Value> {
    let rows = report["phases"].as_array().unwrap();
    rows.iter().filter(|row| row["phase"] == phase).collect()
}

fn is_empty(dir: &tempfile::TempDir) -> bool {
    fs::read_dir(dir.path()).unwrap().next().is_none()
}

#[test]
fn the_table_has_a_row_for_each_kind_of_operation() {
    let dir = tempdir().unwrap();
    let table = text(run(&dir, TINY));
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines[0], "keys        500 of 16 bytes, values of 100 bytes");
    assert_eq!(
        lines[1],
        "workload    uniform, 1 thread, 95 % of mixed are reads"
    );
    assert_eq!(lines[2], "durability  every-write");
    assert!(lines[3].starts_with("directory   crabkv-bench-"));
    assert_eq!(
        lines[5],
        "phase       operations    time  per second   MiB/s    p50    p99  p99.9    max"
    );
    let names: Vec<_> = lines[6..15].iter().map(|line| line[..9].trim()).collect();
    let expected = [
        "fill",
        "put",
        "get",
        "get-miss",
        "get-many",
        "mixed get",
        "mixed put",
        "scan",
        "reopen",
    ];
    assert_eq!(names, expected);
    let operations = |line: &str| line[9..22].trim().to_owned();
    assert_eq!(operations(lines[6]), "500");
    assert_eq!(operations(lines[7]), "300");
    let notes: Vec<_> = lines[16..].iter().map(|line| line[..12].trim()).collect();
    let expected = ["fill", "get-many", "scan", "reopen", "clock", "store"];
    assert_eq!(notes, expected);
    assert_eq!(lines[16], "fill        latency is of a batch of 500");
    for line in &lines {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(is_empty(&dir), "the scratch directory is gone");
}

#[test]
fn json_has_the_options_and_raw_integers() {
    let dir = tempdir().unwrap();
    let report = json(run(&dir, &format!("{TINY} --json --threads 2 --seed 7")));
    assert_eq!(report["keys"], 500);
    assert_eq!(report["key_bytes"], 16);
    assert_eq!(report["value_bytes"], 100);
    assert_eq!(report["threads"], 2);
    assert_eq!(report["distribution"], "uniform");
    assert_eq!(report["durability"], "every-write");
    assert_eq!(report["operations"], 300);
    assert_eq!(report["duration_ms"], Value::Null);
    assert_eq!(report["seed"], 7);
    for (phase, operations, timed) in [
        ("fill", 500, 2),
        ("put", 300, 300),
        // Every 16th of 150 for each thread.
        ("get", 300, 18),
        ("get-miss", 300, 18),
        ("get-many", 320, 10),
        ("scan", 1000, 2),
        ("reopen", 1500, 3),
    ] {
        let rows = rows(&report, phase);
        assert_eq!(rows.len(), 1, "{phase}");
        assert_eq!(rows[0]["operations"], operations, "{phase}");
        assert_eq!(rows[0]["timed_count"], timed, "{phase}");
        let latency = |name: &str| rows[0]["latency_ns"][name].as_u64().unwrap();
        assert!(latency("min") <= latency("p50"), "{phase}");
        assert!(latency("p50") <= latency("p99"), "{phase}");
        assert!(latency("p99") <= latency("p99_9"), "{phase}");
        assert!(latency("p99_9") <= latency("max"), "{phase}");
        assert!(rows[0]["operations_per_s"].as_u64().unwrap() > 0, "{phase}");
    }
    let mixed = rows(&report, "mixed");
    assert_eq!(
        (&mixed[0]["timed"], &mixed[1]["timed"]),
        (&"get".into(), &"put".into())
    );
    let operations = |row: &Value| row["operations"].as_u64().unwrap();
    assert_eq!(operations(mixed[0]) + operations(mixed[1]), 300);
    assert!(report["data_bytes"].as_u64().unwrap() > 500 * 116);
    assert!(is_empty(&dir));
}

#[test]
fn every_distribution_and_durability_works() {
    let dir = tempdir().unwrap();
    for (option, value) in [
        ("distribution", "uniform"),
        ("distribution", "zipfian"),
        ("distribution", "sequential"),
        ("durability", "every-write"),
        ("durability", "100ms"),
        ("durability", "write-back"),
    ] {
        let report = json(run(&dir, &format!("{TINY} --json --{option} {value}")));
        assert_eq!(report[option], value);
        assert_eq!(rows(&report, "put")[0]["operations"], 300);
    }
}

#[test]
fn sizes_and_phases_are_as_they_were_asked_for() {
    let dir = tempdir().unwrap();
    let options = "--key-size 4 --value-size 4KiB --batch 1 --compression --async-compaction \
                   --phases get,put,get --reads-percent 50 --json";
    let report = json(run(&dir, &format!("{TINY} {options}")));
    assert_eq!(report["key_bytes"], 4);
    assert_eq!(report["value_bytes"], 4096);
    let phases = report["phases"].as_array().unwrap();
    let names: Vec<_> = phases.iter().map(|row| &row["phase"]).collect();
    assert_eq!(names, ["fill", "get", "put", "get"]);
    assert_eq!(phases[0]["bytes"], 500 * 4100);
    assert_eq!(phases[0]["timed_count"], 500);
    // What it takes is about half of it.
    let data = report["data_bytes"].as_u64().unwrap();
    assert!((500 * 1800..800 * 2700).contains(&data), "{data}");
}

#[test]
fn phases_can_go_by_time() {
    let dir = tempdir().unwrap();
    let line = "bench --keys 500 --duration 1ms --phases get,scan,reopen --json";
    let report = json(run(&dir, line));
    assert_eq!(report["duration_ms"], 1);
    assert_eq!(report["operations"], Value::Null);
    for phase in ["get", "scan", "reopen"] {
        let operations = rows(&report, phase)[0]["operations"].as_u64();
        assert!(operations.unwrap() > 0, "{phase}");
    }
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_left_alone() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("precious"), "x").unwrap();
    let message = failed(&run(&dir, &format!("{TINY} --dir .")), 2);
    assert!(message.contains("is not empty"), "{message}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let message = failed(&run(&dir, &format!("{TINY} --dir precious")), 5);
    assert!(message.contains("precious"), "{message}");
}

#[test]
fn the_directory_is_kept_when_that_is_asked_for() {
    let dir = tempdir().unwrap();
    let output = run(&dir, &format!("{TINY} --dir kept --keep --quiet"));
    assert_eq!(output.status.code(), Some(0));
    let store = crabkv::Store::open(dir.path().join("kept")).unwrap();
    assert_eq!(store.len(), 500);
}

#[test]
fn an_empty_directory_is_empty_again() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("scratch")).unwrap();
    text(run(&dir, &format!("{TINY} --dir scratch")));
    let left = fs::read_dir(dir.path().join("scratch")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn the_scratch_directory_is_beside_the_data_directory() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("disk")).unwrap();
    let report = json(run(&dir, &format!("-d disk/data {TINY} --json")));
    let scratch = slashed(report["directory"].as_str().unwrap());
    assert!(scratch.starts_with("disk/crabkv-bench-"), "{scratch}");
    assert_eq!(fs::read_dir(dir.path().join("disk")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    let dir = tempdir().unwrap();
    for options in [
        "--key-size 0",
        "--key-size 65536",
        "--key-size 2 --keys 129",
        "--value-size 513MiB",
        "--batch 10M --keys 10M",
    ] {
        let message = failed(&run(&dir, &format!("bench {options}")), 2);
        assert!(!message.is_empty());
    }
    for options in [
        "--keys 0",
        "--threads 0",
        "--reads-percent 101",
        "--duration 0s",
        "--duration 1s --ops 5",
        "--durability none",
        "--distribution normal",
        "--phases fill,dance",
    ] {
        misused(&run(&dir, &format!("bench {options}")));
    }
    assert!(is_empty(&dir));
}

#[test]
fn more_than_the_disk_has_room_for_is_refused_at_once() {
    let dir = tempdir().unwrap();
    let message = failed(&run(&dir, "bench --keys 1000G --value-size 1MiB"), 5);
    assert!(message.contains("are free and up to"), "{message}");
    assert!(is_empty(&dir));
}

#[cfg(unix)] // it has signals
#[test]
fn an_interrupted_run_leaves_nothing_behind_and_exits_with_130() {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use crate::program::{program, stderr};

    let dir = tempdir().unwrap();
    let mut command = program(&dir);
    command.args(["bench", "--keys", "500", "--duration", "1h", "--dir", "x"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    while !dir.path().join("x").join("MANIFEST").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let message = stderr(&output);
    assert!(
        message.starts_with("crabkv: interrupted: in ")
            && message.ends_with("; what was filled is removed\n"),
        "{message}"
    );
    assert!(is_empty(&dir));
}
