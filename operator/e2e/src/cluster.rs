//! The cluster under test and the programs of the lab, from the environment. I/O.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::Client;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::namespace;

/// Where the tests run.
#[derive(Clone)]
pub struct Cluster {
    /// As the administrator of `KUBECONFIG`.
    pub client: Client,
    /// The lab's launcher, for faults: `UNDERSTUDY_LAB`.
    pub lab: PathBuf,
    /// Load, ledger and verification: `UNDERSTUDY_LOAD`.
    pub load: PathBuf,
    /// kubectl, for what the client library does not do: `UNDERSTUDY_KUBECTL`, else from the path.
    pub kubectl: PathBuf,
}

impl Cluster {
    /// The one cluster of this process; what earlier runs left in it is deleted first.
    pub async fn get() -> Result<&'static Self> {
        static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
        CLUSTER
            .get_or_try_init(|| async {
                let cluster = Self::connect().await?;
                namespace::delete_leftovers(&cluster.client).await?;
                Ok(cluster)
            })
            .await
    }

    async fn connect() -> Result<Self> {
        ensure!(
            std::env::var_os("KUBECONFIG").is_some(),
            "the end-to-end tests need a cluster: run them by `cargo lab test --tier e2e`, which sets KUBECONFIG, UNDERSTUDY_LAB and UNDERSTUDY_LOAD"
        );
        let client = Client::try_default().await.context("cannot use the cluster of KUBECONFIG")?;
        client.apiserver_version().await.context("the cluster of KUBECONFIG does not answer")?;
        let program = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .with_context(|| format!("{name} must be the path of that program"))
        };
        let kubectl = std::env::var_os("UNDERSTUDY_KUBECTL").unwrap_or_else(|| "kubectl".into()).into();
        Ok(Self { client, lab: program("UNDERSTUDY_LAB")?, load: program("UNDERSTUDY_LOAD")?, kubectl })
    }

    /// Runs kubectl, with `input` on its standard input; what it printed.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        command.args(args);
        output(command, input, Duration::from_secs(60)).await
    }
}

/// Runs a program to its end within `limit`; an exit code other than zero is an error with what it said.
pub async fn output(mut command: Command, input: &str, limit: Duration) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let words = format!("{:?}", command.as_std());
    let mut child = command.spawn().with_context(|| format!("cannot run {words}"))?;
    let mut stdin = child.stdin.take().context("stdin was asked for")?;
    let all = async {
        stdin.write_all(input.as_bytes()).await.with_context(|| format!("{words} did not read its input"))?;
        drop(stdin);
        child.wait_with_output().await.with_context(|| format!("cannot run {words}"))
    };
    let output = tokio::time::timeout(limit, all)
        .await
        .with_context(|| format!("{words}: no end within {} s", limit.as_secs()))??;
    if !output.status.success() {
        bail!("{words} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
