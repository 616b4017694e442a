//! The Kubernetes objects of a shard, from its spec. Pure.
//!
//! - [`pod`] and [`claim`]: one replica's pod and volume
//! - [`config_map`]: what mysqld is told
//! - [`service`] and [`budget`]: the shard as others see it

mod budget;
mod claim;
mod config;
mod pod;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use understudy_api::v1alpha1::Role;
use understudy_api::{Replica, Shard, labels, names};

pub use budget::budget;
pub use claim::{claim, is_claim_of, is_smaller};
pub use config::config_map;
pub use pod::{CREDENTIALS, DRILLS, Surroundings, fingerprint, is_pod_of, pod, role_label};
pub use service::{primary_service, standbys_service};

use crate::apply::MANAGED_BY;

/// The value of the component label on everything of a replica.
pub const COMPONENT: &str = "replica";
/// On a pod: what it was made as, so that it can be told whether it would be made otherwise now.
pub const FINGERPRINT: &str = "understudy.dev/fingerprint";

/// The port of mysqld.
pub const MYSQL_PORT: i32 = 3306;
/// The port of the instance API.
pub const INSTANCE_PORT: i32 = 8440;
/// The port of /livez, /readyz and /metrics.
pub const ADMIN_PORT: i32 = 8441;

/// Labels of everything that belongs to a shard.
pub fn shard_labels(shard: &Shard) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
        (labels::COMPONENT.to_owned(), COMPONENT.to_owned()),
        (labels::SHARD.to_owned(), shard.name_any()),
    ]);
    if let Some(datastore) = names::datastore_of(shard) {
        all.insert(labels::DATASTORE.to_owned(), datastore.to_owned());
    }
    all
}

/// Labels of a replica's pod, volume and Replica object.
pub fn replica_labels(shard: &Shard, replica: &str, role: Role) -> BTreeMap<String, String> {
    let mut all = shard_labels(shard);
    all.insert(labels::REPLICA.to_owned(), replica.to_owned());
    all.insert(labels::ROLE.to_owned(), role.to_string());
    all
}

/// Metadata of an object of a shard that is deleted with it.
fn owned(shard: &Shard, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: shard.namespace(),
        labels: Some(shard_labels(shard)),
        owner_references: owner_of(shard).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// A reference that makes the garbage collector delete with its owner. `None` for an object that is not in the cluster.
pub fn owner_of<K: Resource<DynamicType = ()>>(owner: &K) -> Option<OwnerReference> {
    owner.controller_owner_ref(&())
}

/// Whether the replica was condemned.
pub fn is_condemned(replica: &Replica) -> bool {
    replica.spec.condemned.is_some()
}
