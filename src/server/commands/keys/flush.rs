//! `FLUSHALL` and `FLUSHDB`: every key is deleted, one by one, since the log is the data.
//!
//! A store whose keys fit one batch is emptied by it, with nobody else writing, so that others see
//! all keys or none. In a larger one they go a thousand at a time, and others see fewer and fewer;
//! what they put meanwhile may stay or go.

use std::sync::PoisonError;

use crabkv::WriteBatch;

use super::super::{Call, Failure, is};
use super::walk::STEP;
use crate::server::event_loop::Shared;
use crate::server::keyspace::Keyspace;

/// As much as is held in memory, and written while others wait.
const BATCH_KEYS: usize = 20_000;
const BATCH_BYTES: usize = 4 << 20;

pub(super) fn flush(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    match call.words[1..] {
        [] => {}
        // It is done when it is answered, either way.
        [word] if is(word, "sync") || is(word, "async") => {}
        _ => return Err(Failure::syntax()),
    }
    if call.keyspace.is_transaction() {
        flush_within(call.keyspace)?;
        call.reply.ok();
        return Ok(());
    }
    call.later(|shared, reply| {
        if !flush_at_once(shared)? {
            flush_by_steps(shared)?;
        }
        reply.ok();
        Ok(())
    });
    Ok(())
}

/// As a part of a transaction, which is held in memory.
fn flush_within(keyspace: &Keyspace<'_>) -> Result<(), Failure> {
    let mut deleted = keyspace.pending_keys();
    let mut position = Some(0);
    while let Some(at) = position {
        let (some, next) = keyspace.scan(at, STEP)?;
        deleted.extend(some);
        position = next;
        if deleted.len() > BATCH_KEYS {
            return Err(Failure::new(
                "ERR too many keys to delete in a transaction: flush outside of it",
            ));
        }
    }
    for key in deleted {
        keyspace.delete(&key)?;
    }
    Ok(())
}

/// Says `false`, and does nothing, if there are too many keys.
fn flush_at_once(shared: &Shared) -> Result<bool, Failure> {
    if shared.store.len() > BATCH_KEYS {
        return Ok(false);
    }
    let _alone = shared.turns.write().unwrap_or_else(PoisonError::into_inner);
    let mut batch = WriteBatch::new();
    let mut bytes = 0;
    for key in shared.store.keys() {
        let key = key?;
        bytes += key.len();
        if bytes > BATCH_BYTES {
            return Ok(false);
        }
        batch.delete(key)?;
    }
    write(shared, &batch)?;
    Ok(true)
}

fn flush_by_steps(shared: &Shared) -> Result<(), Failure> {
    let mut batch = WriteBatch::new();
    let mut position = Some(0);
    while let Some(at) = position {
        // Transactions come between the steps, and never see one.
        let _turn = shared.turns.read().unwrap_or_else(PoisonError::into_inner);
        let some = shared.store.scan_keys(at, STEP)?;
        batch.clear();
        for key in &some.keys {
            batch.delete(key)?;
        }
        write(shared, &batch)?;
        position = some.next;
    }
    Ok(())
}

fn write(shared: &Shared, batch: &WriteBatch) -> Result<(), Failure> {
    if !batch.is_empty() {
        shared.syncer.write(|| shared.store.write(batch))?;
    }
    Ok(())
}
