//! The store that the shell keeps open from line to line: for writing if it can be, else read-only,
//! and not at all while there is none.

use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crabkv::{CrabKvBuilder, Error, Store};

use super::compact;
use super::context::{Context, IfMissing};
use super::exit::Failure;

pub(crate) struct Session {
    store: Mutex<Option<Store>>,
    /// Never to be opened for writing.
    only_reads: bool,
}

impl Session {
    pub(crate) fn new(only_reads: bool) -> Session {
        Session {
            store: Mutex::new(None),
            only_reads,
        }
    }

    fn store(&self) -> MutexGuard<'_, Option<Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is open for reading only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.store().as_ref().is_some_and(Store::is_read_only)
    }

    /// The store as it is now.
    pub(crate) fn to_read(&self, context: &Context) -> Result<Store, Failure> {
        let mut held = self.store();
        let store = match &*held {
            Some(store) => {
                store.refresh()?;
                store.clone()
            }
            None => held.insert(self.open(context)?).clone(),
        };
        Ok(store)
    }

    /// The store, to be written to. Whoever kept it from that at the beginning may be gone.
    pub(crate) fn to_write(
        &self,
        context: &Context,
        if_missing: IfMissing,
    ) -> Result<Store, Failure> {
        let mut held = self.store();
        match &*held {
            Some(store) if !store.is_read_only() => return Ok(store.clone()),
            _ if self.only_reads => {
                let message = "this shell only reads; start it without --read-only to write";
                return Err(Failure::Usage(message.to_owned()));
            }
            _ => {}
        }
        let store = context.open(if_missing, configure)?;
        if held.is_some() {
            context.note("the store is open for writing now");
        }
        Ok(held.insert(store).clone())
    }

    /// For writing if possible, without making a store.
    fn open(&self, context: &Context) -> Result<Store, Failure> {
        if self.only_reads {
            return context.open_read_only();
        }
        match context.open(IfMissing::Fail, configure) {
            Err(Failure::Store(error)) if is_no_hindrance_to_reading(&error) => {
                let store = context.open_read_only()?;
                context.note(format_args!("only reading: {error}"));
                Ok(store)
            }
            opened => opened,
        }
    }

    /// Closes it, until it is needed again.
    pub(crate) fn let_go(&self, context: &Context) {
        if let Some(store) = self.store().take() {
            if !store.is_read_only() {
                context.close(&store);
            }
        }
    }
}

/// The bar of `compact` is told how far merges have come; without one, as when a write has
/// compacted a little, nothing is shown.
fn configure(builder: CrabKvBuilder) -> CrabKvBuilder {
    builder.on_compaction_progress(compact::show_progress)
}

/// Whether a store that cannot be opened for writing can perhaps be read.
fn is_no_hindrance_to_reading(error: &Error) -> bool {
    match error {
        Error::Locked { .. } => true,
        Error::Io { source, .. } => matches!(
            source.kind(),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
        ),
        _ => false,
    }
}
