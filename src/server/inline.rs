//! A line of words, some of them in quotes, as Redis splits inline commands: `PUT key "two words"`.

/// Why a line cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SplitError {
    UnbalancedQuotes,
    /// Each word takes memory of its own, and can be one byte of the line.
    TooManyWords,
}

/// The words of a line, up to `max`. In double quotes `\n`, `\r`, `\t`, `\b`, `\a`, `\xHH` and `\` before
/// anything else have the meaning they have in C; in single quotes only `\'`. A closing quote ends
/// its word.
pub(crate) fn split(line: &[u8], max: usize) -> Result<Vec<Vec<u8>>, SplitError> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii();
    while let Some(&first) = rest.first() {
        if words.len() == max {
            return Err(SplitError::TooManyWords);
        }
        let (word, after) = match first {
            b'"' => double_quoted(&rest[1..])?,
            b'\'' => single_quoted(&rest[1..])?,
            _ => plain(rest),
        };
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Ok(words)
}

fn plain(rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let end = rest.iter().position(u8::is_ascii_whitespace);
    let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
    (word.to_vec(), after)
}

type Word<'a> = Result<(Vec<u8>, &'a [u8]), SplitError>;

fn double_quoted(mut rest: &[u8]) -> Word<'_> {
    let mut word = Vec::new();
    loop {
        let (byte, after) = match rest {
            [b'"', after @ ..] => return closed(word, after),
            [b'\\', b'x', high, low, after @ ..] if is_hex(*high) && is_hex(*low) => {
                (digit(*high) << 4 | digit(*low), after)
            }
            [b'\\', letter, after @ ..] => (escape(*letter), after),
            [byte, after @ ..] => (*byte, after),
            [] => return Err(SplitError::UnbalancedQuotes),
        };
        word.push(byte);
        rest = after;
    }
}

fn single_quoted(mut rest: &[u8]) -> Word<'_> {
    let mut word = Vec::new();
    loop {
        let (byte, after) = match rest {
            [b'\'', after @ ..] => return closed(word, after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
            [] => return Err(SplitError::UnbalancedQuotes),
        };
        word.push(byte);
        rest = after;
    }
}

fn closed(word: Vec<u8>, after: &[u8]) -> Word<'_> {
    match after.first() {
        Some(byte) if !byte.is_ascii_whitespace() => Err(SplitError::UnbalancedQuotes),
        _ => Ok((word, after)),
    }
}

fn escape(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn digit(byte: u8) -> u8 {
    char::from(byte).to_digit(16).unwrap_or(0) as u8
}

/// Bytes in double quotes, so that [`split`] reads them back.
pub(crate) fn quote(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;

    let mut quoted = vec![b'"'];
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', byte]),
            b'\n' => quoted.extend(b"\\n"),
            b'\r' => quoted.extend(b"\\r"),
            b'\t' => quoted.extend(b"\\t"),
            b' '..=b'~' => quoted.push(byte),
            // Writing to a vector cannot fail.
            _ => drop(write!(quoted, "\\x{byte:02x}")),
        }
    }
    quoted.push(b'"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_blanks_and_quotes_keep_them() {
        for (line, words) in [
            ("", &[][..]),
            ("  GET  key ", &[&b"GET"[..], b"key"]),
            (r#"PUT k "two words""#, &[b"PUT", b"k", b"two words"]),
            (r"PUT k 'it\'s'", &[b"PUT", b"k", b"it's"]),
            (r#"PUT "" ''"#, &[b"PUT", b"", b""]),
            (r#""\x00\xff\n\"\q""#, &[b"\x00\xff\n\"q"]),
            (r"a\nb 'c\n'", &[br"a\nb", br"c\n"]),
        ] {
            assert_eq!(split(line.as_bytes(), 3).unwrap(), words, "{line}");
        }
        for line in [r#""open"#, "'open", r#""a"b"#, r#""\"#] {
            let unbalanced = Err(SplitError::UnbalancedQuotes);
            assert_eq!(split(line.as_bytes(), 3), unbalanced, "{line}");
        }
        let too_many = Err(SplitError::TooManyWords);
        assert_eq!(split(b"a b c d", 3), too_many);
    }

    #[test]
    fn any_bytes_are_read_back_from_quotes() {
        let all: Vec<u8> = (0..=255).collect();
        let line = quote(&all);
        assert!(!line.contains(&b'\n') && line.is_ascii());
        assert_eq!(split(&line, 1).unwrap(), [all]);
    }
}
