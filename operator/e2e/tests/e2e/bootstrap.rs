//! From nothing to one primary and two standbys.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Endpoints, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use understudy_api::v1alpha1::Shard;
use understudy_api::{conditions, labels, names};
use understudy_e2e::sql::Account;
use understudy_e2e::stage::SETTLE;
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{run, see, sql, stage};

#[test]
fn a_shard_comes_to_a_primary_and_two_standbys_on_three_nodes() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let all = [conditions::READY, conditions::PRIMARY_HEALTHY, conditions::PROMOTABLE, conditions::REDUNDANT];
        // A standby that has just joined may still have to catch up, and Redundant says so.
        let shard = until("all conditions of the shard hold", SETTLE, async || {
            let shard = stage.shard().await?;
            let conditions = shard.status.iter().flat_map(|status| &status.conditions).cloned().collect::<Vec<_>>();
            let hold = all.iter().all(|condition| conditions::holds(&conditions, condition));
            Ok(Seen::when(hold, shard, format!("{conditions:?}")))
        })
        .await?;
        let status = shard.status.clone().unwrap_or_default();
        let bootstrap = status.bootstrap.unwrap_or_default();
        ensure!(
            bootstrap.completed && shard.metadata.uid.as_ref() == Some(&bootstrap.shard_uid),
            "the intent is {bootstrap:?}"
        );

        let replicas = stage.replicas().await?;
        let serving = see::serving(&shard);
        ensure!(
            serving.len() == 3 && serving.iter().all(|replica| replicas.contains_key(replica)),
            "of {serving:?} there are {:?}",
            replicas.keys()
        );
        let ids: BTreeSet<_> = replicas.values().map(|r| r.spec.server_id).collect();
        ensure!(ids.len() == replicas.len(), "server ids are used twice: {ids:?}");
        let nodes: BTreeSet<_> = status.replicas.iter().filter_map(|r| r.node.clone()).collect();
        let zones: BTreeSet<_> = status.replicas.iter().filter_map(|r| r.zone.clone()).collect();
        ensure!(nodes.len() == 3 && zones.len() == 3, "three replicas on nodes {nodes:?} in zones {zones:?}");
        let volumes = stage.volumes().await?;
        for name in replicas.keys() {
            ensure!(volumes.contains_key(name), "{name} has no volume: {:?}", volumes.keys());
        }
        Ok(())
    })
}

#[test]
fn only_the_primary_takes_writes_and_standbys_follow_it_by_gtid() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let shard = stage.shard().await?;
        let name = stage.shard_name(0);
        let ask = async |replica: &str, statement: &str| {
            sql::ask(stage.cluster, &stage.namespace, (&name, replica), Account::Reader, statement)
                .await
                .map(|s| s.trim().to_owned())
        };
        let primary = see::primary(&shard);
        ensure!(ask(&primary, "SELECT @@super_read_only").await? == "0", "{primary} does not take writes");
        let epoch = ask(&primary, "SELECT epoch, primary_replica FROM understudy.epoch").await?;
        ensure!(epoch == format!("{}\t{primary}", see::epoch(&shard)), "the epoch in MySQL is {epoch}");
        let standbys = see::standbys(&shard);
        ensure!(standbys.len() == 2, "standbys: {standbys:?}");
        for standby in standbys {
            ensure!(ask(&standby, "SELECT @@super_read_only").await? == "1", "{standby} takes writes");
            let settings = ask(&standby, "SELECT @@gtid_mode, @@binlog_format, @@sync_binlog").await?;
            ensure!(settings == "ON\tROW\t1", "{standby} runs with {settings}");
            let how = "SELECT auto_position FROM performance_schema.replication_connection_configuration";
            let source = sql::ask(stage.cluster, &stage.namespace, (&name, &standby), Account::Admin, how).await?;
            ensure!(source.trim() == "1", "{standby} does not follow by GTID: {source}");
        }
        Ok(())
    })
}

#[test]
fn services_and_labels_lead_outside_clients_to_the_roles() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let shard = stage.shard().await?;
        let name = stage.shard_name(0);
        let behind = async |service: String| -> Result<BTreeSet<String>> {
            stage.namespace.api::<Service>().get(&service).await?;
            let endpoints = stage.namespace.api::<Endpoints>().get(&service).await?;
            let addresses = endpoints.subsets.into_iter().flatten().flat_map(|s| s.addresses.unwrap_or_default());
            Ok(addresses.filter_map(|a| a.target_ref?.name).collect())
        };
        ensure!(behind(names::primary_service(&name)).await? == [see::primary(&shard)].into(), "not the primary alone");
        let standbys: BTreeSet<_> = see::standbys(&shard).into_iter().collect();
        ensure!(standbys.len() == 2, "standbys: {standbys:?}");
        ensure!(behind(names::standbys_service(&name)).await? == standbys, "not the standbys");
        let pods = stage.pods().await?;
        ensure!(see::serving(&shard).iter().all(|replica| pods.contains_key(replica)), "pods: {:?}", pods.keys());
        for (pod, object) in pods {
            let role = object.metadata.labels.unwrap_or_default().remove(labels::ROLE).unwrap_or_default();
            let expected = if pod == see::primary(&shard) { "primary" } else { "standby" };
            ensure!(role == expected, "{pod} is labelled {role}");
        }
        Ok(())
    })
}

#[test]
fn all_that_belongs_to_a_shard_is_made_and_says_so() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let name = stage.shard_name(0);
        let selector = format!("{}={name}", labels::SHARD);
        let budgets = stage.namespace.list::<PodDisruptionBudget>(&selector).await?;
        ensure!(!budgets.is_empty(), "there is no PodDisruptionBudget");
        for secret in [names::credentials_secret(&name), names::shard_tls_secret(&name)] {
            stage.namespace.api::<Secret>().get(&secret).await?;
        }
        let claims = stage.namespace.list::<PersistentVolumeClaim>(&selector).await?;
        let pods = stage.namespace.list::<Pod>(&format!("{selector},{}=replica", labels::COMPONENT)).await?;
        ensure!(
            claims.len() == 3 && claims.keys().eq(pods.keys()),
            "volumes {:?}, pods {:?}",
            claims.keys(),
            pods.keys()
        );
        let shards = stage.namespace.list::<Shard>(&format!("{}={}", labels::DATASTORE, stage.datastore)).await?;
        ensure!(shards.len() == 1, "shards: {:?}", shards.keys());
        Ok(())
    })
}
