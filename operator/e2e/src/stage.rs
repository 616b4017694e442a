//! The small Datastore that most tests share: one shard of three replicas, with gateway, consumer and query. I/O.
//!
//! Tests take it one after the other. Each begins when nothing is left to do in it; a stage that does not come to rest is given up and
//! a new one is built, so that one broken test does not take the others with it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use understudy_api::labels;
use understudy_api::names::shard_of;
use understudy_api::v1alpha1::{
    Consumer, Datastore, DeletionPolicy, Failover, GatewaySpec, PartitionState, QuerySpec, Replica, SecretRef, Shard,
};

use crate::changes::Changes;
use crate::cluster::Cluster;
use crate::ledger::Load;
use crate::namespace::Namespace;
use crate::wait::{Seen, until};
use crate::{manifest, see};

/// How long a shard may take from nothing, or from a lost replica, to full redundancy on a busy machine of two cores.
pub const SETTLE: Duration = Duration::from_secs(180);

/// A Datastore in a namespace of its own.
pub struct Stage {
    /// Where it runs.
    pub cluster: &'static Cluster,
    /// Its namespace.
    pub namespace: Namespace,
    /// Name of the Datastore.
    pub datastore: String,
    /// `ID.SECRET`, as senders and readers show it.
    pub token: String,
}

/// The shared stage, at rest. It stays taken until the guard is dropped.
pub async fn shared() -> Result<MappedMutexGuard<'static, Stage>> {
    static STAGE: Mutex<Option<Stage>> = Mutex::const_new(None);
    let mut slot = STAGE.lock().await;
    if let Some(stage) = slot.as_ref()
        && let Err(error) = stage.let_go().await
    {
        println!("the shared stage is given up: {error:#}");
        *slot = None;
    }
    if slot.is_none() {
        *slot = Some(Stage::build("stage", |_| {}).await?);
    }
    Ok(MutexGuard::map(slot, |s| s.as_mut().expect("it was filled above")))
}

impl Stage {
    /// Builds the quick start's Datastore at the size of a test, changed by `change`, and waits until it is at rest.
    pub async fn build(name: &str, change: impl FnOnce(&mut Datastore)) -> Result<Self> {
        let (stage, _) = Self::begin(name, change).await?;
        stage.settled().await?;
        Ok(stage)
    }

    /// The same without the wait. Every change of the shard's status is counted, from the first.
    pub async fn begin(name: &str, change: impl FnOnce(&mut Datastore)) -> Result<(Self, Changes)> {
        let (stage, datastore) = Self::prepare(name, change).await?;
        let changes = stage.changes().await?;
        let datastores = stage.namespace.api::<Datastore>();
        datastores.create(&PostParams::default(), &datastore).await.context("cannot make the Datastore")?;
        Ok((stage, changes))
    }

    async fn prepare(name: &str, change: impl FnOnce(&mut Datastore)) -> Result<(Self, Datastore)> {
        let cluster = Cluster::get().await?;
        let namespace = Namespace::create(&cluster.client, name).await?;
        let token = Token::new()?;
        namespace.secret("tokens", &[("tests", token.entry("e2e"))]).await?;
        let example = manifest::datastore()?;
        let mut datastore = Datastore::new("e2e", example.spec);
        let spec = &mut datastore.spec;
        spec.shards = 1;
        spec.shard_template.replicas = 3;
        spec.kafka.partitions = 4;
        spec.kafka.topic = namespace.name().to_owned();
        let tokens = SecretRef { name: "tokens".into(), namespace: None };
        spec.gateway = spec.gateway.take().map(|gateway| GatewaySpec { tokens: tokens.clone(), ..gateway });
        spec.query = spec.query.take().map(|query| QuerySpec { tokens: None, ..query });
        spec.deletion_policy = DeletionPolicy::Delete;
        change(&mut datastore);
        Ok((Self { cluster, namespace, datastore: "e2e".into(), token: token.whole }, datastore))
    }

    /// Name of its shard with this index.
    pub fn shard_name(&self, index: i32) -> String {
        shard_of(&self.datastore, index)
    }

    /// Its only shard.
    pub async fn shard(&self) -> Result<Shard> {
        Ok(self.namespace.api::<Shard>().get(&self.shard_name(0)).await?)
    }

    /// Changes of the status of its only shard, from now on.
    pub async fn changes(&self) -> Result<Changes> {
        Changes::of(&self.namespace.api(), &self.shard_name(0)).await
    }

    /// Replicas of its only shard.
    pub async fn replicas(&self) -> Result<BTreeMap<String, Replica>> {
        self.namespace.list(&self.of_shard()).await
    }

    /// Volumes of its only shard.
    pub async fn volumes(&self) -> Result<BTreeMap<String, PersistentVolumeClaim>> {
        self.namespace.list(&self.of_shard()).await
    }

    /// Pods of its only shard's replicas.
    pub async fn pods(&self) -> Result<BTreeMap<String, Pod>> {
        self.namespace.list(&format!("{},{}=replica", self.of_shard(), labels::COMPONENT)).await
    }

    fn of_shard(&self) -> String {
        format!("{}={}", labels::SHARD, self.shard_name(0))
    }

    /// Lets go of the levers that a test which failed may have left pulled, and waits until it is at rest: with them it would be at rest as
    /// well, and no later test would see a failover.
    async fn let_go(&self) -> Result<()> {
        let levers = serde_json::json!({"paused": false, "shardTemplate": {"failover": {"mode": "Automatic"}}});
        self.change(levers).await?;
        self.settled().await
    }

    /// Waits until every shard has all that its spec asks for, no change of primary is under way, and the consumer runs.
    pub async fn settled(&self) -> Result<()> {
        self.settled_within(SETTLE).await
    }

