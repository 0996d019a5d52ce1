//! The real thing, where it is installed: the same commands, and the same replies.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::resp::Resp;

/// Long enough for a server to begin to listen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `redis-server` on a port of its own, with nothing in it.
pub(crate) struct Redis {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Redis {
    /// `None`, and a line that says so, where it is not installed.
    pub(crate) fn start() -> Option<Redis> {
        let dir = tempfile::tempdir().unwrap();
        // It cannot choose a free port itself.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: there is no redis-server to compare with: {error}");
                return None;
            }
        };
        let redis = Redis {
            child,
            port,
            _dir: dir,
        };
        let begun = Instant::now();
        while Resp::try_connect(("127.0.0.1", port)).is_none() {
            assert!(begun.elapsed() < PATIENCE, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(redis)
    }

    pub(crate) fn client(&self) -> Resp {
        Resp::try_connect(("127.0.0.1", self.port)).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does each command on both, and fails with all replies that are not the same.
pub(crate) fn compare<W: AsRef<[u8]>>(ours: &mut Resp, theirs: &mut Resp, commands: &[Vec<W>]) {
    let mut different = Vec::new();
    for words in commands {
        let (our, their) = (ours.call(words), theirs.call(words));
        if our != their {
            let words = words.iter().map(|word| word.as_ref().escape_ascii());
            let command: Vec<_> = words.map(|word| word.to_string()).collect();
            let command = command.join(" ");
            different.push(format!("{command}\n  ours   {our:?}\n  theirs {their:?}"));
        }
    }
    let different = different.join("\n");
    assert!(different.is_empty(), "different replies:\n{different}");
}
