//! The protocol between readers and the writer, in every order that loom can think of, up to a
//! bound on preemptions. Under loom a page has two buckets of two slots, and what is retired is
//! taken away at the earliest moment; pages then report whoever still looks at them.

use std::convert::Infallible;
use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::{Index, IndexHash, IndexWriter, Location};
use crate::reclaim::{Collector, Pin, Shared, SharedArc};

fn check(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

/// Tag and home are the same for all, so that keys meet; the top three bits tell them apart.
fn hash(key: u64) -> IndexHash {
    IndexHash::at_position(key << 45 | 5 << 18)
}

fn at(key: u64, version: u32) -> Location {
    Location::new(version, (key + 8) * 8)
}

fn key_at(location: Location) -> u64 {
    location.offset() / 8 - 8
}

fn put(writer: &mut IndexWriter, hash: IndexHash, key: u64, version: u32) {
    let Ok(_) =
        writer.upsert::<Infallible>(hash, at(key, version), false, |l| Ok(key_at(l) == key));
}

fn remove(writer: &mut IndexWriter, hash: IndexHash, key: u64) {
    let Ok(removed) = writer.remove::<Infallible>(hash, |l| Ok(key_at(l) == key));
    assert!(removed.is_some());
}

/// The version under which the key is found.
fn get(index: &Index, pin: &Pin<'_>, hash: IndexHash, key: u64) -> Option<u32> {
    index.find(pin, hash, |candidate| {
        let location = candidate.location();
        (key_at(location) == key).then(|| location.segment_slot())
    })
}

fn new_index() -> (Arc<Collector>, Arc<Index>, IndexWriter) {
    let collector = Arc::new(Collector::new());
    let (index, writer) = Index::new(Arc::clone(&collector));
    (collector, index, writer)
}

/// Runs `write` beside a thread that runs `read`.
fn beside(
    index: (Arc<Collector>, Arc<Index>, IndexWriter),
    read: impl Fn(&Collector, &Index) + Send + 'static,
    write: impl FnOnce(&mut IndexWriter),
) {
    let (collector, index, mut writer) = index;
    let reader = thread::spawn({
        let (collector, index) = (Arc::clone(&collector), Arc::clone(&index));
        move || read(&collector, &index)
    });
    write(&mut writer);
    reader.join().unwrap();
}

#[test]
fn loom_a_key_is_found_and_never_goes_back_while_its_page_splits_and_the_directory_doubles() {
    check(5, || {
        let mut index = new_index();
        for key in [0, 6, 7] {
            put(&mut index.2, hash(key), key, 1);
        }
        beside(
            index,
            |collector, index| {
                let mut pin = collector.pin();
                let first = get(index, &pin, hash(0), 0).expect("it is there throughout");
                pin.repin();
                let second = get(index, &pin, hash(0), 0).expect("it is there throughout");
                assert!(first <= second);
            },
            |writer| {
                put(writer, hash(4), 4, 1);
                put(writer, hash(0), 0, 2);
            },
        );
    });
}

#[test]
fn loom_a_reader_that_holds_an_old_directory_holds_the_pages_it_leads_to() {
    check(4, || {
        let mut index = new_index();
        for key in [0, 4, 6] {
            put(&mut index.2, hash(key), key, 1);
        }
        beside(
            index,
            |collector, index| {
                let pin = collector.pin();
                assert_eq!(get(index, &pin, hash(6), 6), Some(1));
                assert_eq!(get(index, &pin, hash(0), 0), Some(1));
            },
            // Three splits, each with a doubling: 0 goes off, then 4, then 6 and 7 part.
            |writer| {
                for key in [7, 5, 3] {
                    put(writer, hash(key), key, 1);
                }
            },
        );
    });
}

#[test]
fn loom_two_readers_agree_on_the_order_of_versions_across_a_split() {
    check(4, || {
        let (collector, index, mut writer) = new_index();
        for key in [0, 6, 7] {
            put(&mut writer, hash(key), key, 1);
        }
        let seen = Arc::new(AtomicBool::new(false));
        let reader = |wait: bool| {
            let (collector, index) = (Arc::clone(&collector), Arc::clone(&index));
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                let pin = collector.pin();
                let was_seen = seen.load(Ordering::Acquire);
                let version = get(&index, &pin, hash(0), 0).expect("it is there throughout");
                if wait {
                    assert!(
                        !was_seen || version == 2,
                        "another reader had seen the new one"
                    );
                } else if version == 2 {
                    seen.store(true, Ordering::Release);
                }
            })
        };
        let readers = [reader(false), reader(true)];
        put(&mut writer, hash(4), 4, 1);
        put(&mut writer, hash(0), 0, 2);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn loom_a_removed_key_is_not_found_and_its_slot_gives_no_other_keys_location() {
    check(5, || {
        let mut index = new_index();
        // One hash, so that the second key takes the first one's slot.
        put(&mut index.2, hash(0), 0, 1);
        let removed = Arc::new(AtomicBool::new(false));
        let removed_by_writer = Arc::clone(&removed);
        beside(
            index,
            move |collector, index| {
                let pin = collector.pin();
                let was_removed = removed.load(Ordering::Acquire);
                let found = get(index, &pin, hash(0), 0);
                assert!(!was_removed || found.is_none());
                assert!(found.is_none_or(|version| version == 1));
            },
            |writer| {
                remove(writer, hash(0), 0);
                removed_by_writer.store(true, Ordering::Release);
                put(writer, hash(0), 9, 7);
            },
        );
    });
}

#[test]
fn loom_two_readers_while_a_key_goes_and_its_page_splits() {
    check(3, || {
        let (collector, index, mut writer) = new_index();
        for key in [0, 6, 7] {
            put(&mut writer, hash(key), key, 1);
        }
        let removed = Arc::new(AtomicBool::new(false));
        let readers = [6, 0].map(|key| {
            let (collector, index) = (Arc::clone(&collector), Arc::clone(&index));
            let removed = Arc::clone(&removed);
            thread::spawn(move || {
                let pin = collector.pin();
                let was_removed = removed.load(Ordering::Acquire);
                let found = get(&index, &pin, hash(key), key);
                if key == 0 {
                    assert_eq!(found, Some(1), "it is there throughout");
                } else {
                    assert!(!was_removed || found.is_none(), "it is gone");
                }
            })
        });
        remove(&mut writer, hash(6), 6);
        removed.store(true, Ordering::Release);
        for key in [4, 5] {
            put(&mut writer, hash(key), key, 1);
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn loom_keys_behind_removed_ones_are_found_while_the_page_is_cleared_out() {
    check(4, || {
        let mut index = new_index();
        // One home: the third lies in the second bucket.
        for key in [0, 1, 2] {
            put(&mut index.2, hash(key), key, 1);
        }
        beside(
            index,
            |collector, index| {
                let pin = collector.pin();
                assert_eq!(get(index, &pin, hash(2), 2), Some(1));
                assert_eq!(get(index, &pin, hash(3), 3).unwrap_or(4), 4);
            },
            |writer| {
                remove(writer, hash(0), 0);
                remove(writer, hash(1), 1);
                put(writer, hash(3), 3, 4);
            },
        );
    });
}

#[test]
fn loom_keys_of_one_hash_are_found_while_overflow_pages_come() {
    check(4, || {
        let mut index = new_index();
        for key in 0..4 {
            put(&mut index.2, hash(0), key, 1);
        }
        beside(
            index,
            |collector, index| {
                let pin = collector.pin();
                assert_eq!(get(index, &pin, hash(0), 3), Some(1));
                let last = get(index, &pin, hash(0), 5);
                let before = get(index, &pin, hash(0), 4);
                assert!(
                    last.is_none() || before.is_some(),
                    "they came in this order"
                );
            },
            |writer| {
                put(writer, hash(0), 4, 1);
                put(writer, hash(0), 5, 1);
            },
        );
    });
}

#[test]
fn loom_a_walk_meets_a_key_exactly_once_while_pages_split() {
    check(4, || {
        let mut index = new_index();
        for key in [0, 6, 7] {
            put(&mut index.2, hash(key), key, 1);
        }
        beside(
            index,
            |collector, index| {
                let mut pin = collector.pin();
                let (mut seen, mut position) = (Vec::new(), 0);
                while position < Index::END {
                    position = index.page_at(&pin, position, |entry| seen.push(entry.location()));
                    pin.repin();
                }
                for key in [0, 6, 7] {
                    assert_eq!(seen.iter().filter(|&&l| key_at(l) == key).count(), 1);
                }
            },
            |writer| {
                put(writer, hash(4), 4, 1);
                put(writer, hash(0), 0, 2);
            },
        );
    });
}

/// Remembers its end. The counts of an `Arc` are not loom's, so neither can this be; but its memory
/// stays, and loom runs one thread at a time.
struct Guarded {
    value: u32,
    is_gone: Arc<std::sync::atomic::AtomicBool>,
}

impl Guarded {
    fn new(value: u32) -> Guarded {
        Guarded {
            value,
            is_gone: Arc::default(),
        }
    }

    /// Gives the value, and lets others run before it looks whether it was there all the time.
    fn get(&self) -> u32 {
        let is_gone = Arc::clone(&self.is_gone);
        thread::yield_now();
        assert!(
            !is_gone.load(Ordering::SeqCst),
            "gone while it was looked at"
        );
        self.value
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::SeqCst);
    }
}

#[test]
fn loom_a_share_of_an_arc_outlives_its_replacement() {
    check(5, || {
        let collector = Arc::new(Collector::new());
        let place = Arc::new(SharedArc::new(Some(Arc::new(Guarded::new(1)))));
        let readers = [(); 2].map(|()| {
            let (collector, place) = (Arc::clone(&collector), Arc::clone(&place));
            thread::spawn(move || {
                let pin = collector.pin();
                let borrowed = place.load(&pin).map(Guarded::get);
                let share = place.hold(&pin).map(|held| held.share());
                drop(pin);
                let value = share.map(|share| share.get());
                assert!(matches!(
                    (borrowed, value),
                    (Some(1), Some(1)) | (Some(1) | None, None) | (_, Some(3))
                ));
            })
        });
        place.replace(None, &collector);
        place.replace(Some(Arc::new(Guarded::new(3))), &collector);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn loom_two_readers_keep_what_each_of_them_looks_at() {
    check(4, || {
        let collector = Arc::new(Collector::new());
        let shared = Arc::new(Shared::new(Box::new(Guarded::new(1))));
        let readers = [(); 2].map(|()| {
            let (collector, shared) = (Arc::clone(&collector), Arc::clone(&shared));
            thread::spawn(move || {
                let pin = collector.pin();
                let first = shared.load(&pin).get();
                let second = shared.load(&pin).get();
                assert!(first <= second && second <= 3);
            })
        });
        for value in 2..=3 {
            shared.replace(Box::new(Guarded::new(value)), &collector);
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn loom_a_shared_value_stays_while_it_is_looked_at() {
    check(5, || {
        let collector = Arc::new(Collector::new());
        let shared = Arc::new(Shared::new(Box::new(Guarded::new(1))));
        let reader = thread::spawn({
            let (collector, shared) = (Arc::clone(&collector), Arc::clone(&shared));
            move || {
                let mut pin = collector.pin();
                let first = shared.load(&pin).get();
                pin.repin();
                let second = shared.load(&pin).get();
                assert!(first <= second && second <= 3);
            }
        });
        for value in 2..=3 {
            shared.replace(Box::new(Guarded::new(value)), &collector);
        }
        reader.join().unwrap();
    });
}
