//! The merge: what is still needed of some segments, written into new ones, a little at a time.
//!
//! A record is copied without being decompressed, its checksum verified before and made anew for
//! its new place; sequence number and expiry stay. Nothing else of the data is read. Memory is
//! bounded whatever the size of the segments: a bit for every 8 bytes of an input, a small buffer,
//! and the hint entries of one output.
//!
//! In between, the store goes on: what was live when the plan was made may be stale when it is
//! copied. That does no harm: the index is moved, once the outputs are in the manifest, only where
//! it still points at an input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::plan::{Dropped, Expired, Plan, Planner};
use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, Region};
use crate::error::Result;
use crate::format::hint::Hint;
use crate::format::record::{Kind, Record, RecordFields, SyncedDistance};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentHeader};
use crate::format::{Invalid, KeyHash, KeyHasher, SegmentId, SeqNo};
use crate::index::Location;
use crate::log::{LogOptions, Slot};
use crate::segment::Segment;
use crate::segment::output::{OutputWriter, SealedOutput};

/// What the merge asks of the store around it.
pub(crate) trait Surroundings<D: Disk> {
    /// The hint of an input.
    fn hint_of(&self, segment: &Segment<D>, data_len: u64) -> Result<Hint<Region>>;
    /// Whether the index points at this record.
    fn is_live(&self, hash: KeyHash, location: Location) -> bool;
    /// Whether the index points at another record of this record's key.
    fn is_replaced(&self, hash: KeyHash, segment: &Segment<D>, location: Location) -> bool;
    /// Whether something that expires then has expired.
    fn has_expired(&self, expires_at_ms: u64) -> bool;
    /// A segment outside the merge that can hold a put of this hash older than `seq`. Counts in
    /// `asked` how many segments that was a question to.
    fn hides_in(&self, hash: KeyHash, seq: SeqNo, asked: &mut u64) -> Option<SegmentId>;
    /// Takes expired records out of the index.
    fn forget(&self, expired: &[Expired]);
    /// Fails if the disk has no room for outputs of `len` bytes.
    fn check_room(&self, len: u64) -> Result<()>;
    /// The header of a new segment, with an id that nothing else has.
    fn new_header(&self, base_seq: SeqNo) -> Result<SegmentHeader>;
}

/// A segment that is merged.
pub(crate) struct Input<D: Disk> {
    pub(crate) slot: Slot,
    pub(crate) segment: Arc<Segment<D>>,
    pub(crate) data_len: u64,
    plan: Plan,
}

impl<D: Disk> Input<D> {
    pub(crate) fn new(slot: Slot, segment: Arc<Segment<D>>, data_len: u64) -> Input<D> {
        Input {
            slot,
            segment,
            data_len,
            plan: Plan::default(),
        }
    }
}

/// How far a merge has come.
enum Stage {
    /// Finding out what goes on, input by input.
    Planning {
        input: usize,
        planner: Option<Box<Planner>>,
    },
    /// Copying, from this offset of this input on.
    Copying {
        input: usize,
        offset: u64,
    },
    Written,
}

/// A merge under way. Given up, it leaves nothing behind.
pub(crate) struct Merge<D: Disk> {
    disk: D,
    dir: PathBuf,
    hasher: KeyHasher,
    options: LogOptions,
    inputs: Vec<Input<D>>,
    stage: Stage,
    writing: Option<OutputWriter<D>>,
    outputs: Vec<SealedOutput<D>>,
}

/// What a finished merge hands over.
pub(crate) struct Merged<D: Disk> {
    pub(crate) inputs: Vec<Input<D>>,
    pub(crate) outputs: Vec<SealedOutput<D>>,
}

impl<D: Disk> Merge<D> {
    /// A merge of these inputs.
    pub(crate) fn new(
        disk: &D,
        dir: &Path,
        hasher: KeyHasher,
        options: LogOptions,
        mut inputs: Vec<Input<D>>,
    ) -> Merge<D> {
        // An output's base is that of the first input that it has records of.
        inputs.sort_unstable_by_key(|input| input.segment.header().base_seq);
        Merge {
            disk: disk.clone(),
            dir: dir.to_path_buf(),
            hasher,
            options,
            inputs,
            stage: Stage::Planning {
                input: 0,
                planner: None,
            },
            writing: None,
            outputs: Vec::new(),
        }
    }

    pub(crate) fn inputs(&self) -> &[Input<D>] {
        &self.inputs
    }

    pub(crate) fn is_written(&self) -> bool {
        matches!(self.stage, Stage::Written)
    }

