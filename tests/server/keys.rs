//! Commands about keys, whatever their values are.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use tempfile::tempdir;

use crate::redis::{Redis, compare};
use crate::resp::{Reply, Resp, array, error, request, simple};
use crate::running::Running;

/// Commands with semicolons between them; `''` is an empty word.
fn commands(text: &str) -> Vec<Vec<&str>> {
    text.split("; ")
        .map(|command| {
            let words = command.split(' ');
            words.map(|word| word.trim_matches('\'')).collect()
        })
        .collect()
}

fn bulk(reply: Reply) -> Vec<u8> {
    match reply {
        Reply::Bulk(bytes) => bytes,
        other => panic!("{other:?} is no string"),
    }
}

fn keys(reply: Reply) -> Vec<String> {
    let Reply::Array(items) = reply else {
        panic!("{reply:?} is no array")
    };
    let mut keys: Vec<_> = items
        .into_iter()
        .map(|item| String::from_utf8(bulk(item)).unwrap())
        .collect();
    keys.sort();
    keys
}

/// One `SCAN`: the cursor to go on from, and the keys.
fn scan(client: &mut Resp, cursor: &str, options: &str) -> (String, Vec<String>) {
    let Reply::Array(mut parts) = client.ask(&format!("SCAN {cursor} {options}")) else {
        panic!("SCAN gives an array")
    };
    let found = keys(parts.pop().unwrap());
    let cursor = bulk(parts.pop().unwrap());
    (String::from_utf8(cursor).unwrap(), found)
}

/// All keys of a whole scan, and how many calls it took.
fn scan_all(client: &mut Resp, options: &str) -> (Vec<String>, usize) {
    let (mut all, mut calls, mut cursor) = (Vec::new(), 0, "0".to_owned());
    loop {
        let (next, found) = scan(client, &cursor, options);
        all.extend(found);
        calls += 1;
        if next == "0" {
            all.sort();
            return (all, calls);
        }
        cursor = next;
    }
}

fn fill(client: &mut Resp, names: impl Iterator<Item = String>) {
    let names: Vec<_> = names.collect();
    let requests = names.iter().flat_map(|name| request(&["SET", name, "x"]));
    client.send(&requests.collect::<Vec<_>>());
    for _ in names {
        assert_eq!(client.reply(), simple("OK"));
    }
}

