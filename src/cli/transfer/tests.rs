//! What holds for every format: all bytes come back, and no input is too strange to be read.

use std::io::BufReader;

use super::*;

const FORMATS: [Format; 4] = [Format::Jsonl, Format::Csv, Format::Resp, Format::Mdb];

/// Bytes that some format could mistake for its own.
const AWKWARD: [&[u8]; 26] = [
    b"",
    b" ",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\"",
    b"\"\"",
    b"a\"b",
    b",",
    b"a,b\r\nc",
    b"'",
    b"\\",
    b"\\x41",
    b"base64:",
    b"base64:YQ==",
    b"{\"base64\":\"YQ==\"}",
    b"\xff",
    b"\xff\xfe\0\x80",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"DATA=END",
    b" DATA=END",
    b"$3\r\nabc\r\n",
    "Zwölf Boxkämpfer \u{1f980} \u{2028}".as_bytes(),
    b"null",
];

fn written(format: Format, times: Times, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = writer(format, times, 1 << 20, &mut out).unwrap();
    for entry in entries {
        writer.write(entry).unwrap();
    }
    writer.finish().unwrap();
    drop(writer);
    out
}

fn read(format: Format, input: &[u8], buffer: usize) -> Result<Vec<Change<'static>>, ReadError> {
    let input = BufReader::with_capacity(buffer, input);
    let mut reader = reader(format, Selection::default(), input);
    let mut changes = Vec::new();
    while let Some(change) = reader.next()? {
        changes.push(owned(change));
    }
    Ok(changes)
}

fn owned(change: Change) -> Change<'static> {
    let own = |bytes: Cow<[u8]>| Cow::Owned(bytes.into_owned());
    match change {
        Change::Put {
            key,
            value,
            expiry,
            condition,
        } => Change::Put {
            key: own(key),
            value: own(value),
            expiry,
            condition,
        },
        Change::Delete { key } => Change::Delete { key: own(key) },
        Change::Expire { key, expiry } => Change::Expire {
            key: own(key),
            expiry,
        },
    }
}

/// The change that an entry is to come back as.
fn put_of(format: Format, entry: &Entry) -> Change<'static> {
    let expiry = match format {
        Format::Mdb => Expiry::Never,
        _ => entry.expiry,
    };
    Change::Put {
        key: entry.key.to_vec().into(),
        value: entry.value.to_vec().into(),
        expiry: Some(expiry),
        condition: Condition::Always,
    }
}

#[track_caller]
fn assert_comes_back(format: Format, times: Times, entries: &[Entry], buffer: usize) {
    let bytes = written(format, times, entries);
    let changes = read(format, &bytes, buffer).unwrap();
    let expected: Vec<_> = entries.iter().map(|entry| put_of(format, entry)).collect();
    assert!(changes == expected, "{format:?}: {}", bytes.escape_ascii());
}

/// Pseudo-random numbers: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    /// Few different bytes, so that those with a meaning are often beside each other.
    fn bytes(&mut self, max: usize) -> Vec<u8> {
        const BYTES: &[u8] = b"a\",\n\r\\ :{}*$1\0\xc3\xa4\xff";
        let len = self.below(max + 1);
        (0..len).map(|_| BYTES[self.below(BYTES.len())]).collect()
    }
}

#[test]
fn awkward_bytes_come_back_in_every_format() {
    for format in FORMATS {
        for (number, key) in AWKWARD.into_iter().enumerate() {
            let entries = AWKWARD.map(|value| Entry {
                key,
                value,
                expiry: match number % 2 {
                    0 => Expiry::Never,
                    _ => Expiry::InMs(1_000 + number as u64),
                },
            });
            for buffer in [1, 7, 8192] {
                assert_comes_back(format, Times::Relative, &entries, buffer);
            }
        }
    }
}

#[test]
fn absolute_times_come_back_where_the_format_has_times() {
    for format in FORMATS {
        for ms in [1, 1_700_000_000_000, i64::MAX as u64] {
            let entry = Entry {
                key: b"k",
                value: b"v",
                expiry: Expiry::AtMs(ms),
            };
            assert_comes_back(format, Times::Absolute, &[entry], 100);
        }
    }
}

#[test]
fn nothing_comes_back_as_nothing() {
    for format in FORMATS {
        assert_comes_back(format, Times::Relative, &[], 100);
    }
}

