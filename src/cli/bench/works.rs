//! What one thread does in each phase: the calls of the store, and their keys and values.

use std::cell::Cell;

use crabkv::Store;

use super::measure::{BLOCK, Done, Stop, Work};
use super::phases::{Phase, Plan, wrong_count};
use super::workload::{Numbers, part, tag_of};
use crate::cli::exit::Failure;

/// Keys of one call of `get_many`.
pub(crate) const MANY: usize = 32;

/// Bytes of values that are made ready together at most, unless one is longer: they stay in the
/// cache until they are put.
const PREPARED_BYTES: usize = 64 << 10;

/// Entries of a scan between two looks at whether to stop.
const ENTRIES_PER_LOOK: u64 = 1024;

/// Puts a thread's share of all keys, in batches.
pub(crate) struct Fill<'a> {
    plan: &'a Plan,
    store: &'a Store,
    next: u64,
    end: u64,
    keys: Vec<u8>,
    values: Vec<u8>,
    ready: usize,
}

impl<'a> Fill<'a> {
    pub(crate) fn new(plan: &'a Plan, store: &'a Store, thread: u64) -> Fill<'a> {
        Fill {
            plan,
            store,
            next: part(plan.keys.count, thread, plan.threads),
            end: part(plan.keys.count, thread + 1, plan.threads),
            keys: Vec::new(),
            values: Vec::new(),
            ready: 0,
        }
    }
}

impl Work for Fill<'_> {
    fn prepare(&mut self, _: usize) -> usize {
        self.keys.clear();
        self.values.clear();
        let end = self.end.min(self.next + self.plan.batch);
        self.ready = (end - self.next) as usize;
        for number in self.next..end {
            let start = self.keys.len();
            self.plan.keys.append(number, &mut self.keys);
            let tag = tag_of(&self.keys[start..]);
            self.plan.values.append(tag, &mut self.values);
        }
        self.next = end;
        usize::from(self.ready > 0)
    }

    fn lane(&self, _: usize) -> usize {
        0
    }

    fn run(&mut self, _: usize, _: &Stop<'_>) -> Result<Done, Failure> {
        let (key_size, value_size) = (self.plan.keys.size, self.plan.values.size());
        let pair = |i: usize| {
            let key = &self.keys[i * key_size..][..key_size];
            (key, &self.values[i * value_size..][..value_size])
        };
        if self.ready == 1 {
            let (key, value) = pair(0);
            self.store.put(key, value)?;
        } else {
            self.store.put_batch((0..self.ready).map(pair))?;
        }
        Ok(Done {
            operations: self.ready as u64,
            bytes: self.ready as u64 * self.plan.pair_bytes(),
        })
    }
}

/// Puts and gets of single keys.
pub(crate) struct Points<'a> {
    plan: &'a Plan,
    store: &'a Store,
    phase: Phase,
    numbers: Numbers,
    ready: Vec<Point>,
    keys: Vec<u8>,
    values: Vec<u8>,
}

struct Point {
    tag: u64,
    /// For a put, where its value begins.
    put: Option<usize>,
}

impl<'a> Points<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        store: &'a Store,
        phase: Phase,
        number: u64,
        thread: u64,
    ) -> Points<'a> {
        Points {
            plan,
            store,
            phase,
            numbers: plan.numbers(number, thread),
            ready: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
        }
    }

    fn is_next_put(&mut self) -> bool {
        match self.phase {
            Phase::Put => true,
            Phase::Mixed => self.numbers.choose(100) >= self.plan.reads_percent,
            _ => false,
        }
    }
}

