//! What the model test does to a store, one step at a time: each says everything about itself, so
//! that any steps can be left out of a list and the rest still makes sense.

use crate::common::Rng;
use crabkv::disk::CrashPlan;

/// A step. Keys are numbers, [`key`] names them; values are made from the place in the list at
/// which they are written, and are as long as the step says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Key, length of the value.
    Put(u16, u32),
    /// Key, length, milliseconds to live.
    PutFor(u16, u32, u64),
    /// Key, length, when it expires: so many milliseconds from now, or ago.
    PutAt(u16, u32, i64),
    Delete(u16),
    /// Any of the above, all or nothing.
    Batch(Vec<Step>),
    PutIfAbsent(u16, u32),
    /// Compares with the version that is there, and swaps.
    Swap(u16, u32),
    /// Compares with a version that is not there: a conflict.
    SwapStale(u16, u32),
    /// Compares with the version that is there, and deletes.
    SwapAway(u16),
    Touch(u16, u64),
    Persist(u16),
    Update(u16, u32),
    UpdateAway(u16),
    Modify(u16, u32, i64),
    /// Adds to the value of a key that is used for nothing else.
    Increment(i64),
    Get(u16),
    GetMany(u16, u16),
    /// Everything there is, by an iteration that is interrupted after so many keys.
    Iterate(u16),
    /// The keys that begin as this one does.
    Prefix(u16),
    /// All keys, so many at a time.
    Scan(u16),
    Sync,
    Flush,
    Merge,
    /// Merges the sealed segments whose bits are set.
    MergeSome(u16),
    Close,
    /// Drops the store and opens it again, without the hint files whose bits are set.
    Reopen(u16),
    Advance(u64),
    /// The wall clock jumps back.
    SetBack(u64),
    /// The process or the machine dies between two operations.
    Crash(CrashPlan),
    /// It dies at the disk operation of this number from now on, in whatever step that comes; and
    /// once more at the second number, while it is opened again.
    CrashWithin(u64, u64, CrashPlan),
    /// Makes a checkpoint, or brings the one there is up to date.
    Checkpoint,
    /// Makes a store of the checkpoint, and goes on with it in place of the store, or not.
    Restore(bool),
    /// Looks from a read-only store beside the one that writes.
    Follow,
}

/// The key that stands for a number. The first is empty; the others have two beginnings.
pub(crate) fn key(number: u16) -> Vec<u8> {
    match number {
        0 => Vec::new(),
        odd if odd % 2 == 1 => format!("a/{odd}").into(),
        even => format!("b/{even}").into(),
    }
}

/// The key that [`Step::Increment`] adds to.
pub(crate) const COUNTER: &str = "counter";

/// The value that is written at this place of a list.
pub(crate) fn value(place: u32, len: u32) -> Vec<u8> {
    let text = format!("{place}.").into_bytes();
    text.into_iter().cycle().take(len as usize).collect()
}

/// Random steps on so many keys, with values up to a length.
pub(crate) struct Steps<'r> {
    pub(crate) rng: &'r mut Rng,
    pub(crate) keys: u64,
    pub(crate) longest: u64,
}

impl Steps<'_> {
    pub(crate) fn list(&mut self, len: u64) -> Vec<Step> {
        (0..len).map(|_| self.step()).collect()
    }

    fn key(&mut self) -> u16 {
        // A few keys are hot.
        let keys = if self.rng.chance(30) {
            self.keys.min(5)
        } else {
            self.keys
        };
        self.rng.below(keys) as u16
    }

    fn len(&mut self) -> u32 {
        match self.rng.below(20) {
            0 => self.rng.below(2) as u32,
            1 => self.longest as u32,
            _ => self.rng.below(self.longest) as u32,
        }
    }

    fn ttl_ms(&mut self) -> u64 {
        1 + self.rng.below([100, 1000, 5000][self.rng.0 as usize % 3])
    }

    fn relative_ms(&mut self) -> i64 {
        i64::from(self.rng.below(3000) as u32) - 500
    }

    fn write(&mut self) -> Step {
        match self.rng.below(100) {
            0..57 => Step::Put(self.key(), self.len()),
            57..67 => Step::PutFor(self.key(), self.len(), self.ttl_ms()),
            67..70 => Step::PutAt(self.key(), self.len(), self.relative_ms()),
            _ => Step::Delete(self.key()),
        }
    }

    fn plan(&mut self) -> CrashPlan {
        match self.rng.below(4) {
            0 => CrashPlan::LoseAll,
            1 => CrashPlan::KeepAll,
            _ => CrashPlan::Random(self.rng.next()),
        }
    }

    fn conditional(&mut self) -> Step {
        match self.rng.below(10) {
            0 => Step::PutIfAbsent(self.key(), self.len()),
            1 => Step::Swap(self.key(), self.len()),
            2 => Step::SwapStale(self.key(), self.len()),
            3 => Step::SwapAway(self.key()),
            4 => Step::Touch(self.key(), self.ttl_ms()),
            5 => Step::Persist(self.key()),
            6 => Step::Update(self.key(), self.len()),
            7 => Step::UpdateAway(self.key()),
            8 => Step::Modify(self.key(), self.len(), self.relative_ms()),
            _ => Step::Increment(i64::from(self.rng.below(2000) as u32) - 1000),
        }
    }

    fn step(&mut self) -> Step {
        match self.rng.below(1000) {
            0..480 => self.write(),
            480..560 => Step::Batch((0..self.rng.below(6)).map(|_| self.write()).collect()),
            560..660 => self.conditional(),
            660..780 => Step::Get(self.key()),
            780..800 => Step::GetMany(self.key(), self.key()),
            800..810 => Step::Iterate(self.key()),
            810..820 => Step::Prefix(self.key()),
            820..830 => Step::Scan(1 + self.key()),
            830..845 => Step::Sync,
            845..855 => Step::Flush,
            855..862 => Step::Merge,
            862..890 => Step::MergeSome(self.rng.next() as u16 & self.rng.next() as u16),
            890..893 => Step::Close,
            893..905 => {
                let kept = self.rng.chance(50);
                Step::Reopen(if kept { 0 } else { self.rng.next() as u16 })
            }
            905..945 => Step::Advance(self.rng.below(400)),
            945..948 => Step::Advance(self.rng.below(100_000)),
            948..952 => Step::SetBack(self.rng.below(3000)),
            952..958 => Step::Crash(self.plan()),
            958..970 => {
                let second = if self.rng.chance(50) { 12 } else { 100 };
                let (first, second) = (self.rng.below(40), self.rng.below(second));
                Step::CrashWithin(first, second, self.plan())
            }
            970..975 => Step::Checkpoint,
            975..979 => Step::Restore(self.rng.chance(50)),
            _ => Step::Follow,
        }
    }
}
