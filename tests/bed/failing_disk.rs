//! Real disks that fail: what was written cannot be kept, or what is there cannot be read.
//!
//! A file system in a file whose own disk runs full fails to write what it had accepted, and says
//! so when it is asked to sync. One whose file is cut short fails to read.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Rng, seed};
use crate::layer::{Layer, skip};
use crate::mount::{self, Image, Kind, Mount, SmallDisk};
use crate::scripted::{Ledger, Script, Writer};
use crabkv::{DamageKind, Error, ReadMode, Store};

/// With blocks and sectors of a page: see [`Mount::write_by_pages`].
const KINDS: [Kind; 2] = [
    Kind {
        mkfs: &["mkfs.xfs", "-q", "-f", "-s", "size=4096"],
        ..mount::XFS
    },
    Kind {
        mkfs: &["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096"],
        ..mount::EXT4
    },
];

#[test]
fn a_sync_that_really_fails_stops_writes_and_loses_nothing_acknowledged() {
    let name = "real failed syncs";
    let mut rng = Rng(seed(35));
    let disk = match SmallDisk::mount("size=400m") {
        Ok(disk) => disk,
        Err(why) => return skip(name, &why),
    };
    let layer = Layer::begin(name, "failing disks", 10);
    let (mut writes, mut poisoned) = (0, 0);
    let mut kinds = KINDS.to_vec();
    // It is the sync of a record that fails, often enough.
    while !(kinds.is_empty() || layer.is_done() && poisoned > 0) {
        kinds.retain(|kind| match fail_while_writing(&disk, *kind, &mut rng) {
            Ok(failure) => {
                writes += failure.writes;
                poisoned += u64::from(failure.is_poisoned);
                layer.add(1);
                true
            }
            Err(why) => {
                skip(&format!("{name} of {}", kind.name), &why);
                false
            }
        });
    }
    if kinds.is_empty() {
        return;
    }
    let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
    layer.end(&format!(
        "{writes} writes before them, {poisoned} stores refused all writes after, on {}",
        names.join(", ")
    ));
}

/// What came of a disk that failed.
struct Failed {
    writes: u64,
    is_poisoned: bool,
}

/// Lets a child write until its disk fails, and checks what it and the next one to open the store
/// find.
fn fail_while_writing(disk: &SmallDisk, kind: Kind, rng: &mut Rng) -> Result<Failed, String> {
    let image = Image::make(&disk.path("image"), kind, kind.smallest_mib)?;
    let at = disk.path("mounted");
    fs::create_dir_all(&at).unwrap();
    let mut mounted = Mount::image(&image, &at)?;
    mounted.write_by_pages()?;
    let script = Script {
        compacts: false,
        ..Script::random(&at, rng)
    };
    let context = || format!("{}: {script:?}", kind.name);
    let mut writer = Writer::start(&script);
    assert!(writer.hear(rng.below(100)), "{}", context());
    let filler = fill(disk.dir(), rng.below(1 << 18));
    assert!(writer.hear(u64::MAX), "the child ended: {}", context());
    let said = writer.kill();
    let failed = said.failed.clone().unwrap_or_default();
    // What it saw after the failure. Only one that left nothing behind lets writes go on: of a
    // new segment's file, of a merge, of a checkpoint.
    let is_poisoned = failed.contains("then refused");
    let is_of_a_write = failed.starts_with("write") && !failed.contains("DiskFull");
    assert!(is_poisoned || !is_of_a_write, "{failed}\n{}", context());
    let is_read = failed.contains("read well") || failed.starts_with("open");
    assert!(is_read, "{failed}\n{}", context());
    // Room again before the file system goes, which has its own to write then.
    fs::remove_file(filler).unwrap();
    mounted.unmount();

    let mounted = Mount::image(&image, &at).unwrap();
    let mut ledger = Ledger::default();
    ledger.check(&script, &said, &|| format!("{}: {failed}", context()));
    mounted.unmount();
    fs::remove_file(&image.path).unwrap();
    Ok(Failed {
        writes: said.wrote.iter().sum(),
        is_poisoned,
    })
}

/// Takes all room of a file system but so many bytes.
fn fill(at: &Path, left: u64) -> PathBuf {
    let path = at.join("filler");
    let mut file = File::create(&path).unwrap();
    let piece = vec![1; 1 << 16];
    while file.write_all(&piece).is_ok() {}
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_sub(left)).unwrap();
    path
}

const READER: &str = "CRABKV_CHILD_READS";
const KEYS: u64 = 400;
const SEGMENT_SIZE: u64 = 64 << 10;

fn value_of(key: u64) -> Vec<u8> {
    let mut rng = Rng(key);
    (0..5000).map(|_| rng.next() as u8).collect()
}

fn open_reader(dir: &Path, read_mode: ReadMode) -> Store {
    let builder = Store::builder(dir).read_only(true).read_mode(read_mode);
    builder.build_store().unwrap()
}

