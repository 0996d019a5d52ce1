//! Compaction, from the figures to the new manifest.
//!
//! The merge runs beside readers and writers. Only the commit holds writers up: one manifest that
//! names the outputs in place of the inputs, then every index entry that still points at an input
//! is pointed at its copy. A crash before that manifest leaves orphans, after it, too: the next
//! open removes whichever files it does not name.

use std::cell::OnceCell;
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use super::engine::{Engine, Writer};
use crate::compaction::merge::{Merge, Merged, Surroundings};
use crate::compaction::{CompactionReport, pick};
use crate::disk::{Disk, Region};
use crate::error::{Error, Result};
#[cfg(any(test, feature = "sim"))]
use crate::format::SegmentId;
use crate::format::hint::Hint;
use crate::format::manifest::SegmentState;
use crate::format::segment::SegmentHeader;
use crate::format::{KeyHash, SeqNo};
use crate::index::Location;
use crate::log::{LogError, Slot, Usage};
use crate::recovery::Source;
use crate::segment::Segment;

/// A segment that is merged.
struct Input<D: Disk> {
    slot: Slot,
    segment: Arc<Segment<D>>,
    data_len: u64,
}

/// What a merge can see of the store.
struct Around<'a, D: Disk> {
    engine: &'a Engine<D>,
    source: &'a Source<'a, D>,
    /// The segments that are not merged.
    others: &'a [Input<D>],
    /// Their hints, read when first asked for; `None` where one cannot be read.
    hints: OnceCell<Vec<Option<Hint<Region>>>>,
}

impl<D: Disk> Surroundings for Around<'_, D> {
    fn is_live(&self, hash: KeyHash, location: Location) -> bool {
        let pin = self.engine.collector.pin();
        let same = |candidate: crate::index::Candidate<'_>| {
            (candidate.location() == location).then_some(())
        };
        self.engine.index.find(&pin, hash.into(), same).is_some()
    }

    fn has_expired(&self, expires_at_ms: u64) -> bool {
        self.engine.clock.has_passed(expires_at_ms)
    }

    fn may_hide(&self, hash: KeyHash, seq: SeqNo) -> bool {
        let read = |other: &Input<D>| {
            let opened = self.source.sealed(other.segment.id(), other.data_len);
            opened.ok().map(|opened| opened.hint)
        };
        let hints = self
            .hints
            .get_or_init(|| self.others.iter().map(read).collect());
        // What cannot be asked may hold anything.
        hints.iter().any(|hint| match hint {
            Some(hint) => hint.find(hash).any(|entry| entry.seq < seq),
            None => true,
        })
    }

    fn new_header(&self, base_seq: SeqNo) -> SegmentHeader {
        let mut writer = self.engine.lock_writer();
        let id = writer.log.reserve_id();
        writer.log.new_header(id, base_seq)
    }
}

impl<D: Disk> Engine<D> {
    /// Looks whether compaction is worth it, here or on the background thread.
    pub(crate) fn compact_soon(&self) {
        if self.settings.async_compaction {
            self.background.want_compaction();
        } else {
            // A failure has nothing to do with the write that happened to be the last one. It
            // left everything as it was; if it is the disk, the next write will tell.
            let _ = self.compact_if_worth();
        }
    }

    /// Compacts if it is worth it and nobody else is at it.
    pub(crate) fn compact_if_worth(&self) -> Result<()> {
        if !self.settings.auto_compaction {
            return Ok(());
        }
        let alone = match self.compacting.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let worth = pick::is_worth(self.lock_writer().log.usages().map(|(_, usage)| usage));
        if worth {
            self.compact(&alone, pick::has_something_to_give)?;
        }
        Ok(())
    }

    /// Compacts everything there is to compact.
    pub(crate) fn compact_all(&self) -> Result<CompactionReport> {
        let alone = self
            .compacting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.compact(&alone, pick::has_something_to_give)
    }

