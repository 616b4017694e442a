//! kubectl and helm for the lab's cluster, or for one that the user names. Runs programs.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::api::wait;
use crate::artifacts::{HELM, KUBERNETES};
use crate::paths::Paths;
use crate::process::which;
use crate::run;

/// An API server that says nothing for so long is taken for one that is away. By itself kubectl waits for ever.
const REQUEST_TIMEOUT: &str = "--request-timeout=60s";

/// Which cluster. Without either, the lab's own.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterOptions {
    /// Use the cluster of this file instead of building one.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Use the cluster of this context instead of building one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl ClusterOptions {
    /// Whether the user named a cluster.
    pub fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }
}

/// A cluster and the programs that speak to it.
#[derive(Debug, Clone)]
pub struct Access {
    kubectl: PathBuf,
    helm: PathBuf,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    is_lab: bool,
}

impl Access {
    /// The lab's own cluster.
    pub fn lab(paths: &Paths) -> Self {
        Self {
            kubectl: paths.binary("kubernetes", KUBERNETES, "kubectl"),
            helm: paths.binary("helm", HELM, "helm"),
            kubeconfig: Some(paths.admin_kubeconfig()),
            context: None,
            is_lab: true,
        }
    }

    /// The cluster that the options name: the lab's when they name none.
    pub fn of(options: &ClusterOptions, paths: &Paths) -> Result<Self> {
        if !options.is_named() {
            return Ok(Self::lab(paths));
        }
        let program =
            |name: &str| which(name).with_context(|| format!("`{name}` must be on the PATH to use your own cluster"));
        let access = Self {
            kubectl: program("kubectl")?,
            helm: program("helm")?,
            kubeconfig: options.kubeconfig.clone(),
            context: options.context.clone(),
            is_lab: false,
        };
        access.get(&["--raw", "/version"]).context("your cluster does not answer")?;
        Ok(access)
    }

    /// Whether it is the lab's: then the host reaches pods by their addresses, and faults come from outside the cluster.
    pub fn is_lab(&self) -> bool {
        self.is_lab
    }

    /// Path of kubectl.
    pub fn kubectl_path(&self) -> &PathBuf {
        &self.kubectl
    }

    /// `--kubeconfig` and `--context` as other programs of this repository take them.
    pub fn flags(&self) -> Vec<String> {
        let file = self.kubeconfig.iter().flat_map(|f| ["--kubeconfig".to_owned(), f.display().to_string()]);
        let context = self.context.iter().flat_map(|c| ["--context".to_owned(), c.clone()]);
        file.chain(context).collect()
    }

    /// The same as helm takes them.
    pub fn helm_flags(&self) -> Vec<String> {
        let flag = |flag: String| if flag == "--context" { "--kube-context".to_owned() } else { flag };
        self.flags().into_iter().map(flag).collect()
    }

