//! Drills of a stage: asking for a run, and waiting for what becomes of it. I/O.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use serde_json::{Value, json};
use understudy_api::v1alpha1::{Drill, DrillFault, DrillRun, DrillStatus};

use crate::stage::Stage;
use crate::wait::{Seen, until};

/// Makes a Drill of the stage's Datastore that asks for one run at once; `more` are further fields of its spec.
pub async fn ask(stage: &Stage, name: &str, fault: DrillFault, more: Value) -> Result<()> {
    let mut spec = json!({
        "datastore": stage.datastore, "scope": { "kind": "Random" }, "fault": fault, "requestedAt": Time(Timestamp::now()),
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let drill = Drill::new(name, serde_json::from_value(spec)?);
    let drills = stage.namespace.api::<Drill>();
    drills.create(&PostParams::default(), &drill).await.with_context(|| format!("cannot make the Drill {name}"))?;
    Ok(())
}

/// What the Drill's status says now.
pub async fn status(stage: &Stage, name: &str) -> Result<DrillStatus> {
    Ok(stage.namespace.api::<Drill>().get(name).await?.status.unwrap_or_default())
}

/// Waits until something holds of the run that goes on or was the last.
pub async fn run_until(
    stage: &Stage,
    name: &str,
    (what, limit): (&str, Duration),
    holds: impl Fn(&DrillRun) -> bool,
) -> Result<DrillRun> {
    until(format!("the run of Drill {name} {what}"), limit, async || {
        let status = status(stage, name).await?;
        let instead = format!("{status:?}");
        match status.last_run {
            Some(run) if holds(&run) => Ok(Seen::Done(run)),
            _ => Ok(Seen::NotYet(instead)),
        }
    })
    .await
}

/// Waits until the run has ended, or was not begun.
pub async fn ended(stage: &Stage, name: &str, limit: Duration) -> Result<DrillRun> {
    run_until(stage, name, ("has ended", limit), |run| run.result.is_some()).await
}
