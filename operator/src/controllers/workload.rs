//! Deployments of the product's own services, all of one shape. Pure.
//!
//! Stateless, non-root under the restricted Pod Security Standard, spread over nodes, and moved off a lost node within
//! seconds rather than the cluster's usual five minutes.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    SeccompProfile, SecurityContext, Service, ServicePort, ServiceSpec, Toleration, TopologySpreadConstraint, Volume,
    VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use understudy_api::v1alpha1::{PodTemplate, Resources};

use crate::apply::MANAGED_BY;

/// The user of the product's own image.
const USER: i64 = 65532;
/// How long a pod of a lost node counts as running.
const LOST_AFTER: i64 = 10;

/// A port that a workload serves on.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name in pod and Service.
    pub name: &'static str,
    /// Its number.
    pub number: i32,
}

/// One of the product's services.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name of the Deployment.
    pub name: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Who it belongs to.
    pub owner: Option<OwnerReference>,
    /// `gateway`, `query` or `consumer`.
    pub component: &'static str,
    /// Labels that select its pods, besides the component.
    pub selector: BTreeMap<String, String>,
    /// Pods.
    pub replicas: i32,
    /// The image.
    pub image: String,
    /// When nodes pull it.
    pub pull_policy: String,
    /// What is run; `None` leaves it to the image.
    pub command: Option<String>,
    /// Variables besides those every pod has.
    pub environment: Vec<EnvVar>,
    /// What it serves; the last one is the plain port with /livez, /readyz and /metrics.
    pub ports: Vec<Port>,
    /// Volumes with where they are mounted, read-only.
    pub mounts: Vec<(Volume, String)>,
    /// Whose rights it has; without one it has no access to the API server.
    pub service_account: Option<String>,
    /// Requests and limits.
    pub resources: Resources,
    /// A person's additions.
    pub template: PodTemplate,
}

