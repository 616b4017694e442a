//! The certificate authority of the installation, and who the operator is. I/O.
//!
//! The authority is made once and kept in the Secret `understudy-ca` beside the operator; two instances that start at
//! once agree on the one that was written first. While one runs it puts the Secret back when that is gone.

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
/// Who writes the Secret.
const MANAGER: &str = "understudy-authority";

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
    match applier.create(MANAGER, &secret(namespace, &authority)).await {
        Ok(_) => Ok(authority),
        Err(error) if error.is_already_exists() => read(applier, namespace).await?.ok_or(AuthorityError::Secret(error)),
        Err(error) => Err(AuthorityError::Secret(error)),
    }
}

fn secret(namespace: &str, authority: &Authority) -> Secret {
    let data = [("ca.crt", authority.cert()), ("ca.key", authority.key())];
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec()))).into()),
        ..Secret::default()
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

/// Replaces the operator's own certificate before it ends, and puts the authority back where it is kept, until stopped.
pub async fn keep_fresh(
    identity: Identity,
    authority: Arc<Authority>,
    applier: Applier,
    namespace: String,
    stop: CancellationToken,
) {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        match stop.run_until_cancelled(keep(&applier, &namespace, &authority)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the authority was not looked at")
            }
            None => return,
        }
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

/// Makes the Secret again when it is gone: the next operator that starts would make another authority, and every certificate anew.
async fn keep(applier: &Applier, namespace: &str, authority: &Authority) -> Result<(), AuthorityError> {
    match read(applier, namespace).await? {
        Some(kept) if kept.cert() == authority.cert() => return Ok(()),
        Some(_) => {
            tracing::warn!(
                secret = SECRET,
                "another authority is kept than this instance signs with until it is restarted"
            );
            return Ok(());
        }
        None => {}
    }
    match applier.create(MANAGER, &secret(namespace, authority)).await {
        Ok(_) => tracing::warn!(secret = SECRET, "it was gone and is put back"),
        Err(error) if error.is_already_exists() => {}
        Err(error) => return Err(AuthorityError::Secret(error)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use understudy_api::names as issued;
    use understudy_wire::ShardName;

    use super::*;
    use crate::fake::FakeApi;

    #[test]
    fn certificates_are_made_for_the_names_that_peers_look_for() {
        for (whose, made_for, looked_for) in [
            ("a replica", issued::shard_san("m-0"), names::shard(&ShardName::new("m-0"))),
            ("a pod of a consumer", issued::consumer_san("m-store"), names::consumer("m-store")),
        ] {
            assert_eq!(made_for, looked_for, "{whose}");
        }
    }

    #[tokio::test]
    async fn an_authority_that_is_gone_is_put_back_as_it_was_and_another_one_is_left_alone() {
        let api = FakeApi::default();
        let (applier, namespace) = (api.applier(), "understudy-system");
        let authority = obtain(&applier, namespace).await.unwrap();
        let kept = async || read(&applier, namespace).await.unwrap().map(|kept| kept.key().to_owned());

        api.change("secrets/understudy-ca", |secret| {
            secret["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        });
        assert_eq!(kept().await, None);
        keep(&applier, namespace, &authority).await.unwrap();
        assert_eq!(kept().await.as_deref(), Some(authority.key()));

        let writes = api.writes().len();
        keep(&applier, namespace, &authority).await.unwrap();
        let other = Authority::generate("understudy", SystemTime::now()).unwrap();
        keep(&applier, namespace, &other).await.unwrap();
        assert_eq!(kept().await.as_deref(), Some(authority.key()));
        assert_eq!(api.writes().len(), writes);
    }
}
