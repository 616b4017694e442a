//! Deleting a Datastore keeps its volumes, unless the spec says otherwise; and what was kept can be read.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use understudy_api::labels;
use understudy_api::names::credentials_secret;
use understudy_api::v1alpha1::{Datastore, DeletionPolicy, Shard};
use understudy_e2e::stage::{SETTLE, Stage};
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{manifest, operators, run, see};

#[test]
fn deleting_a_datastore_keeps_its_volumes_by_default_and_a_person_can_read_them() -> Result<()> {
    run(async {
        let stage = small("kept", DeletionPolicy::Retain).await?;
        let epoch = see::epoch(&stage.shard().await?);
        let before = volumes(&stage).await?;
        delete(&stage).await?;
        let after = stage.volumes().await?;
        ensure!(before.keys().eq(after.keys()), "of the volumes {:?} there are left {:?}", before.keys(), after.keys());
        ensure!(after.values().all(|v| v.metadata.deletion_timestamp.is_none()), "a volume is being deleted");
        for claim in after.keys() {
            read(&stage, claim, epoch).await?;
        }
        stage.namespace.delete().await
    })
}

#[test]
fn deleting_a_datastore_that_says_delete_now_removes_its_volumes() -> Result<()> {
    run(async {
        let stage = small("removed", DeletionPolicy::Retain).await?;
        volumes(&stage).await?;
        let secrets = stage.namespace.api::<Secret>();
        let passwords = credentials_secret(&stage.shard_name(0));
        secrets.get(&passwords).await?;
        // Nobody waits for the Shard to know: the Datastore is asked when it goes.
        stage.change(json!({ "deletionPolicy": "Delete" })).await?;
        delete(&stage).await?;
        until("the volumes and the passwords are gone", Duration::from_secs(60), async || {
            let left = stage.namespace.list::<PersistentVolumeClaim>("").await?;
            let are_gone = left.is_empty() && secrets.get_opt(&passwords).await?.is_none();
            Ok(Seen::when(are_gone, (), format!("{:?}", left.keys())))
        })
        .await?;
        stage.namespace.delete().await
    })
}

#[test]
fn a_datastore_that_says_retain_at_last_keeps_its_volumes_though_the_operator_was_away() -> Result<()> {
    run(async {
        let stage = small("kept-at-last", DeletionPolicy::Delete).await?;
        let before = volumes(&stage).await?;
        operators::kill_all(stage.cluster).await?;
        stage.change(json!({ "deletionPolicy": "Retain" })).await?;
        delete(&stage).await?;
        operators::ready(stage.cluster).await?;
        let after = stage.volumes().await?;
        ensure!(before.keys().eq(after.keys()), "of the volumes {:?} there are left {:?}", before.keys(), after.keys());
        for (name, volume) in &after {
            ensure!(volume.metadata.deletion_timestamp.is_none(), "{name} is being deleted");
            ensure!(volume.metadata.owner_references.as_ref().is_none_or(Vec::is_empty), "{name} has an owner");
        }
        let kept = stage.namespace.list::<PersistentVolumeClaim>(labels::RETAINED).await?;
        ensure!(kept.keys().eq(before.keys()), "marked as kept: {:?}", kept.keys());
        ensure!(
            stage.namespace.api::<Secret>().get_opt(&credentials_secret(&stage.shard_name(0))).await?.is_some(),
            "the passwords of kept volumes are gone"
        );
        stage.namespace.delete().await
    })
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

/// Its volumes. Without one, nothing that is said of all of them would say anything.
async fn volumes(stage: &Stage) -> Result<BTreeMap<String, PersistentVolumeClaim>> {
    let volumes = stage.volumes().await?;
    ensure!(!volumes.is_empty(), "there is no volume");
    Ok(volumes)
}

/// What a person does with a kept volume: the example, and the commands of "Reading a kept volume" in `operator/docs/operations.md`.
async fn read(stage: &Stage, claim: &str, epoch: i64) -> Result<()> {
    const SOCKET: &str = "--socket=/run/kept/mysqld.sock";
    let mut pod: Pod = manifest::first(&manifest::folder("examples/read-kept-volume.yaml"), "Pod")?;
    let name = pod.metadata.name.clone().context("the example has no name")?;
    let spec = pod.spec.as_mut().context("the example has no spec")?;
    let mut volumes = spec.volumes.iter_mut().flatten();
    let kept = volumes.find_map(|volume| volume.persistent_volume_claim.as_mut());
    kept.context("the example mounts no claim")?.claim_name = claim.to_owned();
    let image = manifest::datastore()?.spec.shard_template.mysql.image;
    spec.containers.iter_mut().for_each(|container| container.image = Some(image.clone()));
    stage.namespace.api::<Pod>().create(&PostParams::default(), &pod).await?;

    let inside = async |command: &[&str]| {
        let exec = ["exec", "-n", stage.namespace.name(), &name, "--"];
        stage.cluster.kubectl(&[&exec[..], command].concat(), "").await
    };
    let settings = "SELECT epoch, @@super_read_only, @@skip_networking FROM understudy.epoch";
    let row = until(format!("{claim} is read"), SETTLE, async || {
        Ok(Seen::Done(inside(&["mysql", SOCKET, "-NBe", settings]).await?))
    })
    .await?;
    ensure!(row.trim() == format!("{epoch}\t1\t1"), "epoch, read-only, no network: {row}");
    let dump = ["mysqldump", SOCKET, "--single-transaction", "--set-gtid-purged=OFF", "--databases", "understudy"];
    let dump = inside(&dump).await?;
    ensure!(dump.contains("INSERT INTO `epoch`"), "the dump lacks a row: {dump}");
    stage.namespace.api::<Pod>().delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

async fn delete(stage: &Stage) -> Result<()> {
    let pods = stage.namespace.list::<Pod>(labels::COMPONENT).await?;
    ensure!(!pods.is_empty(), "nothing of the Datastore runs before it is deleted");
    stage.namespace.api::<Datastore>().delete(&stage.datastore, &DeleteParams::default()).await?;
    until("nothing of the Datastore runs", Duration::from_secs(120), async || {
        let shards = stage.namespace.list::<Shard>("").await?;
        let pods = stage.namespace.list::<Pod>(labels::COMPONENT).await?;
        Ok(Seen::when(shards.is_empty() && pods.is_empty(), (), format!("{:?} {:?}", shards.keys(), pods.keys())))
    })
    .await
}
