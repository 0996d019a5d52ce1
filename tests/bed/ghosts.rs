//! Deleted and expired keys never come back: not by merging some segments and not others, in
//! whatever order, not by reopening with or without hint files, not by a power cut, not by a clock
//! that jumps back.
//!
//! A running store cannot show most of these mistakes: its index remembers what the files have
//! forgotten. So each merge is followed, sooner or later, by an opening from the files alone.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::hooked::{HookedDisk, beside, merge_step_by_step};
use crate::common::{
    Op, Rng, SimStore, State, Write, contents, delete, in_two_threads, put, put_ttl, remove_hints,
    seal, sealed, seed, show, sim_builder, visible,
};
use crate::layer::{Layer, say, share};
use crabkv::SegmentId;
use crabkv::disk::{CrashPlan, Disk, SimDisk};

/// What a store of a test is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    segment_size: u64,
    /// So few that keys collide, or all.
    hash_bits: u8,
    keys: u64,
    /// The longest value, about.
    longest: u64,
}

impl Shape {
    fn open(self, disk: &SimDisk) -> SimStore {
        sim_builder(self.segment_size)
            .hash_bits(self.hash_bits)
            .build_store_on(disk.clone())
            .unwrap()
    }

    fn number(number: u64) -> Shape {
        let pick = |choices: &[u64], by: u64| choices[(number / by) as usize % choices.len()];
        Shape {
            segment_size: pick(&[256, 512, 1024], 1),
            hash_bits: pick(&[48, 4, 48, 2], 3) as u8,
            keys: pick(&[6, 12, 30], 2),
            longest: pick(&[30, 120], 5),
        }
    }
}

/// What happened, for whoever reads a failure.
#[derive(Debug)]
#[expect(dead_code, reason = "read by those who read the output")]
enum Happened {
    Done(u64, Op),
    Touched(u64, String, u64),
    Persisted(String),
    Merged(Vec<u64>),
    Opened(&'static str),
    ClockSetBack(u64),
}

#[derive(Debug, Default)]
struct Counts {
    writes: AtomicU64,
    merges: AtomicU64,
    /// Merges after which tombstones were left in the store, and those that dropped records.
    kept_tombstones: AtomicU64,
    dropped_records: AtomicU64,
    openings: AtomicU64,
    expired: AtomicU64,
}

impl Counts {
    fn add(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }
}

/// A store and what it should hold.
struct Episode<'a> {
    shape: Shape,
    disk: SimDisk,
    store: Option<SimStore>,
    state: State,
    /// The latest time that the store has seen and made durable: its clock stays there until the
    /// wall clock comes to it again.
    high_water_ms: u64,
    rng: Rng,
    happened: Vec<Happened>,
    counts: &'a Counts,
}

