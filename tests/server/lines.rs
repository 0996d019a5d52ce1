//! The language of lines, for `nc` and for people.

use std::net::Shutdown;
use std::time::Duration;

use crabkv::Store;
use tempfile::tempdir;

use crate::running::Running;

#[test]
fn the_session_of_the_first_document_works() {
    let dir = tempdir().unwrap();
    let options = ["--cache", "4096", "--default-ttl", "120"];
    let server = Running::start(dir.path(), &options);
    assert!(
        server
            .greeting
            .contains("every write is durable before it is answered")
    );
    let mut client = server.client();
    assert_eq!(client.ask("PUT demo value ttl=45"), "OK");
    assert_eq!(client.ask("GET demo"), "VALUE value");
    assert_eq!(client.ask("PUT other value"), "OK");
    assert_eq!(client.ask("DELETE demo"), "OK");
    assert_eq!(client.ask("GET demo"), "NOT_FOUND");
    assert_eq!(client.ask("COMPACT"), "OK");
    assert!(client.ask("HELP").starts_with("PUT key value"));
    server.kill();

    let store = Store::open(dir.path()).unwrap();
    // The default TTL.
    assert!(store.expires_at("other").unwrap().is_some());
}

#[test]
fn verbs_are_taken_in_any_case_and_values_in_quotes() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.client();
    assert_eq!(client.ask(r#"put "a key" 'two words' TTL=1h"#), "OK");
    assert_eq!(client.ask(r#"Get "a key""#), "VALUE two words");
    // What would break the line comes back in quotes, to be read as it was written.
    assert_eq!(client.ask(r#"put b "x\r\ny\x00\xff""#), "OK");
    assert_eq!(client.ask("get b"), r#"VALUE "x\r\ny\x00\xff""#);
    assert_eq!(client.ask("put empty ''"), "OK");
    assert_eq!(client.ask("get empty\r"), "VALUE ");
    assert_eq!(client.ask("quit"), "+OK\r");
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_wrong_line_is_answered_with_the_reason_and_the_next_one_works() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.client();
    for (line, reason) in [
        ("FETCH a", "ERR unknown command"),
        ("PUT a", "ERR PUT takes"),
        ("PUT a b c", "ERR after the value"),
        ("PUT a b ttl=0", "ERR a TTL"),
        ("PUT a two words ttl=5", "ERR PUT takes"),
        ("GET", "ERR it takes a key"),
        ("GET \"open", "-ERR Protocol error: unbalanced quotes"),
        ("COMPACT now", "ERR it takes no arguments"),
    ] {
        let answer = client.ask(line);
        assert!(answer.starts_with(reason), "{line}: {answer}");
    }
    let long = "x".repeat(65_536);
    assert!(client.ask(&format!("PUT {long} 1")).contains("65535"));
    client.send(b"\n\r\n");
    assert_eq!(client.ask("GET a"), "NOT_FOUND");
}

#[test]
fn requests_in_one_packet_are_answered_in_their_order() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.client();
    let request = |i: u32| format!("PUT key{} {i}\nGET key{}\n", i % 10, i % 10);
    let requests: String = (0..10_000).map(request).collect();
    client.send(requests.as_bytes());
    for i in 0..10_000 {
        assert_eq!(client.line(), "OK");
        assert_eq!(client.line(), format!("VALUE {i}"));
    }
}

#[test]
fn whoever_sends_everything_and_closes_gets_all_the_answers() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.client();
    client.send(b"PUT a 1\nCOMPACT\nGET a\nGET unfinished");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"OK\nOK\nVALUE 1\n");
}

#[test]
fn a_client_that_does_not_read_stops_nobody_and_loses_nothing() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut lazy = server.client();
    let value = "v".repeat(1 << 20);
    assert_eq!(lazy.ask(&format!("PUT big {value}")), "OK");
    for _ in 0..64 {
        lazy.send(b"GET big\n");
    }
    let mut other = server.client();
    assert_eq!(other.ask("PUT a 1"), "OK");
    assert_eq!(other.ask("GET a"), "VALUE 1");
    for _ in 0..64 {
        assert_eq!(lazy.line().len(), "VALUE ".len() + value.len());
    }
}

#[test]
fn too_many_connections_are_refused_with_a_reason() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--max-connections", "2"]);
    let (mut first, mut second) = (server.client(), server.client());
    assert_eq!(first.ask("PUT a 1"), "OK");
    assert_eq!(second.ask("GET a"), "VALUE 1");
    let refused = String::from_utf8(server.client().rest()).unwrap();
    assert!(refused.starts_with("-ERR max number of clients"));
    drop(first);
    // As soon as the server has noticed.
    for _ in 0..600 {
        let mut third = server.client();
        third.send(b"GET a\n");
        if third.line() == "VALUE 1" {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("nobody could take the place that was free");
}

#[test]
fn a_web_page_gets_nothing_done() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut page = server.client();
    page.send(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nPUT a 1\r\n");
    let answer = String::from_utf8(page.rest()).unwrap();
    assert_eq!(answer, "ERR this is no web server\n");
    assert_eq!(server.client().ask("GET a"), "NOT_FOUND");
}

#[test]
fn a_request_that_is_too_long_ends_the_connection_with_the_reason() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.client();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        client.send(&chunk);
    }
    client.send(b"x");
    assert!(
        client
            .line()
            .contains("a request has at most 67108864 bytes")
    );
    assert_eq!(client.rest(), b"");
}

#[test]
fn what_was_answered_is_there_after_a_kill() {
    let dir = tempdir().unwrap();
    let mut last = 0u32;
    for _ in 0..5 {
        let server = Running::start(dir.path(), &[]);
        let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
        let begin = last;
        let done: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = clients
                .into_iter()
                .enumerate()
                .map(|(thread, mut client)| {
                    scope.spawn(move || {
                        for i in begin..begin + 50 {
                            assert_eq!(client.ask(&format!("PUT {thread} {i}")), "OK");
                        }
                        begin + 49
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        server.kill();
        last = done[0] + 1;
        let store = Store::open(dir.path()).unwrap();
        for (thread, done) in done.iter().enumerate() {
            let value = store.get(thread.to_string()).unwrap().unwrap();
            assert_eq!(value, done.to_string().as_bytes());
        }
    }
}

#[cfg(unix)] // it has signals
#[test]
fn it_ends_in_good_order_when_it_is_told_to() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempdir().unwrap();
        let server = Running::start(dir.path(), &["--sync-interval", "1h"]);
        let mut client = server.client();
        assert_eq!(client.ask("PUT a 1"), "OK");
        assert_eq!(server.stop(signal).code(), Some(0), "{signal}");
        assert_eq!(client.rest(), b"");
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.get("a").unwrap().unwrap(), "1");
    }
}

#[test]
fn the_command_line_reads_beside_a_server() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    assert_eq!(server.client().ask("PUT a 1"), "OK");
    let follower = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(follower.get("a").unwrap().unwrap(), "1");
    let locked = Store::open(dir.path()).unwrap_err();
    assert!(matches!(locked, crabkv::Error::Locked { .. }), "{locked}");
}
