//! Whom a MySQL client trusts. Pure.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The authority's certificate cannot be used.
    #[error("authority is not usable: {0}")]
    Authority(String),
    /// The name is no DNS name.
    #[error("{0:?} is no DNS name")]
    Name(String),
}

/// The authority that must have signed a server's certificate, and the DNS name that must be in it.
#[derive(Clone, Debug)]
pub struct Trust {
    pub(crate) ca: String,
    pub(crate) name: String,
    pub(crate) server_name: ServerName<'static>,
    pub(crate) config: Arc<ClientConfig>,
}

impl Trust {
    /// Takes the authority as PEM. Addresses are never in certificates, so every replica of a shard has the same name.
    pub fn new(ca: &str, name: &str) -> Result<Self, TrustError> {
        let authority = |e: &dyn std::fmt::Display| TrustError::Authority(e.to_string());
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(cert.map_err(|e| authority(&e))?).map_err(|e| authority(&e))?;
        }
        if roots.is_empty() {
            return Err(authority(&"no certificate in it"));
        }
        let server_name = ServerName::try_from(name.to_owned()).map_err(|_| TrustError::Name(name.to_owned()))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| authority(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { ca: ca.to_owned(), name: name.to_owned(), server_name, config: Arc::new(config) })
    }
}
