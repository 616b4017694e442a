//! The API server does not answer for a while.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::calm::Calm;
use understudy_e2e::fault::{Victim, freeze_parts};
use understudy_e2e::record::{self, Commits, Truth};
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{run, see};

/// As `cargo lab status` names it.
const API_SERVER: [&str; 1] = ["kube-apiserver"];
/// Longer than an operator leads without it.
const AWAY: Duration = Duration::from_secs(20);

#[test]
fn an_api_server_that_is_away_changes_nothing_while_the_databases_are_well() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let calm = Calm::of(&stage).await?;
        let mut load = stage.load(1000).await?;
        freeze_parts(stage.cluster, &API_SERVER, AWAY).await?;
        load.goes_on(Duration::from_secs(60)).await?;
        stage.settled().await?;
        calm.holds(&stage, Duration::from_secs(10)).await?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}

#[test]
fn a_primary_killed_while_the_api_server_is_away_is_replaced_once_when_it_is_back() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));
        let load = stage.load(1000).await?;
        let victim = Victim::find(&stage.namespace, &old).await?;
        let kill = async {
            is_away(&stage).await?;
            victim.kill().await
        };
        tokio::try_join!(freeze_parts(stage.cluster, &API_SERVER, AWAY), kill)?;
        let after = stage.promoted(&old, epoch, Duration::from_secs(90)).await?;
        let new = see::primary(&after);
        ensure!(see::epoch(&after) == epoch + 1, "one failover took {} epochs", see::epoch(&after) - epoch);
        stage.settled().await?;

        let calm = Calm::of(&stage).await?;
        calm.holds(&stage, Duration::from_secs(10)).await?;
        let settled = stage.shard().await?;
        ensure!(see::primary(&settled) == new, "the primary changed again, to {}", see::primary(&settled));
        ensure!(see::epoch(&settled) == epoch + 1, "the epoch went on to {}", see::epoch(&settled));
        ensure!(!see::serving(&settled).contains(&old), "{old} serves again");
        // The operator that had led before may not be the one that leads after.
        let record = stage.record(epoch + 1).await?;
        record::check(&record, &Truth { from: &old, to: &new, epoch: epoch + 1, commits: Commits::WatcherGone })?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}

async fn is_away(stage: &Stage) -> Result<()> {
    until("the API server is away", Duration::from_secs(10), async || {
        let asked = tokio::time::timeout(Duration::from_secs(1), stage.cluster.client.apiserver_version()).await;
        Ok(Seen::when(asked.is_err(), (), "it answers"))
    })
    .await
}
