//! `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`.

use std::thread;
use std::time::Duration;

use crabkv::Store;
use tempfile::tempdir;

use crate::redis::Redis;
use crate::resp::{Reply, Resp, array, error, request, simple};
use crate::running::Running;

/// Has both do what a script says, and compares every reply. A line is a command, by the second
/// client if it begins with `2:`; `sleep` lets what is about to expire do so.
fn compare_scripts(
    ours: impl Fn() -> Resp,
    theirs: impl Fn() -> Resp,
    hello: &str,
    scripts: &[&str],
) {
    let mut different = Vec::new();
    for script in scripts {
        let mut ours = [ours(), ours()];
        let mut theirs = [theirs(), theirs()];
        for clients in [&mut ours, &mut theirs] {
            for client in clients {
                client.ask(hello);
                client.ask("FLUSHALL");
            }
        }
        for line in script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            if line == "sleep" {
                thread::sleep(Duration::from_millis(30));
                continue;
            }
            let (who, command) = line.strip_prefix("2:").map_or((0, line), |rest| (1, rest));
            let (our, their) = (ours[who].ask(command), theirs[who].ask(command));
            if our != their {
                different.push(format!("{line}: {our:?}\n  Redis: {their:?}\n in {script}"));
            }
        }
    }
    let different = different.join("\n");
    assert!(different.is_empty(), "{different}");
}

const SCRIPTS: &[&str] = &[
    // Out of place.
    "EXEC
     DISCARD
     UNWATCH
     MULTI
     MULTI
     WATCH a
     SET a 1
     EXEC
     GET a",
    "MULTI x
     EXEC x
     MULTI
     EXEC",
    // A command that cannot be queued spoils it, and what follows is taken all the same.
    "MULTI
     SET a 1
     NOPE a
     SET b 1
     MULTI
     WATCH a
     GET
     PING
     2:EXISTS a b
     EXEC
     EXISTS a b
     EXEC",
    "MULTI
     GET
     DISCARD
     SET a 1
     MULTI
     GET a
     EXEC",
    "MULTI
     EXEC x
     SET a 1
     EXEC
     EXISTS a",
    "MULTI
     DISCARD x
     EXEC",
    "MULTI
     MULTI x
     EXEC",
    "MULTI
     WATCH
     EXEC",
    // One that fails is one reply; the others are done.
    "SET a text
     MULTI
     SET b 1
     EXPIRE a x
     RENAME nope c
     SET a 1 NX XX
     SET c 2
     EXEC
     GET b
     GET c",
    // What is queued is not done before.
    "MULTI
     SET a 1
     2:GET a
     GET a
     SELECT 0
     SELECT x
     ECHO hello
     TYPE a
     UNWATCH
     EXEC
     2:GET a",
    "MULTI
     SET a 1
     DISCARD
     GET a
     DISCARD",
    // Watches.
    "WATCH a
     2:SET a 1
     MULTI
     SET a 2
     EXEC
     GET a
     MULTI
     SET a 3
     EXEC
     GET a",
    "SET a 1
     WATCH a b
     2:SET c 1
     2:GET a
     2:EXPIRE c 10
     2:DEL nope
     2:PERSIST a
     2:SET a 5 NX
     MULTI
     GET a
     EXEC",
    "SET a 1
     WATCH a
     2:SET a 1
     MULTI
     GET a
     EXEC",
    "SET a 1
     WATCH a
     2:DEL a
     MULTI
     EXEC",
    "SET a 1
     WATCH a
     2:DEL a
     2:SET a 1
     MULTI
     EXEC",
    "SET a 1
     WATCH a
     2:EXPIRE a 100
     MULTI
     EXEC",
    "SET a 1
     WATCH a
     2:RENAME a b
     MULTI
     EXEC",
    "SET a 1
     WATCH a
     2:FLUSHALL
     MULTI
     EXEC",
    "WATCH a
     2:FLUSHALL
     MULTI
     EXEC",
    "SET a 1
     WATCH a
     2:MULTI
     2:SET a 2
     2:DISCARD
     MULTI
     GET a
     EXEC",
    "SET a 1 PX 10
     WATCH a
     sleep
     MULTI
     GET a
     EXEC",
    "SET a 1 PX 10
     sleep
     WATCH a
     MULTI
     GET a
     EXEC",
    "WATCH a
     SET a 1
     MULTI
     GET a
     EXEC",
    "WATCH a
     2:SET a 1
     UNWATCH
     MULTI
     GET a
     EXEC",
    "WATCH a
     2:SET a 1
     WATCH a
     MULTI
     GET a
     EXEC",
    "WATCH a
     MULTI
     UNWATCH
     2:SET a 1
     EXEC",
    "WATCH a
     2:SET a 1
     MULTI
     DISCARD
     MULTI
     GET a
     EXEC",
    "WATCH a
     2:SET a 1
     MULTI
     NOPE
     EXEC
     MULTI
     GET a
     EXEC",
    // Beginning anew.
    "WATCH a
     MULTI
     SET a 1
     RESET
     EXEC
     GET a",
    "MULTI
     SET a 1
     QUIT",
];

#[test]
fn transactions_are_as_redis_has_them_in_both_versions() {
    let Some(redis) = Redis::start() else { return };
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s"]);
    for hello in ["HELLO 2", "HELLO 3"] {
        compare_scripts(|| server.resp(), || redis.client(), hello, SCRIPTS);
    }
}

