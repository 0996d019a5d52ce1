//! Browsers, and pages that make them talk to this port: their requests are lines, too, and what a page
//! sends behind its headers must not be taken for commands.

/// Whether a line is part of a web request.
pub(crate) fn is_request(words: &[&[u8]]) -> bool {
    match words {
        [_, target, version] if begins(version, b"http/") => {
            target.starts_with(b"/") || begins(target, b"http") || *target == b"*"
        }
        [verb, ..] => begins(verb, b"host:") || verb.eq_ignore_ascii_case(b"post"),
        [] => false,
    }
}

/// Whether a word begins so, in any case.
fn begins(word: &[u8], begin: &[u8]) -> bool {
    word.get(..begin.len())
        .is_some_and(|found| found.eq_ignore_ascii_case(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_web(line: &str) -> bool {
        is_request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn requests_of_browsers_are_told_from_commands() {
        for line in [
            "POST / HTTP/1.1",
            "post",
            "PUT /key HTTP/1.1",
            "GET http://localhost/ HTTP/1.0",
            "OPTIONS * HTTP/1.1",
            "Host: localhost",
            "host:localhost:4000",
        ] {
            assert!(is_web(line), "{line}");
        }
        for line in [
            "PUT key HTTP/1.1",
            "GET /",
            "PUT host: 1",
            "SET /a b",
            "hos",
            "POSTS 1",
        ] {
            assert!(!is_web(line), "{line}");
        }
    }
}
