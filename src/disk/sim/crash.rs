//! What a power cut, or the death of the process, leaves on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SimDisk;
use super::directory::{DirId, DirOp, Directory};
use super::fault::Faults;
use super::file::{FileId, FileOp, FileState, grow};
use super::rng::Rng;
use super::state::State;
use crate::sync::Mutex;

/// Up to this many changes, [`SimDisk::crash_plans`] has every subset of them.
const MAX_EXHAUSTIVE_OPS: usize = 6;

/// How many torn images [`SimDisk::crash_plans`] has at most for each unsynced write, where it
/// has every subset anyway.
const TORN_PLANS_PER_WRITE: usize = 8;

/// Which of the changes that were never synced survive a crash.
///
/// Changes are numbered in the order in which they were made, over all files and directories,
/// from 0 to [`SimDisk::unsynced_ops`]. A change that survives is applied to what survived before
/// it, in that order. A write that [`SimDisk::stop_at`] interrupted is the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrashPlan {
    /// Nothing that was not synced survives.
    LoseAll,
    /// The process was killed, the machine runs on: everything can be read as before, and what was
    /// not synced is still not synced. An interrupted write was not begun.
    KeepAll,
    /// The first so many changes survive.
    Prefix(usize),
    /// All changes survive but this one.
    DropOne(usize),
    /// Only this change survives.
    KeepOne(usize),
    /// The changes survive whose bits are set, the lowest bit being the first change. None
    /// survives beyond the 64th.
    Subset(u64),
    /// All changes survive, but the last of the writes is torn, in a way that the seed chooses.
    TornLast(u64),
    /// The seed chooses what survives, and which of the surviving writes are torn.
    ///
    /// A torn write lost its beginning, its end, some of its sectors, all of its bytes, or the
    /// growth of its file; cut at a byte, or where the file has a boundary of 512 or 4096 bytes.
    /// In place of the lost bytes are the old ones, zeros or garbage. The file is as long as the
    /// write made it, or as long as what survived.
    Random(u64),
}

impl SimDisk {
    /// How many changes of files and directories no sync has made durable yet, an interrupted
    /// write included.
    pub fn unsynced_ops(&self) -> usize {
        self.state().unsynced().len()
    }

    /// The disk that the next process finds after a crash: another one, independent of this one,
    /// on which nobody holds a lock or an open file and nothing is set to fail.
    ///
    /// The same disk and plan always give the same image.
    #[must_use]
    pub fn crash(&self, plan: &CrashPlan) -> SimDisk {
        let state = self.state();
        let mut next;
        if *plan == CrashPlan::KeepAll {
            next = state.without_processes(None);
        } else {
            next = state.without_volatile();
            let changes = state.unsynced();
            for (change, fate) in changes.iter().zip(fates(&changes, plan)) {
                next.survive(change, fate);
            }
            next.settle();
        }
        next.forget_all_unreachable();
        SimDisk {
            state: Arc::new(Mutex::new(next)),
        }
    }

    /// At most `limit` plans for a crash at this moment: every subset of few unsynced changes,
    /// prefixes, single drops, single keeps and random choices of many, and torn writes.
    ///
    /// The same disk, limit and seed always give the same plans.
    pub fn crash_plans(&self, limit: usize, seed: u64) -> Vec<CrashPlan> {
        let state = self.state();
        let changes = state.unsynced();
        let count = changes.len();
        let write_count = changes.iter().filter(|change| change.is_write()).count();

        let mut plans = vec![CrashPlan::LoseAll];
        if count > 0 || state.is_ahead_of_durable() {
            plans.push(CrashPlan::KeepAll);
        }
        let mut torn_count = limit;
        if count <= MAX_EXHAUSTIVE_OPS && limit > 1 << count {
            plans.extend((1..1 << count).map(CrashPlan::Subset));
            torn_count = TORN_PLANS_PER_WRITE * write_count;
        } else {
            let share = limit / 4;
            plans.extend(spread(count, share).map(|index| CrashPlan::Prefix(index + 1)));
            plans.extend(spread(count, share).map(CrashPlan::DropOne));
            plans.extend(spread(count, share).map(CrashPlan::KeepOne));
        }
        let mut rng = Rng::new(seed);
        for index in 0..torn_count.min(limit.saturating_sub(plans.len())) {
            plans.push(if write_count > 0 && index % 2 == 0 {
                CrashPlan::TornLast(rng.next())
            } else {
                CrashPlan::Random(rng.next())
            });
        }
        plans.truncate(limit);
        plans
    }
}

