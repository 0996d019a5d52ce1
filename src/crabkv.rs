//! The store for text: the front door for programs that keep strings.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::store::{CrabKvBuilder, Store, WriteBatch};

/// A key-value store for text.
///
/// Cloning it gives another handle to the same store. Errors are [`std::io::Error`]s with the
/// whole [`Error`] inside; [`store`](CrabKv::store) leads to the store for bytes underneath, which
/// can do more.
///
/// ```
/// use std::time::Duration;
///
/// use crabkv::CrabKv;
///
/// # let dir = tempfile::tempdir()?;
/// let db = CrabKv::open(dir.path())?;
/// db.put("hello".into(), "world".into())?;
/// assert_eq!(db.get("hello")?, Some("world".into()));
/// db.put_with_ttl("session".into(), "x".into(), Some(Duration::from_secs(30)))?;
/// db.delete("hello")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CrabKv {
    store: Store,
}

impl CrabKvBuilder {
    /// Opens the store for text.
    ///
    /// # Errors
    ///
    /// As [`Store::open`], wrapped in an [`std::io::Error`].
    pub fn build(self) -> io::Result<CrabKv> {
        Ok(CrabKv::from(self.build_store()?))
    }
}

impl From<Store> for CrabKv {
    fn from(store: Store) -> CrabKv {
        CrabKv { store }
    }
}

impl CrabKv {
    /// Opens the store in `dir` with the default options, making it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open(dir: impl AsRef<Path>) -> io::Result<CrabKv> {
        CrabKv::builder(dir).build()
    }

    /// Opens the store in `dir` to read only, also beside a process that writes to it.
    ///
    /// # Errors
    ///
    /// As [`Store::open_read_only`].
    pub fn open_read_only(dir: impl AsRef<Path>) -> io::Result<CrabKv> {
        CrabKv::builder(dir).read_only(true).build()
    }

    /// Options for opening the store in `dir`.
    pub fn builder(dir: impl AsRef<Path>) -> CrabKvBuilder {
        CrabKvBuilder::new(dir)
    }

    /// The store for bytes underneath.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Puts a value, replacing the one before, with the default TTL.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the signature that users already write to"
    )]
    pub fn put(&self, key: String, value: String) -> io::Result<()> {
        Ok(self.store.put(&key, &value)?)
    }

    /// Puts a value that expires `ttl` from now; `None` is the default TTL.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the signature that users already write to"
    )]
    pub fn put_with_ttl(
        &self,
        key: String,
        value: String,
        ttl: Option<Duration>,
    ) -> io::Result<()> {
        match ttl {
            Some(ttl) => self.store.put_with_ttl(&key, &value, ttl)?,
            None => self.store.put(&key, &value)?,
        }
        Ok(())
    }

    /// The value of a key, or `None` if it is absent or expired.
    ///
    /// # Errors
    ///
    /// As [`Store::get`], and [`Error::NotText`] when the value is not UTF-8.
    pub fn get(&self, key: &str) -> io::Result<Option<String>> {
        let Some(value) = self.store.get(key)? else {
            return Ok(None);
        };
        match std::str::from_utf8(&value) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(e) => Err(Error::NotText {
                valid_up_to: e.valid_up_to(),
            }
            .into()),
        }
    }

    /// Deletes a key. One that is not there is no error.
    ///
    /// # Errors
    ///
    /// As [`Store::delete`].
    pub fn delete(&self, key: &str) -> io::Result<()> {
        self.store.delete(key)?;
        Ok(())
    }

    /// Puts many values with one sync: all of them or none. Each may have a TTL of its own.
    ///
    /// # Errors
    ///
    /// As [`Store::write`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the signature that users already write to"
    )]
    pub fn put_batch(&self, entries: Vec<(String, String, Option<Duration>)>) -> io::Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value, ttl) in &entries {
            match ttl {
                Some(ttl) => batch.put_with_ttl(key, value, *ttl)?,
                None => batch.put(key, value)?,
            };
        }
        Ok(self.store.write(&batch)?)
    }

    /// Writes what waits in the write-back buffer to the log; does nothing without one.
    ///
    /// # Errors
    ///
    /// As [`Store::flush`].
    pub fn flush(&self) -> io::Result<()> {
        Ok(self.store.flush()?)
    }

    /// Lets a read-only store see what has been written since; says whether there was anything.
    ///
    /// # Errors
    ///
    /// As [`Store::refresh`].
    pub fn refresh(&self) -> io::Result<bool> {
        Ok(self.store.refresh()?)
    }

    /// Compacts now.
    ///
    /// # Errors
    ///
    /// As [`Store::compact`].
    pub fn compact(&self) -> io::Result<()> {
        self.store.compact()?;
        Ok(())
    }
}
