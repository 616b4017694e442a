//! What is told, and that the table of metrics and the alerts know it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use understudy_api::Datastore;
use understudy_api::v1alpha1::{
    Availability, DrillResult, FailoverKind, FailoverMode, FailoverResult, TransitionKind, VerdictState,
};
use understudy_decide::drill::Rule;

use super::datastores::DatastoreFacts;
use super::drills::DrillFacts;
use super::shards::{Ended, ShardFacts};
use super::*;

const TABLE: &str = include_str!("../../docs/metrics.md");
const ALERTS: &str = include_str!("../../docs/alerts/operator.yaml");

/// The labels of the shard that is told of, as far as all its series have them.
const SHARD: &str = r#"{namespace="prod",datastore="m",shard="m-0""#;

/// No number is there twice, so that none can be told in place of another.
fn facts() -> ShardFacts {
    ShardFacts {
        datastore: "m".into(),
        verdict: VerdictState::Stuck,
        verdict_since: Some(1_800_000_000),
        epoch: 4,
        desired: 9,
        ready: 8,
        promotable: 5,
        replication_delay: Some(0.5),
        consumer_delay: Some(12.0),
        paused_partitions: 7,
        silent_partitions: 6,
        low_volumes: 3,
        paused: true,
        mode: FailoverMode::Manual,
        withheld: [("NoCandidate", true), ("QuarantineFull", false)].into(),
        last_change: Some((TransitionKind::Failover, 1_700_000_000)),
        last_gap: Some(4.1),
        evidence: [("peer", 0.25), ("consumer", 1.75)].into(),
        near_misses: 2,
        suspicions_cleared: 17,
        refusals: [("NoCandidate", 11), ("BreakerOpen", 0)].into(),
        availability: Some(Availability {
            window_days: 30,
            unavailable_seconds: 61.5,
            failovers: 14,
            switchovers: 15,
            drills: 16,
            mtbf_seconds: Some(86_400.0),
            mttr_seconds: Some(4.4),
        }),
    }
}

/// One that leads, and has told of everything that there is.
fn told() -> Metrics {
    let metrics = Metrics::default();
    metrics.leading.set(1);
    metrics.reconciles.get_or_create(&Outcome { kind: "Shard", outcome: "ok" }).inc();
    metrics.reconcile_seconds.get_or_create(&OfKind { kind: "Shard" }).observe(0.1);
    metrics.writes.get_or_create(&Write { kind: "Pod".into(), verb: "create" }).inc();
    metrics.malformed.get_or_create(&OfKind { kind: "Shard" }).inc();
    metrics.failover_stages.get_or_create(&OfStage { kind: "Failover", stage: "Claimed" }).observe(2.0);
    metrics.write_gaps.get_or_create(&OfKind { kind: "Failover" }).observe(4.0);
    metrics.shards.tell("prod", "m-0", facts());
    metrics
}

/// Names as Prometheus stores them, with their types.
fn rendered(metrics: &Metrics) -> BTreeSet<(String, String)> {
    let text = metrics.render().unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| (format!("{name}{}", if kind == "counter" { "_total" } else { "" }), kind.into()))
        .collect()
}

fn series(metrics: &Metrics, start: &str) -> Vec<String> {
    let text = metrics.render().unwrap();
    text.lines().filter(|line| line.starts_with(start)).map(ToOwned::to_owned).collect()
}

#[test]
fn the_table_has_every_metric_of_the_operator_and_no_other() {
    let rows = TABLE.lines().filter_map(|line| line.strip_prefix("| `understudy_operator_")?.split_once("` | "));
    let kind = |rest: &str| rest.split(" |").next().unwrap_or_default().to_owned();
    let table: BTreeSet<_> = rows.map(|(name, rest)| (format!("understudy_operator_{name}"), kind(rest))).collect();
    assert_eq!(rendered(&told()), table);
}

#[test]
fn the_alerts_ask_for_nothing_that_is_not_in_the_table() {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let asked = ALERTS.split(|c: char| !is_name(c)).filter(|word| word.starts_with("understudy_"));
    let unknown: BTreeSet<_> = asked.filter(|name| !TABLE.contains(&format!("| `{name}` |"))).collect();
    assert_eq!(unknown, BTreeSet::new());
}

