//! Whose an object is that has a name of ours already. Pure.
//!
//! Names are derived, so anybody may have taken one before: a ConfigMap of that name may be a team's own. It is ours only when
//! it refers to the very object, by UID, that it is to be made for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was made for this owner.
    Ours,
    /// It is being deleted, or was made for an earlier owner of the same kind and name and waits for the garbage collector.
    Leaving,
    /// Somebody else's, and none of our business.
    Theirs,
}

/// Whose the object is, seen from the owners that it is to have.
pub fn standing(live: &ObjectMeta, wanted: &Value) -> Standing {
    let owners = wanted["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let present = live.owner_references.as_deref().unwrap_or_default();
    if live.deletion_timestamp.is_some() {
        return Standing::Leaving;
    }
    let is_owner = |uid: &str| owners.iter().any(|owner| owner["uid"] == uid);
    let was_owner = |kind: &str, name: &str| owners.iter().any(|owner| owner["kind"] == kind && owner["name"] == name);
    if present.iter().any(|owner| is_owner(&owner.uid)) {
        Standing::Ours
    } else if present.iter().any(|owner| was_owner(&owner.kind, &owner.name)) {
        Standing::Leaving
    } else {
        Standing::Theirs
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_ours_only_by_the_uid_of_its_owner() {
        let owner =
            |kind: &str, name: &str, uid: &str| json!({ "apiVersion": "v", "kind": kind, "name": name, "uid": uid });
        let wanted = json!({ "metadata": { "name": "m-mysql", "ownerReferences": [owner("Shard", "m", "u1")] } });
        let labels = json!({ "app.kubernetes.io/managed-by": "understudy", "understudy.dev/shard": "m" });
        for (case, live, expected) in [
            ("made for it", json!({ "ownerReferences": [owner("Shard", "m", "u1")] }), Standing::Ours),
            (
                "shared",
                json!({ "ownerReferences": [owner("X", "x", "u9"), owner("Shard", "m", "u1")] }),
                Standing::Ours,
            ),
            ("a person's", json!({}), Standing::Theirs),
            ("a person's, with our labels on it", json!({ "labels": labels }), Standing::Theirs),
            ("made for another object", json!({ "ownerReferences": [owner("Shard", "n", "u2")] }), Standing::Theirs),
            ("made for another kind", json!({ "ownerReferences": [owner("Consumer", "m", "u2")] }), Standing::Theirs),
            ("made for an earlier one", json!({ "ownerReferences": [owner("Shard", "m", "u0")] }), Standing::Leaving),
            ("being deleted", json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }), Standing::Leaving),
        ] {
            let live: ObjectMeta = serde_json::from_value(live).unwrap();
            assert_eq!(standing(&live, &wanted), expected, "{case}");
        }
    }
}
