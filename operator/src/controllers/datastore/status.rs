//! What a Datastore's status says, from what was observed. Pure.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use understudy_api::conditions::{self, Claim};
use understudy_api::v1alpha1::{
    ConsumerStatus, DatastoreStatus, ShardStatus, VerdictState, WorkloadStatus, WorstVerdict,
};
use understudy_api::{Datastore, names};
use understudy_decide::availability::observed_days;

use super::placement::Placing;
use super::topic::Fact;
use crate::controllers::availability::of_store;
use crate::events::Reason;
use crate::troubles::Trouble;

/// The topic is as the spec asks.
pub const TOPIC_READY: &str = "TopicReady";
/// Why [`TOPIC_READY`] does not hold for a topic that is there.
const TOPIC_DIFFERS: &str = "TopicDiffers";
/// Why [`TOPIC_READY`] does not hold for a topic that is another Datastore's too.
pub const TOPIC_SHARED: &str = "TopicShared";
/// It is known which partition feeds which shard.
pub const PLACED: &str = "Placed";
/// The Secrets that the spec names are there, and hold tokens.
pub const SECRETS_READY: &str = "SecretsReady";

/// Whether the Secrets that the spec names are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFact {
    /// All of them.
    Present,
    /// These are not.
    Missing(String),
    /// They are there, and nobody is let in by what is in them, or not everybody; for a person.
    Unusable(String),
    /// Nobody looked.
    Unknown,
}

/// Pods of a Deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pods {
    /// Ready ones, of the present version.
    pub ready: i32,
    /// Asked for.
    pub desired: i32,
}

impl Pods {
    fn text(self) -> WorkloadStatus {
        WorkloadStatus { ready: format!("{}/{}", self.ready, self.desired) }
    }

    fn complete(self) -> bool {
        self.ready >= self.desired
    }
}

/// The pods of a Deployment, as its status tells.
pub fn pods(deployment: &Deployment) -> Pods {
    let desired = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.as_ref();
    Pods { ready: status.and_then(|status| status.ready_replicas).unwrap_or(0), desired }
}

/// Whether each pod of a Deployment is given the passwords of this shard, as none is left that was made without.
pub fn all_have_password(deployment: &Deployment, shard: &str) -> bool {
    let secret = names::credentials_secret(shard);
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let volumes = pod.into_iter().flat_map(|pod| pod.volumes.iter().flatten());
    let sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
    let is_mounted = sources.filter_map(|source| source.secret.as_ref()).any(|source| source.name == secret);
    let status = deployment.status.clone().unwrap_or_default();
    let none_of_before = status.replicas.is_some() && status.updated_replicas == status.replicas;
    is_mounted && status.observed_generation >= deployment.metadata.generation && none_of_before
}

/// What was observed in a pass.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Each shard asked for.
    pub shards: Vec<ShardFact>,
    /// The consumer's status, if it has one.
    pub consumer: Option<ConsumerStatus>,
    /// The gateway's pods, if there is one.
    pub gateway: Option<Pods>,
    /// The query service's pods, if there is one.
    pub query: Option<Pods>,
    /// What was found of the topic; `None` when the last finding stands.
    pub topic: Option<Fact>,
    /// What is done about the placements.
    pub placing: Placing,
    /// Whether the Secrets are there.
    pub secrets: SecretFact,
    /// What stopped the pass and is for a person to put right.
    pub trouble: Option<Trouble>,
}

/// A shard asked for.
#[derive(Clone, Debug)]
pub struct ShardFact {
    /// Its name.
    pub name: String,
    /// Its status, if it has one.
    pub status: Option<ShardStatus>,
    /// Whether that answers the spec as it is now.
    pub is_current: bool,
}

impl ShardFact {
    fn is_ready(&self) -> bool {
        let holds = |status: &ShardStatus| conditions::holds(&status.conditions, conditions::READY);
        self.is_current && self.status.as_ref().is_some_and(holds)
    }

    fn verdict(&self) -> VerdictState {
        let verdict = self.status.as_ref().and_then(|status| status.verdict.as_ref());
        verdict.map_or(VerdictState::Unknown, |verdict| verdict.state)
    }
}

