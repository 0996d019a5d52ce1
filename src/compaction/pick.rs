//! Which segments to merge, and when: decided from figures alone.
//!
//! The log is worth compacting when a third of it could be given back. Then the segments are taken
//! that have the most to give for what must be copied, as few as make one output, and the question
//! is asked again. With uniform overwrites of a large log this copies 0.7 bytes for each byte
//! written, where merging everything copies 1.9 (`merging_the_stalest_first_copies_little` below
//! replays it). That the segment with the fewest live bytes is the one to clean is the greedy rule
//! of log-structured storage: Rosenblum and Ousterhout, "The design and implementation of a
//! log-structured file system", 1992.

use crate::log::{Slot, Usage};
use crate::segment::output::MAX_RECORDS;

/// A log of less than this is left alone: 1 MiB. The few records of shuttle's tests are enough.
const MIN_LOG_BYTES: u64 = if cfg!(shuttle) { 512 } else { 1 << 20 };

/// The log is compacted when at least one part in so many could be given back.
const TRIGGER: u64 = 3;

/// When the disk is full, one part in so many is enough.
const TRIGGER_WHEN_FULL: u64 = 16;

/// One merge copies at most one part in so many of what is live: what it copies exists twice for
/// a while.
const MAX_COPIED: u64 = 4;

/// A segment shorter than one part in so many of the usual is small: an unclean end or a merge
/// leaves such.
const SMALL: u64 = 8;

/// So many small segments are gathered into one, even if they have nothing to give.
const GATHERED_SEGMENTS: usize = 16;

/// One merge takes at most so many segments: it remembers a bit for every 8 bytes of each.
const MAX_INPUTS: usize = 64;

/// What a decision depends on beside the segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    pub(crate) now_ms: u64,
    pub(crate) segment_size: u64,
    /// How many bytes the disk has room for.
    pub(crate) room: u64,
    /// Whether the disk was full when it was last asked for room.
    pub(crate) is_full: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    Nothing,
    /// The active segment holds the space: seal it, then ask again.
    SealActive,
    /// Merge these.
    Merge(Vec<Slot>),
    /// There is something to merge, but no room for what it keeps.
    NoRoom {
        needed: u64,
    },
}

/// Decides what automatic compaction does next.
pub(crate) fn pick(segments: &[(Slot, Usage)], at: Conditions) -> Pick {
    if let dead @ [_, ..] = &dead(segments, at)[..] {
        return Pick::Merge(dead.to_vec());
    }
    if is_worth(segments.iter().map(|(_, usage)| usage), at) {
        match stalest(segments, at) {
            Pick::Nothing => {}
            pick => return pick,
        }
    }
    small(segments, at)
}

/// Whether a third of the log could be given back, and the log is worth the work.
fn is_worth<'a>(segments: impl Iterator<Item = &'a Usage>, at: Conditions) -> bool {
    let (total, reclaimable) = sums(segments, at.now_ms);
    let trigger = if at.is_full {
        TRIGGER_WHEN_FULL
    } else {
        TRIGGER
    };
    total > MIN_LOG_BYTES && reclaimable.saturating_mul(trigger) >= total
}

/// Whether so much more than a third could be given back that writers have to wait: they are
/// faster than compaction.
pub(crate) fn is_overdue<'a>(
    segments: impl Iterator<Item = &'a Usage>,
    now_ms: u64,
    segment_size: u64,
) -> bool {
    let (total, reclaimable) = sums(segments, now_ms);
    let slack = (segment_size / 4).max(MIN_LOG_BYTES);
    reclaimable > total / TRIGGER + slack
}

fn sums<'a>(segments: impl Iterator<Item = &'a Usage>, now_ms: u64) -> (u64, u64) {
    segments.fold((0, 0), |(total, reclaimable), usage| {
        (
            total + usage.data_len,
            reclaimable + usage.reclaimable_bytes(now_ms),
        )
    })
}

