//! etcd, API server, controller manager and scheduler, on the host.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::api;
use crate::artifacts::{ETCD, KUBERNETES};
use crate::lab::Lab;
use crate::paths::Paths;
use crate::run;
use crate::state::write_atomic;
use crate::topology::{API_PORT, ETCD_PEER_PORT, ETCD_PORT, HOST, POD_CIDR, SERVICE_CIDR};

/// What the API server writes into its audit log: one line for each request of the operator, so that they can be counted.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ['system:serviceaccounts:understudy-system']
- level: None
";

/// Where the API server writes its audit log.
pub fn audit_log(paths: &Paths) -> PathBuf {
    paths.logs().join("audit.log")
}

/// Starts what is not running and waits until the API server is ready.
pub fn ensure(lab: &mut Lab<'_>) -> Result<()> {
    let etcd = etcd(lab);
    fs::create_dir_all(lab.paths.state.join("etcd"))?;
    lab.ensure_process("etcd", &etcd, &[])?;
    write_atomic(&audit_policy(lab.paths), AUDIT_POLICY.as_bytes())?;
    let server = api_server(lab);
    lab.ensure_process("kube-apiserver", &server, &[AUDIT_POLICY])?;
    let api = lab.api();
    let ready = api::wait(Duration::from_secs(120), "the API server is not ready", || {
        for name in ["etcd", "kube-apiserver"] {
            if lab.running(name).is_none() {
                bail!("{name} ended; {}", lab.log_tail(name));
            }
        }
        Ok(api.is_ready())
    });
    if let Err(error) = ready {
        bail!("{error}; {}", lab.log_tail("kube-apiserver"));
    }
    let manager = controller_manager(lab);
    lab.ensure_process("kube-controller-manager", &manager, &[])?;
    let scheduler = scheduler(lab);
    lab.ensure_process("kube-scheduler", &scheduler, &[])?;
    Ok(())
}

fn etcd(lab: &Lab<'_>) -> Command {
    let data = lab.paths.state.join("etcd");
    let (client, peer) = (format!("http://127.0.0.1:{ETCD_PORT}"), format!("http://127.0.0.1:{ETCD_PEER_PORT}"));
    let mut command = run::cmd([lab.paths.binary("etcd", ETCD, "etcd")]);
    command.arg("--name=lab").arg(format!("--data-dir={}", data.display()));
    command.arg(format!("--listen-client-urls={client}")).arg(format!("--advertise-client-urls={client}"));
    command.arg(format!("--listen-peer-urls={peer}")).arg(format!("--initial-advertise-peer-urls={peer}"));
    command.arg(format!("--initial-cluster=lab={peer}")).args(["--unsafe-no-fsync", "--log-level=warn"]);
    command.args(["--snapshot-count=10000", "--auto-compaction-retention=10m"]);
    command
}

fn api_server(lab: &Lab<'_>) -> Command {
    let pki = |name: &str| lab.paths.pki().join(name).display().to_string();
    let mut command = run::cmd([lab.paths.binary("kubernetes", KUBERNETES, "kube-apiserver")]);
    for (flag, value) in [
        ("etcd-servers", format!("http://127.0.0.1:{ETCD_PORT}")),
        ("bind-address", HOST.to_owned()),
        ("advertise-address", HOST.to_owned()),
        ("secure-port", API_PORT.to_string()),
        ("service-cluster-ip-range", SERVICE_CIDR.to_owned()),
        ("client-ca-file", pki("ca.crt")),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
        ("kubelet-certificate-authority", pki("ca.crt")),
        ("kubelet-client-certificate", pki("apiserver-kubelet.crt")),
        ("kubelet-client-key", pki("apiserver-kubelet.key")),
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".to_owned()),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("audit-policy-file", audit_policy(lab.paths).display().to_string()),
        ("audit-log-path", audit_log(lab.paths).display().to_string()),
        ("audit-log-maxsize", "100".to_owned()),
        ("audit-log-maxbackup", "1".to_owned()),
        ("v", "1".to_owned()),
    ] {
        command.arg(format!("--{flag}={value}"));
    }
    command
}

fn audit_policy(paths: &Paths) -> PathBuf {
    paths.config().join("audit-policy.yaml")
}

fn controller_manager(lab: &Lab<'_>) -> Command {
    let pki = |name: &str| lab.paths.pki().join(name).display().to_string();
    let mut command = run::cmd([lab.paths.binary("kubernetes", KUBERNETES, "kube-controller-manager")]);
    for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        command.arg(format!("--{flag}={}", pki("controller-manager.kubeconfig")));
    }
    for (flag, value) in [
        ("bind-address", HOST.to_owned()),
        ("root-ca-file", pki("ca.crt")),
        ("client-ca-file", pki("ca.crt")),
        ("service-account-private-key-file", pki("sa.key")),
        ("use-service-account-credentials", "true".to_owned()),
        ("leader-elect", "false".to_owned()),
        ("cluster-cidr", POD_CIDR.to_owned()),
        ("allocate-node-cidrs", "false".to_owned()),
        ("v", "1".to_owned()),
    ] {
        command.arg(format!("--{flag}={value}"));
    }
    command
}

fn scheduler(lab: &Lab<'_>) -> Command {
    let kubeconfig = lab.paths.pki().join("scheduler.kubeconfig").display().to_string();
    let mut command = run::cmd([lab.paths.binary("kubernetes", KUBERNETES, "kube-scheduler")]);
    for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        command.arg(format!("--{flag}={kubeconfig}"));
    }
    command.arg(format!("--bind-address={HOST}")).args(["--leader-elect=false", "--v=1"]);
    command
}
