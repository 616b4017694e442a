//! The standby that is to take over dies as well, while it is being promoted.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use understudy_api::v1alpha1::Failover;
use understudy_e2e::fault::Victim;
use understudy_e2e::record::{self, Commits, Truth};
use understudy_e2e::stage::{self, SETTLE};
use understudy_e2e::{run, see};

#[test]
fn a_candidate_that_dies_during_its_promotion_is_followed_by_the_next_in_one_incident() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let old = see::primary(&before);
        let records = stage.namespace.list::<Failover>("").await?;
        let mut standbys = BTreeMap::new();
        for standby in see::standbys(&before) {
            standbys.insert(standby.clone(), Victim::find(&stage.namespace, &standby).await?);
        }
        let primary = Victim::find(&stage.namespace, &old).await?;
        let load = stage.load(1000).await?;
        let mut changes = stage.changes().await?;
        primary.kill().await?;
        let claimed = changes.until("an epoch is claimed", Duration::from_secs(60), see::is_changing).await?;
        let transition = claimed.status.and_then(|status| status.transition).context("it was seen")?;
        let target = transition.to;
        standbys.remove(&target).with_context(|| format!("{target} is no standby"))?.kill().await?;
        let third = standbys.into_keys().next().context("there were two standbys")?;

        // On a slow machine it may have taken office before the signal came: that makes two incidents.
        let mut took_office = false;
        let ended = changes.until(format!("{third} is primary"), Duration::from_secs(120), |shard| {
            took_office |= see::primary(shard) == target;
            see::primary(shard) == third && !see::is_changing(shard)
        });
        let ended = ended.await?;
        stage.settled_within(2 * SETTLE).await?;

        let settled = stage.shard().await?;
        let epoch = see::epoch(&ended);
        ensure!(epoch > transition.epoch, "the second target has no epoch of its own: {}", see::shard(&ended));
        ensure!(see::primary(&settled) == third && see::epoch(&settled) == epoch, "again: {}", see::shard(&settled));
        for dead in [&old, &target] {
            ensure!(!see::serving(&settled).contains(dead), "{dead} serves again: {}", see::shard(&settled));
        }
        let mut new = stage.namespace.list::<Failover>("").await?;
        new.retain(|name, _| !records.contains_key(name));
        let incidents = if took_office { 2 } else { 1 };
        ensure!(new.len() == incidents, "{incidents} incidents, recorded as {:?}", new.keys());
        let from = if took_office { &target } else { &old };
        let record = stage.record(epoch).await?;
        record::check(&record, &Truth { from, to: &third, epoch, commits: Commits::Watched })?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}
