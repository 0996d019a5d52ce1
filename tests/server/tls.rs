//! The port with TLS, seen by clients that rustls and OpenSSL made.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::tempdir;

use crate::ops::{figures, http_addr};
use crate::resp::request;
use crate::running::Running;

const PATIENCE: Duration = Duration::from_secs(60);

type Client = StreamOwned<ClientConnection, TcpStream>;

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/server/fixtures/tls").join(name)
}

fn start(dir: &Path, options: &[&str]) -> Running {
    let (cert, key) = (fixture("cert.pem"), fixture("key.pem"));
    let mut all = vec!["--tls-cert", cert.to_str().unwrap()];
    all.extend(["--tls-key", key.to_str().unwrap()]);
    all.extend(options);
    Running::start(dir, &all)
}

/// A client that trusts the test certificate, and nothing else.
fn session() -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let cert = CertificateDer::from_pem_file(fixture("cert.pem")).unwrap();
    roots.add(cert).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

fn socket(server: &Running) -> TcpStream {
    let socket = TcpStream::connect(server.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

fn connect(server: &Running) -> Client {
    StreamOwned::new(session(), socket(server))
}

/// Expects exactly these bytes next.
fn expect(client: &mut impl Read, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    client.read_exact(&mut bytes).unwrap();
    // No comparison that prints megabytes.
    assert!(
        bytes == expected,
        "{}",
        bytes[..bytes.len().min(80)].escape_ascii()
    );
}

#[test]
fn both_languages_work_encrypted() {
    let dir = tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let mut client = connect(&server);
    client.write_all(b"PUT hello world\nGET hello\n").unwrap();
    expect(&mut client, b"OK\nVALUE world\n");
    client.write_all(&request(&["GET", "hello"])).unwrap();
    expect(&mut client, b"$5\r\nworld\r\n");
}

#[test]
fn deep_pipelines_and_large_values_arrive_as_they_were() {
    let dir = tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let mut client = connect(&server);
    let large: Vec<u8> = (0..8_000_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
    client
        .write_all(&request(&[b"SET", &b"large"[..], &large]))
        .unwrap();
    expect(&mut client, b"+OK\r\n");

    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for i in 0..20_000 {
        let (key, value) = (format!("key{i}"), "v".repeat(i % 300));
        requests.extend(request(&["SET", &key, &value]));
        requests.extend(request(&["GET", &key]));
        replies.extend(format!("+OK\r\n${}\r\n{value}\r\n", value.len()).into_bytes());
    }
    // The server stops to read once its answers pile up, so both go on at the same time.
    let (mut reader, mut writer) = (
        client.sock.try_clone().unwrap(),
        client.sock.try_clone().unwrap(),
    );
    let session = Arc::new(std::sync::Mutex::new(client.conn));
    let sending = {
        let session = Arc::clone(&session);
        std::thread::spawn(move || {
            for chunk in requests.chunks(10_000) {
                let mut encrypted = Vec::new();
                let mut session = session.lock().unwrap();
                session.writer().write_all(chunk).unwrap();
                while session.wants_write() {
                    session.write_tls(&mut encrypted).unwrap();
                }
                drop(session);
                writer.write_all(&encrypted).unwrap();
            }
        })
    };
    let mut got = Vec::new();
    let mut bytes = [0; 16 << 10];
    while got.len() < replies.len() {
        let len = reader.read(&mut bytes).unwrap();
        assert!(len > 0, "closed after {} bytes", got.len());
        let mut encrypted = &bytes[..len];
        let mut session = session.lock().unwrap();
        while !encrypted.is_empty() {
            session.read_tls(&mut encrypted).unwrap();
            session.process_new_packets().unwrap();
            match session.reader().read_to_end(&mut got) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => panic!("{other:?}"),
            }
        }
    }
    sending.join().unwrap();
    assert!(got == replies);

    let mut client = connect(&server);
    client.write_all(&request(&["GET", "large"])).unwrap();
    expect(&mut client, b"$8000000\r\n");
    expect(&mut client, &large);
}

/// What was encrypted for a client that does not read waits, and is sent when it does.
#[test]
fn a_client_that_reads_late_gets_everything() {
    let dir = tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let mut client = connect(&server);
    let large = vec![b'x'; 3_000_000];
    client
        .write_all(&request(&[b"SET", &b"large"[..], &large]))
        .unwrap();
    expect(&mut client, b"+OK\r\n");
    for _ in 0..10 {
        client.write_all(&request(&["GET", "large"])).unwrap();
    }
    client.write_all(&request(&["PING"])).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..10 {
        expect(&mut client, b"$3000000\r\n");
        expect(&mut client, &large);
        expect(&mut client, b"\r\n");
    }
    expect(&mut client, b"+PONG\r\n");
}

/// Its handshake and requests come byte by byte, and others are served meanwhile.
#[test]
fn a_client_that_dribbles_is_understood() {
    let dir = tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let (mut session, mut socket) = (session(), socket(&server));
    let dribble = |session: &mut ClientConnection, socket: &mut TcpStream| {
        let mut encrypted = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut encrypted).unwrap();
        }
        for byte in encrypted {
            socket.write_all(&[byte]).unwrap();
        }
    };
    while session.is_handshaking() {
        dribble(&mut session, &mut socket);
        if session.wants_read() {
            session.read_tls(&mut socket).unwrap();
            session.process_new_packets().unwrap();
        }
    }
    session.writer().write_all(b"PUT a 1\nGET a\n").unwrap();
    dribble(&mut session, &mut socket);
    let mut other = connect(&server);
    other.write_all(b"PING\n").unwrap();
    expect(&mut other, b"+PONG\r\n");
    let mut client = StreamOwned::new(session, socket);
    expect(&mut client, b"OK\nVALUE 1\n");
}

