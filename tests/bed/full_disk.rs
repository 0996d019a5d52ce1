//! Real full disks: a small file system, and room on it for everything, for nothing, and for
//! every number of pages between.
//!
//! On the simulated disk every byte is a level, see `faults.rs`; here it is the system that says
//! when there is no room, and for what: for data, for a file's name, for the file system's own.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Op, Rng, State, contents, delete, put, put_ttl, seed, show, visible};
use crate::layer::{Layer, skip};
use crate::mount::{self, Image, Mount, SmallDisk};
use crabkv::disk::{Disk, OsDisk};
use crabkv::{Error, Result, Store};

const NAME: &str = "real full disks";

const PAGE: u64 = 4096;

/// What a value expires after when a test wants it to, and how long to wait for that.
const SHORT_TTL_MS: u64 = 1;
const LONG_TTL_MS: u64 = 3_600_000;
const EXPIRED: Duration = Duration::from_millis(3);

/// An operation on a store, or a checkpoint of it.
#[derive(Clone, Debug)]
enum Step {
    Op(Op),
    Checkpoint,
}

/// Workloads that use every kind of file a store has.
fn workloads(rng: &mut Rng) -> Vec<Vec<Step>> {
    let value = |number: usize| format!("{number}-").repeat(300);
    let overwrite = (0..40)
        .map(|number| Step::Op(Op::Write(put(&format!("k{}", number % 7), value(number)))))
        .collect();
    let mut each = vec![
        Op::Write(put("a", value(1))),
        Op::Write(put("b", value(2).repeat(8))),
        Op::Batch(vec![put("a", value(3)), delete("b"), put("c", value(4))]),
        Op::Write(put_ttl("d", value(5).repeat(4), SHORT_TTL_MS)),
        Op::Write(put_ttl("e", value(6), LONG_TTL_MS)),
        Op::Close,
        Op::Write(put("b", value(7).repeat(6))),
        Op::Compact,
        Op::Write(delete("a")),
        Op::Reopen,
        Op::Write(put("f", value(8).repeat(9))),
        Op::Sync,
    ];
    each.extend((0..9).map(|key| Op::Write(delete(&format!("{}", char::from(b'a' + key))))));
    each.push(Op::Compact);
    let mut each: Vec<_> = each.into_iter().map(Step::Op).collect();
    each.insert(6, Step::Checkpoint);
    each.push(Step::Checkpoint);
    let random = (0..60).map(|number| random_step(rng, number)).collect();
    vec![overwrite, each, random]
}

fn random_step(rng: &mut Rng, number: u64) -> Step {
    let write = |rng: &mut Rng| {
        let key = format!("k{}", rng.below(8));
        let value = format!("{number}.{}-", rng.below(9)).repeat(1 + rng.below(1500) as usize);
        match rng.below(10) {
            0..7 => put(&key, value),
            7 => put_ttl(&key, value, LONG_TTL_MS),
            8 => put_ttl(&key, value, SHORT_TTL_MS),
            _ => delete(&key),
        }
    };
    Step::Op(match rng.below(20) {
        0..11 => Op::Write(write(rng)),
        11..14 => Op::Batch((0..4).map(|_| write(rng)).collect()),
        14 => Op::Sync,
        15 => Op::Close,
        16..18 => Op::Compact,
        18 => Op::Reopen,
        _ => return Step::Checkpoint,
    })
}

/// A store on a disk that may be full, and what it holds.
struct Run<'a> {
    /// The store's directory, and the checkpoint's beside it.
    at: PathBuf,
    segment_size: u64,
    store: Option<Store>,
    known: State,
    /// How many steps found the disk full.
    failed: u64,
    context: &'a dyn Fn() -> String,
}

