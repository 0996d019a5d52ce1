//! The guard that `get` returns.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::clock;
use crate::disk::Region;
use crate::format::SeqNo;
use crate::format::record::Record;
use crate::format::segment::{HEADER_LEN, SegmentHeader};

/// A value, read in place: a guard that keeps its bytes alive.
///
/// It derefs to `[u8]` and can be kept, cloned and sent to other threads for as long as one likes,
/// whatever happens to the store meanwhile; dropping it lets its segment go. A value that is
/// [zero-copy](Value::is_zero_copy) starts on an 8-byte boundary, so it can be cast in place.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::Store::open(dir.path())?;
/// store.put("greeting", "hello")?;
/// let value = store.get("greeting")?.expect("it was put");
/// assert_eq!(&*value, b"hello");
/// drop(store);
/// let bytes: bytes::Bytes = value.into_bytes(); // no copy
/// assert_eq!(bytes, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Value(Content);

/// Small, since every get hands one out.
#[derive(Clone)]
enum Content {
    /// What a record holds; the rest of the record says more of it when it is asked for.
    InPlace {
        region: Arc<Region>,
        record_offset: u64,
        value_offset: u32,
        len: u32,
    },
    Owned {
        bytes: Arc<[u8]>,
        version: Option<NonZeroU64>,
        expires_at_ms: Option<NonZeroU64>,
    },
}

impl Value {
    /// The value `len` bytes long that starts `value_offset` bytes behind the start of its record.
    #[inline]
    pub(crate) fn in_place(
        region: Arc<Region>,
        record_offset: u64,
        value_offset: usize,
        len: usize,
    ) -> Value {
        Value(Content::InPlace {
            region,
            record_offset,
            // Both are parts of a record, which say so in 32 bits and less.
            value_offset: value_offset as u32,
            len: len as u32,
        })
    }

    pub(crate) fn owned(
        bytes: Arc<[u8]>,
        version: Option<SeqNo>,
        expires_at_ms: Option<u64>,
    ) -> Value {
        // Sequence numbers begin at 1, and what has expired in 1970 is no value.
        Value(Content::Owned {
            bytes,
            version: version.and_then(|version| NonZeroU64::new(version.0)),
            expires_at_ms: expires_at_ms.and_then(NonZeroU64::new),
        })
    }

    /// The record that the value lies in, and the base of its segment's sequence numbers.
    fn record(&self) -> Option<(Record<'_>, SeqNo)> {
        let Content::InPlace {
            region,
            record_offset,
            ..
        } = &self.0
        else {
            return None;
        };
        let base_seq = SegmentHeader::base_seq_in(region.slice(0, HEADER_LEN)?)?;
        let record = Record::parse(region.tail(*record_offset as usize)?).ok()?;
        Some((record, base_seq))
    }

    /// The sequence number of the write that put the value here: its version, for
    /// [`Store::compare_and_swap`](crate::Store::compare_and_swap). `None` for a value that is
    /// still in the write-back buffer, which has none yet.
    pub fn version(&self) -> Option<SeqNo> {
        match &self.0 {
            Content::Owned { version, .. } => version.map(|version| SeqNo(version.get())),
            Content::InPlace { .. } => self.record().map(|(record, base)| record.seq(base)),
        }
    }

    /// When the value expires; `None` if it does not.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at_ms().and_then(clock::system_time)
    }

    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        match &self.0 {
            Content::Owned { expires_at_ms, .. } => expires_at_ms.map(NonZeroU64::get),
            Content::InPlace { .. } => self.record()?.0.expires_at_ms(),
        }
    }

    /// Whether both are what one and the same write put there.
    pub(crate) fn is_same_write(&self, other: &Value) -> bool {
        match (self.version(), other.version(), &self.0, &other.0) {
            (Some(a), Some(b), ..) => a == b,
            // In the write-back buffer a value has no version, but an address that nothing else
            // can have while both are alive.
            (None, None, Content::Owned { bytes: a, .. }, Content::Owned { bytes: b, .. }) => {
                Arc::ptr_eq(a, b)
            }
            _ => false,
        }
    }

    /// Whether the bytes lie in the segment itself: neither decompressed nor read into memory.
    pub fn is_zero_copy(&self) -> bool {
        matches!(self.0, Content::InPlace { .. })
    }

    /// The value as [`bytes::Bytes`], without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            // The region was checked for these bytes when the value was made.
            Content::InPlace {
                region,
                record_offset,
                value_offset,
                len,
            } => {
                let start = *record_offset as usize + *value_offset as usize;
                region.slice(start, *len as usize).unwrap_or_default()
            }
            Content::Owned { bytes, .. } => bytes,
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Value> for Bytes {
    fn from(value: Value) -> Bytes {
        value.into_bytes()
    }
}

impl PartialEq<[u8]> for Value {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq<&[u8]> for Value {
    fn eq(&self, other: &&[u8]) -> bool {
        **self == **other
    }
}

impl PartialEq<str> for Value {
    fn eq(&self, other: &str) -> bool {
        **self == *other.as_bytes()
    }
}

impl PartialEq<&str> for Value {
    fn eq(&self, other: &&str) -> bool {
        **self == *other.as_bytes()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("bytes", &self.escape_ascii().to_string())
            .field("version", &self.version())
            .field("expires_at_ms", &self.expires_at_ms())
            .finish()
    }
}
