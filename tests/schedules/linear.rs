//! Histories of a key, and whether they are linearizable: whether each operation can have happened
//! at one moment between its call and its return, so that everybody saw what was there.
//!
//! The search is that of Wing and Gong, with what Lowe adds to it: what has been tried is not tried
//! again. A history here has a dozen operations, so it takes no time.

use std::collections::HashSet;

/// What a key holds; every value that is put has another number.
pub(crate) type State = Option<u64>;

/// What an operation did, and what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Get(State),
    Put(u64),
    /// Says whether the key was there, if it said anything.
    Delete(Option<bool>),
    /// Puts a value if the key is absent, and says whether it was.
    PutIfAbsent {
        value: u64,
        won: bool,
    },
    /// Puts a value if another one, or none, is there, and says whether it was.
    Swap {
        expected: State,
        value: u64,
        won: bool,
    },
    /// Adds to a number, 0 where there is none, and says what it has come to.
    Add {
        by: u64,
        sum: u64,
    },
    /// The value expires, if it is still this one.
    Expire(u64),
}

impl Action {
    /// What is there afterwards, if this can happen where `before` is there.
    fn apply(self, before: State) -> Option<State> {
        match self {
            Action::Get(seen) => (seen == before).then_some(before),
            Action::Put(value) => Some(Some(value)),
            Action::Delete(said) => said
                .is_none_or(|was_there| was_there == before.is_some())
                .then_some(None),
            Action::PutIfAbsent { value, won } => {
                (won == before.is_none()).then_some(before.or(Some(value)))
            }
            Action::Swap {
                expected,
                value,
                won,
            } => {
                let after = if won { Some(value) } else { before };
                (won == (before == expected)).then_some(after)
            }
            Action::Add { by, sum } => {
                let after = before.unwrap_or(0) + by;
                (after == sum).then_some(Some(after))
            }
            Action::Expire(value) => Some(before.filter(|there| *there != value)),
        }
    }
}

/// An operation, from when to when it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) called: u64,
    /// `None`: it failed. It may have happened nevertheless, at any time after its call, or never.
    pub(crate) returned: Option<u64>,
    pub(crate) action: Action,
}

/// Whether all operations that returned, and any of those that failed, can have happened one after
/// the other, beginning with `first`.
///
/// # Panics
///
/// When there are more than 64.
pub(crate) fn is_linearizable(first: State, operations: &[Operation]) -> bool {
    assert!(operations.len() <= 64, "a set of them is 64 bits");
    let must = (0..)
        .zip(operations)
        .filter(|(_, operation)| operation.returned.is_some())
        .fold(0_u64, |all, (at, _)| all | 1 << at);
    let mut tried = HashSet::new();
    let mut to_try = vec![(0_u64, first)];
    while let Some((done, state)) = to_try.pop() {
        if done & must == must {
            return true;
        }
        if !tried.insert((done, state)) {
            continue;
        }
        let left = (0..)
            .zip(operations)
            .filter(|(at, _)| done & (1 << at) == 0);
        // What was called after another one had returned cannot have happened before it.
        let horizon = left
            .clone()
            .filter_map(|(_, operation)| operation.returned)
            .min();
        let horizon = horizon.unwrap_or(u64::MAX);
        let possible = left.filter(|(_, operation)| operation.called < horizon);
        to_try.extend(
            possible.filter_map(|(at, operation)| {
                Some((done | 1 << at, operation.action.apply(state)?))
            }),
        );
    }
    false
}

mod tests {
    use super::Action::{Add, Delete, Expire, Get, Put, PutIfAbsent, Swap};
    use super::*;

    fn at(called: u64, returned: u64, action: Action) -> Operation {
        Operation {
            called,
            returned: Some(returned),
            action,
        }
    }

    fn failed(called: u64, action: Action) -> Operation {
        Operation {
            called,
            returned: None,
            action,
        }
    }

    fn accepted(operations: &[Operation]) {
        assert!(is_linearizable(None, operations), "{operations:?}");
    }

    fn refused(operations: &[Operation]) {
        assert!(!is_linearizable(None, operations), "{operations:?}");
    }

