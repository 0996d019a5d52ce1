//! The write-back buffer: puts that wait in memory, so that many to one key cost one record.
//!
//! In this mode everything that writes goes through the buffer, so that what is in it is always
//! newer than what is in the log. A flush writes all of it as one batch frame: a crash keeps all
//! of a flush or nothing. While it is on its way to the log, readers still find it here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use super::engine::Engine;
use super::value::Value;
use crate::disk::Disk;
use crate::error::Result;

/// How many bytes of keys and values wait at most, unless the builder says otherwise: 8 MiB.
pub(crate) const DEFAULT_WRITE_BACK_BYTES: usize = 8 << 20;

/// What an entry takes beyond its key and value, about.
const ENTRY_OVERHEAD: usize = 96;

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
    /// What a flush is writing to the log.
    flushing: Option<Arc<Entries>>,
}

impl Buffers {
    fn get(&self, key: &[u8]) -> Option<&Buffered> {
        self.current
            .get(key)
            .or_else(|| self.flushing.as_ref()?.get(key))
    }

    fn insert(&mut self, key: &[u8], write: Buffered) {
        let value_len = |write: &Buffered| match write {
            Buffered::Put { value, .. } => value.len(),
            Buffered::Delete => 0,
        };
        self.current_bytes += value_len(&write);
        if let Some(old) = self.current.get_mut(key) {
            self.current_bytes -= value_len(old);
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

    pub(crate) fn put(&self, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) {
        let write = Buffered::Put {
            value: value.into(),
            expires_at_ms,
        };
        self.lock().insert(key, write);
    }

    /// Adds the writes of a batch at once.
    pub(crate) fn write<'a>(
        &self,
        ops: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>, Option<u64>)>,
    ) {
        let mut buffers = self.lock();
        for (key, value, expires_at_ms) in ops {
            let write = match value {
                Some(value) => Buffered::Put {
                    value: value.into(),
                    expires_at_ms,
                },
                None => Buffered::Delete,
            };
            buffers.insert(key, write);
        }
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
        let result = {
            let mut buffers = buffer.lock();
            let current = match buffers.get(key) {
                Some(write) => self.buffered_value(write.clone()),
                None => self.get_in_log(key)?,
            };
            let (change, result) = decide(current.as_ref())?;
            match change {
                Change::Nothing => return Ok(result),
                Change::Put {
                    value,
                    expires_at_ms,
                } => {
                    super::batch::check_value(&value)?;
                    buffers.insert(
                        key,
                        Buffered::Put {
                            value: value.into(),
                            expires_at_ms,
                        },
                    );
                }
                Change::Delete => buffers.insert(key, Buffered::Delete),
            }
            result
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

    /// Writes what waits to the log, as one batch. What cannot be written goes on waiting.
    pub(crate) fn flush_write_back(&self) -> Result<()> {
        let Some(buffer) = &self.write_back else {
            return Ok(());
        };
        let _one = buffer.flush.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = {
            let mut buffers = buffer.lock();
            if buffers.current.is_empty() {
                return Ok(());
            }
            let entries = Arc::new(std::mem::take(&mut buffers.current));
            buffers.current_bytes = 0;
            buffers.flushing = Some(Arc::clone(&entries));
            entries
        };
        let written = self.write_ops(entries.iter().map(|(key, write)| match write {
            Buffered::Put {
                value,
                expires_at_ms,
            } => (&**key, Some(&**value), *expires_at_ms),
            Buffered::Delete => (&**key, None, None),
        }));
        let mut buffers = buffer.lock();
        buffers.flushing = None;
        if written.is_err() {
            for (key, write) in entries.iter() {
                // What was put meanwhile is newer.
                if !buffers.current.contains_key(key) {
                    buffers.insert(key, write.clone());
                }
            }
        }
        written
    }
}