impl Workload {
    /// Labels of the Deployment and what goes with it.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.pod_selector();
        labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
        labels
    }

    fn pod_selector(&self) -> BTreeMap<String, String> {
        let mut selector = self.selector.clone();
        selector.insert(understudy_api::labels::COMPONENT.to_owned(), self.component.to_owned());
        selector
    }

    fn label_selector(&self) -> LabelSelector {
        LabelSelector { match_labels: Some(self.pod_selector()), ..LabelSelector::default() }
    }

    /// Metadata of an object of this workload.
    pub fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: self.namespace.clone(),
            labels: Some(self.labels()),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    /// The Deployment.
    pub fn deployment(&self) -> Deployment {
        let mut labels = self.template.labels.clone();
        labels.extend(self.labels());
        let mut annotations = self.template.annotations.clone();
        annotations.insert("prometheus.io/scrape".to_owned(), "true".to_owned());
        annotations.insert("prometheus.io/port".to_owned(), self.admin_port().to_string());
        Deployment {
            metadata: self.metadata(&self.name),
            spec: Some(DeploymentSpec {
                replicas: Some(self.replicas),
                selector: self.label_selector(),
                strategy: Some(DeploymentStrategy {
                    type_: Some("RollingUpdate".to_owned()),
                    rolling_update: Some(RollingUpdateDeployment {
                        max_surge: Some(IntOrString::Int(1)),
                        max_unavailable: Some(IntOrString::Int(i32::from(self.replicas > 1))),
                    }),
                }),
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta {
                        labels: Some(labels),
                        annotations: Some(annotations),
                        ..ObjectMeta::default()
                    }),
                    spec: Some(self.pod()),
                },
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
    }

    fn admin_port(&self) -> i32 {
        self.ports.last().map_or(0, |port| port.number)
    }

    fn pod(&self) -> PodSpec {
        let mut volumes: Vec<_> = self.mounts.iter().map(|(volume, _)| volume.clone()).collect();
        volumes.push(Volume {
            name: "tmp".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
        PodSpec {
            containers: vec![self.container()],
            volumes: Some(volumes),
            service_account_name: self.service_account.clone(),
            automount_service_account_token: Some(self.service_account.is_some()),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(30),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                seccomp_profile: Some(seccomp()),
                ..PodSecurityContext::default()
            }),
            affinity: Some(self.affinity()),
            topology_spread_constraints: Some(vec![TopologySpreadConstraint {
                topology_key: "kubernetes.io/hostname".to_owned(),
                max_skew: 1,
                when_unsatisfiable: "ScheduleAnyway".to_owned(),
                label_selector: Some(self.label_selector()),
                node_taints_policy: Some("Honor".to_owned()),
                ..TopologySpreadConstraint::default()
            }]),
            tolerations: Some(self.tolerations()),
            node_selector: Some(self.template.node_selector.clone()).filter(|selector| !selector.is_empty()),
            priority_class_name: self.template.priority_class_name.clone(),
            image_pull_secrets: Some(self.template.image_pull_secrets.clone()).filter(|secrets| !secrets.is_empty()),
            ..PodSpec::default()
        }
    }

    fn container(&self) -> Container {
        let mut environment = common_environment();
        environment.extend(self.environment.iter().cloned());
        let mut mounts: Vec<_> = self
            .mounts
            .iter()
            .map(|(volume, path)| VolumeMount {
                name: volume.name.clone(),
                mount_path: path.clone(),
                read_only: Some(true),
                ..VolumeMount::default()
            })
            .collect();
        mounts.push(VolumeMount { name: "tmp".to_owned(), mount_path: "/tmp".to_owned(), ..VolumeMount::default() });
        let ports = self.ports.iter().map(|port| ContainerPort {
            name: Some(port.name.to_owned()),
            container_port: port.number,
            ..ContainerPort::default()
        });
        Container {
            name: self.component.to_owned(),
            image: Some(self.image.clone()),
            image_pull_policy: Some(self.pull_policy.clone()),
            command: self.command.clone().map(|command| vec![command]),
            env: Some(environment),
            ports: Some(ports.collect()),
            resources: Some(self.resources.to_requirements()),
            security_context: Some(restricted()),
            liveness_probe: Some(Probe {
                timeout_seconds: Some(10),
                failure_threshold: Some(6),
                ..self.probe("/livez", 10)
            }),
            readiness_probe: Some(self.probe("/readyz", 2)),
            volume_mounts: Some(mounts),
            ..Container::default()
        }
    }

    fn probe(&self, path: &str, every: i32) -> Probe {
        Probe {
            http_get: Some(HTTPGetAction {
                path: Some(path.to_owned()),
                port: IntOrString::Int(self.admin_port()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(every),
            timeout_seconds: Some(2),
            failure_threshold: Some(3),
            ..Probe::default()
        }
    }

    fn affinity(&self) -> Affinity {
        let mut affinity = self.template.affinity.clone().unwrap_or_default();
        let apart = affinity.pod_anti_affinity.get_or_insert_with(PodAntiAffinity::default);
        let preferred = apart.preferred_during_scheduling_ignored_during_execution.get_or_insert_default();
        preferred.push(WeightedPodAffinityTerm {
            weight: 100,
            pod_affinity_term: PodAffinityTerm {
                topology_key: "kubernetes.io/hostname".to_owned(),
                label_selector: Some(self.label_selector()),
                ..PodAffinityTerm::default()
            },
        });
        affinity
    }

    fn tolerations(&self) -> Vec<Toleration> {
        let for_a_while = |key: &str| Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: Some(LOST_AFTER),
            ..Toleration::default()
        };
        let mut all = self.template.tolerations.clone();
        all.extend([for_a_while("node.kubernetes.io/not-ready"), for_a_while("node.kubernetes.io/unreachable")]);
        all
    }

    /// The Service, of the Deployment's name, on the first port.
    pub fn service(&self) -> Service {
        let ports = self.ports.first().map(|port| ServicePort {
            name: Some(port.name.to_owned()),
            port: port.number,
            target_port: Some(IntOrString::String(port.name.to_owned())),
            ..ServicePort::default()
        });
        Service {
            metadata: self.metadata(&self.name),
            spec: Some(ServiceSpec {
                selector: Some(self.pod_selector()),
                ports: ports.map(|port| vec![port]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    /// The budget, of the Deployment's name: one pod at a time.
    pub fn budget(&self) -> PodDisruptionBudget {
        PodDisruptionBudget {
            metadata: self.metadata(&self.name),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(self.label_selector()),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        }
    }
}

/// The restricted Pod Security Standard, and a root file system that cannot be written.
pub fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        seccomp_profile: Some(seccomp()),
        ..SecurityContext::default()
    }
}

/// The runtime's own filter of system calls.
pub fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }
}

/// A variable with a value.
pub fn value(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), ..EnvVar::default() }
}

/// A variable with a field of the pod.
pub fn downward(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn common_environment() -> Vec<EnvVar> {
    vec![
        downward("POD_NAME", "metadata.name"),
        downward("POD_NAMESPACE", "metadata.namespace"),
        downward("POD_IP", "status.podIP"),
        downward("NODE_NAME", "spec.nodeName"),
        downward("UNDERSTUDY_NAMESPACE", "metadata.namespace"),
        value("UNDERSTUDY_LOG", "info"),
    ]
}
