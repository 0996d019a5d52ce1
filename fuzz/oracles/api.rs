//! A program on a store, and on a map: they agree all the way, however the store is read.
//!
//! The input is two bytes of options, then an operation after the other.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::Duration;

use crabkv::disk::{Disk, SimDisk};
use crabkv::{CrabKvBuilder, Cursor, Error, ReadMode, SeqNo, Store, restore_on, verify_on};

use super::contents::{DIR, SimStore, State, builder, contents, entry_of, show, visible};
use super::program::{Bytes, CHECKPOINT, OPS, Op, key, remove_hints};

/// Longer programs take time and show nothing else.
const MOST_OPS: usize = 80;

/// How many ways to read there are.
const LOOKS: u8 = 8;

const NEVER: Duration = Duration::from_secs(1 << 20);

/// A program.
pub(crate) fn api(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut run = Run::new([bytes.byte(), bytes.byte()]);
    for number in 1..=MOST_OPS {
        let Some(kind) = bytes.next() else { break };
        match kind % (OPS + LOOKS) {
            kind @ 0..OPS => {
                let op = Op::decode(kind, &mut bytes, number);
                run.step(&op);
            }
            look => run.look(look - OPS, &mut bytes),
        }
    }
    run.step(&Op::Reopen(0));
    run.check();
}

struct Run {
    options: [u8; 2],
    disk: SimDisk,
    store: Option<SimStore>,
    /// Somebody who reads beside it.
    follower: Option<SimStore>,
    state: State,
}

impl Run {
    fn new(options: [u8; 2]) -> Run {
        let disk = SimDisk::new(1);
        let mut run = Run {
            options,
            disk,
            store: None,
            follower: None,
            state: State::new(),
        };
        run.open();
        run
    }

    fn has(&self, bit: u8) -> bool {
        self.options[0] >> bit & 1 == 1
    }

    fn builder(&self) -> CrabKvBuilder {
        let [_, options] = self.options;
        let mut builder = builder([256, 512, 1024, 8192][usize::from(options & 3)]);
        if self.has(0) {
            builder = builder.sync_interval(NEVER);
        }
        if self.has(1) {
            builder = builder.compression(true);
        }
        if self.has(2) {
            builder = builder.write_back_bytes(600);
        }
        if self.has(3) {
            builder = builder.read_mode(ReadMode::Pread);
        }
        if self.has(4) {
            builder = builder.auto_compaction(false);
        }
        if self.has(5) {
            builder = builder.hash_bits(3);
        }
        if let Some(values) = NonZeroUsize::new(usize::from(options >> 2 & 3)) {
            builder = builder.cache_capacity(values);
        }
        builder
    }

    fn open(&mut self) {
        match self.builder().build_store_on(self.disk.clone()) {
            Ok(store) => {
                let report = store.recovery_report();
                assert!(report.clean && report.torn_tail.is_none(), "{report:?}");
                self.store = Some(store);
            }
            Err(error) => panic!("it does not open: {error}"),
        }
    }

    fn store(&self) -> &SimStore {
        match &self.store {
            Some(store) => store,
            None => unreachable!("it is open between operations"),
        }
    }

    fn seen(&self) -> State {
        visible(&self.state, self.disk.now_ms())
    }

    fn step(&mut self, op: &Op) {
        let now_ms = self.disk.now_ms();
        let next = op.after(&self.state, now_ms);
        match op {
            Op::Advance(ms) => self.disk.advance(*ms),
            Op::Reopen(hints) => {
                self.store = None;
                remove_hints(&self.disk, *hints);
                self.open();
            }
            op => {
                if let Err(error) = op.apply(self.store(), &self.seen(), now_ms) {
                    panic!("{op:?} fails: {error}");
                }
            }
        }
        self.state = next;
    }

    fn check(&self) {
        same("the store", self.store(), &self.seen(), &self.state);
        let is_empty = self.store().is_empty();
        assert!(!is_empty || self.seen().is_empty(), "it calls itself empty");
    }

    /// Reads, in one of many ways.
    fn look(&mut self, how: u8, bytes: &mut Bytes<'_>) {
        match how {
            0 => self.check(),
            1 => self.get(&key(bytes)),
            2 => self.scan(1 + usize::from(bytes.byte() % 8)),
            3 => self.iterate_in_two(usize::from(bytes.byte() % 8)),
            4 => self.changes(),
            5 => self.verify(),
            6 => self.follow(),
            _ => self.checkpoint(),
        }
    }

    fn get(&self, key: &[u8]) {
        let expected = self.seen().remove(key);
        let bytes = expected.as_ref().map(|(bytes, _)| &bytes[..]);
        let store = self.store();
        let value = store.get(key).map(|value| value.as_ref().map(entry_of));
        assert!(
            matches!(&value, Ok(value) if *value == expected),
            "{value:?}"
        );
        let reader = store.reader();
        assert!(matches!(reader.get(key), Ok(found) if found == bytes));
        assert!(matches!(store.contains_key(key), Ok(is_there) if is_there == bytes.is_some()));
        let keys = [key, b"absent", key];
        let many = store.get_many(&keys);
        assert!(
            matches!(&many, Ok(many) if many[0].as_deref() == bytes && many[1].is_none()
                && many[2].as_deref() == bytes),
            "{many:?}"
        );
    }

