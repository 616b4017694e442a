//! The identity of this process: certificate, key and the authority it trusts. Reads files.
//!
//! A handle is cheap to clone and always gives the configuration of the newest certificate, so rotation needs no restart:
//! each new connection uses what [`Identity::keep_fresh`] or [`Identity::replace`] put there last.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::issue::Pem;

/// How often [`Identity::keep_fresh`] looks at the files.
pub const RELOAD_EVERY: Duration = Duration::from_secs(5);

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Why an identity could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("{} could not be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A text is not the PEM it should be.
    #[error("{what} is not valid PEM: {reason}")]
    Pem {
        /// `ca.crt`, `tls.crt` or `tls.key`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The parts do not fit together.
    #[error("certificate, key and authority do not fit together: {0}")]
    Config(String),
}

#[derive(Debug)]
struct Loaded {
    pem: Pem,
    server: Arc<ServerConfig>,
    client_h2: Arc<ClientConfig>,
    client_h1: Arc<ClientConfig>,
}

/// Certificate, key and trusted authority of this process.
#[derive(Clone, Debug)]
pub struct Identity {
    loaded: Arc<RwLock<Arc<Loaded>>>,
    replaced: watch::Sender<u64>,
}

impl Identity {
    /// Takes an identity from memory.
    pub fn from_pem(pem: Pem) -> Result<Self, TlsError> {
        Ok(Self { loaded: Arc::new(RwLock::new(Arc::new(load(pem)?))), replaced: watch::channel(0).0 })
    }

    /// Takes an identity from `ca.crt`, `tls.crt` and `tls.key` in a directory.
    pub fn from_dir(dir: &Path) -> Result<Self, TlsError> {
        Self::from_pem(read(dir)?)
    }

    /// Puts a new certificate in place for every later connection. Whether it differed from the present one.
    pub fn replace(&self, pem: Pem) -> Result<bool, TlsError> {
        if self.now().pem == pem {
            return Ok(false);
        }
        let loaded = Arc::new(load(pem)?);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        self.replaced.send_modify(|n| *n += 1);
        Ok(true)
    }

    /// Changes whenever a new certificate was put in place.
    pub fn replacements(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// Follows the files of a directory until stopped. While they are unreadable or do not fit, the last good ones stay.
    pub async fn keep_fresh(self, dir: PathBuf, stop: CancellationToken) {
        self.reload_every(RELOAD_EVERY, dir, stop).await;
    }

    async fn reload_every(self, every: Duration, dir: PathBuf, stop: CancellationToken) {
        let mut last_error = None;
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let (identity, from) = (self.clone(), dir.clone());
            let outcome = tokio::task::spawn_blocking(move || read(&from).and_then(|pem| identity.replace(pem))).await;
            match outcome {
                Ok(Ok(changed)) => {
                    last_error = None;
                    if changed {
                        tracing::info!(dir = %dir.display(), "certificate reloaded");
                    }
                }
                Ok(Err(e)) => {
                    let message = e.to_string();
                    if last_error.as_ref() != Some(&message) {
                        tracing::warn!(error = %message, "certificate not reloaded, the last good one stays");
                        last_error = Some(message);
                    }
                }
                Err(e) => tracing::warn!(error = %e, "reading the certificate was interrupted"),
            }
        }
    }

    /// The PEM in use.
    pub fn pem(&self) -> Pem {
        self.now().pem.clone()
    }

    /// A server that requires a certificate of the same authority from its clients.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.now().server.clone()
    }

    /// A client that offers HTTP/2 only.
    pub fn client_h2(&self) -> Arc<ClientConfig> {
        self.now().client_h2.clone()
    }

    /// A client that offers HTTP/1.1 only.
    pub fn client_h1(&self) -> Arc<ClientConfig> {
        self.now().client_h1.clone()
    }

    fn now(&self) -> Arc<Loaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(dir: &Path) -> Result<Pem, TlsError> {
    let file = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|source| TlsError::Read { path, source })
    };
    Ok(Pem { ca: file("ca.crt")?, cert: file("tls.crt")?, key: file("tls.key")? })
}

fn load(pem: Pem) -> Result<Loaded, TlsError> {
    let config = |e: &dyn std::fmt::Display| TlsError::Config(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in certificates("ca.crt", &pem.ca)? {
        roots.add(ca).map_err(|e| config(&e))?;
    }
    let roots = Arc::new(roots);
    let chain = certificates("tls.crt", &pem.cert)?;
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes())
        .map_err(|e| TlsError::Pem { what: "tls.key", reason: e.to_string() })?;

    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().map_err(|e| config(&e))?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| config(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|e| config(&e))?;
    server.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];

    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| config(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| config(&e))?;
    // A resumed session would keep an identity that has been rotated away.
    client.resumption = Resumption::disabled();
    let mut client_h1 = client.clone();
    client.alpn_protocols = vec![H2.to_vec()];
    client_h1.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(Loaded { pem, server: Arc::new(server), client_h2: Arc::new(client), client_h1: Arc::new(client_h1) })
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| TlsError::Pem { what, reason: e.to_string() })?;
    if all.is_empty() {
        return Err(TlsError::Pem { what, reason: "no certificate in it".to_owned() });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::issue::{Authority, LEAF_LIFETIME};

    #[test]
    fn parts_that_do_not_fit_are_refused_and_the_last_good_ones_stay() {
        let now = SystemTime::now();
        let authority = Authority::generate("test", now).unwrap();
        let one = authority.issue(&["one.example"], now, LEAF_LIFETIME).unwrap();
        let two = authority.issue(&["two.example"], now, LEAF_LIFETIME).unwrap();
        let identity = Identity::from_pem(one.clone()).unwrap();

        let mixed = Pem { key: two.key.clone(), ..one.clone() };
        assert!(matches!(identity.replace(mixed), Err(TlsError::Config(_))));
        let empty = Pem { cert: String::new(), ..one.clone() };
        assert!(matches!(identity.replace(empty), Err(TlsError::Pem { what: "tls.crt", .. })));
        assert_eq!(identity.pem(), one);

        assert!(!identity.replace(one).unwrap());
        assert!(identity.replace(two.clone()).unwrap());
        assert_eq!(identity.pem(), two);
    }

    #[tokio::test]
    async fn changed_files_are_picked_up() {
        let now = SystemTime::now();
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::generate("test", now).unwrap();
        let put = |pem: &Pem| {
            for (name, text) in [("ca.crt", &pem.ca), ("tls.crt", &pem.cert), ("tls.key", &pem.key)] {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
        };
        let one = authority.issue(&["one.example"], now, LEAF_LIFETIME).unwrap();
        let two = authority.issue(&["two.example"], now, LEAF_LIFETIME).unwrap();
        put(&one);
        let identity = Identity::from_dir(dir.path()).unwrap();
        let (every, stop) = (Duration::from_millis(1), CancellationToken::new());
        let task = tokio::spawn(identity.clone().reload_every(every, dir.path().to_owned(), stop.clone()));
        put(&two);
        let reloaded = async {
            while identity.pem() != two {
                tokio::time::sleep(every).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reloaded).await.unwrap();
        stop.cancel();
        task.await.unwrap();
    }
}
