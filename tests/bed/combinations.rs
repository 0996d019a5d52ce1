//! Followers, checkpoints, the change feed, verify and repair, one on top of the other: each keeps
//! its promise on what another one has made, finished or not.
//!
//! The randomized test prints its seed; `CRABKV_EFFORT` multiplies its rounds, `CRABKV_SEED` runs it
//! again.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use crate::common::{
    Op, Rng, SimStore, State, contents, delete, effort, entry_of, go_on, in_two_threads, put,
    put_ttl, seed, show, sim_builder, visible,
};
use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::{
    Change, CrabKvBuilder, Error, RepairOptions, SeqNo, Store, Verify, Watch, repair_on,
    restore_on, verify_on,
};

const BACKUP: &str = "/backup";

fn open_at(disk: &SimDisk, dir: &str) -> crabkv::Result<SimStore> {
    Store::builder(dir)
        .segment_size(512)
        .create_if_missing(false)
        .build_store_on(disk.clone())
}

fn follow_at(disk: &SimDisk, dir: &str) -> crabkv::Result<SimStore> {
    Store::builder(dir)
        .read_only(true)
        .build_store_on(disk.clone())
}

fn all<D: Disk>(store: &Store<D>) -> State {
    contents(store, []).unwrap()
}

fn fill(store: &SimStore, round: u8) {
    for key in 0..24_u8 {
        store.put([key], [round; 40]).unwrap();
    }
    store.delete([round]).unwrap();
}

/// A store with a checkpoint of an earlier state of it.
fn store_and_checkpoint() -> (SimDisk, SimStore, State) {
    let disk = SimDisk::new(1);
    let store = sim_builder(512).build_store_on(disk.clone()).unwrap();
    fill(&store, 1);
    store.checkpoint(BACKUP).unwrap();
    let then = all(&store);
    (disk, store, then)
}

#[test]
fn a_checkpoint_whose_update_was_interrupted_verifies_opens_and_is_repaired() {
    let (mut olds, mut news) = (0, 0);
    for op in 0.. {
        let (disk, store, old) = store_and_checkpoint();
        fill(&store, 2);
        store.compact().unwrap();
        fill(&store, 3);
        let new = all(&store);
        disk.stop_at(op);
        let done = store.checkpoint(BACKUP).is_ok();
        for plan in [CrashPlan::KeepAll, CrashPlan::LoseAll] {
            let after = disk.crash(&plan);
            let context = format!("{plan:?} at operation {op}");
            let report = verify_on(&after, BACKUP, go_on).unwrap();
            assert!(report.is_sound(), "{context}: {report:?}");
            let follower = follow_at(&after, BACKUP).unwrap();
            let seen = all(&follower);
            assert!(seen == old || seen == new, "{context}");
            olds += u32::from(seen == old);
            news += u32::from(seen == new);
            let repaired = repair_on(&after, BACKUP, "/new", &RepairOptions::new(), go_on);
            let repaired = repaired.unwrap();
            assert!(repaired.is_complete(), "{context}: {repaired:?}");
            assert_eq!(all(&open_at(&after, "/new").unwrap()), seen, "{context}");
            assert_eq!(all(&open_at(&after, BACKUP).unwrap()), seen, "{context}");
        }
        if done {
            break;
        }
    }
    assert!(olds > 10 && news > 0, "{olds} {news}");
}

#[test]
fn a_checkpoint_that_has_lost_its_manifest_is_repaired_and_nobody_says_remove_it() {
    let (disk, store, old) = store_and_checkpoint();
    drop(store);
    // Also after it has become a store of its own.
    let used = open_at(&disk, BACKUP).unwrap();
    used.put("later", "written into the checkpoint").unwrap();
    drop(used);
    let manifest = Path::new(BACKUP).join("MANIFEST");
    disk.remove_raw(&manifest);

    let error = open_at(&disk, BACKUP).unwrap_err();
    assert!(!error.to_string().contains("remove"), "{error}");
    assert!(!verify_on(&disk, BACKUP, go_on).unwrap().is_sound());
    repair_on(&disk, BACKUP, "/new", &RepairOptions::new(), go_on).unwrap();
    let saved = open_at(&disk, "/new").unwrap();
    assert_eq!(
        saved.get("later").unwrap().unwrap(),
        "written into the checkpoint"
    );
    for (key, (value, _)) in &old {
        assert_eq!(saved.get(key).unwrap().unwrap(), &value[..]);
    }
}

