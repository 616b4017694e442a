//! SIGKILL of a primary's mysqld under load.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::fault::Fault;
use understudy_e2e::record::{self, Commits, Truth};
use understudy_e2e::{run, see, stage};

#[test]
fn kill_of_a_primary_promotes_a_standby_replaces_the_server_on_a_new_volume_and_loses_nothing() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));
        let volumes = stage.volumes().await?;
        let load = stage.load(1000).await?;
        Fault::Kill.inject(stage.cluster, &stage.namespace, &old).await?;

        let after = stage.promoted(&old, epoch, Duration::from_secs(20)).await?;
        let new = see::primary(&after);
        ensure!(see::epoch(&after) == epoch + 1, "one failover took {} epochs", see::epoch(&after) - epoch);
        ensure!(see::standbys(&before).contains(&new), "{new} was no standby");
        stage.settled().await?;

        let settled = stage.shard().await?;
        ensure!(see::primary(&settled) == new, "the primary changed again, to {}", see::primary(&settled));
        let serving = see::serving(&settled);
        ensure!(!serving.contains(&old), "{old} serves again");
        let fresh: Vec<_> = serving.iter().filter(|r| !see::serving(&before).contains(r)).collect();
        ensure!(fresh.len() == 1, "new replicas: {fresh:?}");
        stage.has_new_volume(fresh[0], &volumes).await?;
        ensure!(stage.volumes().await?.contains_key(&old), "the old volume is not in quarantine, it is gone");

        let record = stage.record(epoch + 1).await?;
        record::check(&record, &Truth { from: &old, to: &new, epoch: epoch + 1, commits: Commits::Watched })?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}
