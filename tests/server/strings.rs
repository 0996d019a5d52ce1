//! Commands about strings, and the store's own verbs.

use std::time::Duration;

use tempfile::{TempDir, tempdir};

use crate::redis::{Redis, compare};
use crate::resp::{Reply, Resp, array, error, simple};
use crate::running::Running;

fn started(options: &[&str]) -> (TempDir, Running) {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), options);
    (dir, server)
}

/// The words of commands that have no blanks in them. `''` is an empty word.
fn commands(lines: &[&str]) -> Vec<Vec<String>> {
    let word = |word: &str| word.replace("''", "");
    let words = |line: &&str| line.split_whitespace().map(word).collect();
    lines.iter().map(words).collect()
}

/// Asks a Redis for the same, in both versions of the protocol; says why not where there is none.
fn same_as_redis(commands: &[Vec<String>]) {
    let Some(redis) = Redis::start() else { return };
    for hello in [None, Some("HELLO 3")] {
        let (_dir, server) = started(&["--sync-interval", "1s"]);
        let (mut ours, mut theirs) = (server.resp(), redis.client());
        assert_eq!(theirs.ask("FLUSHALL"), simple("OK"));
        for client in [&mut ours, &mut theirs] {
            if let Some(hello) = hello {
                client.ask(hello);
            }
        }
        compare(&mut ours, &mut theirs, commands);
    }
}

#[test]
fn values_are_any_bytes_in_both_versions() {
    let (_dir, server) = started(&[]);
    for mut client in [server.resp(), server.resp3()] {
        assert_eq!(client.call(&["SET", "a b", "x\r\ny"]), simple("OK"));
        assert_eq!(client.call(&["get", "a b"]), "x\r\ny".into());
        assert_eq!(client.ask("GET nothing"), Reply::Null);
        assert_eq!(client.call(&["SET", "", ""]), simple("OK"));
        assert_eq!(client.call(&["GET", ""]), "".into());
    }
}

#[test]
fn whole_values_are_changed_as_redis_changes_them() {
    same_as_redis(&commands(&[
        "SET a 1",
        "GET a",
        "SET a 2 GET",
        "SET a 3 NX",
        "SET a 3 NX GET",
        "SET b 1 XX",
        "SET b 1 XX GET",
        "SET b 1 nx get",
        "GET b",
        "SET a 1 NX XX",
        "SET a 1 XX NX",
        "SET a 1 NX NX",
        "SET b 1 XX XX GET GET",
        "SET a 1 EX 10 EX 20",
        "SET a 1 EX 10 PX 20",
        "SET a 1 EX abc FOO",
        "SET a 1 EX abc",
        "SET a 1 EX",
        "SET a 1 EX 0",
        "SET a 1 PX -1",
        "SET a 1 EX 9223372036854775807",
        "SET a 1 EX 9223372036854775",
        "SET a 1 PX 9223372036854775807",
        "SET a 1 PXAT 9223372036854775807",
        "SET a 1 EXAT 9223372036854775807",
        "SET a 1 EXAT 0",
        "SET a 1 KEEPTTL",
        "SET a 1 KEEPTTL KEEPTTL",
        "SET a 1 KEEPTTL EX 5",
        "SET a 1 EX 5 KEEPTTL",
        "SET a 1 PERSIST",
        "SET a 1 FOO",
        "SET c 1 EXAT 1",
        "GET c",
        "SET c 1 EXAT 1 GET",
        "GET c",
        "SETNX a 5",
        "SETNX d 5",
        "SETNX d",
        "GET d",
        "SETEX d 0 1",
        "SETEX d x 1",
        "SETEX d 9223372036854775807 1",
        "SETEX d 100 1",
        "PSETEX d -5 1",
        "PSETEX d 100000 2",
        "GETSET d 3",
        "GETSET e 1",
        "GETSET e",
        "GETDEL e",
        "GETDEL e",
        "GETEX e",
        "GETEX e EX abc",
        "GETEX e FOO",
        "GETEX e KEEPTTL",
        "GETEX e NX",
        "GETEX a",
        "GETEX a EX 0",
        "GETEX a EX x",
        "GETEX a PX 9223372036854775807",
        "GETEX a EX 10 PERSIST",
        "GETEX a PERSIST PERSIST",
        "GETEX a EX 10 EX 20",
        "GETEX a PERSIST",
        "GETEX a EXAT 1",
        "GET a",
        "MSET a 1 b 2 a 3",
        "MGET a b nothing a",
        "MSET a",
        "MSET a 1 b",
        "MSETNX a 1 b",
        "MSETNX x 1 a 2",
        "MSETNX x 1 y 2 x 3",
        "MGET x y",
        "MGET",
        "GET",
        "GET a b",
    ]));
}

