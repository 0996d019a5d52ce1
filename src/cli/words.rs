//! A line as words, the way a shell splits one: for `batch`, and for the shell's prompt.
//!
//! Words are separated by blanks. Quotes keep blanks, and other quotes, together; a word may be
//! quoted in part. In '...' everything stands for itself. In "..." there are the escapes that
//! [`escaped`](super::text::escaped) makes, so that any bytes can be given: `\n`, `\r`, `\t`, `\\`,
//! `\"` and `\xff`. Outside quotes a backslash is a character like any other, as in `C:\data`. A line
//! that begins with `#` is a comment; it has no words, as an empty one.

/// A word, without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) bytes: Vec<u8>,
    /// Whether any of it was in quotes: it is data then, and no option, whatever it begins with.
    pub(crate) is_quoted: bool,
}

/// The words of a line, or what is wrong with it.
pub(crate) fn split(line: &[u8]) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii();
    if rest.starts_with(b"#") {
        return Ok(words);
    }
    while !rest.is_empty() {
        words.push(take_word(&mut rest)?);
        rest = rest.trim_ascii_start();
    }
    Ok(words)
}

/// Takes a word off the beginning of a line that begins with one.
fn take_word(rest: &mut &[u8]) -> Result<Word, String> {
    let mut word = Word {
        bytes: Vec::new(),
        is_quoted: false,
    };
    while let Some((&byte, after)) = rest.split_first() {
        if byte.is_ascii_whitespace() {
            break;
        }
        *rest = after;
        match byte {
            b'\'' => take_single_quoted(rest, &mut word.bytes)?,
            b'"' => take_double_quoted(rest, &mut word.bytes)?,
            _ => word.bytes.push(byte),
        }
        word.is_quoted |= matches!(byte, b'\'' | b'"');
    }
    Ok(word)
}

fn take_single_quoted(rest: &mut &[u8], word: &mut Vec<u8>) -> Result<(), String> {
    let Some(end) = rest.iter().position(|&byte| byte == b'\'') else {
        return Err(not_closed('\''));
    };
    word.extend_from_slice(&rest[..end]);
    *rest = &rest[end + 1..];
    Ok(())
}

fn take_double_quoted(rest: &mut &[u8], word: &mut Vec<u8>) -> Result<(), String> {
    while let Some((&byte, after)) = rest.split_first() {
        *rest = after;
        match byte {
            b'"' => return Ok(()),
            b'\\' => word.push(take_escape(rest)?),
            _ => word.push(byte),
        }
    }
    Err(not_closed('"'))
}

/// Takes what follows a backslash.
fn take_escape(rest: &mut &[u8]) -> Result<u8, String> {
    let (&kind, after) = rest.split_first().ok_or_else(|| not_closed('"'))?;
    *rest = after;
    match kind {
        b'n' => Ok(b'\n'),
        b'r' => Ok(b'\r'),
        b't' => Ok(b'\t'),
        b'\\' | b'"' => Ok(kind),
        b'x' => {
            let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
            let digits = digit(0).zip(digit(1));
            let (high, low) = digits.ok_or("\\x takes two hexadecimal digits, as in \\x0a")?;
            *rest = &after[2..];
            Ok((high * 16 + low) as u8)
        }
        _ => Err(
            "a backslash in \"...\" begins \\n, \\r, \\t, \\\\, \\\" or \\x0a; in '...' it stands \
             for itself"
                .to_owned(),
        ),
    }
}

fn not_closed(quote: char) -> String {
    format!("a quote ({quote}) is not closed; put a word that has one in the other kind of quotes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::text;

    fn bytes_of(line: &[u8]) -> Vec<Vec<u8>> {
        let words = split(line).unwrap();
        words.into_iter().map(|word| word.bytes).collect()
    }

    #[test]
    fn words_are_split_at_blanks_and_kept_together_by_quotes() {
        for (line, words) in [
            (&b"put a 1"[..], &[&b"put"[..], b"a", b"1"][..]),
            (b"  put\ta   1 \r\n", &[b"put", b"a", b"1"]),
            (b"'a b' \"c d\"", &[b"a b", b"c d"]),
            (b"a' 'b\" \"c", &[b"a b c"]),
            (b"'' \"\"", &[b"", b""]),
            (b"'say \"hi\"' \"it's\"", &[b"say \"hi\"", b"it's"]),
            (br#"'{"n":1}'"#, &[br#"{"n":1}"#]),
            (
                "snö '雪 '".as_bytes(),
                &["snö".as_bytes(), "雪 ".as_bytes()],
            ),
            (b"a#b #c", &[b"a#b", b"#c"]),
            (b"\xff\xfe", &[b"\xff\xfe"]),
        ] {
            assert_eq!(bytes_of(line), words, "{}", text::escaped(line));
        }
    }

    #[test]
    fn empty_lines_and_comments_have_no_words() {
        for line in [&b""[..], b" \t\r\n", b"# put a 1", b"  #'"] {
            assert_eq!(split(line), Ok(Vec::new()));
        }
        assert_eq!(bytes_of(b"'#' a"), [b"#", b"a"]);
    }

    #[test]
    fn escapes_are_read_in_double_quotes_only() {
        assert_eq!(
            bytes_of(br#""\n\r\t\\\"\x00\xFf" '\n' C:\new\table"#),
            [&b"\n\r\t\\\"\0\xff"[..], br"\n", br"C:\new\table"]
        );
    }

    #[test]
    fn whatever_is_shown_in_quotes_is_read_as_it_was() {
        let every_byte: Vec<u8> = (0..=255).collect();
        for bytes in [&every_byte[..], "a \"b\"\u{85}\\".as_bytes(), b""] {
            assert_eq!(bytes_of(text::quoted(bytes).as_bytes()), [bytes]);
        }
    }

    #[test]
    fn what_is_quoted_is_told_apart_from_an_option() {
        let quoted = |line: &[u8]| split(line).unwrap()[0].is_quoted;
        assert!(quoted(b"'--ttl'") && quoted(b"--\"ttl\"") && !quoted(b"--ttl"));
    }

    #[test]
    fn a_quote_or_an_escape_that_is_not_complete_is_an_error() {
        for (line, reason) in [
            (&b"put 'a b"[..], "not closed"),
            (b"put it's", "not closed"),
            (b"\"a", "not closed"),
            (b"\"a\\\"", "not closed"),
            (b"\"\\", "not closed"),
            (b"\"\\x0\"", "two hexadecimal digits"),
            (b"\"\\xzz\"", "two hexadecimal digits"),
            (b"\"\\q\"", "begins \\n"),
        ] {
            let error = split(line).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
