//! What the metrics are told of a record each time it was written. Pure, but for the counters.

use kube::ResourceExt;
use strum::IntoEnumIterator;
use understudy_api::Failover;
use understudy_api::v1alpha1::{FailoverPhase, FailoverStatus};
use understudy_decide::failover::record::Milestone;

use crate::metrics::shards::Ended;
use crate::metrics::{Metrics, OfKind, OfStage};

/// Tells what came in since the record was `before`.
pub fn count(metrics: &Metrics, before: Option<&FailoverStatus>, written: &Failover) {
    let Some(status) = &written.status else { return };
    let kind = kind(written);
    let gap = |status: &FailoverStatus| status.write_gap_seconds;
    if let Some(gap) = gap(status).filter(|_| before.and_then(gap).is_none()) {
        metrics.write_gaps.get_or_create(&OfKind { kind }).observe(gap);
    }
    let rebuild = |status: &FailoverStatus| status.rebuild.as_ref().and_then(|rebuild| rebuild.seconds);
    if let Some(rebuild) = rebuild(status).filter(|_| before.and_then(rebuild).is_none()) {
        metrics.rebuilds.observe(rebuild);
    }
    let is_closed = |status: &FailoverStatus| status.phase == FailoverPhase::Closed;
    if !is_closed(status) || before.is_some_and(is_closed) {
        return;
    }
    // With a second candidate some steps happen twice; what took the change further was the last.
    for step in Milestone::iter() {
        let name = step.to_string();
        if let Some(entry) = status.timeline.iter().rev().find(|entry| entry.step == name) {
            let elapsed = std::time::Duration::from_millis(entry.elapsed_ms.unsigned_abs()).as_secs_f64();
            metrics.failover_stages.get_or_create(&OfStage { kind, stage: step.into() }).observe(elapsed);
        }
    }
    if let Some(result) = status.result {
        let cause = status.cause.clone().unwrap_or_default();
        let namespace = written.namespace().unwrap_or_default();
        metrics.shards.ended(&namespace, &written.spec.shard, Ended { kind: written.spec.kind, result, cause });
    }
}

/// However it was done, what was rehearsed is told apart.
fn kind(record: &Failover) -> &'static str {
    match record.drill() {
        Some(_) => "Drill",
        None => record.spec.kind.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(status: Value) -> Failover {
        serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover", "metadata": { "name": "m-5", "namespace": "prod" },
            "spec": { "shard": "m", "kind": "Failover", "epoch": 5 }, "status": status,
        }))
        .unwrap()
    }

    fn counts(metrics: &Metrics) -> Vec<(String, String)> {
        let text = metrics.render().unwrap();
        let counts = text.lines().filter_map(|line| line.split_once("_seconds_count"));
        let histograms = counts.filter(|(name, _)| !name.ends_with("reconcile"));
        histograms.map(|(name, rest)| (name.replace("understudy_operator_", ""), rest.trim().to_owned())).collect()
    }

    #[test]
    fn each_measurement_is_told_once_and_the_steps_when_it_is_over() {
        let metrics = Metrics::default();
        let open = record(json!({ "phase": "Rebuilding", "writeGapSeconds": 4.0 }));
        count(&metrics, None, &open);
        let told = |name: &str, rest: &str| (name.to_owned(), rest.to_owned());
        let (gap, no_rebuild) = (told("failover_write_gap", r#"{kind="Failover"} 1"#), told("rebuild", "0"));
        assert_eq!(counts(&metrics), [gap.clone(), no_rebuild]);
        let entry =
            |step: &str, elapsed: i64| json!({ "step": step, "at": "2026-01-01T00:00:00Z", "elapsedMs": elapsed });
        let closed = record(json!({
            "phase": "Closed", "result": "Succeeded", "cause": "ProcessExited", "writeGapSeconds": 4.0,
            "rebuild": { "seconds": 31.0 }, "timeline": [entry("Claimed", 400), entry("Claimed", 900)],
        }));
        count(&metrics, open.status.as_ref(), &closed);
        count(&metrics, closed.status.as_ref(), &closed);
        let claimed = told("failover_stage", r#"{kind="Failover",stage="Claimed"} 1"#);
        assert_eq!(counts(&metrics), [claimed, gap, told("rebuild", "1")]);
        let text = metrics.render().unwrap();
        let sum = r#"understudy_operator_failover_stage_seconds_sum{kind="Failover",stage="Claimed"} 0.9"#;
        assert!(text.lines().any(|line| line == sum), "the last of two: {text}");
    }

    #[test]
    fn what_was_rehearsed_is_told_apart() {
        let mut rehearsed = record(json!({}));
        assert_eq!(kind(&rehearsed), "Failover");
        rehearsed.spec.drill = Some("nightly".to_owned());
        assert_eq!(kind(&rehearsed), "Drill");
    }
}
