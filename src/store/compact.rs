//! One merge in the store: begin, go on a little at a time, commit, move the index, remove.
//!
//! The protocol: outputs and hints are written and synced, then one manifest names the outputs in
//! place of the inputs, then every index entry that still points at an input is pointed at its
//! copy, then the inputs go with their last reader. A crash before the manifest leaves orphans,
//! after it, too: the next open removes whichever files it does not name.
//!
//! No lock is held for long: the writer lock for a batch of index entries, the lead for the
//! commit. When and how fast merges run is [`super::compactor`]'s part.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use super::compactor::Work;
use super::engine::{Engine, Writer};
use crate::bugs::{Bug, is_planted};
use crate::compaction::CompactionReport;
use crate::compaction::merge::{Input, Merge, Merged, Move, Moves, Surroundings};
use crate::compaction::plan::Expired;
use crate::disk::{Disk, Region};
use crate::error::Result;
use crate::format::hint::Hint;
use crate::format::manifest::SegmentState;
use crate::format::segment::SegmentHeader;
use crate::format::{KeyHash, SegmentId, SeqNo};
use crate::index::{Candidate, Location};
use crate::log::{Expiries, LogError, Slot, Usage};
use crate::recovery::Source;
use crate::segment::Segment;
use crate::sync::{Instant, OnceLock};

/// How many index entries are moved under one hold of the writer lock: about 0.3 ms.
const MOVES_AT_A_TIME: usize = if cfg!(shuttle) { 2 } else { 1024 };

/// What moving an index entry counts for, in bytes of work.
const WORK_PER_MOVE: u64 = 64;

/// A merge under way, from its inputs to the removal of their files.
pub(crate) struct Run<D: Disk> {
    stage: Stage<D>,
    /// The sealed segments that are not merged, by their base sequence numbers.
    others: Vec<Other<D>>,
    /// About how many bytes it copies.
    pub(crate) bytes_to_copy: u64,
    pub(crate) report: CompactionReport,
    begun: Instant,
}

enum Stage<D: Disk> {
    Merging(Box<Merge<D>>),
    /// The manifest names the outputs; the index still has to follow.
    Moving(Box<Moving<D>>),
}

struct Moving<D: Disk> {
    merged: Merged<D>,
    outputs: Vec<Arc<Segment<D>>>,
    slots: Vec<Slot>,
    data_lens: Vec<u64>,
    moves: Moves,
    is_done: bool,
}

struct Other<D: Disk> {
    segment: Arc<Segment<D>>,
    data_len: u64,
}

/// What a merge can see of the store.
struct Around<'a, D: Disk> {
    engine: &'a Engine<D>,
    source: Source<'a, D>,
    others: &'a [Other<D>],
}

