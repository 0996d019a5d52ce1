//! What the project set out to offer: the snippets of its first description compile as they
//! stand, and keep their word.
//!
//! The snippets are in `tests/seed/library_usage.rs`, letter by letter, and open a directory named
//! `data` in the current one. The current directory belongs to the whole process, so the tests
//! here take turns.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

include!("seed/library_usage.rs");

/// Runs `test` in an empty current directory.
fn in_a_scratch_directory(test: impl FnOnce()) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = std::env::current_dir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    std::env::set_current_dir(scratch.path()).unwrap();
    test();
    std::env::set_current_dir(before).unwrap();
}

fn text(db: &CrabKv, key: &str) -> Option<String> {
    db.get(key).unwrap()
}

#[test]
fn the_engine_with_every_option_stores_text_and_survives_a_restart() {
    in_a_scratch_directory(|| {
        let db = open_engine().unwrap();
        db.put("hello".into(), "world".into()).unwrap();
        db.put("long".into(), "x".repeat(10_000)).unwrap();
        assert_eq!(text(&db, "hello").as_deref(), Some("world"));
        db.delete("hello").unwrap();
        assert_eq!(text(&db, "hello"), None);
        let expiry = db.store().expires_at("long").unwrap();
        assert!(expiry.is_some(), "the default TTL applies");
        drop(db);
        let db = open_engine().unwrap();
        assert_eq!(text(&db, "hello"), None);
        assert_eq!(text(&db, "long"), Some("x".repeat(10_000)));
        assert_eq!(db.store().expires_at("long").unwrap(), expiry);
        let stats = db.store().stats();
        assert!(stats.live_bytes < 2000, "it is compressed: {stats:?}");
    });
}

#[test]
fn buffered_writes_are_seen_at_once_and_are_in_the_log_after_a_flush() {
    in_a_scratch_directory(|| {
        example_write_back().unwrap();
        let db = CrabKv::builder("data")
            .write_back_cache(true)
            .build()
            .unwrap();
        assert_eq!(text(&db, "key1").as_deref(), Some("value1"));
        assert_eq!(text(&db, "key2").as_deref(), Some("value2"));
        for i in 0..100 {
            db.put("hot".into(), i.to_string()).unwrap();
        }
        assert_eq!(text(&db, "hot").as_deref(), Some("99"));
        assert_eq!(db.store().stats().buffered_keys, 1);
        db.flush().unwrap();
        assert_eq!(db.store().stats().buffered_keys, 0);
        // What a process finds that comes after this one was killed.
        copy_dir(Path::new("data"), Path::new("copy"));
        let copy = CrabKv::open("copy").unwrap();
        assert_eq!(text(&copy, "hot").as_deref(), Some("99"));
        assert_eq!(copy.store().recovery_report().records, 3);
    });
}

#[test]
fn a_batch_is_written_whole_with_the_ttl_of_each_entry() {
    in_a_scratch_directory(|| {
        example_batch_writes().unwrap();
        let db = CrabKv::open("data").unwrap();
        assert_eq!(text(&db, "key1").as_deref(), Some("value1"));
        assert_eq!(text(&db, "key2").as_deref(), Some("value2"));
        assert_eq!(db.store().expires_at("key1").unwrap(), None);
        let expiry = db.store().expires_at("key2").unwrap().unwrap();
        let left = expiry.duration_since(std::time::SystemTime::now()).unwrap();
        assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60));
    });
}

#[test]
fn handles_are_shared_between_threads() {
    in_a_scratch_directory(|| {
        let db = CrabKv::builder("data")
            .sync_interval(Duration::from_millis(100))
            .build()
            .unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let db = db.clone();
                scope.spawn(move || {
                    for i in 0..250 {
                        db.put(format!("{thread}-{i}"), i.to_string()).unwrap();
                        assert_eq!(text(&db, &format!("{thread}-{i}")), Some(i.to_string()));
                    }
                });
            }
        });
        assert_eq!(db.store().len(), 1000);
    });
}

#[test]
fn a_value_is_gone_when_its_ttl_is_over_and_startup_does_not_bring_it_back() {
    in_a_scratch_directory(|| {
        let db = CrabKv::open("data").unwrap();
        let ttl = Some(Duration::from_millis(20));
        db.put_with_ttl("ephemeral".into(), "value".into(), ttl)
            .unwrap();
        db.put_with_ttl("lasting".into(), "value".into(), None)
            .unwrap();
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(text(&db, "ephemeral"), None);
        drop(db);
        let db = CrabKv::open("data").unwrap();
        assert_eq!(text(&db, "ephemeral"), None);
        assert_eq!(text(&db, "lasting").as_deref(), Some("value"));
    });
}

#[test]
fn compaction_comes_by_itself_when_a_third_of_more_than_a_mebibyte_is_stale() {
    in_a_scratch_directory(|| {
        let db = CrabKv::builder("data")
            .sync_interval(Duration::from_millis(100))
            .build()
            .unwrap();
        for _ in 0..5000 {
            db.put("counter".into(), "x".repeat(1000)).unwrap();
        }
        let bytes = db.store().stats().data_bytes;
        assert!(bytes < 3 << 20, "5 MB were written, {bytes} are there");
        db.compact().unwrap();
        let bytes = db.store().stats().data_bytes;
        assert!(bytes < 2000, "one value of 1000 bytes takes {bytes}");
        assert_eq!(text(&db, "counter").unwrap().len(), 1000);
    });
}

#[test]
fn the_facade_has_the_signatures_that_programs_were_written_to() {
    type Entries = Vec<(String, String, Option<Duration>)>;
    let _: fn(&CrabKv, String, String) -> io::Result<()> = CrabKv::put;
    let _: fn(&CrabKv, String, String, Option<Duration>) -> io::Result<()> = CrabKv::put_with_ttl;
    let _: fn(&CrabKv, &str) -> io::Result<Option<String>> = CrabKv::get;
    let _: fn(&CrabKv, &str) -> io::Result<()> = CrabKv::delete;
    let _: fn(&CrabKv, Entries) -> io::Result<()> = CrabKv::put_batch;
    let _: fn(&CrabKv) -> io::Result<()> = CrabKv::flush;
    let _: fn(&CrabKv) -> io::Result<()> = CrabKv::compact;
    let _: fn(&CrabKv) -> CrabKv = Clone::clone;
    let _: fn(&Path) -> io::Result<CrabKv> = |dir| CrabKv::open(dir);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
