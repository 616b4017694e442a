//! A Failover that a person creates.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::PostParams;
use understudy_api::v1alpha1::{Failover, FailoverKind, FailoverResult, FailoverSpec};
use understudy_e2e::record::{self, Commits, Truth};
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{run, see, stage};

#[test]
fn a_persons_failover_moves_the_primary_to_the_named_standby_and_keeps_the_old_one_as_a_standby() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));
        let target = see::standbys(&before).pop().context("there is no standby")?;
        let load = stage.load(1000).await?;
        let spec = FailoverSpec {
            shard: stage.shard_name(0),
            kind: FailoverKind::Switchover,
            reason: Some("end-to-end test".into()),
            target: Some(target.clone()),
            epoch: None,
            drill: None,
        };
        let request = Failover::new("by-a-person", spec);
        stage.namespace.api::<Failover>().create(&PostParams::default(), &request).await?;

        let after = stage.promoted(&old, epoch, Duration::from_secs(20)).await?;
        ensure!(see::primary(&after) == target, "{} is primary instead of {target}", see::primary(&after));
        stage.settled().await?;
        let settled = stage.shard().await?;
        ensure!(see::standbys(&settled).contains(&old), "{old} is no standby now: {}", see::shard(&settled));
        let record = stage.namespace.api::<Failover>().get("by-a-person").await?;
        record::check(&record, &Truth { from: &old, to: &target, epoch: epoch + 1, commits: Commits::Watched })?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}

#[test]
fn a_failover_to_a_replica_that_does_not_exist_is_refused_with_a_reason() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let spec = FailoverSpec { shard: stage.shard_name(0), target: Some("nobody".into()), ..empty() };
        let request = Failover::new("to-nobody", spec);
        stage.namespace.api::<Failover>().create(&PostParams::default(), &request).await?;
        let refused = until("the request is refused", Duration::from_secs(20), async || {
            let failover = stage.namespace.api::<Failover>().get("to-nobody").await?;
            let seen = see::failover(&failover);
            Ok(Seen::when(see::is_closed(&failover), failover, seen))
        })
        .await?;
        let status = refused.status.unwrap_or_default();
        ensure!(status.result == Some(FailoverResult::Refused), "its result is {:?}", status.result);
        ensure!(
            status.message.as_ref().is_some_and(|m| m.contains("nobody")),
            "it does not say why: {:?}",
            status.message
        );
        let after = stage.shard().await?;
        ensure!(see::epoch(&after) == see::epoch(&before), "a refused request took an epoch");
        Ok(())
    })
}

fn empty() -> FailoverSpec {
    FailoverSpec {
        shard: String::new(),
        kind: FailoverKind::Switchover,
        reason: None,
        target: None,
        drill: None,
        epoch: None,
    }
}
