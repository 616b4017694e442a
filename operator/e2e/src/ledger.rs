//! The ledger of `cargo lab load` and `cargo lab verify`: what was sent and acknowledged, and whether it can be read. I/O.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use understudy_lab_outcome::{Outcome, Target, acknowledged};

use crate::cluster::output;
use crate::stage::Stage;
use crate::wait::{Seen, until};

/// Samples that are being sent while a test does something else.
#[derive(Debug)]
pub struct Load {
    child: Child,
    ledger: PathBuf,
    target: Target,
    progress: watch::Receiver<String>,
    reader: JoinHandle<()>,
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
        let kubeconfig = std::env::var("KUBECONFIG").context("KUBECONFIG is not set")?;
        let queries = stage.addresses("query", 8090).await?;
        ensure!(!queries.is_empty(), "no pod of the query service is ready");
        let target = Target {
            program: stage.cluster.load.clone(),
            cluster: vec!["--kubeconfig".to_owned(), kubeconfig],
            namespace: stage.namespace.name().to_owned(),
            datastore: stage.datastore.clone(),
            gateways: stage.addresses("gateway", 8080).await?,
            queries,
            token: stage.token.clone(),
        };
        let mut command = Command::from(target.load(rate.into(), "15m", &ledger));
        command.stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot run {}", stage.cluster.load.display()))?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr was asked for")?).lines();
        let (last, progress) = watch::channel(String::new());
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                last.send_replace(line);
            }
        });
        let mut load = Self { child, ledger, target, progress, reader };
        load.flows().await?;
        Ok(load)
    }

    async fn flows(&mut self) -> Result<()> {
        self.goes_beyond(0, "the first samples are acknowledged", Duration::from_secs(30)).await
    }

    /// Waits until more is acknowledged than by now.
    pub async fn goes_on(&mut self, limit: Duration) -> Result<()> {
        let by_now = acknowledged(&self.progress.borrow().clone()).unwrap_or(0);
        self.goes_beyond(by_now, "more samples are acknowledged", limit).await
    }

    async fn goes_beyond(&mut self, count: u64, what: &str, limit: Duration) -> Result<()> {
        until(what, limit, async || {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Seen::NotYet(format!("the load ended ({status}): {}", *self.progress.borrow())));
            }
            let line = self.progress.borrow().clone();
            Ok(Seen::when(acknowledged(&line).is_some_and(|n| n > count), (), &line))
        })
        .await
    }

    /// Stops sending, reads everything back from the stage's query service as it is now, and says what became of it.
    pub async fn finish(mut self, stage: &Stage) -> Result<Outcome> {
        let id = self.child.id().context("the load has ended before it was stopped")?;
        let mut stop = Command::new("kill");
        stop.args(["-TERM", &id.to_string()]);
        output(stop, "", Duration::from_secs(5)).await?;
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        let status = ended.context("the load does not stop")??;
        ensure!(status.success(), "the load failed ({status}): {}", *self.progress.borrow());
        self.reader.await?;
        let report = self.ledger.with_extension("json");
        self.target.queries = stage.addresses("query", 8090).await?;
        let mut verify = Command::from(self.target.verify(&self.ledger));
        verify.arg("--json").arg(&report);
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
