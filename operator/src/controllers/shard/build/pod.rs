//! The pod of a replica. Pure.
//!
//! A stock MySQL image with the instance manager as process 1, put there by an init container. The kubelet restarts the
//! manager only when the manager itself is gone: no probe asks mysqld whether the pod should live.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction,
    NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource, Pod,
    PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, Probe, SecretVolumeSource, Toleration,
    TopologySpreadConstraint, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use understudy_api::v1alpha1::{ReplicaOrigin, ReplicaSpec, Resources, Role};
use understudy_api::{Replica, Shard, names};
use xxhash_rust::xxh3::xxh3_64;

use super::budget::present_replicas;
use super::config::my_cnf;
use super::{ADMIN_PORT, FINGERPRINT, INSTANCE_PORT, MYSQL_PORT, owner_of, replica_labels};
use crate::context::Context;
use crate::controllers::workload::{downward, restricted, seccomp, value};

/// The user that the stock image has for mysqld.
const MYSQL_USER: i64 = 999;
const BINARIES: &str = "/understudy/bin";
const VOLUME: &str = "/var/lib/understudy";
const RUN: &str = "/run/understudy";
const CONFIG: &str = "/etc/understudy/mysql";
const TLS: &str = "/etc/understudy/tls";
/// The variable that tells a manager which faults drills may do to its server, with commas between them.
pub const DRILLS: &str = "UNDERSTUDY_DRILLS";
/// Where the passwords are, a file for each account.
pub const CREDENTIALS: &str = "/etc/understudy/credentials";

/// What a pod needs to know that is in no spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The image of the product; the init container runs it.
    pub image: String,
    /// When nodes pull it.
    pub pull_policy: String,
    /// `ip:port` of the API server.
    pub api_server: Option<String>,
}

impl Surroundings {
    /// As this operator knows them.
    pub fn of(context: &Context) -> Self {
        Self {
            image: context.settings.image.clone(),
            pull_policy: context.settings.image_pull_policy.clone(),
            api_server: context.api_server.clone(),
        }
    }
}

/// The pod of a replica, of the replica's name. Made once: pods are replaced, not changed, but for their role label.
pub fn pod(shard: &Shard, replica: &Replica, role: Role, surroundings: &Surroundings) -> Pod {
    let mut pod = unmarked(shard, replica, role, surroundings);
    pod.annotations_mut().insert(FINGERPRINT.to_owned(), fingerprint(shard, surroundings));
    pod
}

/// Changes when the pod of a replica would be made otherwise than before: by another spec, or by another operator, whose image the
/// instance manager is from. What only one replica has is no part of it.
pub fn fingerprint(shard: &Shard, surroundings: &Surroundings) -> String {
    let nobody = ReplicaSpec {
        shard: shard.name_any(),
        server_id: 0,
        origin: ReplicaOrigin::default(),
        avoid_nodes: Vec::new(),
        condemned: None,
    };
    let pod = unmarked(shard, &Replica::new("", nobody), Role::Spare, surroundings);
    let pod = serde_json::to_string(&pod).unwrap_or_default();
    format!("{:016x}", xxh3_64(format!("{pod}\n{}", my_cnf(shard)).as_bytes()))
}

