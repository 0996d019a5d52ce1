//! What an operator sees of a server: figures and health over HTTP, and the log.

#![expect(clippy::float_cmp, reason = "figures that are compared are counts")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::tempdir;

use crate::resp::simple;
use crate::running::Running;

/// Long enough for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const METRICS: [&str; 2] = ["--metrics-addr", "127.0.0.1:0"];

/// The second port, from the greeting.
pub(crate) fn http_addr(server: &Running) -> SocketAddr {
    let (_, rest) = server.greeting.split_once("figures at http://").unwrap();
    let (addr, _) = rest.split_once('/').unwrap();
    addr.parse().unwrap()
}

/// Sends bytes, and gives what comes until the other side closes.
fn exchange(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The status and the body of a page.
fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    let answer = exchange(addr, request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse();
    let len = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(head.contains(&len), "{head}");
    (status.unwrap(), body.to_owned())
}

/// The figures, by their names with labels.
pub(crate) fn figures(addr: SocketAddr) -> BTreeMap<String, f64> {
    let (status, text) = get(addr, "/metrics");
    assert_eq!(status, 200);
    parse(&text)
}

/// Waits until something holds of the figures.
fn wait_for(addr: SocketAddr, what: &str, holds: impl Fn(&BTreeMap<String, f64>) -> bool) {
    let begun = Instant::now();
    loop {
        let figures = figures(addr);
        if holds(&figures) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {figures:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads the text line by line, and fails where it is not as the format says.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !name.is_empty()
            && name.chars().all(is_legal)
            && !name.starts_with(|c: char| c.is_numeric())
    };
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut helped = String::new();
    let (mut family, mut kind) = (String::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(name.starts_with("crabkv_") && is_name(name), "{line}");
            assert!(help.ends_with('.'), "{line}");
            name.clone_into(&mut helped);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, its_kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, helped, "{line}");
            assert!(
                ["counter", "gauge", "histogram"].contains(&its_kind),
                "{line}"
            );
            assert_eq!(name.ends_with("_total"), its_kind == "counter", "{line}");
            assert!(families.insert(name.to_owned()), "a second time: {line}");
            (family, kind) = (name.to_owned(), its_kind.to_owned());
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0, "{line}");
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let suffix = name
                .strip_prefix(&*family)
                .unwrap_or_else(|| panic!("{line}"));
            let suffixes: &[&str] = match &*kind {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            for label in labels.strip_suffix('}').unwrap().split_terminator(',') {
                let (name, value) = label.split_once('=').unwrap();
                assert!(is_name(name), "{line}");
                let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                assert!(!value.unwrap().contains(['"', '\\']), "{line}");
            }
            let before = samples.insert(sample.to_owned(), value);
            assert_eq!(before, None, "a second time: {line}");
        }
    }
    samples
}

#[test]
fn every_line_of_the_figures_is_as_prometheus_wants_it() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &METRICS);
    let addr = http_addr(&server);
    let mut client = server.resp();
    for i in 0..20 {
        assert_eq!(client.ask(&format!("SET key{i} value")), simple("OK"));
    }
    let figures = figures(addr);
    assert!(figures.len() > 40, "{figures:#?}");
    for name in [
        "crabkv_keys",
        "crabkv_segments",
        "crabkv_live_bytes",
        "crabkv_stale_bytes",
        "crabkv_index_bytes",
        "crabkv_uptime_seconds",
        "crabkv_connections",
    ] {
        assert!(
            figures[name] > 0.0 || name == "crabkv_stale_bytes",
            "{name}"
        );
    }
    // A histogram's buckets hold what is in those before them, and the last one everything.
    let bucket =
        |bound: &str| figures[&format!("crabkv_sync_duration_seconds_bucket{{le=\"{bound}\"}}")];
    let bounds = [
        "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05",
    ];
    let bounds = bounds
        .into_iter()
        .chain(["0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"]);
    let counts: Vec<_> = bounds.map(bucket).collect();
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!(
        bucket("+Inf"),
        figures["crabkv_sync_duration_seconds_count"]
    );
    assert_eq!(bucket("+Inf"), 20.0);
    assert!(figures["crabkv_sync_duration_seconds_sum"] > 0.0);
}

