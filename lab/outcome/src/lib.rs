//! What the program of `lab/load` and those who run it agree on: its command line, its progress, what it found. Pure.
//!
//! The program itself, the lab and the end-to-end tests use this. The lab is built before anything else, so nothing heavy
//! may come in here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// The variable with the token. Not an argument, which everybody on the machine can read.
const TOKEN: &str = "UNDERSTUDY_TOKEN";
/// What stands behind the count in a line of progress.
const ACKNOWLEDGED: &str = " samples acknowledged";

/// The program, and where it sends to and reads from.
#[derive(Clone, Debug)]
pub struct Target {
    /// The program.
    pub program: PathBuf,
    /// How to get at the cluster: flags as kubectl has them.
    pub cluster: Vec<String>,
    /// Namespace of the Datastore.
    pub namespace: String,
    /// Its name.
    pub datastore: String,
    /// URLs of the gateway.
    pub gateways: Vec<String>,
    /// URLs of the query service.
    pub queries: Vec<String>,
    /// `ID.SECRET`.
    pub token: String,
}

impl Target {
    /// Sends `rate` samples a second for a time such as `30s` or `5m`, and writes the ledger.
    pub fn load(&self, rate: u64, time: &str, ledger: &Path) -> Command {
        let mut command = self.program("load", ledger);
        command.args(&self.cluster).args(["--namespace", &self.namespace, "--datastore", &self.datastore]);
        command.args(["--rate", &rate.to_string(), "--for", time]);
        for url in &self.gateways {
            command.args(["--gateway", url]);
        }
        command
    }

    /// Reads back what the ledger says was sent.
    pub fn verify(&self, ledger: &Path) -> Command {
        self.program("verify", ledger)
    }

    fn program(&self, what: &str, ledger: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(what).arg("--ledger").arg(ledger).env(TOKEN, &self.token).stdin(Stdio::null());
        for url in &self.queries {
            command.args(["--query", url]);
        }
        command
    }
}

/// A line of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Since the first send.
    pub seconds: u64,
    /// Samples acknowledged.
    pub acknowledged: u64,
    /// Batches sent and not answered for good.
    pub unanswered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Batches not sent, because too much was unanswered.
    pub skipped: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, acknowledged, unanswered, failed, skipped } = self;
        write!(f, "  {seconds:>4} s  {acknowledged}{ACKNOWLEDGED}, {unanswered} batches unanswered, ")?;
        write!(f, "{failed} attempts failed, {skipped} batches not sent")
    }
}

/// How many samples a line says are acknowledged; None for a line that is not of progress.
pub fn acknowledged(line: &str) -> Option<u64> {
    line.split_once(ACKNOWLEDGED)?.0.split_whitespace().last()?.parse().ok()
}

/// What became of the samples: the part of the verifier's report that programs rely on. Gaps in seconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Samples whose send was acknowledged.
    pub acknowledged: u64,
    /// Samples whose send was not answered: they may be there or not.
    pub unknown: u64,
    /// Acknowledged samples that cannot be read, or are read with another value.
    pub lost: u64,
    /// Samples stored more than once, beyond `explained`.
    pub doubled: u64,
    /// Samples stored more than once, as many as sends of unknown outcome may have stored again.
    pub explained: u64,
    /// Samples that can be read and were never sent.
    pub alien: u64,
    /// Longest time in which no send was acknowledged.
    pub ack_gap_seconds: Option<f64>,
    /// Longest time between two commits, seen through each shard's primary of the moment.
    pub write_gap_seconds: Option<f64>,
    /// Longest time in which the newest readable sample did not advance.
    pub visible_gap_seconds: Option<f64>,
    /// The first of these with its bounds.
    #[serde(default)]
    pub ack_gap: Option<Gap>,
    /// The last of them with its bounds.
    #[serde(default)]
    pub visible_gap: Option<Gap>,
    /// Answers of the query API under an epoch that was over, or that went back after another primary was published.
    #[serde(default)]
    pub stale_answers: u64,
    /// Of how many answers after that publication which say who gave them; None when no primary changed.
    #[serde(default)]
    pub answers_after_change: Option<u64>,
    /// From that publication to the last of them; None when no primary changed.
    #[serde(default)]
    pub stale_read_seconds: Option<f64>,
    /// Per shard that was watched.
    #[serde(default)]
    pub shards: BTreeMap<String, ShardOutcome>,
}

