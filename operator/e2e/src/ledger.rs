//! The ledger of `cargo lab load` and `cargo lab verify`: what was sent and acknowledged, and whether it can be read. I/O.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::output;
use crate::stage::Stage;
use crate::wait::{Seen, until};

/// The token goes by the environment: arguments are seen by everybody on the machine.
const TOKEN: &str = "UNDERSTUDY_TOKEN";

/// Samples that are being sent while a test does something else.
#[derive(Debug)]
pub struct Load {
    child: Child,
    ledger: PathBuf,
    program: PathBuf,
    token: String,
    query: Vec<String>,
    progress: watch::Receiver<String>,
    reader: JoinHandle<()>,
}

/// What became of the samples. Gaps in seconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Samples whose send was acknowledged.
    pub acknowledged: u64,
    /// Samples whose send was not answered: they may be there or not.
    pub unknown: u64,
    /// Acknowledged samples that cannot be read, or read with another value.
    pub lost: u64,
    /// Samples that are stored more than once.
    pub doubled: u64,
    /// Samples that can be read and were never sent.
    pub alien: u64,
    /// Longest time in which no send was acknowledged.
    pub ack_gap_seconds: Option<f64>,
    /// Longest time between two commits, seen through the shard's current primary.
    pub write_gap_seconds: Option<f64>,
    /// Longest time in which the newest readable sample did not advance.
    pub visible_gap_seconds: Option<f64>,
}

impl Outcome {
    /// Nothing acknowledged is missing, nothing is there twice.
    pub fn is_exact(&self) -> bool {
        self.acknowledged > 0 && self.lost == 0 && self.doubled == 0 && self.alien == 0
    }
}

impl Load {
    /// Starts it and waits for the first acknowledged sample.
    pub(crate) async fn start(stage: &Stage, rate: u32) -> Result<Self> {
        let ledger = std::env::temp_dir().join(format!("{}.ledger", stage.namespace.name()));
        match std::fs::remove_dir_all(&ledger).or_else(|_| std::fs::remove_file(&ledger)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("cannot clear the old ledger");
            }
            _ => {}
        }
        let query = access(stage).await?;
        let mut command = Command::new(&stage.cluster.load);
        command.args(["load", "--rate", &rate.to_string(), "--for", "15m", "--namespace", stage.namespace.name()]);
        command.args(["--datastore", &stage.datastore]).arg("--ledger").arg(&ledger).args(&query);
        command.arg("--kubeconfig").arg(std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?);
        for gateway in stage.addresses("gateway", 8080).await? {
            command.args(["--gateway", &gateway]);
        }
        command.env(TOKEN, &stage.token).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot run {}", stage.cluster.load.display()))?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr was asked for")?).lines();
        let (last, progress) = watch::channel(String::new());
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                last.send_replace(line);
            }
        });
        let (program, token) = (stage.cluster.load.clone(), stage.token.clone());
        let mut load = Self { child, ledger, program, token, query, progress, reader };
        load.flows().await?;
        Ok(load)
    }

    async fn flows(&mut self) -> Result<()> {
        until("the first samples are acknowledged", Duration::from_secs(30), async || {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Seen::NotYet(format!("the load ended ({status}): {}", *self.progress.borrow())));
            }
            let line = self.progress.borrow().clone();
            Ok(Seen::when(acknowledged(&line).is_some_and(|n| n > 0), (), &line))
        })
        .await
    }

    /// Stops sending, reads everything back and says what became of it.
    pub async fn finish(mut self) -> Result<Outcome> {
        let id = self.child.id().context("the load has ended before it was stopped")?;
        let mut stop = Command::new("kill");
        stop.args(["-TERM", &id.to_string()]);
        output(stop, "", Duration::from_secs(5)).await?;
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        let status = ended.context("the load does not stop")??;
        ensure!(status.success(), "the load failed ({status}): {}", *self.progress.borrow());
        self.reader.await?;
        let report = self.ledger.with_extension("json");
        let mut verify = Command::new(&self.program);
        verify.env(TOKEN, &self.token);
        verify.arg("verify").arg("--ledger").arg(&self.ledger).arg("--json").arg(&report).args(&self.query);
        // A ledger that does not add up is an exit code too; what it found is in the report either way.
        let said = output(verify, "", Duration::from_secs(180)).await;
        let text = match std::fs::read(&report) {
            Ok(text) => text,
            Err(_) => return Err(said.err().context("verify failed and left no report")?),
        };
        let outcome: Outcome =
            serde_json::from_slice(&text).with_context(|| format!("{} is malformed", report.display()))?;
        println!("ledger: {outcome:?}");
        Ok(outcome)
    }
}

async fn access(stage: &Stage) -> Result<Vec<String>> {
    let query =
        stage.addresses("query", 8090).await?.into_iter().next().context("no pod of the query service is ready")?;
    Ok(["--query", &query, "--token", &stage.token].map(str::to_owned).into())
}

/// The number before `samples acknowledged` in a line of progress.
fn acknowledged(line: &str) -> Option<u64> {
    line.split_once(" samples acknowledged")?.0.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_a_line_of_progress() {
        for (line, want) in [
            ("    12 s  59500 samples acknowledged, 0 batches unanswered", Some(59_500)),
            ("sending 1000 samples a second", None),
        ] {
            assert_eq!(acknowledged(line), want, "{line}");
        }
    }

    #[test]
    fn an_empty_ledger_is_not_exact() {
        let report = r#"{"sent":0,"acknowledged":0,"unknown":0,"lost":0,"doubled":0,"alien":0,"ackGapSeconds":null,"writeGapSeconds":null,"visibleGapSeconds":null}"#;
        let outcome: Outcome = serde_json::from_str(report).unwrap();
        assert!(!outcome.is_exact());
        assert!(Outcome { acknowledged: 1, ..outcome }.is_exact());
    }
}
