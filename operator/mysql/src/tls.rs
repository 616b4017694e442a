//! Whom a MySQL client trusts. Pure.

use std::sync::{Arc, PoisonError, RwLock};

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

#[derive(Debug)]
struct Authorities {
    /// The one that was taken last.
    newest: String,
    /// It and the one before it.
    all: String,
    config: Arc<ClientConfig>,
}

/// The authority that must have signed a server's certificate, and the DNS name that must be in it. Clones are one handle: each new
/// connection of any of them uses what [`Trust::renew`] put there last.
#[derive(Clone, Debug)]
pub struct Trust {
    pub(crate) name: String,
    pub(crate) server_name: ServerName<'static>,
    authorities: Arc<RwLock<Arc<Authorities>>>,
}

impl Trust {
    /// Takes the authority as PEM. Addresses are never in certificates, so every replica of a shard has the same name.
    pub fn new(ca: &str, name: &str) -> Result<Self, TrustError> {
        let server_name = ServerName::try_from(name.to_owned()).map_err(|_| TrustError::Name(name.to_owned()))?;
        let authorities = Arc::new(RwLock::new(Arc::new(load(ca, None)?)));
        Ok(Self { name: name.to_owned(), server_name, authorities })
    }

    /// Trusts another authority from now on, and the last one still: servers go over to certificates of the new one each in its own
    /// time, and the one that goes last must not look dead to the others. Whether it is another.
    pub fn renew(&self, ca: &str) -> Result<bool, TrustError> {
        let present = self.now();
        if present.newest == ca {
            return Ok(false);
        }
        let next = load(ca, Some(&present.newest))?;
        *self.authorities.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(true)
    }

    /// The authorities that are trusted now, as PEM.
    pub fn ca(&self) -> String {
        self.now().all.clone()
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.now().config.clone()
    }

    fn now(&self) -> Arc<Authorities> {
        self.authorities.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn load(newest: &str, before: Option<&str>) -> Result<Authorities, TrustError> {
    let authority = |e: &dyn std::fmt::Display| TrustError::Authority(e.to_string());
    let mut roots = RootCertStore::empty();
    add(&mut roots, newest)?;
    if let Some(before) = before {
        add(&mut roots, before)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| authority(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let all = before.map_or_else(|| newest.to_owned(), |before| format!("{newest}\n{before}"));
    Ok(Authorities { newest: newest.to_owned(), all, config: Arc::new(config) })
}

fn add(roots: &mut RootCertStore, ca: &str) -> Result<(), TrustError> {
    let authority = |e: &dyn std::fmt::Display| TrustError::Authority(e.to_string());
    let before = roots.len();
    for cert in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(cert.map_err(|e| authority(&e))?).map_err(|e| authority(&e))?;
    }
    if roots.len() == before {
        return Err(authority(&"no certificate in it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::{TlsAcceptor, TlsConnector};
    use understudy_link::Authority;
    use understudy_link::issue::LEAF_LIFETIME;

    use super::*;

    const NAME: &str = "m.shard.example";

    /// Whether a client with this trust takes a server whose certificate this authority signed.
    async fn takes(trust: &Trust, authority: &Authority) -> bool {
        let pem = authority.issue(&[NAME], SystemTime::now(), LEAF_LIFETIME).unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.cert.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let connecting = TlsConnector::from(trust.config()).connect(trust.server_name.clone(), ours);
        let accepting = TlsAcceptor::from(Arc::new(config)).accept(theirs);
        let (connected, _accepted) = tokio::join!(connecting, accepting);
        connected.is_ok()
    }

    #[tokio::test]
    async fn a_new_authority_is_trusted_beside_the_last_one_by_every_clone() {
        // Each is named as the installation's is, so only the keys differ.
        let [first, second, third] = [(); 3].map(|()| Authority::generate("understudy", SystemTime::now()).unwrap());
        let trust = Trust::new(first.cert(), NAME).unwrap();
        let clone = trust.clone();
        let taken = async || [takes(&clone, &first).await, takes(&clone, &second).await, takes(&clone, &third).await];
        assert_eq!(taken().await, [true, false, false]);

        assert!(!trust.renew(first.cert()).unwrap(), "it is the same");
        assert!(trust.renew(second.cert()).unwrap());
        assert_eq!(taken().await, [true, true, false]);
        assert!(!trust.renew(second.cert()).unwrap(), "that pushes nobody out");
        assert_eq!(taken().await, [true, true, false]);

        assert!(trust.renew(third.cert()).unwrap());
        assert_eq!(taken().await, [false, true, true]);
    }

    #[test]
    fn what_holds_no_authority_is_refused_and_the_last_one_stays() {
        let authority = Authority::generate("understudy", SystemTime::now()).unwrap();
        let trust = Trust::new(authority.cert(), NAME).unwrap();
        assert!(matches!(trust.renew(""), Err(TrustError::Authority(_))));
        assert_eq!(trust.ca(), authority.cert());
        assert!(matches!(Trust::new("", NAME), Err(TrustError::Authority(_))));
        assert!(matches!(Trust::new(authority.cert(), "no name"), Err(TrustError::Name(_))));
    }
}