/// What was seen of one shard.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardOutcome {
    /// Longest time between two commits.
    pub write_gap: Gap,
    /// Records that were stored again after changes of primary.
    pub replayed: i64,
    /// What a client that stayed with the first primary could do after another was claimed; None without one of the two.
    #[serde(default)]
    pub direct: Option<Direct>,
}

/// A stretch without progress.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Its length, without the time in which the program itself did not run.
    pub seconds: f64,
    /// Its length with that: it was not longer.
    pub at_most_seconds: f64,
    /// Whether it had not ended when nobody looked any longer.
    pub open: bool,
}

/// What a client with a connection of its own to the old primary could do, from the claim of the next epoch on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Direct {
    /// Reads that were answered.
    pub reads: u64,
    /// Time to the last of them.
    pub read_seconds: f64,
    /// Writes that were accepted.
    pub writes: u64,
    /// Time to the last of them.
    pub write_seconds: f64,
}

/// What `probe` of the program found: how long commits took beside so many probes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeCost {
    /// How long it ran.
    pub seconds: f64,
    /// Commits of one row over one connection, 20 a second at most.
    pub commits: u64,
    /// Median of their times, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 are not above it, in milliseconds.
    pub p99_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
    /// Probes made beside: a new connection with TLS, a login, a read, a commit.
    pub probes: u64,
    /// Those that did not succeed within their deadline.
    pub failed: u64,
}

impl Outcome {
    /// Nothing acknowledged is missing, nothing is there twice.
    pub fn is_exact(&self) -> bool {
        self.acknowledged > 0 && self.lost == 0 && self.doubled == 0 && self.alien == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_a_line_of_progress_and_from_no_other() {
        let progress = Progress { seconds: 12, acknowledged: 59_500, unanswered: 1, failed: 2, skipped: 3 };
        let line = "    12 s  59500 samples acknowledged, 1 batches unanswered, 2 attempts failed, 3 batches not sent";
        assert_eq!(progress.to_string(), line);
        assert_eq!(acknowledged(line), Some(59_500));
        assert_eq!(acknowledged("sending 1000 samples a second"), None);
    }

    #[test]
    fn an_empty_ledger_is_not_exact() {
        let report = r#"{"sent":0,"acknowledged":0,"unknown":0,"lost":0,"doubled":0,"explained":0,"alien":0,"ackGapSeconds":null,"writeGapSeconds":null,"visibleGapSeconds":null}"#;
        let outcome: Outcome = serde_json::from_str(report).unwrap();
        assert!(!outcome.is_exact());
        assert!(Outcome { acknowledged: 1, ..outcome }.is_exact());
    }

    #[test]
    fn the_token_is_no_argument() {
        let target = Target {
            program: "load".into(),
            cluster: vec!["--context".into(), "lab".into()],
            namespace: "default".into(),
            datastore: "metrics".into(),
            gateways: vec!["http://g".into()],
            queries: vec!["http://q".into(), "http://r".into()],
            token: "id.secret".into(),
        };
        let words = |command: &Command| {
            let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            (
                words.join(" "),
                command.get_envs().any(|(name, value)| name == TOKEN && value == Some("id.secret".as_ref())),
            )
        };
        let load = "load --ledger l --query http://q --query http://r --context lab --namespace default --datastore metrics \
                    --rate 5 --for 30s --gateway http://g";
        assert_eq!(words(&target.load(5, "30s", Path::new("l"))), (load.to_owned(), true));
        let verify = "verify --ledger l --query http://q --query http://r";
        assert_eq!(words(&target.verify(Path::new("l"))), (verify.to_owned(), true));
    }
}
