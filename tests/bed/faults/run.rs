//! A workload on a disk with a fault, beside all that is known of what the store has to hold.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use super::fault::Fault;
use super::workloads::{Durability, Settings, Step, Workload};
use crate::common::{
    Op, Rng, SimStore, State, Write, contents, delete, entry_of, go_on, put, remove_hints, sealed,
    show, visible,
};
use crabkv::disk::{CrashPlan, Disk, FailKind, SimDisk};
use crabkv::{Error, RepairOptions, Result, Store, Value, repair_on, restore_on, verify_on};

const DB: &str = "/db";
const BACKUP: &str = "/backup";
const RESTORED: &str = "/restored";
const REPAIRED: &str = "/repaired";

/// Files that are no part of what a store holds.
const ASIDE: [&str; 2] = ["LOCK", "RESERVE"];

thread_local! {
    /// How many images after a crash this thread has checked.
    pub(super) static IMAGES: Cell<u64> = const { Cell::new(0) };
}

/// What is known of a checkpoint.
#[derive(Clone, Default)]
struct Backup {
    /// What the last one that succeeded holds.
    made: Option<State>,
    /// What those hold that failed since.
    tried: Vec<State>,
}

/// What a store with faults holds, as far as it can be known.
pub(super) struct Run<'a> {
    pub(super) disk: SimDisk,
    settings: Settings,
    /// All keys that are ever written.
    keys: Rc<[Vec<u8>]>,
    /// All values that are ever written.
    written: Rc<[Write]>,
    store: Option<SimStore>,
    follower: Option<SimStore>,
    /// The states from the last one that is durable to the one that was acknowledged last: a power
    /// cut may leave any of them.
    chain: Vec<State>,
    /// Where a failed write may have led to; it shows at the next opening.
    possible: Vec<State>,
    backup: Backup,
    fault: Option<Fault>,
    is_poisoned: bool,
    /// A write that a failed read has stopped between being durable and being seen in full: keys of
    /// a batch may show any of what it writes, or what was there, until the store is opened again.
    half_seen: Option<Op>,
    /// Nothing could be read since the store was opened.
    is_unsettled: bool,
    has_crashed: bool,
    /// On the disk that this is an image of, a sync has told a lie.
    was_lied_to_before: bool,
    /// Errors seen.
    pub(super) failed: u64,
    seed: u64,
    context: &'a dyn Fn() -> String,
}