impl<D: Disk> Surroundings<D> for Around<'_, D> {
    fn hint_of(&self, segment: &Segment<D>, data_len: u64) -> Result<Hint<Region>> {
        let opened = self.source.sealed(segment.id(), data_len)?;
        Ok(opened.hint)
    }

    fn is_live(&self, hash: KeyHash, location: Location) -> bool {
        let pin = self.engine.collector.pin();
        let same = |candidate: Candidate<'_>| (candidate.location() == location).then_some(());
        self.engine.index.find(&pin, hash.into(), same).is_some()
    }

    fn is_replaced(&self, hash: KeyHash, segment: &Segment<D>, location: Location) -> bool {
        let pin = self.engine.collector.pin();
        let key = OnceLock::new();
        let has_its_key = |candidate: Candidate<'_>| {
            let other = candidate.location();
            if other == location {
                return None;
            }
            let read = || segment.with_record(location.offset(), |record| record.key().to_vec());
            let key = key.get_or_init(|| read().ok()).as_ref()?;
            let hit = self.engine.read(&pin, other, false).ok()?;
            (hit.record().ok()?.key() == key).then_some(())
        };
        let found = self.engine.index.find(&pin, hash.into(), has_its_key);
        found.is_some()
    }

    fn has_expired(&self, expires_at_ms: u64) -> bool {
        self.engine.clock.has_passed(expires_at_ms)
    }

    fn hides_in(&self, hash: KeyHash, seq: SeqNo, asked: &mut u64) -> Option<SegmentId> {
        // No segment holds anything older than its base.
        let older = self.others.iter();
        let mut older = older.take_while(|other| other.segment.header().base_seq < seq);
        let can_hold = |other: &&Other<D>| {
            *asked += 1;
            let open = || self.hint_of(&other.segment, other.data_len).ok();
            match other.segment.hint(open) {
                Some(hint) => hint
                    .find(hash)
                    .any(|entry| entry.seq < seq && !entry.tombstone),
                // What cannot be asked may hold anything.
                None => true,
            }
        };
        older.find(can_hold).map(|other| other.segment.id())
    }

    fn forget(&self, expired: &[Expired]) {
        for some in expired.chunks(MOVES_AT_A_TIME) {
            let mut guard = self.engine.lock_writer();
            let writer = &mut *guard;
            writer.changing = true;
            for Expired {
                hash,
                location,
                len,
            } in some
            {
                let is_it = |other| Ok::<_, Infallible>(other == *location);
                let Ok(removed) = writer.index.remove((*hash).into(), is_it);
                if removed.is_some() {
                    if let Some(usage) = writer.log.usage_mut(location.segment_slot()) {
                        usage.remove_live(*len);
                    }
                }
            }
            writer.changing = false;
        }
    }

    fn check_room(&self, len: u64) -> Result<()> {
        self.engine.check_room_for_merge(len)
    }

    fn new_header(&self, base_seq: SeqNo) -> Result<SegmentHeader> {
        let mut writer = self.engine.lock_writer();
        let id = writer.log.reserve_id()?;
        Ok(writer.log.new_header(id, base_seq))
    }
}

impl<D: Disk> Run<D> {
    pub(crate) fn is_done(&self) -> bool {
        matches!(&self.stage, Stage::Moving(moving) if moving.is_done)
    }

    /// The segment that is merged of which this is a file, if any is.
    pub(crate) fn input_in(&self, file: &Path) -> Option<SegmentId> {
        let Stage::Merging(merge) = &self.stage else {
            return None;
        };
        let mut inputs = merge.inputs().iter().map(|input| &input.segment);
        let input = inputs.find(|segment| segment.path().file_stem() == file.file_stem());
        input.map(|segment| segment.id())
    }

    /// Whether it can no longer be given up: the manifest names its outputs.
    pub(crate) fn is_committed(&self) -> bool {
        !matches!(self.stage, Stage::Merging(_))
    }
}

impl<D: Disk> Engine<D> {
    /// Seals the active segment, so that all there is can be merged.
    pub(crate) fn seal_active(&self) -> Result<()> {
        let lead = self.turn.lead();
        self.commit(&lead)?;
        let mut writer = self.lock_writer();
        let now_ms = self.clock.now_ms();
        writer.changing = true;
        let sealed = self.with_reserve(|| writer.log.seal(now_ms));
        writer.changing = false;
        sealed.map_err(|error| self.log_failed(&mut writer, error))?;
        // Sealing has made what came in since the commit durable, too.
        self.publish_all(&mut writer)
    }

    /// Begins a merge of the sealed segments in these slots.
    pub(crate) fn begin_run(&self, picked: &[Slot]) -> Run<D> {
        let now_ms = self.clock.now_ms();
        let writer = self.lock_writer();
        let pin = self.collector.pin();
        let (mut inputs, mut others) = (Vec::new(), Vec::new());
        let mut report = CompactionReport::default();
        let mut bytes_to_copy = 0;
        for (slot, usage) in writer.log.usages().filter(|(_, usage)| usage.sealed) {
            let Some(segment) = self.table.get_arc(&pin, slot) else {
                continue;
            };
            let data_len = usage.data_len;
            if picked.contains(&slot) {
                report.segments_merged += 1;
                report.bytes_before += data_len;
                bytes_to_copy += usage.kept_bytes(now_ms);
                inputs.push(Input::new(slot, segment, data_len));
            } else {
                others.push(Other { segment, data_len });
            }
        }
        others.sort_unstable_by_key(|other| other.segment.header().base_seq);
        let options = writer.log.options();
        let dir = &self.settings.dir;
        Run {
            stage: Stage::Merging(Box::new(Merge::new(
                &self.disk,
                dir,
                self.hasher,
                options,
                inputs,
            ))),
            others,
            bytes_to_copy,
            report,
            begun: Instant::now(),
        }
    }

