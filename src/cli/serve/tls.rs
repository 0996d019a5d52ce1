//! Options of `serve` for encryption.

use std::path::{Path, PathBuf};

use crate::cli::exit::Failure;
use crate::server::Tls;

#[derive(Debug, clap::Args)]
pub(super) struct TlsArgs {
    /// Speak TLS on the port, with the certificate (and its chain) in this PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl TlsArgs {
    pub(super) fn certificate(&self) -> Option<&Path> {
        self.tls_cert.as_deref()
    }

    #[cfg(feature = "tls")]
    pub(super) fn load(&self) -> Result<Option<Tls>, Failure> {
        use crate::server::TlsError;

        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else {
            return Ok(None);
        };
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| Failure::file("read", path, source))
        };
        let tls = Tls::new(&read(certificate)?, &read(key)?).map_err(|error| {
            let (what, path, reason) = match error {
                TlsError::Certificate(reason) => ("certificate", certificate, reason),
                TlsError::Key(reason) => ("private key", key, reason),
            };
            Failure::Usage(format!(
                "cannot use the {what} in {}: {reason}",
                path.display()
            ))
        })?;
        Ok(Some(tls))
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn load(&self) -> Result<Option<Tls>, Failure> {
        // Each asks for the other.
        if self.tls_cert.is_none() && self.tls_key.is_none() {
            return Ok(None);
        }
        Err(Failure::Usage(
            "this crabkv was built without TLS; build it with: cargo install crabkv --features tls"
                .into(),
        ))
    }
}
