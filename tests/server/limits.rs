//! What no client can do, whatever it sends: the limits, one by one.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::resp::{Reply, Resp, error, request, simple};
use crate::running::Running;

#[cfg(target_os = "linux")]
use {crate::load::own_memory, crate::running::PROGRAM, std::process::Command};

const MIB: usize = 1 << 20;

/// Long enough for a loop that looks at its connections every second, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything until the server closes.
fn everything(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        let is_closed = matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
        );
        assert!(is_closed, "it is not closed: {error}");
    }
    all
}

fn set(key: &str, value: &[u8]) -> Vec<u8> {
    request(&[&b"SET"[..], key.as_bytes(), value])
}

/// Requests that are none, with the errors that they get.
const MALFORMED: &[(&[u8], &str)] = &[
    (b"*-2\r\n", "invalid multibulk length"),
    (b"*+1\r\n", "invalid multibulk length"),
    (b"*0x1\r\n", "invalid multibulk length"),
    (b"* 1\r\n", "invalid multibulk length"),
    (b"*\r\n", "invalid multibulk length"),
    (b"*1\n", "invalid multibulk length"),
    (b"*1\rx", "invalid multibulk length"),
    (b"*1.0\r\n", "invalid multibulk length"),
    (b"*99999999999999999999\r\n", "invalid multibulk length"),
    (b"*18446744073709551617\r\n", "invalid multibulk length"),
    (b"**1\r\n", "invalid multibulk length"),
    (
        b"*1025\r\n",
        "invalid multibulk length, at most 1024 are allowed",
    ),
    (
        b"*9999999999\r\n",
        "invalid multibulk length, at most 1024 are allowed",
    ),
    (b"*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
    (b"*1\r\n+PING\r\n", "expected '$', got '+'"),
    (b"*1\r\n:1\r\n", "expected '$', got ':'"),
    (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
    (b"*1\r\n\r\n", "expected '$', got '\\r'"),
    (b"*1\r\n\x00", "expected '$', got '\\x00'"),
    (b"*1\r\n$-1\r\n", "invalid bulk length"),
    (b"*1\r\n$-4\r\nPING\r\n", "invalid bulk length"),
    (b"*1\r\n$+4\r\nPING\r\n", "invalid bulk length"),
    (b"*1\r\n$0x4\r\nPING\r\n", "invalid bulk length"),
    (b"*1\r\n$4 \r\nPING\r\n", "invalid bulk length"),
    (b"*1\r\n$\r\n\r\n", "invalid bulk length"),
    (b"*1\r\n$4\nPING\n", "invalid bulk length"),
    (
        b"*1\r\n$18446744073709551612\r\nPING\r\n",
        "invalid bulk length",
    ),
    (
        b"*1\r\n$67108864\r\n",
        "invalid bulk length, a request has at most 67108864 bytes",
    ),
    (
        b"*1\r\n$9999999999\r\n",
        "invalid bulk length, a request has at most 67108864 bytes",
    ),
    (
        b"*1\r\n$4\r\nPINGPONG\r\n",
        "expected CRLF behind an argument",
    ),
    (
        b"*1\r\n$4\r\nPING\n\n\n",
        "expected CRLF behind an argument",
    ),
];

#[test]
fn a_malformed_request_gets_one_error_and_nothing_behind_it_is_done() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut witness = server.resp();
    assert_eq!(witness.ask("SET kept value"), simple("OK"));
    let round = || {
        for (bytes, reason) in MALFORMED {
            let mut client = server.resp();
            let mut requests = request(&["PING"]);
            requests.extend(set("before", b"1").repeat(2));
            requests.extend(*bytes);
            requests.extend(set("smuggled", b"1"));
            requests.extend(b"\r\nSET smuggled 1\r\n");
            client.send(&requests);
            let found = everything(client.stream);
            let expected = format!("+PONG\r\n+OK\r\n+OK\r\n-ERR Protocol error: {reason}\r\n");
            let found = String::from_utf8_lossy(&found).into_owned();
            assert_eq!(found, expected, "{}", bytes.escape_ascii());
        }
    };
    round();
    #[cfg(target_os = "linux")]
    let before = own_memory(server.pid());
    for _ in 0..20 {
        round();
    }
    #[cfg(target_os = "linux")]
    {
        let after = own_memory(server.pid());
        assert!(after < before + 2 * MIB as u64, "{before} grew to {after}");
    }
    assert_eq!(witness.ask("GET kept"), Reply::from("value"));
    assert_eq!(witness.ask("GET smuggled"), Reply::Null);
    assert_eq!(server.client().ask("STATS"), "keys 2");
}

#[test]
fn arguments_count_in_sum_and_the_most_of_them_is_an_option() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--max-arguments", "5000"]);
    let mut client = server.resp();
    let mut words = vec!["MGET".to_owned()];
    words.extend((1..5000).map(|number| format!("key{number}")));
    let Reply::Array(values) = client.call(&words) else {
        panic!("no array");
    };
    assert_eq!(values.len(), 4999);
    words.push("one too many".to_owned());
    client.send(&request(&words));
    let too_many = "ERR Protocol error: invalid multibulk length, at most 5000 are allowed";
    assert_eq!(client.reply(), error(too_many));
    assert_eq!(client.try_reply(), None);

    // Each is short enough, but not all of them.
    let mut client = server.resp();
    let value = vec![b'v'; 32 * MIB];
    client.send(b"*3\r\n$4\r\nMSET\r\n");
    for _ in 0..2 {
        client.send(format!("${}\r\n", value.len()).as_bytes());
        // The second one is refused when it is announced.
        if client.stream.write_all(&value).is_err() {
            break;
        }
        let _ = client.stream.write_all(b"\r\n");
    }
    drop(client);
    assert_eq!(server.resp().ask("PING"), simple("PONG"));
}

