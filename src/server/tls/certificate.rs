//! Who the server is: a certificate, and the key that proves it.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// A certificate and its key, ready for connections.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ServerConfig>);

impl Tls {
    /// From PEM: the certificate, with those behind it up to a known one, and its private key. Fails
    /// with what is wrong with which of the two.
    pub(crate) fn new(certificate: &[u8], key: &[u8]) -> Result<Tls, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::Certificate(reason(&error)))?;
        if chain.is_empty() {
            let reason = "there is no certificate in it; it begins with BEGIN CERTIFICATE";
            return Err(TlsError::Certificate(reason.into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                let reason = "there is no private key in it; it begins with BEGIN PRIVATE KEY, and \
                              must not be encrypted";
                TlsError::Key(reason.into())
            }
            error => TlsError::Key(reason(&error)),
        })?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                let builder = builder.with_no_client_auth();
                builder.with_single_cert(chain, key)
            });
        match config {
            Ok(config) => Ok(Tls(Arc::new(config))),
            Err(rustls::Error::InvalidCertificate(error)) => {
                Err(TlsError::Certificate(format!("it is not valid: {error}")))
            }
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Key(
                "it does not belong to the certificate".into(),
            )),
            Err(error) => Err(TlsError::Key(error.to_string())),
        }
    }

    pub(super) fn accept(&self) -> io::Result<ServerConnection> {
        ServerConnection::new(Arc::clone(&self.0)).map_err(io::Error::other)
    }
}

fn reason(error: &pem::Error) -> String {
    format!("it is no PEM file: {error}")
}

/// Why there is no encryption.
#[derive(Debug)]
pub(crate) enum TlsError {
    /// What is wrong with the certificate's file.
    Certificate(String),
    /// What is wrong with the key's.
    Key(String),
}

/// Nothing of the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}
