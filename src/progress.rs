//! How far long work has come, and stopping it: what verifying, repairing, checkpoints and restores
//! tell a caller about.

use std::ops::ControlFlow;

use crate::error::{Error, Result};

/// How far a verification or a repair has come.
///
/// A repair reads each segment two or three times, and what it has written once: all of that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanProgress {
    /// Segments that have been read.
    pub segments_done: usize,
    /// Segments to read, those that have been included; as far as known.
    pub segments: usize,
    /// Bytes of segments that have been read. Never goes back.
    pub bytes_done: u64,
    /// Bytes of segments to read, those that have been included; as far as known: it changes when
    /// something turns out to be shorter or longer, and is what has been read at the end. 0 as long
    /// as nothing is known.
    pub bytes: u64,
}

/// How far a checkpoint or a restore has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyProgress {
    /// Segments that are in the new place: linked, copied or there before.
    pub segments_done: usize,
    /// Segments in all.
    pub segments: usize,
    /// Bytes of segments that are in the new place; of one that is linked, all at once.
    pub bytes_done: u64,
    /// Bytes of segments in all.
    pub bytes: u64,
}

/// The figures that every kind of progress has.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figures {
    segments_done: usize,
    segments: usize,
    bytes_done: u64,
    bytes: u64,
}

impl From<Figures> for ScanProgress {
    fn from(figures: Figures) -> ScanProgress {
        ScanProgress {
            segments_done: figures.segments_done,
            segments: figures.segments,
            bytes_done: figures.bytes_done,
            bytes: figures.bytes,
        }
    }
}

impl From<Figures> for CopyProgress {
    fn from(figures: Figures) -> CopyProgress {
        CopyProgress {
            segments_done: figures.segments_done,
            segments: figures.segments,
            bytes_done: figures.bytes_done,
            bytes: figures.bytes,
        }
    }
}

/// Adds up what is done, and tells it. Everything that can fail fails with [`Error::Cancelled`], when
/// whoever is told wants no more.
pub(crate) struct Meter<'a> {
    tell: &'a mut (dyn FnMut(Figures) -> ControlFlow<()> + 'a),
    segments_done: usize,
    /// Of whole segments.
    bytes_done: u64,
    segments_left: usize,
    bytes_left: u64,
    /// The highest that was told.
    bytes_told: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(tell: &'a mut (dyn FnMut(Figures) -> ControlFlow<()> + 'a)) -> Meter<'a> {
        Meter {
            tell,
            segments_done: 0,
            bytes_done: 0,
            segments_left: 0,
            bytes_left: 0,
            bytes_told: 0,
        }
    }

    /// Begins anew: nothing is done, and this is to be done.
    pub(crate) fn begin(&mut self, segments: usize, bytes: u64) {
        (self.segments_done, self.bytes_done, self.bytes_told) = (0, 0, 0);
        self.expect(segments, bytes);
    }

    /// Sets what is left to do, the current segment included.
    pub(crate) fn expect(&mut self, segments: usize, bytes: u64) {
        (self.segments_left, self.bytes_left) = (segments, bytes);
    }

    /// Of the current segment so many bytes are done.
    pub(crate) fn reach(&mut self, bytes: u64) -> Result<()> {
        self.bytes_told = self.bytes_told.max(self.bytes_done + bytes);
        let bytes = self.bytes_done.saturating_add(self.bytes_left);
        let figures = Figures {
            segments_done: self.segments_done,
            segments: self.segments_done + self.segments_left,
            bytes_done: self.bytes_told,
            bytes: bytes.max(self.bytes_told),
        };
        match (self.tell)(figures) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    /// Asks whether to go on.
    pub(crate) fn ask(&mut self) -> Result<()> {
        self.reach(0)
    }

    /// The current segment is done: it was expected to have so many bytes, and had so many.
    pub(crate) fn finish(&mut self, expected: u64, bytes: u64) -> Result<()> {
        self.segments_done += 1;
        self.bytes_done += bytes;
        self.segments_left = self.segments_left.saturating_sub(1);
        self.bytes_left = self.bytes_left.saturating_sub(expected);
        self.reach(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turns_out_otherwise_corrects_the_total_and_nothing_goes_back() {
        let mut told = Vec::new();
        let mut tell = |figures: Figures| {
            let ScanProgress {
                segments_done,
                segments,
                bytes_done,
                bytes,
            } = figures.into();
            told.push((segments_done, segments, bytes_done, bytes));
            ControlFlow::Continue(())
        };
        let mut meter = Meter::new(&mut tell);
        meter.ask().unwrap();
        meter.expect(3, 300);
        meter.reach(50).unwrap();
        meter.reach(10).unwrap();
        meter.finish(100, 100).unwrap();
        // Shorter, and gone.
        meter.finish(100, 20).unwrap();
        meter.finish(100, 0).unwrap();
        meter.expect(1, 30);
        meter.reach(40).unwrap();
        let expected = [
            (0, 0, 0, 0),
            (0, 3, 50, 300),
            (0, 3, 50, 300),
            (1, 3, 100, 300),
            (2, 3, 120, 220),
            (3, 3, 120, 120),
            (3, 4, 160, 160),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn whoever_breaks_cancels() {
        let mut tell = |figures: Figures| {
            let done = CopyProgress::from(figures).segments_done;
            if done == 1 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let mut meter = Meter::new(&mut tell);
        meter.begin(2, 20);
        meter.reach(5).unwrap();
        assert!(matches!(meter.finish(10, 10), Err(Error::Cancelled)));
    }
}
