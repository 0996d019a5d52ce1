//! The write-back buffer: puts that wait in memory, so that many to one key cost one record.
//!
//! In this mode everything that writes goes through the buffer, so that what is in it is always
//! newer than what is in the log. A flush writes all of it as one batch frame: a crash keeps all
//! of a flush or nothing. While it is on its way to the log, readers still find it here.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::engine::Engine;
use super::value::Value;
use crate::bugs::{Bug, is_planted};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::batch::FRAME_OVERHEAD;
use crate::format::{MAX_BATCH_BYTES, MAX_KEY_LEN, MAX_VALUE_LEN};
use crate::sync::{Mutex, RwLock, RwLockWriteGuard};

/// How many bytes of keys and values wait at most, unless the builder says otherwise: 8 MiB.
pub(crate) const DEFAULT_WRITE_BACK_BYTES: usize = 8 << 20;

/// What an entry takes beyond its key and value, about: more than its record's header, expiry and
/// padding, so that what is counted here is never less than the frame that it makes.
const ENTRY_OVERHEAD: usize = 96;

/// How much waits at the very most, so that a flush always fits one frame.
const MAX_BUFFERED_BYTES: usize = MAX_BATCH_BYTES as usize - FRAME_OVERHEAD;

const _: () = assert!(MAX_BUFFERED_BYTES > MAX_VALUE_LEN + MAX_KEY_LEN + ENTRY_OVERHEAD);

/// A write that waits.
#[derive(Clone)]
pub(crate) enum Buffered {
    Put {
        value: Arc<[u8]>,
        expires_at_ms: Option<u64>,
    },
    Delete,
}

type Entries = HashMap<Box<[u8]>, Buffered>;

#[derive(Default)]
struct Buffers {
    current: Entries,
    current_bytes: usize,
    /// What a flush is writing to the log, or could not write.
    flushing: Option<Arc<Entries>>,
}

impl Buffered {
    fn value_len(&self) -> usize {
        match self {
            Buffered::Put { value, .. } => value.len(),
            Buffered::Delete => 0,
        }
    }
}

impl Buffers {
    /// Whether as much more can still be flushed in one frame.
    fn has_room(&self, len: usize) -> bool {
        self.current.is_empty() || self.current_bytes.saturating_add(len) <= MAX_BUFFERED_BYTES
    }

    fn get(&self, key: &[u8]) -> Option<&Buffered> {
        self.current
            .get(key)
            .or_else(|| self.flushing.as_ref()?.get(key))
    }

    fn insert(&mut self, key: &[u8], write: Buffered) {
        self.current_bytes += write.value_len();
        if let Some(old) = self.current.get_mut(key) {
            self.current_bytes -= old.value_len();
            *old = write;
        } else {
            self.current_bytes += key.len() + ENTRY_OVERHEAD;
            self.current.insert(key.into(), write);
        }
    }
}

pub(crate) struct WriteBack {
    buffers: RwLock<Buffers>,
    /// One flush at a time, in order.
    flush: Mutex<()>,
    max_bytes: usize,
}

impl WriteBack {
    pub(crate) fn new(max_bytes: usize) -> WriteBack {
        WriteBack {
            buffers: RwLock::default(),
            flush: Mutex::default(),
            max_bytes,
        }
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Buffers> {
        self.buffers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits for a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Buffered> {
        self.buffers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    fn is_full(&self) -> bool {
        let buffers = self.buffers.read().unwrap_or_else(PoisonError::into_inner);
        buffers.current_bytes > self.max_bytes
    }

    /// How many keys wait, and about how many bytes they take.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let buffers = self.buffers.read().unwrap_or_else(PoisonError::into_inner);
        (buffers.current.len(), buffers.current_bytes)
    }
}

impl<D: Disk> Engine<D> {
    /// Adds writes to the buffer, all at once. What would make it too large for one frame is
    /// preceded by a flush.
    pub(crate) fn buffer_writes<'a>(
        &self,
        buffer: &WriteBack,
        ops: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>, Option<u64>)> + Clone,
    ) -> Result<()> {
        let len = |(key, value, _): (&[u8], Option<&[u8]>, _)| {
            key.len() + value.map_or(0, <[u8]>::len) + ENTRY_OVERHEAD
        };
        let len: usize = ops.clone().map(len).sum();
        if len > MAX_BUFFERED_BYTES {
            return Err(Error::BatchTooLarge {
                len: len as u64,
                max: MAX_BUFFERED_BYTES as u64,
            });
        }
        loop {
            let mut buffers = buffer.lock();
            if buffers.has_room(len) {
                for (key, value, expires_at_ms) in ops {
                    let write = value.map_or(Buffered::Delete, |value| Buffered::Put {
                        value: value.into(),
                        expires_at_ms,
                    });
                    buffers.insert(key, write);
                }
                return Ok(());
            }
            drop(buffers);
            self.flush_write_back()?;
        }
    }

