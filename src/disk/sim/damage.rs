//! Looking into the disk and damaging it, from outside of the machine.
//!
//! None of this counts as an operation, fails on command or needs a sync: what it touches is
//! durable at once, along with what was unsynced there.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::SimDisk;
use super::directory::Target;
use super::file::{FileId, FileState};
use super::state::State;

impl SimDisk {
    /// The files of a directory with their bytes as a reader would see them, sorted by name.
    ///
    /// Nothing when there is no such directory.
    pub fn files(&self, dir: &Path) -> Vec<(String, Vec<u8>)> {
        let state = self.state();
        let Ok(dir) = state.directory(dir) else {
            return Vec::new();
        };
        let entries = state.directories[dir.0].volatile.iter();
        entries
            .filter_map(|(name, target)| match target {
                Target::File(id) => Some((name.clone(), state.file(*id).volatile.to_vec())),
                Target::Directory(_) => None,
            })
            .collect()
    }

    /// A file's bytes as a reader would see them.
    pub fn read_raw(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let id = state.file_at(path).ok()?;
        Some(state.file(id).volatile.to_vec())
    }

    /// Flips the bits of the byte at `offset` that are set in `xor`.
    ///
    /// # Panics
    ///
    /// When there is no such file or byte.
    pub fn corrupt(&self, path: &Path, offset: u64, xor: u8) {
        self.damage(path, |bytes| match bytes.get_mut(offset as usize) {
            Some(byte) => *byte ^= xor,
            None => panic!("{} has no byte {offset}", path.display()),
        });
    }

    /// From now on the medium cannot read these bytes of a file: reading any of them is an I/O
    /// error, whatever has been written there meanwhile, and a map that is made of them is a trap.
    /// To look at one of them through it is what a fault in a map is, the end of the process: the
    /// thread panics, and of everything that it or another thread still tries nothing gets to the
    /// disk. [`crash`](SimDisk::crash) tells what is on it.
    ///
    /// How much a reader looks at is known of it only where it asks for a number of bytes, or for
    /// all; where it asks for the rest of a file, that it looks at the first byte of that.
    ///
    /// # Panics
    ///
    /// When there is no such file.
    pub fn lose_sectors(&self, path: &Path, bytes: Range<u64>) {
        let mut state = self.state();
        match state.file_at(path) {
            Ok(id) => {
                let bad = bytes.start as usize..bytes.end as usize;
                state.file_mut(id).unreadable.push(bad);
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    /// The medium can read everything again.
    pub fn find_sectors(&self) {
        for file in self.state().files.values_mut() {
            file.unreadable.clear();
        }
    }

    /// Cuts a file, or extends it with zeros.
    ///
    /// # Panics
    ///
    /// When there is no such file.
    pub fn truncate(&self, path: &Path, len: u64) {
        self.damage(path, |bytes| bytes.resize(len as usize, 0));
    }

    /// Replaces a file's bytes, or makes the file. It is the same file to whoever has it open.
    ///
    /// # Panics
    ///
    /// When there is no such directory.
    pub fn write_raw(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        match state.file_at(path) {
            Ok(id) => state.replace_bytes(id, bytes.to_vec()),
            Err(_) => {
                if let Err(error) = state.place(path, bytes.to_vec()) {
                    panic!("{}: {error}", path.display());
                }
            }
        }
    }

    /// Removes a file.
    ///
    /// # Panics
    ///
    /// When there is no such file.
    pub fn remove_raw(&self, path: &Path) {
        let mut state = self.state();
        let removed = state.file_at(path).and_then(|id| {
            let (dir, name) = state.split(path)?;
            Ok((id, dir, name))
        });
        match removed {
            Ok((id, dir, name)) => {
                let directory = &mut state.directories[dir.0];
                Arc::make_mut(&mut directory.volatile).remove(&name);
                directory.sync();
                state.forget_unreachable(id);
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        match state.file_at(path) {
            Ok(id) => {
                let mut bytes = state.file(id).volatile.to_vec();
                change(&mut bytes);
                state.replace_bytes(id, bytes);
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

impl State {
    fn replace_bytes(&mut self, id: FileId, bytes: Vec<u8>) {
        let file = self.file_mut(id);
        *file = FileState {
            handle_count: file.handle_count,
            ..FileState::with_bytes(bytes)
        };
    }
}