impl<'a> Episode<'a> {
    fn new(shape: Shape, seed: u64, counts: &'a Counts) -> Episode<'a> {
        let disk = SimDisk::new(seed);
        Episode {
            shape,
            store: Some(shape.open(&disk)),
            disk,
            state: State::new(),
            high_water_ms: 0,
            rng: Rng(seed),
            happened: Vec::new(),
            counts,
        }
    }

    fn store(&self) -> &SimStore {
        self.store.as_ref().unwrap()
    }

    fn now_ms(&self) -> u64 {
        self.disk.now_ms().max(self.high_water_ms)
    }

    fn key(&mut self) -> String {
        format!("k{}", self.rng.below(self.shape.keys))
    }

    fn value(&mut self, key: &str) -> String {
        let text = format!("{}-{key}.", self.rng.below(10_000));
        let times = 1 + self.rng.below(self.shape.longest) as usize / text.len();
        text.repeat(times)
    }

    fn a_write(&mut self) -> Write {
        let key = self.key();
        let value = self.value(&key);
        match self.rng.below(10) {
            0..4 => put(&key, value),
            4..7 => delete(&key),
            _ => put_ttl(&key, value, 1 + self.rng.below(2000)),
        }
    }

    fn apply(&mut self, op: Op) {
        op.apply(self.store()).unwrap();
        let now_ms = self.now_ms();
        op.apply_to(&mut self.state, now_ms);
        Counts::add(&self.counts.writes, op.writes().len() as u64);
        self.happened.push(Happened::Done(now_ms, op));
    }

    fn step(&mut self) {
        match self.rng.below(1000) {
            0..630 => {
                let write = self.a_write();
                self.apply(Op::Write(write));
            }
            630..710 => {
                let writes = 1 + self.rng.below(4);
                let writes = (0..writes).map(|_| self.a_write()).collect();
                self.apply(Op::Batch(writes));
            }
            710..790 => self.conditional(),
            790..845 => self.read(),
            845..915 => {
                let ms = self.rng.below(400);
                self.disk.advance(ms);
            }
            915..960 => self.merge_some(),
            960..967 => {
                let report = self.store().compact().unwrap();
                Counts::add(&self.counts.merges, 1);
                Counts::add(&self.counts.dropped_records, report.records_dropped);
                self.happened.push(Happened::Merged(Vec::new()));
                self.check(self.store());
            }
            967..975 => self.look_at_a_copy(),
            975..991 => self.reopen(),
            991..996 => self.cut_the_power(),
            _ => self.set_the_clock_back(),
        }
    }

    fn expected(&self, key: &str) -> Option<(Vec<u8>, Option<u64>)> {
        let now_ms = self.now_ms();
        let entry = self.state.get(key.as_bytes());
        let entry = entry.filter(|(_, expiry)| expiry.is_none_or(|expiry| expiry > now_ms));
        entry.cloned()
    }

    fn read(&mut self) {
        let key = self.key();
        let found = self.store().get(&key).unwrap();
        let found = found.as_ref().map(crate::common::entry_of);
        assert_eq!(found, self.expected(&key), "{key}");
    }

    fn conditional(&mut self) {
        let key = self.key();
        let present = self.expected(&key);
        let value = self.value(&key);
        match self.rng.below(5) {
            0 => {
                let was_absent = self.store().put_if_absent(&key, &value).unwrap();
                assert_eq!(was_absent, present.is_none(), "{key}");
                if was_absent {
                    self.note(put(&key, value));
                }
            }
            1 => {
                let version = self.store().get(&key).unwrap().and_then(|v| v.version());
                self.store()
                    .compare_and_swap(&key, version, &value)
                    .unwrap();
                self.note(put(&key, value));
            }
            2 => {
                let version = self.store().get(&key).unwrap().and_then(|v| v.version());
                assert_eq!(version.is_some(), present.is_some(), "{key}");
                if let Some(version) = version {
                    self.store().compare_and_delete(&key, version).unwrap();
                    self.note(delete(&key));
                }
            }
            3 => {
                let ttl_ms = 1 + self.rng.below(1500);
                let now_ms = self.now_ms();
                let ttl = Duration::from_millis(ttl_ms);
                let was_there = self.store().touch(&key, ttl).unwrap();
                assert_eq!(was_there, present.is_some(), "{key}");
                if let Some((value, _)) = present {
                    let entry = (value, Some(now_ms + ttl_ms));
                    self.state.insert(key.clone().into(), entry);
                    self.happened.push(Happened::Touched(now_ms, key, ttl_ms));
                }
            }
            _ => {
                let had_expiry = present.as_ref().is_some_and(|(_, expiry)| expiry.is_some());
                assert_eq!(self.store().persist(&key).unwrap(), had_expiry, "{key}");
                if let Some((value, _)) = present {
                    self.state.insert(key.clone().into(), (value, None));
                    self.happened.push(Happened::Persisted(key));
                }
            }
        }
    }

    /// Notes a write that was done otherwise than by [`Op::apply`].
    fn note(&mut self, write: Write) {
        let op = Op::Write(write);
        let now_ms = self.now_ms();
        op.apply_to(&mut self.state, now_ms);
        self.happened.push(Happened::Done(now_ms, op));
    }

    /// Merges a few of the sealed segments, whichever they are, once or a few times over.
    fn merge_some(&mut self) {
        for _ in 0..=self.rng.below(2) {
            let percent = [20, 50, 80][self.rng.below(3) as usize];
            let mut some = sealed(self.store());
            some.retain(|_| self.rng.chance(percent));
            let report = self.store().compact_segments(&some).unwrap();
            assert_eq!(report.segments_merged, some.len());
            let kept = self.store().stats().tombstone_bytes > 0;
            Counts::add(&self.counts.merges, 1);
            Counts::add(&self.counts.kept_tombstones, u64::from(kept));
            Counts::add(&self.counts.dropped_records, report.records_dropped);
            let ids = some.iter().map(|id| id.get()).collect();
            self.happened.push(Happened::Merged(ids));
        }
        self.check(self.store());
        if self.rng.chance(20) {
            self.look_at_a_copy();
        }
    }

    fn check(&self, store: &SimStore) {
        let expected = visible(&self.state, self.now_ms());
        let expired = self.state.len() - expected.len();
        Counts::add(&self.counts.expired, expired as u64);
        let seen = contents(store, self.state.keys()).unwrap();
        assert!(
            seen == expected,
            "{}\nexpected {}",
            show(&seen),
            show(&expected)
        );
    }

    fn crash_plan(&mut self) -> CrashPlan {
        match self.rng.below(3) {
            0 => CrashPlan::LoseAll,
            1 => CrashPlan::KeepAll,
            _ => CrashPlan::Random(self.rng.next()),
        }
    }

    /// What another process would find if this one died now.
    fn look_at_a_copy(&mut self) {
        let plan = self.crash_plan();
        let copy = self.disk.crash(&plan);
        if self.rng.chance(50) {
            remove_hints(&copy, || self.rng.chance(70));
        }
        Counts::add(&self.counts.openings, 1);
        self.check(&self.shape.open(&copy));
    }

    fn open_again(&mut self, how: &'static str) {
        self.happened.push(Happened::Opened(how));
        Counts::add(&self.counts.openings, 1);
        self.store = Some(self.shape.open(&self.disk));
        self.check(self.store());
    }

    fn reopen(&mut self) {
        self.store = None;
        match self.rng.below(3) {
            0 => self.open_again("after a close"),
            1 => {
                remove_hints(&self.disk, || true);
                self.open_again("without hint files");
            }
            _ => {
                remove_hints(&self.disk, || self.rng.chance(50));
                self.open_again("with some hint files");
            }
        }
    }

    fn cut_the_power(&mut self) {
        let plan = self.crash_plan();
        self.disk = self.disk.crash(&plan);
        self.store = None;
        self.open_again("after a power cut");
    }

    /// The wall clock jumps back, after the store has made durable how late it was.
    fn set_the_clock_back(&mut self) {
        let key = self.key();
        let value = self.value(&key);
        self.apply(Op::Write(put_ttl(&key, value, 1)));
        self.high_water_ms = self.now_ms();
        self.store = None;
        let back_ms = self.rng.below(3000);
        self.disk.set_clock(self.disk.now_ms() - back_ms);
        self.happened.push(Happened::ClockSetBack(back_ms));
        self.open_again("after the clock was set back");
    }
}

impl Drop for Episode<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?} at {} ms", self.shape, self.now_ms());
            let first = self.happened.len().saturating_sub(400);
            for happened in &self.happened[first..] {
                eprintln!("  {happened:?}");
            }
        }
    }
}

