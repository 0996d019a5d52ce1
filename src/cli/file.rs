//! Files that the program writes: whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::confirm::Consent;
use super::exit::Failure;

/// A file under another name until it is complete. Dropped before, it is removed.
pub(crate) struct NewFile {
    path: PathBuf,
    /// Beside `path`, on the same file system.
    partial: PathBuf,
    /// `None` once it is committed.
    file: Option<BufWriter<File>>,
}

impl NewFile {
    /// Begins a file that is to be at `path`, with consent where there is one already.
    pub(crate) fn create(path: &Path, consent: Consent) -> Result<NewFile, Failure> {
        // A link's target is not asked about: what is replaced is the name.
        if fs::symlink_metadata(path).is_ok() {
            consent.ask(&format!("replace {}", path.display()))?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        if name.is_empty() {
            let message = format!("{} is no name for a file", path.display());
            return Err(Failure::Usage(message));
        }
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        let file = File::create_new(&partial)
            .map_err(|source| Failure::file("create", &partial, source))?;
        Ok(NewFile {
            path: path.to_path_buf(),
            partial,
            file: Some(BufWriter::with_capacity(256 << 10, file)),
        })
    }

    /// Where to write to.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        self.file.as_mut().expect("it is taken by commit only")
    }

    /// Makes it durable and gives it its name.
    pub(crate) fn commit(mut self) -> Result<(), Failure> {
        let path = self.path.clone();
        let failed = |source: io::Error| Failure::file("write", &path, source);
        let file = self.file.take().expect("it is taken here only");
        let done = file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.partial, &self.path));
        if done.is_err() {
            let _ = fs::remove_file(&self.partial);
        }
        done.map_err(failed)
    }

    /// What it means that writing to it failed.
    pub(crate) fn failure(&self, source: io::Error) -> Failure {
        Failure::file("write", &self.path, source)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.partial);
        }
    }
}
