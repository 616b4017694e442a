//! SIGSTOP of a standby's mysqld under load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use understudy_e2e::calm::Calm;
use understudy_e2e::fault::{Fault, heal};
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{run, see};

#[test]
fn a_frozen_standby_is_replaced_on_a_new_volume_and_the_primary_is_left_alone() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let calm = Calm::of(&stage).await?;
        let victim = see::standbys(&before).pop().context("there is no standby")?;
        let volumes = stage.volumes().await?;
        let load = stage.load(1000).await?;
        Fault::Freeze.inject(stage.cluster, &stage.namespace, &victim).await?;
        let replaced = replaced(&stage, &victim).await;
        heal(stage.cluster).await?;
        replaced?;

        let after = stage.shard().await?;
        let fresh: Vec<_> = see::serving(&after).into_iter().filter(|r| !see::serving(&before).contains(r)).collect();
        ensure!(fresh.len() == 1, "new replicas: {fresh:?}");
        stage.has_new_volume(&fresh[0], &volumes).await?;
        calm.holds(&stage, Duration::from_secs(5)).await?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}

/// A standby gets a minute to answer its manager again.
async fn replaced(stage: &Stage, victim: &str) -> Result<()> {
    until(format!("{victim} is given up"), stage::SETTLE, async || {
        let shard = stage.shard().await?;
        let seen = see::shard(&shard);
        Ok(Seen::when(!see::serving(&shard).contains(&victim.to_owned()), (), seen))
    })
    .await?;
    stage.settled().await
}
