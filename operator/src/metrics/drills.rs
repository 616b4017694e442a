//! What is told of each Drill, read anew for each scrape from what the watch saw last, and how its runs ended. Pure, but for what it is read from and the
//! lock.
//!
//! Only the instance that leads tells it, so that no Drill is told of twice; one that is gone is not told of.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kube::ResourceExt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use strum::IntoEnumIterator;
use understudy_api::v1alpha1::{DrillResult, DrillRun, DrillStatus};
use understudy_api::{Drill, conditions};
use understudy_decide::drill::Rule;

/// How a run that was begun can end.
const BEGUN: [DrillResult; 3] = [DrillResult::Succeeded, DrillResult::Aborted, DrillResult::Failed];

/// How often runs ended, by how.
type Ended = BTreeMap<&'static str, u32>;

/// What is told of one Drill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrillFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The Datastore that its spec names; empty where it names only a Shard.
    pub datastore: String,
    /// Whether a run goes on.
    pub running: bool,
    /// How the last run ended that was begun.
    pub last_result: Option<DrillResult>,
    /// When a run last succeeded, in seconds since 1970.
    pub last_succeeded: Option<i64>,
    /// The run that was announced, in seconds since 1970.
    pub next_run: Option<i64>,
    /// Why the last run that was due was not begun, or was aborted, or why none can be begun at all. Of a Drill that has a schedule and is not
    /// suspended: of the others nothing is due.
    pub withheld: Option<Rule>,
    /// How often this instance saw runs end.
    pub ended: Ended,
}

impl DrillFacts {
    /// As its status has it.
    pub fn of(drill: &Drill) -> Self {
        let status = drill.status.clone().unwrap_or_default();
        let is_over = |run: &&DrillRun| run.result.is_some_and(|result| BEGUN.contains(&result));
        let succeeded = |run: &&DrillRun| run.result == Some(DrillResult::Succeeded);
        let of_history = || status.history.iter().find(succeeded)?.finished_at.as_ref().map(|at| at.0.as_second());
        let is_due_at_times = drill.spec.schedule.is_some() && !drill.spec.suspend;
        Self {
            namespace: drill.namespace().unwrap_or_default(),
            name: drill.name_any(),
            datastore: drill.spec.datastore.clone().unwrap_or_default(),
            running: status.last_run.as_ref().is_some_and(|run| run.result.is_none()),
            last_result: status.history.iter().find(is_over).and_then(|run| run.result),
            last_succeeded: status.last_succeeded_at.as_ref().map(|at| at.0.as_second()).or_else(of_history),
            next_run: status.next_run.as_ref().map(|at| at.0.as_second()),
            withheld: withheld(&status).filter(|_| is_due_at_times),
            ended: Ended::new(),
        }
    }
}

fn withheld(status: &DrillStatus) -> Option<Rule> {
    let unready = status.conditions.iter().find(|of| of.type_ == conditions::READY && of.status == "False");
    let standing = unready.and_then(|condition| condition.reason.parse::<Rule>().ok());
    let last = status.last_run.as_ref().filter(|run| run.result.is_some());
    standing.or_else(|| last?.reason.as_ref()?.parse::<Rule>().ok())
}

type Reading = Box<dyn Fn() -> Vec<DrillFacts> + Send + Sync>;

/// All Drills that there are.
#[derive(Clone, Default)]
pub struct Drills {
    reading: Arc<OnceLock<Reading>>,
    ended: Arc<Mutex<BTreeMap<(String, String), Ended>>>,
}

impl fmt::Debug for Drills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drills").finish_non_exhaustive()
    }
}

impl Drills {
    /// How they are read from now on; said once.
    pub fn read_from(&self, reading: impl Fn() -> Vec<DrillFacts> + Send + Sync + 'static) {
        self.reading.get_or_init(|| Box::new(reading));
    }

    /// A run has ended, or was due and not begun.
    pub fn ended(&self, namespace: &str, name: &str, result: DrillResult) {
        let mut all = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let its = all.entry((namespace.to_owned(), name.to_owned())).or_default();
        *its.entry(result.into()).or_default() += 1;
    }

    fn all(&self) -> Vec<DrillFacts> {
        let mut all = self.reading.get().map(|read| read()).unwrap_or_default();
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|(namespace, name), _| all.iter().any(|of| of.namespace == *namespace && of.name == *name));
        for facts in &mut all {
            let its = ended.get(&(facts.namespace.clone(), facts.name.clone()));
            facts.ended = its.cloned().unwrap_or_default();
        }
        all
    }
}

/// A label beside those of the Drill, if there is one, and a value.
type Series = (Option<(&'static str, &'static str)>, f64);

struct Row {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    of: fn(&DrillFacts) -> Vec<Series>,
}

#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
fn at(seconds: Option<i64>) -> Vec<Series> {
    seconds.map(|seconds| (None, seconds as f64)).into_iter().collect()
}

fn of_result(result: DrillResult, value: f64) -> Series {
    (Some(("result", result.into())), value)
}

fn holds(value: bool) -> f64 {
    f64::from(u8::from(value))
}

