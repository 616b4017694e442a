//! The commands of `kubectl understudy` that change something, and what it says when no operator acts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use understudy_api::v1alpha1::{Drill, Failover};
use understudy_e2e::plugin::{self, Said};
use understudy_e2e::stage::Stage;
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{operators, run, see, stage};

#[test]
fn a_switchover_is_waited_for_and_told_step_by_step() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let shard = stage.shard_name(0);
        let before = stage.shard().await?;
        let target = see::standbys(&before).pop().context("there is no standby")?;
        let line = format!("switchover {shard} --to {target} --reason end-to-end-test --wait --timeout 2m -o json");
        let said = plugin::run(&stage, &line).await?.well()?;
        let record = said.json()?;
        same(&record, "/status/result", &json!("Succeeded"))?;
        same(&record, "/status/to", &json!(target))?;
        same(&record, "/spec/reason", &json!("end-to-end-test"))?;
        for step in ["was asked for", "Claimed", "Promoted", "Routed"] {
            ensure!(said.err.contains(step), "it does not tell {step}: {}", said.err);
        }
        let after = stage.shard().await?;
        ensure!(see::primary(&after) == target, "{target} is not primary: {}", see::shard(&after));

        let name = text(&record, "/metadata/name")?;
        let told = plugin::run(&stage, &format!("timeline {name}")).await?.well()?;
        ensure!(told.out.contains("Promoted") && told.out.contains(&target), "{}", told.out);
        let whole = plugin::run(&stage, &format!("timeline {name} -o json")).await?.well()?.json()?;
        same(&whole, "/metadata/uid", record.pointer("/metadata/uid").context("a record without a UID")?)?;

        let explained = plugin::run(&stage, &format!("explain {shard} -o json")).await?.well()?.json()?;
        same(&explained, "/primary", &json!(target))?;
        same(&explained, "/lastFailover/name", &json!(name))?;
        same(&explained, "/operator/state", &json!("Leading"))?;
        stage.settled().await
    })
}

#[test]
fn a_paused_shard_is_not_failed_over_on_request_and_after_it_only_a_dead_one() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let shard = stage.shard_name(0);
        let outcome = while_paused(&stage, &shard).await;
        // A shard that stays paused would take the other tests with it.
        let resumed = plugin::run(&stage, &format!("resume {shard} -o json")).await?.well()?;
        outcome?;
        let paused = resumed.json()?.pointer("/spec/paused").cloned();
        ensure!(paused.as_ref().is_none_or(|paused| paused == &json!(false)), "it is still paused: {paused:?}");
        ensure!(
            !resumed.err.contains("warning:"),
            "the operator has not seen that it is not paused any more: {}",
            resumed.err
        );

        stage.settled().await?;
        let refused = refused(&stage, &shard).await?;
        ensure!(refused.err.contains(&format!("kubectl understudy switchover {shard}")), "{}", refused.err);
        Ok(())
    })
}

async fn while_paused(stage: &Stage, shard: &str) -> Result<()> {
    let paused = plugin::run(stage, &format!("pause {shard} -o json")).await?.well()?;
    same(&paused.json()?, "/spec/paused", &json!(true))?;
    ensure!(!paused.err.contains("warning:"), "the operator has not seen that it is paused: {}", paused.err);
    let refused = refused(stage, shard).await?;
    ensure!(refused.err.contains(&format!("kubectl understudy resume {shard}")), "{}", refused.err);
    let explained = plugin::run(stage, &format!("explain {shard} -o json")).await?.well()?.json()?;
    let why = explained.pointer("/whyNothing").map(Value::to_string).unwrap_or_default();
    ensure!(why.contains("spec.paused"), "explain does not say that it is paused: {why}");
    Ok(())
}

/// Asks for a failover, which must not be sent.
async fn refused(stage: &Stage, shard: &str) -> Result<Said> {
    let before = stage.namespace.list::<Failover>("").await?.len();
    let said = plugin::run(stage, &format!("failover {shard} --yes --wait --timeout 30s")).await?;
    ensure!(said.code == Some(1) && said.out.is_empty(), "a failover that cannot be ended with {said:?}");
    let after = stage.namespace.list::<Failover>("").await?.len();
    ensure!(after == before, "it was sent all the same");
    Ok(said)
}

#[test]
fn a_drill_is_run_when_it_is_asked_for_and_its_result_is_told() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));
        let spec = json!({
            "datastore": stage.datastore, "fault": "Switchover",
            "scope": { "kind": "Shard", "name": stage.shard_name(0) },
            // The other tests are no reason to leave the shard in peace.
            "abort": { "maxUnavailableSeconds": 2_592_000 },
        });
        let drills = stage.namespace.api::<Drill>();
        let drill = Drill::new("on-request", serde_json::from_value(spec)?);
        drills.create(&PostParams::default(), &drill).await.context("cannot make the Drill")?;
        let shown = plugin::run(&stage, "drill on-request -o json").await?.well()?.json()?;
        same(&shown, "/metadata/name", &json!("on-request"))?;

        let said = plugin::run(&stage, "drill on-request --now --wait --timeout 2m -o json").await?.well()?;
        same(&said.json()?, "/status/lastRun/result", &json!("Succeeded"))?;
        let after = stage.shard().await?;
        let has_moved = see::primary(&after) != old && see::epoch(&after) > epoch;
        ensure!(has_moved, "{old} is still primary: {}", see::shard(&after));
        drills.delete("on-request", &DeleteParams::default()).await?;
        stage.settled().await
    })
}

#[test]
fn when_no_operator_acts_that_is_what_is_said_first() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let replicas = operators::scale(stage.cluster, 0).await?;
        let outcome = while_nobody_acts(&stage).await;
        operators::scale(stage.cluster, replicas).await?;
        operators::ready(stage.cluster).await?;
        outcome?;
        until("an operator acts again", Duration::from_secs(30), async || {
            let status = plugin::run(&stage, "status -o json").await?.well()?.json()?;
            let operator = status.pointer("/operator").cloned().unwrap_or_default();
            Ok(Seen::when(operator["state"] == "Leading", (), operator))
        })
        .await?;
        stage.settled().await
    })
}

async fn while_nobody_acts(stage: &Stage) -> Result<()> {
    operators::none(stage.cluster).await?;
    let status = plugin::run(stage, "status --exit-code -o json").await?;
    ensure!(status.code == Some(3), "all is well without an operator: {status:?}");
    let status = status.json()?;
    let state = text(&status, "/operator/state")?;
    ensure!(state == "Vacant" || state == "Silent", "the operator is {state}");
    let first = text(&status, "/unwell/0")?;
    ensure!(first.starts_with("no operator acts") && first.contains(operators::NAMESPACE), "{first}");
    let explained = plugin::run(stage, &format!("explain {}", stage.shard_name(0))).await?.well()?;
    ensure!(explained.out.starts_with("no operator acts"), "{}", explained.out);
    Ok(())
}

fn same(object: &Value, pointer: &str, expected: &Value) -> Result<()> {
    let found = object.pointer(pointer);
    ensure!(found == Some(expected), "{pointer} is {found:?} and not {expected}");
    Ok(())
}

fn text(object: &Value, pointer: &str) -> Result<String> {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("no {pointer} in {object}"))
}
