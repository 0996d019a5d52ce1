//! Bytes as text, for lines and for JSON, so that no key can break a line, a terminal or a parser.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// On one line and without ambiguity: as it is where it is printable text, with `\n`, `\t`, `\\`
/// and `\xff` for the rest.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    // Most keys are nothing else.
    if bytes
        .iter()
        .all(|&byte| matches!(byte, b' '..=b'~') && byte != b'\\')
    {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                char if is_harmful(char) => escape_char(&mut text, char),
                char => text.push(char),
            }
        }
        escape_bytes(&mut text, chunk.invalid());
    }
    text
}

/// A message with whatever was in it, such as a file's name: as it is, but on one line, and without
/// what drives a terminal.
pub(crate) fn harmless(message: &str) -> Cow<'_, str> {
    if !message.contains(is_harmful) {
        return Cow::Borrowed(message);
    }
    let mut text = String::with_capacity(message.len());
    for char in message.chars() {
        if is_harmful(char) {
            escape_char(&mut text, char);
        } else {
            text.push(char);
        }
    }
    Cow::Owned(text)
}

/// Control characters may drive a terminal; others break a line, or turn its direction, so that a
/// key looks like another one.
fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Beyond ASCII it is several bytes.
fn escape_char(text: &mut String, char: char) {
    let mut bytes = [0; 4];
    escape_bytes(text, char.encode_utf8(&mut bytes).as_bytes());
}

fn escape_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// In quotes, for a message.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", escaped(bytes).replace('"', "\\\""))
}

/// A string where it is text; otherwise `{"base64": "..."}`.
pub(crate) fn json_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printable_stays_and_the_rest_is_escaped() {
        for (bytes, text) in [
            (&b"plain key:1"[..], "plain key:1"),
            ("snö 雪".as_bytes(), "snö 雪"),
            (b"a\nb\tc\\d", r"a\nb\tc\\d"),
            (b"\x1b[31m\0", r"\x1b[31m\x00"),
            (b"a\xff\xfeb", r"a\xff\xfeb"),
            ("\u{85}".as_bytes(), r"\xc2\x85"),
            ("a\u{202e}b".as_bytes(), r"a\xe2\x80\xaeb"),
            (b"", ""),
        ] {
            assert_eq!(escaped(bytes), text);
        }
        assert_eq!(quoted(b"a \"b\"\n"), r#""a \"b\"\n""#);
    }

    #[test]
    fn a_message_stays_on_its_line_whatever_is_in_it() {
        assert_eq!(
            harmless("no store in a\nb\x1b[2J"),
            r"no store in a\x0ab\x1b[2J"
        );
        assert_eq!(harmless("snö \\ \u{2028}"), r"snö \ \xe2\x80\xa8");
    }

    #[test]
    fn json_has_text_as_text_and_bytes_in_base64() {
        assert_eq!(json_bytes(b"a\"\n").to_string(), r#""a\"\n""#);
        assert_eq!(json_bytes(b"\xff\x00").to_string(), r#"{"base64":"/wA="}"#);
    }
}