const ROWS: &[Row] = &[
    Row {
        name: "drill_running",
        help: "1 while a run goes on",
        kind: MetricType::Gauge,
        of: |facts| vec![(None, holds(facts.running))],
    },
    Row {
        name: "drill_last_result",
        help: "How the last run ended that was begun: 1 for what holds",
        kind: MetricType::Gauge,
        of: |facts| {
            let one = |result: DrillResult| of_result(result, holds(facts.last_result == Some(result)));
            BEGUN.into_iter().map(one).collect()
        },
    },
    Row {
        name: "drill_last_succeeded_timestamp_seconds",
        help: "When a run last succeeded; absent when none has",
        kind: MetricType::Gauge,
        of: |facts| at(facts.last_succeeded),
    },
    Row {
        name: "drill_next_run_timestamp_seconds",
        help: "The run that the schedule asks for next; absent when there is none",
        kind: MetricType::Gauge,
        of: |facts| at(facts.next_run),
    },
    Row {
        name: "drill_withheld",
        help: "1 for the rule because of which the last run that was due was not begun or was aborted, or none can be begun",
        kind: MetricType::Gauge,
        of: |facts| {
            let one = |rule: Rule| -> Series { (Some(("reason", rule.into())), holds(facts.withheld == Some(rule))) };
            Rule::iter().map(one).collect()
        },
    },
    Row {
        name: "drill_runs",
        help: "Runs that ended, or were due and not begun, by result",
        kind: MetricType::Counter,
        of: |facts| {
            let count =
                |result: DrillResult| facts.ended.get(<&'static str>::from(result)).copied().unwrap_or_default();
            let one = |result: DrillResult| of_result(result, f64::from(count(result)));
            BEGUN.into_iter().chain([DrillResult::Skipped]).map(one).collect()
        },
    },
];

/// Tells of the Drills while this instance leads.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) drills: Drills,
    pub(super) leading: Gauge,
}

impl Collector for Telling {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.leading.get() == 0 {
            return Ok(());
        }
        let all = self.drills.all();
        for row in ROWS {
            let mut metric = encoder.encode_descriptor(row.name, row.help, None, row.kind)?;
            for facts in &all {
                for (more, value) in (row.of)(facts) {
                    let its = [
                        ("namespace", facts.namespace.as_str()),
                        ("datastore", facts.datastore.as_str()),
                        ("drill", facts.name.as_str()),
                    ];
                    let labels: Vec<_> = its.into_iter().chain(more).collect();
                    let series = metric.encode_family(&labels)?;
                    match row.kind {
                        MetricType::Counter => ConstCounter::new(value).encode(series)?,
                        _ => ConstGauge::new(value).encode(series)?,
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn drill(spec: Value, status: Value) -> Drill {
        let mut drill = json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Drill", "metadata": { "name": "weekly", "namespace": "prod" },
            "spec": { "datastore": "m", "schedule": "0 10 * * MON", "scope": { "kind": "Random" } },
            "status": status,
        });
        for (field, value) in spec.as_object().unwrap() {
            drill["spec"][field] = value.clone();
        }
        serde_json::from_value(drill).unwrap()
    }

    fn run(result: &str, reason: Value) -> Value {
        json!({
            "id": "weekly-1", "startedAt": "2026-03-02T10:00:00.000000Z", "finishedAt": "2026-03-02T10:01:00.000000Z", "result": result,
            "reason": reason,
        })
    }

    #[test]
    fn what_keeps_a_drill_from_running_is_what_stands_in_its_way_or_what_ended_its_last_run() {
        let unready = json!([{
            "type": "Ready", "status": "False", "reason": "NotAllowed", "message": "", "lastTransitionTime": "2026-03-02T10:00:00Z",
        }]);
        let skipped = run("Skipped", json!("Unhealthy"));
        for (case, spec, status, expected) in [
            ("not begun", json!({}), json!({ "lastRun": skipped }), Some(Rule::Unhealthy)),
            ("aborted", json!({}), json!({ "lastRun": run("Aborted", json!("BudgetSpent")) }), Some(Rule::BudgetSpent)),
            ("it went well", json!({}), json!({ "lastRun": run("Succeeded", Value::Null) }), None),
            ("never allowed", json!({}), json!({ "conditions": unready }), Some(Rule::NotAllowed)),
            ("suspended", json!({ "suspend": true }), json!({ "lastRun": skipped }), None),
            ("only on request", json!({ "schedule": null }), json!({ "lastRun": skipped }), None),
        ] {
            assert_eq!(DrillFacts::of(&drill(spec, status)).withheld, expected, "{case}");
        }
    }

    #[test]
    fn the_last_run_that_was_begun_counts_though_others_were_not_since_and_one_goes_on() {
        let going = json!({ "id": "weekly-9", "startedAt": "2026-03-02T10:00:00.000000Z" });
        let status = json!({
            "lastRun": going, "nextRun": "2026-03-09T10:00:00Z",
            "history": [run("Skipped", json!("Missed")), run("Failed", Value::Null), run("Succeeded", Value::Null)],
        });
        let facts = DrillFacts::of(&drill(json!({}), status.clone()));
        assert_eq!((facts.running, facts.last_result), (true, Some(DrillResult::Failed)));
        assert_eq!((facts.last_succeeded, facts.next_run), (Some(1_772_445_660), Some(1_773_050_400)));
        let mut noted = status;
        noted["lastSucceededAt"] = json!("2026-03-02T10:02:00Z");
        assert_eq!(DrillFacts::of(&drill(json!({}), noted)).last_succeeded, Some(1_772_445_720));
        let fresh = DrillFacts::of(&drill(json!({}), json!({})));
        assert_eq!((fresh.running, fresh.last_result, fresh.last_succeeded, fresh.withheld), (false, None, None, None));
    }
}
