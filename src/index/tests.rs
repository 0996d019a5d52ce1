//! The index against a map of the standard library, and its memory against its promises.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::page::SLOTS;
use super::stretch::tests::walk_stretches;
use super::*;

/// A few thousand keys more than one page holds.
pub(super) const SEVERAL_PAGES: u64 = 20_000;

pub(super) fn new_index() -> (Arc<Collector>, Arc<Index>, IndexWriter) {
    let collector = Arc::new(Collector::new());
    let (index, writer) = Index::new(Arc::clone(&collector));
    (collector, index, writer)
}

/// Splitmix64: even and repeatable.
pub(super) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(super) fn even(key: u64) -> IndexHash {
    IndexHash::new(mix(key))
}

/// The location of a version of a key: it tells which key's it is, as a record would.
fn at(key: u64, version: u32) -> Location {
    Location::new(version, (key + 8) * 8)
}

pub(super) fn key_at(location: Location) -> u64 {
    location.offset() / 8 - 8
}

fn is(key: u64) -> impl Fn(Location) -> Result<bool, Infallible> {
    move |location| Ok(key_at(location) == key)
}

pub(super) fn put(
    writer: &mut IndexWriter,
    hash: IndexHash,
    key: u64,
    version: u32,
) -> Option<Location> {
    let Ok(old) = writer.upsert(hash, at(key, version), false, is(key));
    old
}

pub(super) fn remove(writer: &mut IndexWriter, hash: IndexHash, key: u64) -> Option<Location> {
    let Ok(old) = writer.remove(hash, is(key));
    old
}

fn get(index: &Index, pin: &Pin<'_>, hash: IndexHash, key: u64) -> Option<Location> {
    index.find(pin, hash, |candidate| {
        let location = candidate.location();
        (key_at(location) == key).then_some(location)
    })
}

/// All locations, sorted, by a walk over the whole index.
fn walk(index: &Index, pin: &Pin<'_>) -> Vec<Location> {
    let (mut all, mut position) = (Vec::new(), 0);
    while position < Index::END {
        position = index.page_at(pin, position, |entry| all.push(entry.location()));
    }
    all.sort_unstable();
    all
}

/// Random puts, removals, moves and lookups agree with a map, whatever the hashes are like.
fn agrees_with_a_map(keys: u64, steps: u64, hash: impl Fn(u64) -> IndexHash) {
    let (collector, index, mut writer) = new_index();
    let mut model: HashMap<u64, Location> = HashMap::new();
    for step in 0..steps {
        let dice = mix(step ^ 0xdead_beef);
        let key = (dice >> 8) % keys;
        let version = (step % 1000) as u32;
        // Phases of growth and of decline.
        let puts = if step / (steps / 4) % 2 == 0 { 70 } else { 30 };
        match dice % 100 {
            n if n < puts => {
                let old = put(&mut writer, hash(key), key, version);
                assert_eq!(old, model.insert(key, at(key, version)));
            }
            n if n < 90 => {
                assert_eq!(remove(&mut writer, hash(key), key), model.remove(&key));
            }
            n if n < 95 => {
                let (from, to) = (at(key, (dice >> 50) as u32 % 2), at(key, version));
                let moved = writer.relocate(hash(key), from, to);
                assert_eq!(moved, model.get(&key) == Some(&from));
                if moved {
                    model.insert(key, to);
                }
            }
            _ => {
                let pin = collector.pin();
                assert_eq!(get(&index, &pin, hash(key), key), model.get(&key).copied());
            }
        }
        assert_eq!(index.len(), model.len());
    }
    let pin = collector.pin();
    for key in 0..keys {
        let expected = model.get(&key).copied();
        assert_eq!(get(&index, &pin, hash(key), key), expected);
        let found = writer.find(hash(key), |c| (key_at(c.location()) == key).then_some(()));
        assert_eq!(found.is_some(), expected.is_some());
    }
    let mut expected: Vec<Location> = model.into_values().collect();
    expected.sort_unstable();
    assert_eq!(walk(&index, &pin), expected);
    for at_least in [1, 100] {
        assert_eq!(walk_stretches(&index, &pin, at_least, &hash), expected);
    }
}

