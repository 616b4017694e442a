//! The children of a Consumer, from its spec. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use understudy_api::v1alpha1::KafkaTopic;
use understudy_api::{Consumer, Datastore, labels, names};

use super::super::datastore::{credentials, follow_routes, keep_seconds, rule, secret};
use super::super::shard::build::owner_of;
use super::super::workload::{Port, Workload, value};
use super::group::{group_of, schema_of};
use crate::apply::MANAGED_BY;
use crate::context::Context;

const CREDENTIALS: &str = "/etc/understudy/credentials";
const TLS: &str = "/etc/understudy/tls";
/// The MySQL account of consumers.
const ACCOUNT: &str = understudy_wire::account::CONSUMER;

/// What a Consumer reads and where to, whether it says so itself or its Datastore does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The shards, in order.
    pub shards: Vec<String>,
    /// The topic.
    pub kafka: KafkaTopic,
    /// Partitions of the topic, as far as a Datastore says.
    pub partitions: Option<i32>,
    /// How long a Datastore keeps its samples, in seconds; for ever unless it says so.
    pub keep_seconds: Option<i64>,
}

/// Why there is nothing to run. The rules of the kind let only the first through; the others are of objects older than the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No such Datastore.
    #[error("there is no Datastore {0} in this namespace")]
    Datastore(String),
    /// Shards without a topic.
    #[error("there is neither a datastore nor a topic to read from")]
    NoTopic,
    /// The offsets of the placements are those of the Datastore's topic, and mean nothing in another one.
    #[error(
        "spec.kafka names another topic than that of Datastore {0}, whose placements count in its own: make a Consumer \
         without kafka, or one with shards"
    )]
    OtherTopic(String),
}

/// What the Consumer reads and where to.
pub fn resolve(consumer: &Consumer, datastore: Option<&Datastore>) -> Result<Resolved, Unresolved> {
    let spec = &consumer.spec;
    match (&spec.datastore, datastore) {
        (Some(name), _) if spec.kafka.is_some() => Err(Unresolved::OtherTopic(name.clone())),
        (Some(_), Some(datastore)) => {
            let kafka = &datastore.spec.kafka;
            let shards = 0..datastore.spec.shards;
            Ok(Resolved {
                shards: shards.map(|index| names::shard_of(&datastore.name_any(), index)).collect(),
                partitions: Some(kafka.partitions),
                kafka: KafkaTopic { bootstrap_servers: kafka.bootstrap_servers.clone(), topic: kafka.topic.clone() },
                keep_seconds: keep_seconds(datastore),
            })
        }
        (Some(name), None) => Err(Unresolved::Datastore(name.clone())),
        (None, _) => Ok(Resolved {
            shards: spec.shards.clone().unwrap_or_default(),
            kafka: spec.kafka.clone().ok_or(Unresolved::NoTopic)?,
            partitions: None,
            keep_seconds: None,
        }),
    }
}

/// Labels of everything that belongs to a Consumer.
pub fn labels(consumer: &Consumer) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
        (labels::CONSUMER.to_owned(), consumer.name_any()),
    ]);
    if let Some(datastore) = &consumer.spec.datastore {
        all.insert(labels::DATASTORE.to_owned(), datastore.clone());
    }
    all
}

