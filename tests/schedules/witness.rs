//! A store whose operations are written down, each with the moment of its call and of its return.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crabkv::disk::Disk;
use crabkv::{Error, Result, Store, Value, WriteBatch};

use crate::linear::{Action, Operation, State, is_linearizable};

/// The histories of all keys. What it is made of is the standard library's in every build: it
/// notes what happened, and is no part of it.
#[derive(Default)]
pub(crate) struct History {
    clock: AtomicU64,
    operations: Mutex<BTreeMap<&'static str, Vec<Operation>>>,
}

/// A value, of a length that depends on it; about so many fill a segment of 512 bytes.
pub(crate) fn bytes_of(value: u64) -> Vec<u8> {
    let text = format!("{value}:");
    text.repeat(8 + (value % 5) as usize * 4).into_bytes()
}

/// The value that bytes are of.
///
/// # Panics
///
/// When they are of none.
pub(crate) fn value_of(bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).expect("a value that nobody put");
    let value = text.split(':').next().unwrap().parse().unwrap();
    if text.contains(':') {
        assert_eq!(bytes, bytes_of(value), "a value that nobody put");
    }
    value
}

impl History {
    /// A moment that is after all moments before.
    pub(crate) fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Writes down what was called at `called` and has just returned, or failed.
    pub(crate) fn note(&self, key: &'static str, called: u64, action: Action, failed: bool) {
        let operation = Operation {
            called,
            returned: (!failed).then(|| self.now()),
            action,
        };
        let mut operations = self.operations.lock().unwrap();
        operations.entry(key).or_default().push(operation);
    }

    /// Writes down an operation from its call to now.
    pub(crate) fn done(&self, key: &'static str, called: u64, action: Action) {
        self.note(key, called, action, false);
    }

    /// # Panics
    ///
    /// When the history of a key is not linearizable.
    pub(crate) fn check(&self) {
        for (key, operations) in &*self.operations.lock().unwrap() {
            assert!(
                is_linearizable(None, operations),
                "{key} is not linearizable: {operations:#?}"
            );
        }
    }

    /// Lets another history go on from here: whatever becomes of this one is not in it.
    pub(crate) fn fork(&self) -> History {
        History {
            clock: AtomicU64::new(self.clock.load(Ordering::SeqCst)),
            operations: Mutex::new(self.operations.lock().unwrap().clone()),
        }
    }
}

/// A handle whose operations go into a history.
pub(crate) struct Witness<'h, D: Disk> {
    pub(crate) store: Store<D>,
    pub(crate) history: &'h History,
}

impl<D: Disk> Clone for Witness<'_, D> {
    fn clone(&self) -> Self {
        Witness {
            store: self.store.clone(),
            history: self.history,
        }
    }
}

impl<D: Disk> Witness<'_, D> {
    pub(crate) fn put(&self, key: &'static str, value: u64) {
        self.try_put(key, value).unwrap();
    }

    pub(crate) fn try_put(&self, key: &'static str, value: u64) -> Result<()> {
        let called = self.history.now();
        let result = self.store.put(key, bytes_of(value));
        // After which nothing was written.
        if !matches!(result, Err(Error::DiskFull { .. })) {
            let failed = result.is_err();
            self.history.note(key, called, Action::Put(value), failed);
        }
        result
    }

    /// Puts several at once.
    pub(crate) fn put_all(&self, values: &[(&'static str, u64)]) {
        let called = self.history.now();
        let mut batch = WriteBatch::new();
        for (key, value) in values {
            batch.put(key, bytes_of(*value)).unwrap();
        }
        self.store.write(&batch).unwrap();
        for (key, value) in values {
            self.history.done(key, called, Action::Put(*value));
        }
    }

    pub(crate) fn delete(&self, key: &'static str) {
        let called = self.history.now();
        let was_there = self.store.delete(key).unwrap();
        self.history
            .done(key, called, Action::Delete(Some(was_there)));
    }

    pub(crate) fn get(&self, key: &'static str) -> Option<Value> {
        let called = self.history.now();
        let value = self.store.get(key).unwrap();
        let seen = value.as_deref().map(value_of);
        self.history.done(key, called, Action::Get(seen));
        value
    }

    /// Reads keys one after the other, as a reader lends them.
    pub(crate) fn read(&self, keys: &[&'static str]) {
        let reader = self.store.reader();
        let lent: Vec<_> = keys
            .iter()
            .map(|key| {
                let called = self.history.now();
                let lent = reader.get(key).unwrap();
                let seen = lent.map(value_of);
                self.history.done(key, called, Action::Get(seen));
                (lent, seen)
            })
            .collect();
        // Whatever came over their segments meanwhile.
        for (lent, seen) in lent {
            assert_eq!(lent.map(value_of), seen, "lent bytes have changed");
        }
    }

    /// Meets what there is; whatever of `keys` is not met was absent at some moment.
    pub(crate) fn iterate(&self, keys: &[&'static str]) {
        let called = self.history.now();
        let mut met = BTreeSet::new();
        for entry in &self.store {
            let (key, value) = entry.unwrap();
            let key = *keys.iter().find(|known| known.as_bytes() == key).unwrap();
            assert!(met.insert(key), "{key} is met twice");
            let seen = Some(value_of(&value));
            self.history.done(key, called, Action::Get(seen));
        }
        for key in keys.iter().filter(|key| !met.contains(*key)) {
            self.history.done(key, called, Action::Get(None));
        }
    }

    pub(crate) fn put_if_absent(&self, key: &'static str, value: u64) {
        let called = self.history.now();
        let won = self.store.put_if_absent(key, bytes_of(value)).unwrap();
        let action = Action::PutIfAbsent { value, won };
        self.history.done(key, called, action);
    }

    /// Gets a key and replaces what it saw there.
    pub(crate) fn swap(&self, key: &'static str, value: u64) {
        let seen = self.get(key);
        let called = self.history.now();
        let version = seen.as_ref().and_then(Value::version);
        let won = match self.store.compare_and_swap(key, version, bytes_of(value)) {
            Ok(()) => true,
            Err(Error::Conflict { .. }) => false,
            Err(other) => panic!("{other}"),
        };
        let action = Action::Swap {
            expected: seen.as_deref().map(value_of),
            value,
            won,
        };
        self.history.done(key, called, action);
    }

    pub(crate) fn add(&self, key: &'static str, by: u64) {
        let called = self.history.now();
        let step = i64::try_from(by).unwrap();
        let sum = self.store.increment(key, step).unwrap();
        let sum = u64::try_from(sum).unwrap();
        self.history.done(key, called, Action::Add { by, sum });
    }

    /// Gets each key, by a get and by iterating, in another store that was made of this one between
    /// `called` and now.
    pub(crate) fn note_copy<E: Disk>(
        &self,
        copy: &Store<E>,
        keys: &[&'static str],
        called: u64,
        returned: u64,
    ) -> Vec<State> {
        let mut states = Vec::new();
        for key in keys {
            let seen = copy.get(key).unwrap().as_deref().map(value_of);
            let operation = Operation {
                called,
                returned: Some(returned),
                action: Action::Get(seen),
            };
            let mut operations = self.history.operations.lock().unwrap();
            operations.entry(*key).or_default().push(operation);
            states.push(seen);
        }
        states
    }
}