#[test]
fn even_hashes_agree_with_a_map() {
    agrees_with_a_map(
        if cfg!(miri) { 50 } else { 30_000 },
        if cfg!(miri) { 500 } else { 200_000 },
        even,
    );
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn hashes_of_few_values_agree_with_a_map() {
    agrees_with_a_map(9_000, 20_000, |key| IndexHash::new(mix(key % 97)));
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn hashes_without_top_bits_agree_with_a_map() {
    agrees_with_a_map(9_000, 60_000, |key| {
        IndexHash::at_position(mix(key) & 0x3_ffff_ffff)
    });
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn hashes_without_low_bits_agree_with_a_map() {
    agrees_with_a_map(9_000, 20_000, |key| {
        IndexHash::at_position(mix(key) & 0xffff_ff00_0000)
    });
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn keys_of_one_hash_are_all_found_and_take_no_more_pages_than_they_need() {
    let keys = SLOTS as u64 + 500;
    let (collector, index, mut writer) = new_index();
    let hash = IndexHash::new(0x1234_5678_9abc);
    for key in 0..keys {
        // The caller says that it is a new key: comparing each with all before takes long.
        let Ok(_) = writer.upsert::<Infallible>(hash, at(key, 1), false, |_| Ok(false));
    }
    assert_eq!(index.memory_bytes() / PAGES_AND_SIDES, 2);
    let pin = collector.pin();
    for key in (0..keys).step_by(97) {
        assert_eq!(get(&index, &pin, hash, key), Some(at(key, 1)));
    }
    assert_eq!(get(&index, &pin, hash, keys), None);
    assert_eq!(walk(&index, &pin).len() as u64, keys);
    for key in 0..keys - 1 {
        assert_eq!(remove(&mut writer, hash, key), Some(at(key, 1)));
    }
    assert_eq!(walk(&index, &pin), [at(keys - 1, 1)]);
    // The next put clears the chain out.
    put(&mut writer, hash, keys, 1);
    assert_eq!(walk(&index, &pin), [at(keys - 1, 1), at(keys, 1)]);
}

#[test]
fn the_first_candidate_is_the_key_or_says_that_it_is_none() {
    let (collector, index, mut writer) = new_index();
    let pin = collector.pin();
    let key_of = |hash| index.first(&pin, hash).map(|found| found.location());
    let is_no_place = |location: Location| location.segment_slot() == 0 && location.offset() < 16;

    // No tag but 0 is that of a slot without an entry.
    let (tagged, untagged) = (IndexHash::new(1 << 45), IndexHash::new(0));
    assert_eq!((tagged.tag() != 0, untagged.tag()), (true, 0));
    assert!(key_of(tagged).is_none());
    assert!(key_of(untagged).is_none_or(is_no_place));
    for key in 1..=SLOTS as u64 / 2 {
        put(&mut writer, untagged, key, 1);
    }
    assert_eq!(key_of(untagged), Some(at(1, 1)));
    remove(&mut writer, untagged, 1);
    let found = key_of(untagged);
    assert!(found.is_some_and(|found| is_no_place(found) || found == at(2, 1)));

    // In a bucket that is far from its home, behind full ones.
    let hash = IndexHash::new(0x1234_5678_9abc);
    let other = IndexHash::at_position(hash.position() ^ 1 << 20);
    assert!(hash.home() == other.home() && hash.tag() != other.tag());
    for key in 0..50 {
        put(&mut writer, other, key, 2);
    }
    assert!(key_of(hash).is_none());
    put(&mut writer, hash, 7, 3);
    assert_eq!(key_of(hash), Some(at(7, 3)));
}

const PAGES_AND_SIDES: usize = page::PAGE_BYTES + Ledgers::BYTES_PER_PAGE;

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn hashes_that_share_a_long_prefix_do_not_blow_up_the_directory() {
    let (_, index, mut writer) = new_index();
    for key in 0..SEVERAL_PAGES {
        // One bit tells them apart, at depth 29.
        let hash = IndexHash::at_position((key & 1) << 18 | mix(key) & 0x3_ffff);
        let Ok(_) = writer.upsert::<Infallible>(hash, at(key, 1), false, |_| Ok(false));
    }
    assert_eq!(index.len() as u64, SEVERAL_PAGES);
    assert!(index.memory_bytes() < 16 * PAGES_AND_SIDES);
}

#[test]
fn an_error_of_the_caller_changes_nothing() {
    let (collector, index, mut writer) = new_index();
    put(&mut writer, even(1), 1, 1);
    let error = writer.upsert(even(1), at(1, 2), false, |_| Err("unreadable"));
    assert_eq!(error, Err("unreadable"));
    assert_eq!(
        writer.remove(even(1), |_| Err("unreadable")),
        Err("unreadable")
    );
    assert_eq!(get(&index, &collector.pin(), even(1), 1), Some(at(1, 1)));
    assert_eq!(index.len(), 1);
}

#[test]
fn entries_move_only_from_where_they_are_said_to_be_and_are_verified_anew() {
    let (collector, index, mut writer) = new_index();
    let Ok(_) = writer.upsert(even(1), at(1, 1), true, is(1));
    let pin = collector.pin();
    let is_verified = || index.find(&pin, even(1), |c| Some(c.is_verified()));
    assert_eq!(is_verified(), Some(true));
    assert!(!writer.relocate(even(1), at(1, 7), at(1, 2)));
    assert!(!writer.relocate(even(2), at(1, 1), at(1, 2)));
    assert_eq!(is_verified(), Some(true));
    assert!(writer.relocate(even(1), at(1, 1), at(1, 2)));
    assert_eq!(is_verified(), Some(false));
    assert_eq!(get(&index, &pin, even(1), 1), Some(at(1, 2)));
    index.find(&pin, even(1), |candidate| {
        candidate.mark_verified();
        Some(())
    });
    assert_eq!(is_verified(), Some(true));
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn the_verified_mark_survives_a_split() {
    let (collector, index, mut writer) = new_index();
    let Ok(_) = writer.upsert(even(0), at(0, 1), true, is(0));
    for key in 1..SEVERAL_PAGES {
        put(&mut writer, even(key), key, 1);
    }
    let pin = collector.pin();
    let verified = index.find(&pin, even(0), |c| {
        (key_at(c.location()) == 0).then(|| c.is_verified())
    });
    assert_eq!(verified, Some(true));
}

#[test]
fn the_first_match_of_a_lone_key_is_its_location() {
    let (collector, index, mut writer) = new_index();
    let pin = collector.pin();
    // Tag 0, as unused slots have.
    let hash = IndexHash::new(5);
    assert_eq!(index.first_match(&pin, hash), None);
    put(&mut writer, hash, 3, 1);
    index.prefetch(&pin, hash);
    assert_eq!(index.first_match(&pin, hash), Some(at(3, 1)));
    remove(&mut writer, hash, 3);
    assert_eq!(index.first_match(&pin, hash), None);
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn turnover_at_a_constant_number_of_keys_takes_no_more_memory() {
    let (_, index, mut writer) = new_index();
    for key in 0..SEVERAL_PAGES {
        put(&mut writer, even(key), key, 1);
    }
    for key in SEVERAL_PAGES..10 * SEVERAL_PAGES {
        put(&mut writer, even(key), key, 1);
        remove(&mut writer, even(key - SEVERAL_PAGES), key - SEVERAL_PAGES);
    }
    assert_eq!(index.len() as u64, SEVERAL_PAGES);
    // Twenty thousand entries take eight pages, and more if DELETED slots were never cleared out;
    // clearing takes one spare page at a time.
    let pages = index.memory_bytes() / PAGES_AND_SIDES;
    assert!(pages <= 16, "{pages} pages");
}

/// The average of bytes per key, in thousandths, sampled at even steps from `from` to `to` keys.
fn average_millibytes_per_key(from: u64, to: u64) -> u64 {
    let (_, index, mut writer) = new_index();
    let (mut sum, mut samples) = (0, 0);
    for key in 0..to {
        let Ok(_) = writer.upsert(even(key), at(key, 1), false, is(key));
        if key >= from && key % (from / 100) == 0 {
            sum += index.memory_bytes() as u64 * 1_000 / index.len() as u64;
            samples += 1;
        }
    }
    sum / samples
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn growth_takes_at_most_20_bytes_per_key_on_average() {
    let average = average_millibytes_per_key(150_000, 300_000);
    assert!(average <= 19_000, "{average} millibytes per key");
}

#[test]
#[ignore = "the published figure: run it with --release"]
fn growth_from_1_to_10_million_takes_at_most_20_bytes_per_key_on_average() {
    let average = average_millibytes_per_key(1_000_000, 10_000_000);
    println!("{average} millibytes per key");
    assert!(average <= 20_000, "{average} millibytes per key");
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn readers_find_every_key_during_growth_turnover_and_clearing() {
    const STABLE: u64 = 3_000;
    let (collector, index, mut writer) = new_index();
    for key in 0..STABLE {
        put(&mut writer, even(key), key, 0);
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..3 {
            let (collector, index, done) = (&collector, &index, &done);
            scope.spawn(move || {
                let mut pin = collector.pin();
                let mut last_seen = vec![0; STABLE as usize];
                for n in 0.. {
                    if done.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    let key = mix(n ^ reader << 40) % STABLE;
                    let found = get(index, &pin, even(key), key).expect("the key is there");
                    let version = found.segment_slot();
                    assert!(
                        version >= last_seen[key as usize],
                        "an older version came back"
                    );
                    last_seen[key as usize] = version;
                    if n % 5_000 == 0 {
                        let mut seen: Vec<u64> = walk(index, &pin)
                            .into_iter()
                            .map(key_at)
                            .filter(|&k| k < STABLE)
                            .collect();
                        seen.sort_unstable();
                        assert!(
                            seen.into_iter().eq(0..STABLE),
                            "each stable key exactly once"
                        );
                    }
                    pin.repin();
                }
            });
        }
        for round in 1..=3 {
            for key in STABLE..STABLE + 60_000 {
                put(&mut writer, even(key), key, round);
                put(
                    &mut writer,
                    even(key % STABLE),
                    key % STABLE,
                    round * 100 + (key / STABLE) as u32,
                );
            }
            for key in STABLE..STABLE + 60_000 {
                remove(&mut writer, even(key), key);
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(index.len() as u64, STABLE);
}

/// Builds an index from all keys below `keys`, with so many partition bits, by two threads.
fn assembled(
    keys: u64,
    bits: u32,
    hash: fn(u64) -> IndexHash,
) -> (Arc<Collector>, Arc<Index>, IndexWriter) {
    let (collector, index, mut writer) = new_index();
    let mut entries: Vec<_> = (0..keys).map(|key| (hash(key), at(key, 1))).collect();
    entries.sort_unstable();
    let of = |partition: u32| {
        let own = move |h: &IndexHash| h.partition(bits) == partition;
        entries.iter().copied().filter(move |(h, _)| own(h))
    };
    let loader = writer.loader();
    let mut parts: Vec<_> = thread::scope(|scope| {
        let threads = [0, 1].map(|thread| {
            let (loader, of) = (loader.clone(), &of);
            scope.spawn(move || {
                let own = (0..1 << bits).filter(|p| p % 2 == thread);
                own.map(|p| loader.build(p, bits, of(p)))
                    .collect::<Vec<_>>()
            })
        });
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a loader panicked"))
            .collect::<Vec<_>>()
    });
    parts.reverse();
    writer.assemble(parts);
    (collector, index, writer)
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn an_assembled_index_is_as_one_grown_by_puts() {
    let (_, grown, mut grown_writer) = new_index();
    for key in 0..SEVERAL_PAGES {
        put(&mut grown_writer, even(key), key, 1);
    }
    for bits in [0, 1, partition_bits(SEVERAL_PAGES as usize), 6] {
        let (collector, index, mut writer) = assembled(SEVERAL_PAGES, bits, even);
        assert_eq!(index.len() as u64, SEVERAL_PAGES);
        assert_eq!(
            walk(&index, &collector.pin()),
            walk(&grown, &grown.collector.pin())
        );
        // It goes on growing and shrinking as the other would.
        for key in 0..2 * SEVERAL_PAGES {
            let old = put(&mut writer, even(key), key, 2);
            assert_eq!(old, (key < SEVERAL_PAGES).then(|| at(key, 1)));
        }
        for key in 0..SEVERAL_PAGES {
            assert_eq!(remove(&mut writer, even(key), key), Some(at(key, 2)));
        }
        let pin = collector.pin();
        for key in 0..2 * SEVERAL_PAGES {
            let expected = (key >= SEVERAL_PAGES).then(|| at(key, 2));
            assert_eq!(get(&index, &pin, even(key), key), expected);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow")]
fn keys_of_equal_hashes_are_all_assembled() {
    let keys = SLOTS as u64 + 500;
    let (collector, index, _writer) = assembled(keys, 2, |_| IndexHash::new(77));
    let pin = collector.pin();
    assert_eq!(index.len() as u64, keys);
    for key in (0..keys).step_by(61) {
        assert_eq!(get(&index, &pin, IndexHash::new(77), key), Some(at(key, 1)));
    }
}

#[test]
fn partitions_fill_their_pages_well() {
    assert_eq!(partition_bits(0), 0);
    assert_eq!(partition_bits(3_352), 0);
    assert_eq!(partition_bits(3_353), 1);
    assert_eq!(partition_bits(10_000_000), 11);
}

#[test]
#[should_panic(expected = "do not ascend")]
fn unordered_entries_are_refused() {
    let (_, _, writer) = new_index();
    let entries = [(IndexHash::new(2), at(2, 1)), (IndexHash::new(1), at(1, 1))];
    writer.loader().build(0, 0, entries.into_iter());
}

#[test]
#[should_panic(expected = "a part is missing")]
fn missing_partitions_are_refused() {
    let (_, _, mut writer) = new_index();
    let part = writer.loader().build(0, 1, std::iter::empty());
    writer.assemble(vec![part]);
}
