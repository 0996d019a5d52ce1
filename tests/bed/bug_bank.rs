//! The tests' own test: deliberate bugs are planted one by one, and the layer of the test bed that is
//! there for each must fail.
//!
//! The bugs are in `src/bugs.rs` and behind the feature `bug-bank`. For each, this binary runs
//! itself again with one test and `CRABKV_BUG`, and reads of what it failed. That the same tests
//! pass without a bug is what the rest of the bed's run says.
//!
//! `CRABKV_BUG=SkipDirectorySync cargo bed crash::` plants one by hand.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crabkv::BUGS;

use crate::common::in_two_threads;
use crate::layer::{say, skip};

/// How long a layer may take to notice; programs for Windows are slower under Wine.
const PATIENCE: Duration = Duration::from_secs(if cfg!(windows) { 180 } else { 60 });

/// How many bugs there have to be.
const BAR: u64 = 25;

/// How much of a failure is shown.
const MESSAGE_LEN: usize = 120;

/// What a test of the harness ends with that has failed; anything else is no catch.
const TESTS_FAILED: i32 = 101;

/// Which test must catch which bug.
const CAUGHT_BY: &[(&str, &str)] = &[
    // The log and its manifest.
    ("SkipDirectorySync", SHORT_CRASHES),
    ("NameManifestBeforeItsFiles", SHORT_CRASHES),
    ("RenameUnsyncedManifest", SHORT_CRASHES),
    ("RotateBeforeSync", SHORT_CRASHES),
    ("ReuseFileId", MODEL),
    ("AppendUnannounced", SHORT_CRASHES),
    ("KeepRefusedWrite", "faults::every_disk_operation_may_fail"),
    (
        "CutRefusedWriteUnsynced",
        "concurrency::a_group_that_a_full_disk_refused_does_not_come_back_in_a_power_cut",
    ),
    // Writes.
    ("AcknowledgeBeforeSync", SHORT_CRASHES),
    ("PublishBeforeSync", FAILED_SYNC),
    ("RetrySync", FAILED_SYNC),
    ("TellWaitersOk", FAILED_SYNC),
    ("GoOnAfterFailedSync", FAILED_SYNC),
    ("SplitBatch", SHORT_CRASHES),
    ("MissCollisionInBatch", GHOSTS),
    ("CompareTagsOnly", MODEL),
    ("LoseTtlOnFlush", MODEL),
    ("ForgetClock", GHOSTS),
    (
        "ExpireLate",
        "ghosts::an_expired_value_merged_without_the_segment_of_the_older_one_still_hides_it",
    ),
    ("NeverAdvanceSyncedUpto", DURABLE_DAMAGE),
    // Recovery.
    ("AcceptTornBatch", SHORT_CRASHES),
    ("SkipLookAhead", DURABLE_DAMAGE),
    ("TrustUnprovenTail", FAILED_SYNC),
    (
        "IgnoreSalt",
        "recovery::bytes_of_another_life_of_a_file_are_no_records",
    ),
    (
        "ReuseSequenceNumbers",
        "recovery::versions_that_a_crash_took_are_not_given_again",
    ),
    (
        "TakeShortFileAsWhole",
        "recovery::every_truncation_is_an_error_or_does_not_matter",
    ),
    ("IgnoreCollisions", MODEL),
    ("TrustHintWithoutChecksum", FOREIGN_HINT),
    ("AcceptForeignHint", FOREIGN_HINT),
    ("AcceptStaleHint", FOREIGN_HINT),
    (
        "TrustFooter",
        "recovery::a_footer_that_does_not_fit_its_records_is_refused",
    ),
    ("LockByText", "locks::a_process_does_not_open_a_store_twice"),
    // Merges.
    (
        "DropTombstoneInMiddleMerge",
        "ghosts::a_tombstone_merged_without_the_segment_of_the_value_stays_basho_82",
    ),
    (
        "DropExpiredInMiddleMerge",
        "ghosts::an_expired_value_merged_without_the_segment_of_the_older_one_still_hides_it",
    ),
    (
        "MoveIndexUnconditionally",
        "compaction::a_write_of_every_kind_at_any_step_of_a_merge_wins_over_the_copy",
    ),
    ("UnlinkBeforeCommit", MERGE_CRASHES),
    ("NameUnsyncedOutput", MERGE_CRASHES),
    (
        "CopyDamage",
        "compaction::a_damaged_record_stops_a_merge_that_leaves_everything_as_it_was",
    ),
    (
        "MergeBeforeSync",
        "compaction::a_merge_drops_nothing_that_only_an_unsynced_write_replaced",
    ),
    ("RemoveInputsOnFullDisk", FULL_MERGE),
    ("LeaveOutputsOnFullDisk", FULL_MERGE),
    // Reading.
    (
        "SkipFirstVerification",
        "recovery::every_flipped_bit_is_an_error_or_does_not_matter",
    ),
    ("CacheByKey", MODEL),
    (
        "LoseSlotInGrowth",
        "model::no_key_is_lost_while_the_index_grows",
    ),
    ("NarrowOffset", MODEL),
    // Checkpoints, verification, repair, followers.
    (
        "NameUnsyncedCopy",
        "checkpoint_faults::a_crash_anywhere_in_a_restore_leaves_no_store_or_a_whole_one",
    ),
    (
        "RemoveOldCheckpointFirst",
        "checkpoint_faults::a_crash_anywhere_leaves_the_old_checkpoint_or_the_new_one",
    ),
    (
        "VerifyPassesHint",
        "verify::a_hint_file_with_a_good_checksum_that_lists_something_else_is_damaged",
    ),
    (
        "SalvageStopsAtDamage",
        "damage::damage_is_found_or_does_not_matter_and_costs_at_most_its_records",
    ),
    (
        "FollowerTakesCopyForNews",
        "follower::nothing_that_was_deleted_comes_back_to_a_follower",
    ),
];

