//! The lines that were typed, from one shell to the next: a file of lines, for its owner alone.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cli::context::Context;

/// How many lines are known at the prompt.
const MAX_LINES: usize = 1000;

/// How many a file comes to before all but the last [`MAX_LINES`] are dropped.
const MAX_LINES_IN_FILE: usize = 2 * MAX_LINES;

/// Names the file; empty for none.
pub(crate) const VARIABLE: &str = "CRABKV_HISTORY";

pub(super) struct History {
    /// `None` where none is wanted, there is no place for it, or it cannot be written.
    path: Option<PathBuf>,
    lines: Vec<String>,
}

impl History {
    pub(super) fn open() -> History {
        History::open_at(path())
    }

    fn open_at(path: Option<PathBuf>) -> History {
        // Without a file, as the first time, there are no lines.
        let text = path
            .as_deref()
            .and_then(|path| fs::read(path).ok())
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
        let lines: Vec<_> = all[all.len().saturating_sub(MAX_LINES)..]
            .iter()
            .map(|&line| line.to_owned())
            .collect();
        if let (Some(path), true) = (&path, all.len() > MAX_LINES_IN_FILE) {
            // If that fails, it stays as long as it is.
            let _ = shorten(path, &lines);
        }
        History { path, lines }
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Adds a line to the file, at once: another shell may end first, or this one not in good order.
    pub(super) fn append(&mut self, line: &str, context: &Context) {
        let Some(path) = &self.path else {
            return;
        };
        if let Err(error) = append(path, line) {
            context.warn(format_args!(
                "no history is kept: cannot write {}: {error}; {VARIABLE} names another file, or \
                 none if it is empty",
                path.display()
            ));
            self.path = None;
        }
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = owners(File::options().append(true).create(true)).open(path)?;
    // In one piece, since other shells write there.
    file.write_all(format!("{line}\n").as_bytes())
}

fn shorten(path: &Path, lines: &[String]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let mut file = owners(File::options().write(true).create_new(true)).open(&partial)?;
    let written = file
        .write_all((lines.join("\n") + "\n").as_bytes())
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Values that were typed are nobody else's business.
#[cfg(unix)]
fn owners(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;

    options.mode(0o600)
}

#[cfg(not(unix))]
fn owners(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    options
}

fn path() -> Option<PathBuf> {
    let variable = |name| env::var_os(name);
    if let Some(path) = variable(VARIABLE) {
        return (!path.is_empty()).then(|| PathBuf::from(path));
    }
    let absolute = |name| {
        let path = PathBuf::from(variable(name)?);
        path.is_absolute().then_some(path)
    };
    let state = if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else {
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
    };
    Some(state?.join("crabkv").join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_there_the_next_time_and_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/crabkv/history");
        assert!(History::open_at(Some(path.clone())).lines().is_empty());
        append(&path, "put password 1234").unwrap();
        append(&path, "get password").unwrap();
        let history = History::open_at(Some(path.clone()));
        assert_eq!(history.lines(), ["put password 1234", "get password"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;

            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_has_become_long_is_cut_to_its_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let lines: Vec<_> = (1..=2001).map(|n| format!("get {n}")).collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        let history = History::open_at(Some(path.clone()));
        assert_eq!(history.lines().len(), 1000);
        assert_eq!(history.lines()[0], "get 1002");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("get 1002\n") && text.ends_with("\nget 2001\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