    /// Decides and writes under the buffer's lock: nobody else writes meanwhile. `decide` is
    /// shown what is in the buffer, or else in the log.
    pub(crate) fn modify_buffered<T>(
        &self,
        buffer: &WriteBack,
        key: &[u8],
        mut decide: impl FnMut(Option<&Value>) -> Result<(super::write::Change, T)>,
    ) -> Result<T> {
        use super::write::Change;
        super::batch::check_key(key)?;
        let result = loop {
            let mut buffers = buffer.lock();
            let current = match buffers.get(key) {
                Some(write) => self.buffered_value(write.clone()),
                None => self.get_in_log(key)?,
            };
            let (change, result) = decide(current.as_ref())?;
            let write = match change {
                Change::Nothing => return Ok(result),
                Change::Put {
                    value,
                    expires_at_ms,
                } => {
                    super::batch::check_value(&value)?;
                    Buffered::Put {
                        value: value.into(),
                        expires_at_ms,
                    }
                }
                Change::Delete => Buffered::Delete,
            };
            if buffers.has_room(key.len() + write.value_len() + ENTRY_OVERHEAD) {
                buffers.insert(key, write);
                break result;
            }
            drop(buffers);
            self.flush_write_back()?;
        };
        self.flush_if_full(buffer)?;
        Ok(result)
    }

    /// The value of a buffered write, if it is a put that has not expired.
    pub(crate) fn buffered_value(&self, write: Buffered) -> Option<Value> {
        match write {
            Buffered::Put {
                value,
                expires_at_ms,
            } => {
                let expired = expires_at_ms.is_some_and(|expiry| self.clock.has_passed(expiry));
                (!expired).then(|| Value::owned(value, None, expires_at_ms))
            }
            Buffered::Delete => None,
        }
    }

    pub(crate) fn flush_if_full(&self, buffer: &WriteBack) -> Result<()> {
        if buffer.is_full() {
            self.flush_write_back()
        } else {
            Ok(())
        }
    }

    /// Writes what waits to the log, as one batch. What cannot be written goes on waiting, apart
    /// from what comes meanwhile, and is written first the next time.
    pub(crate) fn flush_write_back(&self) -> Result<()> {
        let Some(buffer) = &self.write_back else {
            return Ok(());
        };
        let _one = buffer.flush.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (entries, is_left_over) = {
                let mut buffers = buffer.lock();
                if let Some(entries) = &buffers.flushing {
                    (Arc::clone(entries), true)
                } else if buffers.current.is_empty() {
                    return Ok(());
                } else {
                    let entries = Arc::new(std::mem::take(&mut buffers.current));
                    buffers.current_bytes = 0;
                    buffers.flushing = Some(Arc::clone(&entries));
                    (entries, false)
                }
            };
            self.write_ops(entries.iter().map(|(key, write)| match write {
                Buffered::Put {
                    value,
                    expires_at_ms,
                } => {
                    let keeps = !is_planted(Bug::LoseTtlOnFlush);
                    (&**key, Some(&**value), expires_at_ms.filter(|_| keeps))
                }
                Buffered::Delete => (&**key, None, None),
            }))?;
            buffer.lock().flushing = None;
            if !is_left_over {
                return Ok(());
            }
        }
    }
}
