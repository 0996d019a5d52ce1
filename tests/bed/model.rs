//! Random operations on a store and on a `BTreeMap`, in every mode, with reopening, expiry,
//! compaction, missing hint files and crashes. `CRABKV_EFFORT` multiplies the work.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::common::{
    Op, Rng, SimStore, State, contents, delete, effort, entry_of, is_kind, put, put_ttl, seed,
    show, sim_builder, visible,
};
use crabkv::disk::{CrashPlan, Disk, SimDisk};
use crabkv::{CrabKvBuilder, ReadMode};

struct Model {
    build: fn() -> CrabKvBuilder,
    disk: SimDisk,
    store: Option<SimStore>,
    state: State,
    keys: u64,
    longest: u64,
    /// Values lie in a buffer until they are flushed.
    is_write_back: bool,
    number: u64,
}

impl Model {
    fn new(build: fn() -> CrabKvBuilder, keys: u64, longest: u64, seed: u64) -> Model {
        let disk = SimDisk::new(seed);
        let store = Some(build().build_store_on(disk.clone()).unwrap());
        Model {
            build,
            disk,
            store,
            state: State::new(),
            keys,
            longest,
            is_write_back: false,
            number: 0,
        }
    }

    fn store(&self) -> &SimStore {
        self.store.as_ref().unwrap()
    }

    fn key(&self, rng: &mut Rng) -> String {
        // A few keys are hot.
        let keys = if rng.chance(30) { 5 } else { self.keys };
        format!("key{}", rng.below(keys))
    }

    fn random_write(&mut self, rng: &mut Rng) -> crate::common::Write {
        self.number += 1;
        let key = self.key(rng);
        let text = format!("{}-{key}-", self.number);
        let times = 1 + rng.below(self.longest) as usize / text.len();
        match rng.below(10) {
            0..6 => put(&key, text.repeat(times)),
            6..9 => delete(&key),
            _ => put_ttl(&key, text.repeat(times), 1 + rng.below(5000)),
        }
    }

    /// One random operation, with its result checked.
    fn step(&mut self, rng: &mut Rng) {
        let now_ms = self.disk.now_ms();
        let op = match rng.below(1000) {
            0..500 => Op::Write(self.random_write(rng)),
            500..600 => Op::Batch((0..rng.below(6)).map(|_| self.random_write(rng)).collect()),
            600..850 => return self.read(rng),
            850..920 => return self.conditional(rng),
            920..960 => Op::Advance(rng.below(1000)),
            960..975 => Op::Sync,
            975..985 => Op::Flush,
            985..990 => Op::Compact,
            990..992 => Op::Close,
            992..996 => return self.reopen(rng),
            996..998 => return self.crash(rng),
            _ => return self.check(),
        };
        if let Op::Advance(ms) = op {
            self.disk.advance(ms);
        } else {
            op.apply(self.store()).unwrap();
            op.apply_to(&mut self.state, now_ms);
        }
    }

    fn expected(&self, key: &str) -> Option<(Vec<u8>, Option<u64>)> {
        let entry = self.state.get(key.as_bytes())?;
        let now_ms = self.disk.now_ms();
        entry
            .1
            .is_none_or(|expiry| expiry > now_ms)
            .then(|| entry.clone())
    }

    fn read(&self, rng: &mut Rng) {
        let key = self.key(rng);
        let expected = self.expected(&key);
        let value = self.store().get(&key).unwrap();
        assert_eq!(value.as_ref().map(entry_of), expected, "{key}");
        let reader = self.store().reader();
        let bytes = expected.as_ref().map(|(bytes, _)| &bytes[..]);
        assert_eq!(reader.get(&key).unwrap(), bytes, "{key}");
        assert_eq!(
            self.store().contains_key(&key).unwrap(),
            bytes.is_some(),
            "{key}"
        );
        let many = self.store().get_many(&[key.as_str(), "absent"]).unwrap();
        assert_eq!((many[0].as_deref(), many[1].is_none()), (bytes, true));
    }