#[test]
fn what_was_a_checkpoint_and_has_lost_its_manifest_is_not_overwritten() {
    let (disk, store, _) = store_and_checkpoint();
    store.put("more", "to bring").unwrap();
    store.checkpoint(BACKUP).unwrap();
    store.checkpoint("/sound").unwrap();
    let used = open_at(&disk, BACKUP).unwrap();
    used.put("later", "written into the checkpoint").unwrap();
    drop(used);
    disk.remove_raw(&Path::new(BACKUP).join("MANIFEST"));
    let before = disk.files(Path::new(BACKUP));
    let refused = [
        store.checkpoint(BACKUP).map(drop),
        restore_on(&disk, "/sound", BACKUP, go_on).map(drop),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
        assert!(error.to_string().contains("manifest"), "{error}");
    }
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect();
    let [before, after]: [Vec<_>; 2] = [names(&before), names(&disk.files(Path::new(BACKUP)))];
    assert_eq!(before, after);
}

#[cfg(unix)] // symbolic links take rights on Windows
#[test]
fn a_place_inside_of_the_damaged_store_is_refused_by_whatever_path() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    Store::open(&data).unwrap().put("a", "1").unwrap();
    std::os::unix::fs::symlink(&data, parent.path().join("link")).unwrap();
    for out in ["data/new", "data/../data/new", "link/new", "link"] {
        for source in ["data", "link"] {
            let source = parent.path().join(source);
            let error = crabkv::repair(&source, parent.path().join(out)).unwrap_err();
            assert!(!data.join("new").exists(), "{out}: {error}");
            let is_refused = matches!(error, Error::InvalidOption { option: "out", .. });
            assert!(is_refused, "{out}: {error}");
        }
    }
}

/// Somebody who keeps a copy of a store by its changes.
#[derive(Clone)]
struct Consumer {
    dir: String,
    position: SeqNo,
    state: State,
}

impl Consumer {
    fn new(dir: &str) -> Consumer {
        Consumer {
            dir: dir.to_owned(),
            position: SeqNo::new(0),
            state: State::new(),
        }
    }

    fn apply(&mut self, change: &Change) {
        match change.value() {
            Some(value) => self.state.insert(change.key.clone(), entry_of(value)),
            None => self.state.remove(&change.key),
        };
    }

