//! Walks a segment past what is damaged: for those who want to know of all damage, or to save
//! everything else.
//!
//! A record's checksum starts from its segment's salt and its own offset, so one that is found at
//! a multiple of 8 behind damaged bytes was written there: it is no accident, and no copy.

use super::scanner::{self, Behind, Check, Sound};
use crate::bugs::{Bug, is_planted};
use crate::format::record::{Kind, RECORD_HEADER_LEN, Record};
use crate::format::segment::{HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{ALIGNMENT, Invalid, SeqNo};

/// How a walk takes what it meets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub(crate) check: Check,
    /// The bytes end in what a crash may have torn; else all of them were durable once.
    pub(crate) may_be_torn: bool,
    /// Take the sound records of a batch whose frame is damaged.
    pub(crate) takes_partial_batches: bool,
}

/// Bytes that are not what was written there, though that was durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    pub(crate) start: u64,
    /// Where the next sound record begins, or the data end.
    pub(crate) end: u64,
    pub(crate) problem: Invalid,
}

/// What stands behind the last record of a segment that was being appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing, or reserved room.
    Clean,
    /// A footer: the crash came between sealing and the manifest.
    Footer(SegmentFooter),
    /// What a crash left of writes that nobody had been told were done.
    Torn { len: u64, problem: Invalid },
}

/// Where a walk came.
#[derive(Clone, Debug)]
pub(crate) struct Walked {
    /// The end of the last record.
    pub(crate) end: u64,
    pub(crate) damage: Vec<Damaged>,
    pub(crate) tail: Tail,
}

/// A record up to this length is always looked at when the next sound one is searched, in bytes.
const SHORT: usize = 4096;
/// How often the segment's bytes may be checksummed over again for what look like longer ones:
/// bytes made to look like many of them would take quadratic time. Those beyond are passed over.
const LONG_PASSES: u64 = 64;

impl Walk {
    /// A sealed segment, up to where its records end.
    pub(crate) const SEALED: Walk = Walk {
        check: Check::Sealed,
        may_be_torn: false,
        takes_partial_batches: false,
    };
    /// A segment that was closed in good order, up to where its records end.
    pub(crate) const CLOSED: Walk = Walk {
        check: Check::Appended,
        ..Walk::SEALED
    };
    /// A segment that was being appended to, to the end of its file.
    pub(crate) const ACTIVE: Walk = Walk {
        may_be_torn: true,
        ..Walk::CLOSED
    };

    /// Calls `visit` with every sound record and its offset, those in batch frames one by one.
    /// `bytes` begins with the segment's first byte.
    pub(crate) fn run<'a>(
        self,
        bytes: &'a [u8],
        header: &SegmentHeader,
        mut visit: impl FnMut(u64, Record<'a>),
    ) -> Walked {
        let mut walker = self.start(bytes, header);
        let mut damage = Vec::new();
        while let Some(step) = walker.step(bytes) {
            match step {
                Step::Sound(at, Sound { record, members }) => match members {
                    Some(members) => members
                        .into_iter()
                        .for_each(|(at, member)| visit(at, member)),
                    None => visit(at, record),
                },
                Step::Damaged(damaged) => damage.push(damaged),
            }
        }
        Walked {
            end: walker.end(),
            damage,
            tail: walker.tail().clone(),
        }
    }

    /// Begins a walk that goes on when it is told to.
    pub(crate) fn start(self, bytes: &[u8], header: &SegmentHeader) -> Walker {
        Walker {
            walk: self,
            header: *header,
            seed: header.checksum_seed(),
            last_seq: None,
            long_bytes: (bytes.len() as u64).saturating_mul(LONG_PASSES),
            at: HEADER_LEN as u64,
            end: HEADER_LEN as u64,
            tail: Tail::Clean,
        }
    }
}

/// Whether a sound record begins at `at`.
pub(crate) fn is_sound_at(bytes: &[u8], header: &SegmentHeader, at: u64) -> bool {
    let (seed, base) = (header.checksum_seed(), header.base_seq);
    let rest = bytes.get(at as usize..).unwrap_or_default();
    scanner::sound_record(rest, seed, at, Check::Sealed, base, &mut None).is_ok()
}

/// What stands at the end of a segment that was appended to; `None` if the bytes at `at` had been
/// durable, and so are damaged.
fn tail(bytes: &[u8], header: &SegmentHeader, at: u64, problem: &Invalid) -> Option<Tail> {
    let rest = &bytes[at as usize..];
    if let Ok(footer) = SegmentFooter::decode(rest, at) {
        return Some(Tail::Footer(footer));
    }
    let Some(last) = last_set(rest) else {
        return Some(Tail::Clean);
    };
    match scanner::look_ahead(bytes, header, at) {
        Behind::TornTail => Some(Tail::Torn {
            len: last as u64 + 1,
            problem: problem.clone(),
        }),
        Behind::DurableRecord { .. } => None,
    }
}

