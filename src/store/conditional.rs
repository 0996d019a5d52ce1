//! Writes that depend on what is there: atomic against each other and all other writes.

use std::time::{Duration, SystemTime};

use super::Store;
use super::batch::Ttl;
use super::clock;
use super::value::Value;
use super::write::Change;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::SeqNo;

/// What [`Store::modify`] does to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modification {
    /// Leaves it as it is.
    Keep,
    /// Puts a value, with an expiry or for ever; the store's default TTL does not count.
    Put {
        /// The value.
        value: Vec<u8>,
        /// When it expires, if it does. A time that has passed deletes the key.
        expires_at: Option<SystemTime>,
    },
    /// Deletes it.
    Delete,
}

impl<D: Disk> Store<D> {
    /// Puts a value if the key is absent or expired; says whether it did.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// assert!(store.put_if_absent("leader", "a")?);
    /// assert!(!store.put_if_absent("leader", "b")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_if_absent(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        let value = value.as_ref();
        super::batch::check_value(value)?;
        self.engine.modify(key.as_ref(), |current| match current {
            Some(_) => Ok((Change::Nothing, false)),
            None => Ok((self.put_change(value.to_vec()), true)),
        })
    }

    /// Puts a value if the key's version is still `expected`; `None` expects no value.
    ///
    /// With a write-back buffer, a value that is still in it has no version; it is flushed first.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] when the version is another one; as [`put`](Store::put) otherwise.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("stock", "5")?;
    /// let seen = store.get("stock")?.and_then(|value| value.version());
    /// store.compare_and_swap("stock", seen, "4")?;
    /// let conflict = store.compare_and_swap("stock", seen, "3");
    /// assert!(matches!(conflict, Err(crabkv::Error::Conflict { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<SeqNo>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        let value = value.as_ref();
        super::batch::check_value(value)?;
        self.change_if(key.as_ref(), expected, || self.put_change(value.to_vec()))
    }

    /// Deletes a key if its version is still `expected`.
    ///
    /// # Errors
    ///
    /// As [`compare_and_swap`](Store::compare_and_swap).
    pub fn compare_and_delete(&self, key: impl AsRef<[u8]>, expected: SeqNo) -> Result<()> {
        self.change_if(key.as_ref(), Some(expected), || Change::Delete)
    }

    /// Changes a key as `decide` says, which is shown its value; nobody else writes in between.
    /// Returns what `decide` returns beside the change.
    ///
    /// All other writes wait while `decide` runs, so it must be quick, and must not call back into
    /// the store. It may be asked again, with the same value or another. With an error from it,
    /// nothing is changed, and the error is returned. For work that takes longer there is
    /// [`update`](Store::update).
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    ///
    /// ```
    /// use crabkv::Modification;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("queue", "first,second")?;
    /// let taken = store.modify("queue", |value| {
    ///     let items = value.map_or(&b""[..], |value| value);
    ///     let end = items.iter().position(|byte| *byte == b',');
    ///     let (item, rest) = items.split_at(end.unwrap_or(items.len()));
    ///     let change = match rest.get(1..) {
    ///         Some(rest) => Modification::Put { value: rest.to_vec(), expires_at: None },
    ///         None => Modification::Delete,
    ///     };
    ///     Ok((change, item.to_vec()))
    /// })?;
    /// assert_eq!(taken, b"first");
    /// assert_eq!(store.get("queue")?.unwrap(), "second");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn modify<T>(
        &self,
        key: impl AsRef<[u8]>,
        mut decide: impl FnMut(Option<&Value>) -> Result<(Modification, T)>,
    ) -> Result<T> {
        self.engine.modify(key.as_ref(), |current| {
            let (modification, result) = decide(current)?;
            let is_over = |at| self.engine.is_over(Ttl::At(clock::ms_of(at)));
            let change = match modification {
                Modification::Put { value, expires_at } if !expires_at.is_some_and(is_over) => {
                    Change::Put {
                        value,
                        expires_at_ms: expires_at.map(clock::ms_of),
                    }
                }
                Modification::Put { .. } | Modification::Delete if current.is_some() => {
                    Change::Delete
                }
                _ => Change::Nothing,
            };
            Ok((change, result))
        })
    }

    fn change_if(
        &self,
        key: &[u8],
        expected: Option<SeqNo>,
        change: impl Fn() -> Change,
    ) -> Result<()> {
        loop {
            let done = self.engine.modify(key, |current| match current {
                // Still in the write-back buffer.
                Some(value) if value.version().is_none() => Ok((Change::Nothing, false)),
                current if current.and_then(Value::version) == expected => Ok((change(), true)),
                current => {
                    let found = current.and_then(Value::version);
                    Err(Error::Conflict { expected, found })
                }
            })?;
            if done {
                return Ok(());
            }
            self.flush()?;
        }
    }

    /// Replaces a value by what `change` makes of it (`None`: of an absent key); `None` from
    /// `change` deletes it. The expiry stays as it is; a new value gets the default TTL. Returns
    /// what was written.
    ///
    /// `change` runs without any lock, and again if somebody else wrote the key meanwhile.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// let append = |old: Option<&[u8]>| Some([old.unwrap_or_default(), b"!"].concat());
    /// store.update("cheer", append)?;
    /// store.update("cheer", append)?;
    /// assert_eq!(store.get("cheer")?.unwrap(), "!!");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        let key = key.as_ref();
        loop {
            let seen = self.get(key)?;
            let new = change(seen.as_deref());
            let unchanged = |current: Option<&Value>| match (current, &seen) {
                (None, None) => true,
                (Some(current), Some(seen)) => current.is_same_write(seen),
                _ => false,
            };
            let done = self.engine.modify(key, |current| {
                if !unchanged(current) {
                    return Ok((Change::Nothing, false));
                }
                let change = match (&new, &seen) {
                    (Some(new), Some(seen)) => Change::Put {
                        value: new.clone(),
                        expires_at_ms: seen.expires_at_ms(),
                    },
                    (Some(new), None) => self.put_change(new.clone()),
                    (None, Some(_)) => Change::Delete,
                    (None, None) => Change::Nothing,
                };
                Ok((change, true))
            })?;
            if done {
                return Ok(new);
            }
        }
    }

    /// Adds `by` to a value that is a decimal integer, such as `-12`; an absent key counts as 0.
    /// Returns the sum. The expiry stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NotAnInteger`] when the value is none, or the sum leaves the range of `i64`; as
    /// [`put`](Store::put) otherwise.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// assert_eq!(store.increment("visits", 1)?, 1);
    /// assert_eq!(store.increment("visits", 41)?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64> {
        self.engine.modify(key.as_ref(), |current| {
            let old = current.map_or(Ok(0), |value| parse_integer(value))?;
            let out_of_range = Error::NotAnInteger {
                reason: "the sum needs more than 64 bits",
            };
            let sum = old.checked_add(by).ok_or(out_of_range)?;
            let value = sum.to_string().into_bytes();
            let change = match current {
                Some(old) => Change::Put {
                    value,
                    expires_at_ms: old.expires_at_ms(),
                },
                None => self.put_change(value),
            };
            Ok((change, sum))
        })
    }

    /// Deletes a key; says whether it was there.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put). A key that is not there is none.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine.delete(key.as_ref())
    }

    /// Lets a value live for ever; says whether there was one that would have expired.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine.modify(key.as_ref(), |current| match current {
            Some(value) if value.expires_at_ms().is_some() => Ok((
                Change::Put {
                    value: value.to_vec(),
                    expires_at_ms: None,
                },
                true,
            )),
            _ => Ok((Change::Nothing, false)),
        })
    }

    /// Lets a value expire `ttl` from now, whenever it was to expire before; says whether there
    /// is one.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        let expires_at_ms = self.engine.expiry(Ttl::For(ttl));
        self.engine.modify(key.as_ref(), |current| match current {
            Some(value) => Ok((
                Change::Put {
                    value: value.to_vec(),
                    expires_at_ms,
                },
                true,
            )),
            None => Ok((Change::Nothing, false)),
        })
    }

    /// Lets a value expire at `at`, to the millisecond, whenever it was to expire before; says
    /// whether there is one. If `at` has passed, the value is deleted.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(32_472_187_200); // in 2999
    /// store.put("session", "x")?;
    /// assert!(store.expire_at("session", noon)?);
    /// assert_eq!(store.expires_at("session")?, Some(noon));
    ///
    /// assert!(store.expire_at("session", SystemTime::UNIX_EPOCH)?);
    /// assert!(!store.contains_key("session")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn expire_at(&self, key: impl AsRef<[u8]>, at: SystemTime) -> Result<bool> {
        let at_ms = clock::ms_of(at);
        self.engine.modify(key.as_ref(), |current| match current {
            Some(_) if self.engine.is_over(Ttl::At(at_ms)) => Ok((Change::Delete, true)),
            Some(value) => Ok((
                Change::Put {
                    value: value.to_vec(),
                    expires_at_ms: Some(at_ms),
                },
                true,
            )),
            None => Ok((Change::Nothing, false)),
        })
    }

    /// When a key's value expires; `None` if it does not, or there is none.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put_with_ttl("session", "x", Duration::from_secs(60))?;
    /// let left = store.expires_at("session")?.unwrap().duration_since(SystemTime::now());
    /// assert!(left.unwrap() > Duration::from_secs(50));
    /// assert!(store.persist("session")?);
    /// assert_eq!(store.expires_at("session")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<SystemTime>> {
        let expires_at_ms = self.get(key)?.and_then(|value| value.expires_at_ms());
        Ok(expires_at_ms.and_then(clock::system_time))
    }

    /// A put with the store's default TTL.
    fn put_change(&self, value: Vec<u8>) -> Change {
        Change::Put {
            value,
            expires_at_ms: self.engine.expiry(Ttl::Default),
        }
    }
}

fn parse_integer(value: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(value).ok();
    let not_canonical = |text: &&str| text.starts_with('+');
    text.filter(|text| !not_canonical(text))
        .and_then(|text| text.parse().ok())
        .ok_or(Error::NotAnInteger {
            reason: "it is not a decimal integer of 64 bits",
        })
}