    /// As [`follow`](Consumer::follow), through a watch that may have begun before.
    fn watch(&mut self, store: &SimStore, watch: &mut Option<Watch<SimDisk>>) {
        loop {
            let watching = watch.get_or_insert_with(|| store.watch_from(self.position, ""));
            match watching.try_next() {
                Ok(Some(change)) => self.apply(&change),
                Ok(None) => {
                    self.position = watching.next_seq();
                    break;
                }
                Err(Error::HistoryCompacted { .. }) => {
                    *self = Consumer::new(&self.dir);
                    *watch = None;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn follow(&mut self, store: &SimStore) {
        let changes = match store.changes(self.position) {
            Err(Error::HistoryCompacted { .. }) => {
                self.state.clear();
                store.changes(SeqNo::new(0))
            }
            changes => changes,
        };
        let mut changes = changes.unwrap();
        for change in changes.by_ref() {
            self.apply(&change.unwrap());
        }
        self.position = changes.next_seq();
    }
}

/// A directory that is written to.
struct Site {
    dir: String,
    store: Option<SimStore>,
    model: State,
}

/// A checkpoint, and who could go on from it.
struct Backup {
    dir: String,
    /// The site that it was made of, and which of the lives of that directory.
    of: String,
    model: State,
    consumers: Vec<Consumer>,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    segment_size: u64,
    hash_bits: u8,
    keys: u64,
    interval: bool,
    write_back: bool,
    hard_links: bool,
}

impl Shape {
    fn number(number: u64) -> Shape {
        let pick = |choices: &[u64], by: u64| choices[(number / by) as usize % choices.len()];
        Shape {
            segment_size: pick(&[256, 512, 2048], 1),
            hash_bits: pick(&[48, 3], 3) as u8,
            keys: pick(&[5, 20], 2),
            interval: pick(&[0, 0, 1], 2) == 1,
            write_back: pick(&[0, 0, 0, 1], 1) == 1,
            hard_links: pick(&[1, 1, 0], 5) == 1,
        }
    }

    fn build(self, dir: &str) -> CrabKvBuilder {
        let builder = Store::builder(dir)
            .segment_size(self.segment_size)
            .recovery_threads(NonZeroUsize::MIN)
            .verify(Verify::EveryRead)
            .write_back_cache(self.write_back)
            .hash_bits(self.hash_bits);
        if self.interval {
            builder.sync_interval(Duration::from_secs(3600))
        } else {
            builder
        }
    }
}

/// Somebody who reads a directory beside whoever writes there, and keeps copies by what it gives out.
struct Reader {
    dir: String,
    store: SimStore,
    consumer: Consumer,
    watcher: Consumer,
    watch: Option<Watch<SimDisk>>,
}

/// Everything there is on one disk.
struct World {
    shape: Shape,
    rng: Rng,
    disk: SimDisk,
    sites: Vec<Site>,
    backups: Vec<Backup>,
    followers: Vec<Reader>,
    consumers: Vec<Consumer>,
    names: u64,
    happened: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{:?}\n{}", self.shape, self.happened.join("\n"));
        }
    }
}

impl World {
    fn new(shape: Shape, seed: u64) -> World {
        let disk = SimDisk::new(seed);
        disk.set_hard_links(shape.hard_links);
        let mut world = World {
            shape,
            rng: Rng(seed),
            disk,
            sites: Vec::new(),
            backups: Vec::new(),
            followers: Vec::new(),
            consumers: vec![Consumer::new("/main")],
            names: 0,
            happened: Vec::new(),
        };
        world.begin("/main".to_owned(), State::new());
        world
    }

    fn note(&mut self, what: impl Into<String>) {
        self.happened.push(what.into());
    }

    fn open(&self, dir: &str) -> SimStore {
        self.shape
            .build(dir)
            .build_store_on(self.disk.clone())
            .unwrap()
    }

    fn begin(&mut self, dir: String, model: State) {
        let store = Some(self.open(&dir));
        self.sites.push(Site { dir, store, model });
    }

    fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("/{kind}{}", self.names)
    }

    fn check(&self, what: &str, seen: &State, model: &State) {
        let model = visible(model, self.disk.now_ms());
        assert!(
            *seen == model,
            "{what} holds {}, not {}",
            show(seen),
            show(&model)
        );
    }

    fn pick<T>(rng: &mut Rng, of: &[T]) -> Option<usize> {
        (!of.is_empty()).then(|| rng.below(of.len() as u64) as usize)
    }

    fn write(&mut self, at: usize) {
        for _ in 0..=self.rng.below(8) {
            let write = |rng: &mut Rng, keys| {
                let key = format!("k{}", rng.below(keys));
                let value = format!("{}-", rng.below(10_000)).repeat(1 + rng.below(16) as usize);
                match rng.below(8) {
                    0 | 1 => delete(&key),
                    2 => put_ttl(&key, value, 1 + rng.below(3000)),
                    _ => put(&key, value),
                }
            };
            let keys = self.shape.keys;
            let op = if self.rng.chance(15) {
                let count = 1 + self.rng.below(3);
                Op::Batch((0..count).map(|_| write(&mut self.rng, keys)).collect())
            } else {
                Op::Write(write(&mut self.rng, keys))
            };
            let site = &mut self.sites[at];
            op.apply(site.store.as_ref().unwrap()).unwrap();
            op.apply_to(&mut site.model, self.disk.now_ms());
            let text = format!("{}: {op:?}", site.dir);
            self.note(text);
        }
    }

    /// What waits in a buffer is not there for others.
    fn flush(&self, at: usize) {
        self.sites[at].store.as_ref().unwrap().flush().unwrap();
    }

    fn compact(&mut self, at: usize) {
        let store = self.sites[at].store.clone().unwrap();
        let text = if self.rng.chance(40) {
            let report = store.compact().unwrap();
            format!("compact {report:?}")
        } else {
            let sealed = crate::common::sealed(&store);
            let chosen: Vec<_> = sealed.into_iter().filter(|_| self.rng.chance(50)).collect();
            store.compact_segments(&chosen).unwrap();
            format!("compact {chosen:?}")
        };
        let text = format!("{}: {text}", self.sites[at].dir);
        self.note(text);
    }

    fn checkpoint(&mut self, at: usize) {
        let (target, known) = match World::pick(&mut self.rng, &self.backups) {
            Some(known) if self.rng.chance(70) || self.backups.len() > 3 => {
                (self.backups[known].dir.clone(), Some(known))
            }
            _ => (self.name("backup"), None),
        };
        self.flush(at);
        let site = &self.sites[at];
        let by_follower = self.rng.chance(40);
        let made = if by_follower {
            let known = self.followers.iter().find(|reader| reader.dir == site.dir);
            let follower = match known {
                Some(reader) => reader.store.clone(),
                None => follow_at(&self.disk, &site.dir).unwrap(),
            };
            follower.checkpoint(&target)
        } else {
            site.store.as_ref().unwrap().checkpoint(&target)
        };
        let dir = site.dir.clone();
        let model = site.model.clone();
        let text = format!("{dir}: checkpoint into {target}, by follower {by_follower}: {made:?}");
        self.note(text);
        match (made, known) {
            (Ok(_), _) => {
                let same_line = known.is_none_or(|known| self.backups[known].of == dir);
                if !same_line {
                    // Numbers that were given twice mean nothing to those who follow.
                    self.followers.retain(|reader| reader.dir != target);
                }
                let now: Vec<_> = self
                    .consumers
                    .iter()
                    .filter(|c| c.dir == dir)
                    .cloned()
                    .collect();
                self.backups.retain(|backup| backup.dir != target);
                self.backups.push(Backup {
                    dir: target,
                    of: dir,
                    model,
                    consumers: now,
                });
            }
            (Err(Error::Checkpoint { .. }), Some(known)) if self.backups[known].of != dir => {}
            (Err(error), _) => panic!("{error}"),
        }
    }

    /// A checkpoint is restored, or opened where it is, and used from then on.
    fn revive(&mut self) {
        let Some(at) = World::pick(&mut self.rng, &self.backups) else {
            return;
        };
        while self.sites.len() > 2 {
            let gone = self.sites.remove(1).dir;
            self.followers.retain(|reader| reader.dir != gone);
            self.consumers.retain(|consumer| consumer.dir != gone);
        }
        let backup = if self.rng.chance(50) {
            let dir = self.name("restored");
            let text = format!("restore {} to {dir}", self.backups[at].dir);
            self.note(text);
            restore_on(&self.disk, &self.backups[at].dir, &dir, go_on).unwrap();
            let backup = &self.backups[at];
            Backup {
                dir,
                of: backup.of.clone(),
                model: backup.model.clone(),
                consumers: backup.consumers.clone(),
            }
        } else {
            let text = format!("open {} as a store", self.backups[at].dir);
            self.note(text);
            self.backups.remove(at)
        };
        for mut consumer in backup.consumers {
            consumer.dir.clone_from(&backup.dir);
            self.consumers.push(consumer);
        }
        self.consumers.push(Consumer::new(&backup.dir));
        self.begin(backup.dir, backup.model);
    }

    fn reopen(&mut self, at: usize) {
        let dir = self.sites[at].dir.clone();
        if self.rng.chance(50) {
            // And goes on with the same handle.
            self.note(format!("{dir}: close"));
            return self.sites[at].store.as_ref().unwrap().close().unwrap();
        }
        self.note(format!("{dir}: reopen"));
        self.sites[at].store = None;
        self.sites[at].store = Some(self.open(&dir));
    }

    /// The power fails, or all processes are killed, where that takes no write back: between two
    /// operations, or in the middle of a compaction, of a checkpoint, of opening a store.
    fn crash(&mut self) {
        for site in &self.sites {
            site.store.as_ref().unwrap().sync().unwrap();
        }
        let at = self.rng.below(self.sites.len() as u64) as usize;
        let store = self.sites[at].store.clone().unwrap();
        let op = self.rng.below(50);
        let (what, target) = match self.rng.below(4) {
            0 => {
                self.disk.stop_at(op);
                let _ = store.compact();
                ("compacting", None)
            }
            1 => {
                self.disk.stop_at(op);
                drop(store);
                self.sites[at].store = None;
                let dir = &self.sites[at].dir;
                drop(self.shape.build(dir).build_store_on(self.disk.clone()));
                ("opening", None)
            }
            2 => {
                let dir = &self.sites[at].dir;
                let mut ours = self.backups.iter().filter(|backup| backup.of == *dir);
                let target = ours.next().map(|backup| backup.dir.clone());
                let target = target.unwrap_or_else(|| self.name("backup"));
                self.disk.stop_at(op);
                let _ = store.checkpoint(&target);
                ("checkpointing", Some(target))
            }
            _ => {
                self.disk.stop_at(0);
                ("at rest", None)
            }
        };
        let plan = match self.rng.below(4) {
            0 => CrashPlan::KeepAll,
            1 => CrashPlan::LoseAll,
            _ => CrashPlan::Random(self.rng.next()),
        };
        let dir = self.sites[at].dir.clone();
        self.note(format!(
            "{dir}: crash, {what} {target:?}, operation {op}, {plan:?}"
        ));
        let after = self.disk.crash(&plan);
        self.followers.clear();
        self.sites.iter_mut().for_each(|site| site.store = None);
        self.disk = after;
        if let Some(target) = target {
            self.after_interrupted_checkpoint(at, &target);
        }
        for at in 0..self.sites.len() {
            let store = self.open(&self.sites[at].dir);
            self.check(&self.sites[at].dir, &all(&store), &self.sites[at].model);
            self.sites[at].store = Some(store);
        }
    }

    /// The checkpoint is what it was, or what it was to become, or nothing.
    fn after_interrupted_checkpoint(&mut self, at: usize, target: &str) {
        let site = &self.sites[at];
        let known = self.backups.iter().position(|backup| backup.dir == target);
        let seen = match (follow_at(&self.disk, target), known) {
            (Ok(store), _) => all(&store),
            (Err(Error::NotFound { .. } | Error::Checkpoint { .. }), None) => return,
            (Err(error), _) => panic!("{target}: {error}"),
        };
        let is_new = seen == visible(&site.model, self.disk.now_ms());
        if let Some(known) = known {
            let backup = &mut self.backups[known];
            if is_new {
                // Whoever could go on from the old one can go on from this one.
                backup.model.clone_from(&site.model);
            }
            let (what, model) = (
                format!("{target}, interrupted,"),
                &self.backups[known].model,
            );
            self.check(&what, &seen, model);
        } else {
            assert!(is_new, "{target}: {}", show(&seen));
            let consumers = self.consumers.iter().filter(|c| c.dir == site.dir);
            self.backups.push(Backup {
                dir: target.to_owned(),
                of: site.dir.clone(),
                model: site.model.clone(),
                consumers: consumers.cloned().collect(),
            });
        }
    }

    /// Any directory, and what it holds.
    fn any_dir(&mut self) -> (String, State) {
        let dirs = self.sites.len() + self.backups.len();
        let number = self.rng.below(dirs as u64) as usize;
        if number < self.sites.len() {
            self.flush(number);
            let site = &self.sites[number];
            (site.dir.clone(), site.model.clone())
        } else {
            let backup = &self.backups[number - self.sites.len()];
            (backup.dir.clone(), backup.model.clone())
        }
    }

    fn follow(&mut self) {
        let (dir, model) = self.any_dir();
        self.note(format!("follow {dir}"));
        let known = self.followers.iter().position(|reader| reader.dir == dir);
        let mut reader = if let Some(number) = known {
            self.followers.remove(number)
        } else {
            // Whoever has read what is written there can go on beside it.
            let mut consumers = self.consumers.iter().filter(|consumer| consumer.dir == dir);
            let consumer = consumers.next().cloned();
            Reader {
                store: follow_at(&self.disk, &dir).unwrap(),
                consumer: consumer.unwrap_or_else(|| Consumer::new(&dir)),
                watcher: Consumer::new(&dir),
                watch: None,
                dir: dir.clone(),
            }
        };
        reader.store.refresh().unwrap();
        self.check(&format!("a follower of {dir}"), &all(&reader.store), &model);
        reader.consumer.follow(&reader.store);
        let seen = visible(&reader.consumer.state, self.disk.now_ms());
        self.check(&format!("a consumer beside {dir}"), &seen, &model);
        reader.watcher.watch(&reader.store, &mut reader.watch);
        let seen = visible(&reader.watcher.state, self.disk.now_ms());
        self.check(&format!("a watcher beside {dir}"), &seen, &model);
        self.followers.push(reader);
    }

    fn verify(&mut self) {
        let (dir, _) = self.any_dir();
        self.note(format!("verify {dir}"));
        let report = verify_on(&self.disk, &dir, go_on).unwrap();
        assert!(report.is_sound(), "{dir}: {report:?}");
    }

    fn repair(&mut self) {
        let (dir, model) = self.any_dir();
        let out = self.name("repaired");
        self.note(format!("repair {dir} to {out}"));
        let options = RepairOptions::new();
        match repair_on(&self.disk, &dir, &out, &options, go_on) {
            Err(Error::Locked { .. }) if self.sites.iter().any(|site| site.dir == dir) => return,
            report => assert!(report.as_ref().unwrap().is_complete(), "{report:?}"),
        }
        let store = self.open(&out);
        self.check(&format!("{dir}, repaired,"), &all(&store), &model);
        // Whoever knows the old store has to begin again, and can.
        let known = self.consumers.iter().filter(|consumer| consumer.dir == dir);
        for mut consumer in known.cloned().chain([Consumer::new(&out)]) {
            consumer.follow(&store);
            let seen = visible(&consumer.state, self.disk.now_ms());
            self.check("a consumer of what was repaired", &seen, &model);
        }
    }

    fn consume(&mut self, number: usize) {
        let mut consumer = self.consumers[number].clone();
        let site = self
            .sites
            .iter()
            .find(|site| site.dir == consumer.dir)
            .unwrap();
        consumer.follow(site.store.as_ref().unwrap());
        let seen = visible(&consumer.state, self.disk.now_ms());
        self.check(&format!("a consumer of {}", site.dir), &seen, &site.model);
        let text = format!("consumer {number} of {} at {}", site.dir, consumer.position);
        self.consumers[number] = consumer;
        self.note(text);
    }

    fn step(&mut self) {
        let at = self.rng.below(self.sites.len() as u64) as usize;
        match self.rng.below(20) {
            0..6 => self.write(at),
            6..8 => self.compact(at),
            8..10 => self.checkpoint(at),
            10 => self.revive(),
            11 => self.reopen(at),
            12 if self.rng.chance(40) => self.crash(),
            12..15 => self.follow(),
            15 => self.verify(),
            16 if self.rng.chance(30) => self.repair(),
            17 => {
                let by_ms = self.rng.below(2500);
                self.note(format!("advance {by_ms}"));
                self.disk.advance(by_ms);
            }
            18 => self.consumers.push(Consumer::new(&self.sites[at].dir)),
            _ => {
                if let Some(number) = World::pick(&mut self.rng, &self.consumers) {
                    self.consume(number);
                }
            }
        }
        // Not one for each step.
        if self.consumers.len() > 8 {
            self.consumers.remove(1);
        }
    }

    fn check_all(&mut self) {
        for number in 0..self.consumers.len() {
            self.consume(number);
        }
        for site in &self.sites {
            let store = site.store.as_ref().unwrap();
            self.check(&site.dir, &all(store), &site.model);
            store.close().unwrap();
        }
        let sites = self.sites.iter().map(|site| (&site.dir, &site.model));
        let backups = self
            .backups
            .iter()
            .map(|backup| (&backup.dir, &backup.model));
        let mut dirs = BTreeSet::new();
        for (dir, model) in sites.chain(backups) {
            assert!(dirs.insert(dir));
            let report = verify_on(&self.disk, dir, go_on).unwrap();
            assert!(report.is_sound(), "{dir}: {report:?}");
            self.check(dir, &all(&follow_at(&self.disk, dir).unwrap()), model);
        }
    }
}

#[test]
fn a_follower_knows_of_numbers_whose_records_were_compacted_away() {
    let disk = SimDisk::new(1);
    let store = sim_builder(512).build_store_on(disk.clone()).unwrap();
    store.put("key", "value").unwrap();
    store.put("other", "value").unwrap();
    let follower = follow_at(&disk, "/db").unwrap();
    let mut consumer = Consumer::new("/db");
    consumer.follow(&follower);
    store.delete("key").unwrap();
    store.compact().unwrap();
    assert!(follower.refresh().unwrap());
    let fresh = follow_at(&disk, "/db").unwrap();
    for follower in [&follower, &fresh] {
        assert_eq!(follower.next_seq(), store.next_seq());
        // Who begins again gets to where going on is possible.
        consumer.follow(follower);
        assert!(follower.changes(consumer.position).is_ok());
    }
    // A checkpoint goes on counting where the store does, whoever makes it.
    let by_store = store.checkpoint(BACKUP).unwrap();
    let by_follower = fresh.checkpoint(BACKUP).unwrap();
    assert_eq!(by_store.last, by_follower.last);
    follower.checkpoint("/another").unwrap();
    let another = open_at(&disk, "/another").unwrap();
    another.put("key", "again").unwrap();
    consumer.follow(&another);
    assert_eq!(consumer.state, all(&another));
}

#[test]
fn a_checkpoint_of_another_life_with_the_same_numbers_is_replaced_and_not_kept() {
    let disk = SimDisk::new(1);
    let store = sim_builder(4096).build_store_on(disk.clone()).unwrap();
    store.put("key", "value").unwrap();
    store.checkpoint("/one").unwrap();
    store.checkpoint("/two").unwrap();
    let [one, two] = ["/one", "/two"].map(|dir| open_at(&disk, dir).unwrap());
    one.put("other", "first").unwrap();
    two.put("other", "later").unwrap();
    let before = one.checkpoint(BACKUP).unwrap();
    let after = two.checkpoint(BACKUP).unwrap();
    assert_eq!(before.last, after.last);
    let backup = open_at(&disk, BACKUP).unwrap();
    assert_eq!(backup.get("other").unwrap().unwrap(), "later");
    drop(backup);
    // One of the same life is kept.
    let again = two.checkpoint(BACKUP).unwrap();
    assert_eq!((again.segments_copied, again.segments_present), (0, 2));
}

#[test]
fn a_watch_that_outlives_its_store_takes_nothing_from_one_that_was_restored_in_its_place() {
    let (disk, store, old) = store_and_checkpoint();
    fill(&store, 2);
    let mut watch = store.watch_from(SeqNo::new(0), "");
    assert!(watch.try_next().unwrap().is_some());
    // The watch holds what this has merged away; its files are to go with the watch.
    store.compact().unwrap();
    drop(store);
    for (name, _) in disk.files(Path::new("/db")) {
        disk.remove_raw(&Path::new("/db").join(name));
    }
    restore_on(&disk, BACKUP, "/db", go_on).unwrap();
    drop(watch);
    assert_eq!(all(&open_at(&disk, "/db").unwrap()), old);
}

#[test]
fn every_copy_holds_what_its_store_held_whatever_was_done_with_both() {
    let seed = seed(0x0c0_ffee);
    in_two_threads(effort(60), |number| {
        let mut world = World::new(Shape::number(number), seed ^ (number << 20));
        for _ in 0..120 {
            world.step();
        }
        world.check_all();
    });
}