/// About `share` of the numbers below `count`, at even distances, the last one included.
fn spread(count: usize, share: usize) -> impl Iterator<Item = usize> {
    let share = share.min(count);
    (1..=share).map(move |step| step * count / share - 1)
}

/// A change that no sync has made durable.
enum Change<'a> {
    File(FileId, &'a FileOp),
    Directory(DirId, &'a DirOp),
}

impl Change<'_> {
    fn is_write(&self) -> bool {
        matches!(self, Change::File(_, FileOp::Write { .. }))
    }
}

/// What becomes of a change in a crash.
enum Fate {
    Lost,
    Whole,
    /// Seeded; other changes than writes are whole.
    Torn(u64),
}

/// What the plan does to each of the unsynced changes.
fn fates(changes: &[Change<'_>], plan: &CrashPlan) -> Vec<Fate> {
    let count = changes.len();
    let keep = |survives: &dyn Fn(usize) -> bool| -> Vec<Fate> {
        let fate = |index| {
            if survives(index) {
                Fate::Whole
            } else {
                Fate::Lost
            }
        };
        (0..count).map(fate).collect()
    };
    match *plan {
        CrashPlan::LoseAll => keep(&|_| false),
        CrashPlan::KeepAll => keep(&|_| true),
        CrashPlan::Prefix(len) => keep(&|index| index < len),
        CrashPlan::DropOne(lost) => keep(&|index| index != lost),
        CrashPlan::KeepOne(kept) => keep(&|index| index == kept),
        CrashPlan::Subset(bits) => keep(&|index| index < 64 && bits >> index & 1 == 1),
        CrashPlan::TornLast(seed) => {
            let mut fates = keep(&|_| true);
            if let Some(last) = changes.iter().rposition(Change::is_write) {
                fates[last] = Fate::Torn(seed);
            }
            fates
        }
        CrashPlan::Random(seed) => {
            let mut rng = Rng::new(seed);
            let kept_percent = [25, 50, 75, 95][rng.below(4)];
            let torn_percent = [0, 25, 75][rng.below(3)];
            let fate = |_| match (rng.chance(kept_percent), rng.chance(torn_percent)) {
                (false, _) => Fate::Lost,
                (true, false) => Fate::Whole,
                (true, true) => Fate::Torn(rng.next()),
            };
            (0..count).map(fate).collect()
        }
    }
}

impl State {
    /// All unsynced changes in the order in which they were made.
    fn unsynced(&self) -> Vec<Change<'_>> {
        let mut changes = Vec::new();
        for (id, file) in &self.files {
            let ops = file.unsynced.iter();
            changes.extend(ops.map(|(order, op)| (*order, Change::File(*id, op))));
        }
        for (id, directory) in self.directories.iter().enumerate() {
            let ops = directory.unsynced.iter();
            changes.extend(ops.map(|(order, op)| (*order, Change::Directory(DirId(id), op))));
        }
        if let Some((id, op)) = &self.in_flight {
            changes.push((u64::MAX, Change::File(*id, op)));
        }
        changes.sort_by_key(|(order, _)| *order);
        changes.into_iter().map(|(_, change)| change).collect()
    }

    /// Whether there is something to read that is not durable, and maybe never will be.
    fn is_ahead_of_durable(&self) -> bool {
        self.files
            .values()
            .any(|file| file.volatile != file.durable)
    }

    /// The same disk once every process has ended, all but for the last write.
    pub(super) fn without_processes(&self, in_flight: Option<(FileId, FileOp)>) -> State {
        let closed = |file: &FileState| FileState {
            handle_count: 0,
            ..file.clone()
        };
        let files = self.files.iter();
        let files = files.map(|(id, file)| (*id, closed(file))).collect();
        self.with_contents(files, self.directories.clone(), in_flight)
    }

    /// The same disk with what is durable of it, once every process has ended.
    fn without_volatile(&self) -> State {
        let durable = |file: &FileState| FileState {
            durable: Arc::clone(&file.durable),
            is_lock: file.is_lock,
            unreadable: file.unreadable.clone(),
            ..FileState::default()
        };
        let files = self.files.iter();
        let files = files.map(|(id, file)| (*id, durable(file))).collect();
        let directories = self.directories.iter().map(|directory| Directory {
            durable: Arc::clone(&directory.durable),
            ..Directory::default()
        });
        self.with_contents(files, directories.collect(), None)
    }

    fn with_contents(
        &self,
        files: BTreeMap<FileId, FileState>,
        directories: Vec<Directory>,
        in_flight: Option<(FileId, FileOp)>,
    ) -> State {
        State {
            files,
            directories,
            next_file: self.next_file,
            next_order: self.next_order,
            in_flight,
            locks: BTreeMap::new(),
            faults: Faults::default(),
            clock_ms: self.clock_ms,
            random: self.random.clone(),
            capacity: self.capacity,
            refuses_hard_links: self.refuses_hard_links,
            moments: None,
        }
    }

    /// Lets a change survive, as its fate has it.
    fn survive(&mut self, change: &Change<'_>, fate: Fate) {
        match (change, fate) {
            (_, Fate::Lost) => {}
            (Change::Directory(id, op), _) => {
                op.apply(Arc::make_mut(&mut self.directories[id.0].durable));
            }
            (Change::File(id, FileOp::Write { offset, bytes }), Fate::Torn(seed)) => {
                let content = Arc::make_mut(&mut self.file_mut(*id).durable);
                tear(content, *offset as usize, bytes, &mut Rng::new(seed));
            }
            (Change::File(id, op), _) => {
                op.apply(Arc::make_mut(&mut self.file_mut(*id).durable));
            }
        }
    }

    /// Shows what is durable.
    fn settle(&mut self) {
        for file in self.files.values_mut() {
            file.volatile = Arc::clone(&file.durable);
        }
        for directory in &mut self.directories {
            directory.volatile = Arc::clone(&directory.durable);
        }
    }
}