#[test]
fn times_are_kept_set_and_forgotten() {
    let (_dir, server) = started(&["--sync-interval", "1s"]);
    let mut client = server.resp();
    client.ask("SET a 1 PX 1000");
    client.ask("SET b 1 EX 100");
    client.ask("SET b 2 KEEPTTL");
    client.ask("APPEND a x");
    client.ask("SET c 1 PX 1000");
    assert_eq!(client.ask("GETEX c PERSIST"), "1".into());
    client.ask("SET d 1");
    assert_eq!(client.ask("GETEX d PX 1000"), "1".into());
    client.ask("SET e 1 PX 1000");
    client.ask("INCR e");
    client.ask("SET f 1 PX 1000");
    client.ask("GETSET f 2");
    client.ask("SET g 1 PX 1000");
    client.ask("MSET g 2");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(
        client.ask("MGET a b c d e f g"),
        Reply::Array(vec![
            Reply::Null,
            "2".into(),
            "1".into(),
            Reply::Null,
            Reply::Null,
            "2".into(),
            "2".into(),
        ])
    );
}

#[test]
fn new_values_live_as_long_as_the_server_says() {
    let (_dir, server) = started(&["--default-ttl", "1s", "--sync-interval", "1s"]);
    let mut client = server.resp();
    for command in [
        "SET a 1",
        "SETNX b 1",
        "APPEND c 1",
        "INCR d",
        "MSET e 1",
        "GETSET f 1",
        "SETRANGE g 0 1",
        "SETBIT h 0 1",
        "INCRBYFLOAT i 1",
        "PUT j 1",
    ] {
        client.ask(command);
    }
    client.ask("PUT k 1 1h");
    std::thread::sleep(Duration::from_millis(1100));
    for key in "abcdefghij".chars() {
        assert_eq!(client.ask(&format!("GET {key}")), Reply::Null, "{key}");
    }
    assert_eq!(client.ask("GET k"), "1".into());
}

#[test]
fn parts_of_values_are_read_and_written_as_redis_does() {
    let mut all = commands(&[
        "STRLEN a",
        "APPEND a ''",
        "GET a",
        "APPEND a hello",
        "APPEND a world",
        "STRLEN a",
        "GETRANGE a x 1",
        "GETRANGE a 0 9223372036854775808",
        "GETRANGE a -9223372036854775808 9223372036854775807",
        "SUBSTR a 1 2",
        "GETRANGE nothing 0 -1",
        "SETRANGE a 3 LO",
        "SETRANGE a 20 end",
        "GET a",
        "SETRANGE a 536870911 ''",
        "SETRANGE a 536870912 x",
        "SETRANGE a 9223372036854775807 x",
        "SETRANGE a -1 ''",
        "SETRANGE a x ''",
        "SETRANGE nothing 536870912 ''",
        "GET nothing",
        "SETRANGE b 2 x",
        "GET b",
    ]);
    all.extend(commands(&["SET v abcde", "SET empty ''"]));
    for start in -8..8 {
        for end in -8..8 {
            for key in ["v", "empty"] {
                let command = format!("GETRANGE {key} {start} {end}");
                all.extend(commands(&[&command]));
            }
        }
    }
    same_as_redis(&all);
}

