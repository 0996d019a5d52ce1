//! A store and a map that go through the same steps.
//!
//! The map knows more than the store: also which states a crash may leave. That is what was
//! durable, followed by any number of the changes made since, in their order; after the death of
//! the process alone, at least those that had been acknowledged.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::shrink::without_panic;
use super::steps::{COUNTER, Step, key, value};
use crate::common::{
    Entry, SimStore, State, contents, entry_of, go_on, is_kind, sealed, show, visible,
};
use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::{CrabKvBuilder, Error, Modification, ReadMode, Store, Verify, WriteBatch, restore_on};

/// An interval that never ends within a test: only what syncs explicitly does.
const NEVER: Duration = Duration::from_secs(1 << 20);

/// What a store of this test is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) segment_size: u64,
    /// So few that keys collide, or all.
    pub(crate) hash_bits: u8,
    pub(crate) syncs_every_write: bool,
    /// The size of the write-back buffer; 0 without one.
    pub(crate) write_back_bytes: usize,
    pub(crate) compresses: bool,
    pub(crate) preads: bool,
    /// How many values are cached; 0 without a cache.
    pub(crate) cached: usize,
    pub(crate) verifies_every_read: bool,
}

impl Shape {
    fn builder(&self, dir: &str) -> CrabKvBuilder {
        let mut builder = Store::builder(dir)
            .segment_size(self.segment_size)
            .hash_bits(self.hash_bits)
            .compression(self.compresses)
            .recovery_threads(NonZeroUsize::MIN);
        if !self.syncs_every_write {
            builder = builder.sync_interval(NEVER);
        }
        if self.write_back_bytes > 0 {
            builder = builder.write_back_bytes(self.write_back_bytes);
        }
        if self.preads {
            builder = builder.read_mode(ReadMode::Pread);
        }
        if let Some(cached) = NonZeroUsize::new(self.cached) {
            builder = builder.cache_capacity(cached);
        }
        if self.verifies_every_read {
            builder = builder.verify(Verify::EveryRead);
        }
        builder
    }

    fn is_write_back(&self) -> bool {
        self.write_back_bytes > 0
    }
}

/// What happened in a run, for whoever wants to know that it was not nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) steps: u64,
    pub(crate) openings: u64,
    pub(crate) crashes: u64,
    /// Crashes in the middle of a step.
    pub(crate) within: u64,
    /// Crashes while opening after a crash.
    pub(crate) again: u64,
    /// Changes that a crash took.
    pub(crate) lost: u64,
    pub(crate) restores: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Counts) {
        self.steps += other.steps;
        self.openings += other.openings;
        self.crashes += other.crashes;
        self.within += other.within;
        self.again += other.again;
        self.lost += other.lost;
        self.restores += other.restores;
    }
}

/// Goes through the steps, and opens the store once more at the end.
///
/// # Errors
///
/// Says where store and map differ, or what failed.
pub(crate) fn run(shape: Shape, steps: &[Step]) -> Result<Counts, String> {
    without_panic(|| {
        let mut run = Run::begin(shape)?;
        for (place, step) in steps.iter().enumerate() {
            run.place = place as u32;
            run.take(step)
                .map_err(|why| format!("at step {place}, {step:?}: {why}"))?;
        }
        run.take(&Step::Reopen(0))
            .map_err(|why| format!("at the end: {why}"))?;
        run.counts.steps = steps.len() as u64;
        Ok(run.counts)
    })
}

