//! Deleting a Datastore keeps its volumes, unless the spec says otherwise.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::DeleteParams;
use serde_json::json;
use understudy_api::labels;
use understudy_api::v1alpha1::{Datastore, DeletionPolicy, Shard};
use understudy_e2e::run;
use understudy_e2e::stage::Stage;
use understudy_e2e::wait::{Seen, until};

#[test]
fn deleting_a_datastore_keeps_its_volumes_by_default() -> Result<()> {
    run(async {
        let stage = small("kept", DeletionPolicy::Retain).await?;
        let before = stage.volumes().await?;
        delete(&stage).await?;
        let after = stage.volumes().await?;
        ensure!(before.keys().eq(after.keys()), "of the volumes {:?} there are left {:?}", before.keys(), after.keys());
        ensure!(after.values().all(|v| v.metadata.deletion_timestamp.is_none()), "a volume is being deleted");
        stage.namespace.delete().await
    })
}

#[test]
fn deleting_a_datastore_that_says_delete_now_removes_its_volumes() -> Result<()> {
    run(async {
        let stage = small("removed", DeletionPolicy::Delete).await?;
        for (policy, is_owned) in [("Retain", false), ("Delete", true)] {
            stage.change(json!({ "deletionPolicy": policy })).await?;
            until(format!("the volumes follow the policy {policy}"), Duration::from_secs(30), async || {
                let volumes = stage.volumes().await?;
                let follow = volumes.values().all(|v| has_owner(v) == is_owned);
                Ok(Seen::when(follow, (), format!("{:?}", volumes.keys())))
            })
            .await?;
        }
        delete(&stage).await?;
        until("the volumes are gone", Duration::from_secs(60), async || {
            let left = stage.namespace.list::<PersistentVolumeClaim>("").await?;
            Ok(Seen::when(left.is_empty(), (), format!("{:?}", left.keys())))
        })
        .await?;
        stage.namespace.delete().await
    })
}

fn has_owner(volume: &PersistentVolumeClaim) -> bool {
    volume.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty())
}

async fn small(name: &str, policy: DeletionPolicy) -> Result<Stage> {
    Stage::build(name, |datastore| {
        datastore.spec.shard_template.replicas = 1;
        datastore.spec.deletion_policy = policy;
        datastore.spec.gateway = None;
        datastore.spec.query = None;
        datastore.spec.consumer.replicas = 1;
    })
    .await
}

async fn delete(stage: &Stage) -> Result<()> {
    stage.namespace.api::<Datastore>().delete(&stage.datastore, &DeleteParams::default()).await?;
    until("nothing of the Datastore runs", Duration::from_secs(120), async || {
        let shards = stage.namespace.list::<Shard>("").await?;
        let pods = stage.namespace.list::<Pod>(labels::COMPONENT).await?;
        Ok(Seen::when(shards.is_empty() && pods.is_empty(), (), format!("{:?} {:?}", shards.keys(), pods.keys())))
    })
    .await
}
