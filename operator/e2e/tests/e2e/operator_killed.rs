//! The operator is killed at random moments of a bootstrap and of a failover, and goes on where it was.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::chance::Chance;
use understudy_e2e::fault::Fault;
use understudy_e2e::record::{self, Truth};
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::{operators, run, see};

/// Kills for each of the two sequences; `cargo lab bench operator` asks for more.
fn rounds() -> usize {
    std::env::var("UNDERSTUDY_E2E_OPERATOR_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

#[test]
fn an_operator_killed_during_bootstrap_initialises_once_and_ends_at_full_redundancy() -> Result<()> {
    run(async {
        let mut chance = Chance::from_environment();
        for round in 0..rounds() {
            let stage = Stage::begin("reborn", |_| {}).await?;
            let moment = chance.moment(Duration::from_secs(30));
            println!("round {round}: the operator is killed {moment:?} after the Datastore was made");
            tokio::time::sleep(moment).await;
            operators::kill_all(stage.cluster).await?;
            operators::ready(stage.cluster).await?;
            stage.settled().await?;
            let shard = stage.shard().await?;
            let bootstrap = shard.status.as_ref().and_then(|s| s.bootstrap.clone()).unwrap_or_default();
            ensure!(
                bootstrap.completed && bootstrap.replica == see::primary(&shard),
                "{bootstrap:?}: {}",
                see::shard(&shard)
            );
            let ids: Vec<_> = stage.replicas().await?.values().map(|r| r.spec.server_id).collect();
            ensure!(ids.iter().all(|id| ids.iter().filter(|other| *other == id).count() == 1), "server ids: {ids:?}");
            stage.namespace.delete().await?;
        }
        Ok(())
    })
}

#[test]
fn an_operator_killed_during_a_failover_completes_it_once_and_loses_nothing() -> Result<()> {
    run(async {
        let mut chance = Chance::from_environment();
        let stage = stage::shared().await?;
        let load = stage.load(1000).await?;
        for round in 0..rounds() {
            let before = stage.shard().await?;
            let (old, epoch) = (see::primary(&before), see::epoch(&before));
            Fault::Kill.inject(stage.cluster, &stage.namespace, &old).await?;
            let moment = chance.moment(Duration::from_secs(6));
            println!("round {round}: the operator is killed {moment:?} after {old}");
            tokio::time::sleep(moment).await;
            operators::kill_all(stage.cluster).await?;
            stage.promoted(&old, epoch, Duration::from_secs(60)).await?;
            operators::ready(stage.cluster).await?;
            stage.settled().await?;
            let after = stage.shard().await?;
            let new = see::primary(&after);
            ensure!(!see::serving(&after).contains(&old), "{old} serves again: {}", see::shard(&after));
            // A second claim is allowed: the one that was killed may have taken an epoch that nobody serves under.
            ensure!(see::epoch(&after) > epoch, "no epoch was taken");
            let record = stage.record(see::epoch(&after)).await?;
            record::check(&record, &Truth { from: &old, to: &new, epoch: see::epoch(&after), consumed: true })?;
        }
        let outcome = load.finish().await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}
