//! Passwords, made once, and certificates, made anew before they end. I/O.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use serde_json::json;
use understudy_api::{Shard, labels, names};
use understudy_link::issue::{BACKDATED, Facts, IssueError, Pem};

use super::super::shard::build::{CREDENTIALS, owner_of, shard_labels};
use crate::apply::{ApplyError, Live, manager};
use crate::authority::LEAF;
use crate::context::Context;
use crate::events::Reason;

/// The MySQL accounts of a shard; each is a key of the Secret.
pub const ACCOUNTS: [&str; 5] = understudy_wire::account::ALL;
/// On the passwords: UID of the Shard that uses them.
const USED_BY: &str = labels::SHARD_UID;
/// Characters of a password: 192 bits.
const PASSWORD: usize = 32;

/// A certificate that is younger than this and of another authority was hardly left by one that is replaced once in years.
const LATELY: Duration = Duration::from_secs(3600);

/// What went wrong with a Secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It could not be read or written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// No certificate could be made.
    #[error("no certificate for {name}")]
    Issue {
        /// For whom.
        name: String,
        /// Why.
        #[source]
        source: IssueError,
    },
    /// The system gave no random numbers.
    #[error("the system gave no random numbers")]
    Random,
    /// The passwords of a shard that has accounts already are gone.
    #[error(
        "secret {secret} is gone, and new passwords would not be those of the MySQL accounts; put it back: pods of replicas that run \
         still have it in {CREDENTIALS}, a file for each key"
    )]
    Gone {
        /// Which Secret.
        secret: String,
    },
    /// A password is missing in a shard that has accounts already.
    #[error("secret {secret} lacks {missing}; put the password of that MySQL account back")]
    Incomplete {
        /// Which Secret.
        secret: String,
        /// Which keys.
        missing: String,
    },
}

impl SecretError {
    /// What the API server did not do, when that is what went wrong.
    pub fn unwritten(&self) -> Option<&ApplyError> {
        match self {
            Self::Apply(error) => Some(error),
            Self::Issue { .. } | Self::Random | Self::Gone { .. } | Self::Incomplete { .. } => None,
        }
    }
}

