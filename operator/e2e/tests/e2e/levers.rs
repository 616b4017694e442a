//! The emergency levers: `spec.paused` and `failover.mode`.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::PostParams;
use serde_json::json;
use understudy_api::v1alpha1::{Failover, FailoverKind, FailoverMode, FailoverSpec, VerdictState};
use understudy_e2e::fault::Fault;
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::wait::{Seen, never, until};
use understudy_e2e::{run, see};

#[test]
fn in_manual_mode_a_dead_primary_is_reported_and_replaced_only_when_a_person_says_so() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        stage.change(json!({"shardTemplate": {"failover": {"mode": "Manual"}}})).await?;
        stage.settled().await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));
        Fault::Kill.inject(stage.cluster, &stage.namespace, &old).await?;
        gone(&stage).await?;
        event_about_waiting(&stage).await?;
        unmoved(&stage, epoch).await?;

        let spec = FailoverSpec {
            shard: stage.shard_name(0),
            kind: FailoverKind::Failover,
            reason: Some("the person on call has looked".into()),
            target: None,
            drill: None,
            epoch: None,
        };
        let request = Failover::new("manual", spec);
        stage.namespace.api::<Failover>().create(&PostParams::default(), &request).await?;
        stage.promoted(&old, epoch, Duration::from_secs(20)).await?;
        stage.change(json!({"shardTemplate": {"failover": {"mode": "Automatic"}}})).await?;
        stage.settled().await
    })
}

#[test]
fn a_paused_datastore_is_left_as_it_is_until_it_is_not_paused_any_more() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        stage.change(json!({"paused": true})).await?;
        until("the shard is paused", Duration::from_secs(20), async || {
            let shard = stage.shard().await?;
            Ok(Seen::when(shard.spec.paused, (), see::shard(&shard)))
        })
        .await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));
        Fault::Kill.inject(stage.cluster, &stage.namespace, &old).await?;
        gone(&stage).await?;
        unmoved(&stage, epoch).await?;
        ensure!(see::serving(&stage.shard().await?).contains(&old), "{old} was condemned while paused");

        stage.change(json!({"paused": false})).await?;
        stage.promoted(&old, epoch, Duration::from_secs(20)).await?;
        stage.settled().await
    })
}

#[test]
fn a_lever_that_a_test_leaves_pulled_is_let_go_before_the_next_one_begins() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        stage.change(json!({"shardTemplate": {"failover": {"mode": "Manual"}}})).await?;
        stage.settled().await?;
        drop(stage);
        let mode = stage::shared().await?.shard().await?.spec.failover.mode;
        ensure!(mode == FailoverMode::Automatic, "the next test would begin in the mode {mode:?}");
        Ok(())
    })
}

async fn gone(stage: &Stage) -> Result<()> {
    until("the verdict says that the primary is gone", Duration::from_secs(20), async || {
        let shard = stage.shard().await?;
        let state = shard.status.as_ref().and_then(|s| s.verdict.as_ref()).map(|v| v.state);
        Ok(Seen::when(state == Some(VerdictState::Gone), (), see::shard(&shard)))
    })
    .await
}

/// The decision not to act is an event, like every decision, and stays in the status when that is gone.
async fn event_about_waiting(stage: &Stage) -> Result<()> {
    until("an event says that a person must decide", Duration::from_secs(20), async || {
        let events = stage.namespace.list::<Event>("").await?;
        let reasons: Vec<_> = events.values().filter_map(|e| e.reason.clone()).collect();
        let is_said = reasons.iter().any(|r| r == "FailoverWithheld");
        let withheld = stage.shard().await?.status.unwrap_or_default().withheld;
        let is_kept = withheld.iter().any(|held| held.reason == "FailoverWithheld" && held.next_check.is_some());
        Ok(Seen::when(is_said && is_kept, (), format!("{reasons:?}, {withheld:?}")))
    })
    .await
}

async fn unmoved(stage: &Stage, epoch: i64) -> Result<()> {
    never("a change of primary", Duration::from_secs(5), async || {
        let shard = stage.shard().await?;
        Ok((see::epoch(&shard) > epoch).then(|| see::shard(&shard)))
    })
    .await
}