#[test]
fn keys_are_treated_as_redis_treats_them() {
    let Some(redis) = Redis::start() else { return };
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let commands = commands(
        "SET a 1; SET b 2; EXISTS a a b nope; TOUCH a nope; TYPE a; TYPE nope; DEL a nope a; \
         UNLINK b; DEL nope; DEL; EXISTS; DBSIZE; RANDOMKEY; SET a 1; RANDOMKEY; DBSIZE; DBSIZE \
         x; TTL a; PTTL a; EXPIRETIME a; PEXPIRETIME a; TTL nope; PTTL nope; EXPIRETIME nope; \
         PEXPIRETIME nope; EXPIRE nope 10; EXPIRE a 100; TTL a; EXPIRE a 200 NX; TTL a; EXPIRE a \
         200 XX; TTL a; EXPIRE a 100 GT; TTL a; EXPIRE a 300 GT; TTL a; EXPIRE a 400 LT; TTL a; \
         EXPIRE a 50 LT; TTL a; EXPIRE a 70 xx gt; PERSIST a; PERSIST a; PERSIST nope; EXPIRE a \
         100 GT; EXPIRE a 100 LT; TTL a; EXPIRE a 10 FOO; EXPIRE a 10 NX XX; EXPIRE a 10 GT LT; \
         EXPIRE a 10 NX LT; EXPIRE a x; EXPIRE a x FOO; EXPIRE nope x; EXPIRE a \
         9223372036854775807; EXPIRE a -9223372036854775807; PEXPIRE a 9223372036854775807; \
         EXPIREAT a 9223372036854775807; EXPIREAT a 4102444800; EXPIRETIME a; PEXPIRETIME a; \
         PEXPIREAT a 4102444800999; EXPIRETIME a; PEXPIRETIME a; EXPIRE a 0; EXISTS a; SET a 1; \
         EXPIREAT a 1; EXISTS a; SET a 1; PEXPIRE a -5; EXISTS a; SET a 1; EXPIREAT a -1; EXISTS \
         a; SET a 1; RENAME nope b; RENAME a a; RENAME nope nope; RENAMENX a a; RENAMENX nope b; \
         SET b 2; RENAMENX a b; EXPIRE a 100; RENAME a b; GET b; TTL b; EXISTS a; RENAMENX b c; \
         GET c; TTL c; COPY c d; GET d; TTL d; SET e 5; COPY e d; COPY e d REPLACE; GET d; TTL d; \
         COPY e f DB 0; GET f; COPY e e; COPY nope g; COPY nope nope; COPY e g DB; COPY e g DB x; \
         COPY e g FOO; MOVE e 0; MOVE e x; SWAPDB 0 0; SWAPDB x 0; SWAPDB 0 y; OBJECT ENCODING e; \
         OBJECT ENCODING nope; OBJECT REFCOUNT nope; OBJECT FREQ nope; OBJECT; OBJECT FOO e; \
         OBJECT ENCODING; OBJECT ENCODING e f; OBJECT HELP x; MEMORY; MEMORY USAGE; MEMORY USAGE \
         nope; MEMORY USAGE e FOO; MEMORY USAGE e SAMPLES; MEMORY USAGE e SAMPLES -1; MEMORY \
         USAGE e SAMPLES x; MEMORY FOO; MEMORY PURGE; MEMORY PURGE x; MEMORY DOCTOR x; SCAN x; \
         SCAN 0 MATCH; SCAN 0 COUNT 0; SCAN 0 COUNT x; SCAN 0 FOO 1; SCAN 0 TYPE list; SCAN 0 \
         TYPE foo; SCAN 0 MATCH nope*; SCAN 0 MATCH e COUNT 100 TYPE STRING; SCAN '' MATCH e \
         COUNT 100; SCAN -1x; SCAN 1x; SCAN 99999999999999999999; KEYS e; KEYS nope; KEYS [e]; \
         KEYS nop?; KEYS ''; KEYS; RESTORE e 0 xx; RESTORE e 0 xx REPLACE; RESTORE z x xx; \
         RESTORE z -1 xx; RESTORE z 0 xx; RESTORE z 0 xx FREQ 256; RESTORE z 0 xx IDLETIME -1; \
         RESTORE z 0 xx IDLETIME 1 FREQ 1; RESTORE z 0 xx FREQ x; RESTORE z 0 xx FOO; RESTORE z 0 \
         xx IDLETIME; RESTORE z 0; DUMP nope; FLUSHALL FOO; FLUSHALL SYNC ASYNC; FLUSHDB ASYNC x; \
         FLUSHDB SYNC; DBSIZE; SET a 1; FLUSHALL ASYNC; EXISTS a; SET a 1; flushall; DBSIZE",
    );
    compare(&mut server.resp(), &mut redis.client(), &commands);
    let (mut ours, mut theirs) = (server.resp3(), redis.client());
    theirs.ask("HELLO 3");
    compare(&mut ours, &mut theirs, &commands);
}

#[test]
fn there_is_one_database() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    assert_eq!(client.ask("SET a 1"), simple("OK"));
    let refusal = error("ERR DB index is out of range: there is only database 0 here");
    for command in ["MOVE a 1", "COPY a b DB 1", "SWAPDB 0 1", "SELECT -1"] {
        assert_eq!(client.ask(command), refusal, "{command}");
    }
}

#[test]
fn patterns_match_the_keys_that_they_match_in_redis() {
    let Some(redis) = Redis::start() else { return };
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let (mut ours, mut theirs) = (server.resp(), redis.client());
    let mut seed = 7_u64;
    let mut random = |below: usize| {
        // A linear congruential generator is random enough to find odd patterns.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    let mut word = |letters: &[u8], max_len: usize| -> Vec<u8> {
        let len = 1 + random(max_len);
        (0..len).map(|_| letters[random(letters.len())]).collect()
    };
    for _ in 0..300 {
        let key = word(br"ab-]\*[^", 6);
        ours.call(&[&b"SET"[..], &key, b"x"]);
        theirs.call(&[&b"SET"[..], &key, b"x"]);
    }
    let sorted = |reply| {
        let Reply::Array(items) = reply else {
            panic!("KEYS gives an array")
        };
        let mut keys: Vec<_> = items.into_iter().map(bulk).collect();
        keys.sort();
        keys
    };
    for _ in 0..2000 {
        let pattern = word(br"ab-]\*[^?a*", 9);
        let our = sorted(ours.call(&[&b"KEYS"[..], &pattern]));
        let their = sorted(theirs.call(&[&b"KEYS"[..], &pattern]));
        assert_eq!(our, their, "KEYS {}", pattern.escape_ascii());
    }
}

#[test]
fn a_scan_meets_every_key_once_and_a_call_is_bounded_by_its_count() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s"]);
    let mut client = server.resp();
    let mut expected: Vec<_> = (0..10_000).map(|i| format!("key:{i}")).collect();
    fill(&mut client, expected.iter().cloned());
    expected.sort();
    let (all, calls) = scan_all(&mut client, "");
    assert_eq!(all, expected);
    assert!((300..=1000).contains(&calls), "{calls} calls of 10");
    let (all, calls) = scan_all(&mut client, "COUNT 1000");
    assert_eq!(all, expected);
    assert!((5..=11).contains(&calls), "{calls} calls of 1000");
    let (found, calls) = scan_all(&mut client, "MATCH key:12?4 COUNT 100");
    assert_eq!(found.len(), 10);
    assert!(
        calls > 50,
        "{calls} calls look at all keys, matching or not"
    );
}

