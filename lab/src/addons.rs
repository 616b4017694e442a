//! What is applied to the cluster itself: the StorageClass, cluster DNS, and permissions of the lab's own parts.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::{self, Api};
use crate::artifacts::COREDNS;
use crate::image::hex;
use crate::lab::Lab;
use crate::topology::{DNS_SERVICE, HOST};
use crate::volume::{PROVISIONER, STORAGE_CLASS};

/// Names that end in `lab` are the machine's own services.
const COREFILE: &str = "\
.:53 {
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        ttl 5
    }
    hosts {
        HOST kafka.lab s3.lab host.lab
        fallthrough
    }
    prometheus :9153
    cache 10
    reload
}
";

/// Name of the CoreDNS image.
pub fn coredns_image() -> String {
    format!("understudy-lab/coredns:{COREDNS}")
}

/// Applies what is not there yet; true when something was applied.
pub fn ensure(lab: &mut Lab<'_>) -> Result<()> {
    let api = lab.api();
    let missing = api.get("/api/v1/namespaces/kube-system")?.is_none();
    if missing {
        // The API server makes this namespace itself, a moment after it is ready.
        api::wait(Duration::from_secs(30), "the namespace kube-system does not appear", || {
            Ok(api.get("/api/v1/namespaces/kube-system")?.is_some())
        })?;
    }
    let mark = "/api/v1/namespaces/kube-system/configmaps/understudy-lab";
    let version = json!({"version": fingerprint()?});
    if api.get(mark)?.is_some_and(|m| m["data"] == version) {
        return Ok(());
    }
    for (path, object) in objects() {
        api.apply(&path, &object)?;
    }
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "understudy-lab"}, "data": version});
    api.apply(mark, &object)?;
    lab.repairs.push("applied DNS, storage class and permissions".into());
    Ok(())
}

/// Waits until DNS answers on every node.
pub fn wait_dns(api: &Api, nodes: usize) -> Result<()> {
    let path = "/apis/apps/v1/namespaces/kube-system/daemonsets/coredns";
    api::wait(Duration::from_secs(120), "cluster DNS is not ready", || {
        let status = api.get(path)?.map(|d| d["status"].clone()).unwrap_or_default();
        Ok(status["numberReady"].as_u64() == Some(nodes as u64))
    })
}

fn fingerprint() -> Result<String> {
    use sha2::Digest as _;
    let text = serde_json::to_vec(&objects().into_iter().map(|(_, o)| o).collect::<Vec<_>>())?;
    Ok(hex(&sha2::Sha256::digest(text)[..8]))
}

fn objects() -> Vec<(String, Value)> {
    let mut objects = vec![storage_class(), kube_proxy_binding()];
    objects.extend(coredns());
    objects
}

fn storage_class() -> (String, Value) {
    let object = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        // ext4 grows online only under CAP_SYS_RESOURCE, which root may lack.
        "allowVolumeExpansion": false,
    });
    (format!("/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}"), object)
}

fn kube_proxy_binding() -> (String, Value) {
    let object = binding(
        "understudy-lab:kube-proxy",
        "system:node-proxier",
        json!([
            {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "system:kube-proxy"}
        ]),
    );
    ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/understudy-lab:kube-proxy".into(), object)
}

fn binding(name: &str, role: &str, subjects: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

/// DNS on every node, and each pod asks its own node's, so that losing a node takes nobody else's names away.
fn coredns() -> Vec<(String, Value)> {
    let namespaced = |kind: &str| format!("/api/v1/namespaces/kube-system/{kind}/coredns");
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    });
    let subjects = json!([{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}]);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "coredns"}});
    let config = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "coredns"},
        "data": {"Corefile": COREFILE.replace("HOST", HOST)},
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "clusterIP": DNS_SERVICE,
            "selector": {"k8s-app": "kube-dns"},
            "internalTrafficPolicy": "Local",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    });
    vec![
        (namespaced("serviceaccounts"), account),
        (format!("{rbac}/clusterroles/system:coredns"), role),
        (format!("{rbac}/clusterrolebindings/system:coredns"), binding("system:coredns", "system:coredns", subjects)),
        (namespaced("configmaps"), config),
        ("/api/v1/namespaces/kube-system/services/kube-dns".into(), service),
        ("/apis/apps/v1/namespaces/kube-system/daemonsets/coredns".into(), coredns_daemons()),
    ]
}

fn coredns_daemons() -> Value {
    let labels = json!({"k8s-app": "kube-dns"});
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "coredns", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": "coredns",
                    "priorityClassName": "system-node-critical",
                    "dnsPolicy": "Default",
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{
                        "name": "coredns",
                        "image": coredns_image(),
                        "imagePullPolicy": "Never",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "ports": [{"name": "metrics", "containerPort": 9153}],
                        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 2},
                        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}],
                    }],
                    "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_of_the_corefile_is_built_in() {
        let named =
            COREFILE.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with([' ', '}']));
        let plugins: Vec<_> = named.filter_map(|line| line.split(' ').next()).collect();
        assert!(plugins.len() > 5, "{plugins:?}");
        for plugin in plugins {
            let package = if plugin == "prometheus" { "metrics" } else { plugin };
            assert!(crate::artifacts::COREDNS_PLUGINS.contains(&package), "{plugin}");
        }
    }

    #[test]
    fn every_object_is_applied_under_its_own_name() {
        for (path, object) in objects() {
            let name = object["metadata"]["name"].as_str().unwrap();
            assert!(path.ends_with(&format!("/{name}")), "{path}");
        }
    }

    #[test]
    fn the_storage_class_is_the_default_and_binds_late() {
        let (_, class) = storage_class();
        assert_eq!(class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"], "true");
        assert_eq!(class["volumeBindingMode"], "WaitForFirstConsumer");
    }
}
