//! The reference workloads: together they use every kind of disk operation that a store makes.

use std::time::Duration;

use crate::common::{Op, Rng, Write, delete, put, put_ttl, sim_builder};
use crabkv::{CrabKvBuilder, ReadMode};

/// When a write is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    EveryWrite,
    /// The interval never ends within a test: only what syncs explicitly does.
    Interval,
    WriteBack,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) durability: Durability,
    pub(super) read_mode: ReadMode,
    pub(super) compression: bool,
    pub(super) hash_bits: u8,
    pub(super) segment_size: u64,
    pub(super) has_background_compaction: bool,
}

impl Settings {
    pub(super) const PLAIN: Settings = Settings {
        durability: Durability::EveryWrite,
        read_mode: ReadMode::Mmap,
        compression: false,
        hash_bits: 48,
        segment_size: 512,
        has_background_compaction: false,
    };

    fn any(rng: &mut Rng) -> Settings {
        Settings {
            durability: [
                Durability::EveryWrite,
                Durability::EveryWrite,
                Durability::Interval,
                Durability::WriteBack,
            ][rng.below(4) as usize],
            read_mode: if rng.chance(30) {
                ReadMode::Pread
            } else {
                ReadMode::Mmap
            },
            compression: rng.chance(30),
            hash_bits: if rng.chance(30) { 3 } else { 48 },
            ..Settings::PLAIN
        }
    }

    pub(super) fn builder(&self) -> CrabKvBuilder {
        let builder = sim_builder(self.segment_size)
            .read_mode(self.read_mode)
            .compression(self.compression)
            .hash_bits(self.hash_bits)
            .async_compaction(self.has_background_compaction);
        match self.durability {
            Durability::EveryWrite => builder,
            Durability::Interval => builder.sync_interval(Duration::from_secs(1 << 20)),
            Durability::WriteBack => builder.write_back_cache(true).write_back_bytes(700),
        }
    }
}

/// What is done to a store, and beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Op(Op),
    /// Merges every other sealed segment.
    MergeSome,
    /// Reopens after all hint files were removed.
    ReopenWithoutHints,
    /// Makes a checkpoint, or brings it up to date.
    Checkpoint,
    /// Restores the checkpoint into a directory of its own.
    Restore,
    /// Closes the store, repairs it into another directory, and opens it again.
    Repair,
    Verify,
    /// Opens the store read-only, or lets the one that is open so catch up.
    Follow,
}

#[derive(Clone, Debug)]
pub(super) struct Workload {
    #[expect(dead_code, reason = "shown by a failure")]
    name: String,
    pub(super) settings: Settings,
    pub(super) steps: Vec<Step>,
}

impl Workload {
    fn new(name: &str, settings: Settings, steps: Vec<Step>) -> Workload {
        Workload {
            name: name.to_owned(),
            settings,
            steps,
        }
    }

    /// All that it writes, and what is written after it.
    pub(super) fn writes(&self) -> Vec<Write> {
        let ops = self.steps.iter().filter_map(|step| match step {
            Step::Op(op) => Some(op),
            _ => None,
        });
        let mut writes: Vec<_> = ops.flat_map(Op::writes).cloned().collect();
        writes.extend([put("last", "write"), put("room", "again")]);
        writes
    }

    /// All keys that it writes.
    pub(super) fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<_> = self.writes().into_iter().map(|write| write.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// A workload of which everything but its seed is chosen at random.
    pub(super) fn random(seed: u64) -> Workload {
        let mut rng = Rng(seed);
        let settings = Settings::any(&mut rng);
        let mut steps: Vec<_> = (0..16).map(|n| random_step(&mut rng, n)).collect();
        // These make a directory that must not exist.
        for step in [Step::Restore, Step::Repair] {
            let mut met = false;
            steps.retain(|other| *other != step || !std::mem::replace(&mut met, true));
        }
        Workload::new(&format!("random {seed}"), settings, steps)
    }
}

fn write(key: &str, value: impl AsRef<[u8]>) -> Step {
    Step::Op(Op::Write(put(key, value)))
}

fn remove(key: &str) -> Step {
    Step::Op(Op::Write(delete(key)))
}

pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed);
    (0..len).map(|_| rng.next() as u8).collect()
}

/// Puts of different values to a few keys: half of a segment each four.
fn some_writes(from: u64, count: u64) -> Vec<Step> {
    (from..from + count)
        .map(|i| write(&format!("k{}", i % 4), noise(70, i)))
        .collect()
}

/// More than the log has to hold for automatic compaction, most of it stale.
fn large_writes() -> Vec<Step> {
    let mut steps: Vec<_> = (0..14)
        .map(|i| write(&format!("k{}", i % 3), noise(90 << 10, i)))
        .collect();
    steps.push(remove("k0"));
    steps.push(write("k1", "small"));
    steps
}