#[test]
fn long_values_come_back_in_every_format() {
    let text = "0123456789\n".repeat(100_000);
    let bytes: Vec<_> = (0..=255).cycle().take(1_000_000).collect();
    let longest_key = b"k".repeat(MAX_KEY_LEN);
    for format in FORMATS {
        for (key, value) in [
            (&b"text"[..], text.as_bytes()),
            (b"bytes", &bytes),
            (&longest_key, b""),
        ] {
            let entry = Entry {
                key,
                value,
                expiry: Expiry::Never,
            };
            assert_comes_back(format, Times::Relative, &[entry], 4096);
        }
    }
}

#[test]
fn random_entries_come_back_in_every_format() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..2_000 {
        let entries: Vec<_> = (0..random.below(5))
            .map(|_| (random.bytes(12), random.bytes(40), random.below(3)))
            .collect();
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, value, expiry)| Entry {
                key,
                value,
                expiry: match *expiry {
                    0 => Expiry::Never,
                    more => Expiry::InMs(more as u64),
                },
            })
            .collect();
        for format in FORMATS {
            assert_comes_back(format, Times::Relative, &entries, 1 + round % 64);
        }
    }
}

#[test]
fn no_input_makes_a_reader_panic_or_depend_on_how_it_arrives() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let entries = AWKWARD.map(|bytes| Entry {
        key: bytes,
        value: b"value",
        expiry: Expiry::InMs(5),
    });
    let mut malformed = 0;
    for format in FORMATS {
        let sound = written(format, Times::Relative, &entries);
        for _ in 0..3_000 {
            let mut input = sound.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(input.len());
                match random.below(4) {
                    0 => input[at] = random.bytes(1).pop().unwrap_or(0),
                    1 => input.truncate(at.max(1)),
                    2 => drop(input.remove(at.min(input.len() - 2))),
                    _ => input.insert(at, b"0\"\n*$\\"[random.below(6)]),
                }
                if input.len() < 3 {
                    break;
                }
            }
            let whole = read(format, &input, input.len());
            let in_pieces = read(format, &input, 1 + random.below(30));
            malformed += usize::from(whole.is_err());
            assert_eq!(
                format!("{whole:?}"),
                format!("{in_pieces:?}"),
                "{format:?}: {}",
                input.escape_ascii()
            );
        }
    }
    assert!(malformed > 3_000, "the changes did no harm: {malformed}");
}

#[test]
fn an_unlimited_input_is_refused_in_time() {
    // 100,000 fields, arguments or digits without an end.
    let endless: [(Format, &[u8], &[u8]); 3] = [
        (Format::Csv, b"key,value\n", b","),
        (Format::Resp, b"*9999999999\r\n", b"$1\r\na\r\n"),
        (Format::Resp, b"*1\r\n$99999999999\r\n", b"a"),
    ];
    for (format, begin, more) in endless {
        let input = [begin, &more.repeat(100_000)].concat();
        let error = read(format, &input, 8192).unwrap_err();
        assert!(matches!(error, ReadError::Malformed(_)), "{error:?}");
    }
}

#[test]
fn what_a_store_cannot_hold_is_refused_with_its_place() {
    let key = "k".repeat(MAX_KEY_LEN + 1);
    let digits = "6b".repeat(MAX_KEY_LEN + 1);
    let inputs = [
        (Format::Jsonl, format!("\n{{\"k\":\"{key}\",\"v\":\"\"}}\n")),
        (Format::Csv, format!("key,value\n{key},\n")),
        (Format::Resp, format!("PING\r\nDEL {}\r\n", &key[..9])),
        (
            Format::Resp,
            format!("*2\r\n$3\r\nDEL\r\n$65536\r\n{key}\r\n"),
        ),
        (
            Format::Mdb,
            format!("VERSION=3\nformat=bytevalue\nHEADER=END\n {digits}\n \nDATA=END\n"),
        ),
    ];
    let problems = inputs.map(
        |(format, input)| match read(format, input.as_bytes(), 512) {
            Err(ReadError::Malformed(malformed)) => malformed.to_string(),
            Err(ReadError::Io(error)) => error.to_string(),
            Ok(_) => String::new(),
        },
    );
    let too_long = "the key has 65536 bytes, 65535 are possible; shorten it or leave it out";
    assert_eq!(problems[0], format!("line 2: {too_long}"));
    assert_eq!(problems[1], format!("line 2: {too_long}"));
    assert_eq!(problems[2], "");
    assert_eq!(problems[3], format!("offset 0: {too_long}"));
    assert_eq!(problems[4], format!("line 5: {too_long}"));
}