#[cfg(target_os = "linux")] // it tells in /proc what memory a process has
#[test]
fn memory_grows_with_what_arrives_and_not_with_what_is_announced() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    assert_eq!(server.resp().ask("PING"), simple("PONG"));
    let before = own_memory(server.pid());
    let mut clients: Vec<_> = (0..100).map(|_| server.resp()).collect();
    for client in &mut clients {
        client.send(b"*1024\r\n$67000000\r\nx");
    }
    // Behind what the others sent.
    assert_eq!(server.resp().ask("PING"), simple("PONG"));
    let announced = own_memory(server.pid());
    assert!(
        announced < before + (100 << 17) + 4 * MIB as u64,
        "{before} grew to {announced} for 6.7 GB that were announced"
    );
    clients[0].send(&vec![b'x'; 16 * MIB]);
    let arrived = own_memory(server.pid());
    assert!(
        arrived < announced + 64 * MIB as u64,
        "{announced} grew to {arrived} for 16 MiB"
    );
    drop(clients);
    // They are gone, and so is what they sent.
    let begun = Instant::now();
    while own_memory(server.pid()) > before + 4 * MIB as u64 {
        assert!(begun.elapsed() < PATIENCE, "memory stays in use");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_line_has_as_many_words_as_a_request_at_most() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let reason = b"-ERR Protocol error: invalid multibulk length, at most 1024 are allowed\r\n";
    let mut client = server.client();
    assert_eq!(client.ask("PING"), "+PONG\r");
    client.send("a ".repeat(1025).as_bytes());
    client.send(b"\nPUT smuggled 1\n");
    assert_eq!(client.rest(), reason);
    // A word takes more memory than the byte it is made of.
    #[cfg(target_os = "linux")]
    {
        let before = peak_memory(server.pid());
        let mut client = server.client();
        client.send("a ".repeat(16 * MIB).as_bytes());
        client.send(b"\n");
        assert_eq!(client.rest(), reason);
        let after = peak_memory(server.pid());
        assert!(
            after < before + 160 * MIB as u64,
            "32 MiB of words took {} bytes",
            after - before
        );
    }
    assert_eq!(server.client().ask("GET smuggled"), "NOT_FOUND");
}

/// The most memory that a process has had at a time.
#[cfg(target_os = "linux")]
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

