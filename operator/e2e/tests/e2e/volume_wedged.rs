//! The volume of a primary takes no writes any more, as in 2015: reads answer, commits hang, and mysqld cannot even be killed.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_api::v1alpha1::Shard;
use understudy_e2e::fault::{Fault, heal};
use understudy_e2e::record::{self, Commits, Truth};
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::{run, see};

#[test]
fn a_primary_whose_volume_hangs_is_replaced_while_it_hangs_and_nothing_waits_for_it() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));
        let volumes = stage.volumes().await?;
        let load = stage.load(1000).await?;
        Fault::Wedge.inject(stage.cluster, &stage.namespace, &old).await?;
        let rebuilt = redundant_beside_it(&stage, &old, epoch).await;
        heal(stage.cluster).await?;
        let settled = rebuilt?;

        let new = see::primary(&settled);
        ensure!(see::epoch(&settled) == epoch + 1, "one failover took {} epochs", see::epoch(&settled) - epoch);
        ensure!(see::standbys(&before).contains(&new), "{new} was no standby");
        let fresh: Vec<_> = see::serving(&settled).into_iter().filter(|r| !see::serving(&before).contains(r)).collect();
        ensure!(fresh.len() == 1, "new replicas: {fresh:?}");
        stage.has_new_volume(&fresh[0], &volumes).await?;
        ensure!(stage.volumes().await?.contains_key(&old), "the old volume is not in quarantine, it is gone");
        let record = stage.record(epoch + 1).await?;
        record::check(&record, &Truth { from: &old, to: &new, epoch: epoch + 1, commits: Commits::Watched })?;
        let cause = record.status.and_then(|status| status.cause);
        ensure!(cause.as_deref() == Some("VolumeStalled"), "the cause is {cause:?}");

        // What was stuck in the kernel goes on now, and finds that it is out of office.
        stage.settled().await?;
        let thawed = stage.shard().await?;
        ensure!(see::primary(&thawed) == new && see::epoch(&thawed) == epoch + 1, "thawed: {}", see::shard(&thawed));
        ensure!(!see::serving(&thawed).contains(&old), "{old} serves again");
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}

/// The shard as it is once it has all its copies again, the volume still hanging.
async fn redundant_beside_it(stage: &Stage, old: &str, epoch: i64) -> Result<Shard> {
    stage.promoted(old, epoch, Duration::from_secs(60)).await?;
    stage.settled().await?;
    stage.shard().await
}