#[test]
fn a_million_operations_bring_nothing_back() {
    const STEPS: u64 = 5000;
    let layer = Layer::begin("ghosts", "operations", 1_000_000);
    let seed = seed(30);
    let counts = Counts::default();
    in_two_threads(layer.goal().div_ceil(STEPS), |number| {
        let seed = Rng(seed ^ number).next();
        let mut episode = Episode::new(Shape::number(number), seed, &counts);
        for _ in 0..STEPS {
            episode.step();
        }
        episode.reopen();
        layer.add(STEPS);
    });
    let said = format!("{counts:?}");
    // Or it would show nothing.
    let Counts {
        kept_tombstones,
        dropped_records,
        expired,
        ..
    } = counts;
    for count in [kept_tombstones, dropped_records, expired] {
        assert!(count.into_inner() > 0);
    }
    layer.end(&said);
}

/// What a history does to a key in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    Put,
    Delete,
    Brief,
}

const LETTERS: [Letter; 3] = [Letter::Put, Letter::Delete, Letter::Brief];
const BRIEF_MS: u64 = 1000;

/// A few writes for each segment.
type History = Vec<Vec<(&'static str, Letter)>>;

/// Every order of merges of every subset, to some depth, from a history on.
struct Tree<'a> {
    hash_bits: u8,
    history: &'a History,
    state: State,
    cases: &'a AtomicU64,
}

