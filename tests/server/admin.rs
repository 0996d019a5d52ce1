//! Commands about connections and the server itself: the password, `CLIENT`, `COMMAND`, `CONFIG`,
//! `INFO`, `SLOWLOG`, `SHUTDOWN`.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::resp::{Reply, array, error, simple};
use crate::running::Running;

/// A server that wants the password `secret`.
fn with_password(dir: &std::path::Path) -> Running {
    let file = dir.join("password");
    fs::write(&file, "secret\n").unwrap();
    let options = ["--password-file", file.to_str().unwrap()];
    Running::start(&dir.join("data"), &options)
}

fn text(reply: Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8(bytes).unwrap(),
        Reply::Verbatim(_, text) => text,
        other => panic!("no text: {other:?}"),
    }
}

const NOAUTH: &str = "NOAUTH Authentication required.";
const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

#[test]
fn nothing_is_done_before_the_password_is_given() {
    let dir = tempdir().unwrap();
    let server = with_password(dir.path());
    let mut client = server.resp();
    assert_eq!(client.ask("PING"), simple("PONG"));
    for command in [
        "GET a",
        "SET a 1",
        "COMMAND",
        "CLIENT ID",
        "MULTI",
        "SHUTDOWN",
    ] {
        assert_eq!(client.ask(command), error(NOAUTH), "{command}");
    }
    let Reply::Error(hello) = client.ask("HELLO 3") else {
        panic!("it must be refused");
    };
    assert!(hello.starts_with("NOAUTH HELLO must be called"), "{hello}");
    assert_eq!(client.ask("AUTH secret"), simple("OK"));
    assert_eq!(client.ask("GET a"), Reply::Null);
    assert_eq!(client.ask("RESET"), simple("RESET"));
    assert_eq!(client.ask("GET a"), error(NOAUTH));
    assert!(matches!(
        client.ask("HELLO 3 AUTH default secret SETNAME me"),
        Reply::Map(_)
    ));
    assert_eq!(client.ask("CLIENT GETNAME"), "me".into());

    let mut lines = server.client();
    assert!(lines.ask("PUT a 1").starts_with("ERR a password is needed"));
    assert_eq!(lines.ask("AUTH secret"), "+OK\r");
    assert_eq!(lines.ask("GET a"), "NOT_FOUND");
}

#[test]
fn wrong_passwords_take_long_and_end_the_connection() {
    let dir = tempdir().unwrap();
    let server = with_password(dir.path());
    let mut client = server.resp();
    let begun = Instant::now();
    for attempt in [
        "AUTH secre",
        "AUTH default secrets",
        "HELLO 3 AUTH nobody secret",
    ] {
        assert_eq!(client.ask(attempt), error(WRONGPASS), "{attempt}");
    }
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert_eq!(client.try_reply(), None);
    assert_eq!(server.resp().ask("AUTH secret"), simple("OK"));
}

#[test]
fn requests_are_small_until_the_password_is_given() {
    let dir = tempdir().unwrap();
    let server = with_password(dir.path());
    let mut client = server.resp();
    client.send(b"*2\r\n$4\r\nAUTH\r\n$20000\r\n");
    assert!(matches!(client.reply(), Reply::Error(text) if text.contains("at most 16384 bytes")));
    assert_eq!(client.try_reply(), None);
    let mut silent = server.resp();
    let begun = Instant::now();
    assert_eq!(silent.try_reply(), None);
    assert!(begun.elapsed() >= Duration::from_secs(9));
}

#[test]
fn without_a_password_auth_says_so() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    let Reply::Error(reason) = client.ask("AUTH x") else {
        panic!("there is no password");
    };
    assert!(reason.starts_with("ERR AUTH <password> called without any password configured"));
    assert_eq!(client.ask("AUTH default x"), simple("OK"));
    assert_eq!(client.ask("AUTH nobody x"), error(WRONGPASS));
    assert_eq!(client.ask("ACL WHOAMI"), "default".into());
    let Reply::Error(reason) = client.ask("HELLO 4") else {
        panic!("there is no version 4");
    };
    assert_eq!(reason, "NOPROTO unsupported protocol version");
}

#[test]
fn an_address_that_others_can_reach_needs_a_password_or_a_flag() {
    let dir = tempdir().unwrap();
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_crabkv"))
        .args(["serve", "--addr", "0.0.0.0:0", "--data-dir"])
        .arg(dir.path())
        .env_remove("CRABKV_PASSWORD")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let reason = String::from_utf8(refused.stderr).unwrap();
    assert!(reason.contains("--password-file"), "{reason}");
}

#[test]
fn what_client_libraries_send_first_is_answered() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp3();
    assert_eq!(client.ask("CLIENT SETINFO LIB-NAME redis-py"), simple("OK"));
    assert_eq!(client.ask("CLIENT SETINFO lib-ver 8.0"), simple("OK"));
    let Reply::Error(reason) = client.ask("CLIENT MAINT_NOTIFICATIONS ON") else {
        panic!("it is not there");
    };
    let expected = "ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.";
    assert_eq!(reason, expected);
    let line = text(client.ask("CLIENT INFO"));
    assert!(
        line.contains(" resp=3 lib-name=redis-py lib-ver=8.0"),
        "{line}"
    );
    let nothing = Reply::Map(vec![("save".into(), "".into())]);
    assert_eq!(client.ask("CONFIG GET save"), nothing);
    assert!(text(client.ask("INFO")).contains("\r\nloading:0\r\n"));
    assert!(matches!(client.ask("COMMAND DOCS"), Reply::Map(docs) if docs.len() > 20));
}