#[test]
fn bits_are_read_and_written_as_redis_does() {
    let mut all = commands(&[
        "SETBIT a 7 1",
        "SETBIT a 7 0",
        "SETBIT a 100 0",
        "STRLEN a",
        "GETBIT a 7",
        "SETBIT a 7 2",
        "SETBIT a 7 x",
        "SETBIT a 7 01",
        "SETBIT a -1 1",
        "SETBIT a 4294967296 1",
        "GETBIT a 4294967296",
        "GETBIT a 4294967295",
        "GETBIT a x",
        "GETBIT nothing 5",
        "BITCOUNT a 0",
        "BITCOUNT a 0 x",
        "BITCOUNT a 0 1 foo",
        "BITCOUNT a 0 1 BIT 5",
        "BITCOUNT nothing",
        "BITPOS a 2",
        "BITPOS a x",
        "BITPOS a 1 x",
        "BITPOS a 1 0 x",
        "BITPOS a 1 0 1 foo",
        "BITPOS a 1 0 1 BIT 7",
        "BITPOS nothing 0",
        "BITPOS nothing 1",
        "SET bits abc",
        "SET ones aaa",
        "SETBIT ones 5 1",
        "SET empty ''",
    ]);
    for value in [&[0xff; 3][..], &[0xff, 0x0f, 0x00], &[0x00, 0x10, 0xff]] {
        // What is text cannot be these bytes.
        let bits = (0..24).map(|bit| (bit, value[bit / 8] >> (7 - bit % 8) & 1));
        let set = bits.map(|(bit, on)| format!("SETBIT bits {bit} {on}"));
        all.extend(set.flat_map(|command| commands(&[&command])));
        for start in [-30, -25, -9, -4, -3, -2, -1, 0, 1, 2, 3, 7, 8, 13, 30] {
            for end in [-30, -25, -10, -4, -3, -2, -1, 0, 1, 2, 3, 7, 15, 23, 30] {
                for unit in ["", "BYTE", "bit"] {
                    for command in ["BITCOUNT bits", "BITPOS bits 0", "BITPOS bits 1"] {
                        let command = format!("{command} {start} {end} {unit}");
                        all.extend(commands(&[&command]));
                    }
                }
            }
            for command in ["BITPOS bits 0", "BITPOS bits 1", "BITPOS empty 0"] {
                all.extend(commands(&[&format!("{command} {start}"), command]));
            }
        }
    }
    same_as_redis(&all);
}

#[test]
fn integers_are_counted_as_redis_does() {
    let mut all = commands(&[
        "INCR a",
        "INCR a",
        "DECR a",
        "INCRBY a 41",
        "DECRBY a 50",
        "DECRBY a -9223372036854775808",
        "INCRBY a x",
        "INCRBY a 1.0",
        "INCRBY a +1",
        "INCRBY a 01",
        "INCRBY a -0",
        "INCRBY a ''",
        "SET a 9223372036854775807",
        "INCR a",
        "INCRBY a -9223372036854775808",
        "GET a",
        "SET a -9223372036854775808",
        "DECR a",
        "DECRBY a 9223372036854775807",
        "SET a 1x",
        "INCR a",
        "SET a ''",
        "INCR a",
        "SET a 00",
        "DECR a",
        "SET a 123456789012345678901234567890",
        "INCR a",
    ]);
    all.push(vec!["SET".into(), "a".into(), " 1".into()]);
    all.extend(commands(&["INCR a", "GET a"]));
    same_as_redis(&all);
}