impl<'a> Run<'a> {
    fn new(at: &Path, segment_size: u64, context: &'a dyn Fn() -> String) -> Run<'a> {
        let mut run = Run {
            at: at.to_path_buf(),
            segment_size,
            store: None,
            known: State::new(),
            failed: 0,
            context,
        };
        run.reopen();
        run
    }

    fn data(&self) -> PathBuf {
        self.at.join("data")
    }

    fn checkpoint(&self) -> PathBuf {
        self.at.join("checkpoint")
    }

    fn reopen(&mut self) {
        self.store = None;
        let builder = Store::builder(self.data()).segment_size(self.segment_size);
        let opened = builder.build_store();
        match self.met_a_full_disk(opened) {
            Some(store) => self.store = Some(store),
            // Reading needs no room.
            None if !self.known.is_empty() => {
                let reader = Store::builder(self.data()).read_only(true);
                let reader = reader.build_store();
                self.compare(&reader.unwrap_or_else(|error| panic!("{error}\n{}", self.shown())));
            }
            None => {}
        }
    }

    /// What came of something; `None` if the disk was full. Nothing else may go wrong.
    fn met_a_full_disk<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(Error::DiskFull { .. }) => {
                self.failed += 1;
                None
            }
            Err(error) => panic!("{error}\n{}", self.shown()),
        }
    }

    fn shown(&self) -> String {
        (self.context)()
    }

    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        let failed = self.failed;
        match (step, self.store.take()) {
            (Step::Op(Op::Reopen), store) => {
                drop(store);
                self.reopen();
            }
            (_, None) => {}
            (Step::Checkpoint, Some(store)) => {
                let made = store.checkpoint(self.checkpoint());
                self.store = Some(store);
                if self.met_a_full_disk(made).is_some() {
                    let reader = Store::builder(self.checkpoint()).read_only(true);
                    self.compare(&reader.build_store().unwrap());
                }
            }
            (Step::Op(op), Some(store)) => {
                let mut next = self.known.clone();
                op.apply_to(&mut next, OsDisk.now_ms());
                let done = op.apply(&store);
                if op.writes().iter().any(|w| w.ttl_ms == Some(SHORT_TTL_MS)) {
                    std::thread::sleep(EXPIRED);
                }
                self.store = Some(store);
                if self.met_a_full_disk(done).is_some() {
                    self.known = next;
                }
            }
        }
        if let Some(store) = &self.store {
            self.compare(store);
        }
        if self.failed > failed && self.data().join("MANIFEST").exists() {
            // What the manifest names is there.
            let report = crabkv::verify(self.data()).unwrap();
            assert!(report.heals(), "{:?}\n{}", report.damage, self.shown());
        }
    }

    /// Exactly what was acknowledged is there: what was refused has not happened in part.
    fn compare(&self, store: &Store) {
        let seen = contents(store, self.known.keys());
        let seen = seen.unwrap_or_else(|error| panic!("{error}\n{}", self.shown()));
        let expected = visible(&self.known, OsDisk.now_ms());
        // The clock may go on between a write and its copy in memory.
        let values = |state: &State| {
            let values = state.iter();
            let values =
                values.map(|(key, (value, at))| (key.clone(), (value.clone(), at.is_some())));
            values.collect::<Vec<_>>()
        };
        assert!(
            values(&seen) == values(&expected),
            "{}\nis not\n{}\n{}",
            show(&seen),
            show(&expected),
            self.shown()
        );
    }

    /// There is room again: everything works, and nothing was lost.
    fn finish(&mut self) {
        let failed = self.failed;
        if self.store.is_none() {
            self.reopen();
        }
        for step in [
            Step::Op(Op::Write(put("room", "again"))),
            Step::Op(Op::Compact),
            Step::Checkpoint,
            Step::Op(Op::Reopen),
            Step::Op(Op::Write(delete("k1"))),
            Step::Op(Op::Reopen),
        ] {
            self.step(&step);
        }
        assert_eq!(self.failed, failed, "still full: {}", self.shown());
        self.store = None;
        let report = crabkv::verify(self.data()).unwrap();
        assert!(report.is_sound(), "{:?}\n{}", report.damage, self.shown());
        for dir in [self.data(), self.checkpoint()] {
            fs::remove_dir_all(dir).unwrap();
        }
    }
}

/// Takes all room of a file system but so many bytes, until it is dropped.
struct Filler {
    path: PathBuf,
}

