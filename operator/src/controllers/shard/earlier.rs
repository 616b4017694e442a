//! Volumes of an earlier Shard of the same name: one that begins takes none of them, and says so. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use understudy_api::Shard;

use super::build::is_claim_of;

/// More are only counted.
const NAMED: usize = 8;

/// What is said of those of these claims, which have the shard's name, that were made for another Shard. `None` when there is no such.
pub fn note<'a>(shard: &Shard, claims: impl IntoIterator<Item = &'a PersistentVolumeClaim>) -> Option<String> {
    let stays = |claim: &PersistentVolumeClaim| claim.metadata.deletion_timestamp.is_none();
    let claims = claims.into_iter().filter(|claim| stays(claim) && !is_claim_of(claim, shard));
    let mut names: Vec<_> = claims.map(ResourceExt::name_any).collect();
    if names.is_empty() {
        return None;
    }
    names.sort();
    let count = names.len();
    names.truncate(NAMED);
    let more = if count > NAMED { ", ..." } else { "" };
    Some(format!(
        "this Shard begins empty, and consumers read what Kafka still holds. Volumes of an earlier Shard of its name, {count} of them, are \
         not taken into use: {}{more}. \"Reading a kept volume\" in operator/docs/operations.md says how to read them",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(name: &str, uid: Option<&str>, deleted: Option<&str>) -> PersistentVolumeClaim {
        let mut labels = json!({ "understudy.dev/shard": "m" });
        if let Some(uid) = uid {
            labels["understudy.dev/shard-uid"] = json!(uid);
        }
        let metadata = json!({ "name": name, "namespace": "prod", "labels": labels, "deletionTimestamp": deleted });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    fn said(claims: &[PersistentVolumeClaim]) -> Option<String> {
        let shard: Value = json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
            "metadata": { "name": "m", "namespace": "prod", "uid": "u1" },
            "spec": { "mysql": { "image": "mysql:9.7.4" }, "storage": { "size": "10Gi" } },
        });
        note(&serde_json::from_value(shard).unwrap(), claims)
    }

    #[test]
    fn volumes_of_an_earlier_shard_of_the_name_are_named_and_no_others() {
        for (case, claim) in [
            ("its own", claim("m-a", Some("u1"), None)),
            ("of before volumes told whose they are", claim("m-a", None, None)),
            ("on its way out", claim("m-a", Some("u0"), Some("2026-01-01T00:00:00Z"))),
        ] {
            assert_eq!(said(&[claim]), None, "{case}");
        }
        let note =
            said(&[claim("m-z", Some("u0"), None), claim("m-a", Some("u1"), None), claim("m-b", Some("u0"), None)]);
        let note = note.unwrap();
        assert!(note.contains("2 of them") && note.contains(": m-b, m-z. "), "{note}");
    }

    #[test]
    fn of_many_volumes_some_are_named_and_all_are_counted() {
        let claims: Vec<_> = (10..30).map(|number| claim(&format!("m-{number}"), Some("u0"), None)).collect();
        let note = said(&claims).unwrap();
        assert!(note.contains("20 of them") && note.contains("m-17, ..."), "{note}");
        assert!(!note.contains("m-18"), "{note}");
    }
}