    /// Goes on until about `budget` bytes of work are done; gives how much it was.
    ///
    /// # Errors
    ///
    /// When a record that is to be copied is damaged, or the outputs cannot be written. The merge
    /// is to be dropped then; the inputs are as they were.
    pub(crate) fn advance(&mut self, around: &impl Surroundings<D>, budget: u64) -> Result<u64> {
        let mut done = 0;
        while done < budget && !self.is_written() {
            done += match &self.stage {
                Stage::Planning { .. } => self.plan(around, budget - done)?,
                Stage::Copying { .. } => self.copy(around, budget - done)?,
                Stage::Written => 0,
            };
        }
        Ok(done)
    }

    fn plan(&mut self, around: &impl Surroundings<D>, budget: u64) -> Result<u64> {
        let Stage::Planning { input, planner } = &mut self.stage else {
            return Ok(0);
        };
        let Some(current) = self.inputs.get_mut(*input) else {
            let kept = self.inputs.iter().map(|input| input.plan.kept_bytes).sum();
            around.check_room(kept)?;
            self.stage = Stage::Copying {
                input: 0,
                offset: 0,
            };
            return Ok(0);
        };
        let planner = if let Some(planner) = planner {
            planner
        } else {
            let hint = around.hint_of(&current.segment, current.data_len)?;
            planner.insert(Box::new(Planner::new(hint)))
        };
        let work = planner.advance(current.slot, &current.segment, around, budget)?;
        if let Some(plan) = planner.finished() {
            current.plan = plan;
            self.stage = Stage::Planning {
                input: *input + 1,
                planner: None,
            };
        }
        Ok(work)
    }

    fn copy(&mut self, around: &impl Surroundings<D>, budget: u64) -> Result<u64> {
        let Stage::Copying { input, mut offset } = self.stage else {
            return Ok(0);
        };
        let Some(current) = self.inputs.get(input) else {
            self.finish_output()?;
            self.stage = Stage::Written;
            return Ok(0);
        };
        let segment = Arc::clone(&current.segment);
        let mut done = 0;
        while done < budget {
            let plan = &self.inputs[input].plan;
            let Some(at) = plan.kept.next_from(offset) else {
                self.stage = Stage::Copying {
                    input: input + 1,
                    offset: 0,
                };
                return Ok(done);
            };
            let is_expired = plan.expired.contains(at);
            let len = segment.with_record(at, |record| {
                self.copy_record(around, &segment, at, record, is_expired)
                    .map(|()| record.len())
            })??;
            offset = at + len as u64;
            done += len as u64;
        }
        self.stage = Stage::Copying { input, offset };
        Ok(done)
    }

    fn copy_record(
        &mut self,
        around: &impl Surroundings<D>,
        segment: &Segment<D>,
        offset: u64,
        record: &Record<'_>,
        is_expired: bool,
    ) -> Result<()> {
        let is_sound = record.is_valid(segment.checksum_seed(), offset);
        if !is_sound && !is_planted(Bug::CopyDamage) {
            return Err(segment.damage(offset, &Invalid::Checksum));
        }
        let base = segment.header().base_seq;
        let seq = record.seq(base);
        let output = self.output(around, record.len(), base, seq)?;
        let delta = (seq.0 - output.header().base_seq.0) as u32;
        if record.kind() == Kind::Put && !is_expired {
            return output.append_copy(record.bytes(), delta);
        }
        output.append(&RecordFields {
            kind: Kind::Tombstone,
            key: record.key(),
            value: &[],
            compressed: false,
            expires_at_ms: None,
            collides: record.collides(),
            batched: false,
            seq_delta: delta,
            synced: SyncedDistance::UNKNOWN,
        })
    }

    /// The output to write a record of `len` bytes into; `base` is at most every sequence number
    /// that is still to come.
    fn output(
        &mut self,
        around: &impl Surroundings<D>,
        len: usize,
        base: SeqNo,
        seq: SeqNo,
    ) -> Result<&mut OutputWriter<D>> {
        let fits = self.writing.as_ref().is_some_and(|output| {
            let delta = seq.0.checked_sub(output.header().base_seq.0);
            output.has_room(len) && delta.is_some_and(|d| u32::try_from(d).is_ok())
        });
        if !fits {
            self.finish_output()?;
            let expected = self.bytes_to_come() + (HEADER_LEN + FOOTER_LEN) as u64;
            let max_len = self.options.segment_size;
            self.writing = Some(OutputWriter::create(
                &self.disk,
                &self.dir,
                around.new_header(base)?,
                self.hasher,
                expected.min(max_len),
                max_len,
            )?);
        }
        self.writing.as_mut().ok_or(crate::error::Error::Exhausted {
            what: "merge outputs",
        })
    }