/// Makes the passwords of a shard if there are none. What is there is never changed: accounts in MySQL have these passwords,
/// and so have the volumes that outlive a shard. Hence the Secret lives as long as the volumes do, and is immutable: nobody
/// else overwrites the only copy either.
pub async fn ensure_credentials(shard: &Shard, context: &Context) -> Result<(), SecretError> {
    let (namespace, name) = (shard.namespace().unwrap_or_default(), names::credentials_secret(&shard.name_any()));
    let found: Option<Secret> = context.applier.get(&namespace, &name).await?;
    let reused = found.as_ref().is_some_and(|secret| is_of_before(secret, shard));
    let uid = match found {
        Some(secret) if is_leaving(&secret, shard) => {
            return Err(ApplyError::Leaving { kind: "Secret".into(), name }.into());
        }
        Some(secret) if !may_be_used(&secret, shard) => {
            return Err(ApplyError::NotOurs { kind: "Secret".into(), name }.into());
        }
        Some(secret) => {
            complete(&secret)?;
            secret.uid()
        }
        None if has_accounts(shard) => return Err(SecretError::Gone { secret: name }),
        None => {
            let secret = credentials(shard, &name)?;
            match context.applier.create(manager::FURNISH, &secret).await {
                Ok(made) => {
                    context.events.say(shard, Reason::CredentialsCreated, format!("passwords are in Secret {name}"));
                    made.uid()
                }
                // Another instance was first; the next pass reads what it made.
                Err(error) if error.is_already_exists() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    };
    // No owner: what becomes of them is decided when the Shard is deleted.
    let all_but_data = json!({
        "metadata": {
            "name": name,
            "uid": uid,
            "labels": shard_labels(shard),
            "annotations": used_by(shard),
        },
        // Also of one that a person made, or an earlier version did.
        "immutable": true,
    });
    context.applier.apply_as::<Secret>(manager::FURNISH, &namespace, &name, all_but_data, Live::Unwatched).await?;
    if reused {
        let note = format!("Secret {name} was there before this Shard; its passwords are used");
        context.events.say(shard, Reason::CredentialsReused, note);
    }
    Ok(())
}

/// Which Shard uses the passwords, written on them so that it is said once that they are older than it.
fn used_by(shard: &Shard) -> BTreeMap<String, String> {
    shard.uid().map(|uid| (USED_BY.to_owned(), uid)).into_iter().collect()
}

/// Whether the passwords were there before the Shard, and are used by it for the first time.
fn is_of_before(secret: &Secret, shard: &Shard) -> bool {
    secret.annotations().get(USED_BY) != shard.uid().as_ref() && !has_accounts(shard)
}

/// Whether MySQL has accounts already, with passwords that only the Secret knew.
fn has_accounts(shard: &Shard) -> bool {
    shard.status.as_ref().is_some_and(|status| {
        status.primary.is_some() || status.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.completed)
    })
}

/// Whether the Secret is deleted with an earlier Shard of the name, whose volumes are.
fn is_leaving(secret: &Secret, shard: &Shard) -> bool {
    let earlier = |owner: &OwnerReference| owner.kind == "Shard" && Some(&owner.uid) != shard.uid().as_ref();
    secret.metadata.deletion_timestamp.is_some() || secret.owner_references().iter().any(earlier)
}

/// Whether these are passwords of a shard of this name: ours, an earlier one's, or all of them put there by a person. Anything
/// else that only has the name is somebody else's.
fn may_be_used(secret: &Secret, shard: &Shard) -> bool {
    let labelled = shard_labels(shard).iter().all(|(key, value)| secret.labels().get(key) == Some(value));
    let owners = secret.owner_references();
    let foreign = owners.iter().any(|owner| owner.kind != "Shard" || owner.name != shard.name_any());
    !foreign && (labelled || secret.annotations().contains_key(USED_BY) || complete(secret).is_ok())
}

fn complete(secret: &Secret) -> Result<(), SecretError> {
    let has =
        |account: &str| secret.data.as_ref().is_some_and(|data| data.get(account).is_some_and(|p| !p.0.is_empty()));
    let missing: Vec<_> = ACCOUNTS.into_iter().filter(|account| !has(account)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(SecretError::Incomplete { secret: secret.name_any(), missing: missing.join(", ") })
}

fn credentials(shard: &Shard, name: &str) -> Result<Secret, SecretError> {
    let mut data = BTreeMap::new();
    for account in ACCOUNTS {
        data.insert(account.to_owned(), ByteString(password()?.into_bytes()));
    }
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: shard.namespace(),
            labels: Some(shard_labels(shard)),
            annotations: Some(used_by(shard)),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        immutable: Some(true),
        data: Some(data),
        ..Secret::default()
    })
}

fn password() -> Result<String, SecretError> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = [0; PASSWORD];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| SecretError::Random)?;
    Ok(bytes.map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).iter().collect())
}

/// Puts a certificate for these DNS names into this Secret of its owner, and a new one there before it ends or when it lacks one of
/// them. The first name is who its holder is.
pub async fn ensure_certificate<K>(
    owner: &K,
    name: &str,
    sans: &[String],
    labels: &BTreeMap<String, String>,
    context: &Context,
) -> Result<(), SecretError>
where
    K: Resource<DynamicType = ()>,
{
    let namespace = owner.namespace().unwrap_or_default();
    let found: Option<Secret> = context.applier.get(&namespace, name).await?;
    let now = SystemTime::now();
    if found.as_ref().is_some_and(|secret| is_good(secret, sans, context.authority.cert(), now)) {
        return Ok(());
    }
    let contested = found.as_ref().is_some_and(|secret| is_contested(secret, context.authority.cert(), now));
    let who = sans.first().cloned().unwrap_or_default();
    let sans: Vec<_> = sans.iter().map(String::as_str).collect();
    let pem =
        context.authority.issue(&sans, now, LEAF).map_err(|source| SecretError::Issue { name: who.clone(), source })?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace),
            labels: Some(labels.clone()),
            owner_references: owner_of(owner).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(pem_data(&pem)),
        ..Secret::default()
    };
    context.applier.apply(manager::FURNISH, &secret, Live::Absent).await?;
    context.events.say(owner, Reason::CertificateIssued, format!("certificate for {who} is in Secret {name}"));
    if contested {
        let note = format!(
            "the certificate that was in Secret {name} was of another authority and not an hour old; when that comes again, \
             another installation of understudy looks after this object too: let only one do so"
        );
        context.events.say(owner, Reason::CertificateContested, note);
    }
    Ok(())
}

