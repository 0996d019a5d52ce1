//! The guard that `get` returns.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::clock;
use crate::disk::Region;
use crate::format::SeqNo;

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
pub struct Value {
    bytes: ValueBytes,
    version: Option<SeqNo>,
    expires_at_ms: Option<u64>,
}

#[derive(Clone)]
enum ValueBytes {
    InPlace {
        region: Arc<Region>,
        offset: usize,
        len: usize,
    },
    Owned(Arc<[u8]>),
}

impl Value {
    #[inline]
    pub(crate) fn in_place(
        region: Arc<Region>,
        offset: usize,
        len: usize,
        version: SeqNo,
        expires_at_ms: Option<u64>,
    ) -> Value {
        let bytes = ValueBytes::InPlace {
            region,
            offset,
            len,
        };
        Value {
            bytes,
            version: Some(version),
            expires_at_ms,
        }
    }

    pub(crate) fn owned(
        bytes: Arc<[u8]>,
        version: Option<SeqNo>,
        expires_at_ms: Option<u64>,
    ) -> Value {
        Value {
            bytes: ValueBytes::Owned(bytes),
            version,
            expires_at_ms,
        }
    }

    /// The sequence number of the write that put the value here: its version, for
    /// [`Store::compare_and_swap`](crate::Store::compare_and_swap). `None` for a value that is
    /// still in the write-back buffer, which has none yet.
    pub fn version(&self) -> Option<SeqNo> {
        self.version
    }

    /// When the value expires; `None` if it does not.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at_ms.and_then(clock::system_time)
    }

    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at_ms
    }

    /// Whether both are what one and the same write put there.
    pub(crate) fn is_same_write(&self, other: &Value) -> bool {
        match (self.version, other.version, &self.bytes, &other.bytes) {
            (Some(a), Some(b), ..) => a == b,
            // In the write-back buffer a value has no version, but an address that nothing else
            // can have while both are alive.
            (None, None, ValueBytes::Owned(a), ValueBytes::Owned(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Whether the bytes lie in the segment itself: neither decompressed nor read into memory.
    pub fn is_zero_copy(&self) -> bool {
        matches!(self.bytes, ValueBytes::InPlace { .. })
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
        match &self.bytes {
            // The region was checked for these bytes when the value was made.
            ValueBytes::InPlace {
                region,
                offset,
                len,
            } => region.slice(*offset, *len).unwrap_or_default(),
            ValueBytes::Owned(bytes) => bytes,
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
            .field("version", &self.version)
            .field("expires_at_ms", &self.expires_at_ms)
            .finish()
    }
}
