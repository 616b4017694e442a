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

/// Whether less was asked for than the spec asks for now. A claim that somebody made larger is fine.
pub fn is_smaller(claim: &PersistentVolumeClaim, shard: &Shard) -> bool {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let asked = resources.and_then(|resources| resources.requests.as_ref()?.get("storage"));
    let asked = asked.and_then(|quantity| amount(&quantity.0));
    asked.zip(amount(&shard.spec.storage.size)).is_some_and(|(asked, now)| asked < now)
}

/// The API server writes a quantity its own way: `1024Mi` comes back as `1Gi`.
fn amount(quantity: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let unit = UNITS.into_iter().find_map(|(suffix, unit)| Some((quantity.strip_suffix(suffix)?, unit)));
    let (number, unit) = unit.unwrap_or((quantity, 1.0));
    number.parse::<f64>().ok().map(|number| number * unit)
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