/// On another processor Redis counts otherwise.
#[cfg(target_arch = "x86_64")]
#[test]
fn fractions_are_counted_to_the_last_digit_as_redis_does() {
    let mut all = commands(&[
        "SET a 10.50",
        "INCRBYFLOAT a 0.1",
        "INCRBYFLOAT a -5",
        "SET a 5.0e3",
        "INCRBYFLOAT a 2.0e2",
        "INCRBYFLOAT a inf",
        "INCRBYFLOAT a -INFINITY",
        "INCRBYFLOAT a nan",
        "INCRBYFLOAT a nan(1)",
        "INCRBYFLOAT a 1e5000",
        "INCRBYFLOAT a 1e-5000",
        "INCRBYFLOAT a 1e-4945",
        "INCRBYFLOAT a 3.6e-4951",
        "INCRBYFLOAT a 1.8e-4951",
        "INCRBYFLOAT a 1.9e-4951",
        "INCRBYFLOAT a ''",
        "INCRBYFLOAT a +1",
        "INCRBYFLOAT a ++1",
        "INCRBYFLOAT a 5.",
        "INCRBYFLOAT a .5",
        "INCRBYFLOAT a .",
        "INCRBYFLOAT a 1e",
        "INCRBYFLOAT a 1e+",
        "INCRBYFLOAT a 1E2",
        "INCRBYFLOAT a 0x1F",
        "INCRBYFLOAT a 0x.8p-3",
        "INCRBYFLOAT a 0x1.p+2",
        "INCRBYFLOAT a 0x",
        "INCRBYFLOAT a 0x1p",
        "INCRBYFLOAT a 0xp1",
        "INCRBYFLOAT a 0e99999999999999",
        "SET a -1",
        "INCRBYFLOAT a 1",
        "INCRBYFLOAT a -0.000000000000000000001",
        "INCRBYFLOAT a -0.0",
        "SET a 1e4932",
        "INCRBYFLOAT a 0",
        "INCRBYFLOAT a 1e4932",
        "SET a 1.18973149535723176502e4932",
        "INCRBYFLOAT a 0",
        "SET a 1.18973149535723176509e4932",
        "INCRBYFLOAT a 0",
        "SET a x",
        "INCRBYFLOAT a 1",
        "INCRBYFLOAT a x",
    ]);
    all.push(vec!["INCRBYFLOAT".into(), "a".into(), " 1".into()]);
    all.push(vec!["INCRBYFLOAT".into(), "a".into(), "1 ".into()]);
    all.push(vec!["SET".into(), "a".into(), "1".repeat(5119)]);
    all.extend(commands(&["INCRBYFLOAT a 1"]));
    all.push(vec![
        "SET".into(),
        "a".into(),
        format!("0.{}", "7".repeat(5117)),
    ]);
    all.extend(commands(&["INCRBYFLOAT a 1"]));
    all.push(vec![
        "SET".into(),
        "a".into(),
        format!("0.{}", "7".repeat(5118)),
    ]);
    all.extend(commands(&["INCRBYFLOAT a 1"]));
    // Of all sizes, with a seed that is always the same.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for _ in 0..3000 {
        let mut number = || {
            let sign = ["", "-"][next(2) as usize];
            let digits = next(u64::MAX).to_string().repeat(1 + next(3) as usize);
            let (integer, fraction) = digits.split_at(next(digits.len() as u64 + 1) as usize);
            let exponent = match next(5) {
                0 => String::new(),
                1 => format!("e{}", next(20)),
                2 => format!("e-{}", next(200)),
                3 => format!("e+{}", next(200)),
                _ => format!("e-{}", next(25)),
            };
            format!("{sign}{integer}.{fraction}{exponent}")
        };
        let (value, increment) = (number(), number());
        all.extend(commands(&[
            &format!("SET a {value}"),
            &format!("INCRBYFLOAT a {increment}"),
            &format!("INCRBYFLOAT a {value}"),
        ]));
    }
    same_as_redis(&all);
}