impl<'a> Run<'a> {
    /// Lays the fault on a new disk, and opens a store there.
    pub(super) fn new(
        workload: &Workload,
        fault: Option<Fault>,
        seed: u64,
        context: &'a dyn Fn() -> String,
    ) -> Run<'a> {
        let disk = SimDisk::new(1);
        if let Some(fault) = fault {
            fault.lay_on(&disk);
        }
        let mut run = Run {
            disk,
            settings: workload.settings,
            keys: workload.keys().into(),
            written: workload.writes().into(),
            store: None,
            follower: None,
            chain: vec![State::new()],
            possible: Vec::new(),
            backup: Backup::default(),
            fault,
            is_poisoned: false,
            half_seen: None,
            is_unsettled: false,
            has_crashed: false,
            was_lied_to_before: false,
            failed: 0,
            seed,
            context,
        };
        run.reopen();
        run
    }

    fn known(&self) -> &State {
        &self.chain[self.chain.len() - 1]
    }

    fn open(&self) -> Result<SimStore> {
        self.settings.builder().build_store_on(self.disk.clone())
    }

    fn has_struck(&self) -> bool {
        (self.fault).is_some_and(|fault| fault.has_struck(&self.disk))
    }

    /// Whether a sync has told a lie: what it should have made durable never will be.
    fn was_lied_to(&self) -> bool {
        let is_lie = (self.fault).is_some_and(|fault| fault.is(FailKind::FsyncLate));
        self.was_lied_to_before || is_lie && self.has_struck()
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{}", (self.context)())
    }

    /// What the files of a directory hold, apart from those that are no part of it.
    fn files(&self, dir: &str) -> Vec<(String, Vec<u8>)> {
        let mut files = self.disk.files(Path::new(dir));
        files.retain(|(name, _)| !ASIDE.contains(&&**name));
        files
    }

    /// Checks an error: it must be of the fault, and say so. `after` says whether the fault had
    /// struck before what failed was begun.
    fn note_error(&mut self, what: &dyn std::fmt::Debug, error: &Error, after: bool) {
        self.failed += 1;
        if self.was_lied_to_before {
            // The error that the lie owes may come late.
            if !matches!(error, Error::Io { .. }) {
                self.fail(&format!("{what:?}: {error} ({error:?})"));
            }
            return;
        }
        let Some(fault) = self.fault.filter(|fault| fault.has_struck(&self.disk)) else {
            self.fail(&format!("{what:?} fails without a fault: {error}"));
        };
        if let Some(complaint) = fault.complaint(error) {
            self.fail(&format!("{what:?}: {complaint}: {error} ({error:?})"));
        }
        let is_of_poison = matches!(error, Error::Poisoned { .. });
        if after && fault.passes() && !is_of_poison && !self.settings.has_background_compaction {
            self.fail(&format!("the fault is over, but {what:?} fails: {error}"));
        }
    }

    fn reopen(&mut self) {
        self.store = None;
        self.is_poisoned = false;
        self.half_seen = None;
        self.is_unsettled = false;
        let after = self.has_struck();
        let is_of_reads = self.fault.is_some_and(Fault::is_of_reads);
        let before = is_of_reads.then(|| self.files(DB));
        match self.open() {
            Ok(store) => {
                self.store = Some(store);
                self.settle();
            }
            Err(error) => {
                self.note_error(&"opening", &error, after);
                // But for making a store, where there was none.
                if before.is_some_and(|files| !files.is_empty() && files != self.files(DB)) {
                    self.fail(&format!("a failed opening has changed something: {error}"));
                }
            }
        }
    }

    /// What the store may hold when it is opened again, the process having died or not, and after a
    /// power cut.
    fn candidates(&self, after_power_cut: bool) -> Vec<State> {
        let is_any = after_power_cut
            || match self.settings.durability {
                Durability::EveryWrite => false,
                // The old bytes are back.
                Durability::Interval => {
                    (self.fault).is_some_and(|fault| fault.is(FailKind::FsyncRevert))
                }
                Durability::WriteBack => self.fault.is_some(),
            };
        let mut states = self.possible.clone();
        states.push(self.known().clone());
        if is_any {
            states.extend(self.chain.iter().rev().skip(1).cloned());
        }
        states
    }

    fn find(&self, seen: &State, mut candidates: Vec<State>, what: &str) -> State {
        let now_ms = self.disk.now_ms();
        let found = candidates
            .iter()
            .position(|state| visible(state, now_ms) == *seen);
        match found {
            Some(index) => candidates.swap_remove(index),
            None => {
                let candidates: Vec<_> = candidates.iter().map(show).collect();
                self.fail(&format!(
                    "{what}: {} is none of {candidates:#?}",
                    show(seen)
                ))
            }
        }
    }

    /// Finds out which of the possible states it is.
    fn settle(&mut self) {
        let candidates = self.candidates(self.has_crashed);
        let Some(seen) = self.seen() else {
            self.is_unsettled = true;
            self.possible = candidates;
            return;
        };
        self.is_unsettled = false;
        let found = self.find(&seen, candidates, "opened");
        self.possible.clear();
        if !self.was_lied_to() {
            self.chain.clear();
        }
        self.chain.push(found);
    }

    /// Everything in a store. Iterating would flush a write-back buffer, which is for the workload
    /// to do, and can fail where reads do not.
    fn read_all(&self, store: &SimStore) -> Result<State> {
        if self.settings.durability != Durability::WriteBack {
            return contents(store, &*self.keys);
        }
        let mut state = State::new();
        for key in &*self.keys {
            let entry = store.get(key)?.map(|value| entry_of(&value));
            state.extend(entry.map(|entry| (key.clone(), entry)));
        }
        Ok(state)
    }

    /// Everything in the store; nothing while reads fail, which may only fail, and not lie.
    fn seen(&mut self) -> Option<State> {
        for _ in 0..2 {
            let store = self.store.as_ref()?;
            let after = self.has_struck();
            match self.read_all(store) {
                Ok(state) => return Some(state),
                Err(error) => {
                    if !self.fault.is_some_and(Fault::is_of_reads) {
                        self.fail(&format!("a read fails: {error}"));
                    }
                    self.note_error(&"reading everything", &error, after);
                }
            }
        }
        None
    }

    /// Reads must show exactly what was acknowledged, whatever has failed.
    fn check(&mut self) {
        if self.store.is_none() {
            return;
        }
        if self.is_unsettled {
            return self.settle();
        }
        let expected = visible(self.known(), self.disk.now_ms());
        let half_seen = self.half_seen.clone();
        if let (None, Some(seen)) = (&half_seen, self.seen()) {
            if seen != expected {
                let (seen, expected) = (show(&seen), show(&expected));
                self.fail(&format!("{seen} is seen, {expected} was acknowledged"));
            }
            return;
        }
        // Reads go on failing: each is an error, or right.
        let written = |key: &Vec<u8>, value: &Option<Value>| {
            let mut writes = half_seen.iter().flat_map(Op::writes);
            writes.any(|write| write.key == *key && write.value.as_deref() == value.as_deref())
        };
        for key in &*Rc::clone(&self.keys) {
            let read = self.store.as_ref().map(|store| store.get(key));
            match read {
                Some(Err(error)) => self.note_error(&"reading", &error, false),
                Some(Ok(value)) => {
                    let is_right = value.as_ref().map(entry_of) == expected.get(key).cloned();
                    if !is_right && !written(key, &value) {
                        let key = key.escape_ascii();
                        self.fail(&format!("a failing read gives {key} = {value:?}"));
                    }
                }
                None => {}
            }
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        let had_struck = self.has_struck();
        match step {
            Step::Op(Op::Reopen) => self.reopen(),
            Step::Op(Op::Advance(ms)) => self.disk.advance(*ms),
            Step::ReopenWithoutHints => {
                self.store = None;
                remove_hints(&self.disk, || true);
                self.reopen();
            }
            Step::Repair => self.repair(had_struck),
            Step::Verify => self.verify(had_struck),
            Step::Restore => self.restore(had_struck),
            Step::Follow => self.follow(had_struck),
            Step::Op(op) => self.operate(op, had_struck),
            Step::MergeSome | Step::Checkpoint => self.maintain(step, had_struck),
        }
        if self.has_struck() {
            self.check();
            if !had_struck && !matches!(self.fault, Some(Fault::Room { .. })) {
                self.crash(&CrashPlan::LoseAll);
                self.crash_somehow(1);
            }
        }
    }

    /// A write, or a sync of some kind.
    fn operate(&mut self, op: &Op, had_struck: bool) {
        let Some(store) = &self.store else { return };
        let mut next = self.known().clone();
        op.apply_to(&mut next, self.disk.now_ms());
        let is_write = !op.writes().is_empty();
        match op.apply(store) {
            Ok(()) => {
                if self.is_poisoned && is_write {
                    self.fail(&format!("a write to a poisoned store: {op:?}"));
                }
                self.acknowledge(next, op);
            }
            Err(error) => {
                self.note_error(op, &error, had_struck);
                if self.is_poisoned && is_write && !matches!(error, Error::Poisoned { .. }) {
                    self.fail(&format!("a poisoned store tries a write: {error}"));
                }
                let was_poisoned = self.is_poisoned;
                self.look_for_poison(&error);
                if is_write && self.settings.durability == Durability::WriteBack {
                    // It waits in memory, if it came so far, and is seen at once.
                    let seen = self.seen();
                    let waits = seen.is_some_and(|seen| visible(&next, self.disk.now_ms()) == seen);
                    if waits {
                        self.chain.push(next);
                    }
                    return;
                }
                let is_lasting = matches!(error, Error::Io { .. });
                let is_write_fault = !self.fault.is_some_and(Fault::is_of_reads);
                if is_lasting && is_write_fault && !self.is_poisoned && !matches!(op, Op::Compact) {
                    self.fail(&format!("{op:?} fails, and the store goes on: {error}"));
                }
                // Whatever is half done may be whole or absent later; what was refused may not.
                if is_lasting && self.is_poisoned && !was_poisoned {
                    self.possible.push(next);
                    self.half_seen = (!is_write_fault).then(|| op.clone());
                }
            }
        }
    }

    fn acknowledge(&mut self, next: State, op: &Op) {
        let is_durable = match self.settings.durability {
            Durability::EveryWrite => true,
            Durability::Interval => matches!(op, Op::Sync | Op::Compact | Op::Close),
            Durability::WriteBack => {
                matches!(op, Op::Flush | Op::Sync | Op::Compact | Op::Close)
            }
        };
        if is_durable && !self.was_lied_to() {
            self.chain.clear();
        }
        self.chain.push(next);
    }

    /// Finds out whether writes are refused from now on.
    fn look_for_poison(&mut self, error: &Error) {
        if self.is_poisoned {
            return;
        }
        let Some(store) = &self.store else { return };
        self.is_poisoned = match error {
            Error::Poisoned { .. } => true,
            // A sync would flush what waits, which is for the workload to do.
            _ if self.settings.durability == Durability::WriteBack => {
                matches!(error, Error::Io { .. })
                    && matches!(store.delete("no such key"), Err(Error::Poisoned { .. }))
            }
            _ => match store.sync() {
                Ok(()) => {
                    if !self.was_lied_to() {
                        self.chain.drain(..self.chain.len() - 1);
                    }
                    false
                }
                Err(Error::Poisoned { .. } | Error::Io { .. }) => true,
                Err(_) => false,
            },
        };
    }

    fn maintain(&mut self, step: &Step, had_struck: bool) {
        let Some(store) = &self.store else { return };
        let result = if *step == Step::Checkpoint {
            let now = self.known().clone();
            let made = store.checkpoint(BACKUP).map(drop);
            if made.is_ok() {
                self.backup.made = Some(now);
                self.backup.tried.clear();
            } else {
                self.backup.tried.push(now);
            }
            made
        } else {
            let ids: Vec<_> = sealed(store).into_iter().step_by(2).collect();
            store.compact_segments(&ids).map(drop)
        };
        if let Err(error) = result {
            self.note_error(step, &error, had_struck);
            self.look_for_poison(&error);
        }
    }

    fn follow(&mut self, had_struck: bool) {
        let result = match &self.follower {
            Some(follower) => follower.refresh().map(drop),
            None => {
                let builder = self.settings.builder().read_only(true);
                let builder = builder.write_back_cache(false);
                let opened = builder.build_store_on(self.disk.clone());
                opened.map(|follower| self.follower = Some(follower))
            }
        };
        if let Err(error) = result {
            // There may be no store yet.
            if self.store.is_none() && matches!(error, Error::NotFound { .. }) {
                return;
            }
            return self.note_error(&Step::Follow, &error, had_struck);
        }
        if self.fault.is_some_and(Fault::is_of_reads) && self.has_struck() {
            return;
        }
        if let Some(follower) = &self.follower {
            match contents(follower, &*self.keys) {
                Ok(seen) => drop(self.find(&seen, self.candidates(true), "followed")),
                Err(error) if self.fault.is_some_and(Fault::is_of_reads) => {
                    self.note_error(&"reading the follower", &error, had_struck);
                }
                Err(error) => self.fail(&format!("the follower cannot read: {error}")),
            }
        }
    }

    fn repair(&mut self, had_struck: bool) {
        self.store = None;
        let before = self.files(DB);
        let options = RepairOptions::new();
        let repaired = repair_on(&self.disk, DB, REPAIRED, &options, go_on);
        if before != self.files(DB) {
            self.fail("repair has changed what it repairs");
        }
        match repaired {
            Ok(report) if report.is_complete() => {
                self.check_copy(REPAIRED, &self.candidates(false));
            }
            Ok(_) if self.fault.is_some_and(Fault::is_of_reads) && self.has_struck() => {}
            Ok(report) => self.fail(&format!("not all is saved: {report:?}")),
            // The new store is read again, and what cannot be read of it is taken for damage.
            Err(Error::Corrupt { reason, .. })
                if self.fault.is_some_and(Fault::is_of_reads)
                    && reason.contains("the new store is damaged")
                    && reason.contains("os error") => {}
            Err(error) => {
                // There may be no store at all.
                if !matches!(error, Error::NotFound { .. }) || !self.has_struck() {
                    self.note_error(&Step::Repair, &error, had_struck);
                }
            }
        }
        self.reopen();
    }

    fn verify(&mut self, had_struck: bool) {
        let before = self.files(DB);
        let verified = verify_on(&self.disk, DB, go_on);
        if before != self.files(DB) {
            self.fail("verify has changed something");
        }
        match verified {
            Ok(report) => {
                let may_be_damaged =
                    self.fault.is_some_and(Fault::is_of_reads) && self.has_struck();
                if !report.heals() && !may_be_damaged {
                    self.fail(&format!("damage: {:?}", report.damage));
                }
            }
            Err(error) => {
                if self.store.is_some() || !matches!(error, Error::NotFound { .. }) {
                    self.note_error(&Step::Verify, &error, had_struck);
                }
            }
        }
    }

    fn restore(&mut self, had_struck: bool) {
        let Some(made) = self.backup.made.clone() else {
            return;
        };
        let restored = restore_on(&self.disk, BACKUP, RESTORED, go_on);
        match restored {
            Ok(_) => {
                let mut states = self.backup.tried.clone();
                states.push(made);
                self.check_copy(RESTORED, &states);
            }
            Err(error) => self.note_error(&Step::Restore, &error, had_struck),
        }
    }

    /// Opens what was made of the store, on an image that has no fault.
    fn check_copy(&self, dir: &str, candidates: &[State]) {
        let image = self.disk.crash(&CrashPlan::KeepAll);
        let builder = Store::builder(dir).create_if_missing(false);
        match builder.build_store_on(image) {
            Ok(store) => {
                let seen = contents(&store, &*self.keys);
                let seen = seen.unwrap_or_else(|error| self.fail(&format!("{dir}: {error}")));
                self.find(&seen, candidates.to_vec(), dir);
            }
            Err(error) => self.fail(&format!("{dir} does not open: {error}")),
        }
    }

    /// Cuts the power, or kills the process, `count` times in ways that the seed chooses.
    fn crash_somehow(&mut self, count: u64) {
        let mut rng = Rng(self.seed ^ self.disk.ops());
        let plans = self.disk.crash_plans(12, rng.next());
        for _ in 0..count {
            self.crash(&plans[rng.below(plans.len() as u64) as usize]);
        }
    }

    /// Checks what a crash at this moment leaves.
    fn crash(&mut self, plan: &CrashPlan) {
        IMAGES.set(IMAGES.get() + 1);
        let outer = self.context;
        let context = || format!("{}\nafter {plan:?}", outer());
        let mut image = Run {
            disk: self.disk.crash(plan),
            settings: self.settings,
            keys: Rc::clone(&self.keys),
            written: Rc::clone(&self.written),
            store: None,
            follower: None,
            chain: self.chain.clone(),
            possible: self.possible.clone(),
            backup: self.backup.clone(),
            fault: None,
            is_poisoned: false,
            half_seen: None,
            is_unsettled: false,
            has_crashed: *plan != CrashPlan::KeepAll || !self.is_kept(),
            was_lied_to_before: self.was_lied_to(),
            failed: 0,
            seed: self.seed,
            context: &context,
        };
        if self.was_lied_to() && *plan != CrashPlan::KeepAll {
            return image.check_after_lie();
        }
        image.reopen();
        if self.was_lied_to() && image.store.is_none() {
            // The error that is owed.
            image.reopen();
        }
        if image.store.is_none() {
            image.fail("the image does not open");
        }
        image.check_backup();
        if !self.was_lied_to() && Rng(self.seed).chance(25) {
            image.write_and_crash();
        }
    }

    /// What a disk lost that had said it was durable: some of it may be missing, also from before
    /// something that is there; but nothing is there that was never written, and what is damaged
    /// is said to be.
    fn check_after_lie(&self) {
        let store = match self.open() {
            Ok(store) => store,
            Err(error) if error.is_corruption() => return,
            Err(error) => self.fail(&format!("the image does not open: {error}")),
        };
        for key in &*Rc::clone(&self.keys) {
            match store.get(key) {
                Ok(Some(value)) => {
                    let mut writes = self.written.iter();
                    if !writes.any(|w| w.key == *key && w.value.as_deref() == Some(&*value)) {
                        let key = key.escape_ascii();
                        self.fail(&format!("{key} = {value:?} was never written"));
                    }
                }
                Ok(None) => {}
                Err(error) if error.is_corruption() => {}
                Err(error) => self.fail(&format!("a read fails: {error}")),
            }
        }
    }

    /// Whether the death of the process leaves what was acknowledged.
    fn is_kept(&self) -> bool {
        self.candidates(false).len() == self.possible.len() + 1
    }

    fn check_backup(&self) {
        let builder = Store::builder(BACKUP).create_if_missing(false);
        let Backup { made, tried } = &self.backup;
        match builder.build_store_on(self.disk.clone()) {
            Ok(store) => {
                let seen = contents(&store, &*self.keys);
                let seen = seen.unwrap_or_else(|error| self.fail(&format!("backup: {error}")));
                let states = made.iter().chain(tried).cloned().collect();
                self.find(&seen, states, "backup");
            }
            Err(Error::NotFound { .. } | Error::Checkpoint { .. }) if made.is_none() => {}
            Err(_) if self.was_lied_to() => {}
            Err(error) => self.fail(&format!("backup: {error}")),
        }
    }

    /// A healthy store is written to, and keeps it.
    fn write_and_crash(&mut self) {
        let failed = self.failed;
        self.operate(&Op::Write(put("last", "write")), false);
        self.operate(&Op::Write(delete("k1")), false);
        self.operate(&Op::Sync, false);
        self.check();
        assert_eq!(self.failed, failed, "writes fail: {}", (self.context)());
        self.disk = self.disk.crash(&CrashPlan::LoseAll);
        self.reopen();
    }

    /// Runs all of a workload.
    pub(super) fn run(&mut self, workload: &Workload) {
        for step in &workload.steps {
            self.step(step);
        }
    }

    /// The fault is over: the store works on or refuses to, crashes, opens, holds what it must, and
    /// is written to.
    pub(super) fn finish(mut self) {
        Fault::lift_from(&self.disk);
        self.check();
        if self.store.is_some() && self.is_unsettled {
            self.fail("reads fail though the fault is over");
        }
        let writes_on = self.store.is_some() && Rng(self.seed).chance(50);
        if writes_on {
            let failed = self.failed;
            self.operate(&Op::Write(put("room", "again")), true);
            if !self.is_poisoned {
                self.operate(&Op::Compact, true);
                self.check();
            }
            // A failed merge, which nobody waited for, may have poisoned it.
            if !self.is_poisoned && self.failed > failed && !self.was_lied_to() {
                self.fail("writes do not go on though the fault is over");
            }
        }
        if let Some(follower) = &self.follower {
            if let Err(error) = follower.refresh() {
                self.fail(&format!("the follower does not recover: {error}"));
            }
        }
        self.crash(&CrashPlan::KeepAll);
        self.crash(&CrashPlan::LoseAll);
        self.crash_somehow(2);
        let was_lied_to = self.was_lied_to();
        self.was_lied_to_before = was_lied_to;
        self.reopen();
        if was_lied_to && self.store.is_none() {
            self.reopen();
        }
        let Some(store) = &self.store else {
            self.fail("the store does not open");
        };
        self.check_files(store);
        self.fault = None;
        self.follower = None;
        if !was_lied_to {
            self.has_crashed = false;
            self.write_and_crash();
        }
    }

    /// There is nothing in the directory that does not belong to the store.
    fn check_files(&self, store: &SimStore) {
        let stats = store.stats();
        let ids: Vec<_> = stats.segments.iter().map(|segment| segment.id).collect();
        let mut count = 0;
        for (name, _) in self.files(DB) {
            let Some((id, kind @ ("seg" | "hint"))) = name.rsplit_once('.') else {
                continue;
            };
            count += usize::from(kind == "seg");
            let id = id.trim_start_matches('0');
            if !ids.iter().any(|known| known.to_string() == id) {
                self.fail(&format!("{name} is left over"));
            }
        }
        assert_eq!(count, ids.len(), "{}", (self.context)());
    }
}
