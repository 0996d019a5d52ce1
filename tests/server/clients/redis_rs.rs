//! The `redis` crate, in both versions of the protocol.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use redis::{Client, Commands, Connection, ErrorKind, ServerErrorKind, SetExpiry, SetOptions};
use tempfile::tempdir;

use crate::running::Running;

/// Does `work` with a server of its own, in each version of the protocol.
fn in_both_versions(work: impl Fn(&Client, &mut Connection)) {
    for version in ["resp2", "resp3"] {
        let dir = tempdir().unwrap();
        let server = Running::start(dir.path(), &[]);
        let url = format!("redis://{}/?protocol={version}", server.addr);
        let client = Client::open(url).unwrap();
        let mut connection = client.get_connection().unwrap();
        work(&client, &mut connection);
    }
}

#[test]
fn values_come_back_as_they_were_and_expire() {
    in_both_versions(|_, connection| {
        let bytes: Vec<u8> = (0..=255).collect();
        let () = connection.set("bytes", &bytes).unwrap();
        let found: Vec<u8> = connection.get("bytes").unwrap();
        assert_eq!(found, bytes);
        let missing: Option<String> = connection.get("missing").unwrap();
        assert_eq!(missing, None);
        let () = connection.mset(&[("a", 1), ("b", 2)]).unwrap();
        let several: (i64, Option<i64>, i64) = connection.mget(&["a", "missing", "b"]).unwrap();
        assert_eq!(several, (1, None, 2));
        let sum: i64 = connection.incr("a", 41).unwrap();
        assert_eq!(sum, 42);
        let failed = connection.incr::<_, _, i64>("bytes", 1).unwrap_err();
        assert!(failed.to_string().contains("not an integer"), "{failed}");

        let options = SetOptions::default().with_expiration(SetExpiry::PX(100));
        let () = connection.set_options("short", 1, options).unwrap();
        let is_set: bool = connection.expire("a", 100).unwrap();
        let ttl: i64 = connection.ttl("a").unwrap();
        assert!(is_set && (98..=100).contains(&ttl), "{ttl}");
        thread::sleep(Duration::from_millis(200));
        let exists: bool = connection.exists("short").unwrap();
        assert!(!exists);
    });
}

#[test]
fn pipelines_and_scans_have_everything() {
    in_both_versions(|_, connection| {
        let mut pipeline = redis::pipe();
        for i in 0..1000 {
            pipeline.set(format!("key{i}"), i).ignore();
            pipeline.get(format!("key{i}"));
        }
        let found: Vec<usize> = pipeline.query(connection).unwrap();
        assert_eq!(found, (0..1000).collect::<Vec<_>>());
        let keys = connection.scan_match::<_, String>("key*").unwrap();
        let keys: HashSet<String> = keys.map(Result::unwrap).collect();
        assert_eq!(keys.len(), 1000);
    });
}

#[test]
fn transactions_are_tried_again_when_what_is_watched_changes() {
    in_both_versions(|client, connection| {
        let mut other = client.get_connection().unwrap();
        let () = connection.set("balance", 1).unwrap();
        let mut tries = 0;
        let done: (i64,) = redis::transaction(connection, &["balance"], |connection, pipeline| {
            tries += 1;
            let balance: i64 = connection.get("balance")?;
            if tries == 1 {
                let () = other.set("balance", 10)?;
            }
            pipeline.set("balance", balance + 1).ignore();
            pipeline.get("balance").query(connection)
        })
        .unwrap();
        assert_eq!((done, tries), ((11,), 2));
    });
}

#[test]
fn errors_are_of_the_kind_that_they_say() {
    in_both_versions(|_, connection| {
        let unknown = redis::cmd("NOSUCH").exec(connection).unwrap_err();
        assert_eq!(
            unknown.kind(),
            ErrorKind::Server(ServerErrorKind::ResponseError)
        );
        let () = redis::cmd("MULTI").exec(connection).unwrap();
        let _ = redis::cmd("NOSUCH").exec(connection).unwrap_err();
        let aborted = redis::cmd("EXEC").exec(connection).unwrap_err();
        let kind = ErrorKind::Server(ServerErrorKind::ExecAbort);
        assert_eq!(aborted.kind(), kind);
    });
}
