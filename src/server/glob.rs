//! Patterns for names, as Redis has them: `*`, `?`, `[a-z]`, `[^a-z]`, and `\` before what is meant
//! literally.
//!
//! A pattern is cut at its stars. The first part must be at the beginning of a name, the last at
//! its end, and each part between is taken where it fits first: whether the rest fits behind it can
//! only get worse farther on. So nothing is ever tried again, and a name takes time in proportion to
//! its length, times that of the longest part at most, which is limited.

/// How long a part between two stars may be.
const MAX_PART_LEN: usize = 1024;

/// A part between two stars is longer than there is time to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// A pattern, ready to be compared with many names.
#[derive(Clone, Debug)]
pub(crate) struct Glob {
    /// What a name begins with; the whole of it if there is no star.
    first: Vec<Token>,
    rest: Option<Rest>,
    ignores_case: bool,
}

/// What comes after the first star.
#[derive(Clone, Debug, Default)]
struct Rest {
    /// In between, in this order.
    between: Vec<Vec<Token>>,
    last: Vec<Token>,
}

/// One byte of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    /// Those for which the bit is set.
    OneOf(Box<[u64; 4]>),
}

impl Glob {
    pub(crate) fn new(pattern: &[u8]) -> Result<Glob, TooLong> {
        Glob::parse(pattern, false)
    }

    /// One that makes no difference between ASCII letters of either case.
    pub(crate) fn ignoring_case(pattern: &[u8]) -> Result<Glob, TooLong> {
        Glob::parse(&pattern.to_ascii_lowercase(), true)
    }

    fn parse(mut pattern: &[u8], ignores_case: bool) -> Result<Glob, TooLong> {
        let mut parts = vec![Vec::new()];
        while let Some((&byte, mut rest)) = pattern.split_first() {
            let token = match (byte, rest.split_first()) {
                (b'*', _) => {
                    parts.push(Vec::new());
                    pattern = rest;
                    continue;
                }
                (b'?', _) => Token::Any,
                (b'[', _) => {
                    let (set, after) = parse_set(rest);
                    rest = after;
                    Token::OneOf(Box::new(set))
                }
                (b'\\', Some((&escaped, after))) => {
                    rest = after;
                    Token::Byte(escaped)
                }
                _ => Token::Byte(byte),
            };
            if let Some(part) = parts.last_mut() {
                part.push(token);
            }
            pattern = rest;
        }
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or_default();
        let rest = parts.next_back().map(|last| Rest {
            between: parts.filter(|part| !part.is_empty()).collect(),
            last,
        });
        let between = rest.iter().flat_map(|rest| &rest.between);
        if between.into_iter().any(|part| part.len() > MAX_PART_LEN) {
            return Err(TooLong);
        }
        Ok(Glob {
            first,
            rest,
            ignores_case,
        })
    }

    /// The only name that it can match, if there is but one.
    pub(crate) fn literal(&self) -> Option<Vec<u8>> {
        let byte = |token: &Token| match token {
            Token::Byte(byte) => Some(*byte),
            _ => None,
        };
        let is_exact = self.rest.is_none() && !self.ignores_case;
        is_exact.then(|| self.first.iter().map(byte).collect())?
    }

    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let lower;
        let name = if self.ignores_case {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let Some(Rest { between, last }) = &self.rest else {
            return fits(&self.first, name);
        };
        let Some(middle_len) = name.len().checked_sub(self.first.len() + last.len()) else {
            return false;
        };
        let (begin, rest) = name.split_at(self.first.len());
        let (mut middle, end) = rest.split_at(middle_len);
        if !fits(&self.first, begin) || !fits(last, end) {
            return false;
        }
        for part in between {
            let mut places = middle.windows(part.len());
            let Some(at) = places.position(|place| fits(part, place)) else {
                return false;
            };
            middle = &middle[at + part.len()..];
        }
        true
    }
}

fn fits(part: &[Token], bytes: &[u8]) -> bool {
    let mut pairs = part.iter().zip(bytes);
    part.len() == bytes.len()
        && pairs.all(|(token, &byte)| match token {
            Token::Byte(wanted) => *wanted == byte,
            Token::Any => true,
            Token::OneOf(set) => set[usize::from(byte / 64)] >> (byte % 64) & 1 == 1,
        })
}