/// Whether any record is not live, or has expired: what a full compaction takes.
pub(crate) fn has_something_to_give(usage: &Usage, now_ms: u64) -> bool {
    usage.has_stale_records() || usage.expiries.earliest_ms() <= now_ms
}

/// Sealed segments of which a merge would keep nothing. They go whatever the figures of the others
/// are: it costs next to nothing.
fn dead(segments: &[(Slot, Usage)], at: Conditions) -> Vec<Slot> {
    let is_dead = |usage: &Usage| {
        usage.sealed && usage.kept_bytes(at.now_ms) == 0 && usage.reclaimable_bytes(at.now_ms) > 0
    };
    let dead = segments.iter().filter(|(_, usage)| is_dead(usage));
    dead.take(MAX_INPUTS).map(|(slot, _)| *slot).collect()
}

/// The segments with the fewest bytes to keep for what they take.
fn stalest(segments: &[(Slot, Usage)], at: Conditions) -> Pick {
    let give = |usage: &Usage| usage.reclaimable_bytes(at.now_ms);
    let keep = |usage: &Usage| usage.kept_bytes(at.now_ms);
    let (mut in_sealed, mut in_active, mut kept) = (0, 0, 0);
    for (_, usage) in segments {
        kept += keep(usage);
        if usage.sealed {
            in_sealed += give(usage);
        } else {
            in_active += give(usage);
        }
    }
    if in_active > in_sealed {
        return Pick::SealActive;
    }
    let mut candidates: Vec<_> = segments
        .iter()
        .filter(|(_, usage)| usage.sealed && give(usage) > 0)
        .collect();
    // By kept / len, without fractions.
    candidates.sort_by(|(_, a), (_, b)| {
        let a_kept = u128::from(keep(a)) * u128::from(b.data_len);
        let b_kept = u128::from(keep(b)) * u128::from(a.data_len);
        a_kept.cmp(&b_kept)
    });
    let limit = at.segment_size.min(kept / MAX_COPIED);
    let mut picked = Vec::new();
    let mut copied = 0;
    let mut needed = None;
    for (slot, usage) in candidates {
        let more = copied + keep(usage);
        if more > at.room {
            needed = needed.or(Some(more));
        } else if picked.is_empty() || (more <= limit && picked.len() < MAX_INPUTS) {
            picked.push(*slot);
            copied = more;
        }
    }
    match needed {
        _ if !picked.is_empty() => Pick::Merge(picked),
        Some(needed) => Pick::NoRoom { needed },
        None => Pick::Nothing,
    }
}

/// Small segments, once there are many. Few bytes do not make a segment small if it has as many
/// records as one may have: gathered, it would come out as it went in, for ever.
fn small(segments: &[(Slot, Usage)], at: Conditions) -> Pick {
    let is_small = |usage: &Usage| {
        let has_few_records = usage.records < MAX_RECORDS as u64 / SMALL;
        usage.sealed && usage.data_len < at.segment_size / SMALL && has_few_records
    };
    let small: Vec<_> = segments
        .iter()
        .filter(|(_, usage)| is_small(usage))
        .collect();
    if small.len() < GATHERED_SEGMENTS {
        return Pick::Nothing;
    }
    let (mut copied, mut records) = (0, 0);
    let picked: Vec<_> = small
        .into_iter()
        .take(MAX_INPUTS)
        .take_while(|(_, usage)| {
            copied += usage.data_len;
            records += usage.records;
            copied <= at.segment_size.min(at.room) && records <= MAX_RECORDS as u64
        })
        .map(|(slot, _)| *slot)
        .collect();
    if picked.len() > 1 {
        Pick::Merge(picked)
    } else {
        Pick::Nothing
    }
}

