//! The rows of the screen, from what was read. Pure.

use jiff::Timestamp;
use serde::Serialize;
use understudy_api::conditions;
use understudy_api::v1alpha1::VerdictState;

use super::Store;
use crate::objects::{
    Availability, Condition, Consumer, Datastore, Drill, Failover, LastFailover, Replica, Shard, Transition, Verdict,
    Withheld, Workload, holds,
};
use crate::view::time::seconds_since;

/// One Datastore.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DatastoreRow {
    pub(super) name: String,
    pub(super) paused: bool,
    pub(super) ready: Option<bool>,
    pub(super) shards_ready: Option<String>,
    pub(super) verdict: Option<String>,
    pub(super) verdict_of: Option<String>,
    #[serde(flatten)]
    pub(super) workloads: Workload,
    pub(super) delay: Option<String>,
    pub(super) availability: Option<Availability>,
    pub(super) message: Option<String>,
}

/// One Shard.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShardRow {
    pub(super) name: String,
    pub(super) datastore: Option<String>,
    pub(super) paused: bool,
    pub(super) mode: Option<String>,
    pub(super) primary: Option<String>,
    pub(super) epoch: Option<i64>,
    pub(super) ready: Option<String>,
    pub(super) verdict: Option<Verdict>,
    pub(super) for_seconds: Option<i64>,
    pub(super) promotable: Option<i64>,
    pub(super) lag: Option<String>,
    pub(super) doing: Option<String>,
    pub(super) withheld: Vec<Withheld>,
    pub(super) transition: Option<Transition>,
    pub(super) last_failover: Option<LastFailover>,
    pub(super) availability: Option<Availability>,
    #[serde(skip)]
    pub(super) is_well: bool,
}

/// One Replica that is not ready.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplicaRow {
    pub(super) name: String,
    pub(super) shard: Option<String>,
    pub(super) role: Option<String>,
    pub(super) phase: Option<String>,
    pub(super) node: Option<String>,
    pub(super) delay: Option<String>,
    pub(super) build: Option<String>,
    pub(super) age_seconds: Option<i64>,
    pub(super) message: Option<String>,
}

/// One Consumer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConsumerRow {
    pub(super) name: String,
    pub(super) datastore: Option<String>,
    pub(super) paused: bool,
    pub(super) ready: Option<String>,
    pub(super) partitions: Option<String>,
    pub(super) lag: Option<String>,
    pub(super) lag_records: Option<i64>,
    pub(super) dead_letters: Option<i64>,
    pub(super) message: Option<String>,
    #[serde(skip)]
    pub(super) is_well: bool,
}

/// One change of primary that is not over.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FailoverRow {
    pub(super) name: String,
    pub(super) shard: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) phase: String,
    pub(super) cause: Option<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) since: Option<Timestamp>,
    pub(super) for_seconds: Option<i64>,
}

/// One Drill.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DrillRow {
    pub(super) name: String,
    pub(super) datastore: Option<String>,
    pub(super) fault: Option<String>,
    pub(super) next_run: Option<Timestamp>,
    pub(super) in_seconds: Option<i64>,
    pub(super) last_result: Option<String>,
    pub(super) last_run: Option<Timestamp>,
}

pub(super) fn datastore_row(datastore: &Datastore) -> DatastoreRow {
    let ready = datastore.conditions.iter().find(|condition| condition.kind == conditions::READY);
    DatastoreRow {
        name: datastore.name.clone(),
        paused: datastore.paused,
        ready: holds(&datastore.conditions, conditions::READY),
        shards_ready: datastore.shards_ready.clone(),
        verdict: datastore.worst.clone(),
        verdict_of: datastore.worst_shard.clone(),
        workloads: datastore.workloads.clone(),
        delay: datastore.delay.clone(),
        availability: datastore.availability.clone(),
        message: ready.filter(|ready| ready.status.as_deref() != Some("True")).and_then(|ready| ready.message.clone()),
    }
}

pub(super) fn shard_row(shard: &Shard, now: Timestamp) -> ShardRow {
    let healthy = shard.known_state() == Some(VerdictState::Healthy);
    let since = shard.verdict.as_ref().and_then(|verdict| verdict.since);
    ShardRow {
        name: shard.name.clone(),
        datastore: shard.datastore.clone(),
        paused: shard.paused,
        mode: shard.mode.clone(),
        primary: shard.primary.clone(),
        epoch: shard.epoch,
        ready: shard.ready.clone(),
        verdict: shard.verdict.clone(),
        for_seconds: since.map(|since| seconds_since(since, now)),
        promotable: shard.promotable,
        lag: shard.lag.clone(),
        doing: shard.doing.clone(),
        withheld: shard.withheld.clone(),
        transition: shard.transition.clone(),
        last_failover: shard.last_failover.clone(),
        availability: shard.availability.clone(),
        is_well: healthy && holds(&shard.conditions, conditions::READY) != Some(false),
    }
}