#[test]
fn common_subsequences_are_those_that_redis_finds() {
    let mut all = commands(&[
        "MSET a ohmytext b mynewtext",
        "LCS a b",
        "LCS a b LEN",
        "LCS a b IDX",
        "LCS a b IDX MINMATCHLEN 4",
        "LCS a b idx minmatchlen 4 withmatchlen",
        "LCS a b IDX MINMATCHLEN -1",
        "LCS a b IDX MINMATCHLEN 100",
        "LCS a b WITHMATCHLEN",
        "LCS a b LEN IDX",
        "LCS a b FOO",
        "LCS a b MINMATCHLEN",
        "LCS a b MINMATCHLEN x",
        "LCS a nothing",
        "LCS nothing a IDX",
        "LCS nothing a LEN",
        "LCS a",
        "SETRANGE big 10000000 x",
        "LCS a big",
        "SETRANGE long 30000 x",
        "LCS long long LEN",
    ]);
    let mut random = 1_u64;
    for _ in 0..200 {
        let mut word = |len: u64| -> String {
            let mut letter = || {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                random >> 33
            };
            let len = 1 + letter() % len;
            (0..len)
                .map(|_| ["a", "b", "c", "d"][letter() as usize % 4])
                .collect()
        };
        let (a, b) = (word(40), word(40));
        all.extend(commands(&[
            &format!("MSET a {a} b {b}"),
            "LCS a b",
            "LCS a b LEN",
            "LCS a b IDX MINMATCHLEN 2 WITHMATCHLEN",
        ]));
    }
    same_as_redis(&all);
}

/// A table that takes longer is not made where others wait.
#[test]
fn long_values_are_compared_beside_other_requests() {
    let (_dir, server) = started(&[]);
    let mut client = server.resp();
    let long = "ab".repeat(1500);
    client.call(&["SET", "a", &long]);
    client.call(&["SET", "b", &long[1..]]);
    client.send(b"LCS a b LEN\r\nLCS a b IDX\r\nECHO x\r\n");
    assert_eq!(client.reply(), Reply::Integer(2999));
    let place = |begin: i64, end: i64| array([begin, end]);
    let matches = Reply::Array(vec![Reply::Array(vec![place(1, 2999), place(0, 2998)])]);
    let expected = vec![
        "matches".into(),
        matches,
        "len".into(),
        Reply::Integer(2999),
    ];
    assert_eq!(client.reply(), Reply::Array(expected));
    assert_eq!(client.reply(), "x".into());
    for command in ["MULTI", "LCS a b LEN", "EXEC"] {
        client.send(format!("{command}\r\n").as_bytes());
    }
    client.reply();
    client.reply();
    assert_eq!(client.reply(), array([2999]));
}

/// What another server says of this is another matter: it is of a later version.
#[test]
fn the_arguments_of_bit_commands_are_looked_at_without_a_key() {
    let (_dir, server) = started(&[]);
    let mut client = server.resp();
    for (command, text) in [
        ("BITCOUNT nothing 0", "ERR syntax error"),
        ("BITCOUNT nothing 0 1 x", "ERR syntax error"),
        (
            "BITCOUNT nothing a b",
            "ERR value is not an integer or out of range",
        ),
        (
            "BITPOS nothing 1 x",
            "ERR value is not an integer or out of range",
        ),
        ("BITPOS nothing 1 0 1 x", "ERR syntax error"),
    ] {
        assert_eq!(client.ask(command), error(text), "{command}");
    }
}

#[test]
fn a_transaction_sees_its_own_changes_and_applies_them_at_once() {
    same_as_redis(&commands(&[
        "SET a 1",
        "MULTI",
        "INCR a",
        "APPEND a 0",
        "SETRANGE a 1 5",
        "GETDEL a",
        "SETNX a 1",
        "MSETNX a 1 b 1",
        "MSET a ab b abc",
        "LCS a b",
        "MGET a b c",
        "INCR a",
        "INCRBYFLOAT c 1.5",
        "SETBIT a 1 0",
        "GETEX a EX 100",
        "BITCOUNT a",
        "EXEC",
        "MGET a b c",
    ]));
}

