//! Drill: a failover or a switchover that is rehearsed on a schedule, and what came of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumIter, IntoStaticStr};

/// What a person asks of a rehearsal.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "understudy.dev",
    version = "v1alpha1",
    kind = "Drill",
    plural = "drills",
    shortname = "drl",
    category = "understudy",
    namespaced,
    status = "DrillStatus",
    derive = "PartialEq",
    doc = "Rehearses a change of primary, on a schedule or when it is asked for, and measures it.",
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name of a Drill may have at most 40 characters, so that the labels and names of its Failovers fit; choose a shorter one"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Fault", type_ = "string", json_path = ".spec.fault"),
    printcolumn(name = "Scope", type_ = "string", json_path = ".spec.scope.kind"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastRun.startedAt", description = "When the last run began, or was due and did not begin"),
    printcolumn(name = "Result", type_ = "string", json_path = ".status.lastRun.result", description = "How it ended; empty while it goes on"),
    printcolumn(name = "Gap", type_ = "string", json_path = ".status.lastRun.gap", description = "The longest write gap of it"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextRun"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", priority = 1),
    printcolumn(name = "Datastore", type_ = "string", json_path = ".spec.datastore", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[x_kube(validation = Rule::new("has(self.datastore) || self.scope.kind == 'Shard'").message("give datastore, or the scope kind Shard with the name of a Shard that was made by hand"))]
#[serde(rename_all = "camelCase")]
pub struct DrillSpec {
    /// The Datastore whose shards are rehearsed on. Without it, the one that made the Shard of the scope, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 34))]
    pub datastore: Option<String>,
    /// When, as five fields of cron: minute, hour, day of the month, month, day of the week. Without it, only when `requestedAt` asks for it.
    /// A run that did not begin within a minute (no operator led) is not made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[^ ]+( [^ ]+){4}$')").message("schedule has five fields with one blank between them: minute, hour, day of the month, month, day of the week, such as 0 10 * * MON"))]
    pub schedule: Option<String>,
    /// The time zone of `schedule` and of the windows, by its name in the tz database, such as `Europe/Paris`; UTC by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z][A-Za-z0-9_+/-]*$')").message("timeZone is a name of the tz database, such as Europe/Paris or UTC"))]
    pub time_zone: Option<String>,
    /// Whose primaries are changed.
    pub scope: DrillScope,
    /// What is done to them.
    #[serde(default)]
    pub fault: DrillFault,
    /// How long a Freeze or a Wedge lasts at most. It must last longer than the primary is suspected before it is replaced.
    #[serde(default = "half_a_minute")]
    #[schemars(range(min = 5, max = 600))]
    pub hold_seconds: i32,
    /// When nothing is done, and when what was begun is ended.
    #[serde(default)]
    pub abort: DrillAbort,
    /// Begins no run, asked for or not, and ends a fault that is held.
    #[serde(default)]
    pub suspend: bool,
    /// Runs to keep in the status.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1, max = 100))]
    pub history_limit: i32,
    /// Asks for one run, at this time, whatever the schedule; the rules of `abort` hold for it too. Set it to a later time for another run. One
    /// that is older than ten minutes when it is seen is not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("requestedAt cannot be set back: the run that it asked for was begun or skipped; set it to the present time"))]
    pub requested_at: Option<Time>,
}

fn half_a_minute() -> i32 {
    30
}
fn twenty() -> i32 {
    20
}

/// Whose primaries are changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.kind != 'Shard' || has(self.name)").message("the scope kind Shard needs the name of the Shard; Random takes any"))]
#[x_kube(validation = Rule::new("self.kind != 'Random' || !has(self.name)").message("the scope kind Random takes any shard: leave out name, or take the kind Shard"))]
#[serde(rename_all = "camelCase")]
pub struct DrillScope {
    /// One shard, or all shards whose primaries are on one node or in one zone.
    pub kind: DrillScopeKind,
    /// Of the Shard, the node or the zone. A node or a zone without a name is any that holds a primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
}

/// The kinds of scope.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr,
)]
pub enum DrillScopeKind {
    /// The Shard of this name.
    Shard,
    /// Every primary on one node.
    Node,
    /// Every primary in one zone.
    Zone,
    /// One shard, another one each time by chance.
    #[default]
    Random,
}

/// What is done to a primary.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    AsRefStr,
    EnumIter,
    IntoStaticStr,
)]
pub enum DrillFault {
    /// Another replica becomes primary as planned. Needs no permission; of several shards one after the other.
    #[default]
    Switchover,
    /// Its mysqld is killed.
    Kill,
    /// Its mysqld is stopped, and runs again after the hold.
    Freeze,
    /// Its mysqld answers, and no commit comes to its end before the hold is over.
    Wedge,
}

