//! Commands about strings.

use tempfile::tempdir;

use crate::redis::{Redis, compare};
use crate::resp::{Reply, array, error, simple};
use crate::running::Running;

#[test]
fn a_value_is_read_as_it_was_set_in_both_versions() {
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    for mut client in [server.resp(), server.resp3()] {
        assert_eq!(client.call(&["SET", "a b", "x\r\ny"]), simple("OK"));
        assert_eq!(client.call(&["get", "a b"]), "x\r\ny".into());
        assert_eq!(client.ask("GET nothing"), Reply::Null);
        assert_eq!(client.ask("SET a 1 NX XX"), error("ERR syntax error"));
        assert_eq!(client.ask("MULTI"), simple("OK"));
        assert_eq!(client.ask("ECHO a"), simple("QUEUED"));
        assert_eq!(client.ask("EXEC"), array(["a"]));
    }
}

#[test]
fn values_are_set_as_redis_sets_them() {
    let Some(redis) = Redis::start() else { return };
    let dir = tempdir().unwrap();
    let server = Running::start(dir.path(), &[]);
    let commands: Vec<Vec<&str>> = ["SET a 1", "GET a", "SET a 2 GET", "SET b 1 XX", "GET b"]
        .iter()
        .map(|command| command.split(' ').collect())
        .collect();
    compare(&mut server.resp(), &mut redis.client(), &commands);
}