#[test]
fn counting_from_many_connections_loses_nothing() {
    let (_dir, server) = started(&["--sync-interval", "1s"]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = server.resp();
            scope.spawn(move || {
                for _ in 0..250 {
                    client.ask("INCR n");
                    client.ask("APPEND text x");
                    client.ask("INCRBYFLOAT f 0.5");
                }
            });
        }
    });
    let mut client = server.resp();
    assert_eq!(client.ask("GET n"), "1000".into());
    assert_eq!(client.ask("STRLEN text"), Reply::Integer(1000));
    assert_eq!(client.ask("GET f"), "500".into());
}

/// Pairs that are put together are seen together.
#[test]
fn several_keys_change_at_once_for_whoever_reads_them_together() {
    let (_dir, server) = started(&["--sync-interval", "1s"]);
    let mut writer = server.resp();
    writer.ask("MSET a 0 b 0");
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            for i in 1..=500 {
                assert_eq!(writer.ask(&format!("MSET a {i} b {i}")), simple("OK"));
            }
        });
        let mut reader = server.resp();
        while !writing.is_finished() {
            let Reply::Array(values) = reader.ask("MGET a b") else {
                panic!("MGET returns an array");
            };
            assert_eq!(values[0], values[1]);
        }
    });
}

#[test]
fn one_byte_far_behind_takes_no_more_than_values_may() {
    let (_dir, server) = started(&["--sync-interval", "1s"]);
    let mut client = server.resp();
    let too_long = error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    assert_eq!(client.ask("SETRANGE a 536870912 x"), too_long);
    assert_eq!(client.ask("SETRANGE a 9223372036854775807 x"), too_long);
    assert_eq!(client.ask("GET a"), Reply::Null);
    let len = 64 << 20;
    assert_eq!(
        client.ask(&format!("SETRANGE a {} x", len - 1)),
        Reply::Integer(len)
    );
    assert_eq!(
        client.ask(&format!("GETRANGE a {} -1", len - 1)),
        "x".into()
    );
    assert_eq!(client.ask("BITCOUNT a"), Reply::Integer(4));
    assert_eq!(client.ask("BITPOS a 1"), Reply::Integer((len - 1) * 8 + 1));
}

#[test]
fn a_small_request_gets_no_endless_reply() {
    let (_dir, server) = started(&["--sync-interval", "1s"]);
    let mut client = server.resp();
    client.ask(&format!("SETRANGE a {} x", (64 << 20) - 1));
    let too_long = error("ERR the reply has more than 536870912 bytes");
    assert_eq!(client.ask(&format!("MGET {}", "a ".repeat(1000))), too_long);
    client.ask("MULTI");
    client.ask("SET b 1");
    for _ in 0..20 {
        client.ask("GET a");
    }
    assert_eq!(client.ask("EXEC"), too_long);
    assert_eq!(client.ask("GET b"), Reply::Null);
    let Reply::Array(values) = client.ask("MGET a a") else {
        panic!("MGET returns an array");
    };
    assert_eq!(values.len(), 2);
}

#[test]
fn a_key_that_is_too_long_fails_alone_in_a_transaction() {
    let (_dir, server) = started(&[]);
    let mut client = server.resp();
    let key = "k".repeat(70_000);
    client.ask("MULTI");
    client.ask("SET a 1");
    client.call(&["SET", &key, "1"]);
    client.call(&["INCR", &key]);
    let Reply::Array(replies) = client.ask("EXEC") else {
        panic!("EXEC returns an array");
    };
    assert_eq!(replies[0], simple("OK"));
    for reply in &replies[1..] {
        let is_expected = matches!(reply, Reply::Error(text) if text.contains("65535"));
        assert!(is_expected, "{reply:?}");
    }
    assert_eq!(client.ask("GET a"), "1".into());
    // Of several keys of one command all or none are set.
    assert!(matches!(
        client.call(&["MSET", "b", "1", &key, "1"]),
        Reply::Error(_)
    ));
    assert_eq!(client.ask("GET b"), Reply::Null);
}