#[test]
fn a_line_with_an_open_quote_ends_the_connection_of_a_program() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    client.send(b"*1\r\n$4\r\nPING\r\nSET a \"open\r\nSET a 1\r\n");
    let answer = everything(client.stream);
    let unbalanced = "-ERR Protocol error: unbalanced quotes in request\r\n";
    let expected = format!("+PONG\r\n{unbalanced}");
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
    // A person sees what was wrong, and goes on.
    let mut client = server.client();
    assert_eq!(
        client.ask("PUT a \"open"),
        unbalanced.trim_end_matches('\n')
    );
    assert_eq!(client.ask("GET a"), "NOT_FOUND");
}

#[test]
fn lines_of_any_bytes_are_answered_or_end_the_connection() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    assert_eq!(server.client().ask("PUT kept value"), "OK");
    for line in [
        &b"\x00\x00\x00\x00"[..],
        b"\xff\xfe\xfd",
        b"$4",
        b"+OK",
        b":1",
        b"%1",
        b">1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PUT \x00 \x00 \x00 \x00",
        b"put \xc3\x28 'x'y",
        b"DELETE",
        b"\"\"",
        b"\\x",
    ] {
        let mut client = server.client();
        client.send(line);
        client.send(b"\r\nQUIT\r\n");
        let answer = client.rest();
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.starts_with("ERR ") || text.starts_with("-ERR "),
            "{}: {text}",
            line.escape_ascii()
        );
    }
    assert_eq!(server.client().ask("GET kept"), "VALUE value");
    assert_eq!(server.client().ask("STATS"), "keys 1");
}

#[test]
fn web_requests_end_the_connection_in_either_language() {
    for inline in ["auto", "text", "redis"] {
        let dir = tempdir().unwrap();
        let server = Running::start(dir.path(), &["--inline", inline]);
        for head in [
            "POST / HTTP/1.1",
            "post /",
            "GET / HTTP/1.1",
            "PUT /key HTTP/1.1",
            "DELETE http://localhost/key HTTP/1.1",
            "OPTIONS * HTTP/1.0",
            "Host: localhost:4000",
        ] {
            for first in ["", "*1\r\n$4\r\nPING\r\n"] {
                let mut client = server.resp();
                let lines = "PUT smuggled 1\r\nSET smuggled 1\r\n";
                let sent = format!("{first}{head}\r\n{lines}{lines}");
                client.send(sent.as_bytes());
                let answer = String::from_utf8(everything(client.stream)).unwrap();
                let pong = if first.is_empty() { "" } else { "+PONG\r\n" };
                let expected = format!("{pong}ERR this is no web server\n");
                assert_eq!(answer, expected, "{sent}");
            }
        }
        assert_eq!(server.resp().ask("GET smuggled"), Reply::Null);
    }
}

