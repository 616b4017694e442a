//! Drills that do harm where the Datastore allows it: what they kill or freeze is replaced and on record, and what they hold is let go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use serde_json::json;
use understudy_api::v1alpha1::{Drill, DrillFault, DrillResult, DrillRun, RealFault, VerdictState};
use understudy_e2e::calm::Calm;
use understudy_e2e::record::{self, Commits, Truth};
use understudy_e2e::stage::Stage;
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{rehearsal, run, see};

/// A run, with the first commit after it.
const RUN: Duration = Duration::from_secs(150);

#[test]
fn drills_do_what_they_are_allowed_to_and_leave_nothing_held() -> Result<()> {
    run(async {
        let stage = Stage::build("drill", |datastore| {
            datastore.spec.drills.faults = vec![RealFault::Kill, RealFault::Freeze];
        })
        .await?;
        let load = stage.load(500).await?;
        succeeds(&stage, "kill", DrillFault::Kill, "ProcessExited").await?;
        succeeds(&stage, "freeze", DrillFault::Freeze, "Stopped").await?;
        deleted_in_the_middle(&stage).await?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        stage.namespace.delete().await
    })
}

/// The primary is replaced, and the record and the Drill's report tell the same.
async fn succeeds(stage: &Stage, name: &str, fault: DrillFault, cause: &str) -> Result<()> {
    let before = stage.shard().await?;
    let (old, epoch) = (see::primary(&before), see::epoch(&before));
    rehearsal::ask(stage, name, fault, json!({"holdSeconds": 30})).await?;
    let run = rehearsal::ended(stage, name, RUN).await?;
    ensure!(run.result == Some(DrillResult::Succeeded), "{run:?}");
    ensure!(run.victims.len() == 1 && run.victims[0].replica == old && run.victims[0].epoch == epoch, "{run:?}");
    ensure!(run.gaps.len() == 1 && run.gaps[0].write_gap_seconds.is_some() && run.gap.is_some(), "{run:?}");
    let status = rehearsal::status(stage, name).await?;
    ensure!(status.history == [run.clone()] && status.last_succeeded_at.is_some(), "{status:?}");

    stage.settled().await?;
    let after = stage.shard().await?;
    ensure!(see::epoch(&after) == epoch + 1, "one drill took {} epochs", see::epoch(&after) - epoch);
    ensure!(!see::serving(&after).contains(&old), "{old} serves again");
    let record = stage.record(epoch + 1).await?;
    ensure!(record.drill() == Some(name), "the record does not say that it is a drill's: {:?}", record.metadata);
    ensure!(run.gaps[0].failover == record.metadata.name, "the report names {:?}", run.gaps[0].failover);
    let told = record.status.as_ref().and_then(|status| status.cause.clone());
    ensure!(told.as_deref() == Some(cause), "the cause is {told:?}");
    let new = see::primary(&after);
    record::check(&record, &Truth { from: &old, to: &new, epoch: epoch + 1, commits: Commits::Watched })
}

/// A freeze that nobody is in a hurry to replace, whose Drill is deleted: it is let go long before its time, and the same primary goes on.
async fn deleted_in_the_middle(stage: &Stage) -> Result<()> {
    stage.change(json!({"shardTemplate": {"failover": {"detection": {"stuckAfterMs": 600_000}}}})).await?;
    stage.settled().await?;
    let calm = Calm::of(stage).await?;
    rehearsal::ask(stage, "deleted", DrillFault::Freeze, json!({"holdSeconds": 600})).await?;
    let is_hit = |run: &DrillRun| run.victims.iter().any(|victim| victim.struck_at.is_some());
    rehearsal::run_until(stage, "deleted", ("hits", RUN), is_hit).await?;
    until("the primary is not Healthy", Duration::from_secs(30), async || {
        let shard = stage.shard().await?;
        Ok(Seen::when(see::verdict(&shard) != Some(VerdictState::Healthy), (), see::shard(&shard)))
    })
    .await?;
    let drills = stage.namespace.api::<Drill>();
    let held = drills.get("deleted").await?;
    let finalizers = held.metadata.finalizers.unwrap_or_default();
    ensure!(finalizers.iter().any(|of| of == "understudy.dev/drill-run"), "it is held by {finalizers:?}");
    drills.delete("deleted", &DeleteParams::default()).await.context("cannot delete the Drill")?;
    until("the Drill is gone", Duration::from_secs(30), async || {
        let left = drills.get_opt("deleted").await?;
        Ok(Seen::when(left.is_none(), (), format!("{:?}", left.and_then(|drill| drill.status))))
    })
    .await?;
    calm.commits(stage, Duration::from_secs(30)).await?;
    stage.settled().await?;
    calm.holds(stage, Duration::from_secs(5)).await
}
