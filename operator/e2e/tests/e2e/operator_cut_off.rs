//! The operator does not reach a primary that everybody else reaches.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use understudy_api::v1alpha1::{ObserverKind, Shard, Stance, VerdictState};
use understudy_e2e::calm::{Calm, alive_through};
use understudy_e2e::fault::{Fault, heal};
use understudy_e2e::ledger::Load;
use understudy_e2e::sql::{self, Account};
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{run, see};

const STORED: &str = "SELECT COALESCE(SUM(next_offset), 0) FROM understudy.consumer_offset";

#[test]
fn a_primary_that_only_the_operator_does_not_reach_stays_in_office_and_the_status_names_who_does_not() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let calm = Calm::of(&stage).await?;
        let before = conditions(&stage.shard().await?);
        let mut load = stage.load(1000).await?;
        Fault::CutOperator.inject(stage.cluster, &stage.namespace, calm.primary()).await?;
        let lasted = alive_through(&stage, cut_off(&stage, &calm, &mut load)).await;
        heal(stage.cluster).await?;
        lasted?;

        stage.settled().await?;
        until("every condition of the shard is as it was", Duration::from_secs(30), async || {
            let now = conditions(&stage.shard().await?);
            Ok(Seen::when(now == before, (), format!("{now:?} instead of {before:?}")))
        })
        .await?;
        calm.holds(&stage, Duration::from_secs(3)).await?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}

/// Until the status says who does not see the primary, until that has stored more of what is sent, and for longer than anybody's silence has
/// to last before it counts.
async fn cut_off(stage: &Stage, calm: &Calm, load: &mut Load) -> Result<()> {
    until("the status names the operator", Duration::from_secs(20), async || {
        let shard = stage.shard().await?;
        let is_named = see::verdict(&shard) == Some(VerdictState::ObserverPartition) && is_accused_by_operator(&shard);
        let observers = shard.status.as_ref().map(|status| &status.observers);
        Ok(Seen::when(is_named, (), format!("{}; observers: {observers:?}", see::shard(&shard))))
    })
    .await?;
    let by_now = stored(stage, calm.primary()).await?;
    load.goes_on(Duration::from_secs(20)).await?;
    until("the primary stores what is sent", Duration::from_secs(20), async || {
        let now = stored(stage, calm.primary()).await?;
        Ok(Seen::when(now > by_now, (), format!("offsets of {now} in all, as before")))
    })
    .await?;
    calm.holds(stage, Duration::from_secs(5)).await
}

fn is_accused_by_operator(shard: &Shard) -> bool {
    let mut observers = shard.status.iter().flat_map(|status| &status.observers);
    observers.any(|observer| observer.kind == ObserverKind::Operator && observer.stance == Stance::Accuses)
}

/// The offsets of all partitions together.
async fn stored(stage: &Stage, replica: &str) -> Result<u64> {
    let shard = stage.shard_name(0);
    let row = sql::ask(stage.cluster, &stage.namespace, (&shard, replica), Account::Reader, STORED).await?;
    row.trim().parse().with_context(|| format!("not a number: {row}"))
}

/// Whether each holds.
fn conditions(shard: &Shard) -> BTreeMap<String, String> {
    let all = shard.status.iter().flat_map(|status| &status.conditions);
    all.map(|condition| (condition.type_.clone(), condition.status.clone())).collect()
}
