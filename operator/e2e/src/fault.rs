//! Faults of the lab: injected from outside, never through the operator or an instance manager. I/O.

use std::time::Duration;

use anyhow::Result;
use tokio::process::Command;

use crate::cluster::{Cluster, output};
use crate::namespace::Namespace;

/// What is done to one replica, or to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of its mysqld.
    Kill,
    /// SIGKILL of the whole node it runs on.
    NodeLoss,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::NodeLoss => "node-loss",
        }
    }

    /// Does it now.
    pub async fn inject(self, cluster: &Cluster, namespace: &Namespace, replica: &str) -> Result<()> {
        let mut command = Command::new(&cluster.lab);
        command.args(["fault", self.name(), "--namespace", namespace.name(), "--replica", replica]);
        output(command, "", Duration::from_secs(30)).await.map(drop)
    }
}

/// Ends every fault that still lasts; a lost node comes back.
pub async fn heal(cluster: &Cluster) -> Result<()> {
    let mut command = Command::new(&cluster.lab);
    command.arg("heal");
    output(command, "", Duration::from_secs(120)).await.map(drop)
}