/// Cuts the segments of a full compaction, oldest first, into merges of about one output each.
pub(crate) fn batches(segments: &[(Slot, Usage)], at: Conditions) -> Vec<Vec<Slot>> {
    let mut batches: Vec<Vec<Slot>> = Vec::new();
    let mut copied = 0;
    for (slot, usage) in segments {
        let kept = usage.kept_bytes(at.now_ms);
        let fits = copied + kept <= at.segment_size.min(at.room);
        match batches.last_mut() {
            Some(batch) if fits && batch.len() < MAX_INPUTS => {
                batch.push(*slot);
                copied += kept;
            }
            _ => {
                batches.push(vec![*slot]);
                copied = kept;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SegmentId;
    use crate::log::Expiries;

    const MIB: u64 = 1 << 20;
    const HEADER: u64 = crate::format::segment::HEADER_LEN as u64;

    const AT: Conditions = Conditions {
        now_ms: 1000,
        segment_size: 64 * MIB,
        room: u64::MAX,
        is_full: false,
    };

    /// A sealed segment with this many bytes of records, so many of them live.
    fn sealed(record_bytes: u64, live_bytes: u64) -> Usage {
        let mut never = Expiries::default();
        never.add(None);
        Usage {
            data_len: HEADER + record_bytes,
            records: record_bytes / 100,
            live_records: live_bytes / 100,
            live_bytes,
            sealed: true,
            expiries: never,
            ..Usage::new(SegmentId(1))
        }
    }

    fn active(record_bytes: u64, live_bytes: u64) -> Usage {
        Usage {
            sealed: false,
            ..sealed(record_bytes, live_bytes)
        }
    }

    fn expiring(usage: Usage, at_ms: u64) -> Usage {
        let mut expiries = Expiries::default();
        expiries.add(Some(at_ms));
        Usage { expiries, ..usage }
    }

    fn decide(segments: &[Usage]) -> Pick {
        let segments: Vec<_> = (1..).zip(segments.iter().copied()).collect();
        pick(&segments, AT)
    }

    #[test]
    fn a_third_of_the_bytes_beyond_one_mebibyte_is_worth_it() {
        let worth = |usages: &[Usage]| is_worth(usages.iter(), AT);
        assert!(worth(&[sealed(3 * MIB, 2 * MIB - 100)]));
        assert!(!worth(&[sealed(3 * MIB, 2 * MIB + 100)]));
        assert!(!worth(&[sealed(MIB / 2, 0)]));
        assert!(worth(&[
            sealed(MIB, MIB),
            sealed(MIB + 200, 0),
            sealed(MIB, MIB)
        ]));
        assert!(!worth(&[]));
    }

    #[test]
    fn frames_around_live_records_are_not_worth_it() {
        let mut framed = sealed(3 * MIB, MIB);
        framed.live_records = framed.records;
        assert!(!is_worth([framed].iter(), AT));
        assert_eq!(decide(&[framed]), Pick::Nothing);
    }

    #[test]
    fn the_stalest_segments_are_picked_and_the_others_left_alone() {
        let (whole, half) = (sealed(64 * MIB, 64 * MIB), sealed(64 * MIB, 32 * MIB));
        let (stale, staler) = (sealed(64 * MIB, 10 * MIB), sealed(64 * MIB, 5 * MIB));
        // Of 111 MiB that are kept, one merge copies at most a quarter.
        let picked = decide(&[whole, half, stale, staler]);
        assert_eq!(picked, Pick::Merge(vec![4, 3]));
    }

    #[test]
    fn one_merge_makes_about_one_output() {
        let segments = [sealed(64 * MIB, 30 * MIB); 20];
        let Pick::Merge(picked) = decide(&segments) else {
            panic!("there is enough to merge");
        };
        assert_eq!(picked.len(), 2);
    }

    #[test]
    fn the_active_segment_is_sealed_when_it_holds_the_space() {
        let (old, hot) = (sealed(2 * MIB, 2 * MIB), active(4 * MIB, MIB));
        assert_eq!(decide(&[old, hot]), Pick::SealActive);
        let stale = sealed(5 * MIB, MIB);
        assert_eq!(decide(&[stale, hot]), Pick::Merge(vec![1]));
    }

    #[test]
    fn a_dead_segment_goes_whatever_the_others_are() {
        let (whole, dead) = (sealed(60 * MIB, 60 * MIB), sealed(100, 0));
        assert_eq!(decide(&[whole, dead]), Pick::Merge(vec![2]));
        let expired = expiring(sealed(1000, 1000), 1000);
        assert_eq!(decide(&[whole, expired]), Pick::Merge(vec![2]));
        let not_yet = expiring(sealed(1000, 1000), 1001);
        assert_eq!(decide(&[whole, not_yet]), Pick::Nothing);
    }

    #[test]
    fn expired_values_count_as_stale() {
        let (expired, whole) = (
            expiring(sealed(2 * MIB, 2 * MIB), 999),
            sealed(2 * MIB, 2 * MIB),
        );
        assert!(is_worth([expired, whole].iter(), AT));
        let earlier = Conditions { now_ms: 998, ..AT };
        assert!(!is_worth([expired, whole].iter(), earlier));
    }

    #[test]
    fn small_segments_are_gathered_once_there_are_many() {
        let small = sealed(1000, 1000);
        assert_eq!(decide(&[small; 15]), Pick::Nothing);
        assert_eq!(decide(&[small; 16]), Pick::Merge((1..=16).collect()));
    }

    #[test]
    fn outputs_of_as_many_records_as_one_may_have_are_not_gathered_again() {
        let at = Conditions {
            segment_size: 1024 * MIB,
            ..AT
        };
        let full = Usage {
            records: 1 << 20,
            live_records: 1 << 20,
            ..sealed(32 * MIB, 32 * MIB)
        };
        let segments: Vec<_> = (1..=40).map(|slot| (slot, full)).collect();
        assert_eq!(pick(&segments, at), Pick::Nothing);
        // What is gathered fits into one output.
        let few = Usage {
            records: 100_000,
            live_records: 100_000,
            ..full
        };
        let segments: Vec<_> = (1..=40).map(|slot| (slot, few)).collect();
        assert_eq!(pick(&segments, at), Pick::Merge((1..=10).collect()));
    }

    #[test]
    fn what_a_merge_had_to_retain_does_not_trigger_another() {
        let mut output = sealed(3 * MIB, 100);
        output.retained_bytes = 3 * MIB - 100;
        assert_eq!(decide(&[output]), Pick::Nothing);
        output.retained_bytes = 0;
        assert_eq!(decide(&[output]), Pick::Merge(vec![1]));
    }

    #[test]
    fn without_room_only_what_fits_is_picked() {
        let at = Conditions {
            room: 10 * MIB,
            ..AT
        };
        let segments = [
            (1, sealed(64 * MIB, 20 * MIB)),
            (2, sealed(16 * MIB, 9 * MIB)),
        ];
        assert_eq!(pick(&segments, at), Pick::Merge(vec![2]));
        let needed = 20 * MIB;
        assert_eq!(pick(&segments[..1], at), Pick::NoRoom { needed });
        let dead = [(1, sealed(64 * MIB, 0))];
        assert_eq!(
            pick(&dead, Conditions { room: 0, ..AT }),
            Pick::Merge(vec![1])
        );
    }

    #[test]
    fn on_a_full_disk_less_is_worth_it() {
        let segments = [sealed(3 * MIB, 2 * MIB + MIB / 2)];
        assert!(!is_worth(segments.iter(), AT));
        assert!(is_worth(
            segments.iter(),
            Conditions {
                is_full: true,
                ..AT
            }
        ));
    }

    #[test]
    fn a_full_compaction_is_cut_into_merges_of_one_output() {
        let segments: Vec<_> = (1..=5)
            .map(|slot| (slot, sealed(64 * MIB, 30 * MIB)))
            .collect();
        assert_eq!(batches(&segments, AT), [vec![1, 2], vec![3, 4], vec![5]]);
    }

    /// A model of a log: which segment each key's record is in. One record is one KiB.
    struct Model {
        place: Vec<usize>,
        segments: Vec<Option<Usage>>,
        members: Vec<Vec<usize>>,
        active: usize,
        copied: u64,
        most_bytes: u64,
    }

    const RECORD: u64 = 1024;

    impl Model {
        fn new(keys: usize) -> Model {
            let mut model = Model {
                place: vec![usize::MAX; keys],
                segments: vec![Some(active(0, 0))],
                members: vec![Vec::new()],
                active: 0,
                copied: 0,
                most_bytes: 0,
            };
            (0..keys).for_each(|key| model.put(key, 64));
            model
        }

        fn usage(&mut self, segment: usize) -> &mut Usage {
            self.segments[segment].as_mut().unwrap()
        }

        fn put(&mut self, key: usize, records_per_segment: usize) {
            if self.members[self.active].len() == records_per_segment {
                let active_segment = self.active;
                self.usage(active_segment).sealed = true;
                self.active = self.segments.len();
                self.segments.push(Some(active(0, 0)));
                self.members.push(Vec::new());
            }
            let place = self.active;
            self.place_in(key, place);
        }

        fn place_in(&mut self, key: usize, segment: usize) {
            let old = std::mem::replace(&mut self.place[key], segment);
            if old != usize::MAX {
                self.usage(old).remove_live(RECORD as usize);
            }
            self.members[segment].push(key);
            let usage = self.usage(segment);
            usage.data_len += RECORD;
            usage.records += 1;
            usage.add_live(RECORD as usize);
        }

        fn bytes(&self) -> u64 {
            self.segments
                .iter()
                .flatten()
                .map(|usage| usage.data_len)
                .sum()
        }

        /// Compacts until there is nothing to do; gives the number of merges.
        fn compact(&mut self, segment_size: u64) {
            loop {
                let segments: Vec<_> = (0..)
                    .zip(&self.segments)
                    .filter_map(|(slot, usage)| Some((slot, (*usage)?)))
                    .collect();
                let at = Conditions { segment_size, ..AT };
                match pick(&segments, at) {
                    Pick::Merge(picked) => self.merge(&picked),
                    Pick::SealActive => {
                        let active_segment = self.active;
                        self.usage(active_segment).sealed = true;
                        self.active = self.segments.len();
                        self.segments.push(Some(active(0, 0)));
                        self.members.push(Vec::new());
                    }
                    Pick::Nothing | Pick::NoRoom { .. } => return,
                }
            }
        }

        fn merge(&mut self, picked: &[Slot]) {
            let output = self.segments.len();
            self.segments.push(Some(sealed(0, 0)));
            self.members.push(Vec::new());
            for &input in picked {
                let input = input as usize;
                for key in std::mem::take(&mut self.members[input]) {
                    if self.place[key] == input {
                        self.place_in(key, output);
                        self.copied += RECORD;
                    }
                }
            }
            self.most_bytes = self.most_bytes.max(self.bytes());
            for &input in picked {
                self.segments[input as usize] = None;
            }
        }
    }

    #[test]
    fn merging_the_stalest_first_copies_little() {
        const KEYS: usize = 1280;
        const PER_SEGMENT: usize = 64;
        let segment_size = PER_SEGMENT as u64 * RECORD + HEADER;
        let mut model = Model::new(KEYS);
        let mut random = 1_u64;
        let mut written = 0;
        for round in 0..20 * KEYS {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            model.put((random >> 33) as usize % KEYS, PER_SEGMENT);
            written += RECORD;
            if round % 16 == 0 {
                model.compact(segment_size);
            }
        }
        let live = KEYS as u64 * RECORD;
        let most = model.most_bytes;
        assert!(
            most * 2 <= live * 3 + 4 * segment_size,
            "{most} bytes for {live}"
        );
        // Measured: 0.7. Merging all stale segments at once copies 1.9.
        assert!(
            model.copied * 10 <= written * 9,
            "{} for {written}",
            model.copied
        );
    }
}
