//! Names that are derived from names, and how long a name may be so that everything derived from it fits. Pure.
//!
//! Two objects never derive the same name for objects of one kind, whatever they are called themselves: the names of
//! Datastores and Shards have no dot, so what a Consumer derives has one before a part that has none, and the rest differs
//! in its last word.

use crate::v1alpha1::Shard;

/// Longest name of a Datastore: `NAME-63` must be a Shard's name and `NAME-store` a Consumer's.
pub const MAX_DATASTORE: usize = 34;
/// Longest name of a Shard: `NAME-standbys` must be a Service's name and `NAME-xxxx` a label's value.
pub const MAX_SHARD: usize = 40;
/// Longest name of a Consumer: it is a label's value and the first part of a workload's name.
pub const MAX_CONSUMER: usize = 40;

/// The shard with this index of a Datastore.
pub fn shard_of(datastore: &str, index: i32) -> String {
    format!("{datastore}-{index}")
}

/// The Consumer that feeds a Datastore's time-series store.
pub fn consumer_of(datastore: &str) -> String {
    format!("{datastore}-store")
}

/// The Service in front of a shard's primary, for clients outside the product.
pub fn primary_service(shard: &str) -> String {
    format!("{shard}-primary")
}

/// The Service in front of a shard's standbys, for clients outside the product.
pub fn standbys_service(shard: &str) -> String {
    format!("{shard}-standbys")
}

/// The Secret with the passwords of a shard's MySQL accounts, keyed by account.
pub fn credentials_secret(shard: &str) -> String {
    format!("{shard}-credentials")
}

/// The Secret with `ca.crt`, `tls.crt` and `tls.key` of a shard.
pub fn shard_tls_secret(shard: &str) -> String {
    format!("{shard}-tls")
}

/// The Secret with `ca.crt`, `tls.crt` and `tls.key` of a consumer.
pub fn consumer_tls_secret(consumer: &str) -> String {
    format!("{consumer}.consumer-tls")
}

/// The disruption budget of a shard's replicas.
pub fn shard_budget(shard: &str) -> String {
    format!("{shard}-replicas")
}

/// The gateway of a Datastore: Deployment, Service and disruption budget.
pub fn gateway(datastore: &str) -> String {
    format!("{datastore}-gateway")
}

/// The query service of a Datastore: Deployment, Service, disruption budget and rights.
pub fn query(datastore: &str) -> String {
    format!("{datastore}-query")
}

/// The rights of a Consumer: ServiceAccount, Role and its binding.
pub fn consumer_account(consumer: &str) -> String {
    format!("{consumer}-consumer")
}

/// The ConfigMap with a shard's `my.cnf`.
pub fn config_map(shard: &str) -> String {
    format!("{shard}-mysql")
}

/// The DNS name in a shard's certificate; never resolved, only checked.
pub fn shard_san(shard: &str) -> String {
    format!("{shard}.shard.understudy.internal")
}

/// The DNS names in the certificate of a shard's servers: the one that the product checks, and after it those by which clients
/// outside the product reach them.
pub fn shard_sans(shard: &str, namespace: &str) -> Vec<String> {
    let mut all = vec![shard_san(shard)];
    for service in [primary_service(shard), standbys_service(shard)] {
        let long = format!("{service}.{namespace}.svc.cluster.local");
        all.extend([format!("{service}.{namespace}"), format!("{service}.{namespace}.svc"), service, long]);
    }
    all
}

/// The DNS name in a consumer's certificate; never resolved, only checked.
pub fn consumer_san(consumer: &str) -> String {
    format!("{consumer}.consumer.understudy.internal")
}

/// The workload of a Consumer for one shard: Deployment and disruption budget.
pub fn consumer_workload(consumer: &str, shard: &str) -> String {
    format!("{consumer}.{shard}")
}

/// The record of the promotion that took this epoch.
pub fn failover_record(shard: &str, epoch: i64) -> String {
    format!("{shard}-{epoch}")
}

/// The Lease of the operator, in the namespace that it runs in. Instances that look after the same objects must agree on one, and those
/// that look after others must not wait for each other: so it is named after the namespace that they look after, if it is one.
pub fn lease(scope: Option<&str>) -> String {
    match scope {
        None => "understudy".to_owned(),
        Some(namespace) => format!("understudy-{namespace}"),
    }
}

/// The Datastore that made this Shard, if one did.
pub fn datastore_of(shard: &Shard) -> Option<&str> {
    shard.metadata.labels.as_ref()?.get(crate::labels::DATASTORE).map(String::as_str)
}
