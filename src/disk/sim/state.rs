//! Everything on the disk: its files and directories, found by path or by id.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path};
use std::sync::{Arc, PoisonError};

use super::directory::{DirId, DirOp, Directory, Target};
use super::fault::{Faults, OpKind};
use super::file::{FileId, FileOp, FileState};
use super::rng::Rng;
use crate::sync::{Mutex, MutexGuard};

/// The morning of 1 January 2024, UTC.
const FIRST_CLOCK_MS: u64 = 1_704_096_000_000;

pub(super) const ROOT: DirId = DirId(0);

pub(super) struct State {
    pub(super) files: BTreeMap<FileId, FileState>,
    /// By their ids; directories are never removed.
    pub(super) directories: Vec<Directory>,
    pub(super) next_file: u64,
    /// The place of the next change in the order of all changes.
    pub(super) next_order: u64,
    /// The write during which the power failed.
    pub(super) in_flight: Option<(FileId, FileOp)>,
    /// What the holders of locks wrote about themselves, by path.
    pub(super) locks: BTreeMap<String, String>,
    pub(super) faults: Faults,
    pub(super) clock_ms: u64,
    pub(super) random: Rng,
    pub(super) capacity: Option<u64>,
    pub(super) refuses_hard_links: bool,
    /// What each operation would have left behind, had the power failed during it.
    pub(super) moments: Option<Vec<State>>,
}

pub(super) fn lock_state(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A test that panicked has failed anyway; others want to say what they found.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        State {
            files: BTreeMap::new(),
            directories: vec![Directory::default()],
            next_file: 0,
            next_order: 0,
            in_flight: None,
            locks: BTreeMap::new(),
            faults: Faults::default(),
            clock_ms: FIRST_CLOCK_MS,
            random: Rng::new(seed),
            capacity: None,
            refuses_hard_links: false,
            moments: None,
        }
    }

    /// Keeps this moment, before an operation that may change something, if moments are kept. A
    /// write could survive in part.
    pub(super) fn note_moment(&mut self, in_flight: impl FnOnce() -> Option<(FileId, FileOp)>) {
        if self.faults.alive().is_err() {
            return;
        }
        if let Some(mut moments) = self.moments.take() {
            moments.push(self.without_processes(in_flight()));
            self.moments = Some(moments);
        }
    }

    /// The gate of operations that change something and can only happen or not.
    pub(super) fn change(&mut self, op: OpKind) -> io::Result<()> {
        self.note_moment(|| None);
        self.faults.change(op)
    }

    pub(super) fn file(&self, id: FileId) -> &FileState {
        &self.files[&id]
    }

    pub(super) fn file_mut(&mut self, id: FileId) -> &mut FileState {
        // Files are forgotten only when no handle, name or change refers to them.
        self.files.entry(id).or_default()
    }

    pub(super) fn new_file(&mut self, file: FileState) -> FileId {
        let id = FileId(self.next_file);
        self.next_file += 1;
        self.files.insert(id, file);
        id
    }

    pub(super) fn next_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    pub(super) fn change_file(&mut self, id: FileId, op: FileOp) {
        let order = self.next_order();
        let file = self.file_mut(id);
        op.apply(Arc::make_mut(&mut file.volatile));
        file.unsynced.push((order, op));
    }

    pub(super) fn change_dir(&mut self, id: DirId, op: DirOp) {
        let order = self.next_order();
        self.directories[id.0].change(order, op);
    }

    /// Puts a durable file at `path`, in place of what was there.
    pub(super) fn place(&mut self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let (dir, name) = self.split(path)?;
        let target = Target::File(self.new_file(FileState::with_bytes(bytes)));
        let directory = &mut self.directories[dir.0];
        Arc::make_mut(&mut directory.durable).insert(name.clone(), target);
        Arc::make_mut(&mut directory.volatile).insert(name, target);
        self.forget_all_unreachable();
        Ok(())
    }

    pub(super) fn directory(&self, path: &Path) -> io::Result<DirId> {
        self.walk(&components(path))
    }

    pub(super) fn walk(&self, names: &[String]) -> io::Result<DirId> {
        let mut at = ROOT;
        for name in names {
            at = match self.directories[at.0].volatile.get(name) {
                Some(Target::Directory(id)) => *id,
                Some(Target::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                None => return Err(ErrorKind::NotFound.into()),
            };
        }
        Ok(at)
    }

    /// The directory of a path and the name in it.
    pub(super) fn split(&self, path: &Path) -> io::Result<(DirId, String)> {
        let mut names = components(path);
        let name = names.pop().ok_or(ErrorKind::IsADirectory)?;
        Ok((self.walk(&names)?, name))
    }

    pub(super) fn file_at(&self, path: &Path) -> io::Result<FileId> {
        let (dir, name) = self.split(path)?;
        match self.directories[dir.0].volatile.get(&name) {
            Some(Target::File(id)) => Ok(*id),
            Some(Target::Directory(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let targets = (self.directories.iter()).flat_map(|dir| dir.volatile.values());
        let named: BTreeSet<FileId> = targets.filter_map(|target| file_of(*target)).collect();
        let files = self.files.iter();
        files
            .filter(|(id, file)| file.handle_count > 0 || named.contains(id))
            .map(|(_, file)| file.volatile.len() as u64)
            .sum()
    }

    /// How many bytes the files may grow by.
    pub(super) fn room(&self) -> u64 {
        match self.capacity {
            Some(capacity) => capacity.saturating_sub(self.used_bytes()),
            None => u64::MAX,
        }
    }

    /// Forgets a file that no handle, name or unsynced change can bring back.
    pub(super) fn forget_unreachable(&mut self, id: FileId) {
        let target = Target::File(id);
        let is_reachable = self.file(id).handle_count > 0
            || matches!(self.in_flight, Some((other, _)) if other == id)
            || (self.directories.iter()).any(|dir| dir.targets().any(|other| other == target));
        if !is_reachable {
            self.files.remove(&id);
        }
    }

    pub(super) fn forget_all_unreachable(&mut self) {
        let targets = self.directories.iter().flat_map(Directory::targets);
        let mut reachable: BTreeSet<FileId> = targets.filter_map(file_of).collect();
        reachable.extend(self.in_flight.iter().map(|(id, _)| *id));
        self.files
            .retain(|id, file| file.handle_count > 0 || reachable.contains(id));
    }
}

fn file_of(target: Target) -> Option<FileId> {
    match target {
        Target::File(id) => Some(id),
        Target::Directory(_) => None,
    }
}

/// The names along a path from the root.
pub(super) fn components(path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => {
                names.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    names
}
