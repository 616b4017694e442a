//! What the operator says on objects, as Kubernetes Events: one table of reasons, one bounded queue. I/O.
//!
//! Every decision has a reason here, a decision not to act included. The same thing said again within ten minutes is
//! counted on the first Event rather than said and logged anew. Nothing waits for an Event to be written.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why something was done, or not done. The names are stable: people and alerts match on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::IntoStaticStr, strum::EnumIter)]
pub enum Reason {
    // Of any object.
    /// The object does not parse; nothing is done for it.
    Malformed,
    /// The spec says to stop every action.
    Paused,
    /// The spec says to go on again after it said to stop.
    Resumed,
    /// A pass over the object failed and is tried again.
    ReconcileFailed,
    /// An object that is to be made has the name of one that somebody else made; that one is left alone.
    NameTaken,
    /// The API server refuses an object that is to be made: a quota, a policy, a missing right. The message has its words.
    Refused,
    /// A container of a pod does not start: its image cannot be pulled, or it ends again and again.
    ContainerWaits,

    // Datastore and Consumer.
    /// The topic was made.
    TopicCreated,
    /// The topic is not as the spec asks; it is not changed.
    TopicDiffers,
    /// The topic is that of another Datastore, which goes before this one.
    TopicShared,
    /// A topic that the object needs and that nobody makes for it is not there.
    TopicMissing,
    /// The brokers do not answer.
    KafkaUnreachable,
    /// A Secret that the spec names is not there.
    SecretMissing,
    /// A Secret that the spec names has entries that are no tokens.
    TokensUnusable,
    /// A Shard was made.
    ShardCreated,
    /// Partitions were placed on shards.
    PlacementChanged,
    /// Which partition feeds which shard was lost, and is not made up; the message says where it says what to do.
    PlacementsLost,
    /// New shards get no data yet.
    PlacementWaits,
    /// The spec names a partition that the topic does not have.
    UnknownPartition,
    /// Nothing is run for the object, as what its spec asks for cannot be done beside what is there; the message says what.
    NotAccepted,
    /// The Datastore that the spec names is not there.
    DatastoreMissing,
    /// A Shard that the spec names is not there.
    ShardMissing,

    // Secrets and certificates.
    /// Passwords were made; this happens once in a shard's life.
    CredentialsCreated,
    /// Passwords from before this Shard are used: an earlier one of its name left them, or a person put them there.
    CredentialsReused,
    /// A certificate was signed.
    CertificateIssued,
    /// The one that it replaces was signed just before by another authority: two installations may look after one object.
    CertificateContested,

    // Shard: building and scaling.
    /// One replica was named as the one that may initialise its volume.
    BootstrapIntended,
    /// The shard has no primary and may have data; nobody initialises. The message says what may be done by hand.
    BootstrapHeld,
    /// The shard begins empty beside volumes of an earlier Shard of its name, which no server takes. The message names them.
    EarlierVolumes,
    /// The shard has its first primary.
    Bootstrapped,
    /// A replica was made.
    ReplicaCreated,
    /// A replica that was not one became a standby.
    ReplicaJoined,
    /// A replica was taken away because fewer are asked for.
    ReplicaRemoved,
    /// A replica is to be replaced.
    ReplicaCondemned,
    /// Several replicas in a row failed soon after they were made; the next one is made later.
    ReplacementWaits,
    /// A replica should be replaced and is not: too many volumes of replaced ones are kept already.
    QuarantineFull,
    /// A replica is being cloned.
    BuildStarted,
    /// A build failed and is tried again, elsewhere or anew.
    BuildFailed,
    /// The shard has as many intact copies as its spec asks for.
    RedundancyRestored,
    /// A replaced replica's volume is kept for now.
    VolumeQuarantined,
    /// A volume outlives its Shard because the deletion policy says so; said on the volume.
    VolumeRetained,
    /// A volume was deleted.
    VolumeDeleted,
    /// A volume is nearly full. Its server ends when it is, and another primary is as full.
    VolumeLow,

    // Shard: verdicts and changes of primary.
    /// The state of the primary changed.
    VerdictChanged,
    /// A failover was begun.
    FailoverStarted,
    /// A failover has a new primary.
    FailoverSucceeded,
    /// A failover is needed and is not begun; the message says why.
    FailoverWithheld,
    /// The old primary turned out to live and is confirmed.
    NearMiss,
    /// The primary was suspect for a while and commits; nothing was done about it.
    SuspicionCleared,
    /// The primary is to stay, under the next epoch.
    ConfirmationStarted,
    /// The primary stayed, under the next epoch.
    PrimaryConfirmed,
    /// A switchover was begun.
    SwitchoverStarted,
    /// A switchover has a new primary.
    SwitchoverSucceeded,
    /// A primary that works had better hand over and does not; the message says why.
    SwitchoverWithheld,
    /// A switchover was refused or given up; the message says why.
    SwitchoverRefused,
    /// The old primary was made to refuse writes.
    PrimaryFenced,
    /// The old primary could not be reached; its epoch is over all the same.
    PrimaryUnreachable,
    /// No standby can be promoted.
    NoCandidate,
    /// The topic no longer has what the candidate still needs.
    RetentionExceeded,
    /// Too much happens at once for soft evidence to count.
    BreakerOpen,
    /// The replica that was to become primary failed; the next one is taken.
    CandidateFailed,
    /// Nobody is left but replicas with transactions of their own; the best of them takes over.
    LastResort,
    /// A replica should be replaced and is kept: it may be the last good copy.
    LastCopyKept,
    /// The pod of what may be the last copy was started again on its volume.
    LastCopyRestarted,
    /// A replica waits for somebody to clone, or comes no further while it is filled.
    BuildWaits,
    /// A pod cannot be placed.
    Unschedulable,
    /// The status was lost or is older than what the servers know.
    StatusLost,
    /// So many managers are silent that the operator rather suspects itself, or an observer contradicts the others.
    ObserverSuspect,