impl Tree<'_> {
    fn grow(
        history: &History,
        hash_bits: u8,
        disk_seed: u64,
        merges: u32,
        cases: &AtomicU64,
    ) -> u64 {
        let disk = SimDisk::new(disk_seed);
        let mut tree = Tree {
            hash_bits,
            history,
            state: State::new(),
            cases,
        };
        let store = tree.open(&disk);
        for (segment, letters) in history.iter().enumerate() {
            for (key, letter) in letters {
                let value = format!("{key} in {segment}");
                let op = Op::Write(match letter {
                    Letter::Put => put(key, value),
                    Letter::Delete => delete(key),
                    Letter::Brief => put_ttl(key, value, BRIEF_MS),
                });
                op.apply(&store).unwrap();
                op.apply_to(&mut tree.state, disk.now_ms());
            }
            seal(&store);
        }
        // A delete of what is not there writes nothing.
        assert!(sealed(&store).len() <= history.len());
        drop(store);
        let has_brief = tree.state.values().any(|(_, expiry)| expiry.is_some());
        tree.branch(&disk, merges, has_brief, &mut Vec::new());
        cases.load(Ordering::Relaxed)
    }

    fn open(&self, disk: &SimDisk) -> SimStore {
        let builder = sim_builder(1024).hash_bits(self.hash_bits);
        builder.build_store_on(disk.clone()).unwrap()
    }

    /// `may_expire`: something has yet to expire.
    fn branch(&self, disk: &SimDisk, merges: u32, may_expire: bool, path: &mut Vec<Vec<u64>>) {
        self.cases.fetch_add(1, Ordering::Relaxed);
        for (has_hints, is_late) in [(false, false), (false, true), (true, true)] {
            if may_expire || !is_late {
                let copy = disk.crash(&CrashPlan::KeepAll);
                if !has_hints {
                    remove_hints(&copy, || true);
                }
                if is_late {
                    copy.advance(BRIEF_MS);
                }
                self.check(&self.open(&copy), &copy, path);
            }
        }
        let copy = disk.crash(&CrashPlan::KeepAll);
        let store = self.open(&copy);
        self.check(&store, &copy, path);
        if merges == 0 {
            return;
        }
        let ids = sealed(&store);
        drop(store);
        for subset in 1..1_u32 << ids.len() {
            let bits = (0..).zip(&ids).filter(|(bit, _)| subset & (1 << bit) != 0);
            let chosen: Vec<_> = bits.map(|(_, id)| *id).collect();
            path.push(chosen.iter().map(|id| id.get()).collect());
            let times = if may_expire { 2 } else { 1 };
            for is_late in (0..times).map(|time| time == 1) {
                let next = disk.crash(&CrashPlan::KeepAll);
                if is_late {
                    next.advance(BRIEF_MS);
                }
                let store = self.open(&next);
                store.compact_segments(&chosen).unwrap();
                self.check(&store, &next, path);
                drop(store);
                self.branch(&next, merges - 1, may_expire && !is_late, path);
            }
            path.pop();
        }
    }

    fn check(&self, store: &SimStore, disk: &SimDisk, path: &[Vec<u64>]) {
        let expected = visible(&self.state, disk.now_ms());
        let seen = contents(store, self.state.keys()).unwrap();
        assert!(
            seen == expected,
            "{}\nexpected {}\n{:?}, {} bits of hash\nmerged {path:?}",
            show(&seen),
            show(&expected),
            self.history,
            self.hash_bits,
        );
    }
}