    /// Goes on with a merge until about `budget` bytes of work are done; gives how much it was.
    ///
    /// # Errors
    ///
    /// The merge is to be dropped then. All is as it was before it, or the store refuses writes.
    pub(crate) fn advance_run(&self, run: &mut Run<D>, budget: u64) -> Result<u64> {
        let mut done = 0;
        while done < budget && !run.is_done() {
            done += match &mut run.stage {
                Stage::Merging(merge) if merge.is_written() => {
                    self.commit_run(run)?;
                    WORK_PER_MOVE
                }
                Stage::Merging(merge) => {
                    let options = self.lock_writer().log.options();
                    let around = Around {
                        engine: self,
                        source: Source {
                            disk: &self.disk,
                            dir: &self.settings.dir,
                            store: self.store_id,
                            hasher: self.hasher,
                            read_mode: options.read_mode,
                        },
                        others: &run.others,
                    };
                    merge.advance(&around, budget - done)?
                }
                Stage::Moving(_) => self.move_some(run)?,
            };
        }
        run.report.elapsed = run.begun.elapsed();
        Ok(done)
    }

    /// Puts the outputs in the place of the inputs in the manifest.
    fn commit_run(&self, run: &mut Run<D>) -> Result<()> {
        let lead = self.turn.lead();
        // What the merge dropped may have been overwritten by records that are visible but not
        // durable: with the outputs in place of the inputs, a power cut would take both.
        if !is_planted(Bug::MergeBeforeSync) {
            self.commit(&lead)?;
        }
        let mut guard = self.lock_writer();
        self.check_poison()?;
        let Stage::Merging(merge) = &mut run.stage else {
            return Ok(());
        };
        let merged = merge.take_merged();
        let writer = &mut *guard;
        let mut next = writer.log.next_manifest(self.clock.now_ms());
        next.segments.retain(|(id, _)| {
            let mut inputs = merged.inputs.iter();
            !inputs.any(|input| input.segment.id() == *id)
        });
        next.segments.extend(merged.outputs.iter().map(|output| {
            let data_len = output.footer.data_len;
            (output.segment.id(), SegmentState::Sealed { data_len })
        }));
        next.segments.sort_unstable_by_key(|(id, _)| *id);
        let mut history = writer.log.manifest().history();
        history.note_all(merged.dropped().history);
        next.history = Some(history);
        if is_planted(Bug::UnlinkBeforeCommit) {
            for input in &merged.inputs {
                let _ = self.disk.unlink(input.segment.path());
            }
        }
        writer.changing = true;
        let committed = self.with_reserve(|| writer.log.commit(next.clone()));
        writer.changing = false;
        if let Err(error) = committed {
            return Err(match error {
                LogError::Unchanged(error) => {
                    if is_planted(Bug::RemoveInputsOnFullDisk) {
                        merged.inputs.iter().for_each(|input| input.segment.doom());
                    }
                    merged.discard();
                    error
                }
                LogError::Broken(error) => self.break_down(writer, error),
            });
        }
        run.report.segments_written = merged.outputs.len();
        run.report.records_dropped = merged.dropped().records;
        writer.changing = true;
        let moving = self.add_outputs(writer, merged, &mut run.report);
        writer.changing = false;
        let moving = moving.map_err(|error| self.break_down(writer, error))?;
        run.stage = Stage::Moving(Box::new(moving));
        Ok(())
    }

