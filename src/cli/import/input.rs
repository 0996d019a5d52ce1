//! What is imported: a file or standard input, and how far it was read.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use super::super::exit::Failure;
use super::super::{interrupt, transfer};

const BUFFER_BYTES: usize = 256 << 10;

pub(super) struct Input {
    /// `None` for standard input.
    file: Option<(PathBuf, File)>,
    /// Of a file that has one and can be read twice.
    len: Option<u64>,
    position: Cell<u64>,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Input, Failure> {
        let mut input = Input {
            file: None,
            len: None,
            position: Cell::new(0),
        };
        if path.as_os_str() != "-" {
            let opened = File::open(path).and_then(|file| {
                let metadata = file.metadata()?;
                Ok((file, metadata))
            });
            let (file, metadata) = opened.map_err(|source| Failure::file("read", path, source))?;
            input.len = metadata.is_file().then_some(metadata.len());
            input.file = Some((path.to_path_buf(), file));
        }
        Ok(input)
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        match &self.file {
            Some((path, _)) => path.display().to_string(),
            None => "standard input".to_owned(),
        }
    }

    pub(super) fn is_stdin(&self) -> bool {
        self.file.is_none()
    }

    pub(super) fn len(&self) -> Option<u64> {
        self.len
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> u64 {
        self.position.get()
    }

    /// What there is to read. Where that is standard input, and nobody reads it afterwards, it
    /// fails at Ctrl-C, also while it keeps us waiting.
    pub(super) fn reader(&self, is_last_reader: bool) -> Box<dyn BufRead + '_> {
        match &self.file {
            Some((_, file)) => {
                let position = &self.position;
                Box::new(BufReader::with_capacity(
                    BUFFER_BYTES,
                    Counted { file, position },
                ))
            }
            None if is_last_reader => Box::new(BufReader::with_capacity(
                BUFFER_BYTES,
                Interruptible::stdin(),
            )),
            None => Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin().lock())),
        }
    }

    pub(super) fn failure(&self, source: io::Error) -> Failure {
        match &self.file {
            Some((path, _)) => Failure::file("read", path, source),
            None => Failure::Stdio {
                op: "read standard input",
                source,
            },
        }
    }

    /// Says so before anything is imported, where the input can be read twice; of a pipe, it turns
    /// out when the second database comes.
    pub(super) fn refuse_several_databases(&self) -> Result<(), Failure> {
        let (Some((path, _)), Some(_)) = (&self.file, self.len) else {
            return Ok(());
        };
        let names = File::open(path)
            .map(|file| BufReader::with_capacity(BUFFER_BYTES, file))
            .and_then(transfer::databases)
            .map_err(|source| self.failure(source))?;
        if names.len() > 1 {
            let several = transfer::several_databases(&names);
            return Err(Failure::Usage(format!("{}: {several}", self.name())));
        }
        Ok(())
    }
}

/// Tells how far the file was read.
struct Counted<'a> {
    file: &'a File,
    position: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file;
        let read = file.read(buffer)?;
        self.position.set(self.position.get() + read as u64);
        Ok(read)
    }
}

/// How long it takes at most until Ctrl-C is noticed.
const PATIENCE: Duration = Duration::from_millis(50);

/// Standard input, read on a thread of its own: a read that waits cannot be interrupted.
struct Interruptible {
    chunks: Receiver<io::Result<Vec<u8>>>,
    /// What was read last, and how much of it has been taken.
    chunk: Vec<u8>,
    taken: usize,
}

impl Interruptible {
    fn stdin() -> Interruptible {
        // Few chunks wait, so that a fast pipe does not fill the memory.
        let (sender, chunks) = sync_channel(2);
        thread::spawn(move || {
            let mut stdin = io::stdin().lock();
            loop {
                let mut chunk = vec![0; BUFFER_BYTES];
                let read = match stdin.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(len) => {
                        chunk.truncate(len);
                        Ok(chunk)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let is_over = read.is_err();
                if sender.send(read).is_err() || is_over {
                    return;
                }
            }
        });
        Interruptible {
            chunks,
            chunk: Vec::new(),
            taken: 0,
        }
    }
}

impl Read for Interruptible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.chunk.len() {
            match self.chunks.recv_timeout(PATIENCE) {
                Ok(chunk) => {
                    self.chunk = chunk?;
                    self.taken = 0;
                }
                Err(RecvTimeoutError::Timeout) if interrupt::is_requested() => {
                    // Not an end: half a line is no record.
                    return Err(io::Error::other("interrupted"));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
        let read = (&self.chunk[self.taken..]).read(buffer)?;
        self.taken += read;
        Ok(read)
    }
}
