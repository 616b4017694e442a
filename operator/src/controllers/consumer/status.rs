//! The operator's part of a Consumer's status: the sum of what its pods report. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use understudy_api::Consumer;
use understudy_api::conditions::{self, Claim};
use understudy_api::v1alpha1::{ConsumerStatus, ConsumerWorkload, PartitionState, PartitionStatus, VerdictState};

use super::super::datastore::Pods;
use super::group::{Common, STORE, Taken};
use super::letters::{self, Letters};
use crate::troubles::Trouble;

/// What was observed in a pass.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Each shard with its workload's pods, if there are any yet, and the verdict on its primary.
    pub workloads: Vec<(String, Option<Pods>, VerdictState)>,
    /// Shards that the spec names and that are not there.
    pub missing: Vec<String>,
    /// Partitions of the topic, or more, when known: there is none of this number or above.
    pub partitions: Option<i32>,
    /// What was found of the topic of dead letters; `None` when the last finding stands, or when it is a Datastore's.
    pub letters: Option<Letters>,
    /// Why nothing could be done at all.
    pub stopped: Option<Stopped>,
}

/// Why nothing is done for a Consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// PascalCase and stable.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

impl Stopped {
    /// What it should read is not there.
    pub fn missing(message: String) -> Self {
        Self { reason: "DatastoreMissing", message }
    }

    /// It should read a topic that the placements do not count in.
    pub fn other_topic(message: String) -> Self {
        Self { reason: "OtherTopic", message }
    }

    /// Something that is to be made for it is not taken.
    pub fn trouble(trouble: &Trouble) -> Self {
        Self { reason: trouble.reason.into(), message: trouble.message.clone() }
    }

    /// An older Consumer has its group, or writes into its schema.
    pub fn taken(taken: &Taken) -> Self {
        let (by, shards) = (&taken.by, taken.shards.join(", "));
        let (reason, has, remedy) = match &taken.what {
            Common::Group(group) => (
                "GroupTaken",
                format!("reads into {shards} under the group {group}"),
                "delete it, and make one with a group of its own if another view is wanted",
            ),
            Common::Schema(schema) if schema == STORE => (
                "SchemaTaken",
                format!("writes into the time-series store of {shards}"),
                "delete it, and make one with a view if another view is wanted",
            ),
            Common::Schema(schema) => (
                "SchemaTaken",
                format!("writes into the schema {schema} of {shards}"),
                "delete it, and make one with a view.schema of its own",
            ),
        };
        let message = format!("Consumer {by} is older and {has} already, so nothing is run for this one: {remedy}");
        Self { reason, message }
    }
}

impl Observed {
    /// Nothing could be done.
    pub fn stopped(stopped: Stopped) -> Self {
        Self { stopped: Some(stopped), ..Self::default() }
    }

    /// A partition that the spec names and the topic does not have.
    pub fn unknown_partition(&self, consumer: &Consumer) -> Option<String> {
        let partitions = self.partitions?;
        let unknown = consumer.spec.paused_partitions.iter().find(|partition| **partition >= partitions)?;
        Some(format!(
            "pausedPartitions names partition {unknown}, which the topic does not have: its partitions have numbers below {partitions}"
        ))
    }
}

/// How many partitions the topic of a Consumer with `shards` can have at most, by what their pods report: partition p feeds the shard at p
/// modulo their number, so each shard that reports has its next one above what there is. `None` while none reports.
pub fn partitions_by_reports<'a>(
    shards: &[String],
    reported: impl IntoIterator<Item = &'a PartitionStatus>,
) -> Option<i32> {
    let mut last_of = BTreeMap::<&str, i32>::new();
    for partition in reported.into_iter().filter(|partition| shards.contains(&partition.shard)) {
        let last = last_of.entry(&partition.shard).or_insert(partition.partition);
        *last = (*last).max(partition.partition);
    }
    let step = i32::try_from(shards.len()).ok()?;
    last_of.into_values().map(|last| last.saturating_add(step)).min()
}

