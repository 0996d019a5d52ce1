//! Random steps on a store and on a map, in every mode: writes of every kind, reading in every
//! way, reopening, merges of any segments, expiry, a clock that jumps, checkpoints, followers, and
//! crashes in the middle of all that.
//!
//! A run that fails is shrunk, and printed as a test to be added at the end of this file.

mod run;
pub(crate) mod shrink;
mod steps;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Rng, in_two_threads, seed};
use crate::layer::Layer;
use crabkv::disk::CrashPlan;
use run::{Counts, Shape, run};
use shrink::shrink;
use steps::{Step, Steps};

/// Steps of one store, from an empty one on.
const EPISODE: u64 = 250;

/// How long a failure is made shorter.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shape and the steps of an episode.
fn episode(seed: u64, number: u64) -> (Shape, Vec<Step>) {
    let mut rng = Rng(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut pick = |choices: &[u64]| choices[rng.below(choices.len() as u64) as usize];
    let segment_size = pick(&[256, 512, 1024, 2048, 1 << 16]);
    let longest = match segment_size {
        // So much that it is compacted by itself.
        65_536 => pick(&[300, 30_000]),
        2048 => pick(&[60, 3000]),
        _ => pick(&[30, 120, 300]),
    };
    let keys = pick(&[5, 12, 60]);
    let shape = Shape {
        segment_size,
        hash_bits: pick(&[48, 48, 4, 2]) as u8,
        syncs_every_write: pick(&[0, 1]) == 1,
        write_back_bytes: pick(&[0, 0, 0, 600, 4000]) as usize,
        compresses: pick(&[0, 0, 1]) == 1,
        preads: pick(&[0, 0, 1]) == 1,
        cached: pick(&[0, 0, 3, 20]) as usize,
        verifies_every_read: pick(&[0, 1]) == 1,
        seed: rng.next(),
    };
    let mut steps = Steps {
        rng: &mut rng,
        keys,
        longest,
    };
    let steps = steps.list(EPISODE);
    (shape, steps)
}

/// A step as it is written in a test.
fn as_code(step: &Step) -> String {
    if let Step::Batch(writes) = step {
        let writes: Vec<_> = writes.iter().map(as_code).collect();
        return format!("Step::Batch(vec![{}])", writes.join(", "));
    }
    let mut code = format!("Step::{step:?}");
    for plan in ["LoseAll", "KeepAll", "Random("] {
        code = code.replace(plan, &format!("CrashPlan::{plan}"));
    }
    code
}

/// A failure as a test to be pasted.
fn as_test(shape: Shape, steps: &[Step]) -> String {
    let steps = steps
        .iter()
        .map(|step| format!("        {},\n", as_code(step)));
    let steps: String = steps.collect();
    format!(
        "#[test]\nfn name_what_went_wrong() {{\n    let shape = {shape:?};\n    \
         let steps = [\n{steps}    ];\n    run(shape, &steps).unwrap();\n}}"
    )
}

#[test]
fn a_store_is_a_map_in_every_mode_whatever_happens_to_it() {
    let layer = Layer::begin("model", "operations", 1_000_000);
    let seed = seed(40);
    let counts = Mutex::new(Counts::default());
    let failed = Mutex::new(None);
    let is_over = AtomicBool::new(false);
    in_two_threads(layer.goal().div_ceil(EPISODE), |number| {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let (shape, steps) = episode(seed, number);
        if let Ok(done) = run(shape, &steps) {
            layer.add(done.steps);
            counts.lock().unwrap().add(done);
        } else {
            is_over.store(true, Ordering::Relaxed);
            failed.lock().unwrap().get_or_insert(number);
        }
    });
    if let Some(number) = failed.into_inner().unwrap() {
        let (shape, steps) = episode(seed, number);
        let why = run(shape, &steps).unwrap_err();
        // What a planted bug does nobody has to understand.
        let is_planted = std::env::var_os("CRABKV_BUG").is_some();
        let patience = if is_planted { Duration::ZERO } else { PATIENCE };
        let steps = shrink(&steps, patience, |steps| run(shape, steps).is_err());
        let short = run(shape, &steps).unwrap_err();
        panic!(
            "CRABKV_SEED={seed}, episode {number}: {why}\n\nIn {} steps: {short}\n\n{}\n",
            steps.len(),
            as_test(shape, &steps)
        );
    }
    let counts = counts.into_inner().unwrap();
    // Or it would show little.
    for count in [counts.within, counts.again, counts.lost, counts.restores] {
        assert!(count > 0, "{counts:?}");
    }
    layer.end(&format!("{counts:?}"));
}

#[test]
fn a_failure_is_printed_as_a_test() {
    let shape = episode(1, 0).0;
    let steps = [
        Step::Batch(vec![Step::Put(3, 17), Step::Delete(0)]),
        Step::CrashWithin(4, 0, CrashPlan::LoseAll),
    ];
    let test = as_test(shape, &steps);
    let lines: Vec<_> = test.lines().collect();
    assert!(lines[2].starts_with("    let shape = Shape { seed: "));
    assert_eq!(
        lines[3..],
        [
            "    let steps = [",
            "        Step::Batch(vec![Step::Put(3, 17), Step::Delete(0)]),",
            "        Step::CrashWithin(4, 0, CrashPlan::LoseAll),",
            "    ];",
            "    run(shape, &steps).unwrap();",
            "}",
        ]
    );
}

#[test]
fn a_kill_takes_what_waits_in_a_buffer_and_nothing_that_was_flushed() {
    let shape = Shape {
        write_back_bytes: 1000,
        syncs_every_write: false,
        ..episode(1, 0).0
    };
    let lossy = [Step::Put(1, 10), Step::Crash(CrashPlan::KeepAll)];
    assert_eq!(run(shape, &lossy).unwrap().lost, 1);
    let kept = [
        Step::Put(1, 10),
        Step::Flush,
        Step::Crash(CrashPlan::KeepAll),
    ];
    assert_eq!(run(shape, &kept).unwrap().lost, 0);
}

/// So many keys that pages of the index split. All are looked at again and again before an opening
/// makes the index anew.
#[test]
fn no_key_is_lost_while_the_index_grows() {
    let shape = Shape {
        segment_size: 1 << 16,
        hash_bits: 48,
        syncs_every_write: false,
        write_back_bytes: 0,
        ..episode(1, 0).0
    };
    let steps = (1..=4000).flat_map(|number| {
        let look = (number % 100 == 0).then_some(Step::Iterate(number / 2));
        std::iter::once(Step::Put(number, 10)).chain(look)
    });
    run(shape, &steps.collect::<Vec<_>>()).unwrap();
}
