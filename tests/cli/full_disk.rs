//! A disk that is full: a small one in memory, where the test may mount one.

use std::fs;
use std::io::Write;
use std::path::Path;

use tempfile::{TempDir, tempdir};

use crate::mount::SmallDisk;
use crate::program::*;

fn put(dir: &TempDir, data: &Path, key: &str, value: &Path) -> std::process::Output {
    let value = format!("@{}", value.display());
    let mut command = program(dir);
    command.arg("--data-dir").arg(data);
    command.args(["put", key, &value]).output().unwrap()
}

#[test]
fn a_full_disk_has_its_own_exit_code_and_what_was_put_is_there() {
    let disk = match SmallDisk::mount("size=110m") {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let dir = tempdir().unwrap();
    let data = disk.path("data");
    let value = dir.path().join("value");
    fs::write(&value, vec![b'x'; 12 << 20]).unwrap();
    let mut acknowledged = Vec::new();
    let message = loop {
        let key = format!("key{}", acknowledged.len());
        let output = put(&dir, &data, &key, &value);
        if output.status.code() != Some(0) {
            break failed(&output, 5);
        }
        acknowledged.push(key);
        assert!(acknowledged.len() < 10, "the disk is never full");
    };
    assert!(message.contains("disk full"), "{message}");
    assert!(message.contains("free some space"), "{message}");
    assert!(!acknowledged.is_empty());

    let store = data.display();
    for key in &acknowledged {
        let value = done(run(&dir, &format!("get {key} -d {store}")));
        assert_eq!(value.len(), 12 << 20, "{key}");
    }
    // What does not fit is not left half done, beside the store either.
    let filler = disk.path("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let out = disk.path("dump.jsonl");
    let line = format!("export -d {store} --out {}", out.display());
    let message = failed(&run(&dir, &line), 5);
    assert!(message.contains("dump.jsonl"), "{message}");
    assert!(!out.exists());
    assert_eq!(fs::read_dir(disk.dir()).unwrap().count(), 2);
    // Deleting works, and makes room.
    for key in &acknowledged[1..] {
        silently_done(run(&dir, &format!("delete {key} -d {store}")));
    }
    drop(file);
    fs::remove_file(filler).unwrap();
    text(run(&dir, &format!("compact -d {store}")));
    silently_done(put(&dir, &data, "again", &value));
    assert!(text(run(&dir, &format!("verify -d {store}"))).starts_with("sound"));
}
