//! `kubectl understudy` as a person runs it, through kubectl and without a terminal. I/O.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::runbook;
use crate::stage::Stage;

/// How long one command may take: longer than the tests let it wait.
const PATIENCE: Duration = Duration::from_secs(150);

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    /// What it ended with; none when a signal ended it.
    pub code: Option<i32>,
    /// The answer.
    pub out: String,
    /// What was said on the way.
    pub err: String,
}

impl Said {
    /// The same, or what went wrong when it did not end with 0.
    pub fn well(self) -> Result<Self> {
        ensure!(self.code == Some(0), "the plugin ended with {:?}: {}", self.code, self.err.trim());
        Ok(self)
    }

    /// The answer, as a program reads it.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("no JSON: {:?}; on the way: {}", self.out, self.err))
    }
}

/// Runs one command in the stage's namespace to its end, whatever it ends with. Words are what stands between blanks.
pub async fn run(stage: &Stage, line: &str) -> Result<Said> {
    let kubectl = &stage.cluster.kubectl;
    let mut command = Command::new(kubectl);
    command.arg("understudy").args(line.split_whitespace()).args(["-n", stage.namespace.name()]);
    command.env("PATH", runbook::path(kubectl)?).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    println!("kubectl understudy {line}");
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .with_context(|| format!("kubectl understudy {line}: no end within {} s", PATIENCE.as_secs()))?
        .with_context(|| format!("cannot run {}", kubectl.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}
