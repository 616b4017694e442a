//! The children of a Datastore, from its spec. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EnvVar, KeyToPath, ProjectedVolumeSource, SecretProjection, SecretVolumeSource, ServiceAccount, Volume,
    VolumeProjection,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::{Value, json};
use understudy_api::v1alpha1::{Amount, ConsumerSpec, FailoverMode, GatewaySpec, QuerySpec, Resources, ShardSpec};
use understudy_api::{Consumer, Datastore, labels, names};
use understudy_wire::account;

use super::super::shard::build::owner_of;
use super::super::workload::{Port, Workload, value};
use crate::apply::MANAGED_BY;
use crate::context::Context;

/// How old a sample may be that the gateway takes, unless told otherwise.
const GATEWAY_AGE_SECONDS: i64 = 31 * 24 * 3600;
const TOKENS: &str = "/etc/understudy/tokens";
const CREDENTIALS: &str = "/etc/understudy/credentials";
const TLS: &str = "/etc/understudy/tls";

fn labels_of(datastore: &Datastore) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
        (labels::DATASTORE.to_owned(), datastore.name_any()),
    ])
}

/// Metadata of an object that is deleted with the Datastore.
pub fn metadata(datastore: &Datastore, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: datastore.namespace(),
        labels: Some(labels_of(datastore)),
        owner_references: owner_of(datastore).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// A shard, as JSON. The levers of an emergency (`paused`, `failover.mode`) are only in it when the Datastore pulls them: so a
/// person can pull them on one shard without the Datastore setting them back.
pub fn shard(datastore: &Datastore, index: i32) -> Value {
    let template = &datastore.spec.shard_template;
    let spec = ShardSpec {
        replicas: template.replicas,
        mysql: template.mysql.clone(),
        storage: template.storage.clone(),
        failover: template.failover.clone(),
        pod_template: template.pod_template.clone(),
        drills: datastore.spec.drills.clone(),
        paused: datastore.spec.paused,
        deletion_policy: datastore.spec.deletion_policy,
    };
    let mut spec = json!(spec);
    if let Some(fields) = spec.as_object_mut().filter(|_| !datastore.spec.paused) {
        fields.remove("paused");
    }
    if let Some(failover) = spec["failover"].as_object_mut()
        && template.failover.mode == FailoverMode::Automatic
    {
        failover.remove("mode");
    }
    json!({ "metadata": metadata(datastore, names::shard_of(&datastore.name_any(), index)), "spec": spec })
}

/// The consumer that feeds the time-series store.
pub fn consumer(datastore: &Datastore) -> Consumer {
    let name = names::consumer_of(&datastore.name_any());
    let wanted = &datastore.spec.consumer;
    Consumer {
        metadata: metadata(datastore, name),
        spec: ConsumerSpec {
            datastore: Some(datastore.name_any()),
            shards: None,
            kafka: None,
            group: None,
            start: wanted.start,
            accept_gaps: false,
            view: None,
            replicas: wanted.replicas,
            resources: wanted.resources.clone(),
            batch: wanted.batch.clone(),
            paused: wanted.paused,
            paused_partitions: wanted.paused_partitions.clone(),
            pod_template: wanted.pod_template.clone(),
        },
        status: None,
    }
}

/// How long samples are kept, in seconds; for ever unless the spec says so.
pub fn keep_seconds(datastore: &Datastore) -> Option<i64> {
    datastore.spec.sample_retention_days.map(|days| i64::from(days) * 24 * 3600)
}

/// How old a sample may be that the gateway takes, in seconds, if not as old as it takes by itself: an hour less than is kept, so
/// that nothing is acknowledged and then found to be too old.
pub fn oldest_taken(datastore: &Datastore) -> Option<i64> {
    keep_seconds(datastore).filter(|seconds| *seconds <= GATEWAY_AGE_SECONDS).map(|seconds| seconds - 3600)
}

/// The Secrets that the spec names, each once.
pub fn token_secrets(datastore: &Datastore) -> Vec<String> {
    let mut names = Vec::new();
    names.extend(datastore.spec.gateway.as_ref().map(|gateway| gateway.tokens.name.clone()));
    names.extend(query_tokens(datastore));
    names.sort();
    names.dedup();
    names
}

fn query_tokens(datastore: &Datastore) -> Option<String> {
    let query = datastore.spec.query.as_ref()?;
    let own = query.tokens.as_ref().map(|tokens| tokens.name.clone());
    own.or_else(|| datastore.spec.gateway.as_ref().map(|gateway| gateway.tokens.name.clone()))
}

/// What of its memory a service may plan with: half of what its pods may take, as not all that it uses is counted. `None` without a limit.
fn half_of_memory(resources: &Resources) -> Option<u64> {
    resources.limits.get("memory").and_then(Amount::units).map(|bytes| bytes / 2)
}

/// What a pod of the gateway is told.
pub fn gateway_environment(datastore: &Datastore, gateway: &GatewaySpec) -> Vec<EnvVar> {
    let (kafka, limits) = (&datastore.spec.kafka, &gateway.limits);
    let inflight = limits.max_inflight_bytes.unsigned_abs();
    let inflight = half_of_memory(&gateway.resources).map_or(inflight, |most| inflight.min(most));
    let mut variables = vec![
        value("UNDERSTUDY_LISTEN", "0.0.0.0:8080"),
        value("UNDERSTUDY_ADMIN_LISTEN", "0.0.0.0:8081"),
        value("UNDERSTUDY_DATASTORE", datastore.name_any()),
        value("UNDERSTUDY_KAFKA_BOOTSTRAP", &kafka.bootstrap_servers),
        value("UNDERSTUDY_TOPIC", &kafka.topic),
        value("UNDERSTUDY_PARTITIONS", kafka.partitions.to_string()),
        value("UNDERSTUDY_TOKENS_DIR", TOKENS),
        value("UNDERSTUDY_MAX_COMPRESSED_BYTES", limits.max_compressed_bytes.to_string()),
        value("UNDERSTUDY_MAX_DECOMPRESSED_BYTES", limits.max_decompressed_bytes.to_string()),
        value("UNDERSTUDY_MAX_INFLIGHT_BYTES", inflight.to_string()),
    ];
    if let Some(seconds) = oldest_taken(datastore) {
        variables.push(value("UNDERSTUDY_MAX_SAMPLE_AGE_SECONDS", seconds.to_string()));
    }
    if let Some(samples) = limits.samples_per_second_per_tenant {
        variables.push(value("UNDERSTUDY_TENANT_SAMPLES_PER_SECOND", samples.to_string()));
    }
    variables
}

/// What a pod of the query service is told.
pub fn query_environment(datastore: &Datastore, query: &QuerySpec) -> Vec<EnvVar> {
    let kafka = &datastore.spec.kafka;
    let mut variables = vec![
        value("UNDERSTUDY_LISTEN", "0.0.0.0:8090"),
        value("UNDERSTUDY_ADMIN_LISTEN", "0.0.0.0:8091"),
        value("UNDERSTUDY_DATASTORE", datastore.name_any()),
        value("UNDERSTUDY_TOPIC", &kafka.topic),
        value("UNDERSTUDY_PARTITIONS", kafka.partitions.to_string()),
        value("UNDERSTUDY_CONSUMER", names::consumer_of(&datastore.name_any())),
        value("UNDERSTUDY_TOKENS_DIR", TOKENS),
        value("UNDERSTUDY_CREDENTIALS_DIR", CREDENTIALS),
        value("UNDERSTUDY_TLS_DIR", TLS),
    ];
    if let Some(bytes) = half_of_memory(&query.resources) {
        variables.push(value("UNDERSTUDY_MAX_MEMORY_BYTES", bytes.to_string()));
    }
    variables
}

/// The gateway, if the spec asks for one.
pub fn gateway(datastore: &Datastore, context: &Context) -> Option<Workload> {
    let gateway = datastore.spec.gateway.as_ref()?;
    Some(Workload {
        name: names::gateway(&datastore.name_any()),
        namespace: datastore.namespace(),
        owner: owner_of(datastore),
        component: "gateway",
        selector: [(labels::DATASTORE.to_owned(), datastore.name_any())].into(),
        replicas: gateway.replicas,
        image: context.settings.image.clone(),
        pull_policy: context.settings.image_pull_policy.clone(),
        command: Some("/usr/local/bin/understudy-gateway".to_owned()),
        environment: gateway_environment(datastore, gateway),
        ports: vec![Port { name: "http", number: 8080 }, Port { name: "admin", number: 8081 }],
        mounts: vec![(secret("tokens", &gateway.tokens.name), TOKENS.to_owned())],
        service_account: None,
        resources: gateway.resources.clone(),
        template: gateway.pod_template.clone(),
    })
}

/// The query service, if the spec asks for one.
pub fn query(datastore: &Datastore, context: &Context) -> Option<Workload> {
    let query = datastore.spec.query.as_ref()?;
    let shards: Vec<_> =
        (0..datastore.spec.shards).map(|index| names::shard_of(&datastore.name_any(), index)).collect();
    Some(Workload {
        name: names::query(&datastore.name_any()),
        namespace: datastore.namespace(),
        owner: owner_of(datastore),
        component: "query",
        selector: [(labels::DATASTORE.to_owned(), datastore.name_any())].into(),
        replicas: query.replicas,
        image: context.settings.image.clone(),
        pull_policy: context.settings.image_pull_policy.clone(),
        command: Some("/usr/local/bin/understudy-query".to_owned()),
        environment: query_environment(datastore, query),
        ports: vec![Port { name: "http", number: 8090 }, Port { name: "admin", number: 8091 }],
        mounts: vec![
            (secret("tokens", &query_tokens(datastore)?), TOKENS.to_owned()),
            // One shard's being gone must not keep the others from being read.
            (credentials(&shards, account::READER, false), CREDENTIALS.to_owned()),
            (authority(shards.first()?), TLS.to_owned()),
        ],
        service_account: Some(names::query(&datastore.name_any())),
        resources: query.resources.clone(),
        template: query.pod_template.clone(),
    })
}

/// A whole Secret as a volume.
pub fn secret(volume: &str, name: &str) -> Volume {
    let source = SecretVolumeSource {
        secret_name: Some(name.to_owned()),
        default_mode: Some(0o440),
        ..SecretVolumeSource::default()
    };
    Volume { name: volume.to_owned(), secret: Some(source), ..Volume::default() }
}

/// The password of one account for each of these shards, as files `SHARD/ACCOUNT`: a service gets no other account's. Unless they
/// are `required`, a pod starts without those that are not there, and gets their files later.
pub fn credentials(shards: &[String], account: &str, required: bool) -> Volume {
    let sources = shards.iter().map(|shard| SecretProjection {
        name: names::credentials_secret(shard),
        items: Some(vec![KeyToPath { key: account.to_owned(), path: format!("{shard}/{account}"), mode: None }]),
        optional: (!required).then_some(true),
    });
    projected("credentials", sources)
}

fn authority(shard: &str) -> Volume {
    let only_the_authority = SecretProjection {
        name: names::shard_tls_secret(shard),
        items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None }]),
        optional: None,
    };
    projected("tls", [only_the_authority])
}