    fn scan(&self, count: usize) {
        let mut keys = Vec::new();
        let mut position = Some(0);
        while let Some(at) = position {
            let some = match self.store().scan_keys(at, count) {
                Ok(some) => some,
                Err(error) => panic!("a scan fails: {error}"),
            };
            keys.extend(some.keys);
            position = some.next;
        }
        keys.sort_unstable();
        let expected: Vec<_> = self.seen().into_keys().collect();
        assert_eq!(keys, expected, "a scan finds others");
    }

    /// Goes on with a cursor after a few; and with a prefix.
    fn iterate_in_two(&self, first: usize) {
        let mut iter = self.store().iter();
        let mut found: Vec<_> = iter.by_ref().take(first).collect();
        let cursor = Cursor::from_bytes(&iter.cursor().to_bytes());
        found.extend(self.store().iter_from(&cursor));
        let mut keys: Vec<_> = found.into_iter().flatten().map(|(key, _)| key).collect();
        keys.sort_unstable();
        let expected: Vec<_> = self.seen().into_keys().collect();
        assert_eq!(keys, expected, "an iteration in two parts");
        let prefix = format!("k{first}");
        let found = self.store().scan_prefix(&prefix).flatten().count();
        let is_of = |key: &&Vec<u8>| key.starts_with(prefix.as_bytes());
        assert_eq!(found, expected.iter().filter(is_of).count(), "{prefix}");
    }

    /// All changes lead to what is there.
    fn changes(&self) {
        let changes = match self.store().changes(SeqNo::new(0)) {
            Ok(changes) => changes,
            Err(Error::HistoryCompacted { .. }) => return,
            Err(error) => panic!("no changes: {error}"),
        };
        let mut state = State::new();
        let mut last = None;
        for change in changes {
            let change = match change {
                Ok(change) => change,
                Err(error) => panic!("a change fails: {error}"),
            };
            assert!(last < Some(change.seq), "changes are out of order");
            last = Some(change.seq);
            match change.value() {
                Some(value) => state.insert(change.key.clone(), entry_of(value)),
                None => state.remove(&change.key),
            };
        }
        let state = visible(&state, self.disk.now_ms());
        assert_eq!(
            show(&state),
            show(&self.seen()),
            "the changes lead elsewhere"
        );
        self.watch(last);
    }

    /// Who watches from the beginning comes to the same end.
    fn watch(&self, last: Option<SeqNo>) {
        let mut watch = self.store().watch_from(SeqNo::new(0), "");
        let mut seen = None;
        loop {
            match watch.try_next() {
                Ok(Some(change)) => seen = Some(change.seq),
                Ok(None) => break,
                Err(error) => panic!("a watch fails: {error}"),
            }
        }
        assert_eq!(seen, last, "a watch ends elsewhere");
    }

    fn verify(&self) {
        match verify_on(&self.disk, DIR, |_| ControlFlow::Continue(())) {
            Ok(report) => assert!(report.is_sound(), "{report:?}"),
            Err(error) => panic!("it cannot be verified: {error}"),
        }
    }

    /// Somebody who reads beside the writer catches up.
    fn follow(&mut self) {
        let synced = self.store().sync();
        assert!(synced.is_ok(), "{synced:?}");
        if self.follower.is_none() {
            let builder = self.builder().read_only(true);
            self.follower = builder.build_store_on(self.disk.clone()).ok();
        }
        let Some(follower) = &self.follower else {
            panic!("nobody can follow");
        };
        let refreshed = follower.refresh();
        assert!(refreshed.is_ok(), "{refreshed:?}");
        same("the follower", follower, &self.seen(), &self.state);
    }

    fn checkpoint(&self) {
        let made = self.store().checkpoint(CHECKPOINT);
        assert!(made.is_ok(), "{made:?}");
        let opened = Store::builder(CHECKPOINT)
            .read_only(true)
            .build_store_on(self.disk.clone());
        match opened {
            Ok(copy) => same("the checkpoint", &copy, &self.seen(), &self.state),
            Err(error) => panic!("the checkpoint does not open: {error}"),
        }
        // A number of its own for each: what is there is not restored over.
        let to = format!("/restored-{}", self.disk.ops());
        let restored = restore_on(&self.disk, CHECKPOINT, &to, |_| ControlFlow::Continue(()));
        assert!(restored.is_ok(), "{restored:?}");
        let builder = Store::builder(&to).create_if_missing(false);
        match builder.build_store_on(self.disk.clone()) {
            Ok(copy) => same("what is restored", &copy, &self.seen(), &self.state),
            Err(error) => panic!("what is restored does not open: {error}"),
        }
    }
}

fn same(what: &str, store: &SimStore, expected: &State, all: &State) {
    match contents(store, all.keys()) {
        Ok(seen) => {
            assert_eq!(show(&seen), show(expected), "{what} holds something else");
            assert!(seen == *expected, "{what} holds another value");
        }
        Err(error) => panic!("{what} cannot be read: {error}"),
    }
}
