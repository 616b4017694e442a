//! The operator is killed at random moments of a bootstrap and of a failover, and goes on where it was.
//!
//! A moment is a change of the shard's status, by its number, and a time after it. Both come from the seed that is printed:
//! `UNDERSTUDY_E2E_SEED` kills at the same steps again, on a slower machine too.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::chance::Chance;
use understudy_e2e::changes::Changes;
use understudy_e2e::fault::Fault;
use understudy_e2e::record::{self, Commits, Truth};
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::{operators, run, see};

/// Kills for each of the two sequences; `cargo lab bench operator` asks for more.
fn rounds() -> usize {
    std::env::var("UNDERSTUDY_E2E_OPERATOR_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(1).max(1)
}

/// Changes of a bootstrap to choose from: ids, intent, claim and publication are written one by one, and there are more.
const OF_A_BOOTSTRAP: u64 = 10;
/// Of a failover: claim, publication, the new replica's id, and what the replicas then are.
const OF_A_FAILOVER: u64 = 4;
/// The longest time between a change and the kill.
const AFTER: Duration = Duration::from_secs(2);

/// Waits for the moment that chance chose, and kills.
async fn kill_at_random(
    stage: &Stage,
    chance: &mut Chance,
    changes: &mut Changes,
    most: u64,
    round: usize,
) -> Result<()> {
    let (number, moment) = (chance.up_to(most), chance.moment(AFTER));
    println!("round {round}: the operator is killed {moment:?} after change {number} of the shard's status");
    let then = changes.nth(number, stage::SETTLE).await?;
    // The moment is the subject of the test.
    tokio::time::sleep(moment).await;
    println!("round {round}: killed; the change was to {then}");
    operators::kill_all(stage.cluster).await
}

#[test]
fn an_operator_killed_during_bootstrap_initialises_once_and_ends_at_full_redundancy() -> Result<()> {
    run(async {
        let mut chance = Chance::from_environment();
        for round in 0..rounds() {
            let (stage, mut changes) = Stage::begin("reborn", |_| {}).await?;
            kill_at_random(&stage, &mut chance, &mut changes, OF_A_BOOTSTRAP, round).await?;
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
            let different: BTreeSet<_> = ids.iter().collect();
            ensure!(ids.len() >= 3 && different.len() == ids.len(), "server ids: {ids:?}");
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
            let mut changes = stage.changes().await?;
            Fault::Kill.inject(stage.cluster, &stage.namespace, &old).await?;
            kill_at_random(&stage, &mut chance, &mut changes, OF_A_FAILOVER, round).await?;
            stage.promoted(&old, epoch, Duration::from_secs(60)).await?;
            operators::ready(stage.cluster).await?;
            stage.settled().await?;
            let after = stage.shard().await?;
            let new = see::primary(&after);
            ensure!(!see::serving(&after).contains(&old), "{old} serves again: {}", see::shard(&after));
            // A second claim is allowed: the one that was killed may have taken an epoch that nobody serves under.
            ensure!(see::epoch(&after) > epoch, "no epoch was taken");
            let record = stage.record(see::epoch(&after)).await?;
            record::check(
                &record,
                &Truth { from: &old, to: &new, epoch: see::epoch(&after), commits: Commits::WatcherGone },
            )?;
        }
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}
