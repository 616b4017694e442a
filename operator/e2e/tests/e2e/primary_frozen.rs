//! SIGSTOP of a primary's mysqld under load: it accepts connections and does nothing, until it is thawed.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use understudy_api::labels;
use understudy_api::v1alpha1::Shard;
use understudy_e2e::fault::{Fault, heal};
use understudy_e2e::record::{self, Commits, Truth};
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{run, see};

#[test]
fn a_frozen_primary_is_replaced_and_serves_nobody_after_it_has_thawed() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));
        let volumes = stage.volumes().await?;
        let load = stage.load(1000).await?;
        Fault::Freeze.inject(stage.cluster, &stage.namespace, &old).await?;
        let promoted = stage.promoted(&old, epoch, Duration::from_secs(60)).await;
        // At once, before its pod is gone: it may think that it is still primary.
        heal(stage.cluster).await?;
        let after = promoted?;
        let new = see::primary(&after);
        ensure!(see::epoch(&after) == epoch + 1, "one failover took {} epochs", see::epoch(&after) - epoch);
        ensure!(see::standbys(&before).contains(&new), "{new} was no standby");
        ended(&stage, &old).await?;
        stage.settled().await?;

        let settled = stage.shard().await?;
        replaced(&before, &settled, &new)?;
        let fresh: Vec<_> = see::serving(&settled).into_iter().filter(|r| !see::serving(&before).contains(r)).collect();
        ensure!(fresh.len() == 1, "new replicas: {fresh:?}");
        stage.has_new_volume(&fresh[0], &volumes).await?;
        let mut led_to = stage.pods().await?;
        led_to.retain(|_, pod| is_primary(pod));
        ensure!(led_to.keys().eq([&new]), "clients are led to {:?}", led_to.keys());

        let record = stage.record(epoch + 1).await?;
        record::check(&record, &Truth { from: &old, to: &new, epoch: epoch + 1, commits: Commits::Watched })?;
        let cause = record.status.and_then(|status| status.cause);
        ensure!(cause.as_deref() == Some("Stopped"), "the cause is {cause:?}");
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}

/// The one that was thawed is condemned, and its pod goes.
async fn ended(stage: &Stage, old: &str) -> Result<()> {
    until(format!("{old} has ended"), stage::SETTLE, async || {
        let shard = stage.shard().await?;
        let is_there = stage.pods().await?.contains_key(old);
        let is_condemned = !see::serving(&shard).contains(&old.to_owned());
        Ok(Seen::when(is_condemned && !is_there, (), format!("its pod: {is_there}; {}", see::shard(&shard))))
    })
    .await
}

fn replaced(before: &Shard, settled: &Shard, new: &str) -> Result<()> {
    let old = see::primary(before);
    ensure!(see::primary(settled) == new, "the primary changed again, to {}", see::primary(settled));
    ensure!(see::epoch(settled) == see::epoch(before) + 1, "the epoch went on to {}", see::epoch(settled));
    ensure!(!see::serving(settled).contains(&old), "{old} serves again");
    Ok(())
}

fn is_primary(pod: &Pod) -> bool {
    let role = pod.metadata.labels.as_ref().and_then(|all| all.get(labels::ROLE));
    role.is_some_and(|role| role == "primary")
}