#[test]
fn no_line_end_of_a_client_gets_into_an_error_or_a_status() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let evil = "x\r\n+OK\r\n$1\r\ny\r\n";
    let mut client = server.resp();
    for words in [
        &[evil][..],
        &[evil, evil],
        &["NONE", evil],
        &["HELLO", evil],
        &["HELLO", "3", evil],
        &["HELLO", "3", "SETNAME", evil],
        &["SELECT", evil],
        &["SET", "a", "1", evil],
        &["SET", "a", "1", "EX", evil],
        &["GETEX", "a", evil],
        &["INCRBY", "a", evil],
        &["CLIENT", "SETNAME", evil],
        &["CLIENT", "SETINFO", "lib-name", evil],
        &["CLIENT", evil],
        &["CONFIG", evil],
        &["CONFIG", "GET", evil],
        &["CONFIG", "SET", evil, evil],
        &["OBJECT", evil, evil],
        &["OBJECT", "ENCODING", evil],
        &["COMMAND", evil],
        &["PUT", "a", "1", evil],
        &["AUTH", evil],
        &["TYPE", evil],
        &["WAIT", evil, evil],
        &["REPLICAOF", evil, evil],
    ] {
        client.send(&request(words));
        client.send(&request(&["ECHO", "still in step"]));
        let reply = client.reply();
        if let Reply::Error(text) | Reply::Simple(text) = &reply {
            assert!(!text.contains(['\r', '\n']), "{words:?}: {text:?}");
        }
        assert_eq!(client.reply(), Reply::from("still in step"), "{words:?}");
    }
    // Line by line, too: what a quoted word says is no line of its own.
    let mut client = server.client();
    let answer = client.ask(r#"PUT a 1 "x\r\nOK\r\n""#);
    assert!(answer.starts_with("ERR "), "{answer}");
    let answer = client.ask(r#"PUT a 1 "ttl=x\r\nOK\r\n""#);
    assert!(answer.starts_with("ERR "), "{answer}");
    assert_eq!(client.ask("PUT a 1"), "OK");
}

#[test]
fn a_request_that_does_not_end_ends_the_connection() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--request-timeout", "1s"]);
    let mut quiet = server.resp();
    let mut other = server.resp();
    for begin in [&b"*2\r\n$3\r\nGET\r\n$1000\r\n"[..], b"PUT a "] {
        let mut slow = server.resp();
        slow.send(begin);
        let begun = Instant::now();
        // A byte now and then does not help.
        while slow.stream.write_all(b"x").is_ok() {
            assert!(begun.elapsed() < PATIENCE, "it still may send");
            assert_eq!(other.ask("PING"), simple("PONG"));
            thread::sleep(Duration::from_millis(100));
        }
        assert!(begun.elapsed() >= Duration::from_millis(900));
        assert_eq!(everything(slow.stream), b"");
    }
    // It has begun none.
    assert_eq!(quiet.ask("PING"), simple("PONG"));
}

#[test]
fn a_large_request_may_take_its_time_as_long_as_it_moves() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--request-timeout", "1s"]);
    let mut client = server.resp();
    let value = vec![b'v'; 2 * MIB];
    let bytes = set("large", &value);
    for chunk in bytes.chunks(bytes.len() / 32) {
        client.send(chunk);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(client.reply(), simple("OK"));
    assert_eq!(client.ask("STRLEN large"), Reply::from(2_097_152));
}

#[test]
fn whoever_is_silent_for_the_timeout_is_closed_and_by_default_nobody_is() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--timeout", "2"]);
    let mut idle = server.resp();
    let never_spoke = server.resp();
    let mut busy = server.resp();
    assert_eq!(idle.ask("PING"), simple("PONG"));
    let begun = Instant::now();
    let closed = thread::spawn(move || everything(idle.stream));
    while !closed.is_finished() {
        assert!(begun.elapsed() < PATIENCE, "the idle one is not closed");
        assert_eq!(busy.ask("PING"), simple("PONG"));
        thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() >= Duration::from_millis(1900));
    assert_eq!(closed.join().unwrap(), b"");
    assert_eq!(everything(never_spoke.stream), b"");
    assert_eq!(busy.ask("PING"), simple("PONG"));
    drop(server);

    let server = Running::start(dir.path(), &["--request-timeout", "1s"]);
    let mut idle = server.resp();
    thread::sleep(Duration::from_secs(4));
    assert_eq!(idle.ask("PING"), simple("PONG"));
}

/// Sends as much as the server takes until it closes, or takes nothing for a second.
fn push(client: &mut Resp, bytes: &[u8], most: usize) -> usize {
    client
        .stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut sent = 0;
    while sent < most {
        match client.stream.write(&bytes[sent % bytes.len()..]) {
            Ok(len) => sent += len,
            Err(_) => break,
        }
    }
    sent
}

#[test]
fn a_client_that_never_reads_is_not_read_from_and_closed_in_the_end() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--write-timeout", "3s"]);
    let mut other = server.resp();
    let value = vec![b'v'; MIB];
    assert_eq!(other.call(&[&b"SET"[..], b"big", &value]), simple("OK"));
    #[cfg(target_os = "linux")]
    let before = own_memory(server.pid());
    let mut deaf = server.resp();
    // More answers than any buffers of the system hold, and then more requests than they do.
    let gets = request(&["GET", "big"]).repeat(64);
    deaf.send(&gets);
    let sent = push(&mut deaf, &set("unread", &value), 256 * MIB);
    assert!(sent < 128 * MIB, "{sent} bytes were read");
    #[cfg(target_os = "linux")]
    {
        let after = own_memory(server.pid());
        assert!(after < before + 16 * MIB as u64, "{before} grew to {after}");
    }
    let begun = Instant::now();
    while !is_closed(&deaf.stream) {
        assert!(begun.elapsed() < PATIENCE, "it is still connected");
        assert_eq!(other.ask("STRLEN big"), Reply::from(1_048_576));
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(other.ask("GET unread"), Reply::Null);
}