    #[test]
    fn one_after_the_other_each_sees_what_is_there() {
        accepted(&[]);
        accepted(&[
            at(0, 1, Get(None)),
            at(2, 3, Put(1)),
            at(4, 5, Get(Some(1))),
            at(6, 7, Delete(Some(true))),
            at(8, 9, Get(None)),
            at(10, 11, Delete(Some(false))),
        ]);
        refused(&[at(0, 1, Put(1)), at(2, 3, Get(None))]);
        refused(&[at(0, 1, Get(Some(1))), at(2, 3, Put(1))]);
        refused(&[at(0, 1, Delete(Some(true)))]);
        refused(&[at(0, 1, Put(1)), at(2, 3, Delete(Some(false)))]);
        assert!(is_linearizable(Some(4), &[at(0, 1, Get(Some(4)))]));
        assert!(!is_linearizable(Some(4), &[at(0, 1, Get(None))]));
    }

    #[test]
    fn what_overlaps_may_be_seen_or_not_but_in_one_order() {
        let put = at(0, 9, Put(1));
        accepted(&[put, at(1, 2, Get(None)), at(3, 4, Get(Some(1)))]);
        refused(&[put, at(1, 2, Get(Some(1))), at(3, 4, Get(None))]);
        // Two readers that overlap with two writers, and disagree on who was last.
        let puts = [at(0, 9, Put(1)), at(0, 9, Put(2))];
        let one = [at(1, 2, Get(Some(1))), at(3, 4, Get(Some(2)))];
        let other = [at(1, 2, Get(Some(2))), at(3, 4, Get(Some(1)))];
        accepted(&[puts, one].concat());
        accepted(&[puts, other].concat());
        refused(&[puts, one, other].concat());
    }

    #[test]
    fn an_old_value_does_not_come_back() {
        let history = [
            at(0, 1, Put(1)),
            at(2, 3, Put(2)),
            at(4, 5, Delete(Some(true))),
        ];
        for seen in [1, 2] {
            let stale = [&history[..], &[at(6, 7, Get(Some(seen)))]].concat();
            refused(&stale);
        }
        // A lost update: both were told that they won.
        refused(&[
            at(0, 1, Put(1)),
            at(2, 9, swap(1, 2, true)),
            at(2, 9, swap(1, 3, true)),
        ]);
        accepted(&[
            at(0, 1, Put(1)),
            at(2, 9, swap(1, 2, true)),
            at(2, 9, swap(1, 3, false)),
        ]);
        refused(&[at(0, 1, Put(1)), at(2, 3, swap(1, 2, false))]);
    }

    fn swap(expected: u64, value: u64, won: bool) -> Action {
        Swap {
            expected: Some(expected),
            value,
            won,
        }
    }

    #[test]
    fn sums_and_first_writers_are_told_the_truth() {
        accepted(&[
            at(0, 9, Add { by: 2, sum: 5 }),
            at(0, 9, Add { by: 3, sum: 3 }),
        ]);
        refused(&[
            at(0, 9, Add { by: 2, sum: 2 }),
            at(0, 9, Add { by: 3, sum: 3 }),
        ]);
        let first = |value, won| at(0, 9, PutIfAbsent { value, won });
        accepted(&[first(1, true), first(2, false), at(10, 11, Get(Some(1)))]);
        refused(&[first(1, true), first(2, true)]);
        refused(&[first(1, false), first(2, false)]);
        refused(&[first(1, true), first(2, false), at(10, 11, Get(Some(2)))]);
    }

    #[test]
    fn what_failed_may_have_happened_later_or_never_but_not_before_its_call() {
        let put = failed(2, Put(1));
        accepted(&[put]);
        accepted(&[put, at(3, 4, Get(None)), at(50, 60, Get(Some(1)))]);
        accepted(&[put, at(50, 60, Get(None))]);
        refused(&[put, at(0, 1, Get(Some(1)))]);
        refused(&[put, at(3, 4, Get(Some(1))), at(5, 6, Get(None))]);
        accepted(&[
            at(0, 1, Put(1)),
            failed(2, Delete(None)),
            at(3, 4, Get(None)),
        ]);
    }

    #[test]
    fn what_expires_goes_once_and_only_if_it_is_still_there() {
        let expiry = at(2, 5, Expire(1));
        accepted(&[at(0, 1, Put(1)), expiry, at(3, 4, Get(Some(1)))]);
        accepted(&[at(0, 1, Put(1)), expiry, at(3, 4, Get(None))]);
        refused(&[at(0, 1, Put(1)), expiry, at(6, 7, Get(Some(1)))]);
        refused(&[
            at(0, 1, Put(1)),
            expiry,
            at(3, 4, Get(None)),
            at(4, 5, Get(Some(1))),
        ]);
        // The writer's value was taken away by the older one's expiry.
        refused(&[
            at(0, 1, Put(1)),
            expiry,
            at(3, 4, Put(2)),
            at(6, 7, Get(None)),
        ]);
    }
}