    /// A kubectl command line to be completed.
    pub fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = run::cmd([&self.kubectl]);
        command.args(self.flags()).args(args);
        command
    }

    /// A helm command line to be completed.
    pub fn helm(&self, args: &[&str]) -> Command {
        let mut command = run::cmd([&self.helm]);
        command.args(self.helm_flags()).args(args);
        command
    }

    /// `kubectl get`, as it prints.
    pub fn get(&self, args: &[&str]) -> Result<String> {
        run::output(self.kubectl(&["get", REQUEST_TIMEOUT]).args(args))
    }

    /// `kubectl get -o json`.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.get(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).context("kubectl did not answer in JSON")
    }

    /// One object, or none when there is no such.
    pub fn find(&self, namespace: &str, kind: &str, name: &str) -> Result<Option<Value>> {
        let text = self.get(&["-n", namespace, kind, name, "--ignore-not-found", "-o", "json"])?;
        if text.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
    }

    /// The items of a list.
    pub fn items(&self, args: &[&str]) -> Result<Vec<Value>> {
        match self.json(args)?["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("`kubectl get {}` answered with no list", args.join(" ")),
        }
    }

    /// Applies objects server-side; `namespace` is for those that name none.
    pub fn apply(&self, namespace: &str, manifest: &str) -> Result<()> {
        self.apply_with(&["-n", namespace], manifest)
    }

    /// Applies objects that name their namespaces themselves.
    pub fn apply_all(&self, manifest: &str) -> Result<()> {
        self.apply_with(&[], manifest)
    }

    fn apply_with(&self, args: &[&str], manifest: &str) -> Result<()> {
        let mut command = self.kubectl(&["apply", REQUEST_TIMEOUT, "--server-side", "--force-conflicts", "-f", "-"]);
        run::output_with(command.args(args), manifest.as_bytes()).map(drop)
    }

    /// `ADDRESS:PORT` of every kubelet, with commas between them.
    pub fn kubelets(&self) -> Result<String> {
        let template = "{range .items[*]}{.status.addresses[?(@.type==\"InternalIP\")].address}:{.status.daemonEndpoints.kubeletEndpoint.Port} {end}";
        let text = self.get(&["nodes", "-o", &format!("jsonpath={template}")])?;
        Ok(text.split_whitespace().collect::<Vec<_>>().join(", "))
    }

    /// Waits until a Deployment has rolled out.
    pub fn rollout(&self, namespace: &str, deployment: &str, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        let target = format!("deployment/{deployment}");
        run::output(&mut self.kubectl(&["rollout", "status", "-n", namespace, &target, &timeout])).map(drop)
    }

    /// A GET through the API server to a Service's port, for what no host can reach directly.
    pub fn proxy(&self, namespace: &str, service: &str, port: u16, path_and_query: &str) -> Result<Value> {
        let path = format!("/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy{path_and_query}");
        serde_json::from_str(&self.get(&["--raw", &path])?).with_context(|| format!("{service} did not answer in JSON"))
    }

    /// How this machine reaches a Service's port: in the lab its pods directly, else through one forwarded port.
    pub fn reach(&self, namespace: &str, service: &str, selector: &str, port: u16) -> Result<Reached> {
        if !self.is_lab {
            let forward = Forward::start(self, namespace, service, port)?;
            return Ok(Reached { urls: vec![forward.url.clone()], _forward: Some(forward) });
        }
        let mut urls = Vec::new();
        let all = Instant::now() + FOR_ALL;
        wait(Duration::from_secs(60), &format!("no pod {selector} in {namespace} is ready"), || {
            let mut pods = self.items(&["-n", namespace, "pods", "-l", selector])?;
            pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
            let address = |pod: &Value| Some(format!("http://{}:{port}", pod["status"]["podIP"].as_str()?));
            urls = pods.iter().filter(|p| is_ready(p)).filter_map(address).collect();
            Ok(!urls.is_empty() && (urls.len() == pods.len() || Instant::now() > all))
        })?;
        Ok(Reached { urls, _forward: None })
    }
}

/// How long pods are waited for that are not ready while others are: a load that knows one of two loses both with it.
const FOR_ALL: Duration = Duration::from_secs(20);

/// Addresses that answer for as long as this lives.
#[derive(Debug)]
pub struct Reached {
    /// `http://HOST:PORT`, at least one.
    pub urls: Vec<String>,
    _forward: Option<Forward>,
}

/// A `kubectl port-forward` that ends with the value.
#[derive(Debug)]
struct Forward {
    child: Child,
    url: String,
}

impl Forward {
    fn start(access: &Access, namespace: &str, service: &str, port: u16) -> Result<Self> {
        let (service, port) = (format!("service/{service}"), format!(":{port}"));
        let mut command = access.kubectl(&["port-forward", "--address", "127.0.0.1", "-n", namespace, &service, &port]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run `kubectl`")?;
        let mut lines = BufReader::new(child.stdout.take().expect("stdout was asked for")).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let local = first.split_whitespace().find_map(|word| word.strip_prefix("127.0.0.1:"));
        let url = local.map(|port| format!("http://127.0.0.1:{port}"));
        // It prints a line for each connection, and must not wait for somebody to read it. The thread ends with the child.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let forward = Self { child, url: url.unwrap_or_default() };
        ensure!(!forward.url.is_empty(), "cannot forward a port to {service}: `{first}`");
        Ok(forward)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Whether a pod's Ready condition is true.
pub fn is_ready(object: &Value) -> bool {
    holds(object, "Ready")
}

/// Whether a condition of this type is true.
pub fn holds(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == "True"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_flags_name_what_the_user_named() {
        let access = Access {
            kubectl: "kubectl".into(),
            helm: "helm".into(),
            kubeconfig: Some("/f".into()),
            context: Some("c".into()),
            is_lab: false,
        };
        assert_eq!(access.flags(), ["--kubeconfig", "/f", "--context", "c"]);
        let helm = access.helm(&["list"]);
        assert_eq!(helm.get_args().collect::<Vec<_>>(), ["--kubeconfig", "/f", "--kube-context", "c", "list"]);
    }

    #[test]
    fn a_condition_holds_only_when_it_is_true() {
        let object = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        assert!(holds(&object("True"), "Ready"));
        assert!(!holds(&object("Unknown"), "Ready"));
        assert!(!holds(&object("True"), "Redundant"));
        assert!(!is_ready(&json!({})));
    }
}
