//! `deletionPolicy` on volumes that are there already: it decides when the Shard is deleted, not when a volume was made. I/O.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde_json::{Value, json};
use understudy_api::Shard;
use understudy_api::v1alpha1::DeletionPolicy;

use super::build::owner_of;
use super::observe::Objects;
use crate::apply::manager;
use crate::context::Context;
use crate::errors::chain;
use crate::events::Reason;

/// Gives the volume of every replica of the Shard the owner that its policy asks for, or none. Also while the Shard is paused: a person who
/// asks for volumes to be kept must not have to start anything for it.
pub async fn follow(context: &Context, objects: &Objects) {
    let shard = &objects.shard;
    let namespace = shard.namespace().unwrap_or_default();
    // Only of replicas that this Shard has: a volume that an earlier Shard of the same name left behind bears the same label,
    // and belongs to nobody.
    for claim in objects.claims.values() {
        let Some(patch) = change(shard, claim) else { continue };
        let name = claim.name_any();
        match context.applier.merge::<PersistentVolumeClaim>(manager::SHARD, &namespace, &name, patch).await {
            Ok(_) => {
                let fate = match shard.spec.deletion_policy {
                    DeletionPolicy::Delete => "is deleted with the Shard from now on",
                    DeletionPolicy::Retain => "stays when the Shard is deleted from now on",
                };
                context.events.say(shard, Reason::VolumePolicyChanged, format!("the volume of {name} {fate}"));
            }
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            Err(error) => {
                tracing::warn!(shard = shard.name_any(), volume = name, error = %chain(&error), "deletionPolicy not followed");
            }
        }
    }
}

/// What is to be changed of exactly this version of a volume; None when it is as the policy asks, or on its way out.
fn change(shard: &Shard, claim: &PersistentVolumeClaim) -> Option<Value> {
    let ours = owner_of(shard)?;
    let present: Vec<OwnerReference> = claim.metadata.owner_references.clone().unwrap_or_default();
    let wanted = shard.spec.deletion_policy == DeletionPolicy::Delete;
    let is_owned = present.iter().any(|owner| owner.uid == ours.uid);
    if is_owned == wanted || claim.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut owners: Vec<_> = present.into_iter().filter(|owner| owner.uid != ours.uid).collect();
    owners.extend(wanted.then_some(ours));
    Some(json!({ "metadata": {
        "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version, "ownerReferences": owners,
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(policy: DeletionPolicy) -> Shard {
        let mut shard: Shard = serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard",
            "metadata": { "name": "m", "namespace": "prod", "uid": "u1" },
            "spec": { "mysql": { "image": "mysql:9.7.4" }, "storage": { "size": "10Gi" } },
        }))
        .unwrap();
        shard.spec.deletion_policy = policy;
        shard
    }

    fn volume(owners: &[&str]) -> PersistentVolumeClaim {
        let owners: Vec<_> = owners
            .iter()
            .map(|uid| json!({ "apiVersion": "v1", "kind": "Shard", "name": "m", "uid": uid, "controller": true }))
            .collect();
        let metadata = json!({ "name": "m-a", "uid": "c1", "resourceVersion": "7", "ownerReferences": owners });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn a_volume_has_the_owner_that_the_policy_asks_for_now_whatever_it_was_made_with() {
        use DeletionPolicy::{Delete, Retain};
        for (case, policy, owners, expected) in [
            ("made to be deleted, to be kept now", Retain, &["u1"][..], Some(vec![])),
            ("made to be kept, to be deleted now", Delete, &[], Some(vec!["u1"])),
            ("kept", Retain, &[], None),
            ("deleted", Delete, &["u1"], None),
            ("another owner is left alone", Retain, &["x", "u1"], Some(vec!["x"])),
        ] {
            let patch = change(&shard(policy), &volume(owners));
            let uids = patch.as_ref().map(|patch| {
                let owners = patch["metadata"]["ownerReferences"].as_array().unwrap();
                owners.iter().map(|owner| owner["uid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
            });
            assert_eq!(uids, expected.map(|e: Vec<&str>| e.into_iter().map(str::to_owned).collect()), "{case}");
            let version = patch.map(|patch| patch["metadata"]["resourceVersion"].clone());
            assert!(version.is_none_or(|version| version == "7"), "{case}: any version could be hit");
        }
    }

    #[test]
    fn a_volume_on_its_way_out_is_left_alone() {
        let mut claim = json!(volume(&["u1"]));
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(change(&shard(DeletionPolicy::Retain), &serde_json::from_value(claim).unwrap()), None);
    }
}