    /// Merges just these segments, sealed ones, whatever they have to give: for tests.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn compact_segments(&self, ids: &[SegmentId]) -> Result<CompactionReport> {
        let alone = self
            .compacting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.compact(&alone, |usage, _| ids.contains(&usage.id))
    }

    fn compact(
        &self,
        _alone: &MutexGuard<'_, ()>,
        picks: impl Fn(&Usage, u64) -> bool,
    ) -> Result<CompactionReport> {
        let started = Instant::now();
        self.check_poison()?;
        self.seal_active()?;
        let (inputs, others) = self.inputs(picks);
        let mut report = CompactionReport {
            segments_merged: inputs.len(),
            bytes_before: inputs.iter().map(|input| input.data_len).sum(),
            ..CompactionReport::default()
        };
        if !inputs.is_empty() {
            let merged = self.merge(&inputs, &others)?;
            report.segments_written = merged.outputs.len();
            report.bytes_after = merged.outputs.iter().map(|output| output.data_len).sum();
            report.records_kept = merged.outputs.iter().map(|output| output.records).sum();
            report.records_dropped = merged.records_dropped;
            self.commit_merge(inputs, merged)?;
        }
        report.elapsed = started.elapsed();
        Ok(report)
    }

    /// Seals the active segment, so that all there is can be merged.
    fn seal_active(&self) -> Result<()> {
        let lead = self.turn.lead();
        self.commit(&lead)?;
        let mut writer = self.lock_writer();
        let sealed = writer.log.seal(self.clock.now_ms());
        sealed.map_err(|error| self.log_failed(&mut writer, error))?;
        // Sealing has made what came in since the commit durable, too.
        self.publish_all(&mut writer)
    }

    /// The segments to merge, in the order of their sequence numbers, and the others.
    fn inputs(&self, picks: impl Fn(&Usage, u64) -> bool) -> (Vec<Input<D>>, Vec<Input<D>>) {
        let now_ms = self.clock.now_ms();
        let writer = self.lock_writer();
        let pin = self.collector.pin();
        let mut inputs = Vec::new();
        let mut others = Vec::new();
        for (slot, usage) in writer.log.usages().filter(|(_, usage)| usage.sealed) {
            let Some(segment) = self.table.get_arc(&pin, slot) else {
                continue;
            };
            let input = Input {
                slot,
                segment,
                data_len: usage.data_len,
            };
            if picks(usage, now_ms) {
                inputs.push(input);
            } else {
                others.push(input);
            }
        }
        inputs.sort_unstable_by_key(|input| input.segment.header().base_seq);
        (inputs, others)
    }

    fn merge(&self, inputs: &[Input<D>], others: &[Input<D>]) -> Result<Merged<D>> {
        let (options, store) = {
            let writer = self.lock_writer();
            (writer.log.options(), writer.log.manifest().store)
        };
        let source = Source {
            disk: &self.disk,
            dir: &self.settings.dir,
            store,
            hasher: self.hasher,
            read_mode: options.read_mode,
        };
        let around = Around {
            engine: self,
            source: &source,
            others,
            hints: OnceCell::new(),
        };
        let inputs: Vec<_> = inputs
            .iter()
            .map(|input| (input.slot, &*input.segment, input.data_len))
            .collect();
        Merge::new(&source, options, &around).run(&source, &inputs)
    }

    /// Puts the outputs in the place of the inputs.
    fn commit_merge(&self, inputs: Vec<Input<D>>, merged: Merged<D>) -> Result<()> {
        let lead = self.turn.lead();
        // What the merge dropped may have been overwritten by records that are visible but not
        // durable: with the outputs in place of the inputs, a power cut would take both.
        self.commit(&lead)?;
        let mut guard = self.lock_writer();
        self.check_poison()?;
        let writer = &mut *guard;
        let mut next = writer.log.next_manifest(self.clock.now_ms());
        next.segments
            .retain(|(id, _)| !inputs.iter().any(|input| input.segment.id() == *id));
        next.segments.extend(merged.outputs.iter().map(|output| {
            (
                output.id,
                SegmentState::Sealed {
                    data_len: output.data_len,
                },
            )
        }));
        next.segments.sort_unstable_by_key(|(id, _)| *id);
        if let Err(error) = writer.log.commit(next) {
            return Err(match error {
                LogError::Unchanged(error) => {
                    merged.discard();
                    error
                }
                LogError::Broken(error) => self.break_down(writer, error),
            });
        }
        writer.changing = true;
        let moved = point_at_outputs(writer, merged);
        // Should the index still name them, they stay: the next open removes their files.
        if moved.is_ok() {
            for input in inputs {
                writer.log.remove_sealed(input.slot, &input.segment);
            }
        }
        writer.changing = false;
        moved.map_err(|error| self.break_down(writer, error))
    }
}

/// Moves the index entries that still point at an input; the others have been overwritten or
/// deleted meanwhile.
fn point_at_outputs<D: Disk>(writer: &mut Writer<D>, merged: Merged<D>) -> Result<()> {
    for (hash, location) in merged.expired {
        let is_it = |other| Ok::<_, Error>(other == location);
        writer.index.remove(hash.into(), is_it)?;
    }
    for output in merged.outputs {
        let mut usage = Usage {
            data_len: output.data_len,
            sealed: true,
            records: output.records,
            tombstone_bytes: output.tombstone_bytes,
            earliest_expiry_ms: output.earliest_expiry_ms,
            ..Usage::new(output.id)
        };
        let slot = writer.log.add_sealed(output.segment, usage)?;
        for step in output.moves {
            let to = Location::new(slot, step.to_offset);
            if writer.index.relocate(step.hash.into(), step.from, to) {
                usage.add_live(step.len);
            }
        }
        if let Some(known) = writer.log.usage_mut(slot) {
            *known = usage;
        }
    }
    Ok(())
}