/// The workloads that are always run, in full.
pub(super) fn fixed() -> Vec<Workload> {
    let plain = Settings::PLAIN;
    let fill = "x".repeat(100);
    let writes = some_writes;
    vec![
        Workload::new("rotation", plain, writes(0, 12)),
        Workload::new(
            "large records, batches, expiry",
            plain,
            vec![
                write("a", "1"),
                write("b", fill.repeat(6)),
                Step::Op(Op::Batch(vec![put("a", "2"), delete("b"), put("c", &fill)])),
                remove("a"),
                Step::Op(Op::Reopen),
                write("a", "3"),
                Step::Op(Op::Close),
                Step::Op(Op::Write(put_ttl("d", &fill, 500))),
                Step::Op(Op::Advance(1000)),
                Step::Op(Op::Compact),
                write("e", "5"),
            ],
        ),
        Workload::new(
            "merges",
            plain,
            [
                writes(0, 9),
                vec![remove("k1"), Step::MergeSome, write("k2", "2")],
                vec![Step::MergeSome, Step::Op(Op::Compact), remove("k3")],
                vec![Step::Op(Op::Reopen), Step::Op(Op::Compact)],
                writes(20, 2),
            ]
            .concat(),
        ),
        Workload::new(
            "opening by scanning, preads",
            Settings {
                read_mode: ReadMode::Pread,
                ..plain
            },
            [
                writes(0, 7),
                vec![Step::ReopenWithoutHints, remove("k0"), write("k1", "1")],
                vec![Step::MergeSome, Step::ReopenWithoutHints],
                writes(10, 4),
                vec![Step::Op(Op::Compact), Step::Op(Op::Reopen)],
            ]
            .concat(),
        ),
        Workload::new(
            "checkpoints",
            plain,
            [
                writes(0, 6),
                vec![Step::Checkpoint, remove("k1")],
                writes(6, 3),
                vec![Step::Op(Op::Compact), write("k0", "0"), Step::Checkpoint],
                vec![Step::Restore, write("k1", "1")],
            ]
            .concat(),
        ),
        Workload::new(
            "repair and verify",
            Settings {
                compression: true,
                ..plain
            },
            [
                writes(0, 6),
                vec![write("k3", &fill), Step::Verify, remove("k0")],
                vec![Step::Repair, Step::Verify],
                writes(8, 2),
            ]
            .concat(),
        ),
        Workload::new(
            "write-back",
            Settings {
                durability: Durability::WriteBack,
                ..plain
            },
            [
                writes(0, 3),
                vec![Step::Op(Op::Flush), remove("k0")],
                writes(3, 12),
                vec![Step::Op(Op::Sync), write("k1", &fill), Step::Op(Op::Close)],
                writes(16, 3),
                vec![Step::Op(Op::Compact), remove("k2"), Step::Op(Op::Reopen)],
                writes(20, 2),
            ]
            .concat(),
        ),
        Workload::new(
            "interval",
            Settings {
                durability: Durability::Interval,
                ..plain
            },
            [
                writes(0, 3),
                vec![Step::Op(Op::Sync), remove("k0")],
                writes(4, 6),
                vec![Step::Op(Op::Close), write("k1", &fill)],
                vec![Step::MergeSome, write("k2", "2"), Step::Op(Op::Reopen)],
                writes(11, 3),
                vec![Step::Checkpoint, write("k3", "3")],
            ]
            .concat(),
        ),
        Workload::new(
            "a follower",
            Settings {
                hash_bits: 3,
                ..plain
            },
            [
                writes(0, 3),
                vec![Step::Follow, remove("k0")],
                writes(4, 5),
                vec![Step::Follow, Step::MergeSome, Step::Follow],
                vec![Step::Op(Op::Compact), write("k1", "1"), Step::Follow],
            ]
            .concat(),
        ),
    ]
}

/// Workloads of a mebibyte and more, during which the store compacts by itself: by its writers, and
/// in a thread of its own.
pub(super) fn large() -> Vec<Workload> {
    let settings = Settings {
        segment_size: 128 << 10,
        ..Settings::PLAIN
    };
    let background = Settings {
        has_background_compaction: true,
        ..settings
    };
    vec![
        Workload::new("compaction by writers", settings, large_writes()),
        Workload::new("compaction in the background", background, large_writes()),
    ]
}

fn random_step(rng: &mut Rng, number: u64) -> Step {
    let write = |rng: &mut Rng| {
        let key = format!("k{}", rng.below(5));
        let value = format!("{number}.{}-", rng.below(9)).repeat(1 + rng.below(40) as usize);
        match rng.below(8) {
            0..6 => put(&key, value),
            6 => delete(&key),
            _ => put_ttl(&key, value, 1 + rng.below(1000)),
        }
    };
    Step::Op(match rng.below(24) {
        0..12 => Op::Write(write(rng)),
        12..14 => Op::Batch((0..4).map(|_| write(rng)).collect()),
        14 => Op::Sync,
        15 => Op::Compact,
        16 => Op::Reopen,
        17 => Op::Close,
        18 => Op::Advance(rng.below(800)),
        19 => return Step::MergeSome,
        20 => return Step::Checkpoint,
        21 => return [Step::Restore, Step::Repair, Step::Verify][rng.below(3) as usize].clone(),
        22 => return Step::ReopenWithoutHints,
        _ => return Step::Follow,
    })
}
