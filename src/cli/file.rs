//! Files that the program writes: whole or not at all. Pipes and devices, such as `/dev/stdout`, are
//! written to as they stand.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::confirm::Consent;
use super::exit::Failure;

/// A file under another name until it is complete. Dropped before, it is removed.
pub(crate) struct NewFile {
    path: PathBuf,
    /// Beside `path`, on the same file system; `None` for what cannot be replaced.
    partial: Option<PathBuf>,
    /// `None` once it is committed.
    file: Option<BufWriter<File>>,
}

impl NewFile {
    /// Begins a file that is to be at `path`, with consent where there is one already.
    pub(crate) fn create(path: &Path, consent: Consent) -> Result<NewFile, Failure> {
        let found = fs::metadata(path).ok();
        if found.as_ref().is_some_and(Metadata::is_dir) {
            let message = format!("{} is a directory; name a file in it", path.display());
            return Err(Failure::Usage(message));
        }
        if found.as_ref().is_some_and(|found| !found.is_file()) {
            let file = File::options().write(true).open(path);
            let file = file.map_err(|source| Failure::file("open", path, source))?;
            return Ok(NewFile::new(path, None, file));
        }
        if fs::symlink_metadata(path).is_ok() {
            consent.ask(&format!("replace {}", path.display()))?;
        }
        // What a link leads to is replaced, not the link; one that leads nowhere is.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let (partial, file) = create_beside(&path)?;
        let new = NewFile::new(&path, Some(partial), file);
        if let Some(replaced) = found {
            new.take_after(&replaced)?;
        }
        Ok(new)
    }

    fn new(path: &Path, partial: Option<PathBuf>, file: File) -> NewFile {
        NewFile {
            path: path.to_path_buf(),
            partial,
            file: Some(BufWriter::with_capacity(256 << 10, file)),
        }
    }

    /// Whoever could not read the file before is not to read it now.
    #[cfg(unix)]
    fn take_after(&self, replaced: &Metadata) -> Result<(), Failure> {
        let file = self.file.as_ref().expect("it is taken by commit only");
        let done = file.get_ref().set_permissions(replaced.permissions());
        done.map_err(|source| Failure::file("set the permissions of", &self.path, source))
    }

    #[cfg(not(unix))]
    #[allow(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "its twin can fail"
    )]
    fn take_after(&self, _: &Metadata) -> Result<(), Failure> {
        Ok(())
    }

    /// Where to write to.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        self.file.as_mut().expect("it is taken by commit only")
    }

    /// Makes it durable and gives it its name.
    pub(crate) fn commit(mut self) -> Result<(), Failure> {
        let file = self.file.take().expect("it is taken here only");
        let written = file.into_inner().map_err(io::IntoInnerError::into_error);
        let done = written.and_then(|file| match &self.partial {
            // A pipe has nothing to sync.
            None => Ok(()),
            Some(partial) => {
                file.sync_all()?;
                fs::rename(partial, &self.path)
            }
        });
        match done {
            Ok(()) => sync_parent(&self.path),
            Err(_) => self.remove(),
        }
        done.map_err(|source| self.failure(source))
    }

    /// What it means that writing to it failed.
    pub(crate) fn failure(&self, source: io::Error) -> Failure {
        failure(&self.path, source)
    }

    fn remove(&self) {
        if let Some(partial) = &self.partial {
            let _ = fs::remove_file(partial);
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What is still in the buffer is not wanted any more.
            drop(file.into_parts());
            self.remove();
        }
    }
}

/// What it means that writing to a file of this name failed.
pub(crate) fn failure(path: &Path, source: io::Error) -> Failure {
    if source.kind() == ErrorKind::BrokenPipe {
        Failure::ClosedPipe
    } else {
        Failure::file("write", path, source)
    }
}

/// A new file with a name of its own. A process that was killed may have had the same number, as
/// all have in a container, and left one.
fn create_beside(path: &Path) -> Result<(PathBuf, File), Failure> {
    let Some(name) = path.file_name() else {
        let message = format!("{} is no name for a file", path.display());
        return Err(Failure::Usage(message));
    };
    let process = std::process::id();
    let mut again = 0;
    loop {
        let mut name = name.to_owned();
        name.push(match again {
            0 => format!(".{process}.partial"),
            again => format!(".{process}-{again}.partial"),
        });
        let partial = path.with_file_name(name);
        match File::create_new(&partial) {
            Ok(file) => return Ok((partial, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => again += 1,
            Err(error) => return Err(Failure::file("create", path, error)),
        }
    }
}

/// Makes a new name durable, where directories can be synced.
fn sync_parent(path: &Path) {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let _ = File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_of_the_same_number_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let left = format!("all.csv.{}.partial", std::process::id());
        fs::write(dir.path().join(&left), "left").unwrap();
        let path = dir.path().join("all.csv");
        let new = NewFile::create(&path, Consent::default());
        let mut new = new.map_err(|failure| failure.to_string()).unwrap();
        new.writer().write_all(b"key,value\n").unwrap();
        assert!(!path.exists());
        new.commit().map_err(|failure| failure.to_string()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"key,value\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