#[test]
fn every_order_of_partial_merges_of_every_short_history_brings_nothing_back() {
    const SEGMENTS: u32 = 4;
    let cases = AtomicU64::new(0);
    in_two_threads(3_u64.pow(SEGMENTS), |number| {
        let letter = |segment| LETTERS[(number / 3_u64.pow(segment) % 3) as usize];
        let history: History = (0..SEGMENTS).map(|s| vec![("a", letter(s))]).collect();
        Tree::grow(&history, 48, number, 2, &cases);
    });
    say(
        "ghosts",
        &format!("{} orders of merges", cases.into_inner()),
    );
}

#[test]
fn every_order_of_partial_merges_of_keys_that_share_a_hash_brings_nothing_back() {
    // Of three keys two share their only bit of hash.
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let seed = seed(31);
    let cases = AtomicU64::new(0);
    in_two_threads(share(30), |number| {
        let mut rng = Rng(seed ^ number);
        let history: History = (0..4)
            .map(|_| {
                let keys = KEYS.iter().filter(|_| rng.next() % 3 > 0);
                let keys: Vec<_> = keys.copied().collect();
                let keys = if keys.is_empty() { vec!["a"] } else { keys };
                let letters = keys.into_iter();
                letters
                    .map(|key| (key, LETTERS[rng.below(3) as usize]))
                    .collect()
            })
            .collect();
        Tree::grow(&history, 1, seed ^ number, 2, &cases);
    });
    say(
        "ghosts",
        &format!("{} orders of merges", cases.into_inner()),
    );
}

fn open_small(disk: &SimDisk) -> SimStore {
    sim_builder(256).build_store_on(disk.clone()).unwrap()
}

/// Opens what a store left behind in every way: with hint files, without, after a power cut; the
/// key must be absent, and still be when all is merged.
fn is_absent_for_good(disk: &SimDisk, key: &str) {
    for plan in [CrashPlan::KeepAll, CrashPlan::LoseAll] {
        for has_hints in [true, false] {
            let copy = disk.crash(&plan);
            if !has_hints {
                remove_hints(&copy, || true);
            }
            for _ in 0..2 {
                let store = open_small(&copy);
                let found = store.get(key).unwrap();
                assert!(found.is_none(), "{plan:?}, hints: {has_hints}: {found:?}");
                store.compact().unwrap();
                assert!(store.get(key).unwrap().is_none());
            }
        }
    }
}

/// A key is put into one segment, the next one hides it, a third lies beyond: the order of
/// basho/bitcask #82.
fn put_then_hidden(hide: impl Fn(&SimStore)) -> (SimDisk, SimStore, Vec<SegmentId>) {
    let disk = SimDisk::new(82);
    let store = open_small(&disk);
    store.put("other", "stays").unwrap();
    store.put("key", "old").unwrap();
    seal(&store);
    hide(&store);
    seal(&store);
    store.put("third", "stays").unwrap();
    seal(&store);
    let ids = sealed(&store);
    assert_eq!(ids.len(), 3);
    (disk, store, ids)
}

#[test]
fn a_tombstone_merged_without_the_segment_of_the_value_stays_basho_82() {
    let (disk, store, ids) = put_then_hidden(|store| {
        assert!(store.delete("key").unwrap());
    });
    let before = store.stats().tombstone_bytes;
    store.compact_segments(&ids[1..2]).unwrap();
    assert_eq!(store.stats().tombstone_bytes, before);
    drop(store);
    is_absent_for_good(&disk, "key");
}

