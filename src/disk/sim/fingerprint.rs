//! A disk in one number, so that a test does not look at the same image twice.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use super::SimDisk;
use super::directory::{DirOp, Entries, Target};
use super::file::{FileId, FileOp};
use super::state::State;

impl SimDisk {
    /// A number that two disks have in common, but for chance, only if a process cannot tell them
    /// apart, before or after another crash: the same names, bytes, unsynced changes and time.
    ///
    /// What will be drawn from [`random_u64`](crate::disk::Disk::random_u64), what is set to
    /// fail, and what the last holder of a lock said of itself, its process for one, do not count.
    pub fn fingerprint(&self) -> u128 {
        let state = self.state();
        let mut print = Print {
            hasher: Xxh3::new(),
            files: BTreeMap::new(),
        };
        print.number(state.clock_ms);
        for directory in &state.directories {
            print.entries(&state, &directory.durable);
            print.entries(&state, &directory.volatile);
            print.number(directory.unsynced.len() as u64);
            for (order, op) in &directory.unsynced {
                print.number(*order);
                print.dir_op(&state, op);
            }
        }
        if let Some((id, op)) = &state.in_flight {
            print.file(&state, *id);
            print.file_op(op);
        }
        print.hasher.digest128()
    }
}

struct Print {
    hasher: Xxh3,
    /// The files that were met, numbered in that order: ids tell how a file came to be.
    files: BTreeMap<FileId, u64>,
}

impl Print {
    fn number(&mut self, number: u64) {
        self.hasher.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hasher.update(bytes);
    }

    fn entries(&mut self, state: &State, entries: &Entries) {
        self.number(entries.len() as u64);
        for (name, target) in entries {
            self.bytes(name.as_bytes());
            self.target(state, *target);
        }
    }

    fn target(&mut self, state: &State, target: Target) {
        match target {
            Target::File(id) => self.file(state, id),
            Target::Directory(id) => self.number(!(id.0 as u64)),
        }
    }

    fn file(&mut self, state: &State, id: FileId) {
        let next = self.files.len() as u64;
        if let Some(number) = self.files.get(&id) {
            return self.number(*number);
        }
        self.files.insert(id, next);
        self.number(next);
        let file = state.file(id);
        if !file.is_lock {
            self.bytes(&file.durable);
            self.bytes(&file.volatile);
        }
        self.number(file.unreadable.len() as u64);
        for bad in &file.unreadable {
            self.number(bad.start as u64);
            self.number(bad.end as u64);
        }
        self.number(file.unsynced.len() as u64);
        for (order, op) in &file.unsynced {
            self.number(*order);
            self.file_op(op);
        }
    }

    fn file_op(&mut self, op: &FileOp) {
        match op {
            FileOp::Write { offset, bytes } => {
                self.number(*offset);
                self.bytes(bytes);
            }
            FileOp::SetLen { len } => {
                self.number(u64::MAX);
                self.number(*len);
            }
            FileOp::Preallocate { len } => {
                self.number(u64::MAX - 1);
                self.number(*len);
            }
        }
    }

    fn dir_op(&mut self, state: &State, op: &DirOp) {
        let (kind, name) = match op {
            DirOp::Link { name, .. } => (0, name),
            DirOp::Unlink { name, .. } => (1, name),
            DirOp::Rename { to, .. } => (2, to),
        };
        self.number(kind);
        self.bytes(name.as_bytes());
        self.target(state, op.target());
    }
}