/// Not when it has made them, for they would take far more memory than the requests for them.
#[test]
fn a_transaction_of_huge_values_is_stopped_at_what_a_batch_holds() {
    let (_dir, server) = started(&["--sync-interval", "1s"]);
    let mut client = server.resp();
    client.ask("MULTI");
    for key in ["a", "b", "c"] {
        client.ask(&format!("SETRANGE {key} 536870000 x"));
    }
    for key in ["a", "b", "c"] {
        client.ask(&format!("SET {key} {key}"));
    }
    let expected = vec![
        Reply::Integer(536_870_001),
        Reply::Integer(536_870_001),
        error("ERR a transaction changes at most 1073741824 bytes"),
        simple("OK"),
        simple("OK"),
        simple("OK"),
    ];
    assert_eq!(client.ask("EXEC"), Reply::Array(expected));
    assert_eq!(client.ask("MGET a b c"), array(["a", "b", "c"]));
}

/// The store's own verbs, for who has sent a frame.
#[test]
fn the_verbs_of_lines_are_commands_as_well() {
    let (_dir, server) = started(&[]);
    for mut client in [server.resp(), server.resp3()] {
        assert_eq!(client.ask("PUT a 1"), simple("OK"));
        assert_eq!(client.ask("put b 1 ttl=1h"), simple("OK"));
        assert_eq!(client.ask("PUT c 1 45"), simple("OK"));
        for (command, text) in [
            ("PUT a 1 ttl=x", "ERR it is no TTL"),
            ("PUT a 1 0", "ERR a TTL"),
            ("PUT a 1 for=5", "ERR after the value"),
            ("PUT a 1 5 6", "ERR syntax error"),
            ("PUT a", "ERR wrong number of arguments for 'put' command"),
        ] {
            let reply = client.ask(command);
            let is_expected = matches!(&reply, Reply::Error(found) if found.starts_with(text));
            assert!(is_expected, "{command}: {reply:?}");
        }
        assert_eq!(client.ask("DELETE a"), simple("OK"));
        assert_eq!(client.ask("DELETE a"), simple("OK"));
        assert_eq!(
            client.ask("MGET a b"),
            Reply::Array(vec![Reply::Null, "1".into()])
        );
        assert_eq!(client.ask("COMPACT"), simple("OK"));
        assert_eq!(figure(client.ask("STATS"), "keys"), 2);
        let Reply::Array(lines) = client.ask("HELP") else {
            panic!("HELP returns an array");
        };
        assert!(matches!(&lines[0], Reply::Bulk(line) if line.starts_with(b"PUT key value")));
        transaction_of_verbs(&mut client);
    }
}

fn transaction_of_verbs(client: &mut Resp) {
    client.ask("MULTI");
    for command in ["PUT a 1", "GET a", "DELETE a", "GET a", "COMPACT"] {
        assert_eq!(client.ask(command), simple("QUEUED"));
    }
    let expected = vec![
        simple("OK"),
        "1".into(),
        simple("OK"),
        Reply::Null,
        simple("OK"),
    ];
    assert_eq!(client.ask("EXEC"), Reply::Array(expected));
}

/// One of the figures, whichever version they came in.
fn figure(stats: Reply, name: &str) -> i64 {
    let pairs = match stats {
        Reply::Map(pairs) => pairs,
        Reply::Array(words) => words
            .chunks(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect(),
        _ => panic!("{stats:?}"),
    };
    let found = pairs.into_iter().find(|(key, _)| *key == name.into());
    match found {
        Some((_, Reply::Integer(figure))) => figure,
        other => panic!("{other:?}"),
    }
}