fn unmarked(shard: &Shard, replica: &Replica, role: Role, surroundings: &Surroundings) -> Pod {
    let name = replica.name_any();
    let template = &shard.spec.pod_template;
    let mut labels = template.labels.clone();
    labels.extend(replica_labels(shard, &name, role));
    let mut annotations = template.annotations.clone();
    annotations.extend([
        ("prometheus.io/scrape".to_owned(), "true".to_owned()),
        ("prometheus.io/port".to_owned(), ADMIN_PORT.to_string()),
    ]);
    Pod {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: shard.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: owner_of(replica).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            init_containers: Some(vec![installer(surroundings)]),
            containers: vec![server(shard, replica, surroundings)],
            volumes: Some(volumes(shard, &name)),
            affinity: Some(affinity(shard, replica)),
            topology_spread_constraints: Some(spread(shard)),
            tolerations: Some(tolerations(shard)),
            node_selector: Some(template.node_selector.clone()).filter(|selector| !selector.is_empty()),
            priority_class_name: template.priority_class_name.clone(),
            image_pull_secrets: Some(template.image_pull_secrets.clone()).filter(|secrets| !secrets.is_empty()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: Some("Always".to_owned()),
            termination_grace_period_seconds: Some(60),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(MYSQL_USER),
                run_as_group: Some(MYSQL_USER),
                fs_group: Some(MYSQL_USER),
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(seccomp()),
                ..PodSecurityContext::default()
            }),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

/// Whether the pod was made for this very replica.
pub fn is_pod_of(pod: &Pod, replica: &Replica) -> bool {
    pod.owner_references().iter().any(|owner| Some(&owner.uid) == replica.uid().as_ref())
}

fn installer(surroundings: &Surroundings) -> Container {
    let amounts = |cpu: &str, memory: &str| {
        [("cpu", cpu), ("memory", memory)]
            .map(|(name, amount)| (name.to_owned(), understudy_api::v1alpha1::Amount(amount.to_owned())))
            .into()
    };
    let resources = Resources { requests: amounts("10m", "16Mi"), limits: amounts("500m", "64Mi") };
    Container {
        name: "install".to_owned(),
        image: Some(surroundings.image.clone()),
        image_pull_policy: Some(surroundings.pull_policy.clone()),
        command: Some(vec!["/usr/local/bin/understudy-instance".to_owned(), "install".to_owned(), BINARIES.to_owned()]),
        resources: Some(resources.to_requirements()),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![mount("binaries", BINARIES, false)]),
        ..Container::default()
    }
}

fn server(shard: &Shard, replica: &Replica, surroundings: &Surroundings) -> Container {
    let port = |name: &str, number| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        ..ContainerPort::default()
    };
    Container {
        name: "mysql".to_owned(),
        image: Some(shard.spec.mysql.image.clone()),
        command: Some(vec![format!("{BINARIES}/understudy-instance"), "run".to_owned()]),
        env: Some(environment(shard, replica, surroundings)),
        ports: Some(vec![port("mysql", MYSQL_PORT), port("instance", INSTANCE_PORT), port("admin", ADMIN_PORT)]),
        resources: Some(shard.spec.mysql.resources.to_requirements()),
        security_context: Some(restricted()),
        // It asks only for the manager's own loop. A busy machine is no reason to restart, so it is patient.
        liveness_probe: Some(Probe { timeout_seconds: Some(10), failure_threshold: Some(6), ..probe("/livez", 10) }),
        readiness_probe: Some(probe("/readyz", 2)),
        volume_mounts: Some(vec![
            mount("binaries", BINARIES, true),
            mount("data", VOLUME, false),
            mount("run", RUN, false),
            mount("tmp", "/tmp", false),
            mount("files", "/var/lib/mysql-files", false),
            mount("config", CONFIG, true),
            mount("tls", TLS, true),
            mount("credentials", CREDENTIALS, true),
        ]),
        ..Container::default()
    }
}

fn environment(shard: &Shard, replica: &Replica, surroundings: &Surroundings) -> Vec<EnvVar> {
    let detection = &shard.spec.failover.detection;
    let mut variables = vec![
        downward("POD_NAME", "metadata.name"),
        downward("POD_NAMESPACE", "metadata.namespace"),
        downward("POD_IP", "status.podIP"),
        downward("NODE_NAME", "spec.nodeName"),
        downward("UNDERSTUDY_NAMESPACE", "metadata.namespace"),
        value("UNDERSTUDY_LOG", "info"),
        value("UNDERSTUDY_SHARD", shard.name_any()),
        value("UNDERSTUDY_SHARD_UID", shard.uid().unwrap_or_default()),
        value("UNDERSTUDY_REPLICA", replica.name_any()),
        value("UNDERSTUDY_SERVER_ID", replica.spec.server_id.to_string()),
        value("UNDERSTUDY_VOLUME_DIR", VOLUME),
        value("UNDERSTUDY_RUN_DIR", RUN),
        value("UNDERSTUDY_CONFIG_DIR", CONFIG),
        value("UNDERSTUDY_TLS_DIR", TLS),
        value("UNDERSTUDY_CREDENTIALS_DIR", CREDENTIALS),
        value("UNDERSTUDY_API_LISTEN", format!("0.0.0.0:{INSTANCE_PORT}")),
        value("UNDERSTUDY_ADMIN_LISTEN", format!("0.0.0.0:{ADMIN_PORT}")),
        value("UNDERSTUDY_MYSQL_PORT", MYSQL_PORT.to_string()),
        value("UNDERSTUDY_PROBE_INTERVAL_MS", detection.probe_interval_ms.to_string()),
        value("UNDERSTUDY_STAGE_DEADLINE_MS", detection.stage_deadline_ms.to_string()),
        value("UNDERSTUDY_COMMIT_DEADLINE_MS", detection.commit_deadline_ms.to_string()),
    ];
    if let Some(address) = &surroundings.api_server {
        variables.push(value("UNDERSTUDY_API_SERVER", address));
    }
    // Only where it says something, so that no other pod is out of date because of it.
    if !shard.spec.drills.is_none() {
        let faults: Vec<&str> = shard.spec.drills.faults.iter().map(AsRef::as_ref).collect();
        variables.push(value(DRILLS, faults.join(",")));
    }
    variables
}

