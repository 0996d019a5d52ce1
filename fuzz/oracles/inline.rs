//! The splitter of lines, with what holds for any bytes. The fuzzer calls it, and so does the replay of
//! its corpus; the splitter is part of the program, so both read its file.

#[path = "../../src/server/inline.rs"]
mod splitter;

use splitter::{SplitError, quote, split};

use super::stream::stream;

const MOST_WORDS: usize = 8;

/// Lines, each ended by a line feed but the last.
pub(crate) fn inline(lines: &[u8]) {
    stream(lines);
    lines.split(|byte| *byte == b'\n').for_each(one_line);
    one_line(lines);
}

/// A line. Line feeds in it are blanks.
fn one_line(line: &[u8]) {
    match split(line, MOST_WORDS) {
        Ok(words) => {
            assert!(words.len() <= MOST_WORDS, "too many words");
            let bytes: usize = words.iter().map(Vec::len).sum();
            assert!(bytes <= line.len(), "more came out than went in");
            // One less is one too many.
            if let Some(fewer) = words.len().checked_sub(1) {
                assert_eq!(split(line, fewer), Err(SplitError::TooManyWords));
            }
            // In quotes, they are the same words.
            let quoted: Vec<_> = words.iter().map(|word| quote(word)).collect();
            let written = quoted.join(&b' ');
            assert!(!written.contains(&b'\n'), "a quoted word breaks the line");
            assert_eq!(split(&written, MOST_WORDS), Ok(words));
        }
        Err(SplitError::UnbalancedQuotes) => {
            assert!(line.contains(&b'"') || line.contains(&b'\''));
        }
        Err(SplitError::TooManyWords) => {
            assert!(line.len() > MOST_WORDS, "fewer bytes than words");
        }
    }
    // Any bytes are one word, in quotes.
    assert_eq!(split(&quote(line), 1), Ok(vec![line.to_vec()]));
}
