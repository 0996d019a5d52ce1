//! The directory that is filled: one that was made for it or was empty, and is again at the end.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::cli::exit::{Failure, say};
use crate::cli::units::size;

/// A directory for one run. Dropped, it is as it was before: gone, or empty.
pub(crate) struct Scratch {
    path: PathBuf,
    /// Whether it was made here.
    made: bool,
    keep: bool,
}

impl Scratch {
    /// Takes this directory, which must be empty, or makes it.
    pub(crate) fn at(path: &Path, keep: bool) -> Result<Scratch, Failure> {
        let path = path.to_path_buf();
        let made = match fs::create_dir(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(Failure::file("create", &path, error)),
        };
        if !made {
            let entries = fs::read_dir(&path).and_then(|mut entries| entries.next().transpose());
            match entries {
                Ok(None) => {}
                Ok(Some(_)) => {
                    let message = format!(
                        "{} is not empty; bench fills a directory of its own: name another one \
                         with --dir",
                        path.display()
                    );
                    return Err(Failure::Usage(message));
                }
                Err(error) => return Err(Failure::file("read", &path, error)),
            }
        }
        Ok(Scratch { path, made, keep })
    }

    /// Makes a directory beside that of the store, on the disk that the store would use.
    pub(crate) fn beside(data_dir: &Path, keep: bool) -> Result<Scratch, Failure> {
        let parent = data_dir.parent().unwrap_or(data_dir);
        let process = std::process::id();
        let mut path = parent.join(format!("crabkv-bench-{process}"));
        // A process that was killed may have had the same number.
        for again in 1.. {
            match fs::create_dir(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    path = parent.join(format!("crabkv-bench-{process}-{again}"));
                }
                Err(error) => return Err(Failure::file("create", &path, error)),
                Ok(()) => break,
            }
        }
        let made = true;
        Ok(Scratch { path, made, keep })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails where there is less room than that, before any of it is taken.
    pub(crate) fn require(&self, bytes: u64) -> Result<(), Failure> {
        let free = fs2::available_space(&self.path)
            .map_err(|error| Failure::file("find out the free space of", &self.path, error))?;
        if free >= bytes {
            return Ok(());
        }
        let reason = format!(
            "{} are free and up to {} are needed; ask for fewer --keys, or name a directory on \
             another disk with --dir",
            size(free),
            size(bytes)
        );
        let full = io::Error::new(ErrorKind::StorageFull, reason);
        Err(Failure::file("fill", &self.path, full))
    }

    fn remove(&self) -> io::Result<()> {
        if self.made {
            return fs::remove_dir_all(&self.path);
        }
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = self.remove() {
            say(format_args!(
                "warning: {} was left behind, remove it at will: {error}",
                self.path.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn a_directory_that_was_made_is_gone_again() {
        let dir = tempdir().unwrap();
        let scratch = Scratch::beside(&dir.path().join("data"), false).unwrap();
        fs::write(scratch.path().join("file"), "x").unwrap();
        assert_eq!(scratch.path().parent(), Some(dir.path()));
        let other = Scratch::beside(&dir.path().join("data"), false).unwrap();
        assert_ne!(scratch.path(), other.path());
        drop((scratch, other));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_was_there_is_empty_again() {
        let dir = tempdir().unwrap();
        let scratch = Scratch::at(dir.path(), false).unwrap();
        fs::write(scratch.path().join("file"), "x").unwrap();
        fs::create_dir(scratch.path().join("dir")).unwrap();
        drop(scratch);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_to_be_kept_stays() {
        let dir = tempdir().unwrap();
        drop(Scratch::at(&dir.path().join("kept"), true).unwrap());
        assert!(dir.path().join("kept").is_dir());
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused_and_left_alone() {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let Err(Failure::Usage(message)) = Scratch::at(dir.path(), false) else {
            panic!("it was taken");
        };
        assert!(message.contains("is not empty"), "{message}");
        assert!(dir.path().join("precious").is_file());
    }

    #[test]
    fn more_than_there_is_room_for_is_refused() {
        let dir = tempdir().unwrap();
        let scratch = Scratch::at(dir.path(), false).unwrap();
        scratch.require(1).unwrap();
        let failure = scratch.require(1 << 60).unwrap_err().to_string();
        assert!(failure.contains("are free and up to"), "{failure}");
    }
}
