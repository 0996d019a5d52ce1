//! What is in a store, as plain values that can be compared.

#![allow(dead_code, reason = "each target uses its part")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crabkv::disk::{Disk, SimDisk};
use crabkv::{CrabKvBuilder, Result, Store, Value, Verify};

pub(crate) type SimStore = Store<SimDisk>;

/// A key's value, and when it expires.
pub(crate) type Entry = (Vec<u8>, Option<u64>);

pub(crate) type State = BTreeMap<Vec<u8>, Entry>;

pub(crate) const DIR: &str = "/db";

/// Options for a store on a simulated disk: one thread, every read verified.
pub(crate) fn builder(segment_size: u64) -> CrabKvBuilder {
    Store::builder(DIR)
        .segment_size(segment_size)
        .recovery_threads(NonZeroUsize::MIN)
        .verify(Verify::EveryRead)
}

pub(crate) fn entry_of(value: &Value) -> Entry {
    (value.to_vec(), value.expires_at().map(millis))
}

pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Everything in a store, by iteration, checked against a get of each key and of those in `others`,
/// which may be absent.
pub(crate) fn contents<'k, D: Disk>(
    store: &Store<D>,
    others: impl IntoIterator<Item = &'k Vec<u8>>,
) -> Result<State> {
    let mut state = State::new();
    for entry in store {
        let (key, value) = entry?;
        let again = state.insert(key.clone(), entry_of(&value));
        assert!(again.is_none(), "the iteration met {key:?} twice");
    }
    for (key, entry) in &state {
        let got = store.get(key)?.map(|value| entry_of(&value));
        assert_eq!(got.as_ref(), Some(entry), "get and iter differ at {key:?}");
    }
    for key in others {
        if !state.contains_key(key) {
            let got = store.get(key)?;
            assert!(got.is_none(), "only a get finds {key:?}: {got:?}");
        }
    }
    Ok(state)
}

/// Everything in a store that may contradict itself: what iteration gives, and that a get of each key and
/// of another one comes to an end.
pub(crate) fn unchecked_contents<D: Disk>(store: &Store<D>) -> Result<State> {
    let mut state = State::new();
    for entry in store {
        let (key, value) = entry?;
        state.insert(key, entry_of(&value));
    }
    for key in state.keys() {
        let _ = store.get(key);
    }
    store.get("absent").map(|_| state)
}

/// Whether a file of a store is a hint file.
pub(crate) fn is_hint(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "hint")
}

/// The part of a state that can be seen at this time.
pub(crate) fn visible(state: &State, now_ms: u64) -> State {
    let mut state = state.clone();
    state.retain(|_, (_, expiry)| expiry.is_none_or(|expiry| expiry > now_ms));
    state
}

/// Shows a state in few characters.
pub(crate) fn show(state: &State) -> String {
    let entries = state.iter().map(|(key, (value, expiry))| {
        let shown = value[..value.len().min(16)].escape_ascii();
        let expiry = expiry.map_or(String::new(), |expiry| format!(" until {expiry}"));
        let key = key[..key.len().min(16)].escape_ascii();
        format!("{key}={shown}({}){expiry}", value.len())
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
}
