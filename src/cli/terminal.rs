//! What the terminal can show: how large it is, and whether more than ASCII.

use std::io::{self, IsTerminal, Write};

use super::exit::Failure;
use super::output;

/// What pictures are drawn for where it is not known: the width that every terminal has.
pub(crate) const COLUMNS: usize = 80;

/// How many columns and rows stdout has, if it is a terminal.
pub(crate) fn size() -> Option<(usize, usize)> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let (columns, rows) = terminal_size::terminal_size_of(&stdout)?;
    Some((usize::from(columns.0), usize::from(rows.0)))
}

/// Whether pictures may have characters beyond ASCII, as the environment says.
pub(crate) fn has_unicode() -> bool {
    // Text for a Windows console is Unicode whatever the locale.
    cfg!(windows) || is_utf8(|name| std::env::var(name).ok())
}

fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    if variable("TERM").as_deref() == Some("dumb") {
        return false;
    }
    // The first of them that is set decides, as POSIX has it.
    let mut locales = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .filter(|locale| !locale.is_empty());
    locales.next().is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Shows a page in place of the one before it, on a terminal.
pub(crate) fn redraw(page: &str) -> Result<(), Failure> {
    // To the corner, and away with what is there. No colours, so not subject to what is said about
    // them.
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(b"\x1b[H\x1b[2J")
        .map_err(output::failure)?;
    drop(stdout);
    output::write_text(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_locale_that_is_set_decides() {
        let says = |set: &[(&str, &str)]| {
            is_utf8(|name| {
                let found = set.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(says(&[("LANG", "en_GB.UTF-8")]));
        assert!(says(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!says(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")]));
        assert!(!says(&[]));
        assert!(!says(&[("TERM", "dumb"), ("LANG", "en_GB.UTF-8")]));
    }
}