#[test]
fn a_shard_is_told_of_with_its_labels_and_one_state_of_each_set() {
    let metrics = told();
    let verdicts = series(&metrics, "understudy_operator_shard_verdict{");
    assert_eq!(verdicts.len(), 8, "one for each state: {verdicts:?}");
    let holding: Vec<_> = verdicts.iter().filter(|line| !line.ends_with(" 0.0")).collect();
    assert_eq!(holding, [&format!(r#"understudy_operator_shard_verdict{SHARD},state="Stuck"}} 1.0"#)]);
    for (name, more, value) in [
        ("shard_failover_mode", r#",mode="Manual""#, "1.0"),
        ("shard_failover_mode", r#",mode="Automatic""#, "0.0"),
        ("shard_withheld", r#",reason="NoCandidate""#, "1.0"),
        ("shard_withheld", r#",reason="QuarantineFull""#, "0.0"),
        ("shard_evidence_age_seconds", r#",observer="peer""#, "0.25"),
        ("shard_evidence_age_seconds", r#",observer="consumer""#, "1.75"),
        ("shard_changes", r#",kind="Failover""#, "14.0"),
        ("shard_changes", r#",kind="Switchover""#, "15.0"),
        ("shard_changes", r#",kind="Drill""#, "16.0"),
        ("shard_near_misses_total", "", "2.0"),
        ("shard_suspicions_cleared_total", "", "17.0"),
        ("shard_refusals_total", r#",reason="NoCandidate""#, "11.0"),
        ("shard_refusals_total", r#",reason="BreakerOpen""#, "0.0"),
    ] {
        let wanted = format!("understudy_operator_{name}{SHARD}{more}}} {value}");
        assert_eq!(series(&metrics, &wanted), [wanted.as_str()], "{name}{more}");
    }
}

#[test]
fn each_number_of_a_shard_is_told_under_its_own_name() {
    let metrics = told();
    for (name, more, value) in [
        ("shard_verdict_timestamp_seconds", "", "1800000000.0"),
        ("shard_epoch", "", "4.0"),
        ("shard_replicas_desired", "", "9.0"),
        ("shard_replicas_ready", "", "8.0"),
        ("shard_promotable", "", "5.0"),
        ("shard_replication_delay_seconds", "", "0.5"),
        ("shard_consumer_delay_seconds", "", "12.0"),
        ("shard_paused_partitions", "", "7.0"),
        ("shard_silent_partitions", "", "6.0"),
        ("shard_low_volumes", "", "3.0"),
        ("shard_paused", "", "1.0"),
        ("shard_last_failover_timestamp_seconds", r#",kind="Failover""#, "1700000000.0"),
        ("shard_last_failover_write_gap_seconds", "", "4.1"),
        ("shard_unavailable_seconds", "", "61.5"),
        ("shard_mtbf_seconds", "", "86400.0"),
        ("shard_mttr_seconds", "", "4.4"),
    ] {
        let told = series(&metrics, &format!("understudy_operator_{name}{{"));
        assert_eq!(told, [format!("understudy_operator_{name}{SHARD}{more}}} {value}")]);
    }
}

#[test]
fn a_datastore_is_told_of_by_the_conditions_that_are_known() {
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let datastore: Datastore = serde_json::from_value(json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "Datastore", "metadata": { "name": "m", "namespace": "prod" },
        "spec": {
            "shardTemplate": { "mysql": { "image": "mysql:9.7.4" }, "storage": { "size": "10Gi" } },
            "kafka": { "bootstrapServers": "kafka:9092", "topic": "m" },
        },
        "status": { "conditions": [
            condition("Ready", "True"), condition("TopicReady", "False"), condition("SecretsReady", "Unknown"),
        ], "availability": { "windowDays": 30, "unavailableSeconds": 12.5, "failovers": 3, "switchovers": 1, "mttrSeconds": 4.0 } },
    }))
    .unwrap();
    let metrics = told();
    metrics.datastores.read_from(move || vec![DatastoreFacts::of(&datastore)]);
    let name = "understudy_operator_datastore_condition";
    let told = |condition: &str, value: &str| {
        format!(r#"{name}{{namespace="prod",datastore="m",condition="{condition}"}} {value}"#)
    };
    let of_datastores = || series(&metrics, &format!("{name}{{"));
    assert_eq!(of_datastores(), [told("Ready", "1.0"), told("TopicReady", "0.0")]);
    for (number, expected) in [("unavailable", Some("12.5")), ("mttr", Some("4.0")), ("mtbf", None)] {
        let name = format!("understudy_operator_datastore_{number}_seconds");
        let wanted = expected.map(|value| format!(r#"{name}{{namespace="prod",datastore="m"}} {value}"#));
        assert_eq!(series(&metrics, &format!("{name}{{")), wanted.into_iter().collect::<Vec<_>>());
    }
    metrics.leading.set(0);
    assert!(of_datastores().is_empty(), "another instance may lead");
}

#[test]
fn a_drill_is_told_of_while_it_is_there_and_its_runs_are_counted_from_nought() {
    let metrics = told();
    let weekly = DrillFacts {
        namespace: "prod".into(),
        name: "weekly".into(),
        datastore: "m".into(),
        running: true,
        last_result: Some(DrillResult::Failed),
        last_succeeded: Some(1_600_000_000),
        next_run: Some(1_900_000_000),
        withheld: Some(Rule::NotRedundant),
        ended: [("Skipped", 99)].into(),
    };
    let there = Arc::new(AtomicBool::new(true));
    let is_there = there.clone();
    metrics.drills.read_from(move || is_there.load(Ordering::Relaxed).then(|| weekly.clone()).into_iter().collect());
    for result in [DrillResult::Failed, DrillResult::Failed, DrillResult::Skipped] {
        metrics.drills.ended("prod", "weekly", result);
        metrics.drills.ended("prod", "gone", result);
    }
    let drill = r#"{namespace="prod",datastore="m",drill="weekly""#;
    for (name, more, value) in [
        ("drill_running", "", "1.0"),
        ("drill_last_result", r#",result="Failed""#, "1.0"),
        ("drill_last_result", r#",result="Succeeded""#, "0.0"),
        ("drill_last_succeeded_timestamp_seconds", "", "1600000000.0"),
        ("drill_next_run_timestamp_seconds", "", "1900000000.0"),
        ("drill_withheld", r#",reason="NotRedundant""#, "1.0"),
        ("drill_withheld", r#",reason="Missed""#, "0.0"),
        ("drill_runs_total", r#",result="Failed""#, "2.0"),
        ("drill_runs_total", r#",result="Skipped""#, "1.0"),
        ("drill_runs_total", r#",result="Succeeded""#, "0.0"),
    ] {
        let wanted = format!("understudy_operator_{name}{drill}{more}}} {value}");
        assert_eq!(series(&metrics, &wanted), [wanted.as_str()], "{name}{more}");
    }
    let of_drills = || series(&metrics, "understudy_operator_drill_");
    assert!(!of_drills().iter().any(|line| line.contains("gone")), "{:?}", of_drills());
    there.store(false, Ordering::Relaxed);
    assert!(of_drills().is_empty(), "it is deleted");
}

#[test]
fn changes_of_primary_are_counted_from_nought() {
    let metrics = told();
    let counted = |result: &str| {
        let shard = r#"namespace="prod",datastore="m",shard="m-0""#;
        let start =
            format!(r#"understudy_operator_shard_failovers_total{{{shard},kind="Failover",result="{result}"}} "#);
        series(&metrics, &start)[0].trim_start_matches(&start).to_owned()
    };
    assert_eq!(counted("Succeeded"), "0.0");
    let ended =
        Ended { kind: FailoverKind::Failover, result: FailoverResult::Succeeded, cause: "ProcessExited".to_owned() };
    metrics.shards.ended("prod", "m-0", ended.clone());
    metrics.shards.ended("prod", "other", ended);
    metrics.shards.tell("prod", "m-0", facts());
    assert_eq!((counted("Succeeded"), counted("Failed")), ("1.0".to_owned(), "0.0".to_owned()));
    assert!(series(&metrics, r#"understudy_operator_shard_failovers_total{namespace="prod",datastore="","#).is_empty());
    let causes = series(&metrics, "understudy_operator_shard_failover_causes_total{");
    let labels = format!(r#"{SHARD},kind="Failover",result="Succeeded",cause="ProcessExited"}} 1.0"#);
    assert_eq!(causes, [format!("understudy_operator_shard_failover_causes_total{labels}")]);
}

#[test]
fn only_the_one_that_leads_tells_and_only_of_shards_that_are_there() {
    let metrics = told();
    let of_shards = || series(&metrics, "understudy_operator_shard_").len();
    assert!(of_shards() > 0);
    metrics.leading.set(0);
    assert_eq!(of_shards(), 0, "another instance may lead");
    metrics.leading.set(1);
    metrics.shards.forget("prod", "m-0");
    assert_eq!(of_shards(), 0, "it is gone");
}