    fn conditional(&mut self, rng: &mut Rng) {
        let key = self.key(rng);
        let now_ms = self.disk.now_ms();
        let present = self.expected(&key);
        let store = self.store();
        let number = rng.next().to_string().into_bytes();
        let change = match rng.below(6) {
            0 => {
                assert_eq!(
                    store.put_if_absent(&key, &number).unwrap(),
                    present.is_none()
                );
                present.clone().or(Some((number, None)))
            }
            1 => {
                let seen = store.get(&key).unwrap().and_then(|value| value.version());
                if seen.is_some() || present.is_none() {
                    store.compare_and_swap(&key, seen, &number).unwrap();
                    Some((number, None))
                } else {
                    present.clone()
                }
            }
            2 => {
                let was_there = store.touch(&key, Duration::from_millis(700)).unwrap();
                assert_eq!(was_there, present.is_some());
                present
                    .clone()
                    .map(|(value, _)| (value, Some(now_ms + 700)))
            }
            3 => {
                let had_expiry = present.as_ref().is_some_and(|(_, expiry)| expiry.is_some());
                assert_eq!(store.persist(&key).unwrap(), had_expiry);
                present.clone().map(|(value, _)| (value, None))
            }
            4 => {
                assert_eq!(store.delete(&key).unwrap(), present.is_some());
                None
            }
            _ => {
                let new = store.update(&key, |old| {
                    assert_eq!(old, present.as_ref().map(|(value, _)| &value[..]));
                    old.map(|old| [&number[..10], &old[..old.len().min(50)]].concat())
                });
                let expiry = present.as_ref().and_then(|(_, expiry)| *expiry);
                new.unwrap().map(|new| (new, expiry))
            }
        };
        match change {
            Some(entry) => self.state.insert(key.into(), entry),
            None => self.state.remove(key.as_bytes()),
        };
    }

    fn check(&self) {
        let expected = visible(&self.state, self.disk.now_ms());
        let seen = contents(self.store(), self.state.keys()).unwrap();
        assert!(
            seen == expected,
            "{}\nexpected {}",
            show(&seen),
            show(&expected)
        );
    }

    fn reopen(&mut self, rng: &mut Rng) {
        self.store = None;
        let dir = std::path::Path::new("/db");
        if rng.chance(50) {
            for (name, _) in self.disk.files(dir) {
                if is_kind(&name, "hint") && rng.chance(50) {
                    self.disk.remove_raw(&dir.join(name));
                }
            }
        }
        self.store = Some((self.build)().build_store_on(self.disk.clone()).unwrap());
        assert!(self.store().recovery_report().clean);
        self.check();
    }

    fn crash(&mut self, rng: &mut Rng) {
        if self.is_write_back {
            self.store().flush().unwrap();
        }
        self.store().sync().unwrap();
        let plan = if rng.chance(50) {
            CrashPlan::LoseAll
        } else {
            CrashPlan::Random(rng.next())
        };
        let after = self.disk.crash(&plan);
        self.store = None;
        self.disk = after;
        self.store = Some((self.build)().build_store_on(self.disk.clone()).unwrap());
        self.check();
    }
}

fn run(build: fn() -> CrabKvBuilder, steps: u64, keys: u64, longest: u64, fixed_seed: u64) {
    run_with(build, steps, keys, longest, fixed_seed, false);
}

fn run_with(
    build: fn() -> CrabKvBuilder,
    steps: u64,
    keys: u64,
    longest: u64,
    fixed_seed: u64,
    is_write_back: bool,
) {
    let seed = seed(fixed_seed);
    let mut rng = Rng(seed);
    let mut model = Model::new(build, keys, longest, seed);
    model.is_write_back = is_write_back;
    for _ in 0..effort(steps) {
        model.step(&mut rng);
    }
    model.reopen(&mut rng);
    println!("{} operations", effort(steps));
}

const NEVER: Duration = Duration::from_secs(1 << 20);

#[test]
fn a_store_that_syncs_every_write_is_a_map() {
    run(|| sim_builder(1024), 4000, 100, 120, 10);
}

#[test]
fn a_store_that_syncs_at_an_interval_is_a_map() {
    run(
        || sim_builder(2048).sync_interval(NEVER),
        6000,
        200,
        200,
        11,
    );
}

#[test]
fn a_store_with_large_segments_is_a_map() {
    run(
        || sim_builder(1 << 20).sync_interval(NEVER),
        6000,
        1000,
        4000,
        12,
    );
}

#[test]
fn a_store_with_a_write_back_buffer_is_a_map() {
    let build = || sim_builder(2048).write_back_bytes(2000);
    run_with(build, 6000, 60, 120, 13, true);
}

#[test]
fn a_store_that_compresses_is_a_map() {
    let build = || {
        let cache = NonZeroUsize::new(20).unwrap();
        sim_builder(2048)
            .sync_interval(NEVER)
            .compression(true)
            .cache_capacity(cache)
    };
    run(build, 4000, 60, 3000, 14);
}

#[test]
fn a_store_read_by_pread_is_a_map() {
    let build = || {
        let cache = NonZeroUsize::new(20).unwrap();
        sim_builder(2048)
            .read_mode(ReadMode::Pread)
            .cache_capacity(cache)
    };
    run(build, 3000, 60, 300, 15);
}

#[test]
fn a_store_of_a_few_hashes_is_a_map() {
    run(|| sim_builder(1024).hash_bits(4), 4000, 60, 100, 16);
}