impl Filler {
    fn new(at: &Path, left: u64) -> Filler {
        let path = at.join("filler");
        let mut file = File::create(&path).unwrap();
        let mut piece = vec![1; 1 << 20];
        while piece.len() as u64 >= 512 {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        file.sync_all().unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len.saturating_sub(left)).unwrap();
        file.sync_all().unwrap();
        Filler { path }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The most bytes that a workload takes at any time.
fn most_bytes(disk: &Path, segment_size: u64, steps: &[Step]) -> u64 {
    let available = || OsDisk.available_space(disk).unwrap();
    let context = || "with room for everything".to_owned();
    let (all, mut least) = (available(), available());
    let mut run = Run::new(disk, segment_size, &context);
    for step in steps {
        run.step(step);
        least = least.min(available());
    }
    assert_eq!(run.failed, 0);
    run.finish();
    all - least
}

/// Segments that are small, and large enough for a store to keep a reserve.
const SEGMENT_SIZES: [u64; 2] = [8 << 10, 64 << 10];

#[test]
fn a_disk_that_is_full_at_any_page_loses_nothing() {
    let mut rng = Rng(seed(32));
    let disk = match SmallDisk::mount("size=8m") {
        Ok(disk) => disk,
        Err(why) => return skip(NAME, &why),
    };
    let layer = Layer::begin(NAME, "fill levels", 500);
    let mut failed = 0;
    while !layer.is_done() {
        for segment_size in SEGMENT_SIZES {
            for steps in workloads(&mut rng) {
                let most = most_bytes(disk.dir(), segment_size, &steps);
                // What a merge has for a while is more than what is seen between the steps.
                for pages in 0..most / PAGE + 16 {
                    let context =
                        || format!("{pages} pages, segments of {segment_size}: {steps:?}");
                    let filler = Filler::new(disk.dir(), pages * PAGE);
                    let mut run = Run::new(disk.dir(), segment_size, &context);
                    run.steps(&steps);
                    drop(filler);
                    run.finish();
                    failed += run.failed;
                    layer.add(1);
                }
            }
        }
    }
    layer.end(&format!(
        "{failed} operations found the disk full, on tmpfs"
    ));
}

#[test]
fn a_disk_without_names_for_more_files_loses_nothing() {
    let name = "real disks that hold no more files";
    let mut rng = Rng(seed(33));
    let disk = match SmallDisk::mount("size=16m") {
        Ok(disk) => disk,
        Err(why) => return skip(name, &why),
    };
    let layer = Layer::begin(name, "limits", 40);
    let mut failed = 0;
    while !layer.is_done() {
        for steps in workloads(&mut rng) {
            // Two are the directories'.
            for files in 0..40 {
                let context = || format!("{files} files: {steps:?}");
                disk.mount.remount(&format!("nr_inodes={}", files + 1));
                let mut run = Run::new(disk.dir(), 8 << 10, &context);
                run.steps(&steps);
                disk.mount.remount("nr_inodes=1000");
                run.finish();
                failed += run.failed;
                layer.add(1);
            }
        }
    }
    layer.end(&format!("{failed} operations could make no file, on tmpfs"));
}

#[test]
fn a_full_ext4_loses_nothing() {
    let name = "real full disks of ext4";
    let mut rng = Rng(seed(34));
    let made = SmallDisk::mount("size=64m").and_then(|disk| {
        let image = Image::make(&disk.path("image"), mount::EXT4, mount::EXT4.smallest_mib)?;
        let at = disk.path("mounted");
        fs::create_dir(&at).unwrap();
        let mounted = Mount::image(&image, &at)?;
        Ok((disk, at, mounted))
    });
    let (_disk, at, mounted) = match made {
        Ok(made) => made,
        Err(why) => return skip(name, &why),
    };
    let layer = Layer::begin(name, "fill levels", 30);
    let mut failed = 0;
    while !layer.is_done() {
        for steps in workloads(&mut rng) {
            let segment_size = SEGMENT_SIZES[rng.below(2) as usize];
            let most = most_bytes(&at, segment_size, &steps);
            for _ in 0..10 {
                let left = rng.below(most + most / 4);
                let context = || format!("{left} bytes, segments of {segment_size}: {steps:?}");
                let filler = Filler::new(&at, left);
                let mut run = Run::new(&at, segment_size, &context);
                run.steps(&steps);
                drop(filler);
                run.finish();
                failed += run.failed;
                layer.add(1);
            }
        }
    }
    mounted.unmount();
    layer.end(&format!("{failed} operations found the disk full"));
}

#[test]
fn on_a_full_disk_deletes_and_compaction_make_room_for_writes() {
    let disk = match SmallDisk::mount("size=8m") {
        Ok(disk) => disk,
        Err(why) => return skip(NAME, &why),
    };
    for (segment_size, pages) in [64 << 10, 128 << 10, 1 << 20]
        .into_iter()
        .flat_map(|size| (0..40).map(move |pages| (size, pages)))
    {
        let context = || format!("segments of {segment_size}, {pages} pages");
        let done = |result: Result<bool>| {
            let done = result.unwrap_or_else(|error| panic!("{}: {error}", context()));
            assert!(done, "{}", context());
        };
        let data = disk.path("data");
        let builder = Store::builder(&data).segment_size(segment_size);
        let store = builder.build_store().unwrap();
        let value = "x".repeat(3000);
        let keys = 5 * segment_size / 2 / 3000;
        for key in 0..keys {
            store.put(format!("k{key}"), &value).unwrap();
        }
        let filler = Filler::new(disk.dir(), pages * PAGE);
        let mut more = 0;
        while store.put(format!("more{more}"), &value).is_ok() {
            more += 1;
        }
        assert!(more < keys, "the disk is never full: {}", context());
        for key in 0..keys {
            done(store.delete(format!("k{key}")));
        }
        done(store.compact().map(|_| true));
        for key in 0..keys / 2 {
            done(store.put(format!("again{key}"), &value).map(|()| true));
        }
        assert_eq!(store.len() as u64, more + keys / 2, "{}", context());
        drop(store);
        assert_eq!(Store::open(&data).unwrap().len() as u64, more + keys / 2);
        drop(filler);
        fs::remove_dir_all(data).unwrap();
    }
}