/// The status after this pass.
pub fn of(datastore: &Datastore, observed: Observed, now: Timestamp) -> DatastoreStatus {
    let mut status = datastore.status.clone().unwrap_or_default();
    status.observed_generation = datastore.metadata.generation;
    if let Placing::Write { entries, shards } = &observed.placing {
        status.placements.extend(entries.iter().cloned());
        status.placements.sort();
        status.placed_shards = *shards;
    }
    if let Placing::Settle { placements, .. } = &observed.placing {
        status.placements.clone_from(placements);
        status.placements.sort();
    }
    let ready = observed.shards.iter().filter(|shard| shard.is_ready()).count();
    status.shards_ready = Some(format!("{ready}/{}", observed.shards.len()));
    status.worst = Some(worst(&observed.shards));
    let shards = observed.shards.iter().filter_map(|shard| shard.status.as_ref()?.availability.as_ref());
    let mut shards = shards.peekable();
    if shards.peek().is_some() {
        let born = datastore.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        status.availability = Some(of_store(shards, observed_days(born, now)));
    }
    status.gateway = datastore.spec.gateway.as_ref().and(observed.gateway).map(Pods::text);
    status.query = datastore.spec.query.as_ref().and(observed.query).map(Pods::text);
    let consumer = observed.consumer.as_ref();
    status.consumer = consumer.and_then(|status| status.ready.clone()).map(|ready| WorkloadStatus { ready });
    status.delay = consumer.and_then(|status| status.lag.clone());
    status.delay_seconds = consumer.and_then(|status| status.lag_seconds);
    let is_placed = !status.placements.is_empty();
    for claim in claims(datastore, &observed, ready, is_placed) {
        conditions::set(&mut status.conditions, claim, datastore.metadata.generation, &Time(now));
    }
    status
}

/// What is wrong with a topic that is there, by this look or by the last one: the reason, and how for a person.
fn difference(datastore: &Datastore, observed: &Observed) -> Option<(&'static str, String)> {
    match &observed.topic {
        Some(Fact::Differs(how)) => Some((TOPIC_DIFFERS, how.clone())),
        Some(Fact::Shared(how)) => Some((TOPIC_SHARED, how.clone())),
        Some(Fact::Ready | Fact::Unreachable(_)) => None,
        None => {
            let mut known = datastore.status.iter().flat_map(|status| &status.conditions);
            let known = known.find(|known| known.type_ == TOPIC_READY)?;
            let reason = [TOPIC_DIFFERS, TOPIC_SHARED].into_iter().find(|reason| known.reason == *reason)?;
            Some((reason, known.message.clone()))
        }
    }
}

/// Why nothing is made for the Datastore yet: its topic is another's.
fn not_begun(observed: &Observed, is_placed: bool) -> Option<&str> {
    match (&observed.topic, &observed.placing) {
        (Some(Fact::Shared(how)), Placing::Keep) if !is_placed => Some(how),
        _ => None,
    }
}

/// What is to be said of placements that were lost, for a person.
pub fn lost(served: &[String]) -> String {
    format!(
        "status.placements is gone, though {} served already: which partition feeds which shard, and from which offset on, was lost. \
         Nothing is placed until that is put back, because shards would read what others hold, and queries would miss it. What runs \
         goes on. \"Placements\" in operator/docs/operations.md says how to put them back",
        served.join(", ")
    )
}

/// What is to be said of `spec.paused`, when it was changed since the status was written.
pub fn lever(datastore: &Datastore) -> Option<(Reason, &'static str)> {
    let was_paused = datastore.status.as_ref().is_some_and(|status| conditions::is_paused(&status.conditions));
    match (was_paused, datastore.spec.paused) {
        (false, true) => Some((Reason::Paused, "spec.paused is set: nothing is done until it is taken away")),
        (true, false) => Some((Reason::Resumed, "spec.paused was taken away: what waited is done now")),
        (false, false) | (true, true) => None,
    }
}

