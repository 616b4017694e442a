//! SIGKILL of a standby's mysqld under load.

use anyhow::{Context, Result, ensure};
use understudy_e2e::fault::Fault;
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{run, see, stage};

#[test]
fn a_killed_standby_is_replaced_on_a_new_volume_the_primary_stays_and_nothing_is_lost() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let victim = see::standbys(&before).pop().context("there is no standby")?;
        let volumes = stage.volumes().await?;
        let load = stage.load(1000).await?;
        Fault::Kill.inject(stage.cluster, &stage.namespace, &victim).await?;
        until(format!("{victim} is given up"), stage::SETTLE, async || {
            let shard = stage.shard().await?;
            let seen = see::shard(&shard);
            Ok(Seen::when(!see::serving(&shard).contains(&victim), (), seen))
        })
        .await?;
        stage.settled().await?;
        let after = stage.shard().await?;
        ensure!(see::primary(&after) == see::primary(&before), "the primary changed to {}", see::primary(&after));
        ensure!(see::epoch(&after) == see::epoch(&before), "the epoch changed to {}", see::epoch(&after));
        let fresh: Vec<_> = see::serving(&after).into_iter().filter(|r| !see::serving(&before).contains(r)).collect();
        ensure!(fresh.len() == 1, "new replicas: {fresh:?}");
        stage.has_new_volume(&fresh[0], &volumes).await?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}