/// A fault that does harm, and that a Datastore must allow.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    AsRefStr,
    EnumIter,
    IntoStaticStr,
)]
pub enum RealFault {
    /// The primary's mysqld may be killed.
    Kill,
    /// The primary's mysqld may be stopped.
    Freeze,
    /// The primary's commits may be held up.
    Wedge,
}

/// What Drills may do. Switchovers are always allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillPermission {
    /// The faults that Drills may do to a primary. A manager learns of it when its pod starts, so it reaches replicas that are made from then on;
    /// what is taken out of the list is not done any more from then on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub faults: Vec<RealFault>,
}

impl DrillPermission {
    /// Whether nothing is allowed.
    pub fn is_none(&self) -> bool {
        self.faults.is_empty()
    }
}

/// When nothing is done, and when what was begun is ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillAbort {
    /// Whether every shard of the Datastore must be Healthy, not only those that are hit. When another one stops being so, what is held is let go.
    #[serde(default = "yes")]
    pub require_healthy: bool,
    /// Whether every shard of the Datastore must have all its intact copies and a standby that could take over now. Those that are hit must always
    /// have such a standby.
    #[serde(default = "yes")]
    pub require_redundancy: bool,
    /// A shard that had no commit for so many seconds in all over the last 30 days, by the records of its changes of primary or by its
    /// `status.availability`, is left in peace. More than an hour counts as an hour.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 1, max = 2592000))]
    pub max_unavailable_seconds: i32,
    /// Outside of all of these nothing is begun; without any, it may be at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<DrillWindow>,
}

fn yes() -> bool {
    true
}
fn five_minutes() -> i32 {
    300
}

impl Default for DrillAbort {
    fn default() -> Self {
        Self {
            require_healthy: yes(),
            require_redundancy: yes(),
            max_unavailable_seconds: five_minutes(),
            windows: Vec::new(),
        }
    }
}

/// Hours in which a drill may begin, in the time zone of the Drill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillWindow {
    /// The days on which it opens; every day when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<DrillDay>,
    /// When it opens, such as `09:00`.
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')").message("from is a time of day from 00:00 to 23:59, such as 09:00"))]
    pub from: String,
    /// When it closes; of the next day when it is before `from`, and a day later when it is the same.
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')").message("to is a time of day from 00:00 to 23:59, such as 17:00"))]
    pub to: String,
}

/// A day of the week.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, EnumIter, IntoStaticStr,
)]
#[allow(missing_docs, reason = "the days of the week")]
pub enum DrillDay {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// What came of the runs, and when the next one is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The last run, or the one that goes on: it has no `result`. Written before anything is done, so that a restarted operator neither repeats
    /// nor forgets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<DrillRun>,
    /// When the schedule asks for the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run: Option<Time>,
    /// The last `spec.requestedAt` that a run was begun for, or skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_requested_at: Option<Time>,
    /// When a run last succeeded, whether it is still in `history` or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_succeeded_at: Option<Time>,
    /// Runs that ended, the newest first: `historyLimit` of them, or as many as fit into some 40 KiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<DrillRun>,
    /// What is being done, or why nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Ready, Progressing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillRun {
    /// Its name: that of the Drill and the second for which it was due.
    pub id: String,
    /// When it began, or was not begun.
    pub started_at: MicroTime,
    /// When it ended; unset while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// What was done.
    #[serde(default)]
    pub fault: DrillFault,
    /// How long a fault that is held lasts at most in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<i32>,
    /// The primaries that were hit, or are to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub victims: Vec<DrillVictim>,
    /// How it ended; unset while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<DrillResult>,
    /// How it will have ended, once whoever is still held was let go. Written before that, so that no run is taken for over while its fault lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<DrillResult>,
    /// The rule because of which it was not begun or was aborted, such as `Unhealthy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What each shard felt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<DrillGap>,
    /// The longest of them for a person, such as `4.1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<String>,
}

/// A primary that is hit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillVictim {
    /// Its shard.
    pub shard: String,
    /// The replica.
    pub replica: String,
    /// The epoch under which it served; under another one it is left alone.
    #[serde(default)]
    pub epoch: i64,
    /// The node it ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it was hit. Written before: it may have been spared when the operator ended at that moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub struck_at: Option<MicroTime>,
    /// Why it could not be hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When its manager was told to let go, and said that it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<MicroTime>,
    /// How often its manager had been restarted in its pod when it was chosen. One restart more later is a fault that ended with the manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<i32>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display, AsRefStr, IntoStaticStr)]
pub enum DrillResult {
    /// Every shard that was hit has another primary.
    Succeeded,
    /// It was ended before that, by a rule of `abort` or by `suspend`.
    Aborted,
    /// It was due and not begun.
    Skipped,
    /// A primary could not be hit, or was hit and not replaced.
    Failed,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}

/// What a shard felt of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillGap {
    /// The shard.
    pub shard: String,
    /// The Failover that records its change of primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<String>,
    /// Time between the last commit on the old and the first on the new primary; unset when it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_gap_seconds: Option<f64>,
}
