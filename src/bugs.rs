//! Deliberate bugs, for the tests' own test: `tests/bed/bug_bank.rs` plants each of them in turn, and
//! the layer of the test bed that is there for it must fail.
//!
//! Only the feature `bug-bank` makes them possible, which nothing turns on but the repository's own
//! tests: without it [`is_planted`] is a constant, and the code around it what it would be without
//! these lines. With it, one bug is planted for the life of the process, by its name in the
//! environment variable `CRABKV_BUG`.

/// Declares the bugs, each with what it breaks.
macro_rules! bugs {
    ($($(#[doc = $breaks:literal])+ $name:ident,)+) => {
        /// What can be done wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($(#[doc = $breaks])+ $name,)+
        }

        /// The name of every bug, and what it breaks.
        #[cfg(feature = "bug-bank")]
        pub const BUGS: &[(&str, &str)] = &[$((stringify!($name), concat!($($breaks),+)),)+];

        #[cfg(feature = "bug-bank")]
        const ALL: &[Bug] = &[$(Bug::$name),+];
    };
}

bugs! {
    // The log and its manifest.
    /// A manifest is acknowledged before the directory is synced that has its name.
    SkipDirectorySync,
    /// A manifest can become durable before the names of the files that it names.
    NameManifestBeforeItsFiles,
    /// A manifest gets its name before its bytes are durable.
    RenameUnsyncedManifest,
    /// The next segment begins before the one that is sealed is durable.
    RotateBeforeSync,
    /// A file id is told from the segments that there are, so that it is given again.
    ReuseFileId,
    /// A segment that was closed is appended to without the manifest saying so.
    AppendUnannounced,
    /// What a refused write left in the append buffer stays there, and is written later.
    KeepRefusedWrite,
    /// What a refused write left in the file is cut off, but not durably.
    CutRefusedWriteUnsynced,

    // Writes.
    /// A write returns before its `fdatasync`.
    AcknowledgeBeforeSync,
    /// Readers see a write before it is durable.
    PublishBeforeSync,
    /// A failed sync is tried again, and believed.
    RetrySync,
    /// Those who wait for a failed sync are told that it succeeded.
    TellWaitersOk,
    /// After a failed sync the store goes on taking writes.
    GoOnAfterFailedSync,
    /// The records of a batch are written one by one, so that a crash or a rotation splits it.
    SplitBatch,
    /// Keys of one batch that share a hash are not marked as colliding.
    MissCollisionInBatch,
    /// An overwritten key is told by the bits of its hash that the index has, not by itself.
    CompareTagsOnly,
    /// The expiry of what waits in the write-back buffer is lost when that is flushed.
    LoseTtlOnFlush,
    /// The time that values have been seen to expire at is forgotten at a restart.
    ForgetClock,
    /// A value is still there in the millisecond that it expires in.
    ExpireLate,
    /// Records say that nothing before them is durable.
    NeverAdvanceSyncedUpto,

    // Recovery.
    /// The whole records of a batch are taken whose frame is torn.
    AcceptTornBatch,
    /// Nobody looks behind a broken record for one that proves that it had been durable.
    SkipLookAhead,
    /// What nothing proves to be durable is trusted, and not written again.
    TrustUnprovenTail,
    /// Checksums do not depend on the segment's salt, so that bytes of another life decode.
    IgnoreSalt,
    /// The sequence numbers of writes that a crash took are given again.
    ReuseSequenceNumbers,
    /// A segment that ends too early is taken to end there.
    TakeShortFileAsWhole,
    /// Loading an index takes the newest record of a hash, also where keys share it.
    IgnoreCollisions,
    /// A hint file is believed without its checksum.
    TrustHintWithoutChecksum,
    /// The hint file of another segment is believed.
    AcceptForeignHint,
    /// The hint file of an earlier state of the segment is believed.
    AcceptStaleHint,
    /// A footer whose figures do not fit the records is believed.
    TrustFooter,
    /// A lock is taken to be left over, by the text in its file, that this process holds.
    LockByText,

    // Merges.
    /// A merge drops a tombstone though an older value lies in a segment outside of it.
    DropTombstoneInMiddleMerge,
    /// A merge drops an expired value though an older one lies in a segment outside of it.
    DropExpiredInMiddleMerge,
    /// After a merge, the index is pointed at the copy of what was overwritten meanwhile.
    MoveIndexUnconditionally,
    /// A merge's inputs are removed before the manifest names its outputs.
    UnlinkBeforeCommit,
    /// A merge's outputs are named before they are durable.
    NameUnsyncedOutput,
    /// A merge gives a damaged record a new checksum.
    CopyDamage,
    /// A merge drops what was overwritten by a record that is not durable.
    MergeBeforeSync,
    /// A merge that fails for want of room takes its inputs along.
    RemoveInputsOnFullDisk,
    /// A merge that fails for want of room leaves its outputs.
    LeaveOutputsOnFullDisk,

    // Reading.
    /// A record's checksum is not looked at when it is first read.
    SkipFirstVerification,
    /// The cache knows values by their keys, not by the records they are of.
    CacheByKey,
    /// A page of the index that is split loses an entry.
    LoseSlotInGrowth,
    /// The index keeps twelve bits of an offset, where thirty-two would be too few in a larger segment.
    NarrowOffset,

    // Checkpoints, verification, repair, followers.
    /// A checkpoint's copies get their names before they are durable.
    NameUnsyncedCopy,
    /// The files of the old checkpoint are removed before the new one is committed.
    RemoveOldCheckpointFirst,
    /// Verification passes a hint file that lists something else than its segment holds.
    VerifyPassesHint,
    /// What stands behind damage in a segment is neither verified nor saved.
    SalvageStopsAtDamage,
    /// A follower takes a copy that a merge made for a new write.
    FollowerTakesCopyForNews,
}

/// Whether this bug is planted.
#[cfg(not(feature = "bug-bank"))]
#[inline(always)]
pub(crate) const fn is_planted(_bug: Bug) -> bool {
    false
}

/// Whether this bug is planted.
///
/// # Panics
///
/// When `CRABKV_BUG` names none.
#[cfg(feature = "bug-bank")]
pub(crate) fn is_planted(bug: Bug) -> bool {
    use std::sync::OnceLock;

    static PLANTED: OnceLock<Option<Bug>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var("CRABKV_BUG").ok()?;
        let place = BUGS.iter().position(|(other, _)| *other == name);
        let place = place.unwrap_or_else(|| panic!("CRABKV_BUG: there is no bug {name}"));
        Some(ALL[place])
    });
    *planted == Some(bug)
}