/// Replicas that nobody expects anything of are left out.
pub(super) fn replica_row(replica: &Replica, store: &Store, now: Timestamp) -> Option<ReplicaRow> {
    let is_old = replica.condemned || replica.role.as_deref() == Some("condemned");
    if is_old || holds(&replica.conditions, conditions::READY) == Some(true) {
        return None;
    }
    let shard = store.shards.iter().find(|shard| Some(&shard.name) == replica.shard.as_ref());
    let said = shard.and_then(|shard| shard.replicas.iter().find(|summary| summary.name == replica.name));
    let wrong = |kind: &str, status: &str| {
        let is_it = |condition: &&Condition| condition.kind == kind && condition.status.as_deref() == Some(status);
        replica.conditions.iter().find(is_it).and_then(|condition| condition.message.clone())
    };
    let message = said.and_then(|summary| summary.message.clone());
    Some(ReplicaRow {
        name: replica.name.clone(),
        shard: replica.shard.clone(),
        role: replica.role.clone(),
        phase: replica.phase.clone(),
        node: replica.node.clone(),
        delay: replica.delay.clone(),
        build: replica.build.clone(),
        age_seconds: replica.made.map(|made| seconds_since(made, now)),
        message: message
            .or_else(|| wrong(conditions::PROVISIONED, "False"))
            .or_else(|| wrong(conditions::DEGRADED, "True"))
            .or_else(|| wrong(conditions::READY, "False")),
    })
}

pub(super) fn consumer_row(consumer: &Consumer) -> ConsumerRow {
    ConsumerRow {
        name: consumer.name.clone(),
        datastore: consumer.datastore.clone(),
        paused: consumer.paused,
        ready: consumer.ready.clone(),
        partitions: consumer.running.clone(),
        lag: consumer.lag.clone(),
        lag_records: consumer.lag_records,
        dead_letters: consumer.dead_letters,
        message: consumer.message.clone(),
        is_well: holds(&consumer.conditions, conditions::READY) == Some(true),
    }
}

pub(super) fn failover_row(failover: &Failover, now: Timestamp) -> FailoverRow {
    let since = failover.started.or(failover.made);
    FailoverRow {
        name: failover.name.clone(),
        shard: failover.shard.clone(),
        kind: failover.kind.clone(),
        phase: failover.phase.clone().unwrap_or_else(|| "Pending".into()),
        cause: failover.cause.clone(),
        from: failover.from.clone(),
        to: failover.to.clone(),
        since,
        for_seconds: since.map(|since| seconds_since(since, now)),
    }
}

pub(super) fn drill_row(drill: &Drill, now: Timestamp) -> DrillRow {
    let last = drill.last.as_ref();
    DrillRow {
        name: drill.name.clone(),
        datastore: drill.datastore.clone(),
        fault: drill.fault.clone(),
        next_run: drill.next,
        in_seconds: drill.next.map(|next| seconds_since(now, next)),
        last_result: last.and_then(|last| last.result.clone()),
        last_run: last.and_then(|last| last.finished.or(last.started)),
    }
}

pub(super) fn unwell(datastores: &[DatastoreRow], shards: &[ShardRow], consumers: &[ConsumerRow]) -> Vec<String> {
    let mut said = Vec::new();
    if datastores.is_empty() && shards.is_empty() {
        said.push(
            "there is neither a Datastore nor a Shard; -n and --context take another place, `kubectl get shards -A` shows where there are some"
                .to_owned(),
        );
    }
    for row in shards.iter().filter(|row| !row.is_well) {
        said.push(match &row.verdict {
            Some(verdict) if verdict.known() == Some(VerdictState::Healthy) => {
                format!("shard {} is Healthy and not ready ({})", row.name, row.ready.as_deref().unwrap_or("?"))
            }
            Some(verdict) => format!("shard {} is {}", row.name, verdict.words()),
            None => format!("shard {} has no verdict", row.name),
        });
    }
    said.extend(datastores.iter().filter(|row| row.ready != Some(true)).map(|row| {
        let why = row.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        format!("datastore {} is not ready{why}", row.name)
    }));
    said.extend(consumers.iter().filter(|row| !row.is_well).map(|row| format!("consumer {} is not ready", row.name)));
    said
}
