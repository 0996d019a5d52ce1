//! What a crash may leave behind, and whether a store that is opened on it keeps its promises.
//!
//! Every image is opened and read completely. What is done with it then is chosen by what is on
//! it, so always in the same way: another power cut, the next write, another reopening, `verify`,
//! recovery without hint files, a read-only look beforehand, or a crash at each operation of its
//! recovery, which gives more images.
//!
//! Two images that no process could tell apart, of which the same may be expected, are one.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::common::{
    Op, Rng, SimStore, State, contents, put, remove_hints, show, sim_builder, visible,
};
use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::{CrabKvBuilder, Error, Store};

pub(crate) const DIR: &str = "/db";
pub(crate) const BACKUP: &str = "/backup";

/// How a store is opened in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    EveryWrite,
    /// The interval never ends within a test: only what syncs explicitly does.
    Interval,
    /// The buffer is never full within a test.
    WriteBack,
}

impl Mode {
    pub(crate) const ALL: [Mode; 3] = [Mode::EveryWrite, Mode::Interval, Mode::WriteBack];

    fn builder(self) -> CrabKvBuilder {
        match self {
            Mode::EveryWrite => sim_builder(512),
            Mode::Interval => sim_builder(512).sync_interval(Duration::from_secs(1 << 20)),
            Mode::WriteBack => sim_builder(512).write_back_bytes(1 << 20),
        }
    }

    pub(crate) fn open(self, disk: &SimDisk) -> crabkv::Result<SimStore> {
        self.builder().build_store_on(disk.clone())
    }

    /// Whether a write is durable when it returns.
    pub(crate) fn is_durable(self) -> bool {
        self == Mode::EveryWrite
    }

    /// Whether a write survives the death of the process when it returns.
    pub(crate) fn is_written(self) -> bool {
        self != Mode::WriteBack
    }
}

/// What the store was doing when the crash came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum During {
    Write,
    Rotation,
    Merge,
    Checkpoint,
    Recovery,
    Other,
}

impl During {
    const ALL: [(During, &str); 6] = [
        (During::Write, "a write"),
        (During::Rotation, "a rotation"),
        (During::Merge, "a merge"),
        (During::Checkpoint, "a checkpoint"),
        (During::Recovery, "recovery"),
        (During::Other, "another step"),
    ];
}

/// All that a workload went through.
pub(crate) struct Tale {
    pub(crate) mode: Mode,
    /// The state after each step, the one before the first included.
    pub(crate) states: Vec<State>,
    pub(crate) keys: Vec<Vec<u8>>,
}

/// A moment at which a crash may come: what is on the disk, and which of the tale's states may be
/// found then.
pub(crate) struct Moment {
    pub(crate) disk: SimDisk,
    pub(crate) during: During,
    pub(crate) bounds: Bounds,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The first state that a power cut may leave.
    pub(crate) durable: usize,
    /// The first one that the death of the process may leave.
    pub(crate) acknowledged: usize,
    /// The last one: what the step under way leads to.
    pub(crate) last: usize,
    /// The state that a finished checkpoint is of.
    pub(crate) backup: Option<usize>,
}

impl Bounds {
    /// When everything so far is durable.
    pub(crate) fn all_durable(self) -> Bounds {
        Bounds {
            durable: self.last,
            acknowledged: self.last,
            ..self
        }
    }

    /// The states that may be found.
    fn found(&self, is_kill: bool) -> Range<usize> {
        let first = if is_kill {
            self.acknowledged
        } else {
            self.durable
        };
        first..self.last + 1
    }
}

/// How much is done with an image, and with those that a crash within its recovery leaves.
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    /// How many crashes there were before.
    level: usize,
    /// At most so many images of one moment.
    pub(crate) limit: usize,
}

/// How many images of a moment within recovery are checked.
const LIMIT_IN_RECOVERY: usize = 6;

/// Of how many images in 1000 the recovery is interrupted, at each of its operations; and of the
/// images that this gives, once more.
const INTERRUPTED: [u64; 2] = [10, 4];

/// Where in the tree of moments and plans an image is: the number of each, level by level.
pub(crate) type Trail = Vec<(usize, usize)>;

/// Opens images and remembers which.
pub(crate) struct Examiner {
    pub(crate) seed: u64,
    /// Of the only image to look at, in a replay.
    pub(crate) only: Option<Trail>,
    seen: Vec<Mutex<HashSet<u64>>>,
    checked: [AtomicU64; During::ALL.len()],
    twice_in_recovery: AtomicU64,
    duplicates: AtomicU64,
}

impl Examiner {
    pub(crate) fn new(seed: u64) -> Examiner {
        Examiner {
            seed,
            only: None,
            seen: (0..64).map(|_| Mutex::default()).collect(),
            checked: Default::default(),
            twice_in_recovery: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
        }
    }

    pub(crate) fn top(limit: usize) -> Depth {
        Depth { level: 0, limit }
    }