fn probe(path: &str, every: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(every),
        timeout_seconds: Some(2),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only).filter(|read_only| *read_only),
        ..VolumeMount::default()
    }
}

fn volumes(shard: &Shard, claim: &str) -> Vec<Volume> {
    let named = |name: &str| Volume { name: name.to_owned(), ..Volume::default() };
    let scratch = |name: &str| Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..named(name) };
    let secret = |name: &str, secret: String| Volume {
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..named(name)
    };
    let data = PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), ..Default::default() };
    let config = ConfigMapVolumeSource { name: names::config_map(&shard.name_any()), ..Default::default() };
    vec![
        Volume { persistent_volume_claim: Some(data), ..named("data") },
        scratch("binaries"),
        scratch("run"),
        scratch("tmp"),
        scratch("files"),
        Volume { config_map: Some(config), ..named("config") },
        secret("tls", names::shard_tls_secret(&shard.name_any())),
        secret("credentials", names::credentials_secret(&shard.name_any())),
    ]
}

/// Not more than one replica more on any node than on the emptiest one: with enough nodes each is alone, with few all still
/// run. Zones are preferred, not required: a zone that is full or gone must not stop a rebuild.
fn spread(shard: &Shard) -> Vec<TopologySpreadConstraint> {
    let over = |key: &str, otherwise: &str| TopologySpreadConstraint {
        topology_key: key.to_owned(),
        max_skew: 1,
        when_unsatisfiable: otherwise.to_owned(),
        label_selector: Some(present_replicas(&shard.name_any())),
        node_taints_policy: Some("Honor".to_owned()),
        ..TopologySpreadConstraint::default()
    };
    vec![over("kubernetes.io/hostname", "DoNotSchedule"), over("topology.kubernetes.io/zone", "ScheduleAnyway")]
}

fn affinity(shard: &Shard, replica: &Replica) -> Affinity {
    let mut affinity = shard.spec.pod_template.affinity.clone().unwrap_or_default();
    let apart = affinity.pod_anti_affinity.get_or_insert_with(PodAntiAffinity::default);
    apart.preferred_during_scheduling_ignored_during_execution.get_or_insert_default().push(WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: PodAffinityTerm {
            topology_key: "topology.kubernetes.io/zone".to_owned(),
            label_selector: Some(present_replicas(&shard.name_any())),
            ..PodAffinityTerm::default()
        },
    });
    if !replica.spec.avoid_nodes.is_empty() {
        avoid(affinity.node_affinity.get_or_insert_with(NodeAffinity::default), &replica.spec.avoid_nodes);
    }
    affinity
}

/// Adds to every alternative that the spec allows: the terms of a node selector are alternatives.
fn avoid(affinity: &mut NodeAffinity, nodes: &[String]) {
    let not_these = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(nodes.to_vec()),
    };
    // A field selector of a term takes one value only, so each node is a requirement of its own.
    let requirements = nodes
        .iter()
        .map(|node| NodeSelectorRequirement { values: Some(vec![node.clone()]), ..not_these.clone() })
        .collect::<Vec<_>>();
    let required =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_with(NodeSelector::default);
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields.get_or_insert_default().extend(requirements.iter().cloned());
    }
}

/// The cluster's own eviction from a node that is away would only get in the way: the operator decides sooner, and a pod that
/// comes back with its node is looked at, not killed.
fn tolerations(shard: &Shard) -> Vec<Toleration> {
    let away = |key: &str| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    let mut all = shard.spec.pod_template.tolerations.clone();
    all.extend([away("node.kubernetes.io/not-ready"), away("node.kubernetes.io/unreachable")]);
    all
}

/// The labels a pod must have for its role to be seen by Services and by people.
pub fn role_label(role: Role) -> BTreeMap<String, String> {
    [(understudy_api::labels::ROLE.to_owned(), role.to_string())].into()
}