#[test]
fn an_expired_value_merged_without_the_segment_of_the_older_one_still_hides_it() {
    let (disk, store, ids) = put_then_hidden(|store| {
        let ttl = Duration::from_millis(10);
        store.put_with_ttl("key", "brief", ttl).unwrap();
    });
    disk.advance(10);
    store.compact_segments(&ids[1..2]).unwrap();
    // Not the value, but that there is none any more.
    assert!(store.stats().tombstone_bytes > 0);
    drop(store);
    is_absent_for_good(&disk, "key");
}

#[test]
fn a_tombstone_goes_once_no_segment_holds_the_value_and_not_before() {
    let (disk, store, ids) = put_then_hidden(|store| {
        assert!(store.delete("key").unwrap());
    });
    // The third knows nothing of the key, the first has the value.
    store.compact_segments(&ids[1..]).unwrap();
    assert!(store.stats().tombstone_bytes > 0);
    let ids = sealed(&store);
    store.compact_segments(&ids[..1]).unwrap();
    store.compact_segments(&ids[1..]).unwrap();
    assert_eq!(store.stats().tombstone_bytes, 0);
    drop(store);
    is_absent_for_good(&disk, "key");
}

/// Whether a segment file holds these bytes, by the file's number.
fn holding(disk: &SimDisk, bytes: &[u8]) -> Vec<u64> {
    let files = disk.files(Path::new("/db")).into_iter();
    files
        .filter(|(_, content)| content.windows(bytes.len()).any(|window| window == bytes))
        .filter_map(|(name, _)| name.strip_suffix(".seg")?.parse().ok())
        .collect()
}

/// basho/bitcask #148: a merge copies a value into a file with a higher number than that of the
/// file to which the delete is written meanwhile.
#[test]
fn a_delete_at_any_step_of_a_merge_wins_over_the_merged_copy_basho_148() {
    const KEY: &str = "the deleted key";
    const VALUE: &str = "the value of the deleted key";
    let mut cases = 0;
    let mut newer_copies = 0;
    // A write at step `begin` begins a segment, so that a file of the merge gets a higher number.
    let run = |begin: u64, at: u64| {
        let disk = HookedDisk::new(SimDisk::new(148));
        let store = sim_builder(256).build_store_on(disk.clone()).unwrap();
        for number in 0..3 {
            store.put(format!("live{number}"), "x".repeat(60)).unwrap();
        }
        store.put(KEY, VALUE).unwrap();
        seal(&store);
        let handle = store.clone();
        let step = move |number| {
            // A thread takes its time to begin on some systems.
            if number != begin && number != at {
                return;
            }
            let store = handle.clone();
            beside(move || {
                if number == begin {
                    store.put("beside", "stays").unwrap();
                }
                if number == at {
                    assert!(store.delete(KEY).unwrap());
                }
            });
        };
        let ids = sealed(&store);
        let steps = merge_step_by_step(&store, &disk, &ids, step).unwrap();
        (steps, disk.sim, store)
    };
    let (steps, ..) = run(u64::MAX, u64::MAX);
    assert!(steps > 6, "{steps}");
    let pairs = (0..steps).flat_map(|at| (0..=at).map(move |begin| (begin, at)));
    // A third of them each, so that all steps have their turn in a short time.
    for (begin, at) in pairs.filter(|(begin, at)| (begin + at) % 3 == 0) {
        let (_, disk, store) = run(begin, at);
        assert!(store.get(KEY).unwrap().is_none());
        let copies = holding(&disk, VALUE.as_bytes());
        let keys = holding(&disk, KEY.as_bytes());
        let tombstone = keys.into_iter().find(|id| !copies.contains(id));
        if copies.iter().any(|copy| Some(*copy) > tombstone) {
            newer_copies += u64::from(tombstone.is_some());
        }
        seal(&store);
        // The tombstone without the copy, then the copy without the tombstone, and the reverse.
        let ids = sealed(&store);
        drop(store);
        is_absent_for_good(&disk, KEY);
        for first in &ids {
            let copy = disk.crash(&CrashPlan::KeepAll);
            let store = open_small(&copy);
            store.compact_segments(&[*first]).unwrap();
            drop(store);
            is_absent_for_good(&copy, KEY);
            cases += 1;
        }
    }
    println!("{steps} steps, {cases} cases, {newer_copies} with the copy in the newer file");
    assert!(newer_copies > 0, "the case that it is about did not occur");
}