    /// Gives the outputs their slots, with nothing live in them yet.
    fn add_outputs(
        &self,
        writer: &mut Writer<D>,
        mut merged: Merged<D>,
        report: &mut CompactionReport,
    ) -> Result<Moving<D>> {
        let pin = self.collector.pin();
        let (mut outputs, mut slots, mut data_lens) = (Vec::new(), Vec::new(), Vec::new());
        let retains = !merged.hidden_in().is_empty();
        for output in merged.outputs.drain(..) {
            let (summary, footer) = (&output.summary, &output.footer);
            let tombstones = summary.entries().filter(|entry| entry.tombstone);
            let tombstone_bytes = tombstones.map(|entry| u64::from(entry.len)).sum();
            let usage = Usage {
                data_len: footer.data_len,
                sealed: true,
                records: footer.records,
                tombstone_bytes,
                retained_bytes: if retains { tombstone_bytes } else { 0 },
                expiries: Expiries::of(footer.earliest_expiry_ms, || summary.entries()),
                next_seq: footer.highest_seq.next(),
                ..Usage::new(output.segment.id())
            };
            report.bytes_after += footer.data_len;
            report.records_kept += footer.records;
            data_lens.push(footer.data_len);
            let slot = writer.log.add_sealed(output.segment, usage)?;
            slots.push(slot);
            outputs.extend(self.table.get_arc(&pin, slot));
        }
        self.counters.note_merge(report.bytes_after);
        Ok(Moving {
            merged,
            outputs,
            slots,
            data_lens,
            moves: Moves::default(),
            is_done: false,
        })
    }

    /// Moves the next index entries that still point at an input; the others have been overwritten
    /// or deleted meanwhile. At the end the inputs go.
    fn move_some(&self, run: &mut Run<D>) -> Result<u64> {
        let Stage::Moving(moving) = &mut run.stage else {
            return Ok(0);
        };
        let mut moves: Vec<Move> = Vec::with_capacity(MOVES_AT_A_TIME);
        let read = moving.moves.next(
            &moving.merged.inputs,
            &moving.outputs,
            &moving.data_lens,
            self.hasher,
            MOVES_AT_A_TIME,
            &mut moves,
        );
        let mut guard = self.lock_writer();
        let writer = &mut *guard;
        // The manifest has left the inputs behind; an index that cannot follow is of no use.
        read.map_err(|error| self.break_down(writer, error))?;
        writer.changing = true;
        for step in &moves {
            let slot = moving.slots[step.output];
            let to = Location::new(slot, step.to_offset);
            if writer.index.relocate(step.hash.into(), step.from, to) {
                if let Some(usage) = writer.log.usage_mut(slot) {
                    usage.add_live(step.len);
                }
                if let Some(usage) = writer.log.usage_mut(step.from.segment_slot()) {
                    usage.remove_live(step.len);
                }
            }
        }
        writer.changing = false;
        if moves.is_empty() {
            for input in &moving.merged.inputs {
                writer.log.remove_sealed(input.slot, &input.segment);
                self.leaving.add(&input.segment, input.data_len);
            }
            moving.is_done = true;
        }
        Ok((moves.len() as u64).max(1) * WORK_PER_MOVE)
    }

    /// Remembers what the outputs' tombstones wait for, and which tombstones wait no longer.
    pub(crate) fn settle_run(&self, work: &mut Work<D>, run: &Run<D>) -> CompactionReport {
        let Stage::Moving(moving) = &run.stage else {
            return run.report;
        };
        let merged = &moving.merged;
        let gone: Vec<_> = (merged.inputs.iter())
            .map(|input| input.segment.id())
            .collect();
        let freed = work.hidden.free(&gone);
        let hidden_in = merged.hidden_in();
        let mut writer = self.lock_writer();
        for usage in writer.log.usages_mut() {
            if let Some(bytes) = freed.get(&usage.id) {
                usage.retained_bytes = usage.retained_bytes.saturating_sub(*bytes);
            }
            if usage.retained_bytes > 0 && !work.hidden.is_hiding(usage.id) {
                work.hidden.hide(usage.id, usage.retained_bytes, &hidden_in);
            }
        }
        run.report
    }
}
