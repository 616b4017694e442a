//! Faults of the lab: injected from outside, never through the operator or an instance manager. I/O.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::process::Command;

use crate::cluster::{Cluster, output};
use crate::namespace::Namespace;

/// For the lab to put a fault in or take it out, beside the time that the fault lasts.
const HANDLING: Duration = Duration::from_secs(30);

/// What is done to one replica, or to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of its mysqld.
    Kill,
    /// SIGSTOP of its mysqld.
    Freeze,
    /// Every process of its pod stands still, its manager too.
    FreezePod,
    /// Its volume takes no writes: reads answer, commits hang.
    Wedge,
    /// Packets between it and every instance of the operator are dropped.
    CutOperator,
    /// SIGKILL of the whole node it runs on.
    NodeLoss,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::FreezePod => "freeze-pod",
            Self::Wedge => "wedge",
            Self::CutOperator => "cut",
            Self::NodeLoss => "node-loss",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::CutOperator => &["--from", "operator"],
            Self::Kill | Self::Freeze | Self::FreezePod | Self::Wedge | Self::NodeLoss => &[],
        }
    }

    /// Does it now.
    pub async fn inject(self, cluster: &Cluster, namespace: &Namespace, replica: &str) -> Result<()> {
        output(self.command(cluster, namespace, replica), "", HANDLING).await.map(drop)
    }

    /// Does it, and takes it out again after this time.
    pub async fn inject_for(
        self,
        cluster: &Cluster,
        namespace: &Namespace,
        replica: &str,
        time: Duration,
    ) -> Result<()> {
        let mut command = self.command(cluster, namespace, replica);
        command.args(["--for", &millis(time)]);
        output(command, "", time + HANDLING).await.map(drop)
    }

    fn command(self, cluster: &Cluster, namespace: &Namespace, replica: &str) -> Command {
        let mut command = Command::new(&cluster.lab);
        command.args(["fault", self.name(), "--namespace", namespace.name(), "--replica", replica]);
        command.args(self.options());
        command
    }
}

/// Stops these parts of the lab, as `cargo lab status` names them, for this time.
pub async fn freeze_parts(cluster: &Cluster, parts: &[&str], time: Duration) -> Result<()> {
    let freeze = |part: &&str| {
        let mut command = Command::new(&cluster.lab);
        command.args(["fault", "freeze", "--part", part, "--for", &millis(time)]);
        output(command, "", time + HANDLING)
    };
    try_join_all(parts.iter().map(freeze)).await.map(drop)
}

/// As the lab takes a time.
fn millis(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// Ends every fault that still lasts; a lost node comes back.
pub async fn heal(cluster: &Cluster) -> Result<()> {
    let mut command = Command::new(&cluster.lab);
    command.arg("heal");
    output(command, "", Duration::from_secs(120)).await.map(drop)
}

/// mysqld of one replica, looked up beforehand: the lab asks the API server where it runs, which takes its time and may not answer.
#[derive(Debug)]
pub struct Victim {
    /// As this machine numbers them.
    processes: Vec<String>,
}

impl Victim {
    /// Finds it by the cgroup of its pod.
    pub async fn find(namespace: &Namespace, replica: &str) -> Result<Self> {
        let pod = namespace.api::<Pod>().get(replica).await?;
        let mark = format!("pod{}", pod.metadata.uid.context("a pod without a UID")?);
        let of_process =
            |process: &str, file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
        let is_it = |process: &String| {
            process.bytes().all(|digit| digit.is_ascii_digit())
                && of_process(process, "cgroup").contains(&mark)
                && of_process(process, "comm").trim() == "mysqld"
        };
        let names = std::fs::read_dir("/proc").context("cannot list processes")?.flatten();
        let processes: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).filter(is_it).collect();
        ensure!(!processes.is_empty(), "no mysqld of {replica} runs on this machine");
        Ok(Self { processes })
    }

    /// SIGKILL.
    pub async fn kill(&self) -> Result<()> {
        let mut command = Command::new("kill");
        command.arg("-KILL").args(&self.processes);
        output(command, "", HANDLING).await.map(drop)
    }
}
