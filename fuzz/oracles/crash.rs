//! A program on a simulated disk that fails, or whose power is cut: what is found afterwards is a state
//! that the program was in, no older than what was durable.
//!
//! The input is a byte of options, then which fault (a byte), before which operation of the program it is
//! laid (a byte), how many operations of the disk later it strikes (a byte), what survives (a byte and four
//! of a seed), then an operation after the other.

use std::time::Duration;

use crabkv::disk::{CrashPlan, Disk, FailKind, SimDisk};
use crabkv::{CrabKvBuilder, Error, Result, verify_on};

use super::contents::{DIR, SimStore, State, builder, contents, show, visible};
use super::program::{Bytes, OPS, Op, remove_hints};

/// Longer programs take time and show nothing else.
const MOST_OPS: usize = 40;

const NEVER: Duration = Duration::from_secs(1 << 20);

/// A program with a fault.
pub(crate) fn crash(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let options = bytes.byte();
    let fault = Fault::decode(bytes.byte());
    let (from, at) = (usize::from(bytes.byte()) % MOST_OPS, bytes.byte());
    let (plan, seed) = (bytes.byte(), bytes.u32());
    let mut ops = Vec::new();
    while let (true, Some(kind)) = (ops.len() < MOST_OPS, bytes.next()) {
        ops.push(Op::decode(kind % OPS, &mut bytes, ops.len() + 1));
    }
    let mut run = Run::new(options, fault);
    for (number, op) in ops.iter().enumerate() {
        if number == from {
            run.lay(u64::from(at));
        }
        run.step(op);
    }
    run.finish(&plan_of(plan, seed), plan >> 4, &plan_of(plan ^ 5, !seed));
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    PowerCut,
    Fail(FailKind, bool),
}

impl Fault {
    /// Half of them are power cuts.
    fn decode(byte: u8) -> Fault {
        let kinds = [
            FailKind::Eio,
            FailKind::Enospc,
            // Too many open files.
            FailKind::Os(24),
            FailKind::ShortWrite,
            FailKind::FsyncKeep,
            FailKind::FsyncRevert,
        ];
        match kinds.get(usize::from(byte & 15) / 2) {
            Some(kind) => Fault::Fail(*kind, byte & 1 == 1),
            None => Fault::PowerCut,
        }
    }
}

fn plan_of(kind: u8, seed: u32) -> CrashPlan {
    let number = u64::from(seed);
    match kind & 7 {
        0 => CrashPlan::LoseAll,
        1 => CrashPlan::KeepAll,
        2 => CrashPlan::Prefix(seed as usize % 16),
        3 => CrashPlan::DropOne(seed as usize % 16),
        4 => CrashPlan::KeepOne(seed as usize % 16),
        5 => CrashPlan::Subset(number),
        6 => CrashPlan::TornLast(number),
        _ => CrashPlan::Random(number),
    }
}

/// A program as it runs, and what it may leave behind.
struct Run {
    options: u8,
    fault: Fault,
    disk: SimDisk,
    store: Option<SimStore>,
    /// The states that a next opening may find, the newest at the end; the others only for as long as
    /// nothing says which.
    states: Vec<State>,
    /// The first of them that a power cut may leave.
    durable: usize,
    is_poisoned: bool,
    /// Nothing works any more.
    is_over: bool,
}

impl Run {
    fn new(options: u8, fault: Fault) -> Run {
        let mut run = Run {
            options,
            fault,
            disk: SimDisk::new(1),
            store: None,
            states: vec![State::new()],
            durable: 0,
            is_poisoned: false,
            is_over: false,
        };
        run.store = run.open(&run.disk).ok();
        assert!(run.store.is_some(), "a new store cannot be made");
        run
    }

    fn syncs_every_write(&self) -> bool {
        // What a failed operation leaves is told apart with these only.
        self.options & 4 == 0 || matches!(self.fault, Fault::Fail(..))
    }

