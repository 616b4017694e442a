//! The volume of a replica. Pure.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use understudy_api::labels::{SHARD, SHARD_UID};
use understudy_api::v1alpha1::Role;
use understudy_api::{Replica, Shard};

use super::replica_labels;

/// The volume of a replica, of the replica's name. It has no owner, so nothing takes it with it: what becomes of it is decided
/// when its quarantine is over or its Shard is deleted.
pub fn claim(shard: &Shard, replica: &Replica, role: Role) -> PersistentVolumeClaim {
    let storage = &shard.spec.storage;
    let mut labels = replica_labels(shard, &replica.name_any(), role);
    labels.extend(shard.uid().map(|uid| (SHARD_UID.to_owned(), uid)));
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(replica.name_any()),
            namespace: shard.namespace(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(storage.size.clone()))].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// Whether the volume was made for this very Shard: a claim that only has the name is somebody else's.
pub fn is_claim_of(claim: &PersistentVolumeClaim, shard: &Shard) -> bool {
    let label = |key: &str| claim.labels().get(key);
    match label(SHARD_UID) {
        Some(uid) => shard.uid().as_ref() == Some(uid),
        // Made before volumes had this label. Such a claim has the Shard's label, and a name that follows from its UID.
        None => label(SHARD) == Some(&shard.name_any()),
    }
}