fn pem_data(pem: &Pem) -> BTreeMap<String, ByteString> {
    [("ca.crt", &pem.ca), ("tls.crt", &pem.cert), ("tls.key", &pem.key)]
        .map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())))
        .into()
}

/// Whether the Secret holds a certificate for these names, of this authority, that is not due to be replaced.
fn is_good(secret: &Secret, sans: &[String], authority: &str, now: SystemTime) -> bool {
    let facts = Facts::of_pem(text(secret, "tls.crt"));
    text(secret, "ca.crt") == authority
        && !text(secret, "tls.key").is_empty()
        && facts.is_ok_and(|facts| sans.iter().all(|san| facts.names.contains(san)) && !facts.is_due(now))
}

/// Whether another authority signed the certificate lately. Two installations that look after one object do so in turns, each whenever it
/// looks.
fn is_contested(secret: &Secret, authority: &str, now: SystemTime) -> bool {
    let made = Facts::of_pem(text(secret, "tls.crt")).ok().and_then(|facts| facts.not_before.checked_add(BACKDATED));
    text(secret, "ca.crt") != authority
        && made.is_some_and(|made| now.duration_since(made).unwrap_or_default() < LATELY)
}

fn text<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use understudy_link::Authority;

    use super::*;
    use crate::fake::FakeApi;

    #[test]
    fn passwords_are_long_and_differ() {
        let (one, other) = (password().unwrap(), password().unwrap());
        assert_eq!(one.len(), PASSWORD);
        assert_ne!(one, other);
    }

    fn shard(uid: &str, status: serde_json::Value) -> Shard {
        serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
            "metadata": { "name": "m", "namespace": "prod", "uid": uid },
            "spec": { "mysql": { "image": "mysql:9.7.4" }, "storage": { "size": "10Gi" } },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn passwords_are_of_before_until_the_shard_is_written_on_them() {
        let unborn = || json!({ "epoch": 0, "nextServerId": 1 });
        let first = shard("u1", unborn());
        let own = credentials(&first, "m-credentials").unwrap();
        let by_hand = Secret { metadata: ObjectMeta::default(), ..own.clone() };
        let serving = json!({ "epoch": 1, "nextServerId": 4, "primary": "m-a" });
        for (case, secret, shard, of_before) in [
            ("made for it", &own, &first, false),
            ("left by an earlier one", &own, &shard("u2", unborn()), true),
            ("put there by a person", &by_hand, &first, true),
            ("of a shard that has served, never written on", &by_hand, &shard("u1", serving), false),
        ] {
            assert_eq!(is_of_before(secret, shard), of_before, "{case}");
        }
    }

    #[test]
    fn a_secret_that_only_has_the_name_is_somebody_elses() {
        let shard = shard("u1", json!({ "epoch": 0, "nextServerId": 1 }));
        let own = credentials(&shard, "m-credentials").unwrap();
        let data =
            |keys: &[&str]| Some(keys.iter().map(|key| ((*key).to_owned(), ByteString(b"x".to_vec()))).collect());
        let bare = |keys: &[&str]| Secret { data: data(keys), ..Secret::default() };
        let mut owned = own.clone();
        owned.metadata.owner_references = serde_json::from_value(
            json!([{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "m", "uid": "d1" }]),
        )
        .unwrap();
        let lacking = Secret { data: data(&ACCOUNTS[1..]), ..own.clone() };
        for (case, secret, usable) in [
            ("ours", own, true),
            ("ours, and a password is gone", lacking, true),
            ("all the passwords, put there by a person", bare(&ACCOUNTS), true),
            ("something else of this name", bare(&["password"]), false),
            ("nothing in it", bare(&[]), false),
            ("another object's", owned, false),
        ] {
            assert_eq!(may_be_used(&secret, &shard), usable, "{case}");
        }
    }

    #[test]
    fn a_secret_without_a_password_is_not_filled_in_silently() {
        let mut secret = Secret {
            data: Some(ACCOUNTS.map(|account| (account.to_owned(), ByteString(b"x".to_vec()))).into()),
            ..Secret::default()
        };
        assert!(complete(&secret).is_ok());
        secret.data.as_mut().unwrap().remove("understudy_repl");
        assert!(complete(&secret).unwrap_err().to_string().contains("lacks understudy_repl"));
    }

    #[tokio::test]
    async fn passwords_that_are_complete_can_only_be_deleted_and_those_that_are_not_can_be_completed() {
        let shard = shard("u1", json!({ "epoch": 0, "nextServerId": 1 }));
        let there = |keys: &[&str]| {
            let data: BTreeMap<_, _> = keys.iter().map(|key| ((*key).to_owned(), "eA==")).collect();
            Some(json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": "m-credentials", "namespace": "prod", "labels": shard_labels(&shard) },
                "data": data,
            }))
        };
        for (case, found, locked) in [
            ("made now", None, true),
            ("made by a person or an earlier version", there(&ACCOUNTS), true),
            ("a password is missing", there(&ACCOUNTS[1..]), false),
        ] {
            let api = FakeApi::with(found.clone());
            let outcome = ensure_credentials(&shard, &api.context().await).await;
            assert_eq!(outcome.is_ok(), locked, "{case}: {outcome:?}");
            let secret = api.object("secrets/m-credentials").unwrap();
            assert_eq!(secret["immutable"] == json!(true), locked, "{case}");
            assert!(found.is_none_or(|found| found["data"] == secret["data"]), "{case}: a password was changed");
        }
    }

    #[test]
    fn a_shard_makes_its_passwords_immutable_from_the_first_moment_on() {
        let shard = shard("u1", json!({ "epoch": 0, "nextServerId": 1 }));
        assert_eq!(credentials(&shard, "m-credentials").unwrap().immutable, Some(true));
    }

    #[test]
    fn whoever_has_to_put_passwords_back_is_told_where_they_still_are() {
        let gone = SecretError::Gone { secret: "m-credentials".to_owned() }.to_string();
        assert!(gone.contains("secret m-credentials is gone"), "{gone}");
        assert!(gone.contains("still have it in /etc/understudy/credentials"), "{gone}");
    }

    #[test]
    fn a_certificate_is_kept_only_while_it_is_good() {
        let now = SystemTime::now();
        let authority = Authority::generate("understudy", now).unwrap();
        let other = Authority::generate("other", now).unwrap();
        let issue = |authority: &Authority, names: &[&str]| Secret {
            data: Some(pem_data(&authority.issue(names, now, LEAF).unwrap())),
            ..Secret::default()
        };
        let day = Duration::from_secs(24 * 3600);
        let (both, wanted) = (["a.example", "a-primary.prod"], ["a.example".to_owned(), "a-primary.prod".to_owned()]);
        for (case, secret, after, good) in [
            ("new", issue(&authority, &both), 0, true),
            ("for more than is wanted now", issue(&authority, &["b.example", both[0], both[1]]), 0, true),
            ("near its end", issue(&authority, &both), 70, false),
            ("for another", issue(&authority, &["b.example"]), 0, false),
            ("of before it was for the Services as well", issue(&authority, &both[..1]), 0, false),
            ("of another authority", issue(&other, &both), 0, false),
            ("empty", Secret::default(), 0, false),
        ] {
            assert_eq!(is_good(&secret, &wanted, authority.cert(), now + after * day), good, "{case}");
        }
    }

    #[test]
    fn a_certificate_that_another_authority_signed_just_now_tells_of_a_second_installation() {
        let now = SystemTime::now();
        let authority = Authority::generate("understudy", now).unwrap();
        let other = Authority::generate("understudy", now).unwrap();
        let issue = |authority: &Authority| Secret {
            data: Some(pem_data(&authority.issue(&["a.example"], now, LEAF).unwrap())),
            ..Secret::default()
        };
        let minute = Duration::from_secs(60);
        for (case, secret, after, contested) in [
            ("its own", issue(&authority), 10, false),
            ("another's of ten minutes ago", issue(&other), 10, true),
            ("another's of two hours ago, as after the authority was replaced", issue(&other), 120, false),
            ("no certificate", Secret::default(), 10, false),
        ] {
            assert_eq!(is_contested(&secret, authority.cert(), now + after * minute), contested, "{case}");
        }
    }
}
