//! How work is timed: threads that do operations until the time is up, and what they took.
//!
//! Throughput and latency are measured apart. Operations come in blocks: their keys and values are
//! made ready with the clock stopped, then the block is timed as a whole, which gives the
//! throughput. Of the operations in it some are timed by themselves, which gives the latency:
//! reading the clock twice takes about as long as finding an index entry, so only every 16th of
//! the quick ones is.
//!
//! Each thread begins its next operation when the last is done (a closed loop). While an operation
//! is held up, none queue behind it as they would in a server: a pause shows in the highest
//! percentiles once for each thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cli::exit::Failure;

/// How often the progress is reported.
const TICK: Duration = Duration::from_millis(100);
/// Longer latencies count as this long.
const MAX_LATENCY: Duration = Duration::from_secs(3600);
/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// How long a phase goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Time(Duration),
    /// So many operations, by all threads together.
    Operations(u64),
    /// Until the work is at its end.
    Exhaustion,
}

/// One kind of operation of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    /// What is timed: "get", "batch of 1,000".
    pub(crate) timed: Timed,
}

/// What one latency is the latency of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    /// Of every such operation.
    Each(&'static str),
    /// Of every 16th.
    Some(&'static str),
}

impl Timed {
    pub(crate) fn every(self) -> u64 {
        match self {
            Timed::Each(_) => 1,
            Timed::Some(_) => 16,
        }
    }
}

/// What one call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// Keys that were put, or asked for.
    pub(crate) operations: u64,
    /// Bytes of keys and values that were put, or came back.
    pub(crate) bytes: u64,
}

/// What one thread does in a phase.
pub(crate) trait Work: Send {
    /// Makes at most `count` calls ready, with the clock stopped. Gives how many; 0 at the end.
    fn prepare(&mut self, count: usize) -> usize;

    /// Which of the phase's lanes the `i`th call belongs to.
    fn lane(&self, i: usize) -> usize;

    /// Makes the `i`th call. Long ones look at `stop` meanwhile and may end early.
    fn run(&mut self, i: usize, stop: &Stop<'_>) -> Result<Done, Failure>;
}

/// What one kind of operation came to in a phase.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) lane: Lane,
    pub(crate) done: Done,
    /// How long the threads were at it, without making keys and values.
    pub(crate) elapsed: Duration,
    /// In nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Measured {
    pub(crate) fn new(lane: Lane) -> Measured {
        let max = MAX_LATENCY.as_nanos() as u64;
        Measured {
            lane,
            done: Done {
                operations: 0,
                bytes: 0,
            },
            elapsed: Duration::ZERO,
            latency: Histogram::new_with_max(max, DIGITS).expect("the bounds are sound"),
        }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(ns);
    }

    pub(crate) fn count(&mut self, done: Done) {
        self.done.operations += done.operations;
        self.done.bytes += done.bytes;
    }

    fn merge(&mut self, other: &Measured) {
        self.count(other.done);
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latency
            .add(&other.latency)
            .expect("all histograms have the same bounds");
    }
}

/// Why threads end before their time: something failed, or the user has had enough.
pub(crate) struct Stop<'a> {
    failed: AtomicBool,
    requested: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Stop<'a> {
    pub(crate) fn when(requested: &'a (dyn Fn() -> bool + Sync)) -> Stop<'a> {
        Stop {
            failed: AtomicBool::new(false),
            requested,
        }
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || (self.requested)()
    }
}

