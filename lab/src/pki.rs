//! The cluster's certificates and kubeconfigs, made once by openssl and kept with the state.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::paths::Paths;
use crate::run;
use crate::state::write_atomic;
use crate::topology::{HOST, KUBERNETES_SERVICE, Node, api_url};

/// A certificate to issue.
#[derive(Debug)]
struct Request<'a> {
    file: &'a str,
    common_name: &'a str,
    organisation: Option<&'a str>,
    names: &'a str,
}

/// Issues what every cluster needs.
pub fn ensure(paths: &Paths) -> Result<()> {
    let dir = paths.pki();
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    ensure_authority(&dir)?;
    if !dir.join("sa.pub").is_file() {
        let (key, public) = (dir.join("sa.key"), dir.join("sa.pub"));
        run::output(run::sh("openssl genrsa -out").arg(&key).arg("2048"))?;
        run::output(run::sh("openssl rsa -pubout -in").arg(&key).arg("-out").arg(&public))?;
    }
    let server_names = format!(
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,\
         DNS:localhost,IP:{KUBERNETES_SERVICE},IP:{HOST},IP:127.0.0.1"
    );
    for (file, common_name, organisation, names) in [
        ("apiserver", "kube-apiserver", None, server_names.as_str()),
        ("apiserver-kubelet", "kube-apiserver-kubelet", Some("system:masters"), ""),
        ("controller-manager", "system:kube-controller-manager", None, ""),
        ("scheduler", "system:kube-scheduler", None, ""),
        ("kube-proxy", "system:kube-proxy", None, ""),
        ("admin", "understudy-lab", Some("system:masters"), ""),
    ] {
        issue(&dir, &Request { file, common_name, organisation, names })?;
        if !file.starts_with("apiserver") {
            write_kubeconfig(&dir, file)?;
        }
    }
    Ok(())
}

/// Issues a node's certificate, for both its ends of the talk with the API server.
pub fn ensure_node(paths: &Paths, node: &Node) -> Result<()> {
    let (dir, name) = (paths.pki(), node.name());
    let names = format!("DNS:{name},IP:{},IP:127.0.0.1", node.address());
    let common_name = format!("system:node:{name}");
    issue(
        &dir,
        &Request { file: &name, common_name: &common_name, organisation: Some("system:nodes"), names: &names },
    )?;
    write_kubeconfig(&dir, &name)
}

fn ensure_authority(dir: &Path) -> Result<()> {
    if dir.join("ca.crt").is_file() {
        return Ok(());
    }
    run::output(
        run::sh("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -subj /CN=understudy-lab-ca")
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout"])
            .arg(dir.join("ca.key"))
            .arg("-out")
            .arg(dir.join("ca.crt")),
    )?;
    Ok(())
}

fn issue(dir: &Path, request: &Request<'_>) -> Result<()> {
    let certificate = dir.join(format!("{}.crt", request.file));
    if certificate.is_file() {
        return Ok(());
    }
    let subject = match request.organisation {
        Some(organisation) => format!("/O={organisation}/CN={}", request.common_name),
        None => format!("/CN={}", request.common_name),
    };
    let temporary = dir.join(format!("{}.new", request.file));
    let mut command = run::sh("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650");
    command.arg("-CA").arg(dir.join("ca.crt")).arg("-CAkey").arg(dir.join("ca.key"));
    command.args(["-subj", &subject, "-addext", "basicConstraints=critical,CA:FALSE"]);
    command.args(["-addext", "extendedKeyUsage=serverAuth,clientAuth"]);
    if !request.names.is_empty() {
        command.arg("-addext").arg(format!("subjectAltName={}", request.names));
    }
    command.arg("-keyout").arg(dir.join(format!("{}.key", request.file))).arg("-out").arg(&temporary);
    run::output(&mut command).with_context(|| format!("cannot issue the certificate of {}", request.common_name))?;
    Ok(fs::rename(temporary, certificate)?)
}

fn write_kubeconfig(dir: &Path, user: &str) -> Result<()> {
    let path = dir.join(format!("{user}.kubeconfig"));
    if path.is_file() {
        return Ok(());
    }
    let text = serde_json::to_string_pretty(&kubeconfig(dir, user))?;
    write_atomic(&path, text.as_bytes())
}

/// A kubeconfig that names its files by absolute path. JSON is YAML.
fn kubeconfig(dir: &Path, user: &str) -> serde_json::Value {
    let file = |name: String| -> PathBuf { dir.join(name) };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "understudy-lab", "cluster": {
            "server": api_url(), "certificate-authority": file("ca.crt".into())}}],
        "users": [{"name": user, "user": {
            "client-certificate": file(format!("{user}.crt")), "client-key": file(format!("{user}.key"))}}],
        "contexts": [{"name": "understudy-lab", "context": {"cluster": "understudy-lab", "user": user}}],
        "current-context": "understudy-lab",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_points_at_its_own_certificate_and_at_the_bridge() {
        let config = kubeconfig(Path::new("/s/pki"), "node-1");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://10.88.0.1:6443");
        assert_eq!(config["users"][0]["user"]["client-key"], "/s/pki/node-1.key");
    }
}