#[test]
fn figures_move_with_what_clients_do() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &METRICS);
    let addr = http_addr(&server);
    let before = figures(addr);
    for name in [
        "crabkv_keys",
        "crabkv_connections",
        "crabkv_network_received_bytes_total",
        "crabkv_errors_total{kind=\"protocol\"}",
        "crabkv_last_error_timestamp_seconds{kind=\"protocol\"}",
    ] {
        assert_eq!(before[name], 0.0, "{name}");
    }
    assert_eq!(before["crabkv_healthy"], 1.0);

    let mut client = server.client();
    assert_eq!(client.ask("PUT a 1"), "OK");
    assert_eq!(client.ask("PUT b 22"), "OK");
    assert_eq!(client.ask("GET b"), "VALUE 22");
    wait_for(addr, "what was read and sent", |figures| {
        figures["crabkv_network_received_bytes_total"] == 23.0
            && figures["crabkv_network_sent_bytes_total"] == 15.0
    });
    let now = figures(addr);
    let calls: f64 = now
        .iter()
        .filter(|(name, _)| name.starts_with("crabkv_commands_total{"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(calls, 3.0);
    assert_eq!(now["crabkv_keys"], 2.0);
    assert_eq!(now["crabkv_connections"], 1.0);
    assert_eq!(now["crabkv_connections_accepted_total"], 1.0);
    assert_eq!(now["crabkv_sync_duration_seconds_count"], 2.0);

    let mut resp = server.resp();
    for (command, times) in [("GET a", 3), ("INCR b", 1), ("INCR c", 2), ("PING", 1)] {
        for _ in 0..times {
            resp.ask(command);
        }
    }
    resp.ask("SET text x");
    for command in ["INCR text", "GET", "NOSUCH"] {
        let reply = resp.ask(command);
        assert!(matches!(reply, crate::resp::Reply::Error(_)), "{reply:?}");
    }
    drop(resp);
    wait_for(addr, "the connection's end", |f| {
        f["crabkv_connections"] == 1.0
    });
    let then = now;
    let now = figures(addr);
    for (name, more) in [
        ("crabkv_commands_total{family=\"string\"}", 8.0),
        ("crabkv_commands_failed_total{family=\"string\"}", 1.0),
        ("crabkv_commands_rejected_total{family=\"string\"}", 1.0),
        ("crabkv_commands_total{family=\"connection\"}", 1.0),
        (
            "crabkv_command_duration_seconds_count{family=\"string\"}",
            8.0,
        ),
        (
            "crabkv_command_duration_seconds_bucket{family=\"string\",le=\"+Inf\"}",
            8.0,
        ),
    ] {
        assert_eq!(now[name] - then[name], more, "{name}");
    }
    assert_eq!(now["crabkv_error_replies_total{code=\"ERR\"}"], 3.0);

    client.send(b"*x\r\n");
    client.rest();
    wait_for(addr, "a protocol error", |figures| {
        figures["crabkv_errors_total{kind=\"protocol\"}"] == 1.0
            && figures["crabkv_last_error_timestamp_seconds{kind=\"protocol\"}"] > 1.7e9
            && figures["crabkv_connections"] == 0.0
    });
}

#[test]
fn other_requests_are_told_what_there_is() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &METRICS);
    let addr = http_addr(&server);
    assert_eq!(get(addr, "/health"), (200, "ok\n".into()));
    assert_eq!(get(addr, "/health?x=y").0, 200);
    let (status, body) = get(addr, "/");
    assert_eq!(status, 404);
    assert!(
        body.contains("/metrics") && body.contains("/health"),
        "{body}"
    );
    let post = exchange(
        addr,
        b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    let none = exchange(addr, b"PING\r\n\r\n");
    assert!(none.starts_with("HTTP/1.1 400 "), "{none}");
    let head = exchange(addr, b"HEAD /health HTTP/1.1\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[test]
fn http_clients_that_hang_are_closed_and_hold_up_nobody() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &METRICS);
    let addr = http_addr(&server);
    let begun = Instant::now();
    let mut hanging: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // Those that gave way to later ones may be closed already.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ");
            stream
        })
        .collect();
    assert_eq!(get(addr, "/health").0, 200);
    assert_eq!(server.client().ask("PUT a 1"), "OK");
    for stream in &mut hanging {
        let mut answer = Vec::new();
        // A connection that is closed with something unread is reset.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"");
    }
    assert!(begun.elapsed() < Duration::from_secs(30));

    // A request without an end is cut off; the answer may be lost to the rest of it.
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let line = [b'x'; 1024];
    let written = (0..100_000).take_while(|_| stream.write_all(&line).is_ok());
    assert!(written.count() < 100_000, "it takes everything");
    assert_eq!(get(addr, "/health").0, 200);
}

