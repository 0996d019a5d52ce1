//! Walks a segment past what is damaged: for those who want to know of all damage, or to save
//! everything else.
//!
//! A record's checksum starts from its segment's salt and its own offset, so one that is found at
//! a multiple of 8 behind damaged bytes was written there: it is no accident, and no copy.

use super::scanner::{self, Behind, Check, Sound};
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
        let mut search = Walker {
            walk: self,
            bytes,
            seed: header.checksum_seed(),
            base: header.base_seq,
            last_seq: None,
            long_bytes: (bytes.len() as u64).saturating_mul(LONG_PASSES),
        };
        let mut walked = Walked {
            end: HEADER_LEN as u64,
            damage: Vec::new(),
            tail: Tail::Clean,
        };
        let mut at = HEADER_LEN as u64;
        while at < bytes.len() as u64 {
            let problem = match search.record(at) {
                Ok(Sound { record, members }) => {
                    match members {
                        Some(members) => members
                            .into_iter()
                            .for_each(|(at, member)| visit(at, member)),
                        None => visit(at, record),
                    }
                    at += record.len() as u64;
                    walked.end = at;
                    continue;
                }
                Err(problem) => problem,
            };
            if self.may_be_torn {
                if let Some(tail) = tail(bytes, header, at, &problem) {
                    walked.tail = tail;
                    break;
                }
            }
            let end = search.next(at);
            walked.damage.push(Damaged {
                start: at,
                end,
                problem,
            });
            at = end;
        }
        walked
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
    let Some(last) = rest.iter().rposition(|&byte| byte != 0) else {
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

struct Walker<'a> {
    walk: Walk,
    bytes: &'a [u8],
    seed: u32,
    base: SeqNo,
    last_seq: Option<SeqNo>,
    /// How many bytes may still be checksummed for long records that may be none.
    long_bytes: u64,
}

impl<'a> Walker<'a> {
    fn record(&mut self, at: u64) -> Result<Sound<'a>, Invalid> {
        let rest = &self.bytes[at as usize..];
        let (check, base) = (self.walk.check, self.base);
        let sound = scanner::sound_record(rest, self.seed, at, check, base, &mut self.last_seq);
        match sound {
            Err(_) if self.walk.takes_partial_batches => self.member(at).or(sound),
            sound => sound,
        }
    }

    /// A record of a batch that stands alone, since its frame is damaged.
    fn member(&mut self, at: u64) -> Result<Sound<'a>, Invalid> {
        let record = Record::decode(&self.bytes[at as usize..], self.seed, at)?;
        let seq = record.seq(self.base);
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
    fn next(&mut self, broken: u64) -> u64 {
        let len = self.bytes.len();
        let mut at = broken as usize + ALIGNMENT;
        while at + RECORD_HEADER_LEN <= len {
            if self.is_worth_a_look(at) {
                let before = self.last_seq;
                let is_sound = self.record(at as u64).is_ok();
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
    fn is_worth_a_look(&mut self, at: usize) -> bool {
        let Ok(record) = Record::parse(&self.bytes[at..]) else {
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