/// Applies a write to `content` in part.
fn tear(content: &mut Vec<u8>, offset: usize, bytes: &[u8], rng: &mut Rng) {
    let end = offset + bytes.len();
    let old_len = content.len();
    let cuts = cuts(offset, end, rng);
    let piece_count = cuts.len() - 1;
    let shape = rng.below(5);
    let turn = rng.below(piece_count);
    let substitute = rng.below(3);

    let mut surviving_end = old_len;
    grow(content, end);
    for (index, piece) in cuts.windows(2).enumerate() {
        let (from, to) = (piece[0], piece[1]);
        let survives = match shape {
            0 => index < turn,
            1 => index > turn,
            2 => rng.chance(50),
            3 => false,
            // Only the growth of the file is lost, below.
            _ => true,
        };
        let place = &mut content[from..to];
        if survives {
            place.copy_from_slice(&bytes[from - offset..to - offset]);
            surviving_end = surviving_end.max(to);
        } else {
            match substitute {
                // What was there: the old bytes, or zeros beyond the old length.
                0 => {}
                1 => place.fill(0),
                _ => place.fill_with(|| rng.next() as u8),
            }
        }
    }
    if shape == 4 {
        content.truncate(old_len);
    } else if rng.chance(50) {
        content.truncate(surviving_end);
    }
}

/// Where a write can break: its two ends, and between them one byte, or every boundary of sectors
/// or pages.
fn cuts(offset: usize, end: usize, rng: &mut Rng) -> Vec<usize> {
    let mut cuts = vec![offset];
    match [1, 512, 4096][rng.below(3)] {
        1 => cuts.push(offset + 1 + rng.below((end - offset).saturating_sub(1))),
        unit => cuts.extend(
            (offset / unit + 1..)
                .map(|n| n * unit)
                .take_while(|at| *at < end),
        ),
    }
    cuts.retain(|at| *at < end);
    cuts.push(end);
    cuts
}