    /// How many images were opened so far.
    pub(crate) fn checked(&self) -> u64 {
        let checked = self.checked.iter();
        checked.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Says where the crashes were.
    ///
    /// # Panics
    ///
    /// When none was in one of these places.
    pub(crate) fn account(&self) -> String {
        let mut words = Vec::new();
        for ((_, name), count) in During::ALL.iter().zip(&self.checked) {
            let count = count.load(Ordering::Relaxed);
            assert!(count > 0, "no crash was within {name}");
            words.push(format!("{count} within {name}"));
        }
        let twice = self.twice_in_recovery.load(Ordering::Relaxed);
        assert!(twice > 0, "no crash was within the recovery from another");
        let duplicates = self.duplicates.load(Ordering::Relaxed);
        format!(
            "{}, {twice} of these in the recovery from a crash in recovery; {duplicates} more were \
             the same as another",
            words.join(", ")
        )
    }

    /// Checks what a crash at each of the moments may leave.
    pub(crate) fn examine(
        &self,
        tale: &Tale,
        moments: impl IntoIterator<Item = Moment>,
        depth: Depth,
        trail: &mut Trail,
    ) {
        for (number, moment) in moments.into_iter().enumerate() {
            if let Some(only) = &self.only {
                if only[depth.level].0 != number {
                    continue;
                }
            }
            self.examine_moment(tale, &moment, number, (depth, true), trail);
        }
    }

    /// `may_be_killed`: whether the process alone can have died, so far.
    fn examine_moment(
        &self,
        tale: &Tale,
        moment: &Moment,
        number: usize,
        (depth, may_be_killed): (Depth, bool),
        trail: &mut Trail,
    ) {
        let now_ms = moment.disk.now_ms();
        let expected = [false, true].map(|is_kill| {
            let mut hasher = DefaultHasher::new();
            for state in &tale.states[moment.bounds.found(is_kill)] {
                visible(state, now_ms).hash(&mut hasher);
            }
            moment.bounds.backup.hash(&mut hasher);
            hasher.finish()
        });
        let seed = Rng(self.seed ^ number as u64).next();
        let plans = moment.disk.crash_plans(depth.limit, seed);
        for (plan_number, plan) in plans.iter().enumerate() {
            let is_kill = may_be_killed && *plan == CrashPlan::KeepAll;
            let image = moment.disk.crash(plan);
            trail.push((number, plan_number));
            let key = image.fingerprint() as u64 ^ expected[usize::from(is_kill)];
            let is_wanted = match &self.only {
                Some(only) => only.starts_with(trail),
                None => self.is_new(key),
            };
            if is_wanted {
                let moment = Moment {
                    disk: image,
                    ..*moment
                };
                self.check(tale, &moment, (depth, is_kill), key, trail);
                self.checked[moment.during as usize].fetch_add(1, Ordering::Relaxed);
                if depth.level == 2 {
                    self.twice_in_recovery.fetch_add(1, Ordering::Relaxed);
                }
            } else if self.only.is_none() {
                self.duplicates.fetch_add(1, Ordering::Relaxed);
            }
            trail.pop();
        }
    }

    fn is_new(&self, key: u64) -> bool {
        let seen = &self.seen[key as usize % self.seen.len()];
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(key)
    }

    /// Checks one image, `moment.disk`.
    fn check(
        &self,
        tale: &Tale,
        moment: &Moment,
        (depth, is_kill): (Depth, bool),
        key: u64,
        trail: &mut Trail,
    ) {
        let (image, bounds) = (&moment.disk, &moment.bounds);
        let mut chance = Rng(key);
        // How it is opened does not change what is found, only what is written then; and an
        // interval costs a thread.
        let mode = match tale.mode {
            Mode::EveryWrite => Mode::EveryWrite,
            mode if chance.chance(10) => mode,
            _ => Mode::EveryWrite,
        };
        let is_interrupted = match (&self.only, INTERRUPTED.get(depth.level)) {
            (Some(only), _) => only.len() > trail.len(),
            (None, Some(share)) => chance.below(1000) < *share,
            (None, None) => false,
        };
        let lot = chance.below(16);
        let is_before = matches!(lot, 8 | 10..12);
        let before = is_before.then(|| image.crash(&CrashPlan::KeepAll));
        if is_interrupted {
            image.keep_moments();
        }
        let store = open(mode, image, "reopening");
        let moments = image.take_moments();
        let seen = contents(&store, &tale.keys).unwrap();
        let now_ms = image.now_ms();
        let found = bounds.found(is_kill);
        let may_be = |state: &State| visible(state, now_ms) == seen;
        if !tale.states[found.clone()].iter().any(may_be) {
            let states: Vec<_> = tale.states.iter().map(show).collect();
            panic!(
                "found {}\nbut may be {found:?} of {states:#?}\n{:?}",
                show(&seen),
                store.recovery_report(),
            );
        }
        match lot {
            0..3 => cut_again(image, &seen, tale, key),
            3..6 => write_next(mode, image, store, seen, tale),
            6 => verify(image, store),
            7 => scan_again(image, store, &seen, tale),
            8 => before.iter().for_each(|disk| read_only(disk, &seen, tale)),
            9 => reopen(image, store, &seen, tale),
            10..12 => before
                .iter()
                .for_each(|disk| look_at_backup(disk, tale, bounds)),
            _ => {}
        }
        let depth = Depth {
            level: depth.level + 1,
            limit: LIMIT_IN_RECOVERY,
        };
        for (number, disk) in moments.into_iter().enumerate() {
            let moment = Moment {
                disk,
                during: During::Recovery,
                bounds: *bounds,
            };
            self.examine_moment(tale, &moment, number, (depth, is_kill), trail);
        }
    }
}

fn open(mode: Mode, disk: &SimDisk, what: &str) -> SimStore {
    let opened = mode.open(disk);
    opened.unwrap_or_else(|error| panic!("{what} fails: {error}"))
}

/// Opens the store on a disk, which is to hold what was seen.
fn find(disk: &SimDisk, seen: &State, tale: &Tale, what: &str) -> SimStore {
    let store = open(Mode::EveryWrite, disk, what);
    let found = contents(&store, &tale.keys).unwrap();
    assert_eq!(show(&found), show(seen), "{what}");
    store
}

/// What was seen once is not lost in a power cut right after it.
fn cut_again(image: &SimDisk, seen: &State, tale: &Tale, key: u64) {
    let plan = if key & 1 == 0 {
        CrashPlan::LoseAll
    } else {
        CrashPlan::Random(key)
    };
    let after = image.crash(&plan);
    find(&after, seen, tale, "a second reopening after a power cut");
}

/// The next write works, and is there after a power cut and after a clean close.
fn write_next(mode: Mode, image: &SimDisk, store: SimStore, seen: State, tale: &Tale) {
    let mut expected = seen;
    let write = Op::Write(put("next", "works"));
    write.apply(&store).unwrap();
    if !mode.is_durable() {
        store.sync().unwrap();
    }
    write.apply_to(&mut expected, image.now_ms());
    let after = image.crash(&CrashPlan::LoseAll);
    find(&after, &expected, tale, "a power cut after the next write");
    drop(store);
    let store = find(image, &expected, tale, "closing after the next write");
    let report = store.recovery_report();
    let is_clean = report.clean && report.torn_tail.is_none();
    assert!(is_clean, "after a clean close: {report:?}");
}

/// What recovery leaves is sound to the last byte.
fn verify(image: &SimDisk, store: SimStore) {
    drop(store);
    let report = crabkv::verify_on(image, DIR, crate::common::go_on).unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
}

/// Hint files and the records that they are made of say the same.
fn scan_again(image: &SimDisk, store: SimStore, seen: &State, tale: &Tale) {
    drop(store);
    remove_hints(image, || true);
    find(image, seen, tale, "reopening without hint files");
}

/// A reader who changes nothing sees what recovery finds.
fn read_only(before: &SimDisk, seen: &State, tale: &Tale) {
    let builder = sim_builder(512).read_only(true);
    match builder.build_store_on(before.clone()) {
        Ok(store) => {
            let found = contents(&store, &tale.keys).unwrap();
            assert_eq!(show(&found), show(seen), "opening read-only");
        }
        // Before its first manifest it is no store, and nothing can be in it.
        Err(Error::NotFound { .. }) => assert!(seen.is_empty(), "opening read-only finds nothing"),
        Err(error) => panic!("opening read-only fails: {error}"),
    }
}

/// Closing and opening again changes nothing, and finds nothing to mend.
fn reopen(image: &SimDisk, store: SimStore, seen: &State, tale: &Tale) {
    drop(store);
    let store = find(image, seen, tale, "reopening");
    let report = store.recovery_report();
    let is_clean = report.clean && report.torn_tail.is_none() && report.scanned.is_empty();
    assert!(is_clean, "after a clean close: {report:?}");
    drop(store);
    let files = image.files(Path::new(DIR));
    drop(find(image, seen, tale, "reopening once more"));
    let again = image.files(Path::new(DIR));
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&again), names(&files), "reopening leaves other files");
}

/// A checkpoint that was finished is there, or the next one; one that was not says so.
fn look_at_backup(before: &SimDisk, tale: &Tale, bounds: &Bounds) {
    let builder = Store::builder(BACKUP)
        .create_if_missing(false)
        .segment_size(512);
    let now_ms = before.now_ms();
    match builder.build_store_on(before.clone()) {
        Ok(store) => {
            let seen = contents(&store, &tale.keys).unwrap();
            let first = bounds.backup.unwrap_or(0);
            let mut states = tale.states[first..=bounds.last].iter();
            let may_be = |state: &State| visible(state, now_ms) == seen;
            assert!(states.any(may_be), "the checkpoint has {}", show(&seen));
        }
        Err(error) => {
            let is_none = matches!(error, Error::NotFound { .. } | Error::Checkpoint { .. });
            let is_expected = is_none && bounds.backup.is_none();
            assert!(is_expected, "opening the checkpoint fails: {error}");
        }
    }
}
