//! A batch of writes that happen all or not at all.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use super::clock;
use crate::error::{Error, Result};
use crate::format::{MAX_KEY_LEN, MAX_VALUE_LEN};

/// Puts and deletes that are applied together: after a crash all of them are there or none.
///
/// Operations on the same key are applied in the order they were added. Keys and values are
/// copied into one buffer, so a batch can be built at leisure and used again after
/// [`clear`](WriteBatch::clear).
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::Store::open(dir.path())?;
/// store.put("old", "x")?;
/// let mut batch = crabkv::WriteBatch::new();
/// batch.put("new", "x")?.delete("old")?;
/// store.write(&batch)?;
/// assert!(store.contains_key("new")? && !store.contains_key("old")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    ops: Vec<BatchOp>,
}

#[derive(Clone, Debug)]
struct BatchOp {
    key: Range<usize>,
    /// `None` for a delete.
    value: Option<Range<usize>>,
    ttl: Ttl,
}

/// How long a put lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ttl {
    /// As long as the store's default says.
    #[default]
    Default,
    /// This long from the moment it is written.
    For(Duration),
    /// For ever, whatever the default says.
    Never,
    /// Until this moment, in milliseconds since the epoch. If that has passed, the put is a delete.
    At(u64),
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Adds a put, with the store's default TTL.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTooLarge`] and [`Error::ValueTooLarge`]; the batch is unchanged then.
    pub fn put(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut WriteBatch> {
        self.add(key.as_ref(), Some(value.as_ref()), Ttl::Default)
    }

    /// Adds a put that expires `ttl` after it is written.
    ///
    /// # Errors
    ///
    /// As [`put`](WriteBatch::put).
    pub fn put_with_ttl(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<&mut WriteBatch> {
        self.add(key.as_ref(), Some(value.as_ref()), Ttl::For(ttl))
    }

    /// Adds a put that expires at `at`, to the millisecond. If that has passed when the batch is
    /// written, it is a delete.
    ///
    /// # Errors
    ///
    /// As [`put`](WriteBatch::put).
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// let now = SystemTime::now();
    /// let mut batch = crabkv::WriteBatch::new();
    /// batch.put_expiring_at("ticket", "A7", now + Duration::from_secs(60))?;
    /// batch.put_expiring_at("receipt", "A6", now - Duration::from_secs(60))?;
    /// store.write(&batch)?;
    /// assert!(store.contains_key("ticket")? && !store.contains_key("receipt")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_expiring_at(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        at: SystemTime,
    ) -> Result<&mut WriteBatch> {
        let ttl = Ttl::At(clock::ms_of(at));
        self.add(key.as_ref(), Some(value.as_ref()), ttl)
    }

    /// Adds a put that never expires, whatever the store's default TTL says.
    ///
    /// # Errors
    ///
    /// As [`put`](WriteBatch::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let minute = std::time::Duration::from_secs(60);
    /// let store = crabkv::Store::builder(dir.path()).default_ttl(minute).build_store()?;
    /// let mut batch = crabkv::WriteBatch::new();
    /// batch.put("brief", "1")?.put_without_expiry("lasting", "2")?;
    /// store.write(&batch)?;
    /// assert!(store.expires_at("brief")?.is_some());
    /// assert_eq!(store.expires_at("lasting")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_without_expiry(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut WriteBatch> {
        self.add(key.as_ref(), Some(value.as_ref()), Ttl::Never)
    }

    /// Adds a delete.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTooLarge`].
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<&mut WriteBatch> {
        self.add(key.as_ref(), None, Ttl::Default)
    }

    fn add(&mut self, key: &[u8], value: Option<&[u8]>, ttl: Ttl) -> Result<&mut WriteBatch> {
        check_key(key)?;
        value.map_or(Ok(()), check_value)?;
        let mut copy = |bytes: &[u8]| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(bytes);
            start..self.bytes.len()
        };
        let op = BatchOp {
            key: copy(key),
            value: value.map(copy),
            ttl,
        };
        self.ops.push(op);
        Ok(self)
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Removes all operations, keeping the memory for the next ones.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ops.clear();
    }

    /// Key, value (`None` for a delete) and TTL of each operation.
    pub(crate) fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>, Ttl)> + Clone {
        self.ops.iter().map(|op| {
            let value = op.value.clone().map(|value| &self.bytes[value]);
            (&self.bytes[op.key.clone()], value, op.ttl)
        })
    }
}

pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > MAX_KEY_LEN {
        return Err(Error::KeyTooLarge {
            len: key.len(),
            max: MAX_KEY_LEN,
        });
    }
    Ok(())
}

pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > MAX_VALUE_LEN {
        return Err(Error::ValueTooLarge {
            len: value.len(),
            max: MAX_VALUE_LEN,
        });
    }
    Ok(())
}
