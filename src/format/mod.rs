//! Bytes to values and back: everything that is on disk, and nothing that touches a disk.
//!
//! Pure functions over `&[u8]`; `docs/FORMAT.md` is this room in words and pictures, and the
//! golden-bytes tests at the foot of each file hold the two together.
//!
//! Rules of the format:
//!
//! 1. Integers are little-endian and of fixed width.
//! 2. Every structure carries a CRC-32, and says which store and which segment it belongs to.
//! 3. Zero bytes are never a valid record, header, footer, hint file or manifest.
//! 4. Reserved bits and bytes are zero; a set reserved bit is a newer format, not garbage to skip.
//! 5. A length is checked against the bytes that are there before it is used.

pub(crate) mod batch;
pub(crate) mod checkpoint;
pub(crate) mod crc;
pub(crate) mod hash;
pub(crate) mod hint;
pub(crate) mod manifest;
pub(crate) mod names;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod value;

use std::fmt;

pub(crate) use hash::{KeyHash, KeyHasher};

/// The version that this code writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Records and values start on multiples of this, so that a value can be cast in place.
pub(crate) const ALIGNMENT: usize = 8;

/// The longest key, in bytes.
pub const MAX_KEY_LEN: usize = u16::MAX as usize;

/// The longest value, in bytes, before compression: 512 MiB.
pub const MAX_VALUE_LEN: usize = 512 << 20;

/// The largest batch, in bytes as it is written: 1 GiB.
pub const MAX_BATCH_BYTES: u64 = 1 << 30;

/// A segment's number in its store: counts up, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub(crate) u64);

impl SegmentId {
    /// A segment's id from its number, as a person gives it.
    ///
    /// ```
    /// assert_eq!(crabkv::SegmentId::new(7).to_string(), "7");
    /// ```
    pub const fn new(number: u64) -> SegmentId {
        SegmentId(number)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one after it; the highest has none, and is never given out.
    pub(crate) fn next(self) -> SegmentId {
        SegmentId(self.0.saturating_add(1))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A sequence number: one per write, counting up in the order of the log, kept when a record is
/// moved. The highest of a key is its newest record; it is also the key's version.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::Store::open(dir.path())?;
/// store.put("key", "a")?;
/// let first = store.get("key")?.and_then(|value| value.version());
/// store.put("key", "b")?;
/// let second = store.get("key")?.and_then(|value| value.version());
/// assert!(second > first);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqNo(pub(crate) u64);

impl SeqNo {
    /// The sequence number of the first write of a store.
    pub(crate) const FIRST: SeqNo = SeqNo(1);

    /// Nothing is written at this number or beyond. No store gets here by writing, but one may
    /// say that it has; behind it is room for the largest batch, and for the numbers that a
    /// recovery passes over, so that none of them overflows.
    pub(crate) const END: SeqNo = SeqNo(u64::MAX - (1 << 33));

    /// A sequence number from a plain one, as a program that stored it would have it.
    pub fn new(number: u64) -> SeqNo {
        SeqNo(number)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one after it.
    pub(crate) fn next(self) -> SeqNo {
        SeqNo(self.0.saturating_add(1))
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A store's identity, drawn once when it is made. Its `Display` is 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreId(pub(crate) [u8; 16]);

impl StoreId {
    /// The sixteen bytes, as they stand in the files.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// The bytes end too early.
    Short,
    /// The magic number is another one: not a file of this kind.
    Magic,
    /// The checksum does not fit the bytes.
    Checksum,
    /// A format version that this code does not know.
    Version(u32),
    /// Flags of a file that this code does not know: a newer program set them.
    Features(u32),
    /// A field has a value that it cannot have.
    Field(&'static str),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Short => f.write_str("the bytes end too early"),
            Invalid::Magic => f.write_str("the magic number is wrong"),
            Invalid::Checksum => f.write_str("the checksum does not match"),
            Invalid::Version(found) => write!(f, "format version {found} is not known"),
            Invalid::Features(flags) => write!(f, "the feature flags {flags:#x} are not known"),
            Invalid::Field(what) => f.write_str(what),
        }
    }
}

/// Rounds up to the next multiple of [`ALIGNMENT`].
#[inline]
pub(crate) const fn align(len: usize) -> usize {
    // A power of two, which `next_multiple_of` is not told.
    (len + (ALIGNMENT - 1)) & !(ALIGNMENT - 1)
}

/// Reads fixed-width integers one after another; every read past the end is [`Invalid::Short`].
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Invalid::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Invalid> {
        self.bytes().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Invalid> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Invalid> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// Checks a magic number and the version after it.
    pub(crate) fn magic(&mut self, magic: [u8; 8]) -> Result<(), Invalid> {
        if self.bytes::<8>()? != magic {
            return Err(Invalid::Magic);
        }
        Ok(())
    }

    pub(crate) fn version(&mut self) -> Result<(), Invalid> {
        match self.u32()? {
            FORMAT_VERSION => Ok(()),
            other => Err(Invalid::Version(other)),
        }
    }

    /// Reserved bytes: zero, or the file is of a newer kind.
    pub(crate) fn reserved<const N: usize>(&mut self) -> Result<(), Invalid> {
        if self.bytes::<N>()? == [0; N] {
            Ok(())
        } else {
            Err(Invalid::Field("reserved bytes are set"))
        }
    }
}