/// Not a test of its own: opens a store, waits to be told that the disk is damaged, and reads.
#[test]
fn child_that_reads_from_a_failing_disk() {
    let Ok(word) = std::env::var(READER) else {
        return;
    };
    let (mode, dir) = word.split_once(',').unwrap();
    let is_pread = mode == "pread";
    let mode = if is_pread {
        ReadMode::Pread
    } else {
        ReadMode::Mmap
    };
    let store = open_reader(Path::new(dir), mode);
    let say = |what: &str| {
        let line = format!("\nread {what}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    };
    say("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let (mut right, mut failed) = (0, 0);
    for key in 0..KEYS {
        match store.get(key.to_string()) {
            Ok(Some(value)) => {
                assert_eq!(&*value, value_of(key), "a wrong value");
                right += 1;
            }
            Ok(None) => panic!("{key} is not there"),
            // The block in which the disk ends is read as if it held zeros.
            Err(Error::Io { op: "read", .. } | Error::Corrupt { .. }) => failed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let mut unreadable = 0;
    if is_pread {
        for damage in crabkv::verify(dir).unwrap().damage {
            unreadable += u64::from(damage.kind == DamageKind::Unreadable);
        }
    }
    say(&format!("{right} {failed} {unreadable} ."));
}

/// What a reader made of a disk that cannot be read in part.
#[derive(Debug)]
enum Reading {
    /// So many keys had their values, so many an error; so many places were found unreadable.
    Told(u64, u64, u64),
    Killed,
}

/// Opens a store in a child, cuts the image short, and lets the child read.
fn read_from(image: &Image, at: &Path, mode: &str, len: u64) -> Reading {
    let mounted = Mount::image(image, at).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "failing_disk::child_that_reads_from_a_failing_disk",
        ])
        .arg("--nocapture")
        .env(READER, format!("{mode},{}", at.join("data").display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pipe = BufReader::new(child.stdout.take().unwrap());
    let mut told = None;
    for line in pipe.lines().map_while(Result::ok) {
        let Some(said) = line.strip_prefix("read ") else {
            continue;
        };
        if said == "ready" {
            let image = File::options().write(true).open(&image.path).unwrap();
            image.set_len(len).unwrap();
            writeln!(child.stdin.as_mut().unwrap()).unwrap();
        } else {
            let mut numbers = said.split(' ').map_while(|number| number.parse().ok());
            let mut number = || numbers.next().unwrap();
            told = Some(Reading::Told(number(), number(), number()));
        }
    }
    let status = child.wait().unwrap();
    mounted.unmount();
    let killed = || {
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{mode}: {status}");
        Reading::Killed
    };
    assert_eq!(told.is_some(), status.success(), "{status}");
    told.unwrap_or_else(killed)
}

#[test]
fn what_really_cannot_be_read_is_an_error_or_a_signal_and_nothing_is_lost() {
    let name = "real failed reads";
    let made = SmallDisk::mount("size=64m").and_then(|disk| {
        let image = Image::make(&disk.path("image"), mount::EXT4, mount::EXT4.smallest_mib)?;
        let at = disk.path("mounted");
        fs::create_dir(&at).unwrap();
        let mounted = Mount::image(&image, &at)?;
        Ok((disk, image, at, mounted))
    });
    let (disk, image, at, mounted) = match made {
        Ok(made) => made,
        Err(why) => return skip(name, &why),
    };
    let layer = Layer::begin(name, "damaged disks", 24);
    let builder = Store::builder(at.join("data")).segment_size(SEGMENT_SIZE);
    let store = builder.build_store().unwrap();
    for key in 0..KEYS {
        store.put(key.to_string(), value_of(key)).unwrap();
    }
    store.close().unwrap();
    drop(store);
    mounted.unmount();
    let whole = disk.path("whole");
    fs::copy(&image.path, &whole).unwrap();
    let len = fs::metadata(&whole).unwrap().len();

    let (mut right, mut failed, mut unreadable, mut killed) = (0, 0, 0, 0);
    let parts = layer.goal().div_ceil(2);
    for part in 0..parts {
        for mode in ["pread", "mmap"] {
            match read_from(&image, &at, mode, len * part / parts) {
                Reading::Told(its_right, its_failed, its_unreadable) => {
                    right += its_right;
                    failed += its_failed;
                    unreadable += its_unreadable;
                    assert!(mode == "pread" || its_failed == 0, "a map gave an error");
                }
                Reading::Killed => {
                    assert_eq!(mode, "mmap", "killed, though nothing is mapped");
                    killed += 1;
                }
            }
            fs::copy(&whole, &image.path).unwrap();
            layer.add(1);
        }
    }
    // The disk is well again.
    let mounted = Mount::image(&image, &at).unwrap();
    let store = Store::open(at.join("data")).unwrap();
    for key in 0..KEYS {
        assert_eq!(
            store.get(key.to_string()).unwrap().unwrap(),
            &*value_of(key)
        );
    }
    drop(store);
    assert!(crabkv::verify(at.join("data")).unwrap().is_sound());
    mounted.unmount();
    assert!(right > 0 && failed > 0 && unreadable > 0 && killed > 0);
    layer.end(&format!(
        "{right} reads were right, {failed} were errors, {killed} readers of maps were ended by \
         SIGBUS"
    ));
}