fn projected(volume: &str, secrets: impl IntoIterator<Item = SecretProjection>) -> Volume {
    let sources = secrets.into_iter().map(|secret| VolumeProjection { secret: Some(secret), ..Default::default() });
    let source = ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources.collect()) };
    Volume { name: volume.to_owned(), projected: Some(source), ..Volume::default() }
}

/// What the query service may do at the API server: follow the routes of the shards.
pub fn query_rights(metadata: ObjectMeta) -> (ServiceAccount, Role, RoleBinding) {
    rights(metadata, vec![follow_routes()])
}

/// The rule that lets a service follow Shards and Datastores.
pub fn follow_routes() -> PolicyRule {
    rule(&["shards", "datastores"], &["get", "list", "watch"], None)
}

/// A rule about our own kinds.
pub fn rule(resources: &[&str], verbs: &[&str], name: Option<String>) -> PolicyRule {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![understudy_api::GROUP.to_owned()]),
        resources: Some(texts(resources)),
        verbs: texts(verbs),
        resource_names: name.map(|name| vec![name]),
        ..PolicyRule::default()
    }
}

/// A ServiceAccount, a Role with these rules and their binding, all with this metadata.
pub fn rights(metadata: ObjectMeta, rules: Vec<PolicyRule>) -> (ServiceAccount, Role, RoleBinding) {
    let name = metadata.name.clone().unwrap_or_default();
    let subject = Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.clone(),
        namespace: metadata.namespace.clone(),
        ..Subject::default()
    };
    let binding = RoleBinding {
        metadata: metadata.clone(),
        role_ref: RoleRef { api_group: "rbac.authorization.k8s.io".to_owned(), kind: "Role".to_owned(), name },
        subjects: Some(vec![subject]),
    };
    let role = Role { metadata: metadata.clone(), rules: Some(rules) };
    (ServiceAccount { metadata, ..ServiceAccount::default() }, role, binding)
}
