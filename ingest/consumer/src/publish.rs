//! Tells the Consumer's status what each partition does, by the pod that reads it. I/O, but for the choice of what is news.
//!
//! Server-side apply with a field manager per shard, so that the pods of different shards own different entries of the list. An idle
//! consumer writes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use understudy_api::v1alpha1::{PartitionState as ApiState, PartitionStatus};
use understudy_watch::resource;

use crate::status::{Partition, PartitionState, Snapshot};

/// The least time between two writes while only numbers change.
const NUMBERS_EVERY: Duration = Duration::from_secs(5);
/// The least time between two writes.
const AT_MOST_EVERY: Duration = Duration::from_millis(500);
/// How long a write may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Lags below these are noise.
const NOISE_RECORDS: i64 = 1000;
const NOISE_SECONDS: f64 = 2.0;

/// Who writes where.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// Namespace of the Consumer.
    pub namespace: String,
    /// Name of the Consumer.
    pub consumer: String,
    /// Name of this pod.
    pub pod: String,
}

impl Publisher {
    /// Writes until stopped, while this pod is the active one. Its end is not written: that nobody reads any more the operator sees by the pods.
    pub async fn run(self, client: Client, mut board: watch::Receiver<Snapshot>, stop: CancellationToken) {
        let api: Api<DynamicObject> = Api::namespaced_with(client, &self.namespace, &resource("Consumer", "consumers"));
        let mut written = Written::default();
        let mut failed = false;
        loop {
            let snapshot = board.borrow_and_update().clone();
            if let Some(partitions) = written.news(&snapshot, Instant::now()) {
                let entries = self.entries(&snapshot, &partitions, &mut written);
                match tokio::time::timeout(WITHIN, self.write(&api, &snapshot.shard, entries)).await {
                    Ok(Ok(())) => {
                        if std::mem::take(&mut failed) {
                            tracing::info!("the Consumer's status is written again");
                        }
                        written.keep(partitions, Instant::now());
                    }
                    Ok(Err(e)) => note(&mut failed, &e.to_string()),
                    Err(_) => note(&mut failed, "no answer"),
                }
            }
            let wait = async {
                tokio::time::sleep(AT_MOST_EVERY).await;
                board.changed().await
            };
            match stop.run_until_cancelled(wait).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
    }

    fn entries(&self, snapshot: &Snapshot, partitions: &[Partition], written: &mut Written) -> Vec<PartitionStatus> {
        let entry = |p: &Partition| PartitionStatus {
            partition: p.partition,
            shard: snapshot.shard.clone(),
            state: match p.state {
                PartitionState::Running => ApiState::Running,
                PartitionState::Paused => ApiState::Paused,
                PartitionState::Fenced => ApiState::Fenced,
                PartitionState::Stuck => ApiState::Stuck,
            },
            next_offset: p.next_offset.unwrap_or(0),
            lag_records: p.lag_records,
            lag_seconds: p.lag_seconds,
            dead_letters: i64::try_from(p.dead_letters).unwrap_or(i64::MAX),
            until: p.until,
            epoch: i64::try_from(snapshot.epoch.unwrap_or(0)).unwrap_or(i64::MAX),
            pod: Some(self.pod.clone()),
            since: Some(Time(written.since(p))),
            message: p.message.clone(),
        };
        partitions.iter().map(entry).collect()
    }

    async fn write(
        &self,
        api: &Api<DynamicObject>,
        shard: &str,
        partitions: Vec<PartitionStatus>,
    ) -> Result<(), kube::Error> {
        let patch = json!({
            "apiVersion": format!("{}/v1alpha1", understudy_api::GROUP),
            "kind": "Consumer",
            "metadata": { "name": self.consumer },
            "status": { "partitions": partitions },
        });
        let params = PatchParams::apply(&format!("understudy-consumer-{shard}")).force();
        api.patch_status(&self.consumer, &params, &Patch::Apply(&patch)).await.map(drop)
    }
}

fn note(failed: &mut bool, why: &str) {
    if !std::mem::replace(failed, true) {
        tracing::warn!(error = why, "the Consumer's status is not written; storing goes on");
    }
}

/// What was written last.
#[derive(Default)]
struct Written {
    partitions: Vec<Partition>,
    at: Option<Instant>,
    active: bool,
    since: BTreeMap<i32, (PartitionState, jiff::Timestamp)>,
}

impl Written {
    /// What to write now; None when there is nothing new worth a write.
    fn news(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Vec<Partition>> {
        // The next pod may have written by now, and would not again for long. And `Fenced` is the word of a pod that lives: the operator would
        // not see that nobody is left.
        if snapshot.state == "Stopped" {
            return None;
        }
        if std::mem::replace(&mut self.active, snapshot.active) != snapshot.active {
            // Whoever was active before may have written meanwhile.
            self.at = None;
        }
        // A pod that lost the primary it was active on keeps telling so, until it finds that another is active.
        if snapshot.state == "Claiming" {
            self.partitions.clear();
        }
        let speaks = snapshot.active || !self.partitions.is_empty();
        if !speaks || snapshot.partitions.is_empty() {
            return None;
        }
        let due = self.at.is_none_or(|at| now.saturating_duration_since(at) >= NUMBERS_EVERY);
        let same_shape = self.partitions.len() == snapshot.partitions.len();
        let changed = |f: fn(&Partition, &Partition) -> bool| {
            !same_shape || self.partitions.iter().zip(&snapshot.partitions).any(|(a, b)| f(a, b))
        };
        let word =
            changed(|a, b| (a.partition, a.state, &a.message, a.until) != (b.partition, b.state, &b.message, b.until));
        let number = changed(|a, b| {
            let is_late = |p: &Partition| p.lag_seconds.is_some_and(|seconds| seconds > NOISE_SECONDS);
            let behind = |p: &Partition| p.lag_records > NOISE_RECORDS || is_late(p);
            let counts = |p: &Partition| (p.next_offset, p.dead_letters, p.lag_seconds.is_some());
            behind(a) || behind(b) || counts(a) != counts(b)
        });
        (self.at.is_none() || word || (due && number)).then(|| snapshot.partitions.clone())
    }

    fn keep(&mut self, partitions: Vec<Partition>, now: Instant) {
        (self.partitions, self.at) = (partitions, Some(now));
    }

    fn since(&mut self, partition: &Partition) -> jiff::Timestamp {
        let entry = self.since.entry(partition.partition);
        let since = entry.or_insert_with(|| (partition.state, jiff::Timestamp::now()));
        if since.0 != partition.state {
            *since = (partition.state, jiff::Timestamp::now());
        }
        since.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::State;

    fn snapshot(active: bool, state: PartitionState, next_offset: i64, lag_seconds: f64) -> Snapshot {
        let lag_seconds = Some(lag_seconds);
        let partition = Partition {
            partition: 0,
            state,
            next_offset: Some(next_offset),
            end: Some(next_offset),
            lag_records: 0,
            lag_seconds,
            complete_until_ms: 0,
            until: None,
            dead_letters: 0,
            fault: None,
            message: None,
        };
        let state = if active { "Running" } else { "Claiming" };
        Snapshot { active, state, partitions: vec![partition], ..Snapshot::idle("a") }
    }

    fn ending(mut snapshot: Snapshot) -> Snapshot {
        snapshot.partitions[0].until = Some(500);
        snapshot
    }

    fn of_unknown_delay(mut snapshot: Snapshot) -> Snapshot {
        snapshot.partitions[0].lag_seconds = None;
        snapshot
    }

    fn of_a_pod_that_ended() -> Snapshot {
        Snapshot { state: State::Stopped.word(), ..snapshot(false, PartitionState::Fenced, 1, 0.0) }
    }

    #[test]
    fn only_news_are_written() {
        use PartitionState::{Running, Stuck};
        let start = Instant::now();
        let mut written = Written::default();
        assert!(written.news(&snapshot(false, Running, 1, 0.0), start).is_none(), "standing by");
        let first = written.news(&snapshot(true, Running, 1, 0.0), start).expect("active for the first time");
        written.keep(first, start);
        let later = start + NUMBERS_EVERY;
        for (case, at, seen, news) in [
            ("idle", later, snapshot(true, Running, 1, 0.0), false),
            ("advancing, too soon", start, snapshot(true, Running, 2, 0.0), false),
            ("advancing", later, snapshot(true, Running, 2, 0.0), true),
            ("behind, too soon", start, snapshot(true, Running, 1, 9.0), false),
            ("behind", later, snapshot(true, Running, 1, 9.0), true),
            ("its delay is not known any more", later, of_unknown_delay(snapshot(true, Running, 1, 0.0)), true),
            ("stuck", start, snapshot(true, Stuck, 1, 0.0), true),
            ("told of its end", start, ending(snapshot(true, Running, 1, 0.0)), true),
            ("the pod ends", later, of_a_pod_that_ended(), false),
            ("no longer active", later, snapshot(false, Running, 1, 0.0), false),
            ("active again", start, snapshot(true, Running, 1, 0.0), true),
        ] {
            assert_eq!(written.news(&seen, at).is_some(), news, "{case}");
        }
    }
}
