//! From a list of steps that fails to a short one that still does.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, Instant};

/// Leaves out of `list` what is not needed for it to fail, stretches of it first and single items
/// at last, until nothing more can go or the time is up.
pub(crate) fn shrink<T: Clone>(
    list: &[T],
    patience: Duration,
    fails: impl Fn(&[T]) -> bool,
) -> Vec<T> {
    let begun = Instant::now();
    let mut list = list.to_vec();
    let mut stretch = list.len().div_ceil(2);
    while stretch > 0 {
        let before = list.len();
        let mut at = 0;
        while at < list.len() {
            if begun.elapsed() > patience {
                return list;
            }
            let mut shorter = list.clone();
            shorter.drain(at..(at + stretch).min(list.len()));
            if fails(&shorter) {
                list = shorter;
            } else {
                at += stretch;
            }
        }
        // What could not go before may be able to now.
        if stretch > 1 || list.len() == before {
            stretch /= 2;
        }
    }
    list
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Does something; a panic is an error with its message, and is not printed.
pub(crate) fn without_panic<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                usual(info);
            }
        }));
    });
    let before = IS_QUIET.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    IS_QUIET.set(before);
    done.unwrap_or_else(|panicked| {
        let text = panicked.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panicked.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("without a message")))
    })
}

#[test]
fn what_is_not_needed_for_a_failure_is_left_out() {
    let list: Vec<u32> = (0..1000).collect();
    // Fails if 17 comes somewhere before 400 and 401.
    let fails = |list: &[u32]| {
        let after_17 = list.iter().skip_while(|number| **number != 17);
        after_17
            .filter(|number| [400, 401].contains(*number))
            .count()
            == 2
    };
    let minute = Duration::from_secs(60);
    assert_eq!(shrink(&list, minute, fails), [17, 400, 401]);
    assert_eq!(shrink(&list, minute, |_| true), [0_u32; 0]);
    assert_eq!(shrink(&list, Duration::ZERO, fails).len(), 1000);
}

#[test]
fn a_panic_is_a_failure_with_its_message() {
    let panicked = without_panic::<()>(|| panic!("of {}", 3));
    assert_eq!(panicked.unwrap_err(), "panicked: of 3");
    assert_eq!(without_panic(|| Ok(1)), Ok(1));
}