    // Drill.
    /// A run was begun; nothing was done yet.
    DrillStarted,
    /// A primary is hit, or its change is asked for, as a rehearsal; said on its Shard too.
    DrillStruck,
    /// Every primary that was hit was replaced.
    DrillSucceeded,
    /// A run was ended before that; the message says by which rule.
    DrillAborted,
    /// A primary could not be hit, or was hit and not replaced.
    DrillFailed,
    /// A run was due and not begun; the message says by which rule.
    DrillSkipped,
    /// Nothing can be begun until somebody changes something; the message says what.
    DrillRefused,
}

/// How serious it is: `Warning` asks for a person's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Things take their course.
    Normal,
    /// Look at it.
    Warning,
}

impl Reason {
    /// The severity that goes with it.
    pub fn severity(self) -> Severity {
        match self {
            Self::Malformed
            | Self::ReconcileFailed
            | Self::NameTaken
            | Self::Refused
            | Self::ContainerWaits
            | Self::TopicDiffers
            | Self::TopicShared
            | Self::TopicMissing
            | Self::KafkaUnreachable
            | Self::SecretMissing
            | Self::TokensUnusable
            | Self::PlacementsLost
            | Self::PlacementWaits
            | Self::UnknownPartition
            | Self::NotAccepted
            | Self::DatastoreMissing
            | Self::ShardMissing
            | Self::CertificateContested
            | Self::BootstrapHeld
            | Self::EarlierVolumes
            | Self::BuildFailed
            | Self::ReplicaCondemned
            | Self::ReplacementWaits
            | Self::QuarantineFull
            | Self::VolumeLow
            | Self::FailoverStarted
            | Self::FailoverWithheld
            | Self::NearMiss
            | Self::SuspicionCleared
            | Self::ConfirmationStarted
            | Self::SwitchoverRefused
            | Self::SwitchoverWithheld
            | Self::PrimaryUnreachable
            | Self::NoCandidate
            | Self::RetentionExceeded
            | Self::BreakerOpen
            | Self::CandidateFailed
            | Self::LastResort
            | Self::LastCopyKept
            | Self::LastCopyRestarted
            | Self::Unschedulable
            | Self::StatusLost
            | Self::ObserverSuspect
            | Self::DrillAborted
            | Self::DrillFailed
            | Self::DrillRefused => Severity::Warning,
            _ => Severity::Normal,
        }
    }
}

/// The same thing said again within this time is only counted.
const AGAIN: Duration = Duration::from_secs(600);
/// A count is written at most this often.
const COUNT_EVERY: Duration = Duration::from_secs(60);
const QUEUE: usize = 512;
const CALL: Duration = Duration::from_secs(5);
/// The API server takes no longer note.
const NOTE: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    uid: String,
    reason: Reason,
    note: String,
}

struct Saying {
    about: ObjectReference,
    said: Said,
    at: Timestamp,
}

impl Saying {
    fn log(&self) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (kind, namespace, object) = (text(&self.about.kind), text(&self.about.namespace), text(&self.about.name));
        let Said { reason, note, .. } = &self.said;
        match reason.severity() {
            Severity::Warning => tracing::warn!(%reason, kind, namespace, object, "{note}"),
            Severity::Normal => tracing::info!(%reason, kind, namespace, object, "{note}"),
        }
    }
}

/// Says things on objects without ever waiting.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Saying>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    /// The handle, and the task that writes until stopped.
    pub fn new(client: Client, instance: String, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, sayings) = mpsc::channel(QUEUE);
        let writer = Writer { client, instance, known: HashMap::new() };
        (Self { queue, dropped: Arc::default() }, writer.run(sayings, stop))
    }

    /// Says something on an object.
    pub fn say<K: Resource<DynamicType = ()>>(&self, object: &K, reason: Reason, note: impl Into<String>) {
        self.say_on(object.object_ref(&()), reason, note);
    }

    /// Says something on an object that is only referred to.
    pub fn say_on(&self, about: ObjectReference, reason: Reason, note: impl Into<String>) {
        let mut note: String = note.into();
        if let Some((end, _)) = note.char_indices().nth(NOTE) {
            note.truncate(end);
        }
        let said = Said { uid: about.uid.clone().unwrap_or_default(), reason, note };
        if let Err(unsent) = self.queue.try_send(Saying { about, said, at: Timestamp::now() }) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            unsent.into_inner().log();
        }
    }

    /// Events that were not written because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// One that only logs: for tests.
    pub fn to_nobody() -> Self {
        Self { queue: mpsc::channel(1).0, dropped: Arc::default() }
    }
}