#[test]
fn a_scan_meets_what_stays_while_others_come_and_go() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s"]);
    let mut client = server.resp();
    fill(&mut client, (0..3000).map(|i| format!("stays:{i}")));
    let (mut met, mut cursor, mut round) = (HashSet::new(), "0".to_owned(), 0);
    loop {
        // As the index grows, its pages are split.
        fill(&mut client, (0..100).map(|i| format!("new:{round}:{i}")));
        let gone: Vec<_> = (0..40).map(|i| format!("new:{round}:{i}")).collect();
        let gone = [vec!["DEL".to_owned()], gone].concat();
        assert_eq!(client.call(&gone), 40.into());
        round += 1;
        let (next, found) = scan(&mut client, &cursor, "COUNT 20");
        met.extend(found.into_iter().filter(|key| key.starts_with("stays:")));
        if next == "0" {
            break;
        }
        cursor = next;
    }
    assert_eq!(met.len(), 3000);
}

#[test]
fn expired_keys_are_not_counted_listed_or_drawn() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    client.ask("SET stays 1");
    for i in 0..20 {
        client.ask(&format!("SET goes:{i} 1 PX 1"));
    }
    thread::sleep(Duration::from_millis(20));
    assert_eq!(client.ask("DBSIZE"), 1.into());
    assert_eq!(client.ask("KEYS *"), array(["stays"]));
    assert_eq!(scan_all(&mut client, "").0, ["stays"]);
    for _ in 0..20 {
        assert_eq!(client.ask("RANDOMKEY"), "stays".into());
    }
    for command in ["TTL goes:1", "PTTL goes:1"] {
        assert_eq!(client.ask(command), (-2).into());
    }
}

#[test]
fn the_last_key_is_drawn_from_among_many_that_have_expired() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s"]);
    let mut client = server.resp();
    let names: Vec<_> = (0..5000).map(|i| format!("goes:{i}")).collect();
    let requests = names
        .iter()
        .flat_map(|name| request(&["SET", name, "x", "PX", "1"]));
    client.send(&requests.collect::<Vec<_>>());
    for _ in names {
        client.reply();
    }
    thread::sleep(Duration::from_millis(5));
    assert_eq!(client.ask("RANDOMKEY"), Reply::Null);
    client.ask("SET stays 1");
    assert_eq!(client.ask("RANDOMKEY"), "stays".into());
    assert_eq!(client.ask("DBSIZE"), 1.into());
}

#[test]
fn every_key_of_a_small_store_is_drawn_about_as_often() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    fill(&mut client, (0..10).map(|i| format!("key:{i}")));
    let mut drawn = std::collections::HashMap::new();
    for _ in 0..1000 {
        *drawn.entry(bulk(client.ask("RANDOMKEY"))).or_insert(0) += 1;
    }
    assert_eq!(drawn.len(), 10);
    // 100 of each are to be expected, give or take ten.
    assert!(
        drawn.values().all(|times| (50..150).contains(times)),
        "{drawn:?}"
    );
}

#[test]
fn every_key_of_a_large_store_can_be_drawn() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s"]);
    let mut client = server.resp();
    fill(&mut client, (0..1000).map(|i| format!("key:{i}")));
    let drawn: HashSet<_> = (0..8000).map(|_| bulk(client.ask("RANDOMKEY"))).collect();
    // Of 1000, 8000 draws miss one in three thousand when all are alike.
    assert!(drawn.len() > 980, "{} of 1000 keys were drawn", drawn.len());
}

#[test]
fn a_dumped_value_is_restored_with_its_expiry() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    client.call(&["SET", "a", "some\r\nvalue"]);
    let payload = bulk(client.ask("DUMP a"));
    let mut restore = |key: &str, ttl: &str, options: &[&str]| {
        let mut words = vec![b"RESTORE".to_vec(), key.into(), ttl.into(), payload.clone()];
        words.extend(options.iter().map(|option| option.as_bytes().to_vec()));
        client.call(&words)
    };
    assert_eq!(restore("b", "0", &["IDLETIME", "5"]), simple("OK"));
    let busy = error("BUSYKEY Target key name already exists.");
    assert_eq!(restore("b", "0", &[]), busy);
    assert_eq!(
        restore("b", "100000", &["replace", "FREQ", "9"]),
        simple("OK")
    );
    assert_eq!(restore("c", "4102444800000", &["ABSTTL"]), simple("OK"));
    // A moment that has passed: as if it had been restored and had expired.
    assert_eq!(restore("d", "1", &["ABSTTL"]), simple("OK"));
    assert_eq!(client.ask("GET b"), "some\r\nvalue".into());
    let left_secs = client.ask("TTL b");
    assert!(
        matches!(left_secs, Reply::Integer(1..=100)),
        "{left_secs:?}"
    );
    assert_eq!(client.ask("PEXPIRETIME c"), 4_102_444_800_000.into());
    assert_eq!(client.ask("EXISTS d"), 0.into());
}

