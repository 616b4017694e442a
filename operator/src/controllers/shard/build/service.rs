//! The Services in front of a shard, for clients outside the product: the product itself follows the route in the status.
//! Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use understudy_api::v1alpha1::Role;
use understudy_api::{Shard, labels, names};

use super::{MYSQL_PORT, owned};

/// In front of the primary.
pub fn primary_service(shard: &Shard) -> Service {
    service(shard, names::primary_service(&shard.name_any()), Role::Primary)
}

/// In front of the standbys.
pub fn standbys_service(shard: &Shard) -> Service {
    service(shard, names::standbys_service(&shard.name_any()), Role::Standby)
}

fn service(shard: &Shard, name: String, role: Role) -> Service {
    let selector =
        BTreeMap::from([(labels::SHARD.to_owned(), shard.name_any()), (labels::ROLE.to_owned(), role.to_string())]);
    Service {
        metadata: owned(shard, name),
        spec: Some(ServiceSpec {
            selector: Some(selector),
            ports: Some(vec![ServicePort {
                name: Some("mysql".to_owned()),
                port: MYSQL_PORT,
                target_port: Some(IntOrString::String("mysql".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
