//! The certificate authority of the installation, and who the operator is. I/O.
//!
//! The authority is made once and kept in the Secret `understudy-ca` beside the operator; two instances that start at
//! once agree on the one that was written first.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;
use understudy_link::issue::{Facts, IssueError};
use understudy_link::tls::TlsError;
use understudy_link::{Authority, Identity, names};

use crate::apply::{Applier, ApplyError, MANAGED_BY};

/// Name of the Secret.
pub const SECRET: &str = "understudy-ca";
/// How long the certificates of shards and consumers live; they are replaced when a third of it is left.
pub const LEAF: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long the operator's own lives: it is only in memory.
const OWN: Duration = Duration::from_secs(7 * 24 * 3600);
const LOOK: Duration = Duration::from_secs(3600);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The Secret could not be read or written.
    #[error("secret {SECRET} could not be read or made")]
    Secret(#[source] ApplyError),
    /// The Secret lacks a key or holds no text.
    #[error("secret {SECRET} has no readable {0}")]
    Key(&'static str),
    /// The certificate cannot be made or read.
    #[error("authority cannot be used")]
    Issue(#[source] IssueError),
    /// The operator's own certificate cannot be used.
    #[error("the operator's own certificate cannot be used")]
    Identity(#[source] TlsError),
}

/// Reads the authority, or makes it.
pub async fn obtain(applier: &Applier, namespace: &str) -> Result<Authority, AuthorityError> {
    if let Some(authority) = read(applier, namespace).await? {
        return Ok(authority);
    }
    let authority = Authority::generate("understudy", SystemTime::now()).map_err(AuthorityError::Issue)?;
    let data = [("ca.crt", authority.cert()), ("ca.key", authority.key())];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec()))).into()),
        ..Secret::default()
    };
    match applier.create("understudy-authority", &secret).await {
        Ok(_) => Ok(authority),
        Err(error) if error.is_already_exists() => read(applier, namespace).await?.ok_or(AuthorityError::Secret(error)),
        Err(error) => Err(AuthorityError::Secret(error)),
    }
}

async fn read(applier: &Applier, namespace: &str) -> Result<Option<Authority>, AuthorityError> {
    let Some(secret) = applier.get::<Secret>(namespace, SECRET).await.map_err(AuthorityError::Secret)? else {
        return Ok(None);
    };
    let text = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).ok_or(AuthorityError::Key(key))
    };
    Authority::from_pem(text("ca.crt")?, text("ca.key")?).map(Some).map_err(AuthorityError::Issue)
}

/// The operator's own identity.
pub fn identity(authority: &Authority) -> Result<Identity, AuthorityError> {
    let pem = authority.issue(&[names::OPERATOR], SystemTime::now(), OWN).map_err(AuthorityError::Issue)?;
    Identity::from_pem(pem).map_err(AuthorityError::Identity)
}

/// Replaces the operator's own certificate before it ends, until stopped.
pub async fn keep_fresh(identity: Identity, authority: Arc<Authority>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let now = SystemTime::now();
        let due = Facts::of_pem(&identity.pem().cert).map_or(true, |facts| facts.is_due(now));
        if !due {
            continue;
        }
        let outcome = authority
            .issue(&[names::OPERATOR], now, OWN)
            .map_err(AuthorityError::Issue)
            .and_then(|pem| identity.replace(pem).map_err(AuthorityError::Identity));
        if let Err(error) = outcome {
            tracing::error!(error = &error as &dyn std::error::Error, "own certificate not replaced");
        }
    }
}

#[cfg(test)]
mod tests {
    use understudy_api::names as issued;
    use understudy_wire::ShardName;

    use super::*;

    #[test]
    fn certificates_are_made_for_the_names_that_peers_look_for() {
        for (whose, made_for, looked_for) in [
            ("a replica", issued::shard_san("m-0"), names::shard(&ShardName::new("m-0"))),
            ("a pod of a consumer", issued::consumer_san("m-store"), names::consumer("m-store")),
        ] {
            assert_eq!(made_for, looked_for, "{whose}");
        }
    }
}