/// What the pods may do at the API server: follow routes, and report on their own Consumer.
pub fn rights(consumer: &Consumer) -> (ServiceAccount, Role, RoleBinding) {
    let metadata = ObjectMeta {
        name: Some(names::consumer_account(&consumer.name_any())),
        namespace: consumer.namespace(),
        labels: Some(labels(consumer)),
        owner_references: owner_of(consumer).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let report = rule(&["consumers/status"], &["get", "patch"], Some(consumer.name_any()));
    super::super::datastore::rights(metadata, vec![follow_routes(), report])
}

/// The workload for one shard.
pub fn workload(consumer: &Consumer, resolved: &Resolved, shard: &str, context: &Context) -> Workload {
    let spec = &consumer.spec;
    let settings = &context.settings;
    let mut selector = labels(consumer);
    selector.remove(MANAGED_BY.0);
    selector.insert(labels::SHARD.to_owned(), shard.to_owned());
    Workload {
        name: names::consumer_workload(&consumer.name_any(), shard),
        namespace: consumer.namespace(),
        owner: owner_of(consumer),
        component: "consumer",
        selector,
        replicas: spec.replicas,
        image: spec.view.as_ref().map_or_else(|| settings.image.clone(), |view| view.image.clone()),
        pull_policy: settings.image_pull_policy.clone(),
        // A view of one's own is its image's own entry point.
        command: spec.view.is_none().then(|| "/usr/local/bin/understudy-consumer".to_owned()),
        environment: environment(consumer, resolved, shard),
        ports: vec![Port { name: "evidence", number: 8450 }, Port { name: "admin", number: 8451 }],
        mounts: vec![
            (credentials(&[shard.to_owned()], ACCOUNT, true), CREDENTIALS.to_owned()),
            (secret("tls", &names::consumer_tls_secret(&consumer.name_any())), TLS.to_owned()),
        ],
        service_account: Some(names::consumer_account(&consumer.name_any())),
        resources: spec.resources.clone(),
        template: spec.pod_template.clone(),
    }
}

/// What a pod is told.
pub fn environment(consumer: &Consumer, resolved: &Resolved, shard: &str) -> Vec<EnvVar> {
    let spec = &consumer.spec;
    let list = |partitions: &[i32]| partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut variables = vec![
        value("UNDERSTUDY_CONSUMER", consumer.name_any()),
        value("UNDERSTUDY_GROUP", group_of(consumer)),
        value("UNDERSTUDY_SHARD", shard),
        value("UNDERSTUDY_SCHEMA", schema_of(consumer)),
        value("UNDERSTUDY_KAFKA_BOOTSTRAP", &resolved.kafka.bootstrap_servers),
        value("UNDERSTUDY_TOPIC", &resolved.kafka.topic),
        value("UNDERSTUDY_START", spec.start.as_ref()),
        value("UNDERSTUDY_ACCEPT_GAPS", spec.accept_gaps.to_string()),
        value("UNDERSTUDY_BATCH_MAX_RECORDS", spec.batch.max_records.to_string()),
        value("UNDERSTUDY_BATCH_MAX_BYTES", spec.batch.max_bytes.to_string()),
        value("UNDERSTUDY_BATCH_MAX_DELAY_MS", spec.batch.max_delay_ms.to_string()),
        value("UNDERSTUDY_PAUSED", spec.paused.to_string()),
        value("UNDERSTUDY_PAUSED_PARTITIONS", list(&spec.paused_partitions)),
        value("UNDERSTUDY_CREDENTIALS_DIR", CREDENTIALS),
        value("UNDERSTUDY_TLS_DIR", TLS),
        value("UNDERSTUDY_EVIDENCE_LISTEN", "0.0.0.0:8450"),
        value("UNDERSTUDY_ADMIN_LISTEN", "0.0.0.0:8451"),
    ];
    match &spec.datastore {
        Some(datastore) => variables.push(value("UNDERSTUDY_DATASTORE", datastore)),
        None => variables.push(value("UNDERSTUDY_SHARDS", resolved.shards.join(","))),
    }
    if let Some(partitions) = resolved.partitions {
        variables.push(value("UNDERSTUDY_PARTITIONS", partitions.to_string()));
    }
    if let Some(seconds) = resolved.keep_seconds.filter(|_| spec.view.is_none()) {
        variables.push(value("UNDERSTUDY_KEEP_SECONDS", seconds.to_string()));
    }
    for (name, setting) in spec.view.iter().flat_map(|view| &view.settings) {
        variables.push(value(&format!("UNDERSTUDY_VIEW_{name}"), setting));
    }
    variables
}
