//! What the operator is told when it starts. Pure.

use std::net::SocketAddr;

use clap::Args;

/// Arguments of `understudy run`; the chart sets them through the environment.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// The namespace the operator runs in: its lease and its certificate authority are there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "understudy-system")]
    pub namespace: String,
    /// The name of this instance, different for each.
    #[arg(long, env = "POD_NAME", default_value_t = default_name())]
    pub pod: String,
    /// The node it runs on. Observers of one node count as one; without it, this instance counts by itself.
    #[arg(long, env = "NODE_NAME")]
    pub node: Option<String>,
    /// The image that the workloads and the init containers of replicas run.
    #[arg(long, env = "UNDERSTUDY_IMAGE", default_value_t = default_image())]
    pub image: String,
    /// When nodes pull the image: Always, IfNotPresent or Never.
    #[arg(long, env = "UNDERSTUDY_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// The one namespace to look after; all of them when empty.
    #[arg(long, env = "UNDERSTUDY_WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: String,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "UNDERSTUDY_ADMIN_LISTEN", default_value = "0.0.0.0:8081")]
    pub admin_listen: SocketAddr,
    /// What is logged, in the words of tracing's EnvFilter.
    #[arg(long, env = "UNDERSTUDY_LOG", default_value = "info")]
    pub log: String,
}

impl Settings {
    /// The namespace to look after; `None` for all.
    pub fn scope(&self) -> Option<&str> {
        Some(self.watch_namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }
}

fn default_name() -> String {
    format!("understudy-{}", std::process::id())
}

fn default_image() -> String {
    format!("understudy:{}", env!("CARGO_PKG_VERSION"))
}