/// How bad a verdict is; the order in which a person wants to hear of them.
fn badness(state: VerdictState) -> u8 {
    match state {
        VerdictState::Healthy => 0,
        VerdictState::ObserverPartition => 1,
        VerdictState::Unknown => 2,
        VerdictState::Slow => 3,
        VerdictState::Saturated => 4,
        VerdictState::Suspect => 5,
        VerdictState::Stuck => 6,
        VerdictState::Gone => 7,
    }
}

fn worst(shards: &[ShardFact]) -> WorstVerdict {
    let worst = shards.iter().map(|shard| (shard.verdict(), &shard.name)).max_by_key(|(state, _)| badness(*state));
    match worst {
        None | Some((VerdictState::Healthy, _)) => WorstVerdict { state: VerdictState::Healthy, shard: None },
        Some((state, name)) => WorstVerdict { state, shard: Some(name.clone()) },
    }
}

/// What a person has to put right before anything goes on.
fn stopped_by(observed: &Observed) -> Option<Reason> {
    let lost = matches!(observed.placing, Placing::Lost { .. }).then_some(Reason::PlacementsLost);
    observed.trouble.as_ref().map(|trouble| trouble.reason).or(lost)
}

fn claims(datastore: &Datastore, observed: &Observed, shards_ready: usize, is_placed: bool) -> Vec<Claim> {
    let mut claims = Vec::new();
    match &observed.placing {
        Placing::Lost { served } => claims.push(Claim::no(PLACED, Reason::PlacementsLost.into(), lost(served))),
        _ if is_placed => claims.push(Claim::yes(PLACED, "Placed", "every partition feeds a shard")),
        _ => {}
    }
    match &observed.topic {
        None => {}
        Some(Fact::Ready) => {
            claims.push(Claim::yes(TOPIC_READY, "AsAskedFor", format!("topic {}", datastore.spec.kafka.topic)));
        }
        Some(Fact::Differs(how)) => claims.push(Claim::no(TOPIC_READY, TOPIC_DIFFERS, how.clone())),
        Some(Fact::Shared(how)) => claims.push(Claim::no(TOPIC_READY, TOPIC_SHARED, how.clone())),
        Some(Fact::Unreachable(why)) => claims.push(Claim::unknown(TOPIC_READY, "KafkaUnreachable", why.clone())),
    }
    match &observed.secrets {
        SecretFact::Present => claims.push(Claim::yes(SECRETS_READY, "Present", "every entry is a token")),
        SecretFact::Missing(names) => {
            claims.push(Claim::no(SECRETS_READY, "SecretMissing", format!("Secret {names} is not there")));
        }
        SecretFact::Unusable(why) => claims.push(Claim::no(SECRETS_READY, "TokensUnusable", why.clone())),
        SecretFact::Unknown => {}
    }
    if datastore.spec.paused {
        claims.push(Claim::no(conditions::PROGRESSING, conditions::PAUSED, "spec.paused is set"));
        return claims;
    }
    let not_begun = not_begun(observed, is_placed);
    let wanting = match not_begun {
        Some(how) => vec![how.to_owned()],
        None => wanting(datastore, observed, shards_ready),
    };
    if let Some(reason) = stopped_by(observed).or(not_begun.map(|_| Reason::TopicShared)) {
        let message = wanting.join("; ");
        claims.push(Claim::no(conditions::READY, reason.into(), message.clone()));
        claims.push(Claim::no(conditions::PROGRESSING, reason.into(), message));
    } else if wanting.is_empty() {
        claims.push(Claim::yes(conditions::READY, "AllReady", "all shards and services are ready"));
        claims.push(Claim::no(conditions::PROGRESSING, "Settled", ""));
    } else {
        let message = wanting.join("; ");
        claims.push(Claim::no(conditions::READY, "NotAllReady", message.clone()));
        claims.push(Claim::yes(conditions::PROGRESSING, "NotAllReady", message));
    }
    claims.push(degraded(datastore, observed));
    claims.push(up_to_date(observed));
    claims
}

