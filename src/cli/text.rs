//! Bytes as text, for lines and for JSON, so that no key can break a line, a terminal or a parser.

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
                // Control characters may drive a terminal; those beyond ASCII are two bytes.
                char if char.is_control() => {
                    let mut bytes = [0; 4];
                    escape_bytes(&mut text, char.encode_utf8(&mut bytes).as_bytes());
                }
                char => text.push(char),
            }
        }
        escape_bytes(&mut text, chunk.invalid());
    }
    text
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
            (b"", ""),
        ] {
            assert_eq!(escaped(bytes), text);
        }
        assert_eq!(quoted(b"a \"b\"\n"), r#""a \"b\"\n""#);
    }

    #[test]
    fn json_has_text_as_text_and_bytes_in_base64() {
        assert_eq!(json_bytes(b"a\"\n").to_string(), r#""a\"\n""#);
        assert_eq!(json_bytes(b"\xff\x00").to_string(), r#"{"base64":"/wA="}"#);
    }
}