/// The operator's part of the status; `partitions` stays empty, it is the pods'.
pub fn of(consumer: &Consumer, observed: &Observed, now: Timestamp) -> ConsumerStatus {
    let before = consumer.status.clone().unwrap_or_default();
    let reported = &before.partitions;
    let (ready, desired) = observed
        .workloads
        .iter()
        .filter_map(|(_, pods, _)| *pods)
        .fold((0, 0), |(ready, desired), pods| (ready + pods.ready.min(pods.desired), desired + pods.desired));
    let wrong = wrong(consumer, observed, reported, ready, desired);
    let mut status = ConsumerStatus {
        observed_generation: consumer.metadata.generation,
        partitions: Vec::new(),
        workloads: observed.workloads.iter().map(workload).collect(),
        ready: Some(format!("{ready}/{desired}")),
        conditions: before.conditions.clone(),
        ..ConsumerStatus::default()
    };
    let (told, silent) = told(&observed.workloads, reported);
    let paused = paused(&told);
    status.message = Some(wrong.join("; ")).filter(|message| !message.is_empty()).or_else(|| paused.clone());
    if !told.is_empty() || !silent.is_empty() {
        let running = told.iter().filter(|partition| partition.state == PartitionState::Running).count();
        status.running = Some(format!("{running}/{}", told.len() + silent.len()));
        status.dead_letters = Some(told.iter().chain(&silent).map(|partition| partition.dead_letters).sum());
    }
    if !told.is_empty() && silent.is_empty() {
        status.lag_records = Some(told.iter().map(|partition| partition.lag_records).sum());
        // One of which it is not known may be the one furthest behind.
        status.lag_seconds = told.iter().try_fold(0.0, |most: f64, partition| Some(most.max(partition.lag_seconds?)));
        status.lag = status.lag_seconds.map(seconds);
    }
    let (accepted, not_ready) = match &observed.stopped {
        None => (Claim::yes(conditions::ACCEPTED, "Accepted", ""), "NotAllReady"),
        Some(stopped) => (Claim::no(conditions::ACCEPTED, stopped.reason, stopped.message.clone()), stopped.reason),
    };
    let ready = match (wrong.first(), paused) {
        (None, None) => Claim::yes(conditions::READY, "AllReady", "every shard is read into"),
        (None, Some(paused)) => Claim::yes(conditions::READY, "Paused", paused),
        (Some(_), _) => Claim::no(conditions::READY, not_ready, wrong.join("; ")),
    };
    let letters = observed.letters.as_ref().map(Letters::claim);
    for claim in [accepted, ready].into_iter().chain(letters) {
        conditions::set(&mut status.conditions, claim, consumer.metadata.generation, &Time(now));
    }
    status
}

/// How many of these partitions the spec says not to read, for a person; none when all are read.
fn paused(told: &[&PartitionStatus]) -> Option<String> {
    let paused = told.iter().filter(|partition| partition.state == PartitionState::Paused).count();
    (paused > 0).then(|| format!("{paused} of {} partitions are paused, as the spec says", told.len()))
}

/// Which partitions somebody tells of now, and of which only the last words are known: their pods are gone, so how far they are behind is not
/// known. A pod that is cut off from its primary is not ready and says so; one that is not ready and said that all is well is no more.
fn told<'a>(
    workloads: &[(String, Option<Pods>, VerdictState)],
    reported: &'a [PartitionStatus],
) -> (Vec<&'a PartitionStatus>, Vec<&'a PartitionStatus>) {
    let workload_of = |shard: &str| workloads.iter().find(|(name, ..)| name == shard);
    let ours = reported.iter().filter(|partition| workload_of(&partition.shard).is_some());
    ours.partition(|partition| {
        let pods = workload_of(&partition.shard).and_then(|(_, pods, _)| *pods);
        pods.is_some_and(|pods| is_told(partition, pods.ready, pods.desired))
    })
}

/// Whether a pod tells of a partition now, of the workload that reads it.
pub fn is_told(partition: &PartitionStatus, ready: i32, desired: i32) -> bool {
    ready > 0 || (desired > 0 && partition.state == PartitionState::Fenced)
}

/// Seconds for a person: tenths below ten.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.05 => "0s".to_owned(),
        s if s < 10.0 => format!("{s:.1}s"),
        s if s < 600.0 => format!("{s:.0}s"),
        s => format!("{:.0}m", s / 60.0),
    }
}

fn workload((shard, pods, verdict): &(String, Option<Pods>, VerdictState)) -> ConsumerWorkload {
    ConsumerWorkload {
        shard: shard.clone(),
        ready: pods.map_or(0, |pods| pods.ready),
        desired: pods.map_or(0, |pods| pods.desired),
        verdict: *verdict,
    }
}

fn wrong(
    consumer: &Consumer,
    observed: &Observed,
    reported: &[PartitionStatus],
    ready: i32,
    desired: i32,
) -> Vec<String> {
    let mut wrong: Vec<String> = observed.stopped.iter().map(|stopped| stopped.message.clone()).collect();
    if !observed.missing.is_empty() {
        wrong.push(format!("no Shard {}", observed.missing.join(", ")));
    }
    wrong.extend(observed.unknown_partition(consumer));
    wrong.extend(letters::missing(consumer, observed.letters.as_ref()));
    // One pod per shard does the work; the others only make its loss short.
    let idle = observed.workloads.iter().filter(|(_, pods, _)| pods.is_none_or(|pods| pods.ready == 0));
    let idle: Vec<_> = idle.map(|(shard, ..)| shard.as_str()).collect();
    if !idle.is_empty() {
        wrong.push(format!("no ready pod for {}", idle.join(", ")));
    } else if ready < desired {
        wrong.push(format!("{ready} of {desired} pods ready"));
    }
    for partition in reported.iter().filter(|partition| partition.state == PartitionState::Stuck) {
        let why = partition.message.as_deref().unwrap_or("no reason given");
        wrong.push(format!("partition {} of {} is stuck: {why}", partition.partition, partition.shard));
    }
    wrong
}