#[test]
fn redis_restores_what_is_dumped_here_and_the_other_way_round() {
    let Some(redis) = Redis::start() else { return };
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut clients = [server.resp(), redis.client()];
    let long = "a long one, and one that can be compressed. ".repeat(2000);
    let values = [
        "",
        "a",
        "0",
        "-1",
        "127",
        "128",
        "-32769",
        "2147483648",
        "007",
        "0123456789".repeat(4).leak(),
        &long,
    ];
    for (from, to) in [(0, 1), (1, 0)] {
        for (i, value) in values.iter().enumerate() {
            let key = format!("from:{from}:{i}");
            clients[from].call(&["SET", &key, value]);
            let payload = bulk(clients[from].call(&["DUMP", &key]));
            let words = [b"RESTORE", key.as_bytes(), b"0", &payload];
            assert_eq!(clients[to].call(&words), simple("OK"), "{value}");
            assert_eq!(clients[to].call(&["GET", &key]), (*value).into());
        }
    }
    // Only strings are values here.
    clients[1].ask("RPUSH list a b");
    let list = bulk(clients[1].ask("DUMP list"));
    let refused = clients[0].call(&[&b"RESTORE"[..], b"list", b"0", &list]);
    assert_eq!(refused, error("ERR Bad data format"));
}

#[test]
fn a_large_store_is_flushed_too_while_others_go_on() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s"]);
    let (mut client, mut other) = (server.resp(), server.resp());
    fill(&mut client, (0..25_000).map(|i| format!("key:{i}")));
    assert_eq!(client.ask("DBSIZE"), 25_000.into());
    client.send(&request(&["FLUSHALL"]));
    assert_eq!(other.ask("PING"), simple("PONG"));
    assert_eq!(client.reply(), simple("OK"));
    assert_eq!(client.ask("DBSIZE"), 0.into());
    assert_eq!(client.ask("RANDOMKEY"), Reply::Null);
}

#[test]
fn a_transaction_sees_its_own_keys() {
    let Some(redis) = Redis::start() else { return };
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let commands = commands(
        "SET old 1; SET gone 1; MULTI; SET new 1; DEL gone; DBSIZE; KEYS [o]*; KEYS [n]*; KEYS \
         gone; SCAN 0 MATCH n*; SCAN 0 MATCH g*; RENAME new newer; EXISTS new newer; EXPIRE old \
         100; TTL old; COPY old older; TTL older; EXEC; DISCARD; DBSIZE; MULTI; SET new 1; \
         FLUSHALL; DBSIZE; RANDOMKEY; KEYS *; SET last 1; RANDOMKEY; KEYS *; DBSIZE; EXEC; KEYS \
         *; MULTI; DEL last; RANDOMKEY; SET last 2 PX 9999; PERSIST last; EXPIRE last 0; EXISTS \
         last; EXEC; EXISTS last",
    );
    compare(&mut server.resp(), &mut redis.client(), &commands);
}

#[test]
fn a_client_that_wants_no_reply_gets_none_from_elsewhere_either() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    if client.ask("CLIENT ID")
        == error("ERR unknown command 'CLIENT', with args beginning with: 'ID' ")
    {
        eprintln!("skipped: there is no CLIENT");
        return;
    }
    client.send(&request(&["CLIENT", "REPLY", "SKIP"]));
    client.send(&request(&["KEYS", "*"]));
    assert_eq!(client.ask("PING"), simple("PONG"));
    client.send(&request(&["CLIENT", "REPLY", "OFF"]));
    client.send(&request(&["FLUSHALL"]));
    client.send(&request(&["PING"]));
    assert_eq!(client.ask("CLIENT REPLY ON"), simple("OK"));
}

#[test]
fn what_is_put_for_a_time_has_no_more_than_that_left() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1s"]);
    let mut client = server.resp();
    for put in [
        "SET a 1 EX 100",
        "SET a 1 PX 100000",
        "SETEX a 100 1",
        "PUT a 1 ttl=100",
        "EXPIRE a 100",
    ] {
        // Most of the time, the answer comes within the millisecond.
        for _ in 0..100 {
            client.ask(put);
            let left = client.ask("PTTL a");
            let Reply::Integer(40_000..=100_000) = left else {
                panic!("{put}: {left:?}");
            };
        }
    }
}
