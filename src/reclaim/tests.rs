//! What is retired lives as long as a pin can reach it, and no longer than it must.

use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counted() -> (Arc<AtomicUsize>, impl Fn() -> Counted) {
    let drops = Arc::new(AtomicUsize::new(0));
    let for_values = Arc::clone(&drops);
    (drops, move || Counted(Arc::clone(&for_values)))
}

#[test]
fn without_pins_a_job_runs_at_once() {
    let (drops, value) = counted();
    let collector = Collector::new();
    let value = value();
    collector.retire_with(Box::new(move || drop(value)));
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn a_job_waits_for_the_pins_of_its_moment_and_for_no_other() {
    let (drops, value) = counted();
    let collector = Collector::new();
    let pinned = collector.pin();
    let value = value();
    collector.retire_with(Box::new(move || drop(value)));
    assert_eq!(drops.load(Ordering::SeqCst), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _later = collector.pin();
            assert_eq!(drops.load(Ordering::SeqCst), 0);
        });
    });
    drop(pinned);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn one_retirement_comes_free_though_many_threads_are_pinned() {
    const THREADS: usize = 200;
    let (drops, value) = counted();
    let collector = Collector::new();
    let (pinned, retired) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let _pin = collector.pin();
                pinned.wait();
                retired.wait();
            });
        }
        pinned.wait();
        let value = value();
        collector.retire_with(Box::new(move || drop(value)));
        assert_eq!(drops.load(Ordering::SeqCst), 0);
        retired.wait();
    });
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn repinning_lets_go() {
    let (drops, value) = counted();
    let collector = Collector::new();
    let shared = Shared::new(Box::new(value()));
    let mut pin = collector.pin();
    shared.replace(Box::new(value()), &collector);
    assert_eq!(drops.load(Ordering::SeqCst), 0);
    pin.repin();
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_left_runs_with_the_collector_and_owned_values_go_with_their_owner() {
    let (drops, value) = counted();
    let collector = Collector::new();
    let shared = Shared::new(Box::new(value()));
    let arc = value();
    let place = SharedArc::new(Some(Arc::new(arc)));
    drop(shared);
    drop(place);
    assert_eq!(drops.load(Ordering::SeqCst), 2);
    drop(collector);
}

#[test]
fn a_place_for_an_arc_may_be_empty_and_shares_outlive_it() {
    let (drops, value) = counted();
    let collector = Collector::new();
    let place = SharedArc::default();
    assert!(place.load(&collector.pin()).is_none());
    assert!(place.hold(&collector.pin()).is_none());
    place.replace(Some(Arc::new(value())), &collector);
    let pin = collector.pin();
    let borrowed: &Counted = place.load(&pin).unwrap();
    let share = place.hold(&pin).unwrap().share();
    assert!(ptr::eq(borrowed, &raw const *share));
    place.replace(None, &collector);
    assert!(place.load(&pin).is_none());
    assert_eq!(Arc::strong_count(&share), 2);
    drop(pin);
    assert_eq!(Arc::strong_count(&share), 1);
    assert_eq!(drops.load(Ordering::SeqCst), 0);
    drop(share);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn values_under_replacement_are_always_whole() {
    let collector = Collector::new();
    let shared = Shared::new(Box::new([0_u64; 8]));
    let place = SharedArc::new(Some(Arc::new([0_u64; 8])));
    thread::scope(|scope| {
        let (collector, shared, place) = (&collector, &shared, &place);
        for _ in 0..3 {
            scope.spawn(move || {
                let mut pin = collector.pin();
                for _ in 0..5_000 {
                    let seen = shared.load(&pin);
                    assert!(seen.iter().all(|&n| n == seen[0]));
                    let seen = place.hold(&pin).unwrap().share();
                    pin.repin();
                    assert!(seen.iter().all(|&n| n == seen[0]));
                }
            });
        }
        for n in 1..2_000 {
            shared.replace(Box::new([n; 8]), collector);
            place.replace(Some(Arc::new([n; 8])), collector);
        }
    });
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "another store")]
fn a_pin_of_another_collector_is_refused() {
    let (ours, theirs) = (Collector::new(), Collector::new());
    let shared = Shared::new(Box::new(1));
    shared.load(&ours.pin());
    shared.load(&theirs.pin());
}

/// Two threads that change a number without an order between them, for `.ci/tsan --can-it-see`: a
/// sanitizer that reports nothing here would report nothing anywhere.
#[cfg(planted_race)]
#[test]
fn a_planted_race() {
    struct Racy(std::cell::UnsafeCell<u64>);
    // SAFETY: there is none; this is the race.
    unsafe impl Sync for Racy {}

    let racy = Racy(std::cell::UnsafeCell::new(0));
    let started = Barrier::new(2);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let racy = &racy;
                started.wait();
                for _ in 0..1000 {
                    // SAFETY: as above.
                    unsafe { *racy.0.get() += 1 };
                }
            });
        }
    });
    assert_ne!(racy.0.into_inner(), 0);
}