#[test]
fn the_second_port_has_its_own_errors() {
    let dir = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (addr, code, words) in [
        ("0.0.0.0:0", 2, "--allow-remote"),
        (&taken, 5, "choose one with --metrics-addr"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_crabkv"))
            .args(["serve", "--addr", "127.0.0.1:0", "--metrics-addr", addr])
            .arg("--data-dir")
            .arg(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(addr) && said.contains(words), "{said}");
    }
}

/// Makes every sync of a process fail from now on; `None`, and says why, where that cannot be done.
#[cfg(target_os = "linux")]
fn fail_syncs(server: &Running) -> Option<std::process::Child> {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let spawned = Command::new("strace")
        .args(["-f", "-e", "trace=fsync,fdatasync"])
        .args(["-e", "inject=fsync,fdatasync:error=EIO"])
        .args(["-p", &server.pid().to_string()])
        .stderr(Stdio::piped())
        .spawn();
    let mut strace = match spawned {
        Ok(strace) => strace,
        Err(error) => {
            eprintln!("skipped: strace does not start: {error}");
            return None;
        }
    };
    let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    if !line.contains("attached") {
        eprintln!("skipped: strace cannot attach: {line}");
        strace.wait().unwrap();
        return None;
    }
    std::thread::spawn(move || lines.for_each(drop));
    Some(strace)
}

#[cfg(target_os = "linux")] // strace makes its system calls fail
#[test]
fn a_failed_sync_turns_health_to_503_and_is_logged_and_counted() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &METRICS);
    let addr = http_addr(&server);
    let mut client = server.client();
    assert_eq!(client.ask("PUT secretkey secretvalue"), "OK");
    assert_eq!(get(addr, "/health"), (200, "ok\n".into()));
    let Some(mut strace) = fail_syncs(&server) else {
        return;
    };
    let answer = client.ask("PUT secretkey othersecret");
    strace.kill().unwrap();
    strace.wait().unwrap();
    assert!(
        answer.contains("ERR ") && answer.contains("sync"),
        "{answer}"
    );
    let (status, reason) = get(addr, "/health");
    assert_eq!(status, 503);
    assert!(reason.contains("durable"), "{reason}");
    wait_for(addr, "the failure", |figures| {
        figures["crabkv_errors_total{kind=\"sync\"}"] == 1.0
            && figures["crabkv_errors_total{kind=\"store\"}"] == 1.0
            && figures["crabkv_healthy"] == 0.0
    });
    let log = server.log();
    assert!(
        log.contains("ERROR") && log.contains("a sync failed"),
        "{log}"
    );
    assert!(log.contains("refuses writes"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    // What can be read now may not be there after a power cut, and nobody is told of it.
    let answer = server.client().ask("GET secretkey");
    assert!(
        answer.contains("ERR ") && answer.contains("sync"),
        "{answer}"
    );
}

/// What a client can do wrong, and what it does right.
fn misbehave(server: &Running) {
    let mut client = server.client();
    assert_eq!(client.ask("PUT secretkey secretvalue"), "OK");
    assert_eq!(client.ask("GET secretkey"), "VALUE secretvalue");
    assert!(client.ask("secretcommand").starts_with("ERR "));
    client.send(b"*1\r\nsecret\r\n");
    client.rest();
    // A reset.
    let mut client = server.client();
    client.send(b"GET secretkey\nGET ");
    drop(client);
}

#[test]
fn the_log_is_quiet_unless_asked() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    misbehave(&server);
    assert_eq!(server.client().ask("PUT a b"), "OK");
    assert_eq!(server.log(), "");
}

#[test]
fn the_log_tells_why_connections_end_and_nothing_of_what_they_sent() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--log", "debug"]);
    misbehave(&server);
    let begun = Instant::now();
    while !server.log().contains("client=2") {
        assert!(begun.elapsed() < PATIENCE, "{}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = server.log();
    assert!(log.contains("DEBUG") && log.contains("connected"), "{log}");
    assert!(log.contains("expected '$'"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_wrong_password_is_logged_and_counted_and_not_told() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "rightsecret\n").unwrap();
    let store = dir.path().join("store");
    let options = ["--password-file", file.to_str().unwrap()];
    let server = Running::start(&store, &[&METRICS[..], &options].concat());
    let mut client = server.resp();
    let answer = client.ask("AUTH wrongsecret");
    assert!(format!("{answer:?}").contains("WRONGPASS"), "{answer:?}");
    assert_eq!(client.ask("AUTH rightsecret"), simple("OK"));
    let figures = figures(http_addr(&server));
    assert_eq!(figures["crabkv_errors_total{kind=\"password\"}"], 1.0);
    let log = server.log();
    assert!(
        log.contains("WARN") && log.contains("a wrong password"),
        "{log}"
    );
    assert!(
        log.contains("127.0.0.1:") && !log.contains("secret"),
        "{log}"
    );
}

#[test]
fn a_log_in_json_has_an_object_on_each_line() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--log", "info", "--log-format", "json"]);
    misbehave(&server);
    let begun = Instant::now();
    while server.log().is_empty() && !server.greeting.contains('{') {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = format!("{}{}", server.greeting, server.log());
    let events: Vec<Value> = log
        .lines()
        .filter(|line| !line.starts_with("crabkv: "))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 1, "{log}");
    assert_eq!(events[0]["level"], "INFO");
    assert_eq!(events[0]["message"], "serving");
    assert_eq!(events[0]["addr"], server.addr.to_string());
    assert!(events[0]["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_log_that_nobody_takes_ends_nothing() {
    let dir = tempdir().unwrap();
    let server = Running::start_heard(dir.path(), &["--log", "debug"], false);
    misbehave(&server);
    misbehave(&server);
    assert_eq!(server.client().ask("GET secretkey"), "VALUE secretvalue");
}

#[cfg(not(feature = "tls"))]
#[test]
fn without_tls_its_options_say_how_to_get_it() {
    let dir = tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_crabkv"))
        .args(["serve", "--tls-cert", "a", "--tls-key", "b", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--features tls"), "{said}");
}