impl Work for Points<'_> {
    fn prepare(&mut self, count: usize) -> usize {
        self.ready.clear();
        self.keys.clear();
        self.values.clear();
        while self.ready.len() < count && self.values.len() < PREPARED_BYTES {
            let put = self.is_next_put();
            let mut number = self.numbers.next();
            if self.phase == Phase::GetMiss {
                number += self.plan.keys.count;
            }
            let start = self.keys.len();
            self.plan.keys.append(number, &mut self.keys);
            let tag = tag_of(&self.keys[start..]);
            let put = put.then_some(self.values.len());
            if put.is_some() {
                self.plan.values.append(tag, &mut self.values);
            }
            self.ready.push(Point { tag, put });
        }
        self.ready.len()
    }

    fn lane(&self, i: usize) -> usize {
        usize::from(self.phase == Phase::Mixed && self.ready[i].put.is_some())
    }

    fn run(&mut self, i: usize, _: &Stop<'_>) -> Result<Done, Failure> {
        let Point { tag, put } = self.ready[i];
        let key_size = self.plan.keys.size;
        let key = &self.keys[i * key_size..][..key_size];
        let Some(start) = put else {
            let value = self.store.get(key)?;
            return self.plan.check(self.phase, key, tag, value.as_deref());
        };
        let value = &self.values[start..][..self.plan.values.size()];
        self.store.put(key, value)?;
        Ok(Done {
            operations: 1,
            bytes: self.plan.pair_bytes(),
        })
    }
}

/// Gets of many keys at a time.
pub(crate) struct Many<'a> {
    plan: &'a Plan,
    store: &'a Store,
    numbers: Numbers,
    tags: Vec<u64>,
    keys: Vec<u8>,
}

impl<'a> Many<'a> {
    pub(crate) fn new(plan: &'a Plan, store: &'a Store, number: u64, thread: u64) -> Many<'a> {
        Many {
            plan,
            store,
            numbers: plan.numbers(number, thread),
            tags: Vec::new(),
            keys: Vec::new(),
        }
    }
}

impl Work for Many<'_> {
    fn prepare(&mut self, count: usize) -> usize {
        let calls = count.min(BLOCK / MANY);
        self.tags.clear();
        self.keys.clear();
        for _ in 0..calls * MANY {
            let start = self.keys.len();
            self.plan.keys.append(self.numbers.next(), &mut self.keys);
            self.tags.push(tag_of(&self.keys[start..]));
        }
        calls
    }

    fn lane(&self, _: usize) -> usize {
        0
    }

    fn run(&mut self, i: usize, _: &Stop<'_>) -> Result<Done, Failure> {
        let size = self.plan.keys.size;
        let tags = &self.tags[i * MANY..][..MANY];
        let keys = &self.keys[i * MANY * size..];
        let keys: [&[u8]; MANY] = std::array::from_fn(|at| &keys[at * size..][..size]);
        let failed = Cell::new(None);
        let reader = self.store.reader();
        reader.get_many(&keys, |at, value| {
            let checked = self.plan.check(Phase::GetMany, keys[at], tags[at], value);
            if let Err(failure) = checked {
                failed.set(Some(failure));
            }
        })?;
        match failed.into_inner() {
            Some(failure) => Err(failure),
            None => Ok(Done {
                operations: MANY as u64,
                bytes: MANY as u64 * self.plan.pair_bytes(),
            }),
        }
    }
}

/// Iterations over the whole store.
pub(crate) struct Scan<'a> {
    plan: &'a Plan,
    store: &'a Store,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(plan: &'a Plan, store: &'a Store) -> Scan<'a> {
        Scan { plan, store }
    }
}

impl Work for Scan<'_> {
    fn prepare(&mut self, _: usize) -> usize {
        1
    }

    fn lane(&self, _: usize) -> usize {
        0
    }

    fn run(&mut self, _: usize, stop: &Stop<'_>) -> Result<Done, Failure> {
        let mut operations = 0;
        for entry in self.store {
            let (key, value) = entry?;
            self.plan
                .check(Phase::Scan, &key, tag_of(&key), Some(&value))?;
            operations += 1;
            if operations % ENTRIES_PER_LOOK == 0 && stop.is_requested() {
                break;
            }
        }
        if operations != self.plan.keys.count && !stop.is_requested() {
            return Err(wrong_count("scan", self.plan.keys.count, operations));
        }
        Ok(Done {
            operations,
            bytes: operations * self.plan.pair_bytes(),
        })
    }
}
