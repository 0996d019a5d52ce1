//! Many connections, and the end of a server in the middle of their work.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crabkv::Store;
use tempfile::tempdir;

use crate::resp::{Reply, array, request, simple};
use crate::running::Running;

/// Long enough for any answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A transaction is there as a whole or not at all, and what was answered is there.
#[test]
fn a_kill_under_load_loses_nothing_that_was_answered() {
    const THREADS: usize = 4;
    let dir = tempdir().unwrap();
    let mut begin = 0u64;
    for round in 0..4 {
        let server = Running::start(dir.path(), &[]);
        let addr = server.addr;
        // Of the threads, those that got an answer.
        let at_work = Arc::new(AtomicUsize::new(0));
        // The last number of each thread that was acknowledged, and the last that was sent.
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let mut client = server.resp();
                let at_work = Arc::clone(&at_work);
                thread::spawn(move || {
                    let mut acknowledged = None;
                    let mut sent = begin;
                    for number in begin.. {
                        sent = number;
                        let value = number.to_string();
                        let words = |name: &str| {
                            let key = format!("{name}{thread}");
                            request(&["SET", key.as_str(), value.as_str()])
                        };
                        let mut requests = words("plain");
                        requests.extend(request(&["MULTI"]));
                        requests.extend(words("first"));
                        requests.extend(words("second"));
                        requests.extend(request(&["EXEC"]));
                        let done = client.stream.write_all(&requests).is_ok()
                            && (0..5).all(|_| client.try_reply().is_some());
                        if !done {
                            break;
                        }
                        if acknowledged.is_none() {
                            at_work.fetch_add(1, Ordering::Relaxed);
                        }
                        acknowledged = Some(number);
                    }
                    (acknowledged, sent)
                })
            })
            .collect();
        let started = Instant::now();
        while at_work.load(Ordering::Relaxed) < THREADS {
            assert!(started.elapsed() < PATIENCE, "nothing is answered");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(300 + 100 * round));
        server.kill();
        assert!(TcpStream::connect(addr).is_err());
        let store = Store::open(dir.path()).unwrap();
        let number = |key: String| -> Option<u64> {
            let value = store.get(key).unwrap()?;
            Some(std::str::from_utf8(&value).unwrap().parse().unwrap())
        };
        for (thread, worker) in workers.into_iter().enumerate() {
            let (acknowledged, sent) = worker.join().unwrap();
            let plain = number(format!("plain{thread}"));
            assert!(plain >= acknowledged && plain <= Some(sent), "{plain:?}");
            let first = number(format!("first{thread}"));
            assert_eq!(first, number(format!("second{thread}")));
            assert!(first >= acknowledged && first <= Some(sent), "{first:?}");
            begin = begin.max(sent + 1);
        }
    }
}

#[cfg(target_os = "linux")]
/// The process's own memory, in bytes.
pub(crate) fn own_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib * 1024
}

#[cfg(target_os = "linux")] // it tells in /proc what memory and descriptors a process has
#[test]
fn idle_connections_cost_little_and_busy_ones_leave_nothing_behind() {
    const IDLE: usize = 1000;
    const BUSY: usize = 50;
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--max-connections", "2000"]);
    let before = own_memory(server.pid());
    let idle: Vec<_> = (0..IDLE).map(|_| server.resp()).collect();
    let work = |rounds: usize| {
        thread::scope(|scope| {
            for client in 0..BUSY {
                let mut busy = server.resp();
                scope.spawn(move || {
                    let value = "v".repeat(100);
                    for round in 0..rounds {
                        let key = format!("key{client}:{}", round % 20);
                        let reply = busy.call(&["SET", key.as_str(), value.as_str()]);
                        assert_eq!(reply, simple("OK"));
                        let reply = busy.call(&["GET", key.as_str()]);
                        assert_eq!(reply, Reply::from(value.as_str()));
                    }
                });
            }
        });
    };
    work(100);
    let settled = own_memory(server.pid());
    work(400);
    let after = own_memory(server.pid());
    // An idle connection has no buffers; its record and its socket's are a few hundred bytes here.
    let limit = before + (IDLE as u64) * (16 << 10) + (16 << 20);
    assert!(settled < limit, "{before} bytes before, {settled} with all");
    assert!(
        after < settled + (4 << 20),
        "{settled} bytes grew to {after}"
    );
    // They still work.
    for mut client in idle {
        assert_eq!(client.ask("PING"), simple("PONG"));
    }
}

#[test]
fn a_client_that_sends_a_byte_at_a_time_holds_up_nobody() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut slow = server.resp();
    let mut other = server.resp();
    let begun = Instant::now();
    for byte in request(&["SET", "slow", "value"]) {
        slow.send(&[byte]);
        assert_eq!(other.ask("PING"), simple("PONG"));
    }
    assert_eq!(slow.reply(), simple("OK"));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn puts_that_are_written_together_are_seen_by_whatever_follows_them() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--default-ttl", "1h"]);
    let mut client = server.resp();
    let mut requests = Vec::new();
    let long = "x".repeat(65_536);
    for words in [
        &["SET", "a", "1"][..],
        &["SET", "a", "2"],
        &["set", "b", "1"],
        &["GET", "a"],
        &["SET", "a", "3"],
        &["SET", &long, "1"],
        &["SET", "a", "4"],
        &["INCR", "a"],
        &["SET", "a", "6"],
        &["MULTI"],
        &["SET", "a", "7"],
        &["EXEC"],
        &["SET", "c", "1"],
        &["CLIENT", "REPLY", "OFF"],
        &["SET", "c", "2"],
        &["CLIENT", "REPLY", "ON"],
        &["MGET", "a", "b", "c"],
        &["TTL", "b"],
    ] {
        requests.extend(request(words));
    }
    requests.extend(b"SET c 3\r\nGET c\r\n");
    client.send(&requests);
    for expected in ["OK", "OK", "OK"] {
        assert_eq!(client.reply(), simple(expected));
    }
    assert_eq!(client.reply(), Reply::from("2"));
    assert_eq!(client.reply(), simple("OK"));
    assert!(matches!(client.reply(), Reply::Error(_)));
    assert_eq!(client.reply(), simple("OK"));
    assert_eq!(client.reply(), Reply::from(5));
    assert_eq!(client.reply(), simple("OK"));
    assert_eq!(client.reply(), simple("OK"));
    assert_eq!(client.reply(), simple("QUEUED"));
    assert_eq!(client.reply(), Reply::Array(vec![simple("OK")]));
    assert_eq!(client.reply(), simple("OK"));
    assert_eq!(client.reply(), simple("OK"), "of CLIENT REPLY ON");
    assert_eq!(client.reply(), array(["7", "1", "2"]));
    let Reply::Integer(ttl) = client.reply() else {
        panic!("a TTL is a number");
    };
    assert!((3500..=3600).contains(&ttl), "{ttl}");
    assert_eq!(client.reply(), simple("OK"));
    assert_eq!(client.reply(), Reply::from("3"));
}