/// Where the last byte is that is not zero. By blocks: reserved room is many mebibytes of zeros.
fn last_set(bytes: &[u8]) -> Option<usize> {
    let is_set = |block: &[u8]| block.iter().fold(0, |all, byte| all | byte) != 0;
    let blocks = bytes.chunks(SHORT);
    let (number, block) = blocks.enumerate().rev().find(|(_, block)| is_set(block))?;
    let last = block.iter().rposition(|&byte| byte != 0)?;
    Some(number * SHORT + last)
}

/// What a walk came across.
pub(crate) enum Step<'a> {
    /// A record or a batch frame, and its offset.
    Sound(u64, Sound<'a>),
    Damaged(Damaged),
}

/// A walk under way. It holds no bytes, but is shown the same ones at each step: so it can be kept
/// beside them.
pub(crate) struct Walker {
    walk: Walk,
    header: SegmentHeader,
    seed: u32,
    last_seq: Option<SeqNo>,
    /// How many bytes may still be checksummed for long records that may be none.
    long_bytes: u64,
    /// Where to go on.
    at: u64,
    /// The end of the last record.
    end: u64,
    tail: Tail,
}

impl Walker {
    /// Goes on to the next record or damage; `None` at the end, and then [`tail`](Walker::tail) says
    /// what stands there.
    pub(crate) fn step<'a>(&mut self, bytes: &'a [u8]) -> Option<Step<'a>> {
        let at = self.at;
        if at >= bytes.len() as u64 {
            return None;
        }
        let problem = match self.record(bytes, at) {
            Ok(sound) => {
                self.at += sound.record.len() as u64;
                self.end = self.at;
                return Some(Step::Sound(at, sound));
            }
            Err(problem) => problem,
        };
        if self.walk.may_be_torn {
            if let Some(tail) = tail(bytes, &self.header, at, &problem) {
                self.tail = tail;
                self.at = bytes.len() as u64;
                return None;
            }
        }
        let end = self.next(bytes, at);
        self.at = end;
        Some(Step::Damaged(Damaged {
            start: at,
            end,
            problem,
        }))
    }

    /// The end of the last record so far.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// What stands behind the last record, once the walk has ended.
    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    fn record<'a>(&mut self, bytes: &'a [u8], at: u64) -> Result<Sound<'a>, Invalid> {
        let rest = &bytes[at as usize..];
        let (check, base) = (self.walk.check, self.header.base_seq);
        let sound = scanner::sound_record(rest, self.seed, at, check, base, &mut self.last_seq);
        match sound {
            Err(_) if self.walk.takes_partial_batches => self.member(rest, at).or(sound),
            sound => sound,
        }
    }

    /// A record of a batch that stands alone, since its frame is damaged.
    fn member<'a>(&mut self, rest: &'a [u8], at: u64) -> Result<Sound<'a>, Invalid> {
        let record = Record::decode(rest, self.seed, at)?;
        let seq = record.seq(self.header.base_seq);
        let is_late = self.last_seq.is_some_and(|last| seq <= last);
        if record.kind() == Kind::Frame
            || !record.is_batched()
            || (self.walk.check == Check::Appended && is_late)
        {
            return Err(Invalid::Field("not a record of a batch"));
        }
        self.last_seq = Some(seq);
        Ok(Sound {
            record,
            members: None,
        })
    }

    /// Where the next sound record behind `broken` begins, or the bytes end.
    fn next(&mut self, bytes: &[u8], broken: u64) -> u64 {
        let len = bytes.len();
        let mut at = broken as usize + ALIGNMENT;
        if is_planted(Bug::SalvageStopsAtDamage) {
            return len as u64;
        }
        while at + RECORD_HEADER_LEN <= len {
            if self.is_worth_a_look(&bytes[at..]) {
                let before = self.last_seq;
                let is_sound = self.record(bytes, at as u64).is_ok();
                self.last_seq = before;
                if is_sound {
                    return at as u64;
                }
            }
            at += ALIGNMENT;
        }
        len as u64
    }

    /// Whether what stands there could be a record, by all that is cheaper than its checksum.
    fn is_worth_a_look(&mut self, bytes: &[u8]) -> bool {
        let Ok(record) = Record::parse(bytes) else {
            return false;
        };
        if record.check_fields().is_err() {
            return false;
        }
        if record.len() > SHORT {
            let Some(left) = self.long_bytes.checked_sub(record.len() as u64) else {
                return false;
            };
            self.long_bytes = left;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_that_is_set_is_found_at_both_ends_of_a_block() {
        assert_eq!(last_set(&[]), None);
        assert_eq!(last_set(&[0; 10_000]), None);
        for at in [0, 1, 4095, 4096, 8191, 8192, 9999] {
            let mut bytes = [0; 10_000];
            bytes[at] = 0x80;
            assert_eq!(last_set(&bytes), Some(at));
            bytes[0] = 1;
            assert_eq!(last_set(&bytes), Some(at));
        }
    }
}