/// The bytes between brackets, and what follows them. Without a closing bracket the set goes on to
/// the end of the pattern; a range may be written from either end.
fn parse_set(mut rest: &[u8]) -> ([u64; 4], &[u8]) {
    let is_negated = rest.first() == Some(&b'^');
    if is_negated {
        rest = &rest[1..];
    }
    let mut set = [0; 4];
    let mut add = |byte: u8| set[usize::from(byte / 64)] |= 1 << (byte % 64);
    loop {
        rest = match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', byte, after @ ..] => {
                add(*byte);
                after
            }
            // A bracket can end a range: it closes nothing there.
            [from, b'-', to, after @ ..] => {
                (*from.min(to)..=*from.max(to)).for_each(&mut add);
                after
            }
            [byte, after @ ..] => {
                add(*byte);
                after
            }
        };
    }
    if is_negated {
        set = set.map(|bits| !bits);
    }
    (set, rest)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern.as_bytes())
            .unwrap()
            .matches(name.as_bytes())
    }

    #[test]
    fn each_sign_means_what_it_means_to_redis() {
        for (pattern, matching, others) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a", "a*b"], &[]),
            ("user:*", &["user:", "user:1"], &["user", "a user:1"]),
            ("*.log", &[".log", "a.log.log"], &["a.log.", "log"]),
            ("a*b*c", &["abc", "a-b-b-c"], &["acb", "abcd", "bc"]),
            ("a**c", &["ac", "abc"], &["a"]),
            ("ab*ba", &["abba", "ab-ba"], &["aba", "ab"]),
            ("h?llo", &["hello", "h?llo"], &["hllo", "heello"]),
            ("h[ae]llo", &["hallo", "hello"], &["hillo", "h[ae]llo"]),
            ("h[^e]llo", &["hallo", "h^llo"], &["hello"]),
            ("[a-c1-3]", &["b", "2"], &["d", "-", "4"]),
            ("[c-a]", &["a", "b", "c"], &["-", "d"]),
            (r"h\*llo", &["h*llo"], &["hello", r"h\*llo"]),
            (r"\\", &["\\"], &["\\\\"]),
            ("\\", &["\\"], &[""]),
            (r"[\]-]", &["]", "-"], &["\\", ""]),
        ] {
            for name in matching {
                assert!(matches(pattern, name), "{pattern} matches {name}");
            }
            for name in others {
                assert!(!matches(pattern, name), "{pattern} does not match {name}");
            }
        }
    }

    #[test]
    fn odd_brackets_are_taken_as_redis_takes_them() {
        // An empty set matches nothing, all but nothing anything.
        assert!(!matches("[]", "]") && !matches("[]", ""));
        assert!(matches("[^]", "a") && !matches("[^]", ""));
        // The end of the pattern closes a set.
        assert!(matches("[ab", "b") && !matches("[ab", "ab") && !matches("[", "["));
        assert!(matches("[^", "a"));
        // A bracket after a hyphen is a range's end.
        assert!(matches("[a-]", "_") && !matches("[a-]", "-"));
        assert!(matches("[a-", "-") && matches("[a-", "a"));
    }

    #[test]
    fn case_is_ignored_where_it_was_said() {
        let glob = Glob::ignoring_case(b"Max*[A-C]").unwrap();
        assert!(glob.matches(b"mAXmemoryB") && !glob.matches(b"maxmemory-d"));
        assert!(!matches("a", "A"));
    }

    #[test]
    fn many_stars_take_no_more_time_than_few() {
        let name = "a".repeat(60_000);
        let begun = Instant::now();
        assert!(!matches("a*a*a*a*b", &name));
        assert!(!matches(&format!("{}b", "*a".repeat(500)), &name));
        assert!(!matches(&format!("{}b*", "*a?".repeat(500)), &name));
        assert!(matches(&"*a".repeat(500), &name));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn only_what_lies_between_two_stars_is_limited() {
        let long = "a".repeat(1025);
        let new = |pattern: String| Glob::new(pattern.as_bytes());
        assert_eq!(new(format!("*{long}*")).unwrap_err(), TooLong);
        assert!(new(format!("*{}*", &long[1..])).is_ok());
        assert!(
            new(format!("{long}*{long}"))
                .unwrap()
                .matches(long.repeat(2).as_bytes())
        );
        assert!(new(long.clone()).unwrap().matches(long.as_bytes()));
    }

    #[test]
    fn what_a_pattern_can_match_is_known_where_it_is_one_name_or_all() {
        let new = |pattern: &str| Glob::new(pattern.as_bytes()).unwrap();
        assert_eq!(new(r"a\*b").literal().as_deref(), Some(&b"a*b"[..]));
        assert_eq!(new("a?").literal(), None);
        assert_eq!(new("a*").literal(), None);
    }
}