#[test]
fn one_client_can_close_another() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let (mut one, mut other) = (server.resp(), server.resp());
    let Reply::Integer(id) = other.ask("CLIENT ID") else {
        panic!("no id");
    };
    assert_eq!(one.ask("CLIENT SETNAME a-b"), simple("OK"));
    let list = text(other.ask("CLIENT LIST"));
    assert_eq!(list.lines().count(), 2);
    assert!(
        list.contains(" name=a-b ") && list.contains(" cmd=client|list "),
        "{list}"
    );
    assert_eq!(one.ask(&format!("CLIENT KILL ID {id}")), 1.into());
    assert_eq!(other.try_reply(), None);
    assert_eq!(
        one.ask("CLIENT KILL 127.0.0.1:1"),
        error("ERR No such client")
    );
    assert_eq!(one.ask("CLIENT KILL TYPE normal SKIPME no"), 1.into());
    assert_eq!(one.try_reply(), None);
}

#[test]
fn replies_that_are_not_wanted_are_not_sent() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    // From here on, lines are commands as well.
    assert_eq!(client.ask("PING"), simple("PONG"));
    client.send(b"CLIENT REPLY SKIP\r\nSET a 1\r\nGET a\r\n");
    assert_eq!(client.reply(), "1".into());
    client.send(b"CLIENT REPLY OFF\r\nGET a\r\nNOSUCH\r\nSAVE\r\nCLIENT REPLY ON\r\nPING\r\n");
    assert_eq!(client.reply(), simple("OK"));
    assert_eq!(client.reply(), simple("PONG"));
}

#[test]
fn slow_commands_are_remembered_and_passwords_are_not() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    assert_eq!(client.ask("SLOWLOG LEN"), 0.into());
    assert_eq!(
        client.ask("CONFIG SET slowlog-log-slower-than 0"),
        simple("OK")
    );
    client.ask("AUTH default hush");
    client.ask("GET key");
    let Reply::Array(entries) = client.ask("SLOWLOG GET 1") else {
        panic!("no entries");
    };
    let Reply::Array(entry) = &entries[0] else {
        panic!("no entry");
    };
    assert_eq!(entry.len(), 6);
    assert_eq!(entry[3], array(["GET", "key"]));
    // CONFIG, GET, SLOWLOG, but not AUTH.
    assert_eq!(client.ask("SLOWLOG LEN"), 3.into());
    assert_eq!(client.ask("SLOWLOG RESET"), simple("OK"));
}

#[test]
fn commands_and_errors_are_counted() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    for command in [
        "GET a", "GET b", "GET", "SELECT 7", "MULTI", "GET c", "EXEC",
    ] {
        client.ask(command);
    }
    let figures = text(client.ask("INFO commandstats errorstats"));
    let line = |name: &str| {
        let mut lines = figures.lines().filter(|line| line.starts_with(name));
        lines.next().unwrap_or_default().to_owned()
    };
    assert!(line("cmdstat_get:").starts_with("cmdstat_get:calls=3,"));
    assert!(line("cmdstat_get:").ends_with("rejected_calls=1,failed_calls=0"));
    assert!(line("cmdstat_select:").ends_with("rejected_calls=0,failed_calls=1"));
    assert_eq!(line("errorstat_ERR"), "errorstat_ERR:count=2");
    assert_eq!(client.ask("CONFIG RESETSTAT"), simple("OK"));
    assert!(!text(client.ask("INFO commandstats")).contains("cmdstat_get"));
}

#[test]
fn settings_are_changed_all_or_none() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let mut client = server.resp();
    let failed = |name: &str, reason: &str| {
        error(&format!(
            "ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"
        ))
    };
    assert_eq!(
        client.ask("CONFIG SET slowlog-max-len 5 databases 3"),
        failed("databases", "can't set immutable config")
    );
    assert_eq!(
        client.ask("CONFIG GET slowlog-max-len"),
        array(["slowlog-max-len", "128"])
    );
    assert_eq!(
        client.ask("CONFIG SET slowlog-max-len x"),
        failed(
            "slowlog-max-len",
            "argument couldn't be parsed into an integer"
        )
    );
    assert_eq!(
        client.ask("CONFIG SET appendonly yes maxclients 7"),
        simple("OK")
    );
    assert_eq!(
        client.ask("CONFIG GET maxc* APPENDONLY"),
        array(["appendonly", "yes", "maxclients", "7"])
    );
}

#[test]
fn a_command_that_ends_the_server_leaves_everything_durable() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &["--sync-interval", "1h"]);
    let mut client = server.resp();
    assert_eq!(client.ask("SET a 1"), simple("OK"));
    assert_eq!(
        client.ask("SHUTDOWN ABORT"),
        error("ERR No shutdown in progress.")
    );
    assert_eq!(
        client.ask("BGREWRITEAOF"),
        simple("Background append only file rewriting started")
    );
    assert_eq!(client.ask("SAVE"), simple("OK"));
    assert_eq!(client.ask("WAITAOF 1 0 0"), array([1, 0]));
    assert_eq!(client.ask("MULTI"), simple("OK"));
    let refused = error("ERR Command not allowed inside a transaction");
    assert_eq!(client.ask("SHUTDOWN"), refused);
    assert!(matches!(client.ask("EXEC"), Reply::Error(text) if text.starts_with("EXECABORT")));
    client.send(b"SHUTDOWN NOSAVE\r\n");
    assert_eq!(client.try_reply(), None);
    let deadline = Instant::now() + Duration::from_secs(60);
    let store = loop {
        match crabkv::Store::open(dir.path()) {
            Ok(store) => break store,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(store.get("a").unwrap().unwrap(), "1");
    drop(server);
}