/// Why a step did not come to its end.
enum Stop {
    /// The power was cut.
    Cut,
    Wrong(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Stop {
        Stop::Wrong(why)
    }
}

/// What came of a step.
type Done = Result<(), Stop>;

/// What a write does to keys: a new entry for each, or none any more.
type Changes = Vec<(Vec<u8>, Option<Entry>)>;

fn apply(changes: &Changes, state: &mut State) {
    for (key, entry) in changes {
        match entry {
            Some(entry) => state.insert(key.clone(), entry.clone()),
            None => state.remove(key),
        };
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Done {
    if found == expected {
        return Ok(());
    }
    let mut found = format!("{found:?}");
    found.truncate(200);
    let mut expected = format!("{expected:?}");
    expected.truncate(200);
    Err(Stop::Wrong(format!("{what}: {found}, expected {expected}")))
}

fn same_state(what: &str, found: &State, expected: &State) -> Done {
    if found == expected {
        return Ok(());
    }
    let why = format!("{what}: {}\nexpected {}", show(found), show(expected));
    Err(Stop::Wrong(why))
}

struct Run {
    shape: Shape,
    disk: SimDisk,
    dir: String,
    store: Option<SimStore>,
    follower: Option<SimStore>,
    state: State,
    /// What no crash can take.
    durable: State,
    /// The changes since, the last one possibly in flight.
    pending: Vec<Changes>,
    /// So many of them survive the death of the process.
    acknowledged: usize,
    /// The store's clock is not behind this time, nor is what its manifest says behind the other.
    noted_ms: u64,
    durably_noted_ms: u64,
    /// What a crash is to be like that is about to come in the middle of a step.
    armed: Option<(u64, CrashPlan)>,
    checkpoint: Option<(String, State)>,
    /// For the names of directories.
    directories: u32,
    /// The place of the step in the list.
    place: u32,
    /// The highest version that a read has shown.
    highest_version: u64,
    counts: Counts,
}

impl Run {
    fn begin(shape: Shape) -> Result<Run, String> {
        let disk = SimDisk::new(shape.seed);
        let store = shape.builder("/db").build_store_on(disk.clone());
        Ok(Run {
            shape,
            disk,
            dir: "/db".into(),
            store: Some(store.map_err(|error| error.to_string())?),
            follower: None,
            state: State::new(),
            durable: State::new(),
            pending: Vec::new(),
            acknowledged: 0,
            noted_ms: 0,
            durably_noted_ms: 0,
            armed: None,
            checkpoint: None,
            directories: 0,
            place: 0,
            highest_version: 0,
            counts: Counts::default(),
        })
    }

    fn store(&self) -> &SimStore {
        self.store.as_ref().expect("open between steps")
    }

    fn now_ms(&self) -> u64 {
        self.disk.now_ms().max(self.noted_ms)
    }

    fn is_dead(&self) -> bool {
        self.disk.list(Path::new("/")).is_err()
    }

    /// What an operation gave, if it did not fail.
    fn ok<T>(&self, done: crabkv::Result<T>) -> Result<T, Stop> {
        done.map_err(|error| {
            if self.is_dead() {
                Stop::Cut
            } else {
                Stop::Wrong(format!("failed: {error}"))
            }
        })
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match self.done(step) {
            Ok(()) => return Ok(()),
            Err(Stop::Wrong(why)) => return Err(why),
            Err(Stop::Cut) => {}
        }
        let (again, plan) = self.armed.take().ok_or("the power failed by itself")?;
        self.counts.within += 1;
        self.crash(&plan, Some(again))
    }

    /// The entry of a key, if it is live.
    fn entry(&self, key: &[u8]) -> Option<Entry> {
        let now_ms = self.now_ms();
        let entry = self.state.get(key)?;
        (entry.1.is_none_or(|at_ms| at_ms > now_ms)).then(|| entry.clone())
    }

    fn value(&self, len: u32) -> Vec<u8> {
        value(self.place, len)
    }

    /// What a simple write does to its key.
    fn change(&self, step: &Step) -> (Vec<u8>, Option<Entry>) {
        let now_ms = self.now_ms();
        match *step {
            Step::Put(k, len) => (key(k), Some((self.value(len), None))),
            Step::PutFor(k, len, ttl_ms) => {
                (key(k), Some((self.value(len), Some(now_ms + ttl_ms))))
            }
            Step::PutAt(k, len, from_now) => {
                let at_ms = now_ms.saturating_add_signed(from_now);
                let entry = (self.value(len), Some(at_ms));
                (key(k), (at_ms > now_ms).then_some(entry))
            }
            Step::Delete(k) => (key(k), None),
            _ => unreachable!("{step:?} is no simple write"),
        }
    }

    /// Does what changes the store, and to the map the same. Until it has returned a crash may
    /// leave either.
    fn write<T>(
        &mut self,
        changes: Changes,
        work: impl FnOnce(&SimStore) -> crabkv::Result<T>,
    ) -> Result<T, Stop> {
        self.pending.push(changes);
        let done = self.ok(work(self.store()))?;
        let last = self.pending.len() - 1;
        apply(&self.pending[last], &mut self.state);
        if !self.shape.is_write_back() {
            self.acknowledged = self.pending.len();
            if self.shape.syncs_every_write {
                self.settle();
            }
        }
        Ok(done)
    }

    /// Everything so far is durable.
    fn settle(&mut self) {
        for changes in self.pending.drain(..) {
            apply(&changes, &mut self.durable);
        }
        self.acknowledged = 0;
    }

    fn note_clock(&mut self) {
        // Says what has expired, and so remembers what time it is.
        self.store().stats();
        self.noted_ms = self.now_ms();
    }

    fn done(&mut self, step: &Step) -> Done {
        match step {
            Step::Put(..) | Step::PutFor(..) | Step::PutAt(..) | Step::Delete(_) => {
                self.simple(step)
            }
            Step::Batch(writes) => self.batch(writes),
            Step::PutIfAbsent(..)
            | Step::Swap(..)
            | Step::SwapStale(..)
            | Step::SwapAway(_)
            | Step::Touch(..)
            | Step::Persist(_)
            | Step::Update(..)
            | Step::UpdateAway(_)
            | Step::Modify(..)
            | Step::Increment(_) => self.conditional(step),
            Step::Get(k) => self.get(&key(*k)),
            Step::GetMany(first, second) => self.get_many(&[key(*first), key(*second)]),
            Step::Iterate(count) => self.iterate(usize::from(*count)),
            Step::Prefix(k) => self.prefix(&key(*k)),
            Step::Scan(count) => self.scan(usize::from(*count)),
            Step::Sync => {
                self.ok(self.store().sync())?;
                self.settle();
                Ok(())
            }
            Step::Flush => self.flush(),
            Step::Merge => {
                self.ok(self.store().compact())?;
                self.settle();
                Ok(())
            }
            Step::MergeSome(bits) => {
                let ids = sealed(self.store());
                let some = (0..16).zip(ids).filter(|(bit, _)| bits >> bit & 1 == 1);
                let some: Vec<_> = some.map(|(_, id)| id).collect();
                let report = self.ok(self.store().compact_segments(&some))?;
                same("segments merged", &report.segments_merged, &some.len())?;
                if !self.shape.is_write_back() {
                    // The active segment was sealed.
                    self.settle();
                }
                Ok(())
            }
            Step::Close => {
                self.ok(self.store().close())?;
                self.settle();
                self.note_clock();
                self.ok(self.store().close())?;
                self.durably_noted_ms = self.noted_ms;
                Ok(())
            }
            Step::Reopen(without) => self.reopen(*without),
            Step::Advance(ms) => {
                self.disk.advance(*ms);
                Ok(())
            }
            Step::SetBack(ms) => {
                self.note_clock();
                self.disk.set_clock(self.disk.now_ms().saturating_sub(*ms));
                Ok(())
            }
            Step::Crash(plan) => Ok(self.crash(plan, None)?),
            Step::CrashWithin(first, second, plan) => {
                self.disk.stop_at(*first);
                self.armed = Some((*second, plan.clone()));
                Ok(())
            }
            Step::Checkpoint => self.make_checkpoint(),
            Step::Restore(is_to_stay) => self.restore(*is_to_stay),
            Step::Follow => self.follow(),
        }
    }

    /// The moment that is so many milliseconds from now.
    fn at(&self, from_now: i64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.now_ms().saturating_add_signed(from_now))
    }

    fn simple(&mut self, step: &Step) -> Done {
        let change = self.change(step);
        let name = change.0.clone();
        let present = self.entry(&name).is_some();
        match *step {
            Step::PutFor(_, len, ms) => {
                let (bytes, ttl) = (self.value(len), Duration::from_millis(ms));
                self.write(vec![change], |store| store.put_with_ttl(name, bytes, ttl))
            }
            Step::PutAt(_, len, from_now) => {
                let (bytes, at) = (self.value(len), self.at(from_now));
                self.write(vec![change], |store| store.put_expiring_at(name, bytes, at))
            }
            Step::Put(_, len) => {
                let bytes = self.value(len);
                self.write(vec![change], |store| store.put(name, bytes))
            }
            _ => {
                let was_there = self.write(vec![change], |store| store.delete(name))?;
                same("there before the delete", &was_there, &present)
            }
        }
    }

    fn batch(&mut self, writes: &[Step]) -> Done {
        let changes: Changes = writes.iter().map(|write| self.change(write)).collect();
        let mut batch = WriteBatch::new();
        for (step, (name, entry)) in writes.iter().zip(&changes) {
            let bytes = entry.as_ref().map(|(bytes, _)| &bytes[..]);
            let added = match (step, bytes) {
                (Step::PutFor(_, _, ms), Some(bytes)) => {
                    batch.put_with_ttl(name, bytes, Duration::from_millis(*ms))
                }
                (Step::PutAt(_, len, from_now), _) => {
                    batch.put_expiring_at(name, self.value(*len), self.at(*from_now))
                }
                (_, Some(bytes)) => batch.put(name, bytes),
                (_, None) => batch.delete(name),
            };
            added.map_err(|error| error.to_string())?;
        }
        self.write(changes, |store| store.write(&batch))
    }

    fn version(&self, name: &[u8]) -> Result<Option<crabkv::SeqNo>, Stop> {
        let found = self.ok(self.store().get(name))?;
        Ok(found.and_then(|value| value.version()))
    }

    #[expect(clippy::too_many_lines, reason = "a few lines for each kind of write")]
    fn conditional(&mut self, step: &Step) -> Done {
        let now_ms = self.now_ms();
        let name = match step {
            Step::Increment(_) => COUNTER.into(),
            Step::PutIfAbsent(k, _)
            | Step::Swap(k, _)
            | Step::SwapStale(k, _)
            | Step::SwapAway(k)
            | Step::Touch(k, _)
            | Step::Persist(k)
            | Step::Update(k, _)
            | Step::UpdateAway(k)
            | Step::Modify(k, ..) => key(*k),
            _ => unreachable!("{step:?} depends on nothing"),
        };
        let present = self.entry(&name);
        let is_there = present.is_some();
        let expiry = present.as_ref().and_then(|(_, expiry)| *expiry);
        let one = |entry| vec![(name.clone(), entry)];
        match *step {
            Step::PutIfAbsent(_, len) => {
                let bytes = self.value(len);
                let changes = if is_there {
                    Vec::new()
                } else {
                    one(Some((bytes.clone(), None)))
                };
                let did = self.write(changes, |store| store.put_if_absent(&name, &bytes))?;
                same("put if absent", &did, &!is_there)
            }
            Step::Swap(_, len) => {
                // What waits in the buffer has no version.
                self.flush()?;
                let bytes = self.value(len);
                let version = self.version(&name)?;
                same("has a version", &version.is_some(), &is_there)?;
                self.write(one(Some((bytes.clone(), None))), |store| {
                    store.compare_and_swap(&name, version, &bytes)
                })
            }
            Step::SwapStale(_, len) => {
                self.flush()?;
                let stale = crabkv::SeqNo::new(self.version(&name)?.map_or(1, |v| v.get() + 1));
                let bytes = self.value(len);
                let swapped = self.store().compare_and_swap(&name, Some(stale), &bytes);
                match swapped {
                    Err(Error::Conflict { .. }) => Ok(()),
                    Ok(()) => Err(Stop::Wrong("swapped a version that is not there".into())),
                    failed => self.ok(failed),
                }
            }
            Step::SwapAway(_) => {
                self.flush()?;
                let Some(version) = self.version(&name)? else {
                    return same("has no version", &is_there, &false);
                };
                self.write(one(None), |store| store.compare_and_delete(&name, version))
            }
            Step::Touch(_, ttl_ms) => {
                let entry = present.map(|(bytes, _)| (bytes, Some(now_ms + ttl_ms)));
                let ttl = Duration::from_millis(ttl_ms);
                let did = self.write(one(entry), |store| store.touch(&name, ttl))?;
                same("touched", &did, &is_there)
            }
            Step::Persist(_) => {
                let entry = present.map(|(bytes, _)| (bytes, None));
                let did = self.write(one(entry), |store| store.persist(&name))?;
                same("persisted", &did, &expiry.is_some())
            }
            Step::Update(..) | Step::UpdateAway(_) => {
                let new = match step {
                    Step::Update(_, len) => Some(self.value(*len)),
                    _ => None,
                };
                let old = present.map(|(bytes, _)| bytes);
                let entry = new.clone().map(|bytes| (bytes, expiry));
                let mut seen = None;
                let updated = self.write(one(entry), |store| {
                    store.update(&name, |current| {
                        seen = Some(current.map(<[u8]>::to_vec));
                        new.clone()
                    })
                })?;
                same("what an update is shown", &seen, &Some(old))?;
                same("updated", &updated, &new)
            }
            Step::Modify(_, len, from_now) => {
                let bytes = self.value(len);
                let at_ms = now_ms.saturating_add_signed(from_now);
                let entry = (at_ms > now_ms).then(|| (bytes.clone(), Some(at_ms)));
                let at = self.at(from_now);
                let seen = self.write(one(entry), |store| {
                    store.modify(&name, |current| {
                        let seen = current.map(entry_of);
                        let put = Modification::Put {
                            value: bytes.clone(),
                            expires_at: Some(at),
                        };
                        Ok((put, seen))
                    })
                })?;
                same("what a modification is shown", &seen, &present)
            }
            Step::Increment(by) => {
                let old = present.map_or(0, |(bytes, _)| {
                    String::from_utf8_lossy(&bytes).parse().unwrap_or(i64::MIN)
                });
                let sum = old + by;
                let entry = (sum.to_string().into_bytes(), expiry);
                let found = self.write(one(Some(entry)), |store| store.increment(&name, by))?;
                same("sum", &found, &sum)
            }
            _ => unreachable!("{step:?} depends on nothing"),
        }
    }

    fn get(&mut self, name: &[u8]) -> Done {
        let expected = self.entry(name);
        let found = self.ok(self.store().get(name))?;
        same("get", &found.as_ref().map(entry_of), &expected)?;
        let version = found.and_then(|value| value.version());
        self.highest_version = self
            .highest_version
            .max(version.map_or(0, crabkv::SeqNo::get));
        let reader = self.store().reader();
        let bytes = expected.as_ref().map(|(bytes, _)| &bytes[..]);
        same("read", &self.ok(reader.get(name))?, &bytes)?;
        let is_there = self.ok(self.store().contains_key(name))?;
        same("contains", &is_there, &expected.is_some())
    }

    fn get_many(&self, names: &[Vec<u8>; 2]) -> Done {
        let expected = names.each_ref().map(|name| self.entry(name));
        let found = self.ok(self.store().get_many(names))?;
        let found: Vec<_> = found.iter().map(|v| v.as_ref().map(entry_of)).collect();
        same("get many", &&found[..], &&expected[..])
    }

    fn visible(&self) -> State {
        visible(&self.state, self.now_ms())
    }

    fn check(&self, what: &str) -> Done {
        let seen = self.ok(contents(self.store(), self.state.keys()))?;
        same_state(what, &seen, &self.visible())
    }

    /// A part of an iteration.
    fn some_of(&self, entries: &mut crabkv::Iter<SimDisk>, count: usize, seen: &mut State) -> Done {
        for entry in entries.take(count) {
            let (name, value) = self.ok(entry)?;
            if seen.insert(name.clone(), entry_of(&value)).is_some() {
                let name = name.escape_ascii();
                return Err(Stop::Wrong(format!("{name} was met twice")));
            }
        }
        Ok(())
    }

    fn iterate(&mut self, count: usize) -> Done {
        let mut seen = State::new();
        let mut entries = self.store().iter();
        self.some_of(&mut entries, count, &mut seen)?;
        let cursor = crabkv::Cursor::from_bytes(&entries.cursor().to_bytes());
        drop(entries);
        let mut entries = self.store().iter_from(&cursor);
        self.some_of(&mut entries, usize::MAX, &mut seen)?;
        same_state("iterated", &seen, &self.visible())?;
        self.check("got and iterated")
    }

    fn prefix(&self, name: &[u8]) -> Done {
        let prefix = &name[..name.len().min(2)];
        let mut seen = State::new();
        let mut entries = self.store().scan_prefix(prefix);
        self.some_of(&mut entries, usize::MAX, &mut seen)?;
        let mut expected = self.visible();
        expected.retain(|name, _| name.starts_with(prefix));
        same_state("with the prefix", &seen, &expected)
    }

    fn scan(&self, count: usize) -> Done {
        let mut seen = Vec::new();
        let mut position = Some(0);
        while let Some(at) = position {
            let some = self.ok(self.store().scan_keys(at, count))?;
            seen.extend(some.keys);
            position = some.next;
        }
        seen.sort_unstable();
        seen.dedup();
        let expected: Vec<_> = self.visible().into_keys().collect();
        same("scanned", &seen, &expected)
    }

    fn flush(&mut self) -> Done {
        self.ok(self.store().flush())?;
        self.acknowledged = self.pending.len();
        if self.shape.syncs_every_write {
            self.settle();
        }
        Ok(())
    }

    fn build(&self, dir: &str) -> crabkv::Result<SimStore> {
        self.shape.builder(dir).build_store_on(self.disk.clone())
    }

    fn reopen(&mut self, without: u16) -> Done {
        self.note_clock();
        self.store = None;
        if self.is_dead() {
            return Err(Stop::Cut);
        }
        let dir = Path::new(&self.dir);
        let names = self.disk.files(dir).into_iter().map(|(name, _)| name);
        let hints = names.filter(|name| is_kind(name, "hint"));
        for (_, name) in (0..16)
            .zip(hints)
            .filter(|(bit, _)| without >> bit & 1 == 1)
        {
            self.disk.remove_raw(&dir.join(name));
        }
        let store = self.ok(self.build(&self.dir))?;
        self.counts.openings += 1;
        let was_clean = store.recovery_report().clean;
        self.store = Some(store);
        same("closed in good order", &was_clean, &true)?;
        self.settle();
        self.durably_noted_ms = self.noted_ms;
        self.note_clock();
        self.check("opened again")
    }

    /// The process, or the machine, dies; once more after `again` operations of what comes then.
    fn crash(&mut self, plan: &CrashPlan, again: Option<u64>) -> Result<(), String> {
        let next = self.disk.crash(plan);
        self.store = None;
        self.follower = None;
        // Whether a checkpoint that was being made is the old or the new one is asked elsewhere.
        self.disk = next;
        self.armed = None;
        self.counts.crashes += 1;
        if self.durably_noted_ms < self.noted_ms {
            // Nothing promises that the store knows how late it was.
            self.disk.set_clock(self.now_ms());
        }
        if let Some(again) = again {
            self.disk.stop_at(again);
            if self.build(&self.dir).is_err() {
                if !self.is_dead() {
                    return Err("a store that a crash left cannot be opened".into());
                }
                self.counts.again += 1;
            }
            self.disk = self.disk.crash(plan);
        }
        let opened = self.build(&self.dir);
        self.store = Some(opened.map_err(|error| format!("after a crash: {error}"))?);
        self.counts.openings += 1;
        self.note_clock();
        let mut keys: Vec<_> = self.state.keys().chain(self.durable.keys()).collect();
        keys.extend(self.pending.iter().flatten().map(|(name, _)| name));
        let seen = contents(self.store(), keys).map_err(|error| error.to_string())?;
        let now_ms = self.now_ms();
        let survives = if *plan == CrashPlan::KeepAll {
            self.acknowledged
        } else {
            0
        };
        // The newest first: most crashes take nothing.
        let mut states = vec![self.durable.clone()];
        for changes in &self.pending {
            let mut next = states[states.len() - 1].clone();
            apply(changes, &mut next);
            states.push(next);
        }
        let found = (survives..states.len())
            .rev()
            .find(|at| visible(&states[*at], now_ms) == seen);
        let Some(found) = found else {
            let allowed = states.drain(survives..);
            let allowed: Vec<_> = allowed.map(|s| show(&visible(&s, now_ms))).collect();
            return Err(format!(
                "after a crash ({plan:?}) there is {}\nexpected one of {}",
                show(&seen),
                allowed.join("\n")
            ));
        };
        self.counts.lost += (states.len() - 1 - found) as u64;
        self.state = states.swap_remove(found);
        self.durable = self.state.clone();
        self.pending.clear();
        self.acknowledged = 0;
        if self.store().next_seq().get() <= self.highest_version {
            return Err(format!("version {} comes again", self.highest_version));
        }
        Ok(())
    }

    fn new_directory(&mut self, kind: &str) -> String {
        self.directories += 1;
        format!("/{kind}{}", self.directories)
    }

    fn make_checkpoint(&mut self) -> Done {
        // If it is interrupted, the next one begins elsewhere.
        let dir = match self.checkpoint.take() {
            Some((dir, _)) => dir,
            None => self.new_directory("checkpoint"),
        };
        self.ok(self.store().checkpoint(&dir))?;
        self.settle();
        self.checkpoint = Some((dir, self.state.clone()));
        Ok(())
    }

    fn restore(&mut self, is_to_stay: bool) -> Done {
        let Some((checkpoint, copied)) = self.checkpoint.clone() else {
            return Ok(());
        };
        // It has the clock of the moment at which it was made.
        self.disk.set_clock(self.now_ms());
        let dir = self.new_directory("restored");
        self.ok(restore_on(&self.disk, &checkpoint, &dir, go_on))?;
        let store = self.ok(self.build(&dir))?;
        let seen = self.ok(contents(&store, self.state.keys()))?;
        same_state("restored", &seen, &visible(&copied, self.now_ms()))?;
        self.counts.restores += 1;
        let left = if is_to_stay {
            self.store = Some(store);
            self.follower = None;
            self.checkpoint = None;
            self.state.clone_from(&copied);
            self.durable = copied;
            self.pending.clear();
            self.acknowledged = 0;
            self.highest_version = 0;
            self.durably_noted_ms = 0;
            self.note_clock();
            std::mem::replace(&mut self.dir, dir)
        } else {
            drop(store);
            dir
        };
        // Or the disk grows and grows.
        for (name, _) in self.disk.files(Path::new(&left)) {
            self.disk.remove_raw(&Path::new(&left).join(name));
        }
        Ok(())
    }

    fn follow(&mut self) -> Done {
        if self.disk.now_ms() < self.noted_ms {
            // A process of its own, it does not know how late the writer's clock has been.
            return Ok(());
        }
        // What waits in a buffer is not for others.
        self.flush()?;
        if let Some(follower) = &self.follower {
            self.ok(follower.refresh())?;
        } else {
            let builder = self.shape.builder(&self.dir).read_only(true);
            self.follower = Some(self.ok(builder.build_store_on(self.disk.clone()))?);
        }
        let Some(follower) = &self.follower else {
            return Ok(());
        };
        let seen = self.ok(contents(follower, self.state.keys()))?;
        same_state("a follower sees", &seen, &self.visible())
    }
}
