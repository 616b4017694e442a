//! More replicas, fewer replicas, more shards.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::json;
use understudy_api::v1alpha1::Datastore;
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::{run, see};

#[test]
fn a_shard_grows_by_a_standby_and_shrinks_by_one_without_a_change_of_primary() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        for replicas in [4, 3] {
            stage.change(json!({"shardTemplate": {"replicas": replicas}})).await?;
            stage.settled().await?;
            let after = stage.shard().await?;
            ensure!(see::serving(&after).len() == replicas, "{} for {replicas} replicas", see::shard(&after));
            ensure!(see::primary(&after) == see::primary(&before), "the primary changed to {}", see::primary(&after));
            ensure!(see::epoch(&after) == see::epoch(&before), "the epoch changed to {}", see::epoch(&after));
        }
        Ok(())
    })
}

#[test]
fn a_second_shard_takes_its_share_of_new_data_while_old_data_stays_readable() -> Result<()> {
    run(async {
        let stage = Stage::build("shards", |datastore| datastore.spec.shard_template.replicas = 1).await?;
        let load = stage.load(500).await?;
        stage.change(json!({"shards": 2})).await?;
        stage.settled().await?;
        let status = stage.namespace.api::<Datastore>().get(&stage.datastore).await?.status.unwrap_or_default();
        let mut last = BTreeMap::new();
        for placement in &status.placements {
            let entry = last.entry(placement.partition).or_insert(placement);
            if placement.from_offset >= entry.from_offset {
                *entry = placement;
            }
        }
        let moved = last.values().filter(|p| p.shard == stage.shard_name(1)).count();
        ensure!(moved == 2, "{moved} of 4 partitions feed the second shard: {:?}", status.placements);
        ensure!(status.placements.iter().filter(|p| p.from_offset == 0).count() == 4, "the old placements are gone");
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        stage.namespace.delete().await
    })
}