    fn builder(&self) -> CrabKvBuilder {
        let size = [256, 512, 1024, 512][usize::from(self.options & 3)];
        let mut builder = builder(size);
        if !self.syncs_every_write() {
            builder = builder.sync_interval(NEVER);
        }
        if self.options & 8 != 0 {
            builder = builder.compression(true);
        }
        if self.options & 16 != 0 {
            builder = builder.hash_bits(3);
        }
        if self.options & 32 != 0 {
            builder = builder.auto_compaction(false);
        }
        builder
    }

    fn open(&self, disk: &SimDisk) -> Result<SimStore> {
        self.builder().build_store_on(disk.clone())
    }

    /// The fault strikes so many operations of the disk from here.
    fn lay(&self, at: u64) {
        match self.fault {
            Fault::PowerCut => self.disk.stop_at(at),
            Fault::Fail(kind, once) => self.disk.fail_at(at, kind, once),
        }
    }

    fn newest(&self) -> &State {
        match self.states.last() {
            Some(state) => state,
            None => unreachable!("there is one from the beginning"),
        }
    }

    fn step(&mut self, op: &Op) {
        if self.is_over {
            return;
        }
        match op {
            Op::Advance(ms) => return self.disk.advance(*ms),
            Op::Reopen(hints) => return self.reopen(*hints),
            _ => {}
        }
        let Some(store) = &self.store else { return };
        let now_ms = self.disk.now_ms();
        let before = visible(self.newest(), now_ms);
        let next = op.after(self.newest(), now_ms);
        match op.apply(store, &before, now_ms) {
            Ok(()) => {
                // Nobody sees whether something expired is there or not.
                let is_changed = visible(&next, now_ms) != before;
                self.done(op, is_changed.then_some(next));
            }
            Err(error) => self.failed(&error, next),
        }
    }

    fn done(&mut self, op: &Op, next: Option<State>) {
        let is_changed = next.is_some();
        assert!(
            !(self.is_poisoned && is_changed),
            "a write to a store that refuses them: {op:?}"
        );
        // A state that a failed operation may have led to stays possible: before this one.
        self.states.extend(next);
        // An operation with nothing to do succeeds on a store that refuses writes, too, and says nothing
        // of what failed before.
        let is_written = is_changed && self.syncs_every_write();
        let is_synced = match self.fault {
            Fault::PowerCut => matches!(op, Op::Sync | Op::Compact | Op::Close),
            Fault::Fail(..) => matches!(op, Op::Sync | Op::Close),
        };
        if is_written || is_synced {
            self.durable = self.states.len() - 1;
        }
        self.check();
    }

    fn failed(&mut self, error: &Error, next: State) {
        if let Fault::PowerCut = self.fault {
            // It was in flight: there as a whole, or not at all.
            self.states.push(next);
            self.is_over = true;
            return;
        }
        self.is_poisoned |= matches!(error, Error::Poisoned { .. });
        let is_refused = matches!(error, Error::Poisoned { .. } | Error::DiskFull { .. });
        if !is_refused && next != *self.newest() {
            // Whole or absent at the next opening, and until then not to be seen.
            let at = self.states.len() - 1;
            self.states.insert(at, next);
            self.durable = self.durable.min(at);
        }
        self.check();
    }

    fn reopen(&mut self, hints: u8) {
        self.store = None;
        self.is_poisoned = false;
        if let Fault::Fail(..) = self.fault {
            remove_hints(&self.disk, hints);
        }
        match self.open(&self.disk) {
            Ok(store) => {
                let seen = self.seen(&store, "reopening");
                if let Fault::PowerCut = self.fault {
                    // It has not struck yet.
                    self.durable = self.states.len() - 1;
                }
                self.settle(&seen, "reopening");
                self.store = Some(store);
            }
            Err(error) => {
                self.is_over = matches!(self.fault, Fault::PowerCut);
                assert!(
                    matches!(
                        error,
                        Error::Io { .. } | Error::DiskFull { .. } | Error::ResourceLimit { .. }
                    ),
                    "reopening: {error}"
                );
            }
        }
    }