/// Whether the other side has closed, with nothing read of what it has sent.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream
        .set_write_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    matches!(
        stream.write(b"x").map_err(|error| error.kind()),
        Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
    )
}

#[test]
fn a_client_that_reads_slowly_gets_everything() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--write-timeout", "1s"]);
    let mut client = server.resp();
    let value = vec![b'v'; MIB];
    assert_eq!(client.call(&[&b"SET"[..], b"big", &value]), simple("OK"));
    client.send(&request(&["GET", "big"]).repeat(32));
    let mut left = 32 * (MIB + "$1048576\r\n\r\n".len());
    let mut chunk = vec![0; MIB];
    while left > 0 {
        let len = left.min(MIB);
        client.stream.read_exact(&mut chunk[..len]).unwrap();
        left -= len;
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(client.ask("PING"), simple("PONG"));
}

#[cfg(target_os = "linux")] // it has a limit on descriptors, for one process
#[test]
fn connections_do_not_take_the_last_descriptors() {
    let dir = tempdir().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\"", PROGRAM]);
    let server = Running::start_by(limited, dir.path(), &[]);
    let mut first = server.resp();
    assert_eq!(first.ask("PING"), simple("PONG"));
    let mut crowd: Vec<_> = (0..100).map(|_| server.resp()).collect();
    let mut answered = 0;
    for client in &mut crowd {
        let _ = client.stream.write_all(&request(&["PING"]));
        match client.try_reply() {
            Some(Reply::Simple(pong)) if pong == "PONG" => answered += 1,
            Some(Reply::Error(reason)) => {
                assert_eq!(reason, "ERR max number of clients reached");
            }
            None => {}
            Some(other) => panic!("{other:?}"),
        }
    }
    assert!((5..=32).contains(&answered), "{answered} were answered");
    // The store has the descriptors that it needs.
    assert_eq!(first.ask("SET a 1"), simple("OK"));
    assert_eq!(first.ask("COMPACT"), simple("OK"));
    assert_eq!(first.ask("GET a"), Reply::from("1"));
    drop(crowd);
    let begun = Instant::now();
    loop {
        let mut next = server.resp();
        let _ = next.stream.write_all(&request(&["GET", "a"]));
        if next.try_reply() == Some(Reply::from("1")) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody gets in any more");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Clock ticks of the processor that a process has used.
#[cfg(target_os = "linux")]
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = fields.split_whitespace().collect();
    // The user's time and the system's.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[cfg(target_os = "linux")] // it has a limit on descriptors, for one process
#[test]
fn without_descriptors_accepting_waits_and_the_others_go_on() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let pid = server.pid().to_string();
    let limit = |soft: &str| {
        let limit = format!("--nofile={soft}:");
        Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status()
    };
    let mut first = server.resp();
    assert_eq!(first.ask("SET a 1"), simple("OK"));
    // Fewer than are open already: every accept fails.
    match limit("4") {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            eprintln!("skipped: there is no prlimit to take descriptors away: {error}");
            return;
        }
    }
    // The system takes the connection, the server cannot yet.
    let mut waiting = server.resp();
    waiting.send(&request(&["GET", "a"]));
    let before = ticks(server.pid());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(first.ask("GET a"), Reply::from("1"));
        thread::sleep(Duration::from_millis(20));
    }
    let used = ticks(server.pid()) - before;
    // Of 200 at least, if it tried again and again.
    assert!(used < 100, "{used} ticks in two seconds");
    assert!(limit("1024").unwrap().success());
    assert_eq!(waiting.reply(), Reply::from("1"));
}