#[test]
fn an_aborted_transaction_is_null_in_either_version() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut other = server.resp();
    for (mut client, null) in [
        (server.resp(), Reply::NullArray),
        (server.resp3(), Reply::Null),
    ] {
        client.ask("WATCH a");
        other.ask("SET a 1");
        client.ask("MULTI");
        assert_eq!(client.ask("SET b 1"), simple("QUEUED"));
        assert_eq!(client.ask("EXEC"), null);
        assert_eq!(client.ask("EXISTS b"), 0.into());
    }
}

#[test]
fn a_watched_key_that_came_and_went_is_as_absent_as_it_was() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let (mut client, mut other) = (server.resp(), server.resp());
    client.ask("WATCH a");
    other.ask("SET a 1");
    other.ask("DEL a");
    client.ask("MULTI");
    client.ask("EXISTS a");
    assert_eq!(client.ask("EXEC"), array([0]));
    // One that was there is another when it comes again.
    client.ask("SET a 1");
    client.ask("WATCH a");
    other.ask("DEL a");
    other.ask("SET a 1");
    client.ask("MULTI");
    assert_eq!(client.ask("EXEC"), Reply::NullArray);
}

#[test]
fn a_spoilt_transaction_refuses_until_its_end() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    client.ask("MULTI");
    let Reply::Error(_) = client.ask("NOPE") else {
        panic!("there is no such command")
    };
    assert_eq!(client.ask("SET a 1"), simple("QUEUED"));
    let aborted = error("EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(client.ask("EXEC"), aborted);
    assert_eq!(client.ask("EXISTS a"), 0.into());
    assert_eq!(client.ask("SET a 1"), simple("OK"));
}

#[test]
fn a_transaction_in_one_piece_is_answered_in_order() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    let commands = [
        "SET a 1", "MULTI", "SET a 2", "GET a", "KEYS *", "EXEC", "GET a",
    ];
    let words = commands.map(|command| command.split(' ').collect::<Vec<_>>());
    let piece: Vec<_> = words.iter().flat_map(|words| request(words)).collect();
    client.send(&piece);
    let replies: Vec<_> = commands.iter().map(|_| client.reply()).collect();
    let queued = || simple("QUEUED");
    let done = [simple("OK"), "2".into(), array(["a"])];
    let expected = [
        simple("OK"),
        simple("OK"),
        queued(),
        queued(),
        queued(),
        array(done),
        "2".into(),
    ];
    assert_eq!(replies, expected);
}

#[test]
fn increments_under_watch_are_never_lost() {
    const CLIENTS: usize = 4;
    const EACH: usize = 50;
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s", "--threads", "3"]);
    server.resp().ask("SET counter 0");
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = server.resp();
                let mut done = 0;
                while done < EACH {
                    client.ask("WATCH counter");
                    let Reply::Bulk(value) = client.ask("GET counter") else {
                        panic!("the counter is there")
                    };
                    let value: usize = String::from_utf8(value).unwrap().parse().unwrap();
                    client.ask("MULTI");
                    client.ask(&format!("SET counter {}", value + 1));
                    done += usize::from(client.ask("EXEC") != Reply::NullArray);
                }
            });
        }
    });
    assert_eq!(server.resp().ask("GET counter"), "200".into());
}

#[test]
fn others_see_all_of_a_transaction_or_nothing() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s", "--threads", "3"]);
    let mut writer = server.resp();
    writer.ask("SET a 0");
    writer.ask("SET b 0");
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reader = server.resp();
            for _ in 0..500 {
                reader.ask("MULTI");
                reader.ask("GET a");
                reader.ask("GET b");
                let Reply::Array(both) = reader.ask("EXEC") else {
                    panic!("EXEC gives an array")
                };
                assert_eq!(both[0], both[1]);
            }
        });
        for i in 0..500 {
            for command in [
                "MULTI",
                &format!("SET a {i}"),
                &format!("SET b {i}"),
                "EXEC",
            ] {
                writer.ask(command);
            }
        }
        reader.join().unwrap();
    });
}

#[test]
fn a_transaction_that_was_answered_survives_a_kill_as_a_whole() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    for command in [
        "SET gone 1",
        "MULTI",
        "SET a 1",
        "DEL gone",
        "SET b 2 EX 100",
        "EXEC",
    ] {
        client.ask(command);
    }
    server.kill();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.get("a").unwrap().unwrap(), "1");
    assert_eq!(store.get("b").unwrap().unwrap(), "2");
    assert!(store.expires_at("b").unwrap().is_some());
    assert!(!store.contains_key("gone").unwrap());
}

#[test]
fn what_is_queued_without_end_is_refused() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    client.ask("MULTI");
    let value = vec![b'x'; 8 << 20];
    let replies: Vec<_> = (0..10)
        .map(|_| client.call(&[&b"SET"[..], b"a", &value]))
        .collect();
    assert_eq!(replies[0], simple("QUEUED"));
    let refused = error("ERR the transaction is too large: 67108864 bytes can be queued");
    assert!(replies.contains(&refused), "{replies:?}");
    let Reply::Error(text) = client.ask("EXEC") else {
        panic!("it is spoilt")
    };
    assert!(text.starts_with("EXECABORT"));
}

#[test]
fn what_is_watched_without_end_is_refused() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    let long = "x".repeat(60_000);
    let replies: Vec<_> = (0..5)
        .map(|i| {
            let keys = (0..300).map(|j| format!("{long}{i}:{j}"));
            let words: Vec<_> = ["WATCH".to_owned()].into_iter().chain(keys).collect();
            client.call(&words)
        })
        .collect();
    assert_eq!(replies[0], simple("OK"));
    let refused = error("ERR too much is watched: keys of 67108864 bytes can be");
    assert_eq!(replies[4], refused);
    assert_eq!(client.ask("UNWATCH"), simple("OK"));
    assert_eq!(client.ask("WATCH a"), simple("OK"));
}