    /// About how much is still to be copied.
    fn bytes_to_come(&self) -> u64 {
        let kept: u64 = self.inputs.iter().map(|input| input.plan.kept_bytes).sum();
        let written = self.outputs.iter().map(|output| output.footer.data_len);
        kept.saturating_sub(written.sum())
    }

    /// Seals the output that is being written: it and its hint file are durable after this, but
    /// for their names.
    fn finish_output(&mut self) -> Result<()> {
        if let Some(writing) = self.writing.take() {
            self.outputs.push(writing.seal(self.options.read_mode)?);
        }
        Ok(())
    }

    /// Takes the inputs and outputs of a merge that is written.
    pub(crate) fn take_merged(&mut self) -> Merged<D> {
        Merged {
            inputs: std::mem::take(&mut self.inputs),
            outputs: std::mem::take(&mut self.outputs),
        }
    }
}

impl<D: Disk> Drop for Merge<D> {
    /// Removes the outputs' files: the manifest never came to name them.
    fn drop(&mut self) {
        if is_planted(Bug::LeaveOutputsOnFullDisk) {
            return;
        }
        self.outputs.iter().for_each(|output| output.segment.doom());
    }
}

impl<D: Disk> Merged<D> {
    /// Removes the outputs' files: the manifest never came to name them.
    pub(crate) fn discard(self) {
        self.outputs.iter().for_each(|output| output.segment.doom());
    }

    pub(crate) fn dropped(&self) -> Dropped {
        let mut dropped = Dropped::default();
        self.inputs
            .iter()
            .for_each(|input| dropped.add(&input.plan.dropped));
        dropped
    }

    /// Segments that hold what a tombstone of the outputs hides, with how many bytes of records
    /// were kept for their sake.
    pub(crate) fn hidden_in(&self) -> BTreeMap<SegmentId, u64> {
        let mut sums = BTreeMap::new();
        for input in &self.inputs {
            for (id, bytes) in &input.plan.hidden_in {
                *sums.entry(*id).or_default() += bytes;
            }
        }
        sums
    }
}

/// An index entry that is to follow its record.
#[derive(Clone, Copy)]
pub(crate) struct Move {
    pub(crate) hash: KeyHash,
    pub(crate) from: Location,
    /// The output, by its place among them, and the offset there.
    pub(crate) output: usize,
    pub(crate) to_offset: u64,
    pub(crate) len: usize,
}

/// Walks what was kept of the inputs and the outputs side by side: what was copied from where is
/// nowhere written down, but both are in the same order.
#[derive(Default)]
pub(crate) struct Moves {
    input: usize,
    from: u64,
    output: usize,
    to: u64,
}

impl Moves {
    /// Puts the next moves into `moves`, about `count` of them, none at the end.
    pub(crate) fn next<D: Disk>(
        &mut self,
        inputs: &[Input<D>],
        outputs: &[Arc<Segment<D>>],
        data_lens: &[u64],
        hasher: KeyHasher,
        count: usize,
        moves: &mut Vec<Move>,
    ) -> Result<()> {
        moves.clear();
        while moves.len() < count {
            let Some(input) = inputs.get(self.input) else {
                return Ok(());
            };
            let Some(from) = input.plan.kept.next_from(self.from) else {
                self.input += 1;
                self.from = 0;
                continue;
            };
            self.to = self.to.max(HEADER_LEN as u64);
            if data_lens
                .get(self.output)
                .is_some_and(|len| self.to >= *len)
            {
                self.output += 1;
                self.to = HEADER_LEN as u64;
            }
            let Some(output) = outputs.get(self.output) else {
                return Ok(());
            };
            let (to_offset, place) = (self.to, self.output);
            let step = output.with_record(to_offset, |record| {
                (
                    record.kind() == Kind::Put,
                    hasher.hash(record.key()),
                    record.len(),
                )
            })?;
            let (is_put, hash, len) = step;
            if is_put {
                moves.push(Move {
                    hash,
                    from: Location::new(input.slot, from),
                    output: place,
                    to_offset,
                    len,
                });
            }
            self.to += len as u64;
            // Records are longer than this; the next one is found from here.
            self.from = from + 1;
        }
        Ok(())
    }
}