#[test]
fn a_hint_file_that_is_not_this_segment_s_own_hides_no_older_value_from_a_merge() {
    let hint = |id: &SegmentId| Path::new("/db").join(format!("{:012}.hint", id.get()));
    // So large that closing does not seal them.
    let open = |disk: &SimDisk| sim_builder(1024).build_store_on(disk.clone()).unwrap();
    let scene = || {
        let disk = SimDisk::new(5);
        let store = open(&disk);
        store.put("other", "stays").unwrap();
        // Closed in good order, a segment goes on being written to.
        store.close().unwrap();
        let earlier = disk.crash(&CrashPlan::LoseAll);
        store.put("key", "old").unwrap();
        seal(&store);
        assert!(store.delete("key").unwrap());
        seal(&store);
        let ids = sealed(&store);
        assert_eq!(ids.len(), 2);
        // The same segment's, from before it held the key.
        let store_then = open(&earlier);
        seal(&store_then);
        assert_eq!(sealed(&store_then)[0], ids[0]);
        let stale = earlier.read_raw(&hint(&ids[0])).unwrap();
        (disk, store, ids, stale)
    };
    let (disk, _, ids, stale) = scene();
    let whole = disk.read_raw(&hint(&ids[0])).unwrap();
    let of_the_next = disk.read_raw(&hint(&ids[1])).unwrap();
    let mut forged = vec![None, Some(stale), Some(of_the_next)];
    forged.extend((0..whole.len()).map(|len| Some(whole[..len].to_vec())));
    forged.extend((0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        Some(bytes)
    }));
    println!("{} hint files", forged.len());
    for bytes in forged {
        let (disk, store, ids, _) = scene();
        let path = hint(&ids[0]);
        match &bytes {
            Some(bytes) => disk.write_raw(&path, bytes),
            None => disk.remove_raw(&path),
        }
        store.compact_segments(&ids[1..]).unwrap();
        assert!(store.stats().tombstone_bytes > 0, "{bytes:?}");
        drop(store);
        is_absent_for_good(&disk, "key");
    }
}

#[test]
fn a_segment_that_cannot_be_asked_counts_as_one_that_holds_an_older_value() {
    let (disk, store, ids) = put_then_hidden(|store| {
        assert!(store.delete("key").unwrap());
    });
    let segment = Path::new("/db").join(format!("{:012}.seg", ids[0].get()));
    let undamaged = disk.read_raw(&segment).unwrap();
    remove_hints(&disk, || true);
    disk.corrupt(&segment, 70, 1);
    store.compact_segments(&ids[1..2]).unwrap();
    assert!(store.stats().tombstone_bytes > 0);
    drop(store);
    disk.write_raw(&segment, &undamaged);
    is_absent_for_good(&disk, "key");
}

/// A power cut may undo the removal of what was merged.
#[test]
fn inputs_that_a_power_cut_brings_back_are_no_part_of_the_store() {
    let mut revived = 0;
    for last in 0..3 {
        let (disk, store, ids) = put_then_hidden(|store| {
            assert!(store.delete("key").unwrap());
        });
        let files = disk.files(Path::new("/db"));
        store.compact_segments(&ids[..=last]).unwrap();
        drop(store);
        for (name, bytes) in files {
            let path = Path::new("/db").join(name);
            if disk.read_raw(&path).is_none() {
                disk.write_raw(&path, &bytes);
                revived += 1;
            }
        }
        is_absent_for_good(&disk, "key");
    }
    assert!(revived >= 6, "{revived}");
}
