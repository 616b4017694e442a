//! Volumes that outlive their Shard: each is told why it is still there. I/O: a queue.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use understudy_api::labels;

use crate::context::Context;
use crate::events::Reason;

/// Says on each volume of a Shard that is gone why it stays, if it does.
pub fn say(context: &Context, namespace: &str, shard: &str) {
    if !context.leading.is_leading() {
        return;
    }
    for claim in context.caches.claims.labelled(namespace, labels::SHARD, shard) {
        if is_retained(&claim) {
            let note = format!("Shard {shard} was deleted; its deletionPolicy keeps this volume until you delete it");
            context.events.say(&*claim, Reason::VolumeRetained, note);
        }
    }
}

/// A volume without an owner is left alone by the garbage collector; one that is being deleted does not stay.
fn is_retained(claim: &PersistentVolumeClaim) -> bool {
    let has_owner = claim.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    !has_owner && claim.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use understudy_api::v1alpha1::{DeletionPolicy, Role};
    use understudy_api::{Replica, Shard};

    use super::super::build;
    use super::*;

    fn volume(policy: DeletionPolicy) -> Value {
        let mut shard: Shard = serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
            "metadata": { "name": "m", "namespace": "prod", "uid": "u1" },
            "spec": { "mysql": { "image": "mysql:9.7.4" }, "storage": { "size": "10Gi" } },
        }))
        .unwrap();
        shard.spec.deletion_policy = policy;
        let replica: Replica = serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Replica",
            "metadata": { "name": "m-a", "namespace": "prod" }, "spec": { "shard": "m", "serverId": 1 },
        }))
        .unwrap();
        json!(build::claim(&shard, &replica, Role::Spare))
    }

    #[test]
    fn a_volume_stays_when_the_policy_says_so_and_nobody_deletes_it() {
        let deleted = |mut volume: Value| {
            volume["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            volume
        };
        for (case, volume, stays) in [
            ("Retain", volume(DeletionPolicy::Retain), true),
            ("Delete", volume(DeletionPolicy::Delete), false),
            ("Retain, and deleted by a person", deleted(volume(DeletionPolicy::Retain)), false),
        ] {
            assert_eq!(is_retained(&serde_json::from_value(volume).unwrap()), stays, "{case}");
        }
    }
}