/// Does a phase's work, each on a thread of its own, and tells `progress` how many operations are
/// done. Fails with the first failure. What was interrupted gives what was measured till then.
pub(crate) fn run<W: Work>(
    works: Vec<W>,
    lanes: &[Lane],
    limit: Limit,
    stop: &Stop<'_>,
    progress: impl Fn(u64),
) -> Result<Vec<Measured>, Failure> {
    let done = AtomicU64::new(0);
    let threads = works.len() as u64;
    let begun = Instant::now();
    let mut total: Vec<_> = lanes.iter().copied().map(Measured::new).collect();
    let mut failure = None;
    thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for (thread, work) in (0..).zip(works) {
            let limits = Limits::new(limit, begun, (thread, threads));
            let (sender, done) = (sender.clone(), &done);
            scope.spawn(move || {
                let result = drive(work, lanes, limits, stop, done);
                if result.is_err() {
                    stop.failed.store(true, Ordering::Relaxed);
                }
                // The other end is there until all have been heard of.
                let _ = sender.send(result);
            });
        }
        // Each thread has its own; the channel closes with the last, even if one panics.
        drop(sender);
        loop {
            match results.recv_timeout(TICK) {
                Ok(Ok(measured)) => {
                    for (total, measured) in total.iter_mut().zip(&measured) {
                        total.merge(measured);
                    }
                }
                Ok(Err(error)) => failure = failure.take().or(Some(error)),
                Err(RecvTimeoutError::Timeout) => progress(done.load(Ordering::Relaxed)),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    failure.map_or(Ok(total), Err)
}

/// One thread's part of a [`Limit`].
#[derive(Clone, Copy, Debug)]
struct Limits {
    deadline: Option<Instant>,
    operations: u64,
}

impl Limits {
    fn new(limit: Limit, begun: Instant, (thread, threads): (u64, u64)) -> Limits {
        let operations = match limit {
            Limit::Operations(all) => all / threads + u64::from(thread < all % threads),
            Limit::Time(_) | Limit::Exhaustion => u64::MAX,
        };
        let deadline = match limit {
            // A time that the clock cannot count to never comes.
            Limit::Time(time) => begun.checked_add(time),
            Limit::Operations(_) | Limit::Exhaustion => None,
        };
        Limits {
            deadline,
            operations,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

/// Calls that are made ready together: enough that stopping the clock is no work beside them.
pub(crate) const BLOCK: usize = 256;

fn drive<W: Work>(
    mut work: W,
    lanes: &[Lane],
    limits: Limits,
    stop: &Stop<'_>,
    done: &AtomicU64,
) -> Result<Vec<Measured>, Failure> {
    let mut measured: Vec<_> = lanes.iter().copied().map(Measured::new).collect();
    let mut calls = vec![0_u64; lanes.len()];
    let mut elapsed = Duration::ZERO;
    let mut left = limits.operations;
    let mut over = false;
    while left > 0 && !over {
        let ready = work.prepare(BLOCK.min(usize::try_from(left).unwrap_or(BLOCK)));
        if ready == 0 {
            break;
        }
        let mut operations = 0;
        let begun = Instant::now();
        for i in 0..ready {
            let lane = work.lane(i);
            let every = lanes[lane].timed.every();
            calls[lane] += 1;
            // In the middle, since the first of a block may find the cache as making keys left it.
            let call = if calls[lane] % every == every / 2 {
                let before = Instant::now();
                let call = work.run(i, stop)?;
                let after = Instant::now();
                measured[lane].record(after - before);
                over = limits.is_over(after) || stop.is_requested();
                call
            } else {
                work.run(i, stop)?
            };
            measured[lane].count(call);
            operations += call.operations;
            left -= 1;
            if over {
                break;
            }
        }
        elapsed += begun.elapsed();
        done.fetch_add(operations, Ordering::Relaxed);
    }
    for measured in &mut measured {
        measured.elapsed = elapsed;
    }
    Ok(measured)
}

/// What timing one operation adds to its latency, in nanoseconds: the shortest of many times from
/// one look at the clock to the next.
pub(crate) fn clock_ns() -> u64 {
    let between = |_| {
        let before = Instant::now();
        before.elapsed().as_nanos() as u64
    };
    let mut times: Vec<_> = (0..1001).map(between).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Lane = Lane {
        name: "put",
        timed: Timed::Each("put"),
    };
    const SOME: Lane = Lane {
        name: "get",
        timed: Timed::Some("get"),
    };

    /// Every fourth call is of the second lane.
    struct Count {
        left: u64,
        fail_at: Option<u64>,
    }

    impl Work for Count {
        fn prepare(&mut self, count: usize) -> usize {
            count.min(usize::try_from(self.left).unwrap())
        }

        fn lane(&self, i: usize) -> usize {
            usize::from(i % 4 == 3)
        }

        fn run(&mut self, _: usize, _: &Stop<'_>) -> Result<Done, Failure> {
            self.left -= 1;
            if self.fail_at == Some(self.left) {
                return Err(Failure::Wrong("as it was told".to_owned()));
            }
            Ok(Done {
                operations: 2,
                bytes: 10,
            })
        }
    }

    fn works(threads: usize, left: u64) -> Vec<Count> {
        (0..threads)
            .map(|_| Count {
                left,
                fail_at: None,
            })
            .collect()
    }

    fn run_all(works: Vec<Count>, limit: Limit) -> Result<Vec<Measured>, Failure> {
        run(works, &[SOME, EACH], limit, &Stop::when(&|| false), |_| ())
    }

    #[test]
    fn operations_are_shared_out_among_threads_and_counted_by_lane() {
        let measured = run_all(works(3, u64::MAX), Limit::Operations(4000)).unwrap();
        let calls = |lane: &Measured| lane.done.operations / 2;
        assert_eq!(calls(&measured[0]) + calls(&measured[1]), 4000);
        // 1334, 1333 and 1333 calls: 333 of each are of the second lane.
        assert_eq!(calls(&measured[1]), 999);
        assert_eq!(measured[1].done.bytes, 9990);
    }

    #[test]
    fn every_slow_operation_is_timed_and_every_16th_of_the_quick_ones() {
        let measured = run_all(works(1, u64::MAX), Limit::Operations(6400)).unwrap();
        assert_eq!(measured[0].latency.len(), 300);
        assert_eq!(measured[1].latency.len(), 1600);
    }

    #[test]
    fn work_that_is_at_its_end_ends_the_phase() {
        let measured = run_all(works(2, 500), Limit::Exhaustion).unwrap();
        let calls: u64 = measured.iter().map(|lane| lane.done.operations / 2).sum();
        assert_eq!(calls, 1000);
    }

    #[test]
    fn time_that_is_up_ends_the_phase() {
        let limit = Limit::Time(Duration::from_millis(1));
        let measured = run_all(works(1, u64::MAX), limit).unwrap();
        assert!(measured[0].done.operations > 0);
    }

    #[test]
    fn a_request_to_stop_ends_the_phase() {
        let stop = Stop::when(&|| true);
        let limit = Limit::Exhaustion;
        let measured = run(works(2, u64::MAX), &[SOME, EACH], limit, &stop, |_| ()).unwrap();
        // Each thread's first call that is timed is its fourth.
        assert_eq!(measured[1].latency.len(), 2);
    }

    #[test]
    fn a_failure_ends_all_threads_and_comes_back() {
        let mut works = works(2, u64::MAX);
        works[1].left = 1000;
        works[1].fail_at = Some(1);
        let failure = run_all(works, Limit::Exhaustion).unwrap_err();
        assert_eq!(failure.to_string(), "as it was told");
    }

    #[test]
    fn latencies_of_any_length_are_recorded() {
        let mut measured = Measured::new(EACH);
        for latency in [Duration::ZERO, Duration::from_nanos(130), Duration::MAX] {
            measured.record(latency);
        }
        assert_eq!(measured.latency.len(), 3);
        assert_eq!(measured.latency.value_at_quantile(0.5), 130);
        assert!(measured.latency.max() >= 3_600_000_000_000);
    }
}
