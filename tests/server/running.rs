//! A server of the real program, on a port of its own, and a client that speaks lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
#[cfg(unix)]
use std::process::ExitStatus;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
#[cfg(unix)]
use std::time::Instant;

/// Long enough for any answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_crabkv");

pub(crate) struct Running {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// What it said before it listened.
    pub(crate) greeting: String,
    log: Arc<Mutex<String>>,
}

impl Running {
    pub(crate) fn start(dir: &Path, options: &[&str]) -> Running {
        Running::start_by(Command::new(PROGRAM), dir, options)
    }

    /// By a command that runs [`PROGRAM`] with the arguments that are added to it.
    pub(crate) fn start_by(command: Command, dir: &Path, options: &[&str]) -> Running {
        Running::begin(command, dir, options, true)
    }

    /// Starts it, and closes its stderr once it listens unless it `is_heard`.
    pub(crate) fn start_heard(dir: &Path, options: &[&str], is_heard: bool) -> Running {
        Running::begin(Command::new(PROGRAM), dir, options, is_heard)
    }

    fn begin(mut command: Command, dir: &Path, options: &[&str], is_heard: bool) -> Running {
        command
            .args(["serve", "--addr", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .args(options)
            .env_remove("CRABKV_CACHE_CAPACITY")
            .env_remove("CRABKV_DEFAULT_TTL_SECS")
            .env_remove("CRABKV_PASSWORD")
            .env_remove("CRABKV_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut greeting = String::new();
        let addr = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            greeting += &line;
            greeting += "\n";
            if let Some((_, rest)) = line.split_once("listening on ") {
                let (addr, _) = rest.split_once(';').unwrap();
                break addr.parse().unwrap();
            }
        };
        let log = Arc::new(Mutex::new(String::new()));
        let later = Arc::clone(&log);
        if is_heard {
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    *later.lock().unwrap() += &(line + "\n");
                }
            });
        }
        Running {
            child,
            addr,
            greeting,
            log,
        }
    }

    pub(crate) fn client(&self) -> Client {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client {
            lines: BufReader::new(stream.try_clone().unwrap()),
            stream,
        }
    }

    /// What it has said since.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    #[cfg(unix)]
    pub(crate) fn stop(mut self, signal: &str) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.strip_suffix('\n').unwrap_or(&line).to_owned()
    }

    /// Sends a line, and gives the first of the answer.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n").as_bytes());
        self.line()
    }

    /// Everything until the server closes.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A server that closes before it has read everything resets the connection.
        let _ = self.lines.read_to_end(&mut rest);
        rest
    }
}
