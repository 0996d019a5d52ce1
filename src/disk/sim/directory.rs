//! A directory: its durable names, the changes that no sync has made durable yet, and the names
//! that both together show.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::file::FileId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirId(pub(super) usize);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    File(FileId),
    Directory(DirId),
}

pub(super) type Entries = BTreeMap<String, Target>;

/// A change of a directory's names.
///
/// Each says which file it is about, so that it has a meaning after a crash that lost some of the
/// changes before it.
#[derive(Clone, Debug)]
pub(super) enum DirOp {
    Link { name: String, target: Target },
    Unlink { name: String, target: Target },
    Rename { to: String, target: Target },
}

impl DirOp {
    /// Applies the change to names among which earlier changes may be missing.
    pub(super) fn apply(&self, entries: &mut Entries) {
        match self {
            DirOp::Link { name, target } => {
                entries.insert(name.clone(), *target);
            }
            DirOp::Unlink { name, target } => {
                // The name may be missing, or stand for an older file whose removal was lost.
                if entries.get(name) == Some(target) {
                    entries.remove(name);
                }
            }
            DirOp::Rename { to, target } => {
                // The file may have an older name, or none at all when its creation was lost.
                entries.retain(|_, other| other != target);
                entries.insert(to.clone(), *target);
            }
        }
    }

    pub(super) fn target(&self) -> Target {
        match self {
            DirOp::Link { target, .. }
            | DirOp::Unlink { target, .. }
            | DirOp::Rename { target, .. } => *target,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) durable: Arc<Entries>,
    pub(super) volatile: Arc<Entries>,
    /// What a sync will make durable, each with its place in the order of all changes.
    pub(super) unsynced: Vec<(u64, DirOp)>,
}

impl Directory {
    pub(super) fn change(&mut self, order: u64, op: DirOp) {
        op.apply(Arc::make_mut(&mut self.volatile));
        self.unsynced.push((order, op));
    }

    pub(super) fn sync(&mut self) {
        self.unsynced.clear();
        self.durable = Arc::clone(&self.volatile);
    }

    /// Everything that a name stands for, or may stand for after a crash.
    pub(super) fn targets(&self) -> impl Iterator<Item = Target> {
        let unsynced = self.unsynced.iter().map(|(_, op)| op.target());
        let durable = self.durable.values().copied();
        durable
            .chain(self.volatile.values().copied())
            .chain(unsynced)
    }
}