#[test]
fn requests_before_a_goodbye_are_answered_and_it_is_returned() {
    let dir = tempdir().unwrap();
    let server = start(dir.path(), &[]);
    // The end in the same packet as the request, and the socket left open.
    let mut client = connect(&server);
    client.write_all(b"PING\n").unwrap();
    expect(&mut client, b"+PONG\r\n");
    client.conn.writer().write_all(b"PUT a 1\nGET a\n").unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    let mut rest = Vec::new();
    // It would be an error if the server just hung up.
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"OK\nVALUE 1\n");

    // Without a goodbye, as many clients end.
    let mut client = connect(&server);
    client.write_all(b"GET a\n").unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"VALUE 1\n");

    let mut client = connect(&server);
    client.write_all(b"QUIT\n").unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"+OK\r\n");
}

#[expect(clippy::float_cmp, reason = "a count")]
#[test]
fn who_speaks_no_tls_is_told_so_and_closed() {
    let dir = tempdir().unwrap();
    let options = ["--log", "debug", "--metrics-addr", "127.0.0.1:0"];
    let server = start(dir.path(), &options);
    let mut plain = socket(&server);
    plain.write_all(b"PUT secretkey secretvalue\n").unwrap();
    let mut alert = Vec::new();
    let _ = plain.read_to_end(&mut alert);
    // An alert, fatal.
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    let mut client = connect(&server);
    client.write_all(b"GET secretkey\n").unwrap();
    expect(&mut client, b"NOT_FOUND\n");
    let figures = figures(http_addr(&server));
    assert_eq!(figures["crabkv_errors_total{kind=\"tls\"}"], 1.0);
    let log = server.log();
    assert!(
        log.contains("cannot read") && !log.contains("secret"),
        "{log}"
    );
}

#[test]
fn a_handshake_that_does_not_come_ends() {
    let dir = tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let begun = Instant::now();
    let mut silent = socket(&server);
    let mut halfway = socket(&server);
    // The begin of a handshake's record.
    halfway.write_all(&[22, 3, 1, 2, 0, 1, 0]).unwrap();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    let _ = halfway.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(9) && took < PATIENCE, "{took:?}");
}

#[test]
fn one_connection_too_many_is_closed() {
    let dir = tempdir().unwrap();
    let server = start(dir.path(), &["--max-connections", "1"]);
    let mut first = connect(&server);
    first.write_all(b"PING\n").unwrap();
    expect(&mut first, b"+PONG\r\n");
    let mut rest = Vec::new();
    let _ = socket(&server).read_to_end(&mut rest);
    assert_eq!(rest, b"");
    first.write_all(b"PING\n").unwrap();
    expect(&mut first, b"+PONG\r\n");
}

#[cfg(unix)] // it has signals
#[test]
fn a_server_that_ends_says_goodbye() {
    let dir = tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let mut client = connect(&server);
    client.write_all(b"PUT a 1\n").unwrap();
    expect(&mut client, b"OK\n");
    let reading = std::thread::spawn(move || {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        rest
    });
    assert_eq!(server.stop("-TERM").code(), Some(0));
    assert_eq!(reading.join().unwrap(), b"");
}

#[test]
fn redis_cli_speaks_with_it() {
    let dir = tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let port = server.addr.port().to_string();
    let redis_cli = |words: &[&str]| {
        let mut command = Command::new("redis-cli");
        let command = command.args(["-h", "localhost", "-p", &port, "--tls", "--cacert"]);
        command.arg(fixture("cert.pem")).args(words).output()
    };
    let output = match redis_cli(&["SET", "a", "b c"]) {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: redis-cli does not start: {error}");
            return;
        }
    };
    let said = String::from_utf8(output.stderr).unwrap();
    if said.contains("Unrecognized option") {
        eprintln!("skipped: this redis-cli was built without TLS");
        return;
    }
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "OK\n", "{said}");
    let output = redis_cli(&["GET", "a"]).unwrap();
    assert_eq!(output.stdout, b"b c\n");
}

#[test]
fn files_that_do_not_fit_are_named_with_the_reason() {
    let dir = tempdir().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "no PEM").unwrap();
    let broken = dir.path().join("broken");
    fs::write(
        &broken,
        "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let (cert, key) = (fixture("cert.pem"), fixture("key.pem"));
    let missing = dir.path().join("missing");
    for (cert, key, code, words) in [
        (&missing, &key, 5, ["cannot read", "missing"]),
        (&cert, &missing, 5, ["cannot read", "missing"]),
        (&text, &key, 2, ["text", "BEGIN CERTIFICATE"]),
        (&broken, &key, 2, ["broken", "PEM"]),
        (&key, &key, 2, ["key.pem", "no certificate"]),
        (&cert, &text, 2, ["text", "BEGIN PRIVATE KEY"]),
        (&cert, &cert, 2, ["cert.pem", "no private key"]),
        (
            &cert,
            &fixture("other-key.pem"),
            2,
            ["other-key.pem", "does not belong"],
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_crabkv"))
            .args(["serve", "--addr", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("store"))
            .arg("--tls-cert")
            .arg(cert)
            .arg("--tls-key")
            .arg(key)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