const SHORT_CRASHES: &str = "crash::short_workloads_survive_a_crash_anywhere";
const MODEL: &str = "model::a_store_is_a_map_in_every_mode_whatever_happens_to_it";
const FAILED_SYNC: &str = "faults::a_failed_sync_poisons_the_store_until_it_is_opened_again";
const GHOSTS: &str = "ghosts::a_million_operations_bring_nothing_back";
const DURABLE_DAMAGE: &str =
    "recovery::damage_before_durable_data_is_an_error_that_names_file_and_offset";
const FOREIGN_HINT: &str =
    "ghosts::a_hint_file_that_is_not_this_segment_s_own_hides_no_older_value_from_a_merge";
const MERGE_CRASHES: &str =
    "compaction::a_crash_at_any_operation_of_a_partial_merge_changes_nothing";
const FULL_MERGE: &str =
    "compaction::a_disk_that_is_full_at_any_point_of_a_merge_leaves_the_inputs_untouched";

/// Caught within a second by an unoptimised build, too: what `cargo test` plants.
const QUICK: &[&str] = &[
    "RetrySync",
    "TrustUnprovenTail",
    "DropTombstoneInMiddleMerge",
    "LockByText",
    "FollowerTakesCopyForNews",
];

/// A child that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one test of this binary with a bug planted; gives how it ended, if it did in time, and all
/// that it said.
fn run(bug: &str, test: &str) -> (Option<ExitStatus>, String) {
    let mut output = tempfile::tempfile().unwrap();
    let handle = |file: &File| Stdio::from(file.try_clone().unwrap());
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("CRABKV_BUG", bug)
        // The work of an ordinary run, whatever this one is.
        .env_remove("CRABKV_EFFORT")
        .env_remove("CRABKV_SEED")
        .env_remove("CRABKV_REPLAY")
        .env("RUST_BACKTRACE", "0")
        .stdout(handle(&output))
        .stderr(handle(&output))
        .spawn();
    let mut child = Ended(child.unwrap());
    let begun = Instant::now();
    let status = loop {
        match child.0.try_wait().unwrap() {
            None if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            status => break status,
        }
    };
    drop(child);
    let mut said = Vec::new();
    output.rewind().unwrap();
    output.read_to_end(&mut said).unwrap();
    (status, String::from_utf8_lossy(&said).into_owned())
}

/// What the first assertion said that failed, on one line: what follows the place where it is.
fn first_failure(said: &str) -> Option<String> {
    let mut lines = said.lines();
    lines.find(|line| line.contains("panicked at "))?;
    let mut message = lines.next()?.to_owned();
    if message.starts_with("assertion `") {
        for line in lines.take(2) {
            message = message + "; " + line.trim();
        }
    }
    Some(message.chars().take(MESSAGE_LEN).collect())
}

/// Plants a bug, and says how the test that must catch it did.
fn plant(bug: &str, test: &str) -> Result<String, String> {
    let begun = Instant::now();
    let (status, said) = run(bug, test);
    let seconds = begun.elapsed().as_secs_f64();
    if !said.contains("running 1 test\n") {
        return Err(format!("there is no test {test}"));
    }
    let Some(status) = status else {
        return Err(format!("{test} takes more than {PATIENCE:?}"));
    };
    match (status.code(), first_failure(&said)) {
        (Some(TESTS_FAILED), Some(message)) => {
            Ok(format!("caught by {test} in {seconds:.1} s: {message}"))
        }
        (Some(0), _) => Err(format!("{test} passes, in {seconds:.1} s")),
        _ => Err(format!("{test} ends with {status}: {said}")),
    }
}

#[test]
fn every_bug_has_a_layer_that_catches_it() {
    let planted: BTreeSet<_> = BUGS.iter().map(|(bug, _)| *bug).collect();
    let known: BTreeSet<_> = CAUGHT_BY.iter().map(|(bug, _)| *bug).collect();
    assert_eq!(planted, known, "the table, and the bugs that there are");
    assert_eq!(known.len(), CAUGHT_BY.len(), "a bug is there twice");
    let is_quick = |bug: &str| QUICK.contains(&bug);
    let table: Vec<_> = CAUGHT_BY
        .iter()
        .filter(|(bug, _)| !cfg!(debug_assertions) || is_quick(bug))
        .collect();
    if cfg!(debug_assertions) {
        let left_out = CAUGHT_BY.len() - table.len();
        let why = format!("{left_out} bugs, in an unoptimised build; `cargo bed` plants them");
        skip("bug bank", &why);
    }
    let missed = Mutex::new(Vec::new());
    let begun = Instant::now();
    in_two_threads(table.len() as u64, |number| {
        let (bug, test) = table[number as usize];
        match plant(bug, test) {
            Ok(caught) => say("bug bank", &format!("{bug} | {caught}")),
            Err(how) => {
                let breaks = BUGS.iter().find(|(other, _)| other == bug);
                let breaks = breaks.map_or("", |(_, breaks)| breaks.trim());
                say("bug bank", &format!("{bug} | NOT CAUGHT: {how} | {breaks}"));
                missed.lock().unwrap().push(*bug);
            }
        }
    });
    let missed = missed.into_inner().unwrap();
    let (seconds, caught) = (begun.elapsed().as_secs_f64(), table.len() - missed.len());
    say(
        "bug bank",
        &format!("{caught} of {} bugs caught | {seconds:.1} s", table.len()),
    );
    assert!(missed.is_empty(), "nothing catches {missed:?}");
    assert!(CAUGHT_BY.len() as u64 >= BAR, "{} bugs", CAUGHT_BY.len());
}
