//! Encryption of the port. Without the feature `tls` there is no certificate, and so none of it.

#[cfg(feature = "tls")]
mod certificate;
#[cfg(feature = "tls")]
mod stream;

#[cfg(feature = "tls")]
pub(crate) use certificate::{Tls, TlsError};
#[cfg(feature = "tls")]
pub(crate) use stream::TlsStream;

/// A certificate and its key, of which there are none.
#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug)]
pub(crate) enum Tls {}
