//! What is known of lost records, and what follows from it for the older ones of their keys.
//!
//! A hint file says of each record of its segment the hash, the sequence number, whether it is a
//! tombstone and when it expires. So a deletion whose record is lost can still be kept: nothing
//! older with its hash is saved. Where another key with the hash was live (`collides`), that would
//! take too much, and the deletion is given up instead.

use std::collections::HashMap;

use super::input::Rest;
use crate::format::hint::HintEntry;
use crate::format::{KeyHash, SeqNo};

/// Lost records by their hash.
#[derive(Default)]
pub(super) struct Deletions {
    by_hash: HashMap<KeyHash, Vec<Lost>>,
    now_ms: u64,
    /// Something is lost of which nobody knows what it was, or which key it deleted.
    pub(super) may_be_lost: bool,
}

struct Lost {
    seq: SeqNo,
    /// It is a tombstone, or has expired: nothing older of its key is to be seen.
    hides: bool,
    collides: bool,
    /// The newest of those older records that were saved, and whether it is a value.
    older: Option<(SeqNo, bool)>,
    has_newer: bool,
}

impl Deletions {
    pub(super) fn new(now_ms: u64) -> Deletions {
        Deletions {
            now_ms,
            ..Deletions::default()
        }
    }

    /// Notes what a segment has lost.
    pub(super) fn add(&mut self, rest: &Rest) {
        match &rest.entries {
            Some(entries) => entries.iter().for_each(|entry| self.add_entry(entry)),
            None => self.may_be_lost |= !rest.lost.is_empty(),
        }
    }

    fn add_entry(&mut self, entry: &HintEntry) {
        self.by_hash.entry(entry.hash).or_default().push(Lost {
            seq: entry.seq,
            hides: entry.tombstone || entry.expires_at_ms <= self.now_ms,
            collides: entry.collides,
            older: None,
            has_newer: false,
        });
    }

    /// Whether a sound record is to be saved: unless a lost one had deleted it.
    pub(super) fn keeps(&mut self, hash: KeyHash, seq: SeqNo, is_value: bool) -> bool {
        let Some(lost) = self.by_hash.get_mut(&hash) else {
            return true;
        };
        if lost
            .iter()
            .any(|lost| lost.hides && !lost.collides && seq < lost.seq)
        {
            return false;
        }
        for lost in lost {
            if seq < lost.seq {
                self.may_be_lost |= lost.hides && is_value;
                lost.older = lost.older.max(Some((seq, is_value)));
            } else {
                lost.has_newer = true;
            }
        }
        true
    }

    /// How many keys are left with an older value than they had.
    pub(super) fn older_values(&self) -> u64 {
        let is_older = |lost: &&Lost| {
            let older = lost.older.is_some_and(|(_, is_value)| is_value);
            !lost.hides && !lost.has_newer && older
        };
        let has_older = |lost: &&Vec<Lost>| lost.iter().any(|lost| is_older(&lost));
        self.by_hash.values().filter(has_older).count() as u64
    }
}
