//! What a hostile, unlucky or confused person does: odd names, odd files to write to, places where no
//! store may be.

use std::fs;

use tempfile::tempdir;

use crate::program::*;

#[test]
fn a_message_is_one_line_and_drives_no_terminal_whatever_is_in_a_name() {
    let dir = tempdir().unwrap();
    let output = program(&dir)
        .args(["get", "a", "-d", "no\nwhere\x1b[2J"])
        .output()
        .unwrap();
    let message = failed(&output, 5);
    assert!(
        message.starts_with(r"crabkv: no store in no\x0awhere\x1b[2J; "),
        "{message}"
    );
}

#[test]
fn keys_that_turn_the_direction_of_text_are_escaped() {
    let dir = tempdir().unwrap();
    let key = "user:\u{202e}nimda";
    let put = program(&dir).args(["put", key, "1"]).output().unwrap();
    silently_done(put);
    assert_eq!(text(run(&dir, "keys")), "user:\\xe2\\x80\\xaenimda\n");
    assert_eq!(json(run(&dir, "keys --json"))["key"], key);
}