    /// What is found is one of the possible states; it is the only one then.
    fn settle(&mut self, seen: &State, what: &str) {
        let now_ms = self.disk.now_ms();
        let is_seen = |state: &&State| visible(state, now_ms) == *seen;
        let Some(found) = self.states[self.durable..].iter().find(is_seen) else {
            panic!("{what} finds {}, {}", show(seen), self.possible());
        };
        self.states = vec![found.clone()];
        self.durable = 0;
    }

    fn possible(&self) -> String {
        let states: Vec<_> = self.states.iter().map(show).collect();
        let (durable, fault) = (self.durable, self.fault);
        format!("none of {states:#?} from {durable} on ({fault:?})")
    }

    fn seen(&self, store: &SimStore, what: &str) -> State {
        let keys = self.states.iter().flat_map(State::keys);
        match contents(store, keys) {
            Ok(seen) => seen,
            Err(error) => panic!("{what}: a read fails: {error}"),
        }
    }

    /// Reads show exactly what was acknowledged, whatever has failed.
    fn check(&self) {
        // Without power, reads may fail.
        let Fault::Fail(..) = self.fault else { return };
        let Some(store) = &self.store else { return };
        let expected = visible(self.newest(), self.disk.now_ms());
        let seen = self.seen(store, "while it runs");
        assert_eq!(show(&seen), show(&expected), "{:?}", self.fault);
        assert!(seen == expected, "another value");
    }

    /// The machine goes down and comes up again, perhaps a second time while it recovers.
    fn finish(mut self, plan: &CrashPlan, again_at: u8, again: &CrashPlan) {
        if let Fault::Fail(..) = self.fault {
            self.disk.heal();
            self.check();
        }
        let mut image = self.disk.crash(plan);
        self.store = None;
        if again_at > 0 {
            image.stop_at(u64::from(again_at - 1));
            let _ = self.open(&image);
            let after = image.crash(again);
            image = after;
        }
        let is_kill = |plan: &CrashPlan| *plan == CrashPlan::KeepAll;
        if is_kill(plan)
            && (again_at == 0 || is_kill(again))
            && matches!(self.fault, Fault::PowerCut)
        {
            // A process that is killed loses nothing that was acknowledged.
            let in_flight = usize::from(self.is_over);
            self.durable = (self.states.len() - 1).saturating_sub(in_flight);
        }
        self.disk = image;
        let what = "opening after the crash";
        let store = match self.open(&self.disk) {
            Ok(store) => store,
            Err(error) => panic!("{what}: {error} ({:?})", self.fault),
        };
        let seen = self.seen(&store, what);
        self.settle(&seen, what);
        self.store = Some(store);
        self.go_on(&seen);
    }

    /// The next write works, and is there after a power cut; everything is sound.
    fn go_on(&mut self, seen: &State) {
        let mut expected = seen.clone();
        let Some(store) = self.store.take() else {
            return;
        };
        let written = store.put("next", "works").and_then(|()| store.sync());
        assert!(written.is_ok(), "the next write: {written:?}");
        expected.insert(b"next".to_vec(), (b"works".to_vec(), None));
        let cut = self.disk.crash(&CrashPlan::LoseAll);
        drop(store);
        for disk in [&cut, &self.disk] {
            let store = match self.open(disk) {
                Ok(store) => store,
                Err(error) => panic!("opening after the next write: {error}"),
            };
            let seen = self.seen(&store, "after the next write");
            assert_eq!(show(&seen), show(&expected), "after the next write");
        }
        match verify_on(&self.disk, DIR, |_| std::ops::ControlFlow::Continue(())) {
            Ok(report) => assert!(report.is_sound(), "{report:?}"),
            Err(error) => panic!("it cannot be verified: {error}"),
        }
    }
}