    /// The same with another limit, where more than one replica is made.
    pub async fn settled_within(&self, limit: Duration) -> Result<()> {
        until(format!("the Datastore in {} is at rest", self.namespace.name()), limit, async || {
            let datastore = self.namespace.api::<Datastore>().get(&self.datastore).await?;
            if let Some(why) = see::wanting(&datastore) {
                return Ok(Seen::NotYet(why));
            }
            for index in 0..datastore.spec.shards {
                let Some(shard) = self.namespace.api::<Shard>().get_opt(&self.shard_name(index)).await? else {
                    return Ok(Seen::NotYet(format!("no shard {index}")));
                };
                if let Some(why) = see::unsettled(&shard) {
                    return Ok(Seen::NotYet(format!("shard {index}: {why}: {}", see::shard(&shard))));
                }
            }
            let records = self.namespace.list::<Failover>("").await?;
            if let Some((name, open)) = records.iter().find(|(_, r)| !see::is_closed(r)) {
                return Ok(Seen::NotYet(format!("{name} is open: {}", see::failover(open))));
            }
            self.services(&datastore).await
        })
        .await
    }

    async fn services(&self, datastore: &Datastore) -> Result<Seen<()>> {
        for (component, wanted, port) in [
            ("gateway", datastore.spec.gateway.as_ref().map(|g| g.replicas), 8080),
            ("query", datastore.spec.query.as_ref().map(|q| q.replicas), 8090),
        ] {
            let ready = self.addresses(component, port).await?.len();
            if (ready as i32) < wanted.unwrap_or(0) {
                return Ok(Seen::NotYet(format!("{ready} pods of the {component} are ready")));
            }
        }
        let consumers = self.namespace.list::<Consumer>("").await?;
        let partitions: Vec<_> = consumers.values().flat_map(|c| c.status.iter().flat_map(|s| &s.partitions)).collect();
        let running = partitions.iter().filter(|p| p.state == PartitionState::Running).count();
        let all = running == partitions.len() && running >= datastore.spec.kafka.partitions as usize;
        Ok(Seen::when(all, (), format!("{running} of {} partitions run", datastore.spec.kafka.partitions)))
    }

    /// `http://IP:PORT` of the ready pods of the gateway or the query service.
    pub async fn addresses(&self, component: &str, port: u16) -> Result<Vec<String>> {
        let selector = format!("{}={},{}={component}", labels::DATASTORE, self.datastore, labels::COMPONENT);
        Ok(see::addresses(self.namespace.list::<Pod>(&selector).await?.values(), port))
    }

    /// Starts sending `rate` samples a second, and returns when the first were acknowledged.
    pub async fn load(&self, rate: u32) -> Result<Load> {
        Load::start(self, rate).await
    }

    /// Changes the Datastore's spec by a merge patch.
    pub async fn change(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(serde_json::json!({ "spec": spec }));
        self.namespace.api::<Datastore>().patch(&self.datastore, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until the shard's primary is another than `old`, under an epoch above `epoch`.
    pub async fn promoted(&self, old: &str, epoch: i64, limit: Duration) -> Result<Shard> {
        until(format!("{old} is replaced as primary"), limit, async || {
            let shard = self.shard().await?;
            let primary = see::primary(&shard);
            let moved =
                see::epoch(&shard) > epoch && !see::is_changing(&shard) && primary != old && !primary.is_empty();
            let seen = see::shard(&shard);
            Ok(Seen::when(moved, shard, seen))
        })
        .await
    }

    /// The record of the promotion that took this epoch, once it is closed.
    pub async fn record(&self, epoch: i64) -> Result<Failover> {
        until(format!("the record of epoch {epoch} is closed"), SETTLE, async || {
            let records = self.namespace.list::<Failover>("").await?;
            let of_epoch = |r: &&Failover| r.status.as_ref().is_some_and(|s| s.epoch == Some(epoch));
            match records.values().find(of_epoch) {
                Some(record) if see::is_closed(record) => Ok(Seen::Done(record.clone())),
                Some(record) => Ok(Seen::NotYet(see::failover(record))),
                None => Ok(Seen::NotYet(format!("records: {:?}", records.keys()))),
            }
        })
        .await
    }

    /// A volume is new when it is neither one of `before` nor on the same PersistentVolume.
    pub async fn has_new_volume(&self, replica: &str, before: &BTreeMap<String, PersistentVolumeClaim>) -> Result<()> {
        let volume = |claim: &PersistentVolumeClaim| claim.spec.as_ref().and_then(|s| s.volume_name.clone());
        let now = self.volumes().await?;
        let claim = now.get(replica).with_context(|| format!("{replica} has no volume"))?;
        ensure!(!before.is_empty(), "there was no volume before");
        ensure!(volume(claim).is_some(), "the volume of {replica} is not bound");
        ensure!(!before.contains_key(replica), "{replica} was there before");
        ensure!(
            before.values().all(|old| volume(old) != volume(claim)),
            "{replica} has a volume that was there before"
        );
        Ok(())
    }
}

/// A token and what the gateway's Secret holds of it.
struct Token {
    whole: String,
}

impl Token {
    fn new() -> Result<Self> {
        let unique = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos().to_string();
        Ok(Self { whole: format!("tests.{}", hex(&Sha256::digest(unique))) })
    }

    fn entry(&self, tenant: &str) -> String {
        format!("{tenant} sha256:{}", hex(&Sha256::digest(&self.whole)))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_holds_the_hash_of_the_whole_token() {
        let token = Token { whole: "tests.abc".into() };
        assert_eq!(token.entry("e2e"), "e2e sha256:8ee9f753c2e2e4baf027c753f3f53a212f84f0068d00b79cb42317cd07000f39");
    }
}