/// What is not as it should be, for a person.
fn wanting(datastore: &Datastore, observed: &Observed, shards_ready: usize) -> Vec<String> {
    let mut wanting: Vec<_> = observed.trouble.iter().map(|trouble| trouble.message.clone()).collect();
    if shards_ready < observed.shards.len() {
        let names = observed.shards.iter().filter(|shard| !shard.is_ready()).map(|shard| shard.name.as_str());
        wanting.push(format!("not ready: {}", names.collect::<Vec<_>>().join(", ")));
    }
    let spec = &datastore.spec;
    for (name, asked, pods) in
        [("gateway", spec.gateway.is_some(), observed.gateway), ("query", spec.query.is_some(), observed.query)]
    {
        match pods {
            _ if !asked => {}
            Some(pods) if pods.complete() => {}
            Some(pods) => wanting.push(format!("{name} {}", pods.text().ready)),
            None => wanting.push(format!("{name} is being made")),
        }
    }
    match &observed.consumer {
        Some(status) if conditions::holds(&status.conditions, conditions::READY) => {}
        Some(status) => wanting.push(format!("consumer {}", status.ready.as_deref().unwrap_or("is being made"))),
        None => wanting.push("consumer is being made".to_owned()),
    }
    match &observed.secrets {
        SecretFact::Missing(names) => wanting.push(format!("Secret {names} is not there")),
        SecretFact::Unusable(why) => wanting.push(why.clone()),
        SecretFact::Present | SecretFact::Unknown => {}
    }
    if let Some(Fact::Unreachable(why)) = &observed.topic {
        wanting.push(format!("kafka: {why}"));
    }
    match difference(datastore, observed) {
        Some((TOPIC_DIFFERS, how)) => wanting.push(format!("not as asked for: {how}")),
        Some((_, how)) => wanting.push(how),
        None => {}
    }
    match &observed.placing {
        Placing::Lost { served } => wanting.push(lost(served)),
        Placing::Wait { shards } => wanting.push(format!("no data goes to {} yet", shards.join(", "))),
        Placing::NeedEnds => wanting.push("no data goes to the new shards yet: waiting for Kafka".to_owned()),
        Placing::Write { entries, .. } if entries.iter().any(|entry| entry.pending) => {
            wanting.push("no data goes to the new shards yet: the old ones are told to stop".to_owned());
        }
        Placing::Settle { waiting, .. } if !waiting.is_empty() => {
            let names = waiting.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            wanting.push(format!("no data goes to the new shards yet: waiting to hear from {names}"));
        }
        Placing::Keep | Placing::Write { .. } | Placing::Settle { .. } => {}
    }
    wanting
}

/// Whether every replica of every shard runs as the spec asks, with how many do where not all.
fn up_to_date(observed: &Observed) -> Claim {
    let behind = |shard: &&ShardFact| {
        let status = shard.status.as_ref();
        status.is_some_and(|status| {
            status.conditions.iter().any(|c| c.type_ == conditions::UP_TO_DATE && c.status == "False")
        })
    };
    let count =
        |shard: &ShardFact| shard.status.as_ref().and_then(|status| status.up_to_date.clone()).unwrap_or_default();
    let behind = observed.shards.iter().filter(behind).map(|shard| format!("{} {}", shard.name, count(shard)));
    let behind: Vec<_> = behind.collect();
    if behind.is_empty() {
        return Claim::yes(
            conditions::UP_TO_DATE,
            "AllUpToDate",
            "every replica is as the spec and the operator would make it now",
        );
    }
    let message = format!("replicas that are as the spec and the operator would make them now: {}", behind.join(", "));
    Claim::no(conditions::UP_TO_DATE, "ReplicasBehind", message)
}

fn degraded(datastore: &Datastore, observed: &Observed) -> Claim {
    let degraded: Vec<_> = observed
        .shards
        .iter()
        .filter(|shard| {
            shard.status.as_ref().is_some_and(|status| conditions::holds(&status.conditions, conditions::DEGRADED))
        })
        .map(|shard| shard.name.as_str())
        .collect();
    match (difference(datastore, observed), degraded.is_empty()) {
        (Some((reason, how)), _) => Claim::yes(conditions::DEGRADED, reason, how),
        (_, false) => Claim::yes(conditions::DEGRADED, "ShardsDegraded", degraded.join(", ")),
        (_, true) => Claim::no(conditions::DEGRADED, "AsAskedFor", ""),
    }
}