struct Known {
    name: String,
    first: Instant,
    counted: Instant,
    count: i32,
}

struct Writer {
    client: Client,
    instance: String,
    known: HashMap<Said, Known>,
}

impl Writer {
    async fn run(mut self, mut sayings: mpsc::Receiver<Saying>, stop: CancellationToken) {
        while let Some(Some(saying)) = stop.run_until_cancelled(sayings.recv()).await {
            self.write(saying).await;
        }
    }

    async fn write(&mut self, saying: Saying) {
        let now = Instant::now();
        self.known.retain(|_, known| now.duration_since(known.first) < AGAIN);
        let namespace = saying.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let outcome = if let Some(known) = self.known.get_mut(&saying.said) {
            known.count = known.count.saturating_add(1);
            if now.duration_since(known.counted) < COUNT_EVERY {
                return;
            }
            known.counted = now;
            let series = EventSeries { count: known.count, last_observed_time: MicroTime(saying.at) };
            let patch = Patch::Merge(json!({ "series": series }));
            let params = PatchParams::default();
            tokio::time::timeout(CALL, api.patch(&known.name, &params, &patch)).await.map(|answer| answer.map(drop))
        } else {
            saying.log();
            let event = self.event(&saying);
            let name = event.metadata.name.clone().unwrap_or_default();
            self.known.insert(saying.said.clone(), Known { name, first: now, counted: now, count: 1 });
            let params = PostParams::default();
            tokio::time::timeout(CALL, api.create(&params, &event)).await.map(|answer| answer.map(drop))
        };
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, reason = %saying.said.reason, "event not written"),
            Err(_) => tracing::debug!(reason = %saying.said.reason, "event not written in time"),
        }
    }

    fn event(&self, saying: &Saying) -> Event {
        let object = saying.about.name.as_deref().unwrap_or("unknown");
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{object}.{:x}", saying.at.as_nanosecond())),
                ..ObjectMeta::default()
            },
            action: Some(saying.said.reason.to_string()),
            reason: Some(saying.said.reason.to_string()),
            note: Some(saying.said.note.clone()),
            type_: Some(format!("{:?}", saying.said.reason.severity())),
            event_time: Some(MicroTime(saying.at)),
            regarding: Some(saying.about.clone()),
            reporting_controller: Some("understudy.dev/operator".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use strum::IntoEnumIterator;

    use super::*;

    /// The program's own text, without this table and without tests.
    fn sources(folder: &Path) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                text += &sources(&path);
            } else if !["events.rs", "tests.rs"].contains(&name) {
                let file = std::fs::read_to_string(&path).unwrap();
                text += file.split("#[cfg(test)]\nmod tests {").next().unwrap();
            }
        }
        text
    }

    fn names(text: &str, reason: &str) -> bool {
        let is_name = |c: char| c.is_ascii_alphanumeric();
        let around: Vec<_> = text.split(&format!("Reason::{reason}")).collect();
        around.windows(2).any(|pair| !pair[0].ends_with(is_name) && !pair[1].starts_with(is_name))
    }

    #[test]
    fn every_reason_is_given_somewhere() {
        let text = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        let unused: Vec<_> = Reason::iter().filter(|reason| !names(&text, &reason.to_string())).collect();
        assert!(unused.is_empty(), "nothing says {unused:?}: say it where it happens, or take it out of the table");
    }

    #[test]
    fn every_reason_stands_in_the_docs() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/records.md");
        let text = std::fs::read_to_string(file).unwrap();
        let events = text.split("\n## Events\n").nth(1).unwrap();
        let missing: Vec<_> = Reason::iter().filter(|reason| !events.contains(&format!("`{reason}`"))).collect();
        assert!(missing.is_empty(), "\"Events\" in docs/records.md does not name {missing:?}");
    }

    #[test]
    fn what_a_decision_not_to_act_is_said_as_is_a_reason() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/failover.md");
        let text = std::fs::read_to_string(file).unwrap();
        let reasons: Vec<_> = Reason::iter().map(|reason| reason.to_string()).collect();
        for heading in ["### Gates", "### When nothing is done"] {
            let section = text.split(&format!("\n{heading}\n")).nth(1).unwrap().split("\n#").next().unwrap();
            let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
            let said: Vec<_> = rows.filter_map(|row| row.rsplit(" | ").next()).collect();
            let names = said.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2));
            let unknown: Vec<_> = names.filter(|name| *name != "DOING" && !reasons.iter().any(|r| r == name)).collect();
            assert!(said.len() > 5 && unknown.is_empty(), "{heading}: {unknown:?} are no events");
        }
    }

    #[test]
    fn reasons_are_what_the_api_server_takes() {
        for reason in Reason::iter() {
            let name = reason.to_string();
            assert!(name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
        }
    }
}
